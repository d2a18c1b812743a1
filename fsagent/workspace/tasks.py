"""The book of tasks: their files, and what the daemon keeps about them.

A task file belongs to the person who wrote it: the daemon reads it and keeps its own state (watermark, pause) in
``.fsagent/tasks/``. The only task files that are ever rewritten are the agent's own, as long as nobody changed them.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fsagent.config import Settings
from fsagent.errors import DocumentError, ToolError
from fsagent.files.atomic import numbered, write_atomic, write_new
from fsagent.files.documents import read_document, write_document
from fsagent.files.fields import format_duration, nearest
from fsagent.files.names import conflict_of, is_command_name
from fsagent.files.yamltext import plain
from fsagent.model import Task, ToolCall
from fsagent.timetable import Slots
from fsagent.timetext import RuleFields
from fsagent.workspace.layout import Layout, readable
from fsagent.workspace.runs import Envelope, drop, exists
from fsagent.workspace.taskfile import read_task
from fsagent.workspace.taskfolder import TaskFolder
from fsagent.workspace.taskstates import StateLog, TaskState


def slots_of(task: Task, settings: Settings) -> Slots:
    """When this task falls due, with the settings' heartbeat interval and time zone."""
    return Slots(task.table, settings.heartbeat_interval, settings.zone)


