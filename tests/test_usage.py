"""The usage book: what models took, by the workspace's days, whatever happens to its files; and how faces show it."""

from __future__ import annotations

import json
import os
import random
import threading
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import frontmatter
import pytest

from fsagent.doctor import examine
from fsagent.faces.text import run_text, used_words
from fsagent.faces.usage import read_usage_view, usage_text
from fsagent.faces.views import RunView
from fsagent.model import Run, Usage
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.results import Outcome, render
from fsagent.workspace.runs import Envelope
from fsagent.workspace.usage import (
    Spent,
    Totals,
    UsageBook,
    Zone,
    money,
    of_limit,
    read_spent,
    read_spent_file,
)
from harness import Agent

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
ONE = Usage(100, 10, 0.01, 50, 1)


def zone_of(name: str) -> Zone:
    zone = zoneinfo.ZoneInfo(name)
    return lambda moment: moment.astimezone(zone)


UTC_ZONE = zone_of("UTC")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


def spent(time: datetime, run: str = "r1", task: str = "", model: str = "m:a", usage: Usage = ONE) -> Spent:
    return Spent(time=time, run=run, trigger="task" if task else "cli", task=task, model=model, usage=usage)


def same(found: Totals, runs: int, turns: int) -> bool:
    return (found.runs, found.usage.turns, found.usage.tokens) == (runs, turns, 110 * turns)


def test_a_turn_is_a_line_of_json_in_the_file_of_its_utc_month(layout: Layout) -> None:
    book = UsageBook(layout, UTC_ZONE)
    book.add(spent(datetime(2026, 12, 1, 0, 30, tzinfo=UTC).astimezone(zoneinfo.ZoneInfo("America/New_York"))))
    book.add(spent(NOON, task="water"))
    assert sorted(os.listdir(layout.usage)) == ["2026-11.jsonl", "2026-12.jsonl"]
    (line,) = (layout.usage / "2026-11.jsonl").read_text().splitlines()
    used = {"tokens_in": 100, "tokens_out": 10, "cost": 0.01, "tokens_cached": 50, "turns": 1, "unpriced": 0}
    assert json.loads(line) == {
        "time": "2026-11-27T12:00:00Z", "run": "r1", "trigger": "task", "task": "water", "model": "m:a", "usage": used,
    }  # fmt: skip


def test_a_run_counts_once_in_a_day_and_in_a_month(layout: Layout) -> None:
    book = UsageBook(layout, UTC_ZONE)
    assert book.day(NOON) == book.month(NOON) == Totals()
    for hour in range(4):
        book.add(spent(NOON + timedelta(hours=hour), task="water"))
    book.add(spent(NOON, "r2"))
    book.add(spent(NOON - timedelta(days=1), "r1"))
    assert same(book.day(NOON), 2, 5)
    assert same(book.month(NOON), 2, 6)
    assert same(book.day(NOON, "water"), 1, 4)
    assert book.day(NOON, "else") == Totals()
    assert same(UsageBook(layout, UTC_ZONE).day(NOON, "water"), 1, 4), "a restart"


def test_days_end_at_the_workspace_s_midnight(layout: Layout) -> None:
    now, zone = datetime(2026, 11, 27, 22, 58, tzinfo=UTC), zone_of("Europe/Berlin")
    book = UsageBook(layout, zone)
    for number in range(4):
        book.add(spent(now, f"r{number}"))
        now += timedelta(minutes=1)  # 23:58, 23:59, 00:00, 00:01
        assert same(book.day(now - timedelta(minutes=1)), number % 2 + 1, number % 2 + 1)
        assert same(book.month(now), number + 1, number + 1)
    assert same(UsageBook(layout, UTC_ZONE).day(now), 4, 4)


