"""A Redis with TLS and an authority of its own, reached by the URL that k8s/components/redis-ca asks for."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from emitter.store.connection import GONE, connect
from tests.deploy.acl_server import SERVERS, START_SECONDS
from tests.deploy.proxies import write_certificate
from tests.edges import edge, under_load
from tests.ports import reserved_ports

QUERY = "?ssl_ca_certs="


class TlsServers:
    """Servers that speak nothing but TLS, in one folder, in which tls.crt is the authority as well."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        if SERVERS["redis"] is None:
            pytest.skip("needs redis-server with TLS (tests/run installs Debian's as root)")
        self._stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runcast-tls-")))
        write_certificate(self.folder)
        self.query = f"{QUERY}{self.folder / 'tls.crt'}"

    def start(self, port: int, *arguments: str) -> None:
        files = ["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key", "--tls-ca-cert-file", "tls.crt"]
        command = [str(SERVERS["redis"]), *arguments, "--port", "0", "--tls-port", str(port), *files]
        command += ["--tls-auth-clients", "no", "--tls-replication", "yes", "--save", "", "--bind", "127.0.0.1"]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)


@pytest.fixture
def servers() -> Iterator[TlsServers]:
    with contextlib.ExitStack() as stack:
        yield TlsServers(stack)


@pytest.fixture
def ports() -> Iterator[list[int]]:
    with reserved_ports(2) as found:
        yield found


async def ping(url: str) -> bool:
    client = connect(url)
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


async def until_it_answers(url: str) -> None:
    async with asyncio.timeout(under_load(START_SECONDS)):
        while True:
            try:
                assert await ping(url)
                return
            except GONE as error:
                if "certificate" in str(error).lower():
                    raise
                await asyncio.sleep(0.05)


async def test_the_url_names_the_authority(servers: TlsServers, ports: list[int]) -> None:
    """With the authority of `ssl_ca_certs` edges and workers reach such a Redis, without it they refuse to."""
    servers.start(ports[0])
    url = f"rediss://127.0.0.1:{ports[0]}/0"
    await until_it_answers(url + servers.query)
    with pytest.raises(RedisConnectionError, match=r"(?i)certificate"):
        await ping(url)
    component = Path(__file__).parents[2] / "k8s" / "components" / "redis-ca" / "kustomization.yaml"
    assert f"{QUERY}/etc/runcast/redis/ca.crt" in component.read_text()


async def test_a_cluster_with_tls(servers: TlsServers, ports: list[int]) -> None:
    """`rediss+cluster` reaches every node with TLS, those that the first one names as well."""
    servers.start(ports[0], "--cluster-enabled", "yes", "--cluster-port", str(ports[1]), "--tls-cluster", "yes")
    plain = f"rediss://127.0.0.1:{ports[0]}/0{servers.query}"
    await until_it_answers(plain)
    node = connect(plain)
    await node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(under_load(START_SECONDS)):
        while (await node.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
            await asyncio.sleep(0.05)
    await node.aclose()
    with edge(f"rediss+cluster://127.0.0.1:{ports[0]}{servers.query}") as started:
        assert started.admin_status("/readyz") == 200


async def test_sentinels_with_tls(servers: TlsServers, ports: list[int]) -> None:
    """`rediss+sentinel` asks the Sentinels with TLS, and reaches the primary that they name with TLS."""
    servers.start(ports[0])
    await until_it_answers(f"rediss://127.0.0.1:{ports[0]}{servers.query}")
    (servers.folder / "sentinel.conf").write_text(f"sentinel monitor main 127.0.0.1 {ports[0]} 1\n")
    servers.start(ports[1], "sentinel.conf", "--sentinel")
    url = f"rediss+sentinel://127.0.0.1:{ports[1]}/main/0{servers.query}"
    await until_it_answers(url)
    with edge(url) as started:
        assert started.admin_status("/readyz") == 200
