"""The intake: what waits to be admitted, from the side door, from the inbox, and for another try."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

from fsagent.config import Settings
from fsagent.trouble import Trouble
from fsagent.workspace.inbox import Arrival, Inbox, Lying, Scan
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, claim_dropped, discard_empty, dropped, new_run_id


class Intake:
    """Finds commands and takes possession of them, one at a time and in order.

    A place is looked at again only once all that was found there has been taken, so a burst of any size costs one look.
    Used by one thread, but for ``again``.
    """

    def __init__(self, layout: Layout, settings: Callable[[], Settings], trouble: Trouble) -> None:
        self._layout, self._settings, self._trouble = layout, settings, trouble
        self._inbox = Inbox(layout)
        self._arrivals: deque[Arrival] = deque()
        self._drops: deque[str] = deque()
        self._drops_changed = True
        self._inbox_changed = True
        self._retries: list[tuple[datetime, int, RunFolder]] = []
        self._retries_lock = threading.Lock()
        self._order = count()
        self._scan = Scan([], [])
        self._rescan = 0.0  # when the inbox is looked at again if nothing is heard of it
        self._refused: set[str] = set()  # what the disk did not let us take
        self._begun: list[str] = []  # runs that it did not let us begin for it
        self._breathe = 0.0  # and not before this, whatever is heard: looks take a fifth of the time at the most

    def look(self, now: datetime, *, inbox: bool, drops: bool) -> bool:
        """Look at the places where something may have changed; True if other files lie in the inbox than before."""
        self._drops_changed |= drops
        self._inbox_changed |= inbox
        if self._drops_changed and not self._drops:
            self._drops.extend(dropped(self._layout))
            self._drops_changed = False
        started = time.monotonic()
        if self._arrivals or started < (self._breathe if self._inbox_changed else self._rescan):
            return False
        self._inbox_changed = False
        settings, lying = self._settings(), self._scan.lying
        self._scan = self._inbox.scan(now, started, settings.settle, settings.settle_renamed, settings.attachment_wait)
        self._arrivals.extend(self._scan.ready)
        self._clear(now)
        for name in self._refused - {arrival.name for arrival in self._arrivals}:
            self._taken(name)
        self._breathe = started + max(4 * (time.monotonic() - started), 0.005)
        rests = [rest for rest in (self._scan.settling, self._scan.again) if rest is not None]
        self._rescan = max(started + min(rests, default=settings.scan_interval), self._breathe)
        return self._scan.lying != lying

    def take(self, now: datetime, *, fresh: bool = True) -> RunFolder | None:
        """Possession of the next command: first what is due for another try, then, if ``fresh``, the side door and the
        inbox."""
        with self._retries_lock:
            if self._retries and self._retries[0][0] <= now:
                return heapq.heappop(self._retries)[2]
        if not fresh:
            return None
        while self._drops:
            folder = claim_dropped(self._layout, self._drops.popleft())
            if folder:
                return folder
        while self._arrivals:
            arrival = self._arrivals.popleft()
            run = new_run_id(now)
            try:
                folder = self._inbox.claim(arrival, run, now)
            except OSError as error:
                self._begun.append(run)
                self._refused.add(arrival.name)
                self._trouble.failed(f"inbox/{arrival.name}", error)
                continue
            self._taken(arrival.name)
            if folder:
                return folder
        return None

    def _clear(self, now: datetime) -> None:
        """Remove what is left of claims that were refused half way; one that has its command all the same goes on."""
        while self._begun:
            folder = RunFolder(self._layout.runs / self._begun[-1])
            if folder.path.is_dir() and not discard_empty(folder):
                self.again(folder, now)
            self._begun.pop()

    def _taken(self, name: str) -> None:
        if name in self._refused:
            self._refused.discard(name)
            self._trouble.worked(f"inbox/{name}")

    def reach(self, run: str) -> RunFolder | None:
        """Possession of one run before its turn, if it waits at the side door or for another try."""
        with self._retries_lock:
            for entry in self._retries:
                if entry[2].run == run:
                    self._retries.remove(entry)
                    heapq.heapify(self._retries)
                    return entry[2]
        return claim_dropped(self._layout, run)

    def again(self, folder: RunFolder, at: datetime) -> None:
        """Have a run taken up (again) at ``at``. From any thread."""
        with self._retries_lock:
            heapq.heappush(self._retries, (at, next(self._order), RunFolder(folder.path)))

    def wait(self, now: datetime, *, admitting: bool) -> float:
        """Seconds until a look or a try is due. ``admitting`` is False where nothing would be taken anyway."""
        waits: list[float] = [self._settings().scan_interval]
        if self._drops_changed and not self._drops and admitting:
            return 0.0
        if not self._arrivals:
            waits.append((self._breathe if self._inbox_changed else self._rescan) - time.monotonic())
        with self._retries_lock:
            if admitting and self._retries:
                waits.append((self._retries[0][0] - now).total_seconds())
        return max(0.0, min(waits))

    @property
    def settling(self) -> bool:
        """True while a file in the inbox was written so recently that it may not be complete."""
        return self._scan.settling is not None

    @property
    def lying(self) -> list[Lying]:
        """The files in the inbox that stay there, and why."""
        return self._scan.lying

    def waiting(self) -> int:
        """How many commands were found and not taken yet."""
        return len(self._arrivals) + len(self._drops)

    def waiting_since(self) -> datetime | None:
        """How long the first of them lies there."""
        first = next(iter(list(self._arrivals)), None)
        return datetime.fromtimestamp(first.identity[3] / 1e9, UTC) if first else None

    def retries(self) -> list[tuple[datetime, str]]:
        """The runs that wait for another try."""
        with self._retries_lock:
            return [(at, folder.run) for at, _, folder in sorted(self._retries)]
