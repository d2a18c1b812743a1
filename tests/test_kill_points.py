"""kill -9 at every system call that changes a disk, for one command: README promises 1 to 3 must hold after it.

strace ends the daemon at the n-th call of a kind; then a daemon that nobody ends runs to the end. The walk stops by
itself at the first n that the run never reaches.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from fsagent.doctor import examine
from harness import Agent, wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
CALLS = ("mkdir", "rename", "linkat", "unlink", "fsync", "fdatasync", "write")
SETTINGS = "settle: 0s\nsettle_renamed: 0s\n"
LAST = 400


def _strace_works() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    import subprocess

    done = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()}"


WHY_NOT = _strace_works()


def _walk(tmp_path: Path, call: str, text: str, files: Mapping[str, str] = {}):
    """One workspace for every n, with these files: killed at the n-th ``call``, then run to the end undisturbed."""
    for number in range(1, LAST):
        agent = Agent(tmp_path / f"{call}-{number}", SETTINGS)
        for name, content in files.items():
            (agent.root / name).write_text(content)
        agent.drop("a/note.md", text)
        killed = agent.once_killed_at(call, number)
        agent.once()
        yield number, agent
        shutil.rmtree(agent.root)
        if not killed:
            assert number > 1, f"no {call} was ever made"
            return
    raise AssertionError(f"more than {LAST} times {call}")


def _in_one_place(agent: Agent) -> str:
    places = {
        "inbox": agent.files(agent.layout.inbox),
        "archive": agent.files(agent.layout.archive),
        "failed": agent.files(agent.layout.failed),
        "runs": [name for name in agent.files(agent.layout.runs) if name.endswith("claimed.md")],
    }
    found = {place: names for place, names in places.items() if names}
    assert [len(names) for names in found.values()] == [1], found
    return next(iter(found))


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("call", CALLS)
def test_a_fact_survives_a_kill_at_every_call(tmp_path: Path, call: str) -> None:
    for number, agent in _walk(tmp_path, call, "My name is Alice."):
        where = f"killed at {call} {number}"
        assert _in_one_place(agent) == "archive", where
        (result,) = agent.results()
        assert result["status"] == "done", f"{where}: {result.metadata}"
        assert agent.layout.soul.read_text().count("Alice") == 1, where
        assert [run.status for run in agent.runs()] == ["done"], where
        assert not list(examine(agent.layout).faults), where


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("call", CALLS)
def test_a_line_is_appended_once_whatever_call_the_kill_comes_at(tmp_path: Path, call: str) -> None:
    playbook = "---\nsteps:\n  - append: {path: log.txt, text: one}\n  - append: {path: log.txt, text: two}\n---\n"
    for number, agent in _walk(tmp_path, call, playbook):
        where = f"killed at {call} {number}"
        assert _in_one_place(agent) == "archive", where
        (result,) = agent.results()
        assert result["status"] == "done", f"{where}: {result.metadata}"
        assert (agent.root / "log.txt").read_text() == "one\ntwo\n", where


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize(("path", "status"), [("report.md", "done"), ("other.md", "failed")])
@pytest.mark.parametrize("call", ["fdatasync", "write"])
def test_a_promise_is_judged_alike_whatever_call_the_kill_comes_at(
    tmp_path: Path, call: str, path: str, status: str
) -> None:
    playbook = (
        "---\nexpects: {file: report.md, newer: true}\nsteps:\n"
        f"  - write: {{path: {path}, text: new}}\n  - append: {{path: log.txt, text: one}}\n---\n"
    )
    for number, agent in _walk(tmp_path, call, playbook, {"report.md": "new"}):
        where = f"killed at {call} {number}"
        (result,) = agent.results()
        assert result["status"] == status, f"{where}: {result.metadata}"
        if status == "failed":
            assert result["error"] == "did not leave what it promised (expects): report.md was not written", where
        assert (agent.root / "log.txt").read_text() == "one\n", where
        assert not list(examine(agent.layout).faults), where


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
