"""`runcast doctor URL` against proxies in front of a real edge: as deploy/ sets them up, and nginx wrong on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator

import pytest

from broker.cli.doctor.findings import Finding, as_text
from broker.cli.doctor.network_path import caller_of, look_at_way
from broker.cli.doctor.redis import USER
from broker.cli.embedded import EmbeddedRedis
from tests.deploy.proxies import DEPLOYED, HERE, PROXIES, Proxy, bare_nginx, needs_nginx, write_certificate
from tests.edges import SECRET, EdgeProcess, edge, token_for
from tests.ports import reserved_ports

IDLE_SECONDS = 2.5
SERVER = """
  proxy_cache_path {folder}/cache keys_zone=cache:1m;
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
PLAIN = 'proxy_set_header Accept-Encoding ""; '
"""With this, the edge must leave the compression to nginx."""
COMPRESSING = "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;"


@pytest.fixture(scope="module")
def stand() -> Iterator[tuple[EmbeddedRedis, EdgeProcess]]:
    with EmbeddedRedis() as redis, edge(redis.url, heartbeat_seconds=1) as started:
        yield redis, started


WRONG = {
    "buffered": ("proxy_http_version 1.0; proxy_ignore_headers X-Accel-Buffering;", "first byte", "X-Accel-Buffering"),
    "heaps": (HEAPS, "events", "proxy_buffering off"),
    "compressed": (
        HTTP_11 + PLAIN + COMPRESSING,
        "compression",
        "gzip_types",
    ),
    "impatient": (HTTP_11 + "proxy_read_timeout 500ms;", "idle streams", "proxy_read_timeout"),
    "forgetful": (HTTP_11 + 'proxy_set_header Last-Event-ID "";', "resume", "Last-Event-ID"),
    "keeping": (
        HTTP_11 + "proxy_cache cache; proxy_cache_valid 200 1m; proxy_ignore_headers Cache-Control X-Accel-Buffering;",
        "caching",
        "proxy_cache off",
    ),
    "of two types": (HTTP_11 + "add_header Content-Type text/html;", "content type", "add_header"),
    "without its query": (HTTP_11 + "rewrite ^(.*)$ $1? break;", "query", "$is_args"),
    "with a login": (
        HTTP_11 + "if ($uri ~ ^/api) { return 302 https://login.example.com/?next=1; }",
        "stream",
        "login",
    ),
    "of metrics": (HTTP_11 + "if ($uri = /metrics) { return 200 'runcast_build_info 1'; }", "/metrics", "ADMIN_PORT"),
    "anonymous": (HTTP_11 + 'proxy_set_header Authorization "";', "stream", "Authorization"),
}
"""What is in the location block, which finding it causes, and what its change must name."""


def proxies(edge: EdgeProcess) -> dict[str, Proxy]:
    """All that are looked at, as far as they are installed."""
    wrong = WRONG if "nginx" in HERE else {}
    nginxes = {name: bare_nginx(SERVER % (edge.port, directives)) for name, (directives, _, _) in wrong.items()}
    if wrong:
        nginxes["compressing"] = bare_nginx(SERVER % (edge.port, HTTP_11 + COMPRESSING))
    return {name: DEPLOYED[name]([edge]) for name in HERE} | nginxes


async def look(redis: EmbeddedRedis, proxy: Proxy) -> dict[str, Finding]:
    findings = await look_at_way(proxy.url, caller_of(token_for(USER)), redis.url, IDLE_SECONDS)
    return {finding.what: finding for finding in findings}


@pytest.fixture(scope="module")
def looks(stand: tuple[EmbeddedRedis, EdgeProcess]) -> dict[str, dict[str, Finding]]:
    """Every proxy looked at, all at once: a look is mostly waiting. They start before and end after all looks: to wait
    for a process would hold up the others, which measure."""
    redis, edge = stand
    looked_at = proxies(edge)

    async def all_at_once() -> list[dict[str, Finding]]:
        return await asyncio.gather(*(look(redis, proxy) for proxy in looked_at.values()))

    with contextlib.ExitStack() as stack:
        for proxy in looked_at.values():
            stack.enter_context(proxy)
        return dict(zip(looked_at, asyncio.run(all_at_once()), strict=True))


@needs_nginx
def test_a_compressed_stream_has_one_fault(looks: dict[str, dict[str, Finding]]) -> None:
    """What cannot be read is not judged for its heartbeats as well."""
    assert not {"idle streams", "heartbeats"} & looks["compressed"].keys()


def problems(found: dict[str, Finding]) -> set[str]:
    return {what for what, finding in found.items() if finding.level == "problem"}


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_as_deployed_passes(looks: dict[str, dict[str, Finding]], name: str) -> None:
    """First byte, single events, large ones, resume, headers and idle streams are all in order."""
    found = looks[name]
    assert {what for what, finding in found.items() if finding.level == "ok"} >= {
        "/metrics", "compression", "first byte", "large events", "resume", "idle streams",
    }, as_text(found.values())  # fmt: skip
    assert found["events"].level in ("ok", "warning")  # a busy machine delays them evenly, too
    assert not problems(found)


