"""What is kept of tasks, whatever ends the process that writes it, and whatever the disk does."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.workspace.taskstates import KEPT, StateLog, TaskState, read_states
from harness import wait_for

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def kept(folder: Path, *, keeps: bool = False) -> StateLog:
    """As whoever starts now finds it."""
    return StateLog(folder, keeps=keeps)


def say(log: StateLog, name: str, state: TaskState, *, durable: bool = False) -> None:
    log.set(name, state, durable=durable)


def paused(why: str) -> TaskState:
    return TaskState(paused=why)


def test_a_state_is_kept(tmp_path: Path) -> None:
    state = TaskState(
        watermark=NOON, next=NOON + timedelta(hours=1), rule="r", paused="by request", since=NOON,
        seen={"changed:*": "x"}, held_back="nothing new", made="m", paused_print="p",
    )  # fmt: skip
    log = kept(tmp_path)
    assert log.get("a") == TaskState()
    say(log, "a", paused("once"))
    say(log, "b/ü \\xff", paused("other"))
    say(log, "a", state, durable=True)
    assert (kept(tmp_path).get("a"), kept(tmp_path).get("b/ü \\xff")) == (state, paused("other"))
    assert len((tmp_path / "states.jsonl").read_bytes().splitlines()) == 3, "one line for each change"


def test_reading_makes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    log = kept(folder)
    assert log.get("a") == TaskState()
    log.tidy(["a"])
    assert not folder.exists()


def test_cut_off_at_any_byte_the_states_before_survive_and_the_log_goes_on(tmp_path: Path) -> None:
    log = kept(tmp_path)
    for number in range(4):
        say(log, f"t{number % 2}", paused(f"{number} ü"))
    whole = (tmp_path / "states.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    ends = [sum(map(len, lines[:number])) for number in range(5)]
    for cut in range(len(whole) + 1):
        (tmp_path / "states.jsonl").write_bytes(whole[:cut])
        number = sum(end <= cut for end in ends[1:])
        expected = {f"t{each % 2}": paused(f"{each} ü") for each in range(number)}
        again = kept(tmp_path)
        assert {name: again.get(name) for name in ("t0", "t1")} == {"t0": TaskState(), "t1": TaskState()} | expected
        say(again, "t9", paused("after"))
        last = kept(tmp_path)
        assert {name: last.get(name) for name in ("t0", "t1")} == {"t0": TaskState(), "t1": TaskState()} | expected
        assert last.get("t9") == paused("after")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_line_hurts_only_itself(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("states")
    log = kept(folder)
    for number in range(5):
        say(log, f"t{number}", paused("yes"))
    lines = (folder / "states.jsonl").read_bytes().splitlines()
    hurt = data.draw(st.integers(0, 4))
    junk = st.binary(max_size=30) | st.sampled_from(
        [b"null", b"[]", b'{"task":"t0"}', b'{"task":"t0","state":{"watermark":"2026-11-22T12:00:00"}}', b"[" * 5000]
    )
    lines[hurt] = data.draw(junk)
    (folder / "states.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    again = kept(folder)
    assert [again.get(f"t{number}").paused for number in range(5) if number != hurt] == ["yes"] * 4
    assert again.get(f"t{hurt}") == TaskState()


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond that: what a full disk answers, to the byte."""
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_memory_and_file_alike_wherever_it_cuts(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.mkdir()
    say(kept(probe), "a", paused("before"))
    first = (probe / "states.jsonl").stat().st_size
    say(kept(probe), "a", paused("no room"))
    whole = (probe / "states.jsonl").stat().st_size
    for room in range(first, whole):
        folder = tmp_path / str(room)
        folder.mkdir()
        log = kept(folder)
        say(log, "a", paused("before"))
        with at_most(room), pytest.raises(OSError, match="too large"):
            say(log, "a", paused("no room"))
        assert log.get("a") == kept(folder).get("a") == paused("before")
        say(log, "b", paused("room again"))
        for each in (log, kept(folder)):
            assert (each.get("a"), each.get("b")) == (paused("before"), paused("room again"))


def test_it_is_written_anew_when_it_has_grown(tmp_path: Path) -> None:
    log = kept(tmp_path, keeps=True)
    for number in range(5_000):
        say(log, f"t{number % 3}", TaskState(watermark=NOON + timedelta(minutes=number)))
        log.tidy(["t0", "t1", "t2"])
    assert len(read_states(tmp_path / "states.jsonl")) < 1_100
    for each in (log, kept(tmp_path)):
        assert [each.get(f"t{number}").watermark for number in range(3)] == [
            NOON + timedelta(minutes=number) for number in (4_998, 4_999, 4_997)
        ]
    assert sorted(os.listdir(tmp_path)) == ["states.jsonl"]


def test_only_who_keeps_it_writes_it_anew(tmp_path: Path) -> None:
    log = kept(tmp_path)
    for number in range(3_000):
        say(log, "t", paused(str(number)))
    before = (tmp_path / "states.jsonl").read_bytes()
    (tmp_path / ".fsagent-tmp-0123").write_bytes(b"of a crash")
    for _ in range(2):
        reader = kept(tmp_path)
        reader.tidy(["t"])
    assert (tmp_path / "states.jsonl").read_bytes() == before
    assert (tmp_path / ".fsagent-tmp-0123").exists()
    kept(tmp_path, keeps=True).tidy(["t"])
    assert len(read_states(tmp_path / "states.jsonl")) == 1
    assert not (tmp_path / ".fsagent-tmp-0123").exists()
    assert kept(tmp_path).get("t") == paused("2999")


def test_what_is_long_gone_is_dropped_but_no_pause_and_no_file_of_the_agent(tmp_path: Path) -> None:
    log = kept(tmp_path, keeps=True)
    old, late = NOON - KEPT - timedelta(seconds=1), NOON - KEPT + timedelta(days=1)
    states = {
        "here": TaskState(watermark=old),
        "gone": TaskState(watermark=old),
        "gone lately": TaskState(watermark=late),
        "gone and paused": TaskState(watermark=old, paused="by request"),
        "gone and ours": TaskState(watermark=old, made="m"),
        "beats": TaskState(watermark=NOON),
    }
    for name, state in states.items():
        say(log, name, state)

    def grow() -> None:
        for number in range(1_100):
            say(log, "beats", TaskState(watermark=NOON, rule=str(number)))

    grow()
    log.tidy([])
    assert len(read_states(tmp_path / "states.jsonl")) == len(states)
    assert kept(tmp_path).get("gone") == states["gone"], "nobody has looked which files there are"
    grow()
    log.tidy(["here", "beats"])
    again = kept(tmp_path)
    assert again.get("gone") == log.get("gone") == TaskState()
    rest = ("here", "gone lately", "gone and paused", "gone and ours")
    assert [again.get(name) for name in rest] == [states[name] for name in rest]


def test_a_log_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    log = kept(tmp_path, keeps=True)
    say(log, "a", paused("a"))
    (tmp_path / "states.jsonl").unlink()
    say(log, "b", paused("b"))
    assert (kept(tmp_path).get("a"), kept(tmp_path).get("b")) == (paused("a"), paused("b"))


def test_states_of_one_file_each_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "sub%2Ft%C3%BC.json").write_bytes(msgspec.json.encode(paused("by request")))
    (tmp_path / "bad.json").write_bytes(b"{")
    assert kept(tmp_path).get("sub/tü") == paused("by request")
    assert len(os.listdir(tmp_path)) == 2, "a reader leaves them"
    assert kept(tmp_path, keeps=True).get("sub/tü") == paused("by request")
    assert os.listdir(tmp_path) == ["states.jsonl"]
    assert kept(tmp_path).get("sub/tü") == paused("by request")


WRITER = """
import sys
from pathlib import Path
from fsagent.workspace.taskstates import StateLog, TaskState
log = StateLog(Path(sys.argv[1]), keeps=True)
number = 0
while True:
    number += 1
    for name in ("a", "b"):
        log.set(name, TaskState(paused=f"{number}"), durable=False)
        log.tidy(["a", "b"])
    print(number, flush=True)
"""


def test_killed_at_any_moment_nothing_that_was_said_is_lost(tmp_path: Path) -> None:
    for moment in (3, 400, 600, 1_500):
        folder, told = tmp_path / str(moment), tmp_path / f"{moment}.txt"
        folder.mkdir()
        with told.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=out)
            wait_for(lambda told=told, moment=moment: told.read_bytes().count(b"\n") >= moment, seconds=30)  # type: ignore[misc]
            process.kill()
            process.wait()
        said = int(told.read_bytes().rpartition(b"\n")[0].split()[-1])
        log = kept(folder, keeps=True)
        for name in ("a", "b"):
            assert said <= int(log.get(name).paused) <= said + 1
        say(log, "a", paused("goes on"))
        assert kept(folder).get("a") == paused("goes on")
