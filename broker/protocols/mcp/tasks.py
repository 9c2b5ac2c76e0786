"""Executions as tasks (extension io.modelcontextprotocol/tasks). Pure, but for `TaskReader`."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from broker.executions.commands import Commands
from broker.executions.types import ExecutionState
from broker.protocols.mcp.content import call_result, protocol_error, status_message
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.rpc import Json
from broker.protocols.times import timestamp
from emitter.errors import UnknownExecution
from emitter.wire.ids import EXECUTION_ID, parse_event_id
from emitter.wire.keys import Owner

POLL_MS = 2000
STATES = {"completed": "completed", "failed": "completed", "cancelled": "cancelled"}
"""Of those that have ended; an agent's failure is a result that says so."""


def task_of(state: ExecutionState, *, created_ms: int, ttl_ms: int | None) -> Json:
    """The task as it is first given to a client."""
    updated = max(created_ms, parse_event_id(state.cursor).ms) if state.cursor else created_ms
    task: Json = {
        "taskId": state.execution_id,
        "status": STATES.get(state.status, "working"),
        "createdAt": timestamp(created_ms),
        "lastUpdatedAt": timestamp(updated),
        "ttlMs": ttl_ms,
        "pollIntervalMs": POLL_MS,
    }
    message = status_message(state)
    return task | ({"statusMessage": message} if message else {})


def detailed(state: ExecutionState, asked: Asked, *, created_ms: int, ttl_ms: int | None) -> Json:
    """The task with its result, its error or its questions."""
    task = task_of(state, created_ms=created_ms, ttl_ms=ttl_ms)
    if state.status in STATES:
        error = protocol_error(state)
        if state.status != "cancelled" and error is not None:
            return task | {"status": "failed", "error": error}
        return task | (
            {} if state.status == "cancelled" else {"result": {"resultType": "complete", **call_result(state)}}
        )
    requests = {each.input_id: asked.request(state.execution_id, each) for each in state.open_inputs}
    able = {input_id: request for input_id, request in requests.items() if request is not None}
    if able:
        return task | {"status": "input_required", "inputRequests": able}
    if requests:
        prompts = "; ".join(each.prompt for each in state.open_inputs)
        return task | {"statusMessage": f"waits for an answer that this client cannot be asked for: {prompts}"}
    return task


class TaskReader:
    """Reads. Raises `UnknownExecution`, and redis errors."""

    def __init__(self, redis: Redis, commands: Commands, ttl_ms: int | None) -> None:
        self._redis: Any = redis
        self._commands = commands
        self.ttl_ms = ttl_ms

    async def task(self, owner: Owner, task_id: str, asked: Asked) -> Json:
        state = await self.state(owner, task_id)
        return detailed(state, asked, created_ms=await self._created_ms(owner, state), ttl_ms=self.ttl_ms)

    async def state(self, owner: Owner, execution_id: str) -> ExecutionState:
        if not EXECUTION_ID.match(execution_id):
            raise UnknownExecution(execution_id[:64])
        return await self._commands.state(owner, execution_id, with_stack=False)

    async def _created_ms(self, owner: Owner, state: ExecutionState) -> int:
        created = await self._redis.zscore(owner.index, state.execution_id)
        return int(created) if created is not None else parse_event_id(state.cursor).ms
