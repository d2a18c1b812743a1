"""Simulated months, and a whole year: tasks of every kind, edits, pauses, restarts, kills, power cuts and jumps of the
clock at random. The journal accounts for every slot as an oracle has it that was written apart (``year``)."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from year import HOUR, LASTING, World

Move = tuple[str, int, int]
START = datetime(2026, 3, 20, 8, 0, 30, tzinfo=UTC)
LAST_HOUR_OF_WINTER = 8 * 86_400 + 16 * 3600  # from then until Berlin's clocks go forward
WITHIN_DAYS = st.one_of(st.integers(2, 120), st.integers(2, 5 * 24 * 3600))
SECONDS = st.one_of(WITHIN_DAYS, WITHIN_DAYS.map(lambda seconds: -seconds))
LOOKS = st.integers(0, 25)
MOVES = st.one_of(
    st.tuples(st.just("live"), st.integers(1, 9 * 24 * 3600), st.just(0)),
    st.tuples(st.sampled_from(["off", "jump"]), SECONDS, st.just(0)),
    st.tuples(st.sampled_from(["restart", "look"]), st.just(0), st.just(0)),
    st.tuples(st.just("edit"), st.integers(0, len(LASTING) - 1), st.integers(0, 1)),
    st.tuples(st.sampled_from(["rename", "pause"]), st.integers(0, len(LASTING) - 1), st.just(0)),
    st.tuples(st.just("cut"), LOOKS, LOOKS),
)


def play(world: World, moves: list[Move]) -> None:
    for move, number, more in moves:
        if move == "live":
            world.go_to(min(world.desk.now + timedelta(seconds=number), world.end))
        elif move == "jump":
            world.jump(number)
        elif move == "look":
            world.glance()
        elif move == "edit":
            world.look()
            world.edit(LASTING[number], twice=bool(more))
        elif move in ("rename", "pause"):
            world.look()
            getattr(world, move)(LASTING[number])
        else:
            if move == "off":
                world.jump(number)
            elif move == "cut":
                world.power_cut(number, more)
            world.restart()


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: a year has some ten thousand runs, each synced to the disk."""
    memory = Path("/dev/shm")
    folder = memory / f"fsagent-{random.randrange(10**12)}" if memory.is_dir() else tmp_path_factory.mktemp("year")
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def live(disk: Path, start: datetime, days: int, moves: list[Move], *, whole: bool = False) -> None:
    root = disk / f"{random.randrange(10**12)}"
    world = World(root, start, days)
    play(world, moves)
    world.go_to(world.end if whole else world.desk.now + HOUR)
    world.check()
    world.desk.journal.close()
    shutil.rmtree(root)


@pytest.mark.timeout(400)  # what fails is made smaller, which takes its time
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=3, max_size=12))
@example(moves=[("jump", 401_462, 0)])
@example(moves=[("live", 259_200, 0), ("cut", 0, 20), ("live", 86_400, 0), ("cut", 20, 0)])
@example(moves=[("live", 259_461, 0), ("off", -10_483, 0), ("live", 400_000, 0)])
@example(moves=[("live", LAST_HOUR_OF_WINTER + 5_400, 0), ("jump", -10_800, 0), ("live", 90_000, 0)])
@example(moves=[("live", LAST_HOUR_OF_WINTER, 0), ("off", 7_200, 0), ("off", -3 * 86_400, 0), ("live", 400_000, 0)])
def test_every_slot_is_accounted_for(disk: Path, moves: list[Move]) -> None:
    live(disk, START, 60, moves)


def test_a_clock_set_back_in_the_hour_that_comes_twice(disk: Path) -> None:
    start = datetime(2026, 10, 24, 20, 0, 30, tzinfo=UTC)  # Berlin repeats an hour at 01:00 UTC of the next day
    moves = [("live", 5 * 3600 + 1800, 0), ("jump", -3600, 0), ("live", 5400, 0), ("off", -2 * 3600, 0)]
    live(disk, start, 10, [*moves, ("live", 2 * 86_400, 0)])


@pytest.mark.long
@pytest.mark.timeout(600)
@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(moves=st.lists(MOVES, min_size=80, max_size=150))
def test_a_whole_year(disk: Path, moves: list[Move]) -> None:
    live(disk, START, 365, moves, whole=True)
