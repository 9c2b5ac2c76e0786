"""The description of the HTTP interface (OpenAPI 3.1), generated from the types that the code itself uses.

The module is long because it is one table: what the native interface answers, in one place. What the endpoints of other
protocols answer is beside them, in their packages.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from broker.base.reasons import CloseReason
from broker.base.settings import Scope
from broker.edge.openapi_webhooks import WebhookList, list_webhooks
from broker.executions import types as api
from broker.http import jobs_openapi as jobs
from broker.http import message_openapi as messages
from broker.http.openapi_parts import (
    ID,
    JSON,
    LIMIT,
    NDJSON,
    OWNER,
    REF,
    SSE,
    TRACE,
    Json,
    header,
    header_refs,
    headers,
    key,
    ok,
    operation,
    optional,
    parameter_refs,
    problems,
    query,
    ref,
)
from broker.jobs import types as job_types
from broker.ops import types as ops_types
from broker.ops.types import OpsSnapshot
from broker.protocols import openapi as protocols
from broker.streams import request
from emitter import events
from emitter.events import CATALOGUE, Custom, Event, State
from emitter.wire.envelope import CUSTOM_TYPE, Envelope


def build_openapi(version: str) -> Json:
    """The whole description, as what JSON makes of it."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "Runcast",
            "version": version,
            "summary": "Stream what AI agents are doing to the people who wait for them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name} for name in ("executions", "streams", jobs.TAG, "operations", *protocols.TAGS)],
        "paths": _execution_paths() | _stream_paths() | jobs.paths() | _operations_paths() | protocols.paths(),
        "components": {
            "schemas": _plain(_schemas()),
            "parameters": {parameter["name"]: parameter for parameter in (*OWNER, *STREAM, *TRACE)},
            "headers": headers(),
            "responses": problems(),
            "securitySchemes": _security_schemes(),
        },
    }


# --- schemas ---------------------------------------------------------------------------------------------------------

_BODIES: tuple[type[msgspec.Struct], ...] = (
    api.ExecuteRequest, api.CancelRequest, api.InputRequest, api.TicketRequest, api.RevocationRequest,
    api.PublishRequest, api.ExecuteResponse, api.ExecutionList, api.EventPage, api.CancelResponse, api.InputResponse,
    api.PublishResponse, api.TicketResponse, api.RevocationResponse, api.AgentList, api.ExecutionState, api.ProblemBody,
    WebhookList, *api.CONTROL_EVENTS.values(), OpsSnapshot,
)  # fmt: skip


