"""Budgets, with a stepped clock: what a run, a task, a day and a month may use, and in which words it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsagent.budgets import Budgets, Exhausted
from fsagent.config import load_settings
from fsagent.model import Command, Usage
from fsagent.workspace.create import init_workspace
from fsagent.workspace.usage import Spent, UsageBook

EVENING = datetime(2026, 11, 27, 22, 50, tzinfo=UTC)  # 23:50 in Berlin


class World:
    """A workspace, a clock that only the test moves, and runs that ask a model wherever they may."""

    def __init__(self, root: Path) -> None:
        self.layout = init_workspace(root)[0]
        self.now = EVENING
        self.used: dict[str, Usage] = {}
        self.set("{}")
        self.restart()

    def set(self, budget: str, zone: str = "Europe/Berlin") -> None:
        self.layout.settings.write_text(f"timezone: {zone}\nbudget: {budget}\n")
        self.settings = load_settings(self.layout.settings)

    def restart(self) -> None:
        self.book = UsageBook(self.layout, self.local)
        self.budgets = Budgets(lambda: self.settings, self.book, lambda: self.now)

    def local(self, moment: datetime) -> datetime:
        """In the zone of the settings as they are now."""
        return self.settings.local(moment)

    def check(self, run: str, task: str = "", **budget: float) -> Exhausted | None:
        """What is said before the run's next turn."""
        command = Command(name="a.md", body="", task=task, budget=budget)
        used = self.used.get(run, Usage())
        return self.budgets.check(command, used, used.turns, 0)

    def turn(self, run: str, task: str = "", tokens: int = 100, cost: float = 0.1) -> str:
        """One turn of a run, if it may be; else why not."""
        no = self.check(run, task)
        if no:
            return no.reason
        used = Usage(tokens - 10, 10, cost, 0, 1)
        self.used[run] = self.used.get(run, Usage()) + used
        self.book.add(Spent(time=self.now, run=run, trigger="task", task=task, model="m:a", usage=used))
        return ""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ws")


@pytest.mark.parametrize(
    ("used", "says"),
    [
        ({"steps": 50}, "50 of 50 steps (budget.run.steps)"),
        ({"calls": 201}, "201 of 200 tool calls (budget.run.calls)"),
        ({"used": Usage(299_000, 1_000)}, "300,000 of 300,000 tokens (budget.run.tokens)"),
        ({"used": Usage(1, 1, sum([0.1] * 10))}, "$1 of $1 (budget.run.cost)"),
    ],
)
def test_a_run_has_a_budget_of_its_own(world: World, used: dict[str, Any], says: str) -> None:
    command = Command(name="a.md", body="")
    begun = {"used": Usage(), "steps": 0, "calls": 0}
    assert world.budgets.check(command, **begun) is None
    found = world.budgets.check(command, **{**begun, **used})
    assert found == Exhausted(
        f"the budget of this run is used up: {says}; raise it in fsagent.yaml, or ask for less at a time"
    )
    assert found.key == "", "the run's result says it; no notice of its own"


def test_almost_used_up_is_not_used_up(world: World) -> None:
    assert world.budgets.check(Command(name="a.md", body=""), Usage(299_999, 0, 0.9999), 49, 200) is None


def test_a_command_narrows_the_budget_and_never_widens_it(world: World) -> None:
    world.used["r"] = Usage(5_000, 0, 0.2, 0, 5)
    assert world.check("r", tokens=5_001, steps=6) is None
    assert world.check("r", tokens=5_000) == Exhausted(
        "the budget of this run is used up: 5,000 of 5,000 tokens (its own budget: tokens); raise it in its file"
    )
    world.used["r"] = Usage(300_000)
    found = world.check("r", tokens=1e9)
    assert found
    assert "300,000 tokens (budget.run.tokens)" in found.reason
    world.set("{run: {tokens: off, calls: off}}")
    assert world.check("r") is None
    assert world.check("r", tokens=10)


def test_how_many_calls_are_left(world: World) -> None:
    left = world.budgets.calls_left
    assert left(Command(name="a.md", body=""), 30) == 170
    assert left(Command(name="a.md", body="", budget={"calls": 3}), 2) == 1
    assert left(Command(name="a.md", body="", budget={"calls": 3}), 9) == 0
    world.set("{run: {calls: off}}")
    assert left(Command(name="a.md", body=""), 9_999) == float("inf")


def test_a_day_that_is_used_up_ends_at_midnight(world: World) -> None:
    world.set("{day: {tokens: 300}}")
    assert [world.turn("r1") for _ in range(3)] == ["", "", ""]
    assert world.budgets.blocked() == world.check("r1") == world.check("r2") == Exhausted(
        "the budget of today is used up: 300 of 300 tokens (budget.day.tokens); no model is asked until "
        "2026-11-28 00:00, unless you raise it in fsagent.yaml",
        "budget day 2026-11-27",
    )  # fmt: skip
    world.restart()
    assert world.turn("r1")
    world.now += timedelta(minutes=9, seconds=59)
    assert world.budgets.near() == [world.turn("r2")]
    world.now += timedelta(seconds=1)
    assert world.budgets.near() == []
    assert world.budgets.blocked() is None
    assert [bool(world.turn("r1")) for _ in range(4)] == [False, False, False, True]
    assert world.budgets.blocked().key == "budget day 2026-11-28"


