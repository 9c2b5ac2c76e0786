"""Logs that no sane agent would write: events of every type of the catalogue, made from what their fields may hold,
with extreme numbers, long and odd texts, deep and wide values, and ids that meet again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import inspect

from emitter import events
from emitter.budgets import Budget
from emitter.errors import InvalidEvent
from emitter.wire import envelope
from emitter.wire.entries import Entry

EXECUTION = "ex_1"
ENDS = tuple(each for each in events.CATALOGUE if each.type in events.TERMINAL_STATE_OF)
NUMBERS = [0, 1, -1, 2**31, 2**53, -(2**53), 10**17, -(10**17), 2**63 - 1, -(2**63), 253_402_300_800_000]
FLOATS = [0.0, 0.5, -1.0, 33.3, 100.0, 1e-300, 1e308, -1e308, 5e15]
BUDGETS = [Budget(), Budget(total_tokens=1000, cost_usd=0.5), Budget(tool_calls=5, seconds=9.5)]
TEXTS = ["", "x", "two words", "é\U0001f600", "\u2028\n\r", "\0", '{"a":1}', "a/b~c", "runcast:result", "message:m"]


class MadeUp(random.Random):
    """Makes events up, with so many `ids`, and `more`."""

    def __init__(self, seed: int, *, ids: int = 5, more: Sequence[str] = ()) -> None:
        super().__init__(seed)
        self._ids = [*["a", "b", "c", "0", "__proto__", "runcast:result", "i" * 2_000][:ids], *more]
        self._schemas = {each: msgspec.structs.fields(each) for each in (*events.CATALOGUE, events.Custom)}

    def log(self, count: int, *, end: bool = True) -> list[Entry]:
        told = [self.entry(seq) for seq in range(1, count + 1)]
        return [*told, self.entry(count + 1, self.choice(ENDS))] if end else told

    def entry(self, seq: int, type_: type[events.Event] | None = None) -> Entry:
        """One that an emitter could have written."""
        kinds = [each for each in self._schemas if each not in ENDS]
        while True:
            event = self.event(type_ or self.choice(kinds), seq)
            try:
                data = envelope.encode_data(event)
            except InvalidEvent:
                continue
            name = envelope.event_type(event)
            keys = envelope.envelope_keys(
                agent=self.choice([None, None, *self._ids]), parent_id=self.choice([None, self.id()])
            )
            json_ = envelope.envelope(name, EXECUTION, data, ts=self.choice([seq, 0, 2**53]), keys=keys, max_bytes=0)
            return Entry(1_000 + seq, seq, name.encode(), json_)

    def event(self, type_: type[events.Event], seq: int) -> events.Event:
        if type_ is events.ExecutionSuperseded:
            return events.ExecutionSuperseded(from_seq=self.randint(0, seq), attempt=self.randint(2, 4))
        if type_ is events.Custom:
            return events.Custom(name="x.y", data={"a": self.anything()})
        values = {}
        for field in self._schemas[type_]:
            if field.required or self.random() < 0.7:
                values[field.name] = self._value(inspect.type_info(field.type), field.name)
        return type_(**values)

    def _value(self, info: inspect.Type, name: str) -> Any:
        match info:
            case inspect.Metadata(type=inner):
                return self._value(inner, name)
            case inspect.UnionType(types=types):
                return self._value(self.choice(types), name)
            case inspect.StrType():
                return self.id() if name == "specialist" or name.endswith("id") else self.text()
            case inspect.IntType():
                return self.choice(NUMBERS)
            case inspect.FloatType(ge=ge, le=le):
                least, most = -1e308 if ge is None else ge, 1e308 if le is None else le
                return min(max(self.choice(FLOATS), least), most)
            case inspect.BoolType():
                return self.random() < 0.5
            case inspect.NoneType():
                return None
            case inspect.LiteralType(values=values):
                return self.choice(list(values))
            case inspect.ListType(item_type=inner):
                return [self._value(inner, name) for _ in range(self.randint(0, 4))]
            case inspect.StructType(cls=cls) if cls is Budget:
                return self.choice(BUDGETS)
            case inspect.StructType(cls=cls):
                return cls(**{each.name: self._value(each.type, each.name) for each in info.fields})
            case inspect.DictType():
                return {"type": "object", "x": self.anything()}
        return self.anything()

    def id(self) -> str:
        return self.choice(self._ids)

    def text(self) -> str:
        return self.choice(TEXTS) if self.random() < 0.95 else self.choice("xé\U0001f600") * self.randint(1, 3_000)

    def anything(self) -> Any:
        plain = [
            None,
            True,
            self.choice(NUMBERS),
            self.choice(FLOATS),
            self.text(),
            [],
            {},
            {"a/b~c": [1, {"b": None}]},
        ]
        if self.random() < 0.9:
            return self.choice(plain)
        return self.nested(self.randint(1, 6))

    def nested(self, depth: int) -> Any:
        value = self.text()
        for _ in range(depth):
            value = self.choice([[value], {"a": value}])  # type: ignore[assignment]
        return value
