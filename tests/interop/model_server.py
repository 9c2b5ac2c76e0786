"""A model's vendor on this machine: the streams of OpenAI (chat completions, responses) and Anthropic (messages).

Asked something it calls the tool `weather`; with the tool's result it answers in pieces.

Shapes: OpenAI API reference "Streaming" of both, Anthropic API reference "Streaming messages".
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

CALL, ARGUMENTS = "call_weather", '{"city":"Rome"}'
WORDS = ("It is sunny ", "in Rome. ", "Pack light.")
TEXT = "".join(WORDS)
USAGE = {1: (40, 12), 2: (60, 9)}
"""Tokens given and made, of the first call and the second."""
Said = Iterator[tuple[str, dict[str, Any]]]


def completions(asked: dict[str, Any]) -> Said:
    knows = any(message["role"] == "tool" for message in asked["messages"])
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
    function = {"name": "weather", "arguments": ARGUMENTS}
    call = {"index": 0, "id": CALL, "type": "function", "function": function}
    deltas: list[dict[str, Any]] = [{"content": word} for word in WORDS] if knows else [{"tool_calls": [call]}]
    for delta in ({"role": "assistant", "content": ""}, *deltas):
        yield "", head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield "", head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop" if knows else "tool_calls"}]}
    given, made = USAGE[1 + knows]
    usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
    yield "", head | {"choices": [], "usage": usage}


def messages(asked: dict[str, Any]) -> Said:
    knows = any(
        part["type"] == "tool_result"
        for m in asked["messages"]
        if isinstance(m["content"], list)
        for part in m["content"]
    )
    given, made = USAGE[1 + knows]
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": asked["model"], "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": given, "output_tokens": 1},
    }  # fmt: skip
    yield "message_start", {"message": message}
    call = {"type": "tool_use", "id": CALL, "name": "weather", "input": {}}
    yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""} if knows else call}
    deltas = [{"type": "text_delta", "text": word} for word in WORDS]
    for delta in deltas if knows else [{"type": "input_json_delta", "partial_json": ARGUMENTS}]:
        yield "content_block_delta", {"index": 0, "delta": delta}
    yield "content_block_stop", {"index": 0}
    stop = {"stop_reason": "end_turn" if knows else "tool_use", "stop_sequence": None}
    yield "message_delta", {"delta": stop, "usage": {"output_tokens": made}}
    yield "message_stop", {}


def responses(asked: dict[str, Any]) -> Said:
    knows = any(item.get("type") == "function_call_output" for item in asked["input"] if isinstance(item, dict))
    given, made = USAGE[1 + knows]
    usage = {
        "input_tokens": given, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": given + made,
    }  # fmt: skip
    whole = {
        "id": "r", "object": "response", "created_at": 1, "model": asked["model"], "output": [], "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress",
    }  # fmt: skip
    call = {"type": "function_call", "id": "fc", "call_id": CALL, "name": "weather", "arguments": ARGUMENTS}
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    item = call if not knows else {"type": "message", "id": "msg", "role": "assistant", "content": [part]}
    item["status"] = "completed"
    yield "response.created", {"response": whole}
    yield "response.output_item.added", {"output_index": 0, "item": item}
    if knows:
        at = {"item_id": "msg", "output_index": 0, "content_index": 0}
        for word in WORDS:
            yield "response.output_text.delta", at | {"delta": word, "logprobs": []}
        yield "response.output_text.done", at | {"text": TEXT, "logprobs": []}
    yield "response.output_item.done", {"output_index": 0, "item": item}
    yield "response.completed", {"response": whole | {"status": "completed", "output": [item], "usage": usage}}


ROUTES = {"/v1/chat/completions": completions, "/v1/messages": messages, "/v1/responses": responses}


async def answer(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    assert asked["stream"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number, (event, data) in enumerate(ROUTES[request.path](asked)):
        named = {"type": event, "sequence_number": number} if event else {}
        head = f"event: {event}\n" if event else ""
        await response.write(f"{head}data: {json.dumps(named | data)}\n\n".encode())
    if request.path.endswith("completions"):
        await response.write(b"data: [DONE]\n\n")
    return response


@asynccontextmanager
async def model_server() -> AsyncIterator[str]:
    """Yields its address."""
    application = web.Application()
    application.add_routes([web.post(path, answer) for path in ROUTES])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
