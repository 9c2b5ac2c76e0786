"""The stream for clients that count its chunks and ask for those after a number (`startIndex`). Pure.

`WorkflowChatTransport` (`@ai-sdk/workflow` 2.0.43) asks so until it has had a chunk `finish`. Index 0 is the first
chunk of an execution, as it was shown when it was new, lost attempts included. So a number means the same chunk on
every edge.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from broker.protocols.ai_sdk.approvals import Approvals
from broker.protocols.ai_sdk.renderer import Renderer
from emitter.wire.entries import Entry

TAIL_INDEX = "X-Workflow-Stream-Tail-Index"
MAX_FROM_END = 100_000
"""Who asks for more of the last chunks gets all."""
STEP = b'{"type":"start-step"}'
CALL = b'{"type":"tool-input-available"'
LAST_FRAMES = 2
"""`finish` and `[DONE]`, which every stream has, however far its client has counted."""


class LogTrimmed(Exception):
    """The log has lost its head, and with it the meaning of all numbers of chunks."""


class Place(NamedTuple):
    """Where a stream begins: the index of a chunk; and `tail`, what the client is told to be the index of the last one,
    if it asked for a number of those."""

    start: int
    tail: int | None = None

    @classmethod
    def back_to(cls, start: int, last: int) -> Place:
        """Of who asked for the `last` chunks and gets them from `start` on. He counts on from tail + 1 - last."""
        return cls(start, start - 1 + last)


class Counted(Renderer):
    """A `Rendering` from a chunk on."""

    def __init__(
        self, execution_id: str, place: Place, approvals: Approvals | None = None, *, after: str | None = None
    ) -> None:
        super().__init__(execution_id, approvals=approvals, after=after)
        self._tail = place.tail
        self._is_from_start = place.start == 0 or place.tail is not None
        self._ahead = place.start
        """How many chunks are left out before the first that is shown."""

    @property
    def headers(self) -> Mapping[str, str]:
        return super().headers if self._tail is None else {**super().headers, TAIL_INDEX: str(self._tail)}

    @property
    def state_key(self) -> Hashable:
        return None if self._ahead else super().state_key

    def _take(self, entry: Entry) -> None:
        if not self._first and entry.seq > 1 and not self._is_from_start:
            raise LogTrimmed
        super()._take(entry)

    def _shown(self) -> bytes:
        if self._ahead:
            left_out = min(self._ahead, max(0, len(self._frames) - (LAST_FRAMES if self.is_over else 0)))
            del self._frames[:left_out]
            self._ahead -= left_out
        return super()._shown()


class Counting(Renderer):
    """Counts the chunks of a log, to find the last ones. `last` is how many of them are wanted."""

    def __init__(
        self, execution_id: str, last: int, approvals: Approvals | None = None, *, after: str | None = None
    ) -> None:
        super().__init__(execution_id, approvals=approvals, after=after)
        self._last = last
        self._chunks = 1
        """`start` is one."""
        self._steps: deque[int] = deque([0])
        """Where a stream may begin: the last place before those that are wanted, and all after it."""

    def add(self, entries: Sequence[Entry]) -> None:
        self.render(entries)

    @property
    def place(self) -> Place:
        """The beginning of a step in which no call of an older one is open: a client refuses what ends a part that it
        has not seen begin."""
        self._forget()
        return Place.back_to(self._steps[0], self._last)

    def _take(self, entry: Entry) -> None:
        super()._take(entry)
        frames = self._frames
        if STEP in frames and not self._has_older_calls(frames):
            self._steps.append(self._chunks + frames.index(STEP))
            self._forget()
        self._chunks += len(frames) - (1 if self.is_over else 0)
        frames.clear()

    def _has_older_calls(self, frames: Sequence[bytes]) -> bool:
        new = {json.loads(frame)["toolCallId"] for frame in frames if frame.startswith(CALL)}
        return any(is_open and call_id not in new for call_id, is_open in self._calls.items())

    def _forget(self) -> None:
        """The places before the last one that will do."""
        while len(self._steps) > 1 and self._steps[1] <= self._chunks - self._last:
            self._steps.popleft()


NOTHING = b'data: {"type":"finish"}\n\ndata: [DONE]\n\n'
"""The stream of a chat in which there is nothing to show."""
LATER = b": later\n\n"
"""A stream that ends without a `finish`: its client asks again, at once."""
