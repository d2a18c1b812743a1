"""Tasks as people see them: how one stands and why, to pause and resume it, what a rule means."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsagent.config import Settings
from fsagent.errors import NotFoundError, PersonError
from fsagent.faces.explain import explain
from fsagent.faces.tasks import read_tasks
from fsagent.faces.text import task_text
from fsagent.model import Run
from fsagent.recovery import open_index
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.tasks import TaskBook
from harness import FSAGENT, Agent, wait_for

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = init_workspace(tmp_path / "ws")[0]
    (layout.tasks / "heartbeat.md").unlink()
    layout.settings.write_text("timezone: Asia/Tokyo\n")
    return layout


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    (agent.layout.tasks / "water plants.md").write_text("---\nevery: 1d\n---\nLog the timestamp to log.txt")
    yield agent
    agent.close()


def write(layout: Layout, name: str, fields: str, body: str = "List my tasks") -> None:
    path = layout.tasks / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\n{fields}\n---\n{body}\n")


def one(layout: Layout, name: str) -> Any:
    (line,) = read_tasks(layout, [name], 5)
    return line


def state_of(agent: Agent) -> str:
    return str(one(agent.layout, "water plants").state)


# how a task stands


def test_a_task_is_shown_with_its_last_runs_and_its_next_slots_in_its_zone(layout: Layout) -> None:
    write(layout, "sub/log", "every: 1h\ntimeout: 5m\nmodel: openai:x")
    index = open_index(layout)
    for number in range(7):
        slot = NOW + timedelta(hours=number)
        started = slot + timedelta(seconds=number)
        run = Run(run=f"r{number}", command="c", trigger="task", status="done", task="sub/log", slot=slot,
                  started=started, finished=started + timedelta(seconds=2), result=f"outbox/{number}.md")  # fmt: skip
        index.put(run, key="", is_open=False)
    index.put(Run(run="x", command="c", trigger="task", status="done", task="other"), key="", is_open=False)
    index.close()
    line = one(layout, "sub/log")
    assert [run.run for run in line.runs] == ["r6", "r5", "r4", "r3", "r2"]
    assert [(run.late, run.seconds) for run in line.runs[:2]] == [(6, 2), (5, 2)]
    assert line.timezone == "Asia/Tokyo"
    assert {str(moment.utcoffset()) for moment in (*line.slots, line.runs[0].slot, line.last)} == {"9:00:00"}
    assert [after - before for before, after in zip(line.slots, line.slots[1:], strict=False)] == [
        timedelta(hours=1)
    ] * 4
    assert line.slots[0] == line.next
    assert (line.last, line.last_status) == (line.runs[0].started, "done")
    assert line.settings == {"timeout": "5m", "model": "openai:x"}
    text = task_text(line)
    assert text.startswith("sub/log (tasks/sub/log.md)\n")
    assert "6s late  outbox/6.md" in text
    assert f"{line.slots[0]:%a %Y-%m-%d %H:%M:%S} +09:00" in text
    (listed,) = read_tasks(layout)
    assert (len(listed.runs), len(listed.slots), listed.next) == (1, 1, line.next)


def test_why_a_task_does_not_fall_due(layout: Layout) -> None:
    write(layout, "off", "enabled: false")
    write(layout, "paused", "every: 1h")
    write(layout, "held", "every: 1h")
    write(layout, "bad", "evry: 1h")
    book = TaskBook(layout)
    book.scan()
    book.set_state("paused", paused="5 failures in a row", since=NOW)
    book.set_state("held", held_back="nothing changed")
    lines = {line.task: line for line in read_tasks(layout)}
    assert {name: line.state for name, line in lines.items()} == {
        "bad": "broken", "held": "on", "off": "off", "paused": "paused",
    }  # fmt: skip
    assert [line.next for line in lines.values() if line.state != "on"] == [None, None, None]
    said = task_text(lines["paused"])
    assert "paused: 5 failures in a row, since 2026-11-27 17:00:00; go on with: fsagent resume paused" in said
    assert "at its last slot: nothing changed" in task_text(lines["held"])
    assert "off (enabled: false)" in task_text(lines["off"])
    assert "did you mean 'every'?" in task_text(lines["bad"])


def test_an_edited_file_is_no_longer_paused_for_its_failures(layout: Layout) -> None:
    write(layout, "a", "every: 1h")
    book = TaskBook(layout)
    book.scan()
    book.set_state("a", paused="5 failures in a row", paused_print=book.get("a").print, since=NOW)
    assert one(layout, "a").state == "paused"
    write(layout, "a", "every: 2h")
    assert one(layout, "a").state == "on"


def test_names_are_found_and_unknown_ones_are_told_the_nearest(layout: Layout) -> None:
    for name in ("Water", "sub/log", "bad"):
        write(layout, name, "evry: 1h" if name == "bad" else "every: 1h")
    for said in ("Water", "water", "tasks/Water.md", "Water.md"):
        assert one(layout, said).task == "Water"
    assert [line.task for line in read_tasks(layout, ["sub/log", "bad", "BAD"])] == ["bad", "sub/log"]
    with pytest.raises(NotFoundError, match=r"there is no task 'watr' \(did you mean 'water'\?\)"):
        read_tasks(layout, ["watr"])


def test_many_tasks_are_listed_in_a_line_each(agent: Agent) -> None:
    for number in range(21):
        write(agent.layout, f"t{number}", "every: 1h")
    done = agent.cli("tasks")
    assert len(done.stdout.splitlines()) == 1 + 23 + 1
    assert "fsagent tasks NAME" in done.stdout
    assert "  next: " in agent.cli("tasks", "t3").stdout
    assert len(json.loads(agent.cli("tasks", "--json").stdout)) == 23


# pause and resume


def test_a_task_is_paused_and_resumed_by_name(agent: Agent) -> None:
    agent.start()
    done = agent.cli("pause", "Water Plants")
    assert (done.returncode, state_of(agent)) == (0, "paused"), done
    assert "paused water plants: every 1d, paused (by request)" in done.stdout
    assert "fsagent resume 'water plants'" in agent.cli("tasks", "water plants").stdout
    wait_for(lambda: "`water plants` by request" in agent.status(), "status.md names it")
    before = datetime.now(UTC)
    done = agent.cli("resume", "water plants")
    assert (done.returncode, state_of(agent)) == (0, "on"), done
    book = TaskBook(agent.layout)
    book.scan()
    state = book.state("water plants")
    assert (state.paused, state.paused_print) == ("", "")
    assert state.since
    assert state.since >= before, "what failed before does not count any more"
    done = agent.cli("resume", "watr plants")
    assert (done.returncode, "did you mean 'water plants'?" in done.stderr) == (1, True), done
    wait_for(lambda: "by request" not in agent.status(), "status.md names it no more")


def test_without_a_daemon_it_counts_once_one_runs(agent: Agent) -> None:
    done = agent.cli("pause", "water plants")
    assert (done.returncode, state_of(agent)) == (0, "on"), done
    assert "counts when a daemon runs, and none does now" in done.stdout
    agent.once()
    assert state_of(agent) == "paused"


def test_what_policy_denies_is_an_error(agent: Agent) -> None:
    agent.layout.settings.write_text("triggers: {cli: {task: deny}}\n")
    agent.start()
    done = agent.cli("pause", "water plants")
    assert (done.returncode, state_of(agent)) == (1, "on"), done
    assert done.stderr.startswith("fsagent: ")


# a rule explained


def fsagent(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FSAGENT, *words], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("rule", ["90m", "every: 90m", "every: 1h30m\nenabled: false"])
def test_a_rule_is_explained_without_a_workspace(tmp_path: Path, rule: str) -> None:
    done = fsagent("tasks", "--explain", rule, "--timezone", "Asia/Tokyo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rule:      every 1h30m\n" in done.stdout
    assert "time zone: Asia/Tokyo\n" in done.stdout
    assert done.stdout.count(" +09:00\n") + done.stdout.endswith("+09:00") >= 5
    found = json.loads(fsagent("tasks", "--explain", rule, "--json", cwd=tmp_path).stdout)
    assert set(found) == {"rule", "fields", "timezone", "slots", "notes"}
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_rule_is_told(tmp_path: Path) -> None:
    for words, says in (
        (["--explain", "often"], "'often'"),
        (["--explain", "evry: 1h"], "did you mean 'every'?"),
        (["--explain", "every: 5"], "every: '5' is no duration"),
        (["--explain", "1h", "--timezone", "Europe/Belin"], "did you mean 'Europe/Berlin'?"),
        (["--timezone", "Europe/Berlin"], "--timezone goes with --explain"),
        (["--explain", "1h", "name"], "leave their names out"),
    ):
        done = fsagent("tasks", *words, cwd=tmp_path)
        assert (done.returncode, says in done.stderr) == (2, True), done


def test_periods_move_by_the_clock_where_the_clock_is_changed() -> None:
    found = explain("1d", Settings(timezone="Europe/Berlin"), NOW)
    assert [note.split(",")[0] for note in found.notes] == [
        "on 2027-03-28 its slots move by 1h by the clock (later)",
        "on 2027-10-31 its slots move by 1h by the clock (earlier)",
    ]
    assert "from 01:00 to 02:00" in found.notes[0]
    assert explain("30m", Settings(timezone="Europe/Berlin"), NOW).notes == []
    assert explain("1d", Settings(timezone="Asia/Tokyo"), NOW).notes == []


def test_the_settings_of_a_workspace_count(tmp_path: Path) -> None:
    layout = init_workspace(tmp_path / "ws")[0]
    layout.settings.write_text("timezone: Asia/Tokyo\nheartbeat_interval: 2h\n")
    found = json.loads(fsagent("tasks", "--explain", "heartbeat", "--json", cwd=layout.root).stdout)
    first, second, *_ = map(datetime.fromisoformat, found["slots"])
    assert (found["timezone"], second - first) == ("Asia/Tokyo", timedelta(hours=2))
    with pytest.raises(PersonError):
        explain("", Settings(), NOW)


# what the agent makes


def test_every_task_that_the_agent_made_is_run_by_the_daemon_that_made_it(agent: Agent) -> None:
    agent.start()
    numbers = range(12)
    for number in numbers:
        agent.drop(f"{number}.md", f"Every second, add milk to made-{number}.txt")
        agent.drop(f"list-{number}.md", "List my tasks")
    for number in numbers:
        assert agent.result(f"{number}.md")["status"] == agent.result(f"list-{number}.md")["status"] == "done"
    files = [agent.root / f"made-{number}.txt" for number in numbers]
    wait_for(lambda: all(file.exists() and file.read_text().count("\n") > 1 for file in files), "all run, and again")


def test_whoever_looks_at_the_tasks_takes_no_change_from_the_clock(layout: Layout) -> None:
    book = TaskBook(layout, keeps=True)
    book.scan()
    write(layout, "new", "every: 1h")
    book.refresh()
    book.create("mine", "List my tasks", {"every": "1h"}, [])
    book.set_state("new", paused="by request")
    assert book.scan() == {"new", "mine"}
    assert book.scan() == set()
