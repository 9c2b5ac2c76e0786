"""Running a graph: its stream into the log, its interrupts to people, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel import Pregel
from langgraph.types import Command, StateSnapshot

from emitter import tasks
from emitter.errors import RuncastError, describe
from emitter.events import Event
from emitter.integrations.langgraph.inputs import InputAsker, OnInterrupt
from emitter.integrations.langgraph.messages import RunningUsage
from emitter.integrations.langgraph.payloads import to_event
from emitter.integrations.langgraph.publish import Emitter, publish
from emitter.integrations.langgraph.steering import OnMessages, has_breakpoints, may_enter
from emitter.integrations.langgraph.translation import MODES, Translation
from emitter.integrations.langgraph.values import storable
from emitter.integrations.langgraph.watch import Watch
from emitter.worker.agents import Context

Graph = Pregel[Any, Any, Any, Any]

REASON_CHARS = 500
CLOSE_SECONDS = 1.0
EXECUTION, ATTEMPT, INPUT = "runcast_execution", "runcast_attempt", "runcast_input"
"""Metadata of our checkpoints: by them a retry knows that a thread holds its own work, and not a conversation's."""


class NoCheckpointer(RuncastError):
    """The graph asks a person (`prompt`) or takes messages, but cannot go on with what is said: it was compiled without
    a checkpointer."""

    def __init__(self, prompt: str) -> None:
        super().__init__(f"the graph waits for an answer, but has no checkpointer to go on with: {prompt}")
        self.prompt = prompt


class StepRefused(RuncastError):
    """A person refused to let the graph continue at a breakpoint."""

    def __init__(self, nodes: tuple[str, ...]) -> None:
        super().__init__(f"a person refused to let the graph go on with {', '.join(nodes)}")
        self.nodes = nodes


