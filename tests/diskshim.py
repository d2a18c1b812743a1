"""What a process does to a folder's disk, call by call: a small library (``diskshim.c``), compiled here and preloaded.

It writes down every call that changes something, and can end the process before any one of them. The processes are the
real ones; they are forked from a zygote that has the library.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness import Agent
from zygote import Zygote

CREATE, WRITE, CUT, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, SYMLINK = range(10)
EXCHANGE = 2
_ENTRY = struct.Struct("=iiIIIIQq")
_PATH_MAX = 4096


class Call(NamedTuple):
    """A call that changed something, or made it durable. ``inode`` is the file's, and of a name the one behind it."""

    kind: int
    inode: int
    at: int  # where it wrote, or the size that it cut to
    path: str
    other: str
    data: bytes
    flags: int


class _Control(ctypes.Structure):
    _fields_ = (
        ("most", ctypes.c_int), ("seen", ctypes.c_int), ("root", ctypes.c_char * _PATH_MAX),
        ("log", ctypes.c_char * _PATH_MAX),
    )  # fmt: skip


class DiskCalls:
    """The calls that processes of ``programs`` make beneath one folder at a time."""

    def __init__(self, folder: Path) -> None:
        library, page, self._log = folder / "diskshim.so", folder / "diskshim.page", folder / "diskshim.log"
        source = Path(__file__).with_name("diskshim.c")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        page.write_bytes(bytes(ctypes.sizeof(_Control)))
        with page.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._control = _Control.from_buffer(self._map)
        self.env = {**os.environ, "LD_PRELOAD": str(library), "DISKSHIM": str(page)}
        self.programs = Zygote("program", env=self.env)

    @contextmanager
    def beneath(self, root: Path, *, ended_before: int = 0) -> Iterator[None]:
        """Meanwhile calls beneath this folder count; the process that comes to this one is ended by SIGKILL."""
        self._log.unlink(missing_ok=True)
        control = self._control
        control.most, control.seen = ended_before, 0
        control.log = b"" if ended_before else os.fsencode(self._log)
        control.root = os.fsencode(root)
        try:
            yield
        finally:
            control.root = b""

    def kills(self, agent: Agent, number: int) -> bool:
        """``fsagent run --once``, by kill -9 ended before its n-th call that changes something; False where it makes no
        such many, and ended by itself."""
        with self.beneath(agent.root, ended_before=number):
            done = agent.once(check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
        return done.returncode != 0

    def calls(self) -> list[Call]:
        """What was written down."""
        found, data, at = [], self._log.read_bytes() if self._log.exists() else b"", 0
        while at < len(data):
            kind, flags, *sizes, _, inode, place = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            parts = []
            for size in sizes:
                parts.append(data[at : at + size])
                at += size
            found.append(Call(kind, inode, place, os.fsdecode(parts[0]), os.fsdecode(parts[1]), parts[2], flags))
        return found
