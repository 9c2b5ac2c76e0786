"""The problem that an exception stands for."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from broker.base.outage import is_away, lacks_right
from broker.base.problem import Problem, retry_after
from emitter import errors
from emitter.wire.user_messages import KEPT_MESSAGES

RETRY_AFTER_OUTAGE_SECONDS = 2
RETRY_AFTER_QUEUED_SECONDS = 30
RETRY_AFTER_MESSAGES_SECONDS = 5
RETRY_AFTER_ALL_MESSAGES_SECONDS = 3600
"""The execution takes no more until its end."""
RETRY_AFTER_UPDATE_SECONDS = 10
"""Until an edge of the newer version may answer, while an update replaces the edges one by one."""
_AT = re.compile(r"at `(\$[^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_NAMED = re.compile(r"(executionId|user|org): ")


def to_problem(error: Exception) -> Problem | None:
    """The problem an exception stands for, or None for one that nobody foresaw."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, web.HTTPException):
        return _from_http(error)
    if is_away(error):
        headers = retry_after(RETRY_AFTER_OUTAGE_SECONDS)
        how = "refuses this edge" if lacks_right(error) else "does not answer"
        return Problem(503, "unavailable", f"the event store {how}; try again", headers=headers)
    return _from_input(error) or _from_refusal(error)


def _from_http(error: web.HTTPException) -> Problem:
    """aiohttp's own errors: no route, wrong method, body too large. Its headers (`Allow`) stay."""
    headers = {name: value for name, value in error.headers.items() if name.lower() != "content-type"}
    default = f"{error.status}: {error.reason}"
    detail = error.text if error.status < 500 and error.text and error.text != default else ""
    title = error.reason or "Error"
    return Problem(error.status, title.lower().replace(" ", "-"), detail, title=title, headers=headers)


def _from_input(error: Exception) -> Problem | None:
    """What the client sent cannot be used."""
    match error:
        case errors.InvalidEvent(detail=detail):
            return Problem(422, "invalid", detail, **_path(detail))
        case errors.PayloadTooLarge(size=size, limit=limit):
            return Problem(413, "payload-too-large", str(error), size=size, limit=limit)
        case msgspec.ValidationError():
            return Problem(422, "invalid", str(error), **_path(str(error)))
        case msgspec.DecodeError():
            return Problem(400, "malformed", str(error))
        case RecursionError():  # of what was just shallow enough to be decoded
            return Problem(400, "malformed", "the body is nested too deeply")
    return None


def _path(detail: str) -> dict[str, Any]:
    """Where in the body the error is, as msgspec and our own checks say it: `$.plan.phases[0].id`."""
    if named := _NAMED.match(detail):
        return {"path": "$." + named[1]}
    at, missing = _AT.search(detail), _MISSING.search(detail)
    path = (at[1] if at else "$") + ("." + missing[1] if missing else "")
    return {"path": path} if at or missing else {}


def _from_refusal(error: Exception) -> Problem | None:
    """The log did not take what was asked."""
    match error:
        case errors.UnknownExecution():
            return Problem(404, "unknown-execution", "there is no such execution")
        case errors.UnknownInput():
            return Problem(404, "unknown-input", str(error))
        case errors.ExecutionEnded(state=state):
            return Problem(409, "execution-ended", str(error), state=state)
        case errors.ExecutionExists(state=state):
            return Problem(409, "execution-exists", str(error), state=state)
        case errors.AlreadyAnswered(answer=answer):
            return Problem(409, "already-answered", str(error), **_answerer(answer))
        case errors.EventsMissing(reached=reached):
            return Problem(409, "producer-gap", str(error), expected=reached + 1)
        case errors.Superseded(attempt=attempt):
            return Problem(409, "superseded", str(error), attempt=attempt)
        case errors.InputExpired():
            return Problem(409, "input-expired", str(error))
        case errors.ExecutionOwned():
            return Problem(409, "execution-owned", "a worker runs this execution")
        case errors.TooManyQueued(limit=limit):
            headers = retry_after(RETRY_AFTER_QUEUED_SECONDS)
            return Problem(429, "too-many-queued", str(error), limit=limit, headers=headers)
        case errors.TooManyChildren(limit=limit):
            return Problem(409, "too-many-children", str(error), limit=limit)
        case errors.TooManyInputs(limit=limit):
            return Problem(409, "too-many-inputs", str(error), limit=limit)
        case errors.NotSteerable():
            return Problem(409, "not-steerable", str(error))
        case errors.UnknownMessage():
            return Problem(404, "unknown-message", str(error))
        case errors.MessageTaken():
            return Problem(409, "message-taken", str(error))
        case errors.AlreadySent():
            return Problem(409, "already-sent", str(error))
        case errors.TooManyMessages(limit=limit):
            headers = retry_after(RETRY_AFTER_MESSAGES_SECONDS if limit else RETRY_AFTER_ALL_MESSAGES_SECONDS)
            return Problem(429, "too-many-messages", str(error), headers=headers, limit=limit or KEPT_MESSAGES)
        case errors.NewerRecord(found=found, known=known):
            detail = f"the record has format {found}; this edge knows up to {known}"
            return Problem(503, "newer-record", detail, headers=retry_after(RETRY_AFTER_UPDATE_SECONDS))
    return None


def _answerer(answer: str) -> dict[str, Any]:
    """Who gave the answer that counts, and when (ms), from its stored JSON."""
    try:
        stored = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
    return {"answeredBy": stored.get("by"), "answeredAt": stored.get("at")}
