"""What models were asked for and what that took: an append-only record, one JSON line a model turn, one file a month.

``.fsagent/usage/2026-11.jsonl``, named by the month in UTC. Days and months of budgets are those of the workspace's
time zone, so a local one may lie in two files. The files are the truth: what somebody deletes or edits there is gone
or changed for the sums, too. A damaged line hurts only itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from fsagent.files.atomic import append_whole
from fsagent.model import Trigger, Usage
from fsagent.modelsettings import PeriodBudget
from fsagent.workspace.journal import open_append
from fsagent.workspace.layout import Layout

Zone = Callable[[datetime], datetime]
"""Gives an aware moment in the workspace's time zone, as ``Settings.local`` does."""
By = Literal["day", "task", "model"]

_NEVER = date.min
_NUMBERS = ("tokens_in", "tokens_out", "tokens_cached", "turns", "unpriced")


class Spent(Struct, frozen=True, kw_only=True):
    """One model turn and what it took. ``task`` is "" where no task asked for the run."""

    time: Annotated[datetime, Meta(tz=True)]
    run: str
    trigger: Trigger
    task: str = ""
    model: str = ""
    usage: Usage = Usage()


class Totals(Struct, frozen=True):
    """How many runs asked a model, each counted once, and what they took."""

    runs: int = 0
    usage: Usage = Usage()


class UsageRow(Struct, frozen=True, kw_only=True):
    """What was used on one day, by one task, of one model; what rows are not told apart by is None or "".

    ``runs`` counts each run once in each row, so a run that went over midnight is in two of them.
    """

    day: date | None = None
    task: str = ""
    model: str = ""
    runs: int = 0
    usage: Usage = Usage()


class Gauge(Struct, frozen=True, kw_only=True):
    """How far one budget is used. ``setting`` is its name; ``limit`` is None where it is off."""

    setting: str
    unit: Literal["runs", "tokens", "cost"]
    used: float
    limit: float | None

    @property
    def full(self) -> bool:
        """True if nothing is left."""
        return self.limit is not None and reached(self.used, self.limit)

    def __str__(self) -> str:
        return of_limit(self.used, self.limit, self.unit)


class Tally:
    """Sums up turns: what they took, and how many runs they belong to. Not thread-safe."""

    def __init__(self) -> None:
        self._runs: set[str] = set()
        self._sums = [0] * len(_NUMBERS)
        self._cost = 0.0

    def count(self, spent: Spent) -> None:
        """Take one turn in."""
        sums, used = self._sums, spent.usage
        sums[0] += used.tokens_in
        sums[1] += used.tokens_out
        sums[2] += used.tokens_cached
        sums[3] += used.turns
        sums[4] += used.unpriced
        self._cost += used.cost
        self._runs.add(spent.run)

    def totals(self) -> Totals:
        """The sums so far."""
        return Totals(len(self._runs), Usage(cost=self._cost, **dict(zip(_NUMBERS, self._sums, strict=True))))


class UsageBook:
    """Records what was used, and knows what the day and the month have used so far. Safe to share between threads.

    The sums of one local day and its month are kept in memory and asked of the files again when the day, the zone or
    anything in the files has changed by another hand. Limit: a change by another hand that leaves a file with the same
    size, within the same tick of its clock, is not seen. One process writes, any number may read.
    """

    def __init__(self, layout: Layout, zone: Zone) -> None:
        self.zone = zone
        self._folder = layout.usage
        self._lock = threading.Lock()
        self._sums: _Sums | None = None

    def add(self, spent: Spent) -> None:
        """Record a turn: in the file (not synced) when this returns, and in the sums. Raises ``OSError``."""
        spent = msgspec.structs.replace(spent, time=spent.time.astimezone(UTC))
        path = self._folder / f"{spent.time:%Y-%m}.jsonl"
        with self._lock:
            before = _mark(path)
            fd = self._open(path)
            try:
                append_whole(fd, msgspec.json.encode(spent) + b"\n")
                after = _mark_of(os.fstat(fd))
            finally:
                os.close(fd)
            if self._sums and path in self._sums.marks and self._sums.marks[path] == before:
                self._sums.count(spent)
                self._sums.marks[path] = after

    def day(self, moment: datetime, task: str = "") -> Totals:
        """What was used on the local day of ``moment``, by all runs or those of one task. Raises ``OSError``."""
        with self._lock:
            sums = self._fresh(moment)
            if not task:
                return sums.of_day.totals()
            return sums.tasks[task].totals() if task in sums.tasks else Totals()

    def month(self, moment: datetime) -> Totals:
        """What was used in the local month of ``moment``. Raises ``OSError``."""
        with self._lock:
            return self._fresh(moment).of_month.totals()

    def _open(self, path: Path) -> int:
        try:
            return open_append(path)
        except FileNotFoundError:  # somebody removed the folder
            path.parent.mkdir(exist_ok=True)
            return open_append(path)

    def _fresh(self, moment: datetime) -> _Sums:
        sums = self._sums
        if sums is None or not sums.hold(moment, self.zone):
            self._sums = sums = _Sums(self._folder, moment, self.zone)
        return sums


