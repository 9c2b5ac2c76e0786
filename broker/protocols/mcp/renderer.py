"""A call that is held: progress while an execution runs, and one response at its end, at a question, or when the time
is over for which a client waits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from broker.executions.fold import Fold
from broker.live.rendering import SSE_HEADERS, Rendering
from broker.protocols.mcp.content import call_result, protocol_error, status_message, structured_result, text
from broker.protocols.mcp.dialects import Legacy, Modern
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.rpc import Json, RequestId, notification
from broker.protocols.mcp.tasks import task_of
from broker.protocols.mcp.versions import LEVELS
from emitter import events
from emitter.events import InputRequired
from emitter.wire.entries import Entry
from emitter.wire.ids import EventId, now_ms

HEARTBEAT_SECONDS = 10.0
"""Hosts give up a call that shows no progress for some minutes."""
MAX_SAID = 500
HIDDEN = ""
GATHER_SECONDS = 0.2
"""How long a question waits for others that are asked together with it."""
TASK_GRACE_SECONDS = 1.0
"""What ends within this time is answered at once, also to clients that take tasks."""
QUIET = frozenset(
    name.encode()
    for name in (
        *("message:delta", "message:complete", "thinking:delta", "tool:progress", "usage", "artifact"),
        *("execution:queued", "execution:superseded", "input:required", "input:received"),
        *events.TERMINAL_STATE_OF,
    )
)
"""Events that are no progress: too many, or shown in another way."""
FOLDED = frozenset(
    name.encode()
    for name in (
        *("execution:queued", "execution:started", "execution:superseded", *events.TERMINAL_STATE_OF),
        *("message:delta", "message:complete", "artifact", "input:required", "input:received"),
        *("plan:created", "phase:start", "phase:complete", "progress", "status"),
    )
)
"""What a call's result is made of. The others are at most said as progress."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A call. `hold_seconds`: None for as long as it takes. `known_seq` is where the log stands at least: questions
    before it may have been answered. `since_ms` counts heartbeats that no event came with."""

    execution_id: str
    asked: Asked
    progress_token: RequestId | None = None
    hold_seconds: float | None = None
    known_seq: int = 0
    log_level: int | None = None
    becomes_task: bool = False
    ttl_ms: int | None = None
    cancel_after_ms: int = 0


class CallRenderer:
    """See `TimedRendering`. It is one viewer's alone."""

    name = "mcp"
    headers: Mapping[str, str] = SSE_HEADERS
    heartbeat_seconds = HEARTBEAT_SECONDS
    fill = b""
    state_key: Hashable = None

    def __init__(self, held: Held, dialect: Modern | Legacy, *, clock: Callable[[], int] = now_ms) -> None:
        self._held = held
        self._dialect = dialect
        self._clock = clock
        self._fold = Fold(held.execution_id)
        self._wake: Callable[[float], None] = lambda _: None
        self._asked: set[str] = set()
        self._said: str | None = None
        self._seq = 0
        self._ms = 0
        self._created_ms = 0
        self._ends_at: int | None = None if held.hold_seconds is None else clock() + int(held.hold_seconds * 1000)
        self._is_over = False
        self.cancel_after_ms = held.cancel_after_ms

    # --- as viewers use it -------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self._is_over

    def fork(self) -> Rendering:
        raise NotImplementedError  # it is one viewer's alone

    def open(self) -> bytes:
        return self._dialect.open()

    def begin(self, wake: Callable[[float], None]) -> None:
        self._wake = wake
        self._wait()

    def render(self, entries: Sequence[Entry]) -> bytes:
        frames = []
        for entry in entries:
            if self._is_over:
                break
            frames.append(self._entry(entry))
        return b"".join(frames)

    @property
    def heartbeat(self) -> bytes:
        """Progress, where the client wants it: a value between the last event's and the next one's, which rises with
        the time since then, on whatever edge."""
        if self._held.progress_token is None or not self._seq or not self._is_caught_up:
            return b": hb\n"
        passed = max(0, self._clock() - self._ms)
        message = self._said or "still running"
        return self._dialect.beat(self._progress(self._seq + passed / (passed + 3_600_000), message), self._seq)

    def due(self) -> bytes:
        """Ask what is open, or end the wait."""
        if not self._is_caught_up:
            self._wake(GATHER_SECONDS)
            return b""
        shown = self._ask()
        if self._is_over:
            return shown
        if self._ends_at is not None and self._clock() >= self._ends_at - 5:
            return shown + self._hand_off()
        self._wait()
        return shown

    def farewell(self) -> bytes:
        """The edge closes the stream: a client of the old era comes back, and goes on."""
        if isinstance(self._dialect, Legacy):
            self._is_over = True
            return self._dialect.pause()
        return self._hand_off()

    # --- what is shown -----------------------------------------------------------------------------------------------

    @property
    def _is_caught_up(self) -> bool:
        return self._seq >= self._held.known_seq

    def _wait(self) -> None:
        if self._ends_at is not None:
            self._wake(max(0.0, (self._ends_at - self._clock()) / 1000))

    def _entry(self, entry: Entry) -> bytes:
        if entry.type in FOLDED or not self._seq:  # whatever a log begins with counts: it may not say that it began
            self._fold.apply_entry(entry)
        self._seq, self._ms = entry.seq, entry.ms
        self._created_ms = self._created_ms or entry.ms
        if self._fold.end:
            return self._end()
        if entry.type == b"input:required":
            self._wake(GATHER_SECONDS)
        return b"" if entry.type in QUIET else self._step(entry)

    def _step(self, entry: Entry) -> bytes:
        """Progress, and a log message for what the agent says it does."""
        held = self._held
        is_logged = entry.type == b"status" and held.log_level is not None and held.log_level <= LEVELS.index("info")
        if held.progress_token is None and not is_logged:
            return b""
        said = _said(entry)
        if said == HIDDEN:
            return b""
        message = self._said = said or self._said
        shown = b""
        if is_logged:
            about = {"level": "info", "logger": self._fold.agent or "runcast", "data": message}
            is_last = held.progress_token is None
            shown = self._dialect.message(notification("notifications/message", about), entry.seq, is_last=is_last)
        if held.progress_token is not None:
            shown += self._dialect.message(self._progress(entry.seq, message), entry.seq)
        return shown

    def _progress(self, progress: float, message: str | None) -> Json:
        params: Json = {"progressToken": self._held.progress_token, "progress": progress}
        return notification("notifications/progress", params | ({"message": message} if message else {}))

    def _end(self) -> bytes:
        self._is_over = True
        state = self._fold.state()
        if (error := protocol_error(state)) is not None:
            return self._dialect.error(error, self._seq)
        return self._dialect.result(call_result(state), self._seq)

    def _ask(self) -> bytes:
        """The open questions. A client that cannot be asked is told of them."""
        open_ = [each for each in self._fold.open_inputs() if each.input_id not in self._asked]
        if not open_ or (self._held.becomes_task and self._is_late()):
            return b""
        asked = self._held.asked
        requests = {each.input_id: asked.request(self._held.execution_id, each) for each in open_}
        able = {input_id: request for input_id, request in requests.items() if request is not None}
        if not able:
            return self._hand_off()
        self._asked |= set(able)
        self._is_over = self._dialect.is_modern
        return self._dialect.ask(able, self._seq)

    def _is_late(self) -> bool:
        return self._ends_at is not None and self._clock() >= self._ends_at - 5

    def _hand_off(self) -> bytes:
        """The call ends, and the execution goes on: as a task, or named by its id."""
        self._is_over = True
        held, place = self._held, str(EventId(self._ms, self._seq))
        state = msgspec.structs.replace(self._fold.state(), execution_id=held.execution_id, cursor=place)
        if held.becomes_task:
            task = task_of(state, created_ms=self._created_ms or self._clock(), ttl_ms=held.ttl_ms)
            return self._dialect.result(task, self._seq, "task")
        return self._dialect.result(hand_off(state, self._fold.open_inputs()), self._seq)


