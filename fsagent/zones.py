"""Wall clocks: what a clock in a time zone shows at an instant, and at which instants it shows something.

Instants are naive and mean UTC; readings are naive and mean what the wall clock shows. A zone's clocks are changed by
less than a day, and at most once in any day.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
_FAR = 3 * DAY
_LOCALTIME = "/etc/localtime"
_TIMEZONE = "/etc/timezone"


class Readings(Protocol):
    """A set of readings: the first at or after a given one, the last at or before it; None if none is near."""

    def first(self, reading: datetime) -> datetime | None: ...
    def last(self, reading: datetime) -> datetime | None: ...


class Wall:
    """The wall clock of a zone."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone

    def offset(self, instant: datetime) -> timedelta:
        """How far the wall clock is ahead of UTC."""
        return self._local(instant).utcoffset() or timedelta()

    def instant(self, reading: datetime) -> datetime:
        """The first instant at which the wall clock shows a reading or more."""
        before = reading.replace(tzinfo=self.zone).utcoffset() or timedelta()
        found = reading - before
        after = self.offset(found)
        return found if after == before else self._change(reading - after, found)

    def furthest(self, instant: datetime) -> datetime:
        """The furthest reading that the wall clock has shown up to an instant: in a repeated hour, the end of the
        first."""
        local = self._local(instant)
        reading = local.replace(tzinfo=None, fold=0)
        if not local.fold:
            return reading
        before = local.replace(fold=0).utcoffset() or timedelta()
        return self._change(reading - before, instant) + before - TICK

    def pieces(self, low: datetime, high: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
        """[low, high) in pieces of at most a day in which the clock is not changed: (start, end, offset)."""
        offset = self.offset(low)
        while low < high:
            end = min(low + DAY, high)
            next_offset = self.offset(end)
            if next_offset != offset:
                end = self._change(low, end)
            yield low, end, offset
            low, offset = end, next_offset

    def first(self, instant: datetime, readings: Readings) -> datetime | None:
        """The first instant, at or after the given one, at which the wall clock shows one of the readings."""
        while True:
            for start, end, offset in self.pieces(instant, instant + DAY):
                found = readings.first(start + offset)
                if found is not None and found < end + offset:
                    return found - offset
            # beyond a day from here the wall clock shows only what lies further on, so it is safe to jump
            found = readings.first(instant + offset)
            if found is None:
                return None
            instant = max(instant + DAY, found - _FAR)

    def last(self, instant: datetime, readings: Readings) -> datetime | None:
        """The last instant, at or before the given one, at which the wall clock shows one of the readings."""
        while True:
            for start, end, offset in reversed([*self.pieces(instant - DAY, instant + TICK)]):
                found = readings.last(end + offset - TICK)
                if found is not None and found >= start + offset:
                    return found - offset
            found = readings.last(instant + offset)
            if found is None:
                return None
            instant = min(instant - DAY, found + _FAR)

    def _local(self, instant: datetime) -> datetime:
        return instant.replace(tzinfo=UTC).astimezone(self.zone)

    def _change(self, low: datetime, high: datetime) -> datetime:
        """The first instant after ``low``, up to ``high``, with another offset than at ``low`` (to the second)."""
        low = low.replace(microsecond=0)
        offset, near, far = self.offset(low), 0, int((high - low).total_seconds()) + 1
        while far - near > 1:
            middle = (near + far) // 2
            if self.offset(low + timedelta(seconds=middle)) == offset:
                near = middle
            else:
                far = middle
        return low + timedelta(seconds=far)


def system_zone() -> tzinfo:
    """The system's time zone with its rules: ``TZ``, else /etc/localtime, else /etc/timezone, else UTC.

    As in the C library, a ``TZ`` that is empty or names nothing means UTC. A changed setting is seen at the next call.
    """
    try:
        status = os.lstat(_LOCALTIME)
        seen = (status.st_mtime_ns, status.st_ino)
    except OSError:
        seen = None
    return _system_zone(os.environ.get("TZ"), seen)


@lru_cache(maxsize=4)
def _system_zone(variable: str | None, _localtime: tuple[int, int] | None) -> tzinfo:
    if variable is not None:
        text = variable.removeprefix(":")
        return (_named(text.partition("zoneinfo/")[2]) or _read(text)) if text.startswith("/") else _posix(text)
    link = os.path.realpath(_LOCALTIME)
    try:
        with open(_TIMEZONE, encoding="utf-8", errors="replace") as file:
            name = file.read(200).strip()
    except OSError:
        name = ""
    if os.path.exists(link):
        return _named(link.partition("zoneinfo/")[2]) or _read(link)
    return _named(name) or UTC


def _named(name: str) -> tzinfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _read(path: str) -> tzinfo:
    """The rules in a file that nobody named."""
    from zoneinfo import ZoneInfo

    try:
        with open(path, "rb") as file:
            return ZoneInfo.from_file(file)
    except (ValueError, OSError):
        return UTC


def _posix(text: str) -> tzinfo:
    """The zone of a name, or of rules such as ``CET-1CEST,M3.5.0,M10.5.0/3``."""
    import io
    from zoneinfo import ZoneInfo

    named = _named(text)
    if named or not text:
        return named or UTC
    head = b"TZif2" + bytes(15)
    one_type = head + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4)) + bytes(6) + b"UTC\0"
    try:
        return ZoneInfo.from_file(io.BytesIO(one_type * 2 + b"\n" + text.encode() + b"\n"))
    except (ValueError, OSError):
        return UTC


def zone_name(zone: tzinfo | None) -> str:
    """A zone (None: the system's) for people: ``Europe/Berlin``; where it has no name, ``CET/CEST``."""
    zone = zone or system_zone()
    names = [datetime(2026, month, 1, tzinfo=zone).tzname() or "" for month in (1, 7)]
    return str(getattr(zone, "key", "") or "/".join(dict.fromkeys(names)))
