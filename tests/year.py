"""A simulated year: a workspace on a stepped clock, and beside it an oracle that works out from the policies alone
what becomes of every slot.

The oracle's slots are those of ``slot_oracle``, its judgement is written here. It knows nothing of the clock, of what
is kept of a task or of the journal; it only hears at which moments anybody looked, and what was done to the files.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from desk import Desk
from fsagent.config import Settings
from fsagent.files.fields import Duration
from fsagent.gates import Verdict
from fsagent.workspace.journal import Journal
from slot_oracle import Minute, Rule, walk

ZONE = "Europe/Berlin"
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
GRACE = timedelta(seconds=60)
MOST_QUEUED, MOST_CAUGHT_UP = 10, 100
FURTHEST_BACK = 12 * DAY


@dataclass(frozen=True)
class Kind:
    """A task: its rule, the rule that an edit gives it instead, and what its policies mean for the oracle. ``lasts`` is
    how long its runs take, ``shift`` are seconds of its time of day, of which the oracle's slots know nothing. A gate
    holds every other day."""

    rule: dict[str, Any]
    other: dict[str, Any] = field(default_factory=dict)
    zone: str = ""
    missed: str = "once"
    within: timedelta = 12 * HOUR
    overlap: str = "skip"
    lasts: timedelta = timedelta()
    shift: timedelta = timedelta()
    jitter: timedelta = timedelta()
    gate: bool = False

    def text(self, rule: dict[str, Any], body: str) -> str:
        """The task file."""
        fields = {**rule, "missed": self.missed, "within": _duration(self.within), "overlap": self.overlap}
        if self.shift:
            fields["at"] = f"{rule['at']}:{self.shift.seconds:02}"
        if self.zone:
            fields["timezone"] = self.zone
        if self.jitter:
            fields["jitter"] = _duration(self.jitter)
        if self.gate:
            fields["when"] = {"exists": "file"}
        return "".join(["---\n", *(f"{key}: {json.dumps(value)}\n" for key, value in fields.items()), f"---\n{body}"])


KINDS = {
    "hourly": Kind({"every": "1h"}, {"cron": "20 * * * *"}),
    "odd": Kind({"every": "433m"}, {"every": "5h"}, within=2 * HOUR),
    "at": Kind({"at": ["02:30", "18:00"]}, {"at": ["02:00", "03:00", "18:00"]}, missed="skip"),
    "weekdays": Kind({"at": "09:00", "on": ["mon", "tue", "wed", "thu", "fri"]}, {"at": "09:00"}, within=3 * DAY),
    "cron": Kind({"cron": "15 */6 * * *"}, {"cron": "15 */4 * * *"}, missed="all", within=2 * DAY),
    "night": Kind({"cron": "30 2 * * *"}, {"cron": "30 1 * * *"}, zone="America/New_York"),
    "month": Kind({"cron": "0 12 L * *"}, {"cron": "0 12 1 * *"}, missed="all", within=10 * DAY),
    "friday": Kind({"cron": "0 17 * * 5#2"}, {"cron": "0 17 * * 5L"}, within=DAY),
    "active": Kind({"every": "90m", "active": "22:00-06:00", "from": "2026-04-02", "until": "2027-01-31"}),
    "once": Kind({"once": "2026-05-01 14:00"}, within=5 * DAY),
    "slow": Kind({"every": "2h"}, lasts=3 * HOUR),
    "queued": Kind({"every": "6h"}, {"every": "3h"}, overlap="queue", lasts=7 * HOUR),
    "replaced": Kind({"every": "4h"}, overlap="replace", lasts=5 * HOUR),
    "second": Kind({"at": "12:00"}, missed="skip", shift=30 * SECOND),
    "gated": Kind({"every": "8h"}, {"at": ["06:00", "18:00"]}, missed="all", within=DAY, gate=True),
    "spread": Kind({"every": "3h"}, missed="all", within=30 * DAY, jitter=timedelta(minutes=20)),
}
LASTING = [name for name, kind in KINDS.items() if kind.other]


@lru_cache(maxsize=8)
def minutes(zone: str, start: datetime, end: datetime) -> list[Minute]:
    return walk(ZoneInfo(zone), start, end)


@lru_cache(maxsize=256)
def slots_of(name: str, edited: bool, start: datetime, end: datetime) -> list[datetime]:
    """All slots of a task's rule, as the oracle sees them."""
    kind = KINDS[name]
    zone = kind.zone or ZONE
    rule = Rule(ZoneInfo(zone), **(kind.other if edited else kind.rule))
    return [slot + kind.shift for slot in rule.slots(minutes(zone, start, end))]


