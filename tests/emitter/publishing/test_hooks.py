"""Hooks: what they may do to an event, what happens when they fail, and which run."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis
from structlog.testing import capture_logs

from emitter import AgentEmitter, HookFailed, Origin, SyncAgentEmitter, events
from emitter.errors import ExecutionEnded, InvalidEvent, InvalidSetting, PayloadTooLarge
from emitter.events import BY_TYPE, Custom, Event, InputReceived, InputRequired, Status, Thinking, ThinkingDelta
from emitter.publishing.hooks import Hook, apply_hooks, hooks_from, load_hooks, may_drop, name_hooks
from emitter.publishing.publisher import Publisher
from emitter.store.append import LogLimits
from emitter.store.jobs import Job
from emitter.testing import RecordingEmitter
from emitter.wire.keys import Owner
from emitter.worker.agents import Agents, Context
from emitter.worker.attempt import Attempt
from tests.plugins import install, install_example

KEYS = Owner("alice").execution("ex_1")
ORIGIN = Origin(user="alice", org="default", execution_id="ex_1")
SECRET = "the-launch-is-on-monday"
STATUS = Status(status="s", message="m")
QUESTION = InputRequired(input_id="in_1", prompt="?", kind="text")


async def stored(redis: Redis) -> list[dict[str, Any]]:
    return [json.loads(next(iter(fields.values()))) for _, fields in await redis.xrange(KEYS.log)]


async def types(redis: Redis) -> list[str]:
    return [event["type"] for event in await stored(redis)]


def upper(event: Event, _: Origin) -> Event:
    return replace(event, message=event.message.upper()) if isinstance(event, Status) else event


def exclaim(event: Event, _: Origin) -> Event:
    return replace(event, message=event.message + "!x") if isinstance(event, Status) else event


def breaks(event: Event, _: Origin) -> Event:
    raise LookupError(f"cannot redact {SECRET}")


def breaks_on(*wanted: str) -> Hook:
    def picky(event: Event, origin: Origin) -> Event:
        return breaks(event, origin) if event.type in wanted else event

    return picky


def returns(value: Any) -> Hook:
    def answer(event: Event, _: Origin) -> Any:
        return value

    return answer


def drops_all(event: Event, _: Origin) -> None:
    return None


# --- a chain ---------------------------------------------------------------------------------------------------------


def test_a_chain_is_applied_in_order() -> None:
    """Each hook gets what the one before returned."""
    one, two = name_hooks([upper, exclaim]), name_hooks([exclaim, upper])
    assert apply_hooks(one, STATUS, ORIGIN) == Status(status="s", message="M!x")
    assert apply_hooks(two, STATUS, ORIGIN) == Status(status="s", message="M!X")


def test_a_dropped_event_is_seen_by_no_later_hook() -> None:
    """None ends the chain."""
    assert apply_hooks(name_hooks([drops_all, breaks]), STATUS, ORIGIN) is None


def test_an_ordinary_event_may_become_another() -> None:
    """A hook may return any other ordinary event, of a plug-in's own type too."""
    for other in (Thinking(thought="t"), Custom(name="mine", data={"a": 1})):
        assert apply_hooks(name_hooks([returns(other)]), STATUS, ORIGIN) == other


def sample(cls: type[Event]) -> Event:
    """An event of a kept type, for which only the type matters."""
    given = {
        "task": "t", "agent": "a", "started_at": 1, "attempt": 1, "input_id": "in_1", "prompt": "?", "kind": "text",
        "by": "b", "from_seq": 1, "result": None, "duration": 1.0, "error": "e",
    }  # fmt: skip
    required = [name for name, each in inspect.signature(cls).parameters.items() if each.default is each.empty]
    return cls(**{name: given[name] for name in required})


@pytest.mark.parametrize("name", [name for name in BY_TYPE if name.startswith(("execution:", "input:"))])
def test_what_others_wait_for_is_neither_dropped_nor_made(name: str) -> None:
    """The events that begin and end executions and questions are neither dropped, nor changed into others, nor made of
    others; a changed one of the same type passes."""
    event = sample(BY_TYPE[name])
    assert not may_drop(event)
    for hook, given in ((drops_all, event), (returns(STATUS), event), (returns(event), STATUS)):
        with pytest.raises(HookFailed, match="may not"):
            apply_hooks(name_hooks([hook]), given, ORIGIN)
    assert apply_hooks(name_hooks([returns(sample(BY_TYPE[name]))]), event, ORIGIN) == event


