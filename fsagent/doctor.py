"""Doctor: look at every file of a workspace and report all faults, not just the first. It changes nothing."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from fsagent.config import FILE, Settings, load_settings, place_of
from fsagent.errors import DocumentError, SettingsError
from fsagent.extensions import unknown_names
from fsagent.files.names import is_command_copy
from fsagent.model import Fault
from fsagent.reporter import server_troubles
from fsagent.runner import Runner
from fsagent.tools import load_tools
from fsagent.tools.sandbox import standing
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.approvals import explain_stray, names
from fsagent.workspace.commands import read_command
from fsagent.workspace.inbox import Inbox
from fsagent.workspace.index import Index
from fsagent.workspace.journal import read_records
from fsagent.workspace.layout import MACHINE_PLACES, PLACES, Layout
from fsagent.workspace.pins import PinBook
from fsagent.workspace.runs import Envelope, RunFolder
from fsagent.workspace.soul import Soul
from fsagent.workspace.taskfolder import TaskFolder
from fsagent.workspace.tasks import conflict_copies
from fsagent.workspace.taskstates import read_states
from fsagent.workspace.tokens import Tokens
from fsagent.workspace.usage import read_spent_file, usage_files


class Report(Struct, frozen=True):
    """All faults, and one line that says what was looked at."""

    faults: list[Fault]
    summary: str


def examine(layout: Layout) -> Report:
    """Check settings, soul, tokens, approvals, tasks, commands, journal, usage, runs and index.

    A daemon may run meanwhile.
    """
    faults = [*_places(layout), *_ignore_file(layout)]
    settings = Settings()
    try:
        settings = load_settings(layout.settings)
    except SettingsError as error:
        faults += error.faults
    runner = Runner(load_tools())
    faults += unknown_names(settings, layout.settings)
    faults += [Fault(FILE, why, *place_of(layout.settings, ("mcp_servers", why.partition(":")[0])), "mcp_servers")
               for why in server_troubles(settings, PinBook(layout), daemon=False)]  # fmt: skip
    held, why = standing(settings)
    if why:
        faults.append(Fault(FILE, why, *place_of(layout.settings, ("sandbox",))))
    why = Soul(layout.soul, layout.locks / "soul.lock").read()[1]
    if why:
        faults.append(Fault("soul.md", why.removeprefix("soul.md ").removeprefix("soul.md: ")))
    for file, why in ((layout.tokens, Tokens(layout).trouble()), (layout.allowed, Allowances(layout).trouble())):
        if why:
            faults.append(Fault(layout.name(file), why))
    for name in names(layout):
        why = explain_stray(layout, name) or ""
        if why:
            faults.append(Fault(f"approvals/{name}", why))
    faults += [Fault(name, "is a sync conflict copy; it is never read. Merge it by hand, then remove it")
               for name in conflict_copies(layout.root)]  # fmt: skip
    tasks, task_faults = _tasks(layout, runner)
    commands, command_faults = _commands(layout, settings, runner)
    records, journal_faults = _journal(layout)
    runs, run_faults = _runs(layout)
    faults += [*task_faults, *command_faults, *journal_faults, *_usage(layout), *run_faults]
    looked = f"{tasks} tasks, {commands} waiting commands, {runs} runs and {records} journal records"
    found = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "no faults"
    held = f"; sandbox of programs: {held}" if held else ""
    return Report(faults, f"{found}; looked at settings, soul, {looked}{held}")


def _places(layout: Layout) -> Iterator[Fault]:
    folders = [(place, layout.root / place) for place in PLACES]
    folders += [(f".fsagent/{place}", layout.machine / place) for place in MACHINE_PLACES]
    for name, path in folders:
        if not path.exists():
            yield Fault(f"{name}/", "is missing; 'fsagent init' or the daemon makes it again")
        elif not path.is_dir() or (path.is_symlink() and not _same_device(path, layout.root)):
            yield Fault(f"{name}/", "must be a folder on the same file system as the workspace")
        elif not os.access(path, os.W_OK | os.X_OK):
            yield Fault(f"{name}/", "cannot be written by this user")


def _same_device(path: Path, root: Path) -> bool:
    return path.stat().st_dev == root.stat().st_dev


def _ignore_file(layout: Layout) -> Iterator[Fault]:
    path = layout.root / ".stignore"
    try:
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    if (layout.root / ".stfolder").exists() and not any(line.endswith("/.fsagent") for line in lines):
        yield Fault(".stignore", "must hold the line (?d)/.fsagent, or Syncthing copies the daemon's own state")


def _tasks(layout: Layout, runner: Runner) -> tuple[int, list[Fault]]:
    """Every task file, read afresh whatever the cache says, and what is kept of tasks."""
    folder = TaskFolder(layout.tasks, None, keeps=False)
    folder.scan()
    faults = [fault for error in folder.broken().values() for fault in error.faults]
    for task in filter(None, map(folder.get, sorted(folder.names()))):
        faults += [Fault(task.path, why, line, 0, "steps") for line, why in runner.faults(task.steps)]
    faults += [Fault(f"tasks/{name}", "is a sync conflict copy; it is never run") for name in folder.conflicts()]
    log = layout.task_states / "states.jsonl"
    try:
        for number, state in enumerate(read_states(log), 1):
            if state is None:
                faults.append(Fault(layout.name(log), "is no state of a task (torn by a crash, or damaged)", number))
    except OSError as error:
        faults.append(Fault(layout.name(log), f"cannot be read: {os.strerror(error.errno or 0)}"))
    return len(folder.names()) + len(folder.broken()), faults


def _commands(layout: Layout, settings: Settings, runner: Runner) -> tuple[int, list[Fault]]:
    now = datetime.now(UTC)
    scan = Inbox(layout).scan(now, time.monotonic(), 0, 0, 0)
    faults = [Fault(f"inbox/{each.name}", each.why) for each in scan.lying if "draft" not in each.why]
    for arrival in scan.ready:
        envelope = Envelope(run="", name=arrival.name, trigger="inbox", time=now, path=f"inbox/{arrival.name}")
        if is_command_copy(arrival.path.name):
            faults.append(Fault(envelope.path, "is a sync conflict copy; it is never run"))
            continue
        try:
            raw = arrival.path.read_bytes()
            command = read_command(
                raw, envelope, timeout=settings.timeout, retries=settings.retries, engine=settings.engine
            )
            faults += [Fault(envelope.path, why, line, 0, "steps") for line, why in runner.faults(command.steps)]
        except DocumentError as error:
            faults += error.faults
        except OSError as error:
            faults.append(Fault(envelope.path, f"cannot be read: {os.strerror(error.errno or 0)}"))
    return len(scan.ready), faults


def _journal(layout: Layout) -> tuple[int, list[Fault]]:
    count, faults = 0, []
    for path in sorted(layout.journal.glob("*.jsonl")):
        for line, record in read_records(path):
            count += 1
            if record is None:
                faults.append(Fault(layout.name(path), "is no record (torn by a crash, or damaged)", line))
    return count, faults


def _usage(layout: Layout) -> Iterator[Fault]:
    for path in usage_files(layout):
        try:
            for line, spent in read_spent_file(path):
                if spent is None:
                    why = "is no model turn of this month (torn by a crash, or damaged); budgets are counted without it"
                    yield Fault(layout.name(path), why, line)
        except OSError as error:
            yield Fault(layout.name(path), f"cannot be read: {os.strerror(error.errno or 0)}")


def _runs(layout: Layout) -> tuple[int, list[Fault]]:
    """Every run's folder, and whether the index says the same as the folders."""
    count, faults = 0, list[Fault]()
    index = None
    try:
        index = Index(layout.index, write=False)
    except (FileNotFoundError, sqlite3.Error):
        pass
    try:
        for name in sorted(os.listdir(layout.runs)) if layout.runs.is_dir() else ():
            count += 1
            folder = RunFolder(layout.runs / name)
            summary = folder.summary()
            where = f".fsagent/runs/{name}"
            if summary is None:
                faults.append(Fault(where, "has no envelope: steps.jsonl is missing or damaged"))
                continue
            events = folder.events()
            if any(event["event"] == "settled" for event in events):
                if not folder.result.exists() or not folder.command.exists():
                    faults.append(Fault(where, "is settled but has no result.md or command.md"))
                if index and index.get(name) != summary:
                    faults.append(
                        Fault(where, "differs from the index; the daemon lists it anew if the index is removed")
                    )
    except sqlite3.DatabaseError as error:
        faults.append(
            Fault(".fsagent/index.sqlite3", f"cannot be read ({error}); remove it, the daemon builds it anew")
        )
    finally:
        if index:
            index.close()
    return count, faults
