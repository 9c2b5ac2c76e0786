"""Cycles of references that libraries leave: what hangs in one stays until a full garbage collection."""

from __future__ import annotations

from typing import Any


def end_cycle_of(transport: Any) -> None:
    """Call it when a transport has lost its connection. Before Python 3.12 those of asyncio hold a method of
    theirs, and so themselves, with the socket: 1.2 KB a connection."""
    if hasattr(transport, "_read_ready_cb"):
        transport._read_ready_cb = None
