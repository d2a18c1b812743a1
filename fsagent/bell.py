"""A bell: anybody may ring it, one thread sleeps until it rings."""

from __future__ import annotations

import os
import select


class Bell:
    """Wakes one sleeping thread. ``ring`` may be called from any thread and from a signal handler.

    A ``threading.Event`` would not do: its lock may be held by the very thread that the signal interrupts.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """Let ``wait`` return, now or when it is called next."""
        try:
            os.write(self._in, b"!")
        except BlockingIOError:
            pass  # it rings already

    def wait(self, seconds: float) -> bool:
        """Sleep until it rings, at most so long; True if it rang."""
        rang, _, _ = select.select([self._out], [], [], max(0.0, seconds))
        if rang:
            os.read(self._out, 65536)
        return bool(rang)

    def close(self) -> None:
        """Give the pipe back; nobody may ring any more."""
        os.close(self._out)
        os.close(self._in)
