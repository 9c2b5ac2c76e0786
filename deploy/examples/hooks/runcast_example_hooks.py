"""Three hooks for Runcast: one redacts, one enriches, one drops. A hook is `(event, origin) -> event or None`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from emitter import Origin
from emitter.events import Event, Thinking, UsageTotals

MAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]+@[\w-]+(?:\.[\w-]+)+")  # tried once per word: linear
USD_PER_MILLION_TOKENS = {"example-small": (0.25, 1.25), "example-large": (3.0, 15.0)}
"""Model → price of input and of output."""


def redact_mail(event: Event, _: Origin) -> Event:
    """No e-mail address in any text of any event. One that is split over two chunks of streamed text is not seen."""
    fields = msgspec.to_builtins(event)
    clean = _without_mail(fields)
    return event if clean == fields else msgspec.convert(clean, type(event))


def _without_mail(value: Any) -> Any:
    if isinstance(value, str):
        return MAIL.sub("[e-mail]", value)
    if isinstance(value, dict):
        return {_without_mail(key): _without_mail(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_mail(item) for item in value]
    return value


def add_cost(event: Event, _: Origin) -> Event:
    """What the tokens cost, where the agent names a model that has a price and no cost of its own."""
    if not isinstance(event, UsageTotals) or event.cost_usd is not None or event.model is None:
        return event
    if (prices := USD_PER_MILLION_TOKENS.get(event.model)) is None:
        return event
    cost = (event.input_tokens * prices[0] + event.output_tokens * prices[1]) / 1_000_000
    return msgspec.structs.replace(event, cost_usd=round(cost, 6))


def drop_invisible(event: Event, _: Origin) -> Event | None:
    """Thoughts that are not for readers do not even reach the log."""
    return None if isinstance(event, Thinking) and not event.visible else event
