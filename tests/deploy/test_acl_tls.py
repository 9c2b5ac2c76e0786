"""A Redis with TLS and an authority of its own, reached by the URL that k8s/components/redis-ca asks for."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from emitter.connection import connect
from tests.deploy.acl_server import SERVERS, START_SECONDS
from tests.deploy.proxies import write_certificate
from tests.ports import reserved_ports

QUERY = "?ssl_ca_certs="


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, Path]]:
    """Its port and its folder, in which tls.crt is the authority as well."""
    if SERVERS["redis"] is None:
        pytest.skip("needs redis-server with TLS (tests/run installs Debian's as root)")
    with reserved_ports(1) as (port,), tempfile.TemporaryDirectory(prefix="runcast-tls-") as folder:
        write_certificate(Path(folder))
        files = ["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key", "--tls-ca-cert-file", "tls.crt"]
        command = [SERVERS["redis"], "--port", "0", "--tls-port", str(port), *files, "--tls-auth-clients", "no"]
        process = subprocess.Popen([*command, "--save", "", "--dir", folder], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            yield port, Path(folder)
        finally:
            process.kill()
            process.wait()


async def ping(url: str) -> bool:
    client = connect(url)
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


async def test_the_url_names_the_authority(server: tuple[int, Path]) -> None:
    """With the authority of `ssl_ca_certs` edges and workers reach such a Redis, without it they refuse to."""
    port, folder = server
    url = f"rediss://127.0.0.1:{port}/0"
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                assert await ping(f"{url}{QUERY}{folder / 'tls.crt'}")
                break
            except RedisConnectionError as error:
                if "certificate" in str(error).lower():
                    raise
                await asyncio.sleep(0.05)
    with pytest.raises(RedisConnectionError, match=r"(?i)certificate"):
        await ping(url)
    component = Path(__file__).parents[2] / "k8s" / "components" / "redis-ca" / "kustomization.yaml"
    assert f"{QUERY}/etc/runcast/redis/ca.crt" in component.read_text()
