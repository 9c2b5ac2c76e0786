"""The webhooks of an execution as their owner is shown them: without anything of them that is a secret."""

from __future__ import annotations

from typing import Literal

import msgspec
from redis.asyncio import Redis

from broker.executions.types import _Response
from emitter.store import webhooks
from emitter.values import Millis
from emitter.wire.keys import Owner
from emitter.wire.record import ExecutionRecord
from emitter.wire.webhooks import FOR_ALL, Delivery, Wake, Webhook, origin_of


class WebhookState(_Response, frozen=True):
    """A webhook of an execution. `url` without its path. `state`: `open`; `done` (all was delivered); `gone` (its
    receiver has answered 410); `failed` (its receiver took nothing for too long). `delivered`: how many events; `tries`
    and `error` are those of the event that waits, since `waitingSince`."""

    url: str
    state: Literal["open", "done", "gone", "failed"]
    events: list[str]
    delivered: int
    tries: int | None = None
    error: str | None = None
    waiting_since: Millis | None = None


class WebhookList(_Response, frozen=True):
    """Those that users have asked for, also by A2A. That for all executions is the operator's."""

    webhooks: list[WebhookState]


async def listed(redis: Redis, owner: Owner, execution_id: str) -> WebhookList:
    """Raises `UnknownExecution`."""
    record = await webhooks.listed(redis, owner, execution_id)
    ids = [hook_id for hook_id in Wake.parse(record.wake).ids if hook_id != FOR_ALL]
    states = [_state(record, hook_id) for hook_id in ids]
    return WebhookList(webhooks=[state for state in states if state is not None])


def _state(record: ExecutionRecord, hook_id: str) -> WebhookState | None:
    try:
        hook = msgspec.json.decode(record.webhooks[hook_id], type=Webhook)
        done = msgspec.json.decode(record.deliveries.get(hook_id, b"{}"), type=Delivery)
    except (KeyError, msgspec.MsgspecError):  # another program has written it
        return None
    return WebhookState(
        url=origin_of(hook.url),
        state=done.state,
        events=list(hook.events),
        delivered=done.delivered,
        tries=done.tries or None,
        error=done.error or None,
        waiting_since=done.since_ms or None,
    )
