"""Real editors and writers on a real workspace: a command that they write runs once and whole, and of a soul.md that
they save while the agent remembers facts nothing is lost."""

from __future__ import annotations

import getpass
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from harness import Agent, wait_for

PADDING = "".join(f"Line {number} of some more words, so that it takes more than one write.\n" for number in range(400))


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*words: str | Path, **options: object) -> None:
    need(str(words[0]))
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, **options)
    assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"


# each puts the text of ``source`` under the name ``path``


def vim(path: Path, source: Path, *options: str) -> None:
    """``/tmp`` is where vim makes no backups: backupskip= makes it behave as at home."""
    more = [word for option in ("backupskip=", "backup", *options) for word in ("-c", f"set {option}")]
    run("vim", "-es", "-u", "NONE", "-N", *more, "-c", f"%!cat {source}", "-c", "wq!", path)


def vim_without_backup(path: Path, source: Path) -> None:
    vim(path, source, "nobackup", "nowritebackup")


def vim_in_place(path: Path, source: Path) -> None:
    vim(path, source, "backupcopy=yes")


def vim_by_rename(path: Path, source: Path) -> None:
    vim(path, source, "backupcopy=no")


def emacs(path: Path, source: Path, *settings: str) -> None:
    """Backups are forced: Emacs makes none in /tmp."""
    words = ["(setq make-backup-files t backup-enable-predicate (lambda (_) t))", *settings]
    words += [f'(find-file "{path}")', "(erase-buffer)", f'(insert-file-contents "{source}")', "(save-buffer)"]
    run("emacs", "-Q", "--batch", *(word for each in words for word in ("--eval", each)))


def emacs_precious(path: Path, source: Path) -> None:
    emacs(path, source, "(setq file-precious-flag t)")


def nano(path: Path, source: Path, *options: str) -> None:
    """Through a terminal, as it wants one: cut all, read the other file, save, leave."""
    program = need("nano")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(program, [program, "--ignorercfiles", *options, str(path)], {**os.environ, "TERM": "xterm"})
    wait_for(partial(_drawn, terminal), "nano draws its screen")
    for keys in (b"\x1b\\", b"\x1bT", b"\x12", f"{source}\r".encode(), b"\x13", b"\x18"):
        os.write(terminal, keys)
        if b"changed" in _drawn(terminal):  # on disk, since it was opened; it asks a little later
            wait_for(lambda: b"Yes" in _drawn(terminal), "nano asks whether to save all the same")
            os.write(terminal, b"y")
            _drawn(terminal)
    _drawn(terminal)
    os.close(terminal)  # which ends one that still asks something
    os.waitpid(pid, 0)


def _drawn(terminal: int) -> bytes:
    """What it draws until it has drawn nothing for a while."""
    drawn = b""
    with suppress(OSError):
        while select.select([terminal], [], [], 0.3)[0]:
            drawn += os.read(terminal, 65536)
    return drawn


def nano_with_backup(path: Path, source: Path) -> None:
    nano(path, source, "-B")


def sed(path: Path, source: Path) -> None:
    """What there is, is replaced line by line; a new file is written first."""
    if not path.exists():
        path.write_bytes(source.read_bytes())
    run("sed", "-i", "-e", f"1r {source}", "-e", "1,$d", path)


def perl(path: Path, source: Path) -> None:
    if not path.exists():
        path.write_bytes(source.read_bytes())
    code = 'BEGIN{open F,"<",$ENV{S};local $/;$t=<F>} $_=$.==1?$t:""'
    run("perl", "-pi", "-e", code, path, env={**os.environ, "S": str(source)})


def rsync(path: Path, source: Path, *options: str) -> None:
    run("rsync", "-t", *options, source, path)


def rsync_in_place(path: Path, source: Path) -> None:
    rsync(path, source, "--inplace", "--whole-file")


def rsync_delayed(path: Path, source: Path) -> None:
    rsync(path, source, "--delay-updates")


def copy(path: Path, source: Path) -> None:
    run("cp", source, path)


def move_across(path: Path, source: Path) -> None:
    """From another file system: mv copies."""
    other = Path("/dev/shm") / f"fsagent-{os.getpid()}-{path.name}"  # a second file system, where there is one
    shutil.copy(source, other)
    run("mv", "-f", other, path)


def tee(path: Path, source: Path) -> None:
    with source.open("rb") as text:
        subprocess.run(["tee", path], stdin=text, stdout=subprocess.DEVNULL, check=True)


def install(path: Path, source: Path) -> None:
    run("install", "-m", "644", source, path)


def git_checkout(path: Path, source: Path) -> None:
    store = path.parent.parent / f"{path.name}.git"
    git = ("git", f"--git-dir={store}", f"--work-tree={path.parent}")
    run("git", "init", "-q", "--bare", store)
    words = [*git, "hash-object", "-w", str(source)]
    blob = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    run(*git, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path.name}")
    run(*git, "checkout-index", "-f", path.name)
    shutil.rmtree(store)


def gio(path: Path, source: Path) -> None:
    """As gedit and other programs of GNOME save."""
    need("gio")
    with source.open("rb") as text:
        subprocess.run(["gio", "save", path], stdin=text, check=True, timeout=50)


def _over_ssh(source: Path, *words: str) -> None:
    """By a real ssh and sshd, which meet over a pipe: no port, and nothing that has to be ended."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None:
        pytest.skip("sshd is not installed")
    folder = source.parent
    for name in ("host", "person"):
        if not (folder / name).exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    (folder / "sshd").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/person.pub\nStrictModes no\nPermitRootLogin yes\n"
        "UsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
    )
    server = f"{sshd} -i -f {folder}/sshd"
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():  # sshd insists on it: in a /run of its own
        server = f"unshare --mount sh -c 'mount -t tmpfs run /run && mkdir /run/sshd && exec {server}'"
    (folder / "ssh").write_text(
        f"ProxyCommand {server}\nIdentityFile {folder}/person\nIdentitiesOnly yes\nStrictHostKeyChecking no\n"
        f"UserKnownHostsFile {folder}/known\nBatchMode yes\nLogLevel ERROR\nUser {getpass.getuser()}\n"
    )
    run(words[0], "-F", folder / "ssh", *words[1:])


def scp(path: Path, source: Path, *options: str) -> None:
    """It writes over what there is, and cuts the rest off at last."""
    _over_ssh(source, "scp", *options, str(source), f"there:{path}")


def scp_of_old(path: Path, source: Path) -> None:
    """By its own protocol, before it spoke SFTP."""
    scp(path, source, "-O")


def sftp(path: Path, source: Path, *options: str) -> None:
    orders = source.with_name("orders")
    orders.write_text(f"put {source} {path}\n")
    _over_ssh(source, "sftp", *options, "-b", str(orders), "there")


def sftp_slowly(path: Path, source: Path) -> None:
    """For longer than a file settles."""
    sftp(path, source, "-B", "1024", "-R", "1", "-l", "250")


def slowly(path: Path, source: Path) -> None:
    """One that holds the file open, and writes it bit by bit for longer than a file settles."""
    raw = source.read_bytes()
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(raw), len(raw) // 4 + 1):
            file.write(raw[start : start + len(raw) // 4 + 1])
            time.sleep(0.25)


def emptied_first(path: Path, source: Path) -> None:
    """``: > f; sleep; cat >> f``: closed while it is empty."""
    path.write_bytes(b"")
    time.sleep(0.3)
    with path.open("ab") as file:
        file.write(source.read_bytes())


WRITERS: list[Callable[[Path, Path], None]] = [
    vim, vim_without_backup, vim_in_place, vim_by_rename, emacs, emacs_precious, nano, nano_with_backup, sed, perl,
    rsync, rsync_in_place, rsync_delayed, copy, move_across, tee, install, git_checkout, gio,
    scp, scp_of_old, sftp, sftp_slowly, slowly, emptied_first,
]  # fmt: skip


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    agent = Agent(tmp_path_factory.mktemp("editors") / "ws", "settle: 500ms\nscan_interval: 2s\n").start()
    yield agent
    agent.close()


# The first three wait for their person or write for seconds; each other writes as one that is not among them.
_LONG = (
    nano, nano_with_backup, sftp_slowly,
    vim_without_backup, vim_by_rename, perl, rsync, install, scp_of_old,
)  # fmt: skip


@pytest.fixture(
    params=[pytest.param(each, marks=pytest.mark.long) if each in _LONG else each for each in WRITERS],
    ids=[each.__name__ for each in WRITERS],
)
def writer(request: pytest.FixtureRequest) -> Callable[[Path, Path], None]:
    return request.param


def test_a_command_that_it_writes_runs_once_and_whole(
    agent: Agent, writer: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    name = writer.__name__
    source = tmp_path / "source"
    source.write_text(f"---\nsteps:\n- append: {{path: {name}.log, text: ran}}\n---\n{PADDING}The end of {name}.\n")
    writer(agent.layout.inbox / f"{name}.md", source)
    result = agent.result(f"{name}.md")
    assert result["status"] == "done", result.content
    run_folder = agent.layout.runs / result["run"]
    wait_for((run_folder / "command.md").exists, "the command is put away")
    whole = next(agent.layout.archive.rglob(f"{name}.md"))
    assert whole.read_text().strip() == source.read_text().strip()
    assert (agent.root / f"{name}.log").read_text().split() == ["ran"]
    assert not list(agent.layout.outbox.glob(f"{name}-*.md"))


@pytest.mark.timeout(180)
def test_of_a_soul_that_it_saves_nothing_is_lost(
    agent: Agent, writer: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    """A person saves their whole text three times, with one line more each, while the agent remembers facts."""
    name = writer.__name__
    soul = agent.layout.soul
    source = tmp_path / "source"
    for number in range(3):
        agent.drop(f"{name}-fact-{number}.md", f"Remember that {name.replace('_', ' ')} box {number} is red")
        text = soul.read_text() if soul.exists() else ""
        source.write_text(f"{text.rstrip()}\n\nThe person's line {number}, by {name}.\n{PADDING if not number else ''}")
        writer(soul, source)
        assert f"The person's line {number}, by {name}." in soul.read_text()
    for number in range(3):
        assert agent.result(f"{name}-fact-{number}.md")["status"] == "done"
    text = soul.read_text()
    for number in range(3):
        assert f"The person's line {number}, by {name}." in text
    assert text.count("## Facts") == 1, "the agent made a soul of its own"
    for number in range(3):
        wanted = f"{name.replace('_', ' ')} box {number} is red".lower()
        wait_for(
            lambda wanted=wanted: any(wanted in path.read_text().lower() for path in (soul, agent.layout.status)),
            f"it stands in the soul, or the status tells that it was dropped: {wanted}",
        )
    soul.write_text("# Soul\n\n## Facts\n")
    assert not [path for path in agent.root.iterdir() if path.name.startswith(".fsagent-tmp-")]