class TaskBook:
    """All tasks of a workspace, their files read again only when they change. Safe to share between threads.

    Any process may read; only who ``keeps`` the book, the daemon, tidies up what is kept of the tasks.
    """

    def __init__(self, layout: Layout, *, keeps: bool = False) -> None:
        self._layout = layout
        self.scratch = layout.tmp
        self._lock = threading.RLock()
        self._folder = TaskFolder(layout.tasks, layout.task_states / "cache", keeps=keeps)
        self._log = StateLog(layout.task_states, keeps=keeps)
        self._changed: set[str] = set()

    @property
    def scan_seconds(self) -> float:
        """How long the last scan took."""
        return self._folder.seconds

    def refresh(self) -> None:
        """Look at every task file. A broken file stands for itself only."""
        with self._lock:
            self._changed |= self._folder.scan()
            self._log.tidy(self._folder.names())

    def scan(self) -> set[str]:
        """Look at every task file; gives the names of the tasks that came, changed or went, or were paused or resumed,
        since this was asked last: whoever looked meanwhile takes nothing away."""
        with self._lock:
            self.refresh()
            changed, self._changed = self._changed, set()
            return changed

    def names(self) -> Collection[str]:
        """The names of the tasks that can be used, in no order."""
        with self._lock:
            return self._folder.names()

    def tasks(self) -> list[Task]:
        """The tasks that can be used, by name."""
        with self._lock:
            return [task for name in sorted(self._folder.names()) if (task := self._folder.get(name))]

    def paused(self) -> set[str]:
        """The tasks that are paused, those whose file is gone or broken among them."""
        with self._lock:
            return set(self._log.paused())

    def has_run(self, run: str) -> bool:
        """True if a run of this name was handed in."""
        return exists(self._layout, run)

    def close(self) -> None:
        """Give back what is open; a later use opens it again."""
        with self._lock:
            self._log.close()

    def conflicts(self) -> list[str]:
        """The sync clients' conflict copies beside the task files; none of them is ever read."""
        with self._lock:
            return self._folder.conflicts()

    def broken(self) -> dict[str, DocumentError]:
        """The task files that cannot be used, by name. Not to be changed."""
        with self._lock:
            return self._folder.broken()

    def get_task(self, name: str) -> Task | None:
        """The task of this very name; None where there is none that can be used."""
        with self._lock:
            return self._folder.get(name)

    def is_enabled(self, name: str) -> bool:
        """True for a task that can be used and is not switched off; costs nothing, as does ``print_of``."""
        with self._lock:
            return self._folder.is_enabled(name)

    def print_of(self, name: str) -> str:
        """The print of a task that can be used, or an empty text."""
        with self._lock:
            return self._folder.print_of(name)

    def get(self, name: str) -> Task:
        """The task that a person means. Raises ``ToolError`` naming the nearest one."""
        wanted = name.removeprefix("tasks/").removesuffix(".md")
        with self._lock:
            task = self._folder.get(wanted)
            if task:
                return task
            names = {each.casefold(): each for each in sorted(self._folder.names())}
            task = self._folder.get(names.get(wanted.casefold(), ""))
            if task:
                return task
            if wanted in self._folder.broken():
                raise ToolError(str(self._folder.broken()[wanted]))
        known = f"; there are: {', '.join(names.values())}" if names else "; there are no tasks"
        raise ToolError(f"there is no task {name!r}{nearest(wanted, names)}{known}")

    def state(self, name: str) -> TaskState:
        """What is kept of a task; what is damaged counts as never kept."""
        with self._lock:
            return self._log.get(name)

    def kept(self) -> list[tuple[str, str, TaskState]]:
        """Of each task that can be used: its name, the print of its file, and what is kept of it."""
        with self._lock:
            return [(name, mark, self._log.get(name)) for name, mark in self._folder.prints()]

    def set_state(self, name: str, *, durable: bool = True, **changes: Any) -> None:
        """Change what is kept of a task. Raises ``OSError``, and then nothing is changed."""
        with self._lock:
            before = self._log.get(name)
            state = msgspec.structs.replace(before, **changes)
            if state != before:
                self._log.set(name, state, durable=durable)
                self._log.tidy(self._folder.names())
                if state.paused != before.paused:
                    self._changed.add(name)

    def request(
        self, task: Task, slot: datetime | None, run: str, now: datetime, by: str = "", given: str = ""
    ) -> bool:
        """Hand the task's request in at the side door; False if this run exists already. ``by`` names who asked,
        ``given`` is what its gates brought."""
        fields: dict[str, Any] = dict(task.settings)
        if task.engine:
            fields["engine"] = task.engine
        if task.timeout:
            fields["timeout"] = format_duration(task.timeout)
        if task.steps:
            fields["steps"] = [
                {call.tool: call.args.get("", call.args)}
                | ({"on_error": "continue"} if call.on_error != "stop" else {})
                for call in task.steps
            ]
        name = f"{task.name}/{(slot or now).astimezone(now.tzinfo):%Y-%m-%d-%H%M%S}.md"
        envelope = Envelope(
            run=run, name=name, trigger="task", time=now.astimezone(UTC), path=task.path, thread=task.name,
            task=task.name, slot=slot, report=task.report, by=by, given=given,
        )  # fmt: skip
        return drop(self._layout, envelope, write_document(fields, task.body) if fields else task.body.encode())

    def create(self, name: str, body: str, rule: Mapping[str, Any], steps: Sequence[ToolCall]) -> Task:
        """Write a task of the agent's own; ``rule`` are the fields that say when it falls due. One that it made itself
        before and that nobody changed gets the new rule.

        A name that is taken by anybody else's task gets a number. Raises ``ToolError`` for what cannot be a task.
        """
        self.refresh()
        fields = dict(rule)
        if steps:
            fields["steps"] = [{call.tool: call.args} for call in steps]
        raw = write_document(fields, body)
        base = self._layout.tasks / f"{name.removesuffix('.md')}.md"
        if not is_command_name(base.name) or base.parent != self._layout.tasks:
            raise ToolError(f"{name!r} cannot be the name of a task; use letters, digits and -")
        for path in numbered(base):
            stem, text = path.name.removesuffix(".md"), raw
            try:
                task = read_task(raw, stem, self._layout.name(path))
            except DocumentError as error:
                raise ToolError(str(error)) from None
            try:
                write_new(path, raw)
            except FileExistsError:
                existing = path.read_bytes() if path.is_file() else b""
                if hashlib.sha256(existing).hexdigest() != self.state(stem).made:
                    continue
                if read_document(existing, path.name).body != task.body:
                    continue
                text = _with_rule(existing, rule)
                task = read_task(text, stem, self._layout.name(path))
                write_atomic(path, text)
            self.set_state(stem, made=hashlib.sha256(text).hexdigest(), paused="")
            self.refresh()
            return task
        raise AssertionError  # numbered() never ends


def _with_rule(raw: bytes, rule: Mapping[str, Any]) -> bytes:
    """A file of our own with another rule."""
    document = read_document(raw, "")
    others = {
        name: value for name, value in plain(document.fields).items() if name not in RuleFields.__struct_encode_fields__
    }
    return write_document({**rule, **others}, document.body)


def conflict_copies(root: Path) -> list[str]:
    """The sync clients' conflict copies directly in a folder; none of them is ever read."""
    try:
        return sorted(readable(name) for name in os.listdir(root) if conflict_of(name))
    except OSError:
        return []
