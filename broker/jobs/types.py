"""What workers over HTTP send, and what they are answered. The API description is made from these types."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from broker.executions.types import ExecutionId
from emitter.budgets import BudgetState
from emitter.store import announcements

AGENT_NAME = re.compile(r"[a-z0-9_.-]{1,64}\Z")
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/([a-z0-9][a-z0-9!#$&^_.+-]{0,126}|\*)\Z")
MAX_AGENTS = 100
MAX_JOBS = 100
MAX_HELD = 1000
MAX_WAIT_SECONDS = 60.0
MAX_RETRY_SECONDS = 7 * 86_400.0
MAX_ERROR_CHARS = 2_000

WorkerId = Annotated[
    str,
    Meta(pattern="^[A-Za-z0-9_.-]{1,128}$", description="name of the process, unique among those with this token"),
]
AgentName = Annotated[str, Meta(pattern="^[a-z0-9_.-]{1,64}$", description="name of an agent")]
Wait = Annotated[
    float,
    Meta(ge=0, le=MAX_WAIT_SECONDS, description="how long the edge may wait before it answers, seconds"),
]
Attempt = Annotated[int, Meta(ge=1, le=2_147_483_647, description="number of the attempt, from 1")]
FenceText = Annotated[str, Meta(min_length=1, max_length=2048, description="the job's `fence`, as it was received")]


# --- requests --------------------------------------------------------------------------------------------------------


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what a worker sends."""


class JobAgent(announcements.AgentInfo, frozen=True, kw_only=True, rename="camel"):
    """An agent that a worker runs, as clients see it in `GET /api/agent/agents`. `name` is 1 to 64 of a-z 0-9 _ . -;
    `inputSchema` is a JSON Schema of `params`; modes are media types. `maxAttempts` counts lost workers and failures
    that are tried again. Limits in seconds: `timeLimit` is for an attempt, `idleLimit` for the time without an event,
    waits for people excluded. Members that this version does not know are ignored."""

    def __post_init__(self) -> None:
        if not AGENT_NAME.match(self.name):
            raise ValueError(f"agent name {self.name[:80]!r} is not 1 to 64 of a-z 0-9 _ . -")
        if not 1 <= self.max_attempts <= 1000:
            raise ValueError(f"agent {self.name!r}: maxAttempts is a whole number from 1 to 1000")
        for name, seconds in (("timeLimit", self.time_limit), ("idleLimit", self.idle_limit)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"agent {self.name!r}: {name} is a number of seconds above 0")
        for name, modes in (("inputModes", self.input_modes), ("outputModes", self.output_modes)):
            if not modes or not all(MEDIA_TYPE.match(mode) for mode in modes):
                raise ValueError(f"agent {self.name!r}: {name} are media types such as text/plain")


class JobRef(_Request, frozen=True):
    """A job, as it was received."""

    execution_id: ExecutionId
    attempt: Attempt
    fence: FenceText


class ClaimRequest(_Request, frozen=True):
    """`agents`: what the worker runs, as names or described. `max`: how many jobs it has room for. `running`: the jobs
    that it has; jobs of this worker that are not in it and were not started are answered again, because the answer to
    an earlier claim was lost (without `running` they are not: their leases end). `concurrency` and `host` are for
    people who look at the workers."""

    agents: Annotated[list[AgentName | JobAgent], Meta(min_length=1, max_length=MAX_AGENTS)]
    worker: WorkerId
    max: Annotated[int, Meta(ge=1, le=MAX_JOBS)] = 1
    wait_seconds: Wait = 20.0
    running: Annotated[list[JobRef], Meta(max_length=MAX_HELD)] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    host: Annotated[str, Meta(max_length=253)] = ""

    def __post_init__(self) -> None:
        _ = self.described  # names are checked there

    @property
    def described(self) -> dict[str, JobAgent]:
        """The agents by name."""
        found = (JobAgent(name=agent) if isinstance(agent, str) else agent for agent in self.agents)
        return {agent.name: agent for agent in found}


class HeldRef(JobRef, frozen=True):
    """A job that the worker runs. `waitingFor`: ids of questions (`input:required`) whose answers it waits for."""

    waiting_for: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=100)] = []


