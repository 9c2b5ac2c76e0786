"""Publishing over HTTP, for workers that are not written in Python: one event, or NDJSON of many."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from redis.asyncio import Redis

from broker.auth.permissions import require
from broker.base.fairness import Slices
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.base.settings import Settings
from broker.executions.attempts import Under, as_attempt, begin
from broker.executions.overspending import limited
from broker.executions.types import PublishRequest, PublishResponse
from emitter.budgets import Budget
from emitter.errors import HookFailed, InvalidEvent, PayloadTooLarge
from emitter.events import (
    Artifact,
    BudgetNotice,
    ChildEnded,
    ChildStarted,
    Event,
    ExecutionCancelled,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    MessageDelta,
    Progress,
    ThinkingDelta,
    ToolProgress,
    UserMessage,
    UserMessageDropped,
    UserMessageTaken,
)
from emitter.publishing.hooks import Named, Origin, apply_hooks, load_hooks
from emitter.store import webhooks
from emitter.store.append import Appended, LogLimits, Mode, append, claimed_by, prepare
from emitter.store.holds import plan, renew_holds
from emitter.store.jobs import redis_ms
from emitter.tracing.trace import Trace
from emitter.values import percentage
from emitter.wire.envelope import decode_event
from emitter.wire.keys import DUE, EXPIRIES, Owner, member
from emitter.wire.prepared import DROPPED, Prepared
from emitter.wire.record import Field, Selection
from emitter.wire.record import producer as producer_field
from emitter.wire.redact import Redactor
from emitter.wire.webhooks import FOR_ALL, Name, start_fields

P = TypeVar("P")
R = TypeVar("R")

MAX_EVENTS = 1000
SLICE_SECONDS = 0.004
"""For so long the events of a request are prepared before others get the loop."""
LOT_BYTES = 256 * 1024
"""Of events that Redis appends in one step, which blocks it for 20 to 50 µs per KB."""
PRODUCERS_KEPT = 4000
"""By `append.lua`."""
NOT_PUBLISHED = {
    InputReceived.type: "answers are given at POST .../input, by the person who gives them",
    ExecutionQueued.type: "executions are queued by POST /api/agent/execute",
    ExecutionSuperseded.type: "attempts follow each other where workers run them",
    UserMessage.type: "messages are sent at POST .../messages, by the person who writes them",
    UserMessageTaken.type: "messages are taken at POST .../messages/take",
    UserMessageDropped.type: "messages are withdrawn at DELETE .../messages/{messageId}",
    ChildStarted.type: "children are started by POST /api/agent/execute with `parentExecutionId`",
    ChildEnded.type: "the end of a child is told by what ends it",
    BudgetNotice.type: "an edge counts what is spent, and tells it",
}
"""Events that say what somebody else did, and why publishing may not write them."""
_PRODUCER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_MAY_BE_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")
_EXPIRES = re.compile(r'w:(\S+) .*"expiresAt":(\d+)\}\Z', re.DOTALL)
"""Id and time of a question that expires, in the mark that the append script reads."""
_decoder = msgspec.json.Decoder(PublishRequest)
_STATE = Selection(Field.STATE)
OnSpent = Callable[[Appended], Awaitable[object]]
"""Called with each step that has spent something."""


class Gate(NamedTuple):
    """Which log the events of a request are for, and what they pass on the way. `under`: the attempt of a worker.
    `budget`: the limits of the settings."""

    identity: Identity
    execution_id: str
    request_id: str
    hooks: Sequence[Named]
    redact: Redactor
    max_bytes: int
    trace: Trace | None = None
    under: Under | None = None
    budget: Budget = Budget()


def edge_hooks(settings: Settings) -> tuple[Named, ...]:
    """The hooks that the settings name. Raises `InvalidSetting`."""
    return load_hooks(settings.hooks)


def read_producer(headers: Mapping[str, str]) -> tuple[str, int]:
    """Producer id and sequence of the first event; an empty id when the publish may not be repeated. `Problem` 400."""
    producer, text = headers.get("Producer-Id"), headers.get("Producer-Seq")
    if producer is None and text is None:
        return "", 1
    if producer is None or text is None:
        raise Problem(400, "invalid-parameter", "Producer-Id and Producer-Seq belong together")
    if not _PRODUCER.match(producer):
        raise Problem(400, "invalid-parameter", "Producer-Id is 1 to 64 of A-Z a-z 0-9 _ . -", path="Producer-Id")
    if not re.fullmatch(r"[1-9][0-9]{0,14}", text):
        raise Problem(400, "invalid-parameter", "Producer-Seq is a whole number from 1", path="Producer-Seq")
    # A namespace of its own: it must not collide with the producers of emitters and edges.
    return "http." + producer, int(text)


class _Passed(NamedTuple):
    """An event of a body that has passed the hooks; None: it was dropped."""

    request: PublishRequest
    event: Event | None


_Taken = _Passed | Prepared
"""Most events are ready at once. As objects they may take ten times their JSON, so only chunks of texts wait."""


async def read_events(body: bytes, gate: Gate, *, ndjson: bool) -> list[Prepared]:
    """The events of a body, with `DROPPED` in the place of one that a hook dropped. All are checked before any is
    stored; an error names the line (NDJSON) and the field, or the hook. Others get the loop between lines."""
    # A line too many ends the split: a body of nothing but line ends is a list of millions.
    lines = [line for line in body.split(b"\n", 2 * MAX_EVENTS) if line.strip()] if ndjson else [body]
    if len(lines) > MAX_EVENTS:
        raise Problem(422, "invalid", f"at most {MAX_EVENTS} events a request, not {len(lines)}")
    slices = Slices(SLICE_SECONDS)
    taken = await _each(lines, _take, gate, slices, ndjson=ndjson)
    whole = await _without_cut_credentials(taken, gate.redact, slices)
    return await _each(whole, _finish, gate, slices, ndjson=ndjson)


async def _each(
    items: Sequence[P], work: Callable[[P, Gate], R], gate: Gate, slices: Slices, *, ndjson: bool
) -> list[R]:
    """What `work` makes of each line, in slices; its errors name the line."""
    made = []
    for number, item in enumerate(items, 1):
        await slices.pause()
        try:
            made.append(work(item, gate))
        except (InvalidEvent, Problem, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = f"line {number}: " if ndjson else ""
            raise (isinstance(item, bytes) and _half(where, item)) or _at(where, error) from error
    return made


async def _without_cut_credentials(taken: Sequence[_Taken], redact: Redactor, slices: Slices) -> list[_Taken]:
    """The chunks of a message or artifact are one text, in which a credential may be cut: redacted as the whole that
    they are here. A delta of which nothing is left is dropped. An edge remembers nothing of the request before."""
    found: dict[tuple[str, str], list[tuple[int, _Passed]]] = {}
    for at, item in enumerate(taken):
        if isinstance(item, _Passed) and (chunk := _as_chunk(item.event)) is not None:
            id_ = chunk.artifact_id if isinstance(chunk, Artifact) else chunk.message_id
            found.setdefault((chunk.type, id_), []).append((at, item))
    whole = list(taken)
    for chunks in found.values():
        await slices.pause()
        if len(chunks) > 1:
            texts = [_text_of(item.event) for _, item in chunks]
            for (at, item), old, new in zip(chunks, texts, redact.pieces(texts), strict=True):
                await slices.pause()
                if new != old:
                    whole[at] = item._replace(event=_with_text(item.event, new))
    return whole


def _as_chunk(event: Event | None) -> MessageDelta | ThinkingDelta | Artifact | None:
    """The event, if its text is a part of a longer one."""
    if isinstance(event, MessageDelta | ThinkingDelta) or (isinstance(event, Artifact) and event.text is not None):
        return event
    return None


def _text_of(event: Any) -> str:
    return str(event.text if isinstance(event, Artifact) else event.delta)


def _with_text(event: Any, text: str) -> Event | None:
    if isinstance(event, Artifact):
        return msgspec.structs.replace(event, text=text)
    return msgspec.structs.replace(event, delta=text) if text else None


def _half(where: str, line: bytes) -> Problem | None:
    """The problem of a line with lone surrogates, which decoders report as a truncated line."""
    if not _MAY_BE_HALF.search(line):
        return None
    found = None
    with contextlib.suppress(ValueError, RecursionError):
        found = _half_in(json.loads(line), "$")
    if found is None:
        return None
    path, half = found
    what = f"half of a surrogate pair (\\u{ord(half):04x}): send a character whole, in one event - at `{path}`"
    return Problem(422, "invalid", where + what, path=path)


def _half_in(value: Any, path: str) -> tuple[str, str] | None:
    """The first half in a decoded value: its path and itself."""
    if isinstance(value, str):
        half = _HALF.search(value)
        return None if half is None else (path, half[0])
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        parts = [*((path, name) for name in value), *((f"{path}.{name}", item) for name, item in value.items())]
    elif isinstance(value, list):
        parts = [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    return next((found for where, item in parts if (found := _half_in(item, where)) is not None), None)


def _at(where: str, error: Exception) -> Problem:
    detail = where + str(error)
    if isinstance(error, Problem):
        return Problem(error.status, error.slug, detail, headers=error.headers, **error.extensions)
    if isinstance(error, HookFailed):  # the edge's fault, not the caller's
        return Problem(500, "hook-failed", detail, hook=error.hook)
    is_syntax = not isinstance(error, InvalidEvent | msgspec.ValidationError)
    path = detail.partition("at `")[2].partition("`")[0] or "$"
    return Problem(400, "malformed", detail) if is_syntax else Problem(422, "invalid", detail, path=path)


def _read_event(line: bytes, gate: Gate) -> _Passed:
    if gate.max_bytes and len(line) > 2 * gate.max_bytes:
        raise PayloadTooLarge(len(line), gate.max_bytes)
    request = _decoder.decode(line)
    event = _speak_for_oneself(_decode(request), gate)
    if isinstance(event, ExecutionStarted):
        event = limited(event, gate.budget)
    if not gate.hooks:
        return _Passed(request, event)
    origin = Origin(
        user=gate.identity.owner.user,
        org=gate.identity.owner.org,
        execution_id=gate.execution_id,
        agent=_agent(request, gate),
        request_id=request.request_id or gate.request_id,
        source="http",
    )
    return _Passed(request, apply_hooks(gate.hooks, event, origin))


def _take(line: bytes, gate: Gate) -> _Taken:
    passed = _read_event(line, gate)
    return _prepare(passed, gate) if _as_chunk(passed.event) is None else passed


def _finish(taken: _Taken, gate: Gate) -> Prepared:
    return _prepare(taken, gate) if isinstance(taken, _Passed) else taken


def _decode(request: PublishRequest) -> Event:
    """The event as it was sent, but for a percentage that is over or under by rounding."""
    try:
        return decode_event(request.type, request.data)
    except InvalidEvent:
        if request.type not in (Progress.type, ToolProgress.type):
            raise
    data = msgspec.json.decode(request.data)
    if isinstance(data, dict) and "progress" in data:
        data["progress"] = percentage(data["progress"])
    return decode_event(request.type, msgspec.json.encode(data))


def _prepare(passed: _Passed, gate: Gate) -> Prepared:
    request, event = passed
    if event is None:
        return DROPPED
    return prepare(
        event,
        gate.execution_id,
        redact=gate.redact,
        ts=request.ts,
        request_id=request.request_id or gate.request_id,
        agent=_agent(request, gate),
        parent_id=request.parent_id,
        traceparent=None if gate.trace is None else gate.trace.parent,
        max_bytes=gate.max_bytes,
    )


def _agent(request: PublishRequest, gate: Gate) -> str | None:
    return request.agent or (gate.under.agent if gate.under else None) or None


def _speak_for_oneself(event: Event, gate: Gate) -> Event:
    """The event, with the name of who publishes it where it has one. Raises `Problem` 403."""
    if (why := NOT_PUBLISHED.get(event.type)) is not None:
        raise Problem(403, "event-not-publishable", f"{event.type} cannot be published: {why}", event=event.type)
    if gate.under is not None:
        return as_attempt(event, gate.under)
    if isinstance(event, ExecutionCancelled):
        require(gate.identity, "executions:write")
        return msgspec.structs.replace(event, by=gate.identity.name)
    return event


def may_begin(events: Sequence[Prepared]) -> bool:
    """Whether these may be the first of an execution that nobody accepted."""
    first = next((event for event in events if event is not DROPPED), DROPPED)
    return first.type == ExecutionStarted.type


async def exists(redis: Redis, owner: Owner, execution_id: str) -> bool:
    client: Any = redis
    row = await client.hmget(owner.execution(execution_id).record, *_STATE.names)
    return _STATE.read(row).exists


async def publish_under(
    redis: Redis,
    under: Under,
    gate: Gate,
    events: Sequence[Prepared],
    producer: tuple[str, int],
    limits: LogLimits,
    on_spent: OnSpent | None = None,
) -> PublishResponse:
    """`publish` under an attempt: `Superseded` if a newer one has taken over. Each attempt numbers its events anew."""
    owner, execution_id = gate.identity.owner, gate.execution_id
    await begin(redis, owner, execution_id, under, events, limits, gate.redact)
    name, first_seq = producer
    if name:
        name = f"{under.attempt}.{name}"
        await _check_next(redis, owner.execution(execution_id).record, name, first_seq, is_new=False)
    fence: dict[str, Any] = {"attempt": under.attempt, "mode": claimed_by(under.worker)}
    added = 0
    for lot in _lots(events):
        appended = await append(
            redis, owner, execution_id, lot, producer=name, first_seq=_asking(name, first_seq), limits=limits, **fence
        )
        added, first_seq = added + appended.added, first_seq + len(lot)
        if on_spent is not None and appended.spent is not None:
            await on_spent(appended)
    await _plan_expiries(redis, member(owner, execution_id), events)
    return PublishResponse(execution_id=execution_id, cursor=str(appended.last), appended=added)


async def publish(
    redis: Redis,
    owner: Owner,
    execution_id: str,
    events: Sequence[Prepared],
    producer: tuple[str, int],
    limits: LogLimits,
    *,
    is_new: bool = True,
    on_spent: OnSpent | None = None,
) -> PublishResponse:
    """Append the events, in steps of `LOT_BYTES`. Raises the `AppendRefused` family, and `Problem` 409 for a number too
    high; what was appended before stands.

    An event keeps the number that its producer gave it, whatever a hook did to those before it: so a repeat appends
    nothing twice even if the hooks have changed since. An empty list renews the lease.

    `is_new`: no such execution existed; one that exists keeps its budget. `on_spent` is called with each step that has
    spent something.
    """
    name, first_seq = producer
    mode: Mode = "any" if may_begin(events) else "existing"
    if name:
        await _check_next(redis, owner.execution(execution_id).record, name, first_seq, is_new=mode == "any")
    added, fields = 0, _hold_fields(events, limits)
    if limits.webhook_url and may_begin(events):
        await webhooks.schedule(redis, [Name(owner, execution_id, FOR_ALL)])
        fields |= start_fields(owner, execution_id, {}, has_one_for_all=True)
    if Field.HOLD in fields:  # first: whatever happens to this edge, the reaper checks what begins
        ends = await redis_ms(redis) + limits.unheld_lease_seconds * 1000
        await plan(redis, DUE, {member(owner, execution_id): ends})
    if not is_new:
        events = [event._replace(fields={}) for event in events]
    for lot in _lots(events):
        appended = await append(
            redis, owner, execution_id, lot, producer=name, first_seq=_asking(name, first_seq), mode=mode,
            limits=limits, fields=fields,
        )  # fmt: skip
        added, first_seq, mode, fields = added + appended.added, first_seq + len(lot), "existing", {}
        if on_spent is not None and appended.spent is not None:
            await on_spent(appended)
    await _look_after(redis, owner, execution_id, events)
    return PublishResponse(execution_id=execution_id, cursor=str(appended.last), appended=added)


def _lots(events: Sequence[Prepared]) -> Iterator[Sequence[Prepared]]:
    """The events in parts that keep Redis from others for some milliseconds each. What is dropped after the last event
    goes with it: after an end nothing else would be taken."""
    begin = size = 0
    for at, event in enumerate(events):
        if size + len(event.json) > LOT_BYTES and at > begin:
            yield events[begin:at]
            begin, size = at, 0
        size += len(event.json)
    yield events[begin:]


def _hold_fields(events: Sequence[Prepared], limits: LogLimits) -> dict[str, str]:
    """What the record has of the lease of an execution that begins with these events."""
    begins = limits.unheld_lease_seconds and any(event.type == ExecutionStarted.type for event in events)
    return {Field.HOLD: str(limits.unheld_lease_seconds * 1000)} if begins else {}


async def _look_after(redis: Redis, owner: Owner, execution_id: str, events: Sequence[Prepared]) -> None:
    """Have the reaper look at questions that expire; renew the lease where nothing was said."""
    if not events:
        await renew_holds(redis, [owner.execution(execution_id).record], Field.SEEN)
    await _plan_expiries(redis, member(owner, execution_id), events)


async def _plan_expiries(redis: Redis, name: str, events: Sequence[Prepared]) -> None:
    """Have the reaper close the questions that expire; `name` is the execution's `member`."""
    asked = [found for event in events if (found := _EXPIRES.match(event.mark))]
    await plan(redis, EXPIRIES, {f"{name} {found[1]}": int(found[2]) for found in asked})


def _asking(name: str, first_seq: int) -> int:
    """As the append script has it, which checks a producer's number once more: a failover may have come between."""
    return -first_seq if name else first_seq


async def _check_next(redis: Redis, record: str, name: str, first_seq: int, *, is_new: bool) -> None:
    """Refuse a number beyond the producer's next, which is 1 in a log it has not written to: what comes late would pass
    for a repeat, and be lost."""
    client: Any = redis
    written = Selection(Field.STATE, Field.PRODUCERS, producer_field(name))
    found = written.read(await client.hmget(record, *written.names))
    expected = found.producers.get(name, 0) + 1
    if first_seq > expected and (is_new or found.exists):
        what = f"Producer-Seq {first_seq} leaves a gap: the next is {expected}"
        is_forgotten = expected == 1 and found.last_producer >= PRODUCERS_KEPT
        more: dict[str, Any] = {"forgotten": True} if is_forgotten else {}
        raise Problem(409, "producer-gap", what, expected=expected, **more)
