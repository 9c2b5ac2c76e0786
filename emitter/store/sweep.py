"""Finds what a failover of a Cluster has left without a check.

Executions, jobs and webhooks lie on different nodes. If one node loses its last writes and another does not, they
disagree: an execution is `queued` that has no job, or is `running` again whose worker has ended it. (With one node they
agree, because it loses an execution after what looks after it.)

Every promotion gives a node a new replication id. So when there is a new one, every record is read, and executions that
have not ended are checked, and webhooks that have something to deliver.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoPermissionError, RedisError

from emitter.errors import InvalidEvent
from emitter.store import jobs, webhooks
from emitter.store.connection import GONE
from emitter.wire.keys import DUE, HISTORIES, PREFIX, Owner, member, parse_record
from emitter.wire.record import ExecutionRecord, Field, Selection, delivery
from emitter.wire.webhooks import Delivery, Name, Wake

log = structlog.get_logger("emitter.sweep")

LOOK_SECONDS = 5.0
"""How often the replication ids are read."""
SLICE_SECONDS = 0.2
"""How long one step may take; a sweep of many records takes many steps."""
PAGE = 500
KEPT_MS = 30 * 86_400_000
"""How long it is remembered what was swept. Forgetting it costs a sweep."""
_RECORD = Selection(Field.STATE, Field.AGENT, Field.HOLD, Field.HOOKS)


class Sweep:
    """Call `step` again and again, from the reaper that has the lock. Without a Cluster it does nothing."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._is_needed = isinstance(redis, RedisCluster)
        self._looked_at = -LOOK_SECONDS
        self._histories: list[str] = []
        self._left: list[tuple[Any, int]] = []
        """Nodes that are yet to be read, each with its cursor."""
        self._found = self._scanned = 0

    async def step(self) -> None:
        """Errors of Redis end a sweep; it begins again."""
        if not self._is_needed:
            return
        try:
            if self._left:
                await self._go_on()
            elif time.monotonic() - self._looked_at >= LOOK_SECONDS:
                self._looked_at = time.monotonic()
                await self._look()
        except NoPermissionError as error:
            self._is_needed = False
            log.error("sweep_refused", error=str(error)[:200])
        except (RedisError, *GONE) as error:
            self._left.clear()
            log.warning("sweep_interrupted", error=type(error).__name__)

    async def _look(self) -> None:
        """Begin a sweep if a primary has a history that was not swept."""
        primaries = self._redis.get_primaries() or [await self._any_primary()]
        self._histories = [await self._history(node) for node in primaries]
        if all(await self._redis.hmget(HISTORIES, *self._histories)):
            return
        self._found = self._scanned = 0
        self._left = [(node, 0) for node in primaries]

    async def _any_primary(self) -> Any:
        await self._redis.initialize()
        return self._redis.get_primaries()[0]

    async def _history(self, node: Any) -> str:
        """The replication id of a primary."""
        found = await self._redis.info("replication", target_nodes=node)
        if found["role"] != "master":
            await self._redis.nodes_manager.initialize()
            raise ConnectionError("a primary has become a replica")
        return str(found["master_replid"])

    async def _go_on(self) -> None:
        until = time.monotonic() + SLICE_SECONDS
        while self._left and time.monotonic() < until:
            node, cursor = self._left.pop()
            cursors, keys = await self._redis.scan(
                cursor, match=f"{PREFIX}:{{*}}:x:*", count=PAGE, _type="hash", target_nodes=node
            )
            await self._check(keys)
            if (then := cursors[node.name]) != 0:
                self._left.append((node, then))
        if not self._left:
            await self._end()

    async def _check(self, keys: Sequence[bytes]) -> None:
        places = [place for key in keys if (place := _place(key)) is not None]
        async with self._redis.pipeline(transaction=False) as pipe:
            for owner, execution_id in places:
                pipe.hmget(owner.execution(execution_id).record, *_RECORD.names)
            rows = await pipe.execute(raise_on_error=False) if places else []
        due: dict[str, int] = {}
        hooks: list[Name] = []
        now = await jobs.redis_ms(self._redis)
        for (owner, execution_id), row in zip(places, rows, strict=True):
            found = _readable(_RECORD, row)
            if found is None:
                continue
            self._scanned += 1
            if found.exists and not found.has_ended and (found.agent or found.hold_ms):
                due[member(owner, execution_id)] = now
            hooks += [Name(owner, execution_id, hook_id) for hook_id in Wake.parse(found.wake).ids]
        if due:
            # At once, also where it has a check: the time of that may be from before what was lost.
            self._found += await self._redis.zadd(DUE, due, lt=True)
        await webhooks.schedule(self._redis, await self._open(hooks))

    async def _open(self, hooks: Sequence[Name]) -> list[Name]:
        """Those with something to deliver, now or later."""
        selections = [Selection(delivery(name.hook_id)) for name in hooks]
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, selection in zip(hooks, selections, strict=True):
                pipe.hmget(name.owner.execution(name.execution_id).record, *selection.names)
            rows = await pipe.execute() if hooks else []
        found = [_readable(*each) for each in zip(selections, rows, strict=True)]
        return [
            name
            for name, each in zip(hooks, found, strict=True)
            if each and _is_open(each.deliveries.get(name.hook_id))
        ]

    async def _end(self) -> None:
        swept = dict.fromkeys(self._histories, await jobs.redis_ms(self._redis))
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.hset(HISTORIES, mapping=swept).pexpire(HISTORIES, KEPT_MS).execute()
        log.warning("swept", executions=self._scanned, found=self._found)


def _place(key: bytes) -> tuple[Owner, str] | None:
    try:
        return parse_record(key.decode())
    except (InvalidEvent, UnicodeDecodeError):
        return None


def _readable(selection: Selection, row: Any) -> ExecutionRecord | None:
    """None for a record that another program, or a newer version, has written."""
    try:
        return None if isinstance(row, Exception) else selection.read(row)
    except ValueError:
        return None


def _is_open(raw: bytes | None) -> bool:
    if raw is None:
        return True
    try:
        return msgspec.json.decode(raw, type=Delivery).state == "open"
    except msgspec.MsgspecError:  # another program has written it: a check says so in the log
        return True
