"""AG-UI's endpoints: a run is an execution, or what follows a question in one; a thread is its conversation.

A POST that is sent again starts nothing new, and shows the same execution. Closing it stops nothing: an execution is
cancelled at its own endpoint. Cursors are ids of frames, in `Last-Event-ID`, `?cursor=` or `forwardedProps.cursor`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.api_types import InputRequest
from broker.auth import Identity, require
from broker.commands import Commands
from broker.history import TERMINAL_STATES
from broker.problems import Problem, request_id_of
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.interrupts import InterruptId
from broker.protocols.ag_ui.renderer import Known, Renderer, View
from broker.protocols.ag_ui.requests import (
    Resume,
    RunAgentInput,
    answered,
    before,
    conversation_of,
    cursor_of,
    execution_of,
    request_of,
    shared_of,
)
from broker.request import Target
from broker.stream import Streams
from emitter.errors import AlreadyAnswered, ExecutionEnded, ExecutionExists, UnknownExecution
from emitter.wire import EXECUTION_ID, Entry, EventId, Owner

UNANSWERED = "the question was left unanswered"

B = TypeVar("B")
M = TypeVar("M")


class ReadBody(Protocol):
    """The JSON body as one of our types; `Problem` and msgspec's errors for what is none."""

    async def __call__(self, request: web.Request, type_: type[B]) -> B: ...


class Record(NamedTuple):
    """What is known of an execution. `end` is its terminal event's JSON; `thread_id` and `shared` are what its run was
    started with."""

    known: Known
    last: EventId
    conversation_id: str
    thread_id: str
    state: str
    end: bytes | None
    shared: dict[str, Any]


