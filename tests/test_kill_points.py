"""kill -9 before every call that changes the disk, of any thread: README promises 1 to 3 must hold after it.

The daemon ends before its n-th call; every other time the one that goes on is ended, too, somewhere on its way. Then a
daemon that nobody ends runs to the end. The walk stops by itself at the first n that the run never reaches.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diskshim import DiskCalls
from faultshim import why_not
from fsagent.doctor import examine
from harness import Agent, wait_for

WHY_NOT = why_not()
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
walks = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
SETTINGS = "settle: 0s\nsettle_renamed: 0s\ntimezone: UTC\n"
LAST = 600


def walk(disk: DiskCalls, root: Path, prepare: Callable[[Agent], object]) -> Iterator[tuple[str, Agent]]:
    """One workspace for every n: killed before the n-th call, and then run to the end."""
    coming: deque[Agent] = deque()  # some are prepared ahead, so that nobody waits for their files to come to rest
    for number in range(1, LAST):
        while len(coming) < 3:
            coming.append(Agent(root / f"{number}-{len(coming)}", SETTINGS, programs=disk.programs))
            prepare(coming[-1])
        agent = coming.popleft()
        killed, where = disk.kills(agent, number), f"killed before call {number}"
        if number % 2:
            again = random.Random(number).randint(1, 60)
            where += f", and then before call {again}" * disk.kills(agent, again)
        agent.once()
        yield where, agent
        shutil.rmtree(agent.root)
        if not killed:
            assert number > 50, "so few calls were never enough"
            return
    raise AssertionError(f"more than {LAST} calls")


def in_one_place(agent: Agent) -> str:
    places = {
        "inbox": agent.files(agent.layout.inbox),
        "archive": agent.files(agent.layout.archive),
        "failed": agent.files(agent.layout.failed),
        "runs": [name for name in agent.files(agent.layout.runs) if name.endswith("claimed.md")],
    }
    found = {place: names for place, names in places.items() if names}
    assert [len(names) for names in found.values()] == [1], found
    return next(iter(found))


@walks
def test_a_fact_survives_a_kill_at_every_call(tmp_path: Path, disk: DiskCalls) -> None:
    for where, agent in walk(disk, tmp_path, lambda agent: agent.drop("a/note.md", "My name is Alice.")):
        assert in_one_place(agent) == "archive", where
        (result,) = agent.results()
        assert result["status"] == "done", f"{where}: {result.metadata}"
        assert agent.layout.soul.read_text().count("Alice") == 1, where
        assert [run.status for run in agent.runs()] == ["done"], where
        assert not examine(agent.layout).faults, where


@walks
def test_lines_are_appended_once_whatever_call_the_kill_comes_at(tmp_path: Path, disk: DiskCalls) -> None:
    def prepare(agent: Agent) -> None:
        agent.drop("a/b.csv", "1,2")
        steps = "  - append: {path: log.txt, text: one}\n  - append: {path: log.txt, text: two}\n"
        agent.drop("a/note.md", f"---\nattachments: [b.csv]\nsteps:\n{steps}---\n")

    for where, agent in walk(disk, tmp_path, prepare):
        (result,) = agent.results()
        assert result["status"] == "done", f"{where}: {result.metadata}"
        assert (agent.root / "log.txt").read_text() == "one\ntwo\n", where
        assert [Path(name).name for name in agent.files(agent.layout.archive)] == ["b.csv", "note.md"], where
        assert not agent.files(agent.layout.inbox), where
        assert not examine(agent.layout).faults, where


@walks
def test_a_beat_of_a_task_is_done_once_whatever_call_the_kill_comes_at(tmp_path: Path, disk: DiskCalls) -> None:
    past = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%d %H:%M")

    def prepare(agent: Agent) -> None:
        steps = "  - append: {path: log.txt, text: one}\n"
        task = f"---\nonce: {past}\nreport: always\nsteps:\n{steps}---\n"
        (agent.layout.tasks / "water.md").write_text(task)

    for where, agent in walk(disk, tmp_path, prepare):
        (result,) = agent.results()
        assert result["status"] == "done", f"{where}: {result.metadata}"
        assert (agent.root / "log.txt").read_text() == "one\n", where
        assert [(run.task, run.status) for run in agent.runs()] == [("water", "done")], where
        assert not examine(agent.layout).faults, where


@walks
def test_a_promise_that_is_broken_is_judged_alike_whatever_call_the_kill_comes_at(
    tmp_path: Path, disk: DiskCalls
) -> None:
    def prepare(agent: Agent) -> None:
        (agent.root / "report.md").write_text("new")
        steps = "  - write: {path: other.md, text: new}\n  - append: {path: log.txt, text: one}\n"
        agent.drop("a.md", f"---\nexpects: {{file: report.md, newer: true}}\nsteps:\n{steps}---\n")

    for where, agent in walk(disk, tmp_path, prepare):
        (result,) = agent.results()
        assert result["status"] == "failed", f"{where}: {result.metadata}"
        assert result["error"] == "did not leave what it promised (expects): report.md was not written", where
        assert (agent.root / "log.txt").read_text() == "one\n", where
        assert not examine(agent.layout).faults, where


def test_a_storm_of_kills_loses_and_doubles_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS)
    names = {f"{number}.md" for number in range(300)}
    for name in names:
        agent.drop(name, f"Log {name} to log.txt")
    dice = random.Random(20261122)
    for _ in range(8):
        agent.start()
        done = len(list(agent.layout.archive.rglob("*.md"))) + dice.randrange(1, 60)
        wait_for(
            lambda done=done: (
                len(list(agent.layout.archive.rglob("*.md"))) >= done or not any(agent.layout.inbox.iterdir())
            ),
            "some more are done",
        )
        agent.kill()
    agent.once()
    results = {Path(result["command"]).name: result["status"] for result in agent.results()}
    assert set(results) == names
    assert len(agent.results()) == len(names)
    assert set(results.values()) <= {"done", "interrupted"}
    lines = Counter((agent.root / "log.txt").read_text().splitlines())
    assert set(lines.values()) == {1}
    assert set(lines) >= {name for name, status in results.items() if status == "done"}
    settled = [Path(name).name for place in ("archive", "failed") for name in agent.files(getattr(agent.layout, place))]
    assert sorted(settled) == sorted(names)
    assert not agent.files(agent.layout.inbox)
    assert not list(examine(agent.layout).faults)
