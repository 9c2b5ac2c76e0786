"""Which webhooks users may ask for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from broker.base.problem import Problem
from broker.base.settings import Settings
from broker.base.targets import ForbiddenTarget, target_of
from broker.executions.types import WebhookRequest
from emitter.errors import InvalidSetting
from emitter.events import BY_TYPE, DELTAS, ToolProgress
from emitter.wire.envelope import CUSTOM_TYPE
from emitter.wire.webhooks import DEFAULT_EVENTS, Form, Webhook

MAX_HEADERS, MAX_HEADER_BYTES = 16, 8192
EVENTS = frozenset(BY_TYPE) - DELTAS - {ToolProgress.type}
"""What can be asked for: not the events of which an agent may say a hundred a second."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
_OURS = re.compile(
    r"(?:(?:webhook-|proxy-|sec-).*|host|connection|keep-alive|upgrade|te|trailer|transfer-encoding|expect"
    r"|content-(?:length|type|encoding)|user-agent)\Z",
    re.IGNORECASE,
)


class Policy:
    """By the settings of an edge. `is_on`: users may have webhooks."""

    def __init__(self, settings: Settings) -> None:
        self.is_on = bool(settings.webhook_secret)
        self._named: Collection[str] = settings.webhook_allow_hosts
        if not settings.webhook_url:
            return
        if not self.is_on:
            raise InvalidSetting("RUNCAST_WEBHOOK_SECRET", "", "set, because RUNCAST_WEBHOOK_URL is")
        try:
            target_of(settings.webhook_url, self._named)
        except ForbiddenTarget as error:
            raise InvalidSetting("RUNCAST_WEBHOOK_URL", "(a URL)", f"a URL that webhooks may go to: {error}") from None

    def of_request(self, given: WebhookRequest) -> Webhook:
        """Raises `Problem` 422."""
        events = tuple(dict.fromkeys(given.events or DEFAULT_EVENTS))
        for number, type_ in enumerate(events):
            if type_ not in EVENTS and not CUSTOM_TYPE.match(type_):
                what = "chunks are not delivered" if type_ in BY_TYPE else "there is no such event"
                raise _invalid(f"{type_[:80]!r}: {what}", f"$.webhook.events[{number}]")
        return self.checked(given.url, given.headers or {}, events=events, where="$.webhook")

    def checked(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        events: tuple[str, ...],
        where: str,
        form: Form = "runcast",
        name: str = "",
    ) -> Webhook:
        """A webhook that may be stored. Raises `Problem` 422: they are not configured, or this one is not allowed."""
        if not self.is_on:
            what = "this deployment signs no webhooks: its operator has to set RUNCAST_WEBHOOK_SECRET"
            raise Problem(422, "webhooks-not-configured", what, path=where)
        try:
            target_of(url, self._named)
        except ForbiddenTarget as error:
            raise Problem(422, "forbidden-target", str(error), path=f"{where}.url") from None
        _check_headers(headers, where)
        return Webhook(url=url, events=events, headers=dict(headers), form=form, name=name)


def _check_headers(headers: Mapping[str, str], where: str) -> None:
    """Their values are secrets, and not in what is raised."""
    path = f"{where}.headers"
    if len(headers) > MAX_HEADERS or sum(len(name) + len(text) for name, text in headers.items()) > MAX_HEADER_BYTES:
        raise _invalid(f"up to {MAX_HEADERS} headers, of {MAX_HEADER_BYTES} bytes in all", path)
    for name, value in headers.items():
        if not _TOKEN.match(name) or _OURS.match(name):
            raise _invalid(f"{name[:80]!r} is no header that can be given", path)
        if not _VALUE.match(value):
            raise _invalid(f"the value of {name!r} is not printable ASCII", path)


def _invalid(detail: str, path: str) -> Problem:
    return Problem(422, "invalid", detail, path=path)
