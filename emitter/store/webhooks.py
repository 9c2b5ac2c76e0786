"""The Redis contract of webhooks: which of them may have something to deliver, and which edge has them.

Each webhook stands in `WEBHOOKS` with the time of its next check, from before its execution begins until everything was
delivered. An edge that has taken one holds it by a lease there, so another takes over if that edge dies. What is to be
delivered stands in the log alone: a check reads it from the webhook's cursor on, so nothing is missed whoever has
written an event, and nothing is copied. A message on `WEBHOOKS_WAKE` only makes it fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis

from emitter.errors import UnknownExecution
from emitter.store.connection import repeated
from emitter.wire.keys import WEBHOOKS, WEBHOOKS_HELD, Owner
from emitter.wire.record import ExecutionRecord, Field, Selection
from emitter.wire.record import delivery as delivery_field
from emitter.wire.record import webhook as webhook_field
from emitter.wire.webhooks import MAX_PER_EXECUTION, Delivery, Name, Wake, Webhook

CHECK_MS = 60_000
"""How often a webhook is checked of which nothing was heard."""
FIRST_CHECK_MS = 10_000
"""How long beginning an execution may take before its webhooks are checked."""
WAITS = "-"
_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
# KEYS 1 due  2 held   ARGV 1 edge  2 lease (ms)  3 how many
TAKE_DUE_SCRIPT = (
    _NOW
    + """
local names = redis.call('ZRANGE', KEYS[1], '-inf', string.format('%d', now), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, name in ipairs(names) do
  redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), name)
  redis.call('HSET', KEYS[2], name, ARGV[1])
end
return names
"""
)
# KEYS 1 due  2 held   ARGV 1 edge  2 lease (ms)  then members. Those that an edge holds, or that wait, are not taken.
TAKE_SCRIPT = (
    _NOW
    + """
local names = {}
for i = 3, #ARGV do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[1])
    names[#names + 1] = ARGV[i]
  end
end
return names
"""
)
# KEYS 1 due  2 held   ARGV 1 edge  2 lease (ms)  then members   Reply: those that are another's by now
RENEW_SCRIPT = (
    _NOW
    + """
local lost = {}
for i = 3, #ARGV do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[1] then
    redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[2]), ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
)
# KEYS 1 due  2 held   ARGV 1 edge  2 member  3 next check after (ms; -1: none)  4 1: not sooner, whatever comes
RELEASE_SCRIPT = (
    _NOW
    + """
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then return 0 end
if ARGV[3] == '-1' then
  redis.call('ZREM', KEYS[1], ARGV[2])
else
  redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[3]), ARGV[2])
end
if ARGV[4] == '1' then redis.call('HSET', KEYS[2], ARGV[2], '-') else redis.call('HDEL', KEYS[2], ARGV[2]) end
return 1
"""
)
# KEYS 1 an execution's record   ARGV 1 a field  2 what it must be (empty: missing; `*`: anything)  then fields and
# values in turn; an empty value removes the field   Reply 1: written, 0: changed meanwhile, -1: no such execution
CHANGE_SCRIPT = """
local known = redis.call('HMGET', KEYS[1], 'state', ARGV[1])
if not known[1] then return -1 end
if ARGV[2] ~= '*' and (known[2] or '') ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1
"""


class TooManyWebhooks(Exception):
    """The execution has `MAX_PER_EXECUTION` webhooks."""


# --- the set ---------------------------------------------------------------------------------------------------------


async def schedule(
    redis: Redis, names: Iterable[Name], after_ms: int = FIRST_CHECK_MS, *, sooner: bool = False
) -> None:
    """Have these webhooks checked in `after_ms`, unless they are to be checked anyway. `sooner`: also those, unless an
    edge holds them."""
    members = [name.member for name in names]
    if members:
        script = _NOW + _SCHEDULE
        await _eval(redis, script, (WEBHOOKS, WEBHOOKS_HELD), after_ms, int(sooner), *members)


# KEYS 1 due  2 held   ARGV 1 after (ms)  2 1: also those that are there, if that is sooner  then members
_SCHEDULE = """
for i = 3, #ARGV do
  local is_free = ARGV[2] == '1' and redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0
  redis.call('ZADD', KEYS[1], is_free and 'LT' or 'NX', string.format('%d', now + ARGV[1]), ARGV[i])
end
"""


async def take_due(redis: Redis, edge: str, lease_ms: int, count: int) -> list[str]:
    """Up to `count` webhooks whose time has come, for this edge. What is no text, another program has written: it is
    removed."""
    found = await _eval(redis, TAKE_DUE_SCRIPT, (WEBHOOKS, WEBHOOKS_HELD), edge, lease_ms, count)
    names = []
    for raw in found:
        try:
            names.append(raw.decode())
        except UnicodeDecodeError:
            await _eval(redis, RELEASE_SCRIPT, (WEBHOOKS, WEBHOOKS_HELD), edge, raw, -1, 0)
    return names


async def take(redis: Redis, edge: str, lease_ms: int, names: Sequence[str]) -> list[str]:
    """Those of these webhooks that no edge has, and that do not wait after a failure."""
    found = await _eval(redis, TAKE_SCRIPT, (WEBHOOKS, WEBHOOKS_HELD), edge, lease_ms, *names)
    return [name.decode() for name in found]


