"""Emitters for activities that are not published: the same methods, which do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from emitter.errors import InputExpired
from emitter.events import Event
from emitter.publishing.async_methods import AsyncEventMethods
from emitter.publishing.event_methods import EventMethods, named
from emitter.publishing.scopes import SyncPhaseScope, SyncToolScope

NOBODY = "nobody"
"""The input id of `InputExpired`: there is nobody to ask."""


class NullEmitter(AsyncEventMethods):
    """As `AgentEmitter`. `ask` raises `InputExpired`."""

    async def emit(self, event: Event, **speaker: str | None) -> None:
        pass

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        pass

    async def ask(self, prompt: str, **options: Any) -> Any:  # noqa: ARG002 - as AgentEmitter has it
        raise InputExpired(NOBODY)

    async def flush(self, timeout: float | None = None) -> None:
        pass

    async def close(self, timeout: float | None = None) -> None:
        pass


class NullSyncEmitter(EventMethods[None]):
    """As `SyncAgentEmitter`. `ask` raises `InputExpired`."""

    attempt = 0

    def _emit_each(self, *events: Event) -> None:
        pass

    def emit(self, event: Event) -> None:
        pass

    def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        pass

    def new_id(self, kind: Literal["message", "call"]) -> str:
        return kind

    def text(self, chunk: str) -> None:
        pass

    def end_text(self) -> None:
        pass

    def phase(self, phase_id: str, name: str | None = None, *, index: int | None = None) -> SyncPhaseScope:
        return SyncPhaseScope(self, phase_id, named(phase_id, name), index)

    def tool(self, name: str, params: Any = None, *, call_id: str | None = None) -> SyncToolScope:
        return SyncToolScope(self, name, params, call_id or "call")

    def ask(self, prompt: str, **options: Any) -> Any:  # noqa: ARG002 - as SyncAgentEmitter has it
        raise InputExpired(NOBODY)

    def flush(self, timeout: float | None = None) -> None:
        pass

    def close(self, timeout: float | None = None) -> None:
        pass
