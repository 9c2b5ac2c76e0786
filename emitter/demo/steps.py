"""How the demo agents work: step by step, at a pace that a person can follow, with the heavy parts in threads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from emitter.publishing.agent_emitter import AgentEmitter

MAX_PACE = 10.0
MODEL = "none: static analysis"
CHARACTERS_PER_TOKEN = 4
STREAM_SECONDS = 9.0

T = TypeVar("T")
S = TypeVar("S")


class Steps:
    """What an agent does on its way, told as it does it. `pace` stretches every pause; 0: none."""

    def __init__(self, emitter: AgentEmitter, pace: float) -> None:
        self._emitter = emitter
        self._pace = pace
        self._written = 0

    async def step(self, progress: float, action: str, *, specialist: str | None = None) -> None:
        await self._emitter.progress(round(progress, 1), current_action=action, specialist=specialist)

    async def tool(self, name: str, params: Any, work: Callable[[], T], show: Callable[[T], Any]) -> T:
        """A tool call whose work runs in a thread; `show` makes its (small) result for the reader."""
        async with self._emitter.tool(name, params) as call:
            value = await asyncio.to_thread(work)
            call.result = show(value)
        return value

    async def in_parts(
        self, call: Any, items: Sequence[S], work: Callable[[Sequence[S]], Sequence[T]], size: int
    ) -> list[T]:
        """Work in a thread on so many items at a time: between the parts, the agent can be cancelled."""
        results: list[T] = []
        for start in range(0, len(items), size):
            results += await asyncio.to_thread(work, items[start : start + size])
            if len(items) > size:
                await call.progress(round(100 * min(1.0, (start + size) / len(items)), 1))
        return results

    async def think(self, thought: str | None) -> None:
        if thought:
            self._written += len(thought)
            await self._emitter.thinking(thought)
            await self.pause(min(2.0, 0.6 + len(thought) / 150))

    async def stream(self, text: str, begin: float, end: float) -> None:
        """Text in small pieces, as a model would write it, in about the same time however long it is. Progress goes
        from `begin` to `end` meanwhile."""
        pieces = re.findall(r"(?:\S+\s*){1,3}", text)
        for number, piece in enumerate(pieces):
            self._written += len(piece)
            await self._emitter.text(piece)
            if number % 40 == 0:
                await self._emitter.progress(round(begin + (end - begin) * number / len(pieces), 1))
            await self.pause(min(0.05, STREAM_SECONDS / len(pieces)))
        await self._emitter.end_text()

    async def usage(self, characters_read: int) -> None:
        """No model reads this, so nothing is billed: characters over four, which is what a model would have counted."""
        await self._emitter.usage(
            input_tokens=characters_read // CHARACTERS_PER_TOKEN,
            output_tokens=self._written // CHARACTERS_PER_TOKEN,
            cost_usd=0.0,
            model=MODEL,
        )

    async def pause(self, seconds: float) -> None:
        if self._pace:
            await asyncio.sleep(seconds * self._pace)
