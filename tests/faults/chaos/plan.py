"""What is broken, and when: the whole of it follows from a seed, so that one number repeats a run. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """`at`: seconds from the beginning; it waits until what was broken before has recovered. `target` chooses among the
    servers, edges or slots there are then, modulo their number."""

    at: float
    kind: str
    target: int

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.kind.replace('_', ' ')} {self.target}"


class Plan(msgspec.Struct, frozen=True):
    """`topology` and `viewers`: on what it is carried out."""

    seed: int
    seconds: float
    topology: str
    viewers: int
    faults: tuple[Fault, ...]

    def with_faults(self, faults: Sequence[Fault]) -> Plan:
        return msgspec.structs.replace(self, faults=tuple(faults))


def make(
    seed: int, seconds: float, topology: str, viewers: int, kinds: Sequence[str], *, pauses: tuple[float, float]
) -> Plan:
    """Every kind in turn, in an order that changes from round to round, with pauses between."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    at = 0.0
    while True:
        for kind in chance.sample(sorted(kinds), len(kinds)):
            at += chance.uniform(*pauses)
            if at >= seconds:
                return Plan(seed, seconds, topology, viewers, tuple(faults))
            faults.append(Fault(round(at, 1), kind, chance.randrange(1 << 16)))


def encode(plan: Plan) -> bytes:
    return msgspec.json.format(msgspec.json.encode(plan), indent=1)


def decode(data: bytes) -> Plan:
    """Raises `msgspec.ValidationError`."""
    return msgspec.json.decode(data, type=Plan)
