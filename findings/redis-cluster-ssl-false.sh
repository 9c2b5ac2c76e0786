#!/usr/bin/env bash
# `?ssl=false` in the address of a Redis Cluster switches TLS on.
#
# Seen with redis-py 8.1.0, Python 3.11. `redis.asyncio.RedisCluster.from_url` takes the option `ssl` of the query, which
# no other form of address has, as text: every text but the empty one is true, so `false`, `0` and `no` all choose
# SSLConnection. For a plain `redis.asyncio.Redis.from_url` the same query is accepted too, and the first command raises
# TypeError. A good guess would have been that false means false, as it does for `socket_keepalive` or
# `retry_on_timeout` in the same query.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0
"$folder/home/bin/python" - <<'PY'
import asyncio

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url

chosen = {}
for query in ("", "ssl=", "ssl=false", "ssl=0", "ssl=no", "ssl=true"):
    client = RedisCluster.from_url(f"redis://127.0.0.1:7000?{query}")
    chosen[query] = client.connection_kwargs["connection_class"].__name__
print(chosen)
tls = {"ssl=false", "ssl=0", "ssl=no", "ssl=true"}
assert {query for query, name in chosen.items() if name == "SSLConnection"} == tls, chosen
assert parse_url("redis://h?socket_keepalive=false")["socket_keepalive"] is False


async def ping() -> str:
    client = Redis.from_url("redis://127.0.0.1:7000?ssl=false")
    try:
        await client.ping()
    except Exception as error:
        return type(error).__name__
    return "no error"


said = asyncio.run(ping())
print("a plain client's first command:", said)
assert said == "TypeError", said
PY
