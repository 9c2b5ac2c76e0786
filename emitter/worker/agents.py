"""The registry of agents, and the context of a running agent.

agents = Agents()

@agents.agent("researcher", description="Looks things up", time_limit=600, idle_limit=60)
async def researcher(context: Context) -> dict[str, str]:
    await context.emitter.thinking("Where to begin?")
    return {"answer": "42"}
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import math
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import msgspec

from emitter.budgets import Budget, Meter
from emitter.publishing.agent_emitter import AgentEmitter
from emitter.publishing.children import Child, OnParentEnd, Starter, SyncChild
from emitter.publishing.inbox import Interruptible
from emitter.publishing.sync_emitter import SyncAgentEmitter, check_process
from emitter.store.announcements import MODES, AgentInfo, Example
from emitter.wire.user_messages import Message
from emitter.worker.budget_view import BudgetView
from emitter.worker.schedule import Schedule, schedule_of

AGENT_NAME = re.compile(r"[a-z0-9_.-]{1,64}\Z")
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/([a-z0-9][a-z0-9!#$&^_.+-]{0,126}|\*)\Z")

AgentFunction = Callable[[Any], Any]
"""Takes a `Context` (async) or a `SyncContext` (sync); its return value is the result of the execution."""
F = TypeVar("F", bound=AgentFunction)
T = TypeVar("T")
RetryOn = Sequence[type[BaseException]] | type[BaseException] | None


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A registered agent. Limits in seconds, `None`: no limit. `time_limit` is for an attempt, including waits for
    people; `idle_limit` is for the time without an event, excluding waits for people."""

    name: str
    function: AgentFunction
    is_async: bool
    description: str = ""
    tags: tuple[str, ...] = ()
    max_attempts: int = 3
    retry_on: tuple[type[BaseException], ...] | None = None
    time_limit: float | None = None
    idle_limit: float | None = None
    budget: Budget | None = None
    input_schema: dict[str, Any] | None = None
    input_modes: tuple[str, ...] = MODES
    output_modes: tuple[str, ...] = MODES
    accepts_messages: bool = False
    examples: tuple[Example, ...] = ()

    @property
    def info(self) -> AgentInfo:
        return AgentInfo(
            name=self.name,
            description=self.description,
            tags=self.tags,
            input_schema=self.input_schema,
            input_modes=self.input_modes,
            output_modes=self.output_modes,
            examples=self.examples,
            max_attempts=self.max_attempts,
            time_limit=self.time_limit,
            idle_limit=self.idle_limit,
            accepts_messages=self.accepts_messages,
            budget=self.budget,
        )


class Agents:
    """The agents a worker runs, by name."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._schedules: dict[str, Schedule] = {}

    def agent(
        self,
        name: str,
        description: str = "",
        *,
        tags: Sequence[str] = (),
        max_attempts: int = 3,
        retry_on: RetryOn = None,
        time_limit: float | None = None,
        idle_limit: float | None = None,
        budget: Budget | None = None,
        input_schema: dict[str, Any] | None = None,
        input_modes: Sequence[str] = MODES,
        output_modes: Sequence[str] = MODES,
        accepts_messages: bool = False,
        examples: Sequence[str | Example] = (),
    ) -> Callable[[F], F]:
        """Register the decorated function, and return it unchanged.

        Args:
            name: 1 to 64 of a-z 0-9 _ . -
            max_attempts: how many attempts there may be, counting lost workers and failures that are retried.
            retry_on: exceptions after which the agent is tried again, from its beginning and after a pause (1 s,
                doubled each time up to 60 s, with jitter of up to half). `None`: transient ones
                (`emitter.worker.retries`); `()`: none. `Retry(after=…)` and `Fatal(…)` take precedence.
            time_limit: seconds after which an attempt is stopped with code `timeout`, including waits for people.
            idle_limit: seconds without an event after which an attempt is stopped in the same way. Waiting in `ask` is
                not idle; the clock starts again after the answer.
            budget: what an execution may spend at most, all attempts together; a caller may set less.
            input_schema: JSON Schema of `params`, announced to clients.
            input_modes, output_modes: media types that the agent accepts and produces, announced to clients. A part of
                an A2A message that states another type is refused.
            accepts_messages: whether people may send messages to it (`Context.messages`), announced to clients.
            examples: tasks that the agent is good at, announced to clients; MCP clients offer them as prompts.

        Raises `ValueError` or `TypeError` for an agent that is not valid.
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
                    retry_on=_types(retry_on),
                    time_limit=time_limit,
                    idle_limit=idle_limit,
                    budget=budget,
                    input_schema=input_schema,
                    input_modes=tuple(input_modes),
                    output_modes=tuple(output_modes),
                    accepts_messages=accepts_messages,
                    examples=tuple(Example(task=each) if isinstance(each, str) else each for each in examples),
                )
            )
            return function

        return register

    def add(self, agent: Agent) -> None:
        _check(agent)
        if agent.name in self._agents:
            raise ValueError(f"agent {agent.name!r} is registered twice")
        self._agents[agent.name] = agent

    def schedule(
        self,
        name: str,
        *,
        agent: str,
        user_id: str,
        org: str = "default",
        task: str,
        params: dict[str, Any] | None = None,
        every: float | None = None,
        offset: float = 0.0,
        cron: str | None = None,
        timezone: str | None = None,
        overlap: bool = True,
        elsewhere: bool = False,
    ) -> None:
        """Start an execution of a registered agent at every tick: one, however many workers have this schedule. Its
        `metadata` is {"schedule": name, "tick": ms since the epoch}.

        Args:
            name: 1 to 64 of a-z 0-9 _ . -; identifies the schedule, also in Redis.
            user_id, org: the owner of the executions.
            every: seconds from tick to tick, at least 1. Ticks are the multiples since the epoch (UTC), plus `offset`
                seconds.
            cron: or an expression such as `0 3 * * *`, which needs `runcast[cron]`; `emitter.worker.schedule` has the
                rules for clock changes.
            timezone: IANA name of the timezone of `cron`; UTC by default.
            overlap: False to skip a tick while the execution of the last one has not ended.
            elsewhere: True if other workers run the agent, such as those over HTTP: it need not be registered here.

        After a time without workers only the latest missed tick is started. Raises `ValueError` for a schedule that is
        not valid, `ImportError` if a library is missing.
        """
        if agent not in self._agents and not elsewhere:
            raise ValueError(f"schedule {name!r}: no agent {agent!r} is registered before it")
        if name in self._schedules:
            raise ValueError(f"schedule {name!r} is registered twice")
        self._schedules[name] = schedule_of(
            name, agent=agent, user_id=user_id, org=org, task=task, params=params,
            every=every, offset=offset, cron=cron, timezone=timezone, overlap=overlap,
        )  # fmt: skip

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        return tuple(self._schedules.values())

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


