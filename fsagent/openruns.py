"""Which runs of which task have not ended: the daemon's one answer to whether slots overlap."""

from __future__ import annotations

import threading
from collections import deque

from fsagent.workspace.runs import RunFolder


class OpenRuns:
    """Kept in memory; told of every run of a task that is handed in or taken up, and of every end. Safe to share
    between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._task: dict[str, str] = {}
        self._runs: dict[str, dict[str, None]] = {}
        self._ended: deque[str] = deque()

    def add(self, run: str, task: str) -> None:
        """A run is at the door, or was found there."""
        with self._lock:
            self._task[run] = task
            self._runs.setdefault(task, {})[run] = None

    def take_up(self, folder: RunFolder) -> None:
        """As ``add``, for a run that nobody may have told of: a person's, or one from before a restart."""
        if folder.run not in self._task:
            envelope = folder.envelope()
            if envelope and envelope.task:
                self.add(folder.run, envelope.task)

    def end(self, run: str) -> None:
        """A run has ended, whatever came of it."""
        with self._lock:
            task = self._task.pop(run, None)
            if task is None:
                return
            runs = self._runs[task]
            del runs[run]
            if not runs:
                del self._runs[task]
            self._ended.append(task)

    def of(self, task: str) -> list[str]:
        """The runs of a task that have not ended, in the order in which they came."""
        with self._lock:
            return list(self._runs.get(task, ()))

    def ended(self) -> set[str]:
        """The tasks of which a run has ended since this was asked last."""
        with self._lock:
            return {self._ended.popleft() for _ in range(len(self._ended))}
