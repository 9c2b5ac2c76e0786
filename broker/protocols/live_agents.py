"""The agents that can be asked for now."""

from __future__ import annotations

import time

from redis.asyncio import Redis

from emitter.store import announcements
from emitter.store.announcements import AgentInfo

FRESH_SECONDS = 1.0


class LiveAgents:
    """The agents that live workers announce, by name, as they were within the last second."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._agents: list[AgentInfo] = []
        self._asked_at = float("-inf")

    async def get(self) -> list[AgentInfo]:
        if time.monotonic() - self._asked_at > FRESH_SECONDS:
            self._agents = await announcements.live_agents(self._redis)
            self._asked_at = time.monotonic()
        return self._agents