def _types(retry_on: RetryOn) -> tuple[type[BaseException], ...] | None:
    if retry_on is None:
        return None
    return (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)


def _check(agent: Agent) -> None:
    if not AGENT_NAME.match(agent.name):
        raise ValueError(f"agent name {agent.name[:80]!r} is not 1 to 64 of a-z 0-9 _ . -")
    if not callable(agent.function):
        raise TypeError(f"agent {agent.name!r} is not a function")
    if inspect.isgeneratorfunction(agent.function) or inspect.isasyncgenfunction(agent.function):
        raise TypeError(f"agent {agent.name!r} is a generator; it must emit events and return its result")
    if agent.max_attempts < 1:
        raise ValueError(f"agent {agent.name!r}: max_attempts {agent.max_attempts} is not 1 or more")
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in agent.retry_on or ()):
        raise TypeError(f"agent {agent.name!r}: retry_on {agent.retry_on!r} are not classes of exceptions")
    for name in ("time_limit", "idle_limit"):
        seconds = getattr(agent, name)
        if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
            raise ValueError(f"agent {agent.name!r}: {name} {seconds!r} is not a number of seconds above 0")
    if agent.budget is not None and not isinstance(agent.budget, Budget):
        raise TypeError(f"agent {agent.name!r}: budget {agent.budget!r} is no Budget")
    for name in ("input_modes", "output_modes"):
        modes = getattr(agent, name)
        if not modes or not all(isinstance(mode, str) and MEDIA_TYPE.match(mode) for mode in modes):
            raise ValueError(f"agent {agent.name!r}: {name} {modes!r} are not media types such as text/plain")
    try:
        msgspec.json.encode(agent.info)
    except TypeError as error:
        raise ValueError(f"agent {agent.name!r}: {error}") from error


def _never() -> bool:
    return False


class _BaseContext:
    """What both kinds of context have."""

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
        children: Starter | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.budget = BudgetView(Meter() if meter is None else meter)
        self.task = task
        self.execution_id = execution_id
        self.params = params or {}
        self.metadata = metadata or {}
        self.user_id = user_id
        self.org = org
        self.attempt = attempt
        self.conversation_id = conversation_id
        self._is_cancelled = is_cancelled
        self._children = children

    @property
    def _starter(self) -> Starter:
        if self._children is None:
            raise RuntimeError("only an agent of a worker starts others; for tests: RecordingEmitter(children=…)")
        return self._children

    @property
    def cancelled(self) -> bool:
        """Whether this agent must stop: it was cancelled or exceeded a limit, or its worker stops."""
        return self._is_cancelled()


