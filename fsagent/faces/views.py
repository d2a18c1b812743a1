"""What faces show, read from the workspace's files whether a daemon runs or not."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from fsagent.errors import ConflictError, FsagentError, NotFoundError, SettingsError
from fsagent.model import Run, Usage
from fsagent.workspace.hosts import owner_elsewhere
from fsagent.workspace.index import Index, Total
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, dropped, is_run_id
from fsagent.workspace.searched import command_text
from fsagent.workspace.status import Snapshot, daemon_runs, read_sheet, read_snapshot

if TYPE_CHECKING:
    from fsagent.config import Settings

# What reads YAML is imported where it is used: a look at the status or the health should cost next to nothing.

T = TypeVar("T")

LATE = timedelta(minutes=5)
MOVES = 4


class StatusView(Struct, frozen=True, kw_only=True):
    """The status: the daemon's last word, whether it still lives, and what waits if it does not.

    ``owner`` is the host that runs the agent in this folder, where that is another one; else it is empty.
    """

    workspace: str
    alive: bool
    paused: bool
    snapshot: Snapshot | None
    waiting: int
    owner: str = ""


class RunView(Struct, frozen=True, kw_only=True):
    """One run, whole. ``diff`` shows all that its tools changed, one after the other."""

    run: Run
    command: str
    steps: list[dict[str, Any]]
    result: str
    diff: str = ""


class Hit(Struct, frozen=True):
    """A run that a search found, and one line of its text around the first word that was looked for."""

    run: Run
    snippet: str


def read_status(layout: Layout) -> StatusView:
    """How things are. Costs one look at the inbox when no daemon runs."""
    alive, snapshot = daemon_runs(layout), read_snapshot(layout)
    if snapshot:  # what is refused may have kept the daemon from saying so itself
        snapshot = msgspec.structs.replace(snapshot, disk=tuple(read_sheet(layout)) if alive else ())
    owner = owner_elsewhere(layout)
    waiting = snapshot.waiting if alive and snapshot else 0
    if not alive:
        from fsagent.workspace.inbox import Inbox

        scan = Inbox(layout).scan(datetime.now(UTC), time.monotonic(), 0, 0, 0)
        waiting = len(scan.ready) + len(dropped(layout))
    return StatusView(
        workspace=str(layout.root), alive=alive, paused=layout.stopped(), snapshot=snapshot, waiting=waiting,
        owner=owner.host if owner else "",
    )  # fmt: skip


def read_runs(
    layout: Layout,
    limit: int,
    *,
    task: str = "",
    status: str = "",
    thread: str = "",
    trigger: str = "",
    before: str = "",
) -> list[Run]:
    """The newest runs, times in the workspace's zone. ``before`` is the last run of the page before; raises
    ``NotFoundError`` where there is no such run."""

    def ask(index: Index) -> list[Run]:
        return index.recent(limit, task=task, status=status, thread=thread, trigger=trigger, before=before)

    return _page(layout, before, ask)


def read_results(layout: Layout, limit: int, before: str = "") -> list[Run]:
    """The newest runs that published a result in outbox/, page by page as ``read_runs``."""
    return _page(layout, before, lambda index: index.recent(limit, before=before, published=True))


def search_runs(layout: Layout, query: str, limit: int, before: str = "") -> list[Hit]:
    """The newest settled runs in which all words of ``query`` occur, page by page as ``read_runs``; how a query is
    read says ``Index.search``. The snippets are made from the files of these runs as they are now."""
    from fsagent.faces.search import snippet

    found = _page(layout, before, lambda index: index.search(query, limit, before))
    return [Hit(run, snippet(query, command_text(RunFolder(layout.runs / run.run)), run)) for run in found]


def read_totals(layout: Layout) -> list[Total]:
    """How many runs there are of each trigger and status."""
    with open_index(layout) as index:
        return index.totals() if index else []


def read_usage(layout: Layout) -> Usage:
    """What all runs together used."""
    with open_index(layout) as index:
        return index.usage() if index else Usage()


def run_of_id(layout: Layout, command_id: str) -> str:
    """The newest run of the command with this ``id``, or "" if there is none."""
    with open_index(layout) as index:
        found = index.by_id(command_id) if index else []
    return found[0].run if found else ""


def read_run(layout: Layout, wanted: str) -> RunView:
    """One run by its id, a unique beginning or end of it, or ``last``; one that still lies at the side door by its
    whole id. Raises ``NotFoundError`` when there is none, ``ConflictError`` when there are several."""
    return while_it_moves(lambda: _read_run(layout, _find(layout, wanted)))


def while_it_moves(read: Callable[[], T]) -> T:
    """What ``read`` gives; asked again where the daemon took the folder from the side door meanwhile."""
    for _ in range(MOVES):
        with suppress(FileNotFoundError):
            return read()
    return read()


def _read_run(layout: Layout, run: str) -> RunView:
    dropped_folder = layout.drop / run
    folder = RunFolder(dropped_folder if dropped_folder.is_dir() else layout.runs / run)
    summary = folder.summary()
    if summary is None:
        if folder.path.is_dir():
            raise FsagentError(f"run {folder.run} has no record; see 'fsagent doctor'")
        raise FileNotFoundError(folder.path)
    result = folder.result if folder.result.exists() else folder.result_new
    return RunView(
        run=_local(summary, settings_of(layout)),
        command=folder.raw().decode("utf-8", "replace"),
        steps=folder.events(),
        result=result.read_text("utf-8", "replace") if result.exists() else "",
        diff="".join(event["result"].get("diff", "") for event in folder.events() if event["event"] == "result"),
    )


def read_health(layout: Layout) -> list[str]:
    """What is wrong, in words; empty if the daemon is alive and keeps up."""
    snapshot = read_snapshot(layout)
    if not daemon_runs(layout):
        return [f"no daemon runs on {layout.root}"]
    wrong, now = read_sheet(layout), datetime.now(UTC)
    if os.statvfs(layout.machine).f_flag & os.ST_RDONLY and not wrong:
        wrong.append(f"the disk of {layout.root} is read-only")
    if snapshot is None:
        return [*wrong, "the daemon has not said a word yet"]
    silent = now - snapshot.beat
    if silent > timedelta(seconds=2 * snapshot.interval + 30):
        wrong.append(f"the daemon (pid {snapshot.pid}) has given no sign of life for {silent.total_seconds():.0f} s")
    if snapshot.waiting_since and now - snapshot.waiting_since > LATE and not snapshot.paused:
        minutes = (now - snapshot.waiting_since).total_seconds() / 60
        wrong.append(f"{snapshot.waiting} commands wait, the oldest for {minutes:.0f} min")
    if not os.access(layout.machine, os.W_OK):
        wrong.append(f"{layout.machine} cannot be written")
    return wrong


def _find(layout: Layout, wanted: str) -> str:
    """The one run that is meant. Looks at the folders' names only where the index does not know it."""
    if _is_run(layout, wanted):
        return wanted
    if wanted == "last":
        newest = read_runs(layout, 1)
        if newest:
            return newest[0].run
        raise NotFoundError("there are no runs yet")
    with open_index(layout) as index:
        names = index.matching(wanted) if index and wanted else []
    if len(names) == 1 and _is_run(layout, names[0]):
        return names[0]
    every = os.listdir(layout.runs) if len(names) < 2 else []
    names = names if len(names) > 1 else [each for each in every if each.startswith(wanted) or each.endswith(wanted)]
    if len(names) == 1:
        return names[0]
    if names and wanted:
        raise ConflictError(f"{wanted!r} fits {len(names)} runs, for instance {names[0]} and {names[1]}")
    from fsagent.files.fields import nearest

    raise NotFoundError(f"there is no run {wanted!r}{nearest(wanted, every[-200:])}; see 'fsagent runs'")


