"""More changes than the system keeps for us: what was lost is looked for at once, and nothing is lost for good."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Agent, wait_for

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
SETTINGS = "settle: 0s\nsettle_renamed: 0s\nscan_interval: 1h\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", SETTINGS)
    yield agent
    agent.close()


def flood(folder: Path) -> None:
    """More events than the queue holds, of files that nobody wants; skips where that would take too long."""
    size = int(QUEUE.read_text()) if QUEUE.exists() else 1 << 30
    if size > 100_000:
        pytest.skip(f"the queue of inotify holds {size} events, or there is none")
    for number in range(size // 2 + 500):  # each is made and closed
        os.close(os.open(folder / f".{number % 500}.tmp", os.O_CREAT | os.O_WRONLY))
        if number % 500 == 499:
            for each in range(500):
                os.unlink(folder / f".{each}.tmp")


@pytest.mark.timeout(120)
def test_what_is_dropped_while_the_queue_runs_over_runs_once_and_soon(agent: Agent) -> None:
    """With scans once an hour, only the news of the overflow can bring it. The daemon is stopped while it happens, as
    by a laptop that sleeps; the folders that came meanwhile are watched from then on like all others."""
    agent.start()
    agent.drop("first.md", "My name is Alice.")
    agent.result("first.md")
    wait_for(lambda: "Watching by events." in " ".join(agent.status().split()), "it watches")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        flood(agent.layout.inbox)
        for number in range(20):
            agent.drop(f"lost-{number}.md", "What is my name?")
            agent.drop(f"thread-{number}/deeper/lost.md", "What is my name?")
        (agent.layout.tasks / "lost.md").write_text("---\nevery: 1h\n---\nMy name is Bob.\n")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    names = {f"lost-{number}.md" for number in range(20)}
    names |= {f"thread-{number}/deeper/lost.md" for number in range(20)}
    for number in range(200):  # while it looks again, and makes its watches anew
        agent.drop(name := f"thread-{number % 20}/deeper/{number}.md", "What is my name?")
        names.add(name)
    for name in sorted(names):
        assert agent.result(name)["status"] == "done"
    wait_for(lambda: "`lost` every 1h" in " ".join(agent.status().split()), "the task is known")
    answered = [run.command for run in agent.runs() if run.trigger == "inbox"]
    assert sorted(answered) == sorted(names | {"first.md"})
    assert "Watching by events." in " ".join(agent.status().split())
    assert agent.stop() == 0
