"""What a client may do, whatever its version and binding: start, answer, look, list, cancel, follow."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from broker.auth.permissions import require
from broker.base.fairness import FairSemaphore
from broker.base.problem import Problem
from broker.executions import conversations
from broker.executions.conversations import Past
from broker.executions.message_types import message_id_of
from broker.executions.types import InputRequest
from broker.http.gateway import Gateway, idempotency_key
from broker.live.rendering import Rendering
from broker.protocols.a2a.call import Call, Operation, Pushes
from broker.protocols.a2a.card import Cards
from broker.protocols.a2a.errors import (
    INVALID_PARAMS,
    TASK_NOT_CANCELABLE,
    UNSUPPORTED,
    A2AError,
)
from broker.protocols.a2a.inbound import (
    agent_for,
    answer_of,
    context_of,
    conversation_of,
    declines,
    question_for,
    request_of,
    said_of,
)
from broker.protocols.a2a.model import ListTasks, Message, Send, TaskQuery
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.renderer import SettledTask, TaskStream
from broker.protocols.a2a.tasks import Reached, Tasks
from emitter.errors import ExecutionEnded, ExecutionExists, NotSteerable
from emitter.events import TERMINAL_STATES
from emitter.wire.ids import EventId, parse_event_id
from emitter.wire.webhooks import Webhook

CANCEL_SECONDS = 2.0
"""How long a cancel's answer waits for the worker to obey."""
CANCELS_AT_ONCE, CANCELS_PER_USER = 32, 8
"""That wait so: each does on a Redis connection of its own, of which an edge has 256."""


