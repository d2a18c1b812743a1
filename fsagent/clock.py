"""The clock: tasks that fall due become commands at the side door. It never executes anything.

Built on the ``schedule`` library, whose jobs drift (the next run counts from the end of the last) and whose passes end
at the first exception; ``SlotJob`` and ``SlotScheduler`` replace just that: slots are fixed points of the wall clock, a
heap finds the next one, and a job that fails is settled all the same. Source: shared/facts/libraries.md §6.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import schedule

from fsagent.config import Settings
from fsagent.model import Task
from fsagent.timetable import Slots, Timetable
from fsagent.workspace.journal import Journal
from fsagent.workspace.tasks import TaskBook


class SlotJob(schedule.Job):
    """One task's next slot. ``due`` is in seconds since 1970; ``every`` in seconds."""

    def __init__(self, scheduler: SlotScheduler, task: str, every: float) -> None:
        super().__init__(1, scheduler)
        self.clock = scheduler
        self.task = task
        self.every = every
        self.due = 0.0
        self.cancelled = False

    @property
    def should_run(self) -> bool:
        """True once the slot is reached."""
        return self.due <= self.clock.now.timestamp()

    def _schedule_next_run(self) -> None:
        self.due = _next(self.every, self.clock.now).timestamp()


class SlotScheduler(schedule.Scheduler):
    """A ``schedule.Scheduler`` over a heap: a pass costs what is due, not what exists. ``now`` is set by its owner."""

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self.now = now
        self._heap: list[tuple[float, int, SlotJob]] = []
        self._order = count()

    def add(self, job: SlotJob) -> None:
        """Take a job into the heap."""
        heapq.heappush(self._heap, (job.due, next(self._order), job))

    def cancel_job(self, job: schedule.Job) -> None:
        """Forget a job; it leaves the heap when its slot comes."""
        if isinstance(job, SlotJob):
            job.cancelled = True

    def run_pending(self) -> None:
        """Run what is due at ``now``, the earliest slot first."""
        while self._heap and self._heap[0][0] <= self.now.timestamp():
            _, _, job = heapq.heappop(self._heap)
            if job.cancelled:
                continue
            try:
                self._run_job(job)
            finally:
                if job.should_run:
                    job._schedule_next_run()
                self.add(job)

    @property
    def idle_seconds(self) -> float | None:
        """Seconds until the next slot, None without any."""
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - self.now.timestamp()) if self._heap else None


class Clock:
    """Keeps one job per enabled task. Used by one thread; ``tick`` may be called at any moment, with any ``now``.

    ``is_running`` says whether a run of a task has not ended, ``barred`` why a task need not even be tried, or "".
    """

    def __init__(
        self,
        book: TaskBook,
        settings: Callable[[], Settings],
        journal: Journal,
        is_running: Callable[[str], bool],
        barred: Callable[[Task], str] = lambda task: "",
    ) -> None:
        self._book, self._settings, self._journal = book, settings, journal
        self._is_running, self._barred = is_running, barred
        self._scheduler = SlotScheduler(datetime.fromtimestamp(0, UTC))
        self._jobs: dict[str, tuple[Task, float, SlotJob]] = {}
        self._begun = False
        self.handed_in = 0

    def update(self, now: datetime) -> None:
        """Take up tasks that were added, changed, paused or removed, and a changed heartbeat interval."""
        self._set(now)
        wanted: dict[str, tuple[Task, float]] = {}
        for task in self._book.tasks():
            if task.enabled and not self._book.state(task.name).paused:
                wanted[task.name] = (task, task.table.every or self._settings().heartbeat_interval)
        for name in list(self._jobs):
            task, every, job = self._jobs[name]
            if name not in wanted or wanted[name][1] != every:
                self._scheduler.cancel_job(job)
                del self._jobs[name]
            else:
                self._jobs[name] = (wanted[name][0], every, job)
        for name, (task, every) in wanted.items():
            if name not in self._jobs:
                job = SlotJob(self._scheduler, name, every)
                job.do(self._fire, job)
                job.due = self._first_slot(name, every, now).timestamp()  # ``do`` made it due after now
                self._jobs[name] = (task, every, job)
                self._scheduler.add(job)
        self._begun = True

    def tick(self, now: datetime) -> float | None:
        """Hand in every task whose slot has come; gives the seconds until the next one, None without tasks."""
        if self._set(now):
            self.update(now)
        self._scheduler.run_pending()
        return self._scheduler.idle_seconds

    def next_due(self) -> tuple[datetime, str] | None:
        """The next slot and its task."""
        jobs = [(job.due, name) for name, (_, _, job) in self._jobs.items()]
        due, name = min(jobs, default=(0.0, ""))
        return (datetime.fromtimestamp(due, UTC), name) if name else None

    def _fire(self, job: SlotJob) -> None:
        task, every, _ = self._jobs[job.task]
        now = self._scheduler.now
        slot = _slots(every).last(now) or now
        first = datetime.fromtimestamp(job.due, UTC)
        lost = round((slot - first).total_seconds() / every)
        if lost > 0:
            self._journal.append(
                "missed", task=task.name, slots=lost, first=first, last=slot - timedelta(seconds=every)
            )
        try:
            why = "its run before has not ended" if self._is_running(task.name) else self._barred(task)
            if why:
                self._journal.append("skipped", task=task.name, slot=slot, why=why)
            else:
                self._book.request(task, slot, slot_run(task.name, slot), self._settings().local(now))
                self.handed_in += 1
            self._book.set_state(task.name, watermark=slot, durable=False)
        except OSError as error:  # a full or failing disk: this slot is lost, and told
            self._journal.append("error", task=task.name, slot=slot, error=str(error))

    def _first_slot(self, name: str, every: float, now: datetime) -> datetime:
        """The first slot of a task: after the last one settled; a task never seen before starts with the next one.

        So does one that comes back while the daemon runs (resumed, enabled, another period): it has missed nothing.
        """
        mark, period = self._book.state(name).watermark, timedelta(seconds=every)
        if mark is None or mark > now + period or (self._begun and mark <= now - 2 * period):
            mark = now
            self._book.set_state(name, watermark=mark, durable=False)
        return _next(every, mark)

    def _set(self, now: datetime) -> bool:
        """Set the clock; True if it went back, and then no task has a job: slots that were run stay run, for their runs
        exist, and the others come as they come."""
        before, self._scheduler.now = self._scheduler.now, now
        if now >= before - timedelta(seconds=1):
            return False
        self._journal.append("clock", now=now, before=before, why="the clock was set back")
        for _, _, job in self._jobs.values():
            self._scheduler.cancel_job(job)
        self._jobs.clear()
        return True


def slot_run(task: str, slot: datetime) -> str:
    """The one run that a (task, slot) can have: whoever hands it in again finds that it exists."""
    return f"{slot.astimezone(UTC):%Y%m%d-%H%M%S}-{hashlib.sha256(task.encode()).hexdigest()[:10]}"


def _slots(every: float) -> Slots:
    return Slots(Timetable(every=every), every, UTC)


def _next(every: float, after: datetime) -> datetime:
    return _slots(every).after(after) or after
