"""The servers that are measured: the bare send loop, Nchan, a hand-made one, and an edge.

For one stream, the first of `targets`: `send(rate, count)` publishes frames of FRAME_BYTES and returns when the last
was handed over. For many: `watching(number)` is what the viewer of stream `x<number>` asks for, `road` and `address`
are what `traffic.py` publishes by, and `redis` is the store of its own, if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jwt
from load import Target, paced
from processes import (
    CORES,
    OTHER_CORES,
    ROOT,
    SERVER_CORE,
    BenchFailed,
    Dialogue,
    children,
    dialogue,
    process,
    wait_until,
)

from broker.cli.embedded import EmbeddedRedis
from emitter.publishing import outbox
from emitter.store import append as log
from emitter.store.connection import connect
from emitter.wire import ids, keys
from emitter.wire.prepared import Prepared
from tests.ports import reserved_ports

FRAME_BYTES = 270
"""One event on the wire: id, event and data lines and the blank line, without the chunk framing around it."""
SECRET = "bench-secret-of-at-least-32-characters"
OWNER = keys.Owner("bench")
NCHAN_OVERHEAD = len("id: 1763682345:0\ndata: \n\n")
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def mark(ordinal: int | None = None) -> str:
    """What the load client reads latencies from, and whether an event of a stream is missing or comes twice."""
    return f"t={time.time_ns()};" if ordinal is None else f"t={time.time_ns()}.{ordinal};"


# --- the floor -------------------------------------------------------------------------------------------------------


class SendLoop:
    """`send_loop.c`: the same bytes to N sockets, and nothing else."""

    name = "send loop"

    def __init__(self, child: Dialogue, port: int) -> None:
        self._child = child
        self.pid = child.pid
        self.port = port
        self.targets = [Target("/")]

    def send(self, rate: float, count: int) -> None:
        self._child.ask(f"send {rate} {count}")


@contextlib.contextmanager
def send_loop(binaries: Path) -> Iterator[SendLoop]:
    with dialogue([binaries / "send_loop", str(FRAME_BYTES)], on_server_core=True) as child:
        yield SendLoop(child, int(child.hear()["port"]))


# --- Nchan -----------------------------------------------------------------------------------------------------------

NCHAN_CONF = """
load_module {module};
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  access_log off; tcp_nodelay on; keepalive_timeout 600; keepalive_requests 1000000;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  nchan_shared_memory_size 512m;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/sub/(.+)$ {{
      nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest;
      nchan_eventsource_ping_interval 0;
    }}
    location ~ ^/pub/(.+)$ {{
      nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 1500; nchan_message_timeout 10m;
    }}
  }}
}}
"""


class Nchan:
    """nginx with libnginx-mod-nchan: the same product idea in C. One worker; messages are published by HTTP POST."""

    name = "Nchan"
    road = "post"
    redis = None

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port
        self.address = str(port)
        self.targets = [self.watching("bench")]

    def watching(self, stream: str) -> Target:
        return Target(f"/sub/{stream}")

    def send(self, rate: float, count: int) -> None:
        """One POST an event; without a rate they are pipelined, as fast as nginx takes them."""
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.settimeout(60)
            answers = sock.makefile("rb")
            if rate:
                for _ in paced(rate, count):
                    sock.sendall(self._post())
                    read_answer(answers)
            else:
                for _ in range(0, count, 50):
                    sock.sendall(b"".join(self._post() for _ in range(50)))
                    for _ in range(50):
                        read_answer(answers)

    def _post(self) -> bytes:
        body = mark().ljust(FRAME_BYTES - NCHAN_OVERHEAD, "x").encode()
        head = f"POST /pub/bench HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


def read_answer(answers: Any) -> None:
    length = 0
    while (line := answers.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    answers.read(length)


def nchan_missing() -> str:
    """Why Nchan cannot be measured; empty if it can."""
    if shutil.which("nginx") is None:
        return "nginx is not installed"
    return "" if NCHAN_MODULE.exists() else "libnginx-mod-nchan is not installed"


@contextlib.contextmanager
def nchan() -> Iterator[Nchan]:
    with reserved_ports(1) as (port,), tempfile.TemporaryDirectory(prefix="runcast-nchan-") as directory:
        Path(directory).chmod(0o777)  # its worker may run as another user
        config = Path(directory) / "nginx.conf"
        config.write_text(NCHAN_CONF.format(module=NCHAN_MODULE, directory=directory, port=port))
        command = ["nginx", "-p", directory, "-c", config]
        with process(command, on_server_core=True, stderr=subprocess.DEVNULL) as master:
            wait_until("nginx", lambda: children(master.pid) and answers_on(port))
            yield Nchan(children(master.pid)[0], port)


def answers_on(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- hand-made -------------------------------------------------------------------------------------------------------


class HandMade:
    """`handmade.py` on a Redis of its own."""

    name = "hand-made"
    road = "xadd"

    def __init__(self, pid: int, port: int, redis: EmbeddedRedis) -> None:
        self.pid = pid
        self.port = port
        self.redis = redis
        self.address = redis.url

    def watching(self, stream: str) -> Target:
        return Target(f"/{stream}")


@contextlib.contextmanager
def hand_made(redis: EmbeddedRedis) -> Iterator[HandMade]:
    with reserved_ports(1) as (port,):
        command = [sys.executable, ROOT / "tests" / "bench" / "handmade.py", redis.url, str(port)]
        with process(command, on_server_core=True) as child:
            wait_until("the hand-made server", lambda: answers_on(port), 20)
            yield HandMade(child.pid, port, redis)


# --- the edge --------------------------------------------------------------------------------------------------------


def token(number: int = 0) -> str:
    scope = "executions:read executions:write"
    claims = {"sub": OWNER.user, "exp": int(time.time()) + 3600, "scope": scope, "jti": f"bench-{number}"}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def viewer(execution_id: str, number: int = 0) -> Target:
    return Target(f"/api/agent/executions/{execution_id}/stream", f"Authorization: Bearer {token(number)}")


def bench_event(execution_id: str, type_: str = "tool:progress", *, ordinal: int | None = None) -> Prepared:
    """An event whose frame has FRAME_BYTES, made by hand so that the publisher costs next to nothing."""
    stamp = ids.now_ms()
    data = f'{{"callId":"c1","message":"{mark(ordinal)}'
    json = f'{{"type":"{type_}","executionId":"{execution_id}","ts":{stamp},"data":{data}'
    overhead = len(f"id: {stamp}-100\nevent: {type_}\ndata: \n\n") + len('"}}')
    return Prepared(type_, (json.ljust(FRAME_BYTES - overhead, "x") + '"}}').encode())


class Edge:
    """`python -m broker serve` on a Redis of its own."""

    name = "Runcast"
    road = "emitter"

    def __init__(self, pid: int, port: int, admin_port: int, redis: EmbeddedRedis) -> None:
        self.pid = pid
        self.port = port
        self.admin_port = admin_port
        self.redis = redis
        self.address = redis.url
        self.targets = [viewer("bench")]
        self.start_seconds = 0.0
        self._producers = 0

    def watching(self, stream: str) -> Target:
        return viewer(stream)

    def create(self, execution_ids: Sequence[str]) -> None:
        """Executions that have begun: each log has one event."""
        self.publish([(execution_id, [bench_event(execution_id)]) for execution_id in execution_ids])

    def publish(self, batches: Sequence[tuple[str, list[Prepared]]]) -> None:
        """Append each batch to its execution's log, by one pipeline."""
        self._producers += 1
        asyncio.run(self._publish(batches, f"bench-{self._producers}"))

    async def _publish(self, batches: Sequence[tuple[str, list[Prepared]]], producer: str) -> None:
        async with connect(self.redis.url, timeout=60) as redis:
            await redis.script_load(log.APPEND_SCRIPT)
            pipe = redis.pipeline(transaction=False)
            for number, (execution_id, events) in enumerate(batches):
                options = {"producer": f"{producer}-{number}", "first_seq": 1}
                pipe.execute_command(*log.append_command(OWNER, execution_id, events, **options))
            for (execution_id, _), reply in zip(batches, await pipe.execute(), strict=True):
                log.read_reply(execution_id, reply)

    def send(self, rate: float, count: int) -> None:
        asyncio.run(self._send(rate, count))

    async def _send(self, rate: float, count: int) -> None:
        """One append an event at a rate; without one, batches as the emitter makes them."""
        self._producers += 1
        options: dict[str, Any] = {"producer": f"bench-{self._producers}"}
        async with connect(self.redis.url) as redis:
            if rate:
                for number in paced(rate, count):
                    events = [bench_event("bench")]
                    await log.append(redis, OWNER, "bench", events, first_seq=number + 1, **options)
                return
            batch = outbox.PublisherOptions().max_batch
            for number in range(0, count, batch):
                events = [bench_event("bench") for _ in range(min(batch, count - number))]
                await log.append(redis, OWNER, "bench", events, first_seq=number + 1, **options)

    def calls(self, command: str = "") -> int:
        """How often Redis was asked for a command, or for any."""
        return asyncio.run(self._calls(command))

    async def _calls(self, command: str) -> int:
        async with connect(self.redis.url) as redis:
            stats = await redis.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if not command or name == f"cmdstat_{command}")

    def ready(self, number: int = 0) -> bool:
        """Whether the process with this number is."""
        try:
            self._ask(number, "readyz")
        except OSError:
            return False
        return True

    def streams(self, number: int) -> int:
        """Open streams of the process with this number."""
        lines = self._ask(number, "metrics").splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("runcast_connections "))))

    def _ask(self, number: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port + number}/{path}", timeout=5) as answer:
            return str(answer.read().decode())


