"""A daemon in the foreground: until a signal ends it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType

from fsagent.daemon import Companion, Daemon
from fsagent.errors import FsagentError, StandingByError
from fsagent.trouble import REFUSALS, describe
from fsagent.workspace.hosts import new_claim, owner_elsewhere
from fsagent.workspace.journal import Listener
from fsagent.workspace.layout import Layout
from fsagent.workspace.owner import write_claim
from fsagent.workspace.status import daemon_runs, read_snapshot

SECOND_SIGNAL_AFTER = 0.5  # timeout(1) and terminals send the same signal to a process and to its group


def take_over_by_running(layout: Layout) -> str:
    """Have the daemon that stands by here take over; gives what was done, in words. "" where none stands by."""
    snapshot = read_snapshot(layout)
    if not daemon_runs(layout) or owner_elsewhere(layout) is None:
        return ""
    write_claim(layout, new_claim(layout, datetime.now(UTC)))
    return f"taken over; the daemon that stands by here (pid {snapshot.pid if snapshot else 'unknown'}) goes on"


def run_daemon(
    layout: Layout,
    listener: Listener,
    *,
    once: bool = False,
    companions: Sequence[Companion] = (),
    take_over: bool = False,
) -> int:
    """Run a daemon in the foreground until a signal ends it; gives the exit code.

    SIGTERM and SIGINT finish what runs (a second one ends at once), SIGHUP reads the settings again. Raises
    ``StandingByError`` where it is to run ``once`` and another host owns the workspace, and ``FsagentError`` in words
    for people where the disk does not even let it begin: whoever keeps daemons alive starts it again.
    """
    daemon = Daemon(layout, listener, companions=companions, take_over=take_over)
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
        if once and daemon.standing_by:
            raise StandingByError(daemon.standing_by)
        if once:
            daemon.run_once()
        else:
            daemon.run()
    finally:
        daemon.close()
    return 130 if caught and caught[0] == signal.SIGINT else 0
