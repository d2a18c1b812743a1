"""Locks between processes, by filelock.

A lock file lies in ``.fsagent/locks/``, is never removed and never the file that it guards: an editor that saves by
rename would take the lock away with the old file. Limits: locks are advisory (no editor looks at them) and hold on one
machine only; a file system without ``flock`` is refused rather than guessed at.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Timeout", "lock"]


def lock(path: Path, seconds: float = 10.0) -> FileLock:
    """A lock to use in ``with``; waits at most ``seconds``, then raises ``Timeout``. The folder must exist."""
    return FileLock(
        path, timeout=seconds, poll_interval=0.02, fallback_to_soft=False, thread_local=False, preserve_lock_file=True
    )
