"""Jobs of the ``schedule`` library whose runs are slots of the wall clock.

The library's own jobs drift (the next run counts from the end of the last), its passes look at every job there is, and
end at the first exception. These replace just that. Source: shared/facts/libraries.md §6.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter

import schedule

from fsagent.timetable import Slots

RETRY_AFTER_TROUBLE = 10.0


class SlotJob(schedule.Job):
    """One task's next slot. ``due`` is when it is handed in, in seconds since 1970; ``slots`` its rule, once used."""

    def __init__(self, scheduler: SlotScheduler, task: str, due: float, slots: Slots | None = None) -> None:
        super().__init__(1, scheduler)
        self.clock, self.task, self.due, self.slots = scheduler, task, due, slots
        self.cancelled = False

    @property
    def should_run(self) -> bool:
        """True once the slot is reached."""
        return self.due <= self.clock.now.timestamp()

    def __lt__(self, other: SlotJob) -> bool:
        return self.due < other.due

    def _schedule_next_run(self) -> None:
        """The slot that comes next is known to whoever settled this one."""


class _Heap(list[SlotJob]):
    """The scheduler's list of jobs, with the next one first."""

    def append(self, job: SlotJob) -> None:
        heapq.heappush(self, job)


class SlotScheduler(schedule.Scheduler):
    """A ``schedule.Scheduler`` over a heap: a pass costs what is due, not what exists. ``now`` is set by its owner."""

    def __init__(self, now: datetime) -> None:
        super().__init__()
        self.now = now
        self.jobs: _Heap = _Heap()  # type: ignore[assignment]
        self._dead = 0

    def add(self, jobs: Iterable[SlotJob]) -> None:
        """Take in many jobs at once."""
        self.jobs.extend(jobs)
        self.jobs.sort(key=attrgetter("due"))  # what is in order is a heap, and this asks no job whether it is less

    def cancel_job(self, job: schedule.Job) -> None:
        """Forget a job; it leaves the heap when its slot comes, or with many others."""
        if isinstance(job, SlotJob) and not job.cancelled:
            job.cancelled = True
            self._dead += 1
            if self._dead > 100 and self._dead > len(self.jobs) // 2:
                self.jobs = _Heap(job for job in self.jobs if not job.cancelled)
                heapq.heapify(self.jobs)
                self._dead = 0

    def run_pending(self) -> None:
        """Run what is due at ``now``, the earliest slot first."""
        while self.jobs and self.jobs[0].should_run:
            job = heapq.heappop(self.jobs)
            try:
                if not job.cancelled:
                    self._run_job(job)
            finally:
                self._put_back(job)

    def _put_back(self, job: SlotJob) -> None:
        if job.cancelled:
            self._dead -= 1
            return
        if job.should_run:  # nobody settled it
            job.due = self.now.timestamp() + RETRY_AFTER_TROUBLE
        self.jobs.append(job)

    def upcoming(self, most: int) -> list[SlotJob]:
        """The jobs that are due next."""
        return heapq.nsmallest(most, (job for job in self.jobs if not job.cancelled))

    @property
    def idle_seconds(self) -> float | None:
        """Seconds until the next slot, None without any."""
        while self.jobs and self.jobs[0].cancelled:
            heapq.heappop(self.jobs)
            self._dead -= 1
        return max(0.0, self.jobs[0].due - self.now.timestamp()) if self.jobs else None
