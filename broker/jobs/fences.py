"""Fences: the proof that an attempt of an execution is a worker's own.

A fence is what it is good for (owner, execution, attempt, worker), and the HMAC of that under a secret which the edges
share in Redis. So no worker can make one, an edge needs no look-up to check one, and a repeated claim gets the same.
What it does not say is whether the attempt is still the newest: that is in the record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import time
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from broker.base.problem import Problem
from emitter.errors import InvalidEvent
from emitter.wire.ids import check_execution_id
from emitter.wire.keys import FENCE_SECRET, Owner, member

MAC_BYTES = 18
RELOAD_SECONDS = 1.0
"""After a fence that does not fit the secret in Redis, it is not read for others for so long: one request may have a
thousand."""


class Fenced(NamedTuple):
    """What a fence is good for. `worker` is the name from `worker_id`."""

    owner: Owner
    execution_id: str
    attempt: int
    worker: str

    @property
    def record(self) -> str:
        return self.owner.execution(self.execution_id).record

    @property
    def member(self) -> str:
        return member(self.owner, self.execution_id)


class BadFence(Problem):
    """The fence was not made by these edges, or for something else."""

    def __init__(self, detail: str) -> None:
        super().__init__(403, "bad-fence", detail)


def worker_id(principal: Owner, worker: str) -> str:
    """A worker's name among all workers: two tokens of different subjects never have the same one."""
    return f"{principal.org}:{principal.user}:{worker}"


class Fences:
    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._secret = b""
        self._in_vain_at = -math.inf

    async def load(self) -> None:
        """Read the secret, or make the first. Before fences are made: Redis may have lost the old one."""
        made = secrets.token_hex(32).encode()
        self._secret = await self._redis.set(FENCE_SECRET, made, nx=True, get=True) or made

    def make(self, fenced: Fenced) -> str:
        """After `load`."""
        owner = fenced.owner
        told = msgspec.json.encode([owner.org, owner.user, fenced.execution_id, fenced.attempt, fenced.worker])
        return f"{_text(told)}.{_text(self._mac(told))}"

    async def check(self, fence: str, *, principal: Owner, execution_id: str, attempt: int) -> Fenced:
        """Raises `BadFence` unless it was made for this attempt, and for a worker with a token of this principal."""
        told, fenced = _read(fence)
        told_bytes, mac = told
        if not self._secret:  # else whoever signs with nothing has made a fence
            await self.load()
        if not hmac.compare_digest(self._mac(told_bytes), mac):
            if time.monotonic() - self._in_vain_at >= RELOAD_SECONDS:
                await self.load()
            if not hmac.compare_digest(self._mac(told_bytes), mac):
                self._in_vain_at = time.monotonic()
                raise BadFence("this fence was not made here")
        if (fenced.execution_id, fenced.attempt) != (execution_id, attempt):
            raise BadFence("this fence is for another attempt or execution")
        if not fenced.worker.startswith(worker_id(principal, "")):
            raise BadFence("this fence is for a worker with another token")
        return fenced

    def _mac(self, told: bytes) -> bytes:
        return hmac.new(self._secret, told, hashlib.sha256).digest()[:MAC_BYTES]


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _read(fence: str) -> tuple[tuple[bytes, bytes], Fenced]:
    try:
        told, _, mac = fence.encode("ascii").decode().partition(".")
        found = _bytes(told), _bytes(mac)
        org, user, execution_id, attempt, worker = msgspec.json.decode(found[0], type=tuple[str, str, str, int, str])
        return found, Fenced(Owner(user, org), check_execution_id(execution_id), attempt, worker)
    except (ValueError, binascii.Error, msgspec.MsgspecError, InvalidEvent) as error:
        raise BadFence("this is no fence") from error
