"""What comes for executions, until it is taken. Nothing of it stays for ever."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

KEEP_SECONDS = 900.0
"""Longer than an execution is waited for."""


class Kept(Generic[T]):
    """By execution, in the order in which it came."""

    def __init__(self) -> None:
        self._found: dict[str, list[T]] = {}
        self._touched: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, execution: str, item: T) -> None:
        self._found.setdefault(execution, []).append(item)
        self._touched[execution] = time.monotonic()

    def get(self, execution: str) -> Sequence[T]:
        return self._found.get(execution, ())

    def drop(self, execution: str) -> None:
        self._found.pop(execution, None)
        self._touched.pop(execution, None)

    def sweep(self, now: float) -> None:
        """Drop those for which nothing has come for long."""
        for execution in [name for name, at in self._touched.items() if at < now - KEEP_SECONDS]:
            self.drop(execution)
