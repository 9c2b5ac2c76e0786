"""How often a user may do what costs Redis nothing extra to count: rates of one edge, in its memory. Pure: time is
passed in. Rates over all edges are in `broker.streams.admission`."""

from __future__ import annotations

from collections import OrderedDict

from emitter.wire.keys import Owner

MAX_REMEMBERED = 10_000
BURST_SECONDS = 60.0


class Rates:
    """Per user and kind, at most `per_minute` in a minute (GCRA, as in `admission.lua`): a minute's worth at once, then
    at a steady pace. A user that is forgotten because others are active begins again."""

    def __init__(self, remembered: int = MAX_REMEMBERED) -> None:
        self._remembered = remembered
        self._paid_off: OrderedDict[tuple[Owner, str], float] = OrderedDict()

    def count(self, user: Owner, kind: str, per_minute: int, now: float) -> float:
        """Count one, if the rate allows it: then 0, else the seconds until it does."""
        key = (user, kind)
        paid_off = max(now, self._paid_off.get(key, 0.0)) + 60.0 / per_minute
        early = paid_off - now - BURST_SECONDS
        if early > 1e-6:  # sums of thousands of intervals are not exact
            return early
        self._paid_off[key] = paid_off
        self._paid_off.move_to_end(key)
        if len(self._paid_off) > self._remembered:
            self._paid_off.popitem(last=False)
        return 0.0
