"""The emitter for tests of agents: no Redis, the same rules."""

from __future__ import annotations

import pytest

from emitter.errors import EmitterClosed, ExecutionEnded, InputExpired, InvalidEvent, PayloadTooLarge
from emitter.events import EXPIRED, InputRequired
from emitter.testing import RecordingEmitter


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
    emitter = RecordingEmitter(answers={"Go?": True, "colour": "red", "Colour?": "blue", "Anything?": None})
    assert await emitter.ask("Go?") is True
    assert await emitter.ask("Colour?", kind="choice", options=["red"], input_id="colour") == "red"
    assert await emitter.ask("Anything?", kind="text") is None
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
