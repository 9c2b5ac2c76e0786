"""What the commands of the pages run in: `runcast dev my_agents:agents`, as the first page has it, a worker for the
agents of the other pages, and a model that is scripted behind OpenAI's interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from tests.docs.blocks import DOCS, ROOT, Command, is_printed
from tests.docs.interpreters import SHELL_FUNCTIONS
from tests.edges import under_load
from tests.ports import reserved_ports

NODE_MODULES = ROOT / "tests" / "interop" / "node_modules"
START_SECONDS = 40.0
COMMAND_SECONDS = 20.0
AGAIN_SECONDS = 0.2


@contextlib.contextmanager
def stack() -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder with the examples, and the environment that `runcast dev` tells a reader to export."""
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="runcast-docs-")))
        for source in (*(DOCS / "examples").iterdir(), *(ROOT / "deploy" / "examples").glob("*.*")):
            if source.is_file():
                shutil.copy(source, folder)
        _node_modules(folder / "node_modules")
        port, admin_port, model_port, interpreters = closing.enter_context(reserved_ports(4))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
        environ |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "PYTHONWARNINGS": "default",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1",
            "OPENAI_API_KEY": "none",
            "NODE_PRESERVE_SYMLINKS": "1",
            "INTERPRETERS_PORT": str(interpreters),
        }
        closing.enter_context(_model(model_port))
        edge = {"RUNCAST_PORT": str(port), "RUNCAST_ADMIN_PORT": str(admin_port)}
        output = closing.enter_context(tempfile.TemporaryFile())
        command = ["runcast", "dev", "my_agents:agents"]
        closing.enter_context(background(command, folder, environ | edge, output.fileno()))
        environ |= _exports(output)
        forking = [sys.executable, "-m", "tests.docs.interpreters", str(interpreters)]
        closing.enter_context(background(forking, folder, environ, subprocess.DEVNULL))
        worker = [sys.executable, "-m", "emitter", "doc_agents:agents", "--grace-seconds=0"]
        here = environ | {"PYTHONPATH": f"{environ['PYTHONPATH']}{os.pathsep}{Path(__file__).parent}"}
        closing.enter_context(background(worker, folder, here, subprocess.DEVNULL))
        yield folder, environ


def _node_modules(folder: Path) -> None:
    """Our packages, and, for Node's `--preserve-symlinks`, those of `tests/interop`."""
    (folder / "@runcast").mkdir(parents=True)
    (folder / "@runcast" / "emitter").symlink_to(ROOT / "emitter" / "js")
    (folder / "@runcast" / "client").symlink_to(ROOT / "broker" / "web" / "client")
    if NODE_MODULES.is_dir():
        for package in NODE_MODULES.iterdir():
            if package.name[0] != "." and package.name not in ("ai", "@runcast"):
                (folder / package.name).symlink_to(package)
        (folder / "ai").symlink_to(NODE_MODULES / "ai7")


@contextlib.contextmanager
def background(command: list[str], folder: Path, environ: dict[str, str], output: int) -> Iterator[None]:
    """A process group for the length of a block."""
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _exports(output: object) -> dict[str, str]:
    """What the welcome tells to export, once it is there."""
    deadline = time.monotonic() + under_load(START_SECONDS)
    text = ""
    while "RUNCAST_REDIS_URL" not in text:
        assert time.monotonic() < deadline, f"`runcast dev` has not started:\n{text}"
        time.sleep(0.1)
        text = os.pread(output.fileno(), 100_000, 0).decode()  # type: ignore[attr-defined]
    assert "researcher" in text, text
    lines = [line.strip().removeprefix("export ") for line in text.splitlines() if "export " in line]
    return dict(line.split("=", 1) for line in lines)


# --- the model -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _model(port: int) -> Iterator[None]:
    """Chat completions: a call of `weather` first, and then an answer with what the tool found."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", _complete)])
    runner = web.AppRunner(app)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _complete(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    found = next((each["content"] for each in asked["messages"] if each["role"] == "tool"), None)
    if found is None:
        call = {"name": "weather", "arguments": '{"city": "Rome"}'}
        deltas = [{"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": call}]}]
    else:
        deltas = [{"content": word} for word in ("It has ", f"{json.loads(found)['degrees']} degrees.")]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for delta in deltas:
        await _send(response, asked, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    usage = {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}
    await _send(response, asked, choices=[], usage=usage)
    await response.write(b"data: [DONE]\n\n")
    return response


async def _send(response: web.StreamResponse, asked: dict[str, object], **chunk: object) -> None:
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], **chunk}
    await response.write(f"data: {json.dumps(whole)}\n\n".encode())


# --- the shell -------------------------------------------------------------------------------------------------------


class Shell:
    """One bash for the commands of a page, so that they share variables."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash"], cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._in.write(SHELL_FUNCTIONS.encode())

    def run(self, command: Command) -> str:
        """Until it succeeds and prints what the page says: a reader is slower than a test. What it printed."""
        deadline = time.monotonic() + under_load(COMMAND_SECONDS)
        while True:
            printed, status = self._once(command.text)
            if status == 0 and (not command.prints or is_printed(command.prints, printed)):
                return printed
            assert time.monotonic() < deadline, f"$ {command.text}\n{printed}(status {status})"
            time.sleep(AGAIN_SECONDS)

    def _once(self, text: str) -> tuple[str, int]:
        mark = f"end-{secrets.token_hex(8)}"
        self._in.write(f"{text}\nstatus=$?; echo; echo {mark} $status\n".encode())
        self._in.flush()
        timer = threading.Timer(under_load(COMMAND_SECONDS), os.killpg, (self._process.pid, signal.SIGKILL))
        timer.start()
        lines: list[str] = []
        try:
            while True:
                line = self._out.readline().decode()
                assert line, f"$ {text}\n{''.join(lines)}(it did not end)"
                if line.startswith(mark):
                    break
                lines.append(line)
        finally:
            timer.cancel()
        printed = "".join(lines)
        return printed.removesuffix("\n"), int(line.split()[1])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._in.close()
        self._out.close()