@dataclass
class Expected:
    """What the oracle expects of one task: ``mark`` is the slot up to which all is judged."""

    kind: Kind
    slots: list[datetime]
    mark: datetime
    edited: bool = False
    active: bool = True
    run: dict[datetime, None] = field(default_factory=dict)
    missed: Counter[datetime] = field(default_factory=Counter)
    skipped: Counter[datetime] = field(default_factory=Counter)
    gated: Counter[datetime] = field(default_factory=Counter)
    open: list[datetime] = field(default_factory=list)  # when its runs end

    def look(self, now: datetime) -> None:
        """Somebody looks at the clock."""
        self.mark = min(self.mark, now)
        self.open = [end for end in self.open if end > now]
        low, high = bisect_right(self.slots, self.mark), bisect_right(self.slots, now)
        while low < high and self.slots[low] in self.run:
            low += 1
        passed = self.slots[low:high] if self.active else []
        if not passed:
            return
        self.mark = passed[-1]
        chosen = self._chosen(passed, now)
        self.missed.update(slot for slot in passed if slot not in chosen)
        chosen = [slot for slot in chosen if slot not in self.run]
        if (self.kind.overlap == "skip" and self.open) or len(self.open) >= MOST_QUEUED:
            self.skipped.update(chosen)
        elif self.kind.gate and not holds(now):
            self.gated.update(chosen)
        else:
            self._run(chosen, now)

    def _chosen(self, passed: list[datetime], now: datetime) -> list[datetime]:
        within = max(self.kind.within, GRACE)
        if self.kind.missed == "all":
            return [slot for slot in passed if now - slot <= within][-MOST_CAUGHT_UP:]
        late = now - passed[-1]
        return passed[-1:] if late <= (GRACE if self.kind.missed == "skip" else within) else []

    def _run(self, chosen: list[datetime], now: datetime) -> None:
        for slot in chosen:
            begins = max([now, *self.open]) if self.kind.overlap == "queue" else now
            if self.kind.overlap == "replace":
                self.open.clear()
            if self.kind.lasts:
                self.open.append(begins + self.kind.lasts)
            self.run[slot] = None


class Watched(Journal):
    """Knows how much of its files is safe from a power cut."""

    synced: dict[str, int] = {}  # noqa: RUF012  # a new one each time

    def sync(self) -> None:
        super().sync()
        self.synced = sizes(self._folder)


@dataclass
class Moment:
    """How things stood on the disk at a moment, and what the oracle had judged by then."""

    states: tuple[int, int]  # the file and its size
    journal: dict[str, int]
    marks: dict[str, tuple[datetime, bool]]


