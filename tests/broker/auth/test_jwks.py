"""Published keys are fetched without making anyone wait, kept when the provider fails, and bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.auth.jwks import MAX_ABSENT, RETRY_SECONDS, Jwks


class Provider:
    """An identity provider whose answer a test sets. `asked` counts the requests."""

    def __init__(self) -> None:
        self.answer: web.Response | None = None
        self.body = b""
        self.asked = 0
        self.hosts: list[str] = []
        self.answers: list[bytes] = []
        """What to answer next, before `body`."""
        self.hold = asyncio.Event()
        self.hold.set()
        self.arrived = asyncio.Condition()

    def publish(self, *key_ids: str) -> None:
        to_jwk = jwt.algorithms.OKPAlgorithm.to_jwk
        keys = [
            {**to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True), "kid": key_id}
            for key_id in key_ids
        ]
        self.body = json.dumps({"keys": keys}).encode()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        async with self.arrived:
            self.asked += 1
            self.hosts.append(request.host)
            self.arrived.notify_all()
        await self.hold.wait()
        if request.path == "/moved":
            raise web.HTTPFound("/keys")
        if not self.body:
            raise web.HTTPServiceUnavailable
        return web.Response(body=self.answers.pop(0) if self.answers else self.body)

    async def wait_asked(self, count: int) -> None:
        async with self.arrived, asyncio.timeout(5):
            await self.arrived.wait_for(lambda: self.asked >= count)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
async def server(provider: Provider) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_get("/{path:.*}", provider.handle)
    async with TestServer(app) as server:
        yield server


def keys_at(server: TestServer, path: str = "/keys", **options: Any) -> Jwks:
    return Jwks(str(server.make_url(path)), **options)


async def test_keys_are_there_once_started(provider: Provider, server: TestServer) -> None:
    """Entering fetches the set once; finding a key asks nobody."""
    provider.publish("a")
    async with keys_at(server) as keys:
        assert keys.loaded
        assert keys.find("a")
        assert not keys.find("b")
        assert provider.asked == 1


async def test_an_unknown_key_is_fetched_once_for_all_who_ask(provider: Provider, server: TestServer) -> None:
    """Many requests with a new key cause one fetch, and it is there at once, right after the start as well."""
    provider.publish("a")
    async with keys_at(server) as keys:
        provider.publish("a", "b")
        provider.hold.clear()
        waiting = [asyncio.create_task(keys.refresh("b")) for _ in range(50)]
        await provider.wait_asked(2)
        provider.hold.set()
        assert set(await asyncio.gather(*waiting)) == {0}
        assert keys.find("b")
        assert provider.asked == 2


async def test_a_fetch_that_began_before_proves_nothing(provider: Provider, server: TestServer) -> None:
    """A key that was published while somebody's fetch was under way is looked for again, not taken for made up."""
    provider.publish("a")
    async with keys_at(server) as keys:
        provider.hold.clear()
        stranger = asyncio.create_task(keys.refresh("x"))
        await provider.wait_asked(2)
        real = asyncio.create_task(keys.refresh("b"))
        await asyncio.sleep(0)
        old = provider.body
        provider.publish("a", "b")
        provider.answers = [old]
        provider.hold.set()
        assert await asyncio.gather(stranger, real) == [0, 0]
        assert keys.find("b")


async def test_made_up_keys_cause_few_fetches(provider: Provider, server: TestServer) -> None:
    """So many at once, then one in a while. Who comes then is told to come back, since nothing is known of the key."""
    provider.publish("a")
    async with keys_at(server, fetches_at_once=3, refill_seconds=1.5) as keys:
        waits = [await keys.refresh(f"x{number}") for number in range(20)]
        assert waits[:3] == [0, 0, 0]
        assert waits[-1] == 1.5
        asked = provider.asked
        assert 1 + 3 <= asked < 10
        provider.publish("a", "b")
        async with asyncio.timeout(10):
            while not keys.find("b"):
                await asyncio.sleep(await keys.refresh("b"))
        assert provider.asked == asked + 1
        assert keys.find("b"), "no later than the refill, however many others ask"


async def test_one_unknown_key_causes_one_fetch(provider: Provider, server: TestServer) -> None:
    """A client that repeats a token of somebody else leaves the allowance to others; after a while it is asked again,
    and an endless id never is."""
    provider.publish("a")
    async with keys_at(server, fetches_at_once=2, refill_seconds=1000, absent_seconds=1) as keys:
        assert [await keys.refresh("x") for _ in range(20)] == [0] * 20
        assert await keys.refresh("y" * 300) == 0
        assert provider.asked == 2
        provider.publish("a", "x")
        await asyncio.sleep(1)
        assert await keys.refresh("x") == 0
        assert keys.find("x")


