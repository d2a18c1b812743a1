"""The index: a list of all runs in SQLite, for lists and look-ups that do not slow down with the years.

The run folders are the truth; this file can be deleted at any time and is then built again from them. One process
writes it (the daemon), any number may read. A crash may cost the last rows, which recovery writes again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from fsagent.model import Run

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, at REAL, open INTEGER, status TEXT, command TEXT, task TEXT, id TEXT, key TEXT, record BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_at ON runs (at);
CREATE INDEX IF NOT EXISTS runs_open ON runs (run) WHERE open;
CREATE INDEX IF NOT EXISTS runs_task ON runs (task, at) WHERE task != '';
CREATE INDEX IF NOT EXISTS runs_id ON runs (id) WHERE id != '';
CREATE INDEX IF NOT EXISTS runs_key ON runs (key) WHERE key != '';
CREATE INDEX IF NOT EXISTS runs_command ON runs (command, at);
"""


class Index:
    """The list of runs. Safe to share between threads; ``write=False`` opens an existing file for reading only.

    Raises ``sqlite3.Error`` when the file cannot be used; ``FileNotFoundError`` for reading where there is none.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self._lock = threading.Lock()
        if not write and not path.exists():
            raise FileNotFoundError(path)
        mode = "rwc" if write else "ro"
        uri = "file:" + quote(os.fsencode(path))
        self._db = sqlite3.connect(f"{uri}?mode={mode}", uri=True, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA busy_timeout=5000")
        self._db.execute("PRAGMA cache_size=-512")
        if write:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.executescript(_SCHEMA)

    def put(self, run: Run, *, key: str, is_open: bool) -> None:
        """Add or replace a run; ``key`` is its envelope's."""
        at = run.started or run.slot or run.finished
        row = (run.run, at.timestamp() if at else 0.0, is_open, run.status, run.command, run.task, run.id, key,
               msgspec.json.encode(run))  # fmt: skip
        with self._lock:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute("INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?)", row)

    def commit(self) -> None:
        """Let other processes see what was put; our own look-ups see it at once."""
        with self._lock:
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def get(self, run: str) -> Run | None:
        """One run."""
        return next(iter(self._select("WHERE run = ?", (run,))), None)

    def recent(self, limit: int, *, task: str = "", status: str = "", since: datetime | None = None) -> list[Run]:
        """Runs, newest first."""
        where, values = ["1"], list[object]()
        for column, value in (("task", task), ("status", status)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        if since:
            where.append("at >= ?")
            values.append(since.timestamp())
        return self._select(f"WHERE {' AND '.join(where)} ORDER BY at DESC, run DESC LIMIT ?", (*values, limit))

    def by_id(self, command_id: str) -> list[Run]:
        """The runs of commands with this id, newest first."""
        return self._select("WHERE id = ? AND id != '' ORDER BY at DESC", (command_id,))

    def by_key(self, key: str) -> list[Run]:
        """The runs of this very file (name, content, time), newest first."""
        return self._select("WHERE key = ? AND key != '' ORDER BY at DESC", (key,))

    def last_of(self, command: str, *, but: str) -> Run | None:
        """The newest run of a command of this name, other than the run ``but``."""
        where = "WHERE command = ? AND run != ? ORDER BY at DESC LIMIT 1"
        return next(iter(self._select(where, (command, but))), None)

    def open_runs(self) -> list[str]:
        """The runs that are not settled."""
        with self._lock:
            return [row[0] for row in self._db.execute("SELECT run FROM runs WHERE open ORDER BY run")]

    def runs(self) -> set[str]:
        """The ids of all runs that are listed."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT run FROM runs")}

    def count(self) -> int:
        """How many runs are listed."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM runs").fetchone()[0])

    def close(self) -> None:
        """Commit and close the file."""
        self.commit()
        with self._lock:
            self._db.close()

    def _select(self, where: str, values: Sequence[object]) -> list[Run]:
        with self._lock:
            rows = self._db.execute(f"SELECT record FROM runs {where}", tuple(values)).fetchall()
        return [msgspec.json.decode(row[0], type=Run) for row in rows]
