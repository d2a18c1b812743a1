"""The shell tool, with real processes, under each rung of the sandbox and without one.

Every process that a test starts carries a mark of its own in its arguments. What holds programs in is in test_sandbox.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cells import RUNGS, Programs, put_in_force
from fsagent.errors import ToolError
from fsagent.model import ToolResult
from fsagent.tools.shell import Shell, ShellArgs
from test_file_tools import context_for

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="whole trees are ended on Linux only")
PATIENCE = 15.0
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or sys.executable
RUNG = "off"

# A process that leaves its session and its parent, twice, and then waits; argv[1] is the mark, argv[2] a file to touch.
DAEMON = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[2], "w").close()
time.sleep(600)
"""


def alive(mark: str) -> list[int]:
    """The processes that carry ``mark``, but for zombies."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if mark.encode() in Path("/proc", name, "cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; fails after ``PATIENCE`` seconds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "did not come true"
        threading.Event().wait(0.01)


@pytest.fixture
def mark() -> Iterator[str]:
    """A text that only this test's processes carry; whatever is left of them at the end is ended."""
    mark = f"mark-{uuid4().hex}"
    yield mark
    for pid in alive(mark):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True, params=RUNGS)
def rung(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """What holds the programs of this test in."""
    put_in_force(request.param, monkeypatch, tmp_path_factory.mktemp("bin"))
    monkeypatch.setattr(sys.modules[__name__], "RUNG", request.param)
    return request.param


def run(folder: Path, command: str | list[str], **more: Any) -> ToolResult:
    settings = {name: more.pop(name) for name in ("stopping", "seconds_left", "max_output") if name in more}
    settings["home"] = Programs(folder, RUNG)
    return Shell().run(ShellArgs(command, **more), context_for(folder, **settings))


def background(mark: str, ready: Path, *more: str) -> str:
    """A line for ``sh`` that starts the daemon above and waits until it is there."""
    ready.parent.mkdir()
    (ready.parent / "daemon.py").write_text(DAEMON)
    start = f"{PYTHON} -S {ready.parent}/daemon.py {mark} {ready} {' '.join(more)}"
    return f"{start} & while ! test -e {ready}; do sleep 0.01; done"


# what runs


def test_a_program_runs_without_a_shell(tmp_path: Path) -> None:
    assert run(tmp_path, "echo 'a  b' $HOME *.md").text == "a  b $HOME *.md"
    assert run(tmp_path, ["echo", "a  b", ";", "|"]).text == "a  b ; |"
    assert run(tmp_path, "true").text == "(no output)"
    assert run(tmp_path, "true").data == {"code": 0}


def test_a_line_runs_with_a_shell_where_asked(tmp_path: Path) -> None:
    assert run(tmp_path, "echo a | tr a b; echo c >&2", shell=True).text == "b\nc"


@pytest.mark.parametrize("command", ["echo a > x", "ls | wc", "a && b", "a; b", "echo $(id)", "sleep 1 &", "cat <x"])
def test_operators_of_a_shell_are_not_passed_off_as_arguments(tmp_path: Path, command: str) -> None:
    with pytest.raises(ToolError, match="shell: true"):
        run(tmp_path, command)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["echo '>' \"a|b\"", r"find . -name x -exec echo {} \;", 'echo "it\'s; fine" a=b'])
def test_quoted_operators_are_arguments(tmp_path: Path, command: str) -> None:
    run(tmp_path, command)


def test_the_subject_is_what_executes() -> None:
    tool = Shell()
    assert tool.subject(ShellArgs("df   -h '/x y'")) == "df -h '/x y'"
    assert tool.subject(ShellArgs(["df", "a;b"])) == "df 'a;b'"
    assert tool.subject(ShellArgs("df -h; rm x", shell=True)) == "/bin/sh -c 'df -h; rm x'"
    assert tool.subject(ShellArgs("df -h\nrm x")) == "df -h rm x"
    assert tool.subject(ShellArgs("df '")) == "df '"


