"""Clients that others' generators make of the description of the HTTP interface, each at its defaults: all operations
are there, and they work against an edge."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from clients import HERE, NODE, Stand, needs_node, stand
from pythons import OPENAPI, python_of

from broker.edge.openapi import build_openapi
from tests.edges import token_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECONDS = 100.0
DOCUMENT = build_openapi("1.2.3")
OPERATIONS = [each["operationId"] for path in DOCUMENT["paths"].values() for each in path.values()]
TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "target": "es2022",
        "lib": ["es2022", "dom", "dom.iterable"],
        "module": "nodenext",
        "moduleResolution": "nodenext",
        "types": [],
        "skipLibCheck": True,
    },
    "include": ["*.mts", "*.ts", "globals.d.ts"],
}
PUBLISH = "WARNING parsing POST /api/agent/executions/{id}/events within executions."
NDJSON = "Unsupported content type application/x-ndjson"
"""Of which this generator knows nothing: what is published is one event, as JSON."""


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    with stand() as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "openapi.json").write_bytes(msgspec.json.encode(DOCUMENT))
    return tmp_path


async def run(*command: str | Path, cwd: Path, path: str | None = None) -> str:
    """What it prints, to both; it must succeed."""
    environ = None if path is None else {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(cwd)}
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out.decode()
    return out.decode()


@needs_node
async def test_openapi_fetch(site: Stand, folder: Path) -> None:
    """`openapi-typescript` and `openapi-fetch`: the calls that anybody makes first are type-checked, and work."""
    assert NODE is not None
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    (folder / "package.json").write_text('{"type":"module"}')
    (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    (folder / "globals.d.ts").write_text("declare const process: { argv: string[] };\n")
    shutil.copy(HERE / "openapi_fetch.mts", folder)
    tools = folder / "node_modules"
    await run(NODE, tools / "openapi-typescript/bin/cli.js", "openapi.json", "-o", "schema.ts", cwd=folder)
    await run(NODE, tools / "typescript/bin/tsc", "-p", ".", cwd=folder)
    token = token_for(site.new_user())
    printed = await run(NODE, "openapi_fetch.mjs", site.urls[0], token, cwd=folder)
    seen = json.loads(printed.splitlines()[-1])
    assert seen == {"status": "completed", "result": {"task": "look", "messages": []}, "task": "look", "chat": []}


CALLS = """
import importlib, pkgutil, sys, time
import runcast_client
from runcast_client import AuthenticatedClient
from runcast_client.api.executions import execute, get_execution
from runcast_client.models import ExecuteRequest, ExecuteResponse, ExecutionState

for module in pkgutil.walk_packages(runcast_client.__path__, "runcast_client."):
    importlib.import_module(module.name)
client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
request = ExecuteRequest.from_dict({"task": "look", "agent": "keeper", "params": {"depth": 3}})
started = execute.sync(client=client, body=request)
assert isinstance(started, ExecuteResponse), started
deadline = time.monotonic() + 10
while True:
    state = get_execution.sync(started.execution_id, client=client)
    assert isinstance(state, ExecutionState), state
    if state.status == "completed":
        break
    assert time.monotonic() < deadline, state
    time.sleep(0.05)
print(state.task)
"""


async def test_openapi_python_client(site: Stand, folder: Path) -> None:
    """`openapi-python-client` makes a module of every operation, and has nothing to say but that it does not know
    NDJSON; what it makes can be imported, and works."""
    python = python_of(OPENAPI)
    if python is None:
        pytest.skip(f"{OPENAPI} cannot be installed")
    generate = python.parent / "openapi-python-client"
    made = ["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "runcast_client"]
    said = await run(generate, *made, cwd=folder, path=str(python.parent))
    warnings = re.findall(
        r"(?m)^(?:WARNING|ERROR) .*|^(?:Unsupported|Skipping|Could not|Cannot|Invalid|Missing).*", said
    )
    assert warnings == ["WARNING parsing POST /api/agent/executions/{id}/events within executions.", NDJSON]
    modules = {path.stem.replace("_", "") for path in (folder / "runcast_client" / "api").rglob("*.py")}
    assert {name.lower() for name in OPERATIONS} <= modules
    (folder / "calls.py").write_text(CALLS)
    printed = await run(python, "calls.py", site.urls[0], token_for(site.new_user()), cwd=folder)
    assert printed.split() == ["look"]
