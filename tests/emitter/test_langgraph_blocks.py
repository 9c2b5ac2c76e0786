"""What models send besides text and reasoning: refusals, media, and calls of tools that their providers run."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, UsageMetadata

from emitter.integrations.langgraph import run_graph
from emitter.integrations.langgraph.blocks import Media, pieces
from emitter.integrations.langgraph.messages import Messages, RunningUsage
from emitter.testing import RecordingEmitter
from tests.emitter.langgraph_graphs import HELLO, State, chat, line, told
from tests.emitter.langgraph_models import Chunked, Whole, story

Content = list[Any]


def said_by(*, whole: Any = None, chunks: Any = None) -> Any:
    model = Chunked(script=[chunks]) if whole is None else Whole(script=[whole])
    return chat(model)


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSAL = {"type": "refusal", "refusal": "I cannot help with that"}


@pytest.mark.parametrize(
    "message",
    [
        AIMessage([REFUSAL]),
        AIMessage("", additional_kwargs={"refusal": REFUSAL["refusal"]}),
        AIMessage([REFUSAL], additional_kwargs={"refusal": REFUSAL["refusal"]}),
        AIMessage([{"type": "non_standard", "value": REFUSAL}]),
    ],
)
async def test_a_refusal_is_what_the_model_said(message: AIMessage) -> None:
    """In every form it has, once."""
    assert ("message:complete", REFUSAL["refusal"]) in await told(said_by(whole=message), HELLO)


async def test_a_refusal_that_streams() -> None:
    """Chunk by chunk, as text."""
    chunks: Content = [AIMessageChunk([{"type": "refusal", "refusal": part, "index": 0}]) for part in ("I ", "cannot")]
    found = await told(said_by(chunks=chunks), HELLO)
    assert found[1:-1] == [("message:delta", "I "), ("message:delta", "cannot"), ("message:complete", None)]


# --- media -----------------------------------------------------------------------------------------------------------

PNG = base64.b64encode(b"\x89PNG").decode()
DATA = f"data:image/png;base64,{PNG}"
LINK = "https://example.com/a.png"


@pytest.mark.parametrize(
    ("block", "media_type", "url"),
    [
        ({"type": "image", "base64": PNG, "mime_type": "image/png"}, "image/png", DATA),
        ({"type": "image", "url": LINK}, "image/png", LINK),
        ({"type": "image_url", "image_url": {"url": DATA}}, "image/png", DATA),
        ({"type": "image_url", "image_url": LINK}, "image/png", LINK),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": PNG}},
            "image/webp",
            f"data:image/webp;base64,{PNG}",
        ),
        ({"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/png"}, "image/png", DATA),
        ({"type": "image_generation_call", "id": "ig_1", "result": PNG, "output_format": "png"}, "image/png", DATA),
        ({"type": "media", "file_uri": "gs://b/o.mp4", "mime_type": "video/mp4"}, "video/mp4", "gs://b/o.mp4"),
        ({"type": "audio", "base64": PNG, "mime_type": "audio/mpeg"}, "audio/mpeg", f"data:audio/mpeg;base64,{PNG}"),
    ],
)
async def test_media_are_artifacts(block: Any, media_type: str, url: str) -> None:
    """Also where they are all that the model answers; a copy of the message makes no second one."""

    async def answer(state: State) -> dict[str, Any]:
        said = await Whole(script=[AIMessage([block])]).ainvoke("x")
        return {"said": [AIMessage(said.content, id="copy")]}

    emitter = RecordingEmitter()
    await run_graph(line(answer), {"said": []}, emitter)
    (artifact,) = emitter.of("artifact")
    assert (artifact.media_type, artifact.url, artifact.last) == (media_type, url, True)


async def test_an_image_that_a_node_adds_is_shown() -> None:
    """Also where it stands beside a text that was told already."""

    async def answer(state: State) -> dict[str, Any]:
        said = await Chunked(script=[[AIMessageChunk("Look")]]).ainvoke("x")
        image = {"type": "image", "base64": PNG, "mime_type": "image/png"}
        return {"said": [AIMessage([said.text, image], id="more"), AIMessage([said.text, image], id=said.id)]}

    emitter = RecordingEmitter()
    await run_graph(line(answer), {"said": []}, emitter)
    assert emitter.text_emitted == "Look"
    assert [artifact.url for artifact in emitter.of("artifact")] == [DATA]
    assert emitter.types.count("message:complete") == 1


async def test_an_image_that_is_too_large_is_told_of() -> None:
    """Half an image is none: what stands in its place says how large it was."""
    block = {"type": "image", "base64": "A" * 100_000, "mime_type": "image/png"}
    emitter = RecordingEmitter()
    await run_graph(said_by(whole=AIMessage(["Look: ", block])), HELLO, emitter)
    (artifact,) = emitter.of("artifact")
    assert (artifact.media_type, artifact.url, artifact.data["clipped"]) == ("image/png", None, True)
    assert emitter.of("message:complete")[0].text == "Look: "


def test_what_has_no_media_is_none() -> None:
    """Empty and unknown blocks say nothing."""
    blocks: Content = [{"type": "image_url", "image_url": {}}, {"type": "image"}, {"type": "new", "url": LINK}, {}]
    assert not [piece for piece in pieces(AIMessage(blocks)) if isinstance(piece, Media)]


async def test_speech_is_shown_by_its_words() -> None:
    """OpenAI's audio answers have no text but a transcript."""
    message = AIMessage("", additional_kwargs={"audio": {"id": "a", "data": "AAAA", "transcript": "Good day"}})
    assert ("message:complete", "Good day") in await told(said_by(whole=message), HELLO)


