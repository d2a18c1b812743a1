"""What the tools may ask of the workspace, answered by the modules that own each place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from fsagent.config import Settings
from fsagent.definitions import Definition, Pins
from fsagent.errors import DocumentError, PersonError, ToolError
from fsagent.extensions import installed
from fsagent.files.documents import write_document
from fsagent.mcpsettings import McpServer, filled
from fsagent.model import Fact, Run, Task, ToolCall
from fsagent.notices import Notices
from fsagent.secrets import load_secrets, sources
from fsagent.timetext import in_words, rule_from_text
from fsagent.tools import GROUP
from fsagent.tools.base import Network, Remembered, Sandbox, TaskView
from fsagent.workspace.index import Index
from fsagent.workspace.outlook import outlook
from fsagent.workspace.pins import PinBook
from fsagent.workspace.runs import new_run_id
from fsagent.workspace.soul import Soul
from fsagent.workspace.taskfile import read_task
from fsagent.workspace.tasks import TaskBook, slots_of


def task_view(task: Task, book: TaskBook, last: Run | None, settings: Settings, now: datetime) -> TaskView:
    """A task as people ask for it, with its last run and its next slot in the workspace's time zone."""
    state = book.state(task.name)
    found = outlook(task, state, settings, now)
    return TaskView(
        name=task.name,
        rule=in_words(task.table, settings.heartbeat_interval),
        request=task.body,
        state=found.words,
        last=settings.local(last.started) if last and last.started else None,
        next=settings.local(found.slots[0]) if found.slots else None,
        held_back=state.held_back,
    )


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except PersonError as error:
        raise ToolError(str(error)) from None
    except OSError as error:
        raise ToolError(f"what is pinned of MCP servers cannot be read or written: {error}") from error


def resolved(settings: Settings) -> list[McpServer]:
    """The MCP servers that are to be used, with what this process's environment gives them. One that has the name of a
    tool is none of them: it would be ruled by that tool's rules."""
    return [
        filled(name, server, os.environ)
        for name, server in settings.servers.items()
        if server.enabled and name not in installed(GROUP)
    ]


class WorkspaceHome:
    """The one implementation of ``tools.base.Home``. Safe to share between threads.

    ``secrets`` gives the values that are masked in what is shown, by name; without it they are read afresh each time.
    """

    def __init__(
        self,
        soul: Soul,
        book: TaskBook,
        index: Index,
        settings: Callable[[], Settings],
        now: Callable[[], datetime],
        status: Callable[[], str],
        wake: Callable[[str], None],
        notices: Notices,
        pins: PinBook,
        secrets: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._soul, self._book, self._index = soul, book, index
        self._notices, self._pins = notices, pins
        self._settings, self._now, self._status, self._wake = settings, now, status, wake
        self._secrets = secrets or (lambda: load_secrets(settings())[0])

    def facts(self) -> Sequence[Fact]:
        return self._soul.facts()

    def remember(self, text: str, key: str) -> Remembered:
        fact, replaced, known = self._soul.remember(text, key)
        return Remembered(fact, replaced, known)

    def forget(self, facts: Sequence[Fact]) -> Sequence[str]:
        return self._soul.forget(facts)

    def tasks(self) -> Sequence[TaskView]:
        self._book.refresh()
        tasks = self._book.tasks()
        newest = self._index.newest_of([task.name for task in tasks], 1)
        settings, now = self._settings(), self._now()
        return [
            task_view(task, self._book, next(iter(newest.get(task.name, ())), None), settings, now) for task in tasks
        ]

    def create_task(self, name: str, body: str, every: str, steps: Sequence[ToolCall]) -> TaskView:
        try:
            rule = rule_from_text(every)
            planned = read_task(write_document(rule, "planned"), name, name)
        except ValueError as error:
            raise ToolError(f"task: every: {str(error).removeprefix('every: ')}") from None
        except DocumentError as error:
            raise ToolError("; ".join(f"task: every: {fault.message}" for fault in error.faults)) from None
        if slots_of(planned, self._settings()).after(self._now()) is None:
            raise ToolError(f"task: every: {every} has passed; write a time that is yet to come")
        task = self._book.create(name, body, rule, steps)
        self._wake("tasks")
        return self._view(task)

    def pause_task(self, name: str) -> TaskView:
        return self._set(name, "by request")

    def resume_task(self, name: str) -> TaskView:
        return self._set(name, "")

    def _set(self, name: str, paused: str) -> TaskView:
        """Pause or resume a task. Its failures count anew from now on."""
        task = self._book.get(name)
        self._book.set_state(task.name, paused=paused, paused_print="", since=self._now())
        self._wake("tasks")
        return self._view(task)

    def run_task(self, name: str) -> str:
        task = self._book.get(name)
        now = self._now()
        run = new_run_id(now)
        self._book.request(task, None, run, self._settings().local(now))
        self._wake("drop")
        return run

    def runs(self, since: datetime | None, limit: int) -> Sequence[Run]:
        return self._index.recent(limit, since=since)

    def status(self) -> str:
        return self._status()

    def notify(self, title: str, text: str, run: str) -> str:
        return self._notices.of_run(title, text, run)

    def sandbox(self) -> Sandbox:
        settings = self._settings()
        return Sandbox(
            on=settings.sandbox != "off",
            network=settings.sandbox_network,
            read=tuple(map(os.path.expanduser, settings.sandbox_read)),
            write=tuple(map(os.path.expanduser, settings.sandbox_write)),
            scratch=self._book.scratch,
        )

    def network(self) -> Network:
        return Network(private=self._settings().http_private)

    def secret(self, name: str, url: str) -> str:
        known = sources(self._settings())
        if name not in known:
            there = f"there are: {', '.join(known)}" if known else "a person can name it in fsagent.yaml, under secrets"
            raise ToolError(f"there is no secret {name!r}; {there}")
        if not known[name].fits(url):
            allowed = ", ".join(known[name].urls) or "nowhere"
            raise ToolError(
                f"the secret {name} may not be sent to {url}, only to: {allowed}. A person can change that in "
                f"fsagent.yaml, secrets: {name}: for"
            )
        value = self._secrets().get(name)
        if value is None:
            raise ToolError(f"the secret {name} is not there; status.md says why")
        return value

    def servers(self) -> Sequence[McpServer]:
        return resolved(self._settings())

    def pins(self, server: str) -> Pins | None:
        with _in_words():
            return self._pins.get(server)

    def offer(self, server: str, tools: Sequence[Definition], trouble: str) -> Pins:
        with _in_words():
            return self._pins.offer(server, tools, trouble)

    def server_trouble(self, server: str, why: str) -> None:
        with _in_words():
            self._pins.trouble(server, why)

    def _view(self, task: Task) -> TaskView:
        last = next(iter(self._index.recent(1, task=task.name)), None)
        return task_view(task, self._book, last, self._settings(), self._now())
