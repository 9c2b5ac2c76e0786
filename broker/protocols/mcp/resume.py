"""Ids on the streams of the old era: each says all that another edge needs to continue its stream. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Annotated

import msgspec
from msgspec import Meta

from broker.base.problem import Problem
from broker.protocols.mcp.rpc import RequestId
from emitter.wire.ids import EXECUTION_ID

_ID = re.compile(r"([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{1,2000})\.([0-9]{1,15})\Z")


class StreamOf(msgspec.Struct, frozen=True, array_like=True):
    """The call that a stream answers. `hold_until` is in ms since the epoch; 0: as long as it takes."""

    request_id: RequestId
    progress_token: RequestId | None
    can: str
    hold_until: Annotated[int, Meta(ge=0, lt=10**15)]
    is_wait: bool = False


class Resumed(msgspec.Struct, frozen=True):
    """Where a client stands: after the event of this ordinal, on the stream of a call."""

    execution_id: str
    stream: StreamOf
    after: int


def stream_name(execution_id: str, stream: StreamOf) -> str:
    """What precedes the cursor in each id of the stream."""
    coded = base64.urlsafe_b64encode(msgspec.json.encode(stream)).rstrip(b"=").decode()
    return f"{execution_id}.{coded}"


def read_id(text: str) -> Resumed:
    """Raises `Problem` 400 for what is not an id of ours."""
    match = _ID.match(text)
    if match is not None and EXECUTION_ID.match(match[1]):
        try:
            coded = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
            return Resumed(match[1], msgspec.json.decode(coded, type=StreamOf), int(match[3]))
        except (binascii.Error, msgspec.MsgspecError, UnicodeError):
            pass
    raise Problem(400, "malformed-cursor", "Last-Event-ID is not an id of this endpoint", path="Last-Event-ID")


def derived_id(session: str, request_id: RequestId) -> str | None:
    """The id of the execution that a request of a session starts: so `notifications/cancelled` finds it on any edge,
    and a request that is sent twice starts one. None without a session."""
    if not session:
        return None
    return "mcp_" + hashlib.sha256(msgspec.json.encode([session, request_id])).hexdigest()[:32]
