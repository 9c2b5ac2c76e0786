"""Adjacent chunks of one text become one event: where an agent's events wait for their log, and where a log is replayed
in short. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Generic, TypeVar

from emitter.wire.entries import Entry
from emitter.wire.limits import BLOCK_BYTES

MERGED_DELTA_BYTES = 16 * 1024
"""Of the text of one event, as encoded."""
_STRING = rb'[^"\\]*(?:\\.[^"\\]*)*'
_TEXT = re.compile(_STRING)
_CHUNK = re.compile(
    rb'(\{"type":"(?:message|thinking):delta","executionId":"%b","ts":)[0-9]+'
    rb'(,(?:"[A-Za-z]+":"%b",)*"data":\{"messageId":"%b","delta":")%b"\}\}' % ((_STRING,) * 4)
)
"""A stored chunk: its JSON before the time, and from there to the text. Both are equal for chunks of one text: they
tell the type, the message and who speaks."""
_END = b'"}}'

P = TypeVar("P", str, bytes)


class Run(Generic[P]):
    """Chunks of one text that are one event. Sizes are those of the encoded chunks."""

    __slots__ = ("parts", "size")

    def __init__(self, part: P, size: int) -> None:
        self.parts: list[P] = [part]
        self.size = size

    def add(self, part: P, size: int, max_size: int) -> bool:
        """Take more of the text; false if it begins another event."""
        if self.size + size > max_size:
            return False
        self.parts.append(part)
        self.size += size
        return True


class _StoredRun(Run[bytes]):
    """Chunks as a log has them. `chunk` is the match of the first."""

    __slots__ = ("_digits", "_head", "_max_size", "_start", "_tail")

    def __init__(self, first: Entry, chunk: re.Match[bytes], max_bytes: int) -> None:
        self._head, self._tail = chunk.groups()
        self._digits, self._start = chunk.span(2)
        around = self._start + len(_END) + len(first.type) + BLOCK_BYTES
        self._max_size = min(MERGED_DELTA_BYTES, max_bytes - around) if max_bytes else MERGED_DELTA_BYTES
        super().__init__(first.json[: -len(_END)], len(first.json) - self._start - len(_END))

    def follow(self, entries: Sequence[Entry], at: int) -> int:
        """Take what continues the text from this entry on; how many entries. They are compared as they are stored: a
        long replay spends its time here."""
        head, tail, digits, start = self._head, self._tail, self._digits, self._start
        end = at
        while end < len(entries) and (json := entries[end][3]).startswith(head) and json.startswith(tail, digits):
            end += 1
        parts = [entry[3][start:-3] for entry in entries[at:end]]
        if self._take(b"".join(parts)):
            return end - at
        return sum(1 for _ in takewhile(self._take, parts))

    def _take(self, text: bytes) -> bool:
        if b'"' in text and not _TEXT.fullmatch(text):  # the text has ended, and something follows it
            return False
        return self.add(text, len(text), self._max_size)

    def entry(self, last: Entry) -> Entry:
        return Entry(last.ms, last.seq, last.type, b"".join(self.parts) + _END)


def merged(entries: Sequence[Entry], max_bytes: int) -> list[Entry]:
    """The entries, with neighbours that are chunks of one text as one, which has the time of the first and the id of
    the last. The block of such an event in a stream is not over `max_bytes` (0: no limit)."""
    events: list[Entry] = []
    at = 0
    while at < len(entries):
        first = entries[at]
        at += 1
        chunk = _CHUNK.fullmatch(first.json) if first.type.endswith(b":delta") else None
        if chunk is not None:
            run = _StoredRun(first, chunk, max_bytes)
            if count := run.follow(entries, at):
                at += count
                first = run.entry(entries[at - 1])
        events.append(first)
    return events
