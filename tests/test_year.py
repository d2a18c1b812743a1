"""Simulated months: tasks of every kind, restarts, kills and jumps of the clock at random. The journal accounts
for every slot there was, as an oracle has it that works the policies out from the moments at which anybody looked.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desk import Desk
from fsagent.config import Settings
from fsagent.files.fields import Duration
from fsagent.workspace.tasks import slots_of

ZONE = "Europe/Berlin"
START = datetime(2026, 3, 20, 8, 0, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GRACE = timedelta(seconds=60)


@dataclass(frozen=True)
class Kind:
    """A task, and what its policies mean for the oracle. ``lasts`` is how long its runs take."""

    text: str
    missed: str = "once"
    within: timedelta = 12 * HOUR
    overlap: str = "skip"
    lasts: timedelta = timedelta()


KINDS = {
    "hourly": Kind("every: 1h"),
    "odd": Kind("every: 7h13m\nwithin: 2h", within=2 * HOUR),
    "at": Kind('at: ["02:30", "18:00"]\nmissed: skip', missed="skip"),
    "weekdays": Kind('at: "09:00"\non: mon-fri\nwithin: 3d', within=3 * DAY),
    "cron": Kind('cron: "15 */6 * * *"\nmissed: all\nwithin: 2d', missed="all", within=2 * DAY),
    "night": Kind('cron: "30 2 * * *"\ntimezone: America/New_York'),
    "month": Kind('cron: "0 12 L * *"\nmissed: all\nwithin: 10d', missed="all", within=10 * DAY),
    "friday": Kind('cron: "0 17 * * 5#2"\nwithin: 1d', within=DAY),
    "active": Kind("every: 90m\nactive: 22:00-06:00\nfrom: 2026-04-02\nuntil: 2027-01-31"),
    "once": Kind("once: 2026-05-01 14:00\nwithin: 5d", within=5 * DAY),
    "slow": Kind("every: 2h", lasts=3 * HOUR),
    "queued": Kind("every: 6h\noverlap: queue", overlap="queue", lasts=7 * HOUR),
    "second": Kind('at: "12:00:30"\nmissed: skip', missed="skip"),
}


@dataclass
class Expected:
    """What the oracle expects of one task."""

    slots: list[datetime]
    mark: datetime
    run: list[datetime] = field(default_factory=list)
    missed: Counter[datetime] = field(default_factory=Counter)
    skipped: Counter[datetime] = field(default_factory=Counter)
    open: list[datetime] = field(default_factory=list)  # when its runs end

    def look(self, kind: Kind, now: datetime) -> None:
        """Somebody looks at the clock."""
        self.open = [end for end in self.open if end > now]
        passed = [slot for slot in self.slots if self.mark < slot <= now]
        if not passed:
            return
        self.mark = passed[-1]
        if kind.missed == "all":
            chosen = [slot for slot in passed if now - slot <= max(kind.within, GRACE)][-100:]
        elif now - passed[-1] <= (GRACE if kind.missed == "skip" else max(kind.within, GRACE)):
            chosen = passed[-1:]
        else:
            chosen = []
        self.missed.update(slot for slot in passed if slot not in chosen)
        if (kind.overlap == "skip" and self.open) or len(self.open) >= 10:
            self.skipped.update(chosen)
            return
        for slot in chosen:
            begins = max([now, *self.open]) if kind.overlap == "queue" else now
            if kind.lasts:
                self.open.append(begins + kind.lasts)
            self.run.append(slot)


class World:
    """A desk, and the oracle beside it."""

    def __init__(self, root: Path, days: int) -> None:
        self.desk = Desk(root, START)
        self.desk.settings = Settings(heartbeat_interval=Duration(3600), timezone=ZONE)
        self.end = START + timedelta(days=days)
        for name, kind in KINDS.items():
            self.desk.task(name, f"---\n{kind.text}\n---\nbeat")
        self.desk.look()
        assert not self.desk.book.broken()
        self.expected = {}
        for name in KINDS:
            task = self.desk.book.get(name)
            slots = slots_of(task, self.desk.settings)
            self.expected[name] = Expected(list(slots.between(START, self.end + 40 * DAY)), START)
        self.desk.busy = {name for name, kind in KINDS.items() if kind.lasts}
        self.ends: dict[str, datetime] = {}  # when the open runs of slow tasks end

    def look(self) -> float | None:
        """Time has come to ``desk.now``."""
        now = self.desk.now
        for folder in list(self.desk.open):
            if self.ends[folder.run] <= now:
                self.desk.runs.end(folder.run)
                self.desk.open.remove(folder)
        before = len(self.desk.taken)
        idle = self.desk.tick()
        for envelope in self.desk.taken[before:]:
            kind = KINDS[envelope.task]
            others = [self.ends[each.run] for each in self.desk.open if each.run in self.ends
                      and (found := each.envelope()) and found.task == envelope.task]  # fmt: skip
            self.ends[envelope.run] = max([now, *others]) + kind.lasts
        for name, expected in self.expected.items():
            expected.look(KINDS[name], now)
        return idle

    def go_to(self, moment: datetime) -> None:
        """Let time pass as a daemon does: it sleeps until the next slot."""
        while True:
            idle = self.look()
            wake = [self.desk.now + timedelta(seconds=idle)] if idle is not None else []
            ahead = min([*wake, moment])
            if ahead <= self.desk.now:
                ahead = self.desk.now + timedelta(milliseconds=1)
            if ahead >= moment:
                self.desk.now = moment
                return
            self.desk.now = ahead

    def check(self) -> None:
        """The journal and what was handed in account for every slot as the oracle does."""
        handed_in: dict[str, list[datetime]] = {name: [] for name in KINDS}
        for envelope in self.desk.taken:
            assert envelope.slot
            handed_in[envelope.task].append(envelope.slot)
        skipped: dict[str, Counter[datetime]] = {name: Counter() for name in KINDS}
        for record in self.desk.events("skipped"):
            skipped[record["task"]][datetime.fromisoformat(record["slot"])] += 1
        missed: dict[str, Counter[datetime]] = {name: Counter() for name in KINDS}
        for record in self.desk.events("missed"):
            first, last = (datetime.fromisoformat(record[key]) for key in ("first", "last"))
            each = [slot for slot in self.expected[record["task"]].slots if first <= slot <= last]
            assert len(each) == record["slots"], record
            assert record["why"]
            missed[record["task"]].update(each)
        for name, expected in self.expected.items():
            assert handed_in[name] == expected.run, name
            assert missed[name] == expected.missed, name
            assert skipped[name] == expected.skipped, name


MOVES = st.one_of(
    st.tuples(st.just("live"), st.integers(1, 9 * 24 * 3600)),
    st.tuples(st.just("off"), st.one_of(st.integers(1, 120), st.integers(1, 5 * 24 * 3600))),
    st.tuples(st.just("sleep"), st.one_of(st.integers(1, 120), st.integers(1, 3 * 24 * 3600))),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("look"), st.just(0)),
)


def play(world: World, moves: list[tuple[str, int]]) -> None:
    for move, seconds in moves:
        if move == "live":
            world.go_to(min(world.desk.now + timedelta(seconds=seconds), world.end))
        elif move == "sleep":  # nobody looks meanwhile; a clock set forward is the same
            world.desk.now = min(world.desk.now + timedelta(seconds=seconds), world.end)
        elif move == "look":
            world.desk.look()
        else:
            world.desk.now = min(world.desk.now + timedelta(seconds=seconds), world.end)
            world.desk.start()
            world.desk.busy = {name for name, kind in KINDS.items() if kind.lasts}
    world.go_to(world.desk.now + HOUR)


@pytest.fixture
def fast_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: a year has some ten thousand runs, each synced to the disk."""
    shm = Path("/dev/shm")
    root = Path(shutil.os.path.join(shm, f"fsagent-{random.randrange(10**12)}")) if shm.is_dir() else None
    folder = root or tmp_path_factory.mktemp("year")
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=3, max_size=12))
def test_every_slot_is_accounted_for(fast_disk: Path, moves: list[tuple[str, int]]) -> None:
    root = fast_disk / f"{random.randrange(10**12)}"
    world = World(root, days=60)
    play(world, moves)
    world.check()
    world.desk.journal.close()
    shutil.rmtree(root)