@pytest.mark.parametrize("name", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kolkata", "UTC"])
def test_a_local_month_may_lie_in_two_files(layout: Layout, name: str) -> None:
    zone = zone_of(name)
    first = datetime(2026, 11, 1, tzinfo=zoneinfo.ZoneInfo(name))
    last = datetime(2026, 11, 30, 23, 59, 59, tzinfo=zoneinfo.ZoneInfo(name))
    book = UsageBook(layout, zone)
    for number, moment in enumerate((first - timedelta(seconds=1), first, last, last + timedelta(seconds=1))):
        book.add(spent(moment, f"r{number}"))
    for each in (book, UsageBook(layout, zone)):
        assert same(each.month(first), 2, 2)
        assert same(each.day(last), 1, 1)
        assert same(each.month(last + timedelta(seconds=1)), 1, 1)
        assert same(each.month(first - timedelta(seconds=1)), 1, 1)


def test_another_time_zone_in_the_settings_counts_at_once(layout: Layout) -> None:
    zone = "UTC"

    def local(moment: datetime) -> datetime:
        return zone_of(zone)(moment)

    book = UsageBook(layout, local)
    book.add(spent(datetime(2026, 11, 27, 20, tzinfo=UTC)))
    assert same(book.day(NOON), 1, 1)
    zone = "Asia/Tokyo"
    assert book.day(NOON) == Totals()
    assert same(book.day(NOON + timedelta(days=1)), 1, 1)


def test_what_others_do_to_the_files_counts_at_once(layout: Layout) -> None:
    book, other = UsageBook(layout, UTC_ZONE), UsageBook(layout, UTC_ZONE)
    for number in range(3):
        book.add(spent(NOON, f"r{number}"))
    assert same(book.day(NOON), 3, 3)
    other.add(spent(NOON, "by another hand"))
    assert same(book.day(NOON), 4, 4)
    other.add(spent(NOON, "unseen until the next turn"))
    book.add(spent(NOON, "r9"))
    assert same(book.day(NOON), 6, 6)
    path = layout.usage / "2026-11.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert same(book.day(NOON), 2, 2)
    path.unlink()
    assert book.day(NOON) == Totals()
    layout.usage.rmdir()
    assert book.month(NOON) == Totals()
    book.add(spent(NOON))
    assert same(book.day(NOON), 1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"time": "2026-11-27T12:00:00Z", "ru',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"null\n[]\n{}\n",
        b'{"time": "2026-11-27T12:00:00", "run": "naive", "trigger": "cli"}\n',
        b'{"time": "2026-10-27T12:00:00Z", "run": "another month", "trigger": "cli"}\n',
        b'{"time": "0001-01-01T00:00:00+14:00", "run": "no such time", "trigger": "cli"}\n',
        b'{"time": "2026-11-27T12:00:00Z", "run": "r", "trigger": "cli", "usage": {"tokens_in": "many"}}\n',
    ],
)
def test_a_damaged_line_hurts_only_itself_and_doctor_tells_it(layout: Layout, damage: bytes) -> None:
    path = layout.usage / "2026-11.jsonl"
    UsageBook(layout, UTC_ZONE).add(spent(NOON))
    path.write_bytes(path.read_bytes() + damage)
    book = UsageBook(layout, zone_of("America/New_York"))
    assert same(book.day(NOON), 1, 1)
    book.add(spent(NOON, "r2"))
    assert same(book.day(NOON), 2, 2)
    assert len({each.run for _, each in read_spent(layout, None, UTC_ZONE)}) == 2
    bad = [number for number, each in read_spent_file(path) if each is None]
    assert bad == list(range(2, 2 + max(1, damage.count(b"\n"))))
    told = [(fault.file, fault.line) for fault in examine(layout).faults]
    assert told == [(".fsagent/usage/2026-11.jsonl", number) for number in bad]


