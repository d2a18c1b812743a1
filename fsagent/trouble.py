"""Trouble: what the disk, or the system, refuses for a while. Told once, waited for, tried again, and told when over.

Every part of the daemon that writes says under its own name (a *source*) what failed and what works again. Sources that
fail for the same reason are one episode: one record in the journal when it begins and one when it ends, however often
is tried meanwhile, and one line in the status. Where not even the journal can be written, the line is on the daemon's
screen all the same, and on the sheet (``status.Sheet``) that the health looks at.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from fsagent.files.names import TEMPORARY_PREFIX
from fsagent.files.refusals import PASSING
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.status import Sheet

FIRST_WAIT, LONGEST_WAIT = 0.25, 2.0
QUIET = 60.0
RESERVE, SHARE = 5_000_000, 50
FILES = 100

REFUSALS = (OSError, sqlite3.Error)
"""What the disk and the system say no with."""

_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO, sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES, sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}  # fmt: skip
_NEARLY_FULL, _NEW = "nearly full", "what is new"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MOVED = 1032  # SQLITE_READONLY_DBMOVED: the file has gone, or is another one


class _Fault(Struct):
    """One source that fails: why, what people call it, and how often it was tried."""

    kind: str
    words: str
    name: str
    tries: int = 1


class Trouble:
    """See the module. Safe to share between threads; ``changed`` is called when the status should be written anew."""

    def __init__(self, layout: Layout, journal: Journal, changed: Callable[[], None]) -> None:
        self._layout, self._journal, self._changed = layout, journal, changed
        self._sheet = Sheet(layout)
        self._lock = threading.Lock()
        self._ending = False
        self.damaged = False  # the index is no good; whoever mends it says so
        self._faults: dict[str, _Fault] = {}
        self._told: dict[str, tuple[float, str]] = {}  # kinds that are going on: since when, and the words
        self._quiet: dict[str, float] = {}  # when kinds that are over were told last

    def failed(self, source: str, error: Exception, name: str = "") -> float:
        """A source could not do what it should; gives the seconds after which it may try again. ``name`` is what people
        call it."""
        self.damaged |= is_damaged(error)
        return self._note(source, kind_of(self._layout, error), describe(self._layout, error), name or source)

    def look(self) -> str:
        """Why nothing new should be begun now, in words; "" where there is room. Asks the disk."""
        words = short_of_room(self._layout.root)
        if words:
            self._note(_NEW, _NEARLY_FULL, words, _NEW)
        else:
            self.worked(_NEW)
        self._sheet.write(self.lines())
        return words

    def _note(self, source: str, kind: str, words: str, name: str) -> float:
        moment = time.monotonic()
        with self._lock:
            fault = self._faults.get(source)
            if fault is None or fault.kind != kind:
                fault = self._faults[source] = _Fault(kind, words, name)
            else:
                fault.tries += 1
                fault.words = words
            news = kind not in self._told
            loud = news and moment - self._quiet.get(kind, -QUIET) >= QUIET
            if news:
                self._told[kind] = moment, words
                self._quiet[kind] = moment if loud else self._quiet[kind]
            wait = _wait_after(fault.tries)
        self._end()
        if news:
            self._sheet.write(self.lines())
        if loud:
            self._journal.tell("trouble", error=words, what=name)
        if news:
            self._changed()
        return wait

    def worked(self, source: str) -> None:
        """A source could do what it should. Costs nothing where it never failed."""
        if self._faults:
            with self._lock:
                known = self._faults.pop(source, None)
            if known:
                self._end()

    @contextmanager
    def guard(self, source: str, *, sure: bool = True) -> Iterator[None]:
        """What is refused within counts as failed, and hurts nothing else. If it is not ``sure`` that anything is done
        there, nothing counts as working again."""
        try:
            yield
        except REFUSALS as error:
            self.failed(source, error)
        else:
            if sure:
                self.worked(source)

    def patiently(
        self, source: str, write: Callable[[], object], stopping: Callable[[], bool], name: str = ""
    ) -> float:
        """Do what may be refused for a while, and wait meanwhile: so what is known is not forgotten. Gives the seconds
        that took; raises what it was refused with where whoever waits is to end."""
        began = 0.0
        while True:
            try:
                write()
            except REFUSALS as error:
                moment = time.monotonic()
                began = began or moment
                wait = self.failed(source, error, name)
                while time.monotonic() < moment + wait and not (stopping() or self._ending):
                    time.sleep(0.05)
                if stopping() or self._ending or not is_passing(error):
                    raise
            else:
                self.worked(source)
                return time.monotonic() - began if began else 0.0

    def close(self) -> None:
        """Nobody waits any more."""
        self._ending = True
        self._sheet.close()

    def wait(self) -> float | None:
        """The seconds after which all should be tried again; None where nothing is wrong."""
        with self._lock:
            tries = [fault.tries for fault in self._faults.values()]
        return _wait_after(min(tries)) if tries else None

    def lines(self) -> list[str]:
        """What is wrong now, in words for people: each reason once, the one that affects most first."""
        with self._lock:
            faults = list(self._faults.values())
        if any(fault.kind == "ENOSPC" for fault in faults):
            faults = [fault for fault in faults if fault.kind != _NEARLY_FULL]
        found: dict[str, list[str]] = {}
        for fault in faults:
            found.setdefault(fault.words, []).append(fault.name)
        lines = []
        for words, names in sorted(found.items(), key=lambda each: -len(each[1])):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"{words} Waiting for it: {names[0]}{more}. All goes on by itself.")
        return lines

    def _end(self) -> None:
        """Tell of the kinds that are over."""
        moment = time.monotonic()
        with self._lock:
            left = {fault.kind for fault in self._faults.values()}
            over = {kind: told for kind, told in self._told.items() if kind not in left}
            for kind in over:
                del self._told[kind]
            loud = [kind for kind, (since, _) in over.items() if self._quiet.get(kind) == since]
        if over:
            self._sheet.write(self.lines())
        for kind in loud:
            since, words = over[kind]
            self._journal.tell("trouble over", what=words, seconds=round(moment - since, 3))
        if over:
            self._changed()


def _wait_after(tries: int) -> float:
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries - 1, 10)))


def kind_of(layout: Layout, error: Exception) -> str:
    """The reason by its name in C: ``ENOSPC``, ``EIO``."""
    return errno.errorcode.get(_reason(layout, error), "") or type(error).__name__


def is_passing(error: Exception) -> bool:
    """True for what the disk or the system refuses, and may grant later; other errors are somebody's mistake."""
    return isinstance(error, sqlite3.Error) or _errno(error) in PASSING


