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
from fsagent.completion import Ended
from fsagent.config import Settings, load_settings
from fsagent.errors import AlreadyRunningError, SettingsError
from fsagent.extensions import unknown_names
from fsagent.files.locks import lock
from fsagent.heartbeat import Heartbeat
from fsagent.house import House
from fsagent.lanes import Lanes
from fsagent.memory import give_memory_back
from fsagent.parking import Parking
from fsagent.pipeline import Admitted, Again, Parked
from fsagent.watcher import ARRIVALS, CHANGES, Watcher
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.journal import Journal, Listener
from fsagent.workspace.layout import Layout, make_places
from fsagent.workspace.runs import RunFolder, take_cancels
from fsagent.workspace.status import DAEMON_LOCK, Snapshot, read_snapshot, render

STATUS_EVERY = 1.0
RETRY_AFTER_TROUBLE = 10.0


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
        self._settings = load_settings(layout.settings)
        self._settings_fault: SettingsError | None = None
        self._lock = lock(layout.locks / DAEMON_LOCK, 0)
        self.journal = Journal(layout.journal, now, listener)
        self._woken: deque[str] = deque()
        self._wishes: set[str] = set()  # runs that somebody wants to end
        self._bell = Bell()
        self._alarm: datetime | None = None  # when the next slot comes, by the wall clock
        self._draining = False  # nothing new is begun
        self._stopping = False  # what runs is to end
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
            lambda run: self._stopping or self._lanes.cancelled(run),
        )  # fmt: skip
        self._index, self._intake, self._pipeline = house.index, house.intake, house.pipeline
        self._lanes = Lanes(self._work, lambda: self._settings.max_runs, self.wake)
        self._parking = Parking(
            layout, self.settings, self.journal, Allowances(layout), self._pipeline.revise, self._resume, self.now
        )
        self._heartbeat = Heartbeat(
            layout, house.book, house.index, self.settings, self.journal, house.notices, house.gates,
            house.purse.bars, self.wake, self.now,
        )  # fmt: skip
        places = {
            "root": (layout.root, False, CHANGES), "inbox": (layout.inbox, True, ARRIVALS),
            "tasks": (layout.tasks, True, CHANGES), "drop": (layout.drop, False, ARRIVALS),
            "cancel": (layout.cancel, False, ARRIVALS), "approvals": (layout.approvals, False, CHANGES),
        }  # fmt: skip
        ignored = {str(layout.status), str(layout.machine), str(layout.soul)}
        self._watcher = Watcher(places, self.wake, lambda path: path in ignored)
        self.journal.append("daemon started", pid=os.getpid(), version=__version__, workspace=str(layout.root))
        self._watcher.start()
        unsettled = recovery.recover(layout, self._index)
        for folder in unsettled:
            self._resume(folder)
        self._heartbeat.open(unsettled)
        self._check_settings()
        for companion in self._companions:
            companion.configure(self._settings, self._told)

    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

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
                self._complain(error)
                wait = RETRY_AFTER_TROUBLE
            if self._worked and wait > 1:
                self._worked = False
                give_memory_back()
            self._bell.wait(wait, self._alarm)

    def run_once(self) -> None:
        """Do all that is due and waiting, then return; files that are still being written are waited for."""
        looked_again = False
        while not self._draining and not self.layout.stop.exists():
            wait = self.beat()
            waiting = self._lanes.waiting() or self._lanes.running() or self._intake.waiting()
            if waiting or self._intake.settling or self._parking.settling or self._heartbeat.asking():
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
        now, paused = self.now(), self.layout.stop.exists()
        full = time.monotonic() >= self._next_scan
        if full or "root" in woken:
            self._look_around()
        if full or "cancel" in woken:
            self._cancel()
        heard = bool(woken & {"root", "tasks"})
        self._status_due |= heard | self._heartbeat.look(
            heard=heard, full=full, watched="tasks" not in self._watcher.trouble
        )
        handed_in, due = self._heartbeat.tick(paused=paused)
        self._alarm = None if due is None else now + timedelta(seconds=due)
        drops = full or handed_in or "drop" in woken
        self._status_due |= self._intake.look(
            self._settings.local(now), inbox=full or bool(woken & {"root", "inbox"}), drops=drops
        )
        self._status_due |= self._parking.look(changed=full or bool(woken & {"root", "approvals"}))
        if full:
            self._scan_seconds = time.monotonic() - began
            self._next_scan = began + self._scan_seconds + self._settings.scan_interval
        if not paused:
            self._admit(now)
        self._status_due |= "push" in woken
        self._tell(full)
        self._index.commit()
        admitting = not paused and not self._lanes.full()
        waits = [self._next_scan - time.monotonic(), self._intake.wait(self.now(), admitting=admitting)]
        waits += [rest for rest in (self._heartbeat.wait(), due, self._parking.wait()) if rest is not None]
        if self._status_due:
            waits.append(self._next_status - time.monotonic())
        return max(0.0, min(waits))

    def drain(self, seconds: float = 60.0) -> bool:
        """Wait until nothing runs; for callers that step the clock themselves."""
        return self._lanes.wait_idle(seconds)

    def close(self) -> None:
        """Finish what runs, for ``shutdown_wait`` at most, and leave the workspace in order."""
        self._draining = True
        for companion in self._companions:
            companion.stop()
        left = self._lanes.close(self._settings.shutdown_wait)
        self._stopping = True
        for run in left:
            self._pipeline.put_back(run)
        self._lanes.close(5.0)
        self._watcher.stop()
        cut = [run.folder.run for run in self._lanes.running()]
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
        try:
            settings = load_settings(self.layout.settings)
        except SettingsError as error:
            if str(error) != str(self._settings_fault):
                self.journal.append("settings refused", error=str(error))
            self._settings_fault = error
        else:
            if settings != self._settings or self._settings_fault:
                self._settings, self._settings_fault = settings, None
                self._house.secrets()
                self.journal.append("settings read")
                self._check_settings()
                for companion in self._companions:
                    companion.configure(self._settings, self._told)
        self._status_due = True

    def _check_settings(self) -> None:
        for fault in unknown_names(self._settings, self.layout.settings):
            self.journal.append("settings", error=str(fault))

    def _told(self, event: str, **fields: Any) -> None:
        """A companion says, from its own thread, that something happened."""
        self.journal.append(event, **fields)
        self._status_due = True
        self._bell.ring()

    def _cancel(self) -> None:
        """End what somebody wants to end: at once where it only waits, else by telling the run.

        One that is under way stays a wish, for it may come to wait again: for another try.
        """
        for run in take_cancels(self.layout):
            self._wishes.add(run)
            self.journal.append("cancel", run=run)
        for run in sorted(self._wishes):
            folder = self._lanes.let_go(run) or self._parking.let_go(run)
            if folder is None and self._lanes.cancel(run):
                continue
            folder = folder or self._intake.reach(run)
            self._wishes.discard(run)
            if folder:
                self._take_up(folder)

    def _admit(self, now: datetime) -> None:
        """Claim and understand what waits, a little ahead of what can run."""
        while not self._draining and not self._lanes.full():
            folder = self._intake.take(now)
            if folder is None:
                return
            self._take_up(folder)

    def _take_up(self, folder: RunFolder) -> None:
        self._status_due = self._worked = True
        self._heartbeat.take_up(folder)
        try:
            admitted = self._pipeline.admit(folder)
        except (OSError, sqlite3.Error) as error:
            self._in_trouble(folder, error)
            return
        if isinstance(admitted, Admitted):
            self._lanes.put(admitted)
        elif isinstance(admitted, Again):
            self._intake.again(folder, admitted.at)
        elif isinstance(admitted, Parked):
            self._parking.park(folder)
        else:
            self._heartbeat.ended(folder.run)

    def _work(self, runs: Sequence[Admitted]) -> None:
        """Called by the lanes on their own threads."""
        ended: list[Ended] = []
        try:
            self._pipeline.begin(runs)
            for run in runs:
                self._execute(run, ended)
            troubled = self._pipeline.complete(ended)
            for trouble, error in troubled:
                self._in_trouble(trouble.folder, error)
            for done in {each.folder.run for each in ended} - {trouble.folder.run for trouble, _ in troubled}:
                self._heartbeat.ended(done)
        except Exception as error:  # noqa: BLE001  # around a thread's loop: a full disk, a damaged index …
            for run in runs:
                self._in_trouble(run.folder, error)

    def _execute(self, run: Admitted, ended: list[Ended]) -> None:
        if self._draining and ended:  # of several that began together, only the first need be finished
            self._pipeline.put_back(run)
            return
        outcome = self._pipeline.execute(run)
        if isinstance(outcome, Again):
            self._intake.again(outcome.folder, outcome.at)
            self.wake("cancel")
        elif isinstance(outcome, Parked):
            self._parking.park(outcome.folder)
            self.wake("cancel")
        elif outcome is not None:
            ended.append(outcome)

    def _resume(self, folder: RunFolder) -> None:
        """Go on with a run whose questions are answered, before anything new."""
        self._intake.again(folder, datetime.fromtimestamp(0, UTC))

    def _in_trouble(self, folder: RunFolder, error: Exception) -> None:
        """The disk did not take it: the run stays as it is and is gone on with later."""
        folder.close()
        self._intake.again(folder, self.now() + timedelta(seconds=RETRY_AFTER_TROUBLE))
        self._complain(error, run=folder.run)

    def _complain(self, error: Exception, run: str = "", command: str = "") -> None:
        try:
            self.journal.append("error", error=str(error) or repr(error), run=run, command=command)
        except OSError:
            pass  # nothing can be written at all; status and health will show it

    def _tell(self, full: bool) -> None:
        self._status_due |= full
        if not self._status_due or time.monotonic() < self._next_status:
            return
        self._status_due = False
        self._next_status = time.monotonic() + STATUS_EVERY
        try:
            self._house.board.write(self._snapshot())
        except OSError as error:
            self._complain(error, command="status.md")

    def _snapshot(self) -> Snapshot:
        return self._house.reporter.snapshot(
            lying=self._intake.lying,
            running=self._lanes.running(),
            waiting=self._intake.waiting() + self._lanes.waiting(),
            waiting_since=self._intake.waiting_since(),
            retries=self._intake.retries(),
            upcoming=self._heartbeat.upcoming(10),
            paused=self._heartbeat.paused(),
            approvals=self._parking.lines(),
            settings_fault=str(self._settings_fault or ""),
            unwatched=self._watcher.trouble,
            companions=[
                *self._house.purse.lines(),
                *self._house.push.trouble(),
                *(f"api: {trouble}" for companion in self._companions if (trouble := companion.trouble())),
            ],
            answers=self._parking.trouble(),
            scan_seconds=self._scan_seconds,
        )
