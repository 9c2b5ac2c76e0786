"""The client's fold and the edge's: the same log gives the same state, after every event."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.executions.fold import Fold
from broker.executions.state import MAX_MESSAGES, MAX_OTHERS, MAX_THOUGHTS, MAX_TOOLS
from broker.executions.undo import MAX_TEXT
from emitter import events
from emitter.budgets import Budget, BudgetState, Spent
from emitter.wire import ascii_json, envelope, ids
from emitter.wire.deltas import merged
from emitter.wire.entries import Entry
from tests.web.browser import NODE
from tests.web.client.viewers import node

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

GOLDEN = Path(__file__).parents[1] / "golden"
FUTURE = Entry(1, 1, b"hologram", b'{"type":"hologram","executionId":"ex_other","ts":9,"data":{}}')
Log = list[Entry]


def log(*happened: events.Event, start: int = 1, **keys: str) -> Log:
    entries = []
    for seq, event in enumerate(happened, start):
        type_ = envelope.event_type(event)
        encoded = envelope.envelope(
            type_, "ex_1", envelope.encode_data(event), ts=5000 + seq, keys=envelope.envelope_keys(**keys)
        )
        entries.append(Entry(1000 + seq, seq, type_.encode(), encoded))
    return entries


def recorded(name: str) -> Log:
    entries = []
    for line in (GOLDEN / name).read_text().splitlines():
        entry = json.loads(line)
        json_ = ascii_json.ascii_json(json.dumps(entry["event"]).encode())
        entries.append(Entry(*ids.parse_event_id(entry["id"]), entry["event"]["type"].encode(), json_))
    return entries


async def assert_same(logs: Sequence[Log], looks: Callable[[Log], list[int]]) -> None:
    """Both folds of each log agree, after the numbers of entries that `looks` gives."""
    cases = [(entries, looks(entries)) for entries in logs]
    lines = [
        json.dumps({"entries": [{"id": str(e.id), "event": json.loads(e.json)} for e in entries], "at": at})
        for entries, at in cases
    ]
    printed = (await node("fold.mjs", given="\n".join(lines).encode())).rstrip("\n").split("\n")
    for (entries, at), theirs in zip(cases, printed, strict=True):
        states = json.loads(theirs)
        fold, taken = Fold(), 0
        for count, state in zip(at, states, strict=True):
            for entry in entries[taken:count]:
                fold.apply_entry(entry)
            taken = count
            assert state == as_json(fold), f"after {count} of {[entry.type.decode() for entry in entries[:count]]}"


async def test_terminal_states() -> None:
    """The states after which the client expects no event are those of the catalogue."""
    script = (
        "import('../../../broker/web/client/fold.js').then((m) => console.log(JSON.stringify([...m.TERMINAL_STATES])))"
    )
    assert set(json.loads(await node("--input-type=module", "-e", script))) == events.TERMINAL_STATES


def as_json(fold: Fold) -> Any:
    return json.loads(msgspec.json.encode(fold.state()))


# --- made-up logs ----------------------------------------------------------------------------------------------------


class Dice(random.Random):
    """Makes up events whose ids meet again."""

    def maybe(self, value: Any) -> Any:
        return value if self.random() < 0.5 else None

    def id(self) -> str:
        return self.choice(["a", "b", "c", "1", "0", "__proto__", "constructor", "toString"])

    def text(self) -> str:
        return self.choice(["", "x", "two words", "é\U0001f600", "\u2028", '{"a":1}', "\0"])

    def anything(self) -> Any:
        return self.choice([None, 0, 1.5, "", "x", True, [], {}, {"a": [1, {"b": None}]}, [None], -3, 1e-9])

    def usage(self) -> dict[str, Any]:
        tokens = {"input_tokens": self.randint(0, 9), "output_tokens": 1, "total_tokens": 2}
        return tokens | {"cost_usd": self.maybe(self.random()), "model": self.maybe(self.text())}

    def make_child_started(self) -> events.Event:
        return events.ChildStarted(
            execution_id=self.id(), agent="a", task=self.text(), key=self.maybe("k"), detached=self.random() < 0.3
        )

    def make_child_ended(self) -> events.Event:
        state: Any = self.choice(["completed", "failed", "cancelled"])
        usage = self.maybe(events.Usage(**self.usage()))
        return events.ChildEnded(execution_id=self.id(), state=state, summary=self.maybe(self.text()), usage=usage)

    def progress(self) -> float:
        return self.choice([0, 0.5, 33.3, 100])

    def event(self, seq: int) -> events.Event:
        makers = [getattr(self, name) for name in dir(self) if name.startswith("make_")]
        if seq > 3 and self.random() < 0.04:
            return events.ExecutionSuperseded(from_seq=self.randint(0, seq - 1), attempt=self.randint(2, 9))
        made: events.Event = self.choice(makers)()
        return made

    def make_queued(self) -> events.Event:
        return events.ExecutionQueued(task=self.text(), agent=self.id(), budget=self.maybe(Budget(tool_calls=5)))

    def make_started(self) -> events.Event:
        spent = Spent(total_tokens=self.randint(0, 9), cost_usd=self.random(), tool_calls=1, seconds=1.5)
        budget = self.maybe(BudgetState(Budget(total_tokens=9, cost_usd=0.5), spent))
        started_at, attempt = self.randint(0, 9999), self.randint(1, 9)
        return events.ExecutionStarted(task=self.text(), started_at=started_at, attempt=attempt, budget=budget)

    def make_plan(self) -> events.Event:
        phases = [events.Phase(id=self.id(), name=self.text()) for _ in range(self.randint(0, 4))]
        return events.PlanCreated(plan=events.Plan(goal=self.text(), phases=phases))

    def make_phase_start(self) -> events.Event:
        return events.PhaseStart(phase_id=self.id(), phase_name=self.text(), phase_index=self.maybe(3))

    def make_phase_complete(self) -> events.Event:
        return events.PhaseComplete(phase_id=self.id(), phase_name=self.text(), duration=self.maybe(0.25))

    def make_thinking(self) -> events.Event:
        return events.Thinking(thought=self.text(), iteration=self.maybe(0), visible=self.random() < 0.5)

    def make_thinking_delta(self) -> events.Event:
        return events.ThinkingDelta(message_id=self.id(), delta=self.text())

    def make_message_delta(self) -> events.Event:
        return events.MessageDelta(message_id=self.id(), delta=self.text())

    def make_message_complete(self) -> events.Event:
        usage = self.maybe(events.Usage(**self.usage()))
        return events.MessageComplete(message_id=self.id(), text=self.maybe(self.text()), usage=usage)

    def make_tool_start(self) -> events.Event:
        return events.ToolStart(call_id=self.id(), tool_name=self.text(), params=self.anything())

    def make_tool_progress(self) -> events.Event:
        message = self.maybe(self.text())
        return events.ToolProgress(call_id=self.id(), progress=self.maybe(self.progress()), message=message)

    def make_tool_complete(self) -> events.Event:
        return events.ToolComplete(call_id=self.id(), tool_name=self.text(), result=self.anything(), duration=1)

    def make_tool_error(self) -> events.Event:
        return events.ToolError(call_id=self.id(), tool_name=self.text(), error=self.text(), duration=0)

    def make_status(self) -> events.Event:
        return events.Status(status=self.text(), message=self.text())

    def make_progress(self) -> events.Event:
        action, specialist = self.maybe(self.text()), self.maybe(self.id())
        return events.Progress(progress=self.progress(), current_action=action, specialist=specialist)

    def make_specialist(self) -> events.Event:
        return events.SpecialistActivated(specialist=self.id(), task=self.maybe(self.text()), icon=self.maybe("i"))

    def make_specialist_complete(self) -> events.Event:
        return events.SpecialistComplete(specialist=self.id(), summary=self.maybe(self.text()))

    def make_partial(self) -> events.Event:
        return events.PartialResult(result=self.anything(), specialist=self.maybe(self.id()))

    def make_synthesis(self) -> events.Event:
        return events.Synthesis(message=self.text(), specialists_complete=[self.id()], specialists_pending=[])

    def make_artifact(self) -> events.Event:
        content = {self.choice(["text", "data", "url"]): self.text()}
        flags = {"append": self.random() < 0.5, "last": self.random() < 0.5}
        return events.Artifact(
            artifact_id=self.id(), media_type="a/b", name=self.maybe(self.text()), **content, **flags
        )  # type: ignore[arg-type]

    def make_usage(self) -> events.Event:
        return events.UsageTotals(**self.usage())

    def make_budget(self) -> events.Event:
        limit = self.choice(["totalTokens", "costUsd", "toolCalls", "seconds"])
        return events.BudgetNotice(limit=limit, spent=self.choice([0, 5, 9]), max=10, action="continuing")

    def make_input_required(self) -> events.Event:
        options, schema, expires = self.maybe([self.text()]), self.maybe({"type": "object"}), self.maybe(7)
        kind = self.choice(["approval", "choice", "text", "form"])
        return events.InputRequired(
            input_id=self.choice("ij"),
            prompt=self.text(),
            kind=kind,
            options=options,
            schema=schema,
            expires_at=expires,
        )

    def make_input_received(self) -> events.Event:
        return events.InputReceived(input_id=self.choice("ij"), by="alice", value=self.anything())

    def make_user_message(self) -> events.Event:
        mode, text, data = self.choice(["queue", "interrupt"]), self.maybe(self.text()), self.maybe(self.anything())
        return events.UserMessage(message_id=self.choice("uvw"), by="alice", mode=mode, text=text, data=data)

    def make_user_message_taken(self) -> events.Event:
        return events.UserMessageTaken(message_ids=[self.choice("uvw"), self.choice("uvw")], attempt=1)

    def make_user_message_dropped(self) -> events.Event:
        return events.UserMessageDropped(message_id=self.choice("uvw"), reason=self.choice(["withdrawn", "ended"]))

    def make_others(self) -> events.Event:
        return self.choice(
            [
                events.Timeout(message=self.text(), action="continuing"),
                events.SandboxViolation(rule=self.text(), detail=self.text()),
                events.ModelCall(call_id="c", model=self.text(), input_tokens=1, output_tokens=2, duration=1.5),
                events.Custom(name="x.y", data={"a": 1}),
            ]
        )

    def end(self) -> events.Event:
        return self.choice(
            [
                events.ExecutionComplete(result=self.anything(), duration=2.5, tokens_used=self.maybe(3)),
                events.ExecutionError(error=self.text(), code=self.maybe("c")),
                events.ExecutionCancelled(reason=self.maybe(self.text()), by=self.maybe("alice")),
            ]
        )

    def log(self) -> Log:
        start = 1 if self.random() < 0.8 else self.randint(2, 50)  # the beginning is trimmed
        count = self.randint(1, 80)
        happened = [self.event(seq) for seq in range(start, start + count)]
        return log(*happened, *([self.end()] if self.random() < 0.4 else []), start=start)


# --- tests -----------------------------------------------------------------------------------------------------------


async def test_recorded_logs() -> None:
    """The recorded logs fold to the recorded states, and every prefix of them to what the edge makes of it."""
    names = ("every_event", "failed", "cancelled")
    logs = [recorded(f"{name}.jsonl") for name in names]
    await assert_same(logs, lambda entries: list(range(len(entries) + 1)))
    for name, entries in zip(names, logs, strict=True):
        fold = Fold()
        for entry in entries:
            fold.apply_entry(entry)
        assert as_json(fold) == json.loads((GOLDEN / f"state_{name}.json").read_text())


async def test_made_up_logs() -> None:
    """Any order of any events, with attempts that are void at any place, comes to the same on both sides."""
    dice = Dice(5)
    logs = [dice.log() for _ in range(400)]
    makers = {name for name in dir(dice) if name.startswith("make_")}
    assert len(makers) >= len(events.CATALOGUE) - 6  # three ends, one takeover, three in `others`, and a Custom
    await assert_same(logs, lambda entries: sorted({*dice.choices(range(len(entries) + 1), k=4), len(entries)}))


async def test_logs_in_short() -> None:
    """A log whose neighbouring chunks are one event comes to the state of the log, on both sides, also where an attempt
    is void: one begins and ends with events of its own."""
    dice, pairs = Dice(8), []
    for _ in range(60):
        happened: list[events.Event] = [dice.make_started()]
        begun = 1
        for _ in range(dice.randint(1, 40)):
            made = dice.event(1)
            happened += [made] * (dice.randint(1, 9) if made.type in events.DELTAS else 1)
            if dice.random() < 0.05:
                happened.append(events.ExecutionSuperseded(from_seq=begun, attempt=2))
                begun = len(happened)
        long = log(*happened, *([dice.end()] if dice.random() < 0.5 else []))
        pairs.append((long, merged(long, 0)))
    assert sum(len(short) for _, short in pairs) < 0.8 * sum(len(long) for long, _ in pairs)
    for long, short in pairs:
        states = []
        for entries in (long, short):
            fold = Fold()
            for entry in entries:
                fold.apply_entry(entry)
            states.append(as_json(fold))
        assert states[0] == states[1]
    await assert_same([short for _, short in pairs], lambda entries: [len(entries)])


async def test_events_that_come_again_or_are_not_known() -> None:
    """An entry that was taken before changes nothing, and one of a later version's type only moves the cursor."""
    begun = log(
        events.ExecutionStarted(task="t", started_at=1, attempt=1), events.MessageDelta(message_id="m", delta="a")
    )
    again = [
        *begun,
        *begun,
        FUTURE._replace(ms=1003, seq=3),
        *log(events.MessageDelta(message_id="m", delta="b"), start=4),
    ]
    logs = [again, [FUTURE], [FUTURE, *log(events.Custom(name="x", data={}), start=2)]]
    await assert_same(logs, lambda entries: list(range(len(entries) + 1)))


