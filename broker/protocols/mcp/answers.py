"""The answers that clients send: with a repeated call, with `tasks/update`, or as responses to requests of ours."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from redis.asyncio import Redis

from broker.base.fairness import FairSemaphore
from broker.base.problem import Problem
from broker.executions.decoding import decode_entry
from broker.executions.types import InputRequest
from broker.http.gateway import Gateway
from broker.protocols.mcp.caller import Caller
from broker.protocols.mcp.questions import LeftOpen, answer_of
from broker.protocols.mcp.rpc import Json
from broker.protocols.mcp.tasks import TaskReader
from emitter.errors import AlreadyAnswered, Declined, ExecutionEnded, InvalidEvent, UnknownInput
from emitter.events import TERMINAL_TYPES, InputRequired
from emitter.wire.entries import Entry, parse_stream

AHEAD_SECONDS = 2.0
AHEAD_AT_ONCE, AHEAD_PER_USER = 16, 4


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
