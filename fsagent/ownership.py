"""Who owns the workspace: this host, or another one that has the same folder, and when that changes.

The strongest claim that was ever seen counts, and is kept in ``.fsagent/hosts/``: a file that a sync client puts back,
that somebody removes or that a conflict replaces changes nothing. An owner whose claim is not in the file any more
yields to a stronger one and puts its own back over a weaker one; so after a partition exactly one of two goes on.
An owner that finds its own id there, with another start, has a twin: a copy that runs under its id. It yields to the
later start, and goes by a new id from then on.

Limits: it is known what the file says here, not what it says elsewhere. Until a take-over has come here (however long
that takes), both hosts work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from fsagent.config import Settings
from fsagent.errors import DocumentError
from fsagent.files.names import conflict_of
from fsagent.workspace.hosts import another_host, keep_host, machine_id, new_claim, this_host
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.owner import OWNER_FILE, Claim, read_claim, strongest, write_claim
from fsagent.workspace.tasks import TaskBook

RENEW = 86_400.0
SHARE_OF_SILENCE = 4
MISSING_FOR = 2.0
_UNKNOWN = object()


class Ownership:
    """Used by the daemon's thread. ``now`` is the wall clock; ``monotonic`` one that never jumps and rests while the
    machine sleeps, so that silence counts only while news could have come."""

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        journal: Journal,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout, self._settings, self._journal, self._now = layout, settings, journal, now
        self._monotonic, self._machine = monotonic, machine_id()
        self.mine = False
        self.claim: Claim | None = None  # the strongest that is known; None where the file cannot be understood
        self._state: object = _UNKNOWN  # of the file, when it was read last
        self._tidied: int | None = None  # when the root had changed last, when it was looked through
        self._missing: float | None = None
        self._heard: tuple[Claim | None, float] = (None, 0.0)

    def open(self, *, take_over: bool) -> None:
        """Find out who owns the workspace. One that nobody owns is claimed; ``take_over`` claims it in any case.

        Raises ``OSError``.
        """
        self._host = this_host(self._layout, self._machine)
        seen, fault = self._read()
        best = strongest(seen, self._host.best)
        if take_over or (best is None and not fault):
            self._own(new_claim(self._layout, self._now()))
        elif best and best.id == self._host.id:
            self._own(self._resumed(best))
        else:
            self._stand_by(best)

    def look(self) -> None:
        """Look at the file, if it has changed, and at the time; ``mine`` says who owns the workspace then.

        Costs one ``stat`` where nothing has changed. Raises ``OSError``.
        """
        moment = self._monotonic()
        state = self._stat()
        if state is None:
            self._missing = moment if self._missing is None else self._missing
            if moment - self._missing < MISSING_FOR:  # a sync client that replaces it takes it away first
                return
        else:
            self._missing = None
        if self.mine:
            self._look_as_owner(changed=state != self._state)
        else:
            self._look_from_aside(moment, changed=state != self._state)

    def wait(self) -> float | None:
        """Seconds until the next ``look`` is worth it though nothing was heard; None where any time will do."""
        if self._missing is not None:
            return MISSING_FOR
        silence = float(self._settings().take_over_after)
        return silence / SHARE_OF_SILENCE if silence else None

    def settle_tasks(self, book: TaskBook) -> None:
        """Count the slots before a take-over as the other host's, once for each take-over: whether they were run there
        is not known here, and none may run twice."""
        claim = self.claim
        if claim is None or claim.turn <= self._host.tasks_of:
            return
        book.refresh()
        for name in book.names():
            watermark = book.state(name).watermark
            if watermark is None or watermark < claim.since:
                book.set_state(name, durable=False, watermark=claim.since, next=None, armed="")
        self._host = keep_host(self._layout, replace(self._host, tasks_of=claim.turn), self._machine)

    def tidy(self, *, thorough: bool) -> None:
        """Remove the conflict copies of files that only daemons write, ``owner.md`` and ``status.md``: they say what is
        past, and nobody reads them. Unless ``thorough`` only where a name came or went: a folder may hold many."""
        changed = os.stat(self._layout.root).st_mtime_ns
        if changed == self._tidied and not thorough:
            return
        self._tidied = changed
        for name in os.listdir(self._layout.root):
            path = self._layout.root / name
            if conflict_of(name) in (OWNER_FILE, self._layout.status.name) and path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)
                self._journal.append("tidied", what=self._layout.name(path), why="a conflict copy of a daemon's file")

    @property
    def words(self) -> str:
        """Who owns it, for people: the host, and since when."""
        if self.claim is None:
            return f"another host ({OWNER_FILE} cannot be understood)"
        return owner_words(self.claim, self._settings())

    def _look_as_owner(self, *, changed: bool) -> None:
        mine = self.claim
        assert mine
        seen: Claim | None = mine
        if changed:
            seen, _ = self._read()
            best = strongest(mine, seen)
            if best and best.rank != mine.rank:
                twin = best.id == self._host.id
                if twin:
                    self._host = another_host(self._layout, self._host, self._machine)
                self._stand_by(best)
                return
        now = self._now()
        silence = float(self._settings().take_over_after)
        old = abs((now - mine.renewed).total_seconds()) >= (silence / SHARE_OF_SILENCE if silence else RENEW)
        if old or seen is None or seen.rank != mine.rank:
            try:
                self._write(replace(mine, renewed=now.replace(microsecond=0)))
            except OSError as error:  # a full disk must not keep the owner from its work
                self._journal.tell("error", error=str(error), command=OWNER_FILE)
                self.claim = replace(mine, renewed=now.replace(microsecond=0))

    def _look_from_aside(self, moment: float, *, changed: bool) -> None:
        seen = self._heard[0]
        if changed:
            seen, _ = self._read()
            if seen != self._heard[0]:
                self._heard = (seen, moment)
        best = strongest(seen, self._host.best)
        if best and best.id == self._host.id:
            self._own(self._resumed(best))
            return
        if best and (self.claim is None or best.rank != self.claim.rank):
            self._stand_by(best)
        self.claim = best or self.claim
        silence = float(self._settings().take_over_after)
        if silence and moment - self._heard[1] >= silence:
            self._journal.append("owner silent", what=self.words, why=f"nothing was heard for {silence:g} s")
            self._own(new_claim(self._layout, self._now()))

    def _resumed(self, claim: Claim) -> Claim:
        now = self._now()
        return replace(claim, host=os.uname().nodename, started=now, renewed=now.replace(microsecond=0))

    def _own(self, claim: Claim) -> None:
        """First for ourselves, then for everybody: a crash in between is made up for at the next start."""
        before = self._host.best
        self._host = keep_host(self._layout, replace(self._host, best=claim), self._machine)
        self._write(claim)
        self.mine = True
        if before and (before.id, before.turn) != (claim.id, claim.turn):
            whose = "" if before.id == claim.id else f" from {owner_words(before, self._settings())}"
            self._journal.append("taken over", what=f"by {claim.host}{whose}")

    def _stand_by(self, best: Claim | None) -> None:
        self.mine, self.claim = False, best
        self._heard = (best, self._monotonic())
        self._host = replace(self._host, best=best)
        try:
            keep_host(self._layout, self._host, self._machine)
        except OSError as error:  # a full disk must not make us work on
            self._journal.tell("error", error=str(error))
        self._journal.append("standing by", why=f"the agent in this folder is run by {self.words}")

    def _write(self, claim: Claim) -> None:
        write_claim(self._layout, claim)
        self.claim = claim
        self._state = self._stat()

    def _read(self) -> tuple[Claim | None, str]:
        """What the file says, and what is wrong with it."""
        self._state = self._stat()
        try:
            return read_claim(self._layout), ""
        except DocumentError as error:
            self._journal.append("error", error=str(error))
            return None, str(error)

    def _stat(self) -> tuple[int, int, int] | None:
        with suppress(FileNotFoundError):
            status = os.stat(self._layout.owner, follow_symlinks=False)
            return status.st_ino, status.st_size, status.st_mtime_ns
        return None


def owner_words(claim: Claim, settings: Settings) -> str:
    """A claim for people."""
    return f"{claim.host} (since {settings.local(claim.since):%Y-%m-%d %H:%M:%S})"
