"""What models took, as faces show it: by day, task or model, and how far the budgets are used. Read from the files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from fsagent.config import Settings, load_settings
from fsagent.errors import SettingsError
from fsagent.model import Usage
from fsagent.workspace.layout import Layout
from fsagent.workspace.usage import By, Gauge, Tally, UsageBook, UsageRow, gauges, money, read_spent

DAYS = 30
MAX_DAYS = 3660
_HEAD = ("RUNS", "TURNS", "TOKENS IN", "(CACHED)", "TOKENS OUT", "COST")
_NAMELESS = {"day": "", "task": "(no task)", "model": "(unknown)"}


class UsageView(Struct, frozen=True, kw_only=True):
    """What models took from the day ``since`` on, in the workspace's zone. ``total`` counts each run once.

    ``today`` and ``month`` say how far the budgets of this day and month are used; ``limit`` is null for no limit.
    """

    since: date
    by: By
    rows: list[UsageRow]
    total: UsageRow
    today: tuple[Gauge, ...]
    month: tuple[Gauge, ...]

    def __str__(self) -> str:
        return usage_text(self)


def read_usage_view(layout: Layout, days: int = DAYS, by: By = "day", now: datetime | None = None) -> UsageView:
    """What was used today and on the days before it, ``days`` in all. Raises ``OSError`` where a file is unreadable."""
    try:
        settings = load_settings(layout.settings)
    except SettingsError:  # doctor's business
        settings = Settings()
    now = now or datetime.now(UTC)
    since = settings.local(now).date() - timedelta(days=days - 1)
    tallies, total = dict[date | str, Tally](), Tally()
    for day, spent in read_spent(layout, since, settings.local):
        key = day if by == "day" else spent.task if by == "task" else spent.model
        tallies.setdefault(key, Tally()).count(spent)
        total.count(spent)
    book = UsageBook(layout, settings.local)
    return UsageView(
        since=since, by=by, rows=[_row(tallies[key], by, key) for key in sorted(tallies, key=str)], total=_row(total),
        today=gauges("day", settings.budget.day, book.day(now)),
        month=gauges("month", settings.budget.month, book.month(now)),
    )  # fmt: skip


def usage_text(view: UsageView) -> str:
    """A table with a line of sums, and below it the budgets."""
    parts = list[str]()
    if view.rows:
        cells: list[tuple[str, ...]] = [(view.by.upper(), *_HEAD)]
        cells += [_cells(str(getattr(row, view.by)) or _NAMELESS[view.by], row) for row in view.rows]
        cells.append(_cells("total", view.total))
        parts += _aligned(cells)
    else:
        parts.append(f"no model was asked since {view.since}")
    unpriced = view.total.usage.unpriced
    if unpriced:
        verb = "turn of unknown price is" if unpriced == 1 else "turns of unknown price are"
        parts.append(f"{unpriced:,} {verb} not in the cost")
    parts += ["", f"today:      {_budget(view.today)}", f"this month: {_budget(view.month)}"]
    return "\n".join(parts)


def _row(tally: Tally, by: By | None = None, key: date | str = "") -> UsageRow:
    sums = tally.totals()
    return UsageRow(
        day=key if isinstance(key, date) else None, task=str(key) if by == "task" else "",
        model=str(key) if by == "model" else "", runs=sums.runs, usage=_rounded(sums.usage),
    )  # fmt: skip


def _rounded(usage: Usage) -> Usage:
    """Sums of many small costs without the noise of binary fractions."""
    return replace(usage, cost=round(usage.cost, 9))


def _cells(name: str, row: UsageRow) -> tuple[str, ...]:
    used = row.usage
    cost = money(used.cost) if used.cost or not used.unpriced else "unknown"
    numbers = (row.runs, used.turns, used.tokens_in, used.tokens_cached, used.tokens_out)
    return (name, *(f"{number:,}" for number in numbers), cost)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join((row[0].ljust(widths[0]), *numbers)))
    return lines


def _budget(budgets: Sequence[Gauge]) -> str:
    return ", ".join(f"{each} (used up)" if each.full else str(each) for each in budgets)
