"""A tiny process that stands over one command and ends the whole tree that it started.

Run as a script, with the standard library only: ``python -I -S supervise.py CONTROL REPORT TIMEOUT PROGRAM ARGS…``.
``CONTROL`` is the reading end of a pipe whose other end only the caller holds: when it closes, because the caller
wishes so or was killed, everything ends. ``REPORT`` is a pipe for one line on how it went: ``exit 0``, ``signal 9``,
``timeout``, ``stopped`` or ``error 2`` (an errno); `` left`` follows where something else was still running. The
command has this process's standard streams.

How: this process makes itself the reaper of all orphans below it (``PR_SET_CHILD_SUBREAPER``), so a child that forked
twice and left its session still becomes a child of this process, and there are none left exactly when ``waitpid`` says
so. The same at a normal end: what the command left in the background does not outlive it.

Limits: Linux. Elsewhere only the command's own process group is ended. A descendant with other rights (setuid) that
does not obey SIGKILL from us, or sleeps in the kernel, is given up after ``GIVE_UP`` seconds. A command of the same
user can kill this process first; only a sandbox prevents that.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

GRACE = 0.5
GIVE_UP = 5.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> None:
    """Supervise one command; see the module."""
    control, report, timeout = int(arguments[0]), int(arguments[1]), float(arguments[2])
    for fd in (control, report):
        os.set_inheritable(fd, False)
    wake = _wake_on_signals()
    adopts = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if _ready((control,), 0):
        return
    child = _start(arguments[3:], report)
    outcome = _wait(child, control, wake, time.monotonic() + timeout)
    left = "" if _reap() else " left"
    _end_all(child, adopts)
    os.write(report, f"{outcome}{left}\n".encode())


def _start(argv: list[str], report: int) -> int:
    """Start the command in a session of its own; then let go of its streams, so that only the tree holds them."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            if os.getppid() == parent:  # else it died before we asked to die with it
                os.execvp(argv[0], argv)
        except OSError as error:
            os.write(report, f"error {error.errno}\n".encode())
        finally:
            os._exit(127)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    return child


def _wait(child: int, control: int, wake: int, end: float) -> str:
    """Wait until the command ends, its time is up, or the caller closes the pipe; says which."""
    while True:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return "stopped"
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return f"exit {code}" if code >= 0 else f"signal {-code}"
            if pid == 0:
                break
        left = end - time.monotonic()
        if left <= 0:
            return "timeout"
        ready = _ready((control, wake), left)
        if control in ready or (wake in ready and signal.SIGTERM in os.read(wake, 512)):
            return "stopped"


def _end_all(child: int, adopts: bool) -> None:
    """End every descendant: a request first, after ``GRACE`` seconds by force, until none is left."""
    begin = time.monotonic()
    number, asked = signal.SIGTERM, set[int]()
    while not _reap():
        passed = time.monotonic() - begin
        if passed > GIVE_UP:
            return
        if passed > GRACE:
            number = signal.SIGKILL
        found = _descendants() if adopts else set()
        for pid in found if number == signal.SIGKILL else found - asked:
            _kill(pid, number)
        asked |= found
        if not found:
            _kill(-child, number)
        time.sleep(0.002 if passed < 0.05 else 0.02)
    if not adopts:
        _kill(-child, signal.SIGKILL)


def _reap() -> bool:
    """Collect the dead; True when there is no child left, dead or alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _descendants() -> set[int]:
    """All living processes below this one, from one look at /proc; the next look finds those that were missed."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it has just ended
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _wake_on_signals() -> int:
    """A descriptor that gets a byte per SIGCHLD and SIGTERM, so that waiting needs no polling."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    return reading


def _ready(fds: tuple[int, ...], seconds: float) -> list[int]:
    """Those that have something to read or were closed (not by ``select``, which stops at descriptor 1023)."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(min(seconds, 3600.0) * 1000)]


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def _prctl(option: int, value: int) -> bool:
    """Ask the Linux kernel; False where it is not Linux or does not know."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


if __name__ == "__main__":
    main(sys.argv[1:])
