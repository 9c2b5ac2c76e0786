"""Graphs that ask people, and go on with the answers, also when their worker was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Interrupt, Send, interrupt

from emitter import Context, InputExpired
from emitter.events import InputReceived
from emitter.integrations.langgraph import (
    Ask,
    NoCheckpointer,
    StepRefused,
    run_graph,
    stream_graph,
)
from emitter.testing import RecordingEmitter
from tests.edges import Author
from tests.emitter.langgraph_graphs import (
    HELLO,
    Kept,
    State,
    answering,
    emitting,
    line,
    log_of,
    loop,
)
from tests.emitter.langgraph_models import Chunked, Whole, calling, spoken, story, usage


def approve(state: State) -> dict[str, Any]:
    return {"said": [interrupt({"prompt": "Publish?", "kind": "approval", "expires_in": 30})]}


def name_it(state: State) -> dict[str, Any]:
    return {"said": [interrupt("A name?")]}


async def test_an_interrupt_asks_and_the_graph_goes_on_with_the_answer(author: Author, redis_url: str) -> None:
    """The node's phase stays open while a person is asked over the record, and the answer is what `interrupt` returns;
    the one phase is not told again when the node runs again."""
    graph = line(approve, name_it, checkpointer=InMemorySaver())
    async with emitting(author, redis_url) as emitter:
        answers = asyncio.create_task(answering(author, True, "Ada"))
        result = await run_graph(graph, {"said": []}, emitter, result=lambda state: state["said"])
        questions = await answers
    assert result == [True, "Ada"]
    assert questions[0].expires_at is not None
    assert story(await log_of(author)) == [
        ("phase:start", "approve", 1),
        ("input:required", "Publish?", "approval"),
        ("input:received", "bob", True),
        ("phase:complete", "approve"),
        ("phase:start", "name_it", 2),
        ("input:required", "A name?", "text"),
        ("input:received", "bob", "Ada"),
        ("phase:complete", "name_it"),
    ]


def both(*nodes: Any, **compiled: Any) -> Any:
    """Functions side by side, and beside them one that just ends."""

    def beside(state: State) -> dict[str, Any]:
        return {}

    builder = StateGraph(State)
    for node in (*nodes, beside):
        builder.add_node(node if isinstance(node, str) else node.__name__, node)
        builder.add_edge(START, node.__name__)
    return builder.compile(**compiled)


async def test_several_interrupts_are_asked_at_once(author: Author, redis_url: str) -> None:
    """Both questions are open before either is answered, each node gets its own answer, in whatever order they come,
    and what ended beside them is not told again."""
    graph = both(approve, name_it, checkpointer=InMemorySaver())
    async with emitting(author, redis_url) as emitter:
        run = asyncio.create_task(stream_graph(graph, {"said": []}, emitter))
        asked: dict[str, str] = {}
        async with asyncio.timeout(15):
            while len(asked) < 2:
                asked = {e.prompt: e.input_id for t, e in await log_of(author) if t == "input:required"}
        for prompt, value in (("A name?", "Ada"), ("Publish?", False)):
            await author.write(InputReceived(input_id=asked[prompt], by="bob", value=value))
        assert (await run)["said"] == [False, "Ada"]
    told_ = story(await log_of(author))
    assert [event[0] for event in told_].count("phase:start") == 3
    assert [event[0] for event in told_].count("phase:complete") == 3


@pytest.mark.parametrize("saver", [InMemorySaver, Kept])
async def test_a_retry_finds_the_answer_that_was_given(author: Author, redis_url: str, saver: Any) -> None:
    """An attempt that was lost after an answer is not asked again: not by a graph that starts over, and not by one that
    goes on from its checkpoint, which also skips what was done."""
    runs: list[str] = []

    def prepare(state: State) -> dict[str, Any]:
        runs.append("prepare")
        return {"said": []}

    def ask_twice(state: State) -> dict[str, Any]:
        return {"said": [interrupt("Again?"), interrupt("Again?")]}

    def graph(checkpointer: Any) -> Any:
        return line(prepare, ("sub", line(("ask", ask_twice))), checkpointer=checkpointer)

    kept = saver()
    async with emitting(author, redis_url, attempt=1) as first:
        lost = asyncio.create_task(stream_graph(graph(kept), {"said": []}, first))
        await answering(author, "one")
        async with asyncio.timeout(15):
            while [type_ for type_, _ in await log_of(author)].count("input:required") < 2:
                await asyncio.sleep(0.01)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
    second_id = [event.input_id for type_, event in await log_of(author) if type_ == "input:required"][-1]
    await author.write(InputReceived(input_id=second_id, by="bob", value="two"))
    before = len(await log_of(author))
    async with emitting(author, redis_url, attempt=2) as second:
        store = kept if saver is Kept else saver()
        output = await stream_graph(graph(store), {"said": []}, second)
    assert output["said"] == ["one", "two"]
    assert runs == (["prepare"] if saver is Kept else ["prepare"] * 2)
    resumed = [("status", "resumed", "The graph goes on where attempt 1 left it")] if saver is Kept else []
    prepared = [] if saver is Kept else [("phase:start", "prepare", 1), ("phase:complete", "prepare")]
    assert story((await log_of(author))[before:]) == [
        *resumed,
        *prepared,
        ("phase:start", "sub", 2),
        ("phase:start", "sub / ask", 1),
        ("phase:complete", "sub / ask"),
        ("phase:complete", "sub"),
    ]


async def test_a_retry_of_a_finished_graph_only_returns_its_output() -> None:
    """A worker that died between the graph's end and the execution's costs no second run; another input does."""
    kept, runs = Kept(), []

    def work(state: State) -> dict[str, Any]:
        runs.append(1)
        return {"said": ["done"]}

    graph = line(work, checkpointer=kept)
    emitter = RecordingEmitter()
    for emitter.attempt, input_, expected in ((1, [], 1), (2, [], 1), (3, ["other"], 2), (3, ["other"], 3)):
        output = await stream_graph(graph, {"said": input_}, emitter)
        assert (output["said"][-1], len(runs)) == ("done", expected)


async def test_graphs_of_one_execution_ask_for_themselves(author: Author, redis_url: str) -> None:
    """Two runs of a graph that ask the same with the same input are two questions, and a retry finds both answers."""
    for attempt in (1, 2):
        async with emitting(author, redis_url, attempt=attempt) as emitter:
            answers = asyncio.create_task(answering(author, "one", "two")) if attempt == 1 else None
            for expected in ("one", "two"):
                output = await stream_graph(line(name_it, checkpointer=InMemorySaver()), {"said": []}, emitter)
                assert output["said"] == [expected]
            if answers is not None:
                await answers


async def test_an_answer_is_never_taken_for_another_question(author: Author, redis_url: str) -> None:
    """A retry whose graph asks something else at the same place asks anew."""
    for attempt, prompt in ((1, "This?"), (2, "That?")):
        graph = line(("ask", lambda state, prompt=prompt: {"said": [interrupt(prompt)]}), checkpointer=InMemorySaver())
        async with emitting(author, redis_url, attempt=attempt) as emitter:
            run = asyncio.create_task(stream_graph(graph, {"said": []}, emitter))
            await answering(author, prompt.lower(), after=await author.log())
            assert (await run)["said"] == [prompt.lower()]


QUESTIONS: list[tuple[Any, Any, dict[str, Any]]] = [
    ("Go?", None, {"kind": "text", "prompt": "Go?"}),
    (
        {"question": "Which?", "options": ["a", "b"]},
        None,
        {"kind": "choice", "options": ["a", "b"], "prompt": "Which?"},
    ),
    (
        {"message": "Fill", "schema": {"type": "object"}},
        None,
        {"kind": "form", "schema": {"type": "object"}, "prompt": "Fill"},
    ),
    ({"prompt": "Sure?"}, {"type": "boolean"}, {"kind": "approval", "prompt": "Sure?"}),
    (
        "Who?",
        {"type": "object", "title": "W"},
        {"kind": "form", "schema": {"type": "object", "title": "W"}, "prompt": "Who?"},
    ),
    ("How many?", int, {"kind": "text", "prompt": "How many?"}),
    ({"draft": "d", "n": 1}, None, {"kind": "text", "prompt": '{"draft":"d","n":1}'}),
    ({"prompt": "P", "kind": "shout", "options": [1]}, None, {"kind": "text", "prompt": "P"}),
]


@pytest.mark.parametrize(("value", "schema", "asked"), QUESTIONS)
async def test_what_an_interrupt_asks(value: Any, schema: Any, asked: dict[str, Any]) -> None:
    """The value and the response schema say what is asked, of which kind, and what may be answered."""

    def ask(state: State) -> dict[str, Any]:
        return {"said": [interrupt(value, response_schema=schema)]}

    answer = {"approval": True, "form": {"a": 1}, "choice": "b", "text": "7"}[asked["kind"]]
    emitter = RecordingEmitter(answers={asked["prompt"]: answer})
    output = await stream_graph(line(ask, checkpointer=InMemorySaver()), {"said": []}, emitter)
    assert output["said"] == [7 if schema is int else answer]
    (question,) = emitter.of("input:required")
    assert {name: getattr(question, name) for name in asked} == asked


async def test_an_interrupt_may_be_answered_in_a_way_of_ones_own() -> None:
    """`on_interrupt` asks what it likes, as often as it likes, and decides what the graph goes on with."""

    async def decide(raised: Interrupt, ask: Ask) -> Any:
        approved = await ask(f"Run {raised.value['action']}?", kind="approval")
        why = "" if approved else await ask("Why not?", kind="text")
        return {"type": "accept" if approved else "reject", "why": why}

    def act(state: State) -> dict[str, Any]:
        return {"said": [interrupt({"action": "rm"})]}

    emitter = RecordingEmitter(answers={"Run rm?": False, "Why not?": "no"})
    output = await run_graph(line(act, checkpointer=InMemorySaver()), {"said": []}, emitter, on_interrupt=decide)
    assert output["said"] == [{"type": "reject", "why": "no"}]
    assert len({question.input_id for question in emitter.of("input:required")}) == 2


async def test_a_tool_may_ask() -> None:
    """A call that asks is one call, from its start before the question to its result after the answer."""

    @tool
    def book(city: str) -> str:
        """Book."""
        return f"{city}: {interrupt({'prompt': 'Book?', 'kind': 'approval'})}"

    model = Whole(script=[calling(("book", {"city": "Rome"}, "c1")), AIMessage("Booked")])
    emitter = RecordingEmitter(answers={"Book?": True})
    await run_graph(loop(model, ToolNode([book]), checkpointer=InMemorySaver()), HELLO, emitter)
    assert story(emitter.events)[2:-3] == [
        ("phase:start", "tools", 2),
        ("tool:start", "c1", "book", {"city": "Rome"}),
        ("input:required", "Book?", "approval"),
        ("input:received", "tester", True),
        ("tool:complete", "c1", "book", "Rome: True"),
        ("phase:complete", "tools"),
    ]


async def test_a_subgraph_that_asked_does_not_repeat_what_it_said_before() -> None:
    """Messages from before an interrupt, which the subgraph returns when it ends, are neither told nor counted a second
    time."""
    model = Chunked(script=[spoken("Before", tokens=(1, 2))])
    silent = Whole(script=[calling(("add", {}, "c1"), usage_metadata=usage(10, 20))])

    async def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke("x"), await silent.ainvoke("x")]}

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [HumanMessage(interrupt("And?"))]}

    graph = line(("sub", line(speak, ask, state=MessagesState)), state=MessagesState, checkpointer=InMemorySaver())
    emitter = RecordingEmitter(answers={"And?": "so"})
    await run_graph(graph, HELLO, emitter)
    assert [event for event in story(emitter.events) if event[0].startswith(("message", "usage"))] == [
        ("message:delta", "Before"),
        ("message:complete", None),
        ("usage", 1, 2, 3),
        ("usage", 11, 22, 33),
    ]


async def test_a_node_that_says_the_same_again_after_an_answer_is_not_told_again() -> None:
    """A node runs again from its beginning when it has its answer; what it says whole is said once."""

    async def work(state: State) -> dict[str, Any]:
        await FakeListChatModel(responses=["A draft"], disable_streaming=True).ainvoke("x")
        return {"said": [interrupt("Good?")]}

    emitter = RecordingEmitter(answers={"Good?": "yes"})
    await run_graph(line(work, checkpointer=InMemorySaver()), {"said": []}, emitter)
    assert story(emitter.events) == [
        ("phase:start", "work", 1),
        ("message:complete", "A draft"),
        ("input:required", "Good?", "text"),
        ("input:received", "tester", "yes"),
        ("phase:complete", "work"),
    ]


async def test_the_same_question_at_two_places_is_two_questions(author: Author, redis_url: str) -> None:
    """Nodes side by side that ask the same each find their own answer again, whichever asks first."""

    def graph(*seconds: float) -> Any:
        async def ask(state: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(seconds[state["n"]])
            return {"said": [(state["n"], interrupt("Same?"))]}

        inner = StateGraph(State).add_node(ask)
        inner.add_conditional_edges(START, lambda state: [Send("ask", {"n": 0}), Send("ask", {"n": 1})], ["ask"])
        return line(("sub", inner.compile()), checkpointer=InMemorySaver())

    found = []
    for attempt, compiled in ((1, graph(0, 0.02)), (2, graph(0.02, 0))):
        async with emitting(author, redis_url, attempt=attempt) as emitter:
            run = asyncio.create_task(stream_graph(compiled, {"said": []}, emitter))
            if attempt == 1:
                await answering(author, "one", "two")
            found.append((await run)["said"])
    assert found[0] == found[1]
    assert {answer for _, answer in found[0]} == {"one", "two"}


async def test_a_graph_without_checkpointer_cannot_ask() -> None:
    """The error says what it lacks, before anybody is asked in vain."""
    emitter = RecordingEmitter(answers={"A name?": "Ada"})
    with pytest.raises(NoCheckpointer, match=r"no checkpointer .* A name"):
        await run_graph(line(name_it), {"said": []}, emitter)
    assert emitter.types == ["phase:start"]


async def test_a_question_nobody_answers_ends_the_run() -> None:
    """The error is that of `ask`, and the other questions are asked no more."""
    waiting, stopped = asyncio.Event(), asyncio.Event()

    class Half(Context):
        async def ask(self, prompt: str, **options: Any) -> Any:
            if prompt == "Publish?":
                await waiting.wait()
                raise InputExpired("in_1")
            waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    graph = both(approve, name_it, checkpointer=InMemorySaver())
    with pytest.raises(InputExpired):
        await run_graph(graph, {"said": []}, Half(RecordingEmitter(), task=""))
    assert stopped.is_set()


@pytest.mark.parametrize("approved", [True, False])
async def test_a_breakpoint_asks_whether_to_go_on(approved: bool) -> None:
    """A graph compiled to stop before a node stops for a person's approval, and is not taken for finished."""

    def draft(state: State) -> dict[str, Any]:
        return {"said": ["drafted"]}

    def publish(state: State) -> dict[str, Any]:
        return {"said": ["published"]}

    graph = line(draft, publish, checkpointer=InMemorySaver(), interrupt_before=["publish"])
    emitter = RecordingEmitter(answers={"Continue with publish?": approved})
    if approved:
        assert (await run_graph(graph, {"said": []}, emitter))["said"] == ["drafted", "published"]
    else:
        with pytest.raises(StepRefused, match="publish"):
            await run_graph(graph, {"said": []}, emitter)
    assert story(emitter.events)[:4] == [
        ("phase:start", "draft", 1),
        ("phase:complete", "draft"),
        ("input:required", "Continue with publish?", "approval"),
        ("input:received", "tester", approved),
    ]
    assert ("phase:start" in emitter.types[4:]) is approved
