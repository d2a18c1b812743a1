"""The tests' own tools: what they leave behind when a test fails."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

FAILING = """
import pytest
from harness import Agent

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    yield Agent(tmp_path_factory.mktemp("shared") / "ws").start()

@pytest.fixture
def own(tmp_path):
    agent = Agent(tmp_path / "ws").start()
    yield agent
    assert agent.process.poll() is None, "it lives until the fixture has ended"

def test_first(shared, own, tmp_path):
    third = Agent(tmp_path / "third").start()
    with open("pids", "w") as pids:
        print(*(each.process.pid for each in (own, third)), file=pids)
    assert False

def test_second(shared, tmp_path_factory):
    shared.stop()
    shared.start()

def test_third(shared):
    assert shared.process.poll() is None, "a daemon belongs to who made it, not to who started it anew"
    with open("pids", "a") as pids:
        print(shared.process.pid, file=pids)
    raise KeyError
"""


def test_no_daemon_outlives_the_test_or_the_module_that_made_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile(FAILING)
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(failed=2, passed=1)
    pids = [int(word) for word in (pytester.path / "pids").read_text().split()]
    assert len(pids) == 3
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
