"""What streams of model APIs come to, with the real packages' types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anthropic.types
import openai.types.chat
import openai.types.responses
import pytest
from msgspec.structs import asdict
from redis.asyncio import Redis

from broker.cli.lines import LINES
from broker.protocols.a2a.texts import text as a2a_text
from emitter import AgentEmitter, SyncAgentEmitter, events
from emitter.events import ModelCall, Usage
from emitter.integrations.models import ModelFailed, Reading, ToolCall, relay, relay_sync
from emitter.publishing.spending import NOTHING_SPENT, plus, usage_of
from emitter.store import append
from emitter.testing import RecordingEmitter
from emitter.wire.keys import Owner

LOG = Owner("alice").execution("ex_1").log
CALL = ToolCall("call_1", "search", {"q": "é"})


def completion(choices: list[Any], usage: Any = None) -> openai.types.chat.ChatCompletionChunk:
    return openai.types.chat.ChatCompletionChunk.model_validate(
        {
            "id": "c",
            "created": 1,
            "model": "gpt-x",
            "object": "chat.completion.chunk",
            "choices": choices,
            "usage": usage,
        }
    )


def delta(finish: str | None = None, **fields: Any) -> list[Any]:
    return [{"index": 0, "delta": fields, "finish_reason": finish}]


def called(index: int, arguments: str, **head: Any) -> dict[str, Any]:
    name = head.pop("name", None)
    return {"index": index, "type": "function", "function": {"name": name, "arguments": arguments}} | head


COMPLETIONS = [
    completion(delta(role="assistant", content="")),
    completion(delta(reasoning_content="Hm.")),
    completion(delta(content="Hel")),
    completion(delta(content="lo")),
    completion(delta(tool_calls=[called(0, "", id="call_1", name="search")])),
    completion(delta(tool_calls=[called(0, '{"q": ')])),
    completion(delta(tool_calls=[called(0, '"é"}')])),
    completion(delta("tool_calls")),
    completion([], {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
]


def response_events() -> list[Any]:
    types = openai.types.responses
    text = {"item_id": "i", "output_index": 0, "content_index": 0, "sequence_number": 1}
    text |= {"logprobs": [], "type": "response.output_text.delta"}
    done = {
        "id": "r", "created_at": 1, "model": "gpt-x", "object": "response", "output": [], "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "status": "completed",
        "usage": {
            "input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip
    call = {"type": "function_call", "call_id": "call_1", "name": "search", "arguments": '{"q": "é"}', "id": "f"}
    return [
        types.ResponseReasoningSummaryTextDeltaEvent(
            delta="Hm.", item_id="i", output_index=0, sequence_number=1, summary_index=0,
            type="response.reasoning_summary_text.delta",
        ),
        types.ResponseTextDeltaEvent.model_validate(text | {"delta": "Hel"}),
        types.ResponseTextDeltaEvent.model_validate(text | {"delta": "lo"}),
        types.ResponseOutputItemDoneEvent.model_validate(
            {"item": call, "output_index": 1, "sequence_number": 2, "type": "response.output_item.done"}
        ),
        types.ResponseCompletedEvent.model_validate(
            {"response": done, "sequence_number": 3, "type": "response.completed"}
        ),
    ]  # fmt: skip


def message_events() -> list[Any]:
    types = anthropic.types
    message = {
        "id": "m", "content": [], "model": "claude-x", "role": "assistant", "type": "message",
        "usage": {"input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip

    def start(index: int, block: dict[str, Any]) -> Any:
        return types.RawContentBlockStartEvent.model_validate(
            {"index": index, "content_block": block, "type": "content_block_start"}
        )

    def more(index: int, delta: dict[str, Any]) -> Any:
        return types.RawContentBlockDeltaEvent.model_validate(
            {"index": index, "delta": delta, "type": "content_block_delta"}
        )

    return [
        types.RawMessageStartEvent.model_validate({"message": message, "type": "message_start"}),
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        more(0, {"type": "thinking_delta", "thinking": "Hm."}),
        more(0, {"type": "signature_delta", "signature": "s"}),
        start(1, {"type": "text", "text": ""}),
        more(1, {"type": "text_delta", "text": "Hel"}),
        more(1, {"type": "text_delta", "text": "lo"}),
        start(2, {"type": "tool_use", "id": "call_1", "name": "search", "input": {}}),
        more(2, {"type": "input_json_delta", "partial_json": '{"q": '}),
        more(2, {"type": "input_json_delta", "partial_json": '"é"}'}),
        types.RawContentBlockStopEvent.model_validate({"index": 2, "type": "content_block_stop"}),
        types.RawMessageDeltaEvent.model_validate(
            {"delta": {"stop_reason": "tool_use"}, "type": "message_delta", "usage": {"output_tokens": 7}}
        ),
        types.RawMessageStopEvent.model_validate({"type": "message_stop"}),
    ]


def as_mappings(chunks: Iterable[Any]) -> list[Any]:
    return [chunk.model_dump() for chunk in chunks]


def litellm_chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
    """`model_dump()` of a chunk as LiteLLM 1.110 makes it."""
    head = {"id": "chatcmpl-1", "created": 1, "model": "claude-x", "object": "chat.completion.chunk"}
    return head | {"system_fingerprint": None, "provider_specific_fields": None, "choices": choices} | more


def litellm_delta(finish: str | None = None, **fields: Any) -> list[Any]:
    given = {"content": None, "role": None, "function_call": None, "tool_calls": None, "audio": None}
    return [{"index": 0, "finish_reason": finish, "logprobs": None, "delta": given | fields}]


def litellm_call(arguments: str, id_: str | None = None, name: str | None = None) -> list[Any]:
    function = {"arguments": arguments, "name": name}
    return [{"id": id_, "function": function, "type": None if id_ is None else "function", "index": 0}]


LITELLM = [
    litellm_chunk(
        litellm_delta(
            role="assistant",
            reasoning_content="Hm.",
            thinking_blocks=[{"type": "thinking", "thinking": "Hm.", "signature": None}],
        )
    ),
    litellm_chunk(litellm_delta(content="Hel", provider_specific_fields=None), citations=None),
    litellm_chunk(litellm_delta(content="lo", provider_specific_fields=None), citations=None),
    litellm_chunk(litellm_delta(tool_calls=litellm_call("", "call_1", "search"))),
    litellm_chunk(litellm_delta(tool_calls=litellm_call('{"q": '))),
    litellm_chunk(litellm_delta(tool_calls=litellm_call('"é"}'))),
    litellm_chunk(litellm_delta("tool_calls")),
    litellm_chunk(
        [],
        usage={
            "completion_tokens": 7, "prompt_tokens": 5, "total_tokens": 12, "cost": 3.9e-05,
            "completion_tokens_details": {"reasoning_tokens": 1, "text_tokens": 6, "audio_tokens": None},
            "prompt_tokens_details": None,
        },
    ),
]  # fmt: skip

STREAMS = {
    "completions": (COMPLETIONS, "gpt-x", "tool_calls"),
    "responses": (response_events(), "gpt-x", "completed"),
    "messages": (message_events(), "claude-x", "tool_use"),
    "mappings": (as_mappings(COMPLETIONS), "gpt-x", "tool_calls"),
    "anthropic mappings": (as_mappings(message_events()), "claude-x", "tool_use"),
    "litellm": (LITELLM, "claude-x", "tool_calls"),
}


async def streamed(chunks: Iterable[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_said_and_counted(name: str) -> None:
    """Text and reasoning while they come, then the call and the totals; the tools to call are returned."""
    chunks, model, stop = STREAMS[name]
    emitter = RecordingEmitter()
    answer = await relay(emitter, streamed(chunks), provider="p")
    assert (answer.text, answer.reasoning, answer.tool_calls) == ("Hello", "Hm.", [CALL])
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.stop_reason) == (5, 7, stop)
    assert emitter.text_emitted == "Hello"
    assert "".join(event.delta for event in emitter.of("thinking:delta")) == "Hm."
    [call] = emitter.of("model:call")
    assert (call.model, call.provider, call.input_tokens, call.output_tokens, call.error) == (model, "p", 5, 7, None)
    assert 0 <= call.first_token_seconds <= call.duration
    [usage] = emitter.of("usage")
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.model) == (5, 7, 12, model)
    assert emitter.types[-3:] == ["message:complete", "model:call", "usage"]


def test_what_litellm_says_of_costs() -> None:
    """It stands with the usage, and is the call's."""
    reading = Reading()
    for chunk in LITELLM:
        reading.take(chunk)
    assert reading.usage.cost_usd == 3.9e-05


