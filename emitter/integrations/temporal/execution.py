"""Which execution a workflow or activity belongs to, and the header of Temporal that carries it. Pure.

Temporal passes headers from the client to the workflow, and from the workflow to its activities, its children and the
run it continues as. `activity.Info` does not have the memo or search attributes of its workflow, so only a header
reaches all of them.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

from emitter.errors import InvalidEvent, describe
from emitter.tracing.trace import Trace
from emitter.wire.ids import EXECUTION_ID, check_execution_id
from emitter.wire.keys import Owner
from emitter.wire.subjects import owner_named

log = structlog.get_logger("emitter.temporal")

HEADER = "runcast"
READABLE_CHARS = 40
DIGEST_CHARS = 20
_UNREADABLE = re.compile(r"[^A-Za-z0-9_-]")


class Execution(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An execution: its owner and id, and what travels with them.

    Args:
        execution_id: by default `execution_id_of` the workflow's id and first run id.
        task: the task of `execution:started`, by default the workflow's type.
        attempt: set by the plugin; a retried workflow is the next attempt.
        started_at: set by the plugin for a run that another one continued as, in ms.
        parent_id: set by the plugin for a child workflow: its call.
        traceparent: the parent span (W3C Trace Context); ignored if not valid.
    """

    user: str
    execution_id: str | None = None
    org: str = "default"
    task: str | None = None
    attempt: int = 1
    started_at: int | None = None
    parent_id: str | None = None
    traceparent: str | None = None

    def __post_init__(self) -> None:
        owner_named(self.user, self.org)
        if self.execution_id is not None:
            check_execution_id(self.execution_id)

    @property
    def owner(self) -> Owner:
        return owner_named(self.user, self.org)

    @property
    def id(self) -> str:
        """The execution's id, which `resolve` has set."""
        assert self.execution_id is not None
        return self.execution_id


Info = workflow.Info | activity.Info
ExecutionOf = Callable[[Info, Execution | None], Execution | None]
"""Decides from Temporal's info and the header. None: nothing is published. For workflows it must be deterministic:
always the same result for the same arguments."""


class Rules(msgspec.Struct, frozen=True):
    """The options of a plugin: which execution, and whether arguments and results are published."""

    execution_of: ExecutionOf
    values: bool


def carried_or(owner: Owner | None) -> ExecutionOf:
    """The execution in the header; without a header an execution of `owner`, if given."""

    def execution_of(_info: Info, carried: Execution | None) -> Execution | None:
        if carried is not None or owner is None:
            return carried
        return Execution(owner.user, org=owner.org)

    return execution_of


def resolve(rules: Rules, info: Info, carried: Execution | None, default_id: str) -> Execution | None:
    """The execution, with its id."""
    try:
        found = rules.execution_of(info, carried)
        if found is not None and not isinstance(found, Execution):
            raise TypeError(f"execution_of returned {type(found).__name__}")
    except Exception as error:  # the user's own function
        log.warning("execution_not_known", error=describe(error), workflow=info.workflow_id)
        return None
    return found if found is None or found.execution_id is not None else replace(found, execution_id=default_id)


# --- the header ------------------------------------------------------------------------------------------------------

_starting: ContextVar[Execution | None] = ContextVar("runcast_starting", default=None)


@contextmanager
def for_execution(
    user: str,
    execution_id: str | None = None,
    *,
    org: str = "default",
    task: str | None = None,
    traceparent: str | None = None,
) -> Iterator[Execution]:
    """Workflows and activities that a client with the plugin starts inside the block belong to this execution. No
    worker of Runcast may run it at the same time. The default `traceparent` is OpenTelemetry's current span, if any.
    Raises `InvalidEvent` for an owner or id that is not valid."""
    execution = Execution(user, execution_id, org=org, task=task, traceparent=traceparent or current_traceparent())
    token = _starting.set(execution)
    try:
        yield execution
    finally:
        _starting.reset(token)


def starting() -> Execution | None:
    """The execution of the `for_execution` block around the caller."""
    return _starting.get()


def current_traceparent() -> str | None:
    """That of OpenTelemetry's current span, if OpenTelemetry is loaded and there is one."""
    api = sys.modules.get("opentelemetry.trace")
    context = None if api is None else api.get_current_span().get_span_context()
    if api is None or context is None or not context.is_valid:
        return None
    trace_id, span_id = api.format_trace_id(context.trace_id), api.format_span_id(context.span_id)
    return Trace(trace_id, span_id, int(context.trace_flags)).parent


def with_header(headers: Mapping[str, Payload], execution: Execution | None) -> Mapping[str, Payload]:
    if execution is None:
        return headers
    payload = Payload(metadata={"encoding": b"json/plain"}, data=msgspec.json.encode(execution))
    return {**headers, HEADER: payload}


def from_header(headers: Mapping[str, Payload]) -> Execution | None:
    payload = headers.get(HEADER)
    if payload is None:
        return None
    try:
        return msgspec.json.decode(payload.data, type=Execution)
    except (msgspec.MsgspecError, ValueError, InvalidEvent) as error:
        log.warning("header_not_understood", error=describe(error))
        return None


# --- ids and values --------------------------------------------------------------------------------------------------


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_CHARS]


def readable(text: str, chars: int = READABLE_CHARS) -> str:
    """A text with only the characters of an id."""
    return _UNREADABLE.sub("_", text)[:chars]


def execution_id_of(workflow_id: str, run_id: str) -> str:
    """The default id of a workflow's execution: `<workflow id>-<run id>`, or, if that is no valid id, its readable
    beginning and a digest. `run_id` is that of the first run (`WorkflowHandle.first_execution_run_id`), so that retries
    and continuations stay in the execution; each run of a cron workflow is an execution."""
    text = f"{workflow_id}-{run_id}"
    if EXECUTION_ID.match(text):
        return text
    return f"{readable(workflow_id)}-{digest(workflow_id, run_id)}"


def json_of(converter: PayloadConverter, value: Any, max_bytes: int) -> Any:
    """A value as Temporal's converter writes it into JSON; if it is no JSON or exceeds `max_bytes`, only its kind."""
    try:
        payload = converter.to_payload(value)
        encoding = payload.metadata.get("encoding", b"").decode()
        if encoding == "binary/null":
            return None
        if not encoding.startswith("json/") or len(payload.data) > max_bytes:
            return {"omitted": f"{len(payload.data)} bytes of {encoding}"}
        return msgspec.json.decode(payload.data)
    except Exception as error:  # a converter may raise anything; Temporal reports it where it matters
        return {"omitted": type(error).__name__}
