"""Scarce things, shared fairly: so many at once, so many for one user, and users in turn. Pure but for the waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.base.problem import Problem, retry_after
from emitter.wire.keys import Owner

WAIT_SECONDS = 10.0
WAITING_PER_USER = 256
RETRY_AFTER_SECONDS = 2


class FairSemaphore:
    """`async with turns.turn(user):` waits for a turn. `limit` have one at the same time, `per_user` of each user (0:
    no limit). Users who wait are served one after the other, however many requests each has.

    `what` names them in refusals, in the plural: `Problem` 429 where the user's own hold the turns or too many wait,
    503 where those of others do.
    """

    def __init__(self, what: str, limit: int, per_user: int, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._what = what
        self._limit = limit
        self._per_user = per_user
        self._wait_seconds = wait_seconds
        self._taken = 0
        self._taken_by: dict[Owner, int] = {}
        self._waiting: dict[Owner, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, user: Owner, *, is_patient: bool = False) -> AsyncIterator[None]:
        await self.take(user, is_patient=is_patient)
        try:
            yield
        finally:
            self.give_back(user)

    async def take(self, user: Owner, *, is_patient: bool = False) -> None:
        """Wait for a turn, to be given back. Raises `Problem` 429 and 503, with Retry-After; never if `is_patient`."""
        if user not in self._waiting and self._has_room(user):
            self._grant(user)
            return
        waiting = self._waiting.setdefault(user, deque())
        if len(waiting) >= WAITING_PER_USER and not is_patient:
            raise self._refusal(user)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            async with asyncio.timeout(None if is_patient else self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(user)  # it came in the very moment in which it was given up
            else:
                self._forget(user, turn)
            if isinstance(error, TimeoutError):
                raise self._refusal(user) from None
            raise

    def give_back(self, user: Owner) -> None:
        self._taken -= 1
        left = self._taken_by[user] - 1
        if left:
            self._taken_by[user] = left
        else:
            del self._taken_by[user]
        self._pass_on()

    def _has_room(self, user: Owner) -> bool:
        is_full = bool(self._limit) and self._taken >= self._limit
        return not is_full and not self._has_all(user)

    def _has_all(self, user: Owner) -> bool:
        return bool(self._per_user) and self._taken_by.get(user, 0) >= self._per_user

    def _grant(self, user: Owner) -> None:
        self._taken += 1
        self._taken_by[user] = self._taken_by.get(user, 0) + 1

    def _pass_on(self) -> None:
        while (user := next((each for each in self._waiting if self._has_room(each)), None)) is not None:
            waiting = self._waiting.pop(user)
            turn = waiting.popleft()
            if waiting:
                self._waiting[user] = waiting  # behind all other users
            if not turn.done():
                self._grant(user)
                turn.set_result(None)

    def _forget(self, user: Owner, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(user)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[user]

    def _refusal(self, user: Owner) -> Problem:
        headers = retry_after(RETRY_AFTER_SECONDS)
        if self._has_all(user):
            detail = f"{self._per_user} {self._what} of this user are being worked on, and others wait"
            return Problem(429, "too-many-requests", detail, headers=headers, limit=self._per_user)
        return Problem(503, "busy", f"this edge has too many {self._what} to work on", headers=headers)


class Slices:
    """Work in slices of about `seconds`: `await slices.pause()` between steps gives the loop back when it is time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = time.perf_counter() + seconds

    async def pause(self) -> None:
        if time.perf_counter() >= self._ends_at:
            await asyncio.sleep(0)
            self._ends_at = time.perf_counter() + self._seconds
