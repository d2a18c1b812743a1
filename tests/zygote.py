"""Real processes of fsagent without the second or two in which Python loads it.

One process per pytest process has imported what a daemon loads (``PROGRAMS``) or what a model's worker loads
(``WORKERS``), and waits. For every start it forks: the child takes over the caller's streams, folder, environment and
signals as ``exec`` would leave them, and then runs the same code as ``__main__``, to the interpreter's own end. It has
a process id of its own and is ended by real signals.

What a fork cannot show is for tests that start the program itself (``harness.Agent(..., fork=False)``, or a plain
``subprocess``): how much memory a process takes, what it has imported, its command line and ``/proc/PID/environ``. What
Python or the C library reads only once, when a program starts, must be as it was when the tests began; else ``forks``
says no.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LARGEST = 128 * 1024
MOST_FILES = 1024
_ONCE = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "GLIBC_")
_WORKER = ["-P", "-m", "fsagent.worker"]
_SUPERVISOR = ["-I", "-S"]
_PROGRAM = (
    "fsagent.faces.cli", "fsagent.foreground", "fsagent.faces.beside", "fsagent.faces.screen", "fsagent.faces.door",
    "fsagent.faces.views", "fsagent.faces.text",
)  # fmt: skip
_WORKER_LIBRARIES = ("fsagent.worker", "pydantic_ai.models.openai", "pydantic_ai.providers.openai")


# the tests' side


class Forked:
    """A child of a zygote, with the part of ``subprocess.Popen`` that is needed. Threads may share it."""

    def __init__(self, pid: int, link: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._link, self._lock = link, threading.Lock()

    def poll(self) -> int | None:
        """The exit code, as ``Popen`` gives it; ``None`` while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("fsagent", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._told(timeout):
            with self._lock:
                if self.returncode is None:
                    status = os.read(self._link, 64)
                    assert status, "the zygote is gone"
                    self.returncode = os.waitstatus_to_exitcode(int(status))
        return self.returncode

    def _told(self, timeout: float | None) -> bool:
        ears = select.poll()  # select(2) takes no number above 1,023
        ears.register(self._link, select.POLLIN)
        return bool(ears.poll(None if timeout is None else timeout * 1000))

    def __del__(self) -> None:
        os.close(self._link)


class Zygote:
    """Starts the process that forks with the first call, and hands it what is to be run.

    ``env`` is the environment of what says nothing else; as a rule it is that of the caller, as it is then.
    """

    def __init__(self, kind: str, control: socket.socket | None = None, env: Mapping[str, str] | None = None) -> None:
        self._kind, self._control = kind, control
        self._lock = threading.Lock()
        self._given = env
        self._env = dict(os.environ if env is None else env)

    def forks(self, env: Mapping[str, str] | None) -> bool:
        """True where a fork is as good as the program itself: nothing that is read only at its start is different."""
        return _read_once(self._env) == _read_once(self._surroundings(env))

    def start(
        self,
        words: Sequence[str],
        fds: Mapping[int, int],
        *,
        cwd: Path | str = "",
        env: Mapping[str, str] | None = None,
        session: bool = False,
        nursery: Zygote | None = None,
    ) -> Forked:
        """``python WORDS``, with these of our files under these numbers. With a ``nursery`` a daemon's workers are
        forked there."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = dict(self._surroundings(env))
        job = {"words": list(words), "cwd": str(cwd) or os.getcwd(), "env": env, "numbers": list(fds),
               "session": session, "nursery": nursery is not None}  # fmt: skip
        sent = [theirs.fileno(), *fds.values(), *([nursery.link().fileno()] if nursery else [])]
        self.link().sendmsg(
            [json.dumps(job).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sent))]
        )
        theirs.close()
        pid = ours.recv(64)
        assert pid, "the zygote is gone"
        return Forked(int(pid), ours.detach())

    def _surroundings(self, env: Mapping[str, str] | None) -> Mapping[str, str]:
        return next(each for each in (env, self._given, os.environ) if each is not None)

    def link(self) -> socket.socket:
        """Where jobs are taken."""
        with self._lock:
            if self._control is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST)
                command = [sys.executable, __file__, self._kind, str(theirs.fileno())]
                process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/", env=self._env
                )
                theirs.close()
                atexit.register(self._end, process)
            return self._control

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if self._control:
            self._control.close()
        process.wait()


def _read_once(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_ONCE)}


PROGRAMS, WORKERS = Zygote("program"), Zygote("worker")


# the zygote's side


def load(kind: str) -> None:
    """Import what is to be there in every child; nothing else."""
    from fsagent.engines import load_engine
    from fsagent.tools import load_tools

    for name in _PROGRAM if kind == "program" else _WORKER_LIBRARIES:
        importlib.import_module(name)
    load_tools()
    load_engine("model" if kind == "worker" else "offline")
    if kind == "worker":
        import fsagent.worker

        del sys.modules["fsagent.worker"], fsagent.worker  # that one shall run as __main__
    gc.collect()
    gc.freeze()


def serve(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for every job, and tell how each child ended; returns in a child, with its job and its files."""
    links: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != control.fileno():
                pid, link = links.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _tell(link, os.waitpid(pid, 0)[1])
                link.close()
                continue
            data, fds, _, _ = socket.recv_fds(control, LARGEST, 16)
            if not data:
                os._exit(0)
            assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1
            pid = os.fork()
            if pid == 0:
                for each in (control, *(link for _, link in links.values())):
                    each.detach()  # the numbers are free for others now
                return json.loads(data), fds[1:]
            link = socket.socket(fileno=fds[0])
            for each in fds[1:]:
                os.close(each)
            child = os.pidfd_open(pid)
            links[child] = (pid, link)
            poll.register(child, select.POLLIN)
            _tell(link, pid)


def _tell(link: socket.socket, number: int) -> None:
    try:
        link.send(str(number).encode())
    except OSError:
        pass  # nobody asks any more


def become(job: dict[str, Any], fds: list[int]) -> None:
    """Be what ``exec`` would have made."""
    import fcntl

    if job["session"]:
        os.setsid()
    numbers = [*job["numbers"], *([MOST_FILES - 1] if job["nursery"] else [])]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, MOST_FILES) for fd in fds]
    os.closerange(3, MOST_FILES)
    for fd, number in zip(high, numbers, strict=True):
        os.dup2(fd, number, inheritable=number != MOST_FILES - 1)
        os.close(fd)
    _reset_signals()
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    os.chdir(job["cwd"])
    sys.path[0] = os.getcwd()
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old: io.TextIOWrapper = getattr(sys, name)
        new = io.TextIOWrapper(
            open(number, "wb" if number else "rb", closefd=False),  # noqa: SIM115
            old.encoding, old.errors, line_buffering=number == 2 or os.isatty(number), write_through=unbuffered,
        )  # fmt: skip
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    if job["nursery"]:
        _fork_workers(Zygote("worker", socket.socket(fileno=MOST_FILES - 1)))


