"""The MCP endpoint in the description of the HTTP interface."""

from __future__ import annotations

from broker.http.openapi_parts import JSON, PROBLEM, SSE, TRACE, Json, header, header_refs, operation, parameter_refs
from broker.protocols.mcp.versions import METADATA, METHOD_HEADER, NAME_HEADER, VERSION_HEADER

MCP = ("MCP 2026-07-28", "https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http")
RFC_9728 = ("RFC 9728", "https://www.rfc-editor.org/rfc/rfc9728")
_OBJECT: Json = {"type": "object", "additionalProperties": True}
_ANSWER = (
    "A JSON-RPC response; of a call that is held, a stream of notifications that ends with it. An execution goes on "
    "when its call has ended without a result: the response then says how to wait for that."
)
_METADATA = {
    "type": "object",
    "required": ["resource", "scopes_supported"],
    "properties": {
        "resource": {"type": "string"},
        "authorization_servers": {"type": "array", "items": {"type": "string"}},
        "scopes_supported": {"type": "array", "items": {"type": "string"}},
        "bearer_methods_supported": {"type": "array", "items": {"type": "string"}},
        "resource_name": {"type": "string"},
    },
}


def paths() -> Json:
    metadata = {"get": _metadata("oauthProtectedResource")}
    return {
        "/mcp": {"post": _post(), "get": _get()},
        METADATA: metadata,
        METADATA + "/mcp": {"get": _metadata("oauthProtectedResourceOfMcp")},
    }


def _answers(description: str) -> Json:
    content = {JSON: {"schema": _OBJECT}, SSE: {"schema": {"type": "string"}}}
    return {"200": {"description": description, "headers": header_refs(), "content": content}}


def _post() -> Json:
    refused = {"description": "A JSON-RPC error.", "headers": header_refs(), "content": {JSON: {"schema": _OBJECT}}}
    accepted = {"202": {"description": "A notification, or a response to a question.", "headers": header_refs()}}
    described = operation(
        "mcp",
        "One JSON-RPC message: agents as tools (`run_<agent>`), executions as tasks and resources",
        "executions:read",
        {**_answers(_ANSWER), **accepted},
        tag="mcp",
        parameters=(
            header(VERSION_HEADER, "the version of the protocol", type="string"),
            header(METHOD_HEADER, "the method, as the body has it", type="string"),
            header(NAME_HEADER, "the tool, prompt, resource or task, as the body has it", type="string"),
            *parameter_refs(TRACE),
        ),
        body={JSON: _OBJECT},
        spec=MCP,
    )
    described["responses"] |= {"400": refused, "404": refused}
    return described


def _get() -> Json:
    described = operation(
        "mcpResume",
        "Continue the stream of a call (versions up to 2025-11-25), on any edge. Without `Last-Event-ID` there is none",
        "executions:read",
        {"200": {"description": _ANSWER, "headers": header_refs(), "content": {SSE: {"schema": {"type": "string"}}}}},
        tag="mcp",
        parameters=(header("Last-Event-ID", "the last id of that stream", type="string"),),
        errors=(400, 404),
        spec=("MCP 2025-11-25", "https://modelcontextprotocol.io/specification/2025-11-25/basic/transports"),
    )
    nothing = {"description": "There is no stream without `Last-Event-ID`.", "headers": header_refs()}
    described["responses"]["405"] = {
        **nothing,
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return described


def _metadata(id_: str) -> Json:
    content = {JSON: {"schema": _METADATA}}
    found = {"200": {"description": "Where tokens come from.", "headers": header_refs(), "content": content}}
    return operation(id_, "The protected resource and its scopes", None, found, tag="mcp", spec=RFC_9728)