def _schemas() -> Json:
    bodies = (*_BODIES, *jobs.BODIES, *protocols.BODIES, *messages.BODIES, *CATALOGUE, Envelope)
    _, schemas = msgspec.json.schema_components(bodies, ref_template=REF)
    schemas = _named(schemas)
    head = schemas.pop("Envelope")
    names = {event.type: event.__name__ + "Event" for event in CATALOGUE}
    for event in CATALOGUE:
        schemas[names[event.type]] = _event(head, {"const": event.type}, ref(event.__name__), event)
    custom = {"type": "string", "pattern": "^" + CUSTOM_TYPE.pattern.replace(r"\Z", "$")}
    schemas["CustomEvent"] = _event(head, custom, {"type": "object"}, Custom)
    mapping = {type_: REF.format(name=name) for type_, name in names.items()}
    schemas["Event"] = {
        "title": "Event",
        "description": "One event of a log. Types `custom:<name>` are CustomEvent.",
        "oneOf": [ref(name) for name in (*names.values(), "CustomEvent")],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    # What the code passes on without decoding is typed here all the same, and what it checks after that.
    schemas["LoggedEvent"]["properties"]["event"] = ref("Event")
    schemas["PublishRequest"]["properties"] |= {
        "type": {"anyOf": [{"enum": list(names)}, custom]},
        "data": {"type": "object"},
    }
    schemas["RevocationRequest"]["oneOf"] = [_only("jti", "user"), _only("user", "jti")]
    schemas["StreamEnd"]["properties"]["reason"] = {"type": "string", "enum": list(CloseReason)}
    _say_what_is_always_there(schemas)
    return dict(sorted({**schemas, **protocols.schemas()}.items()))


def _say_what_is_always_there(schemas: Json) -> None:
    """Structs that leave nothing out have all their members, null where they are unset; requests may leave out what has
    a default, whatever they leave out otherwise."""
    for module in (api, job_types, ops_types, events):
        for name in schemas.keys() & vars(module).keys():
            config = getattr(module, name).__struct_config__
            if not (config.omit_defaults or config.forbid_unknown_fields):
                schemas[name]["required"] = list(schemas[name]["properties"])


def _plain(document: Any) -> Any:
    """Without what generators of clients misread: a member with a default, which they take for one that is always
    there; and an object of which nothing is said, which they take for an empty one."""
    if isinstance(document, list):
        return [_plain(each) for each in document]
    if not isinstance(document, dict):
        return document
    found = {name: _plain(each) for name, each in document.items() if name not in ("default", "properties")}
    if "properties" in document:
        found["properties"] = {name: _plain(each) for name, each in document["properties"].items()}
    if found.get("type") == "object" and not found.keys() & {"properties", "additionalProperties"}:
        found["additionalProperties"] = True
    return found


def _named(schemas: Json) -> Json:
    """The public names: `broker.protocols.ai_sdk.chat.Message` is `AiSdkMessage`, and `ProblemBody` is `Problem`."""
    names = {name: _short(name) for name in schemas if "." in name} | {"ProblemBody": "Problem"}
    text = msgspec.json.encode(schemas).decode()
    for name, short in names.items():
        text = text.replace(f'"{REF.format(name=name)}"', f'"{REF.format(name=short)}"')
    found: Json = msgspec.json.decode(text)
    for name, short in names.items():
        found[short] = found.pop(name) | {"title": short}
    return found


def _short(name: str) -> str:
    protocol, _, class_ = name.removeprefix("broker.protocols.").split(".")
    return "".join(word.capitalize() for word in protocol.split("_")) + class_


def _only(name: str, other: str) -> Json:
    """One member of two, the other left out or null."""
    return {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}


def _event(head: Json, type_: Json, data: Json, event: type[Event]) -> Json:
    """An event as it is on the wire: the envelope, with this type and this data."""
    properties = {**head["properties"], "type": type_, "data": data}
    schema: Json = {"title": event.__name__ + "Event", "type": "object"}
    if event.__doc__:
        schema["description"] = event.__doc__
    return {**schema, "properties": properties, "required": head["required"]}


# --- parameters, security --------------------------------------------------------------------------------------------

_CURSOR: Json = {"type": "string", "pattern": optional(api.EVENT_ID)}
_NAMED = r"([a-z0-9_.:-]{1,80}\*?|\*)"
STREAM = (
    header("Last-Event-ID", "resume after this event; wins over `lastEventId`", **_CURSOR),
    query("lastEventId", "resume after this event", **_CURSOR),
    query("from", "where to begin without a cursor", type="string", enum=["start", "now"]),
    query("types", "only these types: `tool:*,execution:*`", type="string", pattern=f"^{_NAMED}(,{_NAMED}){{0,31}}$"),
    query(
        "compact",
        "`true`: until `stream:live`, neighbouring deltas of one text are one event with the id of the last",
        type="string",
        enum=["true", "false"],
    ),
    query("named", "`false`: every event as the default `message`", type="string", enum=["true", "false"]),
    query(
        "heartbeat",
        "`event`: heartbeats as events, not comments; seconds, 1 to 60: no further apart than this; or `event,5`",
        type="string",
        pattern=request.HEARTBEAT,
    ),
)


def _security_schemes() -> Json:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Claims `sub`, `org`?, `exp`, `iat` and `scope` (or `scp`): "
            + ", ".join(f"`{scope}`" for scope in get_args(Scope))
            + ". A token without a claim about scopes may do `executions:read`.",
        },
        "cookie": {"type": "apiKey", "in": "cookie", "name": "runcast_token", "description": "The same token."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "Single use, for 30 s."},
    }


