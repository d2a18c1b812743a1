"""A tiny process that stands over one command and ends the whole tree that it started.

Run as a script, standard library only: ``python -I -S supervise.py CONTROL REPORT TIMEOUT PLAN PROGRAM ARGS…``.
``CONTROL`` is the reading end of a pipe whose other end only the caller holds: when it closes, because the caller
wishes so or was killed, everything ends. ``REPORT`` is a pipe for two lines: ``began`` before anything is run, and
then how it went: ``exit 0``, ``signal 9``, ``timeout``, ``stopped``, ``error 2`` (an errno) or ``unlocked 2`` (the
sandbox could not be set up, and nothing was run); `` left`` follows where something else was still running. The
command has this process's standard streams. ``PLAN`` is 0, or a file with what the command is to be locked in by, as
``marshal`` writes it: ``{"limits": {"CORE": 0}, "landlock": {…}}``, the latter as ``landlock.restrict`` takes it.

How: this process makes itself the reaper of all orphans below it (``PR_SET_CHILD_SUBREAPER``), so a child that forked
twice and left its session still becomes a child of this process, and there are none left exactly when ``waitpid`` says
so. The same at a normal end: what the command left in the background does not outlive it. Under bubblewrap this is
the first process of the sandbox and stays in it; under Landlock it stays outside, and locks in only its child. Either
way a locked-in command can neither trace nor end it.

Limits: Linux. Elsewhere only the command's own process group is ended. A descendant with other rights (setuid) that
does not obey SIGKILL from us, or sleeps in the kernel, is given up after ``GIVE_UP`` seconds. A command of the same
user can kill this process first; only a sandbox prevents that (one by Landlock only from Linux 6.12 on).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # ``typing`` takes longer to load than all else here
if TYPE_CHECKING:
    from typing import Any

GRACE = 0.5
GIVE_UP = 5.0
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> None:
    """Supervise one command; see the module."""
    control, report, timeout, plan = int(arguments[0]), int(arguments[1]), float(arguments[2]), int(arguments[3])
    for fd in (control, report, *([plan] if plan else [])):
        os.set_inheritable(fd, False)
    wake = _wake_on_signals()
    adopts = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if _ready((control,), 0):
        return
    if plan:
        _prctl(_PR_SET_DUMPABLE, 0)  # nobody traces or reads this process
    os.write(report, b"began\n")
    child = _start(arguments[4:], report, plan)
    outcome = _wait(child, control, wake, time.monotonic() + timeout)
    left = "" if _reap() else " left"
    _end_all(child, adopts)
    os.write(report, f"{outcome}{left}\n".encode())


def _start(argv: list[str], report: int, plan: int) -> int:
    """Start the command in a session of its own; then let go of its streams, so that only the tree holds them."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        word = "error"
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            if plan:
                word = "unlocked"
                _lock_in(plan)
                word = "error"
            if os.getppid() == parent:  # else it died before we asked to die with it
                os.execvp(argv[0], argv)
        except (OSError, ValueError) as error:
            os.write(report, f"{word} {getattr(error, 'errno', None) or 0}\n".encode())
        finally:
            os._exit(127)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    return child


def _lock_in(plan: int) -> None:
    """Limit this process as the plan says. Raises ``OSError`` or ``ValueError``: then nothing must be run."""
    import marshal  # json would take longer to load than all that is done here
    import resource

    with open(plan, "rb") as file:
        wanted = marshal.load(file)  # noqa: S302  # written by our caller
    _prctl(_PR_SET_DUMPABLE, 1)
    for name, most in wanted["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")  # where memory runs out, this goes before the daemon
    except OSError:
        pass
    if "landlock" in wanted:
        _neighbour("landlock").restrict(**wanted["landlock"])


def _neighbour(name: str) -> Any:
    """The module beside this file, by its path: an isolated Python has no path to it, and shall have none."""
    from importlib.machinery import SourceFileLoader

    module = type(sys)(name)
    SourceFileLoader(name, os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")).exec_module(module)
    return module


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
    inside = [signal.SIGTERM] if os.getpid() == 1 else []  # only those whom this one watches over can reach it there
    for number in (signal.SIGINT, signal.SIGHUP, *inside):
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
