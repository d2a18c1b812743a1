"""Heartbeats on a stepped clock: every slot once, at its time, whatever the clock, the tasks or the daemon do."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desk import NOON, Desk
from fsagent.clock import slot_run
from fsagent.config import Settings
from fsagent.files.fields import Duration
from fsagent.gates import Verdict
from fsagent.timetable import Slots, Timetable
from fsagent.workspace.runs import RunFolder

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


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


def test_after_a_month_a_task_of_a_minute_has_drifted_by_nothing(desk: Desk) -> None:
    desk.task("log", "---\nevery: 1m\n---\nbeat")
    desk.look()
    steps = random.Random(20261122)
    while desk.now < NOON + timedelta(days=30):
        desk.step(timedelta(seconds=steps.uniform(0.1, 40_000)))
        desk.start()
        desk.step(timedelta(seconds=steps.uniform(0.1, 90)), 3)
    desk.taken.clear()
    for _ in range(120):
        desk.now += timedelta(seconds=desk.tick() or 0)
    assert len(desk.taken) >= 119
    assert {(each.slot - NOON) % MINUTE for each in desk.taken if each.slot} == {timedelta()}
    assert desk.tick() == pytest.approx(60), "it wakes at the very minute"


def test_it_says_how_long_it_may_sleep(desk: Desk) -> None:
    assert desk.tick() is None
    assert desk.clock.upcoming(5) == []
    desk.task("a", "---\nevery: 1h\n---\nbeat")
    desk.task("b", "---\nevery: 90s\n---\nbeat")
    desk.look()
    assert desk.tick() == pytest.approx(next_slot(90, desk.now).timestamp() - desk.now.timestamp())
    first, second = desk.clock.upcoming(5)
    assert first == (next_slot(90, desk.now), "b")
    assert second == (next_slot(3600, desk.now), "a")


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


def test_a_clock_set_back_a_little_loses_no_slot_that_waits_for_its_jitter(desk: Desk) -> None:
    desk.task("log", head("every: 1h\njitter: 30m"))
    desk.look()
    ((due, _),) = desk.clock.upcoming(1)
    desk.now = due - 2 * MINUTE
    desk.tick()
    desk.now -= MINUTE
    desk.tick()
    desk.step(SECOND, 4 * 60)
    assert desk.slots() == ["13:00:00"]


def test_a_clock_that_was_years_ahead_for_a_while_silences_no_task(desk: Desk) -> None:
    """A machine without a battery for its clock, and a daemon that is started before the time is known."""
    desk.task("log")
    desk.look()
    desk.step(MINUTE)
    desk.now += timedelta(days=3650)
    desk.start()
    desk.tick()
    desk.now -= timedelta(days=3650)
    desk.start()
    desk.step(MINUTE, 2)
    assert [each.slot for each in desk.taken if each.slot and each.slot.year == 2026] == [
        NOON + n * MINUTE for n in (1, 2, 3)
    ]


def test_slots_that_come_again_are_not_looked_at_again(desk: Desk, calls: Any) -> None:
    """They have their run: no gate is asked, so no change that a gate saw is used up, none is told as skipped, and it
    costs the same however many there are."""
    desk.task("gated", head("every: 1m\nwhen: {changed: a.csv}"))
    desk.task("busy", head("every: 1m"))
    desk.gates.says["gated"] = Verdict(holds=True)
    desk.look()
    for _ in range(60):
        desk.step(MINUTE)
        desk.tick()
    desk.now -= timedelta(hours=1)
    asked = len(desk.gates.asked)
    desk.runs.add("a run that does not end", "busy")
    costs = [calls(lambda: desk.step(MINUTE)) for _ in range(50)]
    assert costs[-1] <= costs[1] * 1.5 + 20, costs
    assert len(desk.gates.asked) == asked == 60
    assert desk.events("skipped") == []
    for _ in range(12):
        desk.step(MINUTE)
        desk.tick()
    assert len(desk.gates.asked) == asked + 2, "those that are new"


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
    desk.busy = {"log"}
    desk.step(MINUTE, 3)
    desk.busy = set()
    desk.tick()
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


def test_a_task_that_is_let_go_while_no_daemon_runs_has_missed_nothing(desk: Desk) -> None:
    """It was paused for its failures, and its file was edited: the next daemon resumes it as it begins."""
    desk.task("log")
    desk.look()
    desk.step(MINUTE)
    desk.book.set_state("log", paused="5 failures in a row", since=desk.now)
    desk.look()
    desk.step(MINUTE, 10)
    desk.book.set_state("log", paused="", since=desk.now)
    desk.start()
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


def test_another_zone_of_the_system_counts_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that travels, where the settings name no zone."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    desk.settings = Settings()
    desk.task("wall", head('at: "18:00"'))
    desk.task("own", head('at: "18:00"\ntimezone: Europe/Berlin'))
    desk.task("period", head("every: 6h"))
    desk.look()
    hour = timedelta(hours=1)
    assert sorted(desk.clock.upcoming(3)) == [
        (NOON + 5 * hour, "own"), (NOON + 5 * hour, "wall"), (NOON + 6 * hour, "period"),
    ]  # fmt: skip
    monkeypatch.setenv("TZ", "America/New_York")
    desk.look()
    desk.step(hour, 11)
    assert [(each.task, each.slot) for each in desk.taken] == [
        ("own", NOON + 5 * hour), ("period", NOON + 6 * hour), ("wall", NOON + 11 * hour),
    ]  # fmt: skip
    assert desk.events("missed") == []


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


def test_a_disk_that_refuses_for_a_while_costs_no_slot(desk: Desk) -> None:
    desk.task("log")
    desk.task("daily", "---\nevery: 1d\n---\nbeat")
    desk.look()
    desk.layout.tmp.rmdir()
    desk.step(MINUTE)
    assert desk.slots() == []
    assert [each["what"] for each in desk.events("trouble")] == ["tasks/log"]
    desk.layout.tmp.mkdir()
    desk.step(SECOND, 11)
    assert desk.slots() == ["12:01:00"]
    assert len(desk.events("trouble over")) == 1
    desk.step(MINUTE)
    assert desk.slots() == minutes(2)
    assert desk.events("missed") == []


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


# slots that passed


def head(fields: str) -> str:
    return f"---\n{fields}\n---\nbeat"


def test_missed_skip_runs_only_what_is_not_late(desk: Desk) -> None:
    desk.task("log", head("every: 1h\nmissed: skip"))
    desk.look()
    desk.now = NOON + timedelta(hours=1, seconds=40)
    desk.start()
    desk.tick()
    assert desk.slots() == ["13:00:00"], "a daemon that is started anew at the very hour misses nothing"
    desk.now = NOON + timedelta(hours=9, minutes=2)
    desk.start()
    desk.tick()
    assert desk.slots() == ["13:00:00"]
    (missed,) = desk.events("missed")
    assert (missed["slots"], missed["why"], missed["absence"]) == (8, "missed: skip", "no daemon ran")
    desk.step(timedelta(minutes=58))
    assert desk.slots() == ["13:00:00", "22:00:00"]


def test_missed_once_runs_nothing_that_is_too_old(desk: Desk) -> None:
    desk.task("log", head("every: 1d\nwithin: 2h"))
    desk.look()
    desk.now = datetime(2026, 11, 23, 1, 59, tzinfo=UTC)
    desk.start()
    desk.tick()
    assert desk.slots() == ["00:00:00"]
    desk.now = datetime(2026, 11, 26, 2, 1, tzinfo=UTC)
    desk.start()
    desk.tick()
    assert desk.slots() == ["00:00:00"]
    assert [(each["slots"], each["why"]) for each in desk.events("missed")] == [
        (3, "they lie further back than within: 2h")
    ]
    desk.step(timedelta(hours=22))
    assert desk.slots() == ["00:00:00", "00:00:00"]


def test_missed_all_runs_every_slot_in_its_order_up_to_a_number(desk: Desk) -> None:
    desk.task("hour", head("every: 1h\nmissed: all"))
    desk.task("fast", head("every: 1s\nmissed: all"))
    desk.look()
    desk.now = NOON + timedelta(hours=15, minutes=30)
    desk.start()
    desk.busy = {"hour"}
    desk.tick()
    hours = [each.slot.hour for each in desk.taken if each.task == "hour" and each.slot]
    assert hours == [16, 17, 18, 19, 20, 21, 22, 23, 0, 1, 2, 3], "of the twelve hours that within: allows"
    fast = [each.slot for each in desk.taken if each.task == "fast"]
    assert fast == [desk.now + timedelta(seconds=n) for n in range(-99, 1)]
    missed = {each["task"]: (each["slots"], each["why"]) for each in desk.events("missed")}
    assert missed == {
        "hour": (3, "they lie further back than within: 12h"),
        "fast": (15 * 3600 + 1800 - 100, "only the latest 100 are run"),
    }


def test_a_sleep_of_the_machine_is_told_as_that(desk: Desk) -> None:
    desk.task("log", head("every: 10m"))
    desk.look()
    desk.step(timedelta(minutes=10))
    desk.step(timedelta(hours=3))
    assert desk.slots() == ["12:10:00", "15:10:00"], "no storm"
    (missed,) = desk.events("missed")
    assert missed["absence"].startswith("the machine slept")


def test_a_kill_behind_the_door_makes_no_slot_missed(desk: Desk) -> None:
    """The run was handed in, the watermark was not written: that slot ran, whatever came after it is missed."""
    desk.task("log")
    desk.look()
    desk.step(MINUTE)
    before = desk.book.state("log")
    desk.step(MINUTE)
    desk.book.set_state("log", watermark=before.watermark, next=before.next)
    desk.now += 3 * MINUTE
    desk.start()
    desk.tick()
    assert desk.slots() == ["12:01:00", "12:02:00", "12:05:00"]
    (missed,) = desk.events("missed")
    assert (missed["first"], missed["last"], missed["slots"]) == ("2026-11-22T12:03:00Z", "2026-11-22T12:04:00Z", 2)


# overlap


def test_overlap_queue_lets_them_wait_up_to_a_number(desk: Desk) -> None:
    desk.task("log", head("every: 1m\noverlap: queue"))
    desk.look()
    desk.busy = {"log"}
    desk.step(MINUTE, 12)
    assert desk.slots() == minutes(10)
    assert [each["why"] for each in desk.events("skipped")] == ["10 runs of it have not ended"] * 2
    desk.busy = set()
    desk.tick()
    desk.step(MINUTE)
    assert desk.slots() == [*minutes(10), "12:13:00"]


def test_overlap_replace_ends_the_run_before(desk: Desk) -> None:
    desk.task("log", head("every: 1m\noverlap: replace"))
    desk.look()
    desk.busy = {"log"}
    desk.step(MINUTE, 2)
    assert desk.slots() == minutes(2)
    first = slot_run("log", NOON + MINUTE)
    assert desk.replaced == [f"{first} overlap: replace; the slot of 2026-11-22 12:02:00 came"]
    assert [(each["run"], each["slot"]) for each in desk.events("replaced")] == [(first, "2026-11-22T12:02:00Z")]


def test_a_run_from_before_the_restart_counts(desk: Desk) -> None:
    desk.task("log")
    desk.look()
    desk.busy = {"log"}
    desk.step(MINUTE)
    desk.start()
    desk.step(MINUTE)
    assert desk.slots() == minutes(1)
    assert [each["why"] for each in desk.events("skipped")] == ["its run before has not ended"]


# jitter


def test_jitter_moves_the_hour_of_the_run_and_not_its_slot(desk: Desk) -> None:
    names = [f"t{number}" for number in range(40)]
    for name in names:
        desk.task(name, head("every: 10m\njitter: 2m"))
    desk.look()
    came: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(3 * 600):
        desk.now += SECOND
        before = len(desk.taken)
        desk.tick()
        for each in desk.taken[before:]:
            assert each.slot
            came[each.task].append((desk.now - each.slot).total_seconds())
    assert {len(lates) for lates in came.values()} == {2, 3}
    lates = [late for each in came.values() for late in each]
    assert 0 < min(lates) < 30
    assert 90 < max(lates) < 122
    assert len({round(late) for late in lates}) > 30, "they do not all come together"
    assert len({round(late) for late in came["t0"]}) > 1, "nor every time alike"
    assert all(each.slot and each.slot.minute % 10 == 0 for each in desk.taken)
    assert desk.events("missed") == []


def test_jitter_is_the_same_after_a_restart(desk: Desk) -> None:
    desk.task("log", head("every: 1h\njitter: 30m"))
    desk.look()
    ((due, _),) = desk.clock.upcoming(1)
    assert NOON + timedelta(hours=1) < due < NOON + timedelta(hours=1.5)
    desk.start()
    assert desk.clock.upcoming(1) == [(due, "log")]
    desk.now = due + SECOND
    desk.start()
    desk.tick()
    assert desk.slots() == ["13:00:00"]
    assert desk.events("missed") == []


# once, and rules that change


def test_once_is_done_once(desk: Desk) -> None:
    path = desk.task("call", head("once: 2026-11-22 12:05"))
    desk.look()
    desk.step(MINUTE, 10)
    assert desk.slots() == ["12:05:00"]
    for _ in range(2):
        desk.start()
        desk.step(MINUTE, 2)
    path.write_text(head("once: 2026-11-22 12:05") + " with another text")
    desk.look()
    desk.step(MINUTE, 2)
    assert desk.slots() == ["12:05:00"]
    path.write_text(head("once: 2026-11-22 13:00"))
    desk.look()
    desk.step(MINUTE, 60)
    assert desk.slots() == ["12:05:00", "13:00:00"]


def test_once_that_comes_late_by_sync_is_done_all_the_same_but_not_days_later(desk: Desk) -> None:
    desk.task("soon", head("once: 2026-11-22 11:30"))
    desk.task("old", head("once: 2026-11-20 11:30"))
    desk.look()
    desk.tick()
    assert [(each.task, each.slot) for each in desk.taken] == [("soon", NOON - timedelta(minutes=30))]
    (missed,) = desk.events("missed")
    assert (missed["task"], missed["first"]) == ("old", "2026-11-20T11:30:00Z")
    desk.start()
    desk.tick()
    assert len(desk.taken) == len(desk.events("missed")) == 1
    assert "further back than within" in desk.book.state("old").held_back


def test_a_rule_that_is_changed_runs_nothing_of_the_past(desk: Desk) -> None:
    path = desk.task("log", head('at: "18:00"'))
    desk.look()
    desk.now = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)
    path.write_text(head('at: "14:00"'))
    desk.look()
    desk.step(MINUTE, 10)
    assert desk.slots() == []
    path.write_text(head('at: "13:00"'))
    desk.start()
    desk.step(MINUTE, 10)
    assert desk.slots() == []
    assert desk.events("missed") == []


def test_two_rules_with_the_same_slot_run_it_once(desk: Desk) -> None:
    path = desk.task("log", head("every: 1m"))
    desk.look()
    desk.step(MINUTE)
    desk.now -= SECOND
    path.write_text(head('cron: "* * * * *"'))
    desk.look()
    desk.step(SECOND, 3)
    desk.now -= timedelta(seconds=5)
    path.write_text(head("every: 20s"))
    desk.look()
    desk.step(SECOND, 8)
    assert desk.slots() == ["12:01:00"]


# gates


def test_a_gate_that_does_not_hold_costs_a_line_in_the_journal(desk: Desk) -> None:
    desk.task("log", head("when: {exists: a.csv}"))
    desk.task("other")
    desk.look()
    desk.gates.says["log"] = Verdict(holds=False, why="a.csv is not there")
    desk.step(MINUTE, 2)
    desk.tick()
    assert desk.slots("log") == []
    assert desk.slots("other") == minutes(2)
    assert [(each["slot"], each["why"], each["fault"]) for each in desk.events("gated")] == [
        ("2026-11-22T12:01:00Z", "a.csv is not there", False), ("2026-11-22T12:02:00Z", "a.csv is not there", False),
    ]  # fmt: skip
    assert desk.book.state("log").held_back == "a.csv is not there"
    desk.gates.says["log"] = Verdict(holds=True, given="what it brought", seen={"g": "1"})
    desk.step(MINUTE)
    desk.tick()
    assert desk.slots("log") == ["12:03:00"]
    assert next(each for each in desk.taken if each.task == "log").given == "what it brought"
    assert desk.book.state("log").held_back == ""
    desk.step(MINUTE)
    assert desk.gates.asked[-1][2] == {"g": "1"}, "what it saw when it held last"


def test_every_slot_that_a_gate_held_back_is_in_the_journal(desk: Desk) -> None:
    desk.task("log", head("every: 1h\nmissed: all\nwhen: {exists: a.csv}"))
    desk.task("changed", head("every: 1h\nmissed: all\nwhen: {exists: a.csv}"))
    desk.look()
    desk.gates.says["log"] = Verdict(holds=False, why="a.csv is not there")
    desk.step(timedelta(hours=3))
    desk.task("changed", head("every: 1h\nwhen: {exists: b.csv}"))
    desk.look()
    desk.gates.says["changed"] = Verdict(holds=True)
    desk.tick()
    hours = [f"2026-11-22T{hour}:00:00Z" for hour in (13, 14, 15)]
    assert [each["slot"] for each in desk.events("gated")] == hours
    assert [each["slot"] for each in desk.events("skipped")] == hours
    assert desk.slots() == []


def test_a_gate_that_takes_long_delays_nobody_and_loses_nothing(desk: Desk) -> None:
    desk.task("log", head("when: {exists: a.csv}"))
    desk.task("other")
    desk.look()
    desk.step(MINUTE, 3)
    assert desk.slots("other") == minutes(3)
    assert [each["why"] for each in desk.events("skipped")] == ["its gates are still being looked at"] * 2
    desk.gates.says["log"] = Verdict(holds=True)
    desk.tick()
    assert desk.slots("log") == ["12:01:00"]
    desk.step(MINUTE)
    desk.tick()
    assert desk.slots("log") == ["12:01:00", "12:04:00"]


def test_a_kill_while_gates_are_looked_at_has_them_looked_at_again(desk: Desk) -> None:
    desk.task("log", head("every: 1h\nwhen: {exists: a.csv}"))
    desk.look()
    desk.step(timedelta(hours=1))
    assert len(desk.gates.asked) == 1
    desk.start()
    desk.gates.says["log"] = Verdict(holds=True)
    desk.step(SECOND)
    desk.tick()
    assert desk.slots("log") == ["13:00:00"]
    assert desk.events("missed") == []


def test_a_gate_that_is_broken_is_told(desk: Desk) -> None:
    desk.task("log", head("when: {exists: a.csv}"))
    desk.look()
    desk.gates.says["log"] = Verdict(holds=False, why="shell is not allowed", fault=True)
    desk.step(MINUTE)
    desk.tick()
    desk.gates.says["log"] = Verdict(holds=True)
    desk.step(MINUTE)
    desk.tick()
    assert desk.faults == [("log", "shell is not allowed"), ("log", "")]


def test_a_task_that_is_changed_while_its_gates_are_looked_at_is_not_run_as_it_was(desk: Desk) -> None:
    path = desk.task("log", head("when: {exists: a.csv}"))
    desk.look()
    desk.step(MINUTE)
    path.write_text("another one")
    desk.look()
    desk.gates.says["log"] = Verdict(holds=True)
    desk.tick()
    assert desk.slots() == []
    assert [each["why"] for each in desk.events("skipped")] == ["the task was changed while its gates were looked at"]
    desk.step(MINUTE)
    assert desk.slots() == ["12:02:00"]


def test_a_task_that_is_paused_while_its_gates_are_looked_at_is_not_run(desk: Desk) -> None:
    desk.task("log", head("when: {exists: a.csv}"))
    desk.look()
    desk.step(MINUTE)
    desk.book.set_state("log", paused="by request")
    desk.look()
    desk.gates.says["log"] = Verdict(holds=True)
    desk.tick()
    assert desk.slots() == []
    assert [each["why"] for each in desk.events("skipped")] == ["the task was paused while its gates were looked at"]


def test_a_rule_that_changes_while_gates_are_looked_at_runs_nothing_of_the_past(desk: Desk) -> None:
    path = desk.task("log", head("when: {exists: a.csv}"))
    desk.look()
    desk.step(MINUTE)
    desk.now += 30 * MINUTE
    path.write_text(head("every: 10m"))
    desk.look()
    desk.gates.says["log"] = Verdict(holds=True)
    desk.tick()
    desk.start()
    desk.tick()
    assert desk.slots() == [], "also after a restart"
    desk.step(MINUTE, 10)
    assert desk.slots() == ["12:40:00"]
