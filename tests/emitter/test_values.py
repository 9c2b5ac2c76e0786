"""What a value may be, at the emitter's door."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from emitter.errors import InvalidEvent
from emitter.events import (
    Custom,
    Event,
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    ToolStart,
    UsageTotals,
)
from emitter.values import MAX_DEPTH, MAX_INTEGER, MAX_MILLIS, is_deeper, is_json_deeper
from emitter.wire.envelope import decode_event, encode_data, event_type


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def question(**fields: Any) -> InputRequired:
    return InputRequired(input_id="q", prompt="p", kind="form", **fields)


def refusal(event: Event) -> str:
    with pytest.raises(InvalidEvent) as raised:
        encode_data(event)
    return raised.value.detail


DEEP = nested(MAX_DEPTH + 1)


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (ExecutionComplete(result=DEEP, duration=1), "$.result"),
        (ExecutionComplete(result={"a": [1, {"b": nested(400)}]}, duration=1), "$.result"),
        (ToolStart(call_id="c", tool_name="t", params=DEEP), "$.params"),
        (InputReceived(input_id="q", by="alice", value=DEEP), "$.value"),
        (question(schema={"properties": DEEP}), "$.schema"),
        (Custom(name="x", data={"ok": [], "deep": DEEP}), "$.deep"),
    ],
)
def test_what_is_nested_too_deep_is_refused_with_its_field(event: Event, path: str) -> None:
    """No renderer is ever given a value that its encoder could not take."""
    assert f"nested more than {MAX_DEPTH} deep - at `{path}`" in refusal(event)


def test_what_no_encoder_takes_is_refused() -> None:
    """Neither what is just too deep for our own encoder nor what is far too deep is anything but refused."""
    for levels in (973, 5000):
        refusal(ExecutionComplete(result=nested(levels), duration=1))
    far = 200_000  # Python 3.13 takes 5,000
    with pytest.raises(InvalidEvent):
        decode_event("execution:complete", b'{"duration":1,"result":' + b"[" * far + b"]" * far + b"}")


def test_what_is_nested_as_deep_as_is_allowed_passes() -> None:
    """The bound is exact, and does not count brackets in texts."""
    for value in (nested(MAX_DEPTH), ["[" * 5000, '\\"[{' * 500], [[]] * 5000):
        data = encode_data(ExecutionComplete(result=value, duration=1))
        assert json.loads(data)["result"] == value


def test_the_scan_of_json_finds_the_same_as_a_walk() -> None:
    """Depth is told from the bytes as from the decoded value, whatever the texts in it look like."""
    rng = random.Random(7)
    texts = ['"', "\\", '\\"', "[[[", "}{", 'a"[b', "é\u2028", '\\\\"]']

    def value(levels: int) -> Any:
        kind = rng.randrange(4) if levels else 3
        if kind == 3:
            return rng.choice(texts)
        if kind == 2:
            return {rng.choice(texts): value(levels - 1) for _ in range(rng.randrange(4))}
        return [value(levels - 1) for _ in range(rng.randrange(4))]

    for _ in range(2000):
        made = value(rng.randrange(9))
        encoded = json.dumps(made, ensure_ascii=rng.random() < 0.5).encode()
        for levels in range(9):
            assert is_json_deeper(encoded, levels) == is_deeper(made, levels), encoded


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (question(expires_at=100_000_000_000_000_000), "$.expiresAt"),
        (question(expires_at=MAX_MILLIS + 1), "$.expiresAt"),
        (question(expires_at=-1), "$.expiresAt"),
        (ExecutionStarted(task="t", started_at=2**62, attempt=1), "$.startedAt"),
        (ExecutionSuperseded(from_seq=3, attempt=18446744073709551615), "$.attempt"),
        (ExecutionSuperseded(from_seq=-1, attempt=2), "$.fromSeq"),
        (UsageTotals(input_tokens=MAX_INTEGER + 1, output_tokens=1, total_tokens=1), "$.inputTokens"),
        (ExecutionComplete(result=1, duration=1, tokens_used=-MAX_INTEGER - 1), "$.tokensUsed"),
    ],
)
def test_numbers_out_of_range_are_refused_with_their_field(event: Event, path: str) -> None:
    """Times lie between 1970 and 9999, counts within what every reader of JSON holds exactly: at both doors."""
    assert f"at `{path}`" in refusal(event)
    with pytest.raises(InvalidEvent, match="at `" + path.replace("$", r"\$")):
        decode_event(event_type(event), json.dumps(_fields(event)).encode())


def _fields(event: Event) -> dict[str, Any]:
    wire = {"expires_at": "expiresAt", "started_at": "startedAt", "from_seq": "fromSeq", "tokens_used": "tokensUsed"}
    wire |= {"input_tokens": "inputTokens", "output_tokens": "outputTokens", "total_tokens": "totalTokens"}
    wire |= {"input_id": "inputId"}
    fields = {wire.get(name, name): getattr(event, name) for name in event.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not None}


def test_the_ends_of_the_ranges_pass() -> None:
    """The last moment and the greatest numbers that are allowed are stored as they are."""
    for event in (
        question(expires_at=MAX_MILLIS),
        question(expires_at=0),
        UsageTotals(input_tokens=MAX_INTEGER, output_tokens=-MAX_INTEGER, total_tokens=0),
        ExecutionSuperseded(from_seq=0, attempt=2**31 - 1),
    ):
        assert decode_event(event_type(event), encode_data(event)) == event
