"""The shapes of A2A in the description of the HTTP interface. They are the specification's, and summarised; the simple
form is ours."""

from __future__ import annotations

from typing import Any

from broker.http.openapi_parts import Json, ref
from broker.protocols.a2a.codec import MAX_CONTEXT_CHARS, MAX_PARTS
from broker.protocols.a2a.v10 import MAX_COUNT, STATES
from broker.protocols.a2a.versions import METHODS

NEW = "https://a2a-protocol.org/v1.0.0/specification/"
OLD = "https://a2a-protocol.org/v0.3.0/specification/"

SIMPLE = ("task.created", "task.status", "task.progress", "task.completed", "task.error")

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NAME: Json = {"type": "string", "minLength": 1}
_CONTEXT: Json = {"type": "string", "maxLength": MAX_CONTEXT_CHARS}
_TEXTS: Json = {"type": "array", "items": {"type": "string"}}
_LIST: Json = {"type": "array", "items": {"type": "object"}}
_OBJECT: Json = {"type": "object"}
_ID: Json = {"type": ["string", "number", "null"]}


def schemas() -> Json:
    """Components by name."""
    return {
        "A2aAgentCard": _of("An agent card, of all versions in one.", NEW, "8"),
        "A2aMessage": _of(
            "A message of 1.0. Text parts are the task; data parts the agent's parameters, or the answer to what it "
            "asked; files come with the agent's `messages`. `taskId` names a task that waits for an answer, "
            "`contextId` a conversation.",
            NEW, "4",
            messageId=_NAME, role={"const": "ROLE_USER"}, parts=_parts(), taskId=_TEXT, contextId=_CONTEXT,
            metadata=_OBJECT, extensions=_TEXTS, referenceTaskIds=_TEXTS,
        ) | {"required": ["messageId", "role", "parts"]},
        "A2aSendRequest": _of(
            "`metadata.agent` names the agent, unless the path or `tenant` does; `metadata.inputId` the question that "
            "is answered.",
            NEW, "3",
            message=ref("A2aMessage"), configuration=_configuration(), metadata=_OBJECT, tenant=_TEXT,
        ) | {"required": ["message"]},
        "A2aTask": _of(
            "A task of 1.0. `metadata.cursor` and `metadata.generation` are its place in the log, to resume from.",
            NEW, "4",
            id=_TEXT, contextId=_TEXT, status=_status(), artifacts=_LIST, history=_LIST, metadata=_OBJECT,
        ) | {"required": ["id", "contextId", "status"]},
        "A2aTaskList": _of(
            "Tasks, those that were last active first.", NEW, "3",
            tasks={"type": "array", "items": ref("A2aTask")}, nextPageToken=_TEXT, pageSize=_COUNT, totalSize=_COUNT,
        ) | {"required": ["tasks", "nextPageToken", "pageSize", "totalSize"]},
        "A2aPushConfig": _of(
            "Where a task's notifications are posted, signed as webhooks are. `token` and `authentication` are not "
            "shown again.",
            NEW, "4",
            id=_TEXT, taskId=_TEXT, url=_NAME, token=_TEXT, authentication=_authentication(),
        ) | {"required": ["url"]},
        "A2aOldRequest": _of(
            "A message of 0.3 for REST (in the ProtoJSON of its `a2a.proto`), with its configuration.", OLD, "7",
            request=_old_message(), configuration=_OBJECT, metadata=_OBJECT,
        ) | {"required": ["request"]},
        "A2aOldTask": _of(
            "A task of 0.3.", OLD, "6", id=_TEXT, contextId=_TEXT, status=_OBJECT,
        ) | {"required": ["id", "contextId", "status"]},
        "A2aOldPushConfig": _of(
            "The same in 0.3: by `name` when it is shown, as `config` with its `configId` when it is set.", OLD, "6",
            name=_TEXT, configId=_TEXT, config=_OBJECT, pushNotificationConfig=_OBJECT,
        ),
        "A2aRpcRequest": _rpc_request(),
        "A2aRpcResponse": _of(
            "JSON-RPC 2.0: a result, or an error with A2A's code.", NEW, "9",
            jsonrpc={"const": "2.0"}, id=_ID, result=_OBJECT, error=_OBJECT,
        ) | {"required": ["jsonrpc", "id"], "oneOf": [{"required": ["result"]}, {"required": ["error"]}]},
        "A2aError": _of("A `google.rpc.Status` (1.0), or code, type and message (0.3).", NEW, "11"),
        "A2aSimpleEvent": _simple(),
    }  # fmt: skip