def edge_environment(redis: EmbeddedRedis, port: int, admin_port: int) -> dict[str, str]:
    """Every limit that would refuse a bench is off; all else is at its default."""
    rates = ("CONNECTS", "EXECUTES", "PUBLISHES", "READS", "ANSWERS", "CANCELS", "TICKETS")
    limits = ("MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_USER", *(f"{what}_PER_MINUTE" for what in rates))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RUNCAST_")}
    return (
        inherited
        | {f"RUNCAST_{name}": "0" for name in limits}
        | {
            "RUNCAST_REDIS_URL": redis.url,
            "RUNCAST_HOST": "127.0.0.1",
            "RUNCAST_PORT": str(port),
            "RUNCAST_ADMIN_HOST": "127.0.0.1",
            "RUNCAST_ADMIN_PORT": str(admin_port),
            "RUNCAST_JWT_SECRET": SECRET,
            "RUNCAST_DRAIN_SECONDS": "0",
        }
    )


@contextlib.contextmanager
def embedded_redis(*, on_server_core: bool = False, durable: bool = False) -> Iterator[EmbeddedRedis]:
    """`durable`: with an append-only file, synced every second."""
    with EmbeddedRedis(*(("--appendonly", "yes", "--appendfsync", "everysec") if durable else ())) as redis:
        os.sched_setaffinity(redis_pid(redis), SERVER_CORE if on_server_core else OTHER_CORES)
        yield redis