@needs_nginx
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(looks: dict[str, dict[str, Finding]], name: str) -> None:
    """Each mistake is found by its symptom, with the directive to change."""
    _, expected, change = WRONG[name]
    found = looks[name]
    assert expected in problems(found), as_text(found.values())
    assert change in found[expected].change


@pytest.mark.parametrize("name", PROXIES)
def test_the_edges_own_compression_is_no_fault(looks: dict[str, dict[str, Finding]], name: str) -> None:
    """Proxies as deployed pass it through, and the doctor reads it."""
    assert "by the edge" in looks[name]["compression"].seen


@needs_nginx
def test_what_an_edge_has_compressed_nobody_compresses_again(looks: dict[str, dict[str, Finding]]) -> None:
    """An nginx that would compress streams leaves those of clients that take gzip alone."""
    found = looks["compressing"]
    assert "by the edge" in found["compression"].seen
    assert not problems(found)


async def test_an_address_where_nothing_is_is_one_finding() -> None:
    """Nobody answers."""
    caller = caller_of(token_for(USER))
    with reserved_ports(1) as (port,):
        nowhere = f"http://127.0.0.1:{port}"
        (found,) = await look_at_way(nowhere, caller, "", IDLE_SECONDS)
    assert (found.what, found.level) == (nowhere, "problem")


PAGE = b"<html>log in to Runcast</html>"
STRANGERS = {
    "somebody else": (b"200 OK\r\nContent-Length: 2\r\n\r\nhi", "not like a Runcast edge", "address"),
    "a page": (
        b"200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE),
        "not like a Runcast edge",
        "address",
    ),
    "a compressed page": (
        b"200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b12",
        "not like a Runcast edge",
        "address",
    ),
    "a redirect": (
        b"302 Found\r\nLocation: https://login.example.com/in?secret=1\r\nContent-Length: 0\r\n\r\n",
        "sends to https://login.example.com/in",
        "login",
    ),
    "a login": (b"401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "answers 401", "login"),
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_what_answers_in_the_place_of_an_edge_is_told(name: str) -> None:
    """One finding says what it is and what to do, and nothing of a redirect's query, which may be a secret."""
    raw, seen, change = STRANGERS[name]

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + raw)
        writer.close()

    with reserved_ports(1) as (port,):
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            url = f"http://127.0.0.1:{port}"
            (found,) = await look_at_way(url, caller_of(token_for(USER)), "", IDLE_SECONDS)
    assert (found.what, found.level) == (url, "problem")
    assert seen in found.seen
    assert change in found.change
    assert "secret" not in as_text([found])


@needs_nginx
async def test_a_certificate_that_nobody_knows_is_named(stand: tuple[EmbeddedRedis, EdgeProcess]) -> None:
    """Browsers would refuse it as well: one finding, about the certificate and not the address."""
    tls = "listen 127.0.0.1:{tls_port} ssl; ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key;"
    proxy = bare_nginx((SERVER % (stand[1].port, HTTP_11)).replace("location", tls + " location"))
    write_certificate(proxy.folder)
    with proxy:
        url = f"https://127.0.0.1:{proxy.tls_port}"
        (found,) = await look_at_way(url, caller_of(token_for(USER)), "", IDLE_SECONDS)
    assert found.seen.startswith("TLS fails")
    assert "certificate" in found.change


async def test_edges_of_another_redis_are_told(stand: tuple[EmbeddedRedis, EdgeProcess]) -> None:
    """An edge that does not see what the doctor writes is no matter of routes."""
    url = f"http://127.0.0.1:{stand[1].port}"
    with EmbeddedRedis() as other:
        findings = await look_at_way(url, caller_of(token_for(USER)), other.url, IDLE_SECONDS)
    [refused] = [finding for finding in findings if finding.what == "stream"]
    assert refused.seen.startswith("404")
    assert "RUNCAST_REDIS_URL" in refused.change


async def test_a_token_without_the_scope_is_told(stand: tuple[EmbeddedRedis, EdgeProcess]) -> None:
    """What the token may not do is no matter of routes either."""
    url, token = f"http://127.0.0.1:{stand[1].port}", token_for(USER, scopes=("events:publish",))
    findings = await look_at_way(url, caller_of(token), "", IDLE_SECONDS)
    assert "executions:read" in as_text(findings)


@needs_nginx
async def test_a_path_before_the_edges_and_an_address_of_ipv6_are_fine(
    stand: tuple[EmbeddedRedis, EdgeProcess],
) -> None:
    """A proxy may have the edge below a path, and listen on whatever it likes."""
    conf = (
        "server { listen [::1]:{port}; listen 127.0.0.1:{port}; "
        "location /agents/ { proxy_pass http://127.0.0.1:%d/; proxy_set_header Connection ''; %s } }"
    )
    with bare_nginx(conf % (stand[1].port, HTTP_11)) as proxy:
        url = f"http://[::1]:{proxy.port}/agents/"
        findings = await look_at_way(url, caller_of(token_for(USER)), stand[0].url, IDLE_SECONDS)
    assert "resume" in {finding.what for finding in findings if finding.level == "ok"}
    assert not problems({finding.what: finding for finding in findings}), as_text(findings)


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
