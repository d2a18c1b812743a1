"""A workspace with a clock that a test steps, and nobody else: what the clock hands in is taken by the test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fsagent.clock import Clock
from fsagent.config import Settings
from fsagent.files.fields import Duration
from fsagent.gates import Verdict
from fsagent.model import Task
from fsagent.openruns import OpenRuns
from fsagent.trouble import Trouble
from fsagent.workspace.create import init_workspace
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder, claim_dropped, dropped
from fsagent.workspace.tasks import TaskBook
from journals import read_records

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


class ScriptedGates:
    """Answers at once what ``says`` holds for a task; keeps those for which it holds nothing waiting."""

    def __init__(self) -> None:
        self.says: dict[str, Verdict] = {}
        self.asked: list[tuple[Task, datetime, dict[str, str]]] = []
        self._waiting: list[tuple[Task, datetime]] = []

    def check(self, task: Task, slot: datetime, seen: Mapping[str, str]) -> None:
        self.asked.append((task, slot, dict(seen)))
        self._waiting.append((task, slot))

    def take(self) -> list[tuple[Task, datetime, Verdict]]:
        ready = [(task, slot) for task, slot in self._waiting if task.name in self.says]
        self._waiting = [each for each in self._waiting if each not in ready]
        return [(task, slot, self.says[task.name]) for task, slot in ready]


class Desk:
    """A workspace with a clock and somebody who takes what the clock hands in, and does it at once: but for what the
    tasks in ``busy`` have begun, which is done when they are not busy any more."""

    def __init__(
        self, root: Path, now: datetime = NOON + timedelta(seconds=0.5), journal: type[Journal] = Journal
    ) -> None:
        self._journal_type = journal
        self.trouble: Trouble | None = None
        self.layout: Layout = init_workspace(root)[0]
        (self.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
        self.now = now
        self.settings = Settings(heartbeat_interval=Duration(60), timezone="UTC")
        self.busy: set[str] = set()
        self.taken: list[Envelope] = []
        self.task_of: dict[str, str] = {}
        self.open: list[RunFolder] = []
        self.replaced: list[str] = []
        self.faults: list[tuple[str, str]] = []
        self.start()

    def end(self) -> None:
        """As a kill does: what is open is closed, and nothing is synced."""
        if self.trouble:
            self.trouble.close()
            self.book.close()
            self.journal._let_go()

    __del__ = end

    def start(self) -> None:
        """(Re)start: nothing is known but what lies on the disk."""
        self.end()
        self.journal = self._journal_type(self.layout.journal, lambda: self.now)
        self.book = TaskBook(self.layout)
        self.gates, self.runs = ScriptedGates(), OpenRuns()
        self.trouble = Trouble(self.layout, self.journal, lambda: None)
        for folder in self.open:
            self.runs.take_up(folder)
        self.clock = Clock(
            self.book, lambda: self.settings, self.journal, self.runs, self.gates,
            replace=lambda run, why: self.replaced.append(f"{run} {why}"),
            told=lambda task, fault: self.faults.append((task.name, fault)),
            trouble=self.trouble,
        )  # fmt: skip
        self.book.scan()
        self.clock.update(self.now)

    def task(self, name: str, text: str = "beat") -> Path:
        path = self.layout.tasks / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def look(self) -> None:
        self.clock.update(self.now, self.book.scan())

    def tick(self) -> float | None:
        idle = self.clock.tick(self.now)
        for run in dropped(self.layout):
            folder = claim_dropped(self.layout, run)
            assert folder
            envelope = folder.envelope()
            assert envelope
            self.taken.append(envelope)
            self.task_of[run] = envelope.task
            self.open.append(folder)
            folder.close()
        for folder in list(self.open):
            if self.task_of[folder.run] not in self.busy:
                self.runs.end(folder.run)
                self.open.remove(folder)
        return idle

    def step(self, by: timedelta, times: int = 1) -> None:
        for _ in range(times):
            self.now += by
            self.tick()

    def slots(self, task: str | None = None) -> list[str]:
        return [f"{each.slot:%H:%M:%S}" for each in self.taken if task in (None, each.task)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        records = [record for path in sorted(self.layout.journal.glob("*.jsonl")) for _, record in read_records(path)]
        return [record for record in records if record and record["event"] == kind]