async def test_calls_add_up() -> None:
    """The totals are those of all calls, and of what was added by hand."""
    emitter = RecordingEmitter()
    await relay(emitter, streamed(COMPLETIONS))
    await relay(emitter, streamed(message_events()))
    await emitter.usage(add=openai.types.CompletionUsage(prompt_tokens=1, completion_tokens=1, total_tokens=2))
    await emitter.usage(add={"input_tokens": 1, "output_tokens": None}, cost_usd=0.5)
    totals = [(event.input_tokens, event.output_tokens, event.total_tokens) for event in emitter.of("usage")]
    assert totals == [(5, 7, 12), (10, 14, 24), (11, 15, 26), (12, 15, 27)]
    assert emitter.of("usage")[-1].cost_usd == 0.5


async def test_a_stream_that_breaks_is_told_and_raised() -> None:
    """The call stands in the log with its error, whether the stream raises or says so; the text so far is there."""

    async def broken() -> AsyncIterator[Any]:
        yield COMPLETIONS[3]
        raise TimeoutError("no answer")

    failed = {"type": "response.failed", "response": {"error": {"message": "overloaded"}}}
    emitter = RecordingEmitter()
    with pytest.raises(TimeoutError):
        await relay(emitter, broken(), model="m")
    with pytest.raises(ModelFailed, match="overloaded"):
        await relay(emitter, streamed([failed]), model="m")
    assert [call.error for call in emitter.of("model:call")] == ["TimeoutError: no answer", "ModelFailed: overloaded"]
    assert emitter.text_emitted == "lo"


