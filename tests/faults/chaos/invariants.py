"""What holds whatever breaks, of one execution and of what is left in the end. Each function returns what is wrong, in
words; nothing if all is well. Pure, but for `left_over`.

A log is a list of `Received`: id, type, and the event as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from emitter.events import TERMINAL_STATE_OF
from emitter.wire import keys
from tests.edges import Control, Received

Log = Sequence[Received]
Wrong = list[str]
AT_ONCE = 50
EVERYWHERE = ("message:delta", "thinking:delta", "tool:progress")
"""Types that are in no feed."""
FOR_GOOD = {
    *(keys.WORKER_INFO, keys.AGENTS_KNOWN, keys.AGENTS_STEERABLE, keys.WORKERS, keys.DATASET, keys.FENCE_SECRET),
    *(keys.EDGES, keys.MCP_KEY, keys.ABANDONED_ASKED, keys.SCHEDULES, keys.REVOCATIONS),
}
"""Keys without a life time: there is one of each, or one for each agent, whatever is run."""


def data_of(event: Received) -> dict[str, Any]:
    return json.loads(event.data)["data"]  # type: ignore[no-any-return]


def of(log: Log, type_: str) -> list[dict[str, Any]]:
    return [data_of(event) for event in log if event.type == type_]


def seq_of(event: Received) -> int:
    return int(event.id.rpartition("-")[2])


# --- one log ---------------------------------------------------------------------------------------------------------


def dense(log: Log) -> Wrong:
    """Ordinals go up by one from 1, and times never go back."""
    numbers = [tuple(map(int, event.id.split("-"))) for event in log]
    wrong = [] if [seq for _, seq in numbers] == list(range(1, len(log) + 1)) else ["the ordinals are not dense"]
    return wrong + [
        f"{after[0]} ms after {before[0]}" for before, after in itertools.pairwise(numbers) if after < before
    ]


def one_end(log: Log) -> Wrong:
    """One terminal event, the last."""
    ends = [number for number, event in enumerate(log) if event.type in TERMINAL_STATE_OF]
    return [] if log and ends == [len(log) - 1] else [f"{len(log)} events, with an end at {ends}"]


def fenced(log: Log, *, may_lack: bool = False) -> Wrong:
    """Attempts follow each other: each but the first begins with a `superseded` that names it and where the one before
    began, which may be after what others said before a worker came; and starts at most once. It says nothing before it
    has started, unless the log `may_lack` events that a failover has lost: an agent at work goes on."""
    wrong: Wrong = []
    attempt, began_at, has_started = 1, [1], False
    for event in log[1:-1]:
        if event.type == "execution:superseded":
            found = (data_of(event)["attempt"], data_of(event)["fromSeq"])
            if found[0] != attempt + 1 or found[1] not in began_at:
                wrong.append(f"{event.id}: superseded {found} after {(attempt, began_at)}")
            attempt, began_at, has_started = found[0], [seq_of(event)], False
        elif event.type == "execution:started":
            if (data_of(event)["attempt"], has_started) != (attempt, False):
                wrong.append(f"{event.id}: started {data_of(event)['attempt']} in attempt {attempt}, {has_started=}")
            has_started = True
        elif not has_started:
            began_at.append(seq_of(event))
            if not may_lack and event.type in ("thinking", "message:delta", "tool:start", "usage"):
                wrong.append(f"{event.id}: {event.type} before the attempt has started")
    return wrong


def in_order(log: Log) -> Wrong:
    """Thoughts are `<attempt> <step>`: what an attempt thinks is a beginning of what it had to, and in no other's."""
    wrong: Wrong = []
    attempt, steps = 1, itertools.count()
    for event in log:
        if event.type == "execution:superseded":
            attempt, steps = data_of(event)["attempt"], itertools.count()
        elif event.type == "thinking" and data_of(event)["thought"] != (due := f"{attempt} {next(steps)}"):
            wrong.append(f"{event.id}: {data_of(event)['thought']!r} where {due!r} was due")
    return wrong


