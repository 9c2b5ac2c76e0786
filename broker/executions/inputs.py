"""People's answers to inputs: whether an answer fits the input, and which one was first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.forms import Checked, Forms
from broker.executions.types import InputRequest, InputResponse
from emitter.errors import (
    AlreadyAnswered,
    ExecutionEnded,
    InvalidEvent,
    UnknownExecution,
    UnknownInput,
)
from emitter.events import EXPIRED, TERMINAL_STATES, InputReceived, InputRequired, State
from emitter.store.answers import misfit, prepare_answer
from emitter.store.append import LogLimits, append
from emitter.wire.envelope import decode_event
from emitter.wire.ids import now_ms
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared, Redaction
from emitter.wire.record import Field, Selection
from emitter.wire.record import answer as answer_field
from emitter.wire.record import open_input as input_field

log = structlog.get_logger("broker")

DETAIL_CHARS = 300


class _Asked(NamedTuple):
    """An input in the record, which keeps it until its answer (JSON) or the end of the execution."""

    question: InputRequired | None
    state: State
    answer: str | None


class Answers:
    """Gives inputs their answers."""

    def __init__(self, redis: Redis, limits: LogLimits, redact: Redaction) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._redact = redact
        self._forms = Forms()

    async def give(
        self, identity: Identity, execution_id: str, request: InputRequest, request_id: str
    ) -> InputResponse:
        """Raises `UnknownExecution`, `UnknownInput`, `AlreadyAnswered`, `ExecutionEnded`, `PayloadTooLarge`,
        `InvalidEvent`, and `Problem`: 409 when the time of the question is over, 422 when the value does not fit it."""
        question = _open_question(execution_id, await self._asked(identity.owner, execution_id, request.input_id))
        event = self._prepare(execution_id, question, request, identity.name, request_id)
        checked = Checked() if request.declined else await self._check(identity.principal, question, request.value)
        await self._append(identity.owner, execution_id, request.input_id, event)
        if checked.unusable is not None:  # said once: no other answer will be taken
            names = {"execution": execution_id, "input": request.input_id}
            log.warning("schema_unusable", **names, reason=checked.unusable)
        return InputResponse(execution_id=execution_id, input_id=request.input_id)

    async def _asked(self, owner: Owner, execution_id: str, input_id: str) -> _Asked:
        asked = Selection(Field.STATE, input_field(input_id), answer_field(input_id))
        record = asked.read(await self._redis.hmget(owner.execution(execution_id).record, *asked.names))
        if record.state is None:
            raise UnknownExecution(execution_id)
        question, answer = record.inputs.get(input_id), record.answers.get(input_id)
        return _Asked(
            question=None if question is None else _question(question),
            state=record.state,
            answer=None if answer is None else answer.decode(),
        )

    def _prepare(
        self, execution_id: str, question: InputRequired, request: InputRequest, by: str, request_id: str
    ) -> Prepared:
        refusal = False if question.kind == "approval" else None
        value = refusal if request.declined else request.value
        return prepare_answer(
            InputReceived(input_id=request.input_id, by=by, value=value, declined=request.declined),
            execution_id,
            redact=self._redact,
            max_bytes=self._limits.max_event_bytes,
            request_id=request_id,
        )

    async def _check(self, user: Owner, question: InputRequired, value: Any) -> Checked:
        """Raises `Problem` 422, and 429 or 503 when too many forms wait to be checked."""
        if (allowed := misfit(question, value)) is not None:
            raise _invalid([("$.value", f"the answer to this {question.kind} is {allowed}")])
        if question.kind != "form" or question.schema is None:
            return Checked()
        checked = await self._forms.check(user, question.schema, value)
        if checked.unchecked is not None:
            raise _invalid([("$.value", f"this answer cannot be checked: {checked.unchecked}")])
        if checked.misfits:
            raise _invalid(checked.misfits)
        return checked

    async def _append(self, owner: Owner, execution_id: str, input_id: str, event: Prepared) -> None:
        """Append the answer, if it is the first. If the first answer has ended the execution, raise `AlreadyAnswered`
        with its author rather than `ExecutionEnded`."""
        try:
            await append(self._redis, owner, execution_id, [event], mode="existing", limits=self._limits)
        except (AlreadyAnswered, ExecutionEnded):
            _open_question(execution_id, await self._asked(owner, execution_id, input_id))
            raise


def open_inputs(questions: Iterable[bytes]) -> list[InputRequired]:
    """The questions that the execution waits for, from its record: the log may have been trimmed since they were asked.
    One that is not understood (a newer version's) is left out."""
    found = []
    for question in questions:
        with contextlib.suppress(InvalidEvent):
            found.append(_question(question))
    return found


def _question(spec: bytes) -> InputRequired:
    question = decode_event(InputRequired.type, spec)
    assert isinstance(question, InputRequired)
    return question


def _open_question(execution_id: str, asked: _Asked) -> InputRequired:
    """Raises why the question takes no answer any more."""
    question, state, answer = asked
    if answer is not None:
        given = msgspec.json.decode(answer)
        if given.get("by") != EXPIRED:
            raise AlreadyAnswered(execution_id, answer)
        raise _expired(given.get("at"))
    if question is not None and question.expires_at is not None and now_ms() > question.expires_at:
        raise _expired(question.expires_at)
    if state in TERMINAL_STATES:
        raise ExecutionEnded(execution_id, state)
    if question is None:
        raise UnknownInput(execution_id)
    return question


def _expired(at: int | None) -> Problem:
    return Problem(409, "input-expired", "the time to answer is over", expiredAt=at)


def _invalid(misfits: list[tuple[str, str]]) -> Problem:
    path, message = misfits[0]
    errors = [{"path": path, "message": message[:DETAIL_CHARS]} for path, message in misfits]
    return Problem(422, "invalid", message[:DETAIL_CHARS], path=path, errors=errors)
