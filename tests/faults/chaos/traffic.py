"""The load: executions that are started, watched, answered, talked to and compared with their logs as soon as they are
over, so that a run may last for hours."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from emitter import tasks
from emitter.events import TERMINAL_STATE_OF
from emitter.store.connection import GONE
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord
from tests.edges import ALL_SCOPES, FEED_PATH, Answer, Received, call, read_log, stream_path, token_for
from tests.faults.chaos import invariants
from tests.faults.chaos.kept import Kept
from tests.faults.chaos.report import Seen
from tests.faults.chaos.stand import Stand
from tests.faults.chaos.viewers import FeedViewer, Viewer
from tests.receivers import Receiver

VIEWERS = 6
"""Of each execution."""
REQUEST_SECONDS = 8.0
ACCEPT_SECONDS = 120.0
FINISH_SECONDS = 240.0
LATE_SECONDS = 30.0
"""How long what is right in the end may take: the feed, a record on a node that was just replaced."""
WEBHOOK_SECONDS = 100.0
"""A webhook that nobody woke is looked at within a minute, and one whose edge was lost when its lease of 30 s ends."""
AGENTS = ("talker", "asker", "listener", "parent", "spender")
WEIGHTS = (12, 2, 2, 2, 1)
MESSAGES = 5
TOOL_CALLS = 20
TOKEN_SECONDS = 86_400
TIDY_SECONDS = 5.0
BROKEN = (OSError, asyncio.IncompleteReadError, TimeoutError)


class Run:
    """One execution, and what its clients know of it."""

    def __init__(self, user: str, agent: str, number: int) -> None:
        self.user, self.agent, self.number = user, agent, number
        self.id = ""
        self.began_at = time.monotonic()
        self.viewers: list[Viewer] = []
        self.accepted_messages: list[str] = []
        self.accepted_answers: dict[str, list[str]] = {}
        self.has_webhook = number % 4 == 0
        self.log: list[Received] = []


class Traffic:
    """`viewers`: how many at a time. `pause`: seconds between two steps of an agent, which makes up to `steps`."""

    def __init__(
        self,
        stand: Stand,
        client: Any,
        receiver: Receiver,
        runs_file: Path,
        viewers: int,
        pause: float,
        steps: int,
        seed: int,
    ) -> None:
        self._stand, self._client, self._receiver, self._runs_file = stand, client, receiver, runs_file
        self._loops = max(1, round(viewers / VIEWERS))
        self._pause, self._steps = pause, steps
        self._chance = random.Random(seed)
        self._tokens = {user: token_for(user, scopes=ALL_SCOPES, ttl=TOKEN_SECONDS) for user in stand.users}
        self._feeds: dict[str, FeedViewer] = {}
        self._number = 0
        self._stops = False
        self.end_seconds: float | None = None
        """How long those that are under way may take in the end; None: as long as each may take."""
        self.runs: dict[str, Run] = {}
        """Those under way."""
        self.wrong: list[str] = []
        self._lost_ends: set[Viewer] = set()
        self.counts: Counter[str] = Counter()
        self.saw: Callable[[Seen], None] = lambda _: None
        """Gets the viewers of talkers, which say something all the time."""
        self._attempts: Kept[int] = Kept()
        self._read_to = 0
        self._webhooks: Kept[str] = Kept()

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Executions come and go; at the end of the block those that are under way come to their end."""
        async with contextlib.AsyncExitStack() as following:
            for number, user in enumerate(self._stand.users):
                feed = FeedViewer(self._stand.edges_from(number), FEED_PATH, self._tokens[user])
                self._feeds[user] = await following.enter_async_context(feed)
                async with asyncio.timeout(ACCEPT_SECONDS):
                    await feed.live.wait()
            loops = [asyncio.create_task(self._loop()) for _ in range(self._loops)]
            others = [asyncio.create_task(self._hang_up()), asyncio.create_task(self._tidy())]
            try:
                yield
                self._stops = True
                async with asyncio.timeout(self.end_seconds):
                    await asyncio.gather(*loops)
            except TimeoutError:
                self.counts["executions cut"] = len(self.runs)
            finally:
                await tasks.end([*others, *loops])

    async def cancel_forgotten(self) -> None:
        """Cancel what still runs: a failover has brought it back after all had left who answer and talk to it."""
        for token in self._tokens.values():
            for state in ("waiting_input", "running"):
                path = f"/api/agent/executions?state={state}&limit=100"
                with contextlib.suppress(*BROKEN):
                    listed = await call(self._stand.next_port(), "GET", path, token)
                    for each in listed.body["executions"]:
                        path = f"/api/agent/executions/{each['executionId']}/cancel"
                        answer = await call(self._stand.next_port(), "POST", path, token, {})
                        self.counts["brought back when all had left, and cancelled"] += answer.status == 202

    @property
    def feed_deliveries(self) -> int:
        return sum(feed.count for feed in self._feeds.values())

    @property
    def received(self) -> int:
        """Deliveries so far, also to viewers of executions that are not compared yet."""
        under_way = sum(len(viewer.events) for run in self.runs.values() for viewer in run.viewers)
        return self.counts["deliveries"] + under_way + self.feed_deliveries

    @property
    def watching(self) -> int:
        """Viewers that have got more than the first event, which comes before a worker."""
        return sum(len(viewer.events) > 1 for run in self.runs.values() for viewer in run.viewers)

    @property
    def oldest(self) -> Run | None:
        return min(self.runs.values(), key=lambda run: run.began_at, default=None)

    async def _loop(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, 3))
        while not self._stops:
            agent = self._chance.choices(AGENTS, WEIGHTS)[0]
            self._number += 1
            run = Run(self._stand.users[self._number % len(self._stand.users)], agent, self._number)
            try:
                await self._see_through(run)
            except Exception as error:
                self._say(f"{run.agent} {run.id}: {type(error).__name__}: {error}")
            finally:
                self.runs.pop(run.id, None)

    async def _hang_up(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            if watching := [viewer for run in self.runs.values() for viewer in run.viewers if not viewer.done]:
                self._chance.choice(watching).hang_up()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._take_in()
            now = time.monotonic()
            for kept in (self._attempts, self._webhooks, *(feed.of for feed in self._feeds.values())):
                kept.sweep(now)

    def _take_in(self) -> None:
        """What came outside of streams: webhooks, and the attempts that agents began."""
        for got in self._receiver.got:
            self._webhooks.add(got.execution, got.type)
        self._receiver.got.clear()
        if self._runs_file.exists():
            with self._runs_file.open("rb") as file:
                file.seek(self._read_to)
                *lines, rest = file.read().split(b"\n")
                self._read_to = file.tell() - len(rest)
            for name, attempt in (line.decode().split() for line in lines):
                self._attempts.add(name, int(attempt))

    # --- one execution -----------------------------------------------------------------------------------------------

    async def _see_through(self, run: Run) -> None:
        run.id = await self._execute(run)
        self.runs[run.id] = run
        shared: dict[bytes, Received] = {}
        async with contextlib.AsyncExitStack() as following:
            for number in range(VIEWERS):
                path, token = stream_path(run.id), self._tokens[run.user]
                viewer = Viewer(self._stand.edges_from(run.number + number), path, token, shared)
                run.viewers.append(await following.enter_async_context(viewer))
            acting = asyncio.create_task(self._act(run))
            try:
                await self._over(run)
            finally:
                await tasks.end([acting])
        if wrong := [f"{viewer!r}: {viewer.error!r}" for viewer in run.viewers if viewer.error]:
            raise AssertionError("; ".join(wrong))
        await self._verify(run)

    async def _over(self, run: Run) -> None:
        """Wait until all viewers are done, or the execution was lost altogether."""
        deadline = time.monotonic() + FINISH_SECONDS
        while not all(viewer.done for viewer in run.viewers) and time.monotonic() < deadline:
            if all(v.done or v.error or v.statuses[-3:] == [404] * 3 for v in run.viewers):
                return
            await asyncio.sleep(0.1)

    async def _execute(self, run: Run) -> str:
        """Start one, asking edge after edge with one idempotency key until it is accepted."""
        steps = self._chance.randint(self._steps // 10, self._steps)
        body: dict[str, Any] = {
            "task": "talk",
            "agent": run.agent,
            "params": {"steps": steps, "pause": self._pause, "messages": MESSAGES},
        }
        if run.agent == "spender":
            body["budget"] = {"toolCalls": TOOL_CALLS}
        if run.has_webhook:
            body["webhook"] = {"url": self._receiver.url}
        headers = {"Idempotency-Key": f"key-{self._chance.getrandbits(64):x}"}
        answer = await self._until_answered(run, "POST", "/api/agent/execute", body, (202,), headers)
        return str(answer.body["executionId"])

    async def _until_answered(
        self, run: Run, method: str, path: str, body: Any, statuses: tuple[int, ...], headers: Mapping[str, str] = {}
    ) -> Answer:
        """Ask edge after edge until one gives an answer with one of the statuses."""
        last: Any = None
        deadline = time.monotonic() + ACCEPT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(*BROKEN):
                async with asyncio.timeout(REQUEST_SECONDS):
                    port = self._stand.next_port()
                    last = await call(port, method, path, self._tokens[run.user], body, headers=headers)
                if last.status in statuses:
                    return last  # type: ignore[no-any-return]
            await asyncio.sleep(0.2)
        said = last and (last.status, last.body)
        raise AssertionError(f"{method} {path}: no answer {statuses} within {ACCEPT_SECONDS:g} s, the last {said}")

    async def _act(self, run: Run) -> None:
        """What people do to it: `asker` is answered by two of them at once, `listener` is talked to."""
        path = f"/api/agent/executions/{run.id}"
        if run.agent == "listener":
            for number in range(MESSAGES):
                body = {"messageId": f"m{number}", "text": "x"}
                answer = await self._until_answered(run, "POST", f"{path}/messages", body, (202, 404, 409))
                if answer.status == 202:
                    run.accepted_messages.append(f"m{number}")
                await asyncio.sleep(self._chance.uniform(0, 1))
        while run.agent == "asker":
            await self._answer_open(run, _of_this_log(run.viewers[0]))
            await asyncio.sleep(0.3)

    async def _answer_open(self, run: Run, seen: Sequence[Received]) -> None:
        """Answer the questions that wait, as far as somebody knows who has seen this."""
        asked, closed = (invariants.of(seen, type_) for type_ in ("input:required", "input:received"))
        for input_id in {data["inputId"] for data in asked} - {data["inputId"] for data in closed}:
            # An answer that was accepted may be lost in a failover: then the question is open again.
            if input_id not in run.accepted_answers or self._stand.has_lost_since(run.began_at):
                given = await asyncio.gather(*(self._answer(run, input_id, value) for value in ("a", "b")))
                run.accepted_answers[input_id] = [value for value in given if value is not None]

    async def _answer(self, run: Run, input_id: str, value: str) -> str | None:
        body = {"inputId": input_id, "value": value}
        path = f"/api/agent/executions/{run.id}/input"
        answer = await self._until_answered(run, "POST", path, body, (202, 404, 409))
        return value if answer.status == 202 else None

    # --- what is right -----------------------------------------------------------------------------------------------

    async def _verify(self, run: Run) -> None:
        began, late = time.monotonic(), False
        while wrong := await self._wrong(run):
            # What has lost its end is run once more, after all viewers had left, and may ask once more.
            if run.agent == "asker":
                await self._answer_open(run, run.log)
            are_webhooks = all(words.startswith(invariants.NO_WEBHOOK) for words in wrong)
            seconds = WEBHOOK_SECONDS if are_webhooks else LATE_SECONDS
            if self._stand.has_lost_since(run.began_at):
                seconds = FINISH_SECONDS
            waited = time.monotonic() - began
            if waited > seconds:
                break
            if waited > LATE_SECONDS and not late:
                late = True
                print("late", run.agent, run.id, wrong[0][:600], flush=True)
            await asyncio.sleep(1)
        for words in wrong:
            self._say(f"{run.agent} {run.id} of {run.user}: {words}")
        self._count(run)

    def _say(self, words: str) -> None:
        print("WRONG", words[:600], flush=True)
        self.wrong.append(words)

    async def _wrong(self, run: Run) -> list[str]:
        run.log, record = await self._read(run)
        self._take_in()
        if self._stand.has_lost_since(run.began_at):
            return await self._wrong_after_loss(run)
        log, viewers = run.log, run.viewers
        wrong = [f"viewer {viewer!r} is not done" for viewer in viewers if not viewer.done]
        wrong += _wrong_log(log)
        wrong += [words for v in viewers for words in invariants.same_as_log(log, v.events, v.resets)]
        wrong += invariants.first_answer_once(log, run.accepted_answers)
        wrong += invariants.messages(log, run.accepted_messages)
        counted = record.spent
        wrong += invariants.budgets(log, (counted.total_tokens, counted.tool_calls), TOOL_CALLS + 1)
        wrong += invariants.runs(log, self._attempts.get(run.id))
        wrong += invariants.complete_feed(log, self._feeds[run.user].of.get(run.id))
        wrong += await self._wrong_children(run)
        if run.has_webhook:
            wrong += invariants.webhooks(log, self._webhooks.get(run.id))
        if log and log[-1].type != ("execution:error" if run.agent == "spender" else "execution:complete"):
            wrong.append(f"it ended with {log[-1]}")
        return wrong

    async def _wrong_children(self, run: Run) -> list[str]:
        if run.agent != "parent":
            return []
        ends: dict[str, str] = {}
        wrong: list[str] = []
        for child in _children(run.log):
            key = Owner(run.user).execution(child).log
            log = await self._patiently(lambda key=key: read_log(self._client, key))
            of_child = _wrong_log(log) + invariants.runs(log, self._attempts.get(child))
            of_child += invariants.complete_feed(log, self._feeds[run.user].of.get(child))
            wrong += [f"child {child}: {words}" for words in of_child]
            if log:
                ends[child] = TERMINAL_STATE_OF.get(log[-1].type, "none")
        return wrong + invariants.children(run.log, ends, ("one", "two"))

    async def _wrong_after_loss(self, run: Run) -> list[str]:
        """Acknowledged writes were lost while it ran. A viewer that was there has the log, or was told."""
        log = run.log
        if not log:
            wrong_of = {v: [f"it is lost, and {v!r} was not told"] for v in run.viewers if _is_untold(v)}
        else:
            wrong_of = {
                v: ([] if v.done else [f"viewer {v!r} is not done"])
                + invariants.same_as_log(log, v.events, v.resets, may_reset=True)
                for v in run.viewers
            }
        left = {viewer for viewer, wrong in wrong_of.items() if wrong and self._saw_a_lost_end(viewer)}
        self._lost_ends |= left
        of_log: list[str] = []
        if log:
            of_log = invariants.dense(log) + invariants.one_end(log) + invariants.fenced(log, may_lack=True)
        return of_log + [words for viewer, wrong in wrong_of.items() if viewer not in left for words in wrong]

    def _saw_a_lost_end(self, viewer: Viewer) -> bool:
        """It had left with an end that was lost thereafter: nobody can tell it."""
        has_end = bool(viewer.events) and viewer.events[-1].type in TERMINAL_STATE_OF
        return viewer.done and has_end and self._stand.has_lost_since(viewer.done_at)

    async def _read(self, run: Run) -> tuple[list[Received], ExecutionRecord]:
        keys = Owner(run.user).execution(run.id)
        log = await self._patiently(lambda: read_log(self._client, keys.log))
        record = await self._patiently(lambda: self._client.hgetall(keys.record))
        return log, ExecutionRecord.read(record)

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        deadline = time.monotonic() + LATE_SECONDS
        while True:
            try:
                return await ask()
            except (RedisError, *GONE):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)

    def _count(self, run: Run) -> None:
        self.counts["executions"] += 1
        self.counts["events"] += len(run.log)
        self.counts["deliveries"] += sum(len(viewer.events) for viewer in run.viewers)
        self.counts["connects"] += sum(viewer.connects for viewer in run.viewers)
        self.counts["resets told"] += sum(len(viewer.resets) for viewer in run.viewers)
        self.counts["executions lost whole, and said so"] += not run.log
        if run.log and self._stand.has_lost_since(run.began_at):
            self.counts["executions under a loss of acknowledged writes"] += 1
            self.counts["of these, with thoughts that are missing"] += bool(invariants.in_order(run.log))
        self.counts["attempts after the first"] += len(invariants.of(run.log, "execution:superseded"))
        for name in (run.id, *_children(run.log)):
            for kept in (self._feeds[run.user].of, self._attempts, self._webhooks):
                kept.drop(name)
        for viewer in run.viewers:
            if viewer in self._lost_ends:
                self.counts["viewers that left with an end that was lost"] += 1
                self._lost_ends.discard(viewer)
            if run.agent == "talker":
                self.saw(Seen(viewer.began_at, viewer.done_at, viewer.quiet))


def _children(log: Sequence[Received]) -> set[str]:
    return {each["executionId"] for each in invariants.of(log, "child:started")}


def _of_this_log(viewer: Viewer) -> list[Received]:
    """What somebody has seen since the last reset."""
    return viewer.events[viewer.resets[-1].after if viewer.resets else 0 :]


def _is_untold(viewer: Viewer) -> bool:
    return bool(viewer.events) and not viewer.resets and not viewer.was_missing


def _wrong_log(log: list[Received]) -> list[str]:
    return invariants.dense(log) + invariants.one_end(log) + invariants.fenced(log) + invariants.in_order(log)
