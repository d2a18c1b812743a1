"""What a task file may say, and how it becomes a ``Task``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Literal, cast

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from fsagent.errors import DocumentError
from fsagent.files.documents import Document, read_document
from fsagent.files.fields import Amount, Duration, format_duration, nearest, place, read_fields
from fsagent.files.yamltext import plain, position
from fsagent.model import Expects, Fault, Gate, Missed, Overlap, Report, Task, ToolCall
from fsagent.timetable import Timetable
from fsagent.timetext import RuleFields, timetable
from fsagent.workspace.commands import Narrowed, narrowing_faults, read_steps

Kind = Literal["changed", "exists", "shell", "http"]

MOST_GATES = 20
_GATES = ("changed", "exists", "shell", "http")
_CARRIED = ("model", "tools", "budget", "retries", "backoff", "expects")
_STATUSES = ("done", "failed", "refused", "interrupted")
_DAY = 86_400
_URL = re.compile(r"https?://[^\s/?#@\\]+([/?#][^\s\\]*)?", re.IGNORECASE)
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Failures(Amount):
    """How many failures in a row pause a task; 0 is never, and may be written ``off``."""

    @classmethod
    def parse(cls, text: str) -> Failures:
        """The number. Raises ``ValueError`` with what to write instead."""
        word = text.strip().lower()
        if word in ("off", "never", "none"):
            return cls(0)
        if not re.fullmatch(r"[0-9]{1,4}", word):
            raise ValueError(f"{text!r} is no number of failures; write a whole number such as 5, or off")
        return cls(int(word))


class TaskFields(RuleFields, frozen=True):
    """The frontmatter of a task; all of it is optional."""

    missed: Missed = "once"
    within: Duration = Duration(43_200)
    overlap: Overlap = "skip"
    jitter: Duration = Duration(0)
    when: Any = None
    enabled: bool = True
    engine: str = ""
    timeout: Duration | None = None
    retries: int | None = None
    backoff: Duration | None = None
    pause_after: Failures = Failures(5)
    report: Report = "auto"
    expects: Expects | None = None
    steps: Any = None
    model: str = ""
    tools: Any = None
    budget: Narrowed | None = None


def read_task(raw: bytes, name: str, path: str) -> Task:
    """A task from its file's bytes. Raises ``DocumentError`` with every fault found, each with its line."""
    document = read_document(raw, path)
    faults: list[Fault] = []
    fields: TaskFields | None = None
    calls: tuple[ToolCall, ...] = ()
    gates: tuple[Gate, ...] = ()
    table = Timetable()
    try:
        fields = read_fields(TaskFields, document.fields, path, document.first_line)
    except DocumentError as error:
        faults += error.faults
    try:
        if "steps" in document.fields:
            calls = read_steps(document)
    except DocumentError as error:
        faults += error.faults
    try:
        if document.fields.get("when"):
            gates = _read_gates(document)
    except DocumentError as error:
        faults += error.faults
    if fields is not None:
        table, wrong = timetable(fields)
        for where, why in [*(((field,), why) for field, why in wrong), *_unfit(fields, table)]:
            line, column = place(document.fields, where, document.first_line)
            faults.append(Fault(path, why, line, column, ".".join(where)))
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
        settings={key: plain(value) for key, value in document.fields.items() if key in _CARRIED and value},
        missed=fields.missed,
        within=float(fields.within),
        overlap=fields.overlap,
        jitter=float(fields.jitter),
        pause_after=int(fields.pause_after),
        gates=gates,
        print=print_of(raw),
    )


def print_of(raw: bytes) -> str:
    """The print of a task file: another one, another file."""
    return hashlib.sha256(raw).hexdigest()[:32]


