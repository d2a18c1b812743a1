"""Task files and what the daemon keeps about them.

A task file belongs to the person who wrote it: the daemon reads it and keeps its own state (watermark, pause) in
``.fsagent/tasks/``. The only task files that are ever rewritten are the agent's own, as long as nobody changed them.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from fsagent.config import Settings
from fsagent.errors import DocumentError, ToolError
from fsagent.files.atomic import numbered, write_atomic, write_new
from fsagent.files.documents import read_document, rewrite_document, write_document
from fsagent.files.fields import Duration, format_duration, nearest, read_fields
from fsagent.files.names import conflict_of, is_command_name, skip_directory
from fsagent.files.yamltext import plain, position
from fsagent.model import MAX_DOCUMENT, Fault, Report, Task, ToolCall
from fsagent.timetable import Slots, Timetable
from fsagent.timetext import RuleFields, timetable
from fsagent.workspace.commands import Narrowed, narrowing_faults, read_steps
from fsagent.workspace.layout import Layout, readable
from fsagent.workspace.runs import Envelope, drop, exists

_LATER = "comes with a later version; for now write 'every: 1d' or another duration"
_NOT_YET = dict.fromkeys(("cron", "at", "on", "once", "from", "until", "when", "missed", "overlap"), _LATER)


class TaskFields(RuleFields, frozen=True):
    """The frontmatter of a task; all of it is optional."""

    enabled: bool = True
    engine: str = ""
    timeout: Duration | None = None
    report: Report = "auto"
    steps: Any = None
    model: str = ""
    tools: Any = None
    budget: Narrowed | None = None


class TaskState(Struct, frozen=True, omit_defaults=True):
    """What the daemon keeps of a task.

    ``watermark`` is the last slot that is settled, ``next`` the one after it by the rule whose print is ``rule``, and
    ``armed`` the print of all that this was found from; ``paused`` says why nothing is handed in, ``paused_print`` is
    the print of the file whose failures led to that; failures count from ``since`` on. ``seen`` is what its gates saw
    when they last held, ``held_back`` why the last slot brought no run. ``made`` is the print of the agent's own text
    of the file.
    """

    watermark: datetime | None = None
    next: datetime | None = None
    rule: str = ""
    paused: str = ""
    paused_print: str = ""
    since: datetime | None = None
    seen: dict[str, str] = {}
    held_back: str = ""
    armed: str = ""
    made: str = ""


def read_task(raw: bytes, name: str, path: str) -> Task:
    """A task from its file's bytes. Raises ``DocumentError`` with every fault found, each with its line."""
    document = read_document(raw, path)
    faults: list[Fault] = []
    fields: TaskFields | None = None
    calls: tuple[ToolCall, ...] = ()
    try:
        fields = read_fields(TaskFields, document.fields, path, document.first_line, extra=_NOT_YET)
    except DocumentError as error:
        faults += error.faults
    if "steps" in document.fields:
        try:
            calls = read_steps(document)
        except DocumentError as error:
            faults += error.faults
    table = Timetable()
    if fields is not None:
        table, wrong = timetable(fields)
        for field, why in wrong:
            line, column = position(document.fields, field, document.first_line)
            faults.append(Fault(path, why, line, column, field))
        faults += narrowing_faults(document, fields.model, fields.tools, fields.budget)
    if not faults and not document.body and not calls:
        faults.append(Fault(path, "holds no request; write below the --- what is to be done"))
    if faults or fields is None:
        raise DocumentError(faults)
    return Task(
        name=name,
        path=path,
        body=document.body,
        table=table,
        enabled=fields.enabled,
        engine=fields.engine,
        timeout=float(fields.timeout or 0),
        steps=calls,
        report=fields.report,
        print=hashlib.sha256(raw).hexdigest()[:32],
        settings={
            name: plain(document.fields[name]) for name in ("model", "tools", "budget") if document.fields.get(name)
        },
    )


def slots_of(task: Task, settings: Settings) -> Slots:
    """When this task falls due, with the settings' heartbeat interval and time zone."""
    return Slots(task.table, settings.heartbeat_interval, settings.zone)