def _of(description: str, specification: str, section: str, **properties: Any) -> Json:
    where = {"description": f"section {section}", "url": specification}
    schema: Json = {"type": "object", "description": description, "externalDocs": where}
    return schema | ({"properties": properties} if properties else {})


def _status() -> Json:
    state = {"type": "string", "enum": list(STATES.values())}
    said = {"state": state, "message": _OBJECT, "timestamp": {"type": "string", "format": "date-time"}}
    return {"type": "object", "properties": said, "required": ["state", "timestamp"]}


def _old_message() -> Json:
    content = {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": MAX_PARTS}
    properties = {"messageId": _NAME, "role": {"const": "ROLE_USER"}, "content": content}
    ids = {"taskId": _TEXT, "contextId": _CONTEXT, "metadata": _OBJECT}
    return {"type": "object", "properties": properties | ids, "required": ["messageId", "role", "content"]}


def _parts() -> Json:
    about: Json = {"mediaType": _TEXT, "filename": _TEXT, "metadata": _OBJECT}
    holds: Json = {"text": _TEXT, "data": {}, "raw": _TEXT, "url": _TEXT}
    part = {"type": "object", "properties": holds | about, "oneOf": [{"required": [name]} for name in holds]}
    return {"type": "array", "items": part, "minItems": 1, "maxItems": MAX_PARTS}


def _configuration() -> Json:
    counted = {**_COUNT, "maximum": MAX_COUNT}
    wanted = {"historyLength": counted, "returnImmediately": {"type": "boolean"}, "acceptedOutputModes": _TEXTS}
    return {"type": "object", "properties": wanted | {"taskPushNotificationConfig": ref("A2aPushConfig")}}


def _authentication() -> Json:
    return {"type": "object", "properties": {"scheme": _TEXT, "credentials": _TEXT}}


def _rpc_request() -> Json:
    names = sorted(name for names in METHODS.values() for name in names if name is not None)
    method = {"type": "string", "enum": names}
    said = "JSON-RPC 2.0. A method is of one version, which `A2A-Version` must say."
    schema = _of(said, NEW, "9", jsonrpc={"const": "2.0"}, id=_ID, method=method, params=_OBJECT)
    return {**schema, "required": ["jsonrpc", "method"]}


def _simple() -> Json:
    """Ours, so all of it."""
    place = {"generation": _COUNT, "cursor": _TEXT, "event": _TEXT, "agent": _TEXT}
    chunk = {"artifactId": _TEXT, "name": _TEXT, "append": {"type": "boolean"}, "last": {"type": "boolean"}}
    said = {"message": _TEXT, "error": _TEXT, "data": {}, "usage": {"type": "object"}, "duration": {"type": "number"}}
    return {
        "type": "object",
        "description": "What `?format=simple` has in `data`. `task.error` ends what failed or was cancelled.",
        "properties": {
            "type": {"type": "string", "enum": list(SIMPLE)},
            "taskId": _TEXT,
            "contextId": _TEXT,
            "status": _TEXT,
            "timestamp": {"type": "string", "format": "date-time"},
            **place,
            **chunk,
            "content": {"type": "array", "items": {}},
            **said,
        },
        "required": ["type", "taskId", "contextId"],
    }