def hand_off(state: Any, open_: Sequence[InputRequired]) -> Json:
    """A result that says that the execution goes on, and what to call next."""
    id_ = state.execution_id
    about: Json = {"executionId": id_, "state": state.status}
    if (message := status_message(state)) is not None:
        about["statusMessage"] = message
    if open_:
        about["openInputs"] = msgspec.to_builtins(list(open_))
        prompts = "; ".join(f"{each.prompt} (inputId {each.input_id}, {each.kind})" for each in open_)
        said = f"Execution {id_} waits for an answer: {prompts}. Ask the user, and give it with answer_input."
    else:
        said = f"Execution {id_} still runs. Call wait_for_execution with this executionId to wait for its result."
    return structured_result(about) | {"content": [text(said)]}


class _Words(msgspec.Struct, rename="camel"):
    """What of an event's data may be said of it, the first that there is; the rest is not decoded."""

    message: Any = None
    current_action: Any = None
    phase_name: Any = None
    tool_name: Any = None
    thought: Any = None
    specialist: Any = None
    status: Any = None
    task: Any = None
    visible: Any = None
    attempt: Any = None


class _Event(msgspec.Struct):
    data: _Words


_events = msgspec.json.Decoder(_Event)


def _said(entry: Entry) -> str | None:
    """What an event says by itself, in a line; `HIDDEN` for what is not for users."""
    try:
        data = _events.decode(entry.json).data
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # of another version, or not by an emitter
    if data.visible is False:
        return HIDDEN
    if entry.type == b"execution:started" and isinstance(data.attempt, int) and data.attempt > 1:
        return f"attempt {data.attempt}"
    words = (data.message, data.current_action, data.phase_name, data.tool_name, data.thought, data.specialist)
    found = next((word for word in (*words, data.status, data.task) if isinstance(word, str) and word), None)
    return None if found is None else found[:MAX_SAID]
