"""What people answer: checked against the question on a real Redis, stored once, seen by nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from broker.base.error_mapping import to_problem
from broker.base.identity import Identity
from broker.base.metrics import Metrics
from broker.base.problem import Problem
from broker.executions.commands import Commands
from broker.executions.forms import Checked, Forms
from broker.executions.inputs import DETAIL_CHARS, Answers
from broker.executions.types import InputRequest
from broker.log.history import History
from emitter.errors import (
    AlreadyAnswered,
    ExecutionEnded,
    InvalidEvent,
    PayloadTooLarge,
    RuncastError,
    UnknownExecution,
    UnknownInput,
)
from emitter.events import (
    EXPIRED,
    Event,
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    Thinking,
)
from emitter.store.append import LogLimits, append, prepare
from emitter.values import MAX_DEPTH
from emitter.wire import ids
from emitter.wire.ids import START
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor

ALICE, BOB = Identity(Owner("alice"), frozenset()), Identity(Owner("bob"), frozenset())
KEYS = ALICE.owner.execution("ex_1")
STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)
DONE = ExecutionComplete(result={"ok": True}, duration=1.5)
LOGIN = {
    "type": "object",
    "properties": {"email": {"type": "string", "format": "email"}, "password": {"type": "string", "minLength": 8}},
    "required": ["email"],
}


@pytest.fixture
def answers(redis: Redis) -> Answers:
    return Answers(redis, LogLimits(), Redactor())


@pytest.fixture
async def commands(redis: Redis) -> AsyncIterator[Commands]:
    history = History(redis, Metrics("0"))
    yield Commands(redis, history, LogLimits(), Redactor())
    await history.close()


async def log(redis: Redis, *events: Event, **options: Any) -> None:
    prepared = [prepare(event, "ex_1", redact=Redactor()) for event in events]
    await append(redis, ALICE.owner, "ex_1", prepared, **options)


async def ask(redis: Redis, **question: Any) -> None:
    await log(redis, STARTED, InputRequired(**({"input_id": "i", "prompt": "?"} | question)))


async def give(answers: Answers, value: Any, *, input_id: str = "i", identity: Identity = ALICE) -> Any:
    return await answers.give(identity, "ex_1", InputRequest(input_id=input_id, value=value), "r")


async def refused(answers: Answers, value: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await give(answers, value)
    return caught.value


async def types(redis: Redis) -> list[str]:
    rows: Any = await redis.xrange(KEYS.log)
    return [next(iter(fields)).decode() for _, fields in rows]


async def record(redis: Redis, field: str) -> Any:
    raw: Any = await redis.hget(KEYS.record, field)  # type: ignore[misc]
    return None if raw is None else raw.decode()


# --- whether it fits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "good", "bad"),
    [
        ({"kind": "approval"}, [True, False], ["true", 1, 0, None, {}, []]),
        ({"kind": "choice", "options": ["a", "b"]}, ["a", "b"], ["c", "A", "", None, 0, ["a"], True]),
        ({"kind": "choice"}, ["a", ""], [0, None]),
        ({"kind": "text"}, ["", "anything", "ü\u2028"], [1, None, True, ["a"]]),
        ({"kind": "form"}, [{}, {"a": [1]}], ["{}", [], None, True]),
        ({"kind": "form", "schema": LOGIN}, [{"email": "a@b"}], ["{}", [], None, True]),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
async def test_an_answer_must_fit_its_question(
    redis: Redis, answers: Answers, question: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    """Each kind of question takes its kind of answer; anything else is a 422 that leaves the question open."""
    for value in good:
        await redis.flushall()
        await ask(redis, **question)
        for wrong in bad:
            problem = await refused(answers, wrong)
            assert (problem.status, problem.extensions["path"]) == (422, "$.value")
        assert await types(redis) == ["execution:started", "input:required"]
        await give(answers, value)
        assert await record(redis, "state") == "running"
        assert msgspec.json.decode(await record(redis, "a:i"))["value"] == value


async def test_the_fields_of_a_form_that_do_not_fit(redis: Redis, answers: Answers) -> None:
    """The first is the problem's path and detail; all are named; nothing is stored."""
    await ask(redis, kind="form", schema=LOGIN)
    problem = await refused(answers, {"email": "nobody", "password": "short"})
    assert (problem.status, problem.slug) == (422, "invalid")
    assert problem.extensions["path"] == "$.value.email"
    assert problem.detail == "'nobody' is not a 'email'"
    assert [error["path"] for error in problem.extensions["errors"]] == ["$.value.email", "$.value.password"]
    assert (await refused(answers, {})).extensions["path"] == "$.value.email"
    assert await types(redis) == ["execution:started", "input:required"]
    await give(answers, {"email": "a@example.com", "password": "long enough"})


