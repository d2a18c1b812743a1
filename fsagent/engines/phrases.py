"""How answers are worded: from what was understood and what the tools brought, with nothing added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fsagent.engines.order_rules import DATE, NOW
from fsagent.engines.rules import Part
from fsagent.model import ToolResult
from fsagent.statements import capital, fact_key, second_person, subject_key

_SHOWN_RUNS = 20


def answer_part(part: Part, results: Sequence[ToolResult]) -> str:
    """The answer to one understood sentence; ``results`` belong to its calls, in their order."""
    failed = next((result for result in results if not result.ok), None)
    if failed:
        return f"That did not work: {failed.error}"
    return _PHRASES[part.intent](part, results)


def _data(result: ToolResult) -> dict[str, Any]:
    return result.data if isinstance(result.data, dict) else {}


def _remembered(part: Part, results: Sequence[ToolResult]) -> str:
    data = _data(results[0])
    fact = second_person(data.get("fact", "") or part.calls[0].args["fact"])
    before = [second_person(old) for old in data.get("replaced", ())]
    if before:
        return f"Remembered: {fact} Before, it was: {' '.join(before)}"
    return f"I knew that already: {fact}" if data.get("known") else f"Remembered: {fact}"


def _forgotten(part: Part, results: Sequence[ToolResult]) -> str:
    removed = [second_person(text) for text in _data(results[0]).get("removed", ())]
    if not removed:
        return f"There was nothing to forget: I know nothing about {_yours(part.topic)}."
    return f"Forgotten: {removed[0]}" if len(removed) == 1 else _listed("Forgotten:", removed)


def _told(part: Part, results: Sequence[ToolResult]) -> str:
    rows = [row for result in results for row in _data(result).get("facts", ())]
    exact = _unique(second_person(row["text"]) for row in rows if row["exact"])
    loose = [text for text in _unique(second_person(row["text"]) for row in rows) if text not in exact]
    if part.topic in ("", "me"):
        about = " about you" if part.topic else ""
        return _listed(f"This is what I know{about}:", exact) if exact else f"I know nothing{about} yet."
    if part.topic.startswith("my ") or part.topic == "me":
        if exact:
            return "\n".join(exact)
        unknown = f"I do not know {_yours(part.topic)} yet." + _how_to_tell(part.topic)
        return f"{unknown}\n\n{_listed('This may be related:', loose)}" if loose else unknown
    found = [*exact, *loose]
    if not found:
        return f"I know nothing about {_yours(part.topic)}."
    return found[0] if len(found) == 1 else _listed(f"This is what I know about {_yours(part.topic)}:", found)


def _how_to_tell(topic: str) -> str:
    examples = {"name": "My name is Alice.", "home": "I live in Lisbon.", "birthday": "My birthday is 3 May."}
    example = examples.get(subject_key(topic)) or f"{capital(topic)} is …"
    return f' Tell me, for example: "{example}"'


def _yours(topic: str) -> str:
    """The topic as the agent says it: "my name" is "your name", "my home" where you live."""
    if topic == "my home":
        return "where you live"
    if topic == "my employer":
        return "where you work"
    if topic.casefold().startswith("my "):
        return f"your {topic[3:]}"
    return second_person(topic).rstrip(".").replace("Your", "your", 1) if fact_key(topic) else topic


def _unique(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"- {line}" for line in lines)])


def _appended(part: Part, results: Sequence[ToolResult]) -> str:
    args = part.calls[0].args
    text = args["text"]
    if part.templated:
        what = {NOW: "the timestamp", DATE: "the date"}[text]
    elif len(text) > 60 or "\n" in text:
        what = "the text"
    else:
        what = f'"{text}"'
    verb = "Added" if part.intent == "append" else "Wrote"
    return f"{verb} {what} to {(results[0].changed or (args['path'],))[0]}."


def _scheduled(part: Part, results: Sequence[ToolResult]) -> str:
    args = part.calls[0].args
    rows = _data(results[0]).get("tasks") or [{"name": args["name"], "rule": args["every"]}]
    row = rows[0]
    following = f" The next time is {_clock(row['next'])}." if row.get("next") else ""
    return f'Created the task {row["name"]} ({row["rule"]}): "{args["request"]}".{following}'


def _tasks(part: Part, results: Sequence[ToolResult]) -> str:
    rows = _data(results[0]).get("tasks", ())
    if not rows:
        return "There are no tasks. A file in tasks/ is one; or say: Every 10 minutes, log the timestamp to log.txt"
    lines = []
    for row in rows:
        following = f", next {_clock(row['next'])}" if row.get("next") else ""
        last = f", last {_clock(row['last'])}" if row.get("last") else ""
        request = " ".join(row.get("request", "").split())
        lines.append(
            f"**{row['name']}**: {row['rule']}, {row['state']}{last}{following}" + (f". {request}" if request else "")
        )
    return lines[0] if part.topic else _listed("These are the tasks:", lines)


def _task_changed(part: Part, results: Sequence[ToolResult]) -> str:
    rows = _data(results[0]).get("tasks") or [{"name": part.topic}]
    name = rows[0]["name"]
    if part.intent == "run":
        return f"Handed in: {name} runs now, as a run of its own ({_data(results[0]).get('run', '')})."
    following = (
        f" The next time is {_clock(rows[0]['next'])}." if part.intent == "resume" and rows[0].get("next") else ""
    )
    return f"{'Paused' if part.intent == 'pause' else 'Resumed'} the task {name}.{following}"


def _clock(moment: str) -> str:
    """An ISO moment as people read it; it is local already."""
    return moment[:19].replace("T", " ")


def _history(part: Part, results: Sequence[ToolResult]) -> str:
    rows = _data(results[0]).get("runs", ())
    day = f" {'since ' if part.topic[:1].isdigit() else ''}{part.topic}" if part.topic else ""
    if not rows:
        return f"Nothing ran{day or ' yet'}."
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    total = ", ".join(f"{number} {status}" for status, number in counts.items())
    lines = []
    for row in rows[:_SHOWN_RUNS]:
        said = " ".join((row["error"] or row["answer"]).split())
        name = f"task {row['task']}" if row["task"] else row["command"]
        lines.append(f"{_clock(row['started'])} {name}: {row['status']}" + (f" ({said[:100]})" if said else ""))
    if len(rows) > _SHOWN_RUNS:
        lines.append(f"… and {len(rows) - _SHOWN_RUNS} more (fsagent runs lists them)")
    return _listed(f"{len(rows)} {'run' if len(rows) == 1 else 'runs'}{day}: {total}.", lines)


def _text(part: Part, results: Sequence[ToolResult]) -> str:
    return results[0].text.rstrip("\n") or f"{part.topic or 'That'} is empty."


def _greeting(part: Part, results: Sequence[ToolResult]) -> str:
    return "Hello! Say `help` to see what I understand." if part.topic == "hello" else "You are welcome."


_PHRASES: dict[str, Callable[[Part, Sequence[ToolResult]], str]] = {
    "remember": _remembered,
    "change": _remembered,
    "ask": _told,
    "forget": _forgotten,
    "append": _appended,
    "write": _appended,
    "schedule": _scheduled,
    "tasks": _tasks,
    "pause": _task_changed,
    "resume": _task_changed,
    "run": _task_changed,
    "history": _history,
    "status": _text,
    "read": _text,
    "list": _text,
    "greeting": _greeting,
}