def _unfit(fields: TaskFields, table: Timetable) -> Iterator[tuple[tuple[str, ...], str]]:
    """What no type can say: where it stands, and what to write instead."""
    if fields.within <= 0:
        yield ("within",), "must be longer than nothing; to run nothing that was missed, write missed: skip"
    if fields.jitter > _DAY:
        yield ("jitter",), "must be at most 1d"
    elif table.every and fields.jitter >= table.every:
        yield ("jitter",), f"must be shorter than every, which is {format_duration(table.every)}"
    if fields.timeout is not None and fields.timeout <= 0:
        yield ("timeout",), "must be longer than nothing, for instance 30s"
    if fields.retries is not None and not 0 <= fields.retries <= 20:
        yield ("retries",), "must be between 0 and 20"
    if fields.backoff is not None and not 0 < fields.backoff <= _DAY:
        yield ("backoff",), "must be longer than nothing and at most 1d, for instance 30s"
    expects = fields.expects
    if expects is None:
        return
    if not expects.file and not expects.contains and not expects.status:
        why = "a file, too" if expects.newer else "a file, a text that the answer contains, or a status"
        yield ("expects",), f"must name {why}, such as {{file: report.md}}"
    elif expects.newer and not expects.file:
        yield ("expects", "newer"), "needs a file, such as {file: report.md, newer: true}"
    if expects.file and (why := _outside(expects.file)):
        yield ("expects", "file"), why
    if expects.status and expects.status not in _STATUSES:
        yield ("expects", "status"), f"must be {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}"


def _read_gates(document: Document) -> tuple[Gate, ...]:
    """The ``when:`` of a task: a map of gates, or a list of such maps."""
    node = document.fields["when"]
    gates, faults = [], list[Fault]()
    items = list(enumerate(node)) if isinstance(node, CommentedSeq) else [(-1, node)]
    for number, item in items:
        where = "when" if number < 0 else f"when[{number + 1}]"
        if not isinstance(item, CommentedMap) or not item:
            at = position(document.fields, "when", document.first_line)
            at = at if number < 0 else position(node, number, document.first_line)
            faults.append(Fault(document.file, 'must be a map such as {changed: "data/*.csv"}', *at, where))
            continue
        for key in map(str, item):
            gate, why = _gate(item, key)
            if why:
                at = position(item, key, document.first_line)
                faults.append(Fault(document.file, why, *at, f"{where}.{key}"))
            if gate:
                gates.append(gate)
    if len(gates) > MOST_GATES:
        at = position(document.fields, "when", document.first_line)
        faults.append(Fault(document.file, f"has more than {MOST_GATES} gates", *at, "when"))
    if faults:
        raise DocumentError(faults)
    return tuple(gates)


def _gate(item: CommentedMap, key: str) -> tuple[Gate | None, str]:
    """One gate of a map, or what is wrong with it; neither for ``changed: true``, which belongs to the ``http``."""
    value = plain(item[key])
    if key not in _GATES:
        return None, f"is not known here{nearest(key, _GATES)}; known are: {', '.join(_GATES)}"
    if not isinstance(value, str):
        return None, "must be a single value; for several gates write a list of maps"
    if key == "changed" and value.lower() in _TRUTH:
        why = "belongs to an http in the same map; for files write a pattern, such as data/*.csv"
        return None, "" if "http" in item else why
    if not value.strip():
        return None, "is empty"
    if key == "http":
        if not _URL.fullmatch(value):
            return None, f"{value!r} is no web address; write for instance https://example.org/page"
        changed = _TRUTH.get(str(item.get("changed", "")).lower(), False)
        return Gate(kind="http", value=value, changed=changed), ""
    why = "" if key == "shell" else _outside(value)
    return None if why else Gate(kind=cast("Kind", key), value=value), why


def _outside(path: str) -> str:
    """Why a path does not lie in the workspace, or nothing."""
    if path.startswith(("/", "~")) or ".." in path.split("/"):
        return f"{path!r} must lie in the workspace; write it as seen from there, such as data/report.csv"
    return "must have / between its folders" if "\\" in path else ""
