"""Tasks that fail again and again are paused, with one notice: they spend, and nobody is helped.

How often a task has failed is not counted anywhere: it is what the list of its runs says, so no crash can lose it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from fsagent.model import Task
from fsagent.notices import Notices
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.tasks import TaskBook

FAILURES = ("failed", "refused")
_LOOKED_AT = 20


class Failures:
    """Pauses tasks, and lets go of those whose file was edited. Used by one thread."""

    def __init__(
        self, book: TaskBook, index: Index, notices: Notices, journal: Journal, now: Callable[[], datetime]
    ) -> None:
        self._book, self._index, self._notices, self._journal, self._now = book, index, notices, journal, now

    def look(self, name: str) -> bool:
        """A run of this task has ended; True if the task is paused for it now."""
        task = self._book.get_task(name)
        if task is None or not task.pause_after or self._book.state(name).paused:
            return False
        errors = self._in_a_row(task)
        if len(errors) < task.pause_after:
            return False
        why = f"{len(errors)} failures in a row"
        self._notices.tell(
            f"Task {name} is paused",
            f"`{task.path}` failed {len(errors)} times in a row, so it is not run any more. The last time:\n\n"
            f"> {errors[0] or 'no reason was given'}\n\n"
            f"To go on, edit the file (any change counts), or say `fsagent resume {name}`.",
            key=_key(name),
        )
        self._book.set_state(name, paused=why, paused_print=task.print, since=self._now())
        self._journal.append("task paused", task=name, why=why, error=errors[0])
        return True

    def let_go(self, names: set[str]) -> None:
        """Resume those of these tasks that were paused for failures of a file that is another one now."""
        for name in names:
            state, task = self._book.state(name), self._book.get_task(name)
            if state.paused and state.paused_print and task and task.print != state.paused_print:
                self._book.set_state(name, paused="", paused_print="", since=self._now())
                self._journal.append("task resumed", task=name, why="its file was edited")
            if not self._book.state(name).paused:
                self._notices.forget(_key(name))

    def _in_a_row(self, task: Task) -> list[str]:
        """What the failures since the last success, or since the task was resumed, said; the latest first."""
        since = self._book.state(task.name).since
        errors: list[str] = []
        for run in self._index.recent(task.pause_after + _LOOKED_AT, task=task.name, since=since):
            if run.status == "done":
                break
            if run.finished and run.status in FAILURES:  # what was interrupted, or waits, says nothing of the task
                errors.append(run.error)
        return errors


def _key(name: str) -> str:
    return f"paused {name}"
