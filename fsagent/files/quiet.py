"""Is a file complete? It is once nobody has touched it for a while and nobody holds it open for writing."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime

Identity = tuple[int, int, int, int]


def identity_of(status: os.stat_result) -> Identity:
    """What tells one state of a file from another. The time of its last status change is in it: a rename renews it."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def seconds_to_quiet(
    status: os.stat_result, now: datetime, watched: float, settle: float, settle_renamed: float
) -> float:
    """Seconds until the file may count as quiet.

    Writing sets both times of a file alike; a later status change (rename, time stamp, mode) means that whoever
    delivers it has finished, so the shorter settle time is enough. Measured: shared/facts/files.md §1, §7 rule 5.
    """
    needed = settle_renamed if status.st_ctime_ns > status.st_mtime_ns else settle
    age = now.timestamp() - status.st_ctime_ns / 1e9
    if age < 0:
        age = watched
    return needed - age


def is_written(fd: int) -> bool:
    """True if somebody holds the file open for writing; False where the system cannot tell: the settle time must do.

    A read lease is refused then (fcntl(2)); it is given back at once.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
