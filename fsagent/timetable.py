"""When a task falls due: the rule, bound to a zone, and its slots.

A slot is a fixed point of time (aware, UTC), so that nothing ever drifts. All slots of a rule are one sequence, from
whatever moment one looks. What holds where the clocks of the zone are changed:

- A time of day (``at``, ``once``, a cron rule that fixes minute and hour) is due at the first instant at which the wall
  clock shows it *or more*. So one that is left out is due at the first instant after the gap (all that fall into one
  gap are one slot), and one that comes twice is due the first time.
- A cron rule that runs in intervals (``*``, or a range of the whole field, for its minute or its hour) is due at every
  instant whose wall clock fits: also in the hour that is repeated, and not in the one that is left out.
- ``every`` counts from 1970 in UTC and knows no wall clock.

``active`` is about what the wall clock shows; for a time of day that is left out, about the time that was written.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from msgspec import Struct

from fsagent.zones import DAY, TICK, Readings, Wall, system_zone, zone_name

__all__ = ["Slots", "Timetable", "seconds_of", "system_zone", "zone_name"]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # moments inside are naive: UTC, or what the wall clock shows
_YEARS = 50
_MOST_WINDOWS = 4000


class Timetable(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule as plain data, checked by whoever made it (``timetext``). At most one of ``every``, ``cron``, ``at`` and
    ``once`` is given; none means every heartbeat.

    ``every`` is a period in seconds; ``cron`` five fields; ``at`` times of day (``09:00``) on the weekdays ``on`` (0 is
    Monday; none means all); ``once`` one moment (ISO 8601); ``zone`` the task's own time zone. ``begin`` and ``end``
    bound the slots and belong to them: moments, or dates, of which ``end`` is included as a whole day. ``active`` is
    the part of the day that slots may lie in: start (included) and end (excluded, up to ``24:00``); one that ends
    before it starts goes over midnight. Moments and times without a zone of their own are of the task's zone.
    """

    every: float = 0.0
    cron: str = ""
    at: tuple[str, ...] = ()
    on: tuple[int, ...] = ()
    once: str = ""
    zone: str = ""
    begin: str = ""
    end: str = ""
    active: tuple[str, str] | None = None


class Slots:
    """The slots of a timetable, given the heartbeat interval (seconds) and the workspace's zone (None: the system's).

    All moments are aware; slots come in UTC. Limits: moments from 1970 to 9000; a rule whose next slot is more than 50
    years away has none; so has a period that misses ``active`` 4,000 times in a row.
    """

    def __init__(self, table: Timetable, heartbeat: float, zone: tzinfo | None) -> None:
        self.table = table
        self._wall = Wall(_zone(table.zone) if table.zone else zone or system_zone())
        self._rule = _rule(table, heartbeat, self._wall)
        self._begin = _bound(table.begin, self._wall) if table.begin else None
        self._end = _bound(table.end, self._wall, whole=True) if table.end else None

    def after(self, moment: datetime) -> datetime | None:
        """The first slot after a moment; None where there is none any more."""
        start = _naive(moment)
        if self._begin is not None and start < self._begin:
            start = self._begin - TICK
        if self._end is not None and start >= self._end:
            return None
        slot = self._rule.after(start)
        return None if slot is None or (self._end is not None and slot >= self._end) else slot.replace(tzinfo=UTC)

    def last(self, moment: datetime) -> datetime | None:
        """The latest slot at or before a moment; None where there was none."""
        start = _naive(moment)
        if self._end is not None and start >= self._end:
            start = self._end - TICK
        if self._begin is not None and start < self._begin:
            return None
        slot = self._rule.last(start)
        return None if slot is None or (self._begin is not None and slot < self._begin) else slot.replace(tzinfo=UTC)

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The slots after ``after`` up to and with ``until``, in order."""
        slot = self.after(after)
        while slot is not None and slot <= until:
            yield slot
            slot = self.after(slot)

    def count(self, after: datetime, until: datetime) -> int:
        """How many slots ``between`` would give. Costs nothing for a period, else some microseconds for each day."""
        low, high = _naive(after), _naive(until)
        if self._begin is not None:
            low = max(low, self._begin - TICK)
        if self._end is not None:
            high = min(high, self._end - TICK)
        return self._rule.count(low, high) if low < high else 0


class _Once:
    """One instant."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def after(self, moment: datetime) -> datetime | None:
        return self.instant if self.instant > moment else None

    def last(self, moment: datetime) -> datetime | None:
        return self.instant if self.instant <= moment else None

    def count(self, after: datetime, until: datetime) -> int:
        return int(after < self.instant <= until)


