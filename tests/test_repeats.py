"""What comes again: a sync client's second delivery, a person's second wish, an id that is taken, a later save."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Agent, wait_for


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", "settle: 100ms\nsettle_renamed: 50ms\n")
    agent.start()
    yield agent
    agent.close()


def log(agent: Agent) -> list[str]:
    return (agent.root / "log.txt").read_text().splitlines()


def test_what_a_sync_client_delivers_again_is_not_run_again(agent: Agent) -> None:
    agent.drop("a.md", "Log one to log.txt")
    agent.result("a.md")
    wait_for(lambda: agent.files(agent.layout.archive), "it is settled")
    shutil.copy2(agent.layout.archive / agent.files(agent.layout.archive)[0], agent.layout.inbox / "a.md")
    wait_for(lambda: "delivered again" in agent.output(), "the daemon tells")
    wait_for(lambda: len(agent.files(agent.layout.archive)) == 2, "it is kept")
    assert log(agent) == ["one"]
    assert agent.files(agent.layout.outbox) == ["a.md"]
    assert not agent.files(agent.layout.inbox)


def test_what_a_person_drops_again_is_run_again(agent: Agent) -> None:
    for name in ("a.md", "a-2.md"):
        agent.drop("a.md", "Log one to log.txt")
        agent.result(name)
    assert log(agent) == ["one", "one"]


@pytest.mark.parametrize("place", ["archive", "failed"])
def test_a_command_that_is_moved_back_is_run_again(agent: Agent, place: str) -> None:
    text = "Log one to log.txt" if place == "archive" else "---\nid: x\nsteps:\n  - read: missing.md\n---\n"
    agent.drop("a.md", text)
    agent.result("a.md")
    folder = getattr(agent.layout, place)
    (name,) = wait_for(lambda: agent.files(folder), "it is settled")
    os.rename(folder / name, agent.layout.inbox / "a.md")
    assert agent.result("a-2.md")["status"] == agent.result("a.md")["status"]
    assert wait_for(lambda: agent.files(folder), "it is settled again") == [name]


def test_one_run_per_id(agent: Agent) -> None:
    for name in ("a.md", "b.md"):
        agent.drop(name, "---\nid: order-1\n---\nLog one to log.txt")
        agent.result(name)
    assert agent.result("b.md")["status"] == "refused"
    assert "order-1" in agent.result("b.md")["error"]
    assert log(agent) == ["one"]


def test_a_later_save_with_more_text_is_told_and_not_run(agent: Agent) -> None:
    agent.drop("a.md", "Log one to log.txt")
    agent.result("a.md")
    agent.drop("a.md", "Log one to log.txt\nLog two to log.txt")
    assert "later save" in agent.result("a-2.md")["error"]
    assert log(agent) == ["one"]


def test_a_correction_of_what_was_refused_is_run(agent: Agent) -> None:
    agent.drop("a.md", "Log one")
    assert agent.result("a.md")["status"] == "refused"
    agent.drop("a.md", "Log one to log.txt")
    assert agent.result("a-2.md")["status"] == "done"


def deadly(site: Path) -> dict[str, str]:
    """An environment with a tool and an engine that end their process, as a crash in a library would."""
    info = site / "deadly-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fsagent.tools]\ndie = deadly:Die\n[fsagent.engines]\ndeadly = deadly:Deadly\n"
    )
    (site / "deadly.py").write_text(
        "import os\nfrom fsagent.tools.base import Tool\nfrom fsagent.tools.place import PathArgs\n\n"
        "class Die(Tool):\n    name, args, main, effect, slow = 'die', PathArgs, 'path', 'read', False\n\n"
        "    def run(self, *_):\n        os._exit(9)\n\n"
        "class Deadly:\n    name = 'deadly'\n\n    def decide(self, *_):\n        os._exit(9)\n"
    )
    return {**os.environ, "PYTHONPATH": str(site)}


def test_a_command_that_ends_the_daemon_is_tried_twice_and_not_a_third_time(tmp_path: Path) -> None:
    environment = deadly(tmp_path / "site")
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("a.md", "---\nsteps:\n  - die: x\n---\n")
    for _ in range(2):
        assert agent.once(check=False, env=environment).returncode == 9
    assert agent.once(env=environment).returncode == 0
    assert agent.result("a.md")["status"] == "interrupted"
    assert agent.files(agent.layout.failed) == ["a.md"]
    assert not agent.files(agent.layout.inbox)


def test_a_deadly_command_takes_none_of_those_that_wait_behind_it_along(tmp_path: Path) -> None:
    environment = deadly(tmp_path / "site")
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("0.md", "---\nthread: one\nsteps:\n  - die: x\n---\n")
    for number in range(1, 10):
        agent.drop(f"{number}.md", f"---\nthread: one\n---\nLog {number} to log.txt")
    for _ in range(2):
        assert agent.once(check=False, env=environment).returncode == 9
    assert agent.once(env=environment).returncode == 0
    assert sorted(result["status"] for result in agent.results()) == ["done"] * 9 + ["interrupted"]
    assert sorted(log(agent)) == [str(number) for number in range(1, 10)]


def test_an_engine_that_ends_its_process_does_not_end_the_daemon(tmp_path: Path) -> None:
    environment = deadly(tmp_path / "site")
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("a.md", "---\nengine: deadly\n---\nanything")
    assert agent.once(env=environment).returncode == 0
    assert agent.result("a.md")["status"] == "interrupted"
    assert "was ended 2 times" in agent.result("a.md")["error"]
