"""Compression of streams: bytes on the wire and server CPU with and without it, in the same edge, taking turns."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from figures import Figure, Run, at_most, median
from load import Load, Target, Window, load, paced
from processes import ROOT, BenchFailed
from servers import OWNER, Edge, edge, viewer

from emitter import events
from emitter.store import append as log
from emitter.store.connection import connect
from emitter.wire.prepared import Prepared
from emitter.wire.redact import Redactor

VIEWERS = 100
ROUNDS = 3
RATE = 50
SECONDS = 3
ALONE = 500
"""Logs with one viewer each."""
ALONE_RATE = 1000
SETTLE_SECONDS = 0.3
GZIP = "Accept-Encoding: gzip"
Events = Iterator[events.Event]


# --- what is said ----------------------------------------------------------------------------------------------------


def text() -> Events:
    """A model's tokens: the words of a real text, one to three at a time."""
    words, sizes = (ROOT / "README.md").read_text().split(), itertools.cycle((1, 1, 2, 1, 3))
    places = itertools.cycle(range(len(words) - 3))
    for at, size in zip(places, sizes, strict=False):
        yield events.MessageDelta(message_id="msg_1", delta=" ".join(words[at : at + size]) + " ")


def tools() -> Events:
    """Calls with short parameters and results, as most are."""
    files = itertools.cycle(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "broker").rglob("*.py")))
    for number in itertools.count(1):
        path, call = next(files), f"call_{number}"
        yield events.ToolStart(call_id=call, tool_name="read_file", params={"path": path, "encoding": "utf-8"})
        yield events.ToolProgress(call_id=call, progress=number * 7 % 100)
        lines = number * 37 % 900
        result = {"path": path, "lines": lines, "bytes": lines * 41, "truncated": lines > 800}
        yield events.ToolComplete(call_id=call, tool_name="read_file", result=result, duration=number % 97 / 1000)


def results() -> Events:
    """Calls whose results are prose that never was before."""
    lines = itertools.cycle(line for line in (ROOT / "README.md").read_text().splitlines() if len(line) > 60)
    for number in itertools.count(1):
        found = [{"line": number * 7 + at, "text": next(lines)[:160], "score": 0.5} for at in range(5)]
        yield events.ToolComplete(call_id=f"call_{number}", tool_name="search", result=found, duration=0.2)


# --- the bench -------------------------------------------------------------------------------------------------------


def compress(run: Run) -> list[Figure]:
    figures = []
    limits = {"text deltas": (text, 0.35), "tool events": (tools, 0.25), "results of 1 KB of prose": (results, None)}
    for title, (make, limit) in limits.items():
        sides = _shared(run, make)
        figures += _compare(f"{VIEWERS} viewers of one log, {title}", sides, limit, 1.15 if limit else None)
    for title, make in (("text deltas", text), ("results of 1 KB of prose", results)):
        figures += _compare(f"{run.size(ALONE, 50)} logs of one viewer, {title}", _alone(run, make), None, 1.3)
    return figures


def _shared(run: Run, make: Callable[[], Events]) -> dict[bool, list[Window]]:
    """Windows without (False) and with compression."""
    with edge() as server:
        return _rounds(run, server, ["bench"], VIEWERS, RATE, make)


def _alone(run: Run, make: Callable[[], Events]) -> dict[bool, list[Window]]:
    names = [f"x{number}" for number in range(run.size(ALONE, 50))]
    with edge() as server:
        server.create(names)
        return _rounds(run, server, names, len(names), ALONE_RATE, make)


def _rounds(
    run: Run, server: Edge, names: Sequence[str], viewers: int, rate: int, make: Callable[[], Events]
) -> dict[bool, list[Window]]:
    said = make()
    windows: dict[bool, list[Window]] = {False: [], True: []}
    for _ in range(run.size(ROUNDS, 1)):
        for packed, found in windows.items():
            targets = [_target(name, number, packed=packed) for number, name in enumerate(names)]
            with load(run.binaries, server.port, targets, server.pid) as client:
                client.open(viewers)
                found.append(_window(server, client, names, rate, rate * run.size(SECONDS, 1), said))
    _check(server, names[0])
    return windows


def _target(name: str, number: int, *, packed: bool) -> Target:
    path, header, _ = viewer(name, number)
    return Target(f"{path}?from=now", header, (GZIP,) if packed else ())


def _window(server: Edge, client: Load, names: Sequence[str], rate: int, count: int, said: Events) -> Window:
    """What the events of one round cost. The load client cannot read gzip: it counts bytes."""
    asyncio.run(_say(server, names, 50, 50, said))  # what a log's first events cost is another matter
    time.sleep(SETTLE_SECONDS)
    client.begin()
    asyncio.run(_say(server, names, rate, count, said))
    time.sleep(SETTLE_SECONDS)
    per_log = count * (VIEWERS if len(names) == 1 else 1)
    return client.end()._replace(deliveries=per_log)


async def _say(server: Edge, names: Sequence[str], rate: int, count: int, said: Events) -> None:
    redact, places = Redactor(), itertools.cycle(names)
    async with connect(server.redis.url) as redis:
        for _ in paced(rate, count):
            name = next(places)
            prepared: Prepared = log.prepare(next(said), name, redact=redact)
            await log.append(redis, OWNER, name, [prepared])


def _check(server: Edge, name: str) -> None:
    """What a client decodes is what it gets without compression."""
    bodies = [_read(server, name, packed=packed) for packed in (False, True)]
    ids: list[Any] = [re.findall(rb"^id: (\S+)$", body, re.MULTILINE) for body in bodies]
    if ids[0] != ids[1] or not ids[0]:
        raise BenchFailed(f"{len(ids[1])} events were decoded of {len(ids[0])}")


def _read(server: Edge, name: str, *, packed: bool) -> bytes:
    """The log as a stream shows it, until its replay is over."""
    path, header, _ = viewer(name)
    headers = dict([header.split(": "), *([GZIP.split(": ")] if packed else [])])
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    decoder, body = zlib.decompressobj(31), b""
    with urllib.request.urlopen(request, timeout=10) as answer:
        while b"\nevent: stream:live\n" not in body:
            got = answer.read1(65536)
            body += decoder.decompress(got) if packed else got
    return body


def _compare(
    title: str, windows: dict[bool, list[Window]], bytes_limit: float | None, cpu_limit: float | None
) -> list[Figure]:
    plain, packed = windows[False], windows[True]
    size = median([b.bytes / a.bytes for a, b in zip(plain, packed, strict=True)])
    cpu = median([b.server_cpu / a.server_cpu for a, b in zip(plain, packed, strict=True)])
    note = f"{median([each.bytes / each.deliveries for each in packed]):.0f} bytes per delivery"
    cpu_note = f"{median([each.cpu_us for each in packed]):.1f} µs per delivery, {packed[0].joined:.2f} events per read"
    return [
        _figure(f"{title}: bytes, of those without compression", size, bytes_limit, note),
        _figure(f"{title}: CPU, of that without compression", cpu, cpu_limit, cpu_note),
    ]


def _figure(what: str, value: float, limit: float | None, note: str) -> Figure:
    return Figure(what, value, note=note) if limit is None else at_most(what, value, "", limit, note)
