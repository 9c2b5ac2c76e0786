"""The answer to `?tree=true`."""

from __future__ import annotations

import msgspec

from emitter import events
from emitter.events import State
from emitter.values import Millis


class ExecutionNode(msgspec.Struct, frozen=True, rename="camel"):
    """An execution and those below it, by their records. `usage` is what all of these used as far as it is known.
    `truncated`: it has children that are not there, because the tree has too many executions for one answer."""

    execution_id: str
    state: State
    agent: str | None = None
    task: str | None = None
    key: str | None = None
    parent: str | None = None
    root: str | None = None
    detached: bool = False
    created_at: Millis | None = None
    updated_at: Millis | None = None
    usage: events.Usage | None = None
    truncated: bool = False
    children: list[ExecutionNode] = []
