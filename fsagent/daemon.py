"""The daemon: puts the house together and turns the loop scan → admit → run, until it is told to stop."""

from __future__ import annotations

import heapq
import os
import signal
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from types import FrameType

from fsagent import __version__, recovery
from fsagent.clock import Clock
from fsagent.config import Settings, load_settings
from fsagent.errors import AlreadyRunningError, SettingsError
from fsagent.files.fields import nearest
from fsagent.files.locks import Timeout, lock
from fsagent.home import WorkspaceHome, task_view
from fsagent.lanes import Lanes
from fsagent.pipeline import Admitted, Again, Pipeline
from fsagent.runner import Runner
from fsagent.tools import load_tools
from fsagent.watcher import Watcher
from fsagent.workspace.inbox import Arrival, Inbox, Scan
from fsagent.workspace.journal import Journal, Listener
from fsagent.workspace.layout import Layout, make_places
from fsagent.workspace.runs import RunFolder, claim_dropped, dropped, new_run_id
from fsagent.workspace.soul import Soul
from fsagent.workspace.status import DAEMON_LOCK, Line, Snapshot, StatusBoard, limited, read_snapshot
from fsagent.workspace.tasks import TaskBook, conflict_copies

ADMIT_AHEAD = 32
STATUS_EVERY = 1.0
RETRY_AFTER_TROUBLE = 10.0


def utc_now() -> datetime:
    """The wall clock: the one place that reads it."""
    return datetime.now(UTC)


