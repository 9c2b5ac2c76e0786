"""Chunks of one text that are neighbours become one event, in the queue of an emitter and in a replay alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest

from emitter.events import DELTAS, Event, MessageComplete, MessageDelta, Status, ThinkingDelta, ToolProgress
from emitter.publishing.queue import EventQueue
from emitter.store.append import prepare
from emitter.wire.deltas import MERGED_DELTA_BYTES, merged
from emitter.wire.entries import Entry
from emitter.wire.envelope import Envelope, decode_event
from emitter.wire.limits import BLOCK_BYTES, MAX_EVENT_BYTES
from emitter.wire.prepared import Prepared
from emitter.wire.redact import Redactor

REDACT = Redactor()
TEXTS = ["a", "", " the ", 'say "so"', "\\", '\\"', "é", "😀", "\n\n", '"}}', '","delta":"', "x" * 300, "}\u2028{"]
IDS = ["m", "n", 'a "quoted" id', "\\", "ü", ""]
Speaker = tuple[str | None, str | None]
Said = tuple[str, str, str, Speaker]


def entry(event: Event, seq: int, **keys: str) -> Entry:
    stored = prepare(event, "ex_1", redact=REDACT, ts=5000 + seq, **keys)
    return Entry(1000 + seq, seq, stored.type.encode(), stored.json)


def chunk(text: str, seq: int, message_id: str = "m", **keys: str) -> Entry:
    return entry(MessageDelta(message_id=message_id, delta=text), seq, **keys)


def read(one: Entry) -> tuple[Envelope, Event]:
    head = msgspec.json.decode(one.json, type=Envelope)
    assert head.type == one.type.decode()
    return head, decode_event(head.type, head.data)


def said(one: Entry) -> Said | None:
    """Type, message, text and speaker of a chunk; None for another event."""
    head, event = read(one)
    if isinstance(event, MessageDelta | ThinkingDelta):
        return head.type, event.message_id, event.delta, (head.agent, head.parent_id)
    return None


def made_up(dice: random.Random, count: int) -> Iterator[Entry]:
    """A log of chunks, mostly of the text before, and of other events."""
    kind: type[Event] = MessageDelta
    message_id, keys = "m", {}
    for seq in range(1, count + 1):
        if dice.random() < 0.2:
            kind, message_id = dice.choice([MessageDelta, ThinkingDelta]), dice.choice(IDS)
            keys = dice.choice([{}, {}, {"agent": "critic"}, {"agent": "critic", "parent_id": "c1"}])
        if dice.random() < 0.1:
            yield entry(dice.choice([ToolProgress(call_id="c", message="m"), Status(status="s", message="m")]), seq)
        else:
            yield entry(kind(message_id=message_id, delta=dice.choice(TEXTS)), seq, **keys)


@pytest.mark.parametrize("seed", range(40))
def test_a_merged_log_says_the_same(seed: int) -> None:
    """Each event stands for the entries up to its own, which are chunks of one text; no two neighbours of one text are
    left apart; every other event is as it was."""
    log = list(made_up(random.Random(seed), 300))
    short = merged(log, MAX_EVENT_BYTES)
    at = 0
    for one in short:
        run = log[at : next(i for i in range(at, len(log)) if log[i].id == one.id) + 1]
        at += len(run)
        if len(run) == 1:
            assert one == run[0]
            continue
        texts = [said(each) for each in run]
        assert all(text is not None and (*text[:2], text[3]) == (*texts[0][:2], texts[0][3]) for text in texts)
        assert said(one) == (*texts[0][:2], "".join(text[2] for text in texts), texts[0][3])
        assert read(one)[0].ts == read(run[0])[0].ts, "it began then"
        assert one.json.isascii()
    assert at == len(log)
    for first, second in pairwise(short):
        one, other = said(first), said(second)
        assert one is None or other is None or (*one[:2], one[3]) != (*other[:2], other[3])
    assert len(short) < len(log)


@pytest.mark.parametrize("kind", [MessageDelta, ThinkingDelta])
def test_every_type_of_deltas_is_merged(kind: type[Event]) -> None:
    """The types that merge are those that the catalogue calls deltas."""
    assert {MessageDelta.type, ThinkingDelta.type} == DELTAS
    short = merged([entry(kind(message_id="m", delta=text), seq) for seq, text in enumerate("abc", 1)], 0)
    assert [(each.seq, said(each)) for each in short] == [(3, (kind.type, "m", "abc", (None, None)))]


def test_texts_in_turns_stay_as_they_are() -> None:
    """Chunks of two texts in turns are no neighbours: an event for some of them would have no id to resume after."""
    log = [chunk("x", seq, "ab"[seq % 2]) for seq in range(1, 21)]
    assert merged(log, 0) == log


def test_what_ends_a_run() -> None:
    """Another message, another speaker, another type, and any other event."""
    ends = [
        chunk("x", 3, "n"),
        chunk("x", 3, agent="critic"),
        chunk("x", 3, request_id="r"),
        chunk("x", 3, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01"),
        entry(ThinkingDelta(message_id="m", delta="x"), 3),
        entry(MessageComplete(message_id="m"), 3),
    ]
    for end in ends:
        log = [chunk("a", 1), chunk("b", 2), end, chunk("c", 4), chunk("d", 5)]
        assert [each.seq for each in merged(log, 0)] == [2, 3, 5]


@pytest.mark.parametrize(
    "json",
    [
        b'{"type":"message:delta","executionId":"ex_1","ts":5003,"data":{"messageId":"m","delta":"c","more":"d"}}',
        b'{"type":"message:delta","executionId":"ex_1","ts":5003,"data":{"messageId":"m","delta":"c","n":{"a":"b"}}}',
        b'{"type":"message:delta","executionId":"ex_1","ts":5003,"data":{"delta":"c","messageId":"m"}}',
        b'{"type":"message:delta","executionId":"ex_1","ts":5003,"new":{"x":"y"},"data":{"messageId":"m","delta":"c"}}',
        b'{"type":"message:delta","executionId":"ex_1","ts":5003,"data":{"messageId":"m"}}',
        b"not JSON at all",
        b"",
    ],
)
def test_an_event_of_another_form_is_left_alone(json: bytes) -> None:
    """What a later version may write is not understood here, and stays whole, wherever it comes."""
    odd = Entry(1003, 3, b"message:delta", json)
    log = [chunk("a", 1), chunk("b", 2), odd, chunk("c", 4), chunk("d", 5)]
    short = merged(log, 0)
    assert [each.seq for each in short] == [2, 3, 5]
    assert short[1] is odd


@pytest.mark.parametrize("max_bytes", [1024, 4096, MAX_EVENT_BYTES, 0])
def test_no_event_is_too_large(max_bytes: int) -> None:
    """A merged event keeps to the limit of an event's block and to that of merged text; the text goes on in the next.
    What is larger by itself stays."""
    dice = random.Random(max_bytes)
    log = [chunk("é" * dice.randint(1, 60), seq) for seq in range(1, 2000)]
    log.insert(1000, chunk("y" * 3000, 3000))
    short = merged(log, max_bytes)
    sizes = [len(each.json) + BLOCK_BYTES + len(each.type) for each in short if each.seq != 3000]
    assert max(sizes) <= (max_bytes or MERGED_DELTA_BYTES + 300)
    texts = [len(each.json) - len(chunk("", 1).json) for each in short]
    assert max(texts[:-1]) <= max(MERGED_DELTA_BYTES, 3000)
    assert min(sizes[1:-1]) > min(max_bytes or MERGED_DELTA_BYTES, MERGED_DELTA_BYTES) / 2 - 3500
    assert "".join(text[2] for each in short if (text := said(each))) == "".join(
        text[2] for each in log if (text := said(each))
    )


def test_the_queue_and_a_replay_merge_alike() -> None:
    """Chunks that an emitter queues at once come out as the events that a replay makes of them one by one."""

    def encode(event: Event, ts: int) -> Prepared:
        return prepare(event, "ex_1", redact=REDACT, ts=ts)

    dice = random.Random(7)
    queue, log = EventQueue(10_000, 1 << 30, encode), []
    for seq in range(1, 500):
        text, message_id = "x" * dice.randint(1, 400), dice.choice("mmmmmmmmmn")
        log.append(chunk(text, seq, message_id))
        queue.put_delta(MessageDelta(message_id=message_id, delta=text), len(text), 5000 + seq, MERGED_DELTA_BYTES)
    queued = queue.take(10_000, 1 << 30).events
    assert [each.json for each in queued] == [each.json for each in merged(log, MAX_EVENT_BYTES)]
    assert len(queued) < 150