class AgUi:
    """The handlers. `identify(request, scope)` says who calls; `admit(identity)` holds the rate of executions."""

    def __init__(
        self,
        identify: Callable[[web.Request, str], Awaitable[Identity]],
        admit: Callable[[Identity], Awaitable[None]],
        read_body: ReadBody,
        commands: Commands,
        streams: Streams,
        redis: Redis,
    ) -> None:
        self._identify = identify
        self._admit = admit
        self._read_body = read_body
        self._commands = commands
        self._streams = streams
        self._redis: Any = redis

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/ag-ui", self.run),
            web.post("/ag-ui/{agent}", self.run),
            web.get("/ag-ui/{id}", self.attach, allow_head=False),
        ]

    # --- what clients do ---------------------------------------------------------------------------------------------

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Start a run, show again one that was started, or resume one that has asked something."""
        identity = await self._identify(request, "executions:write")
        require(identity, "executions:read")
        run = await self._read_body(request, RunAgentInput)
        if run.resume:
            return await self._resume(request, identity, run, answered(run.resume))
        execution_id = execution_of(run.run_id)
        record = await self._record(identity.owner, execution_id)
        if record is None:
            await self._admit(identity)
            record = await self._start(request, identity, run)
        elif record.conversation_id != conversation_of(run.thread_id):
            raise ExecutionExists(execution_id, record.state)
        return await self._show_again(request, identity, run, execution_id, record)

    async def _start(self, request: web.Request, identity: Identity, run: RunAgentInput) -> Record | None:
        """What is known of it if another request was faster, else None."""
        wanted = request_of(run, request.match_info.get("agent"))
        try:
            await self._commands.execute(identity, wanted, request_id=request_id_of(request), idempotency_key=None)
        except ExecutionExists as known:
            record = await self._record(identity.owner, known.execution_id)
            if record is None or record.conversation_id != wanted.conversation_id:
                raise
            return record
        return None

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Show an execution, from its beginning or from a cursor on. How it was started does not matter."""
        identity = await self._identify(request, "executions:read")
        execution_id = request.match_info["id"]
        record = await self._record(identity.owner, execution_id) if EXECUTION_ID.match(execution_id) else None
        if record is None:
            raise UnknownExecution(execution_id[:64])
        view = View(
            execution_id=execution_id,
            thread_id=request.query.get("threadId") or record.thread_id or execution_id,
            run_id=request.query.get("runId") or execution_id,
            after=_within(_cursor(request, request.query.get("cursor")), record),
            known=record.known,
        )
        return await self._show(request, identity, record, Renderer(view, shared=record.shared))

    # --- resume ------------------------------------------------------------------------------------------------------

    async def _resume(
        self,
        request: web.Request,
        identity: Identity,
        run: RunAgentInput,
        entries: Sequence[tuple[InterruptId, Resume]],
    ) -> web.StreamResponse:
        """Answer what was asked, and show what follows. If others have answered it all, or this request before, the
        client may have parts of what follows, and is shown the execution again."""
        execution_id = entries[0][0].execution_id
        if await self._record(identity.owner, execution_id) is None:
            raise UnknownExecution(execution_id)
        given = [await self._settle(request, identity, *entry) for entry in entries]
        record = await self._record(identity.owner, execution_id)
        if not any(given) or record is None or _cursor(request, cursor_of(run)) is not None:
            return await self._show_again(request, identity, run, execution_id, record)
        place = max((interrupt.place for interrupt, _ in entries), key=lambda place: place.seq)
        view = View(
            execution_id=execution_id,
            thread_id=run.thread_id,
            run_id=run.run_id,
            after=_within(Place(place), record),
            known=record.known,
            is_resumed=True,
        )
        return await self._show(request, identity, record, _renderer(view, run))

    async def _settle(self, request: web.Request, identity: Identity, interrupt: InterruptId, entry: Resume) -> bool:
        """Give a question its answer; whether it still wanted one. Errors of `Commands.answer` otherwise."""
        try:
            if entry.status == "cancelled":
                return await self._leave_unanswered(request, identity, interrupt)
            value = None if entry.payload is msgspec.UNSET else entry.payload
            await self._answer(request, identity, interrupt, value)
        except (AlreadyAnswered, ExecutionEnded):
            return False
        except Problem as problem:
            if problem.slug != "input-expired":
                raise
            return False
        return True

    async def _answer(self, request: web.Request, identity: Identity, interrupt: InterruptId, value: Any) -> None:
        answer = InputRequest(input_id=interrupt.input_id, value=value)
        await self._commands.answer(identity, interrupt.execution_id, answer, request_id_of(request))

    async def _leave_unanswered(self, request: web.Request, identity: Identity, interrupt: InterruptId) -> bool:
        """An approval that is not given is refused. For any other question there is no answer that says so: the
        execution is cancelled."""
        execution_id = interrupt.execution_id
        state = await self._commands.state(identity.owner, execution_id, with_stack=False)
        asked = next((question for question in state.open_inputs if question.input_id == interrupt.input_id), None)
        if asked is None:
            return False
        if asked.kind == "approval":
            await self._answer(request, identity, interrupt, value=False)
        else:
            await self._commands.cancel(identity, execution_id, UNANSWERED, request_id_of(request))
        return True

    # --- show --------------------------------------------------------------------------------------------------------

    async def _show_again(
        self,
        request: web.Request,
        identity: Identity,
        run: RunAgentInput,
        execution_id: str,
        record: Record | None,
    ) -> web.StreamResponse:
        """A run to a client that may have parts of it; `record` is None for one that was started just now."""
        after = _within(_cursor(request, cursor_of(run)), record)
        view = View(
            execution_id=execution_id,
            thread_id=run.thread_id,
            run_id=run.run_id,
            after=after,
            known=Known() if record is None else record.known,
            rewinds=record is not None and after is None,
        )
        return await self._show(request, identity, record, _renderer(view, run))

    async def _show(
        self,
        request: web.Request,
        identity: Identity,
        record: Record | None,
        renderer: Renderer,
    ) -> web.StreamResponse:
        target = Target.execution(identity.owner, renderer.execution_id)
        if record is not None and record.end is not None and not await self._redis.exists(target.log):
            # The log has expired, and only its end is known.
            ended = Entry(*record.last, b"", record.end)
            return web.Response(body=renderer.open() + renderer.render([ended]), headers=renderer.headers)
        return await self._streams.open_rendered(request, target, identity, request_id_of(request), renderer)

    async def _record(self, owner: Owner, execution_id: str) -> Record | None:
        """Read at one moment, so that `known` is what was true then."""
        names = ("state", "ms", "seq", "attempt", "open", "conversationId", "metadata", "end", "params")
        row = await self._redis.hmget(owner.execution(execution_id).record, *names)
        state, ms, seq, attempt, open_, conversation, metadata, end, params = row
        if state is None:
            return None
        has_ended = state.decode() in TERMINAL_STATES
        waits_for = frozenset() if has_ended else frozenset((open_ or b"").decode().split())
        return Record(
            known=Known(int(seq or 0), int(attempt or 1), waits_for),
            last=EventId(int(ms or 0), int(seq or 0)),
            conversation_id=(conversation or b"").decode(),
            thread_id=_member(metadata, str, "agUi", "threadId") or (conversation or b"").decode(),
            state=state.decode(),
            end=end if has_ended else None,
            shared=_member(params, dict, "state") or {},
        )


def _renderer(view: View, run: RunAgentInput) -> Renderer:
    return Renderer(view, before(run.messages, view.execution_id), shared_of(run))


def _member(json: bytes | None, type_: type[M], *path: str) -> M | None:
    """What a record's JSON has at this path, if it is of this type: others write records too."""
    found: Any = msgspec.json.decode(json or b"{}")
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, type_) else None


def _cursor(request: web.Request, given: Any) -> Place | None:
    """Raises `Problem` 400."""
    text = request.headers.get("Last-Event-ID") or given
    if not text:
        return None
    try:
        return Place.parse(str(text))
    except ValueError as error:
        raise Problem(400, "malformed-cursor", str(error), path="cursor") from error


def _within(place: Place | None, record: Record | None) -> Place | None:
    """The cursor, unless it lies beyond the log's end: it is then of another one, and all is shown again."""
    return None if place is None or record is None or place.id.seq > record.last.seq else place
