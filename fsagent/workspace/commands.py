"""What a command file may say, and how it becomes a ``Command``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from fsagent.config import rule_faults
from fsagent.errors import DocumentError
from fsagent.files.documents import Document, read_document
from fsagent.files.fields import Amount, Duration, Moment, place, read_fields
from fsagent.files.yamltext import plain, position
from fsagent.model import Command, Expects, Fault, ToolCall
from fsagent.modelsettings import name_fault
from fsagent.workspace.runs import Envelope

MAX_STEPS = 1_000
_STEP_WORDS = ("on_error",)


class Narrowed(Struct, frozen=True, kw_only=True):
    """The most that a run may use, where that is less than the settings say."""

    steps: Amount | None = None
    calls: Amount | None = None
    tokens: Amount | None = None
    cost: Amount | None = None


class CommandFields(Struct, frozen=True):
    """The frontmatter of a command; all of it is optional."""

    id: str = ""
    thread: str = ""
    engine: str = ""
    timeout: Duration | None = None
    retries: int | None = None
    backoff: Duration | None = None
    not_before: Moment | None = None
    draft: bool = False
    attachments: tuple[str, ...] = ()
    steps: Any = None
    model: str = ""
    tools: Any = None
    budget: Narrowed | None = None
    expects: Expects | None = None


def read_command(raw: bytes, envelope: Envelope, *, timeout: float, retries: int, engine: str) -> Command:
    """A command from its bytes; the last three are what holds when it says nothing of them.

    The envelope's time gives the zone for times in it.
    Raises ``DocumentError`` with every fault found, each with its line.
    """
    file = envelope.path or envelope.name
    document = read_document(raw, file)
    fields, faults = _fields(document)
    calls: tuple[ToolCall, ...] = ()
    if "steps" in document.fields:
        try:
            calls = read_steps(document)
        except DocumentError as error:
            faults += error.faults
    if fields is not None:
        faults += [_at(document, name, why) for name, why in _unfit(fields)]
        faults += narrowing_faults(document, fields.model, fields.tools, fields.budget)
        faults += contract_faults(document, fields.expects)
    if not faults and not document.body and not calls:
        faults.append(Fault(file, "holds no request; write below the --- what is to be done"))
    if faults or fields is None:
        raise DocumentError(faults)
    return Command(
        name=envelope.name,
        body=document.body,
        trigger=envelope.trigger,
        thread=fields.thread or envelope.thread,
        id=fields.id,
        engine=fields.engine or engine,
        timeout=float(fields.timeout or timeout),
        retries=retries if fields.retries is None else fields.retries,
        steps=calls,
        attachments=fields.attachments,
        not_before=_held_until(fields, envelope),
        task=envelope.task,
        slot=envelope.slot,
        report=envelope.report,
        model=fields.model,
        tools=fields.tools or {},
        budget=_limits(fields.budget),
        backoff=None if fields.backoff is None else float(fields.backoff),
        expects=fields.expects,
        given=envelope.given,
    )


def is_attachment(name: str) -> bool:
    """True for what may be the name of an attachment: one plain file name that every disk can hold."""
    strange = any(ord(char) < 32 or char == "/" or "\ud800" <= char <= "\udfff" for char in name)
    return not strange and name == name.strip() != "" and not name.startswith(".") and len(name.encode()) <= 255


def peek(raw: bytes, file: str) -> CommandFields | None:
    """The settings of a command that still lies in the inbox, or None where they cannot be read."""
    if b"---" not in raw[:4096].replace(b"\0", b""):
        return CommandFields()
    try:
        return _fields(read_document(raw, file))[0]
    except DocumentError:
        return None


def steps_of(raw: bytes) -> tuple[ToolCall, ...]:
    """The steps of a file that may have other faults; none where they cannot be read."""
    try:
        document = read_document(raw, "")
        return read_steps(document) if "steps" in document.fields else ()
    except DocumentError:
        return ()


def read_steps(document: Document) -> tuple[ToolCall, ...]:
    """The ``steps:`` of a command or task: a list of ``- tool: arguments``, with an optional ``on_error``.

    A bare value stands for the tool's main argument and is given as ``{"": value}``. Which tools exist and what they
    take is checked by whoever runs them, who finds the place by ``ToolCall.line``.
    """
    node = document.fields["steps"]
    if not isinstance(node, CommentedSeq):
        raise DocumentError(
            [_at(document, "steps", "must be a list of lines like '- append: {path: log.txt, text: hi}'")]
        )
    if len(node) > MAX_STEPS:
        raise DocumentError([_at(document, "steps", f"has more than {MAX_STEPS} steps")])
    calls, faults = [], list[Fault]()
    for number, item in enumerate(node, 1):
        line, column = position(node, number - 1, document.first_line)
        where = f"steps[{number}]"
        tools = [str(name) for name in item if name not in _STEP_WORDS] if isinstance(item, CommentedMap) else []
        if len(tools) != 1:
            faults.append(Fault(document.file, "must name one tool, like '- read: notes.md'", line, column, where))
            continue
        on_error = str(item.get("on_error", "stop"))
        if on_error not in ("stop", "continue"):
            faults.append(Fault(document.file, "must be stop or continue", line, column, f"{where}.on_error"))
            continue
        value = plain(item[tools[0]])
        args = value if isinstance(value, dict) else {"": value} if value != "" else {}
        calls.append(ToolCall(tools[0], args, "continue" if on_error == "continue" else "stop", line))
    if faults:
        raise DocumentError(faults)
    return tuple(calls)


def _fields(document: Document) -> tuple[CommandFields | None, list[Fault]]:
    try:
        return read_fields(CommandFields, document.fields, document.file, document.first_line), []
    except DocumentError as error:
        return None, list(error.faults)


def _unfit(fields: CommandFields) -> Sequence[tuple[str, str]]:
    """What no type can say."""
    found = []
    if fields.retries is not None and not 0 <= fields.retries <= 20:
        found.append(("retries", "must be between 0 and 20"))
    if fields.timeout is not None and fields.timeout <= 0:
        found.append(("timeout", "must be longer than nothing, for instance 30s"))
    if len(fields.id) > 200 or any(ord(char) < 32 for char in fields.id):
        found.append(("id", "must be one line of at most 200 characters"))
    if fields.thread.startswith(("/", ".")) or "\\" in fields.thread or ".." in fields.thread.split("/"):
        found.append(("thread", "must be a plain name such as taxes"))
    for name in fields.attachments:
        if not is_attachment(name):
            found.append(("attachments", f"{name!r} must be the name of a file beside the command"))
    return found


def narrowing_faults(document: Document, model: str, tools: Any, budget: Narrowed | None) -> list[Fault]:
    """What is wrong with ``model:``, ``tools:`` and ``budget:`` of a command or task. Which tools there are is
    not known here."""
    why = name_fault(model)
    found = [_at(document, "model", why)] if why else []
    if tools and not isinstance(tools, dict):
        found.append(_at(document, "tools", "must be a map of tools and rules, such as {shell: deny}"))
    elif tools:
        for path, why in rule_faults(("tools",), tools):
            line, column = place(document.fields, path, document.first_line)
            found.append(Fault(document.file, why, line, column, ".".join(map(str, path))))
    for name, most in _limits(budget).items():
        if most == math.inf:
            found.append(
                _at(document, "budget", f"{name}: a number is needed here, for it can only be less than allowed")
            )
    return found


def contract_faults(document: Document, expects: Expects | None) -> list[Fault]:
    """What is wrong with ``expects:`` of a command or task."""
    if expects is None:
        return []
    found = []
    path = expects.file_on(datetime.fromtimestamp(0, UTC))
    if path.startswith(("/", "~")) or ".." in path.split("/") or path.endswith("/") or "\0" in path:
        found.append(("file", "must be the path of a file in the workspace, such as report.md"))
    elif "{{" in path:
        found.append(("file", "of all {{ … }} only {{ date }} can stand here"))
    if expects.newer and not path:
        found.append(("newer", "needs the file that it is about, such as {file: report.md, newer: true}"))
    if expects.status not in ("", "done", "failed", "refused"):
        found.append(("status", f"{expects.status!r} cannot be promised; write done, failed or refused"))
    if not (path or expects.contains or expects.status or found):
        found.append(("file", "is needed, or contains, or status; write for instance {file: report.md, newer: true}"))
    return [
        Fault(document.file, why, *place(document.fields, ("expects", name), document.first_line), f"expects.{name}")
        for name, why in found
    ]


def _limits(budget: Narrowed | None) -> dict[str, float]:
    return (
        {name: float(most) for name, most in msgspec.structs.asdict(budget).items() if most is not None}
        if budget
        else {}
    )


def _held_until(fields: CommandFields, envelope: Envelope) -> datetime | None:
    """What came by the inbox has waited there already, and what is repeated waited the first time."""
    held = fields.not_before and not envelope.path and not envelope.again
    return fields.not_before.at(envelope.time) if held and fields.not_before else None


def _at(document: Document, name: str, message: str) -> Fault:
    line, column = position(document.fields, name, document.first_line)
    return Fault(document.file, message, line, column, name)
