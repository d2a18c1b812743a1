"""A task that fails again and again is paused, with one notice, and goes on when somebody did something about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsagent.workspace.tasks import TaskBook
from harness import Agent, wait_for

FAILS = "---\nevery: 1s\npause_after: 3\nsteps:\n  - read: missing.md\n---\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", "settle: 0s\nscan_interval: 1h\nretries: 0\n")
    (agent.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    yield agent
    agent.close()


def paused(agent: Agent) -> str:
    return TaskBook(agent.layout).state("bad").paused


def notices(agent: Agent) -> list[str]:
    folder = agent.layout.outbox / "notices"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_a_task_is_paused_after_its_failures_told_once_and_resumed_by_an_edit(agent: Agent) -> None:
    task = agent.layout.tasks / "bad.md"
    task.write_text(FAILS)
    agent.start()
    wait_for(lambda: paused(agent) == "3 failures in a row", "the task is paused")
    wait_for(lambda: len(notices(agent)) == 1, "one notice")
    runs = len(agent.runs())
    agent.kill()
    agent.start()
    assert paused(agent), "it stays paused across a restart"
    assert len(agent.runs()) == runs
    task.write_text(FAILS.replace("missing.md", "soul.md"))
    wait_for(lambda: any(run.status == "done" for run in agent.runs()), "it goes on with another file")
    assert not paused(agent)
    assert len(notices(agent)) == 1


def test_a_task_is_resumed_by_name_and_its_old_failures_do_not_count(agent: Agent) -> None:
    (agent.layout.tasks / "bad.md").write_text(FAILS)
    agent.start()
    wait_for(lambda: paused(agent), "the task is paused")
    before = len([run for run in agent.runs() if run.task == "bad"])
    agent.cli("resume", "bad")
    wait_for(lambda: not paused(agent), "the task is resumed")
    wait_for(lambda: paused(agent), "it is paused again")
    assert len([run for run in agent.runs() if run.task == "bad"]) == before + 3
    wait_for(lambda: len(notices(agent)) == 2, "a pause anew is told anew")
