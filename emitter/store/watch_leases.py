"""Who watches an execution that shall not outlive its viewers: the edges' word on it, in Redis.

An edge with viewers says again and again for how long they count as watching, so that its word ends by itself if the
edge dies. The clock of an execution starts when the last word on it ends. One that nobody ever watched is not
abandoned: its first viewer may still be on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from emitter.errors import InvalidEvent
from emitter.wire.keys import ABANDONED, ABANDONED_ASKED, Owner, parse_member, viewers_key

NOBODY = "system:disconnect"
"""Who cancels what is abandoned; no user's id has a colon."""
WORD_MS = 15_000
"""How long an edge's word on viewers that it has holds."""
GAP_MS = 5_000
PATIENCE_MS = 6_000
"""Words end while Redis is away, whoever watches. Nobody can ask for what is abandoned meanwhile, so after such a gap
edges have this long to renew them."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = function(ms) return string.format('%d', ms) end
"""
# KEYS 1 abandoned, then the viewers of each execution
# ARGV 1 edge  2 word (ms), then of each execution: member, cancel after (ms), holds (ms)
SAY_SCRIPT = (
    _NOW
    + """
for i = 2, #KEYS do
  local viewers, name, after, holds = KEYS[i], ARGV[3 * i - 3], ARGV[3 * i - 2], ARGV[3 * i - 1]
  local said = redis.pcall('ZADD', viewers, text(now + holds), ARGV[1])
  if type(said) == 'table' then -- somebody else wrote there, and must not stand before all others
    redis.call('DEL', viewers)
    redis.call('ZADD', viewers, text(now + holds), ARGV[1])
  end
  local last = tonumber(redis.call('ZRANGE', viewers, 0, 0, 'REV', 'WITHSCORES')[2])
  -- of the words that have ended only the last one counts
  redis.call('ZREMRANGEBYSCORE', viewers, '-inf', '(' .. text(math.min(now, last)))
  redis.call('PEXPIRE', viewers, text(last - now + after + ARGV[2]))
  redis.call('ZADD', KEYS[1], text(last + after), name)
end
"""
)
# KEYS 1 abandoned  2 asked   ARGV 1 how many  2 gap (ms)  3 patience (ms)
ABANDONED_SCRIPT = (
    _NOW
    + """
local asked = redis.call('HMGET', KEYS[2], 'at', 'since')
local since = tonumber(asked[2] or 0)
if asked[1] and math.abs(now - asked[1]) > tonumber(ARGV[2]) then since = now end
redis.call('HSET', KEYS[2], 'at', text(now), 'since', text(since))
if now - since < tonumber(ARGV[3]) then return {} end
return redis.call('ZRANGE', KEYS[1], '-inf', text(now), 'BYSCORE', 'LIMIT', 0, ARGV[1])
"""
)


class WatchLease(NamedTuple):
    """What an edge says of an execution (by its `member`): its viewers there watch for `holds_ms` more; 0 or less: they
    left so long ago. `cancel_after_ms` is how long the execution goes on unwatched."""

    name: str
    cancel_after_ms: int
    holds_ms: int


async def say(redis: Redis, edge: str, words: Sequence[WatchLease]) -> None:
    """An edge's words on different executions, which replace its earlier ones."""
    client: Any = redis
    keys = [ABANDONED, *(viewers_key(word.name) for word in words)]
    values = [value for word in words for value in word]
    await client.eval(SAY_SCRIPT, len(keys), *keys, edge, WORD_MS, *values)


async def forget(redis: Redis, *names: str) -> None:
    """These executions have ended, or were cancelled."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(ABANDONED, *names)
        pipe.delete(*map(viewers_key, names))
        await pipe.execute()


async def abandoned(redis: Redis, count: int) -> list[tuple[Owner, str, str]]:
    """Owner, execution id and `member` of executions that nobody has watched for as long as they allow. They stay
    listed until they are forgotten. To be asked every few seconds: after a longer pause nothing is abandoned for a
    while."""
    client: Any = redis
    names: list[bytes] = await client.eval(ABANDONED_SCRIPT, 2, ABANDONED, ABANDONED_ASKED, count, GAP_MS, PATIENCE_MS)
    found = []
    for raw in names:
        name = raw.decode("utf-8", "replace")
        try:
            found.append((*parse_member(name), name))
        except InvalidEvent:
            await redis.zrem(ABANDONED, raw)
    return found
