"""Hints from the file system, by watchdog: something moved in a place, look again. Losing them costs latency only.

Only places where something can arrive are watched, each by its real path, and the root beside them, which tells of
their coming and going. The root is not watched with all that is in it: the archive and the runs may hold a hundred
thousand folders, each of which would take one of the few watches that a system grants, and the daemon's own doings
would drown the rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch

from fsagent.files.names import is_temporary
from fsagent.observers import DEEPEST, Overflows, is_alive, make_observer, survey, watched_folders

ARRIVALS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileClosedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent,
]  # fmt: skip
CHANGES: list[type[FileSystemEvent]] = [*ARRIVALS, FileDeletedEvent, DirDeletedEvent]
GROWTH: list[type[FileSystemEvent]] = [*ARRIVALS, FileModifiedEvent]
CANARY = ".canary.tmp"
CANARY_WAIT = 2.0


class Watcher:
    """Calls ``wake(place)`` soon after something changed in a place; ``place`` is a key of ``places``.

    ``places`` maps a name to a folder, whether to watch its subfolders, and what matters there: what comes
    (``ARRIVALS``), also what goes (``CHANGES``), or also what is written to an open file (``GROWTH``). ``check`` has to
    be called now and then: it watches again what was removed, replaced, unmounted or could not be watched, and all
    where events were lost. With ``canary`` a file is made and removed in each place when it is watched, to see whether
    events come at all, and again where something has come of which nothing was heard.
    """

    def __init__(
        self,
        places: Mapping[str, tuple[Path, bool, list[type[FileSystemEvent]]]],
        wake: Callable[[str], None],
        ignore: Callable[[str], bool] = lambda _: False,
        *,
        canary: bool = False,
    ) -> None:
        self._places, self._wake, self._ignore, self._canary = places, wake, ignore, canary
        self._observer: BaseObserver | None = None
        self._watched: dict[str, _Ear] = {}
        self._lost = False  # events were, since the last check
        self._overflows = Overflows(self._overflowed)
        self.trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin to watch. Never raises: what cannot be watched stands in ``trouble`` and is left to the scans."""
        self._overflows.open()
        self.check()

    def check(self, *, thorough: bool = True) -> None:
        """Compare what is watched with what is there; the folders within the places only where it is ``thorough``."""
        if self._lost:  # the watches of new folders among them, and watchdog makes them anew while we look
            self._lost = False
            self._drop_all()
        observer = self._observe()
        if observer is None:
            return
        for name, (path, deep, _) in self._places.items():
            try:
                status = os.stat(path)
            except OSError:
                self._drop(name)
                continue
            identity, ear = (status.st_dev, status.st_ino), self._watched.get(name)
            if ear and ear.identity == identity and not self._missing(observer, ear, deep, thorough=thorough):
                if thorough:
                    self.trouble.pop(name, None)
                continue
            self._drop(name)
            ear = self._listen(observer, name, identity)
            if ear is None:
                continue
            missing = self._missing(observer, ear, deep, thorough=True)
            if not missing:
                self.trouble.pop(name, None)
                self._wake(name)
            elif self.trouble.get(name) != (words := f"{missing} of its folders cannot be: too few inotify watches"):
                self.trouble[name] = words
                self._wake(name)

    def deaf(self) -> set[str]:
        """The places of whose canary nothing was heard for ``CANARY_WAIT``: no events come from there."""
        late = time.monotonic() - CANARY_WAIT
        return {name for name, ear in self._watched.items() if ear.asked is not None and ear.asked <= late}

    def misses(self) -> set[str]:
        """The places where others write unheard though our own writes are told: where something came of which nothing
        was heard, and all that lie on the same file system."""
        devices = {ear.identity[0] for ear in self._watched.values() if ear.missed}
        return {name for name, ear in self._watched.items() if ear.identity[0] in devices}

    def listening(self) -> float | None:
        """Seconds until it is known of every place whether events come; None where it is."""
        asked = [ear.asked for ear in self._watched.values() if ear.asked is not None]
        rest = max(asked) + CANARY_WAIT - time.monotonic() if asked else 0.0
        return rest if rest > 0 else None

    def forget(self) -> None:
        """Watch nothing until ``check`` is called."""
        self._drop_all()
        self.trouble.clear()

    def stop(self) -> None:
        """End all watching."""
        self._overflows.close()
        if self._observer and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(2)

    def _listen(self, observer: BaseObserver, name: str, identity: tuple[int, int]) -> _Ear | None:
        path, deep, events = self._places[name]
        ear = _Ear(path, identity, lambda: self._wake(name), self._ignore)
        try:
            ear.watch = observer.schedule(ear, ear.real, recursive=deep, event_filter=events)
        except OSError as error:
            self.trouble[name] = os.strerror(error.errno or 0)
            return None
        except RecursionError:  # watchdog goes down by calling itself
            self.trouble[name] = "its folders are too deep"
            return None
        self._watched[name] = ear
        if self._canary:
            ear.ask()
        return ear

    def _missing(self, observer: BaseObserver, ear: _Ear, deep: bool, *, thorough: bool) -> int:
        """How many of its folders are not watched: the watches ran out, or it went and came again under its number."""
        paths = watched_folders(observer, ear.watch) if ear.watch else set()
        root = os.fsencode(ear.real)
        if not thorough:
            return paths is not None and root not in paths
        ear.look_begins()
        folders, entries = survey(root, DEEPEST if deep else 0)
        missing = 0 if paths is None else sum(folder not in paths for folder in folders)
        if self._canary and not missing:
            ear.look_ends(entries)
        return missing

    def _overflowed(self) -> None:
        self._lost = True
        for name in self._places:
            self._wake(name)

    def _observe(self) -> BaseObserver | None:
        """The observer, started; None where the system has none to give (its inotify instances are used up)."""
        if self._observer and not is_alive(self._observer):  # by an error of its own: all is to be made anew
            self._drop_all()
            self._observer.stop()
            self._observer = None
        if self._observer is None:
            try:
                observer = make_observer()
                observer.start()
            except OSError as error:
                self.trouble = {name: os.strerror(error.errno or 0) for name in self._places}
                return None
            self._observer = observer
        return self._observer

    def _drop_all(self) -> None:
        for name in self._places:
            self._drop(name)

    def _drop(self, name: str) -> None:
        ear = self._watched.pop(name, None)
        if ear and ear.watch and self._observer:
            try:
                self._observer.unschedule(ear.watch)
            except (KeyError, OSError):
                pass  # its emitter ended with the folder that it watched


