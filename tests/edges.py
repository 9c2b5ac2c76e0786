"""Edges as separate processes, and the viewers that test them: an SSE reader of its own over plain sockets, so that
what the edge writes is never read by the code that wrote it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from broker.auth.tokens import DEFAULT_SCOPES, mint
from broker.http.listener import SETTLE_SECONDS
from emitter import tasks
from emitter.events import Event, ExecutionComplete, ExecutionStarted, Progress, Thinking
from emitter.store.append import APPEND_SCRIPT, LogLimits, append_command, prepare, read_reply
from emitter.store.connection import channels_of
from emitter.wire.ids import EventId
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from tests.ports import reserved_ports

ROOT = Path(__file__).resolve().parents[1]
SECRET = "a-secret-of-the-tests-that-is-long-enough"
START_SECONDS = 20.0
WAIT_SECONDS = 15.0
LONGEST_SECONDS = 45.0
"""Less than a test has (`timeout` of pytest), so that it fails by what it waited for."""
ALL_SCOPES = DEFAULT_SCOPES | {"events:publish", "jobs:run", "executions:debug", "ops:read", "admin"}


def token_for(user: str, *, org: str = "default", scopes: Collection[str] = DEFAULT_SCOPES, ttl: float = 3600.0) -> str:
    return mint(SECRET, user, org, scopes, ttl=ttl, now=time.time())


def under_load(seconds: float) -> float:
    """How long something may take on this machine as it is now that may take `seconds` where nothing else runs; no
    longer than a test may."""
    waiting = os.getloadavg()[0]
    with contextlib.suppress(OSError):  # on Linux also what it is at this moment
        waiting = max(waiting, float(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]))
    return min(seconds * max(1.0, waiting / (os.cpu_count() or 1)), max(seconds, LONGEST_SECONDS))


async def eventually(what: str, condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Wait for a fact about another process, which cannot be awaited, for so many seconds `under_load`."""
    deadline = time.monotonic() + under_load(seconds)
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.02)


async def until_announced(edge: EdgeProcess, agent: str, seconds: float = 20.0) -> None:
    """Wait until a worker has the agent. Starts are limited to so many a minute, and lists are not."""
    async with asyncio.timeout(under_load(seconds)):
        while True:
            answer = await call(edge.port, "GET", "/api/agent/agents", token_for("nobody"))
            if agent in [each["name"] for each in answer.body["agents"]]:
                return
            await asyncio.sleep(0.05)