class _Period:
    """Whole multiples of a period since 1970 UTC, those that lie in ``window``."""

    def __init__(self, seconds: float, window: _Window | None, wall: Wall) -> None:
        self.period = timedelta(seconds=seconds)
        self.window = window
        self.wall = wall

    def after(self, moment: datetime) -> datetime | None:
        slot = self._floor(moment) + self.period
        for _ in range(_MOST_WINDOWS):
            open_ = self.wall.first(slot, self.window) if self.window else slot
            if open_ is None or open_ == slot:
                return open_
            slot = self._floor(open_ - TICK) + self.period
        return None

    def last(self, moment: datetime) -> datetime | None:
        slot = self._floor(moment)
        for _ in range(_MOST_WINDOWS):
            open_ = self.wall.last(slot, self.window) if self.window else slot
            if open_ is None or open_ == slot:
                return open_
            slot = self._floor(open_)
        return None

    def count(self, after: datetime, until: datetime) -> int:
        if self.window is None:
            return self._number(until) - self._number(after)
        total, end = 0, until + TICK
        for start, stop, offset in self.wall.pieces(after + TICK, end):
            for opens, closes in self.window.within(start + offset, stop + offset):
                total += self._number(closes - offset - TICK) - self._number(opens - offset - TICK)
        return total

    def _number(self, moment: datetime) -> int:
        return (moment - _EPOCH) // self.period

    def _floor(self, moment: datetime) -> datetime:
        return _EPOCH + self._number(moment) * self.period


class _Times:
    """Times of day on days that fit, as the wall clock shows them; without any zone."""

    def __init__(self, clock: tuple[int, ...], fits: Callable[[date], bool], months: frozenset[int]) -> None:
        """``clock``: seconds of the day, in order. A day fits if its month is one of ``months`` and ``fits`` holds."""
        self.clock = clock
        self._fits = fits
        self._months = months
        self._known: dict[tuple[int, int], tuple[date, ...]] = {}

    def first(self, reading: datetime) -> datetime | None:
        """The first time at or after what the wall clock shows; None if there is none within 50 years."""
        day, midnight = reading.date(), _at(reading, 0)
        at = bisect_left(self.clock, (reading - midnight) / timedelta(seconds=1))
        if at < len(self.clock) and day in self._days(day.year, day.month):
            return midnight + timedelta(seconds=self.clock[at])
        year, month = day.year, day.month
        for _ in range(12 * _YEARS if self.clock else 0):
            days = self._days(year, month)
            if days and days[-1] > day:
                found = days[bisect_right(days, day)]
                return _at(found, self.clock[0])
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
        return None

    def last(self, reading: datetime) -> datetime | None:
        """The latest time at or before what the wall clock shows; None if there is none within 50 years."""
        day, midnight = reading.date(), _at(reading, 0)
        at = bisect_right(self.clock, (reading - midnight) / timedelta(seconds=1))
        if at and day in self._days(day.year, day.month):
            return midnight + timedelta(seconds=self.clock[at - 1])
        year, month = day.year, day.month
        for _ in range(12 * _YEARS if self.clock else 0):
            days = self._days(year, month)
            if days and days[0] < day:
                found = days[bisect_left(days, day) - 1]
                return _at(found, self.clock[-1])
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        return None

    def number(self, low: datetime, high: datetime) -> int:
        """How many times lie from ``low`` on, before ``high``."""
        total, day = 0, low.date()
        while self.clock and day <= high.date():
            if day in self._days(day.year, day.month):
                start = 0 if day > low.date() else bisect_left(self.clock, (low - _at(day, 0)) / timedelta(seconds=1))
                whole = day < high.date()
                stop = (
                    len(self.clock) if whole else bisect_left(self.clock, (high - _at(day, 0)) / timedelta(seconds=1))
                )
                total += max(0, stop - start)
            day += DAY
        return total

    def _days(self, year: int, month: int) -> tuple[date, ...]:
        """The days of a month that fit."""
        known = self._known.get((year, month))
        if known is None:
            known = ()
            if month in self._months:
                first = date(year, month, 1)
                days = (first + timedelta(days=n) for n in range(31))
                known = tuple(day for day in days if day.month == month and self._fits(day))
            self._known[year, month] = known
        return known


class _TimesOfDay:
    """Each time at the first instant at which the wall clock shows it or more."""

    def __init__(self, times: _Times, wall: Wall) -> None:
        self.times = times
        self.wall = wall

    def after(self, moment: datetime) -> datetime | None:
        reading = self.times.first(self.wall.furthest(moment) + TICK)
        return None if reading is None else self.wall.instant(reading)

    def last(self, moment: datetime) -> datetime | None:
        reading = self.times.last(self.wall.furthest(moment))
        return None if reading is None else self.wall.instant(reading)

    def count(self, after: datetime, until: datetime) -> int:
        total = self.times.number(self.wall.furthest(after) + TICK, self.wall.furthest(until) + TICK)
        before: timedelta | None = None
        for start, _, offset in self.wall.pieces(after, until + TICK):
            if before is not None and offset > before:  # those in one gap, and at its end, are one
                total -= max(0, self.times.number(start + before, start + offset + TICK) - 1)
            before = offset
        return total


