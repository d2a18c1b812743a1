"""The house, put together: every part of the daemon that works on one workspace, each given what it needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from fsagent import recovery
from fsagent.budgets import Budgets
from fsagent.config import Settings
from fsagent.gates import GateKeeper
from fsagent.home import WorkspaceHome, resolved
from fsagent.intake import Intake
from fsagent.keeper import Keeper
from fsagent.notices import Notices
from fsagent.pipeline import Pipeline
from fsagent.purse import Breaker, Purse, model_secrets
from fsagent.push import Push
from fsagent.reporter import Reporter
from fsagent.runner import Runner
from fsagent.secrets import MIN_LENGTH, Redactor, load_secrets
from fsagent.tools import load_tools
from fsagent.trouble import Trouble, is_damaged
from fsagent.workers import Workers
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.pins import PinBook
from fsagent.workspace.runs import RunFolder
from fsagent.workspace.soul import Soul
from fsagent.workspace.status import StatusBoard
from fsagent.workspace.tasks import TaskBook
from fsagent.workspace.usage import UsageBook

_BEFORE = " before "


class House:
    """See the module. ``status`` gives the status in words, ``wake`` asks for a look at a place, ``stopping`` says of a
    run whether it is to end. Raises ``OSError`` and ``sqlite3.Error`` where the disk does not give what is needed."""

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        journal: Journal,
        now: Callable[[], datetime],
        wake: Callable[[str], None],
        status: Callable[[], str],
        stopping: Callable[[str], bool],
    ) -> None:
        self._layout, self._settings, self._journal = layout, settings, journal
        self._secrets: Mapping[str, str] = {}
        self.secrets()
        self.index = recovery.open_index(layout)
        self.soul = Soul(layout.soul, layout.locks / "soul.lock")
        self.book = TaskBook(layout, keeps=True)
        self.trouble = Trouble(layout, journal, lambda: wake("status"))
        self.intake = Intake(layout, settings, self.trouble)
        self.board = StatusBoard(layout)
        self.reporter = Reporter(layout, settings, self.book, self.index, self.soul, now)
        self._wake = wake
        self.push = Push(settings, self._told)
        journal.heard_by(self.push.hear)
        self.notices = Notices(layout, journal, lambda: settings().local(now()), self.push.send)
        usage, breaker = UsageBook(layout, lambda moment: settings().local(moment)), Breaker(layout.breaker, now)
        self.purse = Purse(settings, breaker, Budgets(settings, usage, now), usage, self.notices, now)
        self.workers = Workers(layout.root)
        runner = Runner(load_tools())
        self.home = WorkspaceHome(
            self.soul, self.book, self.index, settings, now, status, wake, self.notices,
            PinBook(layout, journal.append), lambda: self._secrets,
        )  # fmt: skip
        self.gates = GateKeeper(layout, settings, runner, self.home, self.secrets, now, lambda: wake("gates"))
        self.pipeline = Pipeline(
            layout, settings, journal, self.index, self.soul, self.home, runner, self.workers, self.purse,
            self.secrets, now, stopping, self.trouble,
        )  # fmt: skip
        self.keeper = Keeper(layout, settings, journal, self.index, now, wake)

    def secrets(self) -> Mapping[str, str]:
        """The secrets, read again, for a key may have been replaced; what they are now, and what they were while this
        daemon lives, is kept out of all that is shown."""
        settings = self._settings()
        named = model_secrets(settings) | load_secrets(settings, self._layout.root)[0]
        for server in resolved(settings):
            named |= {f"of {server.name} {number}": value for number, value in enumerate(server.secrets, 1)}
        before = {
            name if _BEFORE in name else f"{name}{_BEFORE}{len(self._secrets)}": value
            for name, value in self._secrets.items()
            if value not in named.values()
        }
        now = {name: value for name, value in (before | named).items() if len(value) >= MIN_LENGTH}
        if now != self._secrets:
            self._secrets = now
            self._journal.redactor = Redactor(now)
        return self._secrets

    def recover(self) -> list[RunFolder]:
        """The runs that an earlier daemon left, to go on with, oldest first. Raises ``OSError``, ``sqlite3.Error``."""
        try:
            return recovery.recover(self._layout, self.index)
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
        self._listed_anew()
        return recovery.recover(self._layout, self.index)

    def mend(self) -> None:
        """Build the list of runs anew where it is damaged, or somebody removed it."""
        if self.trouble.damaged or self.index.is_lost():
            self.trouble.damaged = True  # until all of it is done
            self._listed_anew()
            self.trouble.damaged = False

    def _listed_anew(self) -> None:
        recovery.renew_index(self._layout, self.index)
        self._journal.tell("index", what="the list of runs was damaged or gone, and is built anew")

    def _told(self, event: str, **fields: Any) -> None:
        """A push failed, or works again: the status shows it."""
        self._journal.tell(event, **fields)
        self._wake("push")

    def close(self) -> None:
        """End what goes on, and close what is open."""
        self.keeper.close()
        self._journal.unheard_by(self.push.hear)
        self.workers.close()
        self.book.close()
        self.index.close()