class World:
    """A desk, and the oracle beside it. ``cut`` once there was a power cut: then records may be lost."""

    def __init__(self, root: Path, start: datetime, days: int) -> None:
        self.start, self.end = start, start + timedelta(days=days)
        self.desk = Desk(root, start, Watched)
        self.desk.settings = Settings(heartbeat_interval=Duration(3600), timezone=ZONE)
        self.expected: dict[str, Expected] = {}
        self.names: dict[str, str] = {}  # what the task of a kind is called now
        self.ends: dict[str, datetime] = {}  # when the open runs of slow tasks end
        self.told: dict[tuple[Any, ...], list[datetime]] = {}  # the slots of each record of missed ones
        self.late: list[timedelta] = []  # how late the slots with jitter were handed in
        self.past: list[Moment] = []
        self.cut = self.set_back = False
        self.edits = self.renames = 0
        for name, kind in KINDS.items():
            if kind.rule.get("once", "9") < str(start):
                continue
            self.names[name] = name
            self.desk.task(name, kind.text(kind.rule, "beat"))
            self._expect(name, name)
        self.desk.clock.update(start, self.desk.book.scan())
        assert not self.desk.book.broken()
        self._born()

    def _expect(self, name: str, kind: str) -> None:
        self.expected[name] = Expected(KINDS[kind], self._slots(kind, False), self.desk.now)
        if KINDS[kind].lasts:
            self.desk.busy.add(name)

    def _slots(self, kind: str, edited: bool) -> list[datetime]:
        return slots_of(kind, edited, self.start - FURTHEST_BACK, self.end + 2 * DAY)

    def _born(self) -> None:
        """A daemon begins."""
        self.desk.journal.heard_by(self._hear)
        self.desk.replaced = Replaced(self)
        self._keep()

    def _hear(self, record: dict[str, Any]) -> None:
        if record["event"] == "missed":
            slots = self.expected[record["task"]].slots
            each = slots[bisect_right(slots, record["first"] - SECOND) : bisect_right(slots, record["last"])]
            assert len(each) == record["slots"], record
            self.told[record["task"], record["time"], record["first"]] = each

    # time

    def look(self) -> float | None:
        """Time has come to ``desk.now``."""
        desk, now = self.desk, self.desk.now
        for folder in list(desk.open):
            if self.ends[folder.run] <= now:
                desk.runs.end(folder.run)
                desk.open.remove(folder)
        verdict = Verdict(holds=holds(now), why="it does not hold")
        desk.gates.says = {name: verdict for name, expected in self.expected.items() if expected.kind.gate}
        idle = self._tick()
        if desk.clock.asking():
            idle = self._tick()
        for expected in self.expected.values():
            expected.look(now)
        self._keep()
        return idle

    def _tick(self) -> float | None:
        desk, before = self.desk, len(self.desk.taken)
        idle = desk.tick()
        for envelope in desk.taken[before:]:
            assert envelope.slot
            kind = self.expected[envelope.task].kind
            others = [self.ends[each.run] for each in desk.open
                      if each.run in self.ends and desk.task_of[each.run] == envelope.task]  # fmt: skip
            self.ends[envelope.run] = max([desk.now, *others]) + kind.lasts
            if kind.jitter:
                self.late.append(desk.now - envelope.slot)
        return idle

    def go_to(self, moment: datetime) -> None:
        """Let time pass as a daemon does: it sleeps until the next slot."""
        while True:
            idle = self.look()
            ahead = min(moment, self.desk.now + timedelta(seconds=idle)) if idle is not None else moment
            if ahead <= self.desk.now < moment:
                ahead = self.desk.now + timedelta(milliseconds=1)
            if ahead >= moment:
                self.desk.now = max(moment, self.desk.now)
                return
            self.desk.now = ahead

    def jump(self, seconds: int) -> None:
        """The wall clock is another one: the machine slept, or somebody set it, forward or back. What runs takes as
        long as it takes."""
        before = self.desk.now
        self.desk.now = max(self.start, min(before + timedelta(seconds=seconds), self.end))
        back = self.desk.now - before
        if back < timedelta():
            self.set_back = True
            self.ends = {run: end + back for run, end in self.ends.items()}
            for expected in self.expected.values():
                expected.open = [end + back for end in expected.open]

    def restart(self) -> None:
        """The daemon is killed, and another one begins."""
        synced = self.desk.journal.synced
        self.desk.journal.close()
        self.desk.book._log.close()
        self.desk.start()
        self.desk.journal.synced = synced
        self._seen()
        self._born()

    def glance(self) -> None:
        """The daemon looks at the task files."""
        self.desk.look()
        self._seen()

    def _seen(self) -> None:
        """The daemon knows what time it is, though no slot was looked for."""
        for expected in self.expected.values():
            expected.mark = min(expected.mark, self.desk.now)

    def power_cut(self, states: int, journal: int) -> None:
        """What was written since some looks ago and is not synced is gone: so many looks of the states, and of the
        journal. Half a line is left."""
        self.cut = True
        kept = self.past[-1 - min(states, len(self.past) - 1)]
        inode, size = self._states()
        if kept.states[0] == inode:
            _cut(str(self.desk.layout.task_states / "states.jsonl"), min(size, kept.states[1] + 9))
        for name, expected in self.expected.items():
            mark, edited = kept.marks.get(name, (self.desk.now, False))
            if kept.states[0] == inode and expected.active:
                expected.mark = mark if name in kept.marks and edited == expected.edited else self.desk.now
        kept = self.past[-1 - min(journal, len(self.past) - 1)]
        synced = self.desk.journal.synced
        for path, size in sizes(self.desk.layout.journal).items():
            _cut(path, min(size, max(kept.journal.get(path, 0), synced.get(path, 0)) + 9))
        self.past.clear()

    # files

    def edit(self, kind: str, twice: bool) -> None:
        """The file gets another text and another rule; or twice, and then it has its own rule again."""
        name = self.names[kind]
        expected, changes = self.expected[name], 2 if twice else 1
        for _ in range(changes):
            self.edits += 1
            expected.edited = not expected.edited
            rule = expected.kind.other if expected.edited else expected.kind.rule
            self.desk.task(name, expected.kind.text(rule, f"beat {self.edits}"))
        self.desk.look()
        expected.slots = self._slots(kind, expected.edited)
        if not twice:
            expected.mark = self.desk.now
        self._keep()

    def rename(self, kind: str) -> None:
        """The file gets another name: another task."""
        before, self.renames = self.names[kind], self.renames + 1
        name = self.names[kind] = f"{kind}-{self.renames}"
        tasks = self.desk.layout.tasks
        os.rename(tasks / f"{before}.md", tasks / f"{name}.md")
        edited = self.expected[before].edited
        self.expected[before].active = False
        self._expect(name, kind)
        self.expected[name].edited = edited
        self.expected[name].slots = self._slots(kind, edited)
        self.desk.look()
        self._keep()

    def pause(self, kind: str) -> None:
        """Pause a task, or let it go on."""
        name = self.names[kind]
        expected = self.expected[name]
        expected.active = not expected.active
        why = "" if expected.active else "by request"
        self.desk.book.set_state(name, paused=why, paused_print="", since=self.desk.now)
        self.desk.look()
        expected.mark = self.desk.now
        self.past.clear()  # all before is synced now
        self._keep()

    # the disk

    def _states(self) -> tuple[int, int]:
        status = os.stat(self.desk.layout.task_states / "states.jsonl")
        return status.st_ino, status.st_size

    def _keep(self) -> None:
        marks = {name: (each.mark, each.edited) for name, each in self.expected.items()}
        self.past.append(Moment(self._states(), sizes(self.desk.layout.journal), marks))
        del self.past[:-30]

    # the end

    def check(self) -> None:
        """The journal and what was handed in account for every slot as the oracle does."""
        taken = self.desk.taken
        assert len({each.run for each in taken}) == len(taken)
        handed_in: dict[str, list[datetime]] = {name: [] for name in self.expected}
        for envelope in taken:
            assert envelope.slot
            handed_in[envelope.task].append(envelope.slot)
        records = {event: self.desk.events(event) for event in ("missed", "skipped", "gated")}
        missed = self._counted(
            (record["task"], slot) for record in records["missed"] for slot in self.told[_told(record)]
        )  # fmt: skip
        skipped, gated = (
            self._counted((record["task"], _time(record["slot"])) for record in records[event])
            for event in ("skipped", "gated")
        )
        assert all(record["why"] for each in records.values() for record in each)
        for name, expected in self.expected.items():
            assert len(set(handed_in[name])) == len(handed_in[name]), name
            if expected.kind.jitter:
                continue
            assert handed_in[name] == list(expected.run), name
            if self.cut:  # what was judged twice may be told twice, or once
                for found, wanted in (
                    (missed, expected.missed), (skipped, expected.skipped), (gated, expected.gated)
                ):  # fmt: skip
                    assert found[name].keys() <= wanted.keys(), name
                told = missed[name].keys() | skipped[name].keys() | gated[name].keys() | expected.run.keys()
                all_ = expected.missed.keys() | expected.skipped.keys() | expected.gated.keys()
                assert not sorted(all_ - told), name
            else:
                assert missed[name] == expected.missed, name
                assert skipped[name] == expected.skipped, name
                assert gated[name] == expected.gated, name
        spread, slots = KINDS["spread"].jitter, self.expected["spread"].slots
        due = slots[bisect_right(slots, self.start) : bisect_right(slots, self.desk.now - spread)]
        assert not set(due) - set(handed_in["spread"]) - missed["spread"].keys()
        assert min(self.late, default=SECOND) >= timedelta()

    def _counted(self, slots: Iterable[tuple[str, datetime]]) -> dict[str, Counter[datetime]]:
        found: dict[str, Counter[datetime]] = {name: Counter() for name in self.expected}
        for task, slot in slots:
            found[task][slot] += 1
        return found


class Replaced(list[str]):
    """Ends the runs that are replaced."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def append(self, text: str) -> None:
        run, world = text.partition(" ")[0], self._world
        world.desk.runs.end(run)
        world.desk.open = [folder for folder in world.desk.open if folder.run != run]


def holds(now: datetime) -> bool:
    """Whether gates hold."""
    return now.toordinal() % 2 == 0


def sizes(folder: Path) -> dict[str, int]:
    """How long each file is."""
    return {entry.path: entry.stat().st_size for entry in os.scandir(folder)}


def _cut(path: str, size: int) -> None:
    if os.path.exists(path):
        os.truncate(path, size)


def _told(record: dict[str, Any]) -> tuple[str, datetime, datetime]:
    return record["task"], _time(record["time"]), _time(record["first"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _duration(span: timedelta) -> str:
    return f"{int(span.total_seconds())}s"
