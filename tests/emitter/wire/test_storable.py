"""Values of the field's own packages in JSON's form: bounded in number, marked where something is cut."""

from __future__ import annotations

import collections
import dataclasses
import enum
import time
import types
from typing import Any

import attrs
import msgspec
import numpy as np
import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel, Field, RootModel, SecretStr, computed_field

from emitter.wire.storable import clip, encoded_bytes, storable

CYCLE = {"clipped": True, "reason": "cycle"}


class Text(str):
    def __str__(self) -> str:
        return "not this"


class Mood(enum.StrEnum):
    GOOD = "good"


class Account(BaseModel):
    name: str
    key: SecretStr = SecretStr("hush")
    inner: str = Field("hidden", exclude=True)
    other: Any = None


class Square(BaseModel):
    side: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Names(RootModel[list[str]]):
    pass


@attrs.define
class Pair:
    left: Any
    right: Any = None


@dataclasses.dataclass
class Node:
    name: str
    peers: list[Any] = dataclasses.field(default_factory=list)


class Elusive:
    """As a proxy of something that is not there."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError


class Broken(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def fails(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (AIMessage("said").text, "said"),
        (Text("this"), "this"),
        ([np.float64(0.5), np.float32(0.5), np.float64("nan"), np.longdouble("1.5")], [0.5, 0.5, None, 1.5]),
        ([np.int64(3), np.uint8(4), np.bool_(True), np.str_("s"), np.array(7)], [3, 4, True, "s", 7]),
        (np.array([[1.5, np.nan], [np.inf, 2]]), [[1.5, None], [None, 2.0]]),
        (np.array(["2026-01-02T03:04:05.000000006"], "M8[ns]"), ["2026-01-02T03:04:05.000000006"]),
        (np.complex128(1 + 2j), "(1+2j)"),
        ({None: 1, True: 2, 1.5: 3, 4: 5, Mood.GOOD: 6, np.int64(7): 8}, None),
        ({Mood.GOOD: Mood.GOOD}, {"good": "good"}),
        (Account(name="a", other={1}), {"name": "a", "key": "SecretStr('**********')", "other": [1]}),
        (Square(side=3), {"side": 3, "area": 9}),
        (Names(["a"]), ["a"]),
        (Broken(), "<Broken>"),
        ([Elusive()], ["<Elusive>"]),
        (Pair(1, Pair(2)), {"left": 1, "right": {"left": 2, "right": None}}),
        (types.SimpleNamespace(a=1), {"a": 1}),
        (collections.OrderedDict(a=collections.deque([1, (2,)])), {"a": [1, [2]]}),
        ([{"b", "a", "c"}, {1: 2}.keys()], [["a", "b", "c"], [1]]),
        (10**30, 10**30),
        (1 << 5000, "<integer of 5001 bits>"),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
    ],
)
def test_a_value_has_the_form_of_what_it_is(value: Any, expected: Any) -> None:
    """Subclasses, scalars and arrays of numpy, models and collections; exactly JSON's own types come out."""
    if expected is None:
        expected = {"null": 1, "true": 2, "1.5": 3, "4": 5, "good": 6, "7": 8}
    found = storable(value)
    assert found == expected
    assert type(found) in (str, int, float, bool, list, dict)
    assert msgspec.json.decode(msgspec.json.encode(found)) == expected or isinstance(found, int)


def friends(count: int, make: Any = dict) -> Any:
    """Values that all know each other."""
    people = [make(name=str(number)) for number in range(count)]
    for person in people:
        for number, other in enumerate(people):
            if other is not person and isinstance(person, dict):
                person[f"knows{number}"] = other
            elif other is not person:
                person.peers.append(other)
    return people[0]


def test_a_cycle_is_marked_in_its_place() -> None:
    """What a value holds beside itself is kept, and what is only met twice is no cycle."""
    shared = {"x": 1}
    loop: dict[str, Any] = {"a": shared, "b": shared}
    loop["self"] = loop
    assert storable(loop) == {"a": shared, "b": shared, "self": CYCLE}
    node = Node("n")
    node.peers.append(node)
    assert storable(node) == {"name": "n", "peers": [CYCLE]}
    namespace = types.SimpleNamespace()
    namespace.me = namespace
    assert storable(namespace) == {"me": CYCLE}


@pytest.mark.parametrize("make", [dict, Node])
@pytest.mark.parametrize("count", [6, 12, 40])
def test_time_is_bounded_by_size_and_not_by_paths(count: int, make: Any) -> None:
    """Of what has more paths than could ever be walked, a bounded part is kept, and can be cut to an event's size."""
    began = time.process_time()
    found = storable(friends(count, make))
    clipped = clip(found, 60_000)
    assert time.process_time() - began < 5
    assert encoded_bytes(clipped) <= 60_000
    assert CYCLE["reason"] in str(clipped) or count > 6


def test_a_value_that_is_shared_on_every_level_is_bounded_too() -> None:
    """No cycle, and 2^60 paths; in plain values and in a model, whose own dump would walk them all."""
    value: Any = 1
    for _ in range(60):
        value = {"a": value, "b": value}
    for each in (value, Account(name="a", other=value), Pair(value, value)):
        began = time.process_time()
        assert "clipped" in str(storable(each))
        assert time.process_time() - began < 5


def test_what_is_too_much_is_marked() -> None:
    """Of a long list, a large object and a large array the first are kept, and how many there were is said."""
    assert storable([0] * 100, max_values=5) == [0, 0, 0, 0, {"clipped": True, "items": 100}]
    assert storable(dict.fromkeys(range(9), 0), max_values=3) == {"0": 0, "1": 0, "…": {"clipped": True, "keys": 9}}
    assert storable([[[1]]], max_depth=2) == [[{"clipped": True, "reason": "too deep"}]]
    grid = storable(np.zeros((1000, 1000)), max_values=50)
    assert grid[-1] == {"clipped": True, "items": 1000}


def test_a_result_may_be_bounded_in_bytes() -> None:
    """With `max_bytes` the result fits, and its large part gives way to its small ones."""
    found = storable({"page": "é" * 10_000, "at": (1, 2)}, max_bytes=500)
    assert encoded_bytes(found) <= 500
    assert found["at"] == [1, 2]
    assert found["page"].endswith("… [clipped: 10000 characters]")
