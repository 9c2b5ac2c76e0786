"""Messages of people to a running agent: sent by edges, taken by whatever runs the execution.

A take is one append of `user:message:taken`, which the append script refuses unless all its messages still wait. So a
message is taken once per attempt, whoever else takes or withdraws at the same time. A take has a name: one that is
repeated under its name, after a lost reply, gets what it took the first time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from emitter.errors import ExecutionEnded, Superseded, UnknownExecution, UnknownMessage
from emitter.events import TERMINAL_STATES, UserMessage, UserMessageTaken
from emitter.store.append import LogLimits, Mode, append, prepare
from emitter.store.connection import repeated
from emitter.wire.envelope import NO_NAME, encode_data, message_mark
from emitter.wire.keys import Owner
from emitter.wire.prepared import Prepared, Redaction
from emitter.wire.record import Field
from emitter.wire.user_messages import TAKEN_AT_ONCE, Message, read_message

MESSAGES_SCRIPT = Path(__file__).with_name("messages.lua").read_text()
MESSAGES_SHA = hashlib.sha1(MESSAGES_SCRIPT.encode(), usedforsecurity=False).hexdigest()
WAKE = b"message"
"""What the control channel of an execution says when a message was sent."""


class Waiting(NamedTuple):
    """Messages in their order, and the attempt that is to take them. `is_taken`: the take of this name did."""

    attempt: int
    messages: list[Message]
    is_taken: bool


async def read_waiting(
    redis: Redis, owner: Owner, execution_id: str, attempt: int, *, take: str = "", most: int = TAKEN_AT_ONCE,
    kinds: str = "",
) -> Waiting:  # fmt: skip
    """The messages that an attempt (0: the newest) has not taken. `kinds`: `i` for those that interrupt, `q` for the
    others. Whoever reads takes messages from now on, so that the execution accepts them. Raises `UnknownExecution`,
    `ExecutionEnded`, `Superseded`."""
    record = owner.execution(execution_id).record
    reply = await repeated(lambda: _read(redis, record, attempt, take, most, kinds))
    state, (current, own, is_taken) = reply[0].decode(), reply[1:4]
    if not state:
        raise UnknownExecution(execution_id)
    if not is_taken and state in TERMINAL_STATES:
        raise ExecutionEnded(execution_id, state)
    if not is_taken and own < current:
        raise Superseded(execution_id, current)
    rows = reply[4:]
    messages = [read_message(body, given) for body, given in zip(rows[1::3], rows[2::3], strict=True)]
    return Waiting(own, messages, bool(is_taken))


async def _read(redis: Redis, record: str, *arguments: str | int) -> list[Any]:
    client: Any = redis
    try:
        reply = await client.execute_command("EVALSHA", MESSAGES_SHA, 1, record, *arguments)
    except NoScriptError:
        await redis.script_load(MESSAGES_SCRIPT)  # a publisher's ACL has no EVAL
        reply = await client.execute_command("EVALSHA", MESSAGES_SHA, 1, record, *arguments)
    return list(reply)


async def take_messages(
    redis: Redis,
    owner: Owner,
    execution_id: str,
    attempt: int,
    *,
    take: str = "",
    most: int = TAKEN_AT_ONCE,
    kinds: str = "",
    mode: Mode = "existing",
    redact: Redaction,
    limits: LogLimits = LogLimits(),  # noqa: B008 - frozen
) -> list[Message]:
    """Take the messages that wait, at most `most`, in order; none if none waits. After an error of Redis the call may
    be repeated with the same name `take`. Raises as `read_waiting`."""
    while True:
        waiting = await read_waiting(
            redis, owner, execution_id, attempt, take=take, most=min(most, TAKEN_AT_ONCE), kinds=kinds
        )
        if waiting.is_taken or not waiting.messages:
            return waiting.messages
        event = UserMessageTaken(message_ids=[each.message_id for each in waiting.messages], attempt=waiting.attempt)
        prepared = prepare(event, execution_id, redact=redact, max_bytes=0)
        prepared = prepared._replace(mark=message_mark(event, b"", take=take or NO_NAME))
        try:
            await append(redis, owner, execution_id, [prepared], attempt=attempt, mode=mode, limits=limits)
        except UnknownMessage:
            continue  # withdrawn meanwhile, or taken by the first try of this take
        return waiting.messages


def prepare_message(
    event: UserMessage,
    execution_id: str,
    *,
    redact: Redaction,
    request_id: str | None = None,
    limits: LogLimits = LogLimits(),  # noqa: B008 - frozen
) -> Prepared:
    """A message as it is stored. The record keeps what redaction has changed for the agent, until the end. Raises
    `InvalidEvent`, `PayloadTooLarge`."""
    prepared = prepare(event, execution_id, redact=redact, max_bytes=limits.max_event_bytes, request_id=request_id)
    given = encode_data(event, limits.max_event_bytes)
    data = redact(event.type, given)
    fields = {} if data == given else {Field.UNREDACTED + event.message_id: given.decode()}
    return prepared._replace(mark=message_mark(event, data, limits.max_waiting_messages), fields=fields)
