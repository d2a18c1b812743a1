"""Hints from the file system, by watchdog: something moved in a place, look again. Losing them costs latency only.

Only places where something can arrive are watched; the archive and the runs may hold a hundred thousand folders.
"""

from __future__ import annotations

import logging
import os
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
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from fsagent.files.names import is_temporary

ARRIVALS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileClosedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent,
]  # fmt: skip
CHANGES: list[type[FileSystemEvent]] = [*ARRIVALS, FileDeletedEvent, DirDeletedEvent]
GROWTH: list[type[FileSystemEvent]] = [*ARRIVALS, FileModifiedEvent]
_LOG = logging.getLogger("watchdog")


class Watcher(FileSystemEventHandler):
    """Calls ``wake(place)`` soon after something changed in a place; ``place`` is a key of ``places``.

    ``places`` maps a name to a folder, whether to watch its subfolders, and what matters there: what comes
    (``ARRIVALS``), also what goes (``CHANGES``), or also what is written to an open file (``GROWTH``). ``check`` has to
    be called now and then: it watches again what was removed, replaced or could not be watched.
    """

    def __init__(
        self,
        places: Mapping[str, tuple[Path, bool, list[type[FileSystemEvent]]]],
        wake: Callable[[str], None],
        ignore: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._places, self._wake, self._ignore = places, wake, ignore
        self._observer: BaseObserver | None = None
        self._watched: dict[str, tuple[tuple[int, int], ObservedWatch]] = {}
        self._complaints = _Complaints(self._wake_all)
        self.trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin to watch. Never raises: what cannot be watched stands in ``trouble`` and is left to the scans."""
        _LOG.addHandler(self._complaints)
        _LOG.propagate = False
        self.check()

    def check(self) -> None:
        """Compare what is watched with what is there."""
        observer = self._observe()
        if observer is None or not observer.is_alive():
            return
        for name, (path, deep, events) in self._places.items():
            try:
                status = os.stat(path)
                identity = (status.st_dev, status.st_ino)
            except OSError:
                self._drop(name)
                continue
            if name in self._watched and self._watched[name][0] == identity:
                continue
            self._drop(name)
            try:
                watch = observer.schedule(self, os.path.realpath(path), recursive=deep, event_filter=events)
            except OSError as error:
                self.trouble[name] = os.strerror(error.errno or 0)
                continue
            self._watched[name] = (identity, watch)
            self.trouble.pop(name, None)
            self._wake(name)

    def stop(self) -> None:
        """End all watching."""
        _LOG.removeHandler(self._complaints)
        if self._observer and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(2)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if is_temporary(os.path.basename(path)) or self._ignore(path):
            return
        for name, (folder, deep, _) in self._places.items():
            if os.path.dirname(path) == str(folder) or (deep and path.startswith(f"{folder}/")):
                self._wake(name)
                return

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
        known = self._watched.pop(name, None)
        if known and self._observer:
            try:
                self._observer.unschedule(known[1])
            except (KeyError, OSError):
                pass  # its emitter ended with the folder that it watched


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

    Each claim moves a file away. watchdog holds back whatever comes behind such an event, for half a second, to see
    where the file went (facts/files.md §4), and its three threads would be busy with the daemon's own doings.
    """
    try:
        from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
        from watchdog.observers.inotify_c import InotifyConstants, Mask
    except ImportError:
        return Observer()

    class ArrivalsEmitter(InotifyEmitter):
        def get_event_mask_from_filter(self) -> Mask:
            mask = super().get_event_mask_from_filter()
            if self._event_filter is not None and FileDeletedEvent not in self._event_filter:
                mask = Mask(mask & ~InotifyConstants.IN_MOVED_FROM)
            return mask

    observer = InotifyObserver()
    observer._emitter_class = ArrivalsEmitter
    return observer