class Handlers:
    """The operations, by the gateway of an edge."""

    def __init__(self, gateway: Gateway, tasks: Tasks, cards: Cards, pushes: Pushes) -> None:
        self._pushes = pushes
        self._cards = cards
        self._gateway = gateway
        self._commands = gateway.commands
        self._tasks = tasks
        self._cancels = FairSemaphore("cancels", CANCELS_AT_ONCE, CANCELS_PER_USER, wait_seconds=CANCEL_SECONDS)

    # --- messages ----------------------------------------------------------------------------------------------------

    async def send(self, call: Call, send: Send, *, streams: bool) -> web.StreamResponse:
        """A message, to start a task, to answer one, or to the agent at work on one. Raises `A2AError` and what
        `Gateway` does."""
        require(call.identity, "executions:write")
        hooks = self._pushes.hooks(call, send.push)
        if not (streams or send.blocking):
            task_id = (await self._deliver(call, send, hooks)).task_id
            async with self._gateway.folding(call.identity):
                projection = await self._tasks.read(call.identity.owner, task_id)
                return call.respond(call.codec.sent(projection.task(history_length=send.history_length)))
        # Room first: of a task that was started and then not shown, the client would not even know the id.
        async with self._gateway.slot(call.request, call.identity) as slot:
            reached = await self._reached(call, send) if streams else None
            projection = await self._deliver(call, send, hooks)
            if streams:
                shown = projection if reached is None else reached.then
                rendering: Rendering = TaskStream(shown, call.codec, call.wrap, answered=projection.answered)
            elif projection.is_settled:
                return call.respond(call.codec.sent(projection.task(history_length=send.history_length)))
            else:
                rendering = SettledTask(projection, lambda task: _sent(call, task, send.history_length))
            return await self._gateway.show(call.request, call.identity, projection.task_id, rendering, slot=slot)

    async def _reached(self, call: Call, send: Send) -> Reached | None:
        """Where the client stands that answers a task, if it says so: between its place and the answer others may have
        gone on. Raises `A2AError` for a cursor that is no place of the task's, before anything is answered."""
        task_id, cursor = send.message.task_id, _cursor(call.request, send.metadata)
        if task_id is None or cursor is None:
            return None
        async with self._gateway.folding(call.identity):
            reached = await self._tasks.reach(call.identity.owner, task_id, cursor)
        return None if reached.lost else reached

    async def _deliver(self, call: Call, send: Send, hooks: Mapping[str, Webhook]) -> TaskProjection:
        if send.message.task_id is not None:
            return await self._answer(call, send, hooks)
        async with self._gateway.starting(call.identity):
            return await self._start(call, send, hooks)

    async def _start(self, call: Call, send: Send, hooks: Mapping[str, Webhook]) -> TaskProjection:
        """The new task, without any entry taken."""
        owner, context = call.identity.owner, context_of(send.message)
        await self._cards.check_modes(send.message.parts, agent_for(send, call.agent))
        before, omitted = await self._before(call, context) if send.message.context_id else Past()
        # A repeat finds more said before it than the first did, so its request is another: its id tells that it is one.
        key = idempotency_key(call.request)
        task_id = None if key is None else "a2a_" + hashlib.sha256(key.encode()).hexdigest()[:32]
        most = self._gateway.max_conversation_bytes
        wanted = request_of(send, context, call.agent, before, task_id, max_bytes=most, omitted=omitted)
        try:
            accepted, _ = await self._gateway.execute(call.request, call.identity, wanted, webhooks=hooks)
        except ExecutionExists as known:
            return await self._repeated(call, send, known.execution_id)
        return TaskProjection(await self._tasks.opening(owner, accepted.execution_id))

    async def _before(self, call: Call, context: str) -> Past:
        async with self._gateway.folding(call.identity):
            return await conversations.past(self._commands, call.identity.owner, conversation_of(context))

    async def _repeated(self, call: Call, send: Send, task_id: str) -> TaskProjection:
        opening = await self._tasks.opening(call.identity.owner, task_id)
        if opening.message_id != send.message.message_id:
            raise A2AError(INVALID_PARAMS, "this Idempotency-Key came with another message before")
        self._gateway.accepted(call.request, call.identity, task_id, is_new=False)
        return TaskProjection(opening)

    async def _answer(self, call: Call, send: Send, hooks: Mapping[str, Webhook]) -> TaskProjection:
        """The task up to the answer."""
        message, owner = send.message, call.identity.owner
        assert message.task_id is not None
        opening = await self._tasks.opening(owner, message.task_id)
        if message.context_id not in (None, opening.context_id):
            raise A2AError(INVALID_PARAMS, "the task is of another context", contextId=opening.context_id)
        if await self._commands.messages.has(owner, opening.task_id, message_id_of(message.message_id)):
            return await self._until_said(call, opening.task_id, message)  # a repeat
        async with self._gateway.folding(call.identity):
            state = await self._commands.state(owner, opening.task_id, with_stack=False)
        if state.status in TERMINAL_STATES:
            raise A2AError(UNSUPPORTED, f"the task has ended: {state.status}")
        question = question_for(state.open_inputs, send)
        if question is None:
            await self._cards.check_modes(message.parts, state.agent)
            await self._pushes.add(call, opening.task_id, hooks)
            return await self._say(call, send, opening.task_id)
        if declines(message):
            answer = InputRequest(input_id=question.input_id, declined=True)
        else:
            answer = InputRequest(input_id=question.input_id, value=answer_of(question, message))
        await self._pushes.add(call, opening.task_id, hooks)
        await self._gateway.answer(call.request, call.identity, opening.task_id, answer)
        async with self._gateway.folding(call.identity):
            return await self._tasks.read(
                owner, opening.task_id, lambda projection: question.input_id in projection.answered
            )

    async def _say(self, call: Call, send: Send, task_id: str) -> TaskProjection:
        """A message to the agent at work, and the task up to it."""
        said = said_of(send, max_bytes=self._gateway.max_conversation_bytes)
        try:
            await self._gateway.send_message(call.request, call.identity, task_id, said)
        except NotSteerable as error:
            raise A2AError(UNSUPPORTED, "the task is at work, and its agent takes no messages") from error
        return await self._until_said(call, task_id, send.message)

    async def _until_said(self, call: Call, task_id: str, message: Message) -> TaskProjection:
        message_id = message_id_of(message.message_id)
        async with self._gateway.folding(call.identity):
            return await self._tasks.read(
                call.identity.owner, task_id, lambda projection: projection.last_said == message_id
            )

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def get(self, call: Call, query: TaskQuery) -> web.Response:
        async with self._gateway.folding(call.identity):
            projection = await self._tasks.read(call.identity.owner, query.task_id)
            return call.respond(call.codec.task(projection.task(history_length=query.history_length)))

    async def list(self, call: Call, wanted: ListTasks) -> web.Response:
        wanted = msgspec.structs.replace(wanted, agent=call.agent)
        async with self._gateway.folding(call.identity):
            return call.respond(call.codec.page(await self._tasks.page(call.identity.owner, wanted)))

    async def cancel(self, call: Call, query: TaskQuery) -> web.Response:
        """The task, cancelled; as it is, if its agent takes longer than `CANCEL_SECONDS`, or too many wait so."""
        require(call.identity, "executions:write")
        owner = call.identity.owner
        opening = await self._tasks.opening(owner, query.task_id)
        if opening.state in TERMINAL_STATES:  # a cancelled one too: 1.0, section 3.1.5, and 0.3, section 8.2
            raise _not_cancelable(opening.state)
        try:
            await self._gateway.cancel(call.request, call.identity, query.task_id, None)
        except ExecutionEnded as error:
            raise _not_cancelable(error.state) from error
        async with self._gateway.folding(call.identity):
            projection = await self._tasks.read(owner, query.task_id)
        with contextlib.suppress(Problem):
            async with self._cancels.turn(call.identity.principal):
                await self._tasks.until_ended(owner, projection, CANCEL_SECONDS)
        return call.respond(call.codec.task(projection.task(history_length=query.history_length)))

    async def subscribe(self, call: Call, query: TaskQuery) -> web.StreamResponse:
        """The task as it stands, or stood at the client's cursor, and then what follows."""
        cursor = _cursor(call.request, query.metadata)
        owner = call.identity.owner
        async with self._gateway.folding(call.identity):
            if cursor is None:
                then = await self._tasks.read(owner, query.task_id)
                answered = then.answered
            else:
                then, answered, _ = await self._tasks.reach(owner, query.task_id, cursor)
        if then.is_terminal:
            raise A2AError(UNSUPPORTED, f"the task has ended: {then.state}", state=then.state)
        # Only what follows its place: a projection takes no entry twice.
        rendering = TaskStream(then, call.codec, call.wrap, answered=answered)
        return await self._gateway.show(call.request, call.identity, query.task_id, rendering)


