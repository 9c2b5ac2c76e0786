"""What a client may do, whatever its version and binding: start, answer, look, list, cancel, follow."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from broker.api import idempotency_key
from broker.api_types import InputRequest
from broker.auth import Identity, require
from broker.commands import Commands
from broker.problems import request_id_of
from broker.protocols import conversations
from broker.protocols.a2a.errors import (
    INVALID_PARAMS,
    PUSH_NOT_SUPPORTED,
    TASK_NOT_CANCELABLE,
    UNSUPPORTED,
    A2AError,
)
from broker.protocols.a2a.incoming import answer_of, context_of, question_for, request_of
from broker.protocols.a2a.model import Ask, ListTasks, Send
from broker.protocols.a2a.reading import Tasks
from broker.protocols.a2a.renderer import JSON_HEADERS, SettledTask, TaskStream, Wrap
from broker.protocols.a2a.story import Story
from broker.protocols.a2a.wire import Wire
from broker.protocols.rendering import Rendering
from broker.request import Target
from broker.stream import Streams
from emitter.errors import ExecutionEnded, ExecutionExists
from emitter.wire import EventId, parse_event_id

CANCEL_SECONDS = 2.0
"""How long a cancel's answer waits for the worker to obey."""

log = structlog.get_logger("broker")


class Call(msgspec.Struct, frozen=True):
    """Who asks, and how it is answered. `agent` is the one that the path names."""

    request: web.Request
    identity: Identity
    wire: Wire
    wrap: Wrap
    agent: str | None = None

    def respond(self, value: Any) -> web.Response:
        return web.Response(body=self.wrap(value), headers={**JSON_HEADERS, "Connection": "keep-alive"})


