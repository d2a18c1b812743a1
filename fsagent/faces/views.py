"""What faces show, read from the workspace's files whether a daemon runs or not."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fsagent.errors import FsagentError, SettingsError
from fsagent.model import Run
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, dropped
from fsagent.workspace.status import Snapshot, daemon_runs, read_snapshot

if TYPE_CHECKING:
    from fsagent.config import Settings

# What reads YAML is imported where it is used: a look at the status or the health should cost next to nothing.

LATE = timedelta(minutes=5)


class StatusView(Struct, frozen=True, kw_only=True):
    """The status: the daemon's last word, whether it still lives, and what waits if it does not."""

    workspace: str
    alive: bool
    paused: bool
    snapshot: Snapshot | None
    waiting: int


class RunView(Struct, frozen=True, kw_only=True):
    """One run, whole."""

    run: Run
    command: str
    steps: list[dict[str, Any]]
    result: str


class TaskLine(Struct, frozen=True, kw_only=True):
    """A task as a list shows it. Times in the workspace's zone; ``fault`` says why a file cannot be used."""

    task: str
    file: str
    rule: str
    state: str
    last: datetime | None = None
    last_status: str = ""
    next: datetime | None = None
    fault: str = ""


def read_status(layout: Layout) -> StatusView:
    """How things are. Costs one look at the inbox when no daemon runs."""
    alive, snapshot = daemon_runs(layout), read_snapshot(layout)
    waiting = snapshot.waiting if alive and snapshot else 0
    if not alive:
        from fsagent.workspace.inbox import Inbox

        scan = Inbox(layout).scan(datetime.now(UTC), time.monotonic(), 0, 0, 0)
        waiting = len(scan.ready) + len(dropped(layout))
    return StatusView(
        workspace=str(layout.root), alive=alive, paused=layout.stop.exists(), snapshot=snapshot, waiting=waiting
    )


def read_runs(layout: Layout, limit: int, *, task: str = "", status: str = "") -> list[Run]:
    """The newest runs, times in the workspace's zone."""
    settings = _settings(layout)
    with _index(layout) as index:
        found = index.recent(limit, task=task, status=status) if index else []
    return [_local(run, settings) for run in found]


def read_run(layout: Layout, wanted: str) -> RunView:
    """One run by its id, a unique beginning or end of it, or ``last``. Raises ``FsagentError`` when there is none."""
    folder = RunFolder(layout.runs / _find(layout, wanted))
    summary = folder.summary()
    if summary is None:
        raise FsagentError(f"run {folder.run} has no record; see 'fsagent doctor'")
    with _index(layout) as index:
        summary = (index.get(folder.run) if index else None) or summary
    result = folder.result if folder.result.exists() else folder.result_new
    return RunView(
        run=_local(summary, _settings(layout)),
        command=folder.raw().decode("utf-8", "replace"),
        steps=folder.events(),
        result=result.read_text("utf-8", "replace") if result.exists() else "",
    )


def read_tasks(layout: Layout) -> list[TaskLine]:
    """All task files, those that cannot be used among them."""
    from fsagent.workspace.tasks import TaskBook, next_slot, period_in_words

    settings, now = _settings(layout), datetime.now(UTC)
    book = TaskBook(layout)
    book.scan()
    lines = [
        TaskLine(task=name, file=f"tasks/{name}", rule="", state="broken", fault=str(error))
        for name, error in book.broken().items()
    ]
    with _index(layout) as index:
        for task in book.tasks():
            state = book.state(task.name)
            on = task.enabled and not state.paused
            last = next(iter(index.recent(1, task=task.name) if index else []), None)
            after = max(now, state.watermark or now)
            following = next_slot(task.every or settings.heartbeat_interval, after) if on else None
            lines.append(
                TaskLine(
                    task=task.name, file=task.path, rule=period_in_words(task),
                    state="on" if on else "off" if not task.enabled else "paused",
                    last=settings.local(last.started) if last and last.started else None,
                    last_status=last.status if last else "",
                    next=settings.local(following) if following else None,
                )
            )  # fmt: skip
    return sorted(lines, key=lambda line: line.task)


def read_health(layout: Layout) -> list[str]:
    """What is wrong, in words; empty if the daemon is alive and keeps up."""
    snapshot = read_snapshot(layout)
    if not daemon_runs(layout):
        return [f"no daemon runs on {layout.root}"]
    if snapshot is None:
        return ["the daemon has not said a word yet"]
    wrong, now = [], datetime.now(UTC)
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
    if (layout.runs / wanted).is_dir() and "/" not in wanted and not wanted.startswith("."):
        return wanted
    if wanted == "last":
        newest = read_runs(layout, 1)
        if newest:
            return newest[0].run
        raise FsagentError("there are no runs yet")
    from fsagent.files.fields import nearest

    names = [name for name in os.listdir(layout.runs) if name.startswith(wanted) or name.endswith(wanted)]
    if len(names) == 1:
        return names[0]
    if names:
        raise FsagentError(f"{wanted!r} fits {len(names)} runs, for instance {names[0]} and {names[1]}")
    raise FsagentError(
        f"there is no run {wanted!r}{nearest(wanted, os.listdir(layout.runs)[-200:])}; see 'fsagent runs'"
    )


@contextmanager
def _index(layout: Layout) -> Iterator[Index | None]:
    """The index for reading, or None before any daemon ran."""
    try:
        index = Index(layout.index, write=False)
    except FileNotFoundError:
        yield None
        return
    try:
        yield index
    except sqlite3.DatabaseError as error:
        raise FsagentError(
            f"the list of runs cannot be read ({error}); the daemon builds it anew at its start"
        ) from error
    finally:
        index.close()


def _settings(layout: Layout) -> Settings:
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