def _not_cancelable(state: str) -> A2AError:
    return A2AError(TASK_NOT_CANCELABLE, f"it has ended ({state})", state=state)


def _sent(call: Call, projection: TaskProjection, history_length: int | None) -> bytes:
    return call.wrap(call.codec.sent(projection.task(history_length=history_length)))


def _cursor(request: web.Request, metadata: dict[str, Any]) -> EventId | None:
    text = request.headers.get("Last-Event-ID") or metadata.get("cursor") or request.query.get("cursor")
    if text in (None, ""):
        return None
    try:
        return parse_event_id(str(text))
    except ValueError as error:
        raise A2AError(INVALID_PARAMS, str(error), cursor=str(text)[:64]) from error


def operations(handlers: Handlers, cards: Cards, pushes: Mapping[str, Operation]) -> Mapping[str, Operation]:
    """Each raises what `Handlers` does."""

    async def send(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await handlers.send(call, call.codec.read_send(params), streams=False)

    async def stream(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await handlers.send(call, call.codec.read_send(params), streams=True)

    async def get(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await handlers.get(call, call.codec.read_query(params))

    async def listing(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await handlers.list(call, call.codec.read_list(params))

    async def cancel(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await handlers.cancel(call, call.codec.read_query(params))

    async def subscribe(call: Call, params: dict[str, Any]) -> web.StreamResponse:
        return await handlers.subscribe(call, call.codec.read_query(params))

    async def card(call: Call, _: dict[str, Any]) -> web.StreamResponse:
        return call.respond(await cards.extended(call.request, call.agent, is_new=call.codec.is_typed))

    named = {"send": send, "stream": stream, "get": get, "list": listing, "cancel": cancel, "subscribe": subscribe}
    return {**named, **pushes, "card": card}
