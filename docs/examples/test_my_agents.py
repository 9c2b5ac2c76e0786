import asyncio

from my_agents import researcher

from emitter import Context
from emitter.testing import RecordingEmitter


def test_it_searches_writes_and_asks() -> None:
    emitter = RecordingEmitter(answers={"Publish it?": True})
    result = asyncio.run(researcher(Context(emitter, task="solar sails")))
    assert result["published"] is True
    assert "tool:complete" in emitter.types
    assert emitter.text_emitted == "There are 3 pages about solar sails. "
    (question,) = emitter.of("input:required")
    assert question.kind == "approval"
