"""What a subscription told, for the tests of both kinds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable


class Heard:
    """What a subscription told."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.lost: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def on_message(self, channel: str, data: bytes) -> None:
        self.messages.append((channel, data))
        self._changed.set()

    def on_lost(self, channel: str) -> None:
        self.lost[channel] += 1
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()
