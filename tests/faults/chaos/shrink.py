"""The fewest faults of a plan with which a run still fails.

Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002: `ddmin`, figure 6.
A run depends on the clock as well, so a plan counts as failing if one of `tries` runs of it fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def fewest(items: Sequence[T], fails: Callable[[Sequence[T]], Awaitable[bool]], *, tries: int = 1) -> list[T]:
    """A part of `items` that fails, and does not without any one of its items (as far as `tries` runs can tell)."""

    async def has_failed(part: Sequence[T]) -> bool:
        for _ in range(tries):
            if await fails(part):
                return True
        return False

    left, parts = list(items), 2
    while len(left) > 1:
        size = -(-len(left) // parts)
        pieces = [left[at : at + size] for at in range(0, len(left), size)]
        rests = [[item for other in pieces if other is not piece for item in other] for piece in pieces]
        for smaller, then in [*((piece, 2) for piece in pieces), *((rest, max(parts - 1, 2)) for rest in rests)]:
            if len(smaller) < len(left) and await has_failed(smaller):
                left, parts = smaller, then
                break
        else:
            if parts >= len(left):
                return left
            parts = min(2 * parts, len(left))
    return left
