"""The Redis users of deploy/redis in a cluster: what its README adds for that is what they need there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.acl_server import FOLDER, SERVERS, START_SECONDS, AclServer, acl_server
from tests.edges import Follower, call, edge, stream_path, token_for, under_load
from tests.ports import reserved_ports
from tests.workers import WorkerProcess

HERE = Path(__file__).resolve().parent
ALICE = token_for("alice")


def rights_in_a_cluster() -> list[str]:
    """What the README says that every user needs besides."""
    text = (FOLDER / "README.md").read_text()
    found = re.search(r"In a cluster every user\s+needs `([^`]+)`", text)
    assert found is not None
    return found[1].split()


@pytest.fixture
def cluster() -> Iterator[AclServer]:
    """A cluster of one node that holds every slot, with the users of deploy/redis and these rights."""
    binary = SERVERS["valkey"]
    assert binary is not None
    with (
        reserved_ports(1) as [bus],  # by default it would be one that the kernel gives to connections
        acl_server(binary, "--cluster-enabled", "yes", "--cluster-port", f"{bus}") as started,
    ):
        with started.client("operator") as operator:
            for user in ("edge", "worker"):
                operator.execute_command("ACL", "SETUSER", user, *rights_in_a_cluster())
            operator.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            deadline = time.monotonic() + under_load(START_SECONDS)
            while "cluster_state:ok" not in operator.execute_command("CLUSTER", "INFO"):
                assert time.monotonic() < deadline, "no cluster in time"
                time.sleep(0.05)
        yield started


async def test_an_execution_runs_in_a_cluster(cluster: AclServer) -> None:
    """From execute to the end of its stream, without one refusal."""
    urls = {user: cluster.url(user).replace("redis://", "redis+cluster://") for user in ("edge", "worker")}
    with edge(urls["edge"], heartbeat_seconds=1) as started:
        worker = WorkerProcess(urls["worker"], "acl_agents:agents", HERE, lease_seconds=1, grace_seconds=0)
        try:
            body = {"task": "t", "agent": "counter"}
            async with asyncio.timeout(under_load(START_SECONDS)):  # until the worker has announced its agents
                while (answer := await call(started.port, "POST", "/api/agent/execute", ALICE, body)).status == 422:
                    await asyncio.sleep(0.05)
            assert answer.status == 202, started.log_text()
            async with Follower([started], stream_path(answer.body["executionId"]), ALICE) as viewer:
                await viewer.until_done()
            assert viewer.events[-1].type == "execution:complete"
            assert await worker.stop() == 0
        finally:
            worker.close()
    assert cluster.refusals() == []
