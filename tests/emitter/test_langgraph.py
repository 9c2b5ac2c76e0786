"""What LangGraph graphs do, in logs: real graphs with models that need no network."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Annotated, Any

import numpy as np
import pytest
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import CachePolicy, Command, Send

from emitter.events import InputReceived, MessageComplete, MessageDelta, Progress
from emitter.integrations.langgraph import RunningUsage, run_graph
from emitter.integrations.langgraph.messages import Messages
from emitter.integrations.langgraph.phases import Phase
from emitter.integrations.langgraph.recent import Recent
from emitter.integrations.langgraph.translation import Translation
from emitter.integrations.langgraph.watch import Watch
from emitter.testing import RecordingEmitter
from tests.emitter.langgraph_graphs import (
    HELLO,
    State,
    add,
    chat,
    fail,
    line,
    loop,
    told,
)
from tests.emitter.langgraph_models import Chunked, Whole, calling, spoken, story, usage

# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_streaming_models_text_comes_in_chunks_and_once(is_async: bool) -> None:
    """Every chunk is a delta, then the message is complete without its text; the node's own copy is not told again."""
    model = GenericFakeChatModel(messages=iter([AIMessage("Two words")]))
    assert await told(chat(model, is_async=is_async), HELLO) == [
        ("phase:start", "answer", 1),
        ("message:delta", "Two"),
        ("message:delta", " "),
        ("message:delta", "words"),
        ("message:complete", None),
        ("phase:complete", "answer"),
    ]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("disable_streaming", [True, False])
async def test_a_model_that_does_not_stream_is_told_whole(is_async: bool, disable_streaming: bool) -> None:
    """A whole message is one event with its text; a model that could stream but may not is the same."""
    fake: Any = (
        FakeListChatModel(responses=["Two words"], disable_streaming=True)
        if disable_streaming
        else Whole(script=[AIMessage("Two words")])
    )
    assert await told(chat(fake, is_async=is_async), HELLO) == [
        ("phase:start", "answer", 1),
        ("message:complete", "Two words"),
        ("phase:complete", "answer"),
    ]


async def test_a_message_without_a_model_is_told_whole() -> None:
    """What a node says by itself is text too; what people and systems say is not."""

    def greet(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage("mine"), AIMessage("Good day")]}

    few_shot = {"messages": [("user", "q"), ("ai", "an example"), ("user", "hello")]}
    assert await told(line(greet, state=MessagesState), few_shot) == [
        ("phase:start", "greet", 1),
        ("message:complete", "Good day"),
        ("phase:complete", "greet"),
    ]


@pytest.mark.parametrize("streams", [True, False])
async def test_a_copy_of_what_was_said_is_not_told_again(streams: bool) -> None:
    """A node, or a graph around it, that returns its model's words in a message of its own does not repeat them."""
    model = Chunked(script=[spoken("Two ", "words")]) if streams else Whole(script=[AIMessage("Two words")])

    async def write(state: State) -> dict[str, Any]:
        said = await model.ainvoke("hello")
        return {"said": [AIMessage(said.content, name="writer")]}

    inner = line(write)

    async def outer(state: State) -> dict[str, Any]:
        output = await inner.ainvoke(state)
        return {"said": [AIMessage(output["said"][-1].content)]}

    text = [("message:delta", "Two "), ("message:delta", "words"), ("message:complete", None)]
    assert await told(line(outer), {"said": []}) == [
        ("phase:start", "outer", 1),
        ("phase:start", "outer / write", 1),
        *(text if streams else [("message:complete", "Two words")]),
        ("phase:complete", "outer / write"),
        ("phase:complete", "outer"),
    ]


async def test_a_message_is_complete_before_what_follows_it() -> None:
    """A message that streamed is completed when the model ends, not when its node does; one that only calls tools is
    none."""
    model = Chunked(script=[[AIMessageChunk("", tool_calls=calling(("add", {}, "c1")).tool_calls)], spoken("Yes")])

    async def work(state: State) -> dict[str, Any]:
        for _ in range(2):
            await model.ainvoke("x")
            get_stream_writer()({"type": "progress", "progress": 50})
        return {}

    assert await told(line(work), {"said": []}) == [
        ("phase:start", "work", 1),
        ("progress", 50),
        ("message:delta", "Yes"),
        ("message:complete", None),
        ("progress", 50),
        ("phase:complete", "work"),
    ]


