"""Once before all tests: what the program's many processes would each compile again."""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest

from diskshim import DiskCalls


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> DiskCalls:
    """The calls that processes make to a disk, to be written down or cut short."""
    return DiskCalls(tmp_path_factory.mktemp("disk"))


def pytest_configure(config: pytest.Config) -> None:
    """Compile fsagent where nobody else does so: PYTHONDONTWRITEBYTECODE is set, and daemons inherit it."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(str(Path(__file__).parent.parent / "fsagent"), quiet=2)
