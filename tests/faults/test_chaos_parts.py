"""The chaos tool itself: its plan, its shrinking, its report, and that its invariants find what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.clusters import SLOTS, Node
from tests.edges import Control, Received
from tests.faults.chaos import invariants, plan, progress, report, shrink
from tests.faults.chaos.faults import KINDS
from tests.faults.chaos.kept import KEEP_SECONDS, Kept
from tests.faults.chaos.report import Seen, Struck
from tests.faults.chaos.topology import ClusterTopology, Member
from tests.faults.chaos.traffic import Run, Traffic
from tests.faults.chaos.viewers import Answer, Quiet, Viewer

PAUSES = (1.0, 5.0)


def log_of(*events: tuple[str, dict[str, Any]]) -> list[Received]:
    return [
        Received(f"{1000 + seq}-{seq}", type_, json.dumps({"type": type_, "data": data}))
        for seq, (type_, data) in enumerate(events, 1)
    ]


GOOD = log_of(
    ("execution:queued", {}),
    ("execution:started", {"attempt": 1}),
    ("thinking", {"thought": "1 0"}),
    ("execution:superseded", {"fromSeq": 1, "attempt": 2}),
    ("execution:started", {"attempt": 2}),
    ("thinking", {"thought": "2 0"}),
    ("tool:start", {}),
    ("usage", {"totalTokens": 7}),
    ("input:required", {"inputId": "i"}),
    ("input:received", {"inputId": "i", "value": "a"}),
    ("user:message", {"messageId": "m"}),
    ("user:message:taken", {"attempt": 2, "messageIds": ["m"]}),
    ("child:started", {"executionId": "c", "key": "one"}),
    ("child:ended", {"executionId": "c", "state": "completed"}),
    ("execution:complete", {"result": 1}),
)
RESET = Control("stream:reset", {"reason": "diverged"}, 3)


def without(log: Sequence[Received], *types: str) -> list[Received]:
    return [event for event in log if event.type not in types]


def with_more(log: Sequence[Received], type_: str, data: dict[str, Any]) -> list[Received]:
    """Before its end."""
    return [*log[:-1], Received("9999-99", type_, json.dumps({"data": data})), log[-1]]


def log_begun_at(from_seq: int) -> list[Received]:
    """A child ended before the first worker came, whose attempt was lost."""
    return log_of(
        ("execution:queued", {}),
        ("child:ended", {"executionId": "c", "state": "completed"}),
        ("execution:started", {"attempt": 1}),
        ("execution:superseded", {"fromSeq": from_seq, "attempt": 2}),
        ("execution:started", {"attempt": 2}),
        ("execution:complete", {"result": 1}),
    )


CHECKS: list[tuple[str, Callable[[list[Received]], list[str]], list[list[Received]]]] = [
    ("dense", invariants.dense, [GOOD[1:], [*GOOD[:3], *GOOD[4:]], [GOOD[0], GOOD[0], *GOOD[1:]]]),
    ("one end", invariants.one_end, [GOOD[:-1], [*GOOD, GOOD[-1]], []]),
    (
        "fenced",
        invariants.fenced,
        [without(GOOD, "execution:superseded"), without(GOOD, "execution:started"), log_begun_at(3)],
    ),
    ("in order", invariants.in_order, [with_more(GOOD, "thinking", {"thought": "1 1"}), [*GOOD[:6], *GOOD[5:]]]),
    (
        "answers",
        lambda log: invariants.first_answer_once(log, {"i": ["a"]}),
        [with_more(GOOD, "input:received", {"inputId": "i"}), without(GOOD, "input:received")],
    ),
    ("budgets", lambda log: invariants.budgets(log, (7, 1), 1), [with_more(GOOD, "tool:start", {})]),
    (
        "messages",
        lambda log: invariants.messages(log, ["m"]),
        [
            without(GOOD, "user:message"),
            with_more(GOOD, "user:message", {"messageId": "m"}),
            with_more(GOOD, "user:message:taken", {"attempt": 2, "messageIds": ["m"]}),
        ],
    ),
    (
        "children",
        lambda log: invariants.children(log, {"c": "completed"}, ["one"]),
        [without(GOOD, "child:started"), with_more(GOOD, "child:ended", {"executionId": "c", "state": "completed"})],
    ),
    ("webhooks", lambda log: invariants.webhooks(log, {"execution:complete"}), [GOOD[:-1]]),
    ("runs", lambda log: invariants.runs(log, [1, 2]), [without(GOOD, "execution:started"), GOOD[:4]]),
    ("feed", lambda log: invariants.complete_feed(log, [event.data for event in GOOD]), [GOOD[1:], GOOD[:-1]]),
    ("viewer", lambda log: invariants.same_as_log(log, GOOD), [GOOD[:-1], GOOD[1:]]),
    (
        "viewer that was told",
        lambda log: invariants.same_as_log(log, [*GOOD[:3], *GOOD], [RESET], may_reset=True),
        [GOOD[:-1], []],
    ),
]


@pytest.mark.parametrize(("check", "bad"), [each[1:] for each in CHECKS], ids=[each[0] for each in CHECKS])
def test_invariants(check: Callable[[list[Received]], list[str]], bad: list[list[Received]]) -> None:
    """Each has nothing against a good log, and something against every bad one."""
    assert check(GOOD) == []
    for log in bad:
        assert check(log)


@pytest.mark.parametrize("from_seq", [1, 2])
def test_an_attempt_may_begin_after_what_others_said(from_seq: int) -> None:
    """An attempt begins where its worker came."""
    assert invariants.fenced(log_begun_at(from_seq)) == []


def test_a_failover_may_lose_the_start_of_an_attempt() -> None:
    """Its agent goes on. Without a loss that is wrong."""
    log = without(GOOD, "execution:started")
    assert invariants.fenced(log, may_lack=True) == []
    assert invariants.fenced(log)


def test_a_reset_without_a_loss_is_wrong() -> None:
    assert invariants.same_as_log(GOOD, GOOD, [RESET])


def test_a_plan_follows_from_its_seed() -> None:
    """The same number makes the same plan, another one another; it can be written down."""
    one, again, other = (plan.make(seed, 120, "cluster", 60, list(KINDS), pauses=PAUSES) for seed in (1, 1, 2))
    assert one == again != other
    assert plan.decode(plan.encode(one)) == one
    assert {fault.kind for fault in one.faults} == set(KINDS)
    assert [fault.at for fault in one.faults] == sorted(fault.at for fault in one.faults)
    assert all(fault.at < 120 for fault in one.faults)


@pytest.mark.parametrize("needed", [{3}, {0, 17}, {4, 5, 18}, set(range(20))])
async def test_a_plan_is_shrunk_to_the_faults_that_a_failure_needs(needed: set[int]) -> None:
    runs = 0

    async def fails(part: Sequence[int]) -> bool:
        nonlocal runs
        runs += 1
        return needed <= set(part)

    assert await shrink.fewest(range(20), fails) == sorted(needed)
    assert runs < 500


def test_outages_belong_to_the_fault_in_whose_time_they_began() -> None:
    struck = [Struck("kill_an_edge", 10, 12), Struck("fail_over", 30, 31)]
    seen = [Seen(0, 40, [Quiet(9.8, 11.8), Quiet(20, 29)]), Seen(0, 40, [Quiet(30.5, 34.5)]), Seen(35, 40, [])]
    outages = report.Outages()
    outages.add(seen[2])
    outages.strike(struck[0])
    outages.add(seen[0])
    outages.strike(struck[1])
    outages.add(seen[1])
    outages.settle()
    over, edge = outages.found()
    assert (over.kind, over.watching, over.longest) == ("fail_over", 2, [4.0])
    assert (edge.kind, edge.watching, edge.longest) == ("kill_an_edge", 2, [2.0])
    assert edge.percentile(50) == edge.percentile(99) == 2.0
    table = report.as_markdown([edge], {"kill_an_edge": ("an edge is killed", "a pause")})
    assert table.splitlines()[-1] == "| an edge is killed | a pause | 1 | 50% | 2.0 | 2.0 |"


@pytest.mark.parametrize(
    ("old_flags", "old_slots", "new_slots", "is_so"),
    [
        ("master", True, False, False),
        ("master,fail", True, False, False),  # its replica is yet to be elected
        ("master,fail", False, True, True),
        ("slave", False, True, True),
    ],
)
def test_a_primary_is_replaced_when_another_has_its_slots(
    old_flags: str, old_slots: bool, new_slots: bool, is_so: bool
) -> None:
    """What is started again before that is the primary still, and empty: its replica would take that over."""
    old, new, spare = (cast("Node", SimpleNamespace(host="127.0.0.1", port=port)) for port in (1, 2, 3))
    all_slots = [(0, SLOTS - 1)]

    class Moment(ClusterTopology):
        def members(self) -> dict[str, Member]:
            return {
                "127.0.0.1:1": Member("a", frozenset(old_flags.split(",")), None, all_slots if old_slots else []),
                "127.0.0.1:2": Member("b", frozenset({"master"}), None, all_slots if new_slots else []),
            }

    assert Moment([old, new], spare).is_replaced(old) is is_so


@pytest.mark.parametrize(("left_at", "is_wrong"), [(1.0, False), (3.0, True)])
async def test_an_end_that_is_lost_with_all_of_its_execution(left_at: float, is_wrong: bool) -> None:
    """Nobody can tell a viewer that had left before. One that left after the loss saw what is not there."""
    stand: Any = SimpleNamespace(users=[], has_lost_since=lambda moment: moment <= 2.0)
    nothing: Any = None
    traffic = Traffic(stand, nothing, nothing, Path(), viewers=6, pause=0, steps=0, seed=0)
    run, viewer = Run("alice", "talker", 1), Viewer([], "/", "", {})
    viewer.events, viewer.done, viewer.done_at = list(GOOD), True, left_at
    run.viewers = [viewer]
    assert bool(await traffic._wrong_after_loss(run)) is is_wrong


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*texts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(text), text) for text in (*texts, b""))


TEXTS = (b"id: 1-1\nevent: a\nda", b"ta: x\n\n: heart", b"beat\n\nid: 2-2\nevent: b\ndata: y\n\n")
WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(b"".join(TEXTS)) + b"".join(TEXTS)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("data", [HEAD + chunked(*TEXTS), WITH_LENGTH])
async def test_a_viewer_reads_whole_blocks_however_they_come(data: bytes, size: int) -> None:
    """Of whatever size the pieces are, and wherever a chunk ends. Of an execution that is over the length is known."""
    blocks: list[bytes] = []
    answer = Answer(blocks.append)
    for at in range(0, len(data), size):
        answer.data_received(data[at : at + size])
    assert blocks == [b"id: 1-1\nevent: a\ndata: x", b": heartbeat", b"id: 2-2\nevent: b\ndata: y"]
    assert await answer.status == 200
    await answer.over


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"nothing\r\n\r\n",
        HEAD + b"3\r\nabcd\r\n",
        HEAD + b"x\r\n",
        HEAD + chunked(b"id: 1\r\n\r\n"),
    ],
)
async def test_a_viewer_finds_bytes_that_are_no_stream(data: bytes) -> None:
    answer = Answer(lambda _: None)
    answer.data_received(data)
    with pytest.raises((AssertionError, ValueError)):
        await answer.over


async def test_viewers_of_one_log_share_what_is_the_same() -> None:
    """What one got otherwise than another is its own."""
    shared: dict[bytes, Received] = {}
    one, two = (Viewer([], "/", "", shared) for _ in range(2))
    for viewer, data in ((one, b"x"), (two, b"x"), (one, b"y"), (two, b"z")):
        viewer._take(b'id: 1-1\nevent: a\ndata: "%b"' % data)
    assert one.events[0] is two.events[0]
    assert invariants.same_as_log(one.events, two.events)
    assert [event.data for event in two.events] == ['"x"', '"z"']


def test_what_comes_for_executions_does_not_stay_for_ever() -> None:
    kept: Kept[int] = Kept()
    kept.add("a", 1)
    kept.add("b", 2)
    kept.add("a", 3)
    assert kept.get("a") == [1, 3]
    kept.drop("a")
    assert not kept.get("a")
    kept.sweep(time.monotonic() + KEEP_SECONDS - 1)
    assert len(kept) == 1
    kept.sweep(time.monotonic() + KEEP_SECONDS + 1)
    assert len(kept) == 0


def test_figures_are_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    for number in range(2):
        progress.write(file, {"faults": number})
        assert json.loads(file.read_text()) == {"faults": number}
    assert list(tmp_path.iterdir()) == [file]
