"""The routes of workers over HTTP in the description of the HTTP interface."""

from __future__ import annotations

import msgspec

from broker.http.openapi_parts import JSON, Json, header, header_refs, ok, operation
from broker.jobs import types

TAG = "jobs"
BODIES: tuple[type[msgspec.Struct], ...] = (
    types.ClaimRequest, types.ClaimResponse, types.RenewRequest, types.RenewResponse, types.ReleaseRequest,
    types.ReleaseResponse,
)  # fmt: skip
ATTEMPT_HEADERS = (
    header(
        "Attempt",
        "with `Fence`: publish as the worker that has claimed this attempt. Needs scope `jobs:run` instead of"
        " `events:publish`, for an execution of any user",
        type="integer",
        minimum=1,
    ),
    header("Fence", "the job's `fence`", type="string", maxLength=2048),
)

_CLAIM = """\
Claims jobs, or waits for one: up to `waitSeconds`, then the answer is 204. The call also announces the worker and its \
agents, for 15 seconds from the last claim or renewal; executions are accepted for an agent for a day after.

A job is an execution's attempt. The worker publishes its events with `POST /api/agent/executions/{id}/events` and the \
headers `Attempt` and `Fence`; its first is `execution:started` (the edge adds it if another one comes first), and its \
last is `execution:complete`, `execution:error` or `execution:cancelled`, which ends the job. Until then it renews the \
lease. No two workers have a job at the same time: when a lease has ended, the next attempt is claimed by another \
worker, and what is published under the old one is refused with 409 `superseded`.

If a claim is repeated because its answer was lost, `running` must list the jobs that the worker knows of; the others \
that it has are answered again, with the same attempt and fence. A worker has one claim open at a time."""
_RENEW = """\
Renews the leases of the worker's jobs, and says what became of each. To be called a few times per `leaseSeconds`, or \
all the time with `waitSeconds`: it then returns as soon as a job is cancelled, or a question in `waitingFor` is \
answered; after a third of the lease at the latest. What it has said once it says again, without waiting: take \
answered questions out of `waitingFor`, and pause a second between renewals of a cancelled job. Without jobs it only \
keeps the worker announced.

A worker that does not follow a `cancel` within 10 seconds, or goes on for a second over a limit of the agent, has its \
job ended by the edge, which it learns as `lost`."""
_RELEASE = """\
Gives jobs back: to the next worker at once (a worker that stops), or with a `failure`, to be tried again later. What \
the attempt has published is void then: the log has `execution:superseded`, and the next attempt begins anew. A repeat \
after a lost answer finds the jobs `lost`, which is as good."""


def paths() -> Json:
    claimed = ok(200, "At least one job.", {JSON: "ClaimResponse"})
    nothing: Json = {"204": {"description": "There was no job in that time: ask again.", "headers": header_refs()}}
    return {
        "/api/agent/jobs/claim": {
            "post": _operation("claimJobs", "Claim jobs for a worker", _CLAIM, {**claimed, **nothing}, "ClaimRequest")
        },
        "/api/agent/jobs/renew": {
            "post": _operation(
                "renewJobs",
                "Renew the leases of a worker's jobs, and hear of cancels and answers",
                _RENEW,
                ok(200, "What became of each.", {JSON: "RenewResponse"}),
                "RenewRequest",
            )
        },
        "/api/agent/jobs/release": {
            "post": _operation(
                "releaseJobs",
                "Give jobs back: to other workers, or to be tried again",
                _RELEASE,
                ok(200, "What became of each.", {JSON: "ReleaseResponse"}),
                "ReleaseRequest",
            )
        },
    }


def _operation(id_: str, summary: str, description: str, answers: Json, body: str) -> Json:
    found = operation(id_, summary, "jobs:run", answers, tag=TAG, body={JSON: body})
    return {"description": description, **found}
