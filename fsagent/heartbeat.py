"""The heartbeat: all that concerns tasks while the daemon lives, put together: their files, the clock, their gates, and
what becomes of their runs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from fsagent.clock import Clock
from fsagent.config import Settings
from fsagent.failures import Failures
from fsagent.files.names import conflict_of
from fsagent.gates import GateKeeper
from fsagent.model import Task
from fsagent.notices import Notices
from fsagent.openruns import OpenRuns
from fsagent.trouble import Trouble
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Cancel, RunFolder, ask_to_cancel, dropped
from fsagent.workspace.status import Line
from fsagent.workspace.tasks import TaskBook

SHARE_OF_SCANS = 1 / 500
SHARE_WHEN_HEARD = 1 / 10
STOPPED, SHORT_OF_ROOM = "the file STOP was there", "the disk was nearly full"


class Heartbeat:
    """Used by the daemon's thread, but for ``ended``. ``wake`` asks for a look at a place, ``barred`` says why a task
    need not be tried, or ""."""

    def __init__(
        self,
        layout: Layout,
        book: TaskBook,
        index: Index,
        settings: Callable[[], Settings],
        journal: Journal,
        notices: Notices,
        gates: GateKeeper,
        barred: Callable[[Task], str],
        wake: Callable[[str], None],
        now: Callable[[], datetime],
        trouble: Trouble,
    ) -> None:
        self._layout, self._book, self._settings, self._notices = layout, book, settings, notices
        self._wake, self._now, self._gates, self._trouble = wake, now, gates, trouble
        self._changed: set[str] = set()  # tasks whose change was not taken up yet
        self._ended: set[str] = set()  # tasks of which a run has ended, and nobody looked yet what that means
        self._runs = OpenRuns()
        self._failures = Failures(book, index, notices, journal, now)
        self._clock = Clock(
            book, settings, journal, self._runs, gates, barred, self._replace, self._gate_told, trouble=trouble
        )
        self._heard = False
        self._conflicts: set[str] = set()
        self._gate_faults: dict[str, str] = {}  # of tasks that are not run for them
        self._next_scan = self._may_scan = 0.0

    def open(self, unsettled: Iterable[RunFolder]) -> None:
        """Begin, with the runs that were not settled when the last daemon ended."""
        for folder in (*unsettled, *(RunFolder(self._layout.drop / run) for run in dropped(self._layout))):
            self._runs.take_up(folder)
        collects = gc.isenabled()
        gc.disable()  # what is made now, for thousands of tasks, is all kept
        try:
            self._scan()
            self._failures.let_go(self._book.paused())
            self._clock.update(self._now())
        finally:
            if collects:
                gc.enable()

    def look(self, *, heard: bool, full: bool, watched: bool) -> bool:
        """Look at the task files where something was heard of them, or it is time; True if any is another one.

        Of many files a look costs something, so looks are given a small share of the time: a smaller one while the
        system tells of every change (``watched``), for then they find nothing.
        """
        self._heard |= heard or bool(self._changed)
        moment = time.monotonic()
        due = full and moment >= (self._next_scan if watched else self._may_scan)
        if not due and not (self._heard and moment >= self._may_scan):
            return False
        self._changed |= self._scan()
        changed = set(self._changed)
        if changed:
            self._failures.let_go(changed)
        for name in changed:
            self._gate_faults.pop(name, None)
        self._clock.update(self._now(), changed)
        self._changed -= changed
        return bool(changed)

    def tick(self, *, halted: str) -> tuple[bool, float | None]:
        """Hand in what is due, or nothing where ``halted`` says why; gives whether anything was, and the seconds until
        the next slot."""
        now, before = self._now(), self._clock.handed_in
        self._ended |= self._runs.ended()
        for task in sorted(self._ended):
            with self._trouble.guard(f"the failures of tasks/{task}"):
                if self._failures.look(task):
                    self._clock.update(now, [task])
                self._ended.discard(task)
        with self._trouble.guard("the conflict copies of tasks"):
            self._tell_conflicts()
        if halted:
            self._clock.absence = halted
            return False, None
        due = self._clock.tick(now)
        return self._clock.handed_in != before, due

    def wait(self) -> float | None:
        """Seconds until task files of which something was heard are looked at; None where nothing was."""
        return max(0.0, self._may_scan - time.monotonic()) if self._heard else None

    def take_up(self, folder: RunFolder) -> None:
        """A run is admitted."""
        self._runs.take_up(folder)

    def ended(self, run: str) -> None:
        """A run has ended. From any thread."""
        self._runs.end(run)

    def asking(self) -> bool:
        """True while it is not known yet what becomes of a slot that has come."""
        return self._clock.asking()

    def upcoming(self, most: int) -> list[tuple[datetime, str]]:
        """The tasks that fall due next, and when."""
        return self._clock.upcoming(most)

    def paused(self) -> Sequence[Line]:
        """The tasks that are paused, or whose gates cannot be looked at, and why."""
        paused = {name: self._book.state(name).paused for name in self._book.paused()}
        held = {name: f"its gate does not work: {fault}" for name, fault in self._gate_faults.items()}
        return [Line(name, why) for name, why in sorted((held | paused).items())]

    def close(self) -> None:
        """End the gates that are being looked at."""
        self._gates.close()

    def _scan(self) -> set[str]:
        self._heard = False
        changed = self._book.scan()
        moment, cost = time.monotonic(), self._book.scan_seconds
        self._next_scan, self._may_scan = moment + cost / SHARE_OF_SCANS, moment + cost / SHARE_WHEN_HEARD
        return changed

    def _tell_conflicts(self) -> None:
        """A sync client's conflict copy of a task file is told once, and left where it is: the folder is a person's."""
        found = self._book.conflicts()
        for name in self._conflicts.difference(found):
            self._notices.forget(f"conflict {name}")
        for name in found:
            if name not in self._conflicts:
                self._notices.tell(
                    f"A conflict copy of task {conflict_of(name) or name}",
                    f"Two devices changed the task at the same time, and a sync client kept one of the two texts as "
                    f"`tasks/{name}`. It is never run; the task runs as its own file says. Compare the two, then "
                    "remove the copy.",
                    key=f"conflict {name}",
                )
        self._conflicts = set(found)

    def _replace(self, run: str, why: str) -> None:
        ask_to_cancel(self._layout, run, Cancel(time=self._now().astimezone(UTC), trigger="task", by=why))
        self._wake("cancel")

    def _gate_told(self, task: Task, fault: str) -> None:
        """A gate that cannot be looked at keeps its task from running: told once, until it can."""
        key = f"gate {task.name}"
        self._gate_faults.pop(task.name, None)
        if fault:
            self._gate_faults[task.name] = fault
            self._notices.tell(
                f"A gate of task {task.name} does not work",
                f"`{task.path}` is not run, for what its `when:` asks cannot be found out:\n\n> {fault}",
                key=key,
            )
        else:
            self._notices.forget(key)
