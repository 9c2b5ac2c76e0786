"""What falls due for viewers, and that it falls due for each of them."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.base.reasons import CloseReason
from broker.base.settings import Settings
from broker.live.view import StreamView
from broker.live.viewer import Viewer
from broker.streams.timers import ViewerTimers
from tests.broker.live.viewers import Transport, topic_with, viewer_of, written


class Ended:
    """Records which viewers a pulse closes, or names as failed."""

    def __init__(self, **settings: Any) -> None:
        self.closed: list[tuple[Viewer, CloseReason]] = []
        self.failed: list[tuple[Viewer, Exception]] = []
        given = {"heartbeat_seconds": 0.1, "write_timeout_seconds": 0.1, **settings}
        self.pulse = ViewerTimers(Settings(redis_url="redis://none", **given), self.close, self.fail)

    def close(self, viewer: Viewer, reason: CloseReason) -> None:
        self.closed.append((viewer, reason))
        viewer.close()

    def fail(self, viewer: Viewer, error: Exception) -> None:
        self.failed.append((viewer, error))
        viewer.close()


class Broken(Transport):
    """A transport that raises."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("cannot write")


class Rest(Transport):
    """A transport that still holds something, and can be aborted."""

    def __init__(self, unsent: int) -> None:
        super().__init__()
        self.unsent = unsent
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Going(Rest):
    """Of which some has gone since it was looked at before, as long as it `goes`."""

    goes = True

    def get_write_buffer_size(self) -> int:
        self.unsent -= self.goes
        return self.unsent


async def test_one_viewer_s_error_takes_no_heartbeat_from_others() -> None:
    """Who cannot be written to is named, once; all others get their heartbeats on time, again and again."""
    ended, topic = Ended(), topic_with()
    viewers = [viewer_of(topic) for _ in range(5)]
    viewers[2].transport = Broken()  # type: ignore[assignment]
    for viewer in viewers:
        ended.pulse.add(viewer)
    async with asyncio.timeout(5):
        while not all(len(written(viewer).writes) >= 3 for viewer in viewers if viewer is not viewers[2]):
            await asyncio.sleep(0.02)
    assert [(viewer, type(error)) for viewer, error in ended.failed] == [(viewers[2], RuntimeError)]
    assert ended.closed == []
    ended.pulse.stop()


async def test_the_rest_of_an_ended_stream_may_take_long_but_not_stand_still() -> None:
    """As long as some of it goes it is waited for, however long; when none does for the write timeout it is cut."""
    ended = Ended(heartbeat_seconds=1)
    viewer = viewer_of(topic_with())
    rest = Going(1000)
    viewer.transport = rest  # type: ignore[assignment]
    ended.pulse.add(viewer)
    viewer.close()
    async with asyncio.timeout(10):
        for _ in range(40):  # 2 s, which is twenty times the write timeout
            await asyncio.sleep(0.05)
            assert not rest.aborted
        assert rest.unsent < 1000
        rest.goes = False
        while not rest.aborted:
            await asyncio.sleep(0.05)
    ended.pulse.stop()


async def test_who_has_sent_all_is_let_go() -> None:
    """An ended stream whose transport holds nothing is not cut, and not looked at again."""
    ended = Ended()
    viewer = viewer_of(topic_with())
    viewer.transport = rest = Rest(0)  # type: ignore[assignment]
    ended.pulse.add(viewer)
    viewer.close()
    async with asyncio.timeout(5):
        while ended.pulse._timer._heap:
            await asyncio.sleep(0.02)
    assert not rest.aborted


class Saying(StreamView):
    """A view that says something when it is due, and then again a moment later; then it is over."""

    def __init__(self, pulse: ViewerTimers) -> None:
        super().__init__(chunked=False)
        self.pulse = pulse
        self.viewer: Viewer | None = None
        self.left = 2

    @property
    def is_over(self) -> bool:  # type: ignore[override]
        return self.left == 0

    def due(self) -> bytes:
        assert self.viewer is not None
        self.left -= 1
        if self.left:
            self.pulse.wake(self.viewer, 0.05)
        return b"due;"


async def test_a_view_is_asked_when_it_wants_to_be() -> None:
    """Before any heartbeat, as often as it asks for, also from within; a later wish replaces an earlier one; and a view
    that is over then ends its stream."""
    ended = Ended(heartbeat_seconds=60)
    view = Saying(ended.pulse)
    view.viewer = viewer = viewer_of(topic_with(), view)
    ended.pulse.add(viewer)
    ended.pulse.wake(viewer, 30)
    ended.pulse.wake(viewer, 0.05)
    async with asyncio.timeout(5):
        while not ended.closed:
            await asyncio.sleep(0.02)
    assert b"".join(written(viewer).writes) == b"due;due;"
    assert ended.closed == [(viewer, CloseReason.FINISHED)]
    assert ended.failed == []
    ended.pulse.stop()
