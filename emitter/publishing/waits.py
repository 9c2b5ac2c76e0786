"""The waits of an emitter's calls: for room in its queue, for a person, for another execution.

An agent that waits for a person or another execution does no work of its own, so its worker may run another one
meanwhile: the wait gives the slot back and takes one again at its end (`emitter.worker.slots`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal, Protocol

WaitsFor = Literal["person", "child"]
PRESSING_SECONDS = 0.75
"""How long an agent waits for a slot whose wait was broken off: by a time limit, by a message that interrupts."""


class Slot(Protocol):
    """One of those that a worker has for running agents."""

    def give_back(self, waits_for: WaitsFor) -> None:
        """Let another execution run; a request to go on is withdrawn. Idempotent."""

    async def take(self) -> bool:
        """Wait for a slot; true if it is held now, false if the request was withdrawn. Idempotent."""

    def press(self) -> None:
        """Hold a slot more than there are."""


class Waits:
    """`ended_at`: when the last wait ended (`time.monotonic`).

    While one of its calls waits, an agent counts as waiting, even if its other tasks go on. So the slot is taken again
    at the end of the last wait: a `gather` of several children must not keep the slot that they need.
    """

    def __init__(self) -> None:
        self.ended_at = 0.0
        self._open = 0
        self._apart: Counter[WaitsFor] = Counter()
        self._slot: Slot | None = None
        self._must_stop: Callable[[], bool] = bool

    def use(self, slot: Slot, must_stop: Callable[[], bool]) -> None:
        """Give back and take this slot. An agent that must stop waits for none."""
        self._slot, self._must_stop = slot, must_stop

    @property
    def any(self) -> bool:
        """Whether a call waits."""
        return self._open > 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A wait that keeps the slot."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self.ended_at = time.monotonic()

    @contextlib.asynccontextmanager
    async def apart(self, waits_for: WaitsFor) -> AsyncIterator[Callable[[], None]]:
        """A wait that gives the slot back once the function that it yields is called."""
        began = is_pressing = False

        def begin() -> None:
            nonlocal began
            if not began:
                began = True
                self._apart[waits_for] += 1
            self._give_back()

        with self.one():
            try:
                yield begin
            except (asyncio.CancelledError, TimeoutError):
                is_pressing = True
                raise
            finally:
                if began:
                    self._apart[waits_for] -= 1
                    if self._apart.total():
                        self._give_back()
                    else:
                        await self._take(is_pressing)

    def _give_back(self) -> None:
        """An agent that waits for a person and for another execution waits for the latter: the worker must let that
        one run."""
        if self._slot is not None:
            self._slot.give_back("child" if self._apart["child"] else "person")

    async def _take(self, is_pressing: bool) -> None:
        """Take a slot again, unless another call waits. A caller that is cancelled, for example by a timeout of its
        own, goes on as well, so it needs one first; but not for long: the slot may be that of the very execution that
        it will not wait for any more."""
        cancelled: asyncio.CancelledError | None = None
        while self._slot is not None and not self._apart.total() and not self._must_stop():
            try:
                async with asyncio.timeout(PRESSING_SECONDS if is_pressing else None):
                    if await self._slot.take():
                        break
            except TimeoutError:
                self._slot.press()
            except asyncio.CancelledError as error:
                cancelled, is_pressing = error, True
        if cancelled is not None:
            raise cancelled
