"""What follows a message to the agent at work, as an answer of its own. Pure."""

from __future__ import annotations

from broker.protocols.ai_sdk.parts import Said
from emitter import events

AFTER = "~"
"""In the id of a run: between the execution and the id of the message that is followed."""


def named(execution_id: str, after: str) -> str:
    """The id of the assistant message that follows the message `after`."""
    return f"{execution_id}-{after}"


def until(after: str, event: events.Event, said: Said) -> tuple[str | None, bool]:
    """The message that is still waited for, and whether this event belongs to what comes before. Of a text that goes on
    after the message, what was said before is remembered in `said`."""
    match event:
        case events.MessageDelta():
            said.add(event.message_id, event.delta)
        case events.MessageComplete():
            said.forget(event.message_id)
        case events.ExecutionSuperseded():
            said.clear()
        case events.UserMessage(message_id=message_id) if message_id == after:
            return None, True
        case _ if event.type in events.TERMINAL_STATE_OF:  # the message has been trimmed from the log
            return None, False
    return after, True
