"""The errors of this package. Every error carries data; the text is made from it."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable
from typing import Any

LEAVES_MAX = 1000
"""How many exceptions of a group are counted."""


class RuncastError(Exception):
    """Base of every error this package raises on purpose."""


def describe(error: BaseException, max_chars: int = 4000) -> str:
    """`Type: message` of any exception, clipped, in valid UTF-8. Of a group: its first leaf, and the number of the
    others. A cancellation is "cancelled", because its message may contain paths of the server."""
    leaves = leaves_of(error)
    more = f" and {len(leaves) - 1} more" if len(leaves) > 1 else ""
    return encodable(_describe_one(leaves[0]))[: max_chars - len(more)] + more


def encodable(text: str) -> str:
    """The same text in valid UTF-8: half of a surrogate pair is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def leaves_of(error: BaseException) -> list[BaseException]:
    """The leaves of an exception group, in order, at most `LEAVES_MAX`; of any other exception itself."""
    leaves: list[BaseException] = []
    open_ = [error]
    while open_ and len(leaves) < LEAVES_MAX:
        each = open_.pop()
        if isinstance(each, BaseExceptionGroup):
            open_ += reversed(each.exceptions)
        else:
            leaves.append(each)
    return leaves


def _describe_one(error: BaseException) -> str:
    if isinstance(error, CancelledError):
        return "cancelled"
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    name = type(error).__name__
    return f"{name}: {message}" if message else name


class InvalidEvent(RuncastError):
    """An event, id or name is not valid. `detail` has the path and the reason."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class HookFailed(InvalidEvent):
    """A hook raised, or returned what may not replace the event. The event was not stored; if it was terminal, the
    execution has ended without its content. The text names the hook, never the payload."""

    def __init__(self, hook: str, type_: str, reason: str) -> None:
        super().__init__(f"hook {hook!r} failed on {type_}: {reason}")
        self.hook = hook
        self.type = type_
        self.reason = reason


class PayloadTooLarge(RuncastError):
    """An encoded event, or `what` else, is larger than the limit (bytes). Nothing of it was stored."""

    def __init__(
        self, size: int, limit: int, what: str = "event", setting: str | None = "RUNCAST_MAX_EVENT_BYTES"
    ) -> None:
        named = f" ({setting})" if setting else ""
        super().__init__(f"{what} of {size} bytes is over the limit of {limit} bytes{named}")
        self.size = size
        self.limit = limit


class AppendRefused(RuncastError):
    """The log refused an append; the subclass is the reason."""

    def __init__(self, execution_id: str, detail: str) -> None:
        super().__init__(f"execution {execution_id}: {detail}" if execution_id else detail)
        self.execution_id = execution_id


class ExecutionEnded(AppendRefused):
    """The log is closed: its terminal event is written. `state` is completed, failed or cancelled."""

    def __init__(self, execution_id: str, state: str) -> None:
        super().__init__(execution_id, f"already {state}; its log is closed")
        self.state = state


class Superseded(AppendRefused):
    """A newer attempt owns the execution; this one must stop."""

    def __init__(self, execution_id: str, attempt: int) -> None:
        super().__init__(execution_id, f"attempt {attempt} has taken over")
        self.attempt = attempt


class UnknownExecution(AppendRefused):
    """There is no such execution for this user."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id, "unknown")


class ExecutionExists(AppendRefused):
    """An execution with this id exists already. `state` is its state."""

    def __init__(self, execution_id: str, state: str) -> None:
        super().__init__(execution_id, f"exists already ({state})")
        self.state = state


class ExecutionOwned(AppendRefused):
    """A worker runs the execution, so the caller must ask that worker. `owner` is the worker's id."""

    def __init__(self, execution_id: str, owner: str) -> None:
        super().__init__(execution_id, f"owned by worker {owner}")
        self.owner = owner


class EventsMissing(AppendRefused):
    """The log lacks events of the producer between the number `reached` and those that it was given, and takes them
    first."""

    def __init__(self, execution_id: str, reached: int) -> None:
        super().__init__(execution_id, f"the log has nothing of this producer after number {reached}")
        self.reached = reached


class NewerRecord(AppendRefused, ValueError):
    """The execution's record is of a format that only a newer version reads and writes (`emitter.wire.record`)."""

    def __init__(self, found: int, known: int, execution_id: str = "") -> None:
        super().__init__(execution_id, f"its record has format {found}; this version knows up to {known}")
        self.found = found
        self.known = known


class EventRefused(AppendRefused):
    """The log refused this event, and may accept the next one."""


class AlreadyAnswered(EventRefused):
    """The input has been answered; the first answer counts. `answer` is the stored answer (JSON text)."""

    def __init__(self, execution_id: str, answer: str) -> None:
        super().__init__(execution_id, "the input was already answered")
        self.answer = answer


