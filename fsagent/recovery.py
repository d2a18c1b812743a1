"""What a crash left: runs that have possession of a command and are not settled."""

from __future__ import annotations

import os
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path

from fsagent.trouble import is_damaged
from fsagent.workspace.index import Index, IndexVersionError, put_aside
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder
from fsagent.workspace.searched import command_text

YOUNG = 3600.0
AT_ONCE = 1_000


def open_index(layout: Layout) -> Index:
    """The index for writing. A file that SQLite cannot use is put aside (``index.sqlite3.damaged``), one of another
    version is thrown away; ``recover`` fills the new one."""
    try:
        index = Index(layout.index, write=True)
    except IndexVersionError:
        _remove(layout.index)
        return Index(layout.index, write=True)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        return _anew(layout.index)
    try:
        index.count()
    except sqlite3.DatabaseError as error:
        index.close()
        if not is_damaged(error):
            raise
        return _anew(layout.index)
    return index


def recover(layout: Layout, index: Index) -> list[RunFolder]:
    """The runs to go on with, oldest first. Lists those that have a folder and no row in the index on the way.

    Costs one look at the folder names and at the index's if nothing is missing there. A kill in the middle costs the
    last ``AT_ONCE`` runs.
    """
    runs = set(index.open_runs())
    for number, name in enumerate(sorted(set(os.listdir(layout.runs)) - index.runs()), 1):
        if number % AT_ONCE == 0:
            index.commit()
        folder = RunFolder(layout.runs / name)
        summary, envelope = folder.summary(), folder.envelope()
        settled = any(event.get("event") == "settled" for event in folder.events())
        if settled and summary and envelope:
            index.put(summary, key=envelope.key, is_open=False, text=command_text(folder))
        else:
            runs.add(name)  # listed when it is admitted, for it may be the empty beginning of a claim
    return [RunFolder(layout.runs / run) for run in sorted(runs) if (layout.runs / run).is_dir()]


def clear_temporary(layout: Layout, now: datetime) -> None:
    """Remove what was being prepared when a process ended. What is younger may be some face's work of this moment."""
    for entry in os.scandir(layout.tmp):
        if now.timestamp() - entry.stat(follow_symlinks=False).st_mtime < YOUNG:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def _anew(path: Path) -> Index:
    put_aside(path)
    return Index(path, write=True)


def _remove(path: Path) -> None:
    for tail in ("", "-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
