"""What a run asks of the house around it, answered by the modules that own each place (``hosting.Host``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from fsagent.config import Rules, Settings
from fsagent.engines.base import Exchange, Model, Request
from fsagent.errors import DocumentError
from fsagent.files.documents import read_document
from fsagent.model import Command, Step, Usage
from fsagent.trouble import Trouble
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder
from fsagent.workspace.soul import Soul

UNLIMITED = 1e9
MOST_EXCHANGES, MOST_HISTORY = 5, 6_000
MOST_OF_A_TASK = 1_500


class Purse(Protocol):
    """What models may be asked and what was spent, for all runs together."""

    def models(self, command: Command) -> tuple[Model, ...]:
        """The models that this command may ask, the first one first."""
        ...

    def spent(self, run: str, command: Command, step: Step) -> None:
        """A turn was decided by a model, or could not be."""
        ...

    def exhausted(self, command: Command, used: Usage, steps: int, calls: int) -> str:
        """Why the run may not go on, in words; "" where it may."""
        ...

    def calls_left(self, command: Command, calls: int) -> float:
        """How many tool calls a run that has made so many may still make."""
        ...


class RunHost:
    """The one implementation of ``hosting.Host``: for one run, from one thread."""

    def __init__(
        self,
        layout: Layout,
        folder: RunFolder,
        command: Command,
        settings: Callable[[], Settings],
        soul: Soul,
        index: Index,
        allowances: Allowances,
        purse: Purse,
        secrets: Callable[[], Mapping[str, str]],
        now: Callable[[], datetime],
        trouble: Trouble,
        stopping: Callable[[], bool],
    ) -> None:
        self._trouble, self._stopping = trouble, stopping
        self.waited = 0.0  # seconds in which the disk did not take what was done
        self._layout, self._folder, self._command, self._settings = layout, folder, command, settings
        self._soul, self._index, self._allowances, self._purse = soul, index, allowances, purse
        self._secrets, self._now = secrets, now
        self._history: tuple[Exchange, ...] | None = None

    def request(self) -> Request:
        settings, command = self._settings(), self._command
        asks_models = command.engine != "offline"
        if self._history is None:
            self._history = exchanges(self._layout, self._index, command, self._folder.run) if asks_models else ()
        return Request(
            command=command, soul=self._soul.read()[0], now=settings.local(self._now()), run=self._folder.run,
            time_format=settings.time_format, history=self._history,
            models=self._purse.models(command) if asks_models else (),
        )  # fmt: skip

    def rules(self, tool: str) -> Rules:
        return self._settings().rules(self._command.trigger, tool, self._command.tools)

    def standing(self, tool: str, subject: str) -> bool:
        return self._allowances.allows(tool, subject, self._command.trigger)

    def trusts(self, tool: str, subject: str) -> bool:
        return self._settings().trusts(tool, subject)

    def secrets(self) -> dict[str, str]:
        return dict(self._secrets())

    def record(self, event: str, fields: dict[str, Any], durable: bool) -> None:
        self._patiently(lambda: self._folder.record(event, **fields))
        if event == "step":
            step = msgspec.convert(fields["step"], Step)
            if step.usage or step.blocked:
                self._patiently(lambda: self._purse.spent(self._folder.run, self._command, step))
        if durable:
            self._patiently(self._folder.sync)
            self._patiently(self._folder.anchor)

    def _patiently(self, write: Callable[[], object]) -> None:
        self.waited += self._trouble.patiently(source_of(self._folder), write, self._stopping, self._command.name)

    def exhausted(self, used: Usage, steps: int, calls: int) -> str:
        return self._purse.exhausted(self._command, used, steps, calls)

    def calls_left(self, calls: int) -> float:
        return min(self._purse.calls_left(self._command, calls), UNLIMITED)

    def keep(self, name: str, text: str) -> str:
        return self._layout.name(self._folder.keep(name, text))


def source_of(folder: RunFolder) -> str:
    """The name of a run among all that the disk may refuse something to."""
    return f"run {folder.run}"


def exchanges(layout: Layout, index: Index, command: Command, run: str) -> tuple[Exchange, ...]:
    """The last exchanges of a command's thread, oldest first, as many as fit: of a task only its last answer."""
    if not command.thread:
        return ()
    most, room = (1, MOST_OF_A_TASK) if command.task else (MOST_EXCHANGES, MOST_HISTORY)
    found: list[Exchange] = []
    for each in index.recent(most + 10, thread=command.thread):
        if each.run == run or each.status != "done" or not each.answer or len(found) >= most:
            continue
        text = "" if command.task else _request_of(RunFolder(layout.runs / each.run))
        room -= len(text) + len(each.answer)
        if room < 0 and found:
            break
        found.append(Exchange(text, each.answer, each.untrusted))
        if room < 0:
            break
    return tuple(reversed(found))


def _request_of(folder: RunFolder) -> str:
    """The text of a command below its frontmatter; "" where it cannot be read any more."""
    try:
        return read_document(folder.raw(), folder.run).body
    except (DocumentError, OSError):
        return ""
