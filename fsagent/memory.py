"""The daemon's memory, as the system counts it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path


def give_memory_back() -> None:
    """After a burst glibc keeps the memory that it took; an idle daemon has no use for it. Does nothing elsewhere."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """How much memory this process holds now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