def logged_in(text: str, event: str) -> list[dict[str, Any]]:
    """The lines about one kind of event in what a process has logged so far; the last may be half written."""
    lines = [json.loads(line) for line in text.split("\n")[:-1] if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


# --- processes -------------------------------------------------------------------------------------------------------


class EdgeProcess:
    """`python -m broker serve` on ports of its own, or on `ports` of a loopback address, which whoever gives them has
    reserved. Settings are given by their field names: `heartbeat_seconds=1`. `root`: where the code is."""

    def __init__(
        self,
        redis_url: str,
        *arguments: str,
        program: Sequence[str] = ("-m", "broker"),
        root: Path = ROOT,
        address: str = "127.0.0.1",
        ports: Sequence[int] = (),
        **settings: Any,
    ):
        workers = int(arguments[arguments.index("--workers") + 1]) if "--workers" in arguments else 1
        self._kept = contextlib.ExitStack()
        self.address = address
        self.port, *self.admin_ports = ports or self._kept.enter_context(reserved_ports(1 + workers))
        given = {
            "redis_url": redis_url,
            "host": address,
            "admin_host": address,
            "port": self.port,
            "admin_port": self.admin_ports[0],
            "jwt_secret": SECRET,
            "drain_seconds": 0,
            "connects_per_minute": 0,
            **settings,
        }
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
        self._environ = environ | {f"RUNCAST_{name.upper()}": str(value) for name, value in given.items()}
        self._command = [sys.executable, *program, "serve", *arguments]
        self._root = root
        self._log = self._kept.enter_context(tempfile.TemporaryFile(prefix="runcast-edge-"))  # noqa: SIM115
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> EdgeProcess:
        self.process = subprocess.Popen(
            self._command,
            cwd=self._root,
            env=self._environ,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def wait_ready(self, port: int | None = None) -> EdgeProcess:
        """Wait until `/readyz` is green."""
        assert self.process is not None
        deadline = time.monotonic() + under_load(START_SECONDS)
        while self.admin_status("/readyz", port) != 200:
            assert self.process.poll() is None, f"the edge ended with {self.process.returncode}:\n{self.log_text()}"
            assert time.monotonic() < deadline, f"the edge is not ready:\n{self.log_text()}"
            time.sleep(0.02)
        return self

    def admin_status(self, path: str, port: int | None = None) -> int:
        """The status of the admin listener's answer; 0 when there is none."""
        return self._admin(path, port)[0]

    def _admin(self, path: str, port: int | None = None, seconds: float = 2.0) -> tuple[int, str]:
        url = f"http://{self.address}:{port or self.admin_ports[0]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=under_load(seconds)) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, ""
        except OSError:
            return 0, ""

    def metric(self, name: str, port: int | None = None, **labels: str) -> float:
        """One sample of `/metrics`. An edge may be slow to answer, and has its metrics all the same."""
        text = ",".join(f'{key}="{value}"' for key, value in labels.items())
        sample = name + (f"{{{text}}}" if text else "")
        for line in self._admin("/metrics", port, WAIT_SECONDS)[1].splitlines():
            if line.startswith(sample + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {sample}")

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log_text(self, start: int = 0) -> str:
        """What it has logged, from a byte on."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), max(0, size - start), start).decode(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines about one kind of event."""
        return logged_in(self.log_text(), event)

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 15.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = 15.0) -> int:
        """Wait until it has ended by itself or by a signal sent before, so long `under_load`; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            try:
                self.process.wait(under_load(seconds))
            except subprocess.TimeoutExpired:
                # All of its session: the children of a supervisor that hangs must not outlive the test.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise AssertionError(f"the edge did not stop within {seconds:g} s:\n{self.log_text()}") from None
        return self.process.returncode

    def close(self) -> None:
        try:
            if self.process is not None:
                self.stop()
        finally:
            self._kept.close()


@contextlib.contextmanager
def edges(redis_url: str, count: int = 1, **settings: Any) -> Iterator[list[EdgeProcess]]:
    """Edges that are ready; they start at the same time and stop when the block ends."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(count):
            edge = EdgeProcess(redis_url, **settings)
            stack.callback(edge.close)
            started.append(edge.start())
        for edge in started:
            edge.wait_ready()
        yield started


@contextlib.contextmanager
def hosts(redis_url: str, count: int, **settings: Any) -> Iterator[list[EdgeProcess]]:
    """Edges that are not started yet, as if on hosts of their own: all have the same ports, each at its own address."""
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(reserved_ports(2))
        made = [EdgeProcess(redis_url, address=f"127.0.0.{2 + n}", ports=ports, **settings) for n in range(count)]
        for edge in made:
            stack.callback(edge.close)
        yield made


@contextlib.contextmanager
def edge(redis_url: str, **settings: Any) -> Iterator[EdgeProcess]:
    with edges(redis_url, 1, **settings) as started:
        yield started[0]


# --- HTTP and SSE by hand --------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One dispatched block of an event stream. `id` is None if the block had none; `data` if it dispatches nothing."""

    id: str | None
    event: str
    data: str | None


class SseReader:
    """WHATWG HTML, section 9.2.6, for UTF-8 that comes in pieces. Also counts comments and notes `retry`."""

    def __init__(self) -> None:
        self._rest = b""
        self._id: str | None = None
        self._event = ""
        self._data: list[str] = []
        self.comments = 0
        self.retries: list[int] = []

    def feed(self, data: bytes) -> list[Frame]:
        assert b"\r" not in data, "only LF ends lines"
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [frame for line in lines if (frame := self._line(line.decode()))]

    def _line(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            self.comments += 1
            return None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id" and "\0" not in value:
            self._id = value
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdecimal():
            self.retries.append(int(value))
        return None

    def _dispatch(self) -> Frame | None:
        id_, event, data = self._id, self._event or "message", "\n".join(self._data) if self._data else None
        self._id, self._event, self._data = None, "", []
        return Frame(id_, event, data) if id_ is not None or data is not None else None


class Connection:
    """One HTTP exchange, read by hand: `status`, `headers` (lower case), then a body that may never end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.sse = SseReader()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.coded_bytes = 0
        """Bytes in gzip so far."""
        self.whole = False
        """Whether the body ended as its coding says it must, and was not cut off."""

    async def _head(self) -> None:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {}
        for name, _, value in (line.partition(":") for line in lines[1:-2]):
            given = self.headers.get(name.lower())  # of several with one name the values are a list
            self.headers[name.lower()] = value.strip() if given is None else f"{given}, {value.strip()}"

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes in; of a stream without its coding."""
        is_stream = self.headers.get("content-type") == "text/event-stream"
        if self.headers.get("content-encoding") != "gzip" or not is_stream:
            async for piece in self.coded_pieces():
                yield piece
            return
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        async for piece in self.coded_pieces():
            self.coded_bytes += len(piece)
            data = decoder.decompress(piece)
            assert not decoder.unused_data, "nothing comes after the trailer"
            if data:
                yield data
        self.whole = self.whole and decoder.eof

    async def coded_pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes in, chunk headers taken off."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.status == 204 or self.headers.get("content-length") == "0":
                self.whole = True
            elif self.headers.get("transfer-encoding") == "chunked":
                async for piece in self._chunks():
                    yield piece
            elif "content-length" in self.headers:
                yield await self._reader.readexactly(int(self.headers["content-length"]))
                self.whole = True
            else:
                while piece := await self._reader.read(65536):
                    yield piece
                self.whole = True

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n"))[:-2], 16):
            yield await self._reader.readexactly(size)
            assert await self._reader.readexactly(2) == b"\r\n", "a chunk ends with CRLF"
        assert await self._reader.readexactly(2) == b"\r\n", "the last chunk has no trailer"
        self.whole = True

    async def frames(self) -> AsyncIterator[Frame]:
        async for piece in self.pieces():
            for frame in self.sse.feed(piece):
                yield frame

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def json(self) -> Any:
        return json.loads(await self.body())

    def close(self) -> None:
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def request(
    port: int,
    method: str,
    path: str,
    token: str | None = None,
    *,
    headers: Mapping[str, str] = {},
    body: bytes | None = None,
    version: str = "1.1",
    receive_buffer: int | None = None,
    seconds: float = 10.0,
) -> AsyncIterator[Connection]:
    """Send a request; yields when the response's head is there. `receive_buffer` makes a client that holds little.
    Surrogates stand for bytes that are no text."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(under_load(seconds)):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=1024 if receive_buffer else 2**16)
    except BaseException:
        sock.close()
        raise
    connection = Connection(reader, writer)
    try:
        given = {"Host": f"127.0.0.1:{port}", **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
        if body is not None:
            given["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/{version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items())
        async with asyncio.timeout(under_load(seconds)):
            writer.write(head.encode(errors="surrogateescape") + b"\r\n" + (body or b""))
            await connection._head()
        yield connection
    finally:
        connection.close()


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: Any


async def call(
    port: int, method: str, path: str, token: str | None, value: Any = None, *, headers: Mapping[str, str] = {}
) -> Answer:
    """One JSON request and its JSON answer. `value` may be ready-made bytes."""
    body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    given = {"Content-Type": "application/json", "Connection": "close", **headers}
    async with (
        request(port, method, path, token, headers=given, body=body) as response,
        asyncio.timeout(under_load(15)),
    ):
        raw = await response.body()
    return Answer(response.status, response.headers, json.loads(raw) if raw else None)


def stream_path(execution_id: str, query: str = "") -> str:
    return f"/api/agent/executions/{execution_id}/stream" + (f"?{query}" if query else "")


FEED_PATH = "/api/agent/stream"
SSE = {"Accept": "text/event-stream"}


# --- a viewer that comes back ----------------------------------------------------------------------------------------


class Received(NamedTuple):
    """A logged event as a viewer got it, or as the log has it."""

    id: str
    type: str
    data: str


class Control(NamedTuple):
    """A control event, and how many logged events were received before it."""

    event: str
    data: dict[str, Any]
    after: int


class Follower:
    """A viewer that does what `EventSource` does: reads, reconnects with `Last-Event-ID` to the next of its edges, and
    stops at a 204. `async with Follower(…)` follows in the background; `events` is what it got over all connects."""

    def __init__(
        self,
        edges: Sequence[EdgeProcess] | Sequence[int],
        path: str,
        token: str,
        *,
        cursor: str | None = None,
        pause_seconds: float = 0.02,
        headers: Mapping[str, str] = {},
        version: str = "1.1",
    ) -> None:
        ports = [edge if isinstance(edge, int) else edge.port for edge in edges]
        self._ports = itertools.cycle(ports)
        self._path = path
        self._token = token
        self._pause = pause_seconds
        self._headers = headers
        self._version = version
        self._news = asyncio.Event()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self.cursor = cursor
        self.events: list[Received] = []
        self.controls: list[Control] = []
        self.statuses: list[int] = []
        self.retries: list[int] = []
        self.whole: list[bool] = []
        """Of each stream that is over, whether its body had a valid end."""
        self.done = False
        """Whether a 204 said that nothing will ever follow."""

    async def __aenter__(self) -> Follower:
        self._task = asyncio.create_task(self._follow(), name="follower")
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def connects(self) -> int:
        return self.statuses.count(200)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    def named(self, event: str) -> list[Control]:
        """The control events of one name."""
        return [control for control in self.controls if control.event == event]

    @property
    def resets(self) -> list[Control]:
        return self.named("stream:reset")

    @property
    def ends(self) -> list[str]:
        """The reasons with which streams ended."""
        return [control.data["reason"] for control in self.named("stream:end")]

    async def until(self, what: str, condition: Callable[[Follower], bool], seconds: float = WAIT_SECONDS) -> None:
        """Wait until the condition holds, which is looked at whenever something came in; so long `under_load`."""
        assert self._task is not None
        try:
            async with asyncio.timeout(under_load(seconds)):
                while not condition(self):
                    if self._task.done():
                        self._task.result()
                        raise AssertionError(f"the follower stopped before: {what}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds:g} s; {self!r}") from None

    async def until_live(self, times: int = 1) -> None:
        await self.until(f"live {times} times", lambda self: len(self.named("stream:live")) >= times)

    async def until_events(self, count: int, seconds: float = WAIT_SECONDS) -> None:
        await self.until(f"{count} events", lambda self: len(self.events) >= count, seconds)

    async def until_done(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait for the 204 after the end."""
        await self.until("a 204", lambda self: self.done, seconds)

    def hang_up(self) -> None:
        """Lose the connection, without a word, as a phone in a tunnel does; it is opened again at the next edge."""
        if self._connection is not None:
            self._connection.close()

    def __repr__(self) -> str:
        last = self.events[-1].id if self.events else None
        return (
            f"Follower(events={len(self.events)}, last={last}, statuses={self.statuses[-5:]}, "
            f"controls={[(c.event, c.data) for c in self.controls[-4:]]})"
        )

    async def _follow(self) -> None:
        while not self.done:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._connect(next(self._ports))
            self._news.set()
            if not self.done:
                await asyncio.sleep(self._pause)

    async def _connect(self, port: int) -> None:
        headers = SSE | dict(self._headers) | ({"Last-Event-ID": self.cursor} if self.cursor else {})
        async with request(port, "GET", self._path, self._token, headers=headers, version=self._version) as connection:
            self.statuses.append(connection.status)
            self.done = connection.status == 204
            if connection.status != 200:
                return
            self._connection = connection
            try:
                async for frame in connection.frames():
                    self._take(frame)
                    self._news.set()
            finally:
                self._connection = None
                self.retries += connection.sse.retries
                self.whole.append(connection.whole)

    def _take(self, frame: Frame) -> None:
        if frame.id is not None:
            self.cursor = frame.id
        if frame.data is None or frame.event == "stream:cursor":
            return
        if frame.id is None:
            self.controls.append(Control(frame.event, json.loads(frame.data), len(self.events)))
        else:
            self.events.append(Received(frame.id, frame.event, frame.data))


class Busy:
    """A client that asks one thing after the other over a connection that is kept alive, as a proxy does, until it is
    told to `stop` or nobody listens. `lost` are the requests that were sent and had no answer. Of those that this
    process was too slow to send after it had connected nothing is known."""

    def __init__(self, port: int, *, pause_seconds: float = 0) -> None:
        self._port = port
        self._pause = pause_seconds
        self._head = f"GET /api/agent/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_for('a')}\r\n\r\n"
        self.stopped = False
        self.answered: list[float] = []
        self.statuses: set[int] = set()
        self.closed = 0
        self.lost: list[str] = []

    def stop(self) -> None:
        self.stopped = True

    async def run(self) -> None:
        while not self.stopped:
            began, answers = time.monotonic(), len(self.answered)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except (ConnectionRefusedError, ConnectionResetError):  # nothing was sent, so nothing is lost
                return
            was_slow = time.monotonic() - began > SETTLE_SECONDS / 2
            try:
                await self._ask(Connection(reader, writer), writer)
            except (OSError, asyncio.IncompleteReadError) as error:
                if not was_slow or len(self.answered) > answers:
                    self.lost.append(repr(error))
            finally:
                writer.transport.abort()

    async def _ask(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        while not self.stopped and connection.headers.get("connection") != "close":
            writer.write(self._head.encode())
            await connection._head()
            await connection.body()
            self.answered.append(time.monotonic())
            self.statuses.add(connection.status)
            await asyncio.sleep(self._pause)
        self.closed += 1


# --- what is written, and what the log says --------------------------------------------------------------------------


async def read_log(redis: Redis, key: str) -> list[Received]:
    """The truth: the log by XRANGE."""
    rows: Any = await redis.xrange(key)
    found = []
    for id_, fields in rows:
        ((type_, data),) = fields.items()
        found.append(Received(id_.decode(), type_.decode(), data.decode()))
    return found


class Author:
    """Writes the events of one execution straight into its log, as an emitter would, one append each call."""

    def __init__(
        self, redis: Redis, user: str = "alice", execution_id: str = "ex_1", *, limits: LogLimits | None = None
    ) -> None:
        self.redis: Any = redis
        self.owner = Owner(user)
        self.user = user
        self.execution_id = execution_id
        self.keys = self.owner.execution(execution_id)
        self._limits = limits or LogLimits()
        self._numbers = itertools.count(1)
        self.channels = channels_of(redis)

    @property
    def path(self) -> str:
        return stream_path(self.execution_id)

    @property
    def token(self) -> str:
        return token_for(self.user)

    async def write(self, *events: Event) -> EventId:
        """Append, in one step; the log's last id."""
        redact = Redactor()
        prepared = [prepare(event, self.execution_id, redact=redact) for event in events]
        command = append_command(self.owner, self.execution_id, prepared, limits=self._limits, channels=self.channels)
        try:
            reply = await self.redis.execute_command(*command)
        except NoScriptError:
            await self.redis.script_load(APPEND_SCRIPT)
            reply = await self.redis.execute_command(*command)
        appended = read_reply(self.execution_id, reply)
        assert appended.added == len(events)
        return appended.last

    async def begin(self) -> EventId:
        return await self.write(ExecutionStarted(task="t", started_at=1, attempt=1))

    async def say(self, count: int = 1, *, size: int = 0) -> EventId:
        """Append `count` numbered events in one step; `size` bytes of text each."""
        texts = [f"{next(self._numbers)} " + "x" * size for _ in range(count)]
        return await self.write(*(Thinking(thought=text) for text in texts))

    async def think(self, thought: str) -> EventId:
        return await self.write(Thinking(thought=thought))

    async def progress(self, percent: float) -> EventId:
        return await self.write(Progress(progress=percent))

    async def end(self) -> EventId:
        return await self.write(ExecutionComplete(result={"ok": True}, duration=1.0))

    async def log(self) -> list[Received]:
        return await read_log(self.redis, self.keys.log)


@contextlib.asynccontextmanager
async def writing(author: Author, *, pause_seconds: float = 0.005, burst: int = 1) -> AsyncIterator[Callable[[], int]]:
    """Events flow into the log all the while; yields how many appends were done. Redis may be away meanwhile."""
    appends = 0

    async def write() -> None:
        nonlocal appends
        while True:
            await author.say(burst)
            appends += 1
            await asyncio.sleep(pause_seconds)

    task = asyncio.create_task(write(), name="writing")
    try:
        yield lambda: appends
    finally:
        await tasks.end([task])
    if not task.cancelled():
        task.result()


def assert_dense(events: Sequence[Received], first: int = 1) -> None:
    """The ordinals go up by one from `first`."""
    assert [int(re.fullmatch(r"\d+-(\d+)", event.id)[1]) for event in events] == list(  # type: ignore[index]
        range(first, first + len(events))
    )
