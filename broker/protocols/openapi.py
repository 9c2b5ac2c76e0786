"""The endpoints of other protocols in the description of the HTTP interface. What a protocol's specification defines is
summarised here, with the place where it is defined; what is ours is described in full."""

from __future__ import annotations

import msgspec

from broker.executions.types import CancelRequest
from broker.http.openapi_parts import (
    JSON,
    SSE,
    TRACE,
    Json,
    header,
    header_refs,
    ok,
    operation,
    parameter,
    parameter_refs,
    query,
)
from broker.protocols.a2a import openapi as a2a
from broker.protocols.a2a.schemas import schemas
from broker.protocols.ag_ui.requests import RunAgentInput
from broker.protocols.ai_sdk.chat import ChatRequest, StopResponse, StreamUrl
from broker.protocols.ai_sdk.ui_messages import Conversation
from broker.protocols.durable_streams import openapi as durable_streams
from broker.protocols.mcp import openapi as mcp
from broker.protocols.responses import openapi as responses

__all__ = ["BODIES", "TAGS", "paths", "schemas"]

TAGS = ("ai-sdk", "ag-ui", "a2a", "mcp", "durable-streams", "responses")
BODIES: tuple[type[msgspec.Struct], ...] = (
    ChatRequest,
    Conversation,
    StopResponse,
    StreamUrl,
    RunAgentInput,
    CancelRequest,
)

AI_SDK = ("AI SDK, UI message stream", "https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol#ui-message-stream-protocol")
AI_SDK_MESSAGE = ("AI SDK, UIMessage", "https://ai-sdk.dev/docs/reference/ai-sdk-core/ui-message")
AG_UI = ("AG-UI 1.0, events", "https://docs.ag-ui.com/concepts/events")

_CHUNKS = (
    "The stream of a UI message in the chunks that versions 5, 6 and 7 of the SDK know, then `data: [DONE]`. "
    "Events that it has no chunk for are data parts (`data-plan`, `data-phase`, `data-progress`, `data-input` and "
    "more), whose data is the event's. A retry marks what it makes void (`data-superseded`). "
    "A connection that is cut before `[DONE]` is to be resumed."
)
_COUNTED = (
    "With `startIndex`, as `WorkflowChatTransport` asks: of the newest execution of the chat, or the one of this id, "
    "ended ones too, the chunks from this index on (0 is the first, lost attempts count), or, below 0, so many of the "
    "last ones, and those before them in their step. Such a stream may end without a `finish`: ask again, from the "
    "next chunk on"
)
_COUNT_HEADERS = {
    "X-Workflow-Run-Id": {
        "description": "id of the execution, or of a view of it after an approval",
        "schema": {"type": "string"},
    },
    "X-Workflow-Stream-Tail-Index": {
        "description": "with a negative `startIndex`: the first chunk has this index + 1 + `startIndex`",
        "schema": {"type": "integer"},
    },
}
_EVENTS = (
    "Events from `RUN_STARTED` to `RUN_FINISHED` or `RUN_ERROR`. Each frame has an `id`, which is a cursor. The "
    "state's member `execution` is the folded state of the execution. A connection that is cut before the end is to be "
    "attached to again."
)
_PLACE: Json = {"type": "string", "pattern": "^([0-9]{1,15}-[0-9]{1,15}([.][0-9]{1,6})?)?$"}
_CURSORS = (
    header("Last-Event-ID", "only what follows this frame; wins over `cursor`", **_PLACE),
    query("cursor", "only what follows this frame", **_PLACE),
)


def paths() -> Json:
    ours = (a2a, mcp, durable_streams, responses)
    return {**_ai_sdk(), **_ag_ui()} | {path: item for each in ours for path, item in each.paths().items()}


def _stream(description: str) -> Json:
    content = {SSE: {"schema": {"type": "string"}}}
    return {"200": {"description": description, "headers": header_refs(), "content": content}}


def _ai_sdk() -> Json:
    chat = "/api/agent/chat/{chatId}"
    chat_id = parameter(
        "chatId", "path", "id of the chat, which is the conversation's, or of an execution", type="string"
    )
    shown = _stream(_CHUNKS)
    shown["200"]["headers"] |= {"X-Workflow-Run-Id": _COUNT_HEADERS["X-Workflow-Run-Id"]}
    counted = _stream(_CHUNKS)
    counted["200"]["headers"] |= _COUNT_HEADERS
    nothing = {"204": {"description": "Nothing runs in this chat.", "headers": header_refs()}}
    return {
        "/api/agent/chat": {
            "post": operation(
                "chat",
                "What `useChat` sends: start the execution that answers the last message, and follow it. The same "
                "message again starts nothing new. Leaving cancels nothing",
                "executions:write",
                shown,
                tag="ai-sdk",
                parameters=(
                    query("agent", "the agent, unless the body names it", type="string"),
                    *parameter_refs(TRACE),
                ),
                body={JSON: "ChatRequest"},
                spec=AI_SDK,
            )
        },
        chat + "/stream": {
            "get": operation(
                "resumeChat",
                f"What runs in a chat, from its first chunk on. {_COUNTED}",
                "executions:read",
                {**counted, **nothing},
                tag="ai-sdk",
                parameters=(
                    chat_id,
                    query("startIndex", "index of a chunk, or minus a number of chunks", type="integer"),
                ),
                errors=(400, 410),
                spec=AI_SDK,
            )
        },
        chat: {
            "get": operation(
                "getChat",
                "A chat as UI messages, as long as its logs live. The answer that is being written is not among them: "
                "the stream of the chat has it",
                "executions:read",
                ok(200, "Oldest first.", {JSON: "Conversation"}),
                tag="ai-sdk",
                parameters=(chat_id,),
                spec=AI_SDK_MESSAGE,
            )
        },
        chat + "/stop": {
            "post": operation(
                "stopChat",
                "Cancel what runs in a chat",
                "executions:write",
                ok(202, "What was asked to stop.", {JSON: "StopResponse"}),
                tag="ai-sdk",
                parameters=(chat_id,),
                body={JSON: "CancelRequest"},
                body_required=False,
            )
        },
    }


def _ag_ui() -> Json:
    """One path is of an agent where it is posted to, and of an execution where it is read."""
    name = parameter("name", "path", "name of the agent, or id of the execution", type="string")
    return {
        "/ag-ui": {"post": _run("run", "with the only agent there is", ())},
        "/ag-ui/{name}": {"post": _run("runAgent", "with this agent", (name,)), "get": _attach(name)},
    }


def _run(id_: str, whom: str, parameters: tuple[Json, ...]) -> Json:
    return operation(
        id_,
        f"Start a run {whom} and follow it, follow one that was started, or resume one that asks. The same run again "
        "starts nothing new. Leaving cancels nothing",
        "executions:write",
        _stream(_EVENTS),
        tag="ag-ui",
        parameters=(*parameters, *_CURSORS, *parameter_refs(TRACE)),
        body={JSON: "RunAgentInput"},
        errors=(404, 409),
        spec=AG_UI,
    )


def _attach(name: Json) -> Json:
    return operation(
        "attach",
        "Follow an execution, however it was started, from its beginning or from a cursor on",
        "executions:read",
        _stream(_EVENTS),
        tag="ag-ui",
        parameters=(
            name,
            *_CURSORS,
            query("threadId", "the thread that events name; else the one it was started with", type="string"),
            query("runId", "the run that events name; else the execution", type="string"),
        ),
        errors=(400, 404),
        spec=AG_UI,
    )
