"""Graphs as agents and executions: config, input, result, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import get_runtime
from pydantic import BaseModel
from redis.asyncio import Redis

from emitter import AgentEmitter, Agents, Context, ExecutionEnded
from emitter.events import Event, ExecutionCancelled
from emitter.integrations.langgraph import (
    execute_graph,
    graph_agent,
    run_graph,
    stream_graph,
)
from emitter.publishing.hooks import Origin
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits
from emitter.testing import RecordingEmitter
from tests.edges import Author
from tests.emitter.langgraph_graphs import (
    HELLO,
    Kept,
    State,
    add,
    chat,
    emitting,
    line,
    log_of,
    loop,
    told,
)
from tests.emitter.langgraph_models import Whole, calling, story


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tools: list[str] = []

    def on_tool_start(self, serialized: dict[str, Any], *arguments: Any, **more: Any) -> None:
        self.tools.append(serialized["name"])


class Palette(TypedDict):
    color: str


async def test_the_callers_config_reaches_the_graph() -> None:
    """Callbacks, configurable values, metadata, the recursion limit and options of `astream` are the caller's."""
    seen: dict[str, Any] = {}

    async def work(state: State, config: RunnableConfig) -> dict[str, Any]:
        seen.update(config["configurable"], mine=config["metadata"]["mine"], limit=config["recursion_limit"])
        seen["color"] = get_runtime(Palette).context["color"]
        await add.ainvoke({"a": 1, "b": 2})
        return {}

    graph = StateGraph(State, context_schema=Palette).add_sequence([work]).add_edge(START, "work")
    one, two = Listener(), Listener()
    manager = AsyncCallbackManager([])
    manager.add_handler(two, inherit=True)
    for callbacks in ([one], manager):
        config: Any = {
            "callbacks": callbacks,
            "configurable": {"thread_id": "t1"},
            "metadata": {"mine": "m"},
            "recursion_limit": 25,
        }
        emitter = RecordingEmitter()
        compiled = graph.compile(checkpointer=InMemorySaver())
        await run_graph(compiled, {"said": []}, emitter, config=config, context={"color": "red"}, durability="sync")
        assert (seen["thread_id"], seen["mine"], seen["limit"], seen["color"]) == ("t1", "m", 25, "red")
        assert "tool:complete" in emitter.types
    assert (one.tools, two.tools) == (["add"], ["add"])
    assert manager.handlers == [two]


async def test_a_recursion_limit_ends_the_run() -> None:
    """The graph's own error comes out."""
    builder = StateGraph(State)
    builder.add_node("again", lambda state: {})
    builder.add_edge(START, "again")
    builder.add_edge("again", "again")
    with pytest.raises(GraphRecursionError):
        await told(builder.compile(), {"said": []}, config={"recursion_limit": 3})


async def test_a_thread_is_the_executions_own() -> None:
    """Without a thread id a graph with a checkpointer gets one that no other owner's execution of this id has."""
    saver = InMemorySaver()
    graph = chat(FakeListChatModel(responses=["x"]), checkpointer=saver)
    for user in ("alice", "bob"):
        await run_graph(graph, HELLO, RecordingEmitter(user, "ex_1"))
    bound = graph.with_config(configurable={"thread_id": "bound"})
    await run_graph(bound, HELLO, RecordingEmitter())
    assert set(saver.storage) == {"default:alice:ex_1", "default:bob:ex_1", "bound"}


class Report(BaseModel):
    title: str
    when: Any = None


async def test_results_have_a_form_that_json_can_hold() -> None:
    """Messages, models and exceptions in the output become plain values; `result` takes what matters."""

    def work(state: State) -> dict[str, Any]:
        return {"said": [AIMessage("x", id="m"), Report(title="t"), ValueError("v"), object]}

    graph = line(work)
    output = await run_graph(graph, {"said": []}, RecordingEmitter())
    assert output["said"][:3] == [
        {"content": "x", "type": "ai", "id": "m"},
        {"title": "t", "when": None},
        "ValueError: v",
    ]
    title = await run_graph(graph, {"said": []}, RecordingEmitter(), result=lambda state: state["said"][1].title)
    assert title == "t"
    raw = await stream_graph(graph, {"said": []}, RecordingEmitter())
    assert isinstance(raw["said"][1], Report)


