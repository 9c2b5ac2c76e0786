"""Runs fuzzers. `FUZZERS` has each by name: a context manager that starts what it needs, and gives a strategy and a
check, which raises if something is wrong."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies as st

ROUND = 200
"""Examples of a round: then another fuzzer has its turn."""
_CHECKS = list(hypothesis.HealthCheck)


class Fuzzer(NamedTuple):
    strategy: st.SearchStrategy[Any]
    check: Callable[[Any], None]


FUZZERS: dict[str, Callable[[], contextlib.AbstractContextManager[Fuzzer]]] = {}


def fuzzer(make: Callable[[], Iterator[Fuzzer]]) -> Callable[[], Iterator[Fuzzer]]:
    FUZZERS[make.__name__] = contextlib.contextmanager(make)
    return make


def run(fuzzer: Fuzzer, examples: int, seed: int | None = None) -> None:
    """So many examples: always the same ones, or those of a seed. Raises what the check raised, with the smallest
    input."""
    quiet = hypothesis.settings(
        max_examples=examples, deadline=None, database=None, derandomize=seed is None, suppress_health_check=_CHECKS
    )

    @quiet
    @hypothesis.given(fuzzer.strategy)
    def check(value: object) -> None:
        fuzzer.check(value)

    (check if seed is None else hypothesis.seed(seed)(check))()


def run_for(fuzzer: Fuzzer, seconds: float, dice: random.Random) -> int:
    """Rounds until the time is up; how many."""
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        run(fuzzer, ROUND, dice.getrandbits(32))
        rounds += 1
    return rounds
