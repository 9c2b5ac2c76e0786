"""The mark by which edges know their data again."""

from __future__ import annotations

from broker.ops.dataset import Dataset


class Store:
    """What the script does with the mark."""

    def __init__(self) -> None:
        self.mark: bytes | None = None

    def look(self, edge: Dataset) -> bool:
        found = self.mark
        self.mark = found or edge.offer
        return edge.found(found)


def test_data_that_stays_is_known_again() -> None:
    """By the edge that marked it and by those that came later."""
    store, first, second = Store(), Dataset(), Dataset()
    assert [store.look(edge) for edge in (first, second, first, second)] == [False] * 4


def test_data_that_is_gone_is_missed_once_by_each_edge() -> None:
    """Whichever marks the new data first, and as often as it happens. One that never saw the old data says nothing."""
    store, first, second = Store(), Dataset(), Dataset()
    for edge in (first, second):
        store.look(edge)
    for order in ((first, second), (first, second), (second, first)):
        store.mark = None
        assert [store.look(edge) for edge in order] == [True, True]
        assert [store.look(edge) for edge in order] == [False, False]
    store.mark = None
    assert not store.look(Dataset())


def test_a_lost_reply_changes_nothing() -> None:
    """The mark was written and the edge did not hear of it: the data is known again, and its loss is noticed."""
    store, edge = Store(), Dataset()
    store.mark = edge.offer
    assert not store.look(edge)
    store.mark = None
    assert store.look(edge)


def test_other_data_is_not_the_same() -> None:
    """An address that leads to another server, with data of its own."""
    store, edge = Store(), Dataset()
    store.look(edge)
    store.mark = Dataset().offer
    assert store.look(edge)