async def test_what_is_too_large_is_clipped_and_the_run_goes_on(author: Author, redis_url: str) -> None:
    """Params and results end with a mark, a text comes in chunks, and the result still ends the execution."""
    big = "é" * 3000

    @tool
    def echo(text: str) -> str:
        """Echo."""
        return text

    model = Whole(script=[calling(("echo", {"text": big}, "c1")), AIMessage(big)])
    graph = loop(model, ToolNode([echo]))
    limits = LogLimits(max_event_bytes=2048)
    publisher = Publisher(redis_url=redis_url, limits=limits)
    async with publisher, AgentEmitter(author.user, author.execution_id, publisher=publisher) as emitter:
        result = await run_graph(graph, HELLO, emitter)
        await emitter.execution_complete(result)
    log = await log_of(author)
    assert [type_ for type_, _ in log if type_ != "message:delta"] == [
        *("phase:start", "phase:complete", "phase:start", "tool:start", "tool:complete", "phase:complete"),
        *("phase:start", "message:complete", "phase:complete", "execution:complete"),
    ]
    said = dict(log)
    assert "clipped: 3000 characters" in said["tool:start"].params["text"]
    assert "clipped: 3000 characters" in said["tool:complete"].result
    assert "".join(event.delta for type_, event in log if type_ == "message:delta") == big
    assert "clipped" in str(said["execution:complete"].result)


async def test_a_graph_is_an_agent() -> None:
    """The task is the user's message, params fill the other fields, and the agent returns the result."""

    class Wide(MessagesState):
        tone: str

    def work(state: Wide) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{state['messages'][-1].content} ({state.get('tone')})")]}

    agent = graph_agent(line(work, state=Wide), result=lambda state: state["messages"][-1].content)
    agents = Agents()
    agents.agent("worker")(agent)
    emitter = RecordingEmitter()
    context = Context(emitter, task="Write", params={"tone": "dry", "other": 1})
    assert await agents["worker"].function(context) == "Write (dry)"
    assert agents["worker"].is_async
    assert story(emitter.events)[1] == ("message:complete", "Write (dry)")


async def test_where_a_task_belongs_is_seen_from_the_graphs_input() -> None:
    """A field `task`, or a text as the whole input, takes the task; other inputs need `make_input`."""

    def work(state: State) -> dict[str, Any]:
        return {"said": [state["task"]]}

    @entrypoint()
    async def flow(text: str) -> str:
        return text

    context = Context(RecordingEmitter(), task="Write", conversation_id="c1")
    assert (await graph_agent(line(work))(context))["said"] == ["Write"]
    assert await graph_agent(flow)(context) == "Write"

    class Odd(TypedDict):
        topic: str
        depth: int

    odd = line(("work", lambda state: {}), state=Odd, checkpointer=(saver := InMemorySaver()))
    with pytest.raises(TypeError, match=r"\['depth', 'topic'\]: pass make_input"):
        graph_agent(odd)
    agent = graph_agent(
        odd,
        make_input=lambda context: {"topic": context.task, "depth": 1},
        config=lambda context: {"configurable": {"thread_id": context.conversation_id}},
    )
    assert await agent(context) == {"topic": "Write", "depth": 1}
    assert set(saver.storage) == {"c1"}


async def test_cancelling_ends_the_graph() -> None:
    """A cancelled run leaves no node running, and says how the open call ended; the cancellation comes out."""
    told_, ended = asyncio.Event(), asyncio.Event()

    def notice(event: Event, origin: Origin) -> Event:
        if event.type == "tool:start":
            told_.set()
        return event

    @tool
    async def hang() -> str:
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    emitter = RecordingEmitter(hooks=[notice])
    graph = loop(Whole(script=[calling(("hang", {}, "c1"))]), ToolNode([hang]))
    run = asyncio.create_task(run_graph(graph, HELLO, emitter))
    async with asyncio.timeout(10):
        await told_.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await ended.wait()
    assert story(emitter.events)[2:] == [
        ("phase:start", "tools", 2),
        ("tool:start", "c1", "hang", {}),
        ("tool:error", "c1", "hang", "cancelled"),
    ]


async def test_a_log_that_is_closed_ends_the_graph() -> None:
    """What the emitter refuses ends the run where it stands, and its nodes with it."""
    cancelled = asyncio.Event()
    emitter = RecordingEmitter()

    async def work(state: State) -> dict[str, Any]:
        await emitter.execution_cancelled()
        get_stream_writer()({"type": "progress", "progress": 1})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return {}

    with pytest.raises(ExecutionEnded):
        await run_graph(line(work), {"said": []}, emitter)
    assert cancelled.is_set()


@pytest.mark.parametrize(
    ("what", "error", "end"),
    [
        ("works", None, ["phase:complete", "execution:complete"]),
        ("fails", ValueError, ["status", "execution:error"]),
        ("stops", asyncio.CancelledError, ["execution:cancelled"]),
        ("ends", ExecutionEnded, ["execution:cancelled"]),
    ],
)
async def test_a_graph_may_be_an_execution_of_its_own(
    author: Author, redis_url: str, what: str, error: type[BaseException] | None, end: list[str]
) -> None:
    """Where no worker runs, `execute_graph` writes the start and the one terminal event, whatever happens."""

    async def work(state: State) -> dict[str, Any]:
        if what == "fails":
            raise ValueError("as told")
        if what == "ends":  # by somebody else
            await emitter.flush()
            await author.write(ExecutionCancelled())
            await emitter.thinking("Hm")
            await emitter.flush()
        if what == "stops":
            run.cancel()
            await asyncio.Event().wait()
        return {"said": ["x"]}

    async with emitting(author, redis_url) as emitter:
        run = asyncio.create_task(execute_graph(line(work), {"said": []}, emitter, task="Write"))
        if error is None:
            assert await run == {"said": ["x"]}
        else:
            with pytest.raises(error):
                await run
    types = [type_ for type_, _ in await log_of(author)]
    assert types == ["execution:started", "phase:start", *end]