@pytest.mark.parametrize("command", ["", " ", [], [""], "'", "a\0b", ["a\0b"]])
def test_what_is_no_command_is_refused(tmp_path: Path, command: Any) -> None:
    with pytest.raises(ToolError, match="command"):
        run(tmp_path, command)


def test_a_list_cannot_be_a_line_for_a_shell(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="as one text"):
        run(tmp_path, ["ls"], shell=True)


def test_the_environment_is_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rung: str) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    monkeypatch.setenv("TZ", "Europe/Lisbon")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:.::{os.environ['PATH']}")
    lines = dict(line.split("=", 1) for line in run(tmp_path, "env").text.splitlines())
    assert lines.pop("PATH").startswith("/")
    home = lines.pop("HOME")
    if rung == "off":
        assert home == str(tmp_path)
    else:
        assert home == lines.pop("TMPDIR")
        assert not os.path.exists(home) or home == "/tmp"
    assert lines.pop("TZ") == "Europe/Lisbon"
    assert set(lines) <= {"LANG", "LC_ALL", "LC_CTYPE", "TERM", "PWD"}
    assert str(tmp_path) not in run(tmp_path, ["sh", "-c", "echo $PATH"]).text
    assert run(tmp_path, "pwd").text == str(tmp_path)


def test_stdin_is_closed_or_given(tmp_path: Path) -> None:
    assert run(tmp_path, "cat").text == "(no output)"
    assert run(tmp_path, "wc -c", stdin="ü" * 500_000).text.strip() == "1000000"


def test_signals_have_their_usual_meaning(tmp_path: Path) -> None:
    status = run(tmp_path, "grep -E '^Sig(Ign|Blk)' /proc/self/status").text
    assert [int(line.split()[1], 16) for line in status.splitlines()] == [0, 0]


def test_only_three_descriptors_are_inherited(tmp_path: Path) -> None:
    assert run(tmp_path, "ls /proc/self/fd").text.split() == ["0", "1", "2", "3"]


# how it ends


def test_a_failure_has_the_code_and_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        run(tmp_path, "seq 100; echo why >&2; exit 3", shell=True)
    lines = str(caught.value).splitlines()
    assert "ended with code 3" in lines[0]
    assert lines[0].endswith("ended with code 3") == (RUNG == "off")
    assert (f"in the sandbox: {RUNG}, no network" in lines[0]) == (RUNG != "off")
    assert lines[-1] == "why"
    assert len(lines) == 22
    assert not caught.value.retryable


def test_other_ends_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    for command, why in (
        (["sh", "-c", "kill -9 $$"], "signal 9"),
        (["no-such-program"], "no program 'no-such-program'"),
        (["./plain"], "cannot be run: Permission denied"),
        (["sh", "-c", "exit 127"], "code 127"),
    ):
        with pytest.raises(ToolError, match=why):
            run(tmp_path, command)


def test_output_without_end_is_bounded(tmp_path: Path) -> None:
    text = run(tmp_path, "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end", shell=True, max_output=1000).text
    assert text.startswith("xxx")
    assert text.endswith("x\nend")
    assert len(text) < 1100
    assert "29,999," in text


def test_a_time_out_ends_it(tmp_path: Path, mark: str) -> None:
    for command in ("sleep 600", "yes"):
        with pytest.raises(ToolError, match=r"took longer than 0\.3s") as caught:
            run(tmp_path, f"exec sh -c '{command}' {mark}", shell=True, timeout="0.3")
        assert not caught.value.retryable
    assert alive(mark) == []


@pytest.mark.parametrize("timeout", ["soon", "-1", 0, "nan", "0s"])
def test_a_time_out_is_a_duration(tmp_path: Path, timeout: Any) -> None:
    with pytest.raises(ToolError, match="timeout"):
        run(tmp_path, "true", timeout=timeout)


