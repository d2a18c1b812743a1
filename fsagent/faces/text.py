"""How things look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from fsagent.faces.views import RunView, StatusView, TaskLine
    from fsagent.model import Run, Usage

_ABOUT = (
    "command",
    "task",
    "server",
    "workspace",
    "url",
    "run",
    "what",
)  # the first of these says what a record is about
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
    if event == "missed":
        what += f" {record['slots']} slots were missed"
    if event == "daemon started":
        what += f" (pid {record['pid']})"
    why = record.get("error") or record.get("why") or ""
    return " ".join(f"{head} {what}{': ' if why else ''}{why}".split("\n")).rstrip()


def status_text(view: StatusView) -> str:
    """The status for a terminal: the same words as status.md."""
    from fsagent.workspace.status import render

    head = f"workspace {view.workspace}"
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


def visible(text: str) -> str:
    """Lines of some file, with what a terminal would obey or not show as an escape."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
