"""Slots against an oracle that walks every real minute: at every change of the clocks, and for rules and moments at
random."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fsagent.config import Settings
from fsagent.timetable import Slots, Timetable, system_zone, zone_name
from fsagent.timetext import table_of
from slot_oracle import MINUTE, Rule, changes, walk

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Tehran", "Africa/Casablanca")
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
# Clocks are changed at 0, 1, 2 or 3 o'clock in these zones, by an hour or by half an hour.
OFTEN: list[dict[str, Any]] = [
    {"cron": "0 * * * *"},
    {"cron": "30 * * * *"},
    {"cron": "*/15 * * * *"},
    {"cron": "*/20 * * * *", "active": "22:00-02:30"},
    {"cron": "0 */2 * * *"},
    {"cron": "10 0-23 * * *"},
    {"cron": "*/30 0-3 * * *"},
    {"every": "1h", "active": "02:00-23:30"},
]
SELDOM: list[dict[str, Any]] = [
    {"cron": "0 0 * * *"},
    {"cron": "30 2 * * *"},
    {"cron": "15,45 0-3 * * *"},
    {"cron": "0 1,2,3 * * *"},
    {"cron": "59 1,2 * * sun"},
    {"at": ["02:00"]},
    {"at": ["00:10", "00:50", "01:00"]},
    {"at": ["02:05", "02:25", "02:55", "03:00", "03:05"]},
    {"at": ["23:30", "00:30"], "on": ["sat", "sun", "fri"]},
    {"at": ["01:45", "02:15"], "active": "02:00-03:00"},
]


def slots_of(zone: ZoneInfo, fields: dict[str, Any]) -> Slots:
    return Slots(table_of(fields), 900, zone)


def agree(
    slots: Slots, expected: Sequence[datetime], low: datetime, high: datetime, moments: Sequence[datetime]
) -> None:
    """All ways of asking give the same sequence; ``expected`` are the slots after ``low`` up to ``high``."""
    assert list(slots.between(low, high)) == expected
    assert slots.count(low, high) == len(expected)
    for moment in moments:
        at = bisect_right(expected, moment)
        following, last = slots.after(moment), slots.last(moment)
        if at < len(expected):
            assert following == expected[at], f"after {moment}"
        else:
            assert following is None or following > high, f"after {moment}"
        if at:
            assert last == expected[at - 1], f"last at {moment}"
        else:
            assert last is None or last <= low, f"last at {moment}"
        assert slots.count(low, moment) == at, f"count up to {moment}"


def around(change: datetime, size: timedelta) -> list[datetime]:
    """Moments in, at and beside a gap or a repeated hour that begins or ends with a change of the clocks."""
    return [change + shift for shift in (-size - TICK, -size / 2, -TICK, 0 * TICK, TICK, size / 2 + TICK, size)]


def check_change(zone: ZoneInfo, change: datetime, rules: Sequence[dict[str, Any]], width: timedelta) -> None:
    low, high = change - width, change + width
    minutes = walk(zone, low + MINUTE, high + MINUTE)
    size = abs((change.astimezone(zone).utcoffset() or HOUR) - ((change - TICK).astimezone(zone).utcoffset() or HOUR))
    for fields in rules:
        expected = Rule(zone, **fields).slots(minutes)
        agree(slots_of(zone, fields), expected, low, high, around(change, size))


@pytest.mark.parametrize("years", [(2000, 2012), (2013, 2025), (2026, 2037)], ids=str)
@pytest.mark.parametrize("name", ZONES)
def test_every_change_of_the_clocks(name: str, years: tuple[int, int]) -> None:
    zone = ZoneInfo(name)
    found = list(changes(zone, *years))
    assert len(found) > (8 if name == "Asia/Tehran" else 20) or (name, years) in (
        ("Asia/Tehran", (2026, 2037)),
        ("Africa/Casablanca", (2000, 2012)),
    )
    for change in found:
        check_change(zone, change, SELDOM, 12 * HOUR)
        check_change(zone, change, OFTEN, 3 * HOUR)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(8))
def test_every_change_of_the_clocks_around_the_world(part: int) -> None:
    for name in sorted(available_timezones())[part::120]:  # one in fifteen: all of them take half an hour
        zone = ZoneInfo(name)
        for change in changes(zone, 1975, 2037):
            check_change(zone, change, SELDOM, 30 * HOUR)
            check_change(zone, change, OFTEN, 6 * HOUR)


# rules and moments at random


def field(least: int, most: int, extra: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """One field of a cron rule."""
    number = st.integers(least, most)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    steps = st.integers(2, max(2, most // 2))
    stepped = st.tuples(st.sampled_from(["*", f"{least}-{most}"]) | span | number, steps).map(
        lambda p: f"{p[0]}/{p[1]}"
    )
    term = number.map(str) | span | stepped | st.sampled_from(["*", *extra])
    return st.just("*") | term | st.lists(term, min_size=2, max_size=3).map(",".join)


CRONS = st.tuples(
    field(0, 59),
    field(0, 23),
    field(1, 31, ["L", "LW"]),
    st.just("*") | field(1, 12, ["feb", "jan-jun"]),
    field(0, 7, ["mon#1", "5#5", "5L", "sunL", "mon-fri", "sat"]),
).map(" ".join)
TIMES = st.tuples(st.integers(0, 23), st.sampled_from([0, 5, 15, 30, 45, 59])).map(lambda at: f"{at[0]:02}:{at[1]:02}")
ATS = st.lists(TIMES, min_size=1, max_size=4)
ACTIVE = st.tuples(TIMES, TIMES).filter(lambda ends: ends[0] != ends[1]).map("-".join)
WEEKDAYS = st.lists(st.sampled_from("mon tue wed thu fri sat sun".split()), min_size=1, max_size=4, unique=True)
RULES = st.one_of(
    st.fixed_dictionaries({"cron": CRONS}, optional={"active": ACTIVE}),
    st.fixed_dictionaries({"at": ATS}, optional={"active": ACTIVE, "on": WEEKDAYS}),
    st.fixed_dictionaries(
        {"every": st.sampled_from(["1m", "7m", "45m", "2h", "5h", "1d"])}, optional={"active": ACTIVE}
    ),
)
PLACES = st.sampled_from([ZoneInfo(name) for name in (*ZONES, "UTC", "Asia/Kathmandu", "America/St_Johns")])
CHANGES = {zone: [*changes(zone, 2009, 2012)] for zone in (ZoneInfo(name) for name in (*ZONES, "America/St_Johns"))}


@st.composite
def moments(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """Any moment; half of them near a change of the clocks."""
    near = draw(st.sampled_from(CHANGES.get(zone) or [datetime(2027, 1, 1, tzinfo=UTC)]))
    if draw(st.booleans()):
        return near + timedelta(seconds=draw(st.integers(-40_000, 40_000)), microseconds=draw(st.integers(0, 3)))
    return draw(st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001


def possible(fields: dict[str, Any]) -> Timetable:
    """The table, if the rule ever comes; nothing else may be wrong with it."""
    try:
        return table_of(fields)
    except ValueError as error:
        if "never comes" not in str(error):
            raise
        reject()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rules_and_moments_at_random(data: st.DataObject) -> None:
    zone, fields = data.draw(PLACES), data.draw(RULES)
    moment = data.draw(moments(zone))
    low = moment.replace(second=0, microsecond=0) - data.draw(st.integers(1, 500)) * MINUTE
    high = low + data.draw(st.integers(10, 1500)) * MINUTE
    day = low.astimezone(zone).date()
    bounds = st.integers(-1, 2).map(lambda days: str(day + timedelta(days=days)))
    fields |= data.draw(st.fixed_dictionaries({}, optional={"from": bounds, "until": bounds}))
    table = possible(fields)
    expected = Rule(zone, **fields).slots(walk(zone, low + MINUTE, high + MINUTE))
    if len(expected) < 400:
        agree(Slots(table, 900, zone), expected, low, high, [moment] if low < moment <= high else [])
    else:
        assert Slots(table, 900, zone).count(low, high) == len(expected)
        assert Slots(table, 900, zone).after(low) == expected[0]


@settings(deadline=None)
@given(CRONS, PLACES, st.data())
def test_one_sequence_wherever_one_looks_from(cron: str, zone: ZoneInfo, data: st.DataObject) -> None:
    slots = Slots(possible({"cron": cron}), 900, zone)
    start = data.draw(moments(zone))
    found = list(islice(slots.between(start, start + 20_000 * DAY), 5))
    for before, following in pairwise(found):
        for moment in (before, before + TICK, before + (following - before) / 2, following - TICK):
            assert slots.after(moment) == following
            assert slots.last(moment) == before
        assert slots.last(following) == following
    if found:
        assert slots.count(start, found[-1]) == len(found)


@given(st.integers(1, 10**6), st.integers(0, 4 * 10**9), st.integers(0, 999_999), st.integers(0, 10**6))
def test_a_period_counts_from_1970_and_is_exact(every: int, seconds: int, micros: int, further: int) -> None:
    slots = Slots(Timetable(every=every), 60, ZoneInfo("Europe/Berlin"))
    moment = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)
    last, following = slots.last(moment), slots.after(moment)
    assert last == datetime.fromtimestamp(seconds // every * every, UTC)
    assert following == last + timedelta(seconds=every)
    assert slots.after(following - TICK) == following
    later = seconds + further
    assert slots.count(moment, datetime.fromtimestamp(later, UTC)) == max(0, later // every - seconds // every)


# single rules


BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(slots: Slots, after: str, number: int) -> list[str]:
    found = islice(slots.between(utc(after), utc("2999-01-01")), number)
    return [f"{slot.astimezone(BERLIN):%Y-%m-%d %H:%M}" for slot in found]


def test_rare_days() -> None:
    def days(cron: str, number: int = 3) -> list[str]:
        return [each[:10] for each in shown(slots_of(BERLIN, {"cron": cron}), "2027-01-02", number)]

    assert days("0 9 29 2 *") == ["2028-02-29", "2032-02-29", "2036-02-29"]
    assert days("0 9 31 * *") == ["2027-01-31", "2027-03-31", "2027-05-31"]
    assert days("0 9 * * mon#5") == ["2027-03-29", "2027-05-31", "2027-08-30"]
    assert days("0 9 L * *") == ["2027-01-31", "2027-02-28", "2027-03-31"]
    assert days("0 9 LW 1,2,7 *") == ["2027-01-29", "2027-02-26", "2027-07-30"]
    assert days("0 9 * 2 mon#5", 2) == ["2044-02-29", "2072-02-29"]
    assert days("0 9 1 * mon") == ["2027-01-04", "2027-01-11", "2027-01-18"], "one of the two is enough"
    assert days("0 9 */30 * sun") == ["2027-01-31", "2027-08-01", "2027-10-31"], "both, as one starts with *"


def test_a_rare_rule_comes_in_both_passes_of_a_repeated_hour() -> None:
    slots = slots_of(BERLIN, {"cron": "*/30 2 25 10 *"})
    expected = [utc(f"2026-10-25 {clock}") for clock in ("00:00", "00:30", "01:00", "01:30")]
    low, high = utc("2026-01-01"), utc("2027-10-01")
    agree(slots, expected, low, high, [*expected, expected[1] + 29 * MINUTE, expected[0] - 2 * DAY, high - 30 * DAY])


def test_a_single_moment() -> None:
    slots = slots_of(BERLIN, {"once": "2027-01-05 14:00"})
    instant = utc("2027-01-05 13:00")
    agree(slots, [instant], utc("2026-01-01"), utc("2030-01-01"), [instant - TICK, instant, instant + TICK])
    assert slots_of(BERLIN, {"once": "2027-03-28 02:30"}).after(utc("2027-01-01")) == utc("2027-03-28 01:00")
    assert slots_of(BERLIN, {"once": "2026-10-25 02:30"}).after(utc("2026-01-01")) == utc("2026-10-25 00:30")
    assert slots_of(BERLIN, {"once": "2027-01-05 14:00-05:00"}).after(utc("2027-01-01")) == utc("2027-01-05 19:00")
    zoned = {"once": "2027-01-05 14:00", "timezone": "Asia/Tokyo"}
    assert slots_of(BERLIN, zoned).after(utc("2027-01-01")) == utc("2027-01-05 05:00")


def test_bounds_belong_to_the_slots() -> None:
    slots = slots_of(BERLIN, {"at": "12:00", "from": "2027-01-30", "until": "2027-01-31"})
    assert shown(slots, "2026-01-01", 9) == ["2027-01-30 12:00", "2027-01-31 12:00"]
    slots = slots_of(BERLIN, {"at": "12:00", "from": "2027-01-30 12:00", "until": "2027-02-01 12:00"})
    assert shown(slots, "2026-01-01", 9) == ["2027-01-30 12:00", "2027-01-31 12:00", "2027-02-01 12:00"]
    assert slots.last(utc("2027-01-30 10:59")) is None
    assert slots.last(utc("2028-01-01")) == utc("2027-02-01 11:00")
    assert slots.after(utc("2027-02-01 11:00")) is None
    assert slots.count(utc("2020-01-01"), utc("2040-01-01")) == 3


def test_active_hours_go_over_midnight_and_end_at_24() -> None:
    night = slots_of(BERLIN, {"every": "2h", "active": "22:00-06:00"})
    assert [each[11:] for each in shown(night, "2027-01-05 10:00", 5)] == ["23:00", "01:00", "03:00", "05:00", "23:00"]
    late = slots_of(BERLIN, {"cron": "30 * * * *", "active": "22:00-24:00"})
    assert [each[11:] for each in shown(late, "2027-01-05", 3)] == ["22:30", "23:30", "22:30"]


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "1s", "active": "07:00-22:00"},
        {"cron": "* * * * *", "active": "07:00-22:00"},
        {"cron": "0 9 * * mon-fri"},
        {"cron": "0 0 29 2 *"},
        {"at": ["09:00", "18:30"], "on": ["mon", "fri"]},
        {"every": "1h30m"},
    ],
    ids=str,
)
def test_looking_is_cheap(fields: dict[str, Any]) -> None:
    """In processor time, best of several: under a millisecond each, and a year is counted, not walked."""
    slots, night = slots_of(BERLIN, fields), utc("2026-10-25 22:00")

    def best(work: Any) -> float:
        costs = []
        for _ in range(20):
            start = time.process_time()
            work()
            costs.append(time.process_time() - start)
        return min(costs)

    assert best(lambda: slots.after(night)) < 0.001
    assert best(lambda: slots.last(night)) < 0.001
    assert best(lambda: slots.count(night, night + 365 * DAY)) < 0.05


def test_a_period_that_misses_the_active_hours_has_no_slot() -> None:
    slots = Slots(Timetable(every=86400, active=("07:00", "22:00")), 60, UTC)
    assert slots.after(utc("2027-01-01")) is None
    assert slots.last(utc("2027-01-01")) is None
    assert slots.count(utc("2027-01-01"), utc("2028-01-01")) == 0


def test_a_rule_without_a_period_comes_with_the_heartbeat() -> None:
    slots = Slots(Timetable(), 900, None)
    assert slots.after(utc("2027-01-01 00:07")) == utc("2027-01-01 00:15")


# the system's zone


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda value: monkeypatch.setenv("TZ", value)


@pytest.mark.parametrize(
    ("value", "name", "noon"),
    [
        ("Europe/Berlin", "Europe/Berlin", 14),
        (":Asia/Tokyo", "Asia/Tokyo", 21),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "CET/CEST", 14),
        ("<+03>-3", "+03", 15),
        ("", "UTC", 12),
        ("Nowhere/Nothing", "UTC", 12),
    ],
)
def test_the_system_s_zone_is_that_of_tz(variable: Any, value: str, name: str, noon: int) -> None:
    variable(value)
    zone = system_zone()
    assert zone_name(None) == zone_name(zone) == name
    assert utc("2027-07-01 12:00").astimezone(zone).hour == noon
    slot = Slots(Timetable(at=("12:00",)), 900, None).after(utc("2027-07-01"))
    assert slot
    assert slot.astimezone(zone).hour == 12
    assert Settings().local(slot).hour == 12, "what people are shown goes by the same zone"


def test_a_zone_s_file_may_be_anywhere(variable: Any, tmp_path: Path) -> None:
    found = [path for root in TZPATH if (path := Path(root, "Europe", "Berlin")).exists()]
    if not found:
        pytest.skip("this system has no zone files of its own")
    copy = tmp_path / "clock"
    copy.write_bytes(found[0].read_bytes())
    variable(str(copy))
    assert zone_name(None) == "CET/CEST"
    assert Slots(Timetable(at=("12:00",)), 900, None).after(utc("2027-07-01")) == utc("2027-07-01 10:00")
