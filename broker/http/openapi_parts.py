"""What a description of the HTTP interface (OpenAPI 3.1) is put together from: parameters, operations, answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
Types = Mapping[str, Any]
"""Media type → schema, given as the name of a component or as a schema."""

REF = "#/components/schemas/{name}"
JSON = "application/json"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"

ERRORS = {
    400: ("BadRequest", "The request is malformed."),
    401: ("Unauthorized", "No valid token, cookie or ticket."),
    403: ("Forbidden", "A scope is missing, or the origin is not allowed."),
    404: ("NotFound", "There is no such execution for this user."),
    408: ("RequestTimeout", "The body did not arrive in time."),
    410: ("Gone", "The oldest events are gone, and with them what was asked for."),
    409: ("Conflict", "It was already done, or is over."),
    500: ("HookFailed", "A hook failed; nothing was stored."),
    413: ("TooLarge", "The body or an event is over its limit."),
    422: ("Unprocessable", "A field or parameter does not fit; of a field `path` says which."),
    429: ("TooManyRequests", "A limit of this user is reached."),
    503: ("Unavailable", "The edge is full or draining, or Redis is away."),
}
ALWAYS = (401, 403, 422, 429, 503)
WITH_BODY = (400, 408, 413)
MAX_PAGE = 200


def ref(name: str) -> Json:
    return {"$ref": REF.format(name=name)}


# --- parameters ------------------------------------------------------------------------------------------------------


def parameter(name: str, where: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


def key(description: str) -> Json:
    """The header `Idempotency-Key`."""
    return header("Idempotency-Key", description, type="string", pattern="^[ -~]{1,255}$")


def optional(pattern: str) -> str:
    """The pattern, or nothing."""
    return f"^({pattern.removeprefix('^').removesuffix('$')})?$"


def header(name: str, description: str, **schema: Any) -> Json:
    return parameter(name, "header", description, **schema)


def query(name: str, description: str, **schema: Any) -> Json:
    return parameter(name, "query", description, **schema)


ID = parameter("id", "path", "id of the execution", type="string", pattern="^[A-Za-z0-9_-]{1,64}$")
_OWNER = r"^[^\u0000-\u001f\u007f-\u009f]{0,2048}$"
OWNER = (
    query("user", "act for this user, the `sub` of their tokens (scope `admin`)", type="string", pattern=_OWNER),
    query("org", "the org of that user (scope `admin`)", type="string", pattern=_OWNER),
)
TRACE = (
    header("traceparent", "the trace that this is part of (W3C Trace Context); ignored if not valid", type="string"),
    header("tracestate", "what comes with `traceparent`", type="string"),
)
TREE = query(
    "tree",
    "`true`: the states of this execution and of all that it started, as a tree",
    type="string",
    enum=["true", "false"],
)
PARENT = query("parent", "only those that this execution started", **ID["schema"])
LIMIT = query("limit", "most entries of one answer", type="integer", minimum=1, maximum=MAX_PAGE)


def parameter_refs(parameters: tuple[Json, ...]) -> tuple[Json, ...]:
    return tuple({"$ref": "#/components/parameters/" + each["name"]} for each in parameters)


# --- answers ---------------------------------------------------------------------------------------------------------


def headers() -> Json:
    return {
        "X-Request-ID": {
            "description": "The id of this request.",
            "schema": {"type": "string"},
        },
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
        "ETag": {"description": "Of this document, for `If-None-Match`.", "schema": {"type": "string"}},
    }


def header_refs(*names: str) -> Json:
    return {name: {"$ref": "#/components/headers/" + name} for name in ("X-Request-ID", *names)}


def problems() -> Json:
    return {
        name: {
            "description": description,
            "headers": header_refs("Retry-After") if status in (429, 503) else header_refs(),
            "content": {PROBLEM: {"schema": ref("Problem")}},
        }
        for status, (name, description) in ERRORS.items()
    }


# --- operations ------------------------------------------------------------------------------------------------------


def operation(
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
    spec: tuple[str, str] | None = None,
) -> Json:
    """`scope` None: no authentication. `spec`: the specification it follows, and its address."""
    described: Json = {"operationId": id_, "summary": summary, "tags": [tag]}
    if spec is not None:
        described["externalDocs"] = {"description": spec[0], "url": spec[1]}
    schemes = ("bearer", "cookie", "ticket") if ticket else ("bearer", "cookie")
    described["security"] = [{scheme: [scope]} for scheme in schemes] if scope else []
    if given := (*parameters, *(parameter_refs(OWNER) if scope else ())):
        described["parameters"] = list(given)
    if body is not None:
        described["requestBody"] = {"required": body_required, "content": content(body)}
    known = sorted({*errors, *(ALWAYS if scope else ()), *(WITH_BODY if body else ())})
    refused = {str(status): {"$ref": "#/components/responses/" + ERRORS[status][0]} for status in known}
    return {**described, "responses": {**responses, **refused}}


def content(types: Types) -> Json:
    return {media: {"schema": ref(schema) if isinstance(schema, str) else schema} for media, schema in types.items()}


def ok(status: int, description: str, types: Types) -> Json:
    return {str(status): {"description": description, "headers": header_refs(), "content": content(types)}}


def only(name: str, other: str) -> Json:
    """One member of two, the other left out or null."""
    return {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}