async def test_the_blocking_twin(redis: Redis, redis_url: str) -> None:
    """It says the same."""
    import asyncio

    def agent() -> Any:
        with SyncAgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
            return relay_sync(emitter, COMPLETIONS)

    answer = await asyncio.to_thread(agent)
    kinds = [json.loads(next(iter(fields.values())))["type"] for _, fields in await redis.xrange(LOG)]
    assert answer.tool_calls == [CALL]
    assert kinds == ["thinking:delta", "message:delta", "message:complete", "model:call", "usage"]


async def test_every_face_of_an_emitter_adds_to_one_sum(redis: Redis, redis_url: str) -> None:
    """An agent's tools may speak from threads."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.usage(add={"input_tokens": 1})
        faces = [SyncAgentEmitter.over(emitter, asyncio.get_running_loop()) for _ in range(2)]
        for face in faces:
            await asyncio.to_thread(face.usage, add={"input_tokens": 1})
        await emitter.usage(add={"input_tokens": 1})
    rows = [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(LOG)]
    assert [row["data"]["inputTokens"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "chunk",
    [
        None, 5, "x", {}, {"choices": None}, {"choices": [None]}, {"type": 5}, {"type": "new"},
        {"choices": [{"delta": {"tool_calls": [None]}}]}, {"usage": {"prompt_tokens": "x"}},
        {"type": "message_start"}, {"type": "content_block_delta", "index": 9},
    ],
)  # fmt: skip
def test_a_chunk_of_any_form_is_no_reason_to_die(chunk: Any) -> None:
    """Compatible servers send what they like."""
    reading = Reading()
    assert reading.take(chunk) == []
    assert reading.answer().text == ""


async def test_halves_of_an_emoji_come_together() -> None:
    """In what is said, and in the answer."""
    emitter = RecordingEmitter()
    answer = await relay(emitter, streamed([{"choices": delta(content=half)} for half in ("\ud83d", "\ude00")]))
    assert answer.text == emitter.text_emitted == "😀"


async def test_arguments_that_are_no_json_come_as_they_are() -> None:
    """Models write such; and a tool without arguments has none."""
    chunks = [completion(delta(tool_calls=[called(0, "{oops", id="a", name="t"), called(1, "", id="b", name="u")]))]
    answer = await relay(RecordingEmitter(), streamed(chunks))
    assert answer.tool_calls == [ToolCall("a", "t", "{oops"), ToolCall("b", "u", {})]


@pytest.mark.parametrize("recorded", [False, True])
async def test_contents_are_stored_only_where_that_is_asked_for(
    recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then without credentials; also where somebody emits the event on his own."""
    monkeypatch.setattr(append, "RECORD_MODEL_CONTENTS", recorded)
    emitter = RecordingEmitter()
    asked = [{"role": "user", "content": "Hi", "api_key": "hunter2hunter2"}]
    await relay(emitter, streamed(COMPLETIONS), prompt=asked)
    await emitter.emit(ModelCall(call_id="c", model="m", input_tokens=1, output_tokens=1, duration=1, prompt="P"))
    first, own = emitter.of("model:call")
    if not recorded:
        assert (first.prompt, first.answer, own.prompt) == (None, None, None)
        return
    assert first.prompt == [{"role": "user", "content": "Hi", "api_key": "[redacted]"}]
    assert (first.answer["text"], own.prompt) == ("Hello", "P")


