#!/usr/bin/env bash
# The pipeline of a Redis Cluster's client refuses `evalsha`, but not `execute_command("EVALSHA", …)`.
#
# Seen with redis-py 8.1.0, Python 3.11. `ClusterPipeline.evalsha(…)` raises RedisClusterException ("Calling pipelined
# function evalsha is blocked …") before anything is sent, though `eval` is taken. The same command through
# `execute_command` is queued and routed by its first key like any other. And RedisClusterException is no RedisError:
# code that catches RedisError around a pipeline, and was tried with one server, does not catch it. A good guess would
# have been that both spellings of one command do the same, and that every error of the package is a RedisError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0
"$folder/home/bin/python" - <<'PY'
import asyncio

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisClusterException, RedisError


async def main() -> None:
    sha, keys = "0" * 40, ("{a}1", "{a}2")
    pipe = RedisCluster.from_url("redis://127.0.0.1:7000").pipeline(transaction=False)
    refused = {}
    for name, call in (
        ("evalsha", lambda: pipe.evalsha(sha, 2, *keys)),
        ("eval", lambda: pipe.eval("return 1", 2, *keys)),
    ):
        try:
            call()
        except RedisClusterException as error:
            refused[name] = str(error)
    print(refused)
    assert set(refused) == {"evalsha"}
    assert len(pipe) == 1, "eval is queued"
    pipe.execute_command("EVALSHA", sha, 2, *keys)
    assert len(pipe) == 2, "the same command is queued under its own name"
    assert not issubclass(RedisClusterException, RedisError)
    plain = Redis.from_url("redis://127.0.0.1:7000").pipeline(transaction=False)
    plain.evalsha(sha, 2, *keys)
    assert len(plain) == 1, "the pipeline of one server takes it"


asyncio.run(main())
PY
echo "as described"
