"""What a crash left: runs that have possession of a command and are not settled.

After a kill the index and the run folders say all that was done. After a power cut each may be behind, for the end of
a run's record is not synced: what is lost there can be done again. So when the machine was booted anew since a daemon
last began here, the youngest runs are read, whatever the index says of them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from fsagent.endings import ended_before
from fsagent.files.atomic import give_name, numbered, read_file, write_atomic
from fsagent.files.names import TEMPORARY_PREFIX
from fsagent.trouble import is_damaged
from fsagent.workspace import indexfile, results
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.removed import read_removed, removed_files
from fsagent.workspace.runs import RunFolder
from fsagent.workspace.searched import command_text
from fsagent.workspace.soul import SOUL_PREFIX

_T = TypeVar("_T")
YOUNG = 3600.0
AT_ONCE = 1_000
YOUNGEST = 1_000
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def open_index(layout: Layout) -> Index:
    """The index for writing. A file that SQLite cannot use is put aside (``index.sqlite3.damaged``), one of another
    version is thrown away; ``recover`` fills the new one."""
    try:
        index = Index(layout.index, write=True)
    except indexfile.IndexVersionError:
        indexfile.remove(layout.index)
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
    take_in_removed(layout, index)
    runs, folders, listed = set(index.open_runs()), set(os.listdir(layout.runs)), index.runs()
    for name in listed - folders:
        if name in runs or index.removed.get(name):  # a crash came between the two; others a person removed
            index.remove(name, "")
    for number, name in enumerate(sorted(folders - listed), 1):
        if number % AT_ONCE == 0:
            index.commit()
        if not _enlist(index, RunFolder(layout.runs / name)):
            runs.add(name)  # listed when it is admitted, for it may be the empty beginning of a claim
    boot = boot_id()
    if not boot or boot != _last_boot(layout):
        runs |= _unfinished(layout, index, sorted(folders)[-YOUNGEST:])
        index.commit()
        write_atomic(layout.boot, boot.encode(), durable=False)
    return [RunFolder(layout.runs / run) for run in sorted(runs) if (layout.runs / run).is_dir()]


def boot_id() -> str:
    """Names the time since the machine was booted; "" where the system does not tell it."""
    try:
        return _BOOT.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _last_boot(layout: Layout) -> str:
    try:
        return read_file(layout.boot, 100).decode("ascii", "replace")
    except OSError:
        return ""


def _unfinished(layout: Layout, index: Index, runs: Iterable[str]) -> set[str]:
    """Which of these runs are not settled, though the index may say so; of those that are, the last steps are done."""
    found = set()
    for name in runs:
        folder = RunFolder(layout.runs / name)
        if not folder.settled():
            if index.get(name):
                _enlist(index, folder, also_open=True)
            found.add(name)
        elif folder.claimed.exists() or not folder.result.exists():
            results.let_go(folder)
            envelope = folder.envelope()
            with suppress(KeyError, StopIteration, msgspec.ValidationError):  # damaged: doctor tells of it
                if envelope:
                    results.keep(folder, ended_before(folder, envelope, folder.events()).data)
    return found


def rebuild_index(layout: Layout) -> int:
    """Build the index from the run folders and put it in the old one's place; gives how many runs it lists.

    Only for who holds the daemon's lock. Before the last moment a crash leaves the old index as it was, in that moment
    it leaves none, and then the next daemon builds it. Raises ``OSError`` and ``sqlite3.Error``.
    """
    fresh = layout.index.with_name(f"{layout.index.name}.new")
    count = _build(layout, fresh, _never)
    indexfile.remove(layout.index)  # what belongs to the old one must not be taken for a part of the new one
    os.rename(fresh, layout.index)
    return count


def renew_index(layout: Layout, index: Index, pause: Callable[[], None] | None = None) -> int:
    """The same for a daemon that goes on meanwhile, from any thread: what it puts into the index is kept. Whoever reads
    sees the old one or the new one. ``pause`` is called between its small steps, and may wait, or raise to end it.

    Without ``pause`` the index is no good, and begins with an empty file as soon as the new one is built.
    """
    fresh = layout.index.with_name(f"{layout.index.name}.{'new' if pause else 'mended'}")
    try:
        with index.followed() as since:
            _build(layout, fresh, pause or _never)
            if pause is None:
                index.renew()
            index.replace(fresh, since)
    finally:
        indexfile.remove(fresh)
    for run in index.open_runs():
        if not (layout.runs / run).is_dir():  # a claim that was given back while its folder was looked at
            index.remove(run)
    index.commit()
    return index.count()


def _never() -> None:
    """Nobody else waits for it."""


def _build(layout: Layout, fresh: Path, pause: Callable[[], None]) -> int:
    """Make a new index of all that the folders tell; gives how many runs it lists."""
    indexfile.remove(fresh)
    index = Index(fresh, write=True)
    try:
        take_in_removed(layout, index)
        for number, name in enumerate(sorted(os.listdir(layout.runs)), 1):
            _enlist(index, RunFolder(layout.runs / name), also_open=True)
            if number % AT_ONCE == 0:
                index.commit()
            pause()
        return index.count()
    finally:
        index.close()


def take_in_removed(layout: Layout, index: Index) -> None:
    """Let the index know what the files of removed runs say, and it does not; forget what no file says any more."""
    known = index.removed.read_up_to()
    for path in removed_files(layout.removed):
        name = layout.name(path)
        start, size = known.pop(name, 0), path.stat().st_size
        if start == size:
            continue
        for batch in _batched(read_removed(path, start if start < size else 0), AT_ONCE):  # 0: it lost its end
            index.removed.put(name, [removed for _, removed in batch if removed], batch[-1][0])
            index.commit()
    for name in known:
        index.removed.forget(name)


def _enlist(index: Index, folder: RunFolder, *, also_open: bool = False) -> bool:
    """List a run as its folder tells it; False where it is not settled, or tells nothing."""
    summary, envelope, settled = folder.summary(), folder.envelope(), folder.settled()
    if summary is None or envelope is None:
        return False
    if settled:
        index.put(summary, key=envelope.key, is_open=False, text=command_text(folder))
    elif also_open and (folder.claimed.exists() or folder.ended()):  # or it is the empty beginning of a claim
        index.put(summary, key=envelope.key, is_open=True)
    return settled


def clear_temporary(layout: Layout, now: datetime) -> None:
    """Remove what was being prepared when a process ended. What is younger may be some face's work of this moment.

    Of soul.md that may be a person's save, which came in the moment of the crash: it is put into archive/. Limit: what
    tools prepared in other folders stays there, under a name that nobody looks at.
    """
    for folder in (layout.root, layout.approvals, layout.outbox, layout.tasks, layout.machine, layout.hosts,
                   layout.journal, layout.tmp):  # fmt: skip
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if folder == layout.tmp or entry.name.startswith(TEMPORARY_PREFIX):
                with suppress(OSError):  # gone by now; or else the next daemon tries again
                    _clear(layout, entry, now)


def _clear(layout: Layout, entry: os.DirEntry[str], now: datetime) -> None:
    path = Path(entry.path)
    if now.timestamp() - entry.stat(follow_symlinks=False).st_mtime < YOUNG:
        return
    if entry.is_dir(follow_symlinks=False):
        if path.parent == layout.tmp:
            shutil.rmtree(path, ignore_errors=True)
        return
    if entry.name.startswith(SOUL_PREFIX):
        give_name(path, numbered(layout.archive / f"{now:%Y-%m}" / "soul-cut-short.md"))
    path.unlink()


def _anew(path: Path) -> Index:
    indexfile.put_aside(path)
    return Index(path, write=True)


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
