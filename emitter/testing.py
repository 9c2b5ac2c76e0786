"""For people who test their own agents: an emitter that needs no Redis and remembers what was emitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emitter.emitter import STACK_CHARS, AsyncEventMethods, InputKind
from emitter.errors import EmitterClosed, ExecutionEnded, InputExpired
from emitter.events import TERMINAL_STATES, Event
from emitter.log import prepare
from emitter.redact import Redactor
from emitter.wire import Owner, decode_envelope, now_ms


class RecordingEmitter(AsyncEventMethods):
    """`AgentEmitter` without Redis. `events` holds (type, event) in order, as a reader would get them: encoded,
    redacted and decoded again, so an event the contract does not allow raises here too.

    `answers` are what `ask` returns, by input id; without one it raises `InputExpired`. Questions that are given no id
    get `in_1`, `in_2`, … in order. `records` holds what is kept beside the log, such as an error's `stack`.
    """

    def __init__(
        self, user_id: str = "tester", execution_id: str = "ex_test", *, answers: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(attempt=1)
        self.user_id = user_id
        self.owner = Owner(user_id)
        self.execution_id = execution_id
        self.events: list[tuple[str, Event]] = []
        self.records: dict[str, str] = {}
        self.ended = False
        self._closed = False
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
        self._check()
        prepared = prepare(event, self.execution_id, redact=self._redact)
        self.events.append((prepared.type, decode_envelope(prepared.json)[1]))
        self.ended = event.type in TERMINAL_STATES

    def _check(self) -> None:
        if self.ended:
            raise ExecutionEnded(self.execution_id, TERMINAL_STATES[self.events[-1][0]])
        if self._closed:
            raise EmitterClosed(f"the emitter of execution {self.execution_id} is closed")

    async def _terminal(self, event: Event, fields: Mapping[str, str]) -> None:
        self._check()
        prepare(event, self.execution_id, redact=self._redact)  # one that cannot be stored must not end the text
        await self.end_text()
        self.records.update({name: self._redact.text(text)[:STACK_CHARS] for name, text in fields.items()})
        await self.emit(event)

    async def ask(
        self,
        prompt: str,
        *,
        kind: InputKind = "approval",
        options: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
        expires_in: float | None = None,
        input_id: str | None = None,
    ) -> Any:
        name = self.new_id("input") if input_id is None else input_id
        expires_at = None if expires_in is None else now_ms() + int(expires_in * 1000)
        await self.input_required(name, prompt, kind, options=options, schema=schema, expires_at=expires_at)
        if name not in self._answers:
            raise InputExpired(name)
        await self.input_received(name, by=self.user_id, value=self._answers[name])
        return self._answers[name]

    async def flush(self, timeout: float | None = None) -> None:
        """Nothing waits here."""

    async def close(self, timeout: float | None = None) -> None:  # noqa: ARG002 - as AgentEmitter has it
        """Emit nothing any more."""
        self._closed = True

    async def __aenter__(self) -> RecordingEmitter:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