async def test_what_is_remembered_of_unknown_keys_is_bounded(provider: Provider, server: TestServer) -> None:
    """Only the newest thousand ids."""
    provider.publish("a")
    async with keys_at(server, fetches_at_once=10_000) as keys:
        for number in range(MAX_ABSENT + 5):
            await keys.refresh(str(number))
        assert len(keys._absent) == MAX_ABSENT


async def test_keys_come_through_a_proxy(
    provider: Provider, server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment names a proxy, the provider is asked through it."""
    provider.publish("a")
    monkeypatch.setenv("http_proxy", str(server.make_url("/")))
    async with Jwks("http://id.example.test/keys") as keys:
        assert keys.find("a")
    assert provider.hosts == ["id.example.test"]


async def test_a_client_that_leaves_does_not_stop_the_fetch(provider: Provider, server: TestServer) -> None:
    """Cancelling one who waits for new keys leaves the fetch to the others."""
    provider.publish("a")
    async with keys_at(server) as keys:
        provider.publish("b")
        provider.hold.clear()
        leaving, staying = asyncio.create_task(keys.refresh("b")), asyncio.create_task(keys.refresh("b"))
        await provider.wait_asked(2)
        leaving.cancel()
        provider.hold.set()
        await staying
        assert leaving.cancelled() or leaving.cancelling()
        assert keys.find("b")


async def test_old_keys_stay_when_the_provider_fails(provider: Provider, server: TestServer) -> None:
    """A failed fetch is logged and changes nothing, and nobody is told that a key is unknown; the generation moves only
    when keys really change."""
    provider.publish("a")
    async with keys_at(server, fetches_at_once=100) as keys:
        first = keys.generation
        await keys.refresh("b")
        assert keys.generation == first, "the same bytes are the same keys"
        for body in (b"", b"not json", b'{"keys":[]}'):
            provider.body = body
            with structlog.testing.capture_logs() as logs:
                assert await keys.refresh("c") == RETRY_SECONDS
            assert [(line["event"], line["stale"]) for line in logs] == [("jwks_fetch_failed", True)]
            assert keys.find("a")
        provider.publish("c")
        assert await keys.refresh("c") == 0
        assert keys.generation == first + 1
        assert not keys.find("a")


async def test_keys_are_refetched_when_they_age(provider: Provider, server: TestServer) -> None:
    """Without any request the set is fetched again after its age."""
    provider.publish("a")
    async with keys_at(server, max_age=0.05):
        await provider.wait_asked(3)


async def test_a_provider_that_is_away_does_not_stop_the_start(provider: Provider, server: TestServer) -> None:
    """With no keys at first the edge starts, tries again by itself, and then has them."""
    with structlog.testing.capture_logs():
        async with keys_at(server) as keys:
            assert not keys.loaded
            assert not keys.find(None)
            provider.publish("a")
            async with asyncio.timeout(5):
                await provider.wait_asked(2)
                while not keys.loaded:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "options", "what"),
    [
        ("/moved", {}, "status 302"),
        ("/keys", {"max_body_bytes": 100}, "more than 100 bytes"),
        ("/keys", {"timeout": 0.1}, ""),
    ],
)
async def test_fetching_is_bounded(
    provider: Provider, server: TestServer, path: str, options: dict[str, Any], what: str
) -> None:
    """Redirects, large bodies and slow answers are failures."""
    provider.publish(*"abcdef")
    if "timeout" in options:
        provider.hold.clear()
    with structlog.testing.capture_logs() as logs:
        async with keys_at(server, path, **options) as keys:
            assert not keys.loaded
    provider.hold.set()
    assert what in logs[0]["error"]
    assert logs[0]["error"]


async def test_leaving_ends_task_and_waiters(provider: Provider, server: TestServer) -> None:
    """On exit nobody is left waiting for a fetch that will not come, and the task has ended."""
    provider.publish("a")
    async with keys_at(server) as keys:
        provider.hold.clear()
        waiting = asyncio.create_task(keys.refresh("b"))
        await provider.wait_asked(2)
    await waiting
    provider.hold.set()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "jwks"]
