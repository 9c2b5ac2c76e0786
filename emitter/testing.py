"""For people who test their own agents: an emitter that needs no Redis and remembers what was emitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emitter.emitter import AsyncEventMethods
from emitter.errors import ExecutionEnded, InputExpired
from emitter.events import TERMINAL_STATES, Event
from emitter.publisher import prepare
from emitter.redact import Redactor
from emitter.wire import decode_envelope


class RecordingEmitter(AsyncEventMethods):
    """`AgentEmitter` without Redis. `events` holds (type, event) in order, as a reader would get them: encoded,
    redacted and decoded again, so an event the contract does not allow raises here too.

    `answers` are what `ask` returns, by input id or, in order, for those that have none; without one it raises
    `InputExpired`.
    """

    def __init__(
        self, user_id: str = "tester", execution_id: str = "ex_test", *, answers: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(attempt=1)
        self.user_id = user_id
        self.execution_id = execution_id
        self.events: list[tuple[str, Event]] = []
        self.records: dict[str, str] = {}
        self.ended = False
        self._answers = dict(answers or {})
        self._redact = Redactor()

    @property
    def types(self) -> list[str]:
        return [type_ for type_, _ in self.events]

    def of(self, type_: str) -> list[Any]:
        """The events of one type."""
        return [event for name, event in self.events if name == type_]

    @property
    def text_emitted(self) -> str:
        return "".join(event.delta for event in self.of("message:delta"))

    async def emit(self, event: Event) -> None:
        if self.ended:
            raise ExecutionEnded(self.execution_id, TERMINAL_STATES[self.events[-1][0]])
        prepared = prepare(event, self.execution_id, redact=self._redact)
        self.events.append((prepared.type, decode_envelope(prepared.json)[1]))
        self.ended = event.type in TERMINAL_STATES

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self.records.update(fields)
        if not self.ended:
            await self.end_text()
        await self.emit(event)

    async def ask(self, prompt: str, *, kind: Any = "approval", input_id: str | None = None, **options: Any) -> Any:
        name = input_id or self.new_id("input")
        options.pop("expires_in", None)
        await self.input_required(name, prompt, kind, **options)
        if name not in self._answers:
            raise InputExpired(name)
        await self.input_received(name, by=self.user_id, value=self._answers[name])
        return self._answers[name]

    async def flush(self, timeout: float | None = None) -> None:
        """Nothing waits here."""

    async def close(self, timeout: float | None = None) -> None:
        """Nothing is held here."""

    async def __aenter__(self) -> RecordingEmitter:
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Nothing is held here."""
