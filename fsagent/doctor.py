"""Doctor: look at every file of a workspace and report all faults, not just the first. Looking changes nothing.

``rebuild`` builds the one thing anew that is no more than a copy: the index.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from fsagent.config import FILE, Settings, load_settings, place_of
from fsagent.errors import AlreadyRunningError, DocumentError, FsagentError, SettingsError
from fsagent.extensions import unknown_names
from fsagent.files.names import duplicate_of, is_command_copy
from fsagent.keeper import is_asked
from fsagent.model import Fault, Run
from fsagent.ownercheck import check_owner_file
from fsagent.reporter import server_troubles
from fsagent.runner import Runner
from fsagent.syncclients import sync_faults
from fsagent.tools import load_tools
from fsagent.tools.sandbox import standing
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.approvals import explain_stray, names
from fsagent.workspace.commands import read_command
from fsagent.workspace.hosts import owner_elsewhere
from fsagent.workspace.inbox import Inbox
from fsagent.workspace.index import Index
from fsagent.workspace.indexfile import IndexVersionError
from fsagent.workspace.journalcheck import check_journal
from fsagent.workspace.layout import MACHINE_PLACES, PLACES, Layout, make_places
from fsagent.workspace.pins import PinBook
from fsagent.workspace.removed import read_removed, removed_files
from fsagent.workspace.runs import Envelope, RunFolder
from fsagent.workspace.soul import Soul
from fsagent.workspace.status import DAEMON_LOCK, daemon_runs
from fsagent.workspace.taskfolder import TaskFolder
from fsagent.workspace.tasks import conflict_copies
from fsagent.workspace.taskstates import read_states
from fsagent.workspace.tokens import Tokens
from fsagent.workspace.usage import read_spent_file, usage_files

_REBUILD = "; 'fsagent doctor --rebuild' builds it anew"
_PATIENCE = 3600.0
_COMMITTED = 5.0
"""So many seconds after a run has ended at the most the daemon has it in the index for others, however busy it is."""


class Report(Struct, frozen=True):
    """All faults, and one line that says what was looked at."""

    faults: list[Fault]
    summary: str


def examine(layout: Layout) -> Report:
    """Check settings, owner, soul, tokens, approvals, tasks, commands, journal, usage, runs and index.

    A daemon may run meanwhile.
    """
    faults = [*_places(layout), *sync_faults(layout)]
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
    owner_faults, owner = check_owner_file(layout, settings, datetime.now(UTC))
    faults += owner_faults
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
    records, torn, journal_faults = _journal(layout)
    runs, run_faults = _runs(layout)
    faults += [*task_faults, *command_faults, *journal_faults, *_usage(layout), *_removed(layout), *run_faults]
    looked = f"{tasks} tasks, {commands} waiting commands, {runs} runs and {records} journal records"
    looked += f" ({torn} torn by a crash, with nothing lost around)" if torn else ""
    found = f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "no faults"
    held = f"; sandbox of programs: {held}" if held else ""
    elsewhere = f"; the agent in this folder is run by {owner}, not here" if owner else ""
    return Report(faults, f"{found}; looked at settings, soul, {looked}{held}{elsewhere}")


def rebuild(layout: Layout) -> str:
    """Build the index anew from the runs' folders; gives in words what came of it.

    A daemon that is on duty does it itself, and goes on meanwhile. Raises ``AlreadyRunningError`` where one only stands
    by, and ``FsagentError`` where a daemon could not.
    """
    from fsagent.files.locks import lock
    from fsagent.recovery import rebuild_index

    end = time.monotonic() + _PATIENCE
    while daemon_runs(layout):
        if owner_elsewhere(layout):
            raise AlreadyRunningError(f"a daemon stands by on {layout.root}; stop it first", 0)
        if _by_the_daemon(layout, end):
            with closing(Index(layout.index, write=False)) as index:
                return _built(index.count())
    make_places(layout)
    try:
        with lock(layout.locks / DAEMON_LOCK, 0):
            count = rebuild_index(layout)
            layout.rebuild.unlink(missing_ok=True)
            return _built(count)
    except TimeoutError:
        raise AlreadyRunningError(f"a daemon has just been started on {layout.root}; say it again", 0) from None


def _by_the_daemon(layout: Layout, end: float) -> bool:
    """Have the daemon do it, and wait; False where it ended before it did."""
    layout.rebuild.write_bytes(b"")
    while is_asked(layout.rebuild):
        if time.monotonic() > end:
            raise FsagentError("the daemon is still at it; its log says when it is done")
        if not daemon_runs(layout):
            return False
        time.sleep(0.05)  # it takes seconds: to start watching would gain nothing
    try:
        why = layout.rebuild.read_text("utf-8", "replace")
    except FileNotFoundError:
        return True
    layout.rebuild.unlink(missing_ok=True)
    raise FsagentError(f"the daemon could not build the index anew ({why})")


def _built(count: int) -> str:
    return f"the index was built anew from the folders in .fsagent/runs; it lists {count} runs"


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


def _tasks(layout: Layout, runner: Runner) -> tuple[int, list[Fault]]:
    """Every task file, read afresh whatever the cache says, and what is kept of tasks."""
    folder = TaskFolder(layout.tasks, None, keeps=False)
    folder.scan()
    faults = [fault for error in folder.broken().values() for fault in error.faults]
    for task in filter(None, map(folder.get, sorted(folder.names()))):
        faults += [Fault(task.path, why, line, 0, "steps") for line, why in runner.faults(task.steps)]
        original = duplicate_of(task.name)
        if original in folder.names():
            why = f"looks like a second copy of the task {original}, and both are run; if it is one, remove it"
            faults.append(Fault(task.path, why))
    faults += [Fault(f"tasks/{name}", "is a sync conflict copy; it is never run") for name in folder.conflicts()]
    log = layout.task_states / "states.jsonl"
    try:
        for number, state in read_states(log):
            if state is None:
                faults.append(Fault(layout.name(log), "is no state of a task: it was damaged", number))
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


def _journal(layout: Layout) -> tuple[int, int, list[Fault]]:
    """The chain of the journal; gives its lines, and how many of them a crash tore."""
    try:
        found = check_journal(layout.journal)
    except OSError as error:
        return 0, 0, [Fault(".fsagent/journal", f"cannot be read: {os.strerror(error.errno or 0)}")]
    return found.records, found.torn, [Fault(layout.name(each.path), each.why, each.line) for each in found.findings]


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
    names = sorted(os.listdir(layout.runs)) if layout.runs.is_dir() else []
    faults, index = list[Fault](), None
    try:
        with suppress(FileNotFoundError, IndexVersionError):  # the next daemon builds it
            index = Index(layout.index, write=False)
        others = dict[str, Run]()
        for name in names:
            faults += _run(layout, name, index, others)
        if index:
            faults += [Fault(f".fsagent/runs/{name}", f"differs from the index{_REBUILD}")
                       for name in _still_other(layout, index, others)]  # fmt: skip
        lost = sorted(index.runs() - set(names)) if index else []
        if lost and (lost := sorted(set(lost) - set(os.listdir(layout.runs)) - _removed_runs(layout))):
            runs = f"{len(lost)} runs that have no folder, such as" if len(lost) > 1 else "a run that has no folder:"
            why = f"lists {runs} {lost[0]}{_REBUILD}"
            faults.append(Fault(layout.name(layout.index), why))
    except sqlite3.DatabaseError as error:
        faults.append(Fault(layout.name(layout.index), f"cannot be read ({error}){_REBUILD}"))
    finally:
        if index:
            index.close()
    return len(names), faults


def _run(layout: Layout, name: str, index: Index | None, others: dict[str, Run]) -> Iterator[Fault]:
    """What is wrong with one folder; a run that the index tells otherwise comes to the ``others``."""
    folder = RunFolder(layout.runs / name)
    summary = folder.summary()
    where = f".fsagent/runs/{name}"
    if summary is None and not folder.path.is_dir():
        return  # the daemon has just removed it
    if summary is None:
        yield Fault(where, "has no envelope: steps.jsonl is missing or damaged")
    elif folder.settled():
        if not folder.result.exists() or not folder.command.exists():
            yield Fault(where, "is settled but has no result.md or command.md")
        if index and index.get(name) != summary:
            others[name] = summary


def _still_other(layout: Layout, index: Index, others: dict[str, Run]) -> list[str]:
    """Which of these runs the index still tells otherwise, when a daemon had time to let us see what it put there."""
    end = time.monotonic() + _COMMITTED
    while left := [name for name, run in others.items() if index.get(name) != run]:
        if time.monotonic() > end or not daemon_runs(layout):
            break
        time.sleep(0.05)  # nobody tells of a commit
    return [name for name in left if (layout.runs / name).is_dir()]


def _removed_runs(layout: Layout) -> set[str]:
    """Those that retention removed: a daemon that is just doing it tells the index last."""
    return {each.run for path in removed_files(layout.removed) for _, each in read_removed(path) if each}


def _removed(layout: Layout) -> Iterator[Fault]:
    for path in removed_files(layout.removed):
        for line, (_, removed) in enumerate(read_removed(path), 1):
            if removed is None:
                why = "is no removed run (torn by a crash, or damaged); what it told is not known any more"
                yield Fault(layout.name(path), why, line)