class UnknownInput(EventRefused):
    """The execution has no `input:required` with this id."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id, "no such input was asked for")


class TooManyInputs(EventRefused):
    """The input was not opened: too many are open, or they are too large together. `limit` is the number
    (RUNCAST_MAX_OPEN_INPUTS)."""

    def __init__(self, execution_id: str, limit: int) -> None:
        what = f"too many open inputs; at most {limit} of 1 MiB together wait for answers (RUNCAST_MAX_OPEN_INPUTS)"
        super().__init__(execution_id, what)
        self.limit = limit


class AlreadySent(EventRefused):
    """The execution has a message with this id."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id, "a message with this id was sent before")


class UnknownMessage(EventRefused):
    """The execution has no such message, or nobody waits for it any more."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id, "no such message waits")


class MessageTaken(EventRefused):
    """The agent has taken the message, so it cannot be withdrawn."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id, "the agent has taken this message")


class TooManyMessages(EventRefused):
    """The message was not sent. `limit` messages wait for the agent (RUNCAST_MAX_WAITING_MESSAGES); 0: the execution
    has had as many messages as are kept for its later attempts, 1,000 of 4 MiB together."""

    def __init__(self, execution_id: str, limit: int) -> None:
        waiting = f"{limit} messages wait for the agent already (RUNCAST_MAX_WAITING_MESSAGES)"
        super().__init__(
            execution_id, waiting if limit else "it has had 1,000 messages, or 4 MiB of them; no more are kept"
        )
        self.limit = limit


class NotSteerable(AppendRefused):
    """What runs the execution takes no messages."""

    def __init__(self, execution_id: str, agent: str = "") -> None:
        who = f"the agent {agent}" if agent else "what runs it"
        super().__init__(execution_id, f"{who} takes no messages")
        self.agent = agent


class Interrupted(RuncastError):
    """A person's `message` interrupts the agent (`Context.interruptible`). The agent has taken it."""

    def __init__(self, message: Any) -> None:
        super().__init__(f"message {message.message_id} interrupts the agent")
        self.message = message


class TooManyQueued(RuncastError):
    """The execution was not accepted: `limit` executions of the user wait for a worker
    (RUNCAST_MAX_QUEUED_PER_USER)."""

    def __init__(self, execution_id: str, limit: int) -> None:
        what = f"{limit} executions of this user wait for a worker already (RUNCAST_MAX_QUEUED_PER_USER)"
        super().__init__(f"execution {execution_id}: {what}")
        self.execution_id = execution_id
        self.limit = limit


class TooManyChildren(RuncastError):
    """The root of an execution has `limit` executions below it already, or this one would be deeper than `limit`
    (`setting` says which). Nothing was started."""

    def __init__(self, execution_id: str, limit: int, setting: str) -> None:
        what = "levels are" if setting.endswith("DEPTH") else "executions below its root are"
        super().__init__(f"execution {execution_id} may start no other: {limit} {what} the limit ({setting})")
        self.execution_id = execution_id
        self.limit = limit
        self.setting = setting


class UnknownAgent(RuncastError):
    """No worker has had the agent for a day. `known` are the names of those that there are."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no worker knows an agent {name[:80]!r}")
        self.name = name
        self.known = sorted(known)


class ChildFailed(RuncastError):
    """A child execution failed or was cancelled (`state`). `error` and `code` are those of its end; `error` of a
    cancelled one is the reason."""

    def __init__(self, execution_id: str, state: str, error: str, code: str | None = None) -> None:
        super().__init__(f"child {execution_id} {state}: {error}" if error else f"child {execution_id} {state}")
        self.execution_id = execution_id
        self.state = state
        self.error = error
        self.code = code


class InputExpired(RuncastError):
    """Nobody answered in time."""

    def __init__(self, input_id: str) -> None:
        super().__init__(f"input {input_id} was not answered in time")
        self.input_id = input_id


class Declined(RuncastError):
    """The person who was asked does not want to answer."""

    def __init__(self, input_id: str) -> None:
        super().__init__(f"the answer to input {input_id} was declined")
        self.input_id = input_id


class QueueFull(RuncastError):
    """The emitter's queue stayed full for `seconds`: Redis is away for longer than the queue can hold."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the emitter's queue stayed full for {seconds:g} s")
        self.seconds = seconds


class EmitterClosed(RuncastError, RuntimeError):
    """An emitter or publisher was used before it was opened or after it was closed. Nothing was stored."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class WrongLoop(RuncastError, RuntimeError):
    """An emitter was used from another event loop than its own. Nothing was stored."""

    def __init__(self) -> None:
        super().__init__(
            "this emitter lives on another event loop: in a thread, use SyncAgentEmitter.over(emitter, its_loop), not "
            "asyncio.run"
        )


class EventsLost(RuncastError):
    """Closing could not write `count` queued events to the log in time; or they cannot be written at all."""

    def __init__(self, count: int, why: str = "before closing") -> None:
        super().__init__(f"{count} events could not be written {why}")
        self.count = count


class RedisUnavailable(RuncastError):
    """Redis did not answer within the bound."""


class InvalidSetting(RuncastError):
    """An environment variable cannot be used."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed; allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed
