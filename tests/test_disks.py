"""Real disks and limits that run out while the daemon lives: ext4 images, read-only mounts, modes, descriptors."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fsagent.doctor import examine
from fsagent.faces import door
from fsagent.workspace.status import read_snapshot
from harness import Agent, wait_for

SETTINGS = "settle: 0s\nsettle_renamed: 0s\nscan_interval: 2s\n"
SOON = 20.0


def _mounts() -> str:
    """Why nothing can be mounted here; "" where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    probe = "truncate -s 2M $0/i && mkfs.ext4 -q -F $0/i && mkdir $0/m && mount -o loop $0/i $0/m && umount $0/m"
    command = ["sh", "-c", f'd=$(mktemp -d) && set -- && sh -c \'{probe}\' "$d"; s=$?; rm -rf "$d"; exit $s']
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"loop mounts are not permitted here: {done.stderr.strip()}"


WHY_NOT = _mounts()
needs_mounts = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a new ext4 image of so many MB, made with these options."""
    places: list[Path] = []

    def mount(megabytes: int, *options: str) -> Path:
        image, place = tmp_path / "image", tmp_path / "disk"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, image], check=True)
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


def _need(agent: Agent) -> str:
    """What the status says under "Needs you"."""
    try:
        text = agent.status()
    except FileNotFoundError:  # nothing was said yet
        return ""
    return text.partition("## Needs you")[2].partition("\n## ")[0]


def _fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def _take_names(folder: Path) -> None:
    """Make files until the disk takes no more."""
    folder.mkdir()
    with suppress(OSError):
        for number in range(10_000):
            (folder / str(number)).touch()


def _staged(agent: Agent, names: Sequence[str]) -> Callable[[], None]:
    """Commands that lie on the disk already, and wait to be moved to the inbox, which takes no room."""
    wait_for(agent.layout.status.exists, "it has a status")
    stage = agent.root / "stage"
    stage.mkdir()
    for name in names:
        (stage / name).write_text(f"Log {name} to log.txt")

    def move() -> None:
        for name in names:
            os.rename(stage / name, agent.layout.inbox / name)
        stage.rmdir()

    return move


def _all_is_done(agent: Agent, names: Sequence[str]) -> None:
    for name in names:
        assert agent.result(name, SOON)["status"] == "done"
    assert sorted((agent.root / "log.txt").read_text().split()) == sorted(names)
    wait_for(lambda: not _need(agent), "nothing is wrong any more", SOON)
    wait_for(lambda: agent.cli("health").stdout == "healthy\n", "the health knows it, too", SOON)
    wait_for(lambda: not list(examine(agent.layout).faults), "the list of runs says it as well")
    assert agent.stop() == 0


@needs_mounts
def test_a_full_disk_is_told_and_all_goes_on_when_there_is_room(mounted: Callable[..., Path]) -> None:
    agent, names = Agent(mounted(16) / "ws", SETTINGS), [f"{number}.md" for number in range(5)]
    agent.start()
    try:
        move, filler = _staged(agent, names), agent.root.parent / "filler"
        _fill(filler)
        move()
        wait_for(lambda: "is nearly full" in _need(agent) or "is full" in _need(agent), "it is told", SOON)
        wrong = agent.cli("health")
        assert wrong.returncode == 1
        assert "free some space" in wrong.stdout
        assert "free some space" in agent.cli("status").stdout
        assert agent.results() == []
        filler.unlink()
        _all_is_done(agent, names)
    finally:
        agent.close()


NOBODY = 65534
AS_NOBODY = [
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",  # Python may be root's
]  # fmt: skip


def _limited_ext4(image: Path, place: Path) -> str:
    """An ext4 on which the user may have 6 MB; gives why that cannot be had here."""
    if shutil.which("setquota") is None:
        return "setquota is not installed"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "quota", "-E", "quotatype=usrquota", image], check=True)
    if subprocess.run(["mount", "-o", "loop,usrquota", image, place], capture_output=True).returncode:
        return "this kernel knows no quotas of ext4 (CONFIG_QFMT_V2)"
    subprocess.run(["setquota", "-u", str(NOBODY), "6000", "6000", "0", "0", place], check=True)
    return ""


def _limited_btrfs(image: Path, place: Path) -> str:
    """A btrfs that may hold 6 MB beside its own; gives why that cannot be had here."""
    if shutil.which("mkfs.btrfs") is None:
        return "mkfs.btrfs is not installed"
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode:
        return "this kernel has no btrfs"
    subprocess.run(["btrfs", "quota", "enable", place], check=True)
    subprocess.run(["btrfs", "qgroup", "limit", "6M", "0/5", place], check=True, capture_output=True)
    return ""


@pytest.fixture(params=[_limited_ext4, _limited_btrfs], ids=["ext4", "btrfs"])
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk with much room, of which ``NOBODY`` may take little."""
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    place.mkdir()
    for path in place.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    why = request.param(image, place)
    if not why and subprocess.run([*AS_NOBODY, "true"], capture_output=True).returncode:
        why = "setpriv cannot make us another user"
    try:
        if why:
            pytest.skip(why)
        shutil.chown(place, NOBODY, NOBODY)
        yield place
    finally:
        if place.is_mount():
            subprocess.run(["umount", place], check=True)


