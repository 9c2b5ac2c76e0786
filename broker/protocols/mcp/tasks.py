"""Executions as tasks (extension io.modelcontextprotocol/tasks). Pure."""

from __future__ import annotations

from broker.executions.types import ExecutionState
from broker.protocols.mcp.content import call_result, protocol_error, status_message
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.rpc import Json
from broker.protocols.times import timestamp
from emitter.wire.ids import parse_event_id

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