def test_a_question_stays_the_same_question() -> None:
    """A hook may change what is asked and answered, not the id by which they find each other."""
    redacted = replace(QUESTION, prompt="[redacted]")
    assert apply_hooks(name_hooks([returns(redacted)]), QUESTION, ORIGIN) == redacted
    answer = InputReceived(input_id="in_1", by="b")
    for event in (QUESTION, answer):
        with pytest.raises(HookFailed, match="inputId"):
            apply_hooks(name_hooks([returns(replace(event, input_id="in_2"))]), event, ORIGIN)


@pytest.mark.parametrize(
    "rubbish",
    ["status", {"status": "s"}, True, Status(status="s", message=5), Custom(name="No", data={})],  # type: ignore[arg-type]
)
def test_rubbish_is_a_failure(rubbish: Any) -> None:
    """What is no event, or none that could be stored, fails, and the error names hook and type."""
    with pytest.raises(HookFailed) as caught:
        apply_hooks(name_hooks([upper, returns(rubbish)]), STATUS, ORIGIN)
    assert (caught.value.hook, caught.value.type) == ("answer", "status")
    assert "'answer'" in str(caught.value)


def test_a_failure_says_nothing_of_the_payload() -> None:
    """Neither the error, nor its traceback, nor the log line has what the hook's own exception says."""
    with capture_logs() as lines, pytest.raises(HookFailed) as caught:
        apply_hooks(name_hooks([breaks]), Status(status="s", message=SECRET), ORIGIN)
    shown = "".join(traceback.format_exception(caught.value))
    assert "LookupError" in str(caught.value)
    assert SECRET not in shown + str(caught.value) + str(lines)
    [line] = lines
    assert (line["event"], line["hook"], line["type"], line["execution"]) == ("hook_failed", "breaks", "status", "ex_1")
    assert line["at"].startswith("test_hooks.py:")


def test_a_value_that_is_not_valid_is_named_not_quoted() -> None:
    """The error has the path of the field, not what stands there."""
    wrong = events.Timeout(message="m", action=SECRET)  # type: ignore[arg-type]
    with pytest.raises(HookFailed, match=r"not valid at \$\.action$"):
        apply_hooks(name_hooks([returns(wrong)]), STATUS, ORIGIN)


def test_an_event_that_no_log_takes_is_not_the_hooks_fault() -> None:
    """A hook that trips over a field of the wrong type is no failure of the hook; its text is not shown either."""
    wrong = Status(status="s", message=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidEvent, match="message") as caught:
        apply_hooks(name_hooks([breaks]), wrong, ORIGIN)
    assert not isinstance(caught.value, HookFailed)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def coroutine(event: Event, _: Origin) -> Event:
    return event


class Waits:
    async def __call__(self, event: Event, _: Origin) -> Event:
        return event


class Counts:
    """A hook with a state of its own."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, event: Event, _: Origin) -> Event:
        self.seen += 1
        return event


@pytest.mark.parametrize("wrong", [None, "redact_mail", Status, coroutine, Waits()])
def test_what_cannot_be_a_hook_is_refused_when_it_is_given(wrong: Any) -> None:
    """Classes, names and what would have to be awaited are no hooks."""
    for make in (name_hooks, lambda hooks: RecordingEmitter(hooks=hooks), lambda hooks: Publisher(hooks=hooks)):
        with pytest.raises(TypeError, match="a hook is"):
            make([wrong])


# --- an emitter ------------------------------------------------------------------------------------------------------


async def test_events_pass_their_hooks_before_they_are_stored(redis: Redis, redis_url: str) -> None:
    """Redacted, enriched and dropped events look so in the log, whose ordinals stay dense."""
    origins: list[Origin] = []

    def hook(event: Event, origin: Origin) -> Event | None:
        origins.append(origin)
        if isinstance(event, Thinking):
            return replace(event, iteration=7) if event.visible else None
        return event

    options: Any = {"org": "acme", "attempt": 2, "agent": "writer", "request_id": "r"}
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook, upper], **options) as emitter:
        await emitter.thinking("aloud")
        await emitter.thinking("to myself", visible=False)
        await emitter.status("s", "done")
    rows: Any = await redis.xrange(Owner("alice", "acme").execution("ex_1").log)
    assert [int(id_.split(b"-")[1]) for id_, _ in rows] == [1, 2]
    data = [json.loads(next(iter(fields.values())))["data"] for _, fields in rows]
    assert data == [{"thought": "aloud", "iteration": 7}, {"status": "s", "message": "DONE"}]
    assert set(origins) == {Origin(user="alice", execution_id="ex_1", source="emitter", **options)}


async def test_an_agent_whose_events_are_dropped_is_not_silent(redis: Redis, redis_url: str) -> None:
    """A dropped event counts as a sign of life, and nothing of it is stored."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[drops_all]) as emitter:
        before = emitter.active_at
        await emitter.thinking("x")
        assert emitter.active_at > before
    assert await stored(redis) == []


