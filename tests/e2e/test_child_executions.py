"""Trees of executions over HTTP, with edges and workers that are processes, some of which are killed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.clusters import cluster
from tests.edges import ALL_SCOPES, ROOT, EdgeProcess, call, edges, token_for, under_load, until_announced
from tests.workers import WorkerProcess

FOLDER = Path(__file__).parent
EXAMPLES = ROOT / "deploy" / "examples"
EXECUTIONS = "/api/agent/executions"
BOUND = 20.0
STARTED_BY = {"parent": ("child",), "sync_parent": ("child",)}
"""Which agents an agent starts: another worker may have them, which is announced later."""
_users = (f"family-{number}" for number in itertools.count(1))

Starts = Callable[..., WorkerProcess]


@pytest.fixture
def worker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """Starts workers of some of the agents. Those that are killed have short leases; others must not lose theirs on a
    busy machine."""
    started: list[WorkerProcess] = []

    def start(*names: str, **options: Any) -> WorkerProcess:
        monkeypatch.setenv("CHILD_AGENTS", ",".join(names))
        options = {"lease_seconds": 10, "grace_seconds": 0, **options}
        started.append(WorkerProcess(redis_url, "child_agents:agents", FOLDER, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


class Person:
    """A user whom no other test has, at one edge after the other."""

    def __init__(self, edges: list[EdgeProcess]) -> None:
        self.token = token_for(next(_users), scopes=ALL_SCOPES)
        self._edges = edges
        self._ports = itertools.cycle(edge.port for edge in edges)

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        answer = await call(next(self._ports), method, path, self.token, body, headers=headers)
        assert answer.status == status, answer
        return answer.body

    async def execute(self, agent: str, *, status: int = 202, key: str | None = None, **request: Any) -> Any:
        """Start an execution, as soon as workers have the agent and those that it starts."""
        body = {"agent": agent, "task": "Do it", **request}
        headers = {} if key is None else {"Idempotency-Key": key}
        for needed in (agent, *STARTED_BY.get(agent, ())):
            await until_announced(self._edges[0], needed, BOUND)
        answer = await call(next(self._ports), "POST", "/api/agent/execute", self.token, body, headers=headers)
        assert answer.status == status, answer
        return answer.body if status != 202 else answer.body["executionId"]

    async def state(self, execution_id: str, query: str = "") -> Any:
        return await self.ask("GET", f"{EXECUTIONS}/{execution_id}{query}")

    async def until(self, execution_id: str, is_so: Callable[[Any], bool], query: str = "") -> Any:
        """The state, or the tree, once something is so."""
        async with asyncio.timeout(under_load(BOUND)):
            while not is_so(state := await self.state(execution_id, query)):
                await asyncio.sleep(0.05)
        return state

    async def end(self, execution_id: str) -> Any:
        return await self.until(execution_id, lambda state: state["endedAt"] is not None)

    async def events(self, execution_id: str) -> list[tuple[str, Any]]:
        page = await self.ask("GET", f"{EXECUTIONS}/{execution_id}/events?limit=200")
        return [(each["event"]["type"], each["event"]["data"]) for each in page["events"]]


@pytest.fixture
def person(two_edges: list[EdgeProcess], redis: Redis) -> Person:
    return Person(two_edges)


def nodes(tree: Any) -> list[Any]:
    return [tree, *(node for child in tree["children"] for node in nodes(child))]


async def test_a_tree_is_shown_and_listed(person: Person, worker: Starts) -> None:
    """The state of the parent has its children and their usage; `tree` has them with theirs; `parent` lists them."""
    worker("parent", "child", concurrency=1)
    root = await person.execute("parent")
    state = await person.end(root)
    assert state["result"] == {"results": ["one in attempt 1", "two in attempt 1"], "attempt": 1}
    seen = [(child["agent"], child["key"], child["status"], child["summary"]) for child in state["children"]]
    assert seen == [
        ("child", "one", "completed", "one in attempt 1"),
        ("child", "two", "completed", "two in attempt 1"),
    ]
    assert state["usage"] == {"inputTokens": 6, "outputTokens": 8, "totalTokens": 14}
    tree = await person.state(root, "?tree=true")
    assert (tree["state"], tree["parent"], tree["usage"]) == ("completed", None, state["usage"])
    assert [(node["key"], node["state"], node["parent"], node["root"]) for node in tree["children"]] == [
        ("one", "completed", root, root),
        ("two", "completed", root, root),
    ]
    listed = (await person.ask("GET", f"{EXECUTIONS}?parent={root}"))["executions"]
    assert [each["executionId"] for each in listed[::-1]] == [child["executionId"] for child in state["children"]]
    first = await person.ask("GET", f"{EXECUTIONS}?parent={root}&limit=1")
    second = await person.ask("GET", f"{EXECUTIONS}?parent={root}&limit=1&cursor={first['nextCursor']}")
    assert [*first["executions"], *second["executions"]] == listed
    assert {(each["parent"], each["root"]) for each in listed} == {(root, root)}
    await person.ask("GET", f"{EXECUTIONS}?parent=ex_nowhere", status=404)
    await person.ask("GET", f"{EXECUTIONS}/{root}?tree=maybe", status=400)
    stranger = Person.__new__(Person)
    stranger.token, stranger._ports = token_for("stranger", scopes=ALL_SCOPES), person._ports
    await stranger.ask("GET", f"{EXECUTIONS}/{root}?tree=true", status=404)
    await stranger.ask("GET", f"{EXECUTIONS}?parent={root}", status=404)


async def test_a_child_over_http(person: Person, worker: Starts) -> None:
    """`parentExecutionId` starts one, once with a key; of a parent that is unknown or has ended it is refused."""
    worker("tree", "child")
    parent = await person.execute("tree")
    child = await person.execute("child", parentExecutionId=parent, key="k")
    assert await person.execute("child", parentExecutionId=parent, key="k") == child
    await person.end(child)
    state = await person.until(parent, lambda state: [each["status"] for each in state["children"]] == ["completed"])
    assert state["children"][0]["executionId"] == child
    detached = await person.execute("tree", parentExecutionId=parent, onParentEnd="detach")
    attached = await person.execute("tree", parentExecutionId=parent, onParentEnd="cancel")
    await person.ask("POST", f"{EXECUTIONS}/{parent}/cancel", {}, status=202)
    assert (await person.end(attached))["cancelled"] == {"reason": "its parent has ended", "by": "system:parent"}
    assert (await person.state(detached))["status"] in ("queued", "running")
    state = await person.end(parent)
    assert [each["status"] for each in state["children"]] == ["completed", "detached", "interrupted"]
    refused = await person.execute("child", parentExecutionId=parent, status=409)
    assert refused["type"].endswith("execution-ended")
    refused = await person.execute("child", parentExecutionId="ex_nowhere", status=404)
    assert refused["path"] == "$.parentExecutionId"
    await person.ask("POST", f"{EXECUTIONS}/{detached}/cancel", {}, status=202)


async def test_a_parent_without_a_worker_is_told_and_takes_its_children_with_it(person: Person, worker: Starts) -> None:
    """One that publishes over HTTP."""
    worker("tree", "child")
    parent, path = "ex_script", f"{EXECUTIONS}/ex_script/events"
    started = {"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}
    await person.ask("POST", path, started, status=202)
    first = await person.execute("child", parentExecutionId=parent)
    second = await person.execute("tree", parentExecutionId=parent)
    await person.end(first)
    await person.until(parent, lambda state: state["children"][0]["status"] == "completed")
    complete = {"type": "execution:complete", "data": {"result": None, "duration": 1}}
    await person.ask("POST", path, complete, status=202)
    assert (await person.end(second))["status"] == "cancelled"


@pytest.mark.parametrize("agent", ["parent", "sync_parent"])
async def test_a_parent_whose_worker_is_killed_finds_its_children(person: Person, worker: Starts, agent: str) -> None:
    """The next attempt gets the same results; each child ran once, and is in the log once."""
    worker("child")
    lost = worker(agent, concurrency=1, lease_seconds=4)
    root = await person.execute(agent, params={"seconds": 3})
    await person.until(root, lambda state: len(state["children"]) == (2 if agent == "parent" else 1))
    lost.kill()
    worker(agent, concurrency=1)
    state = await person.end(root)
    assert (state["status"], state["attempt"]) == ("completed", 2)
    results = state["result"]["results"] if agent == "parent" else [state["result"]]
    assert results == [f"{task} in attempt 1" for task in ("one", "two")[: len(results)]]
    types = [type_ for type_, _ in await person.events(root) if type_.startswith("child:")]
    assert sorted(types) == ["child:ended"] * len(results) + ["child:started"] * len(results)


async def test_a_child_whose_worker_is_killed_ends_once(person: Person, worker: Starts) -> None:
    """It is tried again elsewhere; its parent waits for the attempt that counts."""
    worker("parent", concurrency=1)
    lost = worker("child", lease_seconds=4)
    root = await person.execute("parent", params={"seconds": 60})
    used = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
    running = [("running", used)] * 2
    await person.until(
        root, lambda tree: [(node["state"], node["usage"]) for node in tree["children"]] == running, "?tree=true"
    )
    lost.kill()
    worker("child")
    state = await person.end(root)
    assert state["result"]["results"] == ["one in attempt 2", "two in attempt 2"]
    assert [type_ for type_, _ in await person.events(root)].count("child:ended") == 2


async def test_forty_on_three_levels_end_with_their_root(person: Person, worker: Starts) -> None:
    """Which is cancelled at an edge; the time is printed, and far below the bound of this test."""
    for _ in range(2):
        worker("tree", concurrency=25)
    root = await person.execute("tree", params={"widths": [4, 3, 2]})
    await person.until(root, lambda tree: [node["state"] for node in nodes(tree)] == ["running"] * 41, "?tree=true")
    started = time.monotonic()
    await person.ask("POST", f"{EXECUTIONS}/{root}/cancel", {}, status=202)
    tree = await person.until(root, lambda tree: {node["state"] for node in nodes(tree)} == {"cancelled"}, "?tree=true")
    print(f"{len(nodes(tree))} executions ended in {time.monotonic() - started:.2f} s")


async def test_the_example_runs(person: Person, redis_url: str) -> None:
    """`deploy/examples/supervisor.py` does what its first lines say, with one slot; and goes on without a child that
    fails."""
    process = WorkerProcess(redis_url, "supervisor:agents", EXAMPLES, concurrency=1)
    try:
        warm = await person.end(await person.execute("supervisor", task="Rome in spring"))
        odd = await person.end(await person.execute("supervisor", task="Rome"))
    finally:
        process.close()
    assert warm["result"] == {"missing": [], "degrees": 18, "sights": ["the old town", "the river", "the market"]}
    assert warm["text"] == "Rome in spring: 18 degrees. See the old town, the river, the market."
    assert [child["status"] for child in warm["children"]] == ["completed", "completed"]
    assert warm["usage"]["totalTokens"] == 469
    assert [child["status"] for child in odd["children"]] == ["failed", "completed"]
    assert odd["result"]["missing"][0].endswith("failed: ValueError: the task names no season")


async def test_a_tree_in_a_redis_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys of one user are on one node: parents and children find each other, and end together."""
    monkeypatch.setenv("CHILD_AGENTS", "parent,child,tree")
    with cluster() as made, edges(made.url, 2) as both:
        process = WorkerProcess(made.url, "child_agents:agents", FOLDER, concurrency=4, grace_seconds=0)
        try:
            person = Person(both)
            state = await person.end(await person.execute("parent"))
            assert state["result"]["results"] == ["one in attempt 1", "two in attempt 1"]
            assert [child["status"] for child in state["children"]] == ["completed", "completed"]
            root = await person.execute("tree", params={"widths": [1, 1]})
            await person.until(
                root, lambda tree: [node["state"] for node in nodes(tree)] == ["running"] * 3, "?tree=true"
            )
            await person.ask("POST", f"{EXECUTIONS}/{root}/cancel", {}, status=202)
            await person.until(
                root, lambda tree: [node["state"] for node in nodes(tree)] == ["cancelled"] * 3, "?tree=true"
            )
        finally:
            process.close()
