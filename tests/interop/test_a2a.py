"""The official A2A clients, unmodified, over real sockets: of three versions of the protocol, in two languages, over
JSON-RPC and REST. All make the same tour over two edges, and come back with the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import NODE_SECONDS, Stand, needs_node, node, stand
from pythons import python_of

from tests.edges import call, edge, token_for

HERE = Path(__file__).resolve().parent
JSONRPC, REST = "JSONRPC", "HTTP+JSON"
TEXT = "Sum: 3 \u2028é \U0001f600."
PYTHON = [
    {"binding": JSONRPC, "version": "1.0"},
    {"binding": REST, "version": "1.0"},
    {"binding": JSONRPC, "version": "0.3"},
    {"binding": REST, "version": "0.3"},
]
JAVASCRIPT = [
    {"sdk": "@a2a-js/sdk", "binding": JSONRPC, "version": "1.0"},
    {"sdk": "@a2a-js/sdk", "binding": REST, "version": "1.0"},
    {"sdk": "@a2a-js/sdk", "binding": JSONRPC, "version": "0.3"},
    {"sdk": "@a2a-js/sdk", "binding": REST, "version": "0.3"},
    {"sdk": "a2a-js-03", "binding": JSONRPC},
    {"sdk": "a2a-js-03", "binding": REST},
]


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    with stand() as started:
        yield started


def python(version: str) -> Path:
    """The interpreter that has this version of the SDK."""
    found = python_of(version)
    if found is None:
        pytest.skip(f"a2a-sdk {version} could not be installed: no package index")
    return found


def given(site: Stand, user: str, **more: Any) -> dict[str, Any]:
    return {"urls": site.urls, "token": token_for(user), **more}


async def run(interpreter: Path, script: str, arguments: Any) -> Any:
    """The JSON that the script prints last."""
    command = [str(interpreter), "-W", "ignore", script, json.dumps(arguments)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=HERE, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(NODE_SECONDS):
            out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, error.decode()
    return json.loads(out.splitlines()[-1])


def check(toured: dict[str, Any], *, resumes: bool = True, names_files: bool = True) -> None:
    """What every client saw."""
    assert "teller" in toured["skills"]
    told = toured["told"]
    assert told["first"] == "task"
    assert [told["states"][0], told["states"][1], told["states"][-1]] == ["submitted", "working", "completed"]
    made = dict(told["artifacts"])
    (partial,) = [made.pop(id_) for id_ in list(made) if id_.startswith("partial:")]
    (text,) = [made.pop(id_) for id_ in list(made) if id_.startswith("message:")]
    assert (partial, text) == ({"half": True}, TEXT)
    assert made == {"a1": "3\n", "runcast:result": {"sum": 3}}
    assert toured["got"] == {"state": "completed", "artifacts": told["artifacts"]}
    assert toured["blocking"] == ["completed"]
    about = {"mediaType": "application/pdf"} | ({"name": "a.pdf"} if names_files else {})
    urls = ("https://files.example.com/a.pdf", "data:application/pdf;base64,iVBO/w==")
    files = [{"url": url, **about} for url in urls]
    assert toured["files"] == {
        "task": "look",
        "messages": [{"role": "user", "content": "look", "attachments": files}],
    }
    assert toured["filesInHistory"] == 4
    assert toured["asked"] == {"state": "input_required", "prompt": "Go on?"}
    answered = toured["answered"]
    assert (answered["first"], answered["states"][-1]) == ("task", "completed")
    assert sorted(answered["artifacts"].values(), key=str) == ["Before. After.", {"approved": True}]
    steered = toured["steered"]
    assert (steered["first"], steered["states"][-1]) == ("task", "completed")
    assert steered["artifacts"]["runcast:result"] == {"heard": ["shorter", "stop"]}
    assert "Heard shorter. Heard stop. " in steered["artifacts"].values()
    assert toured["cancelled"] == "canceled"
    for name, wanted in (
        ("deaf", "UnsupportedOperation|-32004"),
        ("mismatch", "InvalidParams|RequestMalformed|-32602"),
        ("missing", "TaskNotFound|-32001"),
        ("ended", "TaskNotCancelable|-32002"),
    ):
        assert re.search(wanted, str(toured[name])), name
    if resumes:  # the task at the cursor, and then every event of the log that it lacked, once
        assert toured["resumed"] == {"before": [1, 2], "after": [2, 3, 4, 5], "state": "canceled"}


@pytest.mark.parametrize("options", PYTHON, ids=str)
async def test_python_1(site: Stand, options: dict[str, str]) -> None:
    """The newest client for Python, in each binding and version that it speaks."""
    toured = await run(python("1.3.0"), "a2a_python_1.py", given(site, site.new_user(), **options))
    check(toured)
    assert toured["extended"]


@pytest.mark.parametrize("version", ["0.3.26", "0.2.16"])
async def test_python_0(site: Stand, version: str) -> None:
    """The clients of former versions; that of 0.2 cannot resume."""
    check(await run(python(version), "a2a_python_0.py", given(site, site.new_user())), resumes=version != "0.2.16")


@needs_node
@pytest.mark.parametrize("options", JAVASCRIPT, ids=str)
async def test_javascript(site: Stand, options: dict[str, str]) -> None:
    """The newest client for JavaScript and that of 0.3, in each binding and version that they speak."""
    toured = await node("a2a_js.mjs", given(site, site.new_user(), **options))
    is_old_rest = options["binding"] == REST and options.get("version") != "1.0"  # where it sends no names of files
    check(toured, names_files=not is_old_rest)


async def test_silence(site: Stand) -> None:
    """The default client for Python, which gives up after 5 s without a byte, waits out a silence of 6 s, both for a
    stream and for a plain answer."""
    user = site.new_user()
    port, token = site.edges[0].port, token_for(user)
    with edge(site.redis_url) as usual:  # with its own heartbeat, which is slower than this protocol's
        await silence(usual.port, port, token)


async def silence(watched: int, port: int, token: str) -> None:
    given_ = {"urls": [f"http://127.0.0.1:{watched}"], "token": token}
    waiting = asyncio.create_task(run(python("1.3.0"), "a2a_silence.py", given_))
    try:
        async with asyncio.timeout(NODE_SECONDS):
            while len(found_ids := await _asking(port, token)) < 2:
                await asyncio.sleep(0.1)
            await asyncio.sleep(6)  # the silence itself is what is tested
            for execution_id in found_ids:
                path = f"/api/agent/executions/{execution_id}/cancel"
                await call(port, "POST", path, token, {})
            assert await waiting == {"stream": "canceled", "plain": "canceled"}
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _asking(port: int, token: str) -> list[str]:
    answer = await call(port, "GET", "/api/agent/executions?state=running", token)
    return [each["executionId"] for each in answer.body["executions"]]
