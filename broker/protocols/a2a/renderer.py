"""What viewers are shown: a task's updates as they come, or the task alone once it has settled. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

from msgspec.structs import replace

from broker.live.rendering import HOLE, LAST, SSE_HEADERS
from broker.protocols.a2a.codec import Codec, encode
from broker.protocols.a2a.model import StatusUpdate, Update
from broker.protocols.a2a.patterns import Patterns
from broker.protocols.a2a.projection import TaskProjection
from emitter.wire.entries import Entry

JSON_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
HEARTBEAT_SECONDS = 2.0
"""Of the SDK for Python the default client gives up after 5 s of silence."""

MAX_TASK_BYTES = 1024 * 1024
"""Of a larger task its artifacts follow in frames of their own: clients take up to 4 MiB in one."""
BRIEF_HISTORY = 10


class Wrap(NamedTuple):
    """How a binding puts a result on the wire: between a head, which is the request's own, and a tail."""

    head: bytes = b""
    tail: bytes = b""

    def __call__(self, value: Any) -> bytes:
        return self.head + encode(value) + self.tail


PLAIN = Wrap()


def rpc_result(id_: Any) -> Wrap:
    """A JSON-RPC response with the request's id, which clients compare with type and all."""
    return Wrap(b'{"jsonrpc":"2.0","id":' + encode(id_) + b',"result":', b"}")


class TaskStream:
    """The task first, then its updates, up to its end or a question.

    A projection that has taken entries begins with the task at that place, at once.
    """

    name = "a2a"
    headers: Mapping[str, str] = SSE_HEADERS
    heartbeat = b": hb\n"
    heartbeat_seconds = HEARTBEAT_SECONDS

    def __init__(
        self,
        projection: TaskProjection,
        codec: Codec,
        wrap: Wrap = PLAIN,
        *,
        answered: frozenset[str] = frozenset(),
        is_followed: bool = False,
        is_introduced: bool = False,
    ) -> None:
        """`answered` are questions which do not end the stream, since they have their answers later in the log.
        `is_followed`: no question does. `is_introduced`: the client has the task already, and wants what follows."""
        self._projection = projection
        self._codec = codec
        self.fill = wrap.head
        self._wrap = wrap = wrap._replace(head=HOLE if wrap.head else b"")
        self._answered = answered
        self._is_followed = is_followed
        self._is_introduced = is_introduced
        self._is_over = False
        projection.with_whole = codec.takes_whole
        self._patterns = self._make_patterns()
        if is_introduced:
            projection.forget()

    def _make_patterns(self) -> Patterns:
        wrap, codec = self._wrap, self._codec
        return Patterns(self._projection, lambda update: b"data: %b\n\n" % wrap(codec.update(update)))

    @property
    def state_key(self) -> Hashable:
        if not self._is_introduced:
            return None
        form = (self.name, type(self._codec), self._wrap, self._is_followed, self._answered)
        return (*form, *self._projection.state_key)

    def fork(self) -> TaskStream:
        other = copy(self)
        other._projection = self._projection.fork()
        other._patterns = other._make_patterns()
        return other

    @property
    def is_over(self) -> bool:
        return self._is_over

    def open(self) -> bytes:
        return self._introduce() if self._projection.last.seq and not self._is_introduced else b""

    def render(self, entries: Sequence[Entry]) -> bytes:
        if len(entries) == 1:  # as most that are live
            return b"" if self._is_over else self._entry(entries[0])
        frames = []
        for entry in entries:
            if self._is_over:
                break
            frames.append(self._entry(entry))
        return b"".join(frames)

    def _entry(self, entry: Entry) -> bytes:
        moment = self._projection.advance(entry)
        if moment is None:
            return b"" if self._is_introduced or self._projection.last.seq != entry.seq else self._introduce()
        if self._is_introduced and (shown := self._patterns.frame(moment)):
            return shown
        updates = [self._closing(update) for update in self._projection.updates_for(moment)]
        if self._is_introduced:
            return self._frames(entry, updates)
        # The task says all that its first entry did, but not that it was the last one.
        return self._introduce() + self._frames(entry, [update for update in updates if _is_final(update)])

    def _introduce(self) -> bytes:
        self._is_introduced = True
        place = b"id: %d-%d\n" % self._projection.last
        shown = self._frame(self._codec.shown(self._projection.task()), place)
        if len(shown) > MAX_TASK_BYTES:
            shown = self._introduce_in_parts(place)
        self._projection.forget()
        return shown

    def _introduce_in_parts(self, place: bytes) -> bytes:
        task = self._projection.task(history_length=BRIEF_HISTORY, with_artifacts=False)
        made = [self._codec.update(update) for update in self._projection.artifacts()]
        frames = [self._codec.shown(task), *made]
        ids = [b""] * len(made) + [place]  # who loses the connection in between gets all of it again
        return b"".join([self._frame(value, id_) for value, id_ in zip(frames, ids, strict=True)])

    def _closing(self, update: Update) -> Update:
        """The update, final if the stream ends with it."""
        if not _is_final(update) or self._projection.is_terminal:
            return update
        goes_on = self._is_followed or update.metadata.get("inputId") in self._answered
        return replace(update, final=False) if goes_on else update

    def _frames(self, entry: Entry, updates: Sequence[Update]) -> bytes:
        """An entry's updates. Only the last has its id: who loses the connection between two gets both again."""
        if not updates:
            return b""
        shown = b""
        for update in updates[:-1]:
            shown += self._frame(self._codec.update(update), b"")
        self._is_over = any(map(_is_final, updates))
        return shown + self._frame(self._codec.update(updates[-1]), b"id: %d-%d\n" % (entry.ms, entry.seq))

    def _frame(self, value: Any, id_: bytes) -> bytes:
        return b"%bdata: %b\n\n" % (id_, self._wrap(value))


def _is_final(update: Update) -> bool:
    return isinstance(update, StatusUpdate) and update.final


class SettledTask:
    """A `TimedRendering`: the task as one JSON document, once it has ended or waits for an answer, or as it is if its
    edge must close it earlier. Until then blanks, which JSON allows."""

    name = "a2a"
    headers: Mapping[str, str] = {**JSON_HEADERS, **LAST}
    heartbeat = b" "
    heartbeat_seconds = HEARTBEAT_SECONDS
    fill = b""
    state_key: Hashable = None
    cancel_after_ms = 0

    def __init__(self, projection: TaskProjection, answer: Callable[[TaskProjection], bytes]) -> None:
        projection.limit(MAX_TASK_BYTES)
        self._projection = projection
        self._answer = answer
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def fork(self) -> SettledTask:
        raise NotImplementedError  # it is one viewer's alone

    def open(self) -> bytes:
        return b""

    def render(self, entries: Sequence[Entry]) -> bytes:
        for entry in entries:
            if self._projection.take(entry) and self._projection.is_settled:
                return self.farewell()
        return b""

    def begin(self, wake: Callable[[float], None]) -> None:
        """It has no time of its own."""

    def due(self) -> bytes:
        return b""

    def farewell(self) -> bytes:
        self._is_over = True
        return self._answer(self._projection)