async def test_two_models_at_once_keep_their_messages_apart() -> None:
    """Chunks of models that talk at the same time in one node belong to different messages, each completed once."""
    one, two = (Chunked(script=[spoken(*"ab")], pause_seconds=0.001), Chunked(script=[spoken(*"cd")]))

    async def both(state: State) -> dict[str, Any]:
        await asyncio.gather(one.ainvoke("x"), two.ainvoke("x"))
        return {}

    emitter = RecordingEmitter()
    await run_graph(line(both), {"said": []}, emitter)
    story(emitter.events)
    texts: dict[str, str] = {}
    for event in emitter.of("message:delta"):
        texts[event.message_id] = texts.get(event.message_id, "") + event.delta
    assert sorted(texts.values()) == ["ab", "cd"]


REASONING = [
    {"type": "thinking", "thinking": "Hm. "},
    {"type": "reasoning", "reasoning": "Well. "},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So. "}]},
    {"type": "reasoning_content", "reasoning_content": {"text": "Then."}},
]


async def test_reasoning_is_thinking_and_text_is_text() -> None:
    """Blocks of content, in the forms that providers have, stream as thinking or as text; others say nothing."""
    content: list[Any] = [*REASONING, {"type": "text", "text": "Yes"}, ", sir", {"type": "image_url", "image_url": {}}]
    chunks = [AIMessageChunk("", additional_kwargs={"reasoning_content": "Oh? "})]
    chunks += [AIMessageChunk([block]) for block in content]
    assert await told(chat(Chunked(script=[chunks])), HELLO) == [
        ("phase:start", "answer", 1),
        *[("thinking:delta", text) for text in ("Oh? ", "Hm. ", "Well. ", "So. ", "Then.")],
        ("message:delta", "Yes"),
        ("message:delta", ", sir"),
        ("message:complete", None),
        ("phase:complete", "answer"),
    ]
    assert await told(chat(Whole(script=[AIMessage(content)])), HELLO) == [
        ("phase:start", "answer", 1),
        *[("thinking", text) for text in ("Hm. ", "Well. ", "So. ", "Then.")],
        ("message:complete", "Yes, sir"),
        ("phase:complete", "answer"),
    ]


async def test_half_an_emoji_does_not_end_the_run() -> None:
    """Its other half may come with the next chunk; else a mark takes its place, also where nothing follows."""
    model = Chunked(script=[spoken("a\ud83d", "\ude00b", "\ud83d", "c\ud83d")])
    found = [event[1] for event in await told(chat(model), HELLO) if event[0] == "message:delta"]
    assert found == ["a", "\U0001f600b", "\ufffdc", "\ufffd"]
    whole = Whole(script=[AIMessage("\ud83d\ude00 \ud83d")])
    assert ("message:complete", "\U0001f600 \ufffd") in await told(chat(whole), HELLO)


async def test_tokens_add_up_over_messages_and_graphs() -> None:
    """A message says what it took, `usage` the sum so far, also of messages that only call tools."""
    model = Whole(
        script=[
            calling(("add", {"a": 1, "b": 2}, "c1"), usage_metadata=usage(3, 4)),
            AIMessage("3", usage_metadata=usage(30, 40)),
        ]
    )
    counted = RunningUsage()
    emitter = RecordingEmitter()
    await run_graph(loop(model, ToolNode([add])), HELLO, emitter, usage=counted)
    streaming = Chunked(script=[[*spoken("a", tokens=(100, 0)), *spoken("b", tokens=(0, 200))]])
    await run_graph(chat(streaming), HELLO, emitter, usage=counted)
    assert [event for event in story(emitter.events) if event[0] == "usage"] == [
        ("usage", 3, 4, 7),
        ("usage", 33, 44, 77),
        ("usage", 133, 244, 377),
    ]
    assert [event.usage.total_tokens for event in emitter.of("message:complete")] == [70, 300]


