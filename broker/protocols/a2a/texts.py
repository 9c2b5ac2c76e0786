"""Events that A2A has no word for, as a text for people and a data part for programs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from broker.protocols.a2a.model import EVENTS_EXTENSION, DataPart, Message, Part, TextPart, as_object
from emitter import events
from emitter.wire.envelope import Envelope

_SAID: dict[type[events.Event], Callable[[Any], str | None]] = {
    events.PlanCreated: lambda event: f"Plan: {event.plan.goal}",
    events.PhaseStart: lambda event: f"Phase {event.phase_name} began",
    events.PhaseComplete: lambda event: f"Phase {event.phase_name} is complete",
    events.Thinking: lambda event: event.thought if event.visible else None,
    events.ToolStart: lambda event: f"Calling {event.tool_name}",
    events.ToolProgress: lambda event: event.message or _percent(event.progress),
    events.ToolComplete: lambda event: f"{event.tool_name} is done",
    events.ToolError: lambda event: f"{event.tool_name} failed: {event.error}",
    events.Status: lambda event: event.message,
    events.Progress: lambda event: event.current_action or _percent(event.progress),
    events.SpecialistActivated: lambda event: f"{event.specialist}: {event.task or 'began'}",
    events.SpecialistComplete: lambda event: f"{event.specialist}: {event.summary or 'is done'}",
    events.ModelCall: lambda event: (
        f"{event.model} failed: {event.error}" if event.error else f"{event.model} answered"
    ),
    events.ChildStarted: lambda event: f"{event.agent} began: {event.task}",
    events.ChildEnded: lambda event: (
        f"{event.execution_id} {event.state}" + (f": {event.summary}" if event.summary else "")
    ),
    events.Timeout: lambda event: event.message,
    events.BudgetNotice: lambda event: (
        f"Budget: {event.spent:.12g} of {event.max:.12g} {event.limit} spent ({event.action})"
    ),
    events.SandboxViolation: lambda event: f"{event.rule}: {event.detail}",
    events.Custom: lambda event: event.name,
    events.ExecutionError: lambda event: event.error,
    events.ExecutionCancelled: lambda event: event.reason or "",
    events.InputRequired: lambda event: event.prompt,
    events.UserMessage: lambda event: f"{event.by}: {event.text}" if event.text else f"{event.by} sent data",
    events.UserMessageTaken: lambda event: f"{len(event.message_ids)} taken",
    events.UserMessageDropped: lambda event: f"A message was dropped: {event.reason}",
}


def _percent(progress: float | None) -> str:
    return "" if progress is None else f"{progress:g} %"


def text(event: events.Event) -> str | None:
    """The text of an event; of a type that is not in the table, its name. None: the event is not shown."""
    said = _SAID.get(type(event))
    return event.type if said is None else said(event)


def message(task_id: str, context_id: str, id_: str, head: Envelope, said: str) -> Message:
    """An event as a message of the agent. `id_` is made of the log's; `said` is the event's `text`."""
    data = DataPart(data={"type": head.type, "data": head.data})
    return Message(
        role="agent",
        message_id=f"{task_id}.{id_}",
        task_id=task_id,
        context_id=context_id,
        parts=(TextPart(text=said), data) if said else (data,),
        extensions=(EVENTS_EXTENSION,),
    )


def prompt(task_id: str, context_id: str, question: events.InputRequired) -> Message:
    """A question as a message, the same wherever it is shown."""
    data = msgspec.Raw(msgspec.json.encode(question))
    head = Envelope(type=question.type, execution_id=task_id, ts=0, data=data)
    return message(task_id, context_id, question.input_id, head, question.prompt)


def answer(task_id: str, context_id: str, id_: str, received: events.InputReceived) -> Message:
    """What somebody answered, as a message of the user."""
    value: Any = {"declined": True} if received.declined else received.value
    # As JSON: it is kept for long, and small values take many times their text as objects.
    data = None if isinstance(value, str) else msgspec.Raw(msgspec.json.encode(as_object(value)))
    part = TextPart(text=value) if data is None else DataPart(data=data)
    return Message(
        role="user",
        message_id=f"{task_id}.{id_}",
        task_id=task_id,
        context_id=context_id,
        parts=(part,),
        metadata={"inputId": received.input_id, "by": received.by},
    )


def said(task_id: str, context_id: str, event: events.UserMessage) -> Message:
    """What somebody said to the agent at work."""
    parts: tuple[Part, ...] = () if event.text is None else (TextPart(text=event.text),)
    if event.data is not None:
        parts += (DataPart(data=msgspec.Raw(msgspec.json.encode(as_object(event.data)))),)
    return Message(
        role="user",
        message_id=event.message_id,
        task_id=task_id,
        context_id=context_id,
        parts=parts,
        metadata={"by": event.by, "mode": event.mode},
    )
