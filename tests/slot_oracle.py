"""When a rule is due, by brute force: every real minute of a window is walked, and its wall clock looked at.

Written from the promise alone, knowing nothing of ``fsagent.timetable`` or cronsim. ``walk`` gives the minutes of a
window, ``Rule`` reads a rule and picks its slots among them. Limit: rules and zones in whole minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
MONTHS = ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


class Minute(NamedTuple):
    """One real minute: the wall clock's reading, and the readings that are reached by it for the first time (none in a
    repeated hour, besides its own all that are left out by a gap that ends here)."""

    instant: datetime
    reading: datetime
    reached: list[datetime]


def walk(zone: tzinfo, start: datetime, end: datetime) -> list[Minute]:
    """The whole minutes of [start, end); some hours before are walked too, to know what was shown already."""
    minute = start.replace(second=0, microsecond=0) - 4 * HOUR
    highest = minute.astimezone(zone).replace(tzinfo=None)
    found = []
    while minute < end:
        reading = minute.astimezone(zone).replace(tzinfo=None, fold=0)
        reached = []
        while highest < reading:
            highest += MINUTE
            reached.append(highest)
        if minute >= start:
            found.append(Minute(minute, reading, reached))
        minute += MINUTE
    return found


def changes(zone: tzinfo, first_year: int, last_year: int) -> Iterator[datetime]:
    """Every instant at which the zone's clocks are changed, found by looking at each day."""
    day = datetime(first_year, 1, 1, tzinfo=UTC)
    while day.year <= last_year:
        if day.astimezone(zone).utcoffset() != (day + DAY).astimezone(zone).utcoffset():
            minute = day
            before = day.astimezone(zone).utcoffset()
            for step in (HOUR, MINUTE):
                while (minute + step).astimezone(zone).utcoffset() == before:
                    minute += step
            yield minute + MINUTE
        day += DAY


class Rule:
    """A rule from fields of frontmatter: ``every`` in whole minutes as ``30m`` or ``2h``, ``cron``, ``at`` with ``on``,
    ``once``; ``active``, ``from`` and ``until``."""

    def __init__(self, zone: tzinfo, **fields: str | list[str]) -> None:
        self.zone = zone
        self.fields = fields
        self.period = 0
        self.steady = False
        self.clock: set[int] = set()
        self.date = None
        if "cron" in fields:
            self._read_cron(str(fields["cron"]).lower().split())
        elif "at" in fields:
            self.clock = {_minutes(each) for each in _texts(fields["at"])}
        elif "once" in fields:
            day, time = str(fields["once"]).split()
            self.clock, self.date = {_minutes(time)}, date.fromisoformat(day)
        else:
            text = str(fields["every"])
            self.period = int(text[:-1]) * {"m": 1, "h": 60, "d": 1440}[text[-1]]

    def slots(self, minutes: list[Minute]) -> list[datetime]:
        """Those of the minutes at which it is due; of a period only every so many minutes can be."""
        if self.period and minutes:
            minutes = minutes[-(int(minutes[0].instant.timestamp()) // 60) % self.period :: self.period]
        return [minute.instant for minute in minutes if self._due(minute) and self._within(minute.instant)]

    def _due(self, minute: Minute) -> bool:
        if self.period:
            return self._active(minute.reading)
        for reading in (minute.reading,) if self.steady else minute.reached:
            if reading.hour * 60 + reading.minute in self.clock and self._fits(reading) and self._active(reading):
                return True
        return False

    def _fits(self, reading: datetime) -> bool:
        day = reading.date()
        if "cron" in self.fields:
            return day.month in self.months and self._day_fits(day)
        if "on" in self.fields:
            return WEEKDAYS[day.isoweekday() % 7] in _texts(self.fields["on"])
        return self.date is None or day == self.date

    def _active(self, reading: datetime) -> bool:
        if "active" not in self.fields:
            return True
        start, end = (_minutes(each) for each in str(self.fields["active"]).split("-"))
        now = reading.hour * 60 + reading.minute
        return start <= now < end if start < end else now >= start or now < end

    def _within(self, instant: datetime) -> bool:
        day = str(instant.astimezone(self.zone).date())
        return str(self.fields.get("from", "")) <= day <= str(self.fields.get("until", "9"))

    def _read_cron(self, fields: list[str]) -> None:
        minutes, hours = (_values(field, *LIMITS[n], []) for n, field in enumerate(fields[:2]))
        self.clock = {hour * 60 + minute for hour in hours for minute in minutes}
        self.steady = any(
            "*" in field or len(set(values)) == most + 1 or any(_whole(term, most) for term in field.split(","))
            for field, values, most in ((fields[0], minutes, 59), (fields[1], hours, 23))
        )
        self.days, self.weekdays = fields[2], fields[4]
        self.months = _values(fields[3], 1, 12, MONTHS)

    def _day_fits(self, day: date) -> bool:
        by_day = any(self._day_of_month(term, day) for term in self.days.split(","))
        by_weekday = any(self._day_of_week(term, day) for term in self.weekdays.split(","))
        if self.days[0] == "*" or self.weekdays[0] == "*":
            return by_day and by_weekday
        return by_day or by_weekday

    @staticmethod
    def _day_of_month(term: str, day: date) -> bool:
        last = (day.replace(day=28) + 4 * DAY).replace(day=1) - DAY
        if term == "l":
            return day == last
        if term == "lw":
            while last.isoweekday() > 5:
                last -= DAY
            return day == last
        return day.day in _values(term, 1, 31, [])

    @staticmethod
    def _day_of_week(term: str, day: date) -> bool:
        today = day.isoweekday() % 7
        if "#" in term:
            name, number = term.split("#")
            return today in _weekdays(name) and (day.day - 1) // 7 + 1 == int(number)
        if term[-1] == "l":
            return today in _weekdays(term[:-1]) and (day + 7 * DAY).month != day.month
        return today in _weekdays(term)


def _weekdays(term: str) -> set[int]:
    return {value % 7 for value in _values(term, 0, 7, WEEKDAYS)}


def _whole(term: str, most: int) -> bool:
    """Whether a term steps through the whole field from its start."""
    return term.partition("/")[0] in ("*", f"0-{most}") or term.startswith("0/")


def _values(field: str, least: int, most: int, names: list[str]) -> list[int]:
    def number(text: str) -> int:
        return names.index(text) if text in names else int(text)

    found: list[int] = []
    for term in field.split(","):
        span, _, step = term.partition("/")
        if span == "*":
            low, high = least, most
        elif "-" in span:
            low, high = (number(each) for each in span.split("-"))
        else:
            low = number(span)
            high = most if step else low
        found += range(low, high + 1, int(step or 1))
    return found


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _minutes(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)
