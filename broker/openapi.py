"""The description of the native HTTP interface (OpenAPI 3.1), generated from the types that the code itself uses.

The endpoints of other protocols (AI SDK, AG-UI) have specifications of their own and are not in it. The module is long
because it is one table: what the native interface answers, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from broker import api_types as api
from broker.metrics import CloseReason
from emitter.events import CATALOGUE, Custom, Event, State
from emitter.wire import CUSTOM_TYPE, Envelope

Json = dict[str, Any]
Types = Mapping[str, Any]

REF = "#/components/schemas/{name}"
JSON = "application/json"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
SCOPES = ("executions:read", "executions:write", "events:publish", "executions:debug", "ops:read", "admin")

ERRORS = {
    400: ("BadRequest", "The request is malformed."),
    401: ("Unauthorized", "No valid token, cookie or ticket."),
    403: ("Forbidden", "A scope is missing, or the origin is not allowed."),
    404: ("NotFound", "There is no such execution for this user."),
    408: ("RequestTimeout", "The body did not arrive in time."),
    409: ("Conflict", "It was already done, or is over."),
    500: ("HookFailed", "A hook failed; nothing was stored."),
    413: ("TooLarge", "The body or an event is over its limit."),
    422: ("Unprocessable", "A field does not fit; `path` says which."),
    429: ("TooManyRequests", "A limit of this user is reached."),
    503: ("Unavailable", "The edge is full or draining, or Redis is away."),
}
ALWAYS = (401, 403, 429, 503)
WITH_BODY = (400, 408, 413, 422)
MAX_PAGE = 200


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
        "tags": [{"name": name} for name in ("executions", "streams", "operations")],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": {parameter["name"]: parameter for parameter in (*_OWNER, *_STREAM)},
            "headers": _headers(),
            "responses": _problems(),
            "securitySchemes": _security_schemes(),
        },
    }


# --- schemas ---------------------------------------------------------------------------------------------------------

_BODIES: tuple[type[msgspec.Struct], ...] = (
    api.ExecuteRequest, api.CancelRequest, api.InputRequest, api.TicketRequest, api.RevocationRequest,
    api.PublishRequest, api.ExecuteResponse, api.ExecutionList, api.EventPage, api.CancelResponse, api.InputResponse,
    api.PublishResponse, api.TicketResponse, api.RevocationResponse, api.AgentList, api.ExecutionState, api.Problem,
    *api.CONTROL_EVENTS.values(),
)  # fmt: skip


def _ref(name: str) -> Json:
    return {"$ref": REF.format(name=name)}


def _schemas() -> Json:
    _, schemas = msgspec.json.schema_components([*_BODIES, *CATALOGUE, Envelope], ref_template=REF)
    head = schemas.pop("Envelope")
    names = {event.type: event.__name__ + "Event" for event in CATALOGUE}
    for event in CATALOGUE:
        schemas[names[event.type]] = _event(head, {"const": event.type}, _ref(event.__name__), event)
    custom = {"type": "string", "pattern": "^" + CUSTOM_TYPE.pattern.replace(r"\Z", "$")}
    schemas["CustomEvent"] = _event(head, custom, {"type": "object"}, Custom)
    mapping = {type_: REF.format(name=name) for type_, name in names.items()}
    schemas["Event"] = {
        "title": "Event",
        "description": "One event of a log. Types `custom:<name>` are CustomEvent.",
        "oneOf": [_ref(name) for name in (*names.values(), "CustomEvent")],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    # What the code passes on without decoding is typed here all the same.
    schemas["LoggedEvent"]["properties"]["event"] = _ref("Event")
    schemas["PublishRequest"]["properties"]["data"] = {"type": "object"}
    schemas["StreamEnd"]["properties"]["reason"] = {"type": "string", "enum": list(CloseReason)}
    return dict(sorted(schemas.items()))


def _event(head: Json, type_: Json, data: Json, event: type[Event]) -> Json:
    """An event as it is on the wire: the envelope, with this type and this data."""
    properties = {**head["properties"], "type": type_, "data": data}
    schema: Json = {"title": event.__name__ + "Event", "type": "object"}
    if event.__doc__:
        schema["description"] = event.__doc__
    return {**schema, "properties": properties, "required": head["required"]}


# --- parameters, headers, errors, security ---------------------------------------------------------------------------


def _parameter(name: str, where: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


def _header(name: str, description: str, **schema: Any) -> Json:
    return _parameter(name, "header", description, **schema)


def _query(name: str, description: str, **schema: Any) -> Json:
    return _parameter(name, "query", description, **schema)


_ID = _parameter("id", "path", "id of the execution", type="string", pattern="^[A-Za-z0-9_-]{1,64}$")
_OWNER = (
    _query("user", "act for this user (scope `admin`)", type="string"),
    _query("org", "the org of that user (scope `admin`)", type="string"),
)
_LIMIT = _query("limit", "most entries of one answer", type="integer", minimum=1, maximum=MAX_PAGE)
_STREAM = (
    _header("Last-Event-ID", "resume after this event; wins over `lastEventId`", type="string"),
    _query("lastEventId", "resume after this event", type="string"),
    _query("from", "where to begin without a cursor", type="string", enum=["start", "now"]),
    _query("types", "only these types: `tool:*,execution:*`", type="string"),
    _query("named", "`false`: every event as the default `message`", type="string", enum=["true", "false"]),
    _query("heartbeat", "`event`: heartbeats as events, not comments", type="string", enum=["event"]),
)


def _parameter_refs(parameters: tuple[Json, ...]) -> tuple[Json, ...]:
    return tuple({"$ref": "#/components/parameters/" + each["name"]} for each in parameters)


def _headers() -> Json:
    return {
        "X-Request-ID": {
            "description": "The id of this request.",
            "schema": {"type": "string"},
        },
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    }


def _header_refs(*names: str) -> Json:
    return {name: {"$ref": "#/components/headers/" + name} for name in ("X-Request-ID", *names)}


def _problems() -> Json:
    return {
        name: {
            "description": description,
            "headers": _header_refs("Retry-After") if status in (429, 503) else _header_refs(),
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }
        for status, (name, description) in ERRORS.items()
    }


def _security_schemes() -> Json:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Claims `sub`, `org`?, `exp` and `scope`: "
            + ", ".join(f"`{scope}`" for scope in SCOPES)
            + ".",
        },
        "cookie": {"type": "apiKey", "in": "cookie", "name": "runcast_token", "description": "The same token."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "Single use, for 30 s."},
    }


# --- operations ------------------------------------------------------------------------------------------------------


def _operation(
    id_: str,
    summary: str,
    scope: str | None,
    responses: Json,
    *,
    tag: str = "executions",
    parameters: tuple[Json, ...] = (),
    body: Types | None = None,
    body_required: bool = True,
    errors: tuple[int, ...] = (),
    ticket: bool = False,
) -> Json:
    operation: Json = {"operationId": id_, "summary": summary, "tags": [tag]}
    schemes = ("bearer", "cookie", "ticket") if ticket else ("bearer", "cookie")
    operation["security"] = [{scheme: [scope]} for scheme in schemes] if scope else []
    if scope:
        operation["parameters"] = [
            *parameters,
            *({"$ref": "#/components/parameters/" + each["name"]} for each in _OWNER),
        ]
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": _content(body)}
    known = sorted({*errors, *(ALWAYS if scope else ()), *(WITH_BODY if body else ())})
    refused = {str(status): {"$ref": "#/components/responses/" + ERRORS[status][0]} for status in known}
    return {**operation, "responses": {**responses, **refused}}


def _content(types: Types) -> Json:
    """Media type → schema, given as the name of a component or as a schema."""
    return {media: {"schema": _ref(schema) if isinstance(schema, str) else schema} for media, schema in types.items()}


def _ok(status: int, description: str, types: Types) -> Json:
    return {str(status): {"description": description, "headers": _header_refs(), "content": _content(types)}}


def _stream_answers(*, of_execution: bool) -> Json:
    """The answer of a stream; `x-sse-events` has, for each `event:` field, the schema of its `data:`."""
    control: Json = {name: _ref(struct.__name__) for name, struct in api.CONTROL_EVENTS.items()}
    logged: Json = {event.type: _ref(event.__name__ + "Event") for event in CATALOGUE}
    answers: Json = {
        "200": {
            "description": "Server-sent events. Logged events carry an `id`, control events (`stream:*`) none.",
            "headers": _header_refs(),
            "content": {
                SSE: {
                    "schema": {"type": "string"},
                    "x-sse-events": {**logged, "custom:*": _ref("CustomEvent"), **control},
                }
            },
        }
    }
    if of_execution:
        answers["204"] = {
            "description": "The execution has ended and nothing follows the cursor.",
            "headers": _header_refs(),
        }
    return answers


def _paths() -> Json:
    return {**_execution_paths(), **_stream_paths(), **_operations_paths()}


def _execution_paths() -> Json:
    execution = "/api/agent/executions/{id}"
    return {
        "/api/agent/execute": {"post": _execute()},
        "/api/agent/executions": {"get": _list_executions()},
        execution: {
            "get": _operation(
                "getExecution",
                "The folded state; the stack trace of an error with scope `executions:debug`",
                "executions:read",
                _ok(200, "The state.", {JSON: "ExecutionState"}),
                parameters=(_ID,),
                errors=(404,),
            )
        },
        execution + "/events": {"get": _list_events(), "post": _publish()},
        execution + "/cancel": {
            "post": _operation(
                "cancelExecution",
                "Ask the execution to stop; asking again changes nothing",
                "executions:write",
                _ok(202, "It will end, or has ended, as cancelled.", {JSON: "CancelResponse"}),
                parameters=(_ID,),
                body={JSON: "CancelRequest"},
                body_required=False,
                errors=(404, 409),
            )
        },
        execution + "/input": {
            "post": _operation(
                "answerInput",
                "Answer an `input:required`; the first answer wins",
                "executions:write",
                _ok(202, "The agent has the answer.", {JSON: "InputResponse"}),
                parameters=(_ID,),
                body={JSON: "InputRequest"},
                errors=(404, 409),
            )
        },
    }


def _execute() -> Json:
    key = _header("Idempotency-Key", "a repeat with the same key gets the first answer", type="string", maxLength=255)
    return _operation(
        "execute",
        "Start an execution",
        "executions:write",
        _ok(202, "It is queued.", {JSON: "ExecuteResponse"}),
        parameters=(key,),
        body={JSON: "ExecuteRequest"},
        errors=(409,),
    )


def _list_executions() -> Json:
    return _operation(
        "listExecutions",
        "The caller's executions, newest first",
        "executions:read",
        _ok(200, "One page.", {JSON: "ExecutionList"}),
        parameters=(
            _query("state", "only those in this state", **msgspec.json.schema(State)),
            _LIMIT,
            _query("cursor", "`nextCursor` of the page before", type="string"),
        ),
        errors=(400,),
    )


def _list_events() -> Json:
    return _operation(
        "listEvents",
        "The log as JSON; as NDJSON all of it (the audit export)",
        "executions:read",
        _ok(200, "Events after the cursor.", {JSON: "EventPage", NDJSON: "LoggedEvent"}),
        parameters=(_ID, _query("after", "only events after this one", type="string"), _LIMIT),
        errors=(400, 404),
    )


def _publish() -> Json:
    return _operation(
        "publishEvents",
        "Append one event, or many as NDJSON",
        "events:publish",
        _ok(202, "They are in the log, but for those that a hook dropped.", {JSON: "PublishResponse"}),
        parameters=(
            _ID,
            _header("Producer-Id", "with `Producer-Seq`: a repeat appends nothing twice", type="string", maxLength=64),
            _header("Producer-Seq", "the first event's number: from 1, without gaps", type="integer", minimum=1),
        ),
        body={JSON: "PublishRequest", NDJSON: "PublishRequest"},
        errors=(404, 409, 500),
    )


def _stream_paths() -> Json:
    return {
        "/api/agent/executions/{id}/stream": {
            "get": _operation(
                "streamExecution",
                "Follow one execution",
                "executions:read",
                _stream_answers(of_execution=True),
                tag="streams",
                parameters=(_ID, *_parameter_refs(_STREAM)),
                errors=(400, 404),
                ticket=True,
            )
        },
        "/api/agent/stream": {
            "get": _operation(
                "streamFeed",
                "Follow all of the caller's executions; ids are the feed's own",
                "executions:read",
                _stream_answers(of_execution=False),
                tag="streams",
                parameters=_parameter_refs(_STREAM),
                errors=(400,),
                ticket=True,
            )
        },
        "/api/agent/stream-tickets": {
            "post": _operation(
                "createStreamTicket",
                "A ticket to open one stream with, for `EventSource`",
                "executions:read",
                _ok(201, "Valid once, for 30 s.", {JSON: "TicketResponse"}),
                tag="streams",
                body={JSON: "TicketRequest"},
                body_required=False,
            )
        },
    }


def _operations_paths() -> Json:
    return {
        "/api/agent/agents": {
            "get": _operation(
                "listAgents",
                "The agents that live workers announce",
                "executions:read",
                _ok(200, "By name.", {JSON: "AgentList"}),
                tag="operations",
            )
        },
        "/api/admin/revocations": {
            "post": _operation(
                "revoke",
                "Refuse a token or a user everywhere, on open streams too",
                "admin",
                _ok(202, "In effect within a second.", {JSON: "RevocationResponse"}),
                tag="operations",
                body={JSON: "RevocationRequest"},
            )
        },
        "/openapi.json": {
            "get": _operation(
                "getOpenapi",
                "This description",
                None,
                _ok(200, "OpenAPI 3.1.", {JSON: {"type": "object"}}),
                tag="operations",
            )
        },
    }
