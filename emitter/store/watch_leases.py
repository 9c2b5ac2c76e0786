"""Watch leases: edges state in Redis which executions with `onDisconnect` have viewers.

An edge with viewers renews its lease on the execution regularly; if the edge dies, the lease expires. The time until
the cancel starts when the last lease ends. An execution that was never watched is not abandoned, because its first
viewer may still be on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from emitter.errors import InvalidEvent
from emitter.wire.keys import ABANDONED, ABANDONED_ASKED, Owner, parse_member, viewers_key

NOBODY = "system:disconnect"
"""`by` of the cancel of an abandoned execution; no user's id has a colon."""
WORD_MS = 15_000
"""How long the lease of an edge with viewers is valid."""
GAP_MS = 5_000
PATIENCE_MS = 6_000
"""Leases expire while Redis is away, even if there are viewers. After a gap in the reaper's queries edges therefore
have this long to renew them."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = function(ms) return string.format('%d', ms) end
"""
# KEYS 1 abandoned, then the viewers of each execution
# ARGV 1 edge  2 lease (ms), then for each execution: member, cancel after (ms), holds (ms)
SAY_SCRIPT = (
    _NOW
    + """
for i = 2, #KEYS do
  local viewers, name, after, holds = KEYS[i], ARGV[3 * i - 3], ARGV[3 * i - 2], ARGV[3 * i - 1]
  local said = redis.pcall('ZADD', viewers, text(now + holds), ARGV[1])
  if type(said) == 'table' then -- a foreign program wrote there: it must not block the others
    redis.call('DEL', viewers)
    redis.call('ZADD', viewers, text(now + holds), ARGV[1])
  end
  local last = tonumber(redis.call('ZRANGE', viewers, 0, 0, 'REV', 'WITHSCORES')[2])
  -- of the expired leases only the last one counts
  redis.call('ZREMRANGEBYSCORE', viewers, '-inf', '(' .. text(math.min(now, last)))
  redis.call('PEXPIRE', viewers, text(last - now + after + ARGV[2]))
  redis.call('ZADD', KEYS[1], text(last + after), name)
end
"""
)
# KEYS 1 abandoned  2 asked   ARGV 1 how many  2 gap (ms)  3 patience (ms)  4 how many of them are passed over
ABANDONED_SCRIPT = (
    _NOW
    + """
local asked = redis.call('HMGET', KEYS[2], 'at', 'since')
local since = tonumber(asked[2] or 0)
if asked[1] and math.abs(now - asked[1]) > tonumber(ARGV[2]) then since = now end
redis.call('HSET', KEYS[2], 'at', text(now), 'since', text(since))
if now - since < tonumber(ARGV[3]) then return {} end
return redis.call('ZRANGE', KEYS[1], '-inf', text(now), 'BYSCORE', 'LIMIT', ARGV[4], ARGV[1])
"""
)


class WatchLease(NamedTuple):
    """The lease of one edge on an execution (by its `member`). It ends in `holds_ms`; if that is 0 or less, the viewers
    left that long ago. `cancel_after_ms` is how long the execution goes on unwatched."""

    name: str
    cancel_after_ms: int
    holds_ms: int


async def say(redis: Redis, edge: str, words: Sequence[WatchLease]) -> None:
    """Store an edge's leases on different executions; they replace its earlier leases."""
    client: Any = redis
    keys = [ABANDONED, *(viewers_key(word.name) for word in words)]
    values = [value for word in words for value in word]
    await client.eval(SAY_SCRIPT, len(keys), *keys, edge, WORD_MS, *values)


async def forget(redis: Redis, *names: str) -> None:
    """Remove executions that have ended or were cancelled."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(ABANDONED, *names)
        pipe.delete(*map(viewers_key, names))
        await pipe.execute()


async def abandoned(redis: Redis, count: int, *, offset: int = 0) -> list[tuple[Owner, str, str]]:
    """Owner, execution id and `member` of executions that were unwatched for longer than they allow, from the
    `offset`th on. They stay listed until `forget`. Call this every few seconds: after a longer pause it returns nothing
    for `PATIENCE_MS`."""
    client: Any = redis
    patience = (GAP_MS, PATIENCE_MS)
    names: list[bytes] = await client.eval(ABANDONED_SCRIPT, 2, ABANDONED, ABANDONED_ASKED, count, *patience, offset)
    found = []
    for raw in names:
        name = raw.decode("utf-8", "replace")
        try:
            found.append((*parse_member(name), name))
        except InvalidEvent:
            await redis.zrem(ABANDONED, raw)
    return found
