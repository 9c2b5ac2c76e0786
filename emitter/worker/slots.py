"""The slots of a worker: how many agents run at once, and which of them is next.

An execution that waits for a person or for another execution has no slot. When it goes on, it takes the next one that
is free, in the order in which their waits ended, and before any new job: what has begun ends first. So at most
`concurrency` agents run, beside those that wait. One whose wait was broken off does not stay in the line for long: it
may have to end the very execution that has the slot.

Waiting executions take memory and connections. At `max_waiting` of them no new job is taken, until one goes on. If some
of them wait for other executions and no agent runs, jobs are taken one at a time all the same: the job that they wait
for may be among them, and no other worker may live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from emitter.publishing.waits import WaitsFor


class Slots:
    """`freed` is called when a job may be taken that could not be taken before."""

    def __init__(self, concurrency: int, max_waiting: int, freed: Callable[[], None]) -> None:
        self._concurrency = concurrency
        self._max_waiting = max_waiting
        self._freed = freed
        self._held = 0
        self._apart: dict[Slot, WaitsFor] = {}
        self._line: deque[Slot] = deque()

    @property
    def running(self) -> int:
        """Executions that have a slot."""
        return self._held

    @property
    def waiting(self) -> int:
        """Executions without a slot: those that wait, and those whose wait has ended and that are next."""
        return len(self._apart) + len(self._line)

    @property
    def free(self) -> int:
        """How many jobs may be taken now."""
        if self.waiting < self._max_waiting:
            return max(0, self._concurrency - self._held - len(self._line))
        return int(not self._held and not self._line and "child" in self._apart.values())

    def take_new(self) -> Slot | None:
        """A slot for a new job, if one is free."""
        if not self.free:
            return None
        self._held += 1
        return Slot(self)

    # --- of one slot ---

    def give_back(self, slot: Slot, waits_for: WaitsFor) -> None:
        if slot.has_ended:
            return
        if slot.is_held:
            slot.is_held = False
            self._held -= 1
        else:
            self._withdraw(slot)
        self._apart[slot] = waits_for
        self._pass_on()

    def line_up(self, slot: Slot) -> None:
        self._apart.pop(slot, None)
        self._line.append(slot)
        self._pass_on()

    def press(self, slot: Slot) -> None:
        """Let an execution run beyond the limit, which is again kept as soon as one of them ends or waits."""
        if slot.is_held or slot.has_ended:
            return
        slot.is_held = True
        self._held += 1
        self._apart.pop(slot, None)
        if slot in self._line:
            self._line.remove(slot)
        slot.answer(True)

    def end(self, slot: Slot) -> None:
        """The execution has ended."""
        slot.has_ended = True
        if slot.is_held:
            slot.is_held = False
            self._held -= 1
        self._apart.pop(slot, None)
        self._withdraw(slot)
        self._pass_on()

    def _withdraw(self, slot: Slot) -> None:
        if slot in self._line:
            self._line.remove(slot)
        slot.answer(slot.has_ended)

    def _pass_on(self) -> None:
        while self._line and self._held < self._concurrency:
            self._held += 1
            slot = self._line.popleft()
            slot.is_held = True
            slot.answer(True)
        if self.free:
            self._freed()


class Slot:
    """The slot of one execution, which holds it from the beginning. `end` is called after it; what an agent leaves
    running then needs no slot."""

    def __init__(self, slots: Slots) -> None:
        self.is_held = True
        self.has_ended = False
        self._slots = slots
        self._asked: asyncio.Future[bool] | None = None

    def give_back(self, waits_for: WaitsFor) -> None:
        self._slots.give_back(self, waits_for)

    async def take(self) -> bool:
        if self.is_held or self.has_ended:
            return True
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
            self._slots.line_up(self)
        return await asyncio.shield(self._asked)

    def press(self) -> None:
        self._slots.press(self)

    def answer(self, is_held: bool) -> None:
        """What those who asked for the slot are told."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(is_held)

    def end(self) -> None:
        self._slots.end(self)
