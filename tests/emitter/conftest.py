"""What is collected here: the tests with a real Temporal server only where there is one. And what several files use."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from emitter import tasks
from tests.emitter.temporal_server import is_wanted

collect_ignore = [] if is_wanted() else ["test_temporal_server.py"]


@pytest.fixture
async def steady_clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A moment in which this process is held up counts no more than 50 ms: nobody is over a limit and its half at one
    look."""
    real = time.monotonic
    now = last = real()
    lock = threading.RLock()

    def monotonic() -> float:
        nonlocal now, last
        with lock:
            moment = real()
            now, last = now + min(moment - last, 0.05), moment
            return now

    async def look_often() -> None:
        while not tasks.told_to_stop():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(time, "monotonic", monotonic)
    looking = asyncio.create_task(look_often())
    yield
    await tasks.end([looking])


@pytest.fixture
def garbage_kept() -> Iterator[None]:
    """Temporal's sandbox imports modules for every worker and run, in which CPython 3.11 loses count of its locks if
    garbage is collected meanwhile (gh-106176)."""
    gc.disable()
    yield
    gc.enable()
