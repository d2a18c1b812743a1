"""Ten thousand tasks: a daemon that waits for them sleeps as one without any does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsagent.workspace.status import read_snapshot
from harness import Agent, wait_for

SECONDS = 4


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Agent]]:
    """A daemon without tasks, and one with very many that are far from due."""
    found = [Agent(tmp_path / name) for name in ("none", "many")]
    for agent in found:
        (agent.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    rules = ("once: 2099-01-01 00:00", 'at: "12:00"\nfrom: 2099-01-01', 'cron: "0 0 29 2 *"\nfrom: 2099-01-01')
    for number in range(10_000):
        (found[1].layout.tasks / f"t{number}.md").write_text(f"---\n{rules[number % 3]}\n---\nbeat")
    yield found
    for agent in found:
        agent.close()


def wake_ups(agent: Agent) -> int:
    """How often any thread of the daemon has waited for something, and was woken."""
    total = 0
    for path in Path(f"/proc/{agent.process.pid}/task").glob("*/status"):
        total += int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", path.read_text(), re.MULTILINE)[0])
    return total


def ready(agent: Agent) -> float:
    """Start; gives what processor time it took until all tasks were known, in seconds."""
    agent.start()
    wait_for(lambda: (found := read_snapshot(agent.layout)) and found.pid == agent.process.pid, "it is ready", 120)
    fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(300)
def test_tasks_that_are_far_from_due_wake_nobody_and_are_read_once(agents: list[Agent]) -> None:
    _, cold = (ready(agent) for agent in agents)
    seen = []

    def alike() -> bool:
        before = [wake_ups(agent) for agent in agents]
        time.sleep(SECONDS)  # the measurement itself: how often they wake while nothing happens
        none, many = (wake_ups(agent) - earlier for agent, earlier in zip(agents, before, strict=True))
        seen.append((none, many))
        return many < none + SECONDS / 2

    wait_for(alike, f"no more wake-ups with tasks than without, by less than one in two seconds: {seen}", seconds=120)
    agents[1].stop()
    warm = ready(agents[1])
    assert warm < cold / 3, "only what changed is read again"
