"""The frames of one response's stream, numbered from 0. Pure.

`event:` equals the member `type`, there is no `id:`, and a frame is one `data:` line (Open Responses, "Streaming HTTP
Responses"). A number depends on the log alone, so it is the same on every edge.
"""

from __future__ import annotations

from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


NONE = 10**15
"""A number after all frames."""


class Frames:
    """What is to be sent. Frames up to the number `after` are counted and not made; until `restart`, none are, if the
    response does not begin with the log."""

    __slots__ = ("_after", "_made", "_wanted_after", "number")

    def __init__(self, after: int = -1, *, is_from_start: bool = True) -> None:
        self.number = 0
        """Of the next frame."""
        self._after = after if is_from_start else NONE
        self._wanted_after = after
        self._made: list[bytes] = []

    @property
    def is_ahead(self) -> bool:
        """Whether frames are left out for now."""
        return self.number <= self._after

    def fork(self) -> Frames:
        other = Frames(self._wanted_after)
        other.number, other._after = self.number, self._after
        return other

    def put(self, type_: str, **data: Any) -> None:
        number = self.number
        self.number += 1
        if number > self._after:
            body = encode({"type": type_, "sequence_number": number, **data})
            self._made.append(b"event: %b\ndata: %b\n\n" % (type_.encode(), body))

    def delta(self, type_: bytes, place: bytes, text: str, end: bytes) -> None:
        """A frame with a piece of text: there are many of them."""
        number = self.number
        self.number += 1
        if number > self._after:
            self._made.append(
                b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b,"delta":%b%b}\n\n'
                % (type_, type_, number, place, encode(text), end)
            )

    def done(self) -> None:
        self._made.append(DONE)

    def restart(self) -> None:
        """What comes now is the response."""
        self.number, self._after = 0, self._wanted_after
        self._made.clear()

    def take(self) -> bytes:
        made = b"".join(self._made)
        self._made.clear()
        return made
