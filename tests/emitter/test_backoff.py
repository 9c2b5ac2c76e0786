"""Pauses between tries grow, are bounded, and differ."""

from __future__ import annotations

import pytest

from emitter.backoff import backoff_seconds


@pytest.mark.parametrize(("failures", "ceiling"), [(0, 0.05), (1, 0.1), (2, 0.2), (5, 1.6), (6, 2.0), (100_000, 2.0)])
def test_pauses_double_up_to_a_bound(failures: int, ceiling: float) -> None:
    """After any number of failures a pause lies between half of its ceiling and the ceiling, and no two need agree."""
    pauses = [backoff_seconds(failures, first=0.05, most=2.0) for _ in range(300)]
    assert ceiling / 2 <= min(pauses) < max(pauses) <= ceiling
    assert max(pauses) - min(pauses) > ceiling / 4
