"""Tasks as faces show them: how each stands and why, its last runs and its next slots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fsagent.errors import DocumentError, NotFoundError
from fsagent.faces.views import open_index, settings_of
from fsagent.model import Gate, Run, Task
from fsagent.workspace.layout import Layout

if TYPE_CHECKING:
    from fsagent.config import Settings
    from fsagent.workspace.tasks import TaskBook

SHOWN = 5
_OWN = ("engine", "timeout", "report", "missed", "within", "overlap", "jitter", "pause_after")
_PLAIN = Task(name="", path="", body="")
_CARRIED = ("model", "retries", "backoff", "expects", "budget", "tools")


class TaskRun(Struct, frozen=True, kw_only=True):
    """A run of a task: the ``seconds`` that it took, and how many it began after its slot (``late``); None where that
    is not known (yet), or where it had no slot."""

    run: str
    status: str
    slot: datetime | None = None
    started: datetime | None = None
    seconds: float | None = None
    late: float | None = None
    result: str = ""
    error: str = ""


class TaskLine(Struct, frozen=True, kw_only=True):
    """A task. Times are in its own time zone.

    ``state`` is ``on``, ``off``, ``paused``, ``done`` (no slot is left) or ``broken``; ``why`` says why it is not on,
    ``since`` when it was paused; ``held_back`` why its last slot brought no run. ``gates`` are what must hold for a
    run, ``settings`` the fields of its file that are not default. ``runs`` are the newest, ``slots`` the next: in a
    list one of each, of one task some. ``fault`` says why a file cannot be used.
    """

    task: str
    file: str
    rule: str
    state: str
    timezone: str = ""
    why: str = ""
    since: datetime | None = None
    held_back: str = ""
    gates: list[str] = []
    settings: dict[str, Any] = {}
    last: datetime | None = None
    last_status: str = ""
    next: datetime | None = None
    runs: list[TaskRun] = []
    slots: list[datetime] = []
    fault: str = ""


def read_tasks(layout: Layout, names: Sequence[str] = (), most: int = 1, few: int = 0) -> list[TaskLine]:
    """The task files by name, those that cannot be used among them; with their last runs and next slots, at most
    ``most`` of each, and one where there are more than ``few`` tasks (0: never). All, or those of these names: raises
    ``NotFoundError`` naming the nearest for one that is none."""
    from fsagent.workspace.tasks import TaskBook

    book = TaskBook(layout)
    book.refresh()
    settings, now = settings_of(layout), datetime.now(UTC)
    tasks = {task.name: task for task in book.tasks()}
    broken = book.broken()
    if names:
        meant = {_meant(name, tasks, broken) for name in names}
        tasks = {name: task for name, task in tasks.items() if name in meant}
        broken = {name: error for name, error in broken.items() if name in meant}
    if few and len(tasks) + len(broken) > few:
        most = 1
    with open_index(layout) as index:
        newest = index.newest_of(list(tasks), most) if index else {}
    lines = [_line(task, book, newest.get(name, []), settings, now, most) for name, task in tasks.items()]
    for name, error in broken.items():
        file = error.faults[0].file
        lines.append(TaskLine(task=name, file=file, rule="", state="broken", fault=str(error)))
    return sorted(lines, key=lambda line: line.task)


def _meant(name: str, tasks: dict[str, Task], broken: dict[str, DocumentError]) -> str:
    from fsagent.files.fields import nearest

    wanted = name.removeprefix("tasks/").removesuffix(".md")
    if wanted in tasks or wanted in broken:
        return wanted
    names = {each.casefold(): each for each in (*tasks, *broken)}
    if wanted.casefold() in names:
        return names[wanted.casefold()]
    raise NotFoundError(f"there is no task {name!r}{nearest(wanted, names)}; see 'fsagent tasks'")


def _line(task: Task, book: TaskBook, runs: list[Run], settings: Settings, now: datetime, most: int) -> TaskLine:
    from fsagent.timetext import in_words
    from fsagent.workspace.outlook import outlook, zone_of
    from fsagent.zones import zone_name

    state, zone = book.state(task.name), zone_of(task.table, settings)
    found = outlook(task, state, settings, now, most)
    slots = [slot.astimezone(zone) for slot in found.slots]
    shown = [_run(run, zone) for run in runs]
    return TaskLine(
        task=task.name, file=task.path, rule=in_words(task.table, settings.heartbeat_interval), state=found.state,
        timezone=zone_name(zone), why=found.why,
        since=state.since.astimezone(zone) if state.since and found.state == "paused" else None,
        held_back=state.held_back, gates=[_gate(gate) for gate in task.gates], settings=_settings(task),
        last=shown[0].started if shown else None, last_status=shown[0].status if shown else "",
        next=slots[0] if slots else None, runs=shown, slots=slots,
    )  # fmt: skip


def _run(run: Run, zone: Any) -> TaskRun:
    started = run.started.astimezone(zone) if run.started else None
    return TaskRun(
        run=run.run, status=run.status, started=started, result=run.result, error=run.error,
        slot=run.slot.astimezone(zone) if run.slot else None,
        seconds=(run.finished - run.started).total_seconds() if run.finished and run.started else None,
        late=(run.started - run.slot).total_seconds() if run.slot and run.started else None,
    )  # fmt: skip


def _gate(gate: Gate) -> str:
    words = {"changed": "files changed", "exists": "there is", "shell": "the program succeeds", "http": "there answers"}
    return f"{words[gate.kind]}: {gate.value}" + (" (and otherwise than before)" if gate.changed else "")


def _settings(task: Task) -> dict[str, Any]:
    """The fields of the file about how it is run that say something else than the default."""
    from fsagent.files.fields import format_duration

    said = {name: getattr(task, name) for name in _OWN if getattr(task, name) != getattr(_PLAIN, name)}
    written = {name: format_duration(each) if isinstance(each, float) else each for name, each in said.items()}
    return written | {name: task.settings[name] for name in _CARRIED if name in task.settings}
