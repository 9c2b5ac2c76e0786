"""The A2A endpoints in the description of the HTTP interface."""

from __future__ import annotations

from typing import NamedTuple

from broker.executions.types import EVENT_ID, LISTED
from broker.http.openapi_parts import (
    JSON,
    PROBLEM,
    SSE,
    TRACE,
    Json,
    content,
    header,
    header_refs,
    key,
    ok,
    operation,
    optional,
    parameter,
    parameter_refs,
    query,
    ref,
)
from broker.protocols.a2a.card import PATHS
from broker.protocols.a2a.schemas import NEW, OLD
from broker.protocols.a2a.v10 import MAX_COUNT, STATES

CARD = ("A2A 1.0, section 8 (0.3: section 5)", NEW)
RPC = ("A2A 1.0, section 9 (0.3: section 7)", NEW)
WATCH = ("A2A 1.0, section 3.1 (updates and their order)", NEW)
TAG = "a2a"
READ, WRITE = "executions:read", "executions:write"

_SPOKEN = "`1.0`, `0.3` or `0.2`, of which a patch never counts; none is 0.3"
_ANY: Json = {"type": "string", "pattern": "^((0[.][23]|1[.]0)([.][0-9]{1,6})?)?$"}
_VERSION = header("A2A-Version", _SPOKEN, **_ANY)
_NEW = header(
    "A2A-Version", "`1.0`; as a query parameter it does, too", type="string", pattern="^1[.]0([.][0-9]{1,6})?$"
) | {"required": True}
_OLD = header("A2A-Version", "`0.3` or `0.2`; none is 0.3", type="string", pattern="^(0[.][23]([.][0-9]{1,6})?)?$")
_KEY = key("a repeat of the message gets the first one's task")
_PLACE: Json = {"type": "string", "pattern": optional(EVENT_ID)}
_CURSORS = (
    header("Last-Event-ID", "begin with the task as it stood at this place of its log", **_PLACE),
    query("cursor", "the same, for want of the header", **_PLACE),
)
_AGENT = parameter("agent", "path", "the agent, by name; in 1.0 also the `tenant`", type="string", pattern="^[^/:]+$")
_TASK = parameter("id", "path", "id of the task, which is the execution's", type="string", pattern="^[^/:]+$")
_CONFIG = parameter("config", "path", "id of the configuration", type="string", pattern="^[^/]+$")
_HISTORY = query("historyLength", "at most so many messages", type="integer", minimum=0, maximum=MAX_COUNT)
_LISTED = (
    query("contextId", "only of this conversation", type="string"),
    query("status", "only in this state", type="string", enum=list(STATES.values())),
    query("pageSize", "most tasks of one page", type="integer", minimum=1, maximum=100),
    query("pageToken", "`nextPageToken` of the page before", type="string", pattern=optional(LISTED)),
    _HISTORY,
    query("statusTimestampAfter", "only those that changed since", type="string", format="date-time"),
    query("includeArtifacts", "with their artifacts", type="boolean"),
)


def paths() -> Json:
    new = _Rest("/a2a", "a2a", "A2aSendRequest", "A2aTask", "A2aPushConfig", _NEW, ("A2A 1.0, section 11", NEW))
    own = new._replace(base="/a2a/{agent}", id="a2aAgent", about=(_AGENT,))
    old = _Rest(
        "/a2a/v1", "a2aOld", "A2aOldRequest", "A2aOldTask", "A2aOldPushConfig", _OLD, ("A2A 0.3, section 3.2.3", OLD)
    )
    card, name = "The agent card for those who are let in: with the agents' parameters", "ExtendedCard"
    return {
        **{path: {"get": _card(f"a2aCard{n or ''}")} for n, path in enumerate(PATHS)},
        **{"/a2a/{agent}" + path: {"get": _card(f"a2aAgentCard{n or ''}", _AGENT)} for n, path in enumerate(PATHS)},
        "/a2a": {"post": _rpc("a2a")},
        "/a2a/{agent}": {"post": _rpc("a2aAgent", _AGENT)},
        "/a2a/stream": {"get": _watch()},
        **{path: item for each in (new, own, old) for path, item in each.tasks().items()},
        **{each.base + "/tasks": {"get": each.listing()} for each in (new, own)},
        "/a2a/v1/tasks": {"get": old.does("ListTasks", "Refused: tasks are listed since 1.0", _refused())},
        **{
            each.base + "/extendedAgentCard": {"get": each.does(name, card, _answer("A2aAgentCard"))}
            for each in (new, own)
        },
        "/a2a/v1/card": {"get": old.does(name, card, _answer("A2aAgentCard"))},
        "/agent/authenticatedExtendedCard": {"get": old.does(name + "Of02", card, _answer("A2aAgentCard"))},
    }


