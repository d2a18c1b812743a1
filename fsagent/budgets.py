"""Budgets: whether a model may be asked (again), and in words why not.

A run has a budget of its own, from the settings and from its command; the smaller one counts. All runs share those of
one task in a day, of a day, and of a month, by what the usage book says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from fsagent.config import Settings
from fsagent.model import Command, Usage
from fsagent.modelsettings import PeriodBudget
from fsagent.workspace.usage import Gauge, Totals, UsageBook, gauges, of_limit, reached

_UNITS = {"steps": "steps", "calls": "tool calls", "tokens": "tokens", "cost": "cost"}


class Exhausted(Struct, frozen=True):
    """A budget that is used up: why no model is asked, in words, and a name that is the same all through its period.

    ``key`` is such as ``budget day 2026-11-27``, so that one notice can be sent for it; "" for a run's own budget.
    """

    reason: str
    key: str = ""


class _Period(Struct, frozen=True):
    """One period that is now: its budget, what of it is used, and when it begins anew, in local time."""

    words: str
    key: str
    ends: str
    gauges: tuple[Gauge, ...]


class Budgets:
    """Judges by the settings in force and the usage book. Safe to share between threads.

    Limit: a turn is judged before it is asked, by what was used until then. So a budget is overdrawn by at most what
    those turns take that are under way when it is used up: one for each run. ``runs`` likewise, by new runs that have
    yet to have their first turn.
    """

    def __init__(self, settings: Callable[[], Settings], book: UsageBook, now: Callable[[], datetime]) -> None:
        self._settings, self._book, self._now = settings, book, now

    def check(self, command: Command, used: Usage, steps: int, calls: int) -> Exhausted | None:
        """Why this run may not ask a model once more; None if it may.

        ``used`` is what the run has used so far, all of which is in the book already; a run that has used nothing is a
        new one, and only a new one can be beyond ``runs``. After its last tool call a run may still ask, so that it can
        say how it went: that no call is made beyond is the caller's to see to, by ``calls_left``.
        """
        return self._of_run(command, used, steps, calls) or self._first(command.task, new=not used)

    def calls_left(self, command: Command, calls: int) -> float:
        """How many tool calls a run that made so many may still make; infinity where there is no limit."""
        return max(0, self._limit(command, "calls")[0] - calls)

    def blocked(self, task: str = "") -> Exhausted | None:
        """Why no new run (of this task) may ask a model now: the month, the day or the task's day is used up."""
        return self._first(task, new=True)

    def near(self) -> list[str]:
        """For people who look at the status: the budgets of the month and the day that are used up."""
        try:
            return [found.reason for period in self._periods("") if (found := _used_up(period, new=True))]
        except OSError as error:
            return [_unreadable(error).reason]

    def _of_run(self, command: Command, used: Usage, steps: int, calls: int) -> Exhausted | None:
        amounts = {"steps": steps, "calls": calls, "tokens": used.tokens, "cost": used.cost}
        for name, amount in amounts.items():
            limit, own = self._limit(command, name)
            if amount > limit if name == "calls" else reached(amount, limit):
                where = f"its own budget: {name}" if own else f"budget.run.{name}"
                how = "raise it in its file" if own else "raise it in fsagent.yaml, or ask for less at a time"
                told = of_limit(amount, limit, _UNITS[name])
                return Exhausted(f"the budget of this run is used up: {told} ({where}); {how}")
        return None

    def _limit(self, command: Command, name: str) -> tuple[float, bool]:
        """A limit of this run, and whether its command set it."""
        general = float(getattr(self._settings().budget.run, name))
        own = command.budget.get(name, general)
        return (own, True) if own < general else (general, False)

    def _first(self, task: str, *, new: bool) -> Exhausted | None:
        """The first budget that is used up, the longest period first: it says truly when things go on."""
        try:
            return next((found for period in self._periods(task) if (found := _used_up(period, new=new))), None)
        except OSError as error:
            return _unreadable(error)

    def _periods(self, task: str) -> Iterator[_Period]:
        """Those that have any limit. What has none is not asked of the book."""
        budget, now = self._settings().budget, self._now()
        local = self._book.zone(now)
        tomorrow = local.date() + timedelta(days=1)
        next_month = (local.date().replace(day=1) + timedelta(days=31)).replace(day=1)
        if _limited(budget.month):
            sums = gauges("month", budget.month, self._book.month(now))
            yield _Period("this month", f"budget month {local:%Y-%m}", f"{next_month} 00:00", sums)
        if _limited(budget.day):
            sums = gauges("day", budget.day, self._book.day(now))
            yield _Period("today", f"budget day {local:%Y-%m-%d}", f"{tomorrow} 00:00", sums)
        if task and _limited(budget.task):
            sums = gauges("task", budget.task, self._book.day(now, task))
            yield _Period(
                f"the task {task} for today", f"budget task {task} {local:%Y-%m-%d}", f"{tomorrow} 00:00", sums
            )


def _limited(budget: PeriodBudget) -> bool:
    return any(gauge.limit is not None for gauge in gauges("day", budget, Totals()))


def _used_up(period: _Period, *, new: bool) -> Exhausted | None:
    for gauge in period.gauges:
        if gauge.full and (new or gauge.unit != "runs"):
            return Exhausted(
                f"the budget of {period.words} is used up: {gauge} ({gauge.setting}); no model is asked until "
                f"{period.ends}, unless you raise it in fsagent.yaml",
                period.key,
            )
    return None


def _unreadable(error: OSError) -> Exhausted:
    """Who cannot know what was spent spends nothing."""
    why = f"{error.filename}: {os.strerror(error.errno or 0)}"
    return Exhausted(
        f"what was used cannot be read ({why}), so no model is asked; let this user read the file, or remove it",
        "budget unreadable",
    )
