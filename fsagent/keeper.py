"""When retention does its work, and who: the daemon once a day on a thread of its own, or a person: ``fsagent prune``.

The daemon's pass takes at most a fifth of one processor's time, in steps of some milliseconds, so commands do not wait.
On the same thread, and in the same manner, it builds the index anew for ``fsagent doctor --rebuild``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from fsagent.config import Settings
from fsagent.files.atomic import read_file, write_atomic
from fsagent.keepsettings import KeepSettings, format_size
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import PLACES, Layout

if TYPE_CHECKING:
    from fsagent.retention import Item

EVERY = timedelta(days=1)
AHEAD = timedelta(days=7)
"""So much later than the pass of another day a pass counts at the most: a clock that jumped years ahead takes little
away, and a machine that was off for long catches up within days."""
RETRY_AFTER = 3600.0
_BITE = 0.01
_REST = 4


class Gone(Struct, frozen=True):
    """How many things of a place went, and what they took on the disk."""

    count: int
    bytes: int


class LastPass(Struct, frozen=True, kw_only=True):
    """The newest pass: when it ended, the moment that ages were counted from, what went, what is still too much."""

    time: datetime
    counted: datetime
    gone: dict[str, Gone] = {}
    over: dict[str, int] = {}


class _Ended(Exception):  # noqa: N818  # no error
    """The pass is to end before it is through."""


def last_pass(layout: Layout) -> LastPass | None:
    """The newest pass, if there was any."""
    try:
        return msgspec.json.decode(read_file(layout.kept), type=LastPass)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def counted_from(layout: Layout, now: datetime) -> datetime:
    """The moment from which a pass counts ages."""
    last = last_pass(layout)
    if last is None:
        return now
    since = now - last.time
    return min(now, last.counted + (AHEAD if since >= EVERY else max(since, timedelta())))


def plan(layout: Layout, settings: Settings, index: Index, now: datetime) -> Iterator[Item]:
    """What a pass would remove now."""
    from fsagent.oldrecords import lone_files, old_months
    from fsagent.retention import Retention

    now = counted_from(layout, now)
    retention = Retention(layout, settings.keep, index, now, _never)
    yield from retention.plan()
    for lone in lone_files(layout, settings.keep, now, retention.over):
        retention.totals[lone.item.place] -= lone.item.bytes
        yield lone.item
    for _, item in old_months(layout, settings.keep, now):
        yield item


def carry_out(
    layout: Layout, settings: Settings, index: Index, journal: Journal, now: datetime, pause: Callable[[], None]
) -> Iterator[Item]:
    """One pass; each thing is told when it is gone. What went is journaled. Raises ``OSError``, ``sqlite3.Error``."""
    from fsagent.oldrecords import lone_files, old_months, records_over, remove_lone, remove_month
    from fsagent.retention import Retention

    counted = counted_from(layout, now)
    retention = Retention(layout, settings.keep, index, counted, pause)
    counts, sizes = Counter[str](), Counter[str]()

    def told(item: Item) -> Item:
        counts[item.place] += 1
        sizes[item.place] += item.bytes
        return item

    try:
        yield from map(told, retention.carry_out())
        for lone in lone_files(layout, settings.keep, counted, retention.over):
            remove_lone(layout, lone)
            retention.totals[lone.item.place] -= lone.item.bytes
            yield told(lone.item)
            pause()
        for path, item in old_months(layout, settings.keep, counted):
            remove_month(layout, path, item, journal, index, now, pause)
            yield told(item)
            pause()
    finally:
        for place in sorted(counts):
            if place != "journal":  # each of its months is told by a record of its own
                journal.append("removed", place=place, count=counts[place], bytes=sizes[place])
    over = {place: size for place, size in sorted(retention.totals.items()) if retention.over(place)}
    over |= records_over(layout, settings.keep)
    for place, size in over.items():
        journal.append("too much", place=place, bytes=size, why=_why_left(place, settings.keep))
    gone = {place: Gone(counts[place], sizes[place]) for place in sorted(counts)}
    done = LastPass(time=now, counted=counted, gone=gone, over=over)
    write_atomic(layout.kept, msgspec.json.encode(done) + b"\n", durable=False)


def too_large(settings: Settings, last: LastPass | None) -> list[str]:
    """Which places the newest pass left larger than the settings of now allow, why, and what to do, in sentences."""
    lines = []
    for place, size in last.over.items() if last else ():
        limit = getattr(settings.keep, place).size
        if size > limit:
            name = f"{place}/" if place in PLACES else f".fsagent/{place}/"
            lines.append(
                f"{name} takes {format_size(size)}, more than {limit} (keep.{place}.size): "
                f"{_why_left(place, settings.keep)}. Raise the limit, or make room by hand, then say 'fsagent prune'."
            )
    return lines


def _why_left(place: str, keep: KeepSettings) -> str:
    if place in ("journal", "usage"):
        return "its newest three months stay"
    return f"what is left ended less than {keep.unread} ago (keep.unread), is needed, or is not as the daemon left it"


class Keeper:
    """The daemon's part. ``look`` belongs to one thread; the pass has one of its own, while there is one."""

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        journal: Journal,
        index: Index,
        now: Callable[[], datetime],
        wake: Callable[[str], None],
    ) -> None:
        self._layout, self._settings, self._journal, self._index = layout, settings, journal, index
        self._now, self._wake = now, wake
        self._last = last_pass(layout)
        self._thread: threading.Thread | None = None
        self._busy = False
        self._ending = threading.Event()
        self._rested = 0.0
        self._next_try = 0.0

    def look(self) -> None:
        """Begin what is due, or somebody asked for. A pass of retention that failed is tried again after an hour."""
        if self.busy() or self._ending.is_set():
            return
        due = time.monotonic() >= self._next_try and self._is_due()
        jobs = [self._rebuild] if is_asked(self._layout.rebuild) else []
        jobs += [self._prune] if due or self._layout.prune.exists() else []
        if jobs:
            self._busy = True
            self._thread = threading.Thread(target=self._work, args=(jobs,), name="keeper", daemon=True)
            self._thread.start()

    def trouble(self) -> list[str]:
        """Which places are too large and stay so, in words. Asks no disk."""
        return too_large(self._settings(), self._last)

    def busy(self) -> bool:
        """True while it works."""
        return self._busy

    def wait(self, seconds: float) -> bool:
        """Wait until it does not; False if it still does."""
        if self._thread:
            self._thread.join(seconds)
        return not self._busy

    def close(self) -> None:
        """End what goes on, at its next step."""
        self._ending.set()
        if self._thread:
            self._thread.join()

    def _is_due(self) -> bool:
        """Once a day by the wall clock; in a new workspace first after a day."""
        last, now = last_pass(self._layout), self._now()
        if last is None:
            try:
                return now.timestamp() - self._layout.marker.stat().st_mtime > EVERY.total_seconds()
            except OSError:
                return False
        return abs(now - last.time) >= EVERY

    def _work(self, jobs: Sequence[Callable[[], None]]) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # on Linux: of this thread alone
        self._rested = time.thread_time()
        try:
            for job in jobs:
                job()
        except _Ended:
            pass  # who asked for it is served by the next daemon
        finally:
            self._busy = False
            self._wake("keeper")

    def _prune(self) -> None:
        self._next_try = time.monotonic() + RETRY_AFTER
        try:
            for _ in carry_out(self._layout, self._settings(), self._index, self._journal, self._now(), self._breathe):
                pass
            self._next_try = 0.0
            self._last = last_pass(self._layout)
            self._wake("status")
        except (OSError, sqlite3.Error) as error:
            self._journal.tell("error", error=str(error) or repr(error))
        with suppress(OSError):
            self._layout.prune.unlink(missing_ok=True)

    def _rebuild(self) -> None:
        from fsagent.recovery import renew_index

        try:
            count = renew_index(self._layout, self._index, self._breathe)
            self._journal.tell("index", what=f"the list of {count} runs is built anew, as somebody asked for")
            self._layout.rebuild.unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            self._journal.tell("error", error=str(error) or repr(error))
            with suppress(OSError):
                write_atomic(self._layout.rebuild, (str(error) or repr(error)).encode("utf-8", "replace"))

    def _breathe(self) -> None:
        worked = time.thread_time() - self._rested
        if worked >= _BITE or self._ending.is_set():
            if self._ending.wait(worked * _REST):
                raise _Ended
            self._rested = time.thread_time()


def is_asked(wish: Path) -> bool:
    """True where somebody asks for something by this file, and was not answered yet, which would stand in it."""
    try:
        return not os.stat(wish).st_size
    except FileNotFoundError:
        return False


def _never() -> None:
    """Nobody else waits for this pass."""


def alone(layout: Layout, settings: Settings, now: Callable[[], datetime]) -> Iterator[Item]:
    """A pass while no daemon runs, and none can start meanwhile. Raises ``AlreadyRunningError``."""
    from fsagent.errors import AlreadyRunningError
    from fsagent.files.locks import lock
    from fsagent.recovery import open_index, recover
    from fsagent.workspace.status import DAEMON_LOCK

    try:
        with lock(layout.locks / DAEMON_LOCK, 0):
            index, journal = open_index(layout), Journal(layout.journal, now)
            try:
                recover(layout, index)
                yield from carry_out(layout, settings, index, journal, now(), _never)
            finally:
                index.close()
                journal.close()
    except TimeoutError:
        raise AlreadyRunningError(f"a daemon has just been started on {layout.root}; say it again", 0) from None