class _Rest(NamedTuple):
    """The REST binding of one version, or of one agent in it."""

    base: str
    id: str
    send: str
    task: str
    config: str
    version: Json
    spec: tuple[str, str]
    about: tuple[Json, ...] = ()

    def tasks(self) -> Json:
        task, answer = self.base + "/tasks/{id}", _answer(self.task)
        by = [
            self.does(f"SubscribeToTask{by}", "The task as it stands, then its updates", _updates(), _TASK, *_CURSORS)
            for by in ("", "ByPost")
        ]
        return {
            self.base + "/message:send": {"post": self.sends("SendMessage", "wait until it has settled", answer)},
            self.base + "/message:stream": {"post": self.sends("StreamMessage", "follow it", _updates())},
            task: {"get": self.does("GetTask", "A task", answer, _TASK, _HISTORY)},
            task + ":cancel": {"post": self.does("CancelTask", "Cancel a task", answer, _TASK, scope=WRITE)},
            task + ":subscribe": {"get": by[0], "post": by[1]},
            **self.pushes(task + "/pushNotificationConfigs"),
        }

    def pushes(self, configs: str) -> Json:
        """Refused where the edge signs no webhooks, as its card says."""
        config, listed = _answer(self.config), _answer({"type": "object", "properties": _configs(self.config)})
        set_, gone = "Have a task's notifications posted to a URL", "Post no more of them there"
        return {
            configs: {
                "get": self.does("ListPushConfigs", "Where a task's notifications are posted", listed, _TASK),
                "post": self.does("CreatePushConfig", set_, config, _TASK, scope=WRITE, body=self.config),
            },
            configs + "/{config}": {
                "get": self.does("GetPushConfig", "One of these", config, _TASK, _CONFIG),
                "delete": self.does("DeletePushConfig", gone, _answer({"type": "object"}), _TASK, _CONFIG, scope=WRITE),
            },
        }

    def listing(self) -> Json:
        return self.does("ListTasks", "Tasks, those that were last active first", _answer("A2aTaskList"), *_LISTED)

    def sends(self, name: str, and_then: str, answer: Json) -> Json:
        summary = f"Start a task, or answer one, and {and_then}"
        return self.does(name, summary, answer, _KEY, *parameter_refs(TRACE), scope=WRITE, body=self.send)

    def does(
        self, name: str, summary: str, answer: Json, *parameters: Json, scope: str = READ, body: str | None = None
    ) -> Json:
        errors = {"400": _error("What A2A has an error for."), "404": _error("There is no such task for this user.")}
        described = operation(
            self.id + name,
            summary,
            scope,
            answer,
            tag=TAG,
            parameters=(*self.about, *parameters, self.version),
            body=None if body is None else {JSON: body},
            spec=self.spec,
        )
        return {**described, "responses": {**described["responses"], **errors}}


def _answer(schema: str | Json) -> Json:
    return ok(200, "As the specification has it.", {JSON: schema})


def _configs(name: str) -> Json:
    return {"configs": {"type": "array", "items": ref(name)}, "nextPageToken": {"type": "string"}}


def _updates() -> Json:
    description = "The task, then its updates, up to its end or a question. Each has an `id`, which is a cursor."
    return {
        "200": {"description": description, "headers": header_refs(), "content": content({SSE: {"type": "string"}})}
    }


def _refused() -> Json:
    return {"400": _error("Always.")}


def _error(description: str) -> Json:
    return {
        "description": description,
        "headers": header_refs(),
        "content": content({JSON: "A2aError", PROBLEM: "Problem"}),
    }


def _card(id_: str, *parameters: Json) -> Json:
    known = {"304": {"description": "The client has it (`If-None-Match`).", "headers": header_refs("ETag")}}
    card = ok(200, "For as long as `Cache-Control` says.", {JSON: "A2aAgentCard"})
    card["200"]["headers"] = header_refs("ETag")
    return operation(
        id_,
        "The agent card, of all versions in one; it changes as agents come and go",
        None,
        {**card, **known},
        tag=TAG,
        parameters=parameters,
        errors=(400, 404) if parameters else (400,),
        spec=CARD,
    )


def _rpc(id_: str, *parameters: Json) -> Json:
    answers = content({JSON: "A2aRpcResponse", SSE: {"type": "string"}})
    description = "A response; for streaming methods events that are each a response. A2A's errors are responses, too."
    return operation(
        id_,
        "JSON-RPC: 1.0, 0.3 and 0.2.5",
        READ,
        {"200": {"description": description, "headers": header_refs(), "content": answers}},
        tag=TAG,
        parameters=(*parameters, _VERSION, _KEY, *_CURSORS, *parameter_refs(TRACE)),
        body={JSON: "A2aRpcRequest"},
        errors=(404,) if parameters else (),
        spec=RPC,
    )


def _watch() -> Json:
    description = (
        "The task, then its updates to its end, over questions. Each event has an `id`, from which the stream resumes."
    )
    ended = {"204": {"description": "The task has ended, and nothing follows the cursor.", "headers": header_refs()}}
    events = {SSE: {"schema": {"type": "string"}, "x-sse-data": {"simple": ref("A2aSimpleEvent")}}}
    return operation(
        "a2aWatch",
        "A task for an `EventSource`",
        READ,
        {"200": {"description": description, "headers": header_refs(), "content": events}, **ended},
        tag=TAG,
        parameters=(
            query("taskId", "id of the task", type="string", minLength=1) | {"required": True},
            query("format", "`simple`: events of the simple form", type="string", enum=["simple"]),
            query("A2A-Version", "the version of the events; without it 0.3", **_ANY),
            header(
                "Last-Event-ID", "only what follows this event; all of it, if there is no such event", type="string"
            ),
            query("lastEventId", "only what follows this event", type="string"),
        ),
        errors=(400, 404),
        ticket=True,
        spec=WATCH,
    )
