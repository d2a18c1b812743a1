"""The clock: tasks that fall due become commands at the side door. It never executes anything.

What is kept of a task (its watermark, and the slot that comes next) is written after a run is handed in. A kill in
between costs nothing: the run of a (task, slot) has one name, and exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import msgspec
import schedule
from msgspec import Struct

from fsagent.config import Settings
from fsagent.due import GRACE, Passed, due_at, passed
from fsagent.gates import Verdict
from fsagent.model import Task
from fsagent.openruns import OpenRuns
from fsagent.slotjobs import RETRY_AFTER_TROUBLE, SlotJob, SlotScheduler
from fsagent.timetable import Slots, Timetable, zone_name
from fsagent.trouble import REFUSALS, Trouble
from fsagent.workspace.journal import Journal
from fsagent.workspace.tasks import TaskBook, slots_of
from fsagent.workspace.taskstates import TaskState

MOST_QUEUED = 10
_TROUBLE = (*REFUSALS, ValueError, ArithmeticError)
_SECOND = timedelta(seconds=1)


class Gates(Protocol):
    """Who looks whether a slot is worth a run. See ``gates.GateKeeper``."""

    def check(self, task: Task, slot: datetime, seen: Mapping[str, str]) -> None: ...

    def take(self) -> list[tuple[Task, datetime, Verdict]]: ...


class _Asked(Struct):
    """Slots whose gates are being looked at, and the latest slot that is settled once that is known."""

    slots: tuple[datetime, ...]
    upto: datetime


class Clock:
    """Keeps one job per task that can fall due. Used by one thread; ``tick`` may be called at any moment, with any
    ``now``.

    ``runs`` knows which runs of a task have not ended, ``barred`` says why a task need not even be tried (or ""),
    ``replace`` ends a run for a reason in words, ``told`` hears of a gate that is broken, and (with "") of one that
    works.
    """

    def __init__(
        self,
        book: TaskBook,
        settings: Callable[[], Settings],
        journal: Journal,
        runs: OpenRuns,
        gates: Gates,
        barred: Callable[[Task], str] = lambda task: "",
        replace: Callable[[str, str], None] = lambda run, why: None,
        told: Callable[[Task, str], None] = lambda task, fault: None,
        *,
        trouble: Trouble,
    ) -> None:
        self._book, self._settings, self._journal, self._runs = book, settings, journal, runs
        self._gates, self._barred, self._replace, self._told = gates, barred, replace, told
        self._trouble = trouble
        self._scheduler = SlotScheduler(datetime.fromtimestamp(0, UTC))
        self._jobs: dict[str, SlotJob] = {}
        self._left: dict[str, tuple[datetime, bool]] = {}  # since when a task has no job, and whether its file is gone
        self._asked: dict[str, _Asked] = {}
        self._settled: dict[str, dict[str, Any]] = {}  # what is to be kept of tasks, at the end of a pass
        self._unsynced = False  # the journal says more of slots than a power cut would leave
        self._context = ""
        self._begun = False
        self.absence = "no daemon ran"  # why slots may have passed unseen since the last tick
        self.handed_in = 0

    def update(self, now: datetime, changed: Iterable[str] | None = None) -> None:
        """Take up tasks that were added, changed, paused or removed; all of them where nothing is said, at the start,
        and when the settings give other slots."""
        back = self._set(now)
        context = _print(self._settings().heartbeat_interval, zone_name(self._settings().zone))
        if back or context != self._context or changed is None:
            changed = {*self._book.names(), *self._jobs}
        self._context = context
        for name in changed if self._begun else self._take_over(changed, now):
            try:
                self._arm(name, now)
            except _TROUBLE as error:
                self._failed(name, error)
            else:
                self._trouble.worked(_source(name))
        self._begun = True

    def tick(self, now: datetime) -> float | None:
        """Hand in every task whose slot has come; gives the seconds until the next one, None without tasks."""
        if self._set(now):
            self.update(now)
        for task, _, verdict in self._gates.take():
            self._judge(task, verdict)
        self._put_down()
        self._scheduler.run_pending()
        self._put_down()
        self.absence = "the machine slept, its clock was set, or the daemon was busy"
        return self._scheduler.idle_seconds

    def asking(self) -> bool:
        """True while gates are looked at."""
        return bool(self._asked)

    def upcoming(self, most: int) -> list[tuple[datetime, str]]:
        """The tasks that fall due next, and when."""
        return [(datetime.fromtimestamp(job.due, UTC), job.task) for job in self._scheduler.upcoming(most)]

    def _take_over(self, names: Iterable[str], now: datetime) -> set[str]:
        """At the start: tasks that are as they were when the last daemon ended have the job that they had then, and are
        not even read. Gives the others."""
        others, taken = set(names), list[SlotJob]()
        for name, mark, state in self._book.kept():
            due, settled = state.next, state.watermark
            if due and settled and settled <= now and not state.paused and state.armed == f"{mark} {self._context}":
                job = self._jobs[name] = self._job(name, due.timestamp(), None)
                taken.append(job)
                others.discard(name)
        self._scheduler.add(taken)
        return others

    def _arm(self, name: str, now: datetime) -> None:
        """Give a task the job that it should have now, or take it away."""
        state, job = self._book.state(name), self._jobs.get(name)
        armed = f"{self._book.print_of(name)} {self._context}"
        task = self._book.get_task(name)
        if task is None or not task.enabled or state.paused:
            self._disarm(name, now, gone=task is None)
            return
        if task.jitter:  # when it is handed in, the slot alone does not tell
            armed = ""
        slots = slots_of(task, self._settings())
        rule = _rule(task.table, self._settings())
        if job is not None and state.rule == rule:
            mark = min(state.watermark or now, now)
        else:
            mark = self._mark(task, state, slots, same=state.rule in ("", rule), now=now)
        following = slots.after(mark)
        self._keep(name, watermark=mark, next=following, rule=rule, armed=armed)
        self._left.pop(name, None)
        self._give_job(name, due_at(task, slots, following) if following else None, slots)

    def _give_job(self, name: str, due: float | None, slots: Slots | None) -> None:
        """One job, or none, and no other."""
        before = self._jobs.pop(name, None)
        if before is not None:
            self._scheduler.cancel_job(before)
        if due is not None:
            job = self._jobs[name] = self._job(name, due, slots)
            self._scheduler.jobs.append(job)

    def _job(self, name: str, due: float, slots: Slots | None) -> SlotJob:
        job = SlotJob(self._scheduler, name, due, slots)
        job.job_func = partial(self._fire, job)  # as ``do`` does, which takes ten times as long
        return job

    def _disarm(self, name: str, now: datetime, *, gone: bool) -> None:
        job = self._jobs.pop(name, None)
        if job is not None:
            self._scheduler.cancel_job(job)
            self._left[name] = (now, gone)
        if not gone and self._book.state(name).armed:
            self._keep(name, armed="")

    def _mark(self, task: Task, state: TaskState, slots: Slots, *, same: bool, now: datetime) -> datetime:
        """From where on a task's slots count: those after the last one settled. A task that was never seen, or has
        another rule now, begins with the next one; so does one that comes back while the daemon runs (resumed, enabled,
        its file restored): it has missed nothing. What is to happen ``once`` is done even so."""
        if state.watermark is None or not same:
            return (slots.last(now) or now) - _SECOND if task.table.once else now
        if state.watermark > now:  # the clock went back: what was run has its run, and the others come as they come
            return now
        if task.table.once:
            return state.watermark
        if not self._begun:
            return max(state.watermark, min(state.since or state.watermark, now))  # it may have been paused until then
        left, gone = self._left.get(task.name, (None, False))
        if left is not None and gone and now - left <= timedelta(seconds=GRACE):
            return state.watermark
        return now

    def _fire(self, job: SlotJob) -> object:
        """Settle what has passed of a task. Gives ``CancelJob`` where no slot will come any more."""
        now = self._scheduler.now
        task, state = self._book.get_task(job.task), self._book.state(job.task)
        if task is None:
            return schedule.CancelJob
        slots = job.slots = job.slots or slots_of(task, self._settings())
        try:
            more = self._settle(job, task, slots, state, now)
        except _TROUBLE as error:  # a full or failing disk: nothing is settled, and it is tried again
            job.due = now.timestamp() + self._failed(task.name, error)
            return None
        self._trouble.worked(_source(task.name))
        return more

    def _settle(self, job: SlotJob, task: Task, slots: Slots, state: TaskState, now: datetime) -> object:
        asked, settled = self._asked.get(task.name), state.watermark or now
        mark = asked.upto if asked else self._past_handed_in(task, slots, settled)
        found = passed(task, slots, mark, now)
        for missed in found.missed:
            self._tell("missed", task.name, **msgspec.structs.asdict(missed), absence=self.absence)
        upto = found.upto or mark
        following = slots.after(upto)
        why = self._begin(task, state, found, now)
        if task.name in self._asked:  # until it is known what comes of those slots, none of them is settled
            self._asked[task.name].upto = upto
        elif upto != settled:
            self._settled[task.name] = {"watermark": upto, "next": following, "held_back": why}
        if following is None:
            self._jobs.pop(task.name, None)
            return schedule.CancelJob
        job.due = due_at(task, slots, following)
        return None

    def _past_handed_in(self, task: Task, slots: Slots, mark: datetime) -> datetime:
        """Slots that have their run are settled: of a kill between the door and the watermark, or from before the clock
        was set back."""
        following = slots.after(mark)
        while following is not None and following <= self._scheduler.now and self._has_run(task, following):
            mark, following = following, slots.after(following)
        return mark

    def _has_run(self, task: Task, slot: datetime) -> bool:
        return self._book.has_run(slot_run(task.name, slot))

    def _begin(self, task: Task, state: TaskState, found: Passed, now: datetime) -> str:
        """Hand in the slots that are to be run, or have their gates looked at; gives why not, if so."""
        run = tuple(slot for slot in found.run if not self._has_run(task, slot))
        if not run:
            return found.missed[-1].why if found.missed else ""
        why = self._overlap(task) or self._barred(task)
        if why:
            for slot in run:
                self._tell("skipped", task.name, slot=slot, why=why)
        elif task.gates:
            self._asked[task.name] = _Asked(run, run[-1])
            self._gates.check(task, run[-1], state.seen)
        else:
            self._hand_in(task, run)
        return why

    def _overlap(self, task: Task) -> str:
        """Why a slot is skipped for a run that has not ended; "" where it is not."""
        if task.name in self._asked:
            return "its gates are still being looked at"
        runs = self._runs.of(task.name)
        if runs and task.overlap == "skip":
            return "its run before has not ended"
        if task.overlap == "queue" and len(runs) >= MOST_QUEUED:
            return f"{len(runs)} runs of it have not ended"
        return ""

    def _hand_in(self, task: Task, slots: Sequence[datetime], given: str = "") -> None:
        now = self._settings().local(self._scheduler.now)
        for run in self._runs.of(task.name) if task.overlap == "replace" else ():
            self._journal.append("replaced", task=task.name, run=run, slot=slots[-1])
            self._replace(
                run, f"overlap: replace; the slot of {slots[-1].astimezone(now.tzinfo):%Y-%m-%d %H:%M:%S} came"
            )
        for slot in slots:
            run = slot_run(task.name, slot)
            if self._book.request(task, slot, run, now, given=given):
                self._runs.add(run, task.name)
                self.handed_in += 1

    def _judge(self, task: Task, verdict: Verdict) -> None:
        """What was asked of a task's gates is known."""
        asked, current = self._asked.pop(task.name, None), self._book.get_task(task.name)
        if asked is None:
            return
        why, state = verdict.why, self._book.state(task.name)
        try:
            if current is None or current.print != task.print or state.paused:
                why = f"the task was {'paused' if state.paused else 'changed'} while its gates were looked at"
                for each in asked.slots:
                    self._tell("skipped", task.name, slot=each, why=why)
            elif verdict.holds:
                self._hand_in(task, asked.slots, verdict.given)
            else:
                for each in asked.slots:
                    self._tell("gated", task.name, slot=each, why=why, fault=verdict.fault)
            slots = slots_of(current or task, self._settings())
            upto = max(asked.upto, state.watermark or asked.upto)  # another rule may have begun meanwhile
            seen = verdict.seen if verdict.holds else state.seen
            self._settled[task.name] = {
                "watermark": upto, "next": slots.after(upto), "held_back": why, "seen": seen
            }  # fmt: skip
            self._told(task, why if verdict.fault else "")
        except _TROUBLE as error:  # these slots are looked at again
            self._try_again(task.name, error)

    def _tell(self, event: str, task: str, **fields: Any) -> None:
        """Record what becomes of a slot that brings no run."""
        self._journal.append(event, task=task, **fields)
        self._unsynced = True

    def _put_down(self) -> None:
        """Note what is settled: only once the journal's lines about it are durable, so that no power cut leaves a slot
        with neither."""
        settled, self._settled = self._settled, {}
        try:
            if self._unsynced:
                self._journal.sync()
                self._unsynced = False
        except OSError as error:
            for name in settled:
                self._try_again(name, error)
            return
        for name, changes in settled.items():
            try:
                self._book.set_state(name, durable=False, **changes)
            except _TROUBLE as error:
                self._try_again(name, error)

    def _try_again(self, task: str, error: Exception) -> None:
        """A full or failing disk: nothing is settled, and it is tried again."""
        rest = self._failed(task, error)
        self._give_job(task, self._scheduler.now.timestamp() + rest, None)

    def _keep(self, name: str, **changes: Any) -> None:
        """Note what can be found out again: a disk that does not take it costs nothing but that."""
        with suppress(OSError):
            self._book.set_state(name, durable=False, **changes)

    def _failed(self, task: str, error: Exception) -> float:
        """Nothing was settled; gives the seconds until it is tried again."""
        if isinstance(error, REFUSALS):
            return self._trouble.failed(_source(task), error)
        self._journal.tell("error", task=task, error=str(error))
        return RETRY_AFTER_TROUBLE

    def _set(self, now: datetime) -> bool:
        """Set the clock; True if it went back, and then each task needs a job anew."""
        before, self._scheduler.now = self._scheduler.now, now
        if now >= before - _SECOND:
            return False
        with suppress(OSError):
            self._journal.append("clock", now=now, before=before, why="the clock was set back")
        return True


def _source(task: str) -> str:
    return f"tasks/{task}"


def slot_run(task: str, slot: datetime) -> str:
    """The one run that a (task, slot) can have: whoever hands it in again finds that it exists."""
    return f"{slot.astimezone(UTC):%Y%m%d-%H%M%S}-{hashlib.sha256(task.encode()).hexdigest()[:10]}"


def _rule(table: Timetable, settings: Settings) -> str:
    """The print of what decides which slots there are."""
    own = table.every or table.cron or table.at or table.once
    by_wall = table.cron or table.at or table.once or table.active or table.begin or table.end
    zone = zone_name(settings.zone) if by_wall and not table.zone else ""
    return _print(msgspec.structs.astuple(table), zone, None if own else settings.heartbeat_interval)


def _print(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
