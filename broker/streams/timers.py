"""What falls due for viewers, on the one timer of an edge: heartbeats, the notice before a token expires, its expiry,
the age limit, and the write timeout."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from broker.base.reasons import CloseReason
from broker.base.settings import Settings
from broker.live.view import StreamView
from broker.live.viewer import Viewer, ViewerState
from broker.streams.timer_heap import TimerHeap

EXPIRY_NOTICE_SECONDS = 60.0


class ViewerTimers:
    """Calls `close` for a viewer that must end, and `fail` for one that raised. A closed viewer keeps its timer until
    all that was written to it has gone."""

    def __init__(
        self,
        settings: Settings,
        close: Callable[[Viewer, CloseReason], None],
        fail: Callable[[Viewer, Exception], None],
    ) -> None:
        self._settings = settings
        self._close = close
        self._fail = fail
        self._stall_check_seconds = max(0.25, settings.write_timeout_seconds / 8)
        self._timer: TimerHeap[Viewer] = TimerHeap(self._tick)

    def add(self, viewer: Viewer) -> None:
        """A stream begins."""
        now = asyncio.get_running_loop().time()
        settings = self._settings
        viewer.started_at = now
        viewer.heartbeat_at = now + self.heartbeat_seconds(viewer.view) * random.uniform(0.5, 1)
        age = min(filter(None, (viewer.view.max_age_seconds, settings.max_stream_age_seconds)), default=0)
        viewer.aged_at = now + age * random.uniform(0.8, 1.2) if age else float("inf")
        if viewer.identity.expires_at is not None:
            viewer.expires_at = now + viewer.identity.expires_at - time.time()
        viewer.timer = self._timer.add(viewer, self._next_due(viewer, now))

    def wake(self, viewer: Viewer, seconds: float) -> None:
        """Its view has something to say in so many seconds."""
        if viewer.timer is None:
            return
        now = asyncio.get_running_loop().time()
        viewer.due_at = now + seconds
        self._timer.forget(viewer.timer)
        viewer.timer = self._timer.add(viewer, self._next_due(viewer, now))

    def forget(self, viewer: Viewer) -> None:
        """Its connection is lost: hold neither it nor its transport until it would have been due."""
        if viewer.timer is not None:
            self._timer.forget(viewer.timer)
            viewer.timer = None

    def stop(self) -> None:
        self._timer.stop()

    def heartbeat_seconds(self, view: StreamView) -> float:
        """At most the interval of the settings: proxies and clients rely on that."""
        return min(view.heartbeat_seconds or float("inf"), self._settings.heartbeat_seconds)

    def _next_due(self, viewer: Viewer, now: float) -> float:
        due = min(viewer.heartbeat_at, viewer.aged_at, viewer.due_at)
        if viewer.expires_at is not None:
            due = min(due, viewer.expires_at if viewer.warned else max(now, viewer.expires_at - EXPIRY_NOTICE_SECONDS))
        if viewer.paused:
            due = min(due, now + self._stall_check_seconds)
        return due

    def _tick(self, viewer: Viewer, now: float) -> float | None:
        """Do what is due for one viewer. Returns when it is due again; None if it is gone."""
        try:
            if viewer.state is not ViewerState.CLOSING:
                return self._due(viewer, now)
        except Exception as error:  # an error of one viewer must not stop its timer, nor those of others
            self._fail(viewer, error)
        return self._check_rest(viewer, now)

    def _due(self, viewer: Viewer, now: float) -> float | None:
        if reason := self._overdue(viewer, now):
            self._close(viewer, reason)
            return self._check_rest(viewer, now)
        self._notify_expiry(viewer, now)
        if now >= viewer.due_at - 0.005:
            viewer.due_at = float("inf")
            viewer.write(viewer.view.due())
            if viewer.view.is_over:
                self._close(viewer, CloseReason.FINISHED)
                return self._check_rest(viewer, now)
        if now >= viewer.heartbeat_at - 0.005:
            pause = self.heartbeat_seconds(viewer.view)
            # A heartbeat takes a viewer out of step with its group for a while, so events count as heartbeats.
            viewer.heartbeat_at = viewer.shared_write_at + pause
            if viewer.heartbeat_at <= now + 0.005:
                viewer.heartbeat_at = now + pause
                self._heartbeat(viewer)
        return self._next_due(viewer, now)

    def _check_rest(self, viewer: Viewer, now: float) -> float | None:
        """The stream has ended. Its connection may take any time, as long as bytes move."""
        if viewer.is_sent:
            return None
        if viewer.stall_seconds(now) > self._settings.write_timeout_seconds:
            viewer.transport.abort()
            return None
        return now + self._stall_check_seconds

    def _overdue(self, viewer: Viewer, now: float) -> CloseReason | None:
        timeout = self._settings.write_timeout_seconds
        if viewer.stall_seconds(now) > timeout > 0:
            return CloseReason.SLOW
        if viewer.expires_at is not None and now >= viewer.expires_at:
            return CloseReason.EXPIRED
        return CloseReason.AGED if now >= viewer.aged_at else None

    def _notify_expiry(self, viewer: Viewer, now: float) -> None:
        if viewer.expires_at is None or viewer.warned or now < viewer.expires_at - EXPIRY_NOTICE_SECONDS:
            return
        viewer.warned = True
        assert viewer.identity.expires_at is not None
        expires = {"expiresAt": int(viewer.identity.expires_at * 1000)}
        viewer.write(viewer.view.control("stream:token_expiring", expires))

    def _heartbeat(self, viewer: Viewer) -> None:
        if not viewer.paused:
            viewer.write(viewer.view.beat())
            viewer.send_position()
