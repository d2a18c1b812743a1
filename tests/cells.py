"""The rungs of the sandbox for tests: each one really in force, or a test that says why it cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsagent.tools import sandbox
from fsagent.tools.base import Sandbox

RUNGS = ("bubblewrap", "Landlock", "off")
LOCKED = RUNGS[:2]


class Programs:
    """The part of a home that the tool shell asks; its scratch folder lies where the workspace's own would."""

    def __init__(self, root: Path, rung: str, **more: object) -> None:
        self.root, self.rung, self.more = root, rung, more

    def sandbox(self) -> Sandbox:
        scratch = self.root / ".fsagent" / "tmp"
        if self.rung != "off":
            scratch.mkdir(parents=True, exist_ok=True)
        return Sandbox(on=self.rung != "off", scratch=scratch, **self.more)


def put_in_force(rung: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make ``rung`` the one that is found: for Landlock, a bubblewrap that does not work comes first on PATH."""
    if rung == "Landlock":
        program = folder / "bwrap"
        program.write_text("#!/bin/sh\necho 'no namespaces here' >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    if rung != "off" and (found := sandbox.in_force()).name != rung:
        pytest.skip(f"{rung} cannot be used here: {found.why or found.name}")
