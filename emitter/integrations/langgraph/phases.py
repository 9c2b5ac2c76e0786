"""A graph's tasks as phases, and the interrupts of its nodes. Pure.

LangGraph names a task by a hash of its checkpoint, so a graph that starts over has other ids for the same work. A task
is the same in every attempt by its place: the steps and nodes that lead to it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langgraph.types import Interrupt

from emitter.errors import describe
from emitter.events import Event, PhaseComplete, PhaseStart, Status
from emitter.integrations.langgraph.messages import task_of
from emitter.wire.storable import text

NAME_CHARS = 200
ERROR_CHARS = 1000


class Steps:
    """Where a graph is: the step that runs now, and its tasks."""

    def __init__(self) -> None:
        self.step = -1
        self.tasks: list[str] = []
        self.namesakes: Counter[str] = Counter()


class Phase:
    """A task that runs, or the graph as a whole. `place` is the same in every attempt. A task may run several graphs at
    the same time, each of which has its own steps."""

    def __init__(self, name: str = "", place: str = "", started: float = 0.0) -> None:
        self.name = name
        self.place = place
        self.started = started
        self._graphs: dict[str, Steps] = {}

    @property
    def children(self) -> list[str]:
        """The tasks that run in it now."""
        return [task for steps in self._graphs.values() for task in steps.tasks]

    def enter(self, step: int, namespace: Sequence[str] = ()) -> list[str]:
        """A task of this step begins. If the step is new, the tasks of the previous step have ended and are
        returned."""
        steps = self._graphs.setdefault(_run(namespace), Steps())
        if step == steps.step:
            return []
        steps.step = step
        steps.namesakes.clear()
        ended, steps.tasks = steps.tasks, []
        return ended

    def child(self, task_id: str, node: str, namespace: Sequence[str], now: float) -> Phase:
        run = _run(namespace)
        steps = self._graphs[run]
        steps.tasks.append(task_id)
        rank = steps.namesakes[node]
        steps.namesakes[node] += 1
        name = f"{self.name} / {node}" if self.name else node
        return Phase(name[:NAME_CHARS], f"{self.place}/{run}{steps.step}.{node}.{rank}", now)


def _run(namespace: Sequence[str]) -> str:
    """Which of a task's graphs: the second and later ones have a number."""
    return "".join(f"{segment}/" for segment in namespace[-1:] if ":" not in segment)


class Asked:
    """An interrupt that waits for its answer, and the place of the node that raised it."""

    def __init__(self, interrupt: Interrupt, place: str) -> None:
        self.interrupt = interrupt
        self.place = place


class Phases:
    """Translates tasks of the `debug` stream into phases. `asked` are the interrupts since `begin_round`, by id."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._root = Phase()
        self._open: dict[str, Phase] = {}
        self._ended: set[str] = set()
        self._error: BaseException | None = None
        self.asked: dict[str, Asked] = {}

    def begin_round(self) -> None:
        """The graph starts, or goes on after answers."""
        self.asked = {}

    def start(self, namespace: Sequence[str], step: int, task: Mapping[str, Any]) -> list[Event]:
        """A task starts. One that was interrupted, or ended beside it, is announced again when the graph goes on."""
        task_id = task["id"]
        if task_id in self._open or task_id in self._ended:
            return []
        parent = self._open.get(task_of("|".join(namespace)), self._root)
        events = self._complete(parent.enter(step, namespace))
        phase = parent.child(task_id, text(task["name"]), namespace, self._now())
        self._open[task_id] = phase
        return [*events, PhaseStart(phase_id=task_id, phase_name=phase.name, phase_index=step)]

    def end(self, task: Mapping[str, Any]) -> list[Event]:
        """A task has ended, one way or another."""
        phase = self._open.get(task["id"])
        if phase is None:
            return []
        if task["interrupts"]:
            for raised in task["interrupts"]:  # the graphs around a subgraph repeat its interrupts
                self.asked.setdefault(raised["id"], Asked(Interrupt(**raised), phase.place))
            return []
        if task["error"] is None:
            return self._complete([task["id"]])
        self._close(task["id"])
        return self._failed(phase, task["error"])

    def finish(self) -> list[Event]:
        """The graph has ended well."""
        return self._complete(list(self._open))

    def _complete(self, task_ids: Sequence[str]) -> list[Event]:
        """Complete the open phases of tasks, children first. The end of a child whose result came from a cache is not
        in the stream."""
        events: list[Event] = []
        for task_id in task_ids:
            if (phase := self._open.get(task_id)) is not None:
                events += self._complete(phase.children)
                duration = round(self._now() - phase.started, 3)
                events.append(PhaseComplete(phase_id=task_id, phase_name=phase.name, duration=duration))
                self._close(task_id)
        return events

    def _close(self, task_id: str) -> None:
        del self._open[task_id]
        self._ended.add(task_id)
        if not self._open:  # only what ended beside an interrupted task is announced again
            self._ended.clear()

    def _failed(self, phase: Phase, error: BaseException) -> list[Event]:
        if error is self._error:  # the same one on its way out of a subgraph
            return []
        self._error = error
        return [Status(status="error", message=f"{phase.name}: {describe(error, ERROR_CHARS)}")]