class _Intervals:
    """Every instant whose wall clock shows one of the times."""

    def __init__(self, times: _Times, wall: Wall) -> None:
        self.times = times
        self.wall = wall

    def after(self, moment: datetime) -> datetime | None:
        return self.wall.first(moment + TICK, self.times)

    def last(self, moment: datetime) -> datetime | None:
        return self.wall.last(moment, self.times)

    def count(self, after: datetime, until: datetime) -> int:
        pieces = self.wall.pieces(after + TICK, until + TICK)
        return sum(self.times.number(start + offset, stop + offset) for start, stop, offset in pieces)


class _Window(Readings):
    """A part of every day, in seconds from its start: ``start`` belongs to it, ``end`` does not."""

    def __init__(self, active: tuple[str, str]) -> None:
        self.start, self.end = (timedelta(seconds=seconds_of(each)) for each in active)

    def holds(self, clock: timedelta) -> bool:
        """Whether a time of day lies in it."""
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def first(self, reading: datetime) -> datetime:
        midnight = _at(reading, 0)
        if self.holds(reading - midnight):
            return reading
        return midnight + self.start + (DAY if reading - midnight >= self.start else timedelta())

    def last(self, reading: datetime) -> datetime:
        midnight = _at(reading, 0)
        if self.holds(reading - midnight):
            return reading
        return midnight + self.end - TICK - (DAY if reading - midnight < self.end else timedelta())

    def within(self, low: datetime, high: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The parts of [low, high) that lie in it: (start, end)."""
        opens = self.first(low)
        while opens < high:
            midnight = _at(opens, 0)
            closes = midnight + self.end + (DAY if opens - midnight >= self.end else timedelta())
            yield opens, min(closes, high)
            opens = self.first(closes)


def seconds_of(clock: str) -> int:
    """The seconds from midnight of ``09:00`` or ``09:00:30``."""
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    return hours * 3600 + minutes * 60 + sum(seconds)


def _rule(table: Timetable, heartbeat: float, wall: Wall) -> _Once | _Period | _TimesOfDay | _Intervals:
    if table.cron:
        times, in_intervals = _cron_times(table.cron, table.active)
        return _Intervals(times, wall) if in_intervals else _TimesOfDay(times, wall)
    if table.at:
        return _TimesOfDay(_day_times(table.at, table.on, table.active), wall)
    if table.once:
        return _Once(_bound(table.once, wall))
    return _Period(table.every or heartbeat, _Window(table.active) if table.active else None, wall)


@lru_cache(maxsize=256)
def _cron_times(cron: str, active: tuple[str, str] | None) -> tuple[_Times, bool]:
    """The times of a cron rule, and whether it runs in intervals."""
    from cronsim import CronSim

    rule = CronSim(cron, _EPOCH)
    clock = tuple(hour * 3600 + minute * 60 for hour in sorted(rule.hours) for minute in sorted(rule.minutes))
    stars = any(
        term.startswith(("*", "0/")) or term.partition("/")[0] == whole
        for field, whole in zip(cron.split(), ("0-59", "0-23"), strict=False)
        for term in field.split(",")
    )
    in_intervals = stars or len(rule.hours) == 24 or len(rule.minutes) == 60
    return _Times(_inside(clock, active), rule.match_day, frozenset(rule.months)), in_intervals


@lru_cache(maxsize=256)
def _day_times(at: tuple[str, ...], on: tuple[int, ...], active: tuple[str, str] | None) -> _Times:
    clock = tuple(sorted({seconds_of(each) for each in at}))
    return _Times(_inside(clock, active), lambda day: not on or day.weekday() in on, frozenset(range(1, 13)))


@lru_cache(maxsize=64)
def _inside(clock: tuple[int, ...], active: tuple[str, str] | None) -> tuple[int, ...]:
    if active is None:
        return clock
    window = _Window(active)
    return tuple(each for each in clock if window.holds(timedelta(seconds=each)))


def _bound(text: str, wall: Wall, *, whole: bool = False) -> datetime:
    """The instant (naive, UTC) of a moment or of the start of a day; with ``whole``, the first one past it."""
    then = datetime.fromisoformat(text)
    if then.tzinfo:
        return _naive(then) + (TICK if whole else timedelta())
    if len(text) == len("2027-01-05"):
        return wall.instant(then + DAY if whole else then)
    return wall.instant(then) + (TICK if whole else timedelta())


def _at(day: date, seconds: int) -> datetime:
    return datetime.combine(day, time()) + timedelta(seconds=seconds)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)
