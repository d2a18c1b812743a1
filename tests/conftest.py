"""Once before all tests: what the program's many processes would each compile again. After each test and each module:
the end of the daemons that they made."""

from __future__ import annotations

import compileall
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from diskshim import DiskCalls
from harness import agents_end


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> DiskCalls:
    """The calls that processes make to a disk, to be written down or cut short."""
    return DiskCalls(tmp_path_factory.mktemp("disk"))


def pytest_configure(config: pytest.Config) -> None:
    """Compile fsagent where nobody else does so: PYTHONDONTWRITEBYTECODE is set, and daemons inherit it."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(str(Path(__file__).parent.parent / "fsagent"), quiet=2)


def pytest_xdist_auto_num_workers() -> int:
    """Three for two processors: a test waits half of its time for a daemon."""
    processors = len(os.sched_getaffinity(0))
    return processors + processors // 2


@pytest.fixture(autouse=True)
def _the_tests_agents_end() -> Iterator[None]:
    with agents_end():
        yield


@pytest.fixture(autouse=True, scope="module")
def _the_modules_agents_end() -> Iterator[None]:
    with agents_end():
        yield
