"""The MCP clients as they are published, and the protocol's own conformance kit, against real edges and a worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clients import HERE, Stand, stand
from pythons import MCP, python_of

from broker.cli.embedded import EmbeddedRedis
from tests.edges import EdgeProcess, call, edges, eventually, token_for, under_load
from tests.workers import WorkerProcess

FOLDER = HERE / "mcp"
sys.path.insert(0, str(FOLDER))
import mcp_kit  # noqa: E402 - it stands in a folder of its own

pytestmark = pytest.mark.slow
CLIENT_SECONDS = 60.0
TOLD = ["Sum: 3 \u2028é \U0001f600.", '{"sum":3}']
NODE = mcp_kit.node()
INSPECTOR = (
    FOLDER / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
)
needs_node = pytest.mark.skipif(
    NODE is None or not (FOLDER / "node_modules").is_dir(),
    reason="needs node, and `npm ci` in tests/interop/mcp (tests/run does it)",
)


@pytest.fixture(scope="module")
def world() -> Iterator[Stand]:
    with stand() as made:
        yield made


async def run(*command: str) -> Any:
    """What a client's script prints last."""
    out, _ = await output_of(*command)
    return json.loads(out.splitlines()[-1])


async def output_of(*command: str, **environ: str) -> tuple[bytes, str]:
    """What a client prints, and what it says besides."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=FOLDER,
        env=os.environ | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            out, error = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, error.decode()[-3000:]
    return out, error.decode()


async def python(url: str, token: str, mode: str, what: str) -> Any:
    interpreter = python_of(MCP)
    if interpreter is None:
        pytest.skip("the client for Python cannot be installed")
    return await run(str(interpreter), "mcp_python.py", url + "/mcp", token, mode, what)


async def javascript(which: str, url: str, token: str, what: str) -> Any:
    assert NODE is not None
    return await run(NODE, "--no-warnings", "mcp_clients.mjs", which, url + "/mcp", token, what)


def check_all(found: Any) -> None:
    """Tools, progress, a question that was answered, a failure, and a transcript."""
    assert "run_teller" in found["tools"]
    assert found["told"]["texts"] == TOLD
    assert found["told"]["structured"]["result"] == {"sum": 3}
    assert found["told"]["progress"][:3] == [2, 3, 4]
    assert found["asked"]["structured"]["result"] == {"approved": True}
    assert (found["failed"]["error"], found["failed"]["texts"]) == (True, ["RuntimeError: as told"])
    assert "Where to begin?" in found["page"]


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_the_client_for_python(world: Stand, mode: str, version: str) -> None:
    found = await python(world.urls[0], token_for(world.new_user()), mode, "all")
    check_all(found)
    assert found["version"] == version
    assert found["listed"]


@needs_node
@pytest.mark.parametrize("which", ["sdk", "client"])
async def test_the_clients_for_javascript(world: Stand, which: str) -> None:
    """The one of the old era, and the one that knows both."""
    check_all(await javascript(which, world.urls[0], token_for(world.new_user()), "all"))


@needs_node
async def test_the_client_of_the_ai_sdk(world: Stand) -> None:
    found = await javascript("ai", world.urls[0], token_for(world.new_user()), "run_teller")
    assert found["texts"] == TOLD


@needs_node
async def test_the_inspector(world: Stand, tmp_path: Path) -> None:
    """Its command line finds nothing in the tools that a client could refuse, and calls one."""

    async def inspect(*asked: str) -> tuple[Any, str]:
        assert NODE is not None
        command = (NODE, str(INSPECTOR), "--cli", world.urls[0] + "/mcp", "--transport", "http", *asked)
        out, said = await output_of(*command, "--header", f"Authorization: Bearer {token}", HOME=str(tmp_path))
        return json.loads(out), said

    token = token_for(world.new_user())
    listed, said = await inspect("--method", "tools/list", "--strict")
    assert {"run_teller", "wait_for_execution"} <= {tool["name"] for tool in listed["tools"]}
    assert said == ""
    told, _ = await inspect("--method", "tools/call", "--tool-name", "run_teller", "--tool-arg", "task=tell")
    assert [block["text"] for block in told["content"] if block["type"] == "text"] == TOLD
    page, _ = await inspect(
        "--method", "resources/read", "--uri", f"runcast://executions/{told['structuredContent']['executionId']}"
    )
    assert "Where to begin?" in page["contents"][0]["text"]


# --- tasks, and an edge that dies ------------------------------------------------------------------------------------


class World:
    """Two edges and the kit's agents over a Redis of their own, for one user."""

    def __init__(self, redis: EmbeddedRedis, edges: list[EdgeProcess]) -> None:
        self.redis = redis
        self.edges = edges
        self.token = token_for("kit")
        self.urls = [f"http://127.0.0.1:{edge.port}" for edge in edges]

    async def start(self, agent: str, execution_id: str) -> None:
        body = {"task": "t", "agent": agent, "executionId": execution_id}
        assert (await call(self.edges[0].port, "POST", "/api/agent/execute", self.token, body)).status == 202
        await self.until(execution_id, "completed")

    async def until(self, execution_id: str, state: str) -> None:
        path = f"/api/agent/executions/{execution_id}"
        async with asyncio.timeout(under_load(20)):
            while (await call(self.edges[-1].port, "GET", path, self.token)).body["status"] != state:
                await asyncio.sleep(0.05)


