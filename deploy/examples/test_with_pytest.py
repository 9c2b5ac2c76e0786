"""A test of an agent, without Redis, an edge or a model.

pip install runcast pytest
pytest test_with_pytest.py
"""

import asyncio

import pytest

from runcast import Agents, Context
from runcast.testing import RecordingEmitter

agents = Agents()


@agents.agent("publisher")
async def publisher(context: Context) -> str:
    async with context.emitter.tool("write", {"topic": context.task}) as tool:
        tool.result = f"All about {context.task}"
    if not await context.ask("Publish it?", kind="approval"):
        return "kept back"
    await context.emitter.artifact("page", "text/html", text=f"<p>{tool.result}</p>")
    return "published"


@pytest.mark.parametrize(
    ("answer", "result", "last"), [(True, "published", "artifact"), (False, "kept back", "input:received")]
)
def test_it_publishes_only_what_a_person_approves(answer: bool, result: str, last: str) -> None:
    emitter = RecordingEmitter(answers={"Publish it?": answer})
    assert asyncio.run(publisher(Context(emitter, task="cats"))) == result
    types = [type_ for type_, _ in emitter.events]
    assert types[:3] == ["tool:start", "tool:complete", "input:required"]
    assert types[-1] == last