class Context(_BaseContext):
    """The context of an async agent. To test one: `Context(RecordingEmitter(), task="…")`."""

    emitter: AgentEmitter

    def __init__(self, emitter: Any, **given: Any) -> None:
        super().__init__(**given)
        self.emitter = emitter
        self._children = self._children or getattr(emitter, "children", None)

    async def start(
        self,
        agent: str,
        task: str,
        *,
        params: dict[str, Any] | None = None,
        on_parent_end: OnParentEnd = "cancel",
        key: str | None = None,
    ) -> Child:
        """Start another execution of the same user, and return without waiting for it.

        A retry of this agent gets the child that it has started: name it with `key` (1 to 128 characters), otherwise
        agent, task and how often this attempt has started these decide which one it is.

        Args:
            on_parent_end: `cancel`: it is cancelled if this execution ends before it, in whatever way; `detach`: it
                goes on.

        Raises:
            UnknownAgent: no worker has the agent.
            TooManyChildren: the tree is too deep, or has too many executions.
            TooManyQueued: too many executions of the user wait for a worker.
        """
        return await self._starter.start(agent, task, params=params, on_parent_end=on_parent_end, key=key)

    async def call(self, agent: str, task: str, *, timeout: float | None = None, **options: Any) -> Any:
        """Start another execution and wait for its result: `start`, then `Child.result`."""
        return await (await self.start(agent, task, **options)).result(timeout)

    async def ask(self, prompt: str, **options: Any) -> Any:
        """Ask a person and wait for the answer's value; arguments and errors of `AgentEmitter.ask`."""
        return await self.emitter.ask(prompt, **options)

    def messages(self) -> AsyncIterator[Message]:
        """Every message of a person as it comes, as `AgentEmitter.messages`."""
        return self.emitter.messages()

    async def next_message(self, timeout: float | None = None) -> Message | None:
        """The next message of a person; None after `timeout` seconds. As `AgentEmitter.next_message`."""
        return await self.emitter.next_message(timeout)

    async def waiting_messages(self) -> list[Message]:
        """Take the messages that wait now, as `AgentEmitter.waiting_messages`."""
        return await self.emitter.waiting_messages()

    def interruptible(self) -> Interruptible:
        """`async with`: a message that interrupts raises `Interrupted` in the block, as
        `AgentEmitter.interruptible`."""
        return self.emitter.interruptible()


class SyncContext(_BaseContext):
    """The context of a sync agent. Its thread cannot be ended from outside, so it must check `cancelled` regularly."""

    def __init__(self, emitter: AgentEmitter, loop: asyncio.AbstractEventLoop, **given: Any) -> None:
        super().__init__(**given)
        self.emitter = SyncAgentEmitter.over(emitter, loop)
        self._children = self._children or getattr(emitter, "children", None)
        self._asker = emitter
        self._loop = loop
        self._pid = os.getpid()
        self._asking: set[concurrent.futures.Future[Any]] = set()

    def ask(self, prompt: str, **options: Any) -> Any:
        """Ask a person and block until the answer; arguments and errors of `AgentEmitter.ask`.

        Raises `concurrent.futures.CancelledError` when the agent must stop.
        """
        return self._block(self._asker.ask(prompt, **options))

    def next_message(self, timeout: float | None = None) -> Message | None:
        """Block until the next message of a person; None after `timeout` seconds. As `AgentEmitter.next_message`, and
        raises `concurrent.futures.CancelledError` when the agent must stop."""
        return self._block(self._asker.next_message(timeout))

    def waiting_messages(self) -> list[Message]:
        """Take the messages that wait now, as `AgentEmitter.waiting_messages`. A sync agent cannot be interrupted: it
        calls this between its steps, and looks at the `mode` of what it gets."""
        return self._block(self._asker.waiting_messages())

    def interruptible(self) -> NoReturn:
        """Only for async agents, as `SyncAgentEmitter.interruptible`."""
        self.emitter.interruptible()

    def messages(self) -> Iterator[Message]:
        """Every message of a person as it comes; blocks between them, as `next_message`."""
        while (message := self._block(self._asker._next_or_end())) is not None:
            yield message

    def start(
        self,
        agent: str,
        task: str,
        *,
        params: dict[str, Any] | None = None,
        on_parent_end: OnParentEnd = "cancel",
        key: str | None = None,
    ) -> SyncChild:
        """As `Context.start`; `result` of the child blocks."""
        work = self._starter.start(agent, task, params=params, on_parent_end=on_parent_end, key=key)
        return SyncChild(self._block(work), self._block)

    def call(self, agent: str, task: str, *, timeout: float | None = None, **options: Any) -> Any:
        """Start another execution and block until its result: `start`, then `SyncChild.result`."""
        return self.start(agent, task, **options).result(timeout)

    def _block(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, and block until it is done or the agent must stop."""
        try:
            check_process(self._pid)
        except RuntimeError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._asking.add(future)
        try:
            if self.cancelled:  # checked after the future is known to `unblock`, so that no stop is missed
                future.cancel()
            return future.result()
        finally:
            self._asking.discard(future)

    def become_async(self) -> None:
        """Become a `Context`: the sync function returned a coroutine, as a plain wrapper of an async agent does. The
        coroutine has this context and has not begun."""
        self.__class__ = Context  # type: ignore[assignment]
        self.emitter = self._asker  # type: ignore[assignment]

    def unblock(self) -> None:
        """End the waits for answers, so that the agent sees that it must stop."""
        for future in tuple(self._asking):
            future.cancel()
