"""Cycles of references that libraries leave: what hangs in one stays until a full garbage collection."""

from __future__ import annotations

from typing import Any


def end_cycle_of(transport: Any) -> None:
    """Call it when a transport has lost its connection. Those of asyncio hold methods of theirs, and so themselves,
    with the socket: 1.2 KB a connection. From Python 3.12 on `close` drops them; `abort`, or a client that leaves, does
    not."""
    own = getattr(transport, "__dict__", {})
    for name in ("_read_ready_cb", "_write_ready"):
        if name in own:
            own[name] = None
