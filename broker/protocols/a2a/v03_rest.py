"""The shapes of version 0.3 over REST: its SDKs speak ProtoJSON of the 0.3 `a2a.proto` there, which is close to 1.0's,
and read both camelCase and the proto's own names."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from broker.executions.attachments import padded
from broker.protocols.a2a.errors import INVALID_PARAMS, METHOD_NOT_FOUND, A2AError
from broker.protocols.a2a.model import (
    ArtifactUpdate,
    ListTasks,
    PushConfig,
    Send,
    StatusUpdate,
    Task,
    TaskPage,
    TaskQuery,
    Update,
)
from broker.protocols.a2a.v10 import V10

_UNDERSCORE = re.compile(r"_([a-z])")
_new = V10()


class V03Rest:
    """See `Wire`."""

    is_typed = False
    takes_whole = True

    def read_send(self, params: Any) -> Send:
        given = _camel(params)
        message = given.get("request") or given.get("message")
        if not isinstance(message, dict):
            raise A2AError(INVALID_PARAMS, "request: the message is missing")
        wanted = _camel(given.get("configuration") or {})
        configuration = {
            "historyLength": wanted.get("historyLength") or None,  # 0 stands for unset in this proto
            "returnImmediately": not wanted.get("blocking", False),
            "taskPushNotificationConfig": _push_of(wanted.get("pushNotification")),
        }
        said = {"message": _message_from(message), "configuration": configuration, "metadata": given.get("metadata")}
        return _new.read_send(said)

    def read_query(self, params: Any) -> TaskQuery:
        return _new.read_query(params)

    def read_list(self, params: Any) -> ListTasks:  # noqa: ARG002
        raise A2AError(METHOD_NOT_FOUND, "tasks are listed since version 1.0")

    def read_push(self, params: Any) -> tuple[str, PushConfig]:
        """The SDK for Python sends the proto's request, that for JavaScript only the configuration in it."""
        given = _camel(params)
        config = _camel(given["config"]) if "config" in given else given
        asked = _push_of(config.get("pushNotificationConfig")) or {}
        return _new.read_push({"id": given.get("configId"), **asked, "taskId": given.get("taskId")})

    def read_push_query(self, params: Any) -> tuple[str, str | None]:
        return _new.read_push_query(params)

    def push(self, task_id: str, config: PushConfig) -> Any:
        name = f"tasks/{task_id}/pushNotificationConfigs/{config.config_id}"
        return {"name": name, "pushNotificationConfig": {"id": config.config_id, "url": config.url}}

    def pushes(self, task_id: str, configs: Sequence[PushConfig]) -> Any:
        return {"configs": [self.push(task_id, config) for config in configs]}

    def no_push(self) -> Any:
        return {}

    def task(self, task: Task) -> dict[str, Any]:
        return _task(_new.task(task))

    def sent(self, task: Task) -> dict[str, Any]:
        return {"task": self.task(task)}

    def page(self, page: TaskPage) -> dict[str, Any]:
        raise NotImplementedError  # `read_list` refuses

    def shown(self, task: Task) -> dict[str, Any]:
        return {"task": self.task(task)}

    def update(self, update: Update) -> dict[str, Any]:
        if isinstance(update, ArtifactUpdate) and update.whole is not None:
            # The SDK for JavaScript loses `append` on its way in: at least the last chunk leaves it with all of it.
            update = replace(update, artifact=update.whole, append=False)
        shape = _new.update(update)
        if isinstance(update, StatusUpdate):
            changed = shape["statusUpdate"]
            return {"statusUpdate": {**changed, "status": _status(changed["status"]), "final": update.final}}
        changed = shape["artifactUpdate"]
        return {"artifactUpdate": {**changed, "artifact": _artifact(changed["artifact"])}}


# --- out -------------------------------------------------------------------------------------------------------------


def _task(shape: dict[str, Any]) -> dict[str, Any]:
    lists = {
        "history": [_message(message) for message in shape.get("history", ())],
        "artifacts": [_artifact(artifact) for artifact in shape.get("artifacts", ())],
    }
    return {**shape, "status": _status(shape["status"]), **lists}


def _status(shape: dict[str, Any]) -> dict[str, Any]:
    state = {"TASK_STATE_CANCELED": "TASK_STATE_CANCELLED"}.get(shape["state"], shape["state"])
    said = {"message": _message(shape["message"])} if "message" in shape else {}
    return {**shape, "state": state, **said}


def _message(shape: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in shape.items() if name not in ("parts", "referenceTaskIds")}
    return {**rest, "content": [_part(part) for part in shape["parts"]]}


def _artifact(shape: dict[str, Any]) -> dict[str, Any]:
    return {**shape, "parts": [_part(part) for part in shape["parts"]]}


def _part(shape: dict[str, Any]) -> dict[str, Any]:
    if "text" in shape:
        return {"text": shape["text"]}
    if "data" in shape:
        return {"data": {"data": shape["data"]}}
    about = {"mimeType": shape.get("mediaType", ""), "name": shape.get("filename", "")}
    # Not as `fileWithBytes`: the SDKs do not agree on its coding (see `_raw`), and one fails on what the other writes.
    url = shape["url"] if "url" in shape else f"data:{shape.get('mediaType', '')};base64,{shape['raw']}"
    return {"file": {"fileWithUri": url, **about}}


# --- in --------------------------------------------------------------------------------------------------------------


def _camel(shape: Any) -> dict[str, Any]:
    """An object with the names in camelCase."""
    if not isinstance(shape, dict):
        raise A2AError(INVALID_PARAMS, "an object is expected")
    return {_UNDERSCORE.sub(lambda match: match[1].upper(), name): value for name, value in shape.items()}


def _message_from(shape: dict[str, Any]) -> dict[str, Any]:
    message = _camel(shape)
    parts = message.pop("content", None) or message.pop("parts", None)
    if not isinstance(parts, list):
        raise A2AError(INVALID_PARAMS, "request.content: parts are missing")
    return {**message, "parts": [_part_from(_camel(part)) for part in parts]}


def _push_of(given: Any) -> dict[str, Any] | None:
    """A configuration as 1.0 has it."""
    if given is None:
        return None
    config = _camel(given)
    if config.get("authentication") is not None:
        about = _camel(config["authentication"])
        schemes = about.get("schemes") or [None]
        config["authentication"] = {"scheme": schemes[0], "credentials": about.get("credentials")}
    return config


def _raw(coded: Any, media_type: Any) -> Any:
    """A file's bytes in base 64. The SDK for Python codes them twice: what comes out is base 64 again, as no file is,
    and has a text in it where the file is one."""
    if not isinstance(coded, str):
        return coded
    try:
        inner = base64.b64decode(padded(coded), validate=True)
        found = base64.b64decode(inner, validate=True)
        if str(media_type).startswith("text/"):
            found.decode()
    except ValueError:
        return coded
    return inner.decode() if found else coded


def _part_from(part: dict[str, Any]) -> dict[str, Any]:
    if "file" in part:
        file = _camel(part["file"])
        raw = _raw(file.get("fileWithBytes"), file.get("mimeType"))
        content = {"url": file.get("fileWithUri"), "raw": raw}
        about = {"mediaType": file.get("mimeType"), "filename": file.get("name")}
        return {name: value for name, value in (content | about).items() if value}
    if "data" in part:
        return {"data": _camel(part["data"]).get("data")}
    return {"text": part.get("text", "")}
