"""Long work on the loop, done in turns: between two rounds of work the loop looks at its sockets and timers.

All work waits in one place. One slice for each task is not enough: the loop runs all ready tasks before it looks at its
sockets. Users take turns, so that nobody waits for all the work of one user.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any, TypeVar

SLICE_SECONDS = 0.005
"""How long a round of work takes. It ends with the step in which this is passed."""

T = TypeVar("T")


_Step = tuple[Callable[[], Any], asyncio.Future[Any]]


class Turns:
    """The turns of one edge: one step of each user, then the next of the first. A user's steps keep their order."""

    def __init__(self, slice_seconds: float = SLICE_SECONDS) -> None:
        self._slice = slice_seconds
        self._until = 0.0
        self._waiting: OrderedDict[Hashable, deque[_Step]] = OrderedDict()

    @property
    def is_over(self) -> bool:
        """Whether the round is over. A step that can go on later ends when it is."""
        return perf_counter() >= self._until

    async def take(self, user: Hashable, step: Callable[[], T]) -> T:
        """Call `step` when its turn has come; what it returns or raises."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._round)
        self._waiting.setdefault(user, deque()).append((step, done))
        return await done

    def _round(self) -> None:
        self._until = perf_counter() + self._slice
        while self._waiting:
            user, steps = self._waiting.popitem(last=False)
            _do(*steps.popleft())
            if steps:
                self._waiting[user] = steps  # behind all others
            if self._waiting and self.is_over:
                asyncio.get_running_loop().call_soon(self._round)
                return


def _do(step: Callable[[], Any], done: asyncio.Future[Any]) -> None:
    if done.done():  # who waited for it has been cancelled
        return
    try:
        done.set_result(step())
    except Exception as error:  # it is for the one who waits
        done.set_exception(error)
    finally:
        del step, done  # a traceback holds this frame, and the frame would hold the error: a cycle with a viewer in it
