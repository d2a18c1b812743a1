"""The index: a list of all runs in SQLite, for lists, search and totals that do not slow down with the years.

The run folders are the truth; this file can be deleted at any time and is then built again from them. One process
writes it (the daemon), any number may read. A crash may cost the last rows, which recovery writes again.

The words of settled runs are kept by FTS5, without the texts themselves: of a command, an answer and an error the
first ``MAX_TEXT`` characters each, which come to about as many bytes on disk as the texts have. A run whose text
changed is listed under a new number (``doc``); what its old text left behind is never found and goes with the next
building.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.files.atomic import read_file
from fsagent.model import Run, Usage
from fsagent.workspace import indexfile
from fsagent.workspace.removedindex import RemovedRuns
from fsagent.workspace.searched import digest_of, phrases, plain, texts_of

TEXTS_AT_ONCE = 100

_Puts = dict[str, tuple[Run, str, bool, str]]
_HEAD = b"SQLite format 3\0"
_FORGET_TEXTS = "INSERT INTO texts (texts, rowid, command, text, answer, error) VALUES ('delete', ?, ?, ?, ?, ?)"


class Total(Struct, frozen=True):
    """How many runs one trigger asked for that ended, or are now, in one status."""

    trigger: str
    status: str
    count: int


class Index:
    """The list of runs. Safe to share between threads; ``write=False`` opens an existing file for reading only.

    Raises ``sqlite3.Error`` when the file cannot be used, ``indexfile.IndexVersionError`` among them;
    ``FileNotFoundError`` for reading where nothing was written yet.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self._lock = threading.Lock()
        self._path, self._write = path, write
        self._texts: dict[int, list[str]] = {}
        self._unsaved: _Puts = {}  # put since the last commit
        self._followers: list[_Puts] = []
        self._next_doc = 1
        self._connect()

    def _connect(self) -> None:
        path, write = self._path, self._write
        if not write and not path.exists():
            raise FileNotFoundError(path)
        self._db = indexfile.connect(path, "rwc" if write else "ro")
        try:
            self._db.execute("PRAGMA busy_timeout=5000")
            self._db.execute("PRAGMA cache_size=-512")
            self._searches = indexfile.prepare(self._db, path, write=write)
            self._number_texts()
            self.removed = RemovedRuns(self._db, self._lock, self._begin)
            self._identity = indexfile.identity(path)
        except (sqlite3.Error, OSError):
            self._db.close()
            raise

    def put(self, run: Run, *, key: str, is_open: bool, text: str = "") -> None:
        """Add or replace a run; ``key`` is its envelope's. One that is settled is found by the words of ``text`` (its
        command's), its name, answer and error from now on, and by no others.

        What the disk refuses is kept, with all since the last ``commit``, and goes with the next ``put`` or ``commit``.
        """
        with self._lock:
            for puts in (self._unsaved, *self._followers):
                puts[run.run] = (run, key, is_open, text)
            with self._whole():
                if self._begin():
                    self._insert(run, key, is_open, text)

    def _insert(self, run: Run, key: str, is_open: bool, text: str) -> None:
        at, used = run.started or run.slot or run.finished, run.usage
        row = (
            run.run, at.timestamp() if at else 0.0, is_open, run.status, run.trigger, run.command, run.task, run.thread,
            run.id, key, bool(run.result), bool(used), used.tokens_in, used.tokens_out, used.cost,
        )  # fmt: skip
        record = msgspec.json.encode(run)
        known = self._db.execute("SELECT doc, digest FROM runs WHERE run = ?", (run.run,)).fetchone()
        doc, was = known or (0, b"")
        texts = [] if is_open or not self._searches else texts_of(run, text)
        digest = digest_of(texts) if texts else was
        if digest != was:
            doc, self._next_doc = self._next_doc, self._next_doc + 1
        marks = ",".join("?" * (len(row) + 3))
        self._db.execute(f"INSERT OR REPLACE INTO runs VALUES ({marks})", (*row, doc, digest, record))
        if digest != was:
            self._texts[doc] = texts
        if len(self._texts) >= TEXTS_AT_ONCE:
            self._put_texts()

    def remove(self, run: str, text: str = "") -> None:
        """Forget a run. One that was settled goes with its words, if ``text`` is its command's, as it was put."""
        with self._lock, self._whole():
            for puts in (self._unsaved, *self._followers):
                puts.pop(run, None)
            found = self._db.execute("SELECT doc, digest, record FROM runs WHERE run = ?", (run,)).fetchone()
            if not found:
                return
            doc, digest, record = found
            self._begin()
            self._put_texts()
            texts = texts_of(msgspec.json.decode(record, type=Run), text) if doc and self._searches else []
            if texts and digest_of(texts) == digest:  # or they are never found, and go with the next building
                self._db.execute(_FORGET_TEXTS, (doc, *texts))
            self._db.execute("DELETE FROM runs WHERE run = ?", (run,))

    def settled_after(self, at: float, run: str, limit: int) -> list[tuple[float, Run]]:
        """Settled runs, oldest first, behind one of that start (in seconds since 1970) and id."""
        how = "SELECT at, record FROM runs INDEXED BY runs_at WHERE (at, run) > (?, ?) AND NOT open ORDER BY at, run"
        with self._lock:
            rows = self._db.execute(f"{how} LIMIT ?", (at, run, limit)).fetchall()
        return [(row[0], msgspec.json.decode(row[1], type=Run)) for row in rows]

    def commit(self) -> None:
        """Let other processes see what was put; our own look-ups see it at once."""
        with self._lock:
            self._commit()

    def _commit(self) -> None:
        with self._whole():
            if self._unsaved:
                self._begin()
            self._put_texts()
            if self._db.in_transaction:
                self._db.execute("COMMIT")
            self._unsaved.clear()

    def is_lost(self) -> bool:
        """True if the file that is written to has gone, or another one lies in its place, or it has no beginning of
        ours. Limit: other damage is found when SQLite comes upon it."""
        if indexfile.identity(self._path) != self._identity:
            return True
        head = read_file(self._path, len(_HEAD))
        return bool(head) and head != _HEAD

    def renew(self) -> None:
        """Begin with an empty file, for the one there is no good; it is kept beside as ``….damaged``. Raises
        ``OSError`` and ``sqlite3.Error``."""
        with self._lock:
            self._identity = None  # lost until it is connected again, even if the old file comes back meanwhile
            self._db.close()
            self._texts.clear()
            indexfile.put_aside(self._path)
            self._connect()

    @contextmanager
    def followed(self) -> Iterator[_Puts]:
        """What is put from now on, for ``replace``; to be given back to it within."""
        puts: _Puts = {}
        with self._lock:
            self._followers.append(puts)
        try:
            yield puts
        finally:
            with self._lock:
                self._followers = [each for each in self._followers if each is not puts]

    def replace(self, fresh: Path, since: _Puts) -> None:
        """Hold what the index in the file ``fresh`` holds, what was ``followed`` while it was built, and nothing else.

        Whoever reads sees the old or the new. Raises ``sqlite3.Error``; what was there before is there then.
        """
        with self._lock, self._whole():
            self._texts.clear()
            if self._db.in_transaction:  # what it holds is known twice: as unsaved, and by the runs' folders
                self._db.execute("ROLLBACK")
            indexfile.copy_into(self._db, fresh)
            self._unsaved = {**since, **self._unsaved}
            self._number_texts()
            self._commit()

    def _begin(self) -> bool:
        """See to a transaction; False where it is a new one, which holds all that was not committed yet."""
        if self._db.in_transaction:
            return True
        self._db.execute("BEGIN")
        for each in self._unsaved.values():
            self._insert(*each)
        return False

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """A transaction that SQLite refuses a part of is none: all of it is put again in the next."""
        try:
            yield
        except sqlite3.Error:
            self._texts.clear()
            with suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise

    def get(self, run: str) -> Run | None:
        """One run."""
        return next(iter(self._select("WHERE run = ?", (run,))), None)

    def recent(
        self,
        limit: int,
        *,
        task: str = "",
        status: str = "",
        thread: str = "",
        trigger: str = "",
        since: datetime | None = None,
        before: str = "",
        published: bool = False,
    ) -> list[Run]:
        """Runs, newest first: by their start, those of one moment by their id. ``published``: only those with a result.

        ``before`` is the last run of the page before; raises ``KeyError`` where it is not listed. New runs change no
        later page; one that waited and starts meanwhile moves to the top. One filter costs what it gives, however many
        runs there are; of several the first of task, thread, status and trigger is looked up and the rest compared.
        """
        where, values, index = ["1"], list[object](), "runs_published" if published else "runs_at"
        for column, value in (("trigger", trigger), ("status", status), ("thread", thread), ("task", task)):
            if value:
                where.append(f"{column} = ?")
                values.append(plain(value))
                index = f"runs_{column}"
        if trigger and index == "runs_status":
            index = "runs_total"
        where += [f"{column} != ''" for column in ("thread", "task") if index == f"runs_{column}"]
        if published:
            where.append("published")
        if since:
            where.append("at >= ?")
            values.append(since.timestamp())
        if before:
            where.append("(at, run) < (?, ?)")
            values += self._place(before)
        how = f"INDEXED BY {index} WHERE {' AND '.join(where)} ORDER BY at DESC, run DESC LIMIT ?"
        return self._select(how, (*values, limit))

    def newest_of(self, tasks: Sequence[str], each: int) -> dict[str, list[Run]]:
        """The newest runs of each of these tasks, at most ``each`` of one, newest first; a task without runs is left
        out. Costs what it gives, however many runs there are."""
        found = (
            "SELECT wanted.key, runs.record FROM json_each(?) AS wanted JOIN runs ON runs.run IN (SELECT run FROM runs "
            "INDEXED BY runs_task WHERE task != '' AND task = wanted.value ORDER BY at DESC, run DESC LIMIT ?) "
            "ORDER BY wanted.key, runs.at DESC, runs.run DESC"
        )
        names = msgspec.json.encode([plain(task) for task in tasks]).decode()
        with self._lock:
            rows = self._db.execute(found, (names, each)).fetchall()
        newest: dict[str, list[Run]] = {}
        for number, record in rows:
            newest.setdefault(tasks[number], []).append(msgspec.json.decode(record, type=Run))
        return newest

    def search(self, query: str, limit: int, before: str = "") -> list[Run]:
        """Settled runs in which all words of ``query`` occur, newest first as in ``recent``; ``before`` as there.

        Looked at are the command's name and text, the answer and the error; case and accents do not count. Words in
        quotes must follow each other; the last word may be the beginning of one. Of a longer query the first
        ``MAX_QUERY`` characters count, and one without words finds nothing. Costs a little for every run with these
        words, however few are given: 50 to 120 ms where 100,000 have them. Raises ``sqlite3.NotSupportedError`` where
        SQLite was built without FTS5.
        """
        if not self._searches:
            raise sqlite3.NotSupportedError("runs cannot be searched: SQLite was built without FTS5")
        place = self._place(before) if before else None
        words = phrases(query)
        if not words:
            return []
        match = " ".join(f'"{text}"' if whole else f'"{text}"*' for text, whole in words)
        where, values = "texts MATCH ?", list[object]([match])
        if place:
            where += " AND (at, run) < (?, ?)"
            values += place
        found = (
            f"SELECT run FROM texts JOIN runs INDEXED BY runs_doc ON doc = texts.rowid AND doc WHERE {where} "
            "ORDER BY at DESC, run DESC LIMIT ?"
        )
        with self._lock:
            self._put_texts()
        return self._select(f"WHERE run IN ({found}) ORDER BY at DESC, run DESC", (*values, limit))

    def totals(self) -> list[Total]:
        """How many runs there are of each trigger and status."""
        with self._lock:
            rows = self._db.execute("SELECT trigger, status, count(*) FROM runs GROUP BY trigger, status").fetchall()
        return [Total(*row) for row in rows]

    def usage(self) -> Usage:
        """What all runs together used; costs nothing for those that used nothing."""
        sums = "SELECT sum(tokens_in), sum(tokens_out), sum(cost) FROM runs WHERE used"
        with self._lock:
            tokens_in, tokens_out, cost = self._db.execute(sums).fetchone()
        return Usage(tokens_in or 0, tokens_out or 0, cost or 0.0)

    def matching(self, part: str) -> list[str]:
        """The ids of all listed runs that begin with ``part``, or where there are none, of those that end with it.

        Ends are compared with every id, in about 20 ms for 100,000.
        """
        begin = "SELECT run FROM runs WHERE run >= :part AND run < :part || char(0x10ffff) ORDER BY run"
        end = "SELECT run FROM runs INDEXED BY runs_at WHERE substr(run, -length(:part)) = :part ORDER BY at, run"
        values = {"part": plain(part)}
        with self._lock:
            rows = self._db.execute(begin, values).fetchall() or self._db.execute(end, values).fetchall()
        return [row[0] for row in rows]

    def by_id(self, command_id: str) -> list[Run]:
        """The runs of commands with this id, newest first; behind them those that were removed (``removed``)."""
        runs = self._select("WHERE id = ? AND id != '' ORDER BY at DESC", (command_id,))
        return runs + self.removed.of("id", command_id)

    def by_key(self, key: str) -> list[Run]:
        """The runs of this very file (name, content, time), newest first; behind them those that were removed
        (``removed``)."""
        runs = self._select("WHERE key = ? AND key != '' ORDER BY at DESC", (key,))
        return runs + self.removed.of("key", key)

    def last_of(self, command: str, *, but: str) -> Run | None:
        """The newest run of a command of this name, other than the run ``but``."""
        where = "WHERE command = ? AND run != ? ORDER BY at DESC LIMIT 1"
        return next(iter(self._select(where, (command, but))), None)

    def latest_of(self, command: str, most: int) -> list[Run]:
        """The newest runs of a command of this name."""
        return self._select("WHERE command = ? ORDER BY at DESC LIMIT ?", (command, most))

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
        try:
            if self._write:
                self.commit()
        finally:
            with self._lock:
                self._db.close()

    def _number_texts(self) -> None:
        if self._write and self._searches:
            newest = self._db.execute("SELECT rowid FROM texts ORDER BY rowid DESC LIMIT 1").fetchone()
            self._next_doc = newest[0] + 1 if newest else 1

    def _put_texts(self) -> None:
        """Add the words of what was put. Together: FTS5 writes out what it has whenever another table is written."""
        for doc, texts in list(self._texts.items()):
            self._db.execute(
                "INSERT INTO texts (rowid, command, text, answer, error) VALUES (?,?,?,?,?)", (doc, *texts)
            )
            del self._texts[doc]

    def _place(self, run: str) -> tuple[float, str]:
        with self._lock:
            found = self._db.execute("SELECT at, run FROM runs WHERE run = ?", (plain(run),)).fetchone()
        if found is None:
            raise KeyError(run)
        return found[0], found[1]

    def _select(self, where: str, values: Sequence[object]) -> list[Run]:
        with self._lock:
            rows = self._db.execute(f"SELECT record FROM runs {where}", tuple(values)).fetchall()
        return [msgspec.json.decode(row[0], type=Run) for row in rows]
