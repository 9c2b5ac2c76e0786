"""The control events of a stream, which are in no log."""

from __future__ import annotations

from typing import Literal

import msgspec

from broker.executions.types import EventIdText, ExecutionId, ProblemBody
from emitter.events import State
from emitter.values import Millis


class _Control(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class StreamOpen(_Control, frozen=True):
    """First on every stream. A feed has no execution, and its state is `live`."""

    retry_ms: int
    heartbeat_seconds: float
    execution_id: ExecutionId | None = None
    cursor: EventIdText | None = None
    state: State | Literal["live"] | None = None


class StreamLive(_Control, frozen=True):
    """The replay is done. `replayed`: how many events of the log it has shown, also where several came as one."""

    replayed: int


class StreamCursor(_Control, frozen=True):
    """Where the stream stands, after events that the viewer's `types` leave out. Its block has the same `id`, the only
    one of a control event: a client resumes after it."""

    cursor: EventIdText


class StreamReset(_Control, frozen=True):
    """Some history cannot be had. `lost_from` and `lost_to` are ordinals."""

    reason: Literal["trimmed", "diverged", "unknown"]
    lost_from: int | None = None
    lost_to: int | None = None
    resumed_at: EventIdText | None = None


class StreamTokenExpiring(_Control, frozen=True):
    """The token of the stream expires at this time, and the stream ends. It comes a minute before, or at once."""

    expires_at: Millis


class StreamEnd(_Control, frozen=True):
    """The last event of a stream, and why. `problem` is why an edge takes no such stream just now (`refused`): what it
    answers with an error status to others than an `EventSource` (RFC 9457)."""

    reason: str
    problem: ProblemBody | None = None


CONTROL_EVENTS: dict[str, type[msgspec.Struct]] = {
    "stream:open": StreamOpen,
    "stream:live": StreamLive,
    "stream:cursor": StreamCursor,
    "stream:reset": StreamReset,
    "stream:token_expiring": StreamTokenExpiring,
    "stream:end": StreamEnd,
}
