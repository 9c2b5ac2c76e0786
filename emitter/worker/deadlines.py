"""When a running agent is over a limit. Pure: moments are passed in, in seconds of one steady clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """How many seconds an attempt may last (`time`), or be silent (`idle`)."""

    kind: Literal["time", "idle"]
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} limit of {_text(self.seconds)}"


class Notice(msgspec.Struct, frozen=True):
    """What is to be said of a limit now."""

    limit: Limit
    action: Literal["continuing", "stopping"]

    @property
    def message(self) -> str:
        what, seconds = {"time": "running", "idle": "no event"}[self.limit.kind], self.limit.seconds
        if self.action == "continuing":
            return f"{what} for {_text(seconds / 2)}; stopped at {_text(seconds)}"
        return f"{what} for {_text(seconds)}; stopped"


class _Span(NamedTuple):
    """A limit, and the moment from which it counts."""

    limit: Limit
    since: float

    @property
    def half(self) -> float:
        return self.since + self.limit.seconds / 2

    @property
    def end(self) -> float:
        return self.since + self.limit.seconds


class Deadlines:
    """The limits of one run: the time limit counts from `started`, the idle limit from the last activity.

    When half of a limit has passed that is said once, of a silence each time; at its end the run is stopped.
    """

    def __init__(self, started: float, *, time_limit: float | None = None, idle_limit: float | None = None) -> None:
        self._started = started
        self._time = None if time_limit is None else Limit("time", time_limit)
        self._idle = None if idle_limit is None else Limit("idle", idle_limit)
        self._said: set[_Span] = set()

    def due(self, now: float, active_at: float) -> list[Notice]:
        """What is to be said now, each once. `stopping` comes alone: the limit that ended first decides."""
        if (limit := self.over(now, active_at)) is not None:
            return [Notice(limit, "stopping")]
        spans = self._spans(active_at)
        news = [span for span in spans if span.half <= now and span not in self._said]
        self._said = {span for span in spans if span.half <= now}
        return [Notice(span.limit, "continuing") for span in news]

    def over(self, now: float, active_at: float) -> Limit | None:
        """The limit that has ended, the first of them; nothing is said of it."""
        ended = [span for span in self._spans(active_at) if span.end <= now]
        return min(ended, key=lambda span: span.end).limit if ended else None

    def next_at(self, active_at: float) -> float | None:
        """The moment to look again, unless the agent is active before; `None` without a limit."""
        moments = [span.end if span in self._said else span.half for span in self._spans(active_at)]
        return min(moments, default=None)

    def excuse(self, seconds: float) -> None:
        """So much of the attempt does not count."""
        self._started += seconds

    def _spans(self, active_at: float) -> list[_Span]:
        given = ((self._time, self._started), (self._idle, active_at))
        return [_Span(limit, since) for limit, since in given if limit is not None]


def _text(seconds: float) -> str:
    return f"{seconds:.12g} s"
