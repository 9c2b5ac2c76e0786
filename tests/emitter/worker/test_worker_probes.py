"""What a worker process tells a cluster: its metrics, whether it is alive, whether it takes executions."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import get_args

import pytest
from redis.asyncio import Redis

from emitter.__main__ import main
from emitter.errors import InvalidSetting
from emitter.events import ExecutionQueued
from emitter.observer import Observer, Outcome
from emitter.store import jobs
from emitter.store.append import append, prepare
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from emitter.worker.metrics import Metrics
from emitter.worker.probes import Probes
from tests.edges import eventually, under_load
from tests.workers import WorkerProcess

ALICE = Owner("alice")
FOLDER = Path(__file__).parents[2] / "e2e"


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=under_load(5)) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def sample(port: int, name: str) -> float:
    """A sample by its name and labels as they are written."""
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", get(port, "/metrics")[1], re.MULTILINE)
    return float(found)


async def accept(redis: Redis, agent: str, execution_id: str) -> None:
    queued = prepare(ExecutionQueued(task="t", agent=agent), execution_id, redact=Redactor())
    await append(redis, ALICE, execution_id, [queued], producer="accept", mode="new", fields={"agent": agent})
    await jobs.enqueue(redis, ALICE, execution_id, agent)


async def test_a_worker_tells_what_it_did_and_waits_for(redis: Redis, redis_url: str) -> None:
    """Executions by outcome, the time in the queue, events appended, and the jobs that wait; ready until it stops."""
    worker = WorkerProcess(redis_url, "e2e_agents:agents", FOLDER, admin_host="127.0.0.1", admin_port=0)
    try:
        await eventually("its probes", lambda: bool(worker.logged("probes_started")))
        port = worker.logged("probes_started")[0]["port"]
        await eventually("readiness", lambda: get(port, "/readyz")[0] == 200)
        assert get(port, "/healthz") == (200, '{"alive": true}')
        assert get(port, "/other")[0] == 404
        assert sample(port, 'runcast_worker_executions_total{agent="failer",outcome="failed"}') == 0
        await accept(redis, "failer", "ex_1")
        done = 'runcast_worker_executions_total{agent="failer",outcome="failed"}'
        await eventually("its end", lambda: sample(port, done) == 1)
        assert sample(port, 'runcast_worker_queue_seconds_count{agent="failer"}') == 1
        assert sample(port, 'runcast_worker_run_seconds_count{agent="failer"}') == 1
        assert sample(port, "runcast_appended_events_total") >= 2
        assert sample(port, "runcast_worker_running") == 0
        assert sample(port, "runcast_worker_concurrency") == 10
        assert await worker.stop() == 0
    finally:
        worker.close()


async def test_a_worker_whose_loop_stands_still_is_not_alive(redis: Redis, redis_url: str) -> None:
    """The probes answer from a thread, so they can say so; and a stopping worker is alive but not ready."""
    metrics = Metrics(["a"])
    with Probes("127.0.0.1", 0, metrics) as probes:
        assert get(probes.port, "/readyz")[0] == 503  # nobody knows of it yet
        assert sample(probes.port, "runcast_ready") == 0
        metrics.announced()
        assert get(probes.port, "/readyz") == (200, '{"ready": true}')
        assert sample(probes.port, "runcast_ready") == 1
        metrics.stopping()
        assert sample(probes.port, "runcast_ready") == 0
        assert get(probes.port, "/readyz")[0] == 503
        assert get(probes.port, "/healthz")[0] == 200
        assert sample(probes.port, "runcast_worker_silent_seconds") < 30
        metrics._beaten_at -= 61
        assert get(probes.port, "/healthz") == (503, '{"alive": false}')
        assert sample(probes.port, "runcast_worker_silent_seconds") > 60


def test_every_series_is_there_from_the_start() -> None:
    """A rate over what has not happened yet is 0, not missing; and what is heard is counted."""
    metrics = Metrics(["a", "b"])

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    for outcome in get_args(Outcome):
        assert value("runcast_worker_executions_total", agent="b", outcome=outcome) == 0
    metrics.claimed("a", 0.2)
    metrics.ended("a", "failed", 3.0)
    metrics.waiting("a", 7)
    metrics.lost_redis("renew")
    metrics.taken_over("superseded")
    metrics.appended(2, 5, 0.001)
    metrics.append_failed()
    assert value("runcast_worker_queue_seconds_sum", agent="a") == 0.2
    assert value("runcast_worker_executions_total", agent="a", outcome="failed") == 1
    assert value("runcast_jobs_waiting", agent="a") == 7
    assert value("runcast_worker_redis_errors_total", loop="renew") == 1
    assert value("runcast_worker_taken_over_total", verdict="superseded") == 1
    assert (value("runcast_appended_batches_total"), value("runcast_appended_events_total")) == (2, 5)
    assert value("runcast_append_failures_total") == 1
    overridden = {name for name in vars(Observer) if not name.startswith("_")}
    assert overridden <= set(vars(Metrics)), "an observation is not counted"


def test_an_address_that_is_taken_stops_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    """The variable is named; so is a port that is none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidSetting, match="RUNCAST_WORKER_ADMIN_PORT"):
            Probes("127.0.0.1", taken.getsockname()[1], Metrics([]))
    assert main(["m:a"], {"RUNCAST_WORKER_ADMIN_PORT": "99999"}) == 2
    assert "RUNCAST_WORKER_ADMIN_PORT: '99999'" in capsys.readouterr().err


def test_a_host_that_is_none_of_this_machine_is_blamed_on_the_host() -> None:
    """Not on the port; and an IPv6 address is an address."""
    for host in ("[::]", "198.51.100.1"):
        with pytest.raises(InvalidSetting, match="RUNCAST_ADMIN_HOST"):
            Probes(host, 0, Metrics([]))
    with Probes("::1", 0, Metrics([])) as probes:
        assert get(probes.port, "/healthz", "[::1]")[0] == 200


@pytest.mark.parametrize("sent", [b"GET %s HTTP/1.0\r\n\r\n" % path for path in (b"/healthz", b"/metrics", b"/x")])
def test_answers_name_no_versions(sent: bytes) -> None:
    """Nor is an answer taken for another type."""
    with Probes("127.0.0.1", 0, Metrics([])) as probes:
        head = exchange(probes.port, sent).partition(b"\r\n\r\n")[0]
        assert b"\r\nServer: runcast" in head
        assert head.count(b"Server: ") == 1
        assert b"nosniff" in head


def test_what_is_no_http_is_told_no_versions() -> None:
    with Probes("127.0.0.1", 0, Metrics([])) as probes:
        answer = exchange(probes.port, b"what\r\n\r\n")
        assert b"Python" not in answer


def exchange(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(sent)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


async def test_a_silent_connection_holds_up_nobody(redis: Redis, redis_url: str) -> None:
    """Each request has a thread of its own, so one that sends nothing delays no probe and no stop."""
    with Probes("127.0.0.1", 0, Metrics([])) as probes, socket.create_connection(("127.0.0.1", probes.port)):
        assert get(probes.port, "/healthz")[0] == 200