class GraphRun:
    """`await GraphRun(…).output(input)` is what the graph's `ainvoke` returns, with all interrupts answered."""

    def __init__(
        self,
        graph: Graph,
        target: Context | Emitter,
        config: RunnableConfig | None,
        usage: RunningUsage,
        on_interrupt: OnInterrupt,
        follow_up: Any,
        on_messages: OnMessages | None,
        options: Mapping[str, Any],
    ) -> None:
        self._graph = graph
        self._follow_up = follow_up
        self._emitter: Emitter = target.emitter if isinstance(target, Context) else target
        self._options = options
        self._on_messages = on_messages if self._emitter.accepts_messages else None
        self._is_steerable = self._on_messages is not None and not has_breakpoints(graph, options)
        self._saver = graph.checkpointer if isinstance(graph.checkpointer, BaseCheckpointSaver) else None
        ordinal = self._emitter.new_id("call").rpartition("_")[2]  # the same in a retry that runs the same graphs
        self._input_asker = InputAsker(target, on_interrupt, ordinal)
        if self._on_messages is not None and self._saver is None:
            raise NoCheckpointer("what people say to it")
        loop, self._aside = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
        watch = Watch(lambda payload: loop.call_soon_threadsafe(self._aside.put_nowait, payload))
        self._translation = Translation(watch, usage)
        self._config = self._merged(config or {}, watch)

    async def output(self, input_: Any) -> Any:
        aside = asyncio.create_task(self._publish_aside())
        try:
            await self._rounds(await self._first_input(input_))
            self._aside.put_nowait(None)
            await aside
            await self._publish(self._translation.finish())
        except BaseException as error:
            await self._abandon(describe(error, REASON_CHARS))
            raise
        finally:
            await tasks.end([aside])
        return self._translation.output

    async def _publish_aside(self) -> None:
        """Publish custom events of threads without access to the graph's stream. If the log refuses them, it refuses
        the graph's events too."""
        while (payload := await self._aside.get()) is not None:
            with contextlib.suppress(RuncastError):
                await publish(self._emitter, to_event(payload))

    async def _rounds(self, input_: Any) -> None:
        while True:
            update = await self._round(input_)
            if update is not None:
                input_ = Command(update=update)
            elif self._translation.asked:
                input_ = Command(resume=await self._answers())
            elif self._translation.is_at_breakpoint:
                await self._pass_breakpoint()
                input_ = None
            elif (input_ := await self._said()) is None:
                return

    async def _said(self) -> Any:
        """The update that the messages which wait make; None: there are none."""
        if self._on_messages is None or not (messages := await self._emitter.waiting_messages()):
            return None
        return self._on_messages(messages)

    async def _round(self, input_: Any) -> Any:
        """Stream the graph until it ends or waits, or somebody said something, which is to enter its state: then what
        to update."""
        self._translation.begin_round()
        modes: Any = list(MODES)  # of `tools` its type knows nothing
        stream: Any = self._graph.astream(input_, self._config, stream_mode=modes, subgraphs=True, **self._options)
        async with contextlib.aclosing(stream) as items:  # closing ends the graph's tasks
            async for namespace, mode, data in items:
                await self._publish(self._translation.take(namespace, mode, data))
                # The next step has not begun: nothing is lost if the stream is closed here.
                is_boundary = self._is_steerable and may_enter(namespace, mode, data)
                if is_boundary and (update := await self._said()) is not None:
                    return update
        return None

    async def _publish(self, events: Iterable[Event]) -> None:
        for event in events:
            await publish(self._emitter, event, **self._translation.speaker(event))

    async def _abandon(self, reason: str) -> None:
        """Close open phases, messages and calls, within `CLOSE_SECONDS`."""
        with contextlib.suppress(RuncastError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._publish(self._translation.abandon(reason))

    # --- people ---

    async def _answers(self) -> dict[str, Any]:
        asked = self._translation.asked
        if self._saver is None:
            raise NoCheckpointer(str(asked[0].interrupt.value)[:REASON_CHARS])
        return await self._input_asker.answers(asked)

    async def _pass_breakpoint(self) -> None:
        if self._saver is None:
            raise NoCheckpointer("a breakpoint")
        state = await self._graph.aget_state(self._config)
        if not await self._input_asker.may_continue(state):
            raise StepRefused(state.next)

    # --- checkpoints ---

    def _merged(self, given: RunnableConfig, watch: Watch) -> RunnableConfig:
        """The caller's config with what the run needs."""
        merged = cast(RunnableConfig, {**given, "callbacks": _with_handler(given.get("callbacks"), watch)})
        if self._saver is not None:
            bound = (self._graph.config or {}).get("configurable", {})
            merged["configurable"] = {"thread_id": self._thread_id, **bound, **given.get("configurable", {})}
        return merged

    @property
    def _thread_id(self) -> str:
        """Ids of executions are unique for their owner only, who may choose them."""
        owner = self._emitter.owner
        return f"{owner.org}:{owner.user}:{self._emitter.execution_id}"

    async def _first_input(self, input_: Any) -> Any:
        """The input, or the follow-up, if the thread holds a conversation; or nothing, if it holds what an earlier
        attempt did with the same input: then the graph goes on from there."""
        if self._saver is None:
            return input_
        mark = {EXECUTION: self._thread_id, INPUT: _digest(input_)}
        look = self._emitter.attempt > 1 or self._follow_up is not None
        state = await self._graph.aget_state(self._config) if look else None
        found: dict[str, Any] = {} if state is None or self._emitter.attempt < 2 else dict(state.metadata or {})
        attempt = found.get(ATTEMPT, 0)
        self._config["metadata"] = {**self._config.get("metadata", {}), **mark, ATTEMPT: self._emitter.attempt}
        is_ours = mark.items() <= found.items() and 0 < attempt < self._emitter.attempt
        self._input_asker.is_resumable = is_ours or not isinstance(self._saver, InMemorySaver)
        if is_ours:
            await self._emitter.status("resumed", f"The graph goes on where attempt {attempt} left it")
            return None
        return self._follow_up if self._follow_up is not None and _is_conversation(state) else input_


def _is_conversation(state: StateSnapshot | None) -> bool:
    return state is not None and isinstance(state.values, Mapping) and bool(state.values.get("messages"))


def _with_handler(callbacks: Any, watch: Watch) -> Any:
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        manager.add_handler(watch, inherit=True)
        return manager
    return [*(callbacks or ()), watch]


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(storable(value), order="sorted")).hexdigest()[:20]