# --- operations ------------------------------------------------------------------------------------------------------


def _stream_answers(*, of_execution: bool) -> Json:
    """The answer of a stream; `x-sse-events` has, for each `event:` field, the schema of its `data:`."""
    control: Json = {name: ref(struct.__name__) for name, struct in api.CONTROL_EVENTS.items()}
    logged: Json = {event.type: ref(event.__name__ + "Event") for event in CATALOGUE}
    answers: Json = {
        "200": {
            "description": "Server-sent events. Logged events carry an `id`; of control events (`stream:*`) only"
            " `stream:cursor` does.",
            "headers": header_refs(),
            "content": {
                SSE: {
                    "schema": {"type": "string"},
                    "x-sse-events": {**logged, "custom:*": ref("CustomEvent"), **control},
                }
            },
        }
    }
    if of_execution:
        answers["204"] = {
            "description": "The execution has ended and nothing follows the cursor.",
            "headers": header_refs(),
        }
    return answers


def _execution_paths() -> Json:
    execution = "/api/agent/executions/{id}"
    return {
        "/api/agent/execute": {"post": _execute()},
        "/api/agent/executions": {"get": _list_executions()},
        execution: {
            "get": operation(
                "getExecution",
                "The folded state; the stack trace of an error with scope `executions:debug`",
                "executions:read",
                ok(200, "The state.", {JSON: "ExecutionState"}),
                parameters=(ID,),
                errors=(404,),
            )
        },
        execution + "/events": {"get": _list_events(), "post": _publish()},
        execution + "/webhooks": {"get": list_webhooks()},
        execution + "/cancel": {
            "post": operation(
                "cancelExecution",
                "Ask the execution to stop; asking again changes nothing",
                "executions:write",
                ok(202, "It will end, or has ended, as cancelled.", {JSON: "CancelResponse"}),
                parameters=(ID,),
                body={JSON: "CancelRequest"},
                body_required=False,
                errors=(404, 409),
            )
        },
        **messages.paths(execution),
        execution + "/input": {
            "post": operation(
                "answerInput",
                "Answer an `input:required`; the first answer counts",
                "executions:write",
                ok(202, "The agent has the answer.", {JSON: "InputResponse"}),
                parameters=(ID,),
                body={JSON: "InputRequest"},
                errors=(404, 409),
            )
        },
    }


def _execute() -> Json:
    return operation(
        "execute",
        "Start an execution",
        "executions:write",
        ok(202, "It is queued.", {JSON: "ExecuteResponse"}),
        parameters=(key("a repeat with the same key gets the first answer"), *parameter_refs(TRACE)),
        body={JSON: "ExecuteRequest"},
        errors=(409,),
    )


def _list_executions() -> Json:
    return operation(
        "listExecutions",
        "The caller's executions, newest first",
        "executions:read",
        ok(200, "One page.", {JSON: "ExecutionList"}),
        parameters=(
            query("state", "only those in this state", **msgspec.json.schema(State)),
            LIMIT,
            query("cursor", "`nextCursor` of the page before", type="string", pattern=api.LISTED),
        ),
        errors=(400,),
    )


def _list_events() -> Json:
    return operation(
        "listEvents",
        "The log as JSON; as NDJSON all of it (the audit export)",
        "executions:read",
        ok(200, "Events after the cursor.", {JSON: "EventPage", NDJSON: "LoggedEvent"}),
        parameters=(
            ID,
            query("after", "only events after this one", type="string", pattern=api.EVENT_ID),
            LIMIT,
            query(
                "compact",
                "`true`: neighbouring deltas of one text are one event with the id of the last; not in NDJSON",
                type="string",
                enum=["true", "false"],
            ),
        ),
        errors=(400, 404),
    )


