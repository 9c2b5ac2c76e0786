"""A worker over HTTP as a test drives it, step by step, with nothing of ours below the protocol."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tests.edges import Answer, EdgeProcess, call, token_for, under_load

BASE = "/api/agent/executions"
OPERATOR = token_for("operator", scopes={"jobs:run"})
_numbers = itertools.count(1)


class HttpWorker:
    """`claim`, `publish`, `renew` and `release` at one edge (or port) after the other. `jobs` are what it knows of."""

    def __init__(
        self, edges: Sequence[EdgeProcess | int], agents: Collection[Any], *, name: str = "", token: str = OPERATOR
    ) -> None:
        self.name = name or f"worker-{next(_numbers)}"
        self.agents = list(agents)
        self.token = token
        self.jobs: list[dict[str, Any]] = []
        self._ports = itertools.cycle([edge if isinstance(edge, int) else edge.port for edge in edges])

    async def ask(self, step: str, **body: Any) -> Answer:
        value = {"worker": self.name, **body}
        return await call(next(self._ports), "POST", f"/api/agent/jobs/{step}", self.token, value)

    async def claim(self, wait_seconds: float = 5, **body: Any) -> list[dict[str, Any]]:
        answer = await self.ask("claim", **{"agents": self.agents, "waitSeconds": wait_seconds, **body})
        assert answer.status in (200, 204), answer
        found: list[dict[str, Any]] = answer.body["jobs"] if answer.status == 200 else []
        self.jobs += found
        return found

    async def one(self, seconds: float = 10, **body: Any) -> dict[str, Any]:
        """The next job; there must be one in time."""
        async with asyncio.timeout(under_load(seconds + 5)):
            while not (found := await self.claim(min(seconds, 5), **body)):
                pass
        (job,) = found
        return job

    async def publish(self, job: Mapping[str, Any], type_: str, headers: Mapping[str, str] = {}, **data: Any) -> Answer:
        path = f"{BASE}/{job['executionId']}/events"
        given = {"Attempt": str(job["attempt"]), "Fence": job["fence"], **headers}
        value = {"type": type_, "data": data}
        return await call(next(self._ports), "POST", path, self.token, value, headers=given)

    async def start(self, job: Mapping[str, Any]) -> Answer:
        started = {"task": job["task"], "startedAt": 1, "attempt": job["attempt"]}
        return await self.publish(job, "execution:started", **started)

    async def complete(self, job: Mapping[str, Any], result: Any = None) -> Answer:
        return await self.publish(job, "execution:complete", result=result, duration=0.1)

    async def renew(self, *jobs: Mapping[str, Any], wait_seconds: float = 0, **more: Any) -> list[dict[str, Any]]:
        named = [ref(job) | more for job in jobs]
        answer = await self.ask("renew", jobs=named, waitSeconds=wait_seconds)
        assert answer.status == 200, answer
        return list(answer.body["jobs"])

    async def release(self, job: Mapping[str, Any], **failure: Any) -> dict[str, Any]:
        named = ref(job) | ({"failure": failure} if failure else {})
        answer = await self.ask("release", jobs=[named])
        assert answer.status == 200, answer
        return dict(answer.body["jobs"][0])


def ref(job: Mapping[str, Any]) -> dict[str, Any]:
    return {name: job[name] for name in ("executionId", "attempt", "fence")}


async def announced(edges: Sequence[EdgeProcess], *agents: Any) -> HttpWorker:
    """A worker that has told its agents."""
    worker = HttpWorker(edges, agents)
    await worker.claim(0)
    return worker


async def execute(edge: EdgeProcess, agent: str, user: str = "alice", **body: Any) -> str:
    answer = await call(edge.port, "POST", "/api/agent/execute", token_for(user), {"task": "t", "agent": agent, **body})
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


async def state_of(edge: EdgeProcess, execution_id: str, user: str = "alice") -> dict[str, Any]:
    answer = await call(edge.port, "GET", f"{BASE}/{execution_id}", token_for(user))
    assert answer.status == 200, answer
    return dict(answer.body)


async def types_of(edge: EdgeProcess, execution_id: str, user: str = "alice") -> list[str]:
    answer = await call(edge.port, "GET", f"{BASE}/{execution_id}/events", token_for(user))
    return [row["event"]["type"] for row in answer.body["events"]]


async def until_ended(edge: EdgeProcess, execution_id: str, user: str = "alice", seconds: float = 25) -> dict[str, Any]:
    async with asyncio.timeout(under_load(seconds)):
        while (state := await state_of(edge, execution_id, user))["status"] not in ("completed", "failed", "cancelled"):
            await asyncio.sleep(0.05)
    return state
