"""What it takes to open a long log: as it was logged, and in short."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from typing import Any, NamedTuple

from figures import Figure, Run, at_most, median
from processes import HERE, BenchFailed, cpu_seconds
from servers import Edge, edge, token, viewer

from emitter.wire.prepared import Prepared

MESSAGES = 40
APPEND = 500


class Opened(NamedTuple):
    """One opening: until `stream:live`, and for the client until the state is folded."""

    seconds: float
    frames: int
    text: int


def replay(run: Run) -> list[Figure]:
    """A log of 10,000 chunks in 40 messages: by the browser client in a fresh Node process, and by a bare socket. Each
    way opens each log. `first` finds nothing in the edge's memory, and takes as long as Redis and the edge take for
    10,000 entries; `again` comes after it."""
    chunks, rounds = run.size(10_000, 2_000), run.size(9, 2)
    client: dict[str, list[Opened]] = {"plain": [], "first": [], "again": []}
    bare: dict[str, list[Opened]] = {name: [] for name in client}
    with edge() as server:
        for number in range(2 * rounds):
            ways, read = (client, _by_client) if number % 2 else (bare, _by_socket)
            if number % 2 and shutil.which("node") is None:
                continue
            name = f"log{number}"
            _write(server, name, chunks)
            for way in ("first", "again", "plain") if number % 4 < 2 else ("plain", "first", "again"):
                ways[way].append(read(server, name, way != "plain"))
        cpu = {compact: _cpu(server, "log0", compact, run.size(40, 5)) for compact in (False, True)}
    figures = _compared("browser client", client) if client["plain"] else []
    if not figures:
        print("  without the browser client: node is not installed")
    figures += _compared("bare socket", bare)
    ratio = cpu[True] / cpu[False]
    note = f"{cpu[True] * 1000:.1f} against {cpu[False] * 1000:.1f} ms for an opening"
    return [*figures, at_most("edge CPU, again / plain", ratio, "x", 0.2, note)]


def _compared(who: str, ways: dict[str, list[Opened]]) -> list[Figure]:
    """The frames of a short replay, and its time as a part of a plain one's: of each log, then the median."""
    if len({each.text for opened in ways.values() for each in opened}) != 1:
        raise BenchFailed(f"{who}: not the same text each time")
    frames = max(each.frames for each in ways["first"] + ways["again"])
    figures = [at_most(f"{who}: frames", frames, "", 60, f"{ways['plain'][0].frames:,} as logged")]
    for way, target in (("first", None), ("again", 0.1)):
        pairs = zip(ways[way], ways["plain"], strict=True)
        ratio = median([short.seconds / plain.seconds for short, plain in pairs])
        short, plain = (median([each.seconds for each in ways[name]]) * 1000 for name in (way, "plain"))
        title, note = f"{who}: {way} / plain", f"{short:.1f} against {plain:.1f} ms"
        figures.append(
            Figure(title, ratio, "x", note=note) if target is None else at_most(title, ratio, "x", target, note)
        )
    return figures


def _write(server: Edge, execution_id: str, chunks: int) -> None:
    for first in range(0, chunks, APPEND):
        batch = [_chunk(execution_id, number, chunks // MESSAGES) for number in range(first, first + APPEND)]
        server.publish([(execution_id, batch)])


def _chunk(execution_id: str, number: int, a_message: int) -> Prepared:
    data = f'{{"messageId":"m{number // a_message}","delta":"token {number:06} of it "}}'
    stamp = 1_763_682_345_119 + number
    json_ = f'{{"type":"message:delta","executionId":"{execution_id}","ts":{stamp},"data":{data}}}'
    return Prepared("message:delta", json_.encode())


def _by_client(server: Edge, execution_id: str, compact: bool) -> Opened:
    node = shutil.which("node")
    assert node is not None
    arguments = [f"http://127.0.0.1:{server.port}", token(), "bench", execution_id, str(compact).lower()]
    done = subprocess.run(
        [node, HERE / "replay_client.mjs", *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    return Opened(seen["ms"] / 1000, seen["frames"], seen["text"])


def _by_socket(server: Edge, execution_id: str, compact: bool) -> Opened:
    """Reads and looks at nothing, so that it is the edge's time."""
    path, header, *_ = viewer(execution_id)
    query = "?compact=true" if compact else ""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        began = time.perf_counter()
        sock.sendall(f"GET {path}{query} HTTP/1.1\r\nHost: bench\r\n{header}\r\n\r\n".encode())
        while b"stream:live" not in received[-4096:]:
            piece = sock.recv(1 << 20)
            if not piece:
                raise BenchFailed("the stream ended before it was live")
            received += piece
        seconds = time.perf_counter() - began
    body = bytes(received).partition(b"\r\n\r\n")[2]
    return Opened(seconds, body.count(b"\nevent: ") + body.startswith(b"event: "), body.count(b"token "))


def _cpu(server: Edge, execution_id: str, compact: bool, openings: int) -> float:
    """The edge's CPU seconds of an opening."""
    before = cpu_seconds(server.pid)
    for _ in range(openings):
        _by_socket(server, execution_id, compact)
    return (cpu_seconds(server.pid) - before) / openings