async def test_a_graph_streams_to_nothing_else() -> None:
    """Something that is neither context nor emitter is refused before the graph runs."""
    with pytest.raises(TypeError, match="not to Redis"):
        await run_graph(line(("work", lambda state: {})), {}, Redis())  # type: ignore[arg-type]


def test_the_emitter_does_not_load_langgraph() -> None:
    """`import emitter` loads neither LangGraph nor LangChain."""
    code = "import emitter, emitter.integrations, sys; print([n for n in sys.modules if n.startswith('lang')])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("saver", [None, InMemorySaver, Kept])
async def test_a_conversation_is_not_told_twice(saver: Any) -> None:
    """Over three turns, with a thread for the conversation or without a checkpointer, the model gets each turn once. A
    retry of a turn goes on from the thread."""
    heard: list[list[str]] = []

    def answer(state: MessagesState) -> dict[str, Any]:
        heard.append([message.text for message in state["messages"]])
        if len(heard) == 2:
            raise ConnectionError
        return {"messages": [AIMessage(f"a{len(heard)}")]}

    graph = line(answer, state=MessagesState, checkpointer=saver() if saver else None)
    agent = graph_agent(graph, config=lambda context: {"configurable": {"thread_id": context.conversation_id}})
    turns: list[dict[str, str]] = []
    for number, attempt in ((1, 1), (2, 1), (2, 2), (3, 1)):
        if attempt == 1:
            turns.append({"role": "user", "content": f"q{number}"})
        emitter = RecordingEmitter(execution_id=f"ex_{number}")
        emitter.attempt = attempt
        context = Context(emitter, task=f"q{number}", params={"messages": list(turns)}, conversation_id="c1")
        with contextlib.suppress(ConnectionError):
            output = await agent(context)
            turns.append({"role": "assistant", "content": output["messages"][-1]["content"]})
    assert heard == [["q1"], ["q1", "a1", "q2"], ["q1", "a1", "q2"], ["q1", "a1", "q2", "a3", "q3"]]


LINKED = {"url": "https://h.example/a.pdf", "mediaType": "application/pdf", "name": "a.pdf"}
HELD = {"url": "data:image/png;base64,iVBORw==", "mediaType": "image/png"}


@pytest.mark.parametrize(
    ("files", "blocks"),
    [
        (
            [LINKED, HELD],
            [
                {
                    "type": "file",
                    "url": "https://h.example/a.pdf",
                    "mime_type": "application/pdf",
                    "extras": {"filename": "a.pdf"},
                },
                {"type": "image", "base64": "iVBORw==", "mime_type": "image/png"},
            ],
        ),
        ([{"url": "https://h.example/a", "mediaType": "audio"}], [{"type": "audio", "url": "https://h.example/a"}]),
        ([{"references": {"openai": "file-1"}}], [{"type": "file", "file_id": "file-1"}]),
        (
            [{"mediaType": "image/png", "name": "a.png", "omitted": "there is no room for it"}],
            [{"type": "text", "text": "[a.png is not here: there is no room for it]"}],
        ),
    ],
)
async def test_files_of_a_conversation(files: list[Any], blocks: list[Any]) -> None:
    """A model has a user's files as blocks of the message they came with, also of one without words."""
    heard: list[Any] = []

    def answer(state: MessagesState) -> dict[str, Any]:
        heard.extend(message.content for message in state["messages"])
        return {"messages": [AIMessage("a")]}

    turns = [
        {"role": "user", "content": "", "attachments": files},
        {"role": "assistant", "content": "so", "attachments": files},
        {"role": "user", "content": "look", "attachments": files},
    ]
    context = Context(RecordingEmitter(), task="look", params={"messages": turns})
    await graph_agent(line(answer, state=MessagesState))(context)
    assert heard == [blocks, "so", [{"type": "text", "text": "look"}, *blocks]]


@pytest.mark.parametrize("option", [{"version": "v2"}, {"stream_mode": "values"}, {"subgraphs": False}])
async def test_the_form_of_the_stream_is_not_the_callers(option: dict[str, Any]) -> None:
    """Refused by name when the agent is made, not in the middle of a run."""
    graph = StateGraph(MessagesState).add_node("n", lambda _: {}).add_edge(START, "n").compile()
    (name,) = option
    with pytest.raises(TypeError, match=f"`{name}` cannot be given"):
        graph_agent(graph, **option)
    with pytest.raises(TypeError, match=f"`{name}` cannot be given"):
        await run_graph(graph, {"messages": []}, RecordingEmitter(), **option)
