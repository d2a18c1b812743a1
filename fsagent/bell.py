"""A bell: anybody may ring it, one thread sleeps until it rings, or until a moment of the wall clock."""

from __future__ import annotations

import ctypes
import math
import os
import select
from contextlib import suppress
from datetime import datetime

_CLOCK_REALTIME = 0
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE_CANCEL_ON_SET = 1 | 2


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Bell:
    """Wakes one sleeping thread. ``ring`` may be called from any thread and from a signal handler.

    A ``threading.Event`` would not do: its lock may be held by the very thread that the signal interrupts. Nor would a
    time-out alone: it stands still while the machine sleeps, and knows nothing of a clock that is set. Linux has timers
    on the wall clock for that (``timerfd_create(2)``); elsewhere the time-out is all there is.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(_NONBLOCK_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._timer = -1
        with suppress(AttributeError, OSError):
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._timer = self._libc.timerfd_create(_CLOCK_REALTIME, _NONBLOCK_CLOEXEC)
        if self._timer >= 0:
            self._poll.register(self._timer, select.POLLIN)

    def ring(self) -> None:
        """Let ``wait`` return, now or when it is called next."""
        try:
            os.write(self._in, b"!")
        except BlockingIOError:
            pass  # it rings already

    def wait(self, seconds: float, until: datetime | None = None) -> bool:
        """Sleep until it rings, at most so long, and not beyond ``until`` (aware) or a step of the wall clock; True if
        it rang."""
        self._set(until)
        ready = [fd for fd, _ in self._poll.poll(max(0, math.ceil(seconds * 1000)))]
        if self._timer in ready:
            with suppress(OSError):  # ECANCELED: the clock was set
                os.read(self._timer, 8)
        if self._out in ready:
            os.read(self._out, 65536)
        return self._out in ready

    def close(self) -> None:
        """Give the pipe back; nobody may ring any more."""
        for fd in (self._out, self._in, self._timer):
            if fd >= 0:
                os.close(fd)

    def _set(self, until: datetime | None) -> None:
        if self._timer < 0:
            return
        moment = _Timer()
        if until is not None:
            whole, rest = divmod(max(until.timestamp(), 1e-9), 1)
            moment.value = _Timespec(int(whole), min(int(rest * 1e9) + 1, 999_999_999))
        self._libc.timerfd_settime(self._timer, _ABSOLUTE_CANCEL_ON_SET, ctypes.byref(moment), None)
