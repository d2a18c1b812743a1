"""Two minutes of a real daemon on tasks of a second, killed every few seconds: no slot is lost, none is run twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsagent.doctor import examine
from fsagent.workspace.runs import Envelope, RunFolder
from harness import Agent, wait_for
from journals import read_records

SECONDS = 120
SECOND = timedelta(seconds=1)
TASKS = ("tick", "tock", "all")


def envelopes(agent: Agent) -> list[Envelope]:
    found = (RunFolder(path).envelope() for place in (agent.layout.runs, agent.layout.drop) for path in place.iterdir())
    return [each for each in found if each and each.task]


def records(agent: Agent, event: str) -> list[dict[str, Any]]:
    every = (record for path in sorted(agent.layout.journal.glob("*.jsonl")) for _, record in read_records(path))
    return [record for record in every if record and record["event"] == event]


def accounted(agent: Agent, task: str) -> tuple[Counter[datetime], Counter[datetime]]:
    """The slots of a task that were run, and those that the journal says were not."""
    run = Counter(each.slot for each in envelopes(agent) if each.task == task and each.slot)
    not_run: Counter[datetime] = Counter()
    for record in records(agent, "missed"):
        if record["task"] == task:
            first, last = (datetime.fromisoformat(record[key]) for key in ("first", "last"))
            each = [first + n * SECOND for n in range(int((last - first) / SECOND) + 1)]
            assert len(each) == record["slots"], record
            not_run.update(each)
    not_run.update(datetime.fromisoformat(each["slot"]) for each in records(agent, "skipped") if each["task"] == task)
    return run, not_run


@pytest.mark.long
@pytest.mark.timeout(400)
def test_two_minutes_of_kills_lose_no_slot_and_run_none_twice(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", "settle: 0s\nshutdown_wait: 5s\n")
    (agent.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    for name in TASKS:
        more = "missed: all\n" if name == "all" else ""
        steps = f"steps:\n  - append: {{path: {name}.txt, text: '{{{{ now }}}}'}}\n"
        (agent.layout.tasks / f"{name}.md").write_text(f"---\nevery: 1s\n{more}{steps}---\n")
    chance, kills, end = random.Random(20261127), 0, time.monotonic() + SECONDS
    agent.start()
    try:
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.2, 6))  # the test is about kills at any moment
            agent.kill()
            kills += 1
            agent.start()
        now = datetime.now(UTC)
        wait_for(lambda: all(max(accounted(agent, task)[0], default=now) >= now for task in TASKS), "they go on")
        assert agent.stop() == 0
    finally:
        agent.close()
    for task in TASKS:
        (agent.layout.tasks / f"{task}.md").unlink()
    agent.once()
    assert kills > SECONDS / 10
    for task in TASKS:
        run, not_run = accounted(agent, task)
        first, last = min(run), max(run)
        every = {first + n * SECOND for n in range(int((last - first) / SECOND) + 1)}
        assert max(run.values()) == 1, task
        assert every == set(run) | {slot for slot in not_run if slot <= last}, task
        assert not set(run) & set(not_run), task
        if task == "all":
            assert not not_run, "every slot that was missed has been caught up with"
        done = [each for each in agent.runs() if each.task == task]
        assert {each.status for each in done} == {"done"}, task
        assert len(done) == len(run)
        assert len((agent.root / f"{task}.txt").read_text().splitlines()) == len(done), (
            "each of them wrote its line once"
        )
    assert not examine(agent.layout).faults


def test_what_a_crash_left_half_done_is_tidied_up_but_a_save_of_the_soul_is_kept(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws")
    hidden = [agent.root / ".notes-of-mine", agent.root / ".draft.md.swp"]
    layout = agent.layout
    places = (agent.root, layout.approvals, layout.outbox, layout.tasks, layout.machine)
    left = [place / f".fsagent-tmp-{number}" for number, place in enumerate(places)]
    soul = agent.root / ".fsagent-tmp-soul-1"
    for path in (*hidden, *left, soul):
        path.write_text("My name is Alice.")
        os.utime(path, (0, 0))
    young = agent.root / ".fsagent-tmp-young"
    young.touch()
    agent.once()
    assert [path.exists() for path in (*left, soul)] == [False] * 6
    assert [path.exists() for path in (*hidden, young)] == [True] * 3
    (kept,) = agent.layout.archive.rglob("soul-cut-short.md")
    assert kept.read_text() == "My name is Alice."
