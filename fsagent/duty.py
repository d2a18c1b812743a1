"""On duty: what a daemon does on the host that owns the workspace: the loop scan → admit → run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from fsagent import recovery
from fsagent.heartbeat import SHORT_OF_ROOM, STOPPED, Heartbeat
from fsagent.house import House
from fsagent.inforce import SettingsInForce
from fsagent.memory import give_memory_back
from fsagent.ownership import Ownership
from fsagent.traffic import Traffic
from fsagent.trouble import FIRST_WAIT, REFUSALS
from fsagent.watcher import ARRIVALS, CHANGES
from fsagent.watching import Watching
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout, make_places
from fsagent.workspace.owner import OWNER_FILE
from fsagent.workspace.status import Snapshot, render

STATUS_EVERY = 1.0


class Duty:
    """Puts the house together when it is made, and goes on with what was left. One thread calls everything here.

    ``changed`` hears of other settings, ``wake`` asks for a look at a place, ``companions`` says what is wrong with
    what runs beside the daemon. Raises ``OSError`` and ``sqlite3.Error``; nothing goes on then.
    """

    owns = True

    def __init__(
        self,
        layout: Layout,
        settings: SettingsInForce,
        changed: Callable[[], None],
        journal: Journal,
        ownership: Ownership,
        wake: Callable[[str], None],
        now: Callable[[], datetime],
        companions: Callable[[], Sequence[str]],
    ) -> None:
        self._layout, self._settings, self._changed = layout, settings, changed
        self._ownership, self._now, self._companions = ownership, now, companions
        self.alarm: datetime | None = None
        self._worked = False
        self._seen = ("", "", False)  # what the last look around found
        self._next_scan = self._scan_seconds = 0.0
        self._next_status = self._next_sign = 0.0
        self._status_due = True
        make_places(layout)
        recovery.clear_temporary(layout, now())
        self._house = house = House(layout, settings, journal, now, wake, self._words, self._is_to_end)
        self._heartbeat = Heartbeat(
            layout, house.book, house.index, settings, journal, house.notices, house.gates, house.purse.bars, wake, now,
            house.trouble,
        )  # fmt: skip
        self._traffic = Traffic(
            layout, settings, journal, house.intake, house.pipeline, self._heartbeat, wake, now, house.trouble
        )
        places = {
            "root": (layout.root, False, CHANGES), "inbox": (layout.inbox, True, ARRIVALS),
            "tasks": (layout.tasks, True, CHANGES), "drop": (layout.drop, False, ARRIVALS),
            "cancel": (layout.cancel, False, ARRIVALS), "approvals": (layout.approvals, False, CHANGES),
        }  # fmt: skip
        ignored = {str(layout.status), str(layout.machine), str(layout.soul)}
        self._watcher = Watching(places, wake, lambda path: path in ignored, settings)
        try:
            self._go_on()
        except REFUSALS:
            self.close(farewell=False)
            raise

    def _go_on(self) -> None:
        self._watcher.start()
        unsettled = self._house.recover()
        for folder in unsettled:
            self._traffic.resume(folder)
        self._ownership.settle_tasks(self._house.book)
        self._heartbeat.open(unsettled)

    def beat(self, woken: set[str]) -> float:
        """One turn: look where something may have changed, hand out what is due; gives the seconds until the next.

        What the disk refuses to one part of it keeps no other from its own, and all of it is done again soon.
        """
        guard = self._house.trouble.guard
        with guard(OWNER_FILE):  # what cannot be read now keeps the owner from nothing
            os.stat(self._layout.marker)  # no file is made in a folder that is no workspace any more
            self._ownership.look()
        if not self._ownership.mine:
            return 0.0
        began = time.monotonic()
        now, paused = self._now(), self._layout.stopped()
        full = time.monotonic() >= self._next_scan
        intake, traffic = self._house.intake, self._traffic
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
        self.alarm = None if due is None else now + timedelta(seconds=due)
        with guard("inbox/", sure=full):
            self._status_due |= intake.look(
                self._settings().local(now),
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
        waits = [self._next_scan - time.monotonic(), intake.wait(self._now(), admitting=admitting)]
        further = (self._heartbeat.wait(), due, traffic.parking.wait(), self._ownership.wait())
        waits += [rest for rest in further if rest is not None]
        if self._status_due:
            waits.append(self._next_status - time.monotonic())
        wait = max(0.0, min(waits))
        soon = self._house.trouble.wait()
        if soon is not None:
            self._next_scan = min(self._next_scan, time.monotonic() + soon)
            wait = max(FIRST_WAIT, min(wait, soon))
        if self._worked and wait > 1:
            self._worked = False
            give_memory_back()
        return wait

    def configure(self) -> None:
        """Other settings are in force."""
        self._status_due = True
        self._house.secrets()

    def busy(self) -> bool:
        """True while anything runs, waits for its turn, or may have to be looked at soon."""
        return self._traffic.under_way() or self._heartbeat.asking() or self._house.keeper.busy()

    def refused(self) -> Sequence[str]:
        """What the disk refuses at this moment, in words."""
        return self._house.trouble.lines()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs."""
        return self._traffic.lanes.wait_idle(seconds) and self._house.keeper.wait(seconds)

    def drain(self) -> None:
        """Begin nothing new from now on, and wait for no disk any more."""
        self._house.trouble.close()
        self._traffic.drain()

    def close(self, *, farewell: bool) -> Sequence[str]:
        """Finish what runs, for ``shutdown_wait`` at most, with a ``farewell`` in status.md or without; gives the runs
        that are cut short."""
        self.drain()
        cut = self._traffic.close()
        self._watcher.stop()
        self._heartbeat.close()
        with suppress(*REFUSALS):  # a full disk must not keep us from ending
            if farewell:
                self._house.board.farewell(self._snapshot())
        with suppress(*REFUSALS):
            self._house.close()
        return cut

    def _is_to_end(self, run: str) -> bool:
        return self._traffic.is_to_end(run)

    def _words(self) -> str:
        """The status, for a run that asks."""
        return render(self._snapshot(), alive=True).partition("\n\n")[2]

    def _look_around(self, *, thorough: bool) -> None:
        """Settings, missing folders, watches: what may have changed in the root itself."""
        self._settings.look(self._changed)
        self._watcher.check(thorough=thorough)
        self._next_scan = min(self._next_scan, time.monotonic() + self._watcher.rest(self._scan_seconds))
        seen = (self._watcher.words(), self._settings.fault, self._layout.stopped())
        self._status_due |= seen != self._seen
        self._seen = seen
        make_places(self._layout)
        self._ownership.tidy(thorough=thorough)

    def _tell(self, sign: bool) -> None:
        """Tell how things are if they changed, or if a ``sign`` of life is due."""
        if sign:
            self._next_sign = time.monotonic() + self._settings().scan_interval
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
            settings_fault=self._settings.fault,
            unwatched=self._watcher.trouble,
            watching=self._watcher.words(),
            companions=[
                *self._house.purse.lines(),
                *self._house.push.trouble(),
                *self._companions(),
                *self._house.keeper.trouble(),
            ],
            answers=traffic.parking.trouble(),
            scan_seconds=self._scan_seconds,
            disk=self._house.trouble.lines(),
        )
