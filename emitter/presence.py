"""Who watches an execution that shall not outlive its viewers: the edges' word on it, in Redis.

An edge with viewers says so again and again, and its word ends by itself if the edge dies. The last one to leave starts
the clock. An execution that nobody ever watched is not abandoned: its first viewer may still be on the way.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from emitter.errors import InvalidEvent
from emitter.wire import ABANDONED, Owner, parse_member, viewers_key

NOBODY = "system:disconnect"
"""Who cancels what is abandoned; no user's id has a colon."""
WORD_MS = 15_000
"""How long an edge's word holds."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = function(ms) return string.format('%d', ms) end
"""
# KEYS 1 viewers  2 abandoned   ARGV 1 member  2 edge  3 cancel after (ms)  4 word (ms)
WATCHED_SCRIPT = (
    _NOW
    + """
redis.call('ZADD', KEYS[1], text(now + ARGV[4]), ARGV[2])
redis.call('PEXPIRE', KEYS[1], text(ARGV[4] * 2))
redis.call('ZADD', KEYS[2], 'GT', text(now + ARGV[4] + ARGV[3]), ARGV[1])
"""
)
# KEYS and ARGV 1 to 3 as above
LEFT_SCRIPT = (
    _NOW
    + """
redis.call('ZREM', KEYS[1], ARGV[2])
local other = redis.call('ZRANGE', KEYS[1], 0, 0, 'REV', 'WITHSCORES')
redis.call('ZADD', KEYS[2], text(math.max(now, tonumber(other[2] or 0)) + ARGV[3]), ARGV[1])
"""
)
# KEYS 1 abandoned   ARGV 1 how many
ABANDONED_SCRIPT = _NOW + "return redis.call('ZRANGE', KEYS[1], 0, text(now), 'BYSCORE', 'LIMIT', 0, ARGV[1])"


async def watched(redis: Redis, name: str, edge: str, cancel_after_ms: int) -> None:
    """An edge's viewers watch an execution (by its `member`), for the next 15 s at least."""
    client: Any = redis
    await client.eval(WATCHED_SCRIPT, 2, viewers_key(name), ABANDONED, name, edge, cancel_after_ms, WORD_MS)


async def left(redis: Redis, name: str, edge: str, cancel_after_ms: int) -> None:
    """The last viewer on an edge has gone. If it was the last anywhere, the execution is abandoned in
    `cancel_after_ms`."""
    client: Any = redis
    await client.eval(LEFT_SCRIPT, 2, viewers_key(name), ABANDONED, name, edge, cancel_after_ms)


async def forget(redis: Redis, name: str) -> None:
    """The execution has ended, or was cancelled."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zrem(ABANDONED, name)
        pipe.delete(viewers_key(name))
        await pipe.execute()


async def abandoned(redis: Redis, count: int) -> list[tuple[Owner, str, str]]:
    """Owner, execution id and `member` of executions that nobody has watched for as long as they allow. They stay
    listed until they are forgotten."""
    client: Any = redis
    names: list[bytes] = await client.eval(ABANDONED_SCRIPT, 1, ABANDONED, count)
    found = []
    for raw in names:
        name = raw.decode("utf-8", "replace")
        try:
            found.append((*parse_member(name), name))
        except InvalidEvent:
            await redis.zrem(ABANDONED, raw)
    return found
