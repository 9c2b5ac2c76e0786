"""Sums of usage."""

from __future__ import annotations

from emitter.events import Usage
from emitter.values import MAX_INTEGER


def add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    """The sum of two; of costs what is known, and the model if it is one."""
    if one is None or other is None:
        return one or other
    costs = [each.cost_usd for each in (one, other) if each.cost_usd is not None]
    models = {each.model for each in (one, other) if each.model is not None}
    return Usage(
        input_tokens=min(one.input_tokens + other.input_tokens, MAX_INTEGER),
        output_tokens=min(one.output_tokens + other.output_tokens, MAX_INTEGER),
        total_tokens=min(one.total_tokens + other.total_tokens, MAX_INTEGER),
        cost_usd=sum(costs) if costs else None,
        model=models.pop() if len(models) == 1 else None,
    )