def _is_run(layout: Layout, name: str) -> bool:
    return is_run_id(name) and any((place / name).is_dir() for place in (layout.drop, layout.runs))


def _page(layout: Layout, before: str, ask: Callable[[Index], list[Run]]) -> list[Run]:
    try:
        with open_index(layout) as index:
            if index is None and before:
                raise KeyError(before)
            found = ask(index) if index else []
    except KeyError:
        raise NotFoundError(f"there is no run {before!r} to go on after; begin with the first page again") from None
    settings = settings_of(layout)
    return [_local(run, settings) for run in found]


@contextmanager
def open_index(layout: Layout) -> Iterator[Index | None]:
    """The index for reading, or None before any daemon ran."""
    index = None
    try:
        try:
            index = Index(layout.index, write=False)
        except FileNotFoundError:
            pass
        yield index
    except sqlite3.NotSupportedError as error:
        raise FsagentError(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise FsagentError(
            f"the list of runs cannot be read ({error}); the daemon builds it anew at its start"
        ) from error
    finally:
        if index:
            index.close()


def settings_of(layout: Layout) -> Settings:
    """The settings for showing times; a broken file is doctor's business."""
    from fsagent.config import Settings, load_settings

    try:
        return load_settings(layout.settings)
    except SettingsError:
        return Settings()


def _local(run: Run, settings: Settings) -> Run:
    from msgspec.structs import replace

    return replace(
        run,
        started=settings.local(run.started) if run.started else None,
        finished=settings.local(run.finished) if run.finished else None,
        slot=settings.local(run.slot) if run.slot else None,
    )