async def test_built_in_redaction_comes_last(redis: Redis, redis_url: str) -> None:
    """A credential that a hook puts into an event is not stored."""

    def tells(event: Event, _: Origin) -> Event:
        return Custom(name="told", data={"password": "hunter2", "text": "ghp_" + "a1" * 20})

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[tells]) as emitter:
        await emitter.thinking("x")
    assert [event["data"] for event in await stored(redis)] == [{"password": "[redacted]", "text": "[redacted]"}]


async def test_hooks_see_chunks_before_they_are_merged(redis: Redis, redis_url: str) -> None:
    """Each chunk passes by itself, and what is left of it merges with its neighbours; another kind does not."""
    seen: list[str] = []

    def hook(event: Event, _: Origin) -> Event | None:
        if not isinstance(event, events.MessageDelta):
            return event
        seen.append(event.delta)
        if event.delta == "c":
            return ThinkingDelta(message_id="t", delta="C")
        return None if event.delta == "b" else replace(event, delta=event.delta.upper())

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook]) as emitter:
        for letter in "abcde":
            await emitter.text(letter)
    assert seen == list("abcde")
    assert [(event["type"], event["data"]["delta"]) for event in await stored(redis)] == [
        ("message:delta", "A"),
        ("thinking:delta", "C"),
        ("message:delta", "DE"),
    ]


async def test_a_hook_that_fails_keeps_its_event_out(redis: Redis, redis_url: str) -> None:
    """The call raises, nothing of the event is stored, and the emitter goes on with the next."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[breaks_on("status")]) as emitter:
        await emitter.thinking("before")
        with pytest.raises(HookFailed, match="'picky' failed on status: LookupError"):
            await emitter.status("s", SECRET)
        await emitter.thinking("after")
    assert [event["data"] for event in await stored(redis)] == [{"thought": "before"}, {"thought": "after"}]


async def test_a_call_whose_result_a_hook_fails_on_is_closed(redis: Redis, redis_url: str) -> None:
    """A tool call that began does not stay open: `tool:error` says that a hook failed."""
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[breaks_on("tool:complete")]) as emitter:
        with pytest.raises(HookFailed):
            async with emitter.tool("t") as call:
                call.result = SECRET
    log = await stored(redis)
    assert [event["type"] for event in log] == ["tool:start", "tool:error"]
    assert "HookFailed" in log[1]["data"]["error"]
    assert SECRET not in str(log)


ENDS: list[tuple[Callable[[Any], Any], str, dict[str, Any]]] = [
    (lambda e: e.execution_complete(SECRET), "execution:error", {"error": "hook 'x' failed", "code": "hook_failed"}),
    (
        lambda e: e.execution_error(SECRET, code="mine", stack=SECRET),
        "execution:error",
        {"error": "hook 'x' failed", "code": "hook_failed"},
    ),
    (lambda e: e.execution_cancelled(reason=SECRET, by="bob"), "execution:cancelled", {}),
    (
        lambda e: e.emit(events.ExecutionComplete(result=SECRET, duration=1)),
        "execution:error",
        {"error": "hook 'x' failed", "code": "hook_failed"},
    ),
]


@pytest.mark.parametrize("failing", [breaks, drops_all, returns("rubbish")])
@pytest.mark.parametrize(("end", "type_", "data"), ENDS)
async def test_an_end_that_a_hook_fails_on_is_an_end_all_the_same(
    redis: Redis, redis_url: str, failing: Hook, end: Callable[[Any], Any], type_: str, data: dict[str, Any]
) -> None:
    """The log gets exactly one terminal event, which says nothing of the one that was meant; the call raises; the
    execution's record has nothing of it either. The emitter of tests does the same."""

    def x(event: Event, origin: Origin) -> Any:
        return failing(event, origin) if event.type.startswith("execution:") else event

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[x]) as emitter:
        await emitter.text("Hello")
        with pytest.raises(HookFailed):
            await end(emitter)
        assert emitter.ended
        with pytest.raises(ExecutionEnded, match="failed" if data else "cancelled"):
            await emitter.execution_complete()
    log = await stored(redis)
    assert [event["type"] for event in log] == ["message:delta", "message:complete", type_]
    assert log[-1]["data"] == data
    assert SECRET not in str(await redis.hgetall(KEYS.record))
    assert await redis.hget(KEYS.record, "state") == (b"failed" if data else b"cancelled")

    recording = RecordingEmitter(hooks=[x])
    await recording.text("Hello")
    with pytest.raises(HookFailed):
        await end(recording)
    assert recording.types == ["message:delta", "message:complete", type_]
    assert (recording.ended, recording.records) == (True, {})


