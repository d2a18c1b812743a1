"""Real processes of ``python -m fsagent`` without the half second in which Python loads it.

One process per pytest process has imported what a daemon loads, and waits. For every start it forks: the child takes
over the caller's streams, folder, environment and signals as ``exec`` would leave them, and then runs ``fsagent`` as
``__main__`` to the interpreter's own end. It has a process id of its own and is ended by real signals.

What a fork cannot show is for tests that start the program itself (``harness.Agent(..., fork=False)``, or a plain
``subprocess``): how much memory a daemon takes, what it has imported, its command line and ``/proc/PID/environ``. What
Python or the C library reads only once, when a program starts, must be as it was in this process; else the caller's
``forks`` says no.
"""

from __future__ import annotations

import array
import atexit
import gc
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
from typing import IO, Any

LARGEST = 128 * 1024
_ONCE = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "GLIBC_")
MODULES = (
    "fsagent.faces.cli", "fsagent.foreground", "fsagent.faces.beside", "fsagent.faces.screen", "fsagent.faces.door",
    "fsagent.faces.views", "fsagent.faces.text", "fsagent.engines.offline",
)  # fmt: skip


# the tests' side


class Forked:
    """A child of the zygote, with the part of ``subprocess.Popen`` that tests need."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid, self.returncode = pid, None
        self._link = link

    def poll(self) -> int | None:
        """The exit code, as ``Popen`` gives it; ``None`` while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("fsagent", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._link], [], [], timeout)[0]:
            status = self._link.recv(64)
            assert status, "the zygote is gone"
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._link.close()
        return self.returncode


class Zygote:
    """Starts the process that forks, with the first call, and hands it what is to be run."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._env = dict(os.environ)

    def forks(self, env: Mapping[str, str] | None) -> bool:
        """True where a fork is as good as the program itself: nothing that is read only at its start is different."""
        return _read_once(self._env) == _read_once(os.environ if env is None else env)

    def start(self, words: Sequence[str], stdout: int, stderr: int, *, stdin: int = 0, cwd: Path | str = "",
              env: Mapping[str, str] | None = None, held: bool = False) -> Forked:  # fmt: skip
        """``python -m fsagent WORDS``. ``held``: it stops itself (SIGSTOP) just before that."""
        job = {"words": list(words), "cwd": str(cwd) or os.getcwd(), "held": held,
               "env": dict(os.environ if env is None else env)}  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = array.array("i", [stdin, stdout, stderr, theirs.fileno()])
        with self._lock:
            link = self._link()
        link.sendmsg([json.dumps(job).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        theirs.close()
        pid = ours.recv(64)
        assert pid, "the zygote is gone"
        return Forked(int(pid), ours)

    def _link(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST)
            command = [sys.executable, __file__, str(theirs.fileno())]
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


ZYGOTE = Zygote()


# the zygote's side


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for every job, and tell how each child ended; returns in a child, with its job."""
    links: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == control.fileno():
                data, fds, _, _ = socket.recv_fds(control, LARGEST, 4)
                if not data:
                    os._exit(0)
                assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1
                pid = os.fork()
                if pid == 0:
                    for number, each in enumerate(fds[:3]):
                        os.dup2(each, number)
                    for each in (control, *(link for _, link in links.values())):
                        each.detach()  # the numbers are free for others now
                    os.closerange(3, 1024)
                    return json.loads(data)
                link = socket.socket(fileno=fds.pop())
                for each in fds:
                    os.close(each)
                child = os.pidfd_open(pid)
                links[child] = (pid, link)
                poll.register(child, select.POLLIN)
                _tell(link, pid)
            else:
                pid, link = links.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _tell(link, os.waitpid(pid, 0)[1])
                link.close()


def _tell(link: socket.socket, number: int) -> None:
    try:
        link.send(str(number).encode())
    except OSError:
        pass  # nobody asks any more


def become(job: dict[str, Any]) -> None:
    """Be what ``exec`` would have made."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    os.chdir(job["cwd"])
    sys.path[0] = os.getcwd()
    sys.argv[:] = ["fsagent", *job["words"]]
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old: io.TextIOWrapper = getattr(sys, name)
        new: IO[str] = open(  # noqa: SIM115
            number, "r" if number == 0 else "w", encoding=old.encoding, errors=old.errors, closefd=False
        )
        if number:
            assert isinstance(new, io.TextIOWrapper)
            new.reconfigure(line_buffering=number == 2 or os.isatty(number), write_through=unbuffered)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    if job["held"]:
        _let_trace()
        os.kill(os.getpid(), signal.SIGSTOP)


def _let_trace() -> None:
    """Let any process of this user attach to this one, where Yama would allow that to its ancestors only."""
    import ctypes

    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER, PR_SET_PTRACER_ANY


def main() -> None:
    """The zygote, and in the children the program."""
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.path[0] = str(Path(__file__).parent.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then let go of us
    for name in MODULES:
        __import__(name)
    from fsagent.tools import load_tools

    load_tools()
    gc.collect()
    gc.freeze()
    become(serve(control))
    runpy.run_module("fsagent", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
