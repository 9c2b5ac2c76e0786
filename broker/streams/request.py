"""What a request for a stream asks for: which log, from which cursor, in which view."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from aiohttp import HttpVersion11, web

from broker.base.accepting import accepts_gzip
from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.base.reasons import StreamProtocol
from broker.live.compact_view import CompactView
from broker.live.gzip_view import GzipView
from broker.live.packed_group import Packers
from broker.live.view import StreamView, TypeFilter
from broker.log.history import Head
from broker.log.watch_leases import DisconnectPolicy
from broker.streams.reconnect import wants_event_stream
from emitter.events import TERMINAL_STATES
from emitter.wire.ids import EventId, parse_event_id
from emitter.wire.keys import Owner, member


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


def policy_of(target: Target, head: Head | None) -> DisconnectPolicy | None:
    """The policy of an execution that its viewers keep alive by watching."""
    if head is None or not head.cancel_after_ms or head.state in TERMINAL_STATES:
        return None
    assert target.execution_id is not None
    return DisconnectPolicy(member(target.owner, target.execution_id), head.cancel_after_ms)


class StreamRequest(NamedTuple):
    """The stream parameters. `cursor` is None if none was given; `malformed` if the given one is not an id."""

    view: StreamView
    cursor: EventId | None
    from_now: bool
    malformed: bool

    @property
    def is_from_end(self) -> bool:
        """Whether only what is new is wanted."""
        return self.from_now and self.cursor is None


class Opening(NamedTuple):
    """A stream that is about to open. `target` is None for snapshots, and `head` for all but an execution."""

    request: web.Request
    identity: Identity
    request_id: str
    wanted: StreamRequest
    target: Target | None
    head: Head | None = None

    @property
    def log(self) -> str:
        return "" if self.target is None else self.target.log

    @property
    def execution_id(self) -> str | None:
        return None if self.target is None else self.target.execution_id

    @property
    def protocol(self) -> str:
        """The label of metrics and logs."""
        if self.target is None:
            return StreamProtocol.OPS
        native = StreamProtocol.NATIVE if self.target.execution_id else StreamProtocol.FEED
        return native if self.wanted.view.is_native else self.wanted.view.name


def read_parameters(
    request: web.Request, *, is_feed: bool, max_event_bytes: int = 0, packers: Packers | None = None
) -> StreamRequest:
    """`max_event_bytes`: of a block in a compact replay. With `packers`, the view is in gzip if the client takes it.
    Raises `Problem` 400 for an invalid parameter."""
    query, headers = request.query, request.headers
    cursor, malformed = None, False
    if text := headers.get("Last-Event-ID") or query.get("lastEventId"):
        try:
            cursor = parse_event_id(text)
        except ValueError as error:
            if not wants_event_stream(request):
                raise Problem(400, "malformed-cursor", str(error), path="Last-Event-ID") from error
            malformed = True
    start = _one_of(query.get("from"), "from", "start", "now") or ("now" if is_feed else "start")
    beats_as_event, beat_seconds = _heartbeat(query.get("heartbeat"))
    make: Callable[..., StreamView] = StreamView
    if packers is not None and accepts_gzip(headers.get("Accept-Encoding", "")):
        make = partial(GzipView, packers)
    try:
        view = make(
            types=TypeFilter(query["types"]) if "types" in query else None,
            named=_one_of(query.get("named"), "named", "true", "false") != "false",
            chunked=request.version >= HttpVersion11,
            heartbeat_event=beats_as_event,
            heartbeat_seconds=beat_seconds,
        )
    except ValueError as error:
        raise Problem(400, "invalid-parameter", str(error), path="types") from error
    if is_compact(request):
        view = CompactView(view, max_event_bytes)
    return StreamRequest(view, cursor, start == "now" and not malformed, malformed)


def is_compact(request: web.Request) -> bool:
    """Whether chunks of one text are to be joined. Raises `Problem` 400."""
    return _one_of(request.query.get("compact"), "compact", "true", "false") == "true"


def _heartbeat(given: str | None) -> tuple[bool, float | None]:
    """Whether heartbeats are events, and how many seconds they are apart at most, of `event`, `<seconds>` or
    `event,<seconds>`. Raises `Problem` 400."""
    if given is None:
        return False, None
    if not re.fullmatch(HEARTBEAT, given):
        raise Problem(400, "invalid-parameter", "heartbeat is event, 1 to 60 (seconds), or both", path="heartbeat")
    seconds = given.removeprefix("event").removeprefix(",")
    return given.startswith("event"), float(seconds) if seconds else None


def _one_of(given: str | None, name: str, *known: str) -> str | None:
    """The value, if one was given. Raises `Problem` 400 for an unknown one."""
    if given is not None and given not in known:
        raise Problem(400, "invalid-parameter", f"{name} is {' or '.join(known)}", path=name)
    return given


HEARTBEAT = "^(event|(event,)?([1-9]|[1-5][0-9]|60))$"
