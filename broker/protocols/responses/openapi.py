"""The endpoints below `/v1` in the description of the HTTP interface."""

from __future__ import annotations

from broker.http.openapi_parts import JSON, SSE, TRACE, Json, key, operation, parameter, parameter_refs, query
from broker.http.openapi_parts import header_refs as refs

SPEC = ("Open Responses", "https://www.openresponses.org/specification")
_RESPONSE: Json = {
    "type": "object",
    "required": ["id", "object", "status", "output"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "status": {"enum": ["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]},
        "output": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    },
    "additionalProperties": True,
}
_REQUEST: Json = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "name of the agent"},
        "input": {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "object", "additionalProperties": True}},
            ]
        },
        "instructions": {"type": ["string", "null"]},
        "previous_response_id": {"type": ["string", "null"]},
        "stream": {"type": ["boolean", "null"]},
        "background": {"type": ["boolean", "null"]},
        "metadata": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "tools": {"type": ["array", "null"], "items": {"type": "object", "additionalProperties": True}},
        "params": {"type": ["object", "null"], "additionalProperties": True, "description": "of the agent"},
    },
    "additionalProperties": True,
}
_OBJECT: Json = {"type": "object", "additionalProperties": True}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "additionalProperties": True,
        }
    },
}
_ID = parameter("id", "path", "id of the response", type="string")
_STREAM = (
    "A response, or its events from `response.created` to `response.completed`, `.failed` or `.incomplete` and "
    "`[DONE]`. Their `sequence_number` is the same on every edge. A stream that breaks before is to be resumed."
)
_REFUSED = {
    400: "The request does not fit; `param` says where.",
    401: "No valid token.",
    403: "A scope is missing.",
    404: "There is no such response or model for this user.",
    409: "It is not in a state for that.",
    410: "The oldest events are gone, and with them the numbers of the stream.",
    413: "The body or a file is over its limit.",
    429: "A limit of this user is reached.",
    503: "The edge is full or draining, or Redis is away.",
}
_ALWAYS = (400, 401, 403, 429, 503)


def _described(
    id_: str, summary: str, scope: str, answers: Json, *, errors: tuple[int, ...] = (), body: Json | None = None,
    parameters: tuple[Json, ...] = (), description: str = "The object.",
) -> Json:  # fmt: skip
    """An operation whose errors are in this protocol's form."""
    content = {media: {"schema": schema} for media, schema in answers.items()}
    found = {"200": {"description": description, "headers": refs(), "content": content}}
    described = operation(
        id_,
        summary,
        scope,
        {},
        tag="responses",
        parameters=parameters,
        body=None if body is None else {JSON: body},
        spec=SPEC,
    )
    refused = {
        str(status): {
            "description": _REFUSED[status],
            "headers": refs("Retry-After") if status in (429, 503) else refs(),
            "content": {JSON: {"schema": _ERROR}},
        }
        for status in sorted({*_ALWAYS, *errors})
    }
    return {**described, "responses": {**found, **refused}}


def paths() -> Json:
    one, text = "/v1/responses/{id}", {"type": "string"}
    return {
        "/v1/responses": {
            "post": _described(
                "createResponse",
                "Start an agent (`model`), answer what it asked, or say something to it while it works; and show what "
                "follows. Without `stream` it waits for the end, for 540 s; with `background` it does not wait. "
                "Leaving cancels nothing",
                "executions:write",
                {JSON: _RESPONSE, SSE: text},
                errors=(404, 409, 413),
                body=_REQUEST,
                parameters=(key("the same key again gives the same response"), *parameter_refs(TRACE)),
                description=_STREAM,
            )
        },
        one: {
            "get": _described(
                "getResponse",
                "A response, as long as its log lives",
                "executions:read",
                {JSON: _RESPONSE, SSE: text},
                errors=(404, 410),
                parameters=(
                    _ID,
                    query("stream", "its events instead", type="string", enum=["true", "false"]),
                    query("starting_after", "only the events after this number", type="integer", minimum=0),
                ),
                description=_STREAM,
            ),
            "delete": _described(
                "deleteResponse",
                "Delete the execution of a response, which must have ended, with all responses on it",
                "executions:write",
                {JSON: _OBJECT},
                errors=(404, 409),
                parameters=(_ID,),
            ),
        },
        one + "/cancel": {
            "post": _described(
                "cancelResponse",
                "Cancel the execution of a response, and wait some seconds for its agent to stop",
                "executions:write",
                {JSON: _RESPONSE},
                errors=(404,),
                parameters=(_ID,),
            )
        },
        one + "/input_items": {
            "get": _described(
                "listInputItems",
                "What a response was given",
                "executions:read",
                {JSON: _OBJECT},
                errors=(404,),
                parameters=(
                    _ID,
                    query("limit", "most items of one answer", type="integer", minimum=1, maximum=100),
                    query("order", "`desc`, newest first, unless `asc` is wanted", type="string", enum=["asc", "desc"]),
                    query("after", "only items after this one", type="string"),
                ),
            )
        },
        "/v1/models": {
            "get": _described("listModels", "The agents that can be asked for", "executions:read", {JSON: _OBJECT})
        },
        "/v1/models/{model}": {
            "get": _described(
                "getModel",
                "An agent",
                "executions:read",
                {JSON: _OBJECT},
                errors=(404,),
                parameters=(parameter("model", "path", "name of the agent", type="string"),),
            )
        },
    }
