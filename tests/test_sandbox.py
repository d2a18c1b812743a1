"""What the sandbox of programs holds in, tried by real programs under each rung that works here.

A rung that does not work here skips its tests, and says why. What a program may do all the same is tested too: the
limits that README "Not promised" states are facts, not guesses.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cells import LOCKED, Programs, put_in_force
from fsagent.config import load_settings
from fsagent.doctor import examine
from fsagent.errors import SettingsError, ToolError
from fsagent.files.names import TEMPORARY_PREFIX
from fsagent.model import ToolResult
from fsagent.tools import landlock, sandbox
from fsagent.tools.base import Context
from fsagent.tools.shell import Shell, ShellArgs
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.reserved import RESERVED_WRITE, tools_root
from harness import Agent, wait_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is Linux's")
SECRET = "hunter2-hunter2"


class Caged:
    """A workspace with something in it, a secret beside it, and the tool shell under one rung."""

    def __init__(self, folder: Path, rung: str) -> None:
        self.rung = rung
        self.layout: Layout = init_workspace(folder / "ws")[0]
        self.root = self.layout.root
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret.txt"
        self.secret.write_text(SECRET)
        (self.root / "notes").mkdir()
        (self.root / "plain.txt").write_text("plain\n")
        (self.layout.inbox / "waits.md").write_text("draft\n")
        (self.root / "STOP").write_text("")
        self.layout.tokens.write_text(SECRET)
        attached = self.layout.runs / "r1" / "attachments"
        attached.mkdir(parents=True)
        (attached / "a.txt").write_text("attached")
        other = self.layout.runs / "r2" / "attachments"
        other.mkdir(parents=True)
        (other / "b.txt").write_text(SECRET)

    def run(self, command: str | list[str], **more: Any) -> ToolResult:
        given = {name: more.pop(name) for name in ("network", "read", "write") if name in more}
        more.setdefault("shell", isinstance(command, str))
        context = Context(
            root=tools_root(self.layout),
            home=Programs(self.root, self.rung, **given),
            now=lambda: None,
            run="r1",
            trigger="inbox",
            seconds_left=lambda: 60.0,
            stopping=lambda: False,
        )
        return Shell().run(ShellArgs(command, **more), context)

    def refused(self, command: str | list[str], **more: Any) -> str:
        """What is said of a command that must fail; the secret must never be in it."""
        with pytest.raises(ToolError) as caught:
            self.run(command, **more)
        assert SECRET not in str(caught.value)
        return str(caught.value)

    def state(self) -> dict[str, str]:
        """Every file in and beside the workspace, with its content, but for what ordinary work may touch."""
        folder = self.root.parent
        files = (path for path in folder.rglob("*") if path.is_file() and "tmp" not in path.relative_to(folder).parts)
        return {str(path.relative_to(folder)): path.read_text() for path in files}


@pytest.fixture(params=LOCKED)
def rung(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> str:
    put_in_force(request.param, monkeypatch, tmp_path_factory.mktemp("bin"))
    return request.param


@pytest.fixture
def caged(tmp_path: Path, rung: str) -> Iterator[Caged]:
    made = Caged(tmp_path, rung)
    yield made
    assert not [name for name in os.listdir(made.layout.tmp) if name.startswith("shell-")], "the scratch folder is gone"


def python(code: str) -> list[str]:
    return ["python3", "-c", code]


# what works as ever


def test_ordinary_work_is_done(caged: Caged) -> None:
    assert caged.run("cat plain.txt; echo more >> plain.txt; cat plain.txt").text == "plain\nplain\nmore"
    caged.run(
        "mkdir notes/deep && echo a > notes/deep/a && mv notes/deep/a notes/b && cp notes/b notes/c && rm notes/c"
    )
    assert (caged.root / "notes" / "b").read_text() == "a\n"
    caged.run("cd notes && ln b hard && ln -s b soft && cat hard soft && chmod +x b && sed -i s/a/z/ b")
    assert (caged.root / "notes" / "b").read_text() == "z\n"
    assert caged.run("seq 3 | (while read x; do echo $x$x; done) | tail -n 1").text == "33"
    assert caged.run(python("import json, ssl, sqlite3, subprocess; print(subprocess.check_output(['id', '-u']))")).text
    assert (
        caged.run("echo x > $HOME/x && echo y > $TMPDIR/y && cat $HOME/x $TMPDIR/y; echo z > /dev/null").text == "x\ny"
    )
    assert caged.run("cat", stdin="given").text == "given"
    assert caged.run("pwd").text == str(caged.root)


def test_names_that_are_no_utf8_are_names_too(caged: Caged) -> None:
    odd = os.fsencode(caged.root) + b"/odd-\xff.txt"
    Path(os.fsdecode(odd)).write_text("odd")
    assert caged.run("cat odd-*").text == "odd"
    caged.run('for f in odd-*; do echo more >> "$f"; done')
    assert Path(os.fsdecode(odd)).read_text() == "oddmore\n"
    if caged.rung == "bubblewrap":
        caged.run(python("open(b'new-\\xff', 'w').write('x')"))
        assert b"new-\xff" in os.listdir(os.fsencode(caged.root))


def test_people_see_what_they_may_read(caged: Caged) -> None:
    for name in ("fsagent.yaml", "soul.md", "inbox/waits.md", ".fsagent/runs/r1/attachments/a.txt"):
        assert caged.run(["cat", name]).text == (caged.root / name).read_text().rstrip("\n")
    assert set(caged.run("ls -A").text.split()) - {".fsagent"} == set(os.listdir(caged.root)) - {".fsagent"}


def test_what_is_made_in_the_root(caged: Caged) -> None:
    """Under bubblewrap it works, and arrives when the program has ended; under Landlock it is refused."""
    line = "echo new > new.txt; mkdir made && echo x > made/x; ln -s notes link"
    if caged.rung == "Landlock":
        assert "nothing new directly in the root" in caged.refused(line)
        assert not any((caged.root / name).exists() for name in ("new.txt", "made"))
        return
    assert caged.run(line).text == "(no output)"
    assert (caged.root / "new.txt").read_text() == "new\n"
    assert (caged.root / "made" / "x").read_text() == "x\n"
    assert os.readlink(caged.root / "link") == "notes"
    caged.run("echo more >> new.txt; echo y > made/y; echo z > link/z")
    assert (caged.root / "new.txt").read_text() == "new\nmore\n"
    assert (caged.root / "notes" / "z").exists()
    said = caged.refused("echo half > half.txt; mkfifo pipe; exit 3")
    assert (caged.root / "half.txt").read_text() == "half\n"
    assert "('pipe' was not kept" in said


def test_a_name_that_a_person_took_meanwhile_is_kept(caged: Caged) -> None:
    if caged.rung != "bubblewrap":
        pytest.skip("only bubblewrap lets programs make something in the root")
    said: list[str] = []
    line = "echo theirs > report.txt; mkdir box; echo x > notes/ready; while test -e notes/ready; do sleep 0.01; done"
    thread = threading.Thread(target=lambda: said.append(caged.run(line).text))
    thread.start()
    wait_for((caged.root / "notes" / "ready").exists, "the program is there")
    (caged.root / "report.txt").write_text("mine")
    (caged.root / "box").mkdir()
    (caged.root / "notes" / "ready").unlink()
    thread.join()
    assert "'report.txt' is now 'report-2.txt'" in said[0]
    assert (caged.root / "report.txt").read_text() == "mine"
    assert (caged.root / "report-2.txt").read_text() == "theirs\n"
    assert (caged.root / "box-2").is_dir()


# files


@pytest.mark.parametrize(
    "path",
    [
        "{secret}", "../outside/secret.txt", "notes/link", "/proc/self/cwd/../outside/secret.txt",
        "/proc/self/root{secret}", "/proc/1/root{secret}", "/proc/{daemon}/root{secret}", "/proc/{daemon}/environ",
        "/proc/{daemon}/mem", "/proc/{daemon}/fd/{held}", "/proc/self/fd/{held}", "/dev/fd/{held}",
        ".fsagent/tokens.json", ".fsagent/runs/r2/attachments/b.txt",
        ".fsagent/runs/r1/attachments/../../../tokens.json",
        "/etc/shadow", "/proc/{parent}/environ",
    ],
)  # fmt: skip
def test_nothing_else_can_be_read(caged: Caged, path: str) -> None:
    (caged.root / "notes" / "link").symlink_to(caged.secret)
    with caged.secret.open() as held:
        os.set_inheritable(held.fileno(), True)
        place = path.format(secret=caged.secret, daemon=os.getpid(), held=held.fileno(), parent=os.getppid())
        caged.refused(["cat", place])


def test_no_home_and_no_other_folder_is_seen(caged: Caged) -> None:
    caged.refused(["ls", str(caged.outside)])
    home = Path.home()
    for name in os.listdir(home)[:5]:
        if not (home / name).is_dir() and os.access(home / name, os.R_OK):
            caged.refused(["cat", str(home / name)])


WRITES = [
    "echo pwned > {0}", "echo pwned >> {0}", "rm -rf {0}", "mv {0} notes/taken", "mv notes/evil {0}",
    "truncate -s 0 {0}", "ln notes/evil {0}", "ln -sf notes/evil {0}", "rmdir {0}", "mkdir -p {0}/x",
    "cp -f notes/evil {0}",
    "ln {0} notes/alias && echo pwned > notes/alias", "ln -s {1}/{0} notes/way && echo pwned > notes/way",
    "echo pwned > /proc/self/cwd/{0}", "exec 9<{0} && echo pwned > /proc/self/fd/9",
    "echo pwned > /proc/self/root{1}/{0}",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted({*RESERVED_WRITE, "inbox/waits.md", ".fsagent/tokens.json", "inbox/new.md"}))
def test_reserved_places_stay_as_they_are(caged: Caged, name: str) -> None:
    (caged.root / "notes" / "evil").write_text("pwned")
    before = caged.state()
    tries = "\n".join(f"({line.format(name, caged.root)}) 2>&-" for line in WRITES)
    caged.run(f"{tries}\ntrue")
    after = caged.state()
    assert {path: text for path, text in after.items() if "/notes/" not in path} == {
        path: text for path, text in before.items() if "/notes/" not in path
    }
    assert (caged.root / "STOP").exists()


@pytest.mark.parametrize("name", ["STOP", "fsagent.yaml", "soul.md", ".stignore", "Stop", "tasks"])
def test_a_reserved_place_that_is_not_there_cannot_be_made(caged: Caged, name: str) -> None:
    (caged.root / "STOP").unlink()
    place = next((each for each in caged.root.iterdir() if each.name == name), None)
    if place:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    if caged.rung == "Landlock":
        caged.refused(["touch", name])
    else:
        assert "the name is reserved" in caged.run(["touch", name]).text
    assert not (caged.root / name).exists()


def test_a_reserved_file_that_a_person_replaces_meanwhile_stays_out_of_reach(caged: Caged) -> None:
    """Editors save by rename: the new file must not lie open to a program that runs."""
    line = "echo x > notes/ready; while test -e notes/ready; do sleep 0.01; done; for i in 1 2 3; do "
    thread = threading.Thread(
        target=lambda: caged.run(line + "echo pwned > fsagent.yaml; rm -f fsagent.yaml STOP; done; true")
    )
    thread.start()
    wait_for((caged.root / "notes" / "ready").exists, "the program is there")
    saved = caged.root / "saved"
    saved.write_text("timeout: 5m\n")
    saved.rename(caged.layout.settings)
    (caged.root / "STOP").unlink()
    (caged.root / "STOP").write_text("anew")
    (caged.root / "notes" / "ready").unlink()
    thread.join()
    assert caged.layout.settings.read_text() == "timeout: 5m\n"
    assert (caged.root / "STOP").read_text() == "anew"


def test_nothing_outside_can_be_written(caged: Caged) -> None:
    before = caged.state()
    (caged.root / "notes" / "out").symlink_to(caged.outside)
    for place in (f"{caged.outside}/new", "../outside/new", "notes/out/new", f"/proc/self/root{caged.outside}/new"):
        for line in (f"echo pwned > {place}", f"mkdir {place}", f"ln -s x {place}", f"mv plain.txt {place}"):
            caged.refused(line)
    for place in ("/usr/bin/pwned", "/etc/pwned", "/pwned", "/dev/pwned", "/proc/sys/kernel/hostname"):
        caged.run(f"echo pwned > {place}; true")
        assert not os.path.exists(place) or Path(place).read_text() != "pwned\n"
    caged.refused(["rm", str(caged.secret)])
    caged.refused(["truncate", "-s", "0", str(caged.secret)])
    assert caged.state() == before


def test_a_hard_link_to_elsewhere_lets_nothing_be_written(caged: Caged) -> None:
    os.link(caged.secret, caged.root / "alias.txt")
    os.link(caged.layout.settings, caged.root / "alias.yaml")
    caged.refused("echo pwned > alias.txt")
    caged.refused("echo pwned > alias.yaml")
    assert caged.secret.read_text() == SECRET


def test_the_system_tmp_is_another_one(caged: Caged) -> None:
    place = Path("/tmp", f"fsagent-test-{os.getpid()}-{caged.rung}")
    try:
        caged.run(f"echo x > {place}; true")
        assert not place.exists()
        place.write_text(SECRET)
        caged.refused(["cat", str(place)])
    finally:
        place.unlink(missing_ok=True)


def test_further_places_are_those_of_the_settings(caged: Caged) -> None:
    assert caged.run(["cat", str(caged.secret)], read=(str(caged.outside),)).text == SECRET
    caged.refused(f"echo x > {caged.outside}/new", read=(str(caged.outside),))
    caged.run(f"echo x > {caged.outside}/new", write=(str(caged.outside),))
    assert (caged.outside / "new").read_text() == "x\n"
    assert "the workspace lies there" in caged.refused("true", read=(str(caged.root.parent),))
    assert "lies in it" in caged.refused("true", write=(str(caged.layout.inbox),))
    assert caged.run("true", read=("/nowhere/at/all",)).text == "(no output)"


# network and processes

CONNECT = """
import socket, sys
kind, family, address = sys.argv[1], *(sys.argv[2:4])
s = socket.socket(getattr(socket, family), getattr(socket, kind))
s.settimeout(2)
s.connect(("127.0.0.1", int(address)) if family == "AF_INET" else address.replace("@", chr(0)))
s.send(b"got out")
"""


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_the_machine_itself_is_reached_only_with_the_network(caged: Caged, kind: str, network: bool) -> None:
    with socket.socket(socket.AF_INET, getattr(socket, kind)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5.0 if network else 0.2)
        if kind == "SOCK_STREAM":
            server.listen()
        try:
            caged.run([*python(CONNECT), kind, "AF_INET", str(server.getsockname()[1])], network=network)
        except ToolError:
            assert not network
        if not network:
            with pytest.raises(TimeoutError):
                server.accept() if kind == "SOCK_STREAM" else server.recv(10)
        elif kind == "SOCK_DGRAM":
            assert server.recv(10) == b"got out"
        else:
            with server.accept()[0] as peer:
                assert peer.recv(10) == b"got out"


@pytest.mark.parametrize("network", [False, True])
def test_unix_sockets_of_others_are_not_reached(caged: Caged, network: bool) -> None:
    """By path never; by an abstract name neither, but under bubblewrap with the network."""
    with socket.socket(socket.AF_UNIX) as path, socket.socket(socket.AF_UNIX) as abstract:
        path.bind(str(caged.outside / "socket"))
        abstract.bind(f"\0fsagent-{os.getpid()}-{caged.rung}-{network}")
        path.listen()
        abstract.listen()
        caged.refused([*python(CONNECT), "SOCK_STREAM", "AF_UNIX", str(caged.outside / "socket")], network=network)
        name = f"@fsagent-{os.getpid()}-{caged.rung}-{network}"
        if network and caged.rung == "bubblewrap":
            caged.run([*python(CONNECT), "SOCK_STREAM", "AF_UNIX", name], network=True)
        else:
            caged.refused([*python(CONNECT), "SOCK_STREAM", "AF_UNIX", name], network=network)


def test_names_of_hosts_can_be_looked_up_with_the_network(caged: Caged) -> None:
    assert (
        caged.run(python("import socket; print(socket.gethostbyname('localhost'))"), network=True).text == "127.0.0.1"
    )


def test_other_processes_cannot_be_signalled_or_traced(caged: Caged) -> None:
    if caged.rung == "Landlock" and landlock.abi() < 6:
        pytest.skip("signals are held in from Linux 6.12 on")
    victim = subprocess.Popen(["sleep", "600"])
    try:
        code = """
