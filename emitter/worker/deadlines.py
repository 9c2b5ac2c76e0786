"""When a running agent exceeds a limit. Pure: moments are arguments, in seconds of one monotonic clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """How many seconds an attempt may last (`time`), or emit nothing (`idle`)."""

    kind: Literal["time", "idle"]
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} limit of {_text(self.seconds)}"


class Notice(msgspec.Struct, frozen=True):
    """A limit that is half over (`continuing`) or over (`stopping`)."""

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
    """The limits of one attempt: the time limit counts from `started`, the idle limit from the last activity.

    Half of a limit gives one notice (of the idle limit, one in each silence); the end of a limit stops the attempt.
    """

    def __init__(self, started: float, *, time_limit: float | None = None, idle_limit: float | None = None) -> None:
        self._started = started
        self._time = None if time_limit is None else Limit("time", time_limit)
        self._idle = None if idle_limit is None else Limit("idle", idle_limit)
        self._reported: set[_Span] = set()

    def due(self, now: float, active_at: float) -> list[Notice]:
        """The notices of this moment, each once. `stopping` comes alone: the limit that ended first decides."""
        if (limit := self.over(now, active_at)) is not None:
            return [Notice(limit, "stopping")]
        spans = self._spans(active_at)
        news = [span for span in spans if span.half <= now and span not in self._reported]
        self._reported = {span for span in spans if span.half <= now}
        return [Notice(span.limit, "continuing") for span in news]

    def over(self, now: float, active_at: float) -> Limit | None:
        """The limit that ended first; this records no notice."""
        ended = [span for span in self._spans(active_at) if span.end <= now]
        return min(ended, key=lambda span: span.end).limit if ended else None

    def next_at(self, active_at: float) -> float | None:
        """The moment of the next check, unless the agent is active before; `None` without a limit."""
        moments = [span.end if span in self._reported else span.half for span in self._spans(active_at)]
        return min(moments, default=None)

    def excuse(self, seconds: float) -> None:
        """Exclude so many seconds from the time limit."""
        self._started += seconds

    def _spans(self, active_at: float) -> list[_Span]:
        given = ((self._time, self._started), (self._idle, active_at))
        return [_Span(limit, since) for limit, since in given if limit is not None]


def _text(seconds: float) -> str:
    return f"{seconds:.12g} s"
