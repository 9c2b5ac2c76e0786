"""When schedules tick, and which can be registered."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

import pytest

from emitter.wire.ids import EXECUTION_ID
from emitter.wire.keys import Owner
from emitter.worker.agents import Agents
from emitter.worker.schedule import Cron, Every, Schedule

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
VIENNA = "Europe/Vienna"  # clocks: 2026-03-29 01:00 UTC from +1 to +2, 2026-10-25 01:00 UTC back to +1


def at(text: str) -> int:
    """A moment of UTC in ms."""
    return int(datetime.fromisoformat(text + "T00+00:00" if len(text) == 10 else text + "+00:00").timestamp() * 1000)


def text_of(ms: int | None) -> str | None:
    return None if ms is None else (datetime(1970, 1, 1) + timedelta(milliseconds=ms)).isoformat(" ", "seconds")


def registered(**options: Any) -> Schedule:
    agents = Agents()
    agents.agent("writer")(lambda context: None)
    given: dict[str, Any] = {"agent": "writer", "user_id": "ops", "task": "Report", **options}
    agents.schedule(given.pop("name", "nightly"), **given)
    return agents.schedules[0]


# --- every -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "offset", "now", "latest", "following"),
    [
        (HOUR, 0, 5 * HOUR, 5 * HOUR, 6 * HOUR),
        (HOUR, 0, 5 * HOUR - 1, 4 * HOUR, 5 * HOUR),
        (HOUR, 0, 5 * HOUR + 1, 5 * HOUR, 6 * HOUR),
        (HOUR, 15 * MINUTE, 5 * HOUR, 4 * HOUR + 15 * MINUTE, 5 * HOUR + 15 * MINUTE),
        (HOUR, 15 * MINUTE, 5 * HOUR + 15 * MINUTE, 5 * HOUR + 15 * MINUTE, 6 * HOUR + 15 * MINUTE),
        (1500, 0, 2999, 1500, 3000),
        (1500, 0, 3000, 3000, 4500),
        (7 * DAY, 3 * DAY, at("2026-10-18 12:00"), at("2026-10-18"), at("2026-10-25")),
    ],
)
def test_every_ticks_at_multiples_since_the_epoch(
    interval: int, offset: int, now: int, latest: int, following: int
) -> None:
    """Ticks follow from interval and offset alone; a tick belongs to its own moment."""
    ticks = Every(interval, offset)
    assert (ticks.latest(now), ticks.following(now)) == (latest, following)


def test_seconds_may_be_a_fraction() -> None:
    """`every` and `offset` are seconds, kept to the millisecond."""
    assert registered(every=1.5, offset=0.25).ticks == Every(1500, 250)


# --- cron ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "zone", "now", "latest", "following"),
    [
        ("0 3 * * *", "UTC", "2026-05-05 03:00:00", "2026-05-05 03:00:00", "2026-05-06 03:00:00"),
        ("0 3 * * *", "UTC", "2026-05-05 02:59:59", "2026-05-04 03:00:00", "2026-05-05 03:00:00"),
        ("0 3 * * *", VIENNA, "2026-05-05 12:00:00", "2026-05-05 01:00:00", "2026-05-06 01:00:00"),
        ("0 3 * * *", VIENNA, "2026-01-05 12:00:00", "2026-01-05 02:00:00", "2026-01-06 02:00:00"),
        ("*/15 * * * *", VIENNA, "2026-05-05 12:07:30", "2026-05-05 12:00:00", "2026-05-05 12:15:00"),
        ("0 9 * * MON#1", "America/New_York", "2026-05-05 00:00:00", "2026-05-04 13:00:00", "2026-06-01 13:00:00"),
        ("*/10 * * * * *", VIENNA, "2026-05-05 12:00:19", "2026-05-05 12:00:10", "2026-05-05 12:00:20"),
        ("0 30 2 * * *", VIENNA, "2026-10-25 01:10:00", "2026-10-25 00:30:00", "2026-10-25 01:30:00"),
        ("0 0 29 2 *", "UTC", "2026-05-05 00:00:00", "2024-02-29 00:00:00", "2028-02-29 00:00:00"),
        # Clocks go forward: 02:30 is left out and made up for at once, at 03:00 summer time; then all is as before.
        ("30 2 * * *", VIENNA, "2026-03-29 00:59:59", "2026-03-28 01:30:00", "2026-03-29 01:00:00"),
        ("30 2 * * *", VIENNA, "2026-03-29 01:00:00", "2026-03-29 01:00:00", "2026-03-30 00:30:00"),
        ("0 3 * * *", VIENNA, "2026-03-29 01:00:00", "2026-03-29 01:00:00", "2026-03-30 01:00:00"),
        # With a star it is left out, and by the hour each hour that passes counts.
        ("*/30 2 * * *", VIENNA, "2026-03-29 01:00:00", "2026-03-28 01:30:00", "2026-03-30 00:00:00"),
        ("0 * * * *", VIENNA, "2026-03-29 00:30:00", "2026-03-29 00:00:00", "2026-03-29 01:00:00"),
        # Clocks go back: of the two 02:30 the first one counts, also for who looks in the second hour.
        ("30 2 * * *", VIENNA, "2026-10-25 00:29:59", "2026-10-24 00:30:00", "2026-10-25 00:30:00"),
        ("30 2 * * *", VIENNA, "2026-10-25 00:30:00", "2026-10-25 00:30:00", "2026-10-26 01:30:00"),
        ("30 2 * * *", VIENNA, "2026-10-25 01:10:00", "2026-10-25 00:30:00", "2026-10-26 01:30:00"),
        ("30 2 * * *", VIENNA, "2026-10-25 01:40:00", "2026-10-25 00:30:00", "2026-10-26 01:30:00"),
        # With a star both count.
        ("*/30 2 * * *", VIENNA, "2026-10-25 00:45:00", "2026-10-25 00:30:00", "2026-10-25 01:00:00"),
        ("*/30 2 * * *", VIENNA, "2026-10-25 01:40:00", "2026-10-25 01:30:00", "2026-10-26 01:00:00"),
    ],
)
def test_cron_ticks_in_its_timezone(expression: str, zone: str, now: str, latest: str, following: str) -> None:
    """The ticks around a moment, all in UTC."""
    ticks = Cron(expression, zone)
    assert (text_of(ticks.latest(at(now))), text_of(ticks.following(at(now)))) == (latest, following)


@pytest.mark.parametrize("expression", ["0 3 * * *", "*/15 * * * *", "*/30 * * * * *"])
def test_a_moment_is_exact_to_the_millisecond(expression: str) -> None:
    """A tick has come at its moment, and not a millisecond before."""
    ticks, tick = Cron(expression, VIENNA), at("2026-05-05 01:00:00")
    assert ticks.latest(tick) == ticks.latest(tick + 1) == ticks.following(tick - 1) == tick
    before, after = ticks.latest(tick - 1), ticks.following(tick)
    assert before is not None
    assert after is not None
    assert before < tick < after == ticks.following(tick + 1)


EXPRESSIONS = [
    "30 2 * * *",
    "0,30 2,3 * * *",
    "0-59 2 * * *",
    "15 1-3 * * *",
    "0 * * * *",
    "*/20 2 * * *",
    "0 */20 2 * * *",
]
PLACES = [
    (VIENNA, "2026-03-28"),
    (VIENNA, "2026-10-24"),
    ("America/New_York", "2026-03-07"),
    ("America/New_York", "2026-10-31"),
    ("America/Santiago", "2026-09-05"),
    ("Africa/Cairo", "2026-10-29"),
    ("Pacific/Apia", "2011-12-29"),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize(("zone", "day"), PLACES)
def test_all_workers_name_the_same_ticks_when_clocks_change(expression: str, zone: str, day: str) -> None:
    """Looked at from any moment of the days around a change, before and after are two neighbours of one list."""
    ticks, start, end = Cron(expression, zone), at(day), at(day) + 3 * DAY
    listed = [tick := ticks.latest(start)]
    while tick is not None and tick <= end:
        listed.append(tick := ticks.following(tick))
    known: list[int] = [tick for tick in listed if tick is not None]
    assert known == sorted(set(known))
    for now in range(start, end, 19 * MINUTE):
        before = max(tick for tick in known if tick <= now)
        after = min(tick for tick in known if tick > now)
        assert (ticks.latest(now), ticks.following(now)) == (before, after), text_of(now)


def test_cron_is_utc_unless_told() -> None:
    """Without a timezone an expression is read in UTC."""
    assert registered(cron="0 3 * * *").ticks == Cron("0 3 * * *", "UTC")
    assert registered(cron="0 3 * * *", timezone=VIENNA).ticks == Cron("0 3 * * *", VIENNA)


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_ticks_execution_has_one_valid_id() -> None:
    """The id follows from name and tick, however long; names that only look alike have different ones."""
    names = ["nightly", "nightly.report", "nightly-report", "a" * 64, "a" * 63 + "b", "_"]
    moments = [at("2026-05-05"), at("2026-05-06"), at("9999-12-31")]
    ids = [registered(name=name, every=60).execution_id(tick) for name in names for tick in moments]
    assert all(EXECUTION_ID.match(id_) for id_ in ids)
    assert len(set(ids)) == len(ids)
    assert ids == [registered(name=name, cron="0 3 * * *").execution_id(tick) for name in names for tick in moments]
    assert ids[3].startswith("sch_nightly-report_")


# --- registering -----------------------------------------------------------------------------------------------------


def test_a_schedule_is_kept_as_it_was_given() -> None:
    """Owner, agent, task and params, and whether it may overlap."""
    schedule = registered(name="n", org="acme", every=60, params={"p": [1]}, overlap=False)
    assert schedule == Schedule(
        name="n", agent="writer", owner=Owner("ops", "acme"), task="Report", params={"p": [1]},
        ticks=Every(60_000), overlap=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "either every or cron"),
        ({"every": 60, "cron": "0 3 * * *"}, "either every or cron"),
        ({"every": 0.5}, "every 0.5"),
        ({"every": 0}, "every 0"),
        ({"every": float("nan")}, "every nan"),
        ({"every": float("inf")}, "every inf"),
        ({"every": "60"}, "every '60'"),
        ({"every": 367 * 86_400}, "every 31708800"),
        ({"every": 60, "offset": 60}, "offset 60"),
        ({"every": 60, "offset": -1}, "offset -1"),
        ({"every": 60, "timezone": "UTC"}, "timezone"),
        ({"cron": "0 3 * *"}, "cron '0 3"),
        ({"cron": "61 3 * * *"}, "cron '61 3"),
        ({"cron": ""}, "cron ''"),
        ({"cron": 5}, "cron '5'"),
        ({"cron": "* " * 200}, "256"),
        ({"cron": "0 0 30 2 *"}, "cron '0 0 30 2"),
        ({"cron": "* * */20 * 1L"}, "no tick within 50 years"),
        ({"cron": "0 3 * * *", "offset": 1}, "offset"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Atlantis"}, "timezone 'Europe/Atlantis'"),
        ({"cron": "0 3 * * *", "timezone": "Europe"}, "timezone 'Europe'"),
        ({"cron": "0 3 * * *", "timezone": "../etc/passwd"}, "timezone"),
        ({"cron": "0 3 * * *", "timezone": 1}, "timezone 1"),
        ({"every": 60, "name": "Nightly"}, "schedule name 'Nightly'"),
        ({"every": 60, "name": "a:b"}, "schedule name"),
        ({"every": 60, "name": ""}, "schedule name"),
        ({"every": 60, "name": "a" * 65}, "schedule name"),
        ({"every": 60, "user_id": "a\n"}, "user"),
        ({"every": 60, "org": ""}, "org"),
        ({"every": 60, "task": None}, "task"),
        ({"every": 60, "task": "\ud800"}, "execution:queued"),
        ({"every": 60, "params": [1]}, "params is a list"),
        ({"every": 60, "params": {"a": object()}}, "params"),
        ({"every": 60, "agent": "nobody"}, "no agent 'nobody'"),
    ],
)
def test_what_cannot_be_kept_is_refused_when_it_is_registered(options: dict[str, Any], match: str) -> None:
    """One `ValueError` names the schedule, the option and what is allowed."""
    with pytest.raises(ValueError, match=match):
        registered(**options)


def test_a_schedules_name_is_registered_once() -> None:
    """A second schedule of a name is refused, and the first stays."""
    agents = Agents()
    agents.agent("writer")(lambda context: None)
    agents.schedule("nightly", agent="writer", user_id="ops", task="Report", every=60)
    with pytest.raises(ValueError, match="twice"):
        agents.schedule("nightly", agent="writer", user_id="ops", task="Report", every=61)
    assert [schedule.ticks for schedule in agents.schedules] == [Every(60_000)]


def test_without_cronsim_only_cron_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra; intervals need no library."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ImportError, match=r"runcast\[cron\]"):
        registered(cron="0 3 * * *")
    assert registered(every=60).ticks == Every(60_000)
