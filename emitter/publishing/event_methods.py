"""One typed method per event type, written once for the asynchronous, the blocking and the recording emitter.

`R` is what `emit` returns: an awaitable for `AgentEmitter`, nothing for `SyncAgentEmitter`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from msgspec.structs import asdict

from emitter import events
from emitter.budgets import BudgetState
from emitter.events import Event, Phase, Plan, Usage
from emitter.publishing.spending import NOTHING_SPENT, count, plus, usage_of
from emitter.values import percentage
from emitter.wire.ids import now_ms
from emitter.wire.record import Field

R = TypeVar("R")
S = TypeVar("S", float, float | None)


class EventMethods(Generic[R]):
    """The catalogue as methods. Each raises what `emit` raises: `ExecutionEnded`, `Superseded`, `QueueFull`; and
    `InvalidEvent`, `PayloadTooLarge` for events that are never mended: inputs, answers, takeovers."""

    attempt: int
    _started_ms: int | None = None
    _spent = NOTHING_SPENT

    def emit(self, event: Event) -> R:
        """Emit any event."""
        raise NotImplementedError

    def _emit_each(self, *events: Event) -> R:
        """Emit events, one after the other."""
        raise NotImplementedError

    def _terminal(self, event: Event, fields: Mapping[str, str]) -> R:
        raise NotImplementedError

    def custom(self, name: str, data: dict[str, Any]) -> R:
        """An event of your own, `custom:<name>`; name of a-z 0-9 _ . -, at most 64."""
        return self.emit(events.Custom(name=name, data=data))

    # --- the execution ---

    def execution_started(self, task: str, *, attempt: int | None = None, budget: BudgetState | None = None) -> R:
        self._started_ms = now_ms()
        number = max(1, self.attempt if attempt is None else attempt)
        return self.emit(events.ExecutionStarted(task=task, started_at=self._started_ms, attempt=number, budget=budget))

    def execution_complete(
        self, result: Any = None, *, duration: float | None = None, tokens_used: int | None = None
    ) -> R:
        """Terminal. `duration` in seconds; by default since `execution_started`. Returns when the log has it."""
        seconds = self._elapsed() if duration is None else duration
        return self._terminal(
            events.ExecutionComplete(result=result, duration=seconds, tokens_used=tokens_used), fields={}
        )

    def execution_error(self, error: str, *, code: str | None = None, stack: str | None = None) -> R:
        """Terminal. `stack` is kept in the execution's record for debugging, never in the event."""
        return self._terminal(
            events.ExecutionError(error=error, code=code), fields={} if stack is None else {Field.STACK: stack}
        )

    def execution_cancelled(self, *, reason: str | None = None, by: str | None = None) -> R:
        """Terminal."""
        return self._terminal(events.ExecutionCancelled(reason=reason, by=by), fields={})

    def execution_superseded(self, from_seq: int, attempt: int) -> R:
        return self.emit(events.ExecutionSuperseded(from_seq=from_seq, attempt=attempt))

    def _elapsed(self) -> float:
        return 0.0 if self._started_ms is None else round((now_ms() - self._started_ms) / 1000, 3)

    # --- plan, phases, thoughts, text ---

    def plan_created(self, goal: str, phases: Iterable[Phase | tuple[str, str]]) -> R:
        """`phases` are `Phase` objects or (id, name) pairs."""
        return self.emit(events.PlanCreated(plan=Plan(goal, _phases(phases))))

    def phase_start(self, phase_id: str, phase_name: str, *, phase_index: int | None = None) -> R:
        return self.emit(events.PhaseStart(phase_id=phase_id, phase_name=phase_name, phase_index=phase_index))

    def phase_complete(self, phase_id: str, phase_name: str, *, duration: float | None = None) -> R:
        return self.emit(events.PhaseComplete(phase_id=phase_id, phase_name=phase_name, duration=duration))

    def thinking(self, thought: str, *, iteration: int | None = None, visible: bool = True) -> R:
        return self.emit(events.Thinking(thought=thought, iteration=iteration, visible=visible))

    def thinking_delta(self, delta: str, message_id: str) -> R:
        return self.emit(events.ThinkingDelta(message_id=message_id, delta=delta))

    def message_delta(self, delta: str, message_id: str) -> R:
        return self.emit(events.MessageDelta(message_id=message_id, delta=delta))

    def message_complete(self, message_id: str, *, text: str | None = None, usage: Usage | None = None) -> R:
        return self.emit(events.MessageComplete(message_id=message_id, text=text, usage=usage))

    # --- tools ---

    def tool_start(self, call_id: str, tool_name: str, params: Any = None) -> R:
        """A tool without parameters has `{}`, as model APIs require it."""
        return self.emit(
            events.ToolStart(call_id=call_id, tool_name=tool_name, params={} if params is None else params)
        )

    def tool_progress(self, call_id: str, *, progress: float | None = None, message: str | None = None) -> R:
        return self.emit(events.ToolProgress(call_id=call_id, progress=percentage(progress), message=message))

    def tool_complete(self, call_id: str, tool_name: str, result: Any, duration: float) -> R:
        return self.emit(
            events.ToolComplete(call_id=call_id, tool_name=tool_name, result=result, duration=_rounded(duration))
        )

    def tool_error(self, call_id: str, tool_name: str, error: str, duration: float) -> R:
        return self.emit(
            events.ToolError(call_id=call_id, tool_name=tool_name, error=error, duration=_rounded(duration))
        )

    # --- how it goes ---

    def status(self, status: str, message: str) -> R:
        return self.emit(events.Status(status=status, message=message))

    def progress(self, progress: float, *, current_action: str | None = None, specialist: str | None = None) -> R:
        """`progress` from 0 to 100."""
        return self.emit(
            events.Progress(progress=percentage(progress), current_action=current_action, specialist=specialist)
        )

    def specialist_activated(self, specialist: str, *, task: str | None = None, icon: str | None = None) -> R:
        return self.emit(events.SpecialistActivated(specialist=specialist, task=task, icon=icon))

    def specialist_complete(self, specialist: str, *, summary: str | None = None) -> R:
        return self.emit(events.SpecialistComplete(specialist=specialist, summary=summary))

    def partial_result(self, result: Any, *, specialist: str | None = None) -> R:
        return self.emit(events.PartialResult(result=result, specialist=specialist))

    def synthesis(
        self, message: str, *, specialists_complete: Sequence[str] = (), specialists_pending: Sequence[str] = ()
    ) -> R:
        return self.emit(
            events.Synthesis(
                message=message,
                specialists_complete=_listed(specialists_complete),
                specialists_pending=_listed(specialists_pending),
            )
        )

    def artifact(
        self,
        artifact_id: str,
        media_type: str,
        *,
        name: str | None = None,
        text: str | None = None,
        data: Any = None,
        url: str | None = None,
        append: bool = False,
        last: bool = False,
    ) -> R:
        """A file or document, whole or (`append`, `last`) in chunks that share the id."""
        return self.emit(
            events.Artifact(
                artifact_id=artifact_id,
                media_type=media_type,
                name=name,
                text=text,
                data=data,
                url=url,
                append=append,
                last=last,
            )
        )

    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        total_tokens: int | None = None,
        cost_usd: float | None = None,
        model: str | None = None,
        add: Any = None,
    ) -> R:
        """Running totals of the execution; `total_tokens` defaults to the sum.

        `add` is the usage of one more model call, as its API reports it (an object or mapping of OpenAI, Anthropic,
        LangChain or LiteLLM) or as a `Usage`; the event has the totals of everything added so far.
        """
        usage = Usage(
            input_tokens=count(input_tokens),
            output_tokens=count(output_tokens),
            total_tokens=count(input_tokens) + count(output_tokens) if total_tokens is None else total_tokens,
            cost_usd=cost_usd,
            model=model,
        )
        if add is not None:
            self._spent = usage = plus(self._spent, plus(usage_of(add), usage))
        return self.emit(events.UsageTotals(**asdict(usage)))

    def model_call(
        self,
        call_id: str,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        duration: float,
        provider: str | None = None,
        prompt: Any = None,
        answer: Any = None,
        cost_usd: float | None = None,
        first_token_seconds: float | None = None,
        error: str | None = None,
    ) -> R:
        """One ended call of a model; it is added to `usage`, as by `usage(add=…)`. `prompt` and `answer` are stored
        only with `RUNCAST_RECORD_MODEL_CONTENTS=1`. Times in seconds."""
        call = events.ModelCall(
            call_id=call_id,
            model=model,
            provider=provider,
            prompt=prompt,
            answer=answer,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=cost_usd,
            duration=_rounded(duration),
            first_token_seconds=_rounded(first_token_seconds),
            error=error,
        )
        self._spent = plus(self._spent, usage_of(call))
        return self._emit_each(call, events.UsageTotals(**asdict(self._spent)))

    # --- people, limits ---

    def input_required(
        self,
        input_id: str,
        prompt: str,
        kind: Literal["approval", "choice", "text", "form"],
        *,
        options: Sequence[str] | None = None,
        schema: dict[str, Any] | None = None,
        expires_at: int | None = None,
    ) -> R:
        """Request an answer without waiting; `ask` does this and waits. `expires_at` in ms since the epoch."""
        return self.emit(
            events.InputRequired(
                input_id=input_id,
                prompt=prompt,
                kind=kind,
                options=None if options is None else list(options),
                schema=schema,
                expires_at=expires_at,
            )
        )

    def input_received(self, input_id: str, by: str, *, value: Any = None, declined: bool = False) -> R:
        return self.emit(events.InputReceived(input_id=input_id, by=by, value=value, declined=declined))

    def timeout(self, message: str, action: Literal["continuing", "stopping"]) -> R:
        return self.emit(events.Timeout(message=message, action=action))

    def sandbox_violation(self, rule: str, detail: str) -> R:
        return self.emit(events.SandboxViolation(rule=rule, detail=detail))


def named(id_: str, name: str | None) -> str:
    """The name, by default the id. A value that is no text is mended later."""
    return id_ if name is None or (isinstance(name, str) and not name) else name


def _listed(values: Any) -> Any:
    """A list of the values; anything else is mended later."""
    if values is None:
        return []
    try:
        return values if isinstance(values, str | bytes) else list(values)
    except Exception:  # foreign iterators may raise anything
        return values


def _phases(phases: Any) -> Any:
    found = _listed(phases)
    return [_phase(phase) for phase in found] if isinstance(found, list) else found


def _phase(phase: Phase | tuple[str, str] | str) -> Phase:
    if isinstance(phase, Phase):
        return phase
    pair = phase if isinstance(phase, tuple | list) and len(phase) == 2 else (phase, phase)
    return Phase(*pair)


def _rounded(seconds: S) -> S:
    return round(seconds, 6) if isinstance(seconds, float) else seconds
