"""Hints from the file system, by watchdog: something moved in a place, look again. Losing them costs latency only.

Only places where something can arrive are watched, each by its real path, and the root beside them, which tells of
their coming and going. The root is not watched with all that is in it: the archive and the runs may hold a hundred
thousand folders, each of which would take one of the few watches that a system grants, and the daemon's own doings
would drown the rest.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
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
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from fsagent.files.names import is_temporary

ARRIVALS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileClosedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent,
]  # fmt: skip
CHANGES: list[type[FileSystemEvent]] = [*ARRIVALS, FileDeletedEvent, DirDeletedEvent]
GROWTH: list[type[FileSystemEvent]] = [*ARRIVALS, FileModifiedEvent]
CANARY = ".canary.tmp"
DEEPEST = 32  # as deep as a place is looked into
CANARY_WAIT = 2.0
_MOVE_DELAY = 0.005
_LOG = logging.getLogger("watchdog")


class Watcher:
    """Calls ``wake(place)`` soon after something changed in a place; ``place`` is a key of ``places``.

    ``places`` maps a name to a folder, whether to watch its subfolders, and what matters there: what comes
    (``ARRIVALS``), also what goes (``CHANGES``), or also what is written to an open file (``GROWTH``). ``check`` has to
    be called now and then: it watches again what was removed, replaced, unmounted or could not be watched. With
    ``canary`` a file is made and removed in each place when it is watched, to see whether events come at all.
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
        self._complaints = _Complaints(self._wake_all)
        self.trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin to watch. Never raises: what cannot be watched stands in ``trouble`` and is left to the scans."""
        _LOG.addHandler(self._complaints)
        _LOG.propagate = False
        self.check()

    def check(self, *, thorough: bool = True) -> None:
        """Compare what is watched with what is there; the folders within the places only where it is ``thorough``."""
        observer = self._observe()
        if observer is None or not observer.is_alive():
            return
        for name, (path, deep, _) in self._places.items():
            try:
                status = os.stat(path)
            except OSError:
                self._drop(name)
                continue
            identity, ear = (status.st_dev, status.st_ino), self._watched.get(name)
            if ear and ear.identity == identity and not (missing := self._missing(ear, deep and thorough)):
                if thorough:
                    self.trouble.pop(name, None)
                continue
            self._drop(name)
            ear = self._listen(observer, name, identity)
            if ear is None:
                continue
            missing = self._missing(ear, deep)
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

    def listening(self) -> float | None:
        """Seconds until it is known of every place whether events come; None where it is."""
        asked = [ear.asked for ear in self._watched.values() if ear.asked is not None]
        rest = max(asked) + CANARY_WAIT - time.monotonic() if asked else 0.0
        return rest if rest > 0 else None

    def forget(self) -> None:
        """Watch nothing until ``check`` is called."""
        for name in self._places:
            self._drop(name)
        self.trouble.clear()

    def stop(self) -> None:
        """End all watching."""
        _LOG.removeHandler(self._complaints)
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

    def _missing(self, ear: _Ear, deep: bool) -> int:
        """How many of its folders are not watched: the watches ran out, or it went and came again under its number."""
        emitter = self._observer._emitter_for_watch.get(ear.watch) if self._observer and ear.watch else None
        if emitter is None or not emitter.is_alive():
            return 1
        group = getattr(emitter, "_inotify", None)
        paths = getattr(group, "_active_callbacks_by_path", None)
        if paths is None:
            return 0
        return sum(folder not in paths for folder in _folders(os.fsencode(ear.real), DEEPEST if deep else 0))

    def _wake_all(self) -> None:
        for name in self._places:
            self._wake(name)

    def _observe(self) -> BaseObserver | None:
        """The observer, started; None where the system has none to give (its inotify instances are used up)."""
        if self._observer is None:
            try:
                observer = _observer()
                observer.start()
            except OSError as error:
                self.trouble = {name: os.strerror(error.errno or 0) for name in self._places}
                return None
            self._observer = observer
        return self._observer

    def _drop(self, name: str) -> None:
        ear = self._watched.pop(name, None)
        if ear and ear.watch and self._observer:
            try:
                self._observer.unschedule(ear.watch)
            except (KeyError, OSError):
                pass  # its emitter ended with the folder that it watched


class _Ear(FileSystemEventHandler):
    """Hears of one place. ``identity`` is its device and inode, ``asked`` when its canary was sent while unheard."""

    def __init__(
        self, folder: Path, identity: tuple[int, int], wake: Callable[[], None], ignore: Callable[[str], bool]
    ) -> None:
        self.identity, self.real = identity, os.path.realpath(folder)
        self.watch: ObservedWatch | None = None
        self.asked: float | None = None
        self._folder, self._wake, self._ignore = str(folder), wake, ignore

    def ask(self) -> None:
        """Send the canary; where nothing can be written, nothing is asked."""
        path = os.path.join(self.real, CANARY)
        self.asked = time.monotonic()
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            os.unlink(path)
        except OSError:
            self.asked = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        self.asked = None
        path = os.fsdecode(event.dest_path or event.src_path)
        if path.startswith(f"{self.real}/"):
            path = self._folder + path[len(self.real) :]
        if not is_temporary(os.path.basename(path)) and not self._ignore(path):
            self._wake()


class _Complaints(logging.Handler):
    """watchdog only logs that the kernel's queue ran over and events were lost: then everything is looked at again."""

    def __init__(self, look_again: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._look_again = look_again

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._look_again()


def _observer() -> BaseObserver:
    """watchdog's observer for this system; on Linux one that is not told of what moves away from a place of arrivals.

    Each claim moves a file away, and watchdog's threads would be busy with the daemon's own doings. In the other places
    it holds back whatever comes behind such an event, to see where the file went: half a second, of which a hundredth
    will do, for both halves of a move come together.
    """
    try:
        from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
        from watchdog.observers.inotify_c import InotifyConstants, Mask
    except ImportError:
        return Observer()

    class ArrivalsEmitter(InotifyEmitter):
        def on_thread_start(self) -> None:
            super().on_thread_start()
            with suppress(AttributeError):  # another release of watchdog: it is slower, no more
                self._inotify._move_event_grouper._queue.delay = _MOVE_DELAY  # type: ignore[union-attr]

        def get_event_mask_from_filter(self) -> Mask:
            mask = super().get_event_mask_from_filter()
            if self._event_filter is not None and FileDeletedEvent not in self._event_filter:
                mask = Mask(mask & ~InotifyConstants.IN_MOVED_FROM)
            return mask

    observer = InotifyObserver()
    observer._emitter_class = ArrivalsEmitter
    return observer


def _folders(root: bytes, deepest: int) -> Iterator[bytes]:
    """A folder and those in it, so many levels down; links are not followed."""
    rest = [(root, 0)]
    while rest:
        folder, depth = rest.pop()
        yield folder
        with suppress(OSError):
            if depth < deepest:
                rest += [(each.path, depth + 1) for each in os.scandir(folder) if each.is_dir(follow_symlinks=False)]
