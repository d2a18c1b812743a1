"""watchdog's observer as the watcher needs it: what it hears, what it does not, and whether it still lives.

All that is known here of watchdog's inside is known nowhere else. Off Linux its observer is taken as it is.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from watchdog.events import FileDeletedEvent
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

DEEPEST = 32  # as deep as a place is looked into
_MOVE_DELAY = 0.005
_LOG = logging.getLogger("watchdog")


def make_observer() -> BaseObserver:
    """An observer, not started. Raises ``OSError`` where the system has none to give.

    On Linux it is not told of what moves away from a place of arrivals: each claim moves a file away, and watchdog's
    threads would be busy with the daemon's own doings. In the other places watchdog holds back whatever comes behind
    such an event, to see where the file went: half a second, of which a hundredth will do, for both halves of a move
    come together. And it goes no deeper than we look: watchdog goes down by calling itself, and a folder that is a
    thousand deep would end the thread that hears of everything.
    """
    try:
        from watchdog.observers.inotify import InotifyEmitter, InotifyObserver, InotifyWatchGroup
        from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask
    except ImportError:
        return Observer()

    class ShallowGroup(InotifyWatchGroup):
        def _add_all_callbacks(self, path: bytes) -> None:
            depth = path.count(b"/") - self.path.count(b"/")
            for folder in survey(path, DEEPEST - depth if self.is_recursive else 0)[0]:
                self._add_callback(folder)

        def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:
            return []  # whoever hears of the folder, which is watched by now, looks into it

    class ArrivalsEmitter(InotifyEmitter):
        def on_thread_start(self) -> None:
            self._inotify = ShallowGroup(
                self._inotify_fd,
                os.fsencode(self.watch.path),
                is_recursive=self.watch.is_recursive,
                event_mask=self.get_event_mask_from_filter(),
                follow_symlink=self.watch.follow_symlink,
            )
            self._inotify._move_event_grouper._queue.delay = _MOVE_DELAY

        def build_and_queue_event(self, event: Any, *, full_events: bool = False) -> None:
            with suppress(RecursionError):  # of what lies in a folder; the folder itself was told
                super().build_and_queue_event(event, full_events=full_events)

        def get_event_mask_from_filter(self) -> Mask:
            mask = super().get_event_mask_from_filter()
            if self._event_filter is not None and FileDeletedEvent not in self._event_filter:
                mask = Mask(mask & ~InotifyConstants.IN_MOVED_FROM)
            return mask

    # a folder that is moved within a place of arrivals is watched again under its other name, which is meant
    warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
    observer = InotifyObserver()
    observer._emitter_class = ArrivalsEmitter
    return observer


def is_alive(observer: BaseObserver) -> bool:
    """True while each thread that brings events to all places lives: one that hears, one that tells."""
    hears: Thread = getattr(observer, "_inotify_fd", observer)
    return observer.is_alive() and hears.is_alive()


def watched_folders(observer: BaseObserver, watch: ObservedWatch) -> set[bytes] | None:
    """The folders that are watched of a place: none where its own thread has ended. None where nobody can say."""
    emitter = observer._emitter_for_watch.get(watch)
    if emitter is None or not emitter.is_alive():
        return set()
    paths = getattr(getattr(emitter, "_inotify", None), "_active_callbacks_by_path", None)
    return None if paths is None else paths.keys()


def survey(root: bytes, deepest: int) -> tuple[list[bytes], int | None]:
    """A folder and those in it, so many levels down, and how many entries they have together: None where that cannot
    be found out. Links are not followed."""
    folders, entries, rest = [], 0, [(root, 0)] if deepest >= 0 else []
    readable = True
    while rest:
        folder, depth = rest.pop()
        folders.append(folder)
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    entries += 1
                    if depth < deepest and entry.is_dir(follow_symlinks=False):
                        rest.append((entry.path, depth + 1))
        except OSError:
            readable = False
    return folders, entries if readable else None


class Overflows(logging.Handler):
    """watchdog only logs that the kernel's queue ran over and events were lost. While ``open``, ``happened`` is called
    then, from watchdog's thread, and its log goes nowhere else."""

    def __init__(self, happened: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._happened = happened

    def open(self) -> None:
        _LOG.addHandler(self)
        _LOG.propagate = False

    def close(self) -> None:
        _LOG.removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by watchdog in its own thread."""
        if "overflow" in record.getMessage().lower():
            self._happened()
