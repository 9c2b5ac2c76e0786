"""The events of the simple gateway form: `task.created`, `task.status`, `task.progress`, `task.completed`,
`task.error`, distinguished by `type` inside the data. Pure."""

from __future__ import annotations

from typing import Any

from broker.protocols.a2a.codec import compact
from broker.protocols.a2a.model import (
    Artifact,
    ArtifactUpdate,
    DataPart,
    FilePart,
    Part,
    StatusUpdate,
    Task,
    TextPart,
    Update,
)
from broker.protocols.a2a.v10 import V10
from broker.protocols.times import timestamp

ENDS = {"completed": "task.completed", "failed": "task.error", "canceled": "task.error"}


class Simple(V10):
    """See `Wire`. It is only shown; nothing is sent in this form."""

    def shown(self, task: Task) -> dict[str, Any]:
        about = {"type": "task.created", "taskId": task.task_id, "contextId": task.context_id}
        return {**about, "status": task.status.state, "timestamp": timestamp(task.status.at), **_place(task.metadata)}

    def update(self, update: Update) -> dict[str, Any]:
        about = {"taskId": update.task_id, "contextId": update.context_id, **_place(update.metadata)}
        if isinstance(update, ArtifactUpdate):
            return {"type": "task.progress", **about, **_chunk(update)}
        return {"type": ENDS.get(update.status.state, _type(update)), **about, **_status(update)}


def _type(update: StatusUpdate) -> str:
    return "task.progress" if update.metadata["event"] in ("progress", "tool:progress") else "task.status"


def _place(metadata: dict[str, Any] | None) -> dict[str, Any]:
    return compact(**{name: (metadata or {}).get(name) for name in ("generation", "cursor", "event", "agent")})


def _status(update: StatusUpdate) -> dict[str, Any]:
    status, said = update.status, update.status.message
    texts = [part.text for part in said.parts if isinstance(part, TextPart)] if said else []
    data = next((part.data for part in said.parts if isinstance(part, DataPart)), None) if said else None
    text = "\n".join(texts)
    is_error = status.state in ("failed", "canceled")
    return compact(
        status=status.state,
        timestamp=timestamp(status.at),
        message=None if is_error else text,
        error=(text or status.state) if is_error else None,
        data=data.get("data") if isinstance(data, dict) else None,
        usage=update.metadata.get("usage"),
        duration=update.metadata.get("duration"),
    )


def _chunk(update: ArtifactUpdate) -> dict[str, Any]:
    artifact: Artifact = update.artifact
    content = [_content(part) for part in artifact.parts]
    place = {"artifactId": artifact.artifact_id, "append": update.append, "last": update.last}
    return {**place, **compact(name=artifact.name), "content": content}


def _content(part: Part) -> Any:
    match part:
        case TextPart(text=text):
            return text
        case DataPart(data=data):
            return data
        case FilePart(url=url):
            return {"url": url}
