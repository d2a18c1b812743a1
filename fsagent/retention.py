"""What need not be kept any longer, and its removal: ``keep`` in the settings, looked at once a day or by hand.

One pass looks at the runs from the oldest on. What goes and what stays of each is decided by one function, whether it
is a dry run or not. Nothing goes that ended less than ``keep.unread`` ago, is not settled, or was not written by the
daemon as it lies there: links, files of other people and what a person changed stay.

Before a run's folder goes, what guards against running anything twice is written down, durably (``removed``). The
folder then leaves in one rename, so a kill at any point leaves it whole or gone; what a kill left undone is done by the
next pass.
"""

from __future__ import annotations

import filecmp
import heapq
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.keepsettings import KeepSettings, Kept
from fsagent.model import Run
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.removed import Mark, RemovedLog, RemovedRun
from fsagent.workspace.runs import RunFolder
from fsagent.workspace.searched import command_text

AT_ONCE = 50
TASK_KEEPS = 10
"""So many of a task's newest runs stay, however old: its failures are counted from them, its answers compared."""
GOING = "removed-"
_COMMANDS = ("archive", "failed")
_RUNS = ("runs", "archive", "failed", "outbox")
_Found = tuple[float, str, Run | RemovedRun]


class Item(Struct, frozen=True):
    """One thing that goes. ``name`` is its path in the workspace; ``bytes`` what it takes on the disk."""

    place: str
    name: str
    bytes: int
    why: str


class _File(Struct, frozen=True):
    """A file that a run left in archive/, failed/ or outbox/; ``copy`` is the run's own, by which it is known."""

    name: str
    mark: Mark
    bytes: int
    copy: Path | None

    @property
    def place(self) -> str:
        return self.name.partition("/")[0]


class _Standing(Struct, frozen=True):
    """What there is of one run: its folder, or what is remembered of it; and the files that may be its own."""

    run: Run
    finished: float
    folder: RunFolder | None
    removed: RemovedRun | None
    files: tuple[_File, ...]


class _Leaves(Struct, frozen=True):
    """What goes of one run."""

    standing: _Standing
    folder: bool
    files: tuple[_File, ...]
    items: tuple[Item, ...]