def first_answer_once(log: Log, accepted: Mapping[str, Collection[object]] | None = None) -> Wrong:
    """Each question is closed at most once, and after it was asked; by an answer that was accepted, if those are given
    (input id → values that got a 202)."""
    asked = {each["inputId"] for each in of(log, "input:required")}
    closed = Counter(each["inputId"] for each in of(log, "input:received"))
    wrong = [f"{name} was closed {times} times" for name, times in closed.items() if times > 1]
    wrong += [f"{name} was closed and never asked" for name in closed if name not in asked]
    for name, values in (accepted or {}).items():
        got = [each.get("value") for each in of(log, "input:received") if each["inputId"] == name]
        if len(values) > 1:
            wrong.append(f"{name}: {len(values)} answers were accepted")
        elif values and got != list(values):
            wrong.append(f"{name}: {list(values)} was accepted, the log has {got}")
    return wrong


def spent(log: Log) -> tuple[int, int]:
    """Tokens and tool calls, counted from the log alone: the highest total of each attempt, and each start of a
    tool."""
    tokens, of_attempt = 0, 0
    for event in log:
        if event.type == "execution:started":
            tokens, of_attempt = tokens + of_attempt, 0
        elif event.type == "usage":
            of_attempt = max(of_attempt, data_of(event)["totalTokens"])
    return tokens + of_attempt, len(of(log, "tool:start"))


def budgets(log: Log, counted: tuple[int, int], max_calls: int | None = None) -> Wrong:
    """The record has counted what the log shows; of a limited number of tool calls none was made beyond it."""
    wrong = [] if counted == spent(log) else [f"the record has counted {counted}, the log {spent(log)}"]
    if max_calls is not None and spent(log)[1] > max_calls:
        ms = [int(event.id.partition("-")[0]) for event in log if event.type == "tool:start"]
        wrong.append(f"{len(ms)} tool calls of {max_calls}, the last one {ms[-1] - ms[-2]} ms after the one before")
    return wrong


def messages(log: Log, accepted: Collection[str] = ()) -> Wrong:
    """Each message is in the log once, those that were accepted for certain. Every attempt took a beginning of what
    was sent, in order and once; a message that no attempt took was dropped, once."""
    sent = [each["messageId"] for each in of(log, "user:message")]
    wrong = [f"message {name} is there {times} times" for name, times in Counter(sent).items() if times > 1]
    wrong += [f"message {name} was accepted and is not there" for name in accepted if name not in sent]
    dropped = [each["messageId"] for each in of(log, "user:message:dropped")]
    wrong += [f"message {name} was dropped {times} times" for name, times in Counter(dropped).items() if times > 1]
    offered = [name for name in sent if name not in {each["messageId"] for each in _withdrawn(log)}]
    by_attempt: dict[int, list[str]] = {}
    for each in of(log, "user:message:taken"):
        by_attempt.setdefault(each["attempt"], []).extend(each["messageIds"])
    for attempt, taken in by_attempt.items():
        if taken != offered[: len(taken)]:
            wrong.append(f"attempt {attempt} took {taken} of {offered}")
    return wrong


def _withdrawn(log: Log) -> Iterable[dict[str, Any]]:
    return (each for each in of(log, "user:message:dropped") if each["reason"] == "withdrawn")


def children(log: Log, ends: Mapping[str, str], keys_: Collection[str] = ()) -> Wrong:
    """Each child is started once, over all attempts, and its end told once and truly. `ends`: child → the state that
    its own log ends in. `keys_`: the names the agent gave them, of a parent that has completed."""
    started, ended = of(log, "child:started"), of(log, "child:ended")
    wrong = [
        f"child {name} {what} {times} times"
        for what, events in (("started", started), ("ended", ended))
        for name, times in Counter(each["executionId"] for each in events).items()
        if times > 1
    ]
    if keys_ and sorted(each["key"] for each in started) != sorted(keys_):
        wrong.append(f"children {[each['key'] for each in started]}, not {list(keys_)}")
    return wrong + [
        f"child {each['executionId']} {each['state']}, its log says {ends[each['executionId']]}"
        for each in ended
        if ends.get(each["executionId"], each["state"]) != each["state"]
    ]


NO_WEBHOOK = "no webhook brought"


def webhooks(log: Log, got: Collection[str]) -> Wrong:
    """The end was delivered at least once. `got`: types of events that came for this execution."""
    return [] if log and log[-1].type in got else [f"{NO_WEBHOOK} {log[-1].type if log else 'anything'}"]


