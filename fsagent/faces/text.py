"""How things look on a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from fsagent.files.fields import format_duration
from fsagent.printable import visible

if TYPE_CHECKING:
    from fsagent.faces.explain import Explained
    from fsagent.faces.tasks import TaskLine, TaskRun
    from fsagent.faces.views import RunView, StatusView
    from fsagent.model import Run, Usage

_ABOUT = (
    "command",
    "task",
    "server",
    "workspace",
    "url",
    "title",
    "run",
    "what",
)  # the first of these says what a record is about
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIME = "%Y-%m-%d %H:%M:%S"


def as_json_text(value: Any) -> str:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def journal_line(record: dict[str, Any]) -> str:
    """One line for one thing that happened."""
    time: datetime = record["time"]
    event = record["event"]
    head = f"{time.astimezone():%H:%M:%S} {record.get('status') or event:<11}"
    what = str(next((record[name] for name in _ABOUT if record.get(name)), ""))
    if event == "finished":
        what += f" → {record['result']}" if record.get("result") else ""
        what += f" ({record['seconds']:g} s)"
    if event == "notice":
        what += f" → {record['file']}"
    if event == "missed":
        what += f" {record['slots']} slots were missed"
    if event == "daemon started":
        what += f" (pid {record['pid']})"
    why = record.get("error") or record.get("why") or ""
    return " ".join(f"{head} {': '.join(filter(None, (what, why)))}".split("\n")).rstrip()


def status_text(view: StatusView) -> str:
    """The status for a terminal: the same words as status.md."""
    from fsagent.workspace.status import render, stands_by

    head = f"workspace {view.workspace}"
    if view.owner and not (view.alive and view.snapshot):
        return f"{head}\n\nNo daemon runs here. {stands_by(view.owner)}"
    if view.snapshot is None:
        never = f"No daemon ever ran here; start one: fsagent run {view.workspace}"
        return f"{head}\n{never}\n{_waiting(view.waiting)}".strip()
    snapshot = msgspec.structs.replace(view.snapshot, paused=view.paused, waiting=view.waiting)
    return f"{head}\n\n{render(snapshot, alive=view.alive)}".strip()


def runs_text(runs: Sequence[Run]) -> str:
    """A table of runs."""
    if not runs:
        return "no runs yet"
    rows = [("RUN", "STARTED", "STATUS", "TRIGGER", "COMMAND", "RESULT")]
    for run in runs:
        rows.append(
            (run.run, _time(run.started), run.status, run.trigger, run.command, run.result or run.error.split("\n")[0])
        )
    return _table(rows)


def tasks_text(tasks: Sequence[TaskLine]) -> str:
    """A table of tasks; below it why some cannot be used."""
    if not tasks:
        return "no tasks; drop a markdown file into tasks/"
    rows = [("TASK", "RULE", "STATE", "LAST", "", "NEXT")]
    rows += [(t.task, t.rule, t.state, _time(t.last), t.last_status, _time(t.next)) for t in tasks]
    return "\n".join([_table(rows), *(t.fault for t in tasks if t.fault)])


def task_text(task: TaskLine) -> str:
    """One task, whole."""
    state = task.state
    if task.state == "paused":
        since = f", since {_time(task.since)}" if task.since else ""
        state += f": {task.why}{since}; go on with: fsagent resume {shlex.quote(task.task)} (or change its file)"
    elif task.why:
        state += f" ({task.why})"
    rows = [("rule", task.rule), ("time zone", task.timezone), ("state", state), ("only when", "\n".join(task.gates)),
            ("no run", f"at its last slot: {task.held_back}" if task.held_back else ""),
            ("set", _settings(task.settings)), ("fault", task.fault),
            ("next", "\n".join(map(_slot, task.slots))), ("last", "\n".join(map(_task_run, task.runs)))]  # fmt: skip
    return f"{task.task} ({task.file})\n" + _rows(rows, "  ")


def explained_text(found: Explained) -> str:
    """A rule, its next slots and what the clocks' changes do to it."""
    slots = "\n".join(map(_slot, found.slots)) or "never: it has passed"
    rows = [("rule", found.rule), ("write", _settings(found.fields)), ("time zone", found.timezone), ("next", slots),
            ("note", "\n".join(found.notes))]  # fmt: skip
    return _rows(rows)


