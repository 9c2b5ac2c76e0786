"""Publishing over HTTP, for workers that are not written in Python: one event, or NDJSON of many."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from redis.asyncio import Redis

from broker.api_types import PublishRequest, PublishResponse
from broker.problems import Problem
from emitter.batch import Prepared
from emitter.errors import InvalidEvent, PayloadTooLarge
from emitter.log import LogLimits, append, prepare
from emitter.redact import Redactor
from emitter.wire import Owner, decode_event

MAX_EVENTS = 1000
CREATES = ("execution:queued", "execution:started")
"""An execution that nobody accepted begins with one of these."""
_PRODUCER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_decoder = msgspec.json.Decoder(PublishRequest)


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


def read_events(
    body: bytes, execution_id: str, *, ndjson: bool, redact: Redactor, max_bytes: int, request_id: str
) -> list[Prepared]:
    """The events of a body. All are checked before any is stored; an error names the line (NDJSON) and the field."""
    lines = [line for line in body.split(b"\n") if line.strip()] if ndjson else [body]
    if not lines or len(lines) > MAX_EVENTS:
        raise Problem(422, "invalid", f"1 to {MAX_EVENTS} events a request, not {len(lines)}")
    prepared = []
    for number, line in enumerate(lines, 1):
        try:
            prepared.append(_read_event(line, execution_id, redact, max_bytes, request_id))
        except (InvalidEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = f"line {number}: " if ndjson else ""
            raise _at(where, error) from error
    return prepared


def _at(where: str, error: Exception) -> Problem:
    is_syntax = not isinstance(error, InvalidEvent | msgspec.ValidationError)
    detail = where + str(error)
    path = detail.partition("at `")[2].partition("`")[0] or "$"
    return Problem(400, "malformed", detail) if is_syntax else Problem(422, "invalid", detail, path=path)


def _read_event(line: bytes, execution_id: str, redact: Redactor, max_bytes: int, request_id: str) -> Prepared:
    if max_bytes and len(line) > 2 * max_bytes:
        raise PayloadTooLarge(len(line), max_bytes)
    request = _decoder.decode(line)
    return prepare(
        decode_event(request.type, request.data),
        execution_id,
        redact=redact,
        ts=request.ts,
        request_id=request.request_id or request_id,
        agent=request.agent,
        parent_id=request.parent_id,
        max_bytes=max_bytes,
    )


async def publish(
    redis: Redis, owner: Owner, execution_id: str, events: list[Prepared], producer: tuple[str, int], limits: LogLimits
) -> PublishResponse:
    """Append the events in one step. Raises the `AppendRefused` family."""
    name, seq = producer
    mode = "any" if events[0].type in CREATES else "existing"
    appended = await append(redis, owner, execution_id, events, producer=name, first_seq=seq, mode=mode, limits=limits)
    return PublishResponse(execution_id=execution_id, cursor=str(appended.last), appended=appended.added)