async def test_tokens_name_their_model_if_it_is_the_only_one() -> None:
    """Each message names its model; the sum does while there is one."""
    emitter, counted = RecordingEmitter(), RunningUsage()
    for model in ("small", "small", "large"):
        answer = AIMessage("x", usage_metadata=usage(1, 1))
        await run_graph(chat(Whole(script=[answer], model=model)), HELLO, emitter, usage=counted)
    assert [event.usage.model for event in emitter.of("message:complete")] == ["small", "small", "large"]
    assert [event.model for event in emitter.of("usage")] == ["small", "small", None]


# --- phases ----------------------------------------------------------------------------------------------------------


async def test_subgraphs_and_parallel_nodes_are_phases_within_phases() -> None:
    """Each run of a node is a phase of its own id, named by its path, indexed by its step."""

    def note(state: State) -> dict[str, Any]:
        return {"said": ["n"]}

    inner = line(("first", note), ("second", note))
    builder = StateGraph(State)
    builder.add_node("sub", inner)
    builder.add_node("split", note)
    builder.add_node("work", note)
    builder.add_edge(START, "split")
    builder.add_conditional_edges("split", lambda state: [Send("work", {}), Send("work", {})], ["work"])
    builder.add_edge("work", "sub")
    told_ = await told(builder.compile(), {"said": []})
    assert told_ == [
        ("phase:start", "split", 1),
        ("phase:complete", "split"),
        ("phase:start", "work", 2),
        ("phase:start", "work", 2),
        ("phase:complete", "work"),
        ("phase:complete", "work"),
        ("phase:start", "sub", 3),
        ("phase:start", "sub / first", 1),
        ("phase:complete", "sub / first"),
        ("phase:start", "sub / second", 2),
        ("phase:complete", "sub / second"),
        ("phase:complete", "sub"),
    ]


async def test_a_functional_graph_is_told_too() -> None:
    """`@entrypoint` and `@task` are phases; the value returned is the result."""

    @task
    async def double(x: int) -> int:
        return 2 * x

    @entrypoint()
    async def flow(text: str) -> str:
        return text + str(await double(21))

    emitter = RecordingEmitter()
    assert await run_graph(flow, "x", emitter) == "x42"
    assert story(emitter.events) == [
        ("phase:start", "flow", 0),
        ("phase:start", "double", 0),
        ("phase:complete", "double"),
        ("phase:complete", "flow"),
    ]


async def test_a_cached_node_is_a_phase_that_ends() -> None:
    """A node whose result comes from a cache, in a subgraph or at the end, begins and ends like any other."""

    def note(state: State) -> dict[str, Any]:
        return {"said": ["n"]}

    def cached(*names: str, node: Any = note) -> StateGraph[Any]:
        builder = StateGraph(State)
        for name in names:
            builder.add_node(name, node, cache_policy=None if name == "between" else policy)
        for before, name in itertools.pairwise((START, *names)):
            builder.add_edge(before, name)
        return builder

    cache, policy = InMemoryCache(), CachePolicy(key_func=lambda state: "always")
    inner = line(("sub", cached("deep").compile(cache=cache)))
    graph = cached("first", "between", "last").compile(cache=cache)
    for compiled, names in ((inner, ["sub", "sub / deep"]), (graph, ["first", "between", "last"])):
        first, second = await told(compiled, {"said": []}), await told(compiled, {"said": []})
        assert first == second
        assert {event[1] for event in first if event[0] == "phase:complete"} == set(names)
    assert second == [
        ("phase:start", "first", 1),
        ("phase:complete", "first"),
        ("phase:start", "between", 2),
        ("phase:complete", "between"),
        ("phase:start", "last", 3),
        ("phase:complete", "last"),
    ]


