"""Locks between processes, by filelock.

A lock file lies in ``.fsagent/locks/``, is never removed and never the file that it guards: an editor that saves by
rename would take the lock away with the old file. Limits: locks are advisory (no editor looks at them) and hold on one
machine only; a file system without ``flock`` is refused rather than guessed at.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock


def lock(path: Path, seconds: float = 10.0) -> FileLock:
    """A lock to use in ``with``; waits at most ``seconds``, then raises ``TimeoutError``. The folder must exist."""
    from filelock import FileLock  # 5 MB and 50 ms that a face which only asks ``is_locked`` need not pay

    return FileLock(
        path, timeout=seconds, poll_interval=0.02, fallback_to_soft=False, thread_local=False, preserve_lock_file=True
    )


def is_locked(path: Path) -> bool:
    """True while a process on this machine holds the lock; asks without taking it from anybody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
