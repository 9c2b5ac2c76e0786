"""`runcast doctor URL` against nginx in front of a real edge: set up well, and wrong on purpose."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.doctor.findings import Finding, as_text
from broker.doctor.redis import USER
from broker.doctor.way import caller_of, look_at_way
from broker.embedded import EmbeddedRedis
from tests.deploy.proxies import bare_nginx, needs_nginx
from tests.edges import SECRET, EdgeProcess, edge, token_for
from tests.ports import reserved_ports

IDLE_SECONDS = 2.5
SERVER = """
  server {
    listen 127.0.0.1:{port};
    location / { proxy_pass http://127.0.0.1:%d; proxy_set_header Connection ""; %s }
  }
"""
HEAPS = (
    "proxy_http_version 1.0; proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 1k; proxy_buffers 4 1k; "
    "proxy_busy_buffers_size 2k; postpone_output 0;"
)
HTTP_11 = "proxy_http_version 1.1; "


@pytest.fixture(scope="module")
def stand() -> Iterator[tuple[EmbeddedRedis, EdgeProcess]]:
    with EmbeddedRedis() as redis, edge(redis.url, heartbeat_seconds=1) as started:
        yield redis, started


WRONG = {
    "buffered": ("proxy_http_version 1.0; proxy_ignore_headers X-Accel-Buffering;", "first byte", "X-Accel-Buffering"),
    "heaps": (HEAPS, "events", "proxy_buffering off"),
    "compressed": (
        HTTP_11 + "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;",
        "compression",
        "gzip_types",
    ),
    "impatient": (HTTP_11 + "proxy_read_timeout 500ms;", "idle streams", "proxy_read_timeout"),
    "forgetful": (HTTP_11 + 'proxy_set_header Last-Event-ID "";', "resume", "Last-Event-ID"),
    "anonymous": (HTTP_11 + 'proxy_set_header Authorization "";', "stream", "Authorization"),
}
"""What is in the location block, which finding it causes, and what its change must name."""


async def look(stand: tuple[EmbeddedRedis, EdgeProcess], directives: str) -> dict[str, Finding]:
    redis, edge = stand
    with bare_nginx(SERVER % (edge.port, directives)) as proxy:
        findings = await look_at_way(proxy.url, caller_of(token_for(USER)), redis.url, IDLE_SECONDS)
    return {finding.what: finding for finding in findings}


@pytest.fixture(scope="module")
def looks(stand: tuple[EmbeddedRedis, EdgeProcess]) -> dict[str, dict[str, Finding]]:
    """Every proxy looked at, all at once: a look is mostly waiting."""

    async def all_at_once() -> list[dict[str, Finding]]:
        return await asyncio.gather(look(stand, HTTP_11), *(look(stand, wrong) for wrong, _, _ in WRONG.values()))

    return dict(zip(("well", *WRONG), asyncio.run(all_at_once()), strict=True))


def problems(found: dict[str, Finding]) -> set[str]:
    return {what for what, finding in found.items() if finding.level == "problem"}


@needs_nginx
def test_a_proxy_set_up_well_passes(looks: dict[str, dict[str, Finding]]) -> None:
    """First byte, single events, large ones, resume, headers and idle streams are all in order."""
    found = looks["well"]
    assert {what for what, finding in found.items() if finding.level == "ok"} >= {
        "/metrics", "compression", "first byte", "events", "large events", "resume", "idle streams",
    }, as_text(found.values())  # fmt: skip
    assert not problems(found)


@needs_nginx
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(looks: dict[str, dict[str, Finding]], name: str) -> None:
    """Each mistake is found by its symptom, with the directive to change."""
    _, expected, change = WRONG[name]
    found = looks[name]
    assert expected in problems(found), as_text(found.values())
    assert change in found[expected].change


async def test_what_is_no_edge_is_said(tmp_path: Path) -> None:
    """Nothing there, or something else there: one finding."""
    caller = caller_of(token_for(USER))
    with reserved_ports(1) as (port,):
        nowhere = f"http://127.0.0.1:{port}"
        (found,) = await look_at_way(nowhere, caller, "", IDLE_SECONDS)
    assert (found.what, found.level) == (nowhere, "problem")

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        other = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (found,) = await look_at_way(other, caller, "", IDLE_SECONDS)
    assert "not as a Runcast edge" in found.seen


async def test_the_command_looks_at_both_and_tells_by_its_exit(stand: tuple[EmbeddedRedis, EdgeProcess]) -> None:
    """`runcast doctor URL` prints what it finds; 0 without a problem, 1 with one."""
    redis, edge = stand
    environ = {**os.environ, "RUNCAST_REDIS_URL": redis.url, "RUNCAST_JWT_SECRET": SECRET}

    async def doctor(url: str) -> tuple[int | None, str]:
        command = [sys.executable, "-m", "broker", "doctor", url, "--idle", str(IDLE_SECONDS)]
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    (well, report), (ill, complaint) = await asyncio.gather(
        doctor(f"http://127.0.0.1:{edge.port}"), doctor(f"http://127.0.0.1:{edge.admin_ports[0]}")
    )
    assert (well, ill) == (0, 1), report + complaint
    assert "✓ Redis version" in report
    assert "✓ resume" in report
    assert "✗ http" in complaint
