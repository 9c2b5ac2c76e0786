"""AG-UI's endpoints: a run is an execution, or what follows a question in one; a thread is its conversation.

A POST with a new message of the user, for a run or a thread whose agent is at work and takes messages, is a message to
it, and shows its execution. A POST that is sent again starts nothing new, and shows the same execution. Closing it
stops nothing: an execution is cancelled at its own endpoint. Cursors are ids of frames, in `Last-Event-ID`, `?cursor=`
or `forwardedProps.cursor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions import conversations
from broker.executions.message_types import message_id_of
from broker.executions.types import ExecutionSummary, InputRequest
from broker.http.gateway import MAX_BODY_BYTES, READS, Gateway
from broker.protocols.ag_ui.frames import Place
from broker.protocols.ag_ui.interrupts import InterruptId
from broker.protocols.ag_ui.renderer import Known, Renderer, View
from broker.protocols.ag_ui.requests import (
    Resume,
    RunAgentInput,
    answered,
    asked_id,
    before,
    conversation_of,
    cursor_of,
    execution_of,
    may_steer,
    request_of,
    said_of,
    shared_of,
)
from broker.streams.slots import StreamSlot
from emitter.errors import AlreadyAnswered, ExecutionEnded, ExecutionExists, NotSteerable, UnknownExecution
from emitter.events import TERMINAL_STATES
from emitter.wire.entries import parse_stream
from emitter.wire.ids import EXECUTION_ID, EventId
from emitter.wire.keys import Owner
from emitter.wire.record import Field, Selection, read_object

_RECORD = Selection(
    Field.STATE, Field.MS, Field.SEQ, Field.ATTEMPT, Field.OPEN, Field.CONVERSATION_ID, Field.METADATA, Field.PARAMS
)

M = TypeVar("M")


class Record(NamedTuple):
    """What is known of an execution. `thread_id` and `shared` are what its run was started with."""

    known: Known
    last: EventId
    conversation_id: str
    thread_id: str
    state: str
    shared: dict[str, Any]
    message_id: str | None
    """Of the message that the execution answers, as its client called it."""

    def is_of(self, thread_id: str) -> bool:
        """Whether a run of this thread may show it: one that was started without a conversation is of none yet."""
        return self.conversation_id in ("", conversation_of(thread_id))


class Asked(NamedTuple):
    """A run that was asked for, by whom, and the room that is held to show it."""

    request: web.Request
    identity: Identity
    run: RunAgentInput
    slot: StreamSlot

    @property
    def cursor(self) -> Place | None:
        """Raises `Problem` 400."""
        return _cursor(self.request, cursor_of(self.run))


class AgUi:
    """The handlers."""

    def __init__(self, gateway: Gateway, redis: Redis) -> None:
        self._gateway = gateway
        self._redis: Any = redis

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/ag-ui", self.run),
            web.post("/ag-ui/{name}", self.run),
            web.get("/ag-ui/{name}", self.attach, allow_head=False),
        ]

    # --- what clients do ---------------------------------------------------------------------------------------------

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Start a run, show again one that was started, or resume one that has asked something."""
        identity = await self._gateway.identify(request, "executions:write", "executions:read")
        async with self._gateway.slot(request, identity) as slot:
            run = await self._gateway.read_json(request, RunAgentInput, MAX_BODY_BYTES)
            asked = Asked(request, identity, run, slot)
            if run.resume:
                return await self._resume(asked, answered(run.resume))
            execution_id = execution_of(run.run_id)
            record = await self._record(identity.owner, execution_id)
            if record is None and (steered := await self._steer_thread(asked)) is not None:
                return await self._show_again(asked, steered, await self._record(identity.owner, steered))
            if record is None:
                async with self._gateway.starting(identity):
                    record = await self._start(asked)
            elif not record.is_of(run.thread_id):
                raise ExecutionExists(execution_id, record.state)
            else:
                self._gateway.accepted(request, identity, execution_id, is_new=False)
                await self._steer_run(asked, execution_id, record)
            return await self._show_again(asked, execution_id, record)

    # --- messages to the agent at work -------------------------------------------------------------------------------

    async def _steer_run(self, asked: Asked, execution_id: str, record: Record) -> None:
        """Hand the user's last message to the agent that runs this, if it is another than the one it answers. Raises
        `NotSteerable` and what `Gateway.send_message` does."""
        if record.state in TERMINAL_STATES or record.message_id in (None, asked_id(asked.run)):
            return
        with contextlib.suppress(ExecutionEnded):
            await self._say(asked, execution_id)

    async def _steer_thread(self, asked: Asked) -> str | None:
        """Hand the user's last message to the agent at work in this thread; its execution, or None if the message is
        not for it."""
        owner, message_id = asked.identity.owner, asked_id(asked.run)
        newest = await self._newest(asked) if message_id is not None and may_steer(asked.run) else None
        if newest is None or message_id is None:
            return None
        execution_id, messages = newest.execution_id, self._gateway.commands.messages
        try:
            if await messages.has(owner, execution_id, message_id_of(message_id)):
                return execution_id  # a repeat
            is_for_it = asked.request.match_info.get("name") in (None, newest.agent)
            if not is_for_it or not await messages.is_steerable(owner, execution_id):
                return None
            record = await self._record(owner, execution_id)
            if record is not None and record.message_id == message_id:
                return None  # another answer is wanted
            await self._say(asked, execution_id)
        except (ExecutionEnded, NotSteerable, UnknownExecution):
            return None  # it was faster
        return execution_id

    async def _newest(self, asked: Asked) -> ExecutionSummary | None:
        async with self._gateway.folding(asked.identity):
            found = await conversations.recent(
                self._gateway.commands, asked.identity.owner, conversation_of(asked.run.thread_id), limit=1
            )
        return found[0] if found else None

    async def _say(self, asked: Asked, execution_id: str) -> None:
        said = said_of(asked.run, self._gateway.max_conversation_bytes)
        await self._gateway.send_message(asked.request, asked.identity, execution_id, said)

    async def _start(self, asked: Asked) -> Record | None:
        """What is known of it if another request was faster, else None."""
        request, identity = asked.request, asked.identity
        wanted = request_of(asked.run, request.match_info.get("name"), self._gateway.max_conversation_bytes)
        try:
            await self._gateway.execute(request, identity, wanted)
        except ExecutionExists as known:
            record = await self._record(identity.owner, known.execution_id)
            if record is None or not record.is_of(asked.run.thread_id):
                raise
            self._gateway.accepted(request, identity, known.execution_id, is_new=False)
            return record
        return None

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Show an execution, from its beginning or from a cursor on. How it was started does not matter."""
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        execution_id = request.match_info["name"]
        record = await self._record(identity.owner, execution_id) if EXECUTION_ID.match(execution_id) else None
        if record is None:
            raise UnknownExecution(execution_id[:64])
        cursor = _cursor(request, request.query.get("cursor"))
        view = View(
            execution_id=execution_id,
            thread_id=request.query.get("threadId") or record.thread_id or execution_id,
            run_id=request.query.get("runId") or execution_id,
            after=await self._within(identity.owner, execution_id, cursor, record),
            known=record.known,
        )
        return await self._gateway.show(request, identity, execution_id, Renderer(view, shared=record.shared))

    # --- resume ------------------------------------------------------------------------------------------------------

    async def _resume(self, asked: Asked, entries: Sequence[tuple[InterruptId, Resume]]) -> web.StreamResponse:
        """Answer what was asked, and show what follows. If others have answered it all, or this request before, the
        client may have parts of what follows, and is shown the execution again."""
        owner, run = asked.identity.owner, asked.run
        execution_id = entries[0][0].execution_id
        if await self._record(owner, execution_id) is None:
            raise UnknownExecution(execution_id)
        given = [await self._settle(asked, *entry) for entry in entries]
        record = await self._record(owner, execution_id)
        if not any(given) or record is None or asked.cursor is not None:
            return await self._show_again(asked, execution_id, record)
        place = max((interrupt.place for interrupt, _ in entries), key=lambda place: place.seq)
        view = View(
            execution_id=execution_id,
            thread_id=run.thread_id,
            run_id=run.run_id,
            after=await self._within(owner, execution_id, Place(place), record),
            known=record.known,
            is_resumed=True,
        )
        return await self._show(asked, view)

    async def _settle(self, asked: Asked, interrupt: InterruptId, entry: Resume) -> bool:
        """Give a question its answer; whether it still wanted one. Errors of `Commands.answer` otherwise."""
        try:
            if entry.status == "cancelled":
                await self._decline(asked, interrupt)
                return True
            value = None if entry.payload is msgspec.UNSET else entry.payload
            await self._answer(asked, interrupt, value)
        except (AlreadyAnswered, ExecutionEnded):
            return False
        except Problem as problem:
            if problem.slug != "input-expired":
                raise
            return False
        return True

    async def _answer(self, asked: Asked, interrupt: InterruptId, value: Any) -> None:
        given = InputRequest(input_id=interrupt.input_id, value=value)
        await self._gateway.answer(asked.request, asked.identity, interrupt.execution_id, given)

    async def _decline(self, asked: Asked, interrupt: InterruptId) -> None:
        given = InputRequest(input_id=interrupt.input_id, declined=True)
        await self._gateway.answer(asked.request, asked.identity, interrupt.execution_id, given)

    # --- show --------------------------------------------------------------------------------------------------------

    async def _show_again(self, asked: Asked, execution_id: str, record: Record | None) -> web.StreamResponse:
        """A run to a client that may have parts of it; `record` is None for one that was started just now."""
        after = await self._within(asked.identity.owner, execution_id, asked.cursor, record)
        view = View(
            execution_id=execution_id,
            thread_id=asked.run.thread_id,
            run_id=asked.run.run_id,
            after=after,
            known=Known() if record is None else record.known,
            rewinds=record is not None and after is None,
        )
        return await self._show(asked, view)

    async def _show(self, asked: Asked, view: View) -> web.StreamResponse:
        renderer = Renderer(view, before(asked.run.messages, view.execution_id), shared_of(asked.run))
        return await self._gateway.show(asked.request, asked.identity, view.execution_id, renderer, slot=asked.slot)

    async def _within(
        self, owner: Owner, execution_id: str, place: Place | None, record: Record | None
    ) -> Place | None:
        """The cursor, unless it lies beyond the log's end, or another event has its ordinal: it is then of another log,
        and all is shown again."""
        if place is None or record is None or place.id.seq > record.last.seq:
            return None
        log, id_ = owner.execution(execution_id).log, str(place.id)
        if place.id.seq == 0 or await self._redis.xrange(log, id_, id_):
            return place
        rest = parse_stream(await self._redis.xrange(log, count=1))
        return place if not rest or rest[0].seq > place.id.seq else None

    async def _record(self, owner: Owner, execution_id: str) -> Record | None:
        """Read at one moment, so that `known` is what was true then."""
        found = _RECORD.read(await self._redis.hmget(owner.execution(execution_id).record, *_RECORD.names))
        if found.state is None:
            return None
        return Record(
            # Before a worker has it the first attempt is on its way.
            known=Known(found.seq, max(1, found.attempt), frozenset(() if found.has_ended else found.open_inputs)),
            last=found.last,
            conversation_id=found.conversation_id,
            thread_id=_member(found.metadata, str, "agUi", "threadId") or found.conversation_id,
            state=found.state,
            shared=_member(found.params, dict, "state") or {},
            message_id=_member(found.metadata, str, "agUi", "messageId"),
        )


def _member(json: bytes, type_: type[M], *path: str) -> M | None:
    """What a record's JSON has at this path, if it is of this type: others write records too."""
    found: Any = None
    with contextlib.suppress(ValueError):
        found = read_object(json)
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