def _task_run(run: TaskRun) -> str:
    took = _duration(run.seconds) if run.seconds is not None else ""
    late = f"{_duration(run.late)} late" if run.late is not None and run.late >= 1 else ""
    what = run.result or run.error.partition("\n")[0]
    return "  ".join([_time(run.started or run.slot), f"{run.status:<11}", *filter(None, (took, late, what))]).rstrip()


def _duration(seconds: float) -> str:
    """As a person would say it: milliseconds of what is short, whole seconds of what is long."""
    return format_duration(round(seconds, 3 if seconds < 10 else 0))


def _slot(moment: datetime) -> str:
    """A slot with its weekday and its distance from UTC, by which the two of a repeated hour differ."""
    written = moment.isoformat(" ", "seconds")
    return f"{_DAYS[moment.weekday()]} {written[:19]} {written[19:]}"


def _rows(rows: Iterable[tuple[str, str]], indent: str = "") -> str:
    """What has a text, under each other: a name, and its lines beside it."""
    below = "\n" + indent + " " * 11
    return "\n".join(f"{indent}{name + ':':<11}{text.replace(chr(10), below)}" for name, text in rows if text)


def _settings(fields: Mapping[str, Any]) -> str:
    def written(value: Any) -> str:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    return ", ".join(f"{name}: {written(value)}" for name, value in fields.items())


def run_text(view: RunView) -> str:
    """One run, whole."""
    run = view.run
    head = [("run", run.run), ("command", run.command), ("status", run.status), ("trigger", run.trigger),
            ("thread", run.thread), ("task", run.task), ("slot", _time(run.slot)), ("engine", run.engine),
            ("model", _model(view)),
            ("started", _time(run.started)), ("finished", _time(run.finished)), ("attempts", str(run.attempts)),
            ("result", run.result), ("command now", run.settled), ("changed", ", ".join(run.changed)),
            ("remembered", "; ".join(run.remembered)), ("used", used_words(run.usage)),
            ("error", run.error)]  # fmt: skip
    parts = ["\n".join(f"{name + ':':<13}{value}" for name, value in head if value)]
    parts.append("command\n" + _indent(view.command))
    steps = [line for event in view.steps if (line := _step(event))]
    if steps:
        parts.append("steps\n" + _indent("\n".join(steps)))
    body = view.result.split("\n---\n", 1)[-1].strip()
    if body:
        parts.append("result\n" + _indent(body))
    return "\n\n".join(parts)


def used_words(usage: Usage) -> str:
    """What a run used, in a line; "" where it asked no model."""
    from fsagent.workspace.usage import money

    if not usage:
        return ""
    cached = f" ({usage.tokens_cached:,} of them cached)" if usage.tokens_cached else ""
    cost = money(usage.cost) if usage.cost or not usage.unpriced else "cost unknown"
    return f"{usage.tokens_in:,} tokens in{cached}, {usage.tokens_out:,} out, {_count(usage.turns, 'turn')}, {cost}"


def _model(view: RunView) -> str:
    """The models that were asked."""
    ends = [event.get("outcome") or {} for event in view.steps if event["event"] == "finished"]
    return str(ends[-1].get("model", "")) if ends else ""


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def _step(event: dict[str, Any]) -> str:
    kind = event["event"]
    if kind == "step":
        calls = [
            f"{call['tool']} {msgspec.json.encode(call.get('args', {})).decode()}" for call in event["step"]["calls"]
        ]
        return "\n".join(calls)
    if kind == "result":
        result = event["result"]
        text = f"failed: {result['error']}" if result.get("error") else result.get("text", "")
        if result.get("diff"):
            text += "\n" + visible(result["diff"]).rstrip("\n")
        return "  → " + text.replace("\n", "\n    ")
    if kind == "retry":
        return f"to be tried again at {event['at']}: {event.get('error', '')}"
    if kind == "attempt" and event.get("n", 1) > 1:
        return f"attempt {event['n']}"
    return ""


def _waiting(count: int) -> str:
    return f"{count} command{'s' * (count != 1)} waiting" if count else ""


def _time(moment: datetime | None) -> str:
    return moment.strftime(_TIME) if moment else ""


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
