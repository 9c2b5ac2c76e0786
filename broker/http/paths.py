"""What the paths of the native interface name."""

from __future__ import annotations

from aiohttp import web

from emitter.errors import UnknownExecution
from emitter.wire.ids import EXECUTION_ID


def execution_of(request: web.Request) -> str:
    """The path's execution id. One that cannot exist is as unknown as one that does not."""
    return known_form(request.match_info["id"])


def known_form(execution_id: str) -> str:
    """The id, if there may be such an execution. Raises `UnknownExecution`."""
    if not EXECUTION_ID.match(execution_id):
        raise UnknownExecution(execution_id[:64])
    return execution_id