def runs(log: Log, began: Sequence[int]) -> Wrong:
    """An agent began each attempt that the log says was started, once, and no other. `began`: attempts, as the agents
    counted them outside of Redis."""
    started = sorted(each["attempt"] for each in of(log, "execution:started"))
    return [] if sorted(began) == started else [f"agents began {sorted(began)}, the log has started {started}"]


def complete_feed(log: Log, feed: Sequence[str]) -> Wrong:
    """A viewer of the feed got every event of the log that belongs there, in order and once. `feed`: the JSON of events
    of this execution."""
    due = [event.data for event in log if event.type not in EVERYWHERE]
    if list(feed) == due:
        return []
    at = next((at for at, (one, other) in enumerate(zip(feed, due, strict=False)) if one != other), None)
    return [f"the feed brought {len(feed)} events of {len(due)}, the first other one at {at}"]


# --- one viewer ------------------------------------------------------------------------------------------------------


def same_as_log(log: Log, events: Log, resets: Sequence[Control] = (), *, may_reset: bool = False) -> Wrong:
    """A viewer got exactly the log; or it was told of a loss (`stream:reset`), and got the log as it is from where that
    says."""
    if not resets:
        return [] if list(events) == list(log) else [_difference(log, events)]
    if not may_reset:
        return [f"a reset without a loss: {resets[-1].data}"]
    tail = list(events[resets[-1].after :])
    is_tail = not tail or list(log[-len(tail) :]) == tail
    return [] if is_tail and (tail or log) else [f"after {resets[-1].data}: {_difference(log, tail)}"]


def _difference(log: Log, events: Log) -> str:
    at = next((at for at, (one, other) in enumerate(zip(log, events, strict=False)) if one != other), None)
    seen = f"a viewer has {len(events)} events, the log {len(log)}"
    if at is None:
        return f"{seen}; as far as they go they are the same"
    return f"{seen}; the first other one is {events[at].id} {events[at].type} for {log[at].id} {log[at].type}"


# --- what is left ----------------------------------------------------------------------------------------------------


async def left_over(redis: Any, agents: Iterable[str], users: Iterable[str]) -> Wrong:
    """Nothing waits, runs or is looked after any more, and every key has a life time. `redis`: a client that scans the
    whole data."""
    counts = {
        "due": await redis.zcard(keys.DUE),
        "queued": await redis.hlen(keys.QUEUED),
        "abandoned": await redis.zcard(keys.ABANDONED),
        "expiries": await redis.zcard(keys.EXPIRIES),
        "webhooks": await redis.zcard(keys.WEBHOOKS),
        "held webhooks": await redis.hlen(keys.WEBHOOKS_HELD),
    }
    for agent in agents:
        counts[f"jobs of {agent}"] = await redis.xlen(keys.jobs_key(agent))
        if await redis.exists(keys.jobs_key(agent)):
            for group in await redis.xinfo_groups(keys.jobs_key(agent)):
                counts[f"pending jobs of {agent}"] = group["pending"]
    for user in users:
        name = keys.member(keys.Owner(user), "x")
        counts[f"waiting executions of {user}"] = await redis.zcard(keys.waiting_key(name))
    return [f"{count} {what} are left" for what, count in counts.items() if count]


async def without_life_time(redis: Any) -> Wrong:
    """Keys that would stay for ever, but for those that there is one of."""
    scanned = [key.decode() async for key in redis.scan_iter(match=f"{keys.PREFIX}:*", count=1000)]
    found = [key for key in scanned if key not in FOR_GOOD and not _is_queue(key)]
    wrong = []
    for at in range(0, len(found), AT_ONCE):
        some = found[at : at + AT_ONCE]
        lives = await asyncio.gather(*map(redis.pttl, some))
        wrong += [f"{key} has no life time" for key, ms in zip(some, lives, strict=True) if ms == -1]
    return wrong


def _is_queue(key: str) -> bool:
    return key.startswith(keys.jobs_key(""))


def back_to_where_it_was(
    before: Mapping[str, float], after: Mapping[str, float], most: Callable[[str, float], float]
) -> Wrong:
    """What is counted of a process (memory, descriptors, threads, streams) is at most what `most` says for its name and
    what it was before."""
    return [
        f"{name}: {after[name]:g} in the end, {value:g} in the beginning"
        for name, value in before.items()
        if name in after and after[name] > most(name, value)
    ]
