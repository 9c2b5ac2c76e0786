"""The part of an edge that delivers webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis

from broker.base.metrics import Metrics
from broker.base.settings import Settings
from broker.log.history import History
from broker.webhooks.delivery import Deliveries, Make
from broker.webhooks.policy import Policy
from broker.webhooks.sender import Sender
from emitter.wire.webhooks import Form


class Webhooks:
    """Delivers while the block lasts, if the settings say that there are webhooks. `forms`: the bodies of other
    protocols; to be set before."""

    def __init__(self, settings: Settings, redis: Redis, history: History, metrics: Metrics, edge: str, version: str):
        self.policy = Policy(settings)
        self.forms: Mapping[Form, Make] = {}
        self._settings = settings
        self._redis, self._history, self._metrics = redis, history, metrics
        self._edge, self._version = edge, version
        self._deliveries: Deliveries | None = None

    def on_message(self, message: bytes) -> None:
        if self._deliveries is not None:
            self._deliveries.on_message(message)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        settings = self._settings
        if settings.webhook_secret is None:
            yield
            return
        agent = f"runcast/{self._version} (webhooks)"
        async with AsyncExitStack() as stack:
            sender = await stack.enter_async_context(
                Sender(settings.webhook_secret, settings.webhook_allow_hosts, agent)
            )
            deliveries = Deliveries(
                self._redis,
                self._history,
                sender,
                self._metrics,
                self._edge,
                url=settings.webhook_url,
                retry_hours=settings.webhook_retry_hours,
                forms=self.forms,
            )
            self._deliveries = await stack.enter_async_context(deliveries)
            try:
                yield
            finally:
                self._deliveries = None
