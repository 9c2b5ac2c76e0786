"""What follows a message to the agent at work, as an answer of its own. Pure."""

from __future__ import annotations

from broker.protocols.kept import Kept, Said
from emitter import events

AFTER = "~"
"""In the id of a run: between the execution and the id of the message that is followed."""
MAX_OPEN = 200


def named(execution_id: str, after: str) -> str:
    """The id of the assistant message that follows the message `after`."""
    return f"{execution_id}-{after}"


def followed(execution_id: str, message_id: str | None) -> str | None:
    """The message that an assistant message of this id follows; None if it is not named so."""
    before = named(execution_id, "")
    return message_id[len(before) :] or None if message_id is not None and message_id.startswith(before) else None


class Before:
    """The events up to the message `after`, which are not shown. Approvals that are open there are asked again after
    it: a page answers only what its newest message asks."""

    def __init__(self, after: str) -> None:
        self._after = after
        self._open: Kept[events.InputRequired] = Kept(MAX_OPEN)
        self.is_over = False

    def fork(self) -> Before:
        other = Before(self._after)
        other._open, other.is_over = self._open.fork(), self.is_over
        return other

    @property
    def approvals(self) -> list[events.InputRequired]:
        """Those that are open."""
        return [asked for _, asked in self._open.items()]

    def covers(self, event: events.Event, said: Said) -> bool:
        """Whether this event belongs to what comes before. Of a text that goes on after the message, what was said
        before is remembered in `said`."""
        match event:
            case events.MessageDelta():
                said.add(event.message_id, event.delta)
            case events.MessageComplete():
                said.forget(event.message_id)
            case events.InputRequired(kind="approval"):
                self._open.set(event.input_id, event)
            case events.InputReceived():
                self._open.pop(event.input_id)
            case events.ExecutionSuperseded():
                said.clear()
                self._open.clear()
            case events.UserMessage(message_id=message_id) if message_id == self._after:
                self.is_over = True
            case _ if event.type in events.TERMINAL_STATE_OF:  # the message has been trimmed from the log
                self._open.clear()
                self.is_over = True
                return False
        return True