class _Ear(FileSystemEventHandler):
    """Hears of one place. ``identity`` is its device and inode, ``asked`` when its canary was sent while unheard,
    ``missed`` whether something came there of which nothing was heard, though the canary was."""

    def __init__(
        self, folder: Path, identity: tuple[int, int], wake: Callable[[], None], ignore: Callable[[str], bool]
    ) -> None:
        self.identity, self.real = identity, os.path.realpath(folder)
        self.watch: ObservedWatch | None = None
        self.asked: float | None = None
        self.missed = False
        self._folder, self._wake, self._ignore = str(folder), wake, ignore
        self._heard = self._heard_before = True  # since the last look began, and between the two before
        self._entries: int | None = None  # what the last look found
        self._sent = self._doubt = False  # a canary that was not heard yet, and whether much hangs on it

    def ask(self) -> None:
        """Send the canary; where nothing can be written, nothing is asked."""
        path = os.path.join(self.real, CANARY)
        self.asked, self._sent = time.monotonic(), True
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            os.unlink(path)
        except OSError:
            self.asked, self._sent, self._doubt = None, False, False

    def look_begins(self) -> None:
        """Whatever is heard from now on may be of what this look finds."""
        self._heard_before, self._heard = self._heard, False

    def look_ends(self, entries: int | None) -> None:
        """So many files and folders are there. More than before of which nothing was heard: their event is late, or
        none will come. The canary tells, for its own comes behind all that were to come before."""
        more = entries is not None and self._entries is not None and entries > self._entries
        self._entries = entries
        if not more or self._heard_before or self._sent:
            return
        self._doubt = True
        if self._heard:  # only asked now: whatever is heard from here on dispels the doubt by itself
            self._doubt = False
        else:
            self.ask()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        self.asked = None
        path = os.fsdecode(event.dest_path or event.src_path)
        if os.path.basename(path) == CANARY:
            if isinstance(event, FileCreatedEvent):  # one of each canary; the rest may be of the last one
                self.missed |= self._doubt
                self._sent = self._doubt = False
            return
        self._heard, self._doubt = True, False
        if path.startswith(f"{self.real}/"):
            path = self._folder + path[len(self.real) :]
        if not is_temporary(os.path.basename(path)) and not self._ignore(path):
            self._wake()