async def test_a_failing_node_is_told_once_and_its_error_comes_out() -> None:
    """The innermost node says what went wrong; calls and messages that were open end; there is no terminal event."""
    model = Chunked(script=[spoken("I will")])
    began = asyncio.Event()

    @tool
    async def hang() -> str:
        """Never ends."""
        began.set()
        await asyncio.Event().wait()
        return ""

    async def work(state: State) -> dict[str, Any]:
        async for chunk in model.astream("x"):
            if chunk.content:
                break
        calls = asyncio.create_task(hang.ainvoke({"name": "hang", "args": {}, "id": "c1", "type": "tool_call"}))
        try:
            await began.wait()
            raise ValueError("as told")
        finally:
            calls.cancel()

    emitter = RecordingEmitter()
    with pytest.raises(ValueError, match="as told"):
        await run_graph(line(("sub", line(work))), {"said": []}, emitter)
    found = story(emitter.events)
    (call,) = [event for event in found if event[0] == "tool:error"]
    assert [event for event in found if event != call] == [
        ("phase:start", "sub", 1),
        ("phase:start", "sub / work", 1),
        ("message:delta", "I will"),
        ("tool:start", "c1", "hang", {}),
        ("message:complete", None),
        ("status", "error", "sub / work: ValueError: as told"),
    ]
    # LangGraph says itself that a call was cancelled, or (before 1.2.24) leaves it open.
    assert call in [("tool:error", "c1", "hang", error) for error in ("cancelled", "ValueError: as told")]


# --- tools -----------------------------------------------------------------------------------------------------------


async def test_tools_are_told_from_start_to_end() -> None:
    """Calls in parallel keep the model's ids; a failing one says why, one that does not exist too, and what is injected
    into a tool stays out of its params."""

    @tool
    def look(what: str, state: Annotated[Any, InjectedState]) -> Command[Any]:
        """Look."""
        return Command(update={"messages": [ToolMessage(f"saw {what}", tool_call_id="c4")]})

    calls = [
        ("add", {"a": 1, "b": 2}, "c1"),
        ("fail", {"what": "x"}, "c2"),
        ("nope", {}, "c3"),
        ("look", {"what": "y"}, "c4"),
    ]
    model = Whole(script=[calling(*calls), AIMessage("Three")])
    found = await told(loop(model, ToolNode([add, fail, look], handle_tool_errors=True)), HELLO)
    assert found[:3] == [("phase:start", "agent", 1), ("phase:complete", "agent"), ("phase:start", "tools", 2)]
    assert found[-4:] == [
        ("phase:complete", "tools"),
        ("phase:start", "agent", 3),
        ("message:complete", "Three"),
        ("phase:complete", "agent"),
    ]
    assert sorted(found[3:-4], key=lambda event: event[1]) == [
        ("tool:start", "c1", "add", {"a": 1, "b": 2}),
        ("tool:complete", "c1", "add", "3"),
        ("tool:start", "c2", "fail", {"what": "x"}),
        ("tool:error", "c2", "fail", "KeyError: 'x'"),
        ("tool:start", "c3", "nope", {}),
        ("tool:error", "c3", "nope", "Error: nope is not a valid tool, try one of [add, fail, look]."),
        ("tool:start", "c4", "look", {"what": "y"}),
        ("tool:complete", "c4", "look", "saw y"),
    ]


async def test_a_tool_called_by_hand_is_told_once() -> None:
    """Without the model's id a call has one of its own; what the node then answers to the model is no second call."""

    def tools(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [ToolMessage(str(add.invoke({"a": 1, "b": "x"})), tool_call_id="c1")]}
        except Exception as error:
            return {"messages": [ToolMessage(str(error), tool_call_id="c1", status="error")]}

    found = await told(line(tools, state=MessagesState), HELLO)
    assert [event[0] for event in found] == ["phase:start", "tool:start", "tool:error", "phase:complete"]
    assert found[2][3].startswith("ValidationError: 1 validation error")