# --- tools that the provider runs ------------------------------------------------------------------------------------

FOUND = [{"type": "web_search_result", "title": "T", "url": LINK}]
ANTHROPIC: Content = [
    {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "rome"}},
    {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": FOUND},
    {"type": "text", "text": "It is sunny"},
]
ANTHROPIC_CHUNKS: Content = [
    {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}, "index": 0},
    {"type": "input_json_delta", "partial_json": '{"query": ', "index": 0},
    {"type": "input_json_delta", "partial_json": '"rome"}', "index": 0},
    {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": FOUND, "index": 1},
    {"type": "text", "text": "It is sunny", "index": 2},
]
OPENAI: Content = [
    {"type": "web_search_call", "id": "srv_1", "status": "completed", "action": {"type": "search", "query": "rome"}},
    {"type": "text", "text": "It is sunny"},
]
STANDARD: Content = [
    {"type": "server_tool_call", "id": "srv_1", "name": "web_search", "args": {"query": "rome"}},
    {"type": "server_tool_result", "tool_call_id": "srv_1", "status": "success", "output": FOUND},
    {"type": "text", "text": "It is sunny"},
]
STANDARD_CHUNKS: Content = [
    {"type": "server_tool_call_chunk", "id": "srv_1", "name": "web_search", "args": "", "index": 0},
    {"type": "server_tool_call_chunk", "args": '{"query": "rome"}', "index": 0},
    *STANDARD[1:],
]


@pytest.mark.parametrize(
    ("content", "result", "streams"),
    [
        (ANTHROPIC, FOUND, False),
        (ANTHROPIC_CHUNKS, FOUND, True),
        (OPENAI, None, False),
        (OPENAI, None, True),
        (STANDARD, FOUND, False),
        (STANDARD_CHUNKS, FOUND, True),
    ],
)
async def test_the_providers_tools_are_calls(content: Content, result: Any, streams: bool) -> None:
    """From the first piece to the result, with all of the arguments, before the text that was made from it."""
    chunks = [AIMessageChunk([block]) for block in content]
    graph = said_by(chunks=chunks) if streams else said_by(whole=AIMessage(content))
    params = {"action": {"type": "search", "query": "rome"}} if content is OPENAI else {"query": "rome"}
    found = await told(graph, HELLO)
    calls = [("tool:start", "srv_1", "web_search", params), ("tool:complete", "srv_1", "web_search", result)]
    text = [("message:delta", "It is sunny"), ("message:complete", None)]
    assert found[1:-1] == calls + (text if streams else [("message:complete", "It is sunny")])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (
            [
                ANTHROPIC[0],
                {
                    "type": "web_search_tool_result",
                    "tool_use_id": "srv_1",
                    "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
                },
            ],
            "max_uses_exceeded",
        ),
        ([{"type": "mcp_call", "id": "srv_1", "name": "look", "arguments": "{}", "error": "denied"}], "denied"),
        (
            [STANDARD[0], {"type": "server_tool_result", "tool_call_id": "srv_1", "status": "error", "output": "no"}],
            "no",
        ),
        ([STANDARD[0], {"type": "server_tool_result", "tool_call_id": "srv_1", "status": "error"}], "failed"),
        ([ANTHROPIC[0]], "it ended without a result"),
    ],
)
async def test_a_call_of_the_provider_that_fails(content: Content, error: str) -> None:
    """It says why; one without a result ends with the graph."""
    found = await told(said_by(whole=AIMessage(content)), HELLO)
    assert [event[3] for event in found if event[0] == "tool:error"] == [error]


