"""The index: a list of all runs in SQLite, for lists, search and totals that do not slow down with the years.

The run folders are the truth; this file can be deleted at any time and is then built again from them. One process
writes it (the daemon), any number may read. A crash may cost the last rows, which recovery writes again.

The words of settled runs are kept by FTS5, without the texts themselves: of a command, an answer and an error the
first ``MAX_TEXT`` characters each, which come to about as many bytes on disk as the texts have. A run whose text
changed is listed under a new number (``doc``); what its old text left behind is never found and goes with the next
building.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct

from fsagent.errors import DocumentError
from fsagent.model import Run, Usage
from fsagent.workspace.runs import RunFolder

VERSION = 2
"""What is written into the file; the negative of it where SQLite cannot search. Any other file is built anew."""

MAX_TEXT = 64 * 1024
MAX_QUERY = 1_000
TEXTS_AT_ONCE = 100

_SEARCH_MODULE = "fts5"
_SCHEMA = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, at REAL, open INTEGER, status TEXT, trigger TEXT, command TEXT, task TEXT, thread TEXT,
    id TEXT, key TEXT, published INTEGER, used INTEGER, tokens_in INTEGER, tokens_out INTEGER, cost REAL,
    doc INTEGER, digest BLOB, record BLOB
) WITHOUT ROWID;
CREATE INDEX runs_at ON runs (at, run);
CREATE INDEX runs_open ON runs (run) WHERE open;
CREATE INDEX runs_published ON runs (at, run) WHERE published;
CREATE INDEX runs_task ON runs (task, at, run) WHERE task != '';
CREATE INDEX runs_thread ON runs (thread, at, run) WHERE thread != '';
CREATE INDEX runs_status ON runs (status, at, run);
CREATE INDEX runs_trigger ON runs (trigger, at, run);
CREATE INDEX runs_total ON runs (trigger, status, at, run);
CREATE INDEX runs_used ON runs (used, tokens_in, tokens_out, cost) WHERE used;
CREATE INDEX runs_id ON runs (id, at, run) WHERE id != '';
CREATE INDEX runs_key ON runs (key, at, run) WHERE key != '';
CREATE INDEX runs_command ON runs (command, at, run);
CREATE INDEX runs_doc ON runs (doc, at, run) WHERE doc;
"""
_TEXTS = """
CREATE VIRTUAL TABLE texts USING fts5 (
    command, text, answer, error, content='', tokenize='unicode61 remove_diacritics 2'
);
"""
_QUOTES = str.maketrans("“”„«»\0", '""""" ')


class IndexVersionError(sqlite3.DatabaseError):
    """The file was written by another version of fsagent, or for an SQLite that searches where ours does not."""


class Total(Struct, frozen=True):
    """How many runs one trigger asked for that ended, or are now, in one status."""

    trigger: str
    status: str
    count: int


