"""What the tools may ask of the workspace, answered by the modules that own each place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from fsagent.config import Settings
from fsagent.definitions import Definition, Pins
from fsagent.errors import PersonError, ToolError
from fsagent.extensions import installed
from fsagent.mcpsettings import McpServer, filled
from fsagent.model import Fact, Run, Task, ToolCall
from fsagent.notices import Notices
from fsagent.secrets import load_secrets, sources
from fsagent.timetext import in_words
from fsagent.tools import GROUP
from fsagent.tools.base import Network, Remembered, Sandbox, TaskView
from fsagent.workspace.index import Index
from fsagent.workspace.pins import PinBook
from fsagent.workspace.runs import new_run_id
from fsagent.workspace.soul import Soul
from fsagent.workspace.tasks import TaskBook, slots_of


def task_view(task: Task, book: TaskBook, index: Index | None, settings: Settings, now: datetime) -> TaskView:
    """A task as people ask for it, with its last run and its next slot in the workspace's time zone."""
    state = book.state(task.name)
    last = index.recent(1, task=task.name) if index else []
    word = "off (enabled: false)" if not task.enabled else f"paused ({state.paused})" if state.paused else "on"
    upcoming = slots_of(task, settings).after(max(now, state.watermark or now))
    return TaskView(
        name=task.name,
        rule=in_words(task.table),
        request=task.body,
        state=word,
        last=settings.local(last[0].started) if last and last[0].started else None,
        next=settings.local(upcoming) if upcoming and word == "on" else None,
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
        self._book.scan()
        return [self._view(task) for task in self._book.tasks()]

    def create_task(self, name: str, body: str, every: str, steps: Sequence[ToolCall]) -> TaskView:
        task = self._book.create(name, body, {"every": every or "heartbeat"}, steps)
        self._wake("tasks")
        return self._view(task)

    def pause_task(self, name: str) -> TaskView:
        task = self._book.get(name)
        self._book.set_state(task.name, paused="by request")
        self._wake("tasks")
        return self._view(task)

    def resume_task(self, name: str) -> TaskView:
        task = self._book.get(name)
        self._book.set_state(task.name, paused="")
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
        return task_view(task, self._book, self._index, self._settings(), self._now())