def _beats_no_more(agent: Agent) -> bool:
    """True where the disk does not even take the sign of life: btrfs needs new room to write over old text."""
    snapshot = read_snapshot(agent.layout)
    return bool(snapshot) and (datetime.now(UTC) - snapshot.beat).total_seconds() > 2.5


@needs_mounts
@pytest.mark.timeout(180)
def test_a_quota_that_is_used_up_is_told_as_such_and_nothing_is_lost(limited: Path, tmp_path: Path) -> None:
    """A daemon that is not root; what ran when it was used up waits at the very record that was refused."""
    agent = Agent(limited / "ws", SETTINGS.replace("scan_interval: 2s", "scan_interval: 1s"))
    names = [f"{number}.md" for number in range(40)]
    agent.log = tmp_path / "log"  # on another disk
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", agent.root], check=True)
    filler, said = limited / "filler", f"The disk quota of user nobody on {agent.root} is used up: free some space"
    fill = "dd bs=64k of=$0 if=/dev/zero; dd bs=1k of=$0 if=/dev/zero oflag=append conv=notrunc"
    agent.start(AS_NOBODY)
    try:
        move = _staged(agent, names)
        for number in range(3):
            if number == 1:
                move()
            full = subprocess.run([*AS_NOBODY, "sh", "-c", fill, filler], capture_output=True, text=True)
            assert "Disk quota exceeded" in full.stderr
            wait_for(lambda: said in agent.cli("health").stdout or _beats_no_more(agent), "it is refused", SOON)
            filler.unlink()
            wait_for(lambda: agent.cli("health").stdout == "healthy\n", "it goes on", SOON)
            wait_for(lambda: not _beats_no_more(agent), "it beats again", SOON)
        assert said in agent.output()
        results = {name: agent.result(name, SOON) for name in names}
        failed = {name for name, result in results.items() if result["status"] != "done"}
        assert all("Disk quota exceeded" in results[name]["error"] for name in failed)
        assert sorted((agent.root / "log.txt").read_text().split()) == sorted(set(names) - failed)
        wait_for(lambda: not _need(agent), "nothing is wrong any more", SOON)
        assert len(agent.results()) == len(names)
        assert not list(examine(agent.layout).faults)
        assert agent.stop() == 0
    finally:
        agent.close()