def _reset_signals() -> None:
    """As they are when a Python program begins."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)


def _fork_workers(nursery: Zygote) -> None:
    """In a daemon: its workers' supervisors come from the nursery; all else is started as ever."""
    import types

    import fsagent.workers

    def start(command: list[str], *, pass_fds: Sequence[int], cwd: str, env: dict[str, str], **_: Any) -> Forked:
        with open(os.devnull, "r+b") as null:
            fds = {0: null.fileno(), 1: null.fileno(), 2: 2} | {fd: fd for fd in pass_fds}
            return nursery.start(command[1:], fds, cwd=cwd, env=env, session=True)

    fsagent.workers.subprocess = types.SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def _become_worker(program: str, words: list[str]) -> None:
    """In place of ``os.execvp`` in a supervisor's child."""
    if words[1:4] != _WORKER:
        _execvp(program, words)
    kept = int(words[4])
    signal.set_wakeup_fd(-1)
    _reset_signals()
    os.closerange(3, kept)
    os.closerange(kept + 1, MOST_FILES)
    run(words[1:])
    os._exit(0)


_execvp = os.execvp


def run(words: list[str]) -> None:
    """``python WORDS``, in this process."""
    if words[: len(_SUPERVISOR)] == _SUPERVISOR:
        os.execvp = _become_worker
        sys.argv[:] = words[2:]
        runpy.run_path(words[2], run_name="__main__")
    elif words[:1] == ["-c"]:
        sys.argv[:] = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        if words[0] == "-P":
            words, sys.path[:1] = words[1:], []
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)


def main() -> None:
    """The zygote, and in the children the program."""
    control = socket.socket(fileno=int(sys.argv[2]))
    sys.path[0] = str(Path(__file__).parent.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then let go of us
    load(sys.argv[1])
    job, fds = serve(control)
    become(job, fds)
    run(job["words"])


if __name__ == "__main__":
    main()