@pytest.mark.parametrize("fails", [True, False])
async def test_the_text_that_an_end_completes_passes_too(redis: Redis, redis_url: str, fails: bool) -> None:
    """`message:complete` is enriched like every other; a hook that fails on it does not keep the end away."""

    def hook(event: Event, _: Origin) -> Event:
        if isinstance(event, events.MessageComplete):
            return breaks(event, ORIGIN) if fails else replace(event, text="All of it")
        return event

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook]) as emitter:
        await emitter.text("All")
        await emitter.execution_complete(1)
    log = await stored(redis)
    middle = [] if fails else [("message:complete", {"messageId": "m1_1", "text": "All of it"})]
    assert [(event["type"], event["data"]) for event in log[1:-1]] == middle
    assert log[-1]["data"]["result"] == 1
    recording = RecordingEmitter(hooks=[hook])
    await recording.text("All")
    await recording.execution_complete(1)
    assert recording.types == [event["type"] for event in log]


async def test_an_end_that_a_hook_makes_too_large_ends_without_it(redis: Redis, redis_url: str) -> None:
    """That is the hook's failure. What was too large as the agent made it, is the agent's, who may end otherwise."""

    def grows(event: Event, _: Origin) -> Event:
        return replace(event, result="x" * 1500) if isinstance(event, events.ExecutionComplete) else event

    limits = LogLimits(max_event_bytes=1024)
    async with (
        Publisher(redis_url=redis_url, limits=limits, redact_keys=(), hooks=[grows]) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher, strict=True) as emitter,
    ):
        with pytest.raises(PayloadTooLarge):
            await emitter.execution_complete("y" * 2000)
        assert not emitter.ended
        with pytest.raises(HookFailed, match="PayloadTooLarge"):
            await emitter.execution_complete("small")
    assert [event["data"].get("code") for event in await stored(redis)] == ["hook_failed"]


async def test_a_question_that_a_hook_fails_on_is_not_waited_for(redis: Redis, redis_url: str) -> None:
    """`ask` raises at once; with a hook that changes the prompt, people read the changed one."""

    def hook(event: Event, _: Origin) -> Event:
        if isinstance(event, InputRequired):
            return replace(event, prompt="[redacted]") if event.prompt == "fine" else breaks(event, ORIGIN)
        return event

    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[hook]) as emitter:
        async with asyncio.timeout(5):
            with pytest.raises(HookFailed):
                await emitter.ask(SECRET)
        await emitter.input_required("in_9", "fine", "text")
    [question] = await stored(redis)
    assert question["data"]["prompt"] == "[redacted]"


