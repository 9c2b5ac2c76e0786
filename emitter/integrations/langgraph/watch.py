"""Facts from LangChain's callbacks that LangGraph's stream does not have: how calls ended, and which call contains a
task.

A graph's namespace names the tasks that lead to it, `node:<id>|node:<id>`; a task's adds its own. The second and later
graphs that one task runs add a bare number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM

from emitter.errors import describe
from emitter.wire.storable import text

ERROR_CHARS = 4000
NAME_CHARS = 100
GRAPHS_REMEMBERED = 4096
UNNAMED = "LangGraph"
"""What a graph is called that was given no name."""

CallKey = tuple[str, str]
"""The namespace of the graph in which a tool is called, and the id that the `tools` stream gives the call."""


class Outcome(NamedTuple):
    seconds: float
    error: str | None


class Work(NamedTuple):
    """The agent that does some work, and the call in which it works (none, if the agent is a node)."""

    call: CallKey | None
    agent: str
    task: str = ""
    around: str | None = None
    """The agent that calls."""


class Run(NamedTuple):
    """A run inside of a call. `agent` is what it is called, if it is a graph."""

    work: Work
    agent: str


class Watch(BaseCallbackHandler):
    """A plain handler that runs inline: it is called on whichever thread the work is done on, and only touches dicts.
    `custom` gets custom events that come from where there is no writer."""

    run_inline = True

    def __init__(self, custom: Callable[[dict[str, Any]], object] | None = None) -> None:
        self._custom = custom
        self._running: dict[UUID, tuple[CallKey, float]] = {}
        self._outcomes: dict[CallKey, Outcome] = {}
        self._callers: dict[CallKey, Work] = {}
        self._runs: dict[UUID, Run] = {}
        self._begun: dict[CallKey, Work] = {}
        self._graphs: dict[str, Work] = {}
        self._models: dict[str, Work] = {}
        self.saw_unnamed = False
        """Whether a tool was called without the id that the model gave to the call."""

    # --- what is asked of it ---

    def outcome(self, call: CallKey) -> Outcome | None:
        """The outcome of a call; returned once."""
        return self._outcomes.pop(call, None)

    def in_task(self, namespace: str) -> Work | None:
        """The agent and call of a task."""
        return self._models.get(namespace) or self.in_graph(graph_of(namespace))

    def in_graph(self, namespace: str) -> Work | None:
        """The agent and call of a graph. Before its first node starts, the only running call decides."""
        if not namespace or (known := self._graphs.get(namespace)) is not None:
            return known if namespace else None
        head, _, last = namespace.rpartition("|")
        task = namespace if ":" in last else head
        works = [work for work in list(self._begun.values()) if work.task == task]
        return works[0] if len(works) == 1 else self.in_graph(graph_of(task))

    def caller(self, call: CallKey) -> Work | None:
        """The agent and call that contain a call."""
        return self._callers.get(call) or self.in_graph(call[0])

    def forget(self, call: CallKey) -> None:
        """Nothing follows of a call."""
        self._callers.pop(call, None)
        self._begun.pop(call, None)
        for found in (self._graphs, self._models):
            for namespace in [name for name, work in list(found.items()) if work.call == call]:
                found.pop(namespace, None)

    # --- callbacks ---

    def on_tool_start(
        self,
        serialized: Mapping[str, Any] | None,
        *_: Any,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        around = self._runs.get(parent_run_id) if parent_run_id else None
        if TAG_NOSTREAM in (tags or ()):  # the stream does not have it
            self._runs |= {run_id: around} if around else {}
            return
        task = namespace_of(metadata)
        given = more.get("tool_call_id")
        call = (graph_of(task), given or str(run_id))
        self._running[run_id] = (call, time.monotonic())
        self.saw_unnamed = self.saw_unnamed or not given
        if around is not None and around.work.task == task:  # by another tool, in the same task
            self._callers[call] = around.work
        name = _short((serialized or {}).get("name") or more.get("name") or "tool")
        self._runs[run_id] = Run(Work(call, name, task, _agent(metadata)), name)

    def on_tool_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        self._ended(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **__: Any) -> None:
        self._ended(run_id, describe(error, ERROR_CHARS))

    def _ended(self, run_id: UUID, error: str | None) -> None:
        self._runs.pop(run_id, None)
        if (running := self._running.pop(run_id, None)) is not None:
            call, started = running
            self._outcomes[call] = Outcome(time.monotonic() - started, error)

    def on_chain_start(
        self,
        *_: Any,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """A graph or a node of one starts. The namespace of a graph follows from that of its node."""
        graph, agent = graph_of(namespace_of(metadata)), _agent(metadata)
        around = self._runs.get(parent_run_id) if parent_run_id else None
        if around is not None:
            work, name = around.work, _short(more.get("name") or UNNAMED)
            named = agent if agent != work.around else None
            self._runs[run_id] = Run(work, named or (name if name != UNNAMED else work.agent))
            if parent_run_id in self._running and work.call:
                self._begun[work.call] = work._replace(agent=self._runs[run_id].agent)
            if work.call and graph != work.call[0]:
                outer = self._graphs.get(graph_of(graph))
                inherited = outer.agent if outer and outer.call == work.call else None
                self._remember(graph, work._replace(agent=named or inherited or around.agent))
        elif graph and agent:
            self._remember(graph, Work(None, agent))

    def _remember(self, graph: str, work: Work) -> None:
        self._graphs.setdefault(graph, work)
        if len(self._graphs) > GRAPHS_REMEMBERED:
            self._graphs.pop(next(iter(self._graphs)), None)

    def on_chain_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        self._runs.pop(run_id, None)

    def on_chain_error(self, *_: Any, run_id: UUID, **__: Any) -> None:
        self._runs.pop(run_id, None)

    def on_chat_model_start(
        self,
        *_: Any,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **__: Any,
    ) -> None:
        """A tool that calls a model itself shares its task with other calls: the last model to start there counts."""
        task = namespace_of(metadata)
        around = self._runs.get(parent_run_id) if parent_run_id else None
        if around is not None and around.work.task == task:
            self._models[task] = around.work
        else:
            self._models.pop(task, None)

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        """`dispatch_custom_event(name, data)` says the same as writing `{"type": name, **data}`. There is no writer on
        a thread to which no context was copied, and that was given a `config` instead."""
        payload = {**(data if isinstance(data, Mapping) else {"data": {"value": data}}), "type": name}
        try:
            get_stream_writer()(payload)
        except (RuntimeError, KeyError):
            if self._custom is None:
                raise
            self._custom(payload)


def namespace_of(metadata: Mapping[str, Any] | None) -> str:
    return str((metadata or {}).get("langgraph_checkpoint_ns", ""))


def graph_of(task: str) -> str:
    """The namespace of the graph that a task belongs to."""
    return task.rpartition("|")[0]


def _agent(metadata: Mapping[str, Any] | None) -> str | None:
    """The name of LangChain's agent in which something happens."""
    name = (metadata or {}).get("lc_agent_name")
    return _short(name) if name else None


def _short(name: object) -> str:
    return text(name)[:NAME_CHARS]