class TaskBook:
    """All task files of a workspace, read again only when they change. Safe to share between threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.scratch = layout.tmp
        self._lock = threading.RLock()
        self._known: dict[str, tuple[tuple[int, int, int], Task | DocumentError]] = {}
        self._states: dict[str, TaskState] = {}
        self._touched: set[str] = set()
        self.scan_seconds = 0.0

    def scan(self) -> set[str]:
        """Look at every task file; gives the names of the tasks that came, changed or went. A broken file stands for
        itself only."""
        with self._lock:
            began = time.monotonic()
            found: dict[str, tuple[tuple[int, int, int], Task | DocumentError]] = {}
            changed: set[str] = set()
            for path, status in _task_files(self._layout.tasks):
                name = readable(os.path.splitext(os.path.relpath(path, self._layout.tasks))[0])
                identity = (status.st_mtime_ns, status.st_size, status.st_ino)
                known = self._known.get(name)
                if known is None or known[0] != identity:
                    known = (identity, self._read(path, name))
                    changed.add(name)
                found[name] = known
            changed |= self._known.keys() - found.keys() | self._touched
            self._touched.clear()
            self._known = found
            self.scan_seconds = time.monotonic() - began
            return changed

    def tasks(self) -> list[Task]:
        """The tasks that can be read, by name."""
        with self._lock:
            return [task for _, (_, task) in sorted(self._known.items()) if isinstance(task, Task)]

    def names(self) -> list[str]:
        """The tasks that can be read."""
        with self._lock:
            return [name for name, (_, task) in self._known.items() if isinstance(task, Task)]

    def get_task(self, name: str) -> Task | None:
        """One task by its very name."""
        with self._lock:
            _, task = self._known.get(name, (None, None))
        return task if isinstance(task, Task) else None

    def print_of(self, name: str) -> str:
        """The print of a task's file."""
        task = self.get_task(name)
        return task.print if task else ""

    def paused(self) -> set[str]:
        """The tasks that are paused."""
        with self._lock:
            return {name for name, state in self._states.items() if state.paused}

    def has_run(self, run: str) -> bool:
        """True if a run of this name was handed in."""
        return exists(self._layout, run)

    def broken(self) -> dict[str, DocumentError]:
        """The task files that cannot be used, by name."""
        with self._lock:
            return {name: error for name, (_, error) in sorted(self._known.items()) if isinstance(error, DocumentError)}

    def get(self, name: str) -> Task:
        """One task. Raises ``ToolError`` naming the nearest one."""
        wanted = name.removeprefix("tasks/").removesuffix(".md")
        names = {task.name.casefold(): task for task in self.tasks()}
        if wanted.casefold() in names:
            return names[wanted.casefold()]
        if wanted in self.broken():
            raise ToolError(str(self.broken()[wanted]))
        known = f"; there are: {', '.join(task.name for task in self.tasks())}" if names else "; there are no tasks"
        raise ToolError(f"there is no task {name!r}{nearest(wanted, names)}{known}")

    def state(self, name: str) -> TaskState:
        """The state kept of a task; a damaged state file counts as none."""
        with self._lock:
            if name not in self._states:
                try:
                    self._states[name] = msgspec.json.decode(self._state_file(name).read_bytes(), type=TaskState)
                except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
                    self._states[name] = TaskState()
            return self._states[name]

    def set_state(self, name: str, *, durable: bool = True, **changes: Any) -> None:
        """Change the state kept of a task."""
        with self._lock:
            state = msgspec.structs.replace(self.state(name), **changes)
            if state != self.state(name):
                write_atomic(self._state_file(name), msgspec.json.encode(state) + b"\n", durable=durable)
                self._states[name] = state
                if "paused" in changes:
                    self._touched.add(name)

    def request(
        self, task: Task, slot: datetime | None, run: str, now: datetime, by: str = "", given: str = ""
    ) -> bool:
        """Hand the task's request in at the side door; False if this run exists already. ``by`` names who asked."""
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
        """Write a task of the agent's own, which falls due by the fields of ``rule``. One that it made itself before
        and that nobody changed gets the new rule.

        A name that is taken by anybody else's task gets a number. Raises ``ToolError`` for what cannot be a task.
        """
        self.scan()
        fields = dict(rule)
        if steps:
            fields["steps"] = [{call.tool: call.args} for call in steps]
        raw = write_document(fields, body)
        base = self._layout.tasks / f"{name.removesuffix('.md')}.md"
        if not is_command_name(base.name) or base.parent != self._layout.tasks:
            raise ToolError(f"{name!r} cannot be the name of a task; use letters, digits and -")
        for path in numbered(base):
            stem = path.name.removesuffix(".md")
            try:
                task = read_task(raw, stem, self._layout.name(path))
                write_new(path, raw)
            except DocumentError as error:
                raise ToolError(str(error)) from None
            except FileExistsError:
                existing = path.read_bytes() if path.is_file() else b""
                if hashlib.sha256(existing).hexdigest() != self.state(stem).made:
                    continue
                if read_document(existing, path.name).body != read_document(raw, path.name).body:
                    continue
                raw = rewrite_document(existing, rule, path.name)
                task = read_task(raw, stem, self._layout.name(path))
                write_atomic(path, raw)
            self.set_state(stem, made=hashlib.sha256(raw).hexdigest(), paused="")
            self.scan()
            return task
        raise AssertionError  # numbered() never ends

    def _read(self, path: Path, name: str) -> Task | DocumentError:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                return read_task(file.read(MAX_DOCUMENT + 1), name, self._layout.name(path))
        except DocumentError as error:
            return error
        except OSError as error:
            return DocumentError([Fault(self._layout.name(path), f"cannot be read: {os.strerror(error.errno or 0)}")])

    def _state_file(self, name: str) -> Path:
        safe = quote(name, safe=" ")
        if len(safe) > 200:
            safe = hashlib.sha256(name.encode()).hexdigest()
        return self._layout.task_states / f"{safe}.json"


def _task_files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Task files, also in folders; names of editors and sync clients, and conflict copies, are passed over."""
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    if depth < 8 and not skip_directory(entry.name):
                        folders.append((Path(entry.path), depth + 1))
                elif is_command_name(entry.name) and entry.is_file(follow_symlinks=False) and status.st_size:
                    yield Path(entry.path), status
            except FileNotFoundError:
                continue


def conflict_copies(root: Path) -> list[str]:
    """The sync clients' conflict copies directly in a folder; none of them is ever read."""
    try:
        return sorted(readable(name) for name in os.listdir(root) if conflict_of(name))
    except OSError:
        return []
