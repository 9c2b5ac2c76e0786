"""The public functions: a graph within an agent, as an agent, and as an execution of its own."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_type_hints

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from emitter.errors import describe
from emitter.integrations.langgraph.files import with_blocks
from emitter.integrations.langgraph.inputs import OnInterrupt, ask_interrupt
from emitter.integrations.langgraph.messages import EmitterUsage, RunningUsage
from emitter.integrations.langgraph.publish import Emitter, fitting
from emitter.integrations.langgraph.run import Graph, GraphRun
from emitter.integrations.langgraph.steering import OnMessages, as_human_messages
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.testing import RecordingEmitter
from emitter.worker.agents import Context

Result = Callable[[Any], Any]


async def stream_graph(
    graph: Graph,
    input_: Any,
    to: Context | Emitter,
    /,
    *,
    config: RunnableConfig | None = None,
    usage: RunningUsage | None = None,
    on_interrupt: OnInterrupt = ask_interrupt,
    follow_up: Any = None,
    on_messages: OnMessages | None = as_human_messages,
    **options: Any,
) -> Any:
    """Run a compiled graph; what it does goes into the log of `to`, an agent's context or an emitter. Returns what
    `graph.ainvoke` would.

    Args:
        config: the graph's config: `callbacks`, `recursion_limit`, `configurable` … A graph with a checkpointer gets a
            `thread_id` of its own for the execution, unless it is given one.
        usage: what `usage` events count; by default all that the emitter has reported, this graph's models included.
        on_interrupt: gets the answer to an interrupt; by default it is put to a person as it is.
        follow_up: the input instead, where the thread has `messages` already: what is new, without the conversation
            before it, which the graph's checkpointer has kept.
        on_messages: makes of what people say (`emitter.Message`s) an update of the graph's state, where the agent
            accepts messages; by default they are added to the channel `messages`. They enter between two supersteps,
            never between a tool call and its result; what comes last is the input of another run of the graph. Needs a
            checkpointer. None: the graph takes none.
        options: more of `graph.astream`, such as `context`, `durability`, `interrupt_before`; not the form of its
            stream (`version`, `stream_mode`).

    Raises what the graph raises, `NoCheckpointer`, `StepRefused`, and what emitting and asking raise. It writes no
    terminal event: the worker does, or the code that made the emitter.
    """
    _check(options)
    if not isinstance(to, Context | AgentEmitter | RecordingEmitter):
        raise TypeError(f"a graph streams to a Context or an AgentEmitter, not to {type(to).__name__}")
    counted = EmitterUsage(to.emitter if isinstance(to, Context) else to) if usage is None else usage
    run = GraphRun(graph, to, config, counted, on_interrupt, follow_up, on_messages, options)
    return await run.output(input_)


def _check(options: Mapping[str, Any]) -> None:
    """The stream is read in one form, with all modes that become events."""
    if ours := sorted({"stream_mode", "subgraphs", "version", "output_keys"} & options.keys()):
        raise TypeError(f"`{ours[0]}` cannot be given: the stream of the graph is read in one form")


async def run_graph(
    graph: Graph, input_: Any, to: Context | Emitter, /, *, result: Result | None = None, **options: Any
) -> Any:
    """`stream_graph`, and the output in a form that an execution can end with: JSON, cut to the limit of an event.
    `result` takes from the output what matters; options as of `stream_graph`."""
    output = await stream_graph(graph, input_, to, **options)
    return fitting(to.emitter if isinstance(to, Context) else to, output if result is None else result(output))


def graph_agent(
    graph: Graph,
    *,
    make_input: Callable[[Context], Any] | None = None,
    config: RunnableConfig | Callable[[Context], RunnableConfig] | None = None,
    **options: Any,
) -> Callable[[Context], Awaitable[Any]]:
    """An agent to register: `agents.agent("name")(graph_agent(graph))`.

    Args:
        make_input: the graph's input; by default the task, as the user's message if the graph takes `messages`, with
            the execution's params for the other fields of the input. Where the thread has the conversation already,
            earlier turns are not sent again.
        config: the graph's config, or what makes it, such as
            `lambda context: {"configurable": {"thread_id": context.conversation_id}}`.
        options: as of `run_graph` and `stream_graph`.

    Raises `TypeError` if the graph's input has no place for a task, or an option cannot be given.
    """
    make = make_input or default_input(graph)
    _check(options)

    async def agent(context: Context) -> Any:
        given = config(context) if callable(config) else config
        input_ = make(context)
        follow_up = None if make_input else _new_of(input_)
        return await run_graph(graph, input_, context, **{"config": given, "follow_up": follow_up, **options})

    return agent


def default_input(graph: Graph) -> Callable[[Context], Any]:
    """How a task becomes the graph's input, from the schema of that input."""
    if not isinstance(graph, CompiledStateGraph):  # of `@entrypoint`, which takes one argument
        return lambda context: context.task
    fields = set(get_type_hints(graph.builder.input_schema))
    if "messages" in fields:
        # A chat's edge gives the turns before it in `params`, the task as the last.
        return lambda context: _conversation({"messages": [("user", context.task)]} | _params(context, fields))
    if "task" in fields:
        return lambda context: _params(context, fields) | {"task": context.task}
    raise TypeError(f"the graph's input has neither messages nor task, but {sorted(fields)}: pass make_input")


def _conversation(input_: dict[str, Any]) -> dict[str, Any]:
    return {**input_, "messages": with_blocks(input_["messages"])}


def _new_of(input_: Any) -> Any:
    """The input with the last of several messages; None if there is nothing that could be known."""
    messages = input_.get("messages") if isinstance(input_, dict) else None
    if not (isinstance(messages, list) and len(messages) > 1):
        return None
    return {**input_, "messages": messages[-1:]}


def _params(context: Context, fields: set[str]) -> dict[str, Any]:
    return {name: value for name, value in context.params.items() if name in fields}


async def execute_graph(graph: Graph, input_: Any, emitter: AgentEmitter, /, *, task: str, **options: Any) -> Any:
    """A graph as a whole execution, where no worker runs it: writes `execution:started` and the terminal event besides
    what `run_graph` does, and returns and raises the same."""
    await emitter.execution_started(task)
    try:
        result = await run_graph(graph, input_, emitter, **options)
    except asyncio.CancelledError:
        await emitter.execution_cancelled()
        raise
    except Exception as error:
        await emitter.execution_error(describe(error), code="agent_error", stack=traceback.format_exc())
        raise
    await emitter.execution_complete(result)
    return result