def test_a_file_that_cannot_be_read_is_told(layout: Layout) -> None:
    (layout.usage / "2026-11.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        UsageBook(layout, UTC_ZONE).day(NOON)
    with pytest.raises(IsADirectoryError):
        UsageBook(layout, UTC_ZONE).add(spent(NOON))
    assert "usage/2026-11.jsonl: cannot be read: Is a directory" in str(examine(layout).faults[0])


def test_threads_lose_nothing_and_see_what_they_added(layout: Layout) -> None:
    book, wrong = UsageBook(layout, UTC_ZONE), []

    def work(name: str) -> None:
        for number in range(100):
            book.add(spent(NOON + timedelta(seconds=number), name, task=name))
            if not same(book.day(NOON, name), 1, number + 1):
                wrong.append((name, number))

    threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert same(book.month(NOON), 8, 800)
    assert same(UsageBook(layout, UTC_ZONE).month(NOON), 8, 800)


def test_thousands_of_turns_agree_with_a_plain_count(layout: Layout) -> None:
    """Random turns around two ends of months, by a stepped clock that is now and then set back; with restarts."""
    dice, zone = random.Random(7), zone_of("Europe/Berlin")
    book, now, every = UsageBook(layout, zone), datetime(2026, 10, 30, tzinfo=UTC), list[Spent]()
    for number in range(3_000):
        now += timedelta(seconds=dice.randrange(-600, 3_000))
        one = spent(now, f"r{number // 3}", dice.choice(["", "water", "news"]), dice.choice(["m:a", "m:b"]))
        book.add(one)
        every.append(one)
        if number % 100 == 0:
            day = zone(now).date()
            mine = [each for each in every if zone(each.time).date() == day]
            assert same(book.day(now), len({each.run for each in mine}), len(mine))
            water = [each for each in mine if each.task == "water"]
            assert same(book.day(now, "water"), len({each.run for each in water}), len(water))
            month = [each for each in every if zone(each.time).date().replace(day=1) == day.replace(day=1)]
            assert same(book.month(now), len({each.run for each in month}), len(month))
        if number % 700 == 0:
            book = UsageBook(layout, zone)
    assert len(os.listdir(layout.usage)) >= 2
    read = list(read_spent(layout, None, zone))
    assert len(read) == 3_000
    since = zone(now).date() - timedelta(days=5)
    assert list(read_spent(layout, since, zone)) == [(day, each) for day, each in read if day >= since]


def test_turns_from_a_day_on(layout: Layout) -> None:
    book = UsageBook(layout, UTC_ZONE)
    for day in (25, 26, 27):
        for task, model in (("water", "m:a"), ("water", "m:b"), ("", "m:a")):
            book.add(spent(NOON.replace(day=day), f"r-{task}", task, model))
    found = list(read_spent(layout, date(2026, 11, 26), UTC_ZONE))
    assert [(day.day, each.task, each.model) for day, each in found] == [
        (day, task, model) for day in (26, 27) for task, model in (("water", "m:a"), ("water", "m:b"), ("", "m:a"))
    ]
    assert list(read_spent(layout, date(2027, 1, 1), UTC_ZONE)) == []
    for since in (None, date.min):
        assert len(list(read_spent(layout, since, UTC_ZONE))) == 9


# faces


def test_the_table_of_a_terminal(layout: Layout) -> None:
    layout.settings.write_text("budget: {day: {tokens: 200, runs: off}, month: {cost: off}}\n")
    assert "no model was asked since 2026-10-29" in usage_text(read_usage_view(layout, now=NOON))
    book = UsageBook(layout, UTC_ZONE)
    book.add(spent(NOON - timedelta(days=60)))
    book.add(spent(NOON - timedelta(days=1), "r1", "water"))
    book.add(spent(NOON, "r1", "water", usage=Usage(12_000, 300, 1.5, 9_000, 2)))
    book.add(spent(NOON, "r2", model="", usage=Usage(10, 5, 0, 0, 3, 3)))
    view = read_usage_view(layout, now=NOON)
    assert usage_text(view).splitlines() == [
        "DAY         RUNS  TURNS  TOKENS IN  (CACHED)  TOKENS OUT   COST",
        "2026-11-26     1      1        100        50          10  $0.01",
        "2026-11-27     2      5     12,010     9,000         305  $1.50",
        "total          2      6     12,110     9,050         315  $1.51",
        "3 turns of unknown price are not in the cost",
        "",
        "today:      2 runs, 12,315 of 200 tokens (used up), $1.50 of $5",
        "this month: 2 of 10,000 runs, 12,425 of 30,000,000 tokens, $1.51",
    ]
    tasks = usage_text(read_usage_view(layout, 1, "task", NOON)).splitlines()
    assert [line.split("  ")[0] for line in tasks[1:4]] == ["(no task)", "water", "total"]
    assert tasks[1].endswith("unknown")
    models = usage_text(read_usage_view(layout, 9999, "model", NOON)).splitlines()
    assert [line.split("  ")[0] for line in models[1:4]] == ["(unknown)", "m:a", "total"]
    layout.settings.write_text("broken: 1\n")
    assert "of 3,000,000 tokens" in str(read_usage_view(layout, now=NOON)), "with the defaults"


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws")
    UsageBook(agent.layout, UTC_ZONE).add(spent(datetime.now(UTC), task="water"))
    done = agent.cli("usage", "--by", "task", "--days", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split() == ["water", "1", "1", "100", "50", "10", "$0.01"]
    found = json.loads(agent.cli("usage", "--json", "--by", "model").stdout)
    assert (found["by"], found["rows"][0]["model"], found["total"]["usage"]["turns"]) == ("model", "m:a", 1)
    assert found["today"][0] == {"setting": "budget.day.runs", "unit": "runs", "used": 1, "limit": 1000}
    assert agent.cli("usage", "--by", "hour").returncode == 2
    assert agent.cli("usage", "--days", "0").returncode == 2


@pytest.mark.parametrize(
    ("usage", "cost"),
    [(Usage(1, 2, 0.1 + 0.2, 0, 1), 0.3), (Usage(1, 2, 0, 0, 1, 1), "unknown"), (Usage(1, 2, 0, 0, 1), None),
     (Usage(1, 2, 0.5, 0, 2, 1), 0.5)],
)  # fmt: skip
def test_a_result_says_what_it_took(usage: Usage, cost: object) -> None:
    outcome = Outcome(status="done", started=NOON, finished=NOON, engine="model", model="m:a, m:b", usage=usage)
    shown = frontmatter.loads(
        render(Envelope(run="r", name="a.md", trigger="cli", time=NOON), outcome, "").decode()
    ).metadata
    assert (shown["model"], shown["tokens_in"], shown["tokens_out"], shown.get("cost")) == ("m:a, m:b", 1, 2, cost)
    assert "tokens_cached" not in shown


def test_show_says_what_a_run_took() -> None:
    run = Run(run="r", command="a.md", trigger="cli", status="done", usage=Usage(12_000, 300, 0.0123, 9_000, 2))
    view = RunView(run=run, command="", steps=[{"event": "finished", "outcome": {"model": "m:a"}}], result="")
    shown = run_text(view).splitlines()
    assert "model:       m:a" in shown
    assert "used:        12,000 tokens in (9,000 of them cached), 300 out, 2 turns, $0.0123" in shown
    assert used_words(Usage()) == ""
    assert used_words(Usage(1, 2, 0, 0, 1, 1)) == "1 tokens in, 2 out, 1 turn, cost unknown"
    assert used_words(Usage(1, 2, 0, 0, 1)) == "1 tokens in, 2 out, 1 turn, $0"


def test_money_and_limits_in_words() -> None:
    words = [money(cost) for cost in (0, 0.00001, 0.0041, 0.01, 0.05, 0.5, 1, 1.234, 5, 12.5, 1234.5)]
    assert words == ["$0", "<$0.0001", "$0.0041", "$0.01", "$0.05", "$0.50", "$1", "$1.23", "$5", "$12.50", "$1,234.50"]
    assert of_limit(301_234, 300_000, "tokens") == "301,234 of 300,000 tokens"
    assert of_limit(1.02, 1, "cost") == "$1.02 of $1"
    assert of_limit(5, float("inf"), "runs") == of_limit(5, None, "runs") == "5 runs"