async def test_an_answer_to_no_call_is_no_call() -> None:
    """A tool message that a node writes without a tool having run says nothing of tools, unless it is an error."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [ToolMessage("fine", tool_call_id="c1", name="t")]}

    assert [event[0] for event in await told(line(answer, state=MessagesState), HELLO)] == [
        "phase:start",
        "phase:complete",
    ]


async def test_a_tool_may_fail_in_words() -> None:
    """A tool that answers the model with an error has failed."""

    @tool
    def refuse() -> ToolMessage:
        """Refuse."""
        return ToolMessage("not today", tool_call_id="c1", status="error")

    model = Whole(script=[calling(("refuse", {}, "c1")), AIMessage("Pity")])
    found = await told(loop(model, ToolNode([refuse])), HELLO)
    assert found[3:5] == [("tool:start", "c1", "refuse", {}), ("tool:error", "c1", "refuse", "not today")]


async def test_an_id_that_a_model_uses_again_is_another_call() -> None:
    """In the log every call has an id of its own."""
    model = Whole(script=[calling(("add", {"a": 1, "b": n}, "same")) for n in range(2)] + [AIMessage("ok")])
    found = await told(loop(model, ToolNode([add])), HELLO)
    assert [event[1:] for event in found if event[0] == "tool:complete"] == [
        ("same", "add", "1"),
        ("same~2", "add", "2"),
    ]


async def test_a_call_takes_as_long_as_the_tool_ran() -> None:
    """The duration is measured where the tool runs, not where its events are read, though the loop be blocked."""
    entered, left = [], []

    @tool
    def block() -> str:
        """Block."""
        entered.append(asyncio.get_running_loop().time())
        threading.Event().wait(0.05)
        left.append(asyncio.get_running_loop().time())
        return ""

    async def work(state: State) -> dict[str, Any]:
        block.invoke({})
        return {}

    emitter = RecordingEmitter()
    await run_graph(line(work), {"said": []}, emitter)
    assert emitter.of("tool:complete")[0].duration >= left[0] - entered[0] - 0.001 >= 0.04


# --- payloads of nodes -----------------------------------------------------------------------------------------------


async def test_what_nodes_write_is_an_event_by_its_type() -> None:
    """Names and fields are understood in any spelling, in order with the rest; what is not meant for the catalogue, or
    does not fit it, goes as it is."""
    payloads = [
        {"type": "plan_created", "goal": "g", "phases": [{"id": "a", "name": "A"}]},
        {"type": "progress", "progress": 5, "current_action": "reading"},
        {"type": "partialResult", "result": {"at": {1}}, "specialist": "s"},
        {"type": "specialist_activated", "specialist": "s"},
        Progress(progress=6),
        InputReceived(input_id="in_1", by="me"),
        {"type": "progress", "progress": 500},
        {"type": "execution:complete", "result": 1, "duration": 1},
        {"type": "input:received", "inputId": "in_1", "by": "me"},
        {"type": "unheard_of", "n": float("nan")},
        {"type": "custom:mine", "data": {"n": 1}},
        {"type": "custom:Not allowed", "data": {"n": 1}},
        "just text",
    ]

    async def write(state: State) -> dict[str, Any]:
        writer = get_stream_writer()
        for payload in payloads:
            writer(payload)
        await adispatch_custom_event("status", {"status": "searching", "message": "m"})
        return {}

    emitter = RecordingEmitter()
    await run_graph(line(write), {"said": []}, emitter)
    found = [(type_, getattr(event, "data", event)) for type_, event in emitter.events[1:-1]]
    assert [type_ for type_, _ in found] == [
        *("plan:created", "progress", "partial:result", "specialist:activated", "progress"),
        *["custom:langgraph"] * 5,
        *("custom:mine", "custom:langgraph", "custom:langgraph", "status"),
    ]
    plan, progress, partial = (event for _, event in found[:3])
    assert (plan.plan.goal, plan.plan.phases[0].name) == ("g", "A")
    assert (progress.progress, progress.current_action) == (5, "reading")
    assert partial.result == {"at": [1]}
    assert [data for type_, data in found if type_.startswith("custom:")] == [
        {"input_id": "in_1", "by": "me", "value": None, "declined": False},
        {"type": "progress", "progress": 500},
        {"type": "execution:complete", "result": 1, "duration": 1},
        {"type": "input:received", "inputId": "in_1", "by": "me"},
        {"type": "unheard_of", "n": None},
        {"n": 1},
        {"type": "custom:Not allowed", "data": {"n": 1}},
        {"value": "just text"},
    ]


async def test_what_nodes_write_may_be_of_other_libraries() -> None:
    """Text of LangChain's messages, numbers of numpy, percentages that are over by rounding."""

    async def write(state: State) -> dict[str, Any]:
        writer = get_stream_writer()
        writer({"type": "thinking", "thought": AIMessage("Hm").text})
        writer({"type": "partial_result", "result": {"score": np.float64(0.5), "none": float("nan")}})
        for percent in (7 * (100 / 7), np.float64(100.00000000000001), -1e-15, 100.5):
            writer({"type": "progress", "progress": percent})
        return {"said": [np.float64(0.5), AIMessage("x").text]}

    emitter = RecordingEmitter()
    assert await run_graph(line(write), {"said": []}, emitter) == {"said": [0.5, "x"]}
    assert emitter.of("thinking")[0].thought == "Hm"
    assert emitter.of("partial:result")[0].result == {"score": 0.5, "none": None}
    assert [event.progress for event in emitter.of("progress")] == [100, 100, 0]
    assert emitter.of("custom:langgraph")[0].data == {"type": "progress", "progress": 100.5}


