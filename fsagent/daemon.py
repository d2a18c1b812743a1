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
from fsagent.errors import AlreadyRunningError, FsagentError
from fsagent.files.locks import lock
from fsagent.heartbeat import SHORT_OF_ROOM, STOPPED, Heartbeat
from fsagent.house import House
from fsagent.inforce import SettingsInForce
from fsagent.memory import give_memory_back
from fsagent.ownership import Ownership
from fsagent.standby import Standby
from fsagent.traffic import Traffic
from fsagent.trouble import FIRST_WAIT, LONGEST_WAIT, REFUSALS, describe
from fsagent.watcher import ARRIVALS, CHANGES
from fsagent.watching import Watching
from fsagent.workspace.journal import Journal, Listener
from fsagent.workspace.layout import Layout, make_machine_places, make_places
from fsagent.workspace.owner import OWNER_FILE
from fsagent.workspace.status import DAEMON_LOCK, Snapshot, read_snapshot, render

STATUS_EVERY = 1.0
PATIENCE = 10.0


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
        *,
        take_over: bool = False,
    ) -> None:
        self.layout = layout
        self._take_over = take_over
        self._companions = companions
        self.now = now
        self._lock = lock(layout.locks / DAEMON_LOCK, 0)
        self.journal = Journal(layout.journal, now, listener)
        self.settings = SettingsInForce(layout.settings, self.journal)
        self._ownership = Ownership(layout, self.settings, self.journal, now)
        self._standby: Standby | None = None  # while another host owns the workspace
        self._begun = False
        self._told_start = False
        self._woken: deque[str] = deque()
        self._bell = Bell()
        self._alarm: datetime | None = None  # when the next slot comes, by the wall clock
        self._draining = False  # nothing new is begun
        self._worked = False
        self._seen = ("", "", False)  # what the last look around found
        self._next_scan = 0.0
        self._scan_seconds = 0.0
        self._next_status = self._next_sign = 0.0
        self._status_due = True

    def open(self) -> None:
        """Take the workspace, and put the house together, or stand by where another host owns it.

        Raises ``AlreadyRunningError``, ``OSError``.
        """
        make_machine_places(self.layout)
        try:
            self._lock.acquire()
        except TimeoutError:
            snapshot = read_snapshot(self.layout)
            pid = snapshot.pid if snapshot else 0
            raise AlreadyRunningError(
                f"a daemon runs on {self.layout.root} already (pid {pid or 'unknown'})", pid
            ) from None
        self._ownership.open(take_over=self._take_over)
        self._begin()
        self.settings.check()
        for companion in self._companions:
            companion.configure(self.settings(), self._told)

    @property
    def standing_by(self) -> str:
        """Which other host owns the workspace; "" where it is ours."""
        return self._ownership.words if self._standby else ""

    def _begin(self) -> None:
        """Put the house together; or, where the workspace is not ours, only watch who owns it."""
        layout, self._begun = self.layout, False
        if not self._ownership.mine:
            self._standby = Standby(
                layout, self.settings, self._configure, self.journal, self._ownership, self.wake, self.now
            )
            self._tell_start()
            self._begun = True
            return
        self._standby = None
        make_places(layout)
        recovery.clear_temporary(layout, self.now())
        self._house = house = House(
            layout, self.settings, self.journal, self.now, self.wake,
            lambda: render(self._snapshot(), alive=True).partition("\n\n")[2],
            lambda run: self._traffic.is_to_end(run),  # noqa: PLW0108  # it is made below
        )  # fmt: skip
        self._heartbeat = Heartbeat(
            layout, house.book, house.index, self.settings, self.journal, house.notices, house.gates,
            house.purse.bars, self.wake, self.now, house.trouble,
        )  # fmt: skip
        self._traffic = Traffic(
            layout, self.settings, self.journal, house.intake, house.pipeline, self._heartbeat, self.wake, self.now,
            house.trouble,
        )  # fmt: skip
        places = {
            "root": (layout.root, False, CHANGES), "inbox": (layout.inbox, True, ARRIVALS),
            "tasks": (layout.tasks, True, CHANGES), "drop": (layout.drop, False, ARRIVALS),
            "cancel": (layout.cancel, False, ARRIVALS), "approvals": (layout.approvals, False, CHANGES),
        }  # fmt: skip
        ignored = {str(layout.status), str(layout.machine), str(layout.soul)}
        self._watcher = Watching(places, self.wake, lambda path: path in ignored, self.settings)
        self._tell_start()
        self._watcher.start()
        unsettled = recovery.recover(layout, house.index)
        for folder in unsettled:
            self._traffic.resume(folder)
        self._ownership.settle_tasks(house.book)
        self._heartbeat.open(unsettled)
        self._next_scan = 0.0
        self._begun = True

    def _tell_start(self) -> None:
        if not self._told_start:
            self._told_start = True
            root = str(self.layout.root)
            self.journal.append("daemon started", pid=os.getpid(), version=__version__, workspace=root)

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
            except REFUSALS as error:  # it refuses what a change of owners needs
                self.journal.tell("error", error=describe(self.layout, error))
                wait = LONGEST_WAIT
            if self._worked and wait > 1:
                self._worked = False
                give_memory_back()
            self._bell.wait(wait, self._alarm)

    def run_once(self) -> None:
        """Do all that is due and waiting, then return; files that are still being written are waited for.

        What the disk refuses is waited for, too, but not for long. Raises ``FsagentError`` then.
        """
        looked_again, patience = False, time.monotonic() + PATIENCE
        while not self._draining and not self.layout.stopped():
            wait = self.beat()
            if self._traffic.under_way() or self._heartbeat.asking() or self._house.keeper.busy():
                self._bell.wait(wait, self._alarm)
                looked_again = False
            elif looked_again and wait > 0:
                refused = self._house.trouble.lines()
                if not refused:
                    return
                if time.monotonic() > patience:
                    raise FsagentError("\n".join(refused))
                self._bell.wait(wait, self._alarm)
            else:
                self.wake("inbox")
                self.wake("drop")
                self.wake("approvals")
                looked_again = True

    def beat(self) -> float:
        """One turn: look where something may have changed, hand out what is due; gives the seconds until the next.

        What the disk refuses to one part of it keeps no other from its own, and all of it is done again soon.
        """
        if self._owner_changed() or not self._begun:
            self._change_over()
        if self._standby:
            self._woken.clear()
            return self._standby.beat()
        began = time.monotonic()
        woken = {self._woken.popleft() for _ in range(len(self._woken))}
        now, paused = self.now(), self.layout.stopped()
        full = time.monotonic() >= self._next_scan
        intake, traffic, guard = self._house.intake, self._traffic, self._house.trouble.guard
        short = self._house.trouble.look()
        handed_in, due = False, None
        if full or "root" in woken:
            with guard("the workspace's folders and settings", sure=full):
                self._look_around(thorough=full)
        if full or "cancel" in woken:
            with guard("the ends that somebody asked for"):
                self._status_due |= traffic.cancel()
                self._house.keeper.look()
        with guard("the tasks", sure=full):
            heard = bool(woken & {"root", "tasks"})
            watched = self._watcher.hears("tasks")
            self._status_due |= heard | self._heartbeat.look(heard=heard, full=full, watched=watched)
            handed_in, due = self._heartbeat.tick(halted=STOPPED if paused else short and SHORT_OF_ROOM)
        self._alarm = None if due is None else now + timedelta(seconds=due)
        with guard("inbox/", sure=full):
            self._status_due |= intake.look(
                self.settings().local(now),
                inbox=full or bool(woken & {"root", "inbox"}), drops=full or handed_in or "drop" in woken,
            )  # fmt: skip
        with guard("approvals/", sure=full):
            self._status_due |= traffic.parking.look(changed=full or bool(woken & {"root", "approvals"}))
        if full:
            self._scan_seconds = time.monotonic() - began
            self._next_scan = began + self._scan_seconds + self._watcher.rest(self._scan_seconds)
        with guard("the commands", sure=full):
            if not paused and traffic.admit(fresh=not short):
                self._status_due = self._worked = True
        with guard("the list of runs", sure=full):
            if full or self._house.trouble.damaged:
                self._house.mend()
            self._house.index.commit()
        self._status_due |= bool(woken & {"push", "status"})
        self._tell(began >= self._next_sign)
        admitting = not paused and not short and not traffic.lanes.full()
        waits = [self._next_scan - time.monotonic(), intake.wait(self.now(), admitting=admitting)]
        further = (self._heartbeat.wait(), due, traffic.parking.wait(), self._ownership.wait())
        waits += [rest for rest in further if rest is not None]
        if self._status_due:
            waits.append(self._next_status - time.monotonic())
        soon = self._house.trouble.wait()
        if soon is None:
            return max(0.0, min(waits))
        self._next_scan = min(self._next_scan, time.monotonic() + soon)
        return max(FIRST_WAIT, min(*waits, soon))

    def drain(self, seconds: float = 60.0) -> bool:
        """Wait until nothing runs; for callers that step the clock themselves."""
        return self._traffic.lanes.wait_idle(seconds)

    def close(self) -> None:
        """Finish what runs, for ``shutdown_wait`` at most, and leave the workspace in order."""
        self._draining = True
        if not self._standby:
            self._house.trouble.close()
            self._traffic.drain()
        for companion in self._companions:
            companion.stop()
        cut = self._end()
        with suppress(OSError, sqlite3.Error):  # a full disk must not keep us from ending
            if not self._standby:
                self._house.board.farewell(self._snapshot())
            why = f"stood by for {self.standing_by}" if self._standby else ""
            self.journal.append("daemon stopped", pid=os.getpid(), cut_short=cut, why=why)
            self.journal.close()
            if not self._standby:
                self._house.close()
        self._lock.release()

    def _end(self) -> list[str]:
        """Finish what runs, and watch nothing any more; gives the runs that are cut short."""
        if self._standby:
            self._standby.close()
            return []
        self._house.trouble.close()
        cut = self._traffic.close()
        self._watcher.stop()
        self._heartbeat.close()
        self._house.push.close()
        self._house.keeper.close()
        return cut

    def _owner_changed(self) -> bool:
        if self._standby or not self._begun:
            return self._ownership.look()
        changed = False
        with self._house.trouble.guard(OWNER_FILE):  # what cannot be read now keeps the owner from nothing
            changed = self._ownership.look()
        return changed  # noqa: RET504  # not, if the guard caught what was refused

    def _change_over(self) -> None:
        """Another host took the workspace over, or this one did: end what we did, and begin as what we are now."""
        if self._begun:
            self._begun = False
            self._end()
            if not self._standby:
                with suppress(OSError, sqlite3.Error):
                    self._house.close()
        self._begin()

    def _look_around(self, *, thorough: bool) -> None:
        """Settings, missing folders, watches: what may have changed in the root itself."""
        self._watcher.check(thorough=thorough)
        self.settings.look(self._configure)
        seen = (self._watcher.words(), self.settings.fault, self.layout.stopped())
        self._status_due |= seen != self._seen
        self._seen = seen
        make_places(self.layout)
        self._ownership.tidy()

    def _configure(self) -> None:
        """Other settings are in force."""
        self._status_due = True
        if not self._standby:
            self._house.secrets()
        for companion in self._companions:
            companion.configure(self.settings(), self._told)

    def _told(self, event: str, **fields: Any) -> None:
        """A companion says, from its own thread, that something happened."""
        self.journal.tell(event, **fields)
        self._status_due = True
        self._bell.ring()

    def _tell(self, sign: bool) -> None:
        """Tell how things are if they changed, or if a ``sign`` of life is due."""
        if sign:
            self._next_sign = time.monotonic() + self.settings().scan_interval
        self._status_due |= sign
        if not self._status_due or time.monotonic() < self._next_status:
            return
        self._next_status = time.monotonic() + STATUS_EVERY
        with self._house.trouble.guard("status.md"):
            self._house.board.write(self._snapshot())
            self._status_due = False

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
            watching=self._watcher.words(),
            companions=[
                *self._house.purse.lines(),
                *self._house.push.trouble(),
                *(f"api: {trouble}" for companion in self._companions if (trouble := companion.trouble())),
            ],
            answers=traffic.parking.trouble(),
            scan_seconds=self._scan_seconds,
            disk=self._house.trouble.lines(),
        )
