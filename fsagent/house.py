"""The house, put together: every part of the daemon that works on one workspace, each given what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from fsagent import recovery
from fsagent.config import Settings
from fsagent.home import WorkspaceHome
from fsagent.intake import Intake
from fsagent.notices import Notices
from fsagent.pipeline import Pipeline
from fsagent.purse import Breaker, Purse, model_secrets
from fsagent.push import Push
from fsagent.reporter import Reporter
from fsagent.runner import Runner
from fsagent.secrets import Redactor
from fsagent.tools import load_tools
from fsagent.workers import Workers
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.soul import Soul
from fsagent.workspace.status import StatusBoard
from fsagent.workspace.tasks import TaskBook


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
        self.read_secrets()
        self.index = recovery.open_index(layout)
        self.soul = Soul(layout.soul, layout.locks / "soul.lock")
        self.book = TaskBook(layout)
        self.intake = Intake(layout, settings, journal)
        self.board = StatusBoard(layout)
        self.reporter = Reporter(layout, settings, self.book, self.index, self.soul, now)
        self._wake = wake
        self.push = Push(settings, self._told)
        journal.heard_by(self.push.hear)
        self.notices = Notices(layout, journal, lambda: settings().local(now()), self.push.send)
        self.purse = Purse(settings, Breaker(layout.machine / "breaker.json", now), self.notices)
        self.workers = Workers(layout.root, now)
        self.home = WorkspaceHome(self.soul, self.book, self.index, settings, now, status, wake, self.notices)
        self.pipeline = Pipeline(
            layout, settings, journal, self.index, self.soul, self.home, Runner(load_tools()), self.workers, self.purse,
            lambda: self._secrets, now, stopping,
        )  # fmt: skip

    def read_secrets(self) -> None:
        """Read the secrets again: what they are now is kept out of all that is shown."""
        self._secrets = model_secrets(self._settings())
        self._journal.redactor = Redactor(self._secrets) if self._secrets else None

    def _told(self, event: str, **fields: Any) -> None:
        """A push failed, or works again: the status shows it."""
        with suppress(OSError):
            self._journal.append(event, **fields)
        self._wake("push")

    def close(self) -> None:
        """End the workers, and close what is open."""
        self.workers.close()
        self.index.close()
