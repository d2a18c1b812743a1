"""Hints from the file system, by watchdog: something moved in a place, look again. Losing them costs latency only.

Only places where something can arrive are watched; the archive and the runs may hold a hundred thousand folders.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from fsagent.files.names import is_temporary

_ARRIVALS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileClosedEvent, FileMovedEvent, DirCreatedEvent, DirMovedEvent,
]  # fmt: skip
_CHANGES: list[type[FileSystemEvent]] = [*_ARRIVALS, FileDeletedEvent, DirDeletedEvent]


class Watcher(FileSystemEventHandler):
    """Calls ``wake(place)`` soon after something changed in a place; ``place`` is a key of ``places``.

    ``places`` maps a name to a folder, whether to watch its subfolders, and whether deletions matter. ``check`` has to
    be called now and then: it watches again what was removed, replaced or could not be watched.
    """

    def __init__(
        self, places: dict[str, tuple[Path, bool, bool]], wake: Callable[[str], None], ignore: Callable[[str], bool]
    ) -> None:
        self._places, self._wake, self._ignore = places, wake, ignore
        self._observer = _observer()
        self._watched: dict[str, tuple[tuple[int, int], ObservedWatch]] = {}
        self.trouble: dict[str, str] = {}

    def start(self) -> None:
        """Begin to watch. Never raises: what cannot be watched stands in ``trouble`` and is left to the scans."""
        log = logging.getLogger("watchdog")
        log.addHandler(_Complaints(self._wake_all))
        log.propagate = False
        try:
            self._observer.start()
        except OSError as error:
            self.trouble = {name: os.strerror(error.errno or 0) for name in self._places}
            return
        self.check()

    def check(self) -> None:
        """Compare what is watched with what is there."""
        if not self._observer.is_alive():
            return
        for name, (path, deep, deletions) in self._places.items():
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
                watch = self._observer.schedule(
                    self, os.path.realpath(path), recursive=deep, event_filter=_CHANGES if deletions else _ARRIVALS
                )
            except OSError as error:
                self.trouble[name] = os.strerror(error.errno or 0)
                continue
            self._watched[name] = (identity, watch)
            self.trouble.pop(name, None)
            self._wake(name)

    def stop(self) -> None:
        """End all watching."""
        if self._observer.is_alive():
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

    def _drop(self, name: str) -> None:
        known = self._watched.pop(name, None)
        if known:
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