def redis_pid(redis: EmbeddedRedis) -> int:
    assert redis.process is not None
    return redis.process.pid


@contextlib.contextmanager
def edge(redis: EmbeddedRedis | None = None, port: int = 0, workers: int = 0) -> Iterator[Edge]:
    """An edge, by default on a Redis of its own; with `workers`, so many on a port, on all cores, and `pid` is their
    supervisor. Its log goes to a file, as it would in earnest; the end of it is shown if the edge does not start."""
    with contextlib.ExitStack() as stack:
        store = redis or stack.enter_context(embedded_redis())
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        free, admin_port, *_ = stack.enter_context(reserved_ports(2 + workers))
        port = port or free
        command = [sys.executable, "-m", "broker", "serve", *(["--workers", str(workers)] if workers else [])]
        options = {"env": edge_environment(store, port, admin_port), "cwd": ROOT, "stdout": log, "stderr": log}
        child = stack.enter_context(process(command, on_server_core=True, **options))
        server = Edge(child.pid, port, admin_port, store)
        began = time.monotonic()
        try:
            for number in range(max(1, workers)):
                wait_until("the edge", lambda: server.ready(number), 20)  # noqa: B023
        except BenchFailed:
            log.seek(0)
            print(log.read()[-2000:])
            raise
        server.start_seconds = time.monotonic() - began
        for pid in children(server.pid) if workers else ():
            os.sched_setaffinity(pid, CORES)
        if redis is None:
            server.create(["bench"])
        yield server
