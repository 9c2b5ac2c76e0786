"""A slot of a Cluster moves while its user's log is written and watched. For seconds its keys lie on two nodes."""

from __future__ import annotations

import contextlib

import pytest
from redis.crc import key_slot

from emitter import AgentEmitter
from emitter.store.connection import connect
from emitter.wire.keys import Owner
from tests.clusters import Node, cluster
from tests.edges import ALL_SCOPES, Follower, call, edges, read_log, stream_path, token_for
from tests.faults.chaos import invariants

pytestmark = pytest.mark.timeout(120)  # a busy machine takes its time

OWNER = Owner("alice")
KEYS = OWNER.execution("ex_1")
ALICE = token_for("alice", scopes=ALL_SCOPES)
EXECUTIONS = "/api/agent/executions"


def migrate(source: Node, to: Node, *names: str) -> None:
    moved = source.ask("MIGRATE", "127.0.0.1", str(to.port), "", "0", "5000", "KEYS", *names)
    assert moved == b"+OK\r\n", moved


async def test_keys_on_two_nodes() -> None:
    """Half of what is asked needs both: that is refused for now (503), and the rest answered. Events wait in their
    emitter; in the end the viewers have exactly the log."""
    slot = key_slot(KEYS.log.encode())
    with cluster() as made, edges(made.url, 2, heartbeat_seconds=1, executes_per_minute=0) as both:
        source = made.primary_of(slot)
        to = next(node for node in made.primaries if node is not source)
        async with contextlib.AsyncExitStack() as stack:
            emitter = await stack.enter_async_context(AgentEmitter("alice", "ex_1", redis_url=made.url))
            await emitter.execution_started(task="t")
            await emitter.thinking("before")
            await emitter.flush()
            one, other = [
                await stack.enter_async_context(Follower([edge], stream_path("ex_1"), ALICE)) for edge in both
            ]
            for viewer in (one, other):
                await viewer.until_events(2)
            made.begin_move(slot, to)
            migrate(source, to, KEYS.record)
            await emitter.thinking("between")
            statuses = set()
            for method, path, body in (
                ("GET", f"{EXECUTIONS}/ex_1", None),
                ("GET", EXECUTIONS, None),
                ("GET", f"{EXECUTIONS}/ex_1/events", None),
                ("POST", f"{EXECUTIONS}/ex_1/events", {"type": "thinking", "data": {"thought": "by HTTP"}}),
                ("POST", f"{EXECUTIONS}/ex_1/cancel", {}),
            ):
                answer = await call(both[0].port, method, path, ALICE, body)
                statuses.add(answer.status)
                if answer.status == 503:
                    assert "retry-after" in answer.headers
            assert statuses <= {200, 202, 503}
            assert 200 in statuses
            answers = len(one.statuses)
            one.hang_up()
            await one.until("it comes back in the middle", lambda viewer: len(viewer.statuses) > answers)
            made.move_rest(slot, to)
            await emitter.thinking("after")
            await emitter.execution_complete(result=1)
            for viewer in (one, other):
                await viewer.until_done(30)
            async with connect(made.url) as client:
                log = await read_log(client, KEYS.log)
            for viewer in (one, other):
                assert not invariants.same_as_log(log, viewer.events, viewer.resets)
            thoughts = [each["thought"] for each in invariants.of(log, "thinking") if each["thought"] != "by HTTP"]
            assert thoughts == ["before", "between", "after"]
            assert not invariants.dense(log) + invariants.one_end(log)