async def test_a_call_that_is_told_badly_is_mended(redis: Redis, redis_url: str) -> None:
    """Accounting is no reason to die."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url) as emitter:
        await emitter.model_call("c", None, input_tokens=None, output_tokens="7", duration=None, cost_usd=float("nan"))  # type: ignore[arg-type]
    rows = [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(LOG)]
    data = {"callId": "c", "model": "", "inputTokens": 0, "outputTokens": 7, "duration": 0.0}
    assert rows[0]["data"] == data | {"costUsd": 0.0}
    assert rows[1]["data"] == {"inputTokens": 0, "outputTokens": 7, "totalTokens": 7}


def test_usage_of_every_api_is_read() -> None:
    """Whatever its names are; Anthropic counts beside `input_tokens` what came from its cache."""
    for said, expected in (
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, (5, 7, 12)),
        ({"input_tokens": 5, "output_tokens": 7}, (5, 7, 12)),
        ({"input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 7}, (5, 7, 12)),
        ({"prompt_tokens": 5, "cache_read_input_tokens": 3, "completion_tokens": 7}, (5, 7, 12)),
        ({"inputTokens": 5, "outputTokens": 7}, (5, 7, 12)),
        ({}, (0, 0, 0)),
        (None, (0, 0, 0)),
        ({"input_tokens": -5, "output_tokens": float("inf")}, (0, 0, 0)),
    ):
        usage = usage_of(said)
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == expected
    assert plus(NOTHING_SPENT, Usage(input_tokens=1, output_tokens=1, total_tokens=2, cost_usd=0.5)).cost_usd == 0.5


def test_a_call_has_a_form_for_readers() -> None:
    """On a terminal and in A2A; failed or not."""
    call = ModelCall(call_id="c", model="large-1", input_tokens=1200, output_tokens=30, duration=1.5)
    [line] = LINES[ModelCall](call)
    assert line.plain == "  ⋄ large-1 1,200 → 30 tokens, 1.50 s"
    assert a2a_text(call) == "large-1 answered"
    failed = ModelCall(**asdict(call) | {"error": "no"})
    assert LINES[ModelCall](failed)[0].plain.endswith(": no")
    assert a2a_text(failed) == "large-1 failed: no"
    assert events.BY_TYPE["model:call"] is ModelCall
