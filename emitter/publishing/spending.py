"""The usage of model calls, read from the forms of several APIs. Pure; it imports no third-party type.

OpenAI's chat completions have `prompt_tokens`, its responses `input_tokens`; LiteLLM writes the former; LangChain's
`usage_metadata` and Anthropic have `input_tokens`, of which Anthropic leaves out what came from or went to its cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from emitter.events import Usage
from emitter.values import MAX_INTEGER

NOTHING_SPENT = Usage(input_tokens=0, output_tokens=0, total_tokens=0)
_INPUT = ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens")
_OUTPUT = ("output_tokens", "completion_tokens", "outputTokens", "completionTokens")
_TOTAL = ("total_tokens", "totalTokens")
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Anthropic's; they count beside `input_tokens`."""


def count(value: Any) -> int:
    """A number of tokens from any value; 0 if it is no number."""
    return round(min(max(_number(value) or 0.0, 0.0), MAX_INTEGER))


def usage_of(reported: Any) -> Usage:
    """The usage of one call, as an API reports it, in one form."""
    if isinstance(reported, Usage):
        return reported
    cached = (
        0 if _first(reported, ("prompt_tokens",)) is not None else sum(count(field(reported, name)) for name in _CACHED)
    )
    given, made = count(_first(reported, _INPUT)) + cached, count(_first(reported, _OUTPUT))
    model = field(reported, "model")
    return Usage(
        input_tokens=given,
        output_tokens=made,
        total_tokens=max(count(_first(reported, _TOTAL)), given + made),
        cost_usd=_number(_first(reported, ("cost_usd", "costUsd", "cost"))),
        model=model if isinstance(model, str) else None,
    )


def plus(one: Usage, other: Usage) -> Usage:
    """Both together. The model is that of the later."""
    costs = [cost for cost in (_number(one.cost_usd), _number(other.cost_usd)) if cost is not None]
    return Usage(
        input_tokens=count(one.input_tokens + other.input_tokens),
        output_tokens=count(one.output_tokens + other.output_tokens),
        total_tokens=count(count(one.total_tokens) + count(other.total_tokens)),
        cost_usd=sum(costs) if costs else None,
        model=other.model or one.model,
    )


def _number(value: Any) -> float | None:
    """None if the value is no finite number."""
    try:
        number = float(value)
    except Exception:  # a foreign `__float__` may raise anything
        return None
    return number if math.isfinite(number) else None


def _first(reported: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := field(reported, name)) is not None), None)


def field(reported: Any, name: str) -> Any:
    """A member of a mapping, or an attribute; None if there is none."""
    try:
        return reported.get(name) if isinstance(reported, Mapping) else getattr(reported, name, None)
    except Exception:  # foreign properties may raise anything
        return None
