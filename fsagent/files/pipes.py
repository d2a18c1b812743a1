"""Pipes to a process that is to be started."""

from __future__ import annotations

import os

Pipe = tuple[int, int]


def two_pipes() -> tuple[Pipe, Pipe]:
    """Two pipes, reading end first, or none. Raises ``OSError`` where no more files can be opened."""
    first = os.pipe()
    try:
        return first, os.pipe()
    except OSError:
        for fd in first:
            os.close(fd)
        raise
