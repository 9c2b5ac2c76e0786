"""Agents by name, and what a running agent is given.

agents = Agents()

@agents.agent("researcher", description="Looks things up", time_limit=600)
async def researcher(context: Context) -> dict[str, str]:
    await context.emitter.thinking("Where to begin?")
    return {"answer": "42"}
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from emitter.emitter import AgentEmitter
from emitter.jobs import AgentInfo
from emitter.sync import SyncAgentEmitter

AGENT_NAME = re.compile(r"[a-z0-9_.-]{1,64}\Z")

AgentFunction = Callable[[Any], Any]
"""Takes a `Context` (async) or a `SyncContext` (sync); what it returns is the execution's result."""
F = TypeVar("F", bound=AgentFunction)


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A registered agent. `time_limit` in seconds, of which waiting for people is a part; `None`: no limit."""

    name: str
    function: AgentFunction
    is_async: bool
    description: str = ""
    tags: tuple[str, ...] = ()
    max_attempts: int = 3
    time_limit: float | None = None
    input_schema: dict[str, Any] | None = None

    @property
    def info(self) -> AgentInfo:
        return AgentInfo(
            name=self.name,
            description=self.description,
            tags=self.tags,
            input_schema=self.input_schema,
            max_attempts=self.max_attempts,
            time_limit=self.time_limit,
        )


class Agents:
    """The agents a worker runs, by name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def agent(
        self,
        name: str,
        description: str = "",
        *,
        tags: Sequence[str] = (),
        max_attempts: int = 3,
        time_limit: float | None = None,
        input_schema: dict[str, Any] | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function, which stays what it is.

        Args:
            name: 1 to 64 of a-z 0-9 _ . -
            max_attempts: how often it may be tried when workers die under it.
            time_limit: seconds after which it is stopped with code `timeout`.
            input_schema: JSON Schema of `params`, announced to those who start executions.

        Raises `ValueError` or `TypeError` for what cannot be registered.
        """

        def register(function: F) -> F:
            self.add(
                Agent(
                    name=name,
                    function=function,
                    is_async=_is_async(function),
                    description=description,
                    tags=tuple(tags),
                    max_attempts=max_attempts,
                    time_limit=time_limit,
                    input_schema=input_schema,
                )
            )
            return function

        return register

    def add(self, agent: Agent) -> None:
        _check(agent)
        if agent.name in self._agents:
            raise ValueError(f"agent {agent.name!r} is registered twice")
        self._agents[agent.name] = agent

    def __getitem__(self, name: str) -> Agent:
        return self._agents[name]

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def names(self) -> list[str]:
        return list(self._agents)


def _is_async(function: AgentFunction) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__ is async too
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _check(agent: Agent) -> None:
    if not AGENT_NAME.match(agent.name):
        raise ValueError(f"agent name {agent.name[:80]!r} is not 1 to 64 of a-z 0-9 _ . -")
    if not callable(agent.function):
        raise TypeError(f"agent {agent.name!r} is not a function")
    if inspect.isgeneratorfunction(agent.function) or inspect.isasyncgenfunction(agent.function):
        raise TypeError(f"agent {agent.name!r} is a generator; it must emit what it has to say and return its result")
    if agent.max_attempts < 1:
        raise ValueError(f"agent {agent.name!r}: max_attempts {agent.max_attempts} is not 1 or more")
    if agent.time_limit is not None and not agent.time_limit > 0:
        raise ValueError(f"agent {agent.name!r}: time_limit {agent.time_limit} is not above 0 s")
    try:
        msgspec.json.encode(agent.info)
    except TypeError as error:
        raise ValueError(f"agent {agent.name!r}: {error}") from error


def _never() -> bool:
    return False


class _Given:
    """What both kinds of context hold."""

    def __init__(
        self,
        *,
        task: str,
        execution_id: str = "",
        params: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        user_id: str = "",
        org: str = "default",
        attempt: int = 1,
        conversation_id: str | None = None,
        is_cancelled: Callable[[], bool] = _never,
    ) -> None:
        self.task = task
        self.execution_id = execution_id
        self.params = params or {}
        self.metadata = metadata or {}
        self.user_id = user_id
        self.org = org
        self.attempt = attempt
        self.conversation_id = conversation_id
        self._is_cancelled = is_cancelled

    @property
    def cancelled(self) -> bool:
        """Whether this agent must stop: cancelled, out of time, or its worker is going away."""
        return self._is_cancelled()


class Context(_Given):
    """What an async agent is given. To test one: `Context(RecordingEmitter(), task="…")`."""

    emitter: AgentEmitter

    def __init__(self, emitter: Any, **given: Any) -> None:
        super().__init__(**given)
        self.emitter = emitter

    async def ask(self, prompt: str, **options: Any) -> Any:
        """Ask a person and wait for the answer's value; arguments and errors of `AgentEmitter.ask`."""
        return await self.emitter.ask(prompt, **options)


class SyncContext(_Given):
    """What a sync agent is given. It runs in a thread that nobody can end: it must look at `cancelled` now and then."""

    def __init__(self, emitter: AgentEmitter, loop: asyncio.AbstractEventLoop, **given: Any) -> None:
        super().__init__(**given)
        self.emitter = SyncAgentEmitter.over(emitter, loop)
        self._asker = emitter
        self._loop = loop
        self._questions: set[concurrent.futures.Future[Any]] = set()

    def ask(self, prompt: str, **options: Any) -> Any:
        """Ask a person and block until the answer's value is there; arguments and errors of `AgentEmitter.ask`.

        Raises `concurrent.futures.CancelledError` when the agent must stop.
        """
        work: Coroutine[Any, Any, Any] = self._asker.ask(prompt, **options)
        question = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._questions.add(question)
        try:
            if self.cancelled:  # looked at after the question is known to `unblock`, so that neither misses the other
                question.cancel()
            return question.result()
        finally:
            self._questions.discard(question)

    def unblock(self) -> None:
        """Let an agent that waits for an answer see that it must stop."""
        for question in tuple(self._questions):
            question.cancel()
