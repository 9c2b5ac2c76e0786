"""The emitter for tests of agents: no Redis, the same rules."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.inputs import Answers
from broker.executions.types import InputRequest
from emitter.errors import (
    AlreadyAnswered,
    ChildFailed,
    Declined,
    EmitterClosed,
    ExecutionEnded,
    InputExpired,
    InvalidEvent,
    PayloadTooLarge,
    UnknownAgent,
    UnknownInput,
)
from emitter.events import EXPIRED, ExecutionStarted, InputRequired, Thinking
from emitter.store.append import LogLimits, append, prepare
from emitter.testing import RecordingEmitter
from emitter.wire.keys import Owner
from emitter.wire.redact import Redactor
from emitter.worker.agents import Context

STARTED = ExecutionStarted(task="t", started_at=1, attempt=1)


async def test_it_remembers_in_order() -> None:
    """Events are there as a reader would get them, by type and as a whole."""
    async with RecordingEmitter() as emitter:
        await emitter.text("Hel")
        await emitter.text("lo")
        async with emitter.phase("p", "P"), emitter.tool("t", {"password": "x"}) as call:
            call.result = 5
        await emitter.execution_complete({"done": True})
    assert emitter.types == [
        "message:delta", "message:delta", "phase:start", "tool:start", "tool:complete", "phase:complete",
        "message:complete", "execution:complete",
    ]  # fmt: skip
    assert emitter.text_emitted == "Hello"
    assert emitter.of("tool:start")[0].params == {"password": "[redacted]"}
    assert emitter.of("tool:complete")[0].result == 5


async def test_it_ends_like_the_real_one() -> None:
    """After a terminal event, or after closing, nothing is taken, and the error says which."""
    emitter = RecordingEmitter()
    await emitter.execution_error("e", stack="at line 1, ghp_" + "a1" * 20)
    assert emitter.records == {"stack": "at line 1, [redacted]"}
    for call in (emitter.thinking("x"), emitter.execution_complete(1)):
        with pytest.raises(ExecutionEnded, match="failed"):
            await call
    assert emitter.records == {"stack": "at line 1, [redacted]"}
    closed = RecordingEmitter()
    await closed.close()
    await closed.close()
    with pytest.raises(EmitterClosed):
        await closed.thinking("x")


async def test_an_end_that_cannot_be_stored_is_no_end() -> None:
    """The agent may say another one."""
    emitter = RecordingEmitter(strict=True)
    with pytest.raises(PayloadTooLarge):
        await emitter.execution_complete("x" * 70_000)
    assert (emitter.ended, emitter.events) == (False, [])
    await emitter.execution_error("result too large")
    assert emitter.ended


async def test_answers() -> None:
    """`ask` gets the answer that was prepared for its id or its prompt, as often as it asks; without one it expires."""
    emitter = RecordingEmitter(answers={"Go?": True, "colour": "red", "Colour?": "blue", "Anything?": ""})
    assert await emitter.ask("Go?") is True
    assert await emitter.ask("Colour?", kind="choice", options=["red"], input_id="colour") == "red"
    assert await emitter.ask("Anything?", kind="text") == ""
    assert await emitter.ask("Go?") is True
    asked = emitter.of("input:required")
    assert [event.input_id for event in emitter.of("input:received")] == [event.input_id for event in asked]
    assert len({event.input_id for event in asked}) == 4


async def test_answers_by_a_function() -> None:
    """It sees the question, and may let it expire."""

    def decide(question: InputRequired) -> str:
        if question.options is None:
            raise InputExpired(question.input_id)
        return question.options[-1]

    emitter = RecordingEmitter(answers=decide)
    assert await emitter.ask("Which?", kind="choice", options=["a", "b"]) == "b"
    with pytest.raises(InputExpired):
        await emitter.ask("What?", kind="text")
    assert [event.by for event in emitter.of("input:received")] == ["tester", EXPIRED]


async def test_a_question_without_an_answer_expires() -> None:
    """As the real one does: the log says that it was asked until when, and that it is closed."""
    emitter = RecordingEmitter()
    with pytest.raises(InputExpired):
        await emitter.ask("More?", expires_in=5)
    assert emitter.types == ["input:required", "input:received"]
    assert emitter.of("input:required")[0].expires_at > 0
    assert emitter.of("input:received")[0].by == EXPIRED


async def test_a_question_that_the_real_one_refuses() -> None:
    """What nobody could answer raises here too, and is not remembered."""
    emitter = RecordingEmitter(answers={"Which?": "a"})
    for wrong in ({"kind": "choice"}, {"expires_in": 0}, {"schema": []}):
        with pytest.raises(InvalidEvent):
            await emitter.ask("Which?", **wrong)  # type: ignore[arg-type]
    assert emitter.events == []


FORM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ANSWERS: list[tuple[dict[str, Any], Any, bool]] = [
    ({"kind": "approval"}, True, True),
    ({"kind": "approval"}, "yes", False),
    ({"kind": "approval"}, None, False),
    ({"kind": "choice", "options": ["a"]}, "a", True),
    ({"kind": "choice", "options": ["a"]}, "b", False),
    ({"kind": "text"}, "", True),
    ({"kind": "text"}, {"a": 1}, False),
    ({"kind": "text"}, "x" * 70_000, False),
    ({"kind": "text", "schema": {}}, {"a": [1, None]}, True),
    ({"kind": "text", "schema": {}}, "x", True),
    ({"kind": "form", "schema": FORM}, {"n": 1}, True),
    ({"kind": "form", "schema": FORM}, {"n": "1"}, False),
    ({"kind": "form", "schema": FORM}, {}, False),
    ({"kind": "form", "schema": FORM}, [1], False),
    ({"kind": "form", "schema": {"type": 7}}, {"n": "of a schema that says nothing"}, True),
    ({"kind": "form"}, {"password": "p" * 70_000}, False),
]


@pytest.mark.parametrize(("question", "answer", "fits"), ANSWERS)
async def test_an_answer_is_taken_as_by_an_edge(redis: Redis, question: Any, answer: Any, fits: bool) -> None:
    """What an edge refuses, it refuses, and what one takes, the agent gets."""
    edge, asked = Answers(redis, LogLimits(), Redactor()), InputRequired(input_id="i", prompt="?", **question)
    prepared = [prepare(event, "ex_1", redact=Redactor()) for event in (STARTED, asked)]
    await append(redis, Owner("alice"), "ex_1", prepared)
    refuses = contextlib.nullcontext() if fits else pytest.raises((InvalidEvent, PayloadTooLarge, Problem))
    with refuses:
        await edge.give(Identity(Owner("alice"), frozenset()), "ex_1", InputRequest(input_id="i", value=answer), "r")
    emitter = RecordingEmitter(answers={"?": answer})
    with refuses:
        assert await emitter.ask("?", **question) == answer
    assert len(emitter.of("input:received")) == fits


async def test_an_answer_comes_out_of_json() -> None:
    """As an agent would get it from an edge, whatever the test has given."""
    emitter = RecordingEmitter(answers={"?": {"pair": (1, 2), 3: {"x"}}})
    assert await emitter.ask("?", kind="form") == {"pair": [1, 2], "3": ["x"]}
    with pytest.raises(InvalidEvent):
        await RecordingEmitter(answers={"?": {"n": float("nan")}}).ask("?", kind="form")


async def test_a_question_has_one_answer() -> None:
    """Asked again under its id, it is not asked: the first answer counts, or that there was none."""
    emitter = RecordingEmitter(answers={"one": "first"})
    assert await emitter.ask("?", kind="text", input_id="one") == "first"
    assert await emitter.ask("??", kind="text", input_id="one") == "first"
    for _ in range(2):
        with pytest.raises(InputExpired):
            await emitter.ask("?", kind="text", input_id="two")
    assert len(emitter.of("input:required")) == 2


async def test_an_answer_that_no_question_waits_for() -> None:
    """Refused as by the log."""
    emitter = RecordingEmitter()
    with pytest.raises(UnknownInput):
        await emitter.input_received("i", by="bob")
    await emitter.input_required("i", "?", "text")
    await emitter.input_received("i", by="bob", value="a")
    with pytest.raises(AlreadyAnswered):
        await emitter.input_received("i", by="bob", value="b")
    assert len(emitter.events) == 2


async def test_whose_an_event_is() -> None:
    """It is in the envelope."""
    emitter = RecordingEmitter()
    await emitter.emit(Thinking(thought="t"), agent="clerk", parent_id="c1")
    await emitter.thinking("u")
    assert [(envelope.agent, envelope.parent_id) for envelope in emitter.envelopes] == [("clerk", "c1"), (None, None)]


async def test_children_are_given_their_results() -> None:
    """By key or by agent, also as a failure; what the parent's log has of them is recorded once."""

    async def supervisor(context: Context) -> dict[str, Any]:
        draft = await context.start("writer", "Write it", params={"words": 9})
        checked = await context.start("checker", "Check it", key="facts")
        try:
            await checked.result(timeout=5)
        except ChildFailed as failed:
            return {"draft": await draft.result(), "facts": failed.error}
        return {}

    failure = ChildFailed("ch", "failed", "two are wrong", "facts")
    emitter = RecordingEmitter(children={"writer": {"text": "Once"}, "facts": failure})
    found = await supervisor(Context(emitter, task="t"))
    assert found == {"draft": {"text": "Once"}, "facts": "two are wrong"}
    assert [(event.agent, event.key) for event in emitter.of("child:started")] == [
        ("writer", None),
        ("checker", "facts"),
    ]
    ended = [(event.state, event.summary) for event in emitter.of("child:ended")]
    assert ended == [("failed", "two are wrong"), ("completed", '{"text":"Once"}')]
    with pytest.raises(UnknownAgent):
        await Context(emitter, task="t").start("nobody", "x")


async def test_children_may_be_a_function() -> None:
    """Of what the agent started; a child that was cancelled fails."""
    emitter = RecordingEmitter(children=lambda started, params: f"{started.task} {params}")
    context = Context(emitter, task="t")
    assert await context.call("any", "Do", params={"n": 1}) == "Do {'n': 1}"
    child = await context.start("any", "Do more")
    await child.cancel("enough")
    with pytest.raises(ChildFailed, match="cancelled: enough"):
        await child.result()


async def test_a_declined_input() -> None:
    """`ask` raises, and so does a retry; an approval that is declined is refused."""

    def decline(request: InputRequired) -> Any:
        raise Declined(request.input_id)

    emitter = RecordingEmitter(answers=decline)
    assert await emitter.ask("Go on?") is False
    for _ in range(2):
        with pytest.raises(Declined):
            await emitter.ask("Which?", kind="text", input_id="i")
    assert [event.declined for event in emitter.of("input:received")] == [True, True]
