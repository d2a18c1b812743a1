"""What a rule means: in words, its next slots, and what becomes of them where the clocks change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec
from msgspec import Struct

from fsagent.config import Settings
from fsagent.errors import DocumentError, PersonError
from fsagent.files.documents import read_document, write_document
from fsagent.files.fields import format_duration
from fsagent.files.yamltext import plain
from fsagent.timetable import Slots, Timetable
from fsagent.timetext import in_words, rule_from_text
from fsagent.workspace.outlook import zone_of
from fsagent.workspace.taskfile import read_task
from fsagent.zones import zone_name

SHOWN = 5
AHEAD = timedelta(days=366)
_INSTANT = timedelta(microseconds=1)
_DAY = 86_400.0


class Explained(Struct, frozen=True, kw_only=True):
    """A rule: ``rule`` in words, ``fields`` as they stand in a task, the next ``slots`` in its time zone, and ``notes``
    on what happens where the clocks change within the next year."""

    rule: str
    fields: dict[str, Any]
    timezone: str
    slots: list[datetime]
    notes: list[str]


class Change(Struct, frozen=True):
    """A moment (UTC) at which clocks are set; by them it is ``before`` and becomes ``after`` (without a zone)."""

    moment: datetime
    before: datetime
    after: datetime


def explain(text: str, settings: Settings, now: datetime, timezone: str = "") -> Explained:
    """What ``text`` means: a rule in one line, or fields of a task (``cron: "0 9 * * *"``); at ``now``, in this time
    zone unless it names one. Raises ``PersonError`` with what to write instead."""
    try:
        raw = _document(text)
        fields = {name: plain(value) for name, value in read_document(raw, "rule").fields.items()}
        table = read_task(raw, "rule", "rule").table
    except DocumentError as error:
        raise PersonError(
            "; ".join(f"{f.field}: {f.message}" if f.field else f.message for f in error.faults)
        ) from None
    except ValueError as error:
        raise PersonError(f"the rule {error}" if str(error).startswith(("'", '"')) else str(error)) from None
    if timezone and not table.zone:
        _check(timezone)
        table = msgspec.structs.replace(table, zone=timezone)
    zone = zone_of(table, settings)
    name = zone_name(zone)
    slots, found = Slots(table, settings.heartbeat_interval, settings.zone), list[datetime]()
    slot = slots.after(now)
    while slot is not None and len(found) < SHOWN:
        found.append(slot.astimezone(zone))
        slot = slots.after(slot)
    period = table.every or settings.heartbeat_interval
    notes = []
    for change in changes(zone, now, now + AHEAD):
        by_the_clock = table.cron or table.at or table.once
        note = _note(table, slots, change, zone) if by_the_clock else _drift(period, slots, change, zone)
        notes += [f"on {change.before:%Y-%m-%d} {note}"] if note else []
    words = in_words(table, settings.heartbeat_interval)
    return Explained(rule=words, fields=fields, timezone=name, slots=found, notes=notes)


def changes(zone: tzinfo | None, after: datetime, until: datetime) -> Iterator[Change]:
    """When the clocks of a zone are set, between two moments."""
    low, step = after.astimezone(UTC).replace(microsecond=0), timedelta(days=1)
    while low < until:
        high = low + step
        if _offset(low, zone) != _offset(high, zone):
            first, last = low, high
            while last - first > timedelta(seconds=1):
                middle = (first + (last - first) / 2).replace(microsecond=0)
                first, last = (middle, last) if _offset(middle, zone) == _offset(low, zone) else (first, middle)
            naive = last.replace(tzinfo=None)
            yield Change(last, naive + _offset(low, zone), naive + _offset(last, zone))
        low = high


def _offset(moment: datetime, zone: tzinfo | None) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _document(text: str) -> bytes:
    """A task with this rule."""
    if re.match(r"\s*[A-Za-z_]+:", text):
        return f"---\n{text.strip()}\n---\nwork\n".encode()
    return write_document(rule_from_text(text), "work")


def _check(timezone: str) -> None:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        names = {name.casefold(): name for name in available_timezones()}
        close = get_close_matches(timezone.casefold(), names, n=1)
        hint = f" (did you mean '{names[close[0]]}'?)" if close else "; write for instance Europe/Berlin"
        raise PersonError(f"--timezone: {timezone!r} is no time zone{hint}") from None


def _note(table: Timetable, slots: Slots, change: Change, zone: tzinfo | None) -> str:
    """What becomes of times of the clock at a change of the clocks; "" where it does not touch them."""
    gap = change.after > change.before
    begin, end = sorted((change.before, change.after))
    meant = list(_by_the_clock(table, begin, end))
    if not meant:
        return ""
    around = abs(change.after - change.before)
    first = change.moment if gap else change.moment - around
    real = [slot.astimezone(zone) for slot in slots.between(first - _INSTANT, change.moment + around - _INSTANT)]
    times = f"{meant[0]:%H:%M}" + (f" to {meant[-1]:%H:%M}" if len(meant) > 1 else "")
    verb = "does" if len(meant) == 1 else "do"
    if gap:
        own = any(_by_the_clock(table, change.after, change.after + timedelta(seconds=1)))
        runs = f"runs at {real[0]:%H:%M}" if real and not own else "goes on at the next time"
        return f"{times} {verb} not exist: {runs}"
    come = f"{times} {'comes' if verb == 'does' else 'come'} twice"
    if len(real) > len(meant):
        return f"{come}: runs both times"
    return f"{come}: runs once" + (f", at {real[0].isoformat(' ', 'minutes')[11:]}" if len(real) == 1 else "")


def _by_the_clock(table: Timetable, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The times from ``begin`` up to ``end`` that the rule means on a clock that nobody sets."""
    steady = Slots(msgspec.structs.replace(table, zone="UTC"), _DAY, UTC)
    last = end.replace(tzinfo=UTC) - _INSTANT
    for slot in steady.between(begin.replace(tzinfo=UTC) - _INSTANT, last):
        yield slot.replace(tzinfo=None)


def _drift(period: float, slots: Slots, change: Change, zone: tzinfo | None) -> str:
    """Periods are counted in UTC, so by the clock they move where the clocks do."""
    moved = change.after - change.before
    if not abs(moved).total_seconds() % period:
        return ""
    ahead = "later" if moved > timedelta() else "earlier"
    words = f"its slots move by {format_duration(abs(moved).total_seconds())} by the clock ({ahead})"
    before, after = slots.last(change.moment - _INSTANT), slots.after(change.moment - _INSTANT)
    if period % _DAY or before is None or after is None:
        return words
    was, new = before.astimezone(zone), after.astimezone(zone)
    return f"{words}, from {was:%H:%M} to {new:%H:%M}; 'at: \"{was:%H:%M}\"' would stay"
