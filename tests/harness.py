"""A real daemon process on a real folder, for tests. Everything waits for a condition, nothing for a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import frontmatter

from fsagent.workspace.create import init_workspace
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder
from zygote import PROGRAMS, WORKERS, Forked, Zygote

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


_AGENTS: list[Agent] = []


@contextmanager
def agents_end() -> Iterator[None]:
    """Whatever becomes of the block: of the agents that were made in it, none runs on after it."""
    before = len(_AGENTS)
    try:
        yield
    finally:
        while len(_AGENTS) > before:
            _AGENTS.pop().close()


class Agent:
    """A workspace and, while started, the daemon on it; it ends with the test or the module that made it (conftest).

    ``fork``: its processes are forked from one that has loaded fsagent already (``zygote``); else the program is run.
    ``fork_workers``: so are the workers. ``programs`` is what they are forked from.
    """

    def __init__(
        self,
        root: Path,
        settings: str = "",
        *,
        fork: bool = True,
        fork_workers: bool = False,
        programs: Zygote = PROGRAMS,
    ) -> None:
        self.layout: Layout = init_workspace(root)[0]
        self.root = self.layout.root
        if settings:
            self.layout.settings.write_text(settings)
        self.log = root.with_name(f"{root.name}.log")
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self._fork, self._nursery, self.programs = fork, WORKERS if fork_workers else None, programs
        _AGENTS.append(self)

    def start(self, before: Sequence[str] = (), **options: Any) -> Agent:
        """Start the daemon and wait until it watches."""
        with self.log.open("w") as log:
            if self._forks(before, options):
                self.process = self._forked(
                    ["-m", "fsagent", "run", str(self.root)], log.fileno(), log.fileno(), **options
                )
            else:
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
        done = self._run(before, ["run", str(self.root), "--once"], options)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def cli(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Any other command on this workspace."""
        return self._run((), [*words, "-w", str(self.root)], options)

    def once_by(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        """``fsagent run --once`` by a program of the test's own: its arguments, and then ours."""
        return self._run((), [*words, "run", str(self.root), "--once"], {}, ("-c", code))

    def _run(
        self,
        before: Sequence[str],
        words: Sequence[str],
        options: dict[str, Any],
        program: Sequence[str] = ("-m", "fsagent"),
    ) -> subprocess.CompletedProcess[str]:
        words = [*program, *words]
        if not self._forks(before, options):
            command = [*before, sys.executable, *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self._forked(words, out.fileno(), err.fileno(), **options)
            try:
                code = process.wait(60)
            finally:
                process.send_signal(signal.SIGKILL)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def _forked(self, words: Sequence[str], out: int, err: int, **options: Any) -> Forked:
        return self.programs.start(words, {0: 0, 1: out, 2: err}, nursery=self._nursery, **options)

    def _forks(self, before: Sequence[str], options: dict[str, Any]) -> bool:
        return (
            self._fork and not before and options.keys() <= {"cwd", "env"} and self.programs.forks(options.get("env"))
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
        """The published result of a command; where a daemon runs, as soon as the command is settled as well."""
        path = self.layout.outbox / name
        wait_for(path.exists, f"outbox/{name}", seconds)
        result = frontmatter.load(str(path))
        if self.process and result["status"] != "waiting":
            folder = self.layout.runs / result["run"]
            wait_for(lambda: RunFolder(folder).settled(), f"{name} is settled", seconds)
        return result

    def results(self) -> list[frontmatter.Post]:
        """Every published result."""
        return [frontmatter.load(str(path)) for path in sorted(self.layout.outbox.rglob("*.md"))]

    def status(self) -> str:
        """The text of status.md; none before the daemon's first beat."""
        try:
            return self.layout.status.read_text()
        except FileNotFoundError:
            return ""

    def runs(self) -> list[Any]:
        """All runs in the list, newest first; none before the daemon has begun one."""
        try:
            index = Index(self.layout.index, write=False)
        except FileNotFoundError:
            return []
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