import ctypes, os, sys
pid, supervisor = int(sys.argv[1]), os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
for each in {pid, supervisor} - {os.getpid()}:
    for number in (0, 9, 15, 19):
        try:
            os.kill(each, number)
            if each == pid: print("signalled", each)
        except OSError: pass
    if libc.ptrace(16, each, 0, 0) == 0: print("traced", each)
    for what in ("mem", "environ", "maps", "root", "fd/0"):
        try: os.open(f"/proc/{each}/{what}", os.O_RDONLY); print("opened", each, what)
        except OSError: pass
print("tried")
"""
        assert caged.run([*python(code), str(victim.pid)]).text == "tried"
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_limits_and_rights(caged: Caged) -> None:
    status = dict(
        line.split(":\t", 1) for line in caged.run("cat /proc/self/status").text.splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert (
        int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) & int(status["CapEff"], 16)
    )
    assert int(status["CapEff"], 16) == 0
    assert caged.run("ulimit -c; ulimit -Hc").text.split() == ["0", "0"]
    assert caged.run("cat /proc/self/oom_score_adj").text == "500"
    caged.refused("dd if=/dev/zero of=notes/huge bs=1 count=1 seek=5G 2>&1")


# how it is told


def test_a_failure_says_that_a_sandbox_held_it(caged: Caged) -> None:
    assert f"(in the sandbox: {caged.rung}, no network" in caged.refused("exit 3").splitlines()[0]
    assert f"(in the sandbox: {caged.rung}, with the network" in caged.refused("exit 3", network=True).splitlines()[0]
    assert "there is no program 'nosuch' (in the sandbox" in caged.refused(["nosuch"])
    assert "sandbox" not in caged.run("exit 0").text
    assert Shell().subject(ShellArgs("df -h")) == "df -h"


def test_status_and_doctor_name_what_is_in_force(tmp_path: Path, rung: str) -> None:
    agent = Agent(tmp_path / "ws", "tools: {shell: allow}\nsettle: 0s\n", fork=False)
    assert f"sandbox of programs: {rung}, no network" in examine(agent.layout).summary
    agent.drop("a.md", "---\nsteps:\n  - shell: {command: 'cat ../ws.log', shell: true}\n---\n")

    def status_says(words: str) -> bool:
        return words in agent.status()

    try:
        agent.start()
        wait_for(lambda: status_says(f"Sandbox of programs: {rung}, no network."), "status.md")
        assert f"Sandbox of programs: {rung}, no network." in agent.cli("status").stdout
        assert f"in the sandbox: {rung}" in agent.result("a.md")["error"]
        agent.layout.settings.write_text("tools: {shell: allow}\nsandbox: off\nsettle: 0s\n")
        wait_for(lambda: status_says("Sandbox of programs: none (sandbox: off)."), "status.md")
        agent.drop("b.md", "---\nsteps:\n  - shell: {command: 'cat ../ws.log', shell: true}\n---\n")
        assert agent.result("b.md")["status"] == "done"
        agent.layout.settings.write_text("settle: 0s\n")
        wait_for(lambda: not status_says("Sandbox"), "nothing is said where shell is denied")
    finally:
        agent.close()


NO_LANDLOCK = """
import ctypes, os, struct, sys
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
header = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0
os.environ["PATH"] = sys.argv[1]
os.execv(sys.executable, [sys.executable, "-m", "fsagent", *sys.argv[2:]])
"""


def test_where_nothing_works_programs_are_refused_unless_the_settings_say_off(tmp_path: Path) -> None:
    """A kernel without Landlock (a seccomp filter makes it one), and no bubblewrap on PATH."""
    agent = Agent(tmp_path / "ws", "tools: {shell: allow}\nsettle: 0s\n", fork=False)
    agent.drop("a.md", "---\nsteps:\n  - shell: {command: 'echo ran > notes.txt', shell: true}\n---\n")
    bare = [sys.executable, "-c", NO_LANDLOCK, str(tmp_path)]
    done = subprocess.run([*bare, "run", str(agent.root), "--once"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = agent.result("a.md")["error"]
    assert "no sandbox works here (bubblewrap: bwrap is not installed; Landlock: it needs Linux 6.2" in said
    assert "Install bubblewrap, or set sandbox: off in fsagent.yaml" in said
    assert not (agent.root / "notes.txt").exists()
    found = subprocess.run([*bare, "doctor", "-w", str(agent.root)], capture_output=True, text=True, timeout=60)
    assert "fsagent.yaml: no sandbox works here" in found.stdout + found.stderr
    agent.layout.settings.write_text("tools: {shell: allow}\nsettle: 0s\nsandbox: off\n")
    agent.drop("b.md", "---\nsteps:\n  - shell: {command: 'echo ran > notes.txt', shell: true}\n---\n")
    subprocess.run([*bare, "run", str(agent.root), "--once"], capture_output=True, text=True, timeout=60, check=True)
    assert (agent.root / "notes.txt").read_text() == "ran\n"


def test_a_bubblewrap_that_breaks_later_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passed its trial, and then cannot do what is asked: told as that, and not as a result of the program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bwrap").write_text(
        '#!/bin/sh\ncase "$*" in *true) exit 0;; esac\necho "bwrap: can\'t mount" >&2\nexit 1\n'
    )
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    assert sandbox.in_force().name == "bubblewrap"
    said = Caged(tmp_path, "bubblewrap").refused("echo ran > notes/x")
    assert said == "the sandbox could not be set up; nothing was run\nbwrap: can't mount"


def test_what_goes_away_meanwhile_keeps_no_program_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write in the root all the time, by way of files that are there for a moment."""
    real = shutil.which("bwrap")
    if not real:
        pytest.skip("bubblewrap is not installed")
    caged = Caged(tmp_path, "bubblewrap")
    leaving = [caged.root / "leaves.txt", caged.root / f"{TEMPORARY_PREFIX}a1b2c3d4e5f6"]
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bwrap").write_text(f'#!/bin/sh\nrm -f {shlex.join(map(str, leaving))}\nexec {real} "$@"\n')
    (folder / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    if sandbox.in_force().name != "bubblewrap":
        pytest.skip("bubblewrap does not work here")
    for path in leaving:
        path.write_text("x")
    seen = caged.run("ls -A; cat plain.txt").text
    assert "plain.txt" in seen
    assert not [path.name for path in leaving if path.name in seen]


def test_settings_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "fsagent.yaml"
    file.write_text("sandbox: off\nsandbox_network: yes\nsandbox_read: ~/.local\nsandbox_write: [/srv/x, /srv/y]\n")
    settings = load_settings(file)
    assert (settings.sandbox, settings.sandbox_network, settings.sandbox_read) == ("off", True, ("~/.local",))
    file.write_text("sandbox: never\nsandbox_read:\n  - /usr/x\n  - relative\nsandbox_write: /\nsandbox_network: 3\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert [fault.line for fault in caught.value.faults] == [1, 6]
    file.write_text("sandbox_read:\n  - /usr/x\n  - relative\nsandbox_write: /\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert [str(fault).partition(": ")[0] for fault in caught.value.faults] == ["fsagent.yaml:3:5", "fsagent.yaml:4:1"]


def test_a_probe_costs_little_and_only_once(rung: str) -> None:
    sandbox._trial.cache_clear()
    sandbox.in_force()
    begin = time.perf_counter()
    for _ in range(100):
        sandbox.in_force()
    assert (time.perf_counter() - begin) / 100 < 0.005
