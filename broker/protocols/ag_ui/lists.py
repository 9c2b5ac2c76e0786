"""What changed in the lists of a run's state, as operations of a JSON Patch (RFC 6902). Pure.

An event changes a part of a list, adds one or removes one. Time and size of the patch depend on that part, not on the
length of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from broker.executions.fold import Fold
from broker.executions.state import laid_out, pending
from broker.executions.types import Activity, Cancellation, Failure, PhaseState, ProgressState, SpecialistState
from broker.executions.undo import Items
from emitter.events import Phase, Plan

Operation = dict[str, Any]
T = TypeVar("T")
_MEMBERS = {
    kind: tuple(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    for kind in (PhaseState, SpecialistState, Activity, ProgressState, Failure, Cancellation, Plan, Phase)
}
"""Attributes and members of the structs that leave none out; the others are compared as objects."""


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

    def follow(self, other: Listed[T]) -> None:
        """What was shown of the other one was shown of this."""
        self.ids, self.place = list(other.ids), other.place

    def show(self) -> None:
        """The list as it is was shown."""
        self.ids = self._present()
        self._items.changed.clear()

    def operations(self, *, is_over: bool = False) -> list[Operation]:
        """What makes the list as it is of what was shown. `is_over`: no part is in it any more."""
        found: list[Operation] = []
        gone, come = (self.ids, []) if is_over else ([], list[str]())
        for id_, before in self._items.changed.items():
            after = self._items.get(id_)
            was_in, is_in = self._is_in(id_, before), self._is_in(id_, after)
            if was_in and is_in:
                index = self.place + self.ids.index(id_)
                found += difference(f"{self._path}/{index}", before, after)
            elif was_in or is_in:
                (gone if was_in else come).append(id_)
        self._items.changed.clear()
        return found + self._moved(gone, come) if gone or come else found

    def _moved(self, gone: list[str], come: list[str]) -> list[Operation]:
        """Parts that are not in the list any more, and such as are now; all of it again where that is no more."""
        if len(gone) + len(come) >= self.place + len(self.ids) - len(gone) + len(come):
            self.ids = self._present()
            return [{"op": "replace", "path": self._path, "value": self._whole()}]
        found: list[Operation] = []
        for id_ in gone:
            index = self.ids.index(id_)
            del self.ids[index]
            found.append({"op": "remove", "path": f"{self._path}/{self.place + index}"})
        if come != [next(reversed(self._items), None)]:  # they were there before, and come back to where they were
            self.ids = self._present()
            return found + [self._added(index) for index, id_ in enumerate(self.ids) if id_ in come]
        self.ids += come
        return [*found, self._added(len(self.ids) - 1)]

    def _added(self, index: int) -> Operation:
        part = self._items.get(self.ids[index])
        return {"op": "add", "path": f"{self._path}/{self.place + index}", "value": part}

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

    def follow(self, other: Phases) -> None:
        """What was shown of the other one was shown of this."""
        self._plan = other._plan
        self._planned |= other._planned
        self._others.follow(other._others)

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
                found += difference(f"{self._path}/{index}", before or waiting, after or waiting)
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
            return difference(self._path, before, after)
        return _another(self._path, before, after)


def _another(path: str, before: Sequence[Any], after: Sequence[Any]) -> list[Operation]:
    """One list in the place of another, which may have its beginning and its end in common."""
    least = min(len(before), len(after))
    same = next((index for index in range(least) if before[index] != after[index]), least)
    end = next((index for index in range(least - same) if before[-1 - index] != after[-1 - index]), least - same)
    gone, come = len(before) - same - end, len(after) - same - end
    if gone + come >= len(after):
        return [{"op": "replace", "path": path, "value": after}]
    removed: list[Operation] = [{"op": "remove", "path": f"{path}/{same}"}] * gone
    return removed + [
        {"op": "add", "path": f"{path}/{index}", "value": after[index]} for index in range(same, same + come)
    ]


def difference(path: str, before: Any, after: Any) -> list[Operation]:
    """The `replace` operations that make `after` of `before`, as small as they can be where both have one shape. Values
    are structs, or what JSON has; in operations they stay as they are."""
    found: list[Operation] = []
    if before != after:
        _differ(path, before, after, found)
    return found


def _differ(path: str, before: Any, after: Any, found: list[Operation]) -> None:
    """Add to `found` what makes `after` of `before`, which is another value."""
    kind = type(after)
    if isinstance(after, msgspec.Struct):
        if type(before) is kind and kind in _MEMBERS:
            for name, encoded in _MEMBERS[kind]:
                was, is_ = getattr(before, name), getattr(after, name)
                if was is not is_ and was != is_:
                    _differ(f"{path}/{encoded}", was, is_, found)
            return
        before, after = msgspec.to_builtins(before), msgspec.to_builtins(after)
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for name, value in after.items():
            if before[name] != value:
                _differ(f"{path}/{_escaped(name)}", before[name], value, found)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, value in enumerate(after):
            if before[index] != value:
                _differ(f"{path}/{index}", before[index], value, found)
    else:
        found.append({"op": "replace", "path": path, "value": after})


def _escaped(name: str) -> str:
    """A member's name in a JSON Pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name
