"""Durable Streams in the description of the HTTP interface."""

from __future__ import annotations

from broker.http.openapi_parts import JSON, SSE, Json, header, header_refs, operation, parameter, query

SPEC = ("Durable Streams", "https://github.com/durable-streams/durable-streams/blob/main/PROTOCOL.md")
TRANSPORT = ("@durable-streams/aisdk-transport", "https://www.npmjs.com/package/@durable-streams/aisdk-transport")
_ITEMS: Json = {"type": "array", "items": {"type": "object", "additionalProperties": True}}
_TEXT: Json = {"type": "string"}
_TRUE: Json = {"type": "string", "enum": ["true"]}
_ID = parameter(
    "id",
    "path",
    "id of the execution; with `format=ai-sdk` also that of a run",
    type="string",
    pattern="^[A-Za-z0-9_.~-]{1,200}$",
)
_STREAM_HEADERS: Json = {
    "Stream-Next-Offset": {"description": "the place after what was read", "schema": _TEXT},
    "Stream-Up-To-Date": {"description": "all there is was read", "schema": _TRUE},
    "Stream-Closed": {"description": "nothing will ever follow", "schema": _TRUE},
    "Stream-Cursor": {"description": "to be sent back as `cursor`", "schema": _TEXT},
}
_PARAMETERS = (
    _ID,
    query("offset", "read what follows it; `-1` (the default): all; `now`: only what is new", **_TEXT),
    query(
        "live",
        "wait for what comes: one answer (`long-poll`, within 20 s), or a stream (`sse`). It needs an `offset`",
        type="string",
        enum=["long-poll", "sse"],
    ),
    query("cursor", "the `Stream-Cursor` of the answer before", **_TEXT),
    query("format", "`ai-sdk`: UI message chunks in the place of events", type="string", enum=["events", "ai-sdk"]),
    query("types", "only events of these types, as on the native stream", **_TEXT),
    query(
        "compact",
        "`true`: chunks of one text that are read at once are one event",
        type="string",
        enum=["true", "false"],
    ),
    query(
        "approvals",
        "with `format=ai-sdk`; `open`: approvals that were answered do not end the stream",
        type="string",
        enum=["open"],
    ),
    header("If-None-Match", "ETags of answers that are known", **_TEXT),
)


def paths() -> Json:
    return {
        "/ds/executions/{id}": {"get": _read()},
        "/ds/chat": {"post": _chat()},
        "/ds/chat/{chatId}/stream": {"get": _resume()},
    }


def _answer(description: str, **more: Json) -> Json:
    return {"description": description, "headers": {**header_refs(), **_STREAM_HEADERS}, **more}


def _read() -> Json:
    content = {JSON: {"schema": _ITEMS}, SSE: {"schema": _TEXT}}
    found = _answer("Items, as many as one answer has; with `live=sse` events `data` and `control`.", content=content)
    found["headers"] = {**found["headers"], **header_refs("ETag")}
    return operation(
        "readStream",
        "The events of an execution from an offset on; an item is the `data` of the native stream. HEAD says where the "
        "stream ends, and whether that is final",
        "executions:read",
        {
            "200": found,
            "204": _answer("A long poll found nothing new, or the end."),
            "304": _answer("It is known."),
        },
        tag="durable-streams",
        parameters=_PARAMETERS,
        errors=(400, 404, 410),
        ticket=True,
        spec=SPEC,
    )


def _where(status: str, description: str) -> Json:
    location = {"Location": {"description": "the same URL", "schema": _TEXT}}
    content = {JSON: {"schema": {"$ref": "#/components/schemas/StreamUrl"}}}
    return {status: {"description": description, "headers": {**header_refs(), **location}, "content": content}}


def _chat() -> Json:
    return operation(
        "durableChat",
        "What `createDurableChatTransport` sends: start the execution that answers the last message, and say where its "
        "chunks are. The same message again starts nothing new",
        "executions:write",
        _where("201", "Relative to this URL. To a caller with a token it has a ticket, which is to be used in 30 s."),
        tag="durable-streams",
        parameters=(query("agent", "the agent, unless the body names it", **_TEXT),),
        body={JSON: "ChatRequest"},
        spec=TRANSPORT,
    )


def _resume() -> Json:
    nothing = {"204": {"description": "Nothing runs in this chat.", "headers": header_refs()}}
    return operation(
        "durableChatStream",
        "Where the chunks of what runs in a chat are, from the first on",
        "executions:read",
        {**_where("200", "As for a turn."), **nothing},
        tag="durable-streams",
        parameters=(parameter("chatId", "path", "id of the chat", **_TEXT),),
        spec=TRANSPORT,
    )
