"""What becomes of slots that have passed: which are run, which are missed, and why. Nothing here touches a disk.

A slot is due when it has come and the task's jitter is over. Ordinarily one is, a moment after it came. After a night
without a daemon, a sleep of the machine or a step of its clock there may be any number of them: ``missed:`` and
``within:`` of the task say what is done of those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from fsagent.files.fields import format_duration
from fsagent.model import Task
from fsagent.timetable import Slots

GRACE = 60.0
"""A slot that is found this late (seconds) was not missed: the daemon was busy, or was just being started again."""
MOST_CAUGHT_UP = 100
"""``missed: all`` runs the latest of them only."""
JITTER_OF_GAP = 0.9
_MOMENT = timedelta(microseconds=1)


class Missed(Struct, frozen=True):
    """Slots that nothing is run for: how many, the first and the last of them, and why."""

    slots: int
    first: datetime
    last: datetime
    why: str


class Passed(Struct, frozen=True):
    """What becomes of the slots after a watermark. ``run`` are those to run, the oldest first; ``upto`` is the latest
    slot that is settled with this, or None where nothing has passed."""

    run: tuple[datetime, ...] = ()
    missed: tuple[Missed, ...] = ()
    upto: datetime | None = None


def passed(task: Task, slots: Slots, mark: datetime, now: datetime) -> Passed:
    """Judge the slots after ``mark`` that are due at ``now``."""
    newest = _newest(task, slots, now)
    if newest is None or newest <= mark:
        return Passed()
    late = (now - newest).total_seconds() - offset(task, slots, newest)
    if task.missed == "all":
        run, why = _all(task, slots, mark, newest, now), f"they lie further back than {_within(task)}"
        if len(run) == MOST_CAUGHT_UP:
            why = f"only the latest {MOST_CAUGHT_UP} are run"
    elif late <= GRACE or (task.missed == "once" and late <= task.within):
        run, why = [newest], "only the latest is run" if task.missed == "once" else "missed: skip"
    else:
        run, why = [], "missed: skip" if task.missed == "skip" else f"they lie further back than {_within(task)}"
    return Passed(tuple(run), _missed(slots, mark, run, newest, why), newest)


def offset(task: Task, slots: Slots, slot: datetime) -> float:
    """How long after its slot a run is handed in (seconds): by chance up to the task's jitter, and the same whenever it
    is asked. Two slots keep their order."""
    if not task.jitter:
        return 0.0
    following = slots.after(slot)
    most = min(task.jitter, (following - slot).total_seconds() * JITTER_OF_GAP) if following else task.jitter
    seed = hashlib.sha256(f"{task.name}\0{slot.timestamp()}".encode("utf-8", "surrogatepass")).digest()
    return most * int.from_bytes(seed[:4]) / 2**32


def due_at(task: Task, slots: Slots, slot: datetime) -> float:
    """When a slot is handed in, in seconds since 1970."""
    return slot.timestamp() + offset(task, slots, slot)


def _newest(task: Task, slots: Slots, now: datetime) -> datetime | None:
    slot = slots.last(now)
    while slot is not None and due_at(task, slots, slot) > now.timestamp():
        slot = slots.last(slot - _MOMENT)
    return slot


def _all(task: Task, slots: Slots, mark: datetime, newest: datetime, now: datetime) -> list[datetime]:
    back = max(task.within, GRACE)
    found, slot = list[datetime](), newest
    while slot > mark and len(found) < MOST_CAUGHT_UP and (now - slot).total_seconds() <= back:
        found.append(slot)
        before = slots.last(slot - _MOMENT)
        if before is None:
            break
        slot = before
    return found[::-1]


def _missed(slots: Slots, mark: datetime, run: Sequence[datetime], newest: datetime, why: str) -> tuple[Missed, ...]:
    until = run[0] - _MOMENT if run else newest
    first, last = slots.after(mark), slots.last(until)
    if first is None or last is None or first > last:
        return ()
    return (Missed(slots.count(mark, until), first, last, why),)


def _within(task: Task) -> str:
    return f"within: {format_duration(task.within)}"
