"""The daemon: holds a workspace, and is on duty there or stands by, until it is told to stop."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from fsagent import __version__
from fsagent.bell import Bell
from fsagent.config import Settings
from fsagent.duty import Duty
from fsagent.errors import AlreadyRunningError, FsagentError
from fsagent.files.locks import lock
from fsagent.inforce import SettingsInForce
from fsagent.ownership import Ownership
from fsagent.standby import Standby
from fsagent.trouble import LONGEST_WAIT, REFUSALS, describe
from fsagent.workspace.journal import Journal, Listener
from fsagent.workspace.layout import Layout, make_machine_places
from fsagent.workspace.status import DAEMON_LOCK, read_snapshot

PATIENCE = 10.0


def utc_now() -> datetime:
    """The wall clock: the one place that reads it."""
    return datetime.now(UTC)


class Companion(Protocol):
    """What lives and ends with the daemon, on threads of its own, and is told of the settings: a face that serves."""

    def configure(self, settings: Settings, tell: Callable[..., None]) -> None: ...

    def trouble(self) -> str: ...

    def stop(self) -> None: ...


class Daemon:
    """One daemon on one workspace. ``open``, then ``beat`` again and again (``run`` does), then ``close``.

    It is on duty where this host owns the workspace, and stands by where another one does. ``now`` is the wall clock,
    so that tests can step it. One thread calls everything here but ``stop`` and ``wake``.
    """

    def __init__(
        self,
        layout: Layout,
        listener: Listener | None = None,
        now: Callable[[], datetime] = utc_now,
        companions: Sequence[Companion] = (),
        *,
        take_over: bool = False,
    ) -> None:
        self.layout = layout
        self._take_over = take_over
        self._companions = companions
        self.now = now
        self._lock = lock(layout.locks / DAEMON_LOCK, 0)
        self.journal = Journal(layout.journal, now, listener)
        self.settings = SettingsInForce(layout.settings, self.journal)
        self._ownership = Ownership(layout, self.settings, self.journal, now)
        self._post: Duty | Standby | None = None  # None while neither could be begun
        self._woken: deque[str] = deque()
        self._bell = Bell()
        self._stopped = False

    def open(self) -> None:
        """Take the workspace, and begin. Raises ``AlreadyRunningError``, ``OSError``, ``sqlite3.Error``."""
        make_machine_places(self.layout)
        try:
            self._lock.acquire()
        except TimeoutError:
            snapshot = read_snapshot(self.layout)
            pid = snapshot.pid if snapshot else 0
            raise AlreadyRunningError(
                f"a daemon runs on {self.layout.root} already (pid {pid or 'unknown'})", pid
            ) from None
        root = str(self.layout.root)
        self.journal.append("daemon started", pid=os.getpid(), version=__version__, workspace=root)
        self._ownership.open(take_over=self._take_over)
        self._begin()
        self.settings.check()
        for companion in self._companions:
            companion.configure(self.settings(), self._told)

    @property
    def standing_by(self) -> str:
        """Which other host owns the workspace; "" where it is ours."""
        return "" if self._ownership.mine else self._ownership.words

    def wake(self, place: str = "") -> None:
        """Ask for a look at a place, soon. From any thread or a signal handler."""
        self._woken.append(place)
        self._bell.ring()

    def stop(self) -> None:
        """Ask the daemon to end; from any thread or a signal handler. What runs may finish."""
        self._stopped = True
        self._bell.ring()

    def run(self) -> None:
        """Beat until ``stop`` is called. A disk that fails for a while is told and waited for."""
        while not self._stopped:
            try:
                wait = self.beat()
            except REFUSALS as error:  # it refuses what a change of owners needs
                self.journal.tell("error", error=describe(self.layout, error))
                wait = LONGEST_WAIT
            self._bell.wait(wait, self._alarm())

    def run_once(self) -> None:
        """Do all that is due and waiting, then return; files that are still being written are waited for.

        What the disk refuses is waited for, too, but not for long. Raises ``FsagentError`` then.
        """
        looked_again, patience = False, time.monotonic() + PATIENCE
        while not self._stopped and not self.layout.stopped():
            wait = self.beat()
            if self._post and self._post.busy():
                self._bell.wait(wait, self._alarm())
                looked_again = False
            elif looked_again and wait > 0:
                refused = self._post.refused() if self._post else ()
                if not refused:
                    return
                if time.monotonic() > patience:
                    raise FsagentError("\n".join(refused))
                self._bell.wait(wait, self._alarm())
            else:
                self.wake("inbox")
                self.wake("drop")
                self.wake("approvals")
                looked_again = True

    def beat(self) -> float:
        """One turn; gives the seconds until the next. Where the owner is another one now, duty and standing by change
        over first, which may raise ``OSError`` and ``sqlite3.Error``."""
        post = self._post
        if post is None or post.owns != self._ownership.mine:
            if post:
                self._post = None
                post.close(farewell=False)
            post = self._begin()
        wait = post.beat({self._woken.popleft() for _ in range(len(self._woken))})
        rest = self._ownership.wait()
        return wait if rest is None else min(wait, rest)

    def drain(self, seconds: float = 60.0) -> bool:
        """Wait until nothing runs; for callers that step the clock themselves."""
        return not self._post or self._post.wait_idle(seconds)

    def close(self) -> None:
        """Finish what runs, for ``shutdown_wait`` at most, and leave the workspace in order."""
        self._stopped = True
        if self._post:
            self._post.drain()
        for companion in self._companions:
            companion.stop()
        cut = self._post.close(farewell=True) if self._post else ()
        why = f"stood by for {self.standing_by}" if self.standing_by else ""
        with suppress(OSError):  # a full disk must not keep us from ending
            self.journal.append("daemon stopped", pid=os.getpid(), cut_short=cut, why=why)
            self.journal.close()
        self._lock.release()

    def _begin(self) -> Duty | Standby:
        parts = (self.layout, self.settings, self._configure, self.journal, self._ownership, self.wake, self.now)
        self._post = Duty(*parts, self._trouble) if self._ownership.mine else Standby(*parts)
        return self._post

    def _alarm(self) -> datetime | None:
        return self._post.alarm if self._post else None

    def _configure(self) -> None:
        """Other settings are in force."""
        if self._post:
            self._post.configure()
        for companion in self._companions:
            companion.configure(self.settings(), self._told)

    def _told(self, event: str, **fields: Any) -> None:
        """A companion says, from its own thread, that something happened."""
        self.journal.tell(event, **fields)
        self.wake("status")

    def _trouble(self) -> list[str]:
        """What is wrong with what runs beside us."""
        return [f"api: {trouble}" for companion in self._companions if (trouble := companion.trouble())]
