"""The example of a webhook's receiver, as its first lines say: a real edge and worker before it, and a chat behind."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

from aiohttp import ClientSession, web

from broker.cli.embedded import EmbeddedRedis
from tests.edges import ROOT, call, edge, token_for, under_load
from tests.ports import reserved_ports
from tests.receivers import SECRET, SETTINGS
from tests.workers import WorkerProcess

HERE = Path(__file__).parent
EXAMPLE = ROOT / "deploy" / "examples" / "webhook_chat.py"


class Chat:
    """An incoming webhook; it fails the first `failures` times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.texts: list[str] = []

    async def take(self, request: web.BaseRequest) -> web.Response:
        if self.failures:
            self.failures -= 1
            return web.Response(status=500)
        self.texts.append((await request.json())["text"])
        return web.Response(text="ok")


async def _listens(port: int) -> None:
    async with asyncio.timeout(under_load(20)):
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await asyncio.sleep(0.05)


async def test_a_chat_is_told(own_redis: EmbeddedRedis) -> None:
    """Of the question and the end, each once, although the chat is away at first; who cannot sign is refused."""
    chat = Chat(failures=1)
    with reserved_ports(2) as (port, chat_port):
        runner = web.ServerRunner(web.Server(chat.take))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", chat_port).start()
        given = {
            "RUNCAST_WEBHOOK_SECRET": SECRET,
            "CHAT_URL": f"http://127.0.0.1:{chat_port}/services/T/B/x",
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }
        example = await asyncio.create_subprocess_exec(sys.executable, EXAMPLE, env={**os.environ, **given})
        worker = WorkerProcess(own_redis.url, "e2e_agents:agents", HERE)
        try:
            await _listens(port)
            with edge(own_redis.url, **SETTINGS) as started:
                token = token_for("alice")
                body = {"task": "t", "agent": "asker", "webhook": {"url": f"http://127.0.0.1:{port}/runcast"}}
                async with asyncio.timeout(under_load(40)):
                    while (answer := await call(started.port, "POST", "/api/agent/execute", token, body)).status != 202:
                        await asyncio.sleep(0.05)
                    id_ = answer.body["executionId"]
                    while not chat.texts:
                        await asyncio.sleep(0.05)
                    path = f"/api/agent/executions/{id_}"
                    (asked,) = (await call(started.port, "GET", path, token)).body["openInputs"]
                    value = {"inputId": asked["inputId"], "value": True}
                    await call(started.port, "POST", path + "/input", token, value)
                    while len(chat.texts) < 2:
                        await asyncio.sleep(0.05)
            asks, ends = chat.texts
            assert asks == f"❓ {id_} asks: Go on?"
            assert ends.startswith(f"✅ {id_} is done in ")
            async with ClientSession() as session:
                forged = await session.post(f"http://127.0.0.1:{port}/runcast", json={"data": {}})
                assert forged.status == 401
        finally:
            example.terminate()
            await example.wait()
            worker.close()
            await runner.cleanup()