class Daemon:
    """One daemon on one workspace. ``open``, then ``beat`` again and again (``run`` does), then ``close``.

    ``now`` is the wall clock, so that tests can step it. One thread calls everything here but ``stop`` and ``wake``.
    """

    def __init__(
        self, layout: Layout, listener: Listener | None = None, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.layout = layout
        self.now = now
        self._settings = load_settings(layout.settings)
        self._settings_fault: SettingsError | None = None
        self._lock = lock(layout.locks / DAEMON_LOCK, 0)
        self.journal = Journal(layout.journal, now, listener)
        self._woken: set[str] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._draining = threading.Event()
        self._arrivals: deque[Arrival] = deque()
        self._drops: deque[str] = deque()
        self._drops_changed = True
        self._retries: list[tuple[datetime, int, RunFolder]] = []
        self._order = count()
        self._scan = Scan([], [])
        self._next_scan = 0.0
        self._rescan = 0.0
        self._next_status = 0.0
        self._status_due = True

    def open(self) -> None:
        """Take the workspace, and put the house together. Raises ``AlreadyRunningError``, ``OSError``."""
        make_places(self.layout)
        try:
            self._lock.acquire()
        except Timeout:
            snapshot = read_snapshot(self.layout)
            pid = snapshot.pid if snapshot else 0
            raise AlreadyRunningError(f"a daemon runs on {self.layout.root} already (pid {pid or 'unknown'})", pid) from None
        layout, self._since = self.layout, self.now()
        recovery.clear_temporary(layout)
        self._index = recovery.open_index(layout)
        self._soul = Soul(layout.soul, layout.locks / "soul.lock")
        self._book = TaskBook(layout)
        self._inbox = Inbox(layout)
        self._board = StatusBoard(layout)
        self._tools = load_tools()
        runner = Runner(self._tools)
        home = WorkspaceHome(
            self._soul, self._book, self._index, self.settings, self.now, self._status_words, self.wake
        )
        self._pipeline = Pipeline(
            layout, self.settings, self.journal, self._index, self._soul, home, runner, self.now, self._stopping.is_set
        )
        self._lanes = Lanes(self._work, lambda: self._settings.max_runs, self.wake)
        self._clock = Clock(self._book, self.settings, self.journal, self._lanes.has_task)
        places = {
            "root": (layout.root, False, True), "inbox": (layout.inbox, True, False),
            "tasks": (layout.tasks, True, True), "drop": (layout.drop, False, False),
        }  # fmt: skip
        ignored = {str(layout.status), str(layout.machine), str(layout.soul)}
        self._watcher = Watcher(places, self.wake, lambda path: path in ignored)
        self.journal.append("daemon started", pid=os.getpid(), version=__version__, workspace=str(layout.root))
        self._watcher.start()
        for folder in recovery.recover(layout, self._index):
            self._retry_at(folder, datetime.fromtimestamp(0, UTC))
        self._book.scan()
        self._clock.update(self.now())
        self._drops.extend(dropped(layout))
        self._check_settings()

    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def wake(self, place: str = "") -> None:
        """Ask for a look at a place, soon. From any thread."""
        self._woken.add(place)
        self._wake.set()

    def stop(self) -> None:
        """Ask the daemon to end; from any thread or a signal handler. What runs may finish."""
        self._draining.set()
        self._wake.set()

    def run(self) -> None:
        """Beat until ``stop`` is called."""
        while not self._draining.is_set():
            wait = self.beat()
            self._wake.wait(wait)
            self._wake.clear()

    def run_once(self) -> None:
        """Do all that is due and waiting, then return; files that are still being written are waited for."""
        while not self._draining.is_set():
            wait = self.beat()
            if self.layout.stop.exists():
                return
            if self._lanes.waiting() or self._lanes.running() or self._scan.settling is not None or wait <= 0:
                self._wake.wait(wait)
                self._wake.clear()
            elif not (self._arrivals or self._drops or dropped(self.layout)):
                self.wake("inbox")  # one more look: what came in while the last command ran
                self.beat()
                if not (self._arrivals or self._drops or self._lanes.waiting() or self._lanes.running()):
                    return

    def beat(self) -> float:
        """One turn: look where something may have changed, hand out what is due; gives the seconds until the next."""
        woken, self._woken = self._woken, set()
        now, monotonic = self.now(), time.monotonic()
        paused = self.layout.stop.exists()
        full = monotonic >= self._next_scan
        if full or "root" in woken:
            self._look_around()
        if full or woken & {"root", "tasks"}:
            if self._book.scan() or "tasks" in woken:
                self._status_due = True
            self._clock.update(now)
        handed_in = self._clock.handed_in
        due = None if paused else self._clock.tick(now)
        if not self._arrivals and (full or woken & {"root", "inbox"} or monotonic >= self._rescan):
            self._scan_inbox(now)
        self._drops_changed |= full or "drop" in woken or self._clock.handed_in != handed_in
        if self._drops_changed and not self._drops:
            self._drops.extend(dropped(self.layout))
            self._drops_changed = False
        if full:
            self._next_scan = time.monotonic() + self._settings.scan_interval
        if not paused:
            self._admit(now)
        self._tell(full)
        self._index.commit()
        waits = [self._next_scan - time.monotonic()]
        if not self._arrivals:
            waits.append(self._rescan - time.monotonic())
        if due is not None:
            waits.append(due)
        if self._retries and not paused and self._lanes.waiting() < ADMIT_AHEAD:
            waits.append((self._retries[0][0] - self.now()).total_seconds())
        if self._status_due:
            waits.append(self._next_status - time.monotonic())
        return max(0.0, min(waits))

    def drain(self, seconds: float = 60.0) -> bool:
        """Wait until nothing runs; for callers that step the clock themselves."""
        return self._lanes.wait_idle(seconds)

    def close(self) -> None:
        """Finish what runs, for ``shutdown_wait`` at most, and leave the workspace in order."""
        self._draining.set()
        left = self._lanes.close(self._settings.shutdown_wait)
        self._stopping.set()
        for run in left:
            run.folder.record("stopped")
            run.folder.close()
        self._lanes.close(5.0)
        self._watcher.stop()
        cut = [run.folder.run for run in self._lanes.running()]
        self._board.farewell(self._snapshot())
        self.journal.append("daemon stopped", pid=os.getpid(), cut_short=cut)
        self.journal.close()
        self._index.close()
        self._lock.release()

    def _look_around(self) -> None:
        """Settings, missing folders, watches: what may have changed in the root itself."""
        try:
            make_places(self.layout)
        except OSError as error:
            self.journal.append("error", error=str(error))
        self._watcher.check()
        try:
            settings = load_settings(self.layout.settings)
        except SettingsError as error:
            if str(error) != str(self._settings_fault):
                self.journal.append("settings refused", error=str(error))
            self._settings_fault = error
        else:
            if settings != self._settings or self._settings_fault:
                self._settings, self._settings_fault = settings, None
                self.journal.append("settings read")
                self._check_settings()
        self._status_due = True

    def _check_settings(self) -> None:
        for tool in self._settings.tools:
            if tool not in self._tools:
                self.journal.append("settings", error=f"fsagent.yaml: tools: there is no tool {tool!r}"
                                    f"{nearest(tool, self._tools)}")  # fmt: skip

    def _scan_inbox(self, now: datetime) -> None:
        settings = self._settings
        before = self._scan.lying
        started = time.monotonic()
        self._scan = self._inbox.scan(
            now, started, settings.settle, settings.settle_renamed, settings.attachment_wait
        )
        self._arrivals.extend(self._scan.ready)
        rests = [rest for rest in (self._scan.settling, self._scan.again) if rest is not None]
        took = time.monotonic() - started
        self._rescan = started + max(min(rests, default=settings.scan_interval), 4 * took, 0.01)
        if self._scan.lying != before:
            self._status_due = True

    def _admit(self, now: datetime) -> None:
        """Claim and understand what waits, a little ahead of what can run."""
        while not self._draining.is_set() and self._lanes.waiting() < ADMIT_AHEAD:
            folder = self._next_folder(now)
            if folder is None:
                return
            self._status_due = True
            try:
                admitted = self._pipeline.admit(folder)
            except (OSError, sqlite3.Error) as error:
                self._in_trouble(folder, error)
                continue
            if isinstance(admitted, Admitted):
                self._lanes.put(admitted)
            elif isinstance(admitted, Again):
                self._retry_at(folder, admitted.at)

    def _next_folder(self, now: datetime) -> RunFolder | None:
        """The next run to admit: what waited for another try, what came by the side door, what lies in the inbox."""
        if self._retries and self._retries[0][0] <= now:
            return heapq.heappop(self._retries)[2]
        while self._drops:
            folder = claim_dropped(self.layout, self._drops.popleft())
            if folder:
                return folder
        while self._arrivals:
            folder = self._claim(self._arrivals.popleft(), now)
            if folder:
                return folder
        return None

    def _claim(self, arrival: Arrival, now: datetime) -> RunFolder | None:
        try:
            return self._inbox.claim(arrival, new_run_id(now), now)
        except OSError as error:
            self.journal.append("error", command=f"inbox/{arrival.name}", error=str(error))
            return None

    def _work(self, run: Admitted) -> None:
        """Called by the lanes on their own threads."""
        try:
            again = self._pipeline.execute(run)
        except Exception as error:  # around a thread's loop: a full disk, a damaged index; the run is kept
            self._in_trouble(run.folder, error)
        else:
            if again:
                self._retry_at(again.folder, again.at)
                self.wake()

    def _in_trouble(self, folder: RunFolder, error: Exception) -> None:
        """The disk did not take it: the run stays as it is and is gone on with later."""
        folder.close()
        self._retry_at(folder, self.now() + timedelta(seconds=RETRY_AFTER_TROUBLE))
        try:
            self.journal.append("error", run=folder.run, error=str(error) or repr(error))
        except OSError:
            pass  # nothing can be written at all; the run itself will show it

    def _retry_at(self, folder: RunFolder, at: datetime) -> None:
        heapq.heappush(self._retries, (at, next(self._order), RunFolder(folder.path)))

    def _tell(self, full: bool) -> None:
        if not (full or self._status_due) or time.monotonic() < self._next_status:
            return
        self._status_due = False
        self._next_status = time.monotonic() + STATUS_EVERY
        try:
            self._board.write(self._snapshot())
        except OSError as error:
            self.journal.append("error", error=f"status.md: {error}")

    def _status_words(self) -> str:
        from fsagent.workspace.status import render

        return render(self._snapshot(), alive=True).partition("\n\n")[2]

    def _snapshot(self) -> Snapshot:
        local, settings = self._settings.local, self._settings
        running = [Line(run.envelope.path or run.envelope.name, run.folder.run) for run in self._lanes.running()]
        views = [task_view(task, self._book, None, settings, self.now()) for task in self._book.tasks()[:200]]
        upcoming = sorted((view for view in views if view.next), key=lambda view: (view.next, view.name))
        oldest = min((arrival.identity[3] for arrival in list(self._arrivals)[:1]), default=None)
        last = [
            Line(run.command, f"{run.status}, {local(run.finished or run.started):%Y-%m-%d %H:%M}"
                 + (f" → {run.result}" if run.result else "") + (f": {run.error}" if run.error else ""))
            for run in self._index.recent(10) if run.started
        ]  # fmt: skip
        return Snapshot(
            pid=os.getpid(),
            version=__version__,
            since=local(self._since),
            beat=self.now(),
            interval=float(settings.scan_interval),
            paused=self.layout.stop.exists(),
            running=tuple(running),
            waiting=len(self._arrivals) + len(self._drops) + self._lanes.waiting(),
            waiting_since=datetime.fromtimestamp(oldest / 1e9, UTC) if oldest else None,
            lying=limited((Line(each.name, each.why) for each in self._scan.lying), 20, lambda n: f"and {n} more"),
            retries=limited(
                (Line(folder.run, f"at {local(at):%Y-%m-%d %H:%M:%S}") for at, _, folder in sorted(self._retries)),
                10, lambda n: f"and {n} more",
            ),
            upcoming=limited((Line(view.name, view.rule) for view in upcoming), 10, lambda n: f"and {n} more tasks"),
            last=tuple(last),
            trouble=tuple(self._trouble()),
        )  # fmt: skip

    def _trouble(self) -> list[str]:
        """What a person should look at."""
        found = [str(error) for error in self._book.broken().values()]
        if self._settings_fault:
            found.insert(0, f"{self._settings_fault} (the settings before stay in force)")
        why = self._soul.read()[1]
        if why:
            found.append(why)
        found += [f"{place}/ is not watched ({error}); it is looked at every {self._settings.scan_interval:g}s"
                  for place, error in self._watcher.trouble.items()]  # fmt: skip
        found += [f"tasks/{name} is a sync conflict copy; it is never run" for name in conflict_copies(self.layout.tasks)]
        found += [f"{name} is a sync conflict copy of the soul; it is never read"
                  for name in conflict_copies(self.layout.root) if name.startswith("soul")]  # fmt: skip
        return found


def run_daemon(layout: Layout, listener: Listener, *, once: bool = False) -> int:
    """Run a daemon in the foreground until a signal ends it; gives the exit code.

    SIGTERM and SIGINT finish what runs (a second one ends at once), SIGHUP reads the settings again.
    """
    daemon = Daemon(layout, listener)
    caught: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        daemon.stop()

    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease on a file that somebody opens would end us otherwise
    signal.signal(signal.SIGHUP, lambda *_: daemon.wake("root"))
    daemon.open()
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        if once:
            daemon.run_once()
        else:
            daemon.run()
    finally:
        daemon.close()
    return 130 if caught and caught[0] == signal.SIGINT else 0
