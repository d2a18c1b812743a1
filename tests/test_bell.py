"""The bell: what ends the daemon's sleep."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from fsagent.bell import Bell


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


def test_it_rings_from_other_threads_and_signal_handlers(bell: Bell) -> None:
    bell.ring()
    bell.ring()
    assert bell.wait(3600)
    assert not bell.wait(0), "it is silent when it was heard"
    threading.Thread(target=bell.ring).start()
    assert bell.wait(3600)
    before = signal.signal(signal.SIGUSR1, lambda *_: bell.ring())
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert bell.wait(3600)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="timers on the wall clock are Linux's")
def test_it_sleeps_until_a_moment_of_the_wall_clock(bell: Bell) -> None:
    """Not for a number of seconds: those stand still while the machine sleeps."""
    until = datetime.now(UTC) + timedelta(seconds=0.3)
    assert not bell.wait(3600, until)
    assert datetime.now(UTC) >= until
    assert not bell.wait(3600, datetime.now(UTC) - timedelta(days=1)), "a moment that has passed is no sleep"
    assert not bell.wait(3600, datetime.fromtimestamp(0, UTC))


def test_a_moment_that_is_far_keeps_nothing_else_from_ending_the_sleep(bell: Bell) -> None:
    far = datetime.now(UTC) + timedelta(days=3000)
    started = time.monotonic()
    assert not bell.wait(0.05, far)
    assert time.monotonic() - started >= 0.05
    bell.ring()
    assert bell.wait(3600, far)
    assert not bell.wait(0.01), "the moment of an earlier sleep does not count for a later one"
