"""Agents in Node that publish with `@runcast/emitter`, an edge, and a proxy between them that fails on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from tests.edges import ALL_SCOPES, ROOT, EdgeProcess, call, token_for

HERE = Path(__file__).resolve().parent
NODE = shutil.which("node")
NODE_SECONDS = 50.0

needs_node = pytest.mark.skipif(NODE is None, reason="needs node")
needs_packages = pytest.mark.skipif(
    NODE is None or not (HERE / "node_modules").is_dir(),
    reason="needs node, and `npm ci` in tests/emitter_js (tests/run does it)",
)


def token(user: str, *without: str) -> str:
    """A token with every scope but `admin` and those named."""
    return token_for(user, scopes=ALL_SCOPES - {"admin", *without})


async def node(*arguments: str, cwd: Path = HERE) -> str:
    """Run a script to its end; what it printed."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, *arguments, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(NODE_SECONDS):
            printed, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


class Script:
    """A scene of a script, from `async with` to its end. `said` are the JSON lines that it printed so far."""

    def __init__(self, script: str, scene: str, /, **given: Any) -> None:
        self.command: tuple[str, ...] = (NODE or "node", "--no-warnings")
        self._arguments = [script, scene, json.dumps(given)]
        self.folder = HERE
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._errors = bytearray()
        self.said: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Script:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self.command, *self._arguments, cwd=self.folder, stdin=pipe, stdout=pipe, stderr=pipe, limit=2**24
        )
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._tasks)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            self._news.set()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while part := await self.process.stderr.read(4096):
            self._errors += part

    async def until(self, name: str, seconds: float = 25.0) -> Any:
        """Wait until it has printed `{name: value}`; the value."""
        try:
            async with asyncio.timeout(seconds):
                while (found := next((line[name] for line in self.said if name in line), self)) is self:
                    self._news.clear()
                    if self.process.returncode is not None and self._tasks[0].done():
                        break
                    await self._news.wait()
        except TimeoutError:
            found = self
        assert found is not self, f"{name} was not said: {self.said[-5:]}\n{self._errors.decode()}"
        return found

    async def end(self, seconds: float = NODE_SECONDS) -> list[dict[str, Any]]:
        """Wait for its end, which must be a good one; what it has said."""
        try:
            async with asyncio.timeout(seconds):
                code = await self.process.wait()
        except TimeoutError:
            code = None
        if code is not None:
            await asyncio.gather(*self._tasks)
        assert code == 0, f"{code}: {self.said[-5:]}\n{self._errors.decode()}"
        return self.said


async def known(of: EdgeProcess, name: str) -> dict[str, Any]:
    """The agent, once this edge accepts executions of it: with a refusal it says which ones it knows."""
    async with asyncio.timeout(15):
        while True:
            agents = (await call(of.port, "GET", "/api/agent/agents", token_for("alice"))).body["agents"]
            found = [agent for agent in agents if agent["name"] == name]
            body = {"task": "t", "agent": "-"}
            refused = await call(of.port, "POST", "/api/agent/execute", token_for("nobody"), body)
            if found and name in refused.body["known"]:
                return dict(found[0])
            await asyncio.sleep(0.05)


async def log_of(edge: EdgeProcess, user: str, execution_id: str) -> list[dict[str, Any]]:
    """The whole log, read through the edge; ordinals without gaps."""
    events: list[dict[str, Any]] = []
    after = ""
    while True:
        path = f"/api/agent/executions/{execution_id}/events?limit=200{after}"
        answer = await call(edge.port, "GET", path, token(user))
        assert answer.status == 200, answer.body
        page = [{"id": each["id"], **each["event"]} if "event" in each else each for each in answer.body["events"]]
        if not page:
            break
        events += page
        after = f"&after={page[-1]['id']}"
    ordinals = [int(event["id"].partition("-")[2]) for event in events]
    assert ordinals == list(range(1, len(events) + 1))
    return events


def text_of(events: list[dict[str, Any]], message_id: str | None = None) -> str:
    """The streamed text of a log."""
    chunks = [event["data"] for event in events if event["type"] == "message:delta"]
    return "".join(each["delta"] for each in chunks if message_id in (None, each["messageId"]))


# --- a proxy that fails ----------------------------------------------------------------------------------------------

Fate = Literal["pass", "refuse", "limit", "drop_reply", "drop_request", "slow", "garbage"]


class FaultyProxy:
    """An HTTP proxy. `fate` decides over each publish: `drop_reply` lets the edge append, and then cuts the connection;
    `drop_request` cuts it before; `refuse` answers 503, `limit` 429, `garbage` 200 with a page."""

    def __init__(self, edge: EdgeProcess) -> None:
        self._edge = edge
        self.fate: Callable[[], Fate] = lambda: "pass"
        self.slow_seconds = 0.2
        self.port = 0
        self.fates: list[Fate] = []
        self.bodies: list[tuple[str, str]] = []
        """Producer-Seq and body of every publish that came in."""
        self.streams: list[web.StreamResponse] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        is_publish = request.method == "POST" and request.path.endswith("/events")
        fate: Fate = "pass"
        if is_publish:
            self.bodies.append((request.headers.get("Producer-Seq", ""), body.decode()))
            fate = self.fate()
            self.fates.append(fate)
        if fate == "refuse":
            return web.Response(status=503, headers={"Retry-After": "0"}, text="no")
        if fate == "limit":
            return web.Response(status=429, headers={"Retry-After": "1"}, text="slowly")
        if fate == "garbage":
            return web.Response(text="<html>a page</html>", content_type="text/html")
        if fate == "drop_request":
            return self._cut(request)
        if fate == "slow":
            await asyncio.sleep(self.slow_seconds)
        return await self._forward(request, body, fate)

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes, fate: Fate) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        url = f"http://127.0.0.1:{self._edge.port}{request.path_qs}"
        session: aiohttp.ClientSession = request.app[_SESSION]
        try:
            async with session.request(request.method, url, data=body, headers=headers) as answer:
                if fate == "drop_reply":
                    await answer.read()
                    return self._cut(request)
                response = web.StreamResponse(status=answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _OWN:
                        response.headers[name] = value
                await response.prepare(request)
                self.streams.append(response)
                async for part in answer.content.iter_any():
                    await response.write(part)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, ConnectionError):
            return self._cut(request)


_OWN = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "content-encoding"}
_SESSION = web.AppKey("session", aiohttp.ClientSession)


@contextlib.asynccontextmanager
async def faulty_proxy(edge: EdgeProcess) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy(edge)
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        app[_SESSION] = session
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        try:
            yield proxy
        finally:
            await runner.cleanup()


FAULTS: tuple[Fate, ...] = ("drop_reply", "refuse", "drop_request", "slow", "garbage")


def by_chance(seed: int, good: float = 0.4) -> Callable[[], Fate]:
    """Fates in an order that is the same each time: first one of each kind."""
    chance = random.Random(seed)
    first = chance.sample(FAULTS, len(FAULTS))
    return lambda: first.pop() if first else "pass" if chance.random() < good else chance.choice(FAULTS)


EMITTER = ROOT / "emitter" / "js"
