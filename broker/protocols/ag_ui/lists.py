"""What changed in the lists of a run's state, as operations of a JSON Patch (RFC 6902). Pure.

An event changes a part of a list, adds one or takes one away. What it costs to say so, and how much is said, depends on
that part and not on the length of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from broker.api_types import PhaseState
from broker.state import Fold, laid_out, pending
from broker.versions import Items
from emitter.events import Plan

Operation = dict[str, Any]
T = TypeVar("T")


class Listed(Generic[T]):
    """Those of the parts of `items` that `is_in`, as clients have them in the list at `path`, where `place` other parts
    stand before them. `whole` gives all of the list."""

    def __init__(
        self,
        path: str,
        items: Items[T],
        is_in: Callable[[str, T | None], bool],
        whole: Callable[[], Sequence[Any]],
    ) -> None:
        self._path = path
        self._items = items
        self._is_in = is_in
        self._whole = whole
        self.ids: list[str] = []
        self.place = 0

    def show(self) -> None:
        """The list as it is was shown."""
        self.ids = self._present()
        self._items.changed.clear()

    def operations(self, *, is_over: bool = False) -> list[Operation]:
        """What makes the list as it is of what was shown. `is_over`: no part is in it any more."""
        found: list[Operation] = []
        has_moved = is_over
        for id_, before in self._items.changed.items():
            after = self._items.get(id_)
            was_in, is_in = self._is_in(id_, before), self._is_in(id_, after)
            if was_in and is_in:
                index = self.place + self.ids.index(id_)
                found += difference(f"{self._path}/{index}", _plain(before), _plain(after))
            has_moved = has_moved or was_in != is_in
        if has_moved:
            found += self._moved()
        self._items.changed.clear()
        return found

    def _moved(self) -> list[Operation]:
        before, self.ids = self.ids, self._present()
        return moved(self._path, before, self.ids, self._part, self._whole, self.place)

    def _part(self, index: int) -> Any:
        return self._items.get(self.ids[index])

    def _present(self) -> list[str]:
        return [id_ for id_ in self._items if self._is_in(id_, self._items.get(id_))]


class Phases:
    """The list at `path` of the plan's phases in its order, begun or not, and then those that no plan named."""

    def __init__(self, path: str, fold: Fold) -> None:
        planned: dict[str, int] = {}
        self._path = path
        self._fold = fold
        self._plan: Plan | None = None
        self._planned = planned
        """The place of each planned phase by id: of several with one id, of the first, which alone ever begins."""
        self._others: Listed[PhaseState] = Listed(
            path, fold.phases, lambda id_, phase: phase is not None and id_ not in planned, fold.all_phases
        )

    def show(self) -> None:
        """The list as it is was shown."""
        self._plan = self._fold.facts.get("plan")
        phases = [] if self._plan is None else self._plan.phases
        self._planned.clear()
        self._planned |= {phase.id: index for index, phase in reversed(list(enumerate(phases)))}
        self._others.place = len(phases)
        self._others.show()

    def operations(self) -> list[Operation]:
        """What makes the list as it is of what was shown."""
        if self._fold.facts.get("plan") is not self._plan:
            return self._laid_out_again()
        found: list[Operation] = []
        for id_, before in self._fold.phases.changed.items():
            if (index := self._planned.get(id_)) is not None:
                assert self._plan is not None
                waiting = pending(self._plan.phases[index], index)
                after = self._fold.phases.get(id_)
                found += difference(f"{self._path}/{index}", _plain(before or waiting), _plain(after or waiting))
        return found + self._others.operations()

    def _laid_out_again(self) -> list[Operation]:
        """With another plan any phase may be another."""
        changed, now = self._fold.phases.changed, self._fold.phases
        ids = (*self._planned, *self._others.ids)
        shown = ((id_, changed.get(id_) if id_ in changed else now.get(id_)) for id_ in ids)
        before = laid_out(self._plan, {id_: phase for id_, phase in shown if phase is not None})
        after = self._fold.all_phases()
        self.show()
        if len(before) == len(after):
            return difference(self._path, _plain(before), _plain(after))
        return moved(self._path, before, after, after.__getitem__, lambda: after)


def moved(
    path: str,
    before: Sequence[Any],
    after: Sequence[Any],
    part: Callable[[int], Any],
    whole: Callable[[], Sequence[Any]],
    place: int = 0,
) -> list[Operation]:
    """The operations that take parts from a list and put others there, or give all of it again where that is no more.
    `part` gives one of those that are there `after`; the list has `place` parts before them."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    end = 0
    while end < min(len(before), len(after)) - same and before[-1 - end] == after[-1 - end]:
        end += 1
    gone, come = len(before) - same - end, len(after) - same - end
    if gone + come >= place + len(after):
        return [{"op": "replace", "path": path, "value": _plain(whole())}]
    removed: list[Operation] = [{"op": "remove", "path": f"{path}/{place + same}"}] * gone
    return removed + [
        {"op": "add", "path": f"{path}/{place + index}", "value": _plain(part(index))}
        for index in range(same, same + come)
    ]


def difference(path: str, before: Any, after: Any) -> list[Operation]:
    """The `replace` operations that make `after` of `before`, as small as they can be where both have one shape."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        pairs = [(_escaped(name), before[name], value) for name, value in after.items() if before[name] != value]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(str(index), *pair) for index, pair in enumerate(zip(before, after, strict=True))]
    else:
        return [{"op": "replace", "path": path, "value": after}]
    return [found for name, *pair in pairs for found in difference(f"{path}/{name}", *pair)]


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _escaped(name: str) -> str:
    """A member's name in a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
