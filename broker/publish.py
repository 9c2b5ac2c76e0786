"""Publishing over HTTP, for workers that are not written in Python: one event, or NDJSON of many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from broker.api_types import PublishRequest, PublishResponse
from broker.problems import Problem
from broker.settings import BadSetting, Settings
from emitter.batch import DROPPED, Prepared
from emitter.errors import HookFailed, InvalidEvent, InvalidSetting, PayloadTooLarge
from emitter.events import ExecutionStarted
from emitter.holds import plan, renew_holds
from emitter.hooks import Named, Origin, apply_hooks, load_hooks
from emitter.jobs import redis_ms
from emitter.log import LogLimits, append, prepare
from emitter.redact import Redactor
from emitter.tracing import Trace
from emitter.wire import DUE, EXPIRIES, Owner, decode_event, member

MAX_EVENTS = 1000
CREATES = ("execution:queued", "execution:started")
"""An execution that nobody accepted begins with one of these."""
_PRODUCER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_EXPIRES = re.compile(r'w:(\S+) .*"expiresAt":(\d+)\}\Z', re.DOTALL)
"""Id and time of a question that expires, in the mark that the append script reads."""
_decoder = msgspec.json.Decoder(PublishRequest)


class Gate(NamedTuple):
    """Which log the events of a request are for, and what they pass on the way."""

    owner: Owner
    execution_id: str
    request_id: str
    hooks: Sequence[Named]
    redact: Redactor
    max_bytes: int
    trace: Trace | None = None


def edge_hooks(settings: Settings) -> tuple[Named, ...]:
    """The hooks that the settings name. Raises `BadSetting`."""
    try:
        return load_hooks(settings.hooks)
    except InvalidSetting as error:
        raise BadSetting(error.name, error.value, error.allowed) from error


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
    # Apart from the producers of emitters and of the edges, whose names it must not take.
    return "http." + producer, int(text)


def read_events(body: bytes, gate: Gate, *, ndjson: bool) -> list[Prepared]:
    """The events of a body, with `DROPPED` in the place of one that a hook dropped. All are checked before any is
    stored; an error names the line (NDJSON) and the field, or the hook."""
    lines = [line for line in body.split(b"\n") if line.strip()] if ndjson else [body]
    if len(lines) > MAX_EVENTS:
        raise Problem(422, "invalid", f"at most {MAX_EVENTS} events a request, not {len(lines)}")
    prepared = []
    for number, line in enumerate(lines, 1):
        try:
            prepared.append(_read_event(line, gate))
        except (InvalidEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = f"line {number}: " if ndjson else ""
            raise _at(where, error) from error
    return prepared


def _at(where: str, error: Exception) -> Problem:
    detail = where + str(error)
    if isinstance(error, HookFailed):  # the edge's fault, not the caller's
        return Problem(500, "hook-failed", detail, hook=error.hook)
    is_syntax = not isinstance(error, InvalidEvent | msgspec.ValidationError)
    path = detail.partition("at `")[2].partition("`")[0] or "$"
    return Problem(400, "malformed", detail) if is_syntax else Problem(422, "invalid", detail, path=path)


def _read_event(line: bytes, gate: Gate) -> Prepared:
    if gate.max_bytes and len(line) > 2 * gate.max_bytes:
        raise PayloadTooLarge(len(line), gate.max_bytes)
    request = _decoder.decode(line)
    request_id = request.request_id or gate.request_id
    event = decode_event(request.type, request.data)
    if gate.hooks:
        origin = Origin(
            user=gate.owner.user,
            org=gate.owner.org,
            execution_id=gate.execution_id,
            agent=request.agent,
            request_id=request_id,
            source="http",
        )
        if (passed := apply_hooks(gate.hooks, event, origin)) is None:
            return DROPPED
        event = passed
    return prepare(
        event,
        gate.execution_id,
        redact=gate.redact,
        ts=request.ts,
        request_id=request_id,
        agent=request.agent,
        parent_id=request.parent_id,
        traceparent=None if gate.trace is None else gate.trace.parent,
        max_bytes=gate.max_bytes,
    )


async def publish(
    redis: Redis,
    owner: Owner,
    execution_id: str,
    events: Sequence[Prepared],
    producer: tuple[str, int],
    limits: LogLimits,
) -> PublishResponse:
    """Append the events in one step. Raises the `AppendRefused` family, and `Problem` 409 for a number too high.

    An event keeps the number that its producer gave it, whatever a hook did to those before it: so a repeat appends
    nothing twice even if the hooks have changed their mind meanwhile. No events are a sign of life.
    """
    name, first_seq = producer
    first = next((event for event in events if event is not DROPPED), DROPPED)
    mode = "any" if first.type in CREATES else "existing"
    if name:
        await _check_next(redis, owner.execution(execution_id).record, name, first_seq, is_new=mode == "any")
    appended = await append(
        redis, owner, execution_id, events, producer=name, first_seq=first_seq, mode=mode, limits=limits,
        fields=_hold_fields(events, limits),
    )  # fmt: skip
    await _look_after(redis, owner, execution_id, events, limits)
    return PublishResponse(execution_id=execution_id, cursor=str(appended.last), appended=appended.added)


def _hold_fields(events: Sequence[Prepared], limits: LogLimits) -> dict[str, str]:
    """What the record has of the lease of an execution that begins with these events."""
    begins = limits.unheld_lease_seconds and any(event.type == ExecutionStarted.type for event in events)
    return {"hold": str(limits.unheld_lease_seconds * 1000)} if begins else {}


async def _look_after(
    redis: Redis, owner: Owner, execution_id: str, events: Sequence[Prepared], limits: LogLimits
) -> None:
    """Have the reaper look at what begins, and at questions that expire; renew the lease where nothing was said."""
    if not events:
        await renew_holds(redis, [owner.execution(execution_id).record], "seen")
    name = member(owner, execution_id)
    if _hold_fields(events, limits):
        await plan(redis, DUE, {name: await redis_ms(redis) + limits.unheld_lease_seconds * 1000})
    asked = [found for event in events if (found := _EXPIRES.match(event.mark))]
    await plan(redis, EXPIRIES, {f"{name} {found[1]}": int(found[2]) for found in asked})


async def _check_next(redis: Redis, record: str, name: str, first_seq: int, *, is_new: bool) -> None:
    """Refuse a number beyond the producer's next, which is 1 in a log it has not written to: what comes late would pass
    for a repeat, and be lost. The check may stand before the append, since numbers only go up."""
    client: Any = redis
    state, reached = await client.hmget(record, "state", f"p:{name}")
    expected = int(reached or 0) + 1
    if first_seq > expected and (is_new or state is not None):
        what = f"Producer-Seq {first_seq} leaves a gap: the next is {expected}"
        raise Problem(409, "producer-gap", what, expected=expected)
