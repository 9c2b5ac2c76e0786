"""Which webhooks users may ask for."""

from __future__ import annotations

import pytest

from broker.base.problem import Problem
from broker.base.settings import Settings
from broker.executions.types import WebhookRequest
from broker.webhooks.policy import EVENTS, Policy
from emitter import events
from emitter.errors import InvalidSetting
from emitter.wire.envelope import append_mark, encode_data
from emitter.wire.webhooks import DEFAULT_EVENTS, Webhook
from tests.receivers import SECRET

URL = "https://a.example/"
ON = Settings(webhook_secret=SECRET)


def asked(headers: dict[str, str] | None = None, events: list[str] | None = None, url: str = URL) -> Webhook:
    return Policy(ON).of_request(WebhookRequest(url=url, events=events, headers=headers))


def test_what_is_asked_for() -> None:
    """By default the ends and questions; each type once."""
    assert asked() == Webhook(url=URL)
    types = ["artifact", "custom:a.b", "artifact"]
    given = {"Tenant": "a", "X-Key": "b c", "Authorization": "Bearer x"}
    assert asked(given, types) == Webhook(url=URL, events=("artifact", "custom:a.b"), headers=given)
    assert set(DEFAULT_EVENTS) <= EVENTS


@pytest.mark.parametrize(
    "name",
    [*("Host", "TE", "te", "Connection", "Content-Length", "content-type", "Transfer-Encoding", "Expect", "Upgrade"),
     *("Webhook-Id", "webhook-anything", "Proxy-Authorization", "User-Agent", "a b", "a:b", "", "\u00e9")],
)  # fmt: skip
def test_headers_that_are_ours(name: str) -> None:
    with pytest.raises(Problem) as refused:
        asked({name: "very-secret"})
    assert refused.value.status == 422
    assert "very-secret" not in str(refused.value.body(""))


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0", "\u00e9", "", " a"])
def test_values_that_break_a_header(value: str) -> None:
    with pytest.raises(Problem):
        asked({"X": value})


def test_headers_are_bounded() -> None:
    for given in ({f"X-{number}": "a" for number in range(17)}, {"X": "a" * 9000}):
        with pytest.raises(Problem):
            asked(given)


def test_only_what_the_long_script_appends_can_be_asked_for() -> None:
    """The short one, for events of which there may be a hundred a second, wakes nobody."""
    plain = [
        events.MessageDelta(message_id="m", delta="d"),
        events.ThinkingDelta(message_id="m", delta="d"),
        events.ToolProgress(call_id="c"),
    ]
    assert {event.type for event in plain if append_mark(event, encode_data(event)) == ""} == {*events.BY_TYPE} - EVENTS


@pytest.mark.parametrize(
    ("given", "variable"),
    [({"webhook_url": URL}, "RUNCAST_WEBHOOK_SECRET"),
     ({"webhook_url": "http://a.example/key", "webhook_secret": SECRET}, "RUNCAST_WEBHOOK_URL")],
)  # fmt: skip
def test_an_edge_that_could_not_deliver_does_not_start(given: dict[str, str], variable: str) -> None:
    """And says so without the URL, whose path may be a secret."""
    with pytest.raises(InvalidSetting, match=variable) as refused:
        Policy(Settings(**given))  # type: ignore[arg-type]
    assert "key" not in str(refused.value)
