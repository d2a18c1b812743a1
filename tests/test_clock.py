"""Heartbeats on a stepped clock: every slot once, at its time, whatever the clock, the tasks or the daemon do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.clock import Clock, slot_run
from fsagent.config import Settings
from fsagent.files.fields import Duration
from fsagent.timetable import Slots, Timetable
from fsagent.workspace.create import init_workspace
from fsagent.workspace.journal import Journal, read_records
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder, claim_dropped, dropped
from fsagent.workspace.tasks import TaskBook

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


class Desk:
    """A workspace with a clock and somebody who takes what the clock hands in (and says what still runs)."""

    def __init__(self, root: Path, now: datetime = NOON + timedelta(seconds=0.5)) -> None:
        self.layout: Layout = init_workspace(root)[0]
        (self.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
        self.now = now
        self.settings = Settings(heartbeat_interval=Duration(60))
        self.running: set[str] = set()
        self.taken: list[Envelope] = []
        self.start()

    def start(self) -> None:
        """(Re)start: nothing is known but what lies on the disk."""
        self.journal = Journal(self.layout.journal, lambda: self.now)
        self.book = TaskBook(self.layout)
        self.clock = Clock(self.book, lambda: self.settings, self.journal, lambda task: task in self.running)
        self.look()

    def task(self, name: str, text: str = "beat") -> Path:
        path = self.layout.tasks / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def look(self) -> None:
        self.book.scan()
        self.clock.update(self.now)

    def tick(self) -> float | None:
        idle = self.clock.tick(self.now)
        for run in dropped(self.layout):
            folder = claim_dropped(self.layout, run)
            assert folder
            envelope = folder.envelope()
            assert envelope
            self.taken.append(envelope)
        return idle

    def step(self, by: timedelta, times: int = 1) -> None:
        for _ in range(times):
            self.now += by
            self.tick()

    def slots(self, task: str | None = None) -> list[str]:
        return [f"{each.slot:%H:%M:%S}" for each in self.taken if task in (None, each.task)]

    def events(self, kind: str) -> list[dict[str, Any]]:
        records = [record for path in sorted(self.layout.journal.glob("*")) for _, record in read_records(path)]
        return [record for record in records if record and record["event"] == kind]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ws")


def minutes(count: int, start: int = 1) -> list[str]:
    return [f"12:{n:02}:00" for n in range(start, start + count)]


# slots


def next_slot(every: float, moment: datetime) -> datetime:
    slot = Slots(Timetable(every=every), 60, UTC).after(moment)
    assert slot
    return slot


def last_slot(every: float, moment: datetime) -> datetime:
    slot = Slots(Timetable(every=every), 60, UTC).last(moment)
    assert slot
    return slot


@given(st.floats(1, 10**6) | st.integers(1, 10**6), st.floats(0, 4 * 10**9))
def test_slots_are_fixed_points_of_the_clock(every: float, seconds: float) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    before, after = last_slot(every, moment), next_slot(every, moment)
    assert before <= moment + timedelta(milliseconds=1)
    assert after > moment - timedelta(milliseconds=1)
    assert abs((after - before).total_seconds() - every) < 0.01
    assert next_slot(every, after - timedelta(seconds=every / 2)) == pytest.approx(after, abs=timedelta(milliseconds=1))


@given(st.integers(1, 10**6), st.integers(0, 4 * 10**9))
def test_a_slot_is_its_own_last_one(every: int, number: int) -> None:
    slot = datetime.fromtimestamp((number // every) * every, UTC)
    assert last_slot(every, slot) == slot
    assert next_slot(every, slot) == slot + timedelta(seconds=every)


def test_ten_minutes_are_ten_entries(desk: Desk) -> None:
    desk.task("log", "Log the timestamp to log.txt")
    desk.look()
    assert desk.tick() == pytest.approx(59.5)
    desk.step(SECOND, 600)
    assert desk.slots() == minutes(10)
    assert desk.tick() == pytest.approx(59.5)


def test_no_drift_however_the_ticks_come(desk: Desk) -> None:
    desk.task("log", "---\nevery: 10s\n---\nbeat")
    desk.look()
    for _ in range(300):
        desk.step(timedelta(seconds=1.37))
    end = desk.now
    expected = [NOON + timedelta(seconds=10 * n) for n in range(1, int((end - NOON).total_seconds() // 10) + 1)]
    assert [each.slot for each in desk.taken] == expected
    assert desk.events("missed") == []


def test_it_says_how_long_it_may_sleep(desk: Desk) -> None:
    assert desk.tick() is None
    assert desk.clock.next_due() is None
    desk.task("a", "---\nevery: 1h\n---\nbeat")
    desk.task("b", "---\nevery: 90s\n---\nbeat")
    desk.look()
    assert desk.tick() == pytest.approx(next_slot(90, desk.now).timestamp() - desk.now.timestamp())
    assert desk.clock.next_due() == (next_slot(90, desk.now), "b")


def test_what_is_handed_in_says_all(desk: Desk) -> None:
    desk.task(
        "sub/log",
        "---\nevery: 1m\nreport: always\ntimeout: 90s\nsteps:\n  - append: {path: a, text: '{{ now }}'}\n"
        "    on_error: continue\n  - read: a\n---\nwords",
    )
    desk.look()
    desk.step(MINUTE)
    (envelope,) = desk.taken
    assert envelope.task == "sub/log"
    assert (envelope.trigger, envelope.report, envelope.path) == ("task", "always", "tasks/sub/log.md")
    assert envelope.slot == NOON + MINUTE
    assert envelope.run == slot_run("sub/log", NOON + MINUTE)
    text = RunFolder(desk.layout.runs / envelope.run).raw().decode()
    for piece in ("timeout: 1m30s", "{{ now }}", "on_error: continue", "read: a", "words"):
        assert piece in text


def test_the_shortest_period_is_a_second(desk: Desk) -> None:
    desk.task("fast", "---\nevery: 1s\n---\nbeat")
    desk.task("too-fast", "---\nevery: 0.5s\n---\nbeat")
    desk.look()
    desk.step(timedelta(seconds=0.25), 40)
    assert len(desk.slots("fast")) == 10
    assert desk.slots("too-fast") == []
    assert "at least 1s" in str(desk.book.broken()["too-fast"])


# what happens to the clock


def test_a_clock_set_forward_runs_once_and_tells_what_was_missed(desk: Desk) -> None:
    desk.task("log")
    desk.look()
    desk.step(MINUTE)
    desk.step(timedelta(hours=5))
    assert desk.slots() == ["12:01:00", "17:01:00"]
    (missed,) = desk.events("missed")
    assert missed["slots"] == 299
    assert (missed["first"], missed["last"]) == ("2026-11-22T12:02:00Z", "2026-11-22T17:00:00Z")
    desk.step(MINUTE)
    assert desk.slots()[-1] == "17:02:00"


@pytest.mark.parametrize("look_first", [False, True])
def test_a_clock_set_back_repeats_nothing_and_goes_on(desk: Desk, look_first: bool) -> None:
    desk.task("log")
    desk.look()
    desk.step(MINUTE, 5)
    assert desk.slots() == minutes(5)
    desk.now -= timedelta(days=1)
    if look_first:
        desk.look()  # the daemon's scan may see the new time before the clock does
    desk.tick()
    desk.step(MINUTE, 3)
    assert desk.slots() == minutes(5) + minutes(3, 6), "the slots of the day before were never run"
    assert len(desk.events("clock")) == 1
    desk.now += timedelta(days=1) - 8 * MINUTE
    desk.taken.clear()
    desk.step(MINUTE, 9)
    runs = [each.run for each in desk.taken]
    assert len(runs) == len(set(runs))
    assert not set(desk.slots()) & set(minutes(5)), "no slot is run twice"


@pytest.mark.parametrize("back", [0.5, 5, 65, 200])
def test_a_clock_set_back_a_little_runs_no_slot_twice(desk: Desk, back: float) -> None:
    desk.task("log")
    desk.look()
    desk.step(MINUTE, 5)
    desk.now -= timedelta(seconds=back)
    desk.step(SECOND, 420)
    slots = desk.slots()
    assert len(slots) == len(set(slots))
    assert slots == sorted(slots)
    assert slots[-1] == f"{last_slot(60, desk.now):%H:%M:%S}"


# what happens to the daemon


def test_a_restart_neither_repeats_nor_forgets(desk: Desk) -> None:
    desk.task("log")
    desk.look()
    for _ in range(10):
        desk.step(timedelta(seconds=30))
        desk.start()
        desk.tick()
        desk.start()
        desk.step(timedelta(seconds=30))
    assert desk.slots() == minutes(10)


def test_after_a_night_off_the_last_slot_is_run_once(desk: Desk) -> None:
    desk.task("log")
    desk.look()
    desk.step(MINUTE, 2)
    desk.now += timedelta(hours=8)
    desk.start()
    desk.tick()
    desk.tick()
    assert desk.slots() == ["12:01:00", "12:02:00", "20:02:00"]
    assert [each["slots"] for each in desk.events("missed")] == [479]


def test_a_slot_handed_in_whose_watermark_was_lost_is_not_run_again(desk: Desk) -> None:
    """A power cut may take the watermark, which is not synced; the run itself is."""
    desk.task("log")
    desk.look()
    desk.step(MINUTE, 3)
    log = desk.layout.task_states / "states.jsonl"
    record = msgspec.json.decode(log.read_bytes().splitlines()[-1])
    record["state"]["watermark"] = "2026-11-22T12:00:00Z"
    log.write_bytes(msgspec.json.encode(record) + b"\n")
    desk.start()
    desk.tick()
    assert desk.slots() == minutes(3)
    desk.step(MINUTE, 2)
    assert desk.slots() == minutes(5)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"watermark": "soon"}', b"\xff\xfe", b'{"paused": "\xff"}', b"null"]
)
def test_a_damaged_state_counts_as_none(desk: Desk, damage: bytes) -> None:
    desk.task("log")
    desk.look()
    desk.step(MINUTE)
    for path in desk.layout.task_states.iterdir():
        path.write_bytes(damage)
    desk.start()
    desk.step(MINUTE)
    assert desk.slots() == minutes(2)


# what happens to the tasks


def test_a_task_that_still_runs_skips_its_slot_and_that_is_recorded(desk: Desk) -> None:
    desk.task("log")
    desk.task("other")
    desk.look()
    desk.step(MINUTE)
    desk.running = {"log"}
    desk.step(MINUTE, 2)
    desk.running = set()
    desk.step(MINUTE)
    assert desk.slots("log") == ["12:01:00", "12:04:00"]
    assert desk.slots("other") == minutes(4), "it delays no other"
    assert [(each["task"], each["slot"]) for each in desk.events("skipped")] == [
        ("log", "2026-11-22T12:02:00Z"), ("log", "2026-11-22T12:03:00Z"),
    ]  # fmt: skip


def test_a_paused_task_rests_and_has_missed_nothing_when_it_is_resumed(desk: Desk) -> None:
    desk.task("log")
    desk.look()
    desk.step(MINUTE)
    desk.book.set_state("log", paused="by request")
    desk.look()
    desk.step(MINUTE, 10)
    assert desk.slots() == minutes(1)
    desk.book.set_state("log", paused="")
    desk.look()
    assert desk.tick() == pytest.approx(59.5), "it starts with its next slot"
    desk.step(MINUTE)
    assert desk.slots() == ["12:01:00", "12:12:00"]
    assert desk.events("missed") == []


def test_tasks_come_change_and_go_at_once(desk: Desk) -> None:
    path = desk.task("log")
    desk.look()
    desk.step(MINUTE)
    path.write_text("---\nenabled: false\n---\nbeat")
    desk.look()
    desk.step(MINUTE)
    path.write_text("---\nevery: 20s\n---\nbeat")
    desk.look()
    desk.step(timedelta(seconds=20), 3)
    path.write_text("---\nevery: [\n---\nbroken")
    desk.look()
    desk.step(MINUTE)
    path.rename(desk.layout.tasks / "renamed.md").write_text("beat, a new text")
    desk.look()
    desk.step(MINUTE)
    (desk.layout.tasks / "renamed.md").unlink()
    desk.look()
    desk.step(MINUTE)
    assert desk.slots("log") == ["12:01:00", "12:02:20", "12:02:40", "12:03:00"]
    assert desk.slots("renamed") == ["12:05:00"]
    assert desk.tick() is None
    assert desk.events("missed") == []


def test_a_file_that_is_gone_for_a_moment_loses_no_slot(desk: Desk) -> None:
    """vim and sync clients save by taking the old file away first."""
    path = desk.task("log")
    desk.look()
    desk.step(timedelta(seconds=59))
    path.unlink()
    desk.look()
    desk.step(SECOND)
    desk.task("log")
    desk.look()
    desk.tick()
    assert desk.slots() == minutes(1)


def test_another_heartbeat_interval_counts_at_once(desk: Desk) -> None:
    desk.settings = Settings(heartbeat_interval=Duration(3600))
    desk.task("log")
    desk.task("own", "---\nevery: 30m\n---\nbeat")
    desk.look()
    desk.step(MINUTE, 50)
    desk.settings = Settings(heartbeat_interval=Duration(60))
    desk.look()
    desk.step(MINUTE, 2)
    assert desk.slots("log") == ["12:51:00", "12:52:00"]
    assert desk.slots("own") == ["12:30:00"]
    assert desk.events("missed") == [], "a shorter interval makes nothing missed"
    desk.settings = Settings(heartbeat_interval=Duration(3600))
    desk.look()
    desk.step(MINUTE, 10)
    assert desk.slots("log")[2:] == ["13:00:00"]


def test_a_changed_text_keeps_its_slots(desk: Desk) -> None:
    path = desk.task("log")
    desk.look()
    for number in range(5):
        desk.step(timedelta(seconds=50))
        path.write_text(f"beat {number}")
        desk.look()
        desk.step(timedelta(seconds=10))
    assert desk.slots() == minutes(5)
    assert RunFolder(desk.layout.runs / desk.taken[-1].run).raw() == b"beat 4"


def test_a_disk_that_refuses_costs_that_slot_only(desk: Desk) -> None:
    desk.task("log")
    desk.look()
    desk.layout.tmp.rmdir()
    desk.step(MINUTE)
    assert desk.slots() == []
    assert [each["task"] for each in desk.events("error")] == ["log"]
    desk.layout.tmp.mkdir()
    desk.step(MINUTE)
    assert desk.slots() == ["12:02:00"]


@settings(max_examples=25, deadline=None)
@given(moves=st.lists(st.sampled_from([1, 7, 30, 61, 400, -1, -30, -90, -4000, "restart", "look"]), max_size=30))
def test_whatever_the_clock_does_no_slot_is_run_twice(
    tmp_path_factory: pytest.TempPathFactory, moves: list[int | str]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("clock") / "ws")
    desk.task("log")
    desk.look()
    for move in moves:
        if move == "restart":
            desk.start()
        elif move == "look":
            desk.look()
        else:
            desk.step(timedelta(seconds=int(move)))
    desk.step(timedelta(seconds=30), 2)
    slots = [each.slot for each in desk.taken]
    assert len(slots) == len(set(slots))
    desk.journal.close()


# ten thousand tasks


@pytest.fixture
def calls() -> Iterator[Any]:
    """Counts the function calls of a piece of work: what it costs, whatever the machine."""

    def count(work: Any) -> int:
        seen = 0

        def profile(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(None)
        return seen

    yield count
    sys.setprofile(None)


def test_a_tick_costs_what_is_due_not_what_exists(tmp_path: Path, calls: Any) -> None:
    costs: dict[int, list[int]] = {}
    for size in (10, 10_000):
        desk = Desk(tmp_path / f"ws{size}")
        desk.settings = Settings(heartbeat_interval=Duration(86400))
        desk.task("fast", "---\nevery: 1m\n---\nbeat")
        for number in range(size):
            desk.task(f"t{number}")
        desk.look()
        nothing = calls(desk.tick)
        desk.now += MINUTE
        one = calls(desk.tick)
        assert desk.slots() == minutes(1)
        costs[size] = [nothing, one]
        desk.journal.close()
    assert costs[10_000][0] <= costs[10][0] + 20, costs
    assert costs[10_000][1] <= costs[10][1] * 1.5 + 20, costs
