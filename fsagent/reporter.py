"""What the daemon has to tell of itself, gathered from all over the house into one snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from fsagent import __version__
from fsagent.config import Settings
from fsagent.definitions import told
from fsagent.errors import PersonError
from fsagent.extensions import unknown_names
from fsagent.home import resolved
from fsagent.memory import resident_bytes
from fsagent.model import Run
from fsagent.pipeline import Admitted
from fsagent.secrets import load_secrets
from fsagent.timetext import in_words
from fsagent.tools.sandbox import standing
from fsagent.workspace.inbox import Lying
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.pins import PinBook
from fsagent.workspace.soul import Soul
from fsagent.workspace.status import Line, Snapshot, limited
from fsagent.workspace.tasks import TaskBook, conflict_copies


class Reporter:
    """Makes snapshots. Knows nothing that the files, the index and its caller do not tell."""

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        book: TaskBook,
        index: Index,
        soul: Soul,
        now: Callable[[], datetime],
    ) -> None:
        self._layout, self._settings, self._book = layout, settings, book
        self._index, self._soul, self._now = index, soul, now
        self._since = now()

    def snapshot(
        self,
        *,
        lying: Sequence[Lying],
        running: Sequence[Admitted],
        waiting: int,
        waiting_since: datetime | None,
        retries: Sequence[tuple[datetime, str]],
        upcoming: Sequence[tuple[datetime, str]],
        paused: Sequence[Line],
        approvals: Sequence[Line],
        settings_fault: str,
        unwatched: Mapping[str, str],
        watching: str,
        companions: Sequence[str],
        answers: Sequence[str],
        scan_seconds: float,
        disk: Sequence[str],
    ) -> Snapshot:
        """The daemon at this moment; ``upcoming`` are the next slots with their tasks, ``paused`` the tasks that bring
        no run though they are on, and why, ``approvals`` the questions that wait, ``unwatched`` places that cannot be
        watched, and why, ``watching`` how changes are noticed, ``companions`` what is wrong with what runs beside it,
        ``answers`` with files in approvals/, ``scan_seconds`` how long the last look at every place took, ``disk`` what
        the disk or the system refuses."""
        settings, now = self._settings(), self._now()
        return Snapshot(
            pid=os.getpid(),
            version=__version__,
            since=settings.local(self._since),
            beat=now,
            interval=float(settings.scan_interval),
            paused=self._layout.stopped(),
            running=tuple(Line(run.envelope.path or run.envelope.name, run.folder.run) for run in running),
            waiting=waiting,
            waiting_since=waiting_since,
            lying=limited((Line(each.name, each.why) for each in lying), 20, "and {} more"),
            retries=limited(
                (Line(run, f"at {settings.local(at):%Y-%m-%d %H:%M:%S}") for at, run in retries), 10, "and {} more"
            ),
            upcoming=tuple(Line(name, self._rule(name)) for _, name in upcoming),
            paused_tasks=limited(paused, 20, "and {} more"),
            last=tuple(_last(run, settings) for run in self._index.recent(20) if run.finished)[:10],
            approvals=limited(approvals, 20, "and {} more"),
            trouble=(*self._trouble(settings, settings_fault, unwatched), *companions, *answers),
            scan_seconds=scan_seconds,
            disk=tuple(disk),
            memory=resident_bytes(),
            sandbox=standing(settings)[0],
            watching=watching,
        )

    def _rule(self, name: str) -> str:
        """When a task falls due, in words; it may have gone this moment."""
        task = self._book.get_task(name)
        return in_words(task.table, self._settings().heartbeat_interval) if task else ""

    def _trouble(self, settings: Settings, settings_fault: str, unwatched: Mapping[str, str]) -> list[str]:
        """What a person should look at."""
        found = [f"{settings_fault} (the settings before stay in force)"] if settings_fault else []
        found += [str(fault) for fault in unknown_names(settings)]
        found += filter(None, [standing(settings)[1]])
        found += load_secrets(settings, self._layout.root)[1]
        found += server_troubles(settings, PinBook(self._layout))
        found += [str(error) for error in self._book.broken().values()]
        found += self._soul.trouble()
        for place, error in unwatched.items():
            found.append(f"{place}/ is not watched ({error}); it is looked at now and then")
        for name in self._book.conflicts():
            found.append(f"tasks/{name} is a sync conflict copy; it is never run")
        for name in conflict_copies(self._layout.root):
            found.append(f"{name} is a sync conflict copy; it is never read")
        return found


def server_troubles(settings: Settings, book: PinBook, *, daemon: bool = True) -> list[str]:
    """What is the matter with the MCP servers: changed tools, no answer, and in a ``daemon`` missing variables, too (of
    which another process knows nothing)."""
    found = []
    for server in resolved(settings):
        try:
            pins = book.get(server.name)
            words = f"{server.name}: {server.trouble}" if daemon and server.trouble else told(pins) if pins else ""
        except PersonError as error:
            words = str(error)
        found += [words] if words else []
    return found


def _last(run: Run, settings: Settings) -> Line:
    moment = run.finished or run.started
    words = run.status + (f", {settings.local(moment):%Y-%m-%d %H:%M}" if moment else "")
    if run.result:
        words += f" → {run.result}"
    return Line(run.command, f"{words}: {run.error}" if run.error else words)
