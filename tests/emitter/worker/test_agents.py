"""Registering agents, and what they are given."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import pytest

from emitter.testing import RecordingEmitter
from emitter.worker.agents import Agents, Context, SyncContext


async def work(context: Context) -> str:
    await context.emitter.thinking(context.task)
    return "yes" if await context.ask("Publish?") else "no"


def test_a_registered_agent_announces_what_it_was_given() -> None:
    """The decorator registers under the name and leaves the function what it is."""
    agents = Agents()
    schema = {"type": "object"}
    given: dict[str, Any] = {"tags": ["a", "b"], "max_attempts": 5, "time_limit": 60, "input_schema": schema}
    given["idle_limit"] = 2.5
    assert agents.agent("writer", "Writes", **given)(work) is work
    agent = agents["writer"]
    assert agent.is_async
    assert agents.names == ["writer"]
    assert list(agents) == [agent]
    assert (agent.info.description, agent.info.tags, agent.info.max_attempts) == ("Writes", ("a", "b"), 5)
    assert (agent.info.time_limit, agent.info.idle_limit, agent.info.input_schema) == (60, 2.5, schema)


def test_media_types_are_announced() -> None:
    """An agent takes and gives text and JSON, unless it says otherwise."""
    agents = Agents()
    agents.agent("writer")(work)
    agents.agent("painter", input_modes=["text/plain", "image/*"], output_modes=["image/svg+xml"])(work)
    usual = ("text/plain", "application/json")
    assert (agents["writer"].info.input_modes, agents["writer"].info.output_modes) == (usual, usual)
    painter = agents["painter"].info
    assert (painter.input_modes, painter.output_modes) == (("text/plain", "image/*"), ("image/svg+xml",))


@pytest.mark.parametrize("name", ["input_modes", "output_modes"])
@pytest.mark.parametrize("modes", [[], ["text"], ["text/plain", ""], ["Text/Plain"], ["a/b c"], "text/plain", [5]])
def test_what_is_no_media_type_is_refused(name: str, modes: Any) -> None:
    """Media types are announced to other agents' owners: there is at least one, and each is one. The refusal names
    them."""
    with pytest.raises(ValueError, match=f"agent 'writer': {name} "):
        Agents().agent("writer", **{name: modes})(work)


@pytest.mark.parametrize("name", ["a", "x" * 64, "code-review_2.1"])
def test_names_of_the_contract_are_taken(name: str) -> None:
    """1 to 64 of a-z 0-9 _ . - is a name."""
    agents = Agents()
    agents.agent(name)(work)
    assert agents.names == [name]


@pytest.mark.parametrize("name", ["", "x" * 65, "Writer", "a b", "a:b", "a{b}", "a\n", "ä"])
def test_other_names_are_refused(name: str) -> None:
    """A name that could break a key or a header cannot be registered."""
    with pytest.raises(ValueError, match="a-z 0-9"):
        Agents().agent(name)(work)


def test_a_name_is_registered_once() -> None:
    """A second agent of the same name is refused, and the first stays."""
    agents = Agents()
    agents.agent("writer")(work)
    with pytest.raises(ValueError, match="twice"):
        agents.agent("writer")(lambda context: None)
    assert agents["writer"].function is work


@pytest.mark.parametrize("options", [{"max_attempts": 0}, {"input_schema": {"a": object()}}])
def test_options_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    """No attempts, or a schema that is not JSON."""
    with pytest.raises(ValueError, match="agent 'writer'"):
        Agents().agent("writer", **options)(work)


@pytest.mark.parametrize("name", ["time_limit", "idle_limit"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "60"])
def test_a_limit_that_is_no_time_is_refused(name: str, seconds: Any) -> None:
    """A limit is a number of seconds above 0; none is `None`. The refusal names it."""
    with pytest.raises(ValueError, match=f"agent 'writer': {name} "):
        Agents().agent("writer", **{name: seconds})(work)


def test_generators_are_refused() -> None:
    """A generator would never run: it is refused when it is registered, not when it is called."""

    async def stream(context: Context) -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        Agents().agent("writer")(stream)


def test_sync_and_async_are_told_apart() -> None:
    """Functions and callable objects, async and not."""

    class Callable:
        async def __call__(self, context: Context) -> None: ...

    agents = Agents()
    agents.agent("sync")(lambda context: None)
    agents.agent("object")(Callable())
    assert not agents["sync"].is_async
    assert agents["object"].is_async


async def test_an_agent_runs_without_a_worker() -> None:
    """A context over a recording emitter is all that an agent's own test needs."""
    emitter = RecordingEmitter(answers={"Publish?": True})
    assert await work(Context(emitter, task="Think")) == "yes"
    assert emitter.types == ["thinking", "input:required", "input:received"]


class NeverAnswered:
    """Stands for an emitter whose question nobody answers."""

    attempt = 1

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def ask(self, prompt: str, **options: Any) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_sync_agent_that_waits_for_an_answer_can_be_stopped() -> None:
    """`unblock` ends the wait of a thread in `ask`, and a cancelled agent does not begin to wait."""
    emitter, cancelled = NeverAnswered(), False
    loop = asyncio.get_running_loop()
    context = SyncContext(emitter, loop, task="t", is_cancelled=lambda: cancelled)  # type: ignore[arg-type]

    def ask() -> str:
        try:
            return str(context.ask("Publish?"))
        except concurrent.futures.CancelledError:
            return "stopped"

    waiting = asyncio.create_task(asyncio.to_thread(ask))
    await emitter.asked.wait()
    cancelled = True
    context.unblock()
    assert await waiting == "stopped"
    assert await asyncio.to_thread(ask) == "stopped"