class Index:
    """The list of runs. Safe to share between threads; ``write=False`` opens an existing file for reading only.

    Raises ``sqlite3.Error`` when the file cannot be used, ``IndexVersionError`` among them; ``FileNotFoundError`` for
    reading where nothing was written yet.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self._lock = threading.Lock()
        self._texts: dict[int, list[str]] = {}
        self._next_doc = 1
        if not write and not path.exists():
            raise FileNotFoundError(path)
        mode = "rwc" if write else "ro"
        uri = "file:" + quote(os.fsencode(path))
        self._db = sqlite3.connect(f"{uri}?mode={mode}", uri=True, check_same_thread=False, isolation_level=None)
        try:
            self._db.execute("PRAGMA busy_timeout=5000")
            self._db.execute("PRAGMA cache_size=-512")
            modules = "SELECT count(*) FROM pragma_module_list WHERE name = ?"
            self._searches = bool(self._db.execute(modules, (_SEARCH_MODULE,)).fetchone()[0])
            self._prepare(path, write=write)
        except (sqlite3.Error, FileNotFoundError):
            self._db.close()
            raise

    def put(self, run: Run, *, key: str, is_open: bool, text: str = "") -> None:
        """Add or replace a run; ``key`` is its envelope's. One that is settled is found by the words of ``text`` (its
        command's), its name, answer and error from now on, and by no others."""
        at, used = run.started or run.slot or run.finished, run.usage
        row = (
            run.run, at.timestamp() if at else 0.0, is_open, run.status, run.trigger, run.command, run.task, run.thread,
            run.id, key, bool(run.result), bool(used), used.tokens_in, used.tokens_out, used.cost,
        )  # fmt: skip
        record = msgspec.json.encode(run)
        with self._lock:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            known = self._db.execute("SELECT doc, digest FROM runs WHERE run = ?", (run.run,)).fetchone()
            doc, was = known or (0, b"")
            texts = [] if is_open or not self._searches else _texts_of(run, text)
            digest = _digest(texts) if texts else was
            if digest != was:
                doc, self._next_doc = self._next_doc, self._next_doc + 1
            marks = ",".join("?" * (len(row) + 3))
            self._db.execute(f"INSERT OR REPLACE INTO runs VALUES ({marks})", (*row, doc, digest, record))
            if digest != was:
                self._texts[doc] = texts
            if len(self._texts) >= TEXTS_AT_ONCE:
                self._put_texts()

    def commit(self) -> None:
        """Let other processes see what was put; our own look-ups see it at once."""
        with self._lock:
            self._put_texts()
            if self._db.in_transaction:
                self._db.execute("COMMIT")

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
                values.append(_plain(value))
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
        names = msgspec.json.encode([_plain(task) for task in tasks]).decode()
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
        values = {"part": _plain(part)}
        with self._lock:
            rows = self._db.execute(begin, values).fetchall() or self._db.execute(end, values).fetchall()
        return [row[0] for row in rows]

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
        self.commit()
        with self._lock:
            self._db.close()

    def _prepare(self, path: Path, *, write: bool) -> None:
        """Make the tables in an empty file; refuse one of another version."""
        ours = VERSION if self._searches else -VERSION
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        empty = not found and not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if empty and not write:
            raise FileNotFoundError(path)
        if not empty and found != ours and (write or found != -ours):
            raise IndexVersionError(f"{path.name} has version {found}, this fsagent needs {ours}")
        self._searches = self._searches and (empty or found == VERSION)
        if write:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
        if empty:
            texts = _TEXTS if self._searches else ""
            self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}{texts}PRAGMA user_version={ours};COMMIT;")
        if write and self._searches:
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
            found = self._db.execute("SELECT at, run FROM runs WHERE run = ?", (_plain(run),)).fetchone()
        if found is None:
            raise KeyError(run)
        return found[0], found[1]

    def _select(self, where: str, values: Sequence[object]) -> list[Run]:
        with self._lock:
            rows = self._db.execute(f"SELECT record FROM runs {where}", tuple(values)).fetchall()
        return [msgspec.json.decode(row[0], type=Run) for row in rows]


def phrases(query: str) -> list[tuple[str, bool]]:
    """What a person looks for, in order: single words and what stands in quotes, never with a quote in it.

    With each goes whether it is whole; the last one may be the beginning of more, unless its quotes are closed.
    """
    parts = re.findall(r'"([^"]*)("?)|([^\s"]+)', _plain(query[:MAX_QUERY].translate(_QUOTES)))
    found = [(text, bool(closed)) for quoted, closed, word in parts if any(map(str.isalnum, text := quoted or word))]
    return [(text, True) for text, _ in found[:-1]] + found[-1:]


def command_text(folder: RunFolder) -> str:
    """A command's text as ``Index.put`` wants it: as much of its file as is searched, however it was written."""
    from fsagent.files.documents import decode

    try:
        raw = folder.raw()[:MAX_TEXT]
    except FileNotFoundError:
        return ""
    try:
        return decode(raw, folder.run)[0]
    except DocumentError:
        return raw.decode("utf-8", "replace")


def _texts_of(run: Run, text: str) -> list[str]:
    """What a settled run is found by."""
    return [_plain(each[:MAX_TEXT]) for each in (run.command, text, run.answer, run.error)]


def _digest(texts: Sequence[str]) -> bytes:
    import hashlib  # not for those who only read

    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()


def _plain(text: str) -> str:
    """Text that SQLite takes: file names may hold what is no UTF-8."""
    return text.encode("utf-8", "replace").decode()