class Retention:
    """One pass over what the runs left. ``pause`` is called between its small steps, and may wait, or raise to end it.

    ``now`` is the moment from which ages count.
    """

    def __init__(
        self, layout: Layout, keep: KeepSettings, index: Index, now: datetime, pause: Callable[[], None]
    ) -> None:
        self._layout, self._keep, self._index, self._pause = layout, keep, index, pause
        self._now = now
        self._time = now.timestamp()
        self._kept: dict[str, Kept] = {place: getattr(keep, place) for place in _RUNS}
        self.totals: Counter[str] = Counter()

    def plan(self) -> Iterator[Item]:
        """What would go, in the order in which it would."""
        for leaves in self._choose():
            yield from leaves.items

    def carry_out(self) -> Iterator[Item]:
        """Remove it; each item is told when it is gone. Raises ``OSError`` and ``sqlite3.Error``; what has not gone
        then goes with a later pass."""
        log = RemovedLog(self._layout.removed, self._now)
        try:
            batch: list[_Leaves] = []
            for leaves in self._choose():
                batch.append(leaves)
                if len(batch) == AT_ONCE:
                    yield from self._remove(batch, log)
                    batch = []
            yield from self._remove(batch, log)
            self._finish(log)
        finally:
            log.close()

    def over(self, place: str) -> bool:
        """True while more lies in a place than its limit."""
        return self.totals[place] > self._kept[place].size

    # What there is

    def _choose(self) -> Iterator[_Leaves]:
        if any(kept.size < float("inf") for kept in self._kept.values()):
            for standing in self._standings(float("inf")):
                for place, size in self._sizes(standing):
                    self.totals[place] += size
                self._pause()
        ages = [kept.age for kept in self._kept.values()]
        oldest = self._keep.unread if any(map(self.over, _RUNS)) else max(self._keep.unread, min(ages))
        for standing in self._standings(self._time - oldest):
            leaves = self._decide(standing)
            if leaves:
                yield leaves
            self._pause()

    def _standings(self, until: float) -> Iterator[_Standing]:
        """All settled runs that began before a moment, oldest first, and those that are only remembered."""
        settled, remembered = self._pages(self._index.settled_after), self._pages(self._index.removed.lying_after)
        for at, _, each in heapq.merge(settled, remembered, key=lambda found: found[:2]):
            if at > until:
                return
            standing = self._remembered(each) if isinstance(each, RemovedRun) else self._standing(each)
            if standing:
                yield standing

    def _pages(self, ask: Callable[[float, str, int], Sequence[tuple[float, Run | RemovedRun]]]) -> Iterator[_Found]:
        at, run = float("-inf"), ""
        while page := ask(at, run, 200):
            for at, each in page:
                run = each.run
                yield at, run, each

    def _standing(self, run: Run) -> _Standing | None:
        folder = RunFolder(self._layout.runs / run.run)
        if not folder.path.is_dir():
            return None  # a person tidied up
        copies: dict[str, Path] = {}
        if run.settled.startswith(tuple(f"{place}/" for place in _COMMANDS)):
            copies[run.settled] = folder.command
        if folder.attachments.is_dir():
            for event in folder.events():
                if event["event"] == "placed":
                    copies |= {place: folder.attachments / name for name, place in event["attachments"].items()}
        if run.result.startswith("outbox/"):
            copies[run.result] = folder.result
        files = tuple(file for name, copy in copies.items() if (file := self._file(name, copy=copy)))
        return _Standing(run, (run.finished or self._now).timestamp(), folder, None, files)

    def _remembered(self, removed: RemovedRun) -> _Standing:
        files = tuple(file for name, mark in removed.files.items() if (file := self._file(name, mark=mark)))
        return _Standing(removed.as_run(""), removed.finished.timestamp(), None, removed, files)

    def _file(self, name: str, *, copy: Path | None = None, mark: Mark | None = None) -> _File | None:
        """A file, if it may be ours: by the size of the run's copy, or by the mark that it had when that went."""
        path = self._layout.root / name
        try:
            if any(map(os.path.islink, list(path.parents)[: name.count("/") - 1])):
                return None
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or (copy and copy.stat().st_size != status.st_size):
                return None
        except OSError:
            return None
        now = (status.st_size, status.st_mtime_ns)
        return None if mark and tuple(mark) != now else _File(name, now, disk_use(status), copy)

    def _sizes(self, standing: _Standing) -> Iterator[tuple[str, int]]:
        if standing.folder and self._kept["runs"].size < float("inf"):
            yield "runs", _used_by(standing.folder.path)
        for file in standing.files:
            yield file.place, file.bytes

    # What goes

    def _decide(self, standing: _Standing) -> _Leaves | None:
        age = self._time - standing.finished
        if age < self._keep.unread:
            return None
        folder = standing.folder
        if folder and (not folder.settled() or folder.claimed.exists() or folder.result_new.exists()):
            return None  # the index is behind the folder
        why = {place: self._why(place, age) for place in _RUNS}
        if folder and self._is_needed(standing.run):
            why |= dict.fromkeys(("runs", *_COMMANDS), "")
        files = [file for file in standing.files if why[file.place] and _is_ours(self._layout.root, file)]
        items = [Item(file.place, file.name, file.bytes, why[file.place]) for file in files]
        along = next((item.why for item in items if item.place in _COMMANDS), "")
        leaves = bool(folder and (why["runs"] or along))
        if folder and leaves:
            reason = why["runs"] or f"its command goes: {along}"
            items.append(Item("runs", self._layout.name(folder.path), _used_by(folder.path), reason))
        for item in items:
            self.totals[item.place] -= item.bytes
        return _Leaves(standing, leaves, tuple(files), tuple(items)) if items else None

    def _why(self, place: str, age: float) -> str:
        kept = self._kept[place]
        if age >= kept.age:
            return f"older than {kept.age} (keep.{place}.age)"
        return f"more than {kept.size} (keep.{place}.size)" if self.over(place) else ""

    def _is_needed(self, run: Run) -> bool:
        """True for one of the newest runs of a task that there is."""
        if not run.task or not (self._layout.tasks / f"{run.task}.md").exists():
            return False
        return any(each.run == run.run for each in self._index.recent(TASK_KEEPS, task=run.task))

    def _remove(self, batch: Sequence[_Leaves], log: RemovedLog) -> Iterator[Item]:
        """In this order: remembered durably, then the folders, then the files, then that they are gone."""
        records = [self._record(leaves) for leaves in batch if leaves.folder or leaves.standing.removed]
        self._remember(records, log, durable=True)
        for leaves in batch:
            if leaves.folder:
                self._discard(leaves.standing.run.run)
            self._pause()
        going = {file.name: file.mark for leaves in batch for file in leaves.files}
        for record in records:
            going |= record.leaving  # also what a kill kept an earlier pass from
        for name, mark in going.items():
            self._unlink(name, mark)
            self._pause()
        self._remember([msgspec.structs.replace(each, leaving={}) for each in records if each.leaving], log)
        self._index.commit()
        self._sweep()
        for leaves in batch:
            yield from leaves.items

    def _record(self, leaves: _Leaves) -> RemovedRun:
        standing, run = leaves.standing, leaves.standing.run
        known = standing.removed or self._index.removed.get(run.run)
        if known is None:
            envelope = standing.folder.envelope() if standing.folder else None
            known = RemovedRun(
                run=run.run, command=run.command, trigger=run.trigger, status=run.status, id=run.id, task=run.task,
                finished=run.finished or self._now, key=envelope.key if envelope else "", result=run.result,
                settled=run.settled,
            )  # fmt: skip
        leaving = {file.name: file.mark for file in leaves.files}
        staying = {
            file.name: file.mark
            for file in standing.files
            if file.name not in leaving and _is_ours(self._layout.root, file)
        }
        gone = known.gone or known.settled in leaving
        return msgspec.structs.replace(known, files=staying, leaving=known.leaving | leaving, gone=gone)

    def _remember(self, records: Sequence[RemovedRun], log: RemovedLog, *, durable: bool = False) -> None:
        if records:
            size = log.append(records, durable=durable)
            self._index.removed.put(self._layout.name(log.path), records, size)

    def _discard(self, run: str) -> None:
        folder, text = RunFolder(self._layout.runs / run), ""
        if folder.path.is_dir():
            text = command_text(folder)
            os.rename(folder.path, self._layout.tmp / f"{GOING}{run}-{os.urandom(3).hex()}")
        self._index.remove(run, text)

    def _unlink(self, name: str, mark: Mark) -> None:
        """Remove a file, if it is the one that was meant, and the folders that it leaves empty."""
        path = self._layout.root / name
        with suppress(OSError):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == tuple(mark):
                os.unlink(path)
        remove_empty(path.parent, self._layout.root)

    def _finish(self, log: RemovedLog) -> None:
        """Do what a kill cut short, and is not told any more."""
        for removed in self._index.removed.leaving():
            self._discard(removed.run)
            for name, mark in removed.leaving.items():
                self._unlink(name, mark)
            self._remember([msgspec.structs.replace(removed, leaving={})], log)
        self._index.commit()
        self._sweep()

    def _sweep(self) -> None:
        for entry in list(os.scandir(self._layout.tmp)):
            if entry.name.startswith(GOING):
                shutil.rmtree(entry.path, ignore_errors=True)
                self._pause()


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder, and those that it lies in, while they are empty; never a place of the workspace itself."""
    with suppress(OSError):
        while len(folder.relative_to(root).parts) > 1 and not folder.is_symlink():
            os.rmdir(folder)
            folder = folder.parent


def _is_ours(root: Path, file: _File) -> bool:
    """True if a file is as it was written: by the run's own copy, else by its mark, which was compared already."""
    try:
        return file.copy is None or filecmp.cmp(root / file.name, file.copy, shallow=False)
    except OSError:
        return False


def disk_use(status: os.stat_result) -> int:
    """What a file takes on the disk."""
    return max(status.st_size, status.st_blocks * 512)


def _used_by(folder: Path) -> int:
    """What a folder takes with all that is in it."""
    total = 0
    with suppress(OSError):
        total += disk_use(os.lstat(folder))
        for entry in os.scandir(folder):
            inside = entry.is_dir(follow_symlinks=False)
            total += _used_by(Path(entry)) if inside else disk_use(entry.stat(follow_symlinks=False))
    return total
