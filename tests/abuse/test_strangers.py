"""What somebody without a token can do to those who have one: cause a bounded number of fetches, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.auth.jwks import FETCHES_AT_ONCE, REFILL_SECONDS
from tests.edges import edge, request

LIST = "/api/agent/executions"
SECONDS = 3.0
MANY = 5 * FETCHES_AT_ONCE


class Provider:
    """An identity provider that counts how often its keys are asked for."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0

    def publish(self, key_id: str) -> Ed25519PrivateKey:
        private = Ed25519PrivateKey.generate()
        jwk = jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        self.keys.append({**jwk, "kid": key_id})
        return private

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys})


def signed(private: Ed25519PrivateKey, key_id: str, user: str) -> str:
    claims = {"sub": user, "exp": time.time() + 600, "scope": "executions:read"}
    return jwt.encode(claims, private, "EdDSA", headers={"kid": key_id})


async def ask(port: int, token: str) -> tuple[int, str | None]:
    async with request(port, "GET", LIST, token, headers={"Connection": "close"}) as response:
        return response.status, response.headers.get("retry-after")


async def test_made_up_keys_refuse_nobody(redis_url: str) -> None:
    """While tokens with ever new key ids come in from four sides, a user is answered, a user of a key that was
    published just now is at most told when to come back, and the provider is hardly asked."""
    provider = Provider()
    app = web.Application()
    app.router.add_get("/keys", provider.answer)
    known, foreign = provider.publish("known"), Ed25519PrivateKey.generate()
    numbers = itertools.count(1)
    made = 0
    async with TestServer(app) as server:
        # In a thread, since the provider that the edge asks at its start is in this loop.
        started = edge(redis_url, jwt_secret="", jwks_url=str(server.make_url("/keys")))
        edge_process = await asyncio.to_thread(started.__enter__)
        try:
            port, began = edge_process.port, time.monotonic()
            until = began + SECONDS

            async def make_up() -> set[int]:
                nonlocal made
                seen = set()
                while time.monotonic() < until or made <= MANY:
                    made = next(numbers)
                    seen.add((await ask(port, signed(foreign, f"x{made}", "mallory")))[0])
                return seen

            strangers = [asyncio.create_task(make_up()) for _ in range(4)]
            await asyncio.sleep(SECONDS / 3)
            new = provider.publish("new")
            while time.monotonic() < until:
                assert await ask(port, signed(known, "known", "alice")) == (200, None)
                status, wait = await ask(port, signed(new, "new", "bob"))
                assert status in (200, 503)
                assert status == 200 or 1 <= int(wait or 0) <= REFILL_SECONDS
            seen = set().union(*await asyncio.gather(*strangers))
            seconds = time.monotonic() - began
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
    assert seen <= {401, 503}
    assert provider.asked <= 1 + FETCHES_AT_ONCE + 1 + seconds / REFILL_SECONDS
