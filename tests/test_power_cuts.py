"""Power cuts, at every call that changes the disk: what was not synced may be gone, and the README's promises hold.

A real daemon's calls are written down and played to a model of a disk (``powercut``). In each state that the disk may
be found in after a cut, a real daemon then runs to its end. Of those many states each short run takes some by lot.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from diskshim import DiskCalls
from faultshim import why_not
from fsagent.doctor import examine
from fsagent.workspace.runs import RunFolder
from harness import Agent
from powercut import DataLoss, Disk, Disordered, Loss, NameLoss, Ordered, State, restore

WHY_NOT = why_not()
pytestmark = [pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.timeout(900)]
SETTINGS = "settle: 0s\nsettle_renamed: 0s\n"
SOME = 20
OF_NO_WEIGHT = (".fsagent/index.sqlite3", ".fsagent/locks/", ".fsagent/daemon.json", "status.md")
TWO_LINES = "  - append: {path: log.txt, text: one}\n  - append: {path: log.txt, text: two}\n"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
AT = """
import sys
from datetime import datetime
from pathlib import Path
from fsagent.daemon import Daemon
from fsagent.workspace.layout import open_workspace
now = datetime.fromisoformat(sys.argv[1])
daemon = Daemon(open_workspace(Path(sys.argv[3])), now=lambda: now)
daemon.open()
daemon.run_once()
daemon.close()
"""
DROP = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from fsagent.workspace.layout import open_workspace
from fsagent.workspace.runs import Envelope, drop, new_run_id
now = datetime.now(UTC)
envelope = Envelope(run=new_run_id(now), name="note.md", trigger="http", time=now)
assert drop(open_workspace(Path(sys.argv[3])), envelope, sys.argv[1].encode())
"""


class Cut(NamedTuple):
    """A state that the disk may be found in, what there was in that moment, and how much of the work had been done."""

    where: str
    state: State
    before: State
    done: int


def cuts(disk: DiskCalls, agent: Agent, *work: Callable[[], object], all_of_them: bool) -> list[Cut]:
    """The power fails behind every call of this work, on disks that lose more or less, each state once; or behind some
    calls, on one disk each."""
    model, ends = Disk(agent.root), []
    with disk.beneath(agent.root):
        for part in work:
            part()
            ends.append(len(disk.calls()))
    calls, seen, found = disk.calls(), set(), []
    some = random.Random(len(calls)).sample(range(1, len(calls) + 1), SOME)
    for number, call in enumerate(calls, 1):
        model.do(call)
        dice = random.Random(number)
        losses = [Loss(), DataLoss(), NameLoss(), Ordered(dice), Disordered(dice), Disordered(dice)]
        for loss in losses if all_of_them else [dice.choice(losses)] if number in some else []:
            state = model.left(loss)
            mark = print_of(state)
            if mark not in seen:
                seen.add(mark)
                done = sum(number >= end for end in ends)
                found.append(Cut(f"cut behind call {number} ({type(loss).__name__})", state, model.now(), done))
    real = {str(path.relative_to(agent.root)): path for path in agent.root.rglob("*")}
    assert weighty({name: content for name, (_, content) in model.now().items()}) == weighty(
        {name: path.read_bytes() if path.is_file() else b"" for name, path in real.items()}
    ), "the model has seen all that the real disk has"
    return found


def weighty(tree: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in tree.items() if not name.startswith(OF_NO_WEIGHT)}


def print_of(state: State) -> bytes:
    """One for all states that differ in nothing of weight."""
    digest, numbers = hashlib.sha256(), dict[object, int]()
    for name, (file, content) in state.items():
        if not name.startswith(OF_NO_WEIGHT):
            number = numbers.setdefault(file, len(numbers)) if file else ""
            digest.update(f"{name!r} {number} {len(content)} ".encode() + content)
    return digest.digest()


def gone_on(agent: Agent, found: Sequence[Cut], go_on: Callable[[], object]) -> Iterator[Cut]:
    """A daemon finds each of these states, and runs to its end."""
    for cut in found:
        restore(agent.root, cut.state)
        if agent.layout.boot.exists():
            agent.layout.boot.write_text("the boot before")
        go_on()
        yield cut


def check(agent: Agent, cut: Cut) -> None:
    """What holds whatever it was that was done."""
    now = {f"outbox/{name}": (agent.layout.outbox / name).read_bytes() for name in agent.files(agent.layout.outbox)}
    before = {name: content for name, (file, content) in cut.before.items() if file and name.startswith("outbox/")}
    for name, content in before.items():
        assert now.get(name) == content, f"{cut.where}: {name} was there already"
    assert not examine(agent.layout).faults, cut.where
    assert len(agent.runs()) == len(list(agent.layout.runs.iterdir())), cut.where


