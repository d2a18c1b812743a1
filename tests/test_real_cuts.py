"""Real file systems that are cut off in the middle of the work: what was not on the disk yet is gone.

An image in a file is mounted; the kernel is told to shut it down at once, as for a disk that is pulled out
(``EXT4_IOC_SHUTDOWN``, which XFS takes as well), and it is mounted again, with whatever its journal brings back.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from fsagent.doctor import examine
from harness import Agent, wait_for

SHUTDOWN, AND_FLUSH_NOTHING = 0x8004587D, 2
SETTINGS = "settle: 0s\nsettle_renamed: 0s\nscan_interval: 1s\n"
MEGABYTES = {"ext4": 64, "xfs": 320}


def _why_not(kind: str) -> str:
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is not installed"
    return ""


class Image:
    """A file system in a file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._image, self.place, self._kind = folder / "image", folder / "disk", kind
        with self._image.open("wb") as file:
            file.truncate(MEGABYTES[kind] << 20)
        subprocess.run([f"mkfs.{kind}", "-q", self._image], check=True, capture_output=True)
        self.place.mkdir()

    def mount(self) -> str:
        """Mount it; gives why that cannot be done, or ""."""
        command = ["mount", "-t", self._kind, "-o", "loop", self._image, self.place]
        return subprocess.run(command, capture_output=True, text=True).stderr.strip()

    def cut_off(self) -> None:
        """Nothing reaches the disk from now on, and nothing can be read."""
        fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", AND_FLUSH_NOTHING))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        wait_for(lambda: subprocess.run(["umount", self.place], capture_output=True).returncode == 0, "it is unmounted")


def drop(agent: Agent, name: str) -> None:
    """As a sync client does: whole and synced."""
    path = agent.layout.inbox / name
    path.with_suffix(".tmp").write_text(f"Log {name} to log.txt")
    for each in (path.with_suffix(".tmp"), path.parent):
        fd = os.open(each, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    os.rename(path.with_suffix(".tmp"), path)
    fd = os.open(path.parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", list(MEGABYTES))
def test_a_disk_that_is_cut_off_loses_no_command_and_doubles_none(tmp_path: Path, kind: str) -> None:
    if why := _why_not(kind):
        pytest.skip(why)
    image = Image(tmp_path, kind)
    if why := image.mount():
        pytest.skip(f"loop mounts of {kind} are not permitted here: {why}")
    agent = Agent(image.place / "ws", SETTINGS)
    agent.log = tmp_path / "log"
    names, dice = list[str](), random.Random(20261127)
    os.sync()
    try:
        for turn in range(12):
            agent.start()
            fresh = [f"{turn}-{number}.md" for number in range(15)]
            for name in fresh:
                drop(agent, name)
            names += fresh
            enough = len(names) - 15 + dice.randrange(15)
            wait_for(lambda enough=enough: len(agent.files(agent.layout.outbox)) >= enough, "some more are done")
            seen = {path.name: path.read_bytes() for path in agent.layout.outbox.glob("*.md")}
            image.cut_off()
            agent.kill()
            image.unmount()
            assert not image.mount()
            agent.layout.boot.write_text("the boot before")
            kept = {path.name: path.read_bytes() for path in agent.layout.outbox.glob("*.md")}
            agent.once()
            for name, text in (seen | kept).items():
                assert (agent.layout.outbox / name).read_bytes() == text, f"{name} is another one after turn {turn}"
        results = {Path(result["command"]).name: result["status"] for result in agent.results()}
        assert sorted(results) == sorted(names)
        assert len(agent.results()) == len(names)
        assert set(results.values()) <= {"done", "interrupted"}
        lines = Counter((agent.root / "log.txt").read_text().splitlines())
        assert {lines[name] for name, status in results.items() if status == "done"} == {1}
        assert max(lines[name] for name in names) == 1
        settled = [*agent.files(agent.layout.archive), *agent.files(agent.layout.failed)]
        assert sorted(Path(name).name for name in settled) == sorted(names)
        assert not agent.files(agent.layout.inbox)
        assert not examine(agent.layout).faults
    finally:
        agent.close()
        image.unmount()