def test_it_ends_with_the_run_and_with_the_daemon(tmp_path: Path, mark: str) -> None:
    end = time.monotonic() + 0.5
    with pytest.raises(ToolError, match="the run's time is up"):
        run(tmp_path, ["sh", "-c", "sleep 600", mark], seconds_left=lambda: end - time.monotonic())
    with pytest.raises(ToolError, match="no time left"):
        run(tmp_path, "true", seconds_left=lambda: 0.0)
    seen = threading.Event()

    def stopping() -> bool:
        if alive(mark):
            seen.set()
        return seen.is_set()

    with pytest.raises(ToolError, match="the daemon stops"):
        run(tmp_path, ["sh", "-c", "sleep 600", mark], stopping=stopping)
    assert alive(mark) == []


# the whole tree


@LINUX
@pytest.mark.parametrize("stubborn", [(), ("stubborn",)])
def test_what_was_left_in_the_background_does_not_outlive_the_command(tmp_path: Path, mark: str, stubborn: Any) -> None:
    result = run(tmp_path, background(mark, tmp_path / "work" / "ready", *stubborn) + "; echo done", shell=True)
    assert result.text == "done\n(what it had left running was ended with it)"
    assert alive(mark) == []


@LINUX
def test_a_time_out_ends_what_left_its_session_and_parent(tmp_path: Path, mark: str) -> None:
    with pytest.raises(ToolError, match="took longer"):
        run(tmp_path, background(mark, tmp_path / "work" / "ready", "stubborn") + "; sleep 600", shell=True, timeout=2)
    assert (tmp_path / "work" / "ready").exists()
    assert alive(mark) == []


@LINUX
def test_a_wide_and_deep_tree_ends(tmp_path: Path, mark: str) -> None:
    tree = f"for i in 1 2 3 4 5; do (setsid sh -c '(sleep 600; :) & (setsid sleep 600; :) & wait' {mark} &) ; done"
    with pytest.raises(ToolError, match="code 7"):
        run(tmp_path, f"{tree}; exit 7", shell=True)
    assert alive(mark) == []


CALLER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import test_shell_tool
from test_shell_tool import background, run
test_shell_tool.RUNG = {rung!r}
run(Path({folder!r}), background({mark!r}, Path({folder!r}, "work", "ready"), "stubborn") + "; sleep 600", shell=True)
"""


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_tree_ends_when_its_caller_is_killed(tmp_path: Path, mark: str, number: signal.Signals, rung: str) -> None:
    code = CALLER.format(path=[str(Path(__file__).parent), *sys.path], folder=str(tmp_path), mark=mark, rung=rung)
    caller = subprocess.Popen([sys.executable, "-c", code, mark], stderr=subprocess.DEVNULL)
    try:
        until((tmp_path / "work" / "ready").exists)
        assert len(alive(mark)) >= 4  # the caller, the supervisor, sh, and the one in the background
    finally:
        caller.send_signal(number)
        caller.wait()
    until(lambda: not alive(mark))


@LINUX
def test_a_command_dies_with_its_supervisor_and_cannot_end_it_from_a_sandbox(
    tmp_path: Path, mark: str, rung: str
) -> None:
    if rung != "off":
        assert run(tmp_path, "kill -9 $PPID; kill -TERM $PPID 2>&-; exec echo still here", shell=True).text.endswith(
            "still here"
        )
        return
    with pytest.raises(ToolError, match="supervisor was killed"):
        run(tmp_path, ["sh", "-c", "kill -9 $PPID; exec sleep 600", mark])
    until(lambda: not alive(mark))


@LINUX
def test_several_at_once_do_not_hold_each_other_up(tmp_path: Path, mark: str) -> None:
    """A pipe that one call's child inherits by accident would keep another call from ending."""
    before = len(os.listdir("/proc/self/fd"))
    found: list[str] = []
    slow = threading.Thread(target=lambda: found.append(run(tmp_path, "sleep 3").text))
    slow.start()
    threads = [threading.Thread(target=lambda: found.append(run(tmp_path, "echo x").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slow.is_alive()
    assert found == ["x"] * 8
    slow.join()
    assert len(os.listdir("/proc/self/fd")) == before
