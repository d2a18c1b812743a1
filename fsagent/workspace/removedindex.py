"""What the index knows of runs that retention removed: a copy of what the files in ``.fsagent/removed/`` remember."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from fsagent.model import Run
from fsagent.workspace.removed import RemovedRun


class RemovedRuns:
    """One part of an ``Index``, whose connection, lock and transactions (``begin``) it shares; so it is as
    safe to share between threads."""

    def __init__(self, db: sqlite3.Connection, lock: threading.Lock, begin: Callable[[], object]) -> None:
        self._db, self._lock, self._begin = db, lock, begin

    def of(self, column: Literal["id", "key"], value: str) -> list[Run]:
        """Those with this ``id`` or ``key``, newest first. ``settled`` says where the command lies; where retention
        removed that too, the file that remembers it. One that has a folder still is none of them."""
        folder = "SELECT 1 FROM runs WHERE runs.run = removed.run"
        where = f"WHERE {column} = ? AND {column} != '' AND NOT EXISTS ({folder}) ORDER BY at DESC"
        return [removed.as_run(file) for file, removed in self._select(where, (value,))]

    def get(self, run: str) -> RemovedRun | None:
        """What is remembered of a run."""
        return next((removed for _, removed in self._select("WHERE run = ?", (run,))), None)

    def lying_after(self, at: float, run: str, limit: int) -> list[tuple[float, RemovedRun]]:
        """Those of which files still lie somewhere, oldest first, behind one of that end (seconds since 1970) and id"""
        found = self._select("WHERE lies AND (at, run) > (?, ?) ORDER BY at, run LIMIT ?", (at, run, limit))
        return [(removed.finished.timestamp(), removed) for _, removed in found]

    def leaving(self) -> list[RemovedRun]:
        """Those of which files were to be removed when a process ended."""
        return [removed for _, removed in self._select("WHERE leaving ORDER BY run", ())]

    def read_up_to(self) -> dict[str, int]:
        """How far each file of ``.fsagent/removed`` was read, by its name."""
        with self._lock:
            return dict(self._db.execute("SELECT file, size FROM removed_read").fetchall())

    def put(self, file: str, runs: Iterable[RemovedRun], size: int) -> None:
        """Take in what was written to a file (its path in the workspace), which was read up to ``size``."""
        with self._lock:
            self._begin()
            for run in runs:
                row = (run.run, run.finished.timestamp(), run.key, _plain(run.id), bool(run.files), bool(run.leaving),
                       file, msgspec.json.encode(run))  # fmt: skip
                self._db.execute("INSERT OR REPLACE INTO removed VALUES (?,?,?,?,?,?,?,?)", row)
            self._db.execute("INSERT OR REPLACE INTO removed_read VALUES (?, ?)", (file, size))

    def forget(self, file: str) -> None:
        """A file is gone, and with it what only it remembered."""
        with self._lock:
            self._begin()
            for table in ("removed", "removed_read"):
                self._db.execute(f"DELETE FROM {table} WHERE file = ?", (file,))

    def in_file(self, file: str) -> list[RemovedRun]:
        """Those that a file remembers last, and of which files still lie somewhere."""
        return [removed for _, removed in self._select("WHERE file = ? AND (lies OR leaving)", (file,))]

    def _select(self, where: str, values: Sequence[object]) -> list[tuple[str, RemovedRun]]:
        with self._lock:
            rows = self._db.execute(f"SELECT file, record FROM removed {where}", tuple(values)).fetchall()
        return [(file, msgspec.json.decode(record, type=RemovedRun)) for file, record in rows]


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