async def test_what_sub_agents_say() -> None:
    """Both leave it out of the text."""
    inner, parent = {"agent": "researcher", "parent_id": "c1"}, {"parent_id": "c2"}
    said = log(events.MessageDelta(message_id="a", delta="inner"), **inner)
    said += log(events.MessageDelta(message_id="b", delta="own"), start=2, **parent)
    said += log(events.MessageComplete(message_id="c", text="inner"), start=3, **inner)
    await assert_same([said], lambda entries: list(range(len(entries) + 1)))


async def test_limits() -> None:
    """Both keep and forget the same: of many parts the newest, of many changes the first and the last few, of a long
    text the beginning, counted in characters."""
    messages = [events.MessageDelta(message_id=str(number), delta="x") for number in range(MAX_MESSAGES + 3)]
    thoughts = [events.Thinking(thought=str(number)) for number in range(MAX_THOUGHTS + 3)]
    tools = [events.ToolStart(call_id=str(number), tool_name="t", params=None) for number in range(MAX_TOOLS + 3)]
    partials = [events.PartialResult(result=number) for number in range(MAX_OTHERS + 3)]
    changes = [events.Progress(progress=number) for number in range(40)]
    long = [events.MessageDelta(message_id="m", delta=text) for text in _long_texts()]
    artifact = [events.Artifact(artifact_id="a", media_type="t", text=text, append=True) for text in ["y" * 60_000] * 5]
    back = [events.ExecutionSuperseded(from_seq=back, attempt=2) for back in (39, 20, 3)]
    logs = [log(*happened) for happened in (messages, thoughts, tools, partials, [*changes, *back], long, artifact)]
    assert sum(map(len, _long_texts()[:-2])) == MAX_TEXT
    logs.append(log(*long, events.ExecutionSuperseded(from_seq=3, attempt=2), *long))
    await assert_same(logs, lambda entries: [len(entries) - back for back in (3, 2, 1, 0)])


def _long_texts() -> list[str]:
    """Around the limit, in characters that are two units of UTF-16."""
    pair, size = "\U0001f600", 5000
    whole, rest = divmod(MAX_TEXT - 1, size)
    return [pair * size] * whole + [pair * rest, pair, pair, pair + "end"]
