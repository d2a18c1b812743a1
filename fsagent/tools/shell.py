"""The tool that runs programs: shell.

The command runs in the workspace folder with a bare environment, locked in (``sandbox``) unless the settings say
otherwise, under a supervisor (``supervise``) that ends its whole tree: at its end, at its time-out, when the daemon
stops, and when the daemon is killed. Limits: the sandbox's own; with ``sandbox: off`` it may do what the daemon's user
may, and elsewhere than on Linux only its process group is ended.
"""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from fsagent.errors import SaidNoError, ToolError
from fsagent.files.fields import format_duration
from fsagent.files.pipes import two_pipes
from fsagent.model import ToolResult
from fsagent.tools.base import Context, Reach, Tool
from fsagent.tools.sandbox import Cell, cell
from fsagent.tools.text import seconds

if TYPE_CHECKING:
    from io import FileIO
    from subprocess import Popen

_SUPERVISOR = str(Path(__file__).with_name("supervise.py"))
_BEAT = 0.25
_FAREWELL = 10.0
_LAST_LINES = 20
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_OPERATOR = re.compile(r"[();<>|&]+")
_PIECE = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"|.""", re.DOTALL)
_FILLED_IN = re.compile(r"(?<!\\)[$`]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_WORDS_OF_SH = frozenset("! . : cd command eval exec exit export for if read set trap type ulimit until while".split())
_KEPT = ("LANG", "LC_ALL", "TZ")


class ShellArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``command`` is a program and its arguments, or with ``shell`` a line for ``sh``; ``timeout`` like ``5m``."""

    command: str | list[str]
    shell: bool = False
    timeout: str | float = 60.0
    stdin: str = ""


class Shell(Tool[ShellArgs]):
    """Run a program."""

    name = "shell"
    hint = "Run a program in the workspace; a line for sh with shell: true."
    args = ShellArgs
    main = "command"
    effect = "once"

    def reach(self, args: ShellArgs, context: Context) -> Reach:
        """A program that is locked in, without a network, stays inside."""
        wanted = context.home.sandbox()
        return "inside" if wanted.on and not wanted.network and not wanted.write else "outside"

    def subject(self, args: ShellArgs) -> str:
        """The command line exactly as it is executed: with ``shell`` it begins with ``/bin/sh -c``."""
        try:
            return shlex.join(_argv(args))
        except ToolError:
            return args.command if isinstance(args.command, str) else repr(args.command)

    def run(self, args: ShellArgs, context: Context) -> ToolResult:
        """What the program printed (both streams, in order). A code other than 0 is a ``SaidNoError``."""
        argv = _argv(args)
        timeout = seconds(args.timeout, "timeout")
        allowed = min(timeout, context.seconds_left())
        if allowed <= 0:
            raise ToolError("the run has no time left")
        output = _Output(context.max_output)
        with cell(context.home.sandbox(), context) as locked:
            outcome, detail, left = _supervised(argv, args.stdin, allowed, context, output, locked)
            notes = [f"\n({note})" for note in locked.bring_out(context)]
        text = output.text()
        if left:
            notes.append("\n(what it had left running was ended with it)")
        if (outcome, detail) == ("exit", "0"):
            return ToolResult(text=(text or "(no output)") + "".join(notes), data={"code": 0})
        why = "the run's time is up"
        if context.stopping():
            why = "the daemon stops"
        elif outcome == "timeout" and allowed >= timeout:
            why = f"it took longer than {format_duration(timeout)}"
        held = f" (in the sandbox: {locked.words})" if locked.words and outcome in ("exit", "error", "signal") else ""
        words = _failure(argv, outcome, detail, why) + held + _last(text) + "".join(notes[: -1 if left else None])
        raise SaidNoError(words, int(detail)) if outcome == "exit" and detail.isdecimal() else ToolError(words)


def _argv(args: ShellArgs) -> list[str]:
    """The program and its arguments. Raises ``ToolError`` for what cannot be one."""
    if isinstance(args.command, list):
        if args.shell:
            raise ToolError("shell: needs the command as one text, not as a list")
        argv = args.command
    elif args.shell:
        argv = ["/bin/sh", "-c", args.command]
    else:
        try:
            argv = shlex.split(args.command)
        except ValueError as error:
            raise ToolError(f"command: {error}; write it as a list, or close the quotes") from None
        operator = operator_in(args.command)
        if operator:
            raise ToolError(f"command: {operator!r} means something only to a shell; add shell: true, or quote it")
    if not argv or not argv[0] or not str(args.command).strip():
        raise ToolError("command: write a program and its arguments, such as: df -h")
    if any("\0" in word for word in argv):
        raise ToolError("command: must not hold a zero byte")
    return argv


def operator_in(command: str) -> str:
    """The first unquoted operator of a shell in ``command`` (a pipe, a redirection …), or an empty text."""
    found = _OPERATOR.search(_QUOTED.sub("", command))
    return found[0] if found else ""


def needs_sh(command: str) -> bool:
    """True if a line says something that it would not say as a program and its arguments: an operator, a variable, a
    pattern of names, a word of sh itself. Limit: a function or an alias is not known."""
    words = command.split(maxsplit=1)
    if not words or words[0] in _WORDS_OF_SH or _ASSIGNMENT.match(words[0]):
        return bool(words)
    for found in _PIECE.finditer(command):
        piece = found[0]
        if piece[0] == '"' and _FILLED_IN.search(piece):
            return True
        if len(piece) == 1 and piece in "$`*?[~#;<>|&()\n":
            return True
    return False


def _supervised(
    argv: list[str], stdin: str, timeout: float, context: Context, output: _Output, locked: Cell
) -> tuple[str, str, str]:
    """Run the command under the supervisor, and give the words with which it reports (see there): the outcome, a
    number, and whether something was left. "lost" if it never did, "unlocked" if it never began in a sandbox."""
    try:
        (control_in, control_out), (report_in, report_out) = two_pipes()
    except OSError as error:
        raise ToolError(f"cannot start the command: {error.strerror}", retryable=True) from error
    with open(report_in, "rb", buffering=0) as report, open(control_out, "wb", buffering=0) as control:
        try:
            process = _start(argv, stdin, timeout, context.root.path, (control_in, report_out), locked)
        except (OSError, ValueError) as error:
            passing = isinstance(error, OSError) and error.errno != errno.E2BIG
            raise ToolError(f"cannot start the command: {error}", retryable=passing) from error
        finally:
            os.close(control_in)
            os.close(report_out)
        said = _follow(process, report, control, time.monotonic() + timeout + _FAREWELL, context, output).decode()
    _bury(process)
    began, _, rest = said.partition("\n")
    if locked.before and not began and not context.stopping():
        return "unlocked", "0", ""
    outcome, detail, left = (*rest.partition("\n")[0].split(), "", "", "")[:3]
    return outcome or "lost", detail, left


def _follow(
    process: Popen[bytes], report: FileIO, control: FileIO, end: float, context: Context, output: _Output
) -> bytes:
    """Take output until the supervisor has reported and gone; closes ``control`` where the run has to stop."""
    assert process.stdout is not None
    out, line = process.stdout.fileno(), b""
    os.set_blocking(out, False)
    poll = select.poll()
    for fd in (out, report.fileno()):
        poll.register(fd, select.POLLIN)
    with process.stdout:
        while time.monotonic() < end:
            ready = [fd for fd, _ in poll.poll(_BEAT * 1000)]
            if out in ready and output.take(out) == 0:
                poll.unregister(out)
            if report.fileno() in ready:
                chunk = report.read(1000)
                line += chunk or b""
                if not chunk:
                    break
            if not control.closed and (context.stopping() or context.seconds_left() <= 0):
                control.close()
                end = time.monotonic() + _FAREWELL
        while time.monotonic() < end and output.take(out):
            pass
    return line


def _start(
    argv: list[str], stdin: str, timeout: float, folder: Path, pipes: tuple[int, int], locked: Cell
) -> Popen[bytes]:
    """Start the supervisor. ``stdin`` becomes a file in memory, so that nobody has to feed it; so does the plan."""
    import marshal
    import subprocess

    given, plan = subprocess.DEVNULL, 0
    try:
        if stdin:
            given = _file_in_memory(stdin.encode("utf-8", "surrogateescape"))
        if locked.plan:
            plan = _file_in_memory(marshal.dumps(locked.plan))
        python = locked.before or (sys.executable,)
        return subprocess.Popen(
            [*python, "-I", "-S", locked.script or _SUPERVISOR, *map(str, (*pipes, timeout, plan)), *argv],
            bufsize=0,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(folder, locked),
            start_new_session=True,
            pass_fds=(*pipes, plan) if plan else pipes,
        )
    finally:
        for fd in (given, plan):
            if fd > 0:
                os.close(fd)


def _file_in_memory(content: bytes) -> int:
    """A descriptor at the start of an unnamed file."""
    if sys.platform.startswith("linux"):
        fd = os.memfd_create("stdin")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _environment(folder: Path, locked: Cell) -> dict[str, str]:
    """A bare environment. Folders of PATH that the agent could write to by its tools are left out, and those that it
    cannot see."""
    path = [place for place in os.environ.get("PATH", "").split(":") if place.startswith("/")]
    path = [place for place in path if not Path(os.path.realpath(place)).is_relative_to(folder) and locked.sees(place)]
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    bare = {"PATH": ":".join(path) or os.defpath, "HOME": str(folder), "TERM": "dumb"}
    return {"LANG": "C.UTF-8"} | kept | bare | locked.environment


def _bury(process: Popen[bytes]) -> None:
    """Collect the supervisor; one that hangs is ended (its own child then dies with it)."""
    import subprocess

    try:
        process.wait(_FAREWELL)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Output:
    """The beginning and the end of what a command prints; what lies between is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self._room = limit // 2
        self._limit = limit - self._room
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._kept = 0
        self._dropped = 0

    def take(self, fd: int) -> int | None:
        """Read once: the number of bytes, 0 at the end, None if nothing is there now."""
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return None
        room = self._room - len(self._head)
        self._head += chunk[:room]
        if chunk[room:]:
            self._tail.append(chunk[room:])
            self._kept += len(chunk[room:])
        while self._tail and self._kept - len(self._tail[0]) >= self._limit:
            gone = len(self._tail.popleft())
            self._kept -= gone
            self._dropped += gone
        return len(chunk)

    def text(self) -> str:
        """What was kept, decoded as UTF-8, with a note in the gap."""
        tail = b"".join(self._tail)
        over = max(0, len(tail) - self._limit)
        missing = self._dropped + over
        gap = f"\n… ({missing:,} bytes were left out) …\n".encode() if missing else b""
        return (bytes(self._head) + gap + tail[over:]).decode("utf-8", "replace").rstrip("\n")


def _failure(argv: list[str], outcome: str, detail: str, why: str) -> str:
    """What went wrong, in words; ``why`` is the reason for a command that was not left to end by itself."""
    name = shlex.join(argv)
    name = name if len(name) <= 200 else name[:200] + "…"
    if outcome == "exit":
        return f"{name}: ended with code {detail}"
    if outcome == "signal":
        return f"{name}: was ended by signal {detail}"
    if outcome in ("timeout", "stopped"):
        return f"{name}: {why}; it was ended with everything it had started"
    if outcome == "unlocked":
        why = f": {os.strerror(int(detail))}" if int(detail) else ""
        return f"the sandbox could not be set up{why}; nothing was run"
    if outcome == "error" and detail == str(errno.ENOENT):
        return f"there is no program {argv[0]!r}"
    if outcome == "error":
        return f"{name}: cannot be run: {os.strerror(int(detail))}"
    return f"{name}: its supervisor was killed, so nobody knows how it ended or whether something of it still runs"


def _last(text: str) -> str:
    lines = text.splitlines()
    shown = lines[-_LAST_LINES:]
    left_out = f"\n… ({len(lines) - len(shown)} lines before)" if len(lines) > len(shown) else ""
    return f"{left_out}\n" + "\n".join(shown) if lines else ""
