"""Once before all tests: what the program's many processes would each compile again."""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile fsagent where nobody else does so: PYTHONDONTWRITEBYTECODE is set, and daemons inherit it."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(str(Path(__file__).parent.parent / "fsagent"), quiet=2)
