"""`requestState`: which execution a repeated call goes on with, signed, so that an edge needs to remember nothing.

The client keeps it and sends it back with its answers (basic/patterns/mrtr). It is good for the caller, the tool and
the arguments that it was made for, and for a day.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.protocols.mcp.rpc import INVALID_PARAMS, McpError
from emitter.wire.keys import MCP_KEY

STATE_SECONDS = 86_400.0


class _State(msgspec.Struct, frozen=True, array_like=True):
    execution_id: str
    expires_at: int
    digest: str
    asked: list[str]


class Signer:
    """Signs and reads states, with a key that all edges share through Redis."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis: Any = redis
        self._clock = clock
        self._key: bytes | None = None

    async def load(self) -> None:
        """Get the key, or make it, before each call: a Redis that lost its data has another one, for all edges."""
        made = secrets.token_bytes(32).hex().encode()
        self._key = await self._redis.set(MCP_KEY, made, nx=True, get=True) or made

    def sign(self, identity: Identity, execution_id: str, digest: str, asked: Sequence[str]) -> str:
        """The state of an execution that has asked these questions."""
        state = _State(execution_id, int(self._clock() + STATE_SECONDS), digest, list(asked))
        body = base64.urlsafe_b64encode(msgspec.json.encode(state))
        return f"{body.decode()}.{self._mark(identity, body)}"

    def read(self, identity: Identity, state: str, digest: str) -> str:
        """The execution's id. Raises `McpError`."""
        body, _, mark = state.encode(errors="replace").partition(b".")
        if not hmac.compare_digest(mark, self._mark(identity, body).encode()):
            raise McpError(INVALID_PARAMS, "requestState is not one of ours, or of another caller")
        try:
            read = msgspec.json.decode(base64.urlsafe_b64decode(body), type=_State)
        except (binascii.Error, msgspec.MsgspecError) as error:
            raise McpError(INVALID_PARAMS, "requestState is of another version") from error
        if read.digest != digest:
            raise McpError(INVALID_PARAMS, "requestState is of another call: its name or arguments differ")
        if read.expires_at < self._clock():
            raise McpError(INVALID_PARAMS, "requestState has expired")
        return read.execution_id

    def _mark(self, identity: Identity, body: bytes) -> str:
        assert self._key is not None, "load comes first"
        who = f"{identity.owner.org}:{identity.owner.user}:{identity.principal.org}:{identity.principal.user}:"
        return hmac.new(self._key, who.encode() + body, hashlib.sha256).hexdigest()[:32]


def digest_of(name: str, arguments: dict[str, Any]) -> str:
    """Of a call."""
    call = msgspec.json.encode([name, arguments], order="deterministic")
    return hashlib.sha256(call).hexdigest()[:32]
