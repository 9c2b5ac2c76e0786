"""Whether an agent that failed is tried again, and when. Pure, but for the jitter.

`raise Retry(after=30)` requests another attempt, `raise Fatal("…")` forbids it. After any other exception the agent is
tried again if it is one of `retry_on`; without `retry_on`, if it is transient: the error of a connection, a timeout, or
a busy server.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from emitter.backoff import backoff_seconds
from emitter.errors import leaves_of

BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 1.0, 60.0
AFTER_SECONDS_MAX = 7 * 86_400.0
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the server may answer the next request."""
TRANSIENT = (ConnectionError, TimeoutError, socket.gaierror)
TRANSIENT_NAMES = frozenset(
    {
        ("httpx", "TransportError"),
        ("httpcore", "NetworkError"),
        ("httpcore", "TimeoutException"),
        ("aiohttp", "ClientConnectionError"),
        ("aiohttp", "ClientPayloadError"),
        ("requests", "ConnectionError"),
        ("requests", "Timeout"),
        ("urllib3", "ProtocolError"),
        ("urllib3", "TimeoutError"),
        ("openai", "APIConnectionError"),
        ("anthropic", "APIConnectionError"),
        ("redis", "ConnectionError"),
        ("redis", "TimeoutError"),
    }
)
"""Package and name of connection errors that are not Python's own."""


class Retry(Exception):
    """Raised by an agent: try again in `after` seconds (`None`: the usual pause), if attempts are left."""

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Fatal(Exception):
    """Raised by an agent: do not try again."""


def retry_after(error: BaseException, failed: int, retry_on: Sequence[type[BaseException]] | None) -> float | None:
    """In how many seconds to try again after `error` and `failed` earlier failures; `None`: not at all."""
    leaves = leaves_of(error)
    if any(isinstance(leaf, Fatal) for leaf in leaves):
        return None
    if asked := [leaf for leaf in leaves if isinstance(leaf, Retry)]:
        given = [leaf.after for leaf in asked if leaf.after is not None]
        return min(max(0.0, *given), AFTER_SECONDS_MAX) if given else _pause(failed)
    may = all(is_transient(leaf) if retry_on is None else isinstance(leaf, tuple(retry_on)) for leaf in leaves)
    return _pause(failed) if may else None


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed without a change."""
    if isinstance(error, TRANSIENT) or _status(error) in BUSY:
        return True
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return not kinds.isdisjoint(TRANSIENT_NAMES)


def _status(error: BaseException) -> Any:
    """The HTTP status, by the name that the library uses."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            if isinstance(status := getattr(holder, name, None), int):
                return status
    return None


def _pause(failed: int) -> float:
    return backoff_seconds(failed, first=BACKOFF_SECONDS, most=BACKOFF_SECONDS_MAX)
