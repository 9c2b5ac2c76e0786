"""How long to wait before what failed is tried again."""

from __future__ import annotations

import random

DOUBLINGS_MAX = 30


def backoff_seconds(failures: int, *, first: float, most: float) -> float:
    """After `failures` in a row: `first` doubled as often, and no more than `most`; of that a half or more, by chance,
    so that those who failed together do not come back together."""
    return min(most, first * 2.0 ** min(failures, DOUBLINGS_MAX)) * random.uniform(0.5, 1.0)
