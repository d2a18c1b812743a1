"""A disk that refuses what a test says: a small library (``faultshim.c``), compiled here and preloaded into a daemon.

What a full, dying, read-only or forbidden disk says, at any call, for as long as is wanted; the daemon is the real one.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from pathlib import Path

CREATE, WRITE, SYNC, NAME, OPEN = 1, 2, 4, 8, 16
ENDLESS = 1_000_000_000
KINDS = {
    "ENOSPC": CREATE | WRITE | SYNC, "EDQUOT": CREATE | WRITE | SYNC, "EIO": CREATE | WRITE | SYNC | NAME,
    "EROFS": CREATE | WRITE | NAME, "EACCES": CREATE | NAME, "EMFILE": OPEN,
}  # fmt: skip
"""Which calls say what: a full disk still renames and removes, one that may not be written still takes what is open."""


class _Control(ctypes.Structure):
    _fields_ = (
        ("error", ctypes.c_int), ("kinds", ctypes.c_int), ("first", ctypes.c_int), ("most", ctypes.c_int),
        ("seen", ctypes.c_int), ("refused", ctypes.c_int), ("lies", ctypes.c_int),
        ("root", ctypes.c_char * 4096), ("last", ctypes.c_char * 64),
    )  # fmt: skip


def why_not() -> str:
    """Why this cannot be done here; "" where it can."""
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    probe = ["gcc", "-E", "-include", "stdio.h", "-x", "c", "/dev/null"]
    done = subprocess.run(probe, capture_output=True)
    return "gcc finds no stdio.h (package libc6-dev)" if done.returncode else ""


class BadDisk:
    """The calls that write beneath ``root``, refused at will, in the processes that are started with ``env``."""

    def __init__(self, folder: Path, root: Path) -> None:
        library, page = folder / "faultshim.so", folder / "faultshim.page"
        source = Path(__file__).with_name("faultshim.c")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        page.write_bytes(bytes(ctypes.sizeof(_Control)))
        with page.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._control = _Control.from_buffer(self._map)
        self._control.root = os.fsencode(root)
        self.env = {**os.environ, "LD_PRELOAD": str(library), "FAULTSHIM": str(page)}

    def refuse(self, name: str, first: int = 0, most: int = ENDLESS) -> None:
        """From now on, let so many calls through, and then refuse so many with this errno."""
        control = self._control
        control.error = 0
        control.kinds, control.first, control.most, control.seen, control.refused = KINDS[name], first, most, 0, 0
        control.error = getattr(errno, name)

    def heal(self) -> None:
        """All is well again."""
        self._control.error = 0

    @property
    def refused(self) -> int:
        """How many calls were refused since it was said."""
        return int(self._control.refused)

    @property
    def last(self) -> str:
        """The call that was refused last."""
        return bytes(self._control.last).decode()

    @property
    def lies(self) -> int:
        """How many syncs succeeded on a file of which one had failed: what they say is not true of any real disk."""
        return int(self._control.lies)