def test_the_tokens_of_a_run_count_once(world: World) -> None:
    """What it has used is in the book already."""
    world.set("{day: {tokens: 1000}}")
    assert [bool(world.turn("r1")) for _ in range(11)] == [False] * 10 + [True]


def test_runs_keep_new_ones_from_starting_only(world: World) -> None:
    world.set("{day: {runs: 2}}")
    assert [world.turn(run) for run in ("r1", "r2", "r1", "r2")] == [""] * 4
    assert "2 of 2 runs (budget.day.runs)" in world.turn("r3")
    assert world.turn("r1") == ""
    assert world.budgets.blocked()
    assert len(world.budgets.near()) == 1
    world.now += timedelta(minutes=10)
    assert [bool(world.turn(run)) for run in ("r3", "r1", "r4", "r1")] == [False, False, True, False]


def test_a_task_s_day_stops_that_task_alone(world: World) -> None:
    world.set("{task: {cost: 0.20}}")
    assert [world.turn(f"r{number}", "sub/water") for number in range(2)] == ["", ""]
    assert world.budgets.blocked("sub/water") == world.check("r9", "sub/water") == Exhausted(
        "the budget of the task sub/water for today is used up: $0.20 of $0.20 (budget.task.cost); no model is asked "
        "until 2026-11-28 00:00, unless you raise it in fsagent.yaml",
        "budget task sub/water 2026-11-27",
    )  # fmt: skip
    assert world.budgets.blocked("news") is world.budgets.blocked() is None
    assert world.turn("r10", "news") == world.turn("r11") == ""
    assert world.budgets.near() == [], "of the day and the month"
    world.now += timedelta(minutes=10)
    assert world.turn("r12", "sub/water") == ""


def test_a_month_ends_with_its_last_day_and_is_told_first(world: World) -> None:
    world.set("{day: {cost: 0.1}, month: {cost: 0.3}}")
    for day in (27, 28, 29):
        world.now = EVENING.replace(day=day)
        assert world.turn(f"r{day}") == ""
    assert world.budgets.blocked() == Exhausted(
        "the budget of this month is used up: $0.30 of $0.30 (budget.month.cost); no model is asked until "
        "2026-12-01 00:00, unless you raise it in fsagent.yaml",
        "budget month 2026-11",
    )
    assert [words.split(" is")[0] for words in world.budgets.near()] == [
        "the budget of this month", "the budget of today"
    ]  # fmt: skip
    world.restart()
    world.now = EVENING.replace(day=30, hour=22, minute=59, second=59)
    assert world.turn("r30")
    world.now += timedelta(seconds=1)
    assert world.turn("r30") == "", "in Berlin it is December, in UTC it is not yet"
    assert world.budgets.blocked().key == "budget day 2026-12-01"
    world.now = datetime(2026, 12, 31, 12, tzinfo=UTC)
    world.set("{month: {cost: 0.1}}")
    assert "until 2027-01-01 00:00" in world.budgets.blocked().reason


def test_days_are_those_of_the_zone_in_force(world: World) -> None:
    world.set("{day: {tokens: 100}}", "UTC")
    assert world.turn("r1") == ""
    world.now += timedelta(minutes=30)
    assert world.budgets.blocked().key == "budget day 2026-11-27"
    world.set("{day: {tokens: 100}}", "Europe/Berlin")
    assert world.budgets.blocked() is None, "the day in Berlin is a new one"
    world.set("{day: {tokens: 100}}", "Asia/Tokyo")
    assert world.budgets.blocked().key == "budget day 2026-11-28"


def test_what_is_raised_or_off_counts_at_once(world: World) -> None:
    world.set("{day: {tokens: 100}}")
    assert world.turn("r1") == ""
    assert world.turn("r1")
    world.set("{day: {tokens: 200}}")
    assert world.turn("r1") == ""
    assert world.turn("r1")
    world.set("{day: {tokens: off}}")
    assert world.turn("r1") == ""
    world.set("{day: {tokens: 0}}")
    world.now += timedelta(days=1)
    assert "0 of 0 tokens" in world.turn("r2")


def test_without_limits_the_book_is_not_asked(world: World) -> None:
    everything = "{runs: off, tokens: off, cost: off}"
    world.set(f"{{task: {everything}, day: {everything}, month: {everything}}}")
    (world.layout.usage / "2026-11.jsonl").mkdir()
    assert world.check("r1", "water") is world.budgets.blocked("water") is None
    assert world.budgets.near() == []


def test_who_cannot_know_what_was_spent_spends_nothing(world: World) -> None:
    (world.layout.usage / "2026-11.jsonl").mkdir()
    found = world.check("r1")
    assert found
    assert found.reason.startswith("what was used cannot be read (")
    assert "2026-11.jsonl: Is a directory), so no model is asked; let this user read the file, or remove it" in (
        found.reason
    )
    assert found == world.budgets.blocked()
    assert world.budgets.near() == [found.reason]
    (world.layout.usage / "2026-11.jsonl").rmdir()
    assert world.turn("r1") == ""
