"""What requests and responses about share links hold."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from broker.executions.types import _Request, _Response
from emitter.values import Millis

MIN_SECONDS = 60
MOST_SECONDS = 31_536_000
SHARE_ID = "^[0-9a-f]{16}$"


class ShareRequest(_Request, frozen=True):
    """A link that shows an execution to whoever has it. `expiresInSeconds`: a day, unless it says otherwise."""

    expires_in_seconds: Annotated[int, Meta(ge=MIN_SECONDS, le=MOST_SECONDS)] | None = None


class ShareInfo(_Response, frozen=True):
    share_id: str
    created_at: Millis
    expires_at: Millis
    by: str


class ShareResponse(ShareInfo, frozen=True):
    """`token` is a bearer token; it is shown this once. `url` opens the console with it."""

    token: str
    url: str


class ShareList(_Response, frozen=True):
    """Those that have neither expired nor been revoked, oldest first."""

    shares: list[ShareInfo]
