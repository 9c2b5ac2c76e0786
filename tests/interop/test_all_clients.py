"""The official clients of every protocol, unmodified, watch one execution at once over real sockets: what they have in
the end is the same, and what the folded log is; each loses its connection on the way and goes on at another edge."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from all_agents import HALFWAY, LOST
from all_outcomes import check, check_each_once, fold_of
from all_stand import (
    A2A,
    A2A_JS_03,
    A2A_JS_10,
    A2A_PYTHON_03,
    A2A_PYTHON_10,
    AG_UI,
    AI_5,
    AI_6,
    AI_7,
    AI_7_COUNTED,
    BESIDE,
    DURABLE_STREAM,
    MCP_TASK,
    NATIVE,
    RESPONSES,
    SECONDS,
    WITHOUT_MARK,
    Doomed,
    Json,
    Stand,
    clients,
    stand,
)
from clients import HERE, needs_node
from redis.asyncio import Redis

from emitter.store.connection import connect
from emitter.wire import keys
from tests.edges import EdgeProcess, Follower, Received, call, eventually, read_log, stream_path, token_for
from tests.workers import WorkerProcess

pytestmark = [needs_node, pytest.mark.timeout(120)]  # a dozen processes, where two CPUs may have others to serve


@pytest.fixture(scope="module")
def processes() -> Iterator[Stand]:
    with stand() as started:
        yield started


@pytest.fixture
async def redis_of_stand(processes: Stand) -> AsyncIterator[Redis]:
    client = connect(processes.redis_url)
    for edge in processes.edges:
        await until_known(edge, "everything")
    yield client
    await client.aclose()


async def until_known(edge: EdgeProcess, agent: str) -> None:
    """Until the edge accepts executions of this agent: with a refusal it tells which ones it knows."""
    async with asyncio.timeout(SECONDS):
        while agent not in await agents_at(edge):
            await asyncio.sleep(0.05)


async def agents_at(edge: EdgeProcess) -> list[str]:
    body = {"task": "t", "agent": "-"}
    answer = await call(edge.port, "POST", "/api/agent/execute", token_for("nobody"), body)
    return list(answer.body["known"])


def urls(*ports: int) -> list[str]:
    return [f"http://127.0.0.1:{port}" for port in ports]


def connections(edge: EdgeProcess) -> float:
    return edge.metric("runcast_connections")


def shown(edge: EdgeProcess) -> float:
    """Events, to viewers that were live and to those that read the log."""
    return edge.metric("runcast_events_delivered_total") + edge.metric("runcast_replayed_events_total")


async def log_of(redis: Redis, user: str, execution_id: str) -> list[Received]:
    return await read_log(redis, keys.Owner(user).execution(execution_id).log)


async def until_logged(redis: Redis, user: str, execution_id: str, type_: str) -> None:
    """Until this is the newest event."""
    async with asyncio.timeout(SECONDS):
        while not (log := await log_of(redis, user, execution_id)) or log[-1].type != type_:
            await asyncio.sleep(0.02)


async def state_of(stand: Stand, token: str, execution_id: str) -> Json:
    """Without the parameters, which the log does not have."""
    answer = await call(stand.edges[1].port, "GET", f"/api/agent/executions/{execution_id}", token)
    return {**answer.body, "params": None}


async def execute(edge: EdgeProcess, token: str, agent: str, execution_id: str, params: Json | None = None) -> Json:
    """The job of following it."""
    body = {"task": "t", "agent": agent, "executionId": execution_id, "conversationId": "all", "params": params or {}}
    answer = await call(edge.port, "POST", "/api/agent/execute", token, body)
    assert answer.status == 202, answer.body
    return {"execution": execution_id, "thread": "all", "text": "t"}


# --- the stories -----------------------------------------------------------------------------------------------------


async def test_all_watch_one_execution(processes: Stand, redis_of_stand: Redis) -> None:
    """Native, A2A 0.3 and 1.0, AI SDK (by its whole message, or by cursor), AG-UI, MCP and Responses clients have the
    same text, calls, result and state in the end, over a connection that breaks in the middle of a frame, a question
    that one of them answers, and two edges; each event that they are told of, once."""
    user, execution = "watcher", "all-1"
    token, gate = token_for(user), "gate:all-1"
    here, there = processes.edges
    job = await execute(here, token, "everything", execution, {"redis": processes.redis_url, "gate": gate})
    alike = (NATIVE, A2A_PYTHON_03, A2A_JS_03, A2A_JS_10, AI_5, AI_6, AI_7, AI_7_COUNTED, DURABLE_STREAM, MCP_TASK,
             RESPONSES)  # fmt: skip
    jobs = {name: [job] for name in alike}
    jobs[A2A_PYTHON_10] = [{**job, "answer": "Yes!", "waits": True}]
    jobs[AG_UI] = [{**job, "answer": False, "waits": True}]

    async def open_gate(name: str) -> None:
        await redis_of_stand.rpush(f"{gate}:{name}", "1")

    async with (
        Doomed(here.port, HALFWAY.encode()).listening() as way,
        Follower([way.port, there.port], stream_path(execution), token) as native,
        clients(urls(way.port, there.port, here.port), token, jobs) as watching,
    ):
        viewers = [client for name, client in watching.items() if name not in BESIDE]
        everybody = len(viewers) + 1

        def all_are_at(*edges: EdgeProcess) -> bool:
            assert all(client.is_at_work() for client in watching.values())
            return sum(map(connections, edges)) == everybody

        await eventually("all are there", lambda: all_are_at(here), SECONDS)
        for name in BESIDE:
            await watching[name].until("watching")
        await open_gate("begin")
        marked = [client for name, client in watching.items() if name not in WITHOUT_MARK]
        for client in marked:
            await client.until("lost")
        await eventually("all that have the mark are cut", lambda: way.cut == len(marked) + 1, SECONDS)
        way.break_rest()
        for client in watching.values():
            await client.until("lost")
        await eventually("all are back, elsewhere", lambda: all_are_at(there), SECONDS)
        await eventually("nobody is left here", lambda: connections(here) == 0, SECONDS)
        await open_gate("lost")
        for client in watching.values():
            await client.until("asked")
        assert watching[AG_UI].at("asked")[0]["text"] == "Before it. After it."
        await watching[A2A_PYTHON_10].go()
        await until_logged(redis_of_stand, user, execution, "input:received")
        await watching[AG_UI].go()  # too late: its answer is not the first
        await eventually("all go on", lambda: all_are_at(here, there), SECONDS)
        await open_gate("answered")
        outcomes = {name: (await client.outcomes())[0] for name, client in watching.items()}
        await native.until_done()
    state = await state_of(processes, token, execution)
    log = await log_of(redis_of_stand, user, execution)
    assert native.events == log
    assert fold_of(native.events, execution) == state
    assert state["result"] == {"approved": True, "sum": 3}
    for name, outcome in outcomes.items():
        check(name, outcome, state, customs=["acme.seen"])
        check_each_once(name, outcome, log)
        assert set(outcome["prompts"]) == {"Go on?"}, name


SHOP = {
    "README.md": "# Shop\n",
    "shop.py": 'import pickle\n\ndef load(data):\n    """Load."""\n    return pickle.loads(data)\n',
    "tests/test_shop.py": "import shop\n\ndef test_a():\n    assert shop.load\n",
    ".env": "DB_PASSWORD=9f8g7h6j5k4l\n",
}


async def test_the_demo_agents_in_every_protocol(processes: Stand, redis_of_stand: Redis, tmp_path: Path) -> None:
    """The demo agents, which know nothing of any protocol, are started, watched and answered through each of them: the
    report is written because somebody said yes there, and what the client has is what the execution came to."""
    for name, text in SHOP.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    users = {name: name.replace(" ", "-") for name in (A2A_PYTHON_03, A2A_JS_10, AI_7, AG_UI)}
    async with contextlib.AsyncExitStack() as stack:
        working = {}
        for name, user in users.items():
            survey = {"pace": 0, "output": f"{user}.md"}
            yes: Any = "Yes!" if name in A2A else True
            where = "the files that hold secrets too"
            jobs = [
                {"agent": "analyst", "text": str(tmp_path), "params": survey, "answer": yes},
                {"agent": "panel", "text": str(tmp_path), "params": {"pace": 0}, "answer": where},
            ]
            started = await stack.enter_async_context(
                clients(urls(*(edge.port for edge in processes.edges)), token_for(user), {name: jobs})
            )
            working[name] = started[name]
        outcomes = {name: await client.outcomes() for name, client in working.items()}
    for name, user in users.items():
        token = token_for(user)
        listed = (await call(processes.edges[0].port, "GET", "/api/agent/executions", token)).body["executions"]
        states = {each["agent"]: await state_of(processes, token, each["executionId"]) for each in listed}
        for agent, outcome in zip(("analyst", "panel"), outcomes[name], strict=True):
            check(name, outcome, states[agent])
            assert len(outcome["prompts"]) == 1, (name, agent)
            assert outcome["status"] == "completed"
        report = tmp_path / f"{user}.md"
        assert states["analyst"]["result"]["report"] == str(report)
        assert report.read_text() == outcomes[name][0]["artifacts"]["report"]


async def test_all_forget_a_lost_attempt(processes: Stand, redis_of_stand: Redis) -> None:
    """When a worker was killed and a retry takes over, clients that do what is documented for their protocol have
    nothing in the end but what the second attempt made."""
    user, execution = "forgetful", "all-2"
    token = token_for(user)
    here, there = processes.edges

    def worker() -> contextlib.closing[WorkerProcess]:
        return contextlib.closing(WorkerProcess(processes.redis_url, "all_agents:mortals", HERE, lease_seconds=4))

    with worker() as doomed:
        await until_known(here, "mortal")
        before = shown(here)
        job = await execute(here, token, "mortal", execution)
        names = (NATIVE, A2A_PYTHON_03, A2A_JS_10, AI_7, AG_UI, RESPONSES)
        async with clients(urls(here.port, there.port), token, {name: [job] for name in names}) as watching:
            await until_logged(redis_of_stand, user, execution, LOST[-1].type)
            told = before + len(await log_of(redis_of_stand, user, execution)) * len(watching)
            await eventually("shown", lambda: shown(here) >= told, SECONDS)
            with worker():
                doomed.kill()
                outcomes = {name: (await client.outcomes())[0] for name, client in watching.items()}
    state = await state_of(processes, token, execution)
    assert (state["text"], state["attempt"]) == ("Found text", 2)
    for name, outcome in outcomes.items():
        check(name, outcome, state, customs=["acme.found"])
