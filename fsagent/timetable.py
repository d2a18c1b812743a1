"""When a task falls due: the rule, bound to a zone, and its slots.

A slot is a fixed point of the wall clock (aware, UTC), so that nothing ever drifts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from msgspec import Struct

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timetable(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule as plain data, checked by whoever made it (``timetext``). At most one of ``every``, ``cron``, ``at`` and
    ``once`` is given; none means every heartbeat.

    ``every`` is a period in seconds; ``cron`` five fields; ``at`` times of day (``09:00``) on the weekdays ``on`` (0 is
    Monday; none means all); ``once`` one moment; ``zone`` the task's own time zone. ``begin`` and ``end`` bound the
    slots, ``active`` is the part of the day (start, end) that they may lie in. Moments and times without a zone of
    their own are of the task's zone.
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

    All moments are aware; slots come in UTC.
    """

    def __init__(self, table: Timetable, heartbeat: float, zone: tzinfo | None) -> None:
        self.table = table
        self.period = timedelta(seconds=table.every or heartbeat)

    def after(self, moment: datetime) -> datetime | None:
        """The first slot after a moment; None where there is none any more."""
        return EPOCH + ((moment - EPOCH) // self.period + 1) * self.period

    def last(self, moment: datetime) -> datetime | None:
        """The latest slot at or before a moment; None where there was none."""
        return EPOCH + (moment - EPOCH) // self.period * self.period

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The slots after ``after`` up to and with ``until``, in order."""
        slot = self.after(after)
        while slot is not None and slot <= until:
            yield slot
            slot = self.after(slot)

    def count(self, after: datetime, until: datetime) -> int:
        """How many slots ``between`` would give; costs little however many there are."""
        return sum(1 for _ in self.between(after, until))
