"""An execution as the result of a tool: its text, what its agent made, and the same as structured content. Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from broker.executions.types import ArtifactState, ExecutionState
from broker.protocols.mcp.rpc import CANCELLED, INTERNAL, Json

URI = "runcast://executions/"
PLATFORM_CODES = frozenset({"no_worker", "worker_lost", "producer_lost", "invalid_job"})
"""Failures that are not the agent's: nobody ran it to its end."""
CUT = "What is above was cut. All of it is in the log: GET /api/agent/executions/{id}/events"
MAX_TEXT_CHARS, MAX_BLOCK_BYTES = 200_000, 400_000
"""Of a result: the client for Python takes 1 MiB in one message, in which a character may be six bytes."""
_DATA_URL = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+);base64,", re.IGNORECASE)


def artifact_uri(execution_id: str, artifact_id: str) -> str:
    return f"{URI}{execution_id}/artifacts/{quote(artifact_id, safe='')}"


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def text(value: str) -> Json:
    return {"type": "text", "text": value}


def error_result(message: str, **structured: Any) -> Json:
    """A tool that could not do what it was asked to, told so that a model can try again."""
    result: Json = {"content": [text(message)], "isError": True}
    return result | ({"structuredContent": structured} if structured else {})


def structured_result(value: Json) -> Json:
    """With the copy in text that clients have without structured content."""
    return {"content": [text(as_json(value))], "structuredContent": value}


def call_result(state: ExecutionState) -> Json:
    """The result of an execution that has ended, unless that is an error of the protocol (`protocol_error`)."""
    about: Json = {"executionId": state.execution_id, "state": state.status}
    if state.error is not None:
        failure = {"error": state.error.error, "code": state.error.code}
        return error_result(state.error.error, **about, error=failure)
    if state.result is not None:
        about["result"] = state.result
    texts = _texts(state)
    content = [*[text(each[:MAX_TEXT_CHARS]) for each in texts], *blocks(state)]
    if is_cut(state) or any(len(each) > MAX_TEXT_CHARS for each in texts):
        content.append(text(CUT.replace("{id}", state.execution_id)))
    return {"content": content or [text("done")], "structuredContent": about}


def is_cut(state: ExecutionState) -> bool:
    """Whether texts of it are only their beginnings."""
    marks = [message.truncated for message in state.messages], [artifact.truncated for artifact in state.artifacts]
    return any(map(any, marks))


def _texts(state: ExecutionState) -> list[str]:
    """The last message, and the result if that says something else."""
    said = [message.text for message in state.messages if message.parent_id is None and message.text]
    result = state.result
    told = None if result is None else result if isinstance(result, str) else as_json(result)
    last = said[-1:] if told is None or said[-1:] != [told] else []
    return [each for each in (*last, told) if each]


def blocks(state: ExecutionState) -> list[Json]:
    """What the agent made, as content; links to it, when that is too much."""
    room, found = MAX_BLOCK_BYTES, []
    for artifact in state.artifacts:
        block = _block(state.execution_id, artifact)
        size = len(as_json(block))
        found.append(block if size <= room else _link(artifact_uri(state.execution_id, artifact.artifact_id), artifact))
        room -= size if size <= room else 0
    return found


def _link(uri: str, artifact: ArtifactState) -> Json:
    name = artifact.name or artifact.artifact_id
    return {"type": "resource_link", "uri": uri, "name": name, "mimeType": artifact.media_type}


def _block(execution_id: str, artifact: ArtifactState) -> Json:
    uri = artifact_uri(execution_id, artifact.artifact_id)
    kind = artifact.media_type.partition("/")[0]
    if (coded := coded_bytes(artifact)) is None and artifact.url is not None:
        return _link(artifact.url, artifact)
    if coded is not None and kind in ("image", "audio"):
        return {"type": kind, "data": coded, "mimeType": artifact.media_type}
    return {"type": "resource", "resource": contents(uri, artifact)}


def contents(uri: str, artifact: ArtifactState) -> Json:
    """The artifact as what a resource holds."""
    about: Json = {"uri": uri, "mimeType": artifact.media_type}
    if (coded := coded_bytes(artifact)) is not None:
        return about | {"blob": coded}
    if artifact.text is not None:
        return about | {"text": artifact.text}
    return about | {"text": artifact.url if artifact.url is not None else as_json(artifact.data)}


def coded_bytes(artifact: ArtifactState) -> str | None:
    """The bytes of an artifact that came as a `data:` URL, in base 64."""
    match = _DATA_URL.match(artifact.url or "")
    return None if match is None else (artifact.url or "")[match.end() :]


def protocol_error(state: ExecutionState) -> Json | None:
    """The `error` that stands for this end on a call: a cancel, or a failure that is not the agent's."""
    about = {"executionId": state.execution_id}
    if state.status == "cancelled":
        by = state.cancelled
        data = about | {name: value for name, value in (("reason", by and by.reason), ("by", by and by.by)) if value}
        return {"code": CANCELLED.code, "message": "the execution was cancelled", "data": data}
    if state.error is not None and state.error.code in PLATFORM_CODES:
        return {"code": INTERNAL.code, "message": state.error.error, "data": about | {"reason": state.error.code}}
    return None


def status_message(state: ExecutionState) -> str | None:
    """What it does just now, in a line."""
    phase = next((phase.name for phase in state.phases if phase.status == "running"), None)
    action = state.progress.current_action if state.progress is not None else None
    activity = state.activity.message or state.activity.status if state.activity is not None else None
    attempt = f"attempt {state.attempt}" if state.attempt > 1 else None
    if state.error is not None:
        return state.error.error
    said = [attempt, phase, action or activity]
    return ": ".join(each for each in said if each) or None