class Calls:
    """`admit(identity)` holds the rate of executions."""

    def __init__(
        self, commands: Commands, streams: Streams, tasks: Tasks, admit: Callable[[Identity], Awaitable[None]]
    ) -> None:
        self._commands = commands
        self._streams = streams
        self._tasks = tasks
        self._admit = admit

    # --- messages ----------------------------------------------------------------------------------------------------

    async def send(self, call: Call, send: Send, *, streams: bool) -> web.StreamResponse:
        """A message, to start a task or to answer one. Raises `A2AError` and what `Commands` does."""
        require(call.identity, "executions:write")
        if send.wants_push:
            raise A2AError(PUSH_NOT_SUPPORTED, "push notifications are not supported")
        story = await (self._start(call, send) if send.message.task_id is None else self._answer(call, send))
        if streams:
            return await self._open(call, story, TaskStream(story, call.wire, call.wrap))
        if not send.blocking:
            story = await self._tasks.read(call.identity.owner, story.task_id)
        if not send.blocking or story.is_settled:
            return call.respond(call.wire.sent(story.task(history_length=send.history_length)))
        return await self._open(call, story, SettledTask(story, lambda told: _sent(call, told, send.history_length)))

    async def _start(self, call: Call, send: Send) -> Story:
        """The task, of which nothing has been told yet."""
        await self._admit(call.identity)
        owner, context = call.identity.owner, context_of(send.message)
        before = await conversations.turns(self._commands, owner, context) if send.message.context_id else []
        # A repeat finds more said before it than the first did, so its request is another: its id tells that it is one.
        key = idempotency_key(call.request)
        task_id = None if key is None else "a2a_" + hashlib.sha256(key.encode()).hexdigest()[:32]
        wanted = request_of(send, context, call.agent, before, task_id)
        try:
            accepted, _ = await self._commands.execute(
                call.identity, wanted, request_id=request_id_of(call.request), idempotency_key=None
            )
        except ExecutionExists as known:
            return await self._repeated(call, send, known.execution_id)
        self._audit(call, "execution_accepted", execution=accepted.execution_id)
        return Story(await self._tasks.opening(owner, accepted.execution_id))

    async def _repeated(self, call: Call, send: Send, task_id: str) -> Story:
        opening = await self._tasks.opening(call.identity.owner, task_id)
        if opening.message_id != send.message.message_id:
            raise A2AError(INVALID_PARAMS, "this Idempotency-Key came with another message before")
        return Story(opening)

    async def _answer(self, call: Call, send: Send) -> Story:
        """The task, told up to the answer."""
        message, owner = send.message, call.identity.owner
        assert message.task_id is not None
        opening = await self._tasks.opening(owner, message.task_id)
        if message.context_id not in (None, opening.context_id):
            raise A2AError(INVALID_PARAMS, "the task is of another context", contextId=opening.context_id)
        state = await self._commands.state(owner, opening.task_id, with_stack=False)
        if state.ended_at is not None or state.status in ("completed", "failed", "cancelled"):
            raise A2AError(UNSUPPORTED, f"the task has ended: {state.status}")
        question = question_for(state.open_inputs, send)
        answer = InputRequest(input_id=question.input_id, value=answer_of(question, message))
        await self._commands.answer(call.identity, opening.task_id, answer, request_id_of(call.request))
        self._audit(call, "input_answered", execution=opening.task_id, input=question.input_id)
        return await self._tasks.read(owner, opening.task_id, lambda story: question.input_id in story.answered)

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def get(self, call: Call, ask: Ask) -> web.Response:
        story = await self._tasks.read(call.identity.owner, ask.task_id)
        return call.respond(call.wire.task(story.task(history_length=ask.history_length)))

    async def list(self, call: Call, wanted: ListTasks) -> web.Response:
        return call.respond(call.wire.page(await self._tasks.page(call.identity.owner, wanted)))

    async def cancel(self, call: Call, ask: Ask) -> web.Response:
        """The task, cancelled; as it is, if its agent takes longer than `CANCEL_SECONDS`."""
        require(call.identity, "executions:write")
        owner = call.identity.owner
        await self._tasks.opening(owner, ask.task_id)
        try:
            state = await self._commands.cancel(call.identity, ask.task_id, None, request_id_of(call.request))
        except ExecutionEnded as error:
            raise A2AError(TASK_NOT_CANCELABLE, f"the task has ended: {error.state}", state=error.state) from error
        self._audit(call, "cancel_requested", execution=ask.task_id, state=state.state)
        story = await self._tasks.read(owner, ask.task_id)
        await self._tasks.until_ended(owner, story, CANCEL_SECONDS)
        return call.respond(call.wire.task(story.task(history_length=ask.history_length)))

    async def subscribe(self, call: Call, ask: Ask) -> web.StreamResponse:
        """The task as it stands, or stood at the client's cursor, and then what follows."""
        cursor = _cursor(call.request, ask)
        owner = call.identity.owner
        if cursor is None:
            now = then = await self._tasks.read(owner, ask.task_id)
        else:
            then, now, _ = await self._tasks.reach(owner, ask.task_id, cursor)
        if then.is_terminal:
            raise A2AError(UNSUPPORTED, f"the task has ended: {then.state}", state=then.state)
        return await self._open(call, then, TaskStream(then, call.wire, call.wrap, answered=now.answered))

    async def push(self, call: Call, params: Any) -> web.Response:  # noqa: ARG002
        raise A2AError(PUSH_NOT_SUPPORTED, "push notifications are not supported")

    async def _open(self, call: Call, story: Story, rendering: Rendering) -> web.StreamResponse:
        """Show what follows the place up to which the story was told; a story takes no entry twice."""
        target = Target.execution(call.identity.owner, story.task_id)
        request_id = request_id_of(call.request)
        return await self._streams.open_rendered(call.request, target, call.identity, request_id, rendering)

    def _audit(self, call: Call, event: str, **fields: Any) -> None:
        who = call.identity.principal
        log.info(event, request_id=request_id_of(call.request), user=who.user, org=who.org, protocol="a2a", **fields)


def _sent(call: Call, story: Story, history_length: int | None) -> bytes:
    return call.wrap(call.wire.sent(story.task(history_length=history_length)))


def _cursor(request: web.Request, ask: Ask) -> EventId | None:
    text = request.headers.get("Last-Event-ID") or ask.metadata.get("cursor") or request.query.get("cursor")
    if text is None:
        return None
    try:
        return parse_event_id(str(text))
    except ValueError as error:
        raise A2AError(INVALID_PARAMS, str(error), cursor=str(text)[:64]) from error
