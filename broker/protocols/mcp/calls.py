"""`tools/call`: run an agent and hold the call, or do what the tools for executions do; and the answers of clients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.base.fairness import FairSemaphore
from broker.base.problem import Problem
from broker.executions.decoding import decode_entry
from broker.executions.message_types import MessageRequest
from broker.executions.types import ExecuteRequest, ExecutionState, InputRequest
from broker.http.gateway import Gateway, idempotency_key
from broker.log.history import History
from broker.protocols.live_agents import LiveAgents
from broker.protocols.mcp.caller import Caller, Give, Result
from broker.protocols.mcp.content import error_result, status_message, structured_result
from broker.protocols.mcp.dialects import Legacy, Modern
from broker.protocols.mcp.questions import LeftOpen, answer_of
from broker.protocols.mcp.renderer import TASK_GRACE_SECONDS, CallRenderer, Held
from broker.protocols.mcp.resources import TaskReader
from broker.protocols.mcp.resume import Resumed, StreamOf, derived_id, stream_name
from broker.protocols.mcp.rpc import (
    INVALID_PARAMS,
    Json,
    McpError,
    RequestId,
    object_param,
    text_param,
    to_mcp,
)
from broker.protocols.mcp.signing import Signer, digest_of
from broker.protocols.mcp.tools import (
    ANSWER,
    CANCEL,
    GET,
    LIST,
    MAX_WAIT_SECONDS,
    SEND,
    WAIT,
    agent_of,
    repeated_in_headers,
    requirements,
    schema_of,
    wanted_of,
)
from broker.protocols.mcp.versions import Capabilities, check_arguments
from broker.streams.slots import StreamSlot
from emitter.errors import (
    AlreadyAnswered,
    Declined,
    ExecutionEnded,
    ExecutionExists,
    InvalidEvent,
    UnknownExecution,
    UnknownInput,
)
from emitter.events import TERMINAL_TYPES, InputRequired
from emitter.wire.entries import Entry, parse_stream
from emitter.wire.ids import EXECUTION_ID, now_ms

GIVEN_UP_MS = 30_000
"""How long an execution goes on whose call was given up, before its client has its id."""
MAX_LISTED = 50
AHEAD_SECONDS = 2.0
AHEAD_AT_ONCE, AHEAD_PER_USER = 16, 4


class Call(NamedTuple):
    """A call of a tool."""

    tool: str
    arguments: Json

    @property
    def digest(self) -> str:
        return digest_of(self.tool, self.arguments)


class Calls:
    """The method `tools/call`, and the streams of the old era that are resumed."""

    def __init__(
        self,
        gateway: Gateway,
        redis: Redis,
        history: History,
        agents: LiveAgents,
        tasks: TaskReader,
        give: Give,
        give_ahead: Give,
        hold_seconds: float,
    ) -> None:
        self._gateway = gateway
        self._history = history
        self._agents = agents
        self._tasks = tasks
        self._give = give
        self._give_ahead = give_ahead
        self._hold_seconds = hold_seconds or None
        self._signer = Signer(redis)
        self._own: dict[str, Callable[[Caller, Json], Awaitable[Json]]] = {
            GET: self._get,
            ANSWER: self._answer,
            SEND: self._send,
            CANCEL: self._cancel,
            LIST: self._list,
        }

    async def call(self, caller: Caller) -> Result:
        """Raises `McpError` and what `Gateway` does."""
        call = Call(text_param(caller.params, "name"), object_param(caller.params, "arguments"))
        if "inputResponses" in caller.params and not isinstance(caller.params["inputResponses"], dict):
            raise McpError(INVALID_PARAMS, "params.inputResponses is an object")
        if caller.client.is_modern:
            await self._signer.load()
        if call.tool == WAIT:
            return await self._told(self._wait(caller, call))
        if (own := self._own.get(call.tool)) is not None:
            return await self._told(own(caller, call.arguments))
        return await self._run(caller, call)

    async def _told(self, doing: Awaitable[Result]) -> Result:
        """What is wrong with the arguments of our own tools is a result, so that a model can mend it."""
        try:
            return await doing
        except McpError:
            raise
        except Exception as error:
            known = to_mcp(error)
            if known is None:
                raise
            return error_result(known.message)

    # --- agents ------------------------------------------------------------------------------------------------------

    async def _run(self, caller: Caller, call: Call) -> web.StreamResponse:
        caller.require_write()
        live = await self._agents.get()
        agent = agent_of(call.tool, live)
        if agent is None:
            raise McpError(INVALID_PARAMS, f"there is no tool {call.tool[:80]!r}")
        schema = schema_of(live, agent)
        if caller.client.is_modern:
            check_arguments(caller.request.headers, repeated_in_headers(schema, call.arguments))
        caller.client.can.require(requirements(schema))
        # Room first: of an execution that was started and then not shown, the client would not even know the id.
        async with self._gateway.slot(caller.request, caller.identity) as slot:
            execution_id = await self._reached(caller, call, agent)
            return await self._hold(caller, call, execution_id, slot, is_wait=False)

    async def _reached(self, caller: Caller, call: Call, agent: str) -> str:
        """The execution that this call is about, new or known by its state, with the answers that came along."""
        responses = object_param(caller.params, "inputResponses")
        if "requestState" in caller.params:
            state = text_param(caller.params, "requestState")
            execution_id = self._signer.read(caller.identity, state, call.digest)
            await self._give(caller, execution_id, responses)
            return execution_id
        async with self._gateway.starting(caller.identity):
            execution_id = await self._start(caller, call, agent)
        if responses:
            await self._give_ahead(caller, execution_id, responses)
        return execution_id

    async def _start(self, caller: Caller, call: Call, agent: str) -> str:
        wanted = wanted_of(agent, call.arguments, schema_of(await self._agents.get(), agent))
        derived = derived_id(caller.client.session, caller.request_id)
        about = {"mcp": {"tool": call.tool, "call": call.digest}}
        given = {"task": wanted.task, "agent": agent, "params": wanted.params or None, "budget": wanted.budget}
        asked = msgspec.convert({**given, "metadata": about, "executionId": derived}, ExecuteRequest)
        key = idempotency_key(caller.request)
        try:
            answer, _ = await self._gateway.execute(caller.request, caller.identity, asked, idempotency_key=key)
        except ExecutionExists:
            if derived is None or not await self._is_repeat(caller, derived, call):
                raise McpError(INVALID_PARAMS, "this request id came with another call before") from None
            self._gateway.accepted(caller.request, caller.identity, derived, is_new=False)
            return derived
        except Problem as problem:
            if problem.slug != "unknown-agent":
                raise
            known = problem.extensions.get("known")
            raise McpError(INVALID_PARAMS, f"there is no tool {call.tool[:80]!r}", agents=known) from problem
        return answer.execution_id

    async def _is_repeat(self, caller: Caller, execution_id: str, call: Call) -> bool:
        summary = await self._gateway.commands.listing.summary(caller.owner, execution_id)
        about = (summary.metadata or {}).get("mcp") if summary is not None else None
        return isinstance(about, dict) and about.get("call") == call.digest

    # --- held --------------------------------------------------------------------------------------------------------

    async def _hold(
        self, caller: Caller, call: Call, execution_id: str, slot: StreamSlot, *, is_wait: bool
    ) -> web.StreamResponse:
        can, is_modern = caller.client.can, caller.client.is_modern
        seconds = TASK_GRACE_SECONDS if can.tasks and not is_wait else self._hold_seconds
        if is_wait:
            seconds = _wait_seconds(call.arguments, self._hold_seconds)
        held = Held(
            execution_id=execution_id,
            asked=caller.asked,
            progress_token=_token(caller.message.meta.get("progressToken")),
            hold_seconds=seconds,
            known_seq=await self._known_seq(caller, execution_id),
            log_level=caller.client.log_level,
            becomes_task=can.tasks and not is_wait,
            ttl_ms=self._tasks.ttl_ms,
            cancel_after_ms=GIVEN_UP_MS if is_modern and not is_wait and "requestState" not in caller.params else 0,
        )
        dialect: Modern | Legacy
        if is_modern:
            sign = partial(self._signer.sign, caller.identity, execution_id, call.digest)
            dialect = Modern(caller.request_id, sign)
        else:
            until = 0 if seconds is None else now_ms() + int(seconds * 1000)
            stream = StreamOf(caller.request_id, held.progress_token, can.code, until, is_wait)
            dialect = Legacy(caller.request_id, stream_name(execution_id, stream), execution_id, None)
        renderer = CallRenderer(held, dialect)
        return await self._gateway.show(caller.request, caller.identity, execution_id, renderer, slot=slot)

    async def resume(self, caller: Caller, resumed: Resumed) -> web.StreamResponse:
        """Continue a stream of the old era. Raises `UnknownExecution`."""
        stream, execution_id = resumed.stream, resumed.execution_id
        can = Capabilities.of_code(stream.can)
        left = None if not stream.hold_until else max(0.0, (stream.hold_until - now_ms()) / 1000)
        held = Held(
            execution_id=execution_id,
            asked=caller.asked._replace(can=can),
            progress_token=stream.progress_token,
            hold_seconds=left,
            known_seq=await self._known_seq(caller, execution_id),
            log_level=caller.client.log_level,
        )
        dialect = Legacy(stream.request_id, stream_name(execution_id, stream), execution_id, resumed.after)
        return await self._gateway.show(caller.request, caller.identity, execution_id, CallRenderer(held, dialect))

    async def _known_seq(self, caller: Caller, execution_id: str) -> int:
        head = await self._history.head(caller.owner.execution(execution_id).record)
        if head is None:
            raise UnknownExecution(execution_id)
        return 0 if head.last is None else head.last.seq

    # --- tools for executions ----------------------------------------------------------------------------------------

    async def _wait(self, caller: Caller, call: Call) -> web.StreamResponse:
        execution_id = _execution(call.arguments)
        _wait_seconds(call.arguments, None)
        if "requestState" in caller.params:
            self._signer.read(caller.identity, text_param(caller.params, "requestState"), call.digest)
        if responses := object_param(caller.params, "inputResponses"):
            caller.require_write()
            await self._give(caller, execution_id, responses)
        async with self._gateway.slot(caller.request, caller.identity) as slot:
            return await self._hold(caller, call, execution_id, slot, is_wait=True)

    async def _get(self, caller: Caller, arguments: Json) -> Json:
        async with self._gateway.folding(caller.identity):
            return structured_result(brief(await self._tasks.state(caller.owner, _execution(arguments))))

    async def _answer(self, caller: Caller, arguments: Json) -> Json:
        caller.require_write()
        execution_id = _execution(arguments)
        declined = arguments.get("declined") is True
        if "value" not in arguments and not declined:
            raise Problem(422, "invalid", "value is the answer")
        async with self._gateway.folding(caller.identity):
            state = await self._tasks.state(caller.owner, execution_id)
        input_id = arguments.get("inputId") or next((each.input_id for each in state.open_inputs), None)
        if not isinstance(input_id, str):
            raise Problem(422, "invalid", "the execution waits for no answer")
        value = msgspec.UNSET if declined else arguments["value"]
        given = InputRequest(input_id=input_id, value=value, declined=declined)
        await self._gateway.answer(caller.request, caller.identity, execution_id, given)
        return structured_result({"executionId": execution_id, "inputId": input_id, "answered": True})

    async def _send(self, caller: Caller, arguments: Json) -> Json:
        caller.require_write()
        execution_id = _execution(arguments)
        said = {name: value for name, value in arguments.items() if name != "executionId"}
        given = msgspec.convert(said, MessageRequest)
        answer = await self._gateway.send_message(caller.request, caller.identity, execution_id, given)
        return structured_result(msgspec.to_builtins(answer))

    async def _cancel(self, caller: Caller, arguments: Json) -> Json:
        caller.require_write()
        execution_id, reason = _execution(arguments), arguments.get("reason")
        if reason is not None and not (isinstance(reason, str) and len(reason) <= 1024):
            raise Problem(422, "invalid", "reason is text of at most 1024 characters")
        answer = await self._gateway.cancel(caller.request, caller.identity, execution_id, reason)
        return structured_result(msgspec.to_builtins(answer))

    async def _list(self, caller: Caller, arguments: Json) -> Json:
        state, cursor, limit = arguments.get("state"), arguments.get("cursor"), arguments.get("limit", 20)
        if not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
            raise Problem(422, "invalid", f"limit is a whole number from 1 to {MAX_LISTED}")
        if not all(value is None or isinstance(value, str) for value in (state, cursor)):
            raise Problem(422, "invalid", "state and cursor are text")
        async with self._gateway.folding(caller.identity):
            listing = self._gateway.commands.listing
            page = await listing.page(caller.owner, state=state, limit=limit, cursor=cursor)
        return structured_result(msgspec.to_builtins(page))


def brief(state: ExecutionState) -> Json:
    """What a model needs to know of an execution."""
    about: dict[str, Any] = {
        "executionId": state.execution_id,
        "state": state.status,
        "agent": state.agent,
        "task": state.task,
        "attempt": state.attempt,
        "statusMessage": status_message(state),
        "progress": state.progress and state.progress.progress,
        "text": state.text or None,
        "openInputs": msgspec.to_builtins(state.open_inputs) or None,
        "result": state.result,
        "error": state.error and {"error": state.error.error, "code": state.error.code},
        "cancelled": state.cancelled and msgspec.to_builtins(state.cancelled),
        "truncated": any(message.truncated for message in state.messages) or None,
    }
    return {name: value for name, value in about.items() if value is not None}


def _execution(arguments: Json) -> str:
    execution_id = arguments.get("executionId")
    if not isinstance(execution_id, str) or not EXECUTION_ID.match(execution_id):
        raise UnknownExecution(str(execution_id)[:64])
    return execution_id


def _wait_seconds(arguments: Json, hold_seconds: float | None) -> float:
    seconds = arguments.get("seconds", hold_seconds if hold_seconds is not None else MAX_WAIT_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise Problem(422, "invalid", f"seconds is a number from 0 to {MAX_WAIT_SECONDS}")
    return float(min(seconds, MAX_WAIT_SECONDS))


def _token(token: Any) -> RequestId | None:
    return token if isinstance(token, str | int) and not isinstance(token, bool) else None


# --- answers that clients send ----------------------------------------------------------------------------------------


class Answers:
    """Gives them, through the gateway."""

    def __init__(self, gateway: Gateway, redis: Redis, tasks: TaskReader) -> None:
        self._gateway = gateway
        self._redis: Any = redis
        self._tasks = tasks
        self._ahead = FairSemaphore("calls with answers", AHEAD_AT_ONCE, AHEAD_PER_USER)

    async def give(self, caller: Caller, execution_id: str, responses: Json) -> None:
        """Answer what of these is open. What is not, or was answered already, is ignored. Raises `UnknownExecution`,
        `McpError`, and `Problem` 422 for an answer that does not fit."""
        async with self._gateway.folding(caller.identity):
            state = await self._tasks.state(caller.owner, execution_id)
        for question in state.open_inputs:
            if question.input_id in responses:
                await self._one(caller, execution_id, question, responses[question.input_id])

    async def _one(self, caller: Caller, execution_id: str, question: InputRequired, response: Any) -> None:
        try:
            given = InputRequest(input_id=question.input_id, value=answer_of(question, response))
        except LeftOpen:
            return
        except Declined:
            given = InputRequest(input_id=question.input_id, declined=True)
        with contextlib.suppress(AlreadyAnswered, ExecutionEnded, UnknownInput), _unless_expired():
            await self._gateway.answer(caller.request, caller.identity, execution_id, given)

    async def give_ahead(self, caller: Caller, execution_id: str, responses: Json) -> None:
        """Answer the first questions of an execution that has just begun, as they are asked, until one is not among
        these. Only clients that keep no `requestState` do so, and few: each waits on a connection of its own."""
        log, last, left = caller.owner.execution(execution_id).log, "0-0", set(responses)
        async with self._ahead.turn(caller.identity.principal):
            deadline = time.monotonic() + AHEAD_SECONDS
            while left and (seconds := deadline - time.monotonic()) > 0:
                found = await self._redis.xread({log: last}, block=max(1, int(seconds * 1000)))
                for entry in parse_stream(found[0][1]) if found else []:
                    last = str(entry.id)
                    ends = entry.type in TERMINAL_TYPES
                    if ends or not await self._asked(caller, execution_id, entry, left):
                        return

    async def _asked(self, caller: Caller, execution_id: str, entry: Entry, left: set[str]) -> bool:
        """False for a question that none of them answers."""
        if entry.type != InputRequired.type.encode():
            return True
        try:
            _, question = decode_entry(entry)
        except InvalidEvent:
            return False
        assert isinstance(question, InputRequired)
        if question.input_id not in left:
            return False
        left.discard(question.input_id)
        responses = caller.params["inputResponses"]
        await self._one(caller, execution_id, question, responses[question.input_id])
        return True


@contextlib.contextmanager
def _unless_expired() -> Any:
    try:
        yield
    except Problem as problem:
        if problem.slug != "input-expired":
            raise
