"""A real daemon process on a real folder, for tests. Everything waits for a condition, nothing for a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import frontmatter

from fsagent.workspace.create import init_workspace
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout

FSAGENT = [sys.executable, "-m", "fsagent"]
PATIENCE = 30.0


def wait_for(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """The first true value of ``condition``; fails the test if it never becomes true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"never happened within {seconds:g} s: {what or condition}")
        time.sleep(0.02)
    return value


class Agent:
    """A workspace and, while started, the daemon on it."""

    def __init__(self, root: Path, settings: str = "") -> None:
        self.layout: Layout = init_workspace(root)[0]
        self.root = self.layout.root
        if settings:
            self.layout.settings.write_text(settings)
        self.log = root.with_name(f"{root.name}.log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, before: Sequence[str] = (), **options: Any) -> Agent:
        """Start the daemon and wait until it watches."""
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*before, *FSAGENT, "run", str(self.root)], stdout=log, stderr=subprocess.STDOUT, **options
            )
        wait_for(lambda: self._alive() and "daemon started" in self.output(), "the daemon starts")
        return self

    def output(self) -> str:
        """What the daemon has printed since it was started."""
        return self.log.read_text()

    def kill(self) -> None:
        """SIGKILL, as a power cut or the OOM killer would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; gives the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def close(self) -> None:
        if self.process:
            self.kill()

    def once(self, before: Sequence[str] = (), check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """``fsagent run --once``."""
        done = subprocess.run(
            [*before, *FSAGENT, "run", str(self.root), "--once"], capture_output=True, text=True, timeout=60, **options
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def cli(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Any other command on this workspace."""
        return subprocess.run(
            [*FSAGENT, *words, "-w", str(self.root)], capture_output=True, text=True, timeout=60, **options
        )

    def drop(self, name: str, text: str) -> Path:
        """Put a command into the inbox the way a sync client does: written elsewhere, renamed in."""
        path = self.layout.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text)
        os.rename(temporary, path)
        return path

    def result(self, name: str, seconds: float = PATIENCE) -> frontmatter.Post:
        """The published result of a command, as soon as it is there."""
        path = self.layout.outbox / name
        wait_for(path.exists, f"outbox/{name}", seconds)
        return frontmatter.load(str(path))

    def results(self) -> list[frontmatter.Post]:
        """Every published result."""
        return [frontmatter.load(str(path)) for path in sorted(self.layout.outbox.rglob("*.md"))]

    def runs(self) -> list[Any]:
        """All runs in the list, newest first."""
        index = Index(self.layout.index, write=False)
        try:
            return index.recent(100_000)
        finally:
            index.close()

    def files(self, place: Path) -> list[str]:
        """The relative names of all files in a place."""
        return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())

    def _alive(self) -> bool:
        code = self.process.poll()
        assert code is None, f"the daemon ended with {code}: {self.output()}"
        return True