class _Sums:
    """The sums of one local day and its month, and the marks of the files that they were read from."""

    def __init__(self, folder: Path, moment: datetime, zone: Zone) -> None:
        self._zone = zone
        self._day = zone(moment).date()
        self._offsets = self._probe(zone)
        self.of_month, self.of_day, self.tasks = Tally(), Tally(), dict[str, Tally]()
        self.marks: dict[Path, object] = {}
        for name in _months_around(self._day):
            path = folder / f"{name}.jsonl"
            self.marks[path] = _mark(path)
            for _, spent in read_spent_file(path):
                if spent:
                    self.count(spent)

    def hold(self, moment: datetime, zone: Zone) -> bool:
        """True while they are the sums of this moment's day, and nobody else touched the files."""
        if zone(moment).date() != self._day or self._probe(zone) != self._offsets:
            return False
        return all(_mark(path) == mark for path, mark in self.marks.items())

    def count(self, spent: Spent) -> None:
        """Take in a turn that belongs to the month; any other is passed over."""
        day = self._zone(spent.time).date()
        if (day.year, day.month) != (self._day.year, self._day.month):
            return
        self.of_month.count(spent)
        if day == self._day:
            self.of_day.count(spent)
            if spent.task:
                self.tasks.setdefault(spent.task, Tally()).count(spent)

    def _probe(self, zone: Zone) -> list[timedelta | None]:
        """How the zone looks in this month; it changes when the settings name another one."""
        year, month = self._day.year, self._day.month
        return [zone(datetime(year, month, day, tzinfo=UTC)).utcoffset() for day in (1, 10, 20, 28)]


def read_spent(layout: Layout, since: date | None, zone: Zone) -> Iterator[tuple[date, Spent]]:
    """Every turn from the local day ``since`` on with its local day, file by file."""
    first = f"{since - timedelta(days=1):%Y-%m}" if since and since > _NEVER else ""
    for path in usage_files(layout):
        for _, spent in read_spent_file(path) if path.stem >= first else ():
            if spent:
                day = zone(spent.time).date()
                if since is None or day >= since:
                    yield day, spent


def usage_files(layout: Layout) -> list[Path]:
    """The files there are, oldest first."""
    return sorted(layout.usage.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].jsonl"))


def read_spent_file(path: Path) -> Iterator[tuple[int, Spent | None]]:
    """The turns of one file with their line numbers; None for a line that is none (torn, damaged, of another month).

    A missing file has no turns. Raises ``OSError`` where it cannot be read.
    """
    decode = msgspec.json.Decoder(Spent).decode
    month = tuple(map(int, path.stem.split("-")))
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line != b"\n":
                    yield number, _of_month(month, decode, line)
    except FileNotFoundError:
        return


def gauges(name: Literal["task", "day", "month"], budget: PeriodBudget, totals: Totals) -> tuple[Gauge, ...]:
    """How far each budget of a period is used."""
    used = {"runs": totals.runs, "tokens": totals.usage.tokens, "cost": round(totals.usage.cost, 9)}
    return tuple(
        Gauge(setting=f"budget.{name}.{unit}", unit=unit, used=used[unit],
              limit=None if (limit := getattr(budget, unit)) == float("inf") else float(limit))
        for unit in ("runs", "tokens", "cost")
    )  # fmt: skip


def reached(used: float, limit: float) -> bool:
    """True if nothing of the limit is left. Sums of cents are not exact, so next to nothing counts as nothing."""
    return used >= limit - 1e-9


def of_limit(used: float, limit: float | None, unit: str) -> str:
    """``301,234 of 300,000 tokens``, or ``$1.02 of $1``; without the limit where there is none."""
    words = money if unit == "cost" else "{:,.10g}".format
    most = "" if limit is None or limit == float("inf") else f" of {words(limit)}"
    return f"{words(used)}{most}" + ("" if unit == "cost" else f" {unit}")


def money(cost: float) -> str:
    """US dollars for people: ``$12.50``, ``$0.0041``, ``$5``."""
    if 0 < cost < 0.0001:
        return "<$0.0001"
    text = f"{cost:,.2f}" if cost >= 1 else f"{cost:.4f}".rstrip("0").ljust(4, "0")
    return "$" + text.removesuffix(".00")


def _of_month(month: tuple[int, ...], decode: Callable[[bytes], Spent], line: bytes) -> Spent | None:
    try:
        spent = decode(line)
        utc = spent.time.astimezone(UTC)
        return spent if (utc.year, utc.month) == month else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return None


def _months_around(day: date) -> list[str]:
    """The months in UTC that the local month of a day may lie in, whatever the zone."""
    first = day.replace(day=1)
    return sorted({f"{first + timedelta(days=days):%Y-%m}" for days in (-1, 0, 31)})


def _mark(path: Path) -> object:
    """What changes with every change of a file; None where there is none. Raises ``OSError``."""
    try:
        return _mark_of(os.stat(path))
    except FileNotFoundError:
        return None


def _mark_of(stat: os.stat_result) -> object:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
