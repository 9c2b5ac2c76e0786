"""Push notifications: configurations are webhooks of the task's execution, and what is posted is the task.

A notification comes when a task starts to work, asks, has an answer, or has ended. Its body is the task as it was then:
until 0.3 as it is, since 1.0 as a `StreamResponse`. Tokens and credentials are sent to the receiver, and never shown
again: who may read a task need not be able to pass for us.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.auth.permissions import require
from broker.protocols.a2a.call import Call, Operation
from broker.protocols.a2a.codec import encode
from broker.protocols.a2a.errors import INVALID_PARAMS, PUSH_NOT_SUPPORTED, TASK_NOT_FOUND, A2AError
from broker.protocols.a2a.model import PushConfig
from broker.protocols.a2a.projection import TaskProjection
from broker.protocols.a2a.task_view import Opening
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v10 import V10
from broker.webhooks.policy import Policy
from emitter import events
from emitter.store import webhooks
from emitter.store.webhooks import TooManyWebhooks
from emitter.wire.entries import Entry
from emitter.wire.keys import Owner
from emitter.wire.webhooks import MAX_PER_EXECUTION, Name, Wake, Webhook, origin_of

EVENTS = (
    events.ExecutionStarted.type,
    events.InputRequired.type,
    events.InputReceived.type,
    events.ExecutionComplete.type,
    events.ExecutionError.type,
    events.ExecutionCancelled.type,
)
HEADER = "X-A2A-Notification-Token"
UNNAMED = "a2a"
"""Id of the webhook of a configuration without an id, whose id then is the task's."""
READS_AT_ONCE = 4
Opened = Callable[[Owner, str], Awaitable[Opening]]
Read = Callable[[Owner, str, Callable[[TaskProjection], bool]], Awaitable[TaskProjection]]
"""As `Tasks.opening` and `Tasks.read` do."""
_new, _old = V10(), V03()


class Push:
    """The operations on configurations."""

    def __init__(self, redis: Redis, policy: Policy, opening: Opened, read: Read) -> None:
        self._redis = redis
        self._policy = policy
        self._opening = opening
        self._read = read
        self._reads = asyncio.Semaphore(READS_AT_ONCE)

    def operations(self) -> Mapping[str, Operation]:
        return {"set_push": self.set, "get_push": self.get, "list_push": self.list, "delete_push": self.delete}

    def hooks(self, call: Call, config: PushConfig | None) -> dict[str, Webhook]:
        """The webhook of a configuration that comes with a message. Raises `A2AError` and `Problem` 422."""
        if config is None:
            return {}
        self._check()
        headers = {HEADER: config.token} if config.token else {}
        if config.scheme and config.credentials:
            headers["Authorization"] = f"{config.scheme} {config.credentials}"
        hook = self._policy.checked(
            config.url,
            headers,
            events=EVENTS,
            where="$.pushNotificationConfig",
            form="a2a-1.0" if call.codec.is_typed else "a2a-0.3",
            name=config.config_id or "",
        )
        return {_hook_id(config.config_id): hook}

    async def add(self, call: Call, task_id: str, hooks: Mapping[str, Webhook]) -> None:
        """To a task that exists. Raises `A2AError`, `UnknownExecution`."""
        try:
            for hook_id, hook in hooks.items():
                await webhooks.add(self._redis, Name(call.identity.owner, task_id, hook_id), hook)
        except TooManyWebhooks:
            raise A2AError(INVALID_PARAMS, f"a task has up to {MAX_PER_EXECUTION} configurations") from None

    async def set(self, call: Call, params: dict[str, Any]) -> web.Response:
        self._check()
        require(call.identity, "executions:write")
        task_id, config = call.codec.read_push(params)
        await self._opening(call.identity.owner, task_id)
        if config.config_id == task_id:
            config = msgspec.structs.replace(config, config_id=None)
        await self.add(call, task_id, self.hooks(call, config))
        return call.respond(call.codec.push(task_id, _shown(task_id, config.url, config.config_id)))

    async def get(self, call: Call, params: dict[str, Any]) -> web.Response:
        self._check()
        task_id, wanted = call.codec.read_push_query(params)
        for config in await self._found(call, task_id):
            if wanted in (None, config.config_id):
                return call.respond(call.codec.push(task_id, config))
        raise A2AError(TASK_NOT_FOUND, "the task has no such configuration")

    async def delete(self, call: Call, params: dict[str, Any]) -> web.Response:
        """A repeat changes nothing."""
        self._check()
        require(call.identity, "executions:write")
        task_id, wanted = call.codec.read_push_query(params)
        owner = call.identity.owner
        await self._opening(owner, task_id)
        hook_id = _hook_id(None if wanted == task_id else wanted)
        await webhooks.remove(self._redis, Name(owner, task_id, hook_id))
        return call.respond(call.codec.no_push())

    async def _found(self, call: Call, task_id: str) -> list[PushConfig]:
        """Their URLs are whole only for who may set them: paths may be secrets."""
        owner, may_set = call.identity.owner, "executions:write" in call.identity.scopes
        await self._opening(owner, task_id)
        record = await webhooks.listed(self._redis, owner, task_id)
        found = []
        for hook_id in Wake.parse(record.wake).ids:
            hook = msgspec.json.decode(record.webhooks[hook_id], type=Webhook) if hook_id in record.webhooks else None
            if hook is not None and hook.form != "runcast":
                found.append(_shown(task_id, hook.url if may_set else origin_of(hook.url), hook.name))
        return found

    async def list(self, call: Call, params: dict[str, Any]) -> web.Response:
        self._check()
        task_id, _ = call.codec.read_push_query(params)
        return call.respond(call.codec.pushes(task_id, await self._found(call, task_id)))

    def _check(self) -> None:
        if not self._policy.is_on:
            raise A2AError(PUSH_NOT_SUPPORTED)

    # --- bodies ---

    async def old_body(self, owner: Owner, task_id: str, entry: Entry) -> bytes:
        return encode(_old.task(await self._task(owner, task_id, entry)))

    async def new_body(self, owner: Owner, task_id: str, entry: Entry) -> bytes:
        return encode(_new.shown(await self._task(owner, task_id, entry)))

    async def _task(self, owner: Owner, task_id: str, entry: Entry) -> Any:
        """As it was with this event: the same at each try."""
        async with self._reads:
            return (await self._read(owner, task_id, lambda found: found.last.seq >= entry.seq)).task()


def _hook_id(config_id: str | None) -> str:
    return UNNAMED if not config_id else f"{UNNAMED}_{hashlib.sha256(config_id.encode()).hexdigest()[:24]}"


def _shown(task_id: str, url: str, config_id: str | None) -> PushConfig:
    return PushConfig(url=url, config_id=config_id or task_id)
