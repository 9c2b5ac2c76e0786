"""When schedules start executions. Pure: moments are arguments, in ms since the epoch.

A tick is determined by its schedule alone, not by the process that runs it: all workers compute the same ticks.

A cron expression has five fields as in Debian's cron, or six with seconds in front, and is read in its timezone. If
clocks go forward, ticks of the skipped hour come right after it; if they go back, the repeated hour counts once.
Expressions with a star (`*` or `*/n`) as minute or hour, or with six fields, follow elapsed time instead: no tick in
the skipped hour, ticks in both repetitions of the repeated hour.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from emitter.errors import InvalidEvent
from emitter.events import ExecutionQueued
from emitter.wire.envelope import encode_data
from emitter.wire.ids import now_ms
from emitter.wire.keys import Owner
from emitter.wire.subjects import owner_named

SCHEDULE_NAME = re.compile(r"[a-z0-9_.-]{1,64}\Z")
LEAST_SECONDS = 1.0
MOST_SECONDS = 366 * 86_400.0
CRON_CHARS = 256
CLOCK_CHANGE_MS = 3 * 3_600_000
"""More than summer time shifts clocks anywhere."""


class Every(msgspec.Struct, frozen=True):
    """A tick at `offset_ms` after the epoch, and every `interval_ms` from there."""

    interval_ms: int
    offset_ms: int = 0

    def latest(self, now: int) -> int | None:
        """The last tick up to `now`."""
        return now - (now - self.offset_ms) % self.interval_ms

    def following(self, now: int) -> int | None:
        """The first tick after `now`."""
        return now - (now - self.offset_ms) % self.interval_ms + self.interval_ms


class Cron(msgspec.Struct, frozen=True):
    """Ticks of a cron expression in a timezone by its IANA name. Needs the library `cronsim`."""

    expression: str
    timezone: str

    def latest(self, now: int) -> int | None:
        """The last tick up to `now`; `None` if there was none in 50 years."""
        # Backwards, cronsim follows the wall clock unless there are seconds. In a repeated hour it would miss the
        # ticks of the first repetition, so the search begins after that hour.
        ahead = 1000 if len(self.expression.split()) == 6 else CLOCK_CHANGE_MS
        ticks = self._ticks(now + ahead, reverse=True)
        return next((tick for tick in ticks if tick <= now), None)

    def following(self, now: int) -> int | None:
        """The first tick after `now`; `None` if there is none in 50 years."""
        return next((tick for tick in self._ticks(now) if tick > now), None)

    def _ticks(self, since: int, *, reverse: bool = False) -> Iterator[int]:
        from cronsim import CronSim  # an extra, needed for such schedules only

        start = datetime.fromtimestamp(since // 1000, _zone(self.timezone))
        return (int(moment.timestamp()) * 1000 for moment in CronSim(self.expression, start, reverse=reverse))


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Which execution to start, for which owner, and when. Without `overlap` a tick is skipped while the execution of
    the previous one has not ended."""

    name: str
    agent: str
    owner: Owner
    task: str
    ticks: Every | Cron
    params: dict[str, Any] | None = None
    overlap: bool = True

    def execution_id(self, tick: int) -> str:
        """The execution id of a tick, the same on every worker."""
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:8]
        return f"sch_{self.name.replace('.', '-')[:32]}_{digest}_{tick}"


def schedule_of(
    name: str,
    *,
    agent: str,
    user_id: str,
    org: str,
    task: str,
    params: dict[str, Any] | None,
    every: float | None,
    offset: float,
    cron: str | None,
    timezone: str | None,
    overlap: bool,
) -> Schedule:
    """A valid schedule. Raises `ValueError` for any other, `ImportError` if cronsim is missing."""
    if not (isinstance(name, str) and SCHEDULE_NAME.match(name)):
        raise ValueError(f"schedule name {str(name)[:80]!r} is not 1 to 64 of a-z 0-9 _ . -")
    try:
        if (every is None) == (cron is None):
            raise ValueError("give either every or cron")
        encode_data(ExecutionQueued(task=task, agent=agent))
        return Schedule(
            name=name,
            agent=agent,
            owner=owner_named(user_id, org),
            task=task,
            params=_checked_params(params),
            ticks=_every(every, offset, timezone) if cron is None else _cron(cron, offset, timezone),
            overlap=overlap,
        )
    except (ValueError, InvalidEvent) as error:
        raise ValueError(f"schedule {name!r}: {error}") from error


def _checked_params(params: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        if params is None or isinstance(msgspec.json.decode(msgspec.json.encode(params)), dict):
            return params
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"params: {error}") from error
    raise ValueError(f"params is a {type(params).__name__}, not an object")


def _every(every: float | None, offset: float, timezone: str | None) -> Every:
    if not (isinstance(every, int | float) and LEAST_SECONDS <= every <= MOST_SECONDS):
        raise ValueError(f"every {every!r} is not a number of seconds from {LEAST_SECONDS:g} to {MOST_SECONDS:g}")
    if not (isinstance(offset, int | float) and 0 <= offset < every):
        raise ValueError(f"offset {offset!r} is not a number of seconds from 0 to below every")
    if timezone is not None:
        raise ValueError("timezone belongs to cron; every counts from the epoch")
    return Every(round(every * 1000), round(offset * 1000))


def _cron(expression: str, offset: float, timezone: str | None) -> Cron:
    try:
        from cronsim import CronSimError
    except ImportError:
        raise ImportError("a schedule by cron needs cronsim: pip install 'runcast[cron]'") from None
    if offset:
        raise ValueError("offset belongs to every")
    if not isinstance(expression, str) or len(expression) > CRON_CHARS:
        raise ValueError(f"cron {str(expression)[:80]!r} is not text of at most {CRON_CHARS} characters")
    cron = Cron(expression, "UTC" if timezone is None else timezone)
    _zone(cron.timezone)
    try:
        if cron.following(now_ms()) is None:
            raise ValueError(f"cron {expression!r} has no tick within 50 years")
    except CronSimError as error:
        raise ValueError(f"cron {expression!r}: {error}") from error
    return cron


def _zone(timezone: str) -> tzinfo:
    """Raises `ValueError`."""
    try:
        return UTC if timezone == "UTC" else ZoneInfo(timezone)  # UTC needs no database, and is faster
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"timezone {timezone!r} is not known here (the package tzdata has them all)") from error
