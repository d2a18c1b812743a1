"""A daemon in the foreground: until a signal ends it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from types import FrameType

from fsagent.daemon import Companion, Daemon
from fsagent.errors import FsagentError
from fsagent.trouble import REFUSALS, describe
from fsagent.workspace.journal import Listener
from fsagent.workspace.layout import Layout

SECOND_SIGNAL_AFTER = 0.5  # timeout(1) and terminals send the same signal to a process and to its group


def run_daemon(layout: Layout, listener: Listener, *, once: bool = False, companions: Sequence[Companion] = ()) -> int:
    """Run a daemon in the foreground until a signal ends it; gives the exit code.

    Raises ``FsagentError`` in words for people where the disk does not even let it begin: whoever keeps daemons alive
    starts it again. SIGTERM and SIGINT finish what runs (a second one ends at once), SIGHUP reads the settings again.
    """
    daemon = Daemon(layout, listener, companions=companions)
    caught: list[int] = []
    first = 0.0

    def end(number: int, _: FrameType | None) -> None:
        nonlocal first
        if caught and time.monotonic() - first > SECOND_SIGNAL_AFTER:
            os._exit(128 + number)
        first = first or time.monotonic()
        caught.append(number)
        daemon.stop()

    signal.signal(signal.SIGIO, signal.SIG_IGN)  # a lease on a file that somebody opens would end us otherwise
    signal.signal(signal.SIGHUP, lambda *_: daemon.wake("root"))
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        daemon.open()
    except REFUSALS as error:
        raise FsagentError(f"the daemon cannot begin. {describe(layout, error)}") from error
    try:
        if once:
            daemon.run_once()
        else:
            daemon.run()
    finally:
        daemon.close()
    return 130 if caught and caught[0] == signal.SIGINT else 0
