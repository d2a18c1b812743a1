"""The daemon: puts the house together and turns the loop scan → admit → run, until it is told to stop."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from fsagent import __version__, recovery
from fsagent.bell import Bell
from fsagent.config import Settings
from fsagent.errors import AlreadyRunningError
from fsagent.files.locks import lock
from fsagent.heartbeat import Heartbeat
from fsagent.house import House
from fsagent.inforce import SettingsInForce
from fsagent.memory import give_memory_back
from fsagent.traffic import RETRY_AFTER_TROUBLE, Traffic
from fsagent.watcher import ARRIVALS, CHANGES, Watcher
from fsagent.workspace.journal import Journal, Listener
from fsagent.workspace.layout import Layout, make_places
from fsagent.workspace.status import DAEMON_LOCK, Snapshot, read_snapshot, render

STATUS_EVERY = 1.0


def utc_now() -> datetime:
    """The wall clock: the one place that reads it."""
    return datetime.now(UTC)


class Companion(Protocol):
    """What lives and ends with the daemon, on threads of its own, and is told of the settings: a face that serves."""

    def configure(self, settings: Settings, tell: Callable[..., None]) -> None: ...

    def trouble(self) -> str: ...

    def stop(self) -> None: ...


class Daemon:
    """One daemon on one workspace. ``open``, then ``beat`` again and again (``run`` does), then ``close``.

    ``now`` is the wall clock, so that tests can step it. One thread calls everything here but ``stop`` and ``wake``.
    """

    def __init__(
        self,
        layout: Layout,
        listener: Listener | None = None,
        now: Callable[[], datetime] = utc_now,
        companions: Sequence[Companion] = (),
    ) -> None:
        self.layout = layout
        self._companions = companions
        self.now = now
        self._lock = lock(layout.locks / DAEMON_LOCK, 0)
        self.journal = Journal(layout.journal, now, listener)
        self.settings = SettingsInForce(layout.settings, self.journal)
        self._woken: deque[str] = deque()
        self._bell = Bell()
        self._alarm: datetime | None = None  # when the next slot comes, by the wall clock
        self._draining = False  # nothing new is begun
        self._worked = False
        self._next_scan = 0.0
        self._scan_seconds = 0.0
        self._next_status = 0.0
        self._status_due = True

    def open(self) -> None:
        """Take the workspace, and put the house together. Raises ``AlreadyRunningError``, ``OSError``."""
        make_places(self.layout)
        try:
            self._lock.acquire()
        except TimeoutError:
            snapshot = read_snapshot(self.layout)
            pid = snapshot.pid if snapshot else 0
            raise AlreadyRunningError(
                f"a daemon runs on {self.layout.root} already (pid {pid or 'unknown'})", pid
            ) from None
        layout = self.layout
        recovery.clear_temporary(layout, self.now())
        self._house = house = House(
            layout, self.settings, self.journal, self.now, self.wake,
            lambda: render(self._snapshot(), alive=True).partition("\n\n")[2],
            lambda run: self._traffic.is_to_end(run),  # noqa: PLW0108  # it is made below
        )  # fmt: skip
        self._heartbeat = Heartbeat(
            layout, house.book, house.index, self.settings, self.journal, house.notices, house.gates,
            house.purse.bars, self.wake, self.now,
        )  # fmt: skip
        self._traffic = Traffic(
            layout, self.settings, self.journal, house.intake, house.pipeline, self._heartbeat, self.wake, self.now
        )
        places = {
            "root": (layout.root, False, CHANGES), "inbox": (layout.inbox, True, ARRIVALS),
            "tasks": (layout.tasks, True, CHANGES), "drop": (layout.drop, False, ARRIVALS),
            "cancel": (layout.cancel, False, ARRIVALS), "approvals": (layout.approvals, False, CHANGES),
        }  # fmt: skip
        ignored = {str(layout.status), str(layout.machine), str(layout.soul)}
        self._watcher = Watcher(places, self.wake, lambda path: path in ignored)
        self.journal.append("daemon started", pid=os.getpid(), version=__version__, workspace=str(layout.root))
        self._watcher.start()
        unsettled = recovery.recover(layout, house.index)
        for folder in unsettled:
            self._traffic.resume(folder)
        self._heartbeat.open(unsettled)
        self.settings.check()
        for companion in self._companions:
            companion.configure(self.settings(), self._told)

    def wake(self, place: str = "") -> None:
        """Ask for a look at a place, soon. From any thread or a signal handler."""
        self._woken.append(place)
        self._bell.ring()

    def stop(self) -> None:
        """Ask the daemon to end; from any thread or a signal handler. What runs may finish."""
        self._draining = True
        self._bell.ring()

    def run(self) -> None:
        """Beat until ``stop`` is called. A disk that fails for a while is told and waited for."""
        while not self._draining:
            try:
                wait = self.beat()
            except (OSError, sqlite3.Error) as error:
                self.journal.complain(error)
                wait = RETRY_AFTER_TROUBLE
            if self._worked and wait > 1:
                self._worked = False
                give_memory_back()
            self._bell.wait(wait, self._alarm)

    def run_once(self) -> None:
        """Do all that is due and waiting, then return; files that are still being written are waited for."""
        looked_again = False
        while not self._draining and not self.layout.stopped():
            wait = self.beat()
            if self._traffic.under_way() or self._heartbeat.asking():
                self._bell.wait(wait, self._alarm)
                looked_again = False
            elif looked_again and wait > 0:
                return
            else:
                self.wake("inbox")
                self.wake("drop")
                self.wake("approvals")
                looked_again = True

    def beat(self) -> float:
        """One turn: look where something may have changed, hand out what is due; gives the seconds until the next."""
        began = time.monotonic()
        woken = {self._woken.popleft() for _ in range(len(self._woken))}
        now, paused = self.now(), self.layout.stopped()
        full = time.monotonic() >= self._next_scan
        if full or "root" in woken:
            self._look_around()
        if full or "cancel" in woken:
            self._status_due |= self._traffic.cancel()
        heard = bool(woken & {"root", "tasks"})
        self._status_due |= heard | self._heartbeat.look(
            heard=heard, full=full, watched="tasks" not in self._watcher.trouble
        )
        handed_in, due = self._heartbeat.tick(paused=paused)
        self._alarm = None if due is None else now + timedelta(seconds=due)
        drops = full or handed_in or "drop" in woken
        intake, traffic = self._house.intake, self._traffic
        self._status_due |= intake.look(
            self.settings().local(now), inbox=full or bool(woken & {"root", "inbox"}), drops=drops
        )
        self._status_due |= traffic.parking.look(changed=full or bool(woken & {"root", "approvals"}))
        if full:
            self._scan_seconds = time.monotonic() - began
            self._next_scan = began + self._scan_seconds + self.settings().scan_interval
        if not paused and traffic.admit():
            self._status_due = self._worked = True
        self._status_due |= "push" in woken
        self._tell(full)
        self._house.index.commit()
        admitting = not paused and not traffic.lanes.full()
        waits = [self._next_scan - time.monotonic(), intake.wait(self.now(), admitting=admitting)]
        waits += [rest for rest in (self._heartbeat.wait(), due, traffic.parking.wait()) if rest is not None]
        if self._status_due:
            waits.append(self._next_status - time.monotonic())
        return max(0.0, min(waits))

    def drain(self, seconds: float = 60.0) -> bool:
        """Wait until nothing runs; for callers that step the clock themselves."""
        return self._traffic.lanes.wait_idle(seconds)

    def close(self) -> None:
        """Finish what runs, for ``shutdown_wait`` at most, and leave the workspace in order."""
        self._draining = True
        self._traffic.drain()
        for companion in self._companions:
            companion.stop()
        cut = self._traffic.close()
        self._watcher.stop()
        self._heartbeat.close()
        self._house.push.close()
        with suppress(OSError, sqlite3.Error):  # a full disk must not keep us from ending
            self._house.board.farewell(self._snapshot())
            self.journal.append("daemon stopped", pid=os.getpid(), cut_short=cut)
            self.journal.close()
            self._house.close()
        self._lock.release()

    def _look_around(self) -> None:
        """Settings, missing folders, watches: what may have changed in the root itself."""
        try:
            make_places(self.layout)
        except OSError as error:
            self.journal.append("error", error=str(error))
        self._watcher.check()
        self.settings.look(self._configure)
        self._status_due = True

    def _configure(self) -> None:
        """Other settings are in force."""
        self._house.secrets()
        for companion in self._companions:
            companion.configure(self.settings(), self._told)

    def _told(self, event: str, **fields: Any) -> None:
        """A companion says, from its own thread, that something happened."""
        self.journal.append(event, **fields)
        self._status_due = True
        self._bell.ring()

    def _tell(self, full: bool) -> None:
        self._status_due |= full
        if not self._status_due or time.monotonic() < self._next_status:
            return
        self._status_due = False
        self._next_status = time.monotonic() + STATUS_EVERY
        try:
            self._house.board.write(self._snapshot())
        except OSError as error:
            self.journal.complain(error, command="status.md")

    def _snapshot(self) -> Snapshot:
        intake, traffic = self._house.intake, self._traffic
        return self._house.reporter.snapshot(
            lying=intake.lying,
            running=traffic.lanes.running(),
            waiting=intake.waiting() + traffic.lanes.waiting(),
            waiting_since=intake.waiting_since(),
            retries=intake.retries(),
            upcoming=self._heartbeat.upcoming(10),
            paused=self._heartbeat.paused(),
            approvals=traffic.parking.lines(),
            settings_fault=self.settings.fault,
            unwatched=self._watcher.trouble,
            companions=[
                *self._house.purse.lines(),
                *self._house.push.trouble(),
                *(f"api: {trouble}" for companion in self._companions if (trouble := companion.trouble())),
            ],
            answers=traffic.parking.trouble(),
            scan_seconds=self._scan_seconds,
        )
