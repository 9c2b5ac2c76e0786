"""The composition root of an edge: its parts in the order in which they start and, reversed, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from aiohttp import web
from redis.exceptions import RedisError

from broker.auth import authenticator
from broker.auth.authenticator import Authenticator
from broker.auth.jwks import Jwks
from broker.auth.revocations import token_of
from broker.auth.tickets import MESSAGE as TICKET_MESSAGE
from broker.auth.tickets import Tickets
from broker.auth.tokens import Verifier
from broker.base.logging import get_logger
from broker.base.metrics import Metrics
from broker.base.reasons import RejectReason
from broker.base.settings import Settings
from broker.base.version import version
from broker.edge import collector
from broker.edge.admin import admin_app
from broker.edge.application import Parts, application
from broker.edge.job_parts import job_parts
from broker.edge.serving import SHUTDOWN_SECONDS, owned, serving
from broker.edge.signing import claim_names, static_key
from broker.edge.webhooks import Webhooks
from broker.http import descriptors, errors
from broker.http.connection import Unreadable
from broker.http.listener import SETTLE_SECONDS, Counts, Listener, listen
from broker.http.responses import WATCH_SECONDS, Responses
from broker.http.shares import Shares
from broker.http.stream_door import Open
from broker.log.cluster_subscription import subscription
from broker.log.delivery_spans import Deliveries
from broker.log.history import History
from broker.log.watch_leases import WatchLeases
from broker.ops.probes import Loopback, measure_lag, new_edge_id
from broker.ops.rates import RecentRates
from broker.ops.redis_metrics import RedisMetrics
from broker.ops.snapshot import OpsSnapshotBuilder
from broker.ops.standby import Standby
from broker.ops.stream import Ops
from broker.ops.types import EdgeInfo
from broker.streams.admission import Admission
from broker.streams.service import Streams
from emitter import tasks
from emitter.errors import InvalidSetting
from emitter.forks import leave_signals_to_this_process
from emitter.store import announcements
from emitter.store.append import limits_of
from emitter.store.connection import GONE, connect
from emitter.store.lifecycle import Lifecycle
from emitter.tracing.setup import tracer_from
from emitter.wire import ids, limits
from emitter.wire.keys import PREFIX, REVOCATIONS, WEBHOOKS_WAKE
from emitter.wire.redact import Redactor

RECHECK_SECONDS_MAX = 15.0
MAX_JOINING = 64
"""Streams that open or wait for their first page while more are let in as fast as they come."""
UNREADY_SECONDS = 5.0
"""How long a stopping edge is unready before it stops listening, if the drain takes at least four times as long."""


class Edge:
    """One edge process: `async with Edge(settings) as edge:` serves until the block ends, then drains.

    `public` and `admin` are sockets that a supervisor has bound, and `shares` knows the other processes that accept
    from `public`; by default the edge binds the addresses of the settings. `port` and `admin_port` are its ports.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        public: socket.socket | None = None,
        admin: socket.socket | None = None,
        shares: Shares | None = None,
    ) -> None:
        self._room = descriptors.room(settings, descriptors.limit())
        self._warn_of(settings)
        # Streams beyond what there are descriptors for are refused as any above the limit.
        self.settings = settings = msgspec.structs.replace(settings, max_connections=self._room.streams)
        self.id = new_edge_id()
        self._version = version()
        self.metrics = Metrics(self._version)
        self._unreadable = Unreadable(self.metrics.unreadable)
        self._vitals = RecentRates(self.metrics)
        self._started_at = ids.now_ms()
        self._sockets = (public, admin)
        self._shares = shares
        self._stack = contextlib.AsyncExitStack()
        self._log = get_logger()
        self._tasks: list[asyncio.Task[None]] = []
        self.port = self.admin_port = 0

    def _warn_of(self, settings: Settings) -> None:
        wanted, room = settings.max_connections, self._room
        if room.streams < wanted:
            about = {"max_connections": wanted, "max_sockets": settings.max_sockets, "descriptors": room.descriptors}
            get_logger().warning("streams_limited", streams=room.streams, sockets=room.sockets, **about)

    async def __aenter__(self) -> Edge:
        await self._stack.__aenter__()
        try:
            for part in (
                self._tracing(),
                self._redis(),
                self._authentication(),
                self._presence(),
                self._streams(),
                self._subscription(),
                self._loopback(),
                self._background(),
                self._job_parts(),
                self._admin_listener(),
                self._public_listener(),
                self._drain(),
            ):
                await self._stack.enter_async_context(part)
        except BaseException:
            await self._stack.aclose()
            raise
        self._log.info("edge_started", edge=self.id, port=self.port, admin_port=self.admin_port)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.aclose()
        self._log.info("edge_stopped", edge=self.id)

    # --- parts, in the order of their start --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _tracing(self) -> AsyncIterator[None]:
        self._tracer = tracer_from(os.environ, "runcast-edge")
        try:
            yield
        finally:
            await self._tracer.close()

    @contextlib.asynccontextmanager
    async def _redis(self) -> AsyncIterator[None]:
        if self.settings.redis_prefix != PREFIX:  # which was read from the environment when the process started
            raise InvalidSetting("RUNCAST_REDIS_PREFIX", self.settings.redis_prefix, f"{PREFIX} in this process")
        if bool(self.settings.record_model_contents) != limits.RECORD_MODEL_CONTENTS:  # as well
            allowed = f"{int(limits.RECORD_MODEL_CONTENTS)} in this process"
            raise InvalidSetting("RUNCAST_RECORD_MODEL_CONTENTS", str(self.settings.record_model_contents), allowed)
        self.redis = connect(self.settings.redis_url)
        # A connection pool of its own: a wave of commands must never keep the subscription from reconnecting.
        self._listening = connect(self.settings.redis_url)
        try:
            await self.redis.ping()
            yield
        finally:
            try:
                await self._listening.aclose()
            finally:
                await self.redis.aclose()

    @contextlib.asynccontextmanager
    async def _authentication(self) -> AsyncIterator[None]:
        settings = self.settings
        async with contextlib.AsyncExitStack() as stack:
            jwks = await stack.enter_async_context(Jwks(settings.jwks_url)) if settings.jwks_url else None
            keys = jwks or static_key(settings)
            verifier = Verifier(
                keys,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                names=claim_names(settings),
                unscoped=frozenset(settings.default_scopes),
            )
            tickets = await stack.enter_async_context(Tickets(self.redis, self.id))
            origins = settings.cors_origins
            self.authenticator = Authenticator(
                self.redis, verifier, tickets, origins=origins, jwks=jwks, on_revoked=self._close_revoked
            )
            yield

    @contextlib.asynccontextmanager
    async def _presence(self) -> AsyncIterator[None]:
        async with WatchLeases(self.redis, self.id) as self.presence:
            yield

    @contextlib.asynccontextmanager
    async def _streams(self) -> AsyncIterator[None]:
        settings = self.settings
        self.history = History(self.redis, self.metrics, self.settings.max_event_bytes)
        self.webhooks = Webhooks(settings, self.redis, self.history, self.metrics, self.id, self._version)
        async with Admission(
            self.redis,
            self.id,
            max_connections_per_user=settings.max_connections_per_user,
            connects_per_minute=settings.connects_per_minute,
        ) as self.admission:
            deliveries = Deliveries(self._tracer) if self._tracer.is_on else None
            self.streams = Streams(
                settings,
                self.history,
                self.admission,
                self.presence,
                self.authenticator.tickets,
                self.metrics,
                deliveries,
                head_fields=self._head_fields,
                is_revoked=self.authenticator.is_revoked,
            )
            collector = OpsSnapshotBuilder(self.redis, self._describe)
            self.ops = Ops(self.streams, collector)
            yield
            await self.ops.stop()
            await self.streams.stop()

    @contextlib.asynccontextmanager
    async def _subscription(self) -> AsyncIterator[None]:
        self.loopback = Loopback(
            self.id, self.redis, lambda: self.subscription, self._describe, self.metrics.redis_emptied.inc
        )
        permanent = [self.loopback.channel, REVOCATIONS, WEBHOOKS_WAKE]
        listening = subscription(
            self._listening,
            permanent,
            self._on_message,
            self._on_lost,
            self.metrics.pubsub_reconnects.inc,
            self.streams.watch.flush,
        )
        async with listening as self.subscription:
            self.streams.watch.subscription = self.subscription
            await self.authenticator.revocations.load()
            try:
                yield
            finally:
                await tasks.end(self._tasks)

    @contextlib.asynccontextmanager
    async def _loopback(self) -> AsyncIterator[None]:
        async with owned(self.loopback.run(), "loopback"):
            yield
        await self.loopback.leave()

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        self.metrics.connections_limit.set(self.settings.max_connections)
        redis_metrics = RedisMetrics(self.redis, self.metrics)
        settings = self.settings
        lifecycle = Lifecycle(self.redis, limits_of(settings), Redactor(settings.redact_keys))
        standby = Standby(self.redis, self.id, lifecycle, settings.lease_seconds, self._log)
        async with (
            owned(measure_lag(self.metrics), "loop-lag"),
            owned(redis_metrics.run(), "redis-metrics"),
            owned(self._recheck(), "recheck"),
            owned(standby.run(), "standby"),
        ):
            yield

    @contextlib.asynccontextmanager
    async def _job_parts(self) -> AsyncIterator[None]:
        async with job_parts(self.redis, self.settings, self.metrics) as self._jobs:
            yield

    @contextlib.asynccontextmanager
    async def _admin_listener(self) -> AsyncIterator[None]:
        metrics, settings = self.metrics, self.settings
        metrics.ready.set_function(lambda: all(self._ready().values()))
        sock = self._sockets[1] or listen(settings.admin_host, settings.admin_port, "RUNCAST_ADMIN_")
        counts = Counts(metrics.admin_sockets, metrics.rejected[RejectReason.SOCKETS])
        self._admin = Listener(sock, descriptors.ADMIN_SOCKETS, counts)
        self.admin_port = self._admin.port
        async with serving(admin_app(metrics, self._ready), self._admin, self._unreadable):
            yield

    @contextlib.asynccontextmanager
    async def _public_listener(self) -> AsyncIterator[None]:
        metrics, settings = self.metrics, self.settings
        metrics.sockets_limit.set(self._room.sockets)
        sock = self._sockets[0] or listen(settings.host, settings.port)
        counts = Counts(metrics.sockets, metrics.rejected[RejectReason.SOCKETS])
        self._public = Listener(sock, self._room.sockets, counts, shares=self._shares, full=self._room.streams)
        self._public.is_crowded = lambda: self.streams.joining >= MAX_JOINING
        self.port = self._public.port
        self._responses = Responses(settings, self.authenticator.is_revoked)
        settle_seconds = min(SETTLE_SECONDS, self._unready_seconds)
        app, open_stream = self._app()
        async with (
            owned(self._responses.run(), "responses"),
            self.webhooks.delivering(),
            serving(app, self._public, self._unreadable, settle_seconds, open_stream=open_stream),
        ):
            yield

    @contextlib.asynccontextmanager
    async def _drain(self) -> AsyncIterator[None]:
        # The last to start is the first to stop: the listener is still open while viewers move to other edges.
        yield
        self._log.info("edge_draining", edge=self.id, viewers=len(self.streams), seconds=self.settings.drain_seconds)
        self._public.draining = True
        self.ops.drain()
        self._jobs.drain()
        last_seconds = 0.0  # a second signal ends it at once
        try:
            # Also without viewers: proxies must first see that this edge is not ready.
            await asyncio.gather(self.streams.drain(self.settings.drain_seconds), asyncio.sleep(self._unready_seconds))
            last_seconds = SHUTDOWN_SECONDS - WATCH_SECONDS
        finally:
            self._responses.end_within(last_seconds)

    @property
    def _unready_seconds(self) -> float:
        """How long this edge is unready, at least, before it stops listening."""
        return min(UNREADY_SECONDS, self.settings.drain_seconds / 4)

    # --- connections between parts -----------------------------------------------------------------------------------

    def _app(self) -> tuple[web.Application, Open]:
        return application(
            Parts(
                self.settings, self.redis, self.history, self.authenticator, self.admission, self.streams, self.ops,
                self._responses, self._jobs, self.webhooks, self.metrics, self._tracer,
            )
        )  # fmt: skip

    def _head_fields(self, request: web.Request) -> dict[str, str]:
        """What `setup_cors` and `errors.setup` add to the head of any other response."""
        cors = authenticator.cors_headers(request, self.settings.cors_origins)
        return {**errors.named_headers(request), "Vary": "Origin", **cors}

    def _on_message(self, channel: str, data: bytes) -> None:
        if channel == self.loopback.channel:
            if data.startswith(TICKET_MESSAGE):
                self.authenticator.tickets.on_message(data)
            else:
                self.loopback.hear()
        elif channel == REVOCATIONS:
            if (member := self.authenticator.revocations.on_message(data)) is not None:
                self._close_revoked(member)
        elif channel == WEBHOOKS_WAKE:
            self.webhooks.on_message(data)
        else:
            self.metrics.pubsub_messages.inc()
            self.metrics.events_received.inc(data.count(b"\n"))
            self.streams.watch.on_message(channel, data)

    def _on_lost(self, channel: str) -> None:
        if channel == REVOCATIONS:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(asyncio.create_task(self._reload_revocations(), name="revocations"))
        elif channel not in (self.loopback.channel, WEBHOOKS_WAKE):
            self.streams.watch.on_lost(channel)

    async def _reload_revocations(self) -> None:
        try:
            await self.authenticator.revocations.load()
            self.streams.close_revoked()
        except (RedisError, *GONE) as error:
            self._log.warning("revocations_not_loaded", error=type(error).__name__)

    def _close_revoked(self, member: str) -> None:
        self.streams.close_revoked(token_of(member))

    async def _recheck(self) -> None:
        seconds = min(RECHECK_SECONDS_MAX, self.settings.heartbeat_seconds)
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.streams.watch.recheck(seconds)
                await self.authenticator.revocations.settle()
            except (RedisError, *GONE) as error:
                self._log.warning("recheck_failed", error=type(error).__name__)

    def _ready(self) -> dict[str, bool]:
        return {**self.loopback.ready(), **self.authenticator.ready(), "accepting": not self.streams.draining}

    def _describe(self) -> EdgeInfo:
        pace = self._vitals.read(time.monotonic())
        return EdgeInfo(
            id=self.id,
            version=self._version,
            viewers=len(self.streams),
            logs=len(self.streams.watch),
            draining=self.streams.draining,
            events_per_second=pace.events_per_second,
            deliveries_per_second=pace.deliveries_per_second,
            latency_ms=pace.latency,
            loop_lag_ms=pace.loop_lag_ms,
            rss_bytes=announcements.rss_bytes(),
            started_at=self._started_at,
        )


async def serve(
    settings: Settings,
    *,
    public: socket.socket | None = None,
    admin: socket.socket | None = None,
    shares: Shares | None = None,
    ready: Callable[[Edge], None] = lambda _: None,
) -> None:
    """Run an edge until SIGTERM or SIGINT; a second signal ends it at once."""
    descriptors.raise_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    me = asyncio.current_task()
    assert me is not None

    def on_signal() -> None:
        if stop.is_set():
            me.cancel()
        stop.set()

    leave_signals_to_this_process()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with Edge(settings, public=public, admin=admin, shares=shares) as edge:
        ready(edge)
        with collector.freezing():
            async with owned(collector.run(), "collector"):
                await stop.wait()