class RenewRequest(_Request, frozen=True):
    """`waitSeconds`: the answer may wait so long (a third of the lease at most) for something to say."""

    worker: WorkerId
    jobs: Annotated[list[HeldRef], Meta(max_length=MAX_HELD)]
    wait_seconds: Wait = 0.0


class JobFailure(_Request, frozen=True):
    """Why an attempt failed. It is tried again after `retryAfterSeconds` (without it: after 1 s, doubled each time up
    to 60 s, less up to a half by chance), unless the agent's `maxAttempts` are used up: then the execution ends as
    `execution:error` with this `error` and `code`."""

    error: Annotated[str, Meta(min_length=1, max_length=MAX_ERROR_CHARS)]
    code: Annotated[str, Meta(min_length=1, max_length=64)] = "agent_error"
    retry_after_seconds: Annotated[float, Meta(ge=0, le=MAX_RETRY_SECONDS)] | None = None


class ReleaseRef(JobRef, frozen=True):
    """A job to give back: to the next worker at once, or with a `failure` to be tried again."""

    failure: JobFailure | None = None


class ReleaseRequest(_Request, frozen=True):
    worker: WorkerId
    jobs: Annotated[list[ReleaseRef], Meta(min_length=1, max_length=MAX_HELD)]


# --- answers ---------------------------------------------------------------------------------------------------------


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what an edge answers; what is unset is null."""


class JobOwner(_Answer, frozen=True):
    """Whose execution it is."""

    user: str
    org: str


class JobLimits(_Answer, frozen=True):
    """What the worker has announced of the agent; seconds, or null for no limit. The worker stops an attempt that is
    over a limit and publishes `execution:error` with code `timeout`. A second later the edge does it in its place."""

    max_attempts: int
    time_limit: float | None = None
    idle_limit: float | None = None


class ClaimedJob(_Answer, frozen=True):
    """An execution for the worker to run. `attempt` and `fence` go with everything that is said about it. Its lease
    ends `leaseSeconds` after the claim, and after each renewal. `failed` and `lost` count the attempts before that
    failed, or lost their worker. `budget` is what it may spend, and what it has spent before; null without a limit.
    `traceparent` is the span in which it was accepted."""

    execution_id: ExecutionId
    owner: JobOwner
    agent: str
    task: str
    params: dict[str, Any]
    metadata: dict[str, Any]
    attempt: Attempt
    fence: str
    lease_seconds: float
    limits: JobLimits
    budget: BudgetState | None = None
    conversation_id: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    failed: int = 0
    lost: int = 0


class ClaimResponse(_Answer, frozen=True):
    jobs: list[ClaimedJob]


class JobCancel(_Answer, frozen=True):
    """Who asked for the cancel, and why."""

    by: str | None = None
    reason: str | None = None


class JobAnswer(_Answer, frozen=True):
    """The answer to a question: the value, by whom, and when (milliseconds since the epoch). `by` is
    `system:expired` for a question whose time is over; `declined`: the person does not want to answer."""

    input_id: str
    value: Any
    by: str | None = None
    at: int | None = None
    declined: bool = False


class RenewedJob(_Answer, frozen=True):
    """What became of a job. `held`: go on. `cancel`: stop, then publish `execution:cancelled`; the lease is renewed.
    `lost`: stop and publish nothing more; `why` is `ended` (its log is closed), `superseded` (another attempt or worker
    has it), `timeout` or `budget` (it was over a limit, and the edge has ended it) or `fence` (the fence is not this
    worker's)."""

    execution_id: ExecutionId
    attempt: Attempt
    state: Literal["held", "cancel", "lost"]
    cancel: JobCancel | None = None
    why: Literal["ended", "superseded", "timeout", "budget", "fence"] | None = None
    answers: list[JobAnswer] = []


class RenewResponse(_Answer, frozen=True):
    """In the order of the request."""

    jobs: list[RenewedJob]
    lease_seconds: float


class ReleasedJob(_Answer, frozen=True):
    """`released`: the next attempt waits for a worker. `retrying`: it starts after `retryAfterSeconds`. `failed`: no
    attempt was left, and the execution has ended. `lost`: it was no longer this worker's, or was released before."""

    execution_id: ExecutionId
    attempt: Attempt
    state: Literal["released", "retrying", "failed", "lost"]
    retry_after_seconds: float | None = None


class ReleaseResponse(_Answer, frozen=True):
    """In the order of the request."""

    jobs: list[ReleasedJob]