async def test_an_unusable_schema_asks_for_an_object(redis: Redis, answers: Answers) -> None:
    """The question can be answered all the same, and what is wrong with its schema is logged once."""
    await ask(redis, kind="form", schema={"type": "objct"})
    with capture_logs() as logs:
        assert (await refused(answers, "text")).status == 422
        await give(answers, {"a": 1})
        with pytest.raises(AlreadyAnswered):
            await give(answers, {"a": 2})
    (line,) = [line for line in logs if line["event"] == "schema_unusable"]
    assert (line["execution"], line["input"]) == ("ex_1", "i")
    assert "objct" in line["reason"]


async def test_an_answer_that_cannot_be_checked_is_not_taken(
    redis: Redis, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema that most answers fit is not got round by one that is too much for it."""
    await ask(redis, kind="form", schema=LOGIN)

    async def too_long(_: Forms, user: Owner, schema: object, value: object) -> Checked:
        return Checked(unchecked="it took too long")

    with monkeypatch.context() as patched:
        patched.setattr(Forms, "check", too_long)
        problem = await refused(answers, {"email": "a@b"})
    assert (problem.status, problem.extensions["path"]) == (422, "$.value")
    assert "cannot be checked" in problem.detail
    assert await record(redis, "a:i") is None
    await give(answers, {"email": "a@b"})


async def test_an_answer_is_not_nested_deeper_than_any_value(redis: Redis, answers: Answers) -> None:
    """It is refused with its path, whatever the schema says."""
    await ask(redis, kind="form", schema=None)
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(InvalidEvent) as caught:
        await give(answers, {"a": deep})
    problem = to_problem(caught.value)
    assert problem is not None
    assert (problem.status, problem.extensions["path"]) == (422, "$.value")
    await give(answers, {"a": deep[0][0]})


async def test_what_is_said_of_a_wrong_answer_is_bounded(redis: Redis, answers: Answers) -> None:
    """However long the options are."""
    await ask(redis, kind="choice", options=[f"{number} " + "x" * 100 for number in range(100)])
    problem = await refused(answers, "y" * 10_000)
    assert len(problem.detail) == DETAIL_CHARS
    assert len(msgspec.json.encode(problem.body("r"))) < 1500


# --- large, deep and secret ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{"note": "x" * 70_000}, {"password": "x" * 70_000}, {"a": ["\u2028"] * 20_000}])
@pytest.mark.parametrize("schema", [None, LOGIN], ids=["any", "schema"])
async def test_an_answer_over_the_limit(
    redis: Redis, answers: Answers, schema: dict[str, Any] | None, value: dict[str, Any]
) -> None:
    """It is too large for the log, or for the record that keeps what the log hides: a 413, and nothing is stored."""
    await ask(redis, kind="form", schema=schema)
    with pytest.raises(PayloadTooLarge) as caught:
        await give(answers, value)
    assert (caught.value.limit, caught.value.size > caught.value.limit) == (65_536, True)
    assert await types(redis) == ["execution:started", "input:required"]
    assert await record(redis, "a:i") is None


@pytest.mark.parametrize("depth", [50, 400, 800, 990, 2000])
@pytest.mark.parametrize("schema", [None, LOGIN], ids=["any", "schema"])
async def test_a_deep_answer(redis: Redis, answers: Answers, schema: dict[str, Any] | None, depth: int) -> None:
    """It is stored as it is, or refused as the caller's fault, and then nothing of it is stored."""
    await ask(redis, kind="form", schema=schema)
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    value = {"email": "a@b", "a": deep}
    try:
        await give(answers, value)
    except (Problem, RuncastError) as error:
        problem = to_problem(error)
        assert problem is not None
        assert problem.status in (413, 422)
        assert depth > 50
        assert await record(redis, "a:i") is None
    else:
        assert msgspec.json.decode(await record(redis, "a:i"))["value"] == value


async def test_a_number_that_no_log_holds(redis: Redis, answers: Answers) -> None:
    """NaN has no JSON form."""
    await ask(redis, kind="form")
    with pytest.raises(InvalidEvent):
        await give(answers, {"a": float("nan")})
    assert await types(redis) == ["execution:started", "input:required"]


async def test_a_secret_reaches_the_agent_and_nobody_else(redis: Redis, answers: Answers, commands: Commands) -> None:
    """The record has it as it was given, for the agent; the log, the feed and what callers can look at have not."""
    await ask(redis, kind="form", schema=LOGIN)
    await give(answers, {"email": "a@b", "password": "hunter2 is long"})
    stored = msgspec.json.decode(await record(redis, "a:i"))
    assert (stored["value"]["password"], stored["by"]) == ("hunter2 is long", "alice")
    rows: Any = [*await redis.xrange(KEYS.log), *await redis.xrange(ALICE.owner.feed)]
    state = await commands.state(ALICE.owner, "ex_1", with_stack=True)
    listed = await commands.listing.page(ALICE.owner, state=None, limit=10, cursor=None)
    page = await commands.events(ALICE.owner, "ex_1", after=START, limit=10)
    export = b"".join([page async for page in commands.export(ALICE.owner, "ex_1", START)]).splitlines()
    shown = str(rows) + str([msgspec.json.encode(each) for each in (state, listed, page)]) + str(export)
    assert "[redacted]" in shown
    assert "hunter2" not in shown
    with pytest.raises(AlreadyAnswered) as caught:
        await give(answers, {"email": "a@b"})
    problem = to_problem(caught.value)
    assert problem is not None
    assert "hunter2" not in str(problem.body("r"))


# --- who was first ---------------------------------------------------------------------------------------------------


async def test_the_first_answer_wins(redis: Redis, answers: Answers) -> None:
    """Of many answers at once one is taken; the others are told whose it was and when."""
    await ask(redis, kind="text")
    before = ids.now_ms()
    done = await asyncio.gather(*(give(answers, f"a{n}") for n in range(10)), return_exceptions=True)
    lost = [each for each in done if isinstance(each, AlreadyAnswered)]
    assert len(lost) == 9
    problem = to_problem(lost[0])
    assert problem is not None
    body = problem.body("r")
    assert (body["status"], body["answeredBy"]) == (409, "alice")
    assert before <= body["answeredAt"] <= ids.now_ms()
    assert await types(redis) == ["execution:started", "input:required", "input:received"]


@pytest.mark.parametrize(("kind", "value"), [("approval", False), ("text", None), ("choice", None), ("form", None)])
async def test_a_declined_answer(redis: Redis, answers: Answers, kind: Any, value: Any) -> None:
    """It closes the question, whatever its kind, and counts as the first answer; an approval is refused by it."""
    options = ["a"] if kind == "choice" else None
    await ask(redis, kind=kind, options=options, schema=LOGIN if kind == "form" else None)
    await answers.give(ALICE, "ex_1", InputRequest(input_id="i", declined=True), "r")
    rows: Any = await redis.xrange(KEYS.log)
    data = msgspec.json.decode(rows[-1][1][b"input:received"])["data"]
    assert (data["by"], data["declined"], data.get("value")) == ("alice", True, value)
    with pytest.raises(AlreadyAnswered):
        await give(answers, True)


@pytest.mark.parametrize("body", [b'{"inputId":"i"}', b'{"inputId":"i","value":1,"declined":true}'])
def test_an_answer_is_a_value_or_declined(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError, match="one of value and declined"):
        msgspec.json.decode(body, type=InputRequest)


async def test_a_second_answer_need_not_even_fit(redis: Redis, answers: Answers) -> None:
    """What counts is that it comes too late."""
    await ask(redis, kind="approval")
    await give(answers, True)
    with pytest.raises(AlreadyAnswered):
        await give(answers, "maybe")


async def test_the_second_answer_hears_of_the_first_even_after_the_end(redis: Redis, answers: Answers) -> None:
    """When the first answer was all that was missing and the execution has ended, the second is told whose it was."""
    await ask(redis, kind="text")
    await give(answers, "first")
    await log(redis, DONE)
    with pytest.raises(AlreadyAnswered) as caught:
        await give(answers, "second")
    assert '"value":"first"' in caught.value.answer


@pytest.mark.parametrize("meanwhile", ["answered", "answered and ended", "expired", "ended"])
async def test_what_happens_while_a_form_is_checked(
    redis: Redis, answers: Answers, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The log decides: of what came in between, the caller is told as if it had been there before."""
    await ask(redis, kind="form", schema=LOGIN)
    check = answers._forms.check

    async def slowly(*arguments: Any) -> Any:
        if meanwhile != "ended":
            by = EXPIRED if meanwhile == "expired" else "carol"
            await log(redis, InputReceived(input_id="i", by=by))
        if "ended" in meanwhile:
            await log(redis, DONE)
        return await check(*arguments)

    monkeypatch.setattr(answers._forms, "check", slowly)
    with pytest.raises((Problem, RuncastError)) as caught:
        await give(answers, {"email": "a@b"})
    problem = to_problem(caught.value)
    assert problem is not None
    expected = {"expired": "input-expired", "ended": "execution-ended"}
    assert (problem.status, problem.slug) == (409, expected.get(meanwhile, "already-answered"))
    assert problem.extensions.get("answeredBy") == ("carol" if "answered" in meanwhile else None)


async def test_an_expired_question_takes_no_answer(redis: Redis, answers: Answers) -> None:
    """After its time a question is a 409 that says when it was over, whether or not the agent has closed it."""
    over = int(time.time() * 1000) - 1
    await ask(redis, kind="text", expires_at=over)
    problem = await refused(answers, "late")
    assert (problem.status, problem.slug, problem.extensions["expiredAt"]) == (409, "input-expired", over)
    await log(redis, InputReceived(input_id="i", by=EXPIRED))
    problem = await refused(answers, "later")
    assert (problem.status, problem.slug) == (409, "input-expired")
    await log(redis, DONE)
    assert (await refused(answers, "much later")).slug == "input-expired"


async def test_an_unknown_question_and_an_ended_execution(redis: Redis, answers: Answers) -> None:
    """What was never asked is unknown, as is another user's execution; after the end no answer is taken."""
    await ask(redis, kind="text")
    with pytest.raises(UnknownInput):
        await give(answers, "x", input_id="other")
    with pytest.raises(UnknownExecution):
        await give(answers, "x", identity=BOB)
    await log(redis, DONE)
    with pytest.raises(ExecutionEnded):
        await give(answers, "x")


async def test_an_answer_to_a_question_of_a_lost_attempt(redis: Redis, answers: Answers) -> None:
    """It is taken and kept for the retry, and the execution goes on waiting for a worker."""
    await ask(redis, kind="text")
    await log(redis, ExecutionSuperseded(from_seq=0, attempt=2))
    await give(answers, "x")
    assert (await record(redis, "state"), await record(redis, "open")) == ("queued", " ")
    assert msgspec.json.decode(await record(redis, "a:i"))["value"] == "x"


# --- what is open ----------------------------------------------------------------------------------------------------


async def test_open_inputs_are_seen_later(redis: Redis, answers: Answers, commands: Commands) -> None:
    """In the order of the asking, until each has its answer; the execution waits until the last has."""
    questions = [InputRequired(input_id=name, prompt="?", kind="text") for name in ("a", "b", "c")]
    await log(redis, STARTED, *questions)
    for count, name in enumerate(("b", "a", "c"), 1):
        state = await commands.state(ALICE.owner, "ex_1", with_stack=False)
        assert state.status == "waiting_input"
        assert len(state.open_inputs) == 4 - count
        assert state.open_inputs == [each for each in questions if each in state.open_inputs]
        await give(answers, "x", input_id=name)
    state = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    assert (state.status, state.open_inputs) == ("running", [])


async def test_open_inputs_outlast_their_events(redis: Redis, commands: Commands) -> None:
    """A question that was trimmed from the log while it waits is shown; after the end none is."""
    question = InputRequired(input_id="i", prompt="?", kind="text")
    limits = LogLimits(log_maxlen=10)
    await log(redis, STARTED, question, limits=limits)
    for _ in range(30):
        await log(redis, *(Thinking(thought="x") for _ in range(20)), limits=limits)
    assert "input:required" not in await types(redis)
    state = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    assert (state.status, state.open_inputs) == ("waiting_input", [question])
    await log(redis, DONE)
    state = await commands.state(ALICE.owner, "ex_1", with_stack=False)
    assert (state.status, state.open_inputs) == ("completed", [])


async def test_a_lost_attempts_questions_are_not_open(redis: Redis, commands: Commands) -> None:
    """Until the retry asks them again."""
    await ask(redis, kind="text")
    await log(redis, ExecutionSuperseded(from_seq=0, attempt=2))
    assert (await commands.state(ALICE.owner, "ex_1", with_stack=False)).open_inputs == []
    await ask(redis, kind="text")
    (question,) = (await commands.state(ALICE.owner, "ex_1", with_stack=False)).open_inputs
    assert question.input_id == "i"