def check_command(agent: Agent, cut: Cut, *also: str) -> str:
    """A command that was dropped is in one place, and so is its one result; gives its status."""
    check(agent, cut)
    (result,) = agent.results()
    place = agent.layout.archive if result["status"] == "done" else agent.layout.failed
    names = [name for each in (place, agent.layout.inbox) for name in agent.files(each) if "/approvals/" not in name]
    assert [Path(name).name for name in names] == [*also, "note.md"], cut.where
    (folder,) = agent.layout.runs.iterdir()
    assert not (folder / "claimed.md").exists(), cut.where
    assert not (folder / "result.new").exists(), cut.where
    assert RunFolder(folder).settled(), cut.where
    assert RunFolder(folder).raw() == next(place.rglob("note.md")).read_bytes(), cut.where
    return str(result["status"])


def lines_are_right(agent: Agent, cut: Cut, status: str) -> None:
    """Each line was appended once; where it is said that it may have happened or not, at most once, or half of it."""
    log = (agent.root / "log.txt").read_text() if (agent.root / "log.txt").exists() else ""
    assert log == "one\ntwo\n" or (status == "interrupted" and "one\ntwo\n".startswith(log)), (cut.where, status, log)


EXTENT = [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.long)]


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_a_fact_is_remembered_once(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS, programs=disk.programs)
    agent.once()
    agent.drop("a/note.md", "My name is Alice.")
    for cut in gone_on(agent, cuts(disk, agent, agent.once, all_of_them=all_of_them), agent.once):
        assert check_command(agent, cut) == "done", cut.where
        assert agent.layout.soul.read_text().count("Alice") == 1, cut.where


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_a_question_is_answered_once(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS, programs=disk.programs)
    agent.once()
    agent.drop("note.md", "What is my name?")
    for cut in gone_on(agent, cuts(disk, agent, agent.once, all_of_them=all_of_them), agent.once):
        assert check_command(agent, cut) == "done", cut.where


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_lines_are_appended_once_and_attachments_are_kept(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS, programs=disk.programs)
    agent.once()
    agent.drop("b.csv", "1,2")
    agent.drop("note.md", f"---\nattachments: [b.csv]\nsteps:\n{TWO_LINES}---\n")
    for cut in gone_on(agent, cuts(disk, agent, agent.once, all_of_them=all_of_them), agent.once):
        lines_are_right(agent, cut, check_command(agent, cut, "b.csv"))


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_a_slot_has_one_run(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS + "timezone: UTC\n", programs=disk.programs)
    (agent.layout.tasks / "water.md").write_text(f"---\nevery: 1m\nreport: always\nsteps:\n{TWO_LINES}---\n")
    agent.once_by(AT, NOON.isoformat())
    beat = (NOON + timedelta(seconds=61)).isoformat()

    def work() -> None:
        done = agent.once_by(AT, beat)
        assert done.returncode == 0, done.stderr

    for cut in gone_on(agent, cuts(disk, agent, work, all_of_them=all_of_them), work):
        check(agent, cut)
        (result,) = agent.results()
        lines_are_right(agent, cut, result["status"])


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_what_was_accepted_is_run_once(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS, programs=disk.programs)
    agent.once()

    def drop() -> None:
        done = agent.once_by(DROP, f"---\nsteps:\n{TWO_LINES}---\n")
        assert done.returncode == 0, done.stderr

    for cut in gone_on(agent, cuts(disk, agent, drop, agent.once, all_of_them=all_of_them), agent.once):
        check(agent, cut)
        results = agent.results()
        assert len(results) <= 1, cut.where
        assert results or not cut.done, f"{cut.where}: it was accepted, and is gone"
        if results:
            lines_are_right(agent, cut, results[0]["status"])


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_what_cannot_be_read_is_answered_once(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS, programs=disk.programs)
    agent.once()
    agent.drop("note.md", "---\nretries: many\n---\nLog one to log.txt")
    for cut in gone_on(agent, cuts(disk, agent, agent.once, all_of_them=all_of_them), agent.once):
        assert check_command(agent, cut) == "refused", cut.where
        assert not (agent.root / "log.txt").exists(), cut.where


@pytest.mark.parametrize("all_of_them", EXTENT)
def test_a_tick_counts_once(tmp_path: Path, disk: DiskCalls, all_of_them: bool) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS + "tools: {append: ask}\n", programs=disk.programs)
    agent.drop("note.md", "---\nsteps:\n  - append: {path: log.txt, text: one}\n---\n")
    agent.once()
    (question,) = agent.layout.approvals.iterdir()
    question.write_text(question.read_text().replace("- [ ] approve once", "- [x] approve once", 1))
    for cut in gone_on(agent, cuts(disk, agent, agent.once, all_of_them=all_of_them), agent.once):
        log = (agent.root / "log.txt").read_text() if (agent.root / "log.txt").exists() else ""
        waiting = [path.read_text() for path in agent.layout.approvals.glob("*.md")]
        if agent.results():
            status = check_command(agent, cut)
            assert log == "one\n" or (status == "interrupted" and "one\n".startswith(log)), (cut.where, status, log)
            assert not waiting, cut.where
        else:  # it may have happened or not, so a person is asked again
            assert ["it was approved before" in text for text in waiting] == [True], cut.where
            assert "one\n".startswith(log), (cut.where, log)
