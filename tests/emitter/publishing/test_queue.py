"""The queue between an agent and its log."""

from __future__ import annotations

import random

import pytest

from emitter.events import Event, MessageDelta, ThinkingDelta
from emitter.publishing.queue import OVERHEAD_BYTES, EventQueue, escaped_bytes
from emitter.wire.prepared import Prepared


def encode(event: Event, ts: int) -> Prepared:
    assert isinstance(event, MessageDelta | ThinkingDelta)
    return Prepared(event.type, f"{event.message_id}:{event.delta}@{ts}".encode())


def queue(max_events: int = 100, max_bytes: int = 100_000) -> EventQueue:
    return EventQueue(max_events, max_bytes, encode)


def put_delta(queue: EventQueue, text: str, message: str = "m", cls: type = MessageDelta, ts: int = 1) -> None:
    queue.put_delta(cls(message_id=message, delta=text), escaped_bytes(text), ts, 1000)


def drain(queue: EventQueue, max_events: int = 100) -> list[bytes]:
    out: list[bytes] = []
    while len(queue):
        batch = queue.take(max_events, 10_000)
        out += [event.json for event in batch.events]
        queue.done(batch)
    return out


def test_adjacent_chunks_of_one_message_merge() -> None:
    """Chunks that follow each other become one event, with the time of the first."""
    waiting = queue()
    for ts, text in enumerate(("a", "b", "c"), 1):
        put_delta(waiting, text, ts=ts)
    assert len(waiting) == 1
    assert drain(waiting) == [b"m:abc@1"]


def test_chunks_do_not_merge_across_anything() -> None:
    """Another event, another message or another kind of chunk in between keeps chunks apart."""
    waiting = queue()
    put_delta(waiting, "a")
    put_delta(waiting, "b", message="n")
    put_delta(waiting, "c", message="n", cls=ThinkingDelta)
    waiting.put(Prepared("status", b"s"))
    put_delta(waiting, "d", message="n", cls=ThinkingDelta)
    put_delta(waiting, "e", message="n", cls=ThinkingDelta)
    assert drain(waiting) == [b"m:a@1", b"n:b@1", b"n:c@1", b"s", b"n:de@1"]


def test_chunks_do_not_join_a_batch_on_its_way() -> None:
    """What was taken is sent again as it was; a later chunk is an event of its own."""
    waiting = queue()
    put_delta(waiting, "a")
    batch = waiting.take(10, 1000)
    put_delta(waiting, "b")
    assert [event.json for event in batch.events] == [b"m:a@1"]
    assert len(waiting) == 2


def test_merged_chunks_are_bounded() -> None:
    """A merged chunk grows to the limit and not beyond."""
    waiting = queue()
    for _ in range(10):
        put_delta(waiting, "x" * 298)
    assert [len(json) for json in drain(waiting)] == [3 * 298 + 4] * 3 + [298 + 4]


def test_order_never_changes() -> None:
    """Whatever is queued and taken in between, events leave in the order of their calls and nothing is lost."""
    chance = random.Random(7)
    for _ in range(50):
        waiting, put, got = queue(max_events=10_000), "", ""
        for number in range(200):
            word = f"<{number}>"
            put += word
            if chance.random() < 0.6:
                put_delta(waiting, word, message=chance.choice("mn"), cls=chance.choice([MessageDelta, ThinkingDelta]))
            else:
                waiting.put(Prepared("status", f"-:{word}@0".encode()))
            if chance.random() < 0.1:
                batch = waiting.take(chance.randint(1, 20), chance.randint(1, 500))
                got += "".join(event.json.decode()[2:-2] for event in batch.events)
                waiting.done(batch)
        got += "".join(json.decode()[2:-2] for json in drain(waiting))
        assert got == put
        assert waiting.size == 0


def test_batches_are_bounded_in_events_and_bytes() -> None:
    """A batch ends at its number of events, or with the event that reaches its size; one that is larger goes alone."""
    waiting = queue()
    for size in (10, 10, 10, 5000, 10):
        waiting.put(Prepared("status", b"x" * size))
    sizes = []
    while len(waiting):
        batch = waiting.take(2, 1000)
        sizes.append([len(event.json) for event in batch.events])
        waiting.done(batch)
    assert sizes == [[10, 10], [10, 5000], [10]]


def test_sequences_are_dense() -> None:
    """Each batch begins where the one before ended; one taken and not done is counted as waiting."""
    waiting = queue()
    for _ in range(5):
        waiting.put(Prepared("status", b"x"))
    first = waiting.take(2, 1000)
    assert (first.first_seq, len(waiting), waiting.last) == (1, 5, 5)
    waiting.done(first)
    assert (waiting.take(10, 1000).first_seq, len(waiting), waiting.settled) == (3, 3, 2)


def test_full_by_events_and_by_bytes() -> None:
    """The batch on its way counts: memory is what is bounded, not the part of it that waits."""
    waiting = queue(max_events=2)
    waiting.put(Prepared("status", b"x"))
    waiting.take(1, 1000)
    assert not waiting.full
    waiting.put(Prepared("status", b"x"))
    assert waiting.full
    waiting = queue(max_bytes=2 * OVERHEAD_BYTES)
    put_delta(waiting, "x" * OVERHEAD_BYTES)
    assert waiting.full
    assert waiting.drop_deltas() == (1, [1])
    assert (waiting.full, waiting.size, len(waiting)) == (False, 0, 0)


def test_only_queued_chunks_are_given_up() -> None:
    """Other events stay, and so does what is on its way; places are those that the chunks had."""
    waiting = queue()
    put_delta(waiting, "sent")
    batch = waiting.take(1, 1000)
    waiting.put(Prepared("status", b"s"))
    put_delta(waiting, "a")
    put_delta(waiting, "b")
    put_delta(waiting, "c", message="n")
    waiting.put(Prepared("status", b"t"))
    assert waiting.drop_deltas() == (3, [3, 4])
    waiting.done(batch)
    assert drain(waiting) == [b"s", b"t"]


def test_an_answer_travels_alone() -> None:
    """An event that the log may refuse without closing has a batch of its own: a refusal means this one."""
    waiting = queue()
    for mark in ("f", "r:in_1 {}", "f", "f"):
        waiting.put(Prepared("x", b"x", mark))
    sizes = []
    while len(waiting):
        batch = waiting.take(10, 1000)
        sizes.append(len(batch.events))
        waiting.done(batch)
    assert sizes == [1, 1, 2]


def test_clearing_tells_the_loss() -> None:
    """What waits and what was on its way is lost, and nothing remains."""
    waiting = queue()
    for _ in range(3):
        waiting.put(Prepared("status", b"x"))
    waiting.take(1, 1000)
    assert (waiting.clear(), len(waiting), waiting.size, waiting.clear()) == (3, 0, 0, 0)


@pytest.mark.parametrize("text", ["", "abc", 'a"b\\c\n', "é", "\u2028", "😀", "\x00\x1f"])
def test_sizes_are_those_of_the_stored_text(text: str) -> None:
    """The size of a chunk is what it takes in ASCII JSON."""
    import json

    assert escaped_bytes(text) == len(json.dumps(text))


def test_text_without_a_utf8_form_has_no_size() -> None:
    """Half of a surrogate pair is no text."""
    with pytest.raises(UnicodeEncodeError):
        escaped_bytes("a\ud83d")