@pytest.fixture
async def kit() -> AsyncIterator[World]:
    with EmbeddedRedis() as redis, edges(redis.url, 2, executes_per_minute=0, drain_seconds=0.1) as started:
        worker = WorkerProcess(redis.url, "mcp_kit_agents:agents", FOLDER, concurrency=300)
        try:
            made = World(redis, started)
            async with asyncio.timeout(under_load(20)):
                while not (await call(started[0].port, "GET", "/api/agent/agents", made.token)).body["agents"]:
                    await asyncio.sleep(0.05)
            yield made
        finally:
            worker.close()


@needs_node
async def test_tasks_by_the_extension_s_own_package(kit: World) -> None:
    found = await javascript("tasks", kit.urls[0], kit.token, "run_slow_compute")
    assert (found["kind"], found["texts"]) == ("task", ["computed it"])


async def test_tasks_by_an_extension_of_the_client_for_python(kit: World) -> None:
    found = await python(kit.urls[0], kit.token, "auto", "task:run_late")
    assert found["texts"] == ["late"]


async def test_an_edge_that_dies_in_a_task(kit: World) -> None:
    """A task is any edge's: the one that gave it out is killed, and another has its end."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    }

    async def ask(edge: EdgeProcess, method: str, named: str, **params: Any) -> Any:
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": named}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        raw = await mcp_kit.text_of(edge.port, kit.token, body, headers)
        return json.loads(raw.removeprefix("data: "))["result"]

    first, second = kit.edges
    arguments = {"seconds": 3, "label": "it"}
    made = await ask(first, "tools/call", "run_slow_compute", name="run_slow_compute", arguments=arguments)
    assert made["status"] == "working"
    first.kill()
    await kit.until(made["taskId"], "completed")
    over = await ask(second, "tasks/get", made["taskId"], taskId=made["taskId"])
    assert over["result"]["content"] == [{"type": "text", "text": "computed it"}]


async def test_an_edge_that_dies_in_an_old_call(kit: World) -> None:
    """The client for Python comes back by itself, to a balancer that knows another edge, and has the whole result."""
    async with mcp_kit.balancer([edge.port for edge in kit.edges]) as way:
        calling = asyncio.create_task(python(way.url, kit.token, "legacy", "run_late"))
        await eventually("it has an id to come back with", lambda: b"\nid: " in way.passed, 30)
        kit.edges[0].kill()
        found = await calling
    assert found["texts"] == ["late"]
    assert found["progress"] == sorted(set(found["progress"]))
    listed = await call(kit.edges[1].port, "GET", "/api/agent/executions", kit.token)
    assert len(listed.body["executions"]) == 1, "the call was made once"


# --- the kit ---------------------------------------------------------------------------------------------------------


@needs_node
@pytest.mark.timeout(400)
@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_the_conformance_kit(kit: World, revision: str, tmp_path: Path) -> None:
    """Every scenario passes without a failure or a warning, those that are not scored as well."""
    await kit.start("test_resources", "made")
    await kit.start("greet", "123")
    async with mcp_kit.proxy(kit.edges[0].port, kit.token) as url:
        said = await mcp_kit.run(url, tmp_path, "--requirements", revision)
    found = mcp_kit.checks(tmp_path)
    required = yaml.safe_load((mcp_kit.KIT.parents[1] / "requirements" / f"{revision}.yaml").read_text())
    assert set(required["server"]) <= set(found), said[-3000:]
    bad = [
        (scenario, check["id"], check.get("errorMessage"))
        for scenario, checks in found.items()
        for check in checks
        if check["status"] in ("FAILURE", "WARNING")
    ]
    assert bad == []