def is_damaged(error: Exception) -> bool:
    """True where SQLite says that its file is no good, or another one than it opened: it has to be built anew."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code == _MOVED or code & 0xFF in _DAMAGED


def describe(layout: Layout, error: Exception) -> str:
    """What is wrong, where, and what to do, in sentences."""
    root, number = layout.root, _reason(layout, error)
    names = [str(name) for name in (getattr(error, "filename2", None), getattr(error, "filename", None)) if name]
    where = layout.name(Path(names[0])) if names and names[0].startswith("/") else ""
    where = where if where and not where.startswith("..") else str(root)
    if os.path.basename(where).startswith(TEMPORARY_PREFIX):
        where = os.path.dirname(where) or str(root)
    if number in (errno.ENOSPC, errno.EDQUOT) and _inodes_left(root) == 0:
        return f"The disk of {root} takes no more files (its inodes are used up): remove some files."
    if number == errno.ENOSPC:
        return f"The disk of {root} is full: free some space."
    if number == errno.EDQUOT:
        return f"The disk quota of user {_user()} on {root} is used up: free some space, or raise it."
    if number == errno.EROFS:
        return (
            f"The disk of {root} is read-only ({where}): mount it writable; if nobody made it so, the disk is damaged, "
            "and the system's log (dmesg) says more."
        )
    if number == errno.EIO:
        return f"The disk of {root} gives errors ({where}): see the system's log (dmesg), and save what is on it."
    if number in (errno.EMFILE, errno.ENFILE):
        whose = "the system" if number == errno.ENFILE else "the daemon"
        return f"No more files can be opened by {whose}: raise its limit (ulimit -n, LimitNOFILE=), or lower max_runs."
    if number in (errno.EACCES, errno.EPERM):
        return f"User {_user()} may not write {where}: give that user the right to."
    if is_damaged(error):
        return "The list of runs is damaged or gone: it is built anew."
    if isinstance(error, sqlite3.Error):
        return f"The list of runs (.fsagent/{layout.index.name}) cannot be used: {error}."
    return f"{where}: {os.strerror(number) if number else repr(error)}."


def short_of_room(root: Path) -> str:
    """Why nothing new should be begun on this disk, in words; "" where there is room. What is kept free, 5 MB or a
    fiftieth of a small disk, is for what runs: its results and its records."""
    try:
        status = os.statvfs(root)
    except OSError:
        return ""
    if status.f_bavail * status.f_frsize < min(RESERVE, status.f_blocks * status.f_frsize // SHARE):
        return f"The disk of {root} is nearly full: free some space."
    if status.f_files and status.f_favail < min(FILES, status.f_files // SHARE):
        return f"The disk of {root} takes hardly any more files (inodes): remove some files."
    return ""


def _reason(layout: Layout, error: Exception) -> int:
    """The errno that says most. SQLite tells of a full disk as of one with errors where it maps a file, and of a quota
    that is used up in any case; what the disk says itself is asked for then."""
    number = _errno(error)
    if number != errno.EIO:
        return number
    if short_of_room(layout.root):
        return errno.ENOSPC
    return _asked(layout) or number if isinstance(error, sqlite3.Error) else number


def _asked(layout: Layout) -> int:
    """What the disk refuses a small file with; 0 where it takes it."""
    path = layout.tmp / f"{TEMPORARY_PREFIX}asked-{os.urandom(6).hex()}"
    try:
        path.write_bytes(bytes(4096))
    except OSError as error:
        return error.errno or 0
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return 0


def _errno(error: Exception) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    return _SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, 0)


def _inodes_left(root: Path) -> int | None:
    try:
        status = os.statvfs(root)
    except OSError:
        return None
    return status.f_favail if status.f_files else None


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except (KeyError, OSError):
        return str(os.geteuid())