async def test_code_that_the_provider_runs() -> None:
    """Code and what it printed, of OpenAI's interpreter and Anthropic's."""
    openai = {"type": "code_interpreter_call", "id": "ci", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]}
    anthropic: Content = [
        {"type": "server_tool_use", "id": "ce", "name": "bash_code_execution", "input": {"command": "ls"}},
        {"type": "bash_code_execution_tool_result", "tool_use_id": "ce", "content": {"stdout": "a.txt"}},
    ]
    found = await told(said_by(whole=AIMessage([openai, *anthropic])), HELLO)
    assert [event for event in found if event[0].startswith("tool")] == [
        ("tool:start", "ci", "code_interpreter", {"code": "1+1"}),
        ("tool:complete", "ci", "code_interpreter", [{"type": "logs", "logs": "2"}]),
        ("tool:start", "ce", "bash_code_execution", {"command": "ls"}),
        ("tool:complete", "ce", "bash_code_execution", {"stdout": "a.txt"}),
    ]


async def test_a_clients_own_calls_are_not_told_before_they_run() -> None:
    """Arguments of calls that the graph's tools are to run are no calls of the provider."""
    chunks: Content = [
        AIMessageChunk([{"type": "tool_use", "id": "c1", "name": "add", "input": {}, "index": 0}]),
        AIMessageChunk([{"type": "input_json_delta", "partial_json": "{}", "index": 0}]),
    ]
    assert [event[0] for event in await told(said_by(chunks=chunks), HELLO)] == ["phase:start", "phase:complete"]


# --- said once, counted once -----------------------------------------------------------------------------------------


async def test_a_text_that_its_node_strips_is_not_told_again() -> None:
    """Blanks at its ends, or in between, make no other text."""

    async def write(state: State) -> dict[str, Any]:
        said = await Chunked(script=[[AIMessageChunk(part) for part in ("\n Two ", " words", " \n")]]).ainvoke("x")
        return {"said": [AIMessage(" ".join(str(said.text).split()))]}

    emitter = RecordingEmitter()
    await run_graph(line(write), {"said": []}, emitter)
    assert emitter.text_emitted == "\n Two  words \n"
    assert [event[0] for event in story(emitter.events)].count("message:complete") == 1


def tokens(given: int, taken: int) -> UsageMetadata:
    return {"input_tokens": given, "output_tokens": taken, "total_tokens": given + taken}


@pytest.mark.parametrize(
    ("told_", "total"),
    [
        ([tokens(700, 5), tokens(700, 9), tokens(700, 13)], tokens(700, 13)),
        ([tokens(700, 0), tokens(0, 5), tokens(0, 8)], tokens(700, 13)),
        ([tokens(0, 5), tokens(700, 8)], tokens(700, 13)),
        ([tokens(700, 13)], tokens(700, 13)),
    ],
)
def test_tokens_are_counted_once(told_: list[UsageMetadata], total: UsageMetadata) -> None:
    """A model that repeats the prompt's tokens tells the total so far with each chunk; others tell the parts."""
    messages = Messages(RunningUsage())
    for usage in told_:
        messages.take(AIMessageChunk("a", id="m", usage_metadata=usage), {})
    counted = messages.take(AIMessageChunk("", id="m", chunk_position="last"), {})[-1]
    assert {name: getattr(counted, name) for name in total} == total
