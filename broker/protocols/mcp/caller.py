"""A message and who sent it, and what all methods share: where the edge is, and its live agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from broker.auth.permissions import require
from broker.base.identity import Identity
from broker.http.addresses import origin_of
from broker.protocols.mcp.questions import Asked
from broker.protocols.mcp.rpc import Json, Message, RequestId
from broker.protocols.mcp.versions import Client
from emitter.wire.keys import Owner


class Caller(NamedTuple):
    """One message. `base` is the URL under which the edge was found."""

    request: web.Request
    identity: Identity
    client: Client
    message: Message
    base: str

    @property
    def owner(self) -> Owner:
        return self.identity.owner

    @property
    def params(self) -> Json:
        return self.message.params

    @property
    def request_id(self) -> RequestId:
        assert self.message.id is not None, "a request has one"
        return self.message.id

    @property
    def asked(self) -> Asked:
        return Asked(self.client.can, self.base, self.client.is_modern)

    def require_write(self) -> None:
        """Raises `Problem` 403."""
        require(self.identity, "executions:write")


Result = Json | web.StreamResponse
Method = Callable[[Caller], Awaitable[Result]]
Give = Callable[[Caller, str, Json], Awaitable[None]]
"""Answers questions of an execution: the client's responses by input id."""


def base_of(request: web.Request, public_url: str | None) -> str:
    return (public_url or origin_of(request)).rstrip("/")
