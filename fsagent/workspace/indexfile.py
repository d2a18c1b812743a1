"""The index as a file: told apart from another one, put out of the way, filled with what another one holds."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from fsagent.files.mounts import kind_of
from fsagent.workspace.indexschema import REMOVED, RUNS, TEXTS, VERSION

_TAILS = ("-wal", "-shm", "-journal")
_COPIES_ON_WRITE = {"bcachefs", "btrfs"}
_SEARCH_MODULE = "fts5"


class IndexVersionError(sqlite3.DatabaseError):
    """The file was written by another version of fsagent, or for an SQLite that searches where ours does not."""


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to a file in one of SQLite's modes: ``ro``, ``rwc``."""
    uri = "file:" + quote(os.fsencode(path))
    return sqlite3.connect(f"{uri}?mode={mode}", uri=True, check_same_thread=False, isolation_level=None)


def prepare(db: sqlite3.Connection, path: Path, *, write: bool) -> bool:
    """Make the tables in an empty file; refuse one of another version. Gives whether its words can be searched."""
    modules = "SELECT count(*) FROM pragma_module_list WHERE name = ?"
    searches = bool(db.execute(modules, (_SEARCH_MODULE,)).fetchone()[0])
    ours = VERSION if searches else -VERSION
    found = db.execute("PRAGMA user_version").fetchone()[0]
    empty = not found and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if empty and not write:
        raise FileNotFoundError(path)
    if not empty and found != ours and (write or found != -ours):
        raise IndexVersionError(f"{path.name} has version {found}, this fsagent needs {ours}")
    if write:
        # WAL maps a file. Where writing to a page that is mapped takes new room, a full disk would end us with SIGBUS.
        db.execute(f"PRAGMA journal_mode={'TRUNCATE' if kind_of(path.parent) in _COPIES_ON_WRITE else 'WAL'}")
        db.execute("PRAGMA synchronous=NORMAL")
    if empty:
        texts = TEXTS if searches else ""
        db.executescript(f"BEGIN IMMEDIATE;{RUNS}{REMOVED}{texts}PRAGMA user_version={ours};COMMIT;")
    return searches and (empty or found == VERSION)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file it is; None where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def put_aside(path: Path) -> None:
    """Move a file that SQLite cannot use out of the way, with what belongs to it; it may have gone already."""
    with suppress(FileNotFoundError):
        os.replace(path, path.with_name(path.name + ".damaged"))
    for tail in _TAILS:
        path.with_name(path.name + tail).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file with what belongs to it, as far as it is there."""
    for tail in ("", *_TAILS):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def copy_into(db: sqlite3.Connection, source: Path) -> None:
    """Let a database hold what another file holds, and nothing else: in one transaction, so that whoever reads it sees
    the old or the new, and a kill leaves one of them. Raises ``sqlite3.Error``; nothing has changed then."""
    with closing(connect(source, "ro")) as other:
        other.backup(db)