def _publish() -> Json:
    return operation(
        "publishEvents",
        "Append one event, or many as NDJSON; an empty NDJSON body renews the lease of the execution",
        "events:publish",
        ok(202, "They are in the log, except those that a hook dropped.", {JSON: "PublishResponse"}),
        parameters=(
            ID,
            header(
                "Producer-Id",
                "with `Producer-Seq`: a repeat appends nothing twice",
                type="string",
                pattern="^[A-Za-z0-9_.-]{1,64}$",
            ),
            header("Producer-Seq", "the first event's number: from 1, without gaps", type="integer", minimum=1),
            *jobs.ATTEMPT_HEADERS,
            *parameter_refs(TRACE),
        ),
        body={JSON: "PublishRequest", NDJSON: "PublishRequest"},
        errors=(404, 409, 500),
    )


def _stream_paths() -> Json:
    return {
        "/api/agent/executions/{id}/stream": {
            "get": operation(
                "streamExecution",
                "Follow one execution",
                "executions:read",
                _stream_answers(of_execution=True),
                tag="streams",
                parameters=(ID, *parameter_refs(STREAM)),
                errors=(400, 404),
                ticket=True,
            )
        },
        "/api/agent/stream": {
            "get": operation(
                "streamFeed",
                "Follow all executions of the caller; the feed has its own ids",
                "executions:read",
                _stream_answers(of_execution=False),
                tag="streams",
                parameters=parameter_refs(STREAM),
                errors=(400,),
                ticket=True,
            )
        },
        "/api/agent/stream-tickets": {
            "post": operation(
                "createStreamTicket",
                "A ticket that opens one stream, for `EventSource`",
                "executions:read",
                ok(201, "Valid once, for 30 s.", {JSON: "TicketResponse"}),
                tag="streams",
                body={JSON: "TicketRequest"},
                body_required=False,
            )
        },
    }


def _stream_ops() -> Json:
    names = ("stream:open", "stream:token_expiring", "stream:end")
    sent = {"ops": ref("OpsSnapshot"), **{name: ref(api.CONTROL_EVENTS[name].__name__) for name in names}}
    return operation(
        "streamOperations",
        "The state of edges, workers and Redis, every two seconds",
        "ops:read",
        {
            "200": {
                "description": "Server-sent events without an `id`: each snapshot is complete.",
                "headers": header_refs(),
                "content": {SSE: {"schema": {"type": "string"}, "x-sse-events": sent}},
            }
        },
        tag="operations",
        ticket=True,
    )


def _operations_paths() -> Json:
    return {
        "/api/agent/agents": {
            "get": operation(
                "listAgents",
                "The agents that live workers announce",
                "executions:read",
                ok(200, "By name.", {JSON: "AgentList"}),
                tag="operations",
            )
        },
        "/api/ops/stream": {"get": _stream_ops()},
        "/api/admin/revocations": {
            "post": operation(
                "revoke",
                "Refuse a token, or all tokens issued to a user until now, on every edge and on open streams",
                "admin",
                ok(202, "In effect within a second.", {JSON: "RevocationResponse"}),
                tag="operations",
                body={JSON: "RevocationRequest"},
            ),
            "delete": operation(
                "takeBackRevocation",
                "Undo a revocation, named by the body or by the query `jti`, or `user` and `org`",
                "admin",
                {"204": {"description": "In effect within a second.", "headers": header_refs()}},
                tag="operations",
                body={JSON: "RevocationRequest"},
                body_required=False,
                parameters=(query("jti", "the token, if there is no body", type="string"),),
            ),
        },
        "/openapi.json": {
            "get": operation(
                "getOpenapi",
                "This description",
                None,
                ok(200, "OpenAPI 3.1.", {JSON: {"type": "object"}}),
                tag="operations",
            )
        },
    }
