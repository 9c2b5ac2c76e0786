"""What a stream's request asks for: which log, from where, seen how."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import HttpVersion11, web

from broker import sse
from broker.problems import Problem
from emitter.wire import EventId, Owner, parse_event_id


class Target(NamedTuple):
    """The log a stream shows: an execution's (`execution_id`, `record`), or its owner's feed."""

    owner: Owner
    log: str
    record: str | None = None
    execution_id: str | None = None

    @classmethod
    def execution(cls, owner: Owner, execution_id: str) -> Target:
        keys = owner.execution(execution_id)
        return cls(owner, keys.log, keys.record, execution_id)

    @classmethod
    def feed(cls, owner: Owner) -> Target:
        return cls(owner, owner.feed)


class StreamRequest(NamedTuple):
    """The stream parameters. `cursor` is None when there was none; `malformed` when there was one that is no id."""

    lens: sse.Lens
    cursor: EventId | None
    from_now: bool
    malformed: bool
    wants_sse: bool


def read_parameters(request: web.Request, *, is_feed: bool) -> StreamRequest:
    """Raises `Problem` 400 for what is not understood."""
    query, headers = request.query, request.headers
    wants_sse = "text/event-stream" in headers.get("Accept", "")
    cursor, malformed = None, False
    if text := headers.get("Last-Event-ID") or query.get("lastEventId"):
        try:
            cursor = parse_event_id(text)
        except ValueError as error:
            if not wants_sse:
                raise Problem(400, "malformed-cursor", str(error), path="Last-Event-ID") from error
            malformed = True
    start = query.get("from", "now" if is_feed else "start")
    if start not in ("start", "now"):
        raise Problem(400, "invalid-parameter", "from is start or now", path="from")
    try:
        lens = sse.Lens(
            types=sse.TypeFilter(query["types"]) if "types" in query else None,
            named=query.get("named", "true") != "false",
            chunked=request.version >= HttpVersion11,
            heartbeat_event=query.get("heartbeat") == "event",
        )
    except ValueError as error:
        raise Problem(400, "invalid-parameter", str(error), path="types") from error
    return StreamRequest(lens, cursor, start == "now" and not malformed, malformed, wants_sse)