@needs_mounts
def test_a_start_on_a_full_disk_says_why_it_cannot_be(mounted: Callable[..., Path], tmp_path: Path) -> None:
    agent = Agent(mounted(16) / "ws", SETTINGS)
    agent.once()
    move, filler = _staged(agent, ["one.md"]), agent.root.parent / "filler"
    move()
    _fill(filler)
    refused = agent.once(check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("fsagent: the daemon cannot begin. The disk of ")
    assert refused.stderr.endswith(" is full: free some space.\n")
    filler.unlink()
    agent.once()
    assert agent.result("one.md")["status"] == "done"
    assert not list(examine(agent.layout).faults)


@needs_mounts
def test_what_runs_when_the_disk_is_full_keeps_its_records(mounted: Callable[..., Path]) -> None:
    """Filled again and again while commands run: what had begun waits at the very record that was refused."""
    agent, names = Agent(mounted(16) / "ws", SETTINGS), [f"{number}.md" for number in range(60)]
    agent.start()
    try:
        move, filler = _staged(agent, names), agent.root.parent / "filler"
        move()
        for _ in range(3):
            _fill(filler)
            wait_for(lambda: "full" in _need(agent), "it is told", SOON)
            filler.unlink()
            wait_for(lambda: not _need(agent), "it goes on", SOON)
        results = {name: agent.result(name, SOON) for name in names}
        failed = {name for name, result in results.items() if result["status"] != "done"}
        assert all("No space left on device" in results[name]["error"] for name in failed)
        lines = (agent.root / "log.txt").read_text().split()
        assert sorted(lines) == sorted(set(names) - failed)
        wait_for(lambda: not any(agent.layout.runs.glob("*/claimed.md")), "all are settled")
        assert sorted(map(os.path.basename, agent.files(agent.layout.failed))) == sorted(failed)
        assert len(agent.results()) == len(names)
        assert not list(examine(agent.layout).faults)
    finally:
        agent.close()


@needs_mounts
def test_a_disk_without_inodes_is_told_as_such(mounted: Callable[..., Path]) -> None:
    agent, names = Agent(mounted(16, "-N", "256") / "ws", SETTINGS), ["one.md", "two.md"]
    agent.start()
    try:
        move, many = _staged(agent, names), agent.root.parent / "many"
        _take_names(many)
        move()
        wait_for(lambda: "inodes" in _need(agent), "it is told", SOON)
        assert "remove some files" in agent.cli("health").stdout
        shutil.rmtree(many)
        _all_is_done(agent, names)
    finally:
        agent.close()


@needs_mounts
def test_a_disk_that_is_read_only_for_a_while(tmp_path: Path) -> None:
    """Nobody can make a disk read-only on which files are open for writing, but by another mount in its place."""
    agent, names = Agent(tmp_path / "ws", SETTINGS), ["one.md", "two.md"]
    agent.start()
    try:
        _staged(agent, names)()
        wait_for(lambda: len(agent.results()) == len(names), "all is well")
        other = tmp_path / "other"
        other.mkdir()
        subprocess.run(["mount", "--bind", agent.root, other], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", other], check=True)
            subprocess.run(["mount", "--bind", other, agent.root], check=True)
            wait_for(lambda: "is read-only" in agent.output(), "it is told on the screen", SOON)
            assert "read-only" in agent.cli("health").stdout
            assert "read-only" in agent.cli("status").stdout
        finally:
            subprocess.run(["umount", "--lazy", agent.root], check=False)
            subprocess.run(["umount", "--lazy", other], check=True)
        agent.drop("three.md", "Log three.md to log.txt")
        _all_is_done(agent, [*names, "three.md"])
    finally:
        agent.close()


def test_a_folder_that_may_not_be_written_is_named_with_the_user(tmp_path: Path) -> None:
    before = []
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        before = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or subprocess.run([*before, "true"], capture_output=True).returncode:
            pytest.skip("this is root, and setpriv cannot take its rights away")
    agent, names = Agent(tmp_path / "ws", SETTINGS), ["one.md", "two.md"]
    agent.start(before)
    try:
        agent.layout.outbox.chmod(0o500)
        _staged(agent, names)()
        wait_for(lambda: "may not write outbox" in _need(agent), "it is told", SOON)
        assert "may not write outbox" in agent.cli("health").stdout
        assert agent.output().count("may not write outbox") == 1
        agent.layout.outbox.chmod(0o755)
        _all_is_done(agent, names)
        assert agent.output().count("may not write outbox") == 2, "when it began, and when it was over"
    finally:
        agent.layout.outbox.chmod(0o755)
        agent.close()


def test_without_descriptors_it_waits_and_goes_on(tmp_path: Path) -> None:
    agent, names = Agent(tmp_path / "ws", SETTINGS), ["one.md", "two.md"]
    agent.start()
    try:
        agent.drop("first.md", "What is my name?")
        agent.result("first.md")
        pid = agent.process.pid
        usual, limits = len(os.listdir(f"/proc/{pid}/fd")), resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (usual, limits[1]))
        _staged(agent, names)()
        wait_for(lambda: "files can be opened" in agent.cli("health").stdout, "the health knows it", SOON)
        wait_for(lambda: "files can be opened" in agent.output(), "it is told on the screen", SOON)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        for name in names:
            assert agent.result(name, SOON)["status"] == "done"
        wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= usual, "and none is left open")
        _all_is_done(agent, names)
    finally:
        agent.close()


@pytest.mark.parametrize("harm", ["removed", "overwritten"])
def test_a_list_of_runs_that_is_no_good_is_built_anew(tmp_path: Path, harm: str) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS)
    agent.start()
    try:
        for number in range(3):
            agent.drop(f"{number}.md", f"Log {number} to log.txt")
            agent.result(f"{number}.md")
        door.hand_in(agent.layout, b"---\nnot_before: 2099-01-01 00:00\n---\nLog never to log.txt", door.Caller("cli"))
        wait_for(lambda: len(agent.runs()) == 4, "they are listed, and the one that waits, too")
        if harm == "removed":
            agent.layout.index.unlink()
        else:
            for tail in ("", "-wal"):
                path = agent.layout.index.with_name(agent.layout.index.name + tail)
                with path.open("r+b") as file:
                    file.write(os.urandom(path.stat().st_size))
        agent.drop("3.md", "Log 3 to log.txt")
        agent.result("3.md", SOON)
        wait_for(lambda: "is built anew" in agent.output(), "it is told", SOON)
        wait_for(lambda: len(agent.runs()) == 5, "all are listed again", SOON)
        assert sorted(run.status for run in agent.runs()) == ["done"] * 4 + ["waiting"]
        assert (agent.root / "log.txt").read_text() == "0\n1\n2\n3\n"
        wait_for(lambda: not _need(agent), "nothing is wrong any more", SOON)
        assert not list(examine(agent.layout).faults)
        assert agent.stop() == 0
    finally:
        agent.close()
