"""Rules by the wall clock as faces, tools and plain English take them. Needs all forms of rules, not only periods."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import frontmatter
import pytest

from fsagent.config import Settings
from fsagent.engines.intents import understand
from fsagent.faces.explain import explain
from fsagent.faces.tasks import read_tasks
from fsagent.timetext import rule_from_text
from fsagent.workspace.tasks import TaskBook
from harness import Agent

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
BERLIN = Settings(timezone="Europe/Berlin")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\ntimezone: Europe/Berlin\n")
    (agent.layout.tasks / "heartbeat.md").unlink()
    yield agent
    agent.close()


@pytest.mark.parametrize(
    ("rule", "notes"),
    [
        ("sun 02:30", ["on 2027-03-28 02:30 does not exist: runs at 03:00",
                       "on 2027-10-31 02:30 comes twice: runs once, at 02:30+02:00"]),
        ("mon-fri 02:30", []),
        ("09:00", []),
        ("0 9 * * mon-fri", []),
        ("cron: 30 2 * * *", ["on 2027-03-28 02:30 does not exist: runs at 03:00",
                              "on 2027-10-31 02:30 comes twice: runs once, at 02:30+02:00"]),
        ("0 * * * *", ["on 2027-03-28 02:00 does not exist: goes on at the next time",
                       "on 2027-10-31 02:00 comes twice: runs both times"]),
        ("2027-03-28 02:30", ["on 2027-03-28 02:30 does not exist: runs at 03:00"]),
    ],
)  # fmt: skip
def test_a_rule_is_explained_with_what_changed_clocks_do_to_it(rule: str, notes: list[str]) -> None:
    found = explain(rule, BERLIN, NOW)
    assert found.notes == notes
    assert found.slots
    assert all(before < after for before, after in zip(found.slots, found.slots[1:], strict=False))


def test_a_moment_that_has_passed_has_no_slot_left(agent: Agent) -> None:
    assert explain("2020-01-05 14:00", BERLIN, NOW).slots == []
    (agent.layout.tasks / "past.md").write_text("---\nonce: 2020-01-05 14:00\n---\nList my tasks")
    (agent.layout.tasks / "zone.md").write_text("---\nat: 09:00\ntimezone: Asia/Tokyo\n---\nList my tasks")
    past, zone = read_tasks(agent.layout, most=5)
    assert (past.state, past.slots) == ("done", [])
    assert (zone.timezone, {f"{slot:%H:%M%z}" for slot in zone.slots}) == ("Asia/Tokyo", {"09:00+0900"})
    book = TaskBook(agent.layout)
    book.scan()
    book.set_state("zone", watermark=datetime.now(UTC))
    assert read_tasks(agent.layout, ["zone"])[0].state == "on"


SPOKEN = [
    ("Every day at 9:00, {}", "09:00"),
    ("Every weekday at 18:30, {}", "mon-fri 18:30"),
    ("Every Monday at 9, {}", "mon 09:00"),
    ("On Mondays and Fridays at 9:00 {}", "mon,fri 09:00"),
    ("At 07:30 every morning {}", "07:30"),
    ("Tomorrow at 14:00, {}", "tomorrow 14:00"),
    ("On 2027-01-05 at 14:00, {}", "2027-01-05 14:00"),
    ("{} every day at 9am and 6 pm.", "09:00,18:00"),
    ("Please {} every Monday, Wednesday and Friday at noon", "mon,wed,fri 12:00"),
    ("Could you {} tomorrow at 8:15?", "tomorrow 08:15"),
    ("{} at 9:00 on Mondays", "mon 09:00"),
    ("Every evening at 9pm, {}", "21:00"),
    ("Every weekend at 10:00, {}", "sat,sun 10:00"),
]


@pytest.mark.parametrize(("text", "every"), SPOKEN)
def test_times_of_the_clock_in_plain_english(text: str, every: str) -> None:
    found = understand(text.format("log the timestamp to log.txt"))
    assert found is not None
    (made,) = found.calls
    assert (found.intent, made.args["every"], made.args["name"]) == ("schedule", every, "log-txt-timestamp")
    assert made.args["request"] == "Log the timestamp to log.txt"
    assert rule_from_text(every.replace("tomorrow", "2027-01-05"))
    inside = understand(text.format("log the timestamp to log.txt"), recurring=True)
    once = "tomorrow" in every or "2027" in every
    assert (inside is None) if once else (inside is not None and inside.intent == "append")


@pytest.mark.parametrize(
    "text",
    [
        "Every evening at 9, {}", "Every day at 25:00, {}", "Every day at 9:75, {}", "Every Monday, {}",
        "On Monday at 9, {}", "On 2027-02-30 at 14:00, {}", "Tomorrow at 14:00 and 15:00, {}", "At 9:00 {}",
        "Every day at 9.30, {}", "Every day at 9:00:30, {}", "Every other Monday at 9:00, {}",
        "Every first Monday at 9:00, {}", "Every day at 9-10, {}", "Every day at 9 or 10, {}", "Tomorrow, {}",
        "Every day at 9:00 except Sundays, {}", "{} every day at 9 and every Sunday at 10", "Not every day at 9:00, {}",
    ],
)  # fmt: skip
def test_times_that_could_mean_something_else_are_not_guessed(text: str) -> None:
    assert understand(text.format("log the timestamp to log.txt")) is None


def test_a_fact_keeps_its_time() -> None:
    found = understand("Remember that the shop opens every day at 9:00")
    assert found is not None
    assert found.calls[0].args["fact"] == "The shop opens every day at 9:00"


def test_sentences_become_tasks_with_these_rules(agent: Agent) -> None:
    agent.drop("1.md", "Every weekday at 18:30, add milk to a.md")
    agent.drop("2.md", "Tomorrow at 14:00, add eggs to b.md")
    agent.drop("3.md", "On 2020-01-05 at 14:00, add c to c.md")
    agent.drop(
        "4.md",
        "---\nsteps:\n  - task: {action: create, name: d, every: 0 9 * * mon-fri, request: List my tasks}\n---\n",
    )
    agent.once()
    fields = {path.stem: frontmatter.load(str(path)).metadata for path in agent.layout.tasks.glob("*.md")}
    assert set(fields) == {"a-md-milk", "b-md-eggs", "d"}
    assert (str(fields["a-md-milk"]["at"]), fields["a-md-milk"]["on"]) == ("18:30", "mon-fri")
    assert fields["d"] == {"cron": "0 9 * * mon-fri"}
    tasks = {line.task: line for line in read_tasks(agent.layout, most=5)}
    (slot,) = tasks["b-md-eggs"].slots
    assert f"{slot:%H:%M}" == "14:00"
    assert timedelta(0) < slot - datetime.now(UTC) < timedelta(hours=39)
    assert agent.result("3.md")["status"] == "failed"
    assert "2020-01-05 14:00 has passed" in agent.result("3.md").content
