"""Calls of tools that a model's provider runs itself, such as a web search, as events. Pure but for the clock."""

from __future__ import annotations

import time
from typing import NamedTuple

from emitter.events import Event, ToolComplete, ToolError, ToolStart
from emitter.integrations.langgraph.blocks import Arguments, Outcome, Piece, Use, arguments
from emitter.integrations.langgraph.recent import Recent
from emitter.integrations.langgraph.values import storable
from emitter.wire.storable import text

NAME_CHARS = 200
ERROR_CHARS = 4000
DIGITS = 6


class Running(NamedTuple):
    name: str
    started: float


class ServerCalls:
    """Translates such calls of messages into events. A call starts when its arguments are complete: with the next part
    of its message, or its end."""

    def __init__(self) -> None:
        self._coming: dict[str, Use] = {}
        self._open: dict[str, Running] = {}
        self._known = Recent()

    def take(self, message_id: str, piece: Piece) -> list[Event]:
        coming = self._coming.get(message_id)
        if isinstance(piece, Arguments):
            if coming is not None and coming.index == piece.index and isinstance(coming.args, str):
                self._coming[message_id] = coming._replace(args=coming.args + piece.json)
            return []
        events = self.start(message_id)
        if isinstance(piece, Use) and piece.id not in self._known:
            self._known.add(piece.id)
            self._coming[message_id] = piece
        elif isinstance(piece, Outcome) and (running := self._open.pop(piece.id, None)) is not None:
            events.append(_ended(text(piece.id), running, piece))
        return events

    def start(self, message_id: str) -> list[Event]:
        """Nothing more comes of the arguments."""
        if (use := self._coming.pop(message_id, None)) is None:
            return []
        running = self._open[use.id] = Running(text(use.name)[:NAME_CHARS], time.monotonic())
        return [ToolStart(call_id=text(use.id), tool_name=running.name, params=storable(arguments(use.args)))]

    def end(self, reason: str) -> list[Event]:
        """Error events for calls whose end will not come."""
        events = [event for message_id in list(self._coming) for event in self.start(message_id)]
        events += [_ended(text(id_), running, Outcome(id_, None, reason)) for id_, running in self._open.items()]
        self._open.clear()
        return events


def _ended(call_id: str, call: Running, outcome: Outcome) -> Event:
    seconds = round(time.monotonic() - call.started, DIGITS)
    if outcome.error is not None:
        error = text(outcome.error)[:ERROR_CHARS]
        return ToolError(call_id=call_id, tool_name=call.name, error=error, duration=seconds)
    return ToolComplete(call_id=call_id, tool_name=call.name, result=storable(outcome.result), duration=seconds)