async def test_an_emitters_own_hooks_come_before_its_publishers(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the operator named in the environment runs last, whatever an agent adds; a publisher that is given hooks
    has those and no others."""
    source = "from msgspec.structs import replace\ndef last(event, origin): return replace(event, message='env')\n"
    install(tmp_path / "site", "rc_env", {"last": "rc_env:last"}, source)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("RUNCAST_HOOKS", "last")
    async with AgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[upper]) as emitter:
        await emitter.status("s", "agent")
    async with (
        Publisher(redis_url=redis_url, hooks=[exclaim]) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher, hooks=[upper]) as emitter,
        AgentEmitter("alice", "ex_1", publisher=publisher) as plain,
    ):
        await emitter.status("s", "m")
        await emitter.flush()
        await plain.status("s", "m")
    async with (
        Publisher(redis_url=redis_url, hooks=()) as publisher,
        AgentEmitter("alice", "ex_1", publisher=publisher) as emitter,
    ):
        await emitter.status("s", "none")
    assert [event["data"]["message"] for event in await stored(redis)] == ["env", "M!x", "m!x", "none"]


async def test_the_blocking_emitter_has_hooks(redis: Redis, redis_url: str) -> None:
    """The same arguments, errors and log."""

    def agent() -> None:
        with SyncAgentEmitter("alice", "ex_1", redis_url=redis_url, hooks=[upper, breaks_on("thinking")]) as emitter:
            emitter.status("s", "m")
            with pytest.raises(HookFailed):
                emitter.thinking("x")
            emitter.execution_complete(1)

    await asyncio.to_thread(agent)
    log = await stored(redis)
    assert [event["type"] for event in log] == ["status", "execution:complete"]
    assert log[0]["data"]["message"] == "M"


async def test_hooks_are_tested_with_the_recording_emitter() -> None:
    """It shows what the hooks leave of an event, and raises as the real one."""
    counts = Counts()
    async with RecordingEmitter("bob", hooks=[counts, upper, breaks_on("thinking")], answers={"q": SECRET}) as emitter:
        await emitter.status("s", "m")
        with pytest.raises(HookFailed):
            await emitter.thinking("x")
        await emitter.ask("?", kind="text", input_id="q")
        with pytest.raises(InvalidEvent):
            await emitter.emit("status")  # type: ignore[arg-type]
    assert emitter.types == ["status", "input:required", "input:received"]
    assert (emitter.of("status")[0].message, counts.seen) == ("M", 4)


async def run_agent(redis_url: str, *hooks: Hook) -> str:
    """Run an agent as a worker does; how its run came out."""

    async def agent(context: Context) -> str:
        await context.emitter.text("Hello")
        return SECRET

    agents = Agents()
    agents.agent("agent")(agent)
    job = Job(
        owner=Owner("alice"), execution_id="ex_1", agent="agent", worker="w1", attempt=1, from_seq=0, lease_ms=0,
        task="t", params={}, metadata={}, request_id=None, conversation_id=None, cancel=None,
    )  # fmt: skip
    async with Publisher(redis_url=redis_url, hooks=hooks) as publisher:

        def open_emitter() -> AgentEmitter:
            return AgentEmitter("alice", "ex_1", publisher=publisher, attempt=1)

        return await Attempt(job, agents["agent"], open_emitter, 1.0).execute()


@pytest.mark.parametrize("broken", ["execution:started", "message:delta", "execution:complete", ""])
async def test_a_run_ends_once_whatever_a_hook_breaks(redis: Redis, redis_url: str, broken: str) -> None:
    """Whether a hook fails on the start, in the middle, at the end or always: an error ends the execution, and the
    worker has no reason to try it again."""
    hook = breaks_on(broken) if broken else breaks
    assert await run_agent(redis_url, hook) in ("failed", "ended")
    log = await stored(redis)
    assert [event["type"] for event in log].count("execution:error") == 1
    assert log[-1]["type"] == "execution:error"
    assert "hook" in log[-1]["data"]["error"].lower()
    assert SECRET not in str(log) + str(await redis.hgetall(KEYS.record))


# --- which hooks -----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the import path."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    return path


def test_only_what_is_named_is_loaded(site: Path) -> None:
    """Installed hooks run in the order of their names, and none that is not named is even imported."""
    install(site, "rc_good", {"a": "rc_good:a", "b": "rc_good:b"}, "def a(e, o): return e\ndef b(e, o): return e\n")
    install(site, "rc_idle", {"idle": "rc_idle:hook"}, "def hook(e, o): return e\n")
    assert hooks_from({}) == hooks_from({"RUNCAST_HOOKS": " "}) == load_hooks([]) == ()
    for text in ("a,b", " b , a "):
        found = hooks_from({"RUNCAST_HOOKS": text})
        names = [name.strip() for name in text.split(",")]
        assert [named.name for named in found] == [named.hook.__name__ for named in found] == names
    assert "rc_idle" not in sys.modules


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nope", "there is no 'nope'"),
        ("good,nope", "there is no 'nope'"),
        ("good,good", "'good' stands there twice"),
        ("twin", "several packages have a 'twin'"),
        ("broken", "'broken' cannot be loaded: RuntimeError: no licence"),
        ("absent", "'absent' cannot be loaded: ModuleNotFoundError"),
        ("missing", "'missing' cannot be loaded: AttributeError"),
        ("number", "'number' cannot be loaded: TypeError: a hook is a function"),
        ("cls", "'cls' cannot be loaded: TypeError: a hook is a function"),
        ("waits", "'waits' cannot be loaded: TypeError: a hook is no coroutine"),
    ],
)
def test_a_name_that_cannot_be_used_stops_the_start(site: Path, value: str, reason: str) -> None:
    """The error has the variable, its value, what is installed, and what is wrong in one line."""
    names = ("good", "missing", "number", "cls", "waits")
    source = "number = 5\nclass cls: pass\nasync def waits(e, o): return e\ndef good(e, o): return e\n"
    install(site, "rc_mixed", {name: f"rc_mixed:{name}" for name in (*names, "twin")}, source)
    install(site, "rc_twin", {"twin": "rc_mixed:good"})
    install(site, "rc_bad", {"broken": "rc_bad:x", "absent": "rc_not_there:x"}, "raise RuntimeError('no\\nlicence')\n")
    with pytest.raises(InvalidSetting) as caught:
        hooks_from({"RUNCAST_HOOKS": value})
    text = str(caught.value)
    assert (caught.value.name, caught.value.value) == ("RUNCAST_HOOKS", value)
    assert all(part in text for part in (*names, "broken", "absent", reason))
    assert "\n" not in text


def test_where_nothing_is_installed_it_says_so() -> None:
    """Without any plug-in the error does not end in an empty list; a list with a hole in it is none."""
    with pytest.raises(InvalidSetting, match="names, comma separated"):
        hooks_from({"RUNCAST_HOOKS": "good,"})
    with pytest.raises(InvalidSetting, match="none is"):
        load_hooks(["redact_mail"])


async def test_the_example(site: Path) -> None:
    """The three hooks of the example redact, enrich and drop."""
    install_example(site)
    hooks = [named.hook for named in load_hooks(["drop_invisible", "redact_mail", "add_cost"])]
    async with RecordingEmitter(hooks=hooks) as emitter:
        await emitter.text("Mail bob.o+x@mail.example.com.")
        await emitter.thinking("hidden", visible=False)
        await emitter.thinking("shown")
        await emitter.tool_start("c", "send", {"to": ["bob@example.com"], "bob@example.com": 1, "n": 1})
        await emitter.custom("sent", {"to": "bob@example.com"})
        await emitter.usage(input_tokens=1000, output_tokens=100, model="example-small")
        await emitter.usage(input_tokens=1000, output_tokens=100, model="unknown")
        await emitter.execution_complete({"sent": "to <bob@example.com>", "who": "bob@localhost"})
    assert emitter.text_emitted == "Mail [e-mail]."
    assert [event.thought for event in emitter.of("thinking")] == ["shown"]
    assert emitter.of("tool:start")[0].params == {"to": ["[e-mail]"], "[e-mail]": 1, "n": 1}
    assert emitter.of("custom:sent")[0].data == {"to": "[e-mail]"}
    assert [event.cost_usd for event in emitter.of("usage")] == [0.000375, None]
    assert emitter.of("execution:complete")[0].result == {"sent": "to <[e-mail]>", "who": "bob@localhost"}