async def test_a_state_of_things_that_know_each_other_ends_the_graph() -> None:
    """As it does where each node's output is a social graph: at once, with the way back marked."""
    people: list[dict[str, Any]] = [{"name": str(number)} for number in range(12)]
    for person in people:
        person["knows"] = [other for other in people if other is not person]

    emitter = RecordingEmitter()
    began = time.process_time()
    output = await run_graph(line(("meet", lambda state: {"said": people})), {"said": []}, emitter)
    assert time.process_time() - began < 10
    assert {"clipped": True, "reason": "cycle"}.items() <= output["said"][0]["knows"][0]["knows"][0].items()


# --- the parts -------------------------------------------------------------------------------------------------------

AT = {"langgraph_checkpoint_ns": "node:t1"}


def test_a_message_whose_id_changes_on_the_way_is_told_once() -> None:
    """Some providers' chunks and the message they come to have different ids; the text is the same."""
    messages = Messages(RunningUsage())
    events = messages.take(AIMessageChunk("Hi", id="chunk"), AT) + messages.take(AIMessage("Hi", id="whole"), AT)
    assert events == [MessageDelta(message_id="chunk", delta="Hi")]
    elsewhere = {"langgraph_checkpoint_ns": "node:t2"}
    assert messages.take(AIMessage("Hi", id="another"), elsewhere) != []
    assert messages.take(AIMessage("Hi", id="another"), {"langgraph_checkpoint_ns": "node:t3"}) == []
    assert messages.end_task("t1", "") == [MessageComplete(message_id="chunk")]


def test_memory_of_ids_has_a_bound() -> None:
    """The oldest keys are forgotten."""
    recent = Recent(limit=2)
    for key in "abc":
        recent.add(key)
    assert ["a" in recent, "b" in recent, "c" in recent] == [False, True, True]


def test_a_place_is_the_same_for_the_same_work_only() -> None:
    """Step, node, rank among namesakes, and which of a task's subgraphs it is in: each makes another place."""
    root = Phase()
    places = []
    for step, node, namespace in ((1, "a", ()), (1, "a", ()), (1, "b", ()), (2, "a", ()), (2, "a", ("b:t1", "1"))):
        root.enter(step, namespace)
        places.append(root.child("t", node, namespace, 0.0).place)
    assert places == ["/1.a.0", "/1.a.1", "/1.b.0", "/2.a.0", "/1/2.a.0"]


def test_the_output_is_the_graphs_own_last_value() -> None:
    """Neither a subgraph's values nor those of a graph that waits for an answer are the output."""
    translation = Translation(Watch(), RunningUsage())
    for namespace, value in (((), {"a": 1}), (("sub:t1",), {"a": 2}), ((), {"a": 3, "__interrupt__": ()})):
        assert translation.take(namespace, "values", value) == []
    assert translation.output == {"a": 1}