async def renew(redis: Redis, edge: str, lease_ms: int, names: Sequence[str]) -> list[str]:
    """Renew the leases; those that are lost."""
    found = await _eval(redis, RENEW_SCRIPT, (WEBHOOKS, WEBHOOKS_HELD), edge, lease_ms, *names)
    return [name.decode() for name in found]


async def release(redis: Redis, edge: str, name: str, after_ms: int, *, waits: bool = False) -> None:
    """Give a webhook back, to be checked in `after_ms` or, unless it `waits`, as soon as there is something."""
    await _eval(redis, RELEASE_SCRIPT, (WEBHOOKS, WEBHOOKS_HELD), edge, name, after_ms, int(waits))


async def forget(redis: Redis, edge: str, name: str) -> None:
    """Remove a webhook that has nothing more to deliver."""
    await _eval(redis, RELEASE_SCRIPT, (WEBHOOKS, WEBHOOKS_HELD), edge, name, -1, 0)


async def drop(redis: Redis, name: Name) -> None:
    """Remove a webhook that somebody has deleted, whoever holds it."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(WEBHOOKS, name.member)
        pipe.hdel(WEBHOOKS_HELD, name.member)
        await pipe.execute()


# --- the record ------------------------------------------------------------------------------------------------------


async def read(redis: Redis, owner: Owner, execution_id: str, ids: Sequence[str]) -> ExecutionRecord:
    """State, webhooks and deliveries of an execution."""
    client: Any = redis
    selection = Selection(
        Field.STATE, Field.HOOKS, Field.MS, Field.SEQ, *map(webhook_field, ids), *map(delivery_field, ids)
    )
    return selection.read(await client.hmget(owner.execution(execution_id).record, *selection.names))


async def listed(redis: Redis, owner: Owner, execution_id: str) -> ExecutionRecord:
    """The same with all of its webhooks. Raises `UnknownExecution`."""
    found = await read(redis, owner, execution_id, ())
    if not found.exists:
        raise UnknownExecution(execution_id)
    return await read(redis, owner, execution_id, ids) if (ids := Wake.parse(found.wake).ids) else found


async def save(
    redis: Redis, name: Name, progress: Delivery, hook: Webhook | None = None, *, known: str | bytes = "*"
) -> bool:
    """Write how far a webhook has come, if its execution still exists; false if the webhook is not as it was `known`,
    because somebody has replaced or removed it. `hook` takes the place of the webhook."""
    changes = {Field.DELIVERY + name.hook_id: msgspec.json.encode(progress).decode()}
    if hook is not None:
        changes[Field.WEBHOOK + name.hook_id] = msgspec.json.encode(hook).decode()
    return await _change(redis, name, Field.WEBHOOK + name.hook_id, known, changes)


async def add(redis: Redis, name: Name, hook: Webhook) -> None:
    """Add a webhook to an execution, or replace one. It gets what is logged from now on; of an execution that has ended
    its end. Raises `UnknownExecution`, `TooManyWebhooks`."""
    await schedule(redis, [name])
    while True:
        found = await read(redis, name.owner, name.execution_id, ())
        if not found.exists:
            await drop(redis, name)
            raise UnknownExecution(name.execution_id)
        wake = Wake.parse(found.wake).having(name.hook_id, hook.events)
        if len(wake.ids) > MAX_PER_EXECUTION:
            raise TooManyWebhooks
        start = Delivery(from_seq=found.seq) if found.has_ended else Delivery(cursor=str(found.last))
        changes = {
            Field.HOOKS: wake.text(name.owner, name.execution_id),
            Field.WEBHOOK + name.hook_id: msgspec.json.encode(hook).decode(),
            Field.DELIVERY + name.hook_id: msgspec.json.encode(start).decode(),
        }
        if await _change(redis, name, Field.HOOKS, found.wake, changes):
            break
    await schedule(redis, [name], 0, sooner=True)


async def remove(redis: Redis, name: Name) -> bool:
    """Remove a webhook from its execution; false if there is none. Raises `UnknownExecution`."""
    while True:
        found = await read(redis, name.owner, name.execution_id, [name.hook_id])
        if not found.exists:
            raise UnknownExecution(name.execution_id)
        if name.hook_id not in found.webhooks:
            return False
        left = Wake.parse(found.wake).without(name.hook_id)
        changes = {
            Field.HOOKS: left.text(name.owner, name.execution_id) if left.ids else "",
            Field.WEBHOOK + name.hook_id: "",
            Field.DELIVERY + name.hook_id: "",
        }
        if await _change(redis, name, Field.HOOKS, found.wake, changes):
            await drop(redis, name)
            return True


async def _change(
    redis: Redis, name: Name, field: str, expected: Literal["*"] | str | bytes, changes: Mapping[str, str]
) -> bool:
    fields = [text for pair in changes.items() for text in pair]
    record = name.owner.execution(name.execution_id).record
    return await _eval(redis, CHANGE_SCRIPT, (record,), field, expected, *fields) != 0  # type: ignore[no-any-return]


async def _eval(redis: Redis, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
    """As those of `emitter.store.jobs`: short and rare, and each may run twice."""
    client: Any = redis
    return await repeated(lambda: client.eval(script, len(keys), *keys, *arguments))
