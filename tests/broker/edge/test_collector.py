"""What has survived a full collection is not visited by the next, and what is garbage is found in the end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from broker.edge import collector


class Node:
    """Refers to itself: only a collection finds it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    was_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    if was_frozen:
        gc.freeze()


def test_what_is_there_is_frozen_and_thawed_at_the_end() -> None:
    """The block freezes what the process has made until then."""
    before = gc.get_freeze_count()  # Python 3.12 has some of its own
    with collector.freezing():
        assert gc.get_freeze_count() > before + 1000
    assert gc.get_freeze_count() <= before


def test_what_survives_a_full_collection_is_frozen() -> None:
    """And what is in no cycle is freed at once all the same."""
    with collector.freezing():
        before, node, one = gc.get_freeze_count(), Node(), [[]]
        gc.collect(1)
        assert gc.get_freeze_count() == before, "a young collection freezes nothing"
        gc.collect()
        assert gc.get_freeze_count() > before
        gone = weakref.ref(node)
        del node
        gc.collect()
        assert gone() is not None, "it is not looked at"
        assert one == [[]]


def test_a_cycle_that_was_frozen_is_found_when_all_is_thawed() -> None:
    """And what is left is frozen again."""
    with collector.freezing():
        gone = weakref.ref(Node())
        keep = Node()
        gc.unfreeze()
        gc.freeze()
        assert gone() is not None
        assert collector.thaw() > 0
        assert gone() is None
        assert gc.get_freeze_count() > 1000
        assert keep.me is keep


@pytest.mark.parametrize(("share", "is_thawed"), [(1.0, True), (0.0, False)], ids=["quiet", "busy"])
async def test_a_quiet_time_is_used(monkeypatch: pytest.MonkeyPatch, share: float, is_thawed: bool) -> None:
    """A busy process waits for the longer time."""
    thawed = asyncio.Event()
    monkeypatch.setattr(collector, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(collector, "THAW_SECONDS", 0.02)
    monkeypatch.setattr(collector, "QUIET_SHARE", share * 1000)
    monkeypatch.setattr(collector, "thaw", thawed.set)
    run = asyncio.create_task(collector.run())
    try:
        async with asyncio.timeout(10 if is_thawed else 0.3):
            await thawed.wait()
    except TimeoutError:
        assert not is_thawed
    finally:
        run.cancel()
    assert thawed.is_set() is is_thawed
    monkeypatch.setattr(collector, "THAW_SECONDS_MAX", 0.02)
    run = asyncio.create_task(collector.run())
    async with asyncio.timeout(10):
        await thawed.wait()
    run.cancel()
