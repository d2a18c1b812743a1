"""The nouns of the house: plain, frozen values that every floor may pass around.

Times are aware ``datetime`` values, in UTC unless a name says ``local``; durations are seconds (``float``); paths are
POSIX strings relative to the workspace root. The values are msgspec structs, so any of them goes to and from JSON.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from fsagent.printable import visible
from fsagent.timetable import Timetable

Trigger = Literal["inbox", "task", "http", "mcp", "cli"]
Status = Literal["done", "failed", "refused", "interrupted", "waiting"]
Report = Literal["auto", "always", "never", "on_change", "on_failure"]
Missed = Literal["skip", "once", "all"]
Overlap = Literal["skip", "queue", "replace"]
OnError = Literal["stop", "continue"]
Choice = Literal["once", "always", "refuse", "expired", "answer"]
Asking = Literal["approval", "answer"]


_DATE = re.compile(r"\{\{\s*date\s*\}\}")

MAX_DOCUMENT = 1024 * 1024
"""The most bytes that a command, a task, the settings or the soul may have."""
MAX_FAULT = 1_000
"""The most characters that are shown of a fault's message; of a longer one its beginning and its end."""


class Fault(Struct, frozen=True):
    """One thing that is wrong with one file. ``line`` and ``column`` count from 1; 0 means the whole file.

    As text it is one line of bounded length in which nothing of the file can hide, turn or colour what stands there.
    """

    file: str
    message: str
    line: int = 0
    column: int = 0
    field: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        parts = (place, self.field, self.message) if self.field else (place, self.message)
        return ": ".join(_on_a_line(part) for part in parts)


def _on_a_line(text: str) -> str:
    if len(text) > MAX_FAULT:
        text = f"{text[: MAX_FAULT // 2]} … {text[-MAX_FAULT // 2 :]}"
    return visible(text, but="")


class ToolCall(Struct, frozen=True):
    """A wish of an engine: one tool and its arguments (JSON values). ``line`` is where a person wrote it, or 0."""

    tool: str
    args: dict[str, Any] = {}
    on_error: OnError = "stop"
    line: int = 0


class ToolResult(Struct, frozen=True):
    """What a tool call brought. ``text`` is for the engine and for people; ``error`` is empty when it worked.

    ``changed`` are the files it wrote, ``remembered`` the facts it added to the soul; ``diff`` shows what changed, as
    a unified diff for people (never for an engine), shortened where it is long. ``untrusted`` says that the text is not
    the owner's own (see ``Tool.foreign``).
    """

    text: str = ""
    error: str = ""
    retryable: bool = False
    denied: bool = False
    changed: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    data: Any = None
    diff: str = ""
    untrusted: bool = False

    @property
    def ok(self) -> bool:
        """True when the call did what it was asked to."""
        return not self.error


class Question(Struct, frozen=True, kw_only=True):
    """A tool call that a person is to judge, as it would be made: its prepared arguments without what is default.

    ``hash`` is the print of this one action of this run, ``call`` its number in the step, ``why`` the line of the
    policy, ``effect`` that of the tool, ``preview`` shows people what it would do. Where ``kind`` is ``answer``, the
    call is itself the question: ``subject`` is its text, ``choices`` what there is to choose from, if anything.
    """

    hash: str
    call: int
    tool: str
    args: dict[str, Any]
    subject: str
    why: str
    effect: str
    preview: str = ""
    kind: Asking = "approval"
    choices: tuple[str, ...] = ()


class Answer(Struct, frozen=True, kw_only=True):
    """What came of a question; ``hash`` is the question's.

    Where a person changed the arguments, ``args`` are theirs, and ``action`` is the print of what that makes. ``text``
    is what they said, where their words were asked for.
    """

    hash: str
    decision: Choice
    by: str = ""
    comment: str = ""
    args: dict[str, Any] | None = None
    action: str = ""
    text: str = ""


class Usage(Struct, frozen=True):
    """What engines used: tokens of a model, read and written, and what they cost in US dollars. Offline: nothing.

    ``tokens_cached`` are those of ``tokens_in`` that the provider had kept; ``turns`` counts what a model was asked,
    ``unpriced`` how many of these nobody knows the price of, so that ``cost`` is without them.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    tokens_cached: int = 0
    turns: int = 0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, read and written."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.cost + other.cost,
            self.tokens_cached + other.tokens_cached, self.turns + other.turns, self.unpriced + other.unpriced,
        )  # fmt: skip

    def __bool__(self) -> bool:
        return bool(self.tokens_in or self.tokens_out or self.cost or self.turns)


class Step(Struct, frozen=True):
    """One engine turn: tool calls to make, or what ends the run (then ``calls`` is empty).

    ``quiet`` says that the answer need not reach a person unless they asked for it: nothing but work was done.
    ``usage`` is what deciding this step took, ``model`` the model that decided it. ``memo`` is for the engine alone: a
    JSON value that it finds again in the turn. ``halted`` says that a limit ended the run, not its work: a budget, or a
    provider that lets nobody in. ``blocked`` are models that let nobody in, with the reason in words; ``passing`` says
    that what ended the run may well be over in a while: nobody could be reached.
    """

    calls: tuple[ToolCall, ...] = ()
    answer: str = ""
    status: Status = "done"
    error: str = ""
    quiet: bool = False
    usage: Usage = Usage()
    model: str = ""
    memo: Any = None
    halted: bool = False
    blocked: dict[str, str] = {}
    passing: bool = False


class Turn(Struct, frozen=True):
    """A step that was carried out: the step and one result per call, in the order of the calls."""

    step: Step
    results: tuple[ToolResult, ...] = ()


class Command(Struct, frozen=True, kw_only=True):
    """One request, understood. ``name`` is its relative name (``taxes/1.md``), in every place alike.

    ``not_before`` is set where the command has yet to be held back: not for one that has waited in the inbox.
    ``model`` is the model it wants. ``tools`` (rules as in the settings) and ``budget`` (the most ``steps``, ``calls``,
    ``tokens`` and US dollars of ``cost``) narrow what the settings say. ``backoff`` is the wait before a second try,
    None where the settings say it. ``given`` is what a gate brought: material, not the owner's word; of the offline
    engine only playbooks can use it (``{{ given }}``), its plain sentences know nothing of it.
    """

    name: str
    body: str
    trigger: Trigger = "inbox"
    thread: str = ""
    id: str = ""
    engine: str = ""
    timeout: float = 0.0
    retries: int = 0
    steps: tuple[ToolCall, ...] = ()
    attachments: tuple[str, ...] = ()
    not_before: datetime | None = None
    task: str = ""
    slot: datetime | None = None
    report: Report = "always"
    model: str = ""
    tools: dict[str, Any] = {}
    budget: dict[str, float] = {}
    backoff: float | None = None
    expects: Expects | None = None
    given: str = ""


class Gate(Struct, frozen=True, kw_only=True):
    """What must hold for a slot to be worth a run: one entry of ``when:``. ``value`` is a pattern of files (changed), a
    path (exists), a shell line (shell) or a URL (http). ``changed``: only if the answer is another one than last time.
    """

    kind: Literal["changed", "exists", "shell", "http"]
    value: str
    changed: bool = False


class Expects(Struct, frozen=True, kw_only=True):
    """What a run promises to leave: a ``file`` (``newer``: written since the run began; ``{{ date }}`` in it is the
    day), a text that its answer ``contains``, a ``status``. All that is given must hold, else the run has failed,
    whatever its engine said."""

    file: str = ""
    newer: bool = False
    contains: str = ""
    status: str = ""

    def file_on(self, day: datetime) -> str:
        """The path of the file, with this day (``2026-11-22``) in the place of each ``{{ date }}``."""
        return _DATE.sub(day.strftime("%Y-%m-%d"), self.file)


class Task(Struct, frozen=True, kw_only=True):
    """A recurring request. ``table`` says when it falls due, ``gates`` what must hold then.

    ``missed`` and ``within`` (seconds): what is done of slots that passed while nobody was there; ``overlap``: what,
    while its run before has not ended. A slot is handed in up to ``jitter`` seconds after it. After ``pause_after``
    failures in a row (0: never) the task is paused. ``settings`` are the fields of its file that its commands carry as
    they are: model, tools, budget, retries, backoff, expects. ``print`` is the print of the file.
    """

    name: str
    path: str
    body: str
    table: Timetable = Timetable()
    enabled: bool = True
    engine: str = ""
    timeout: float = 0.0
    steps: tuple[ToolCall, ...] = ()
    report: Report = "auto"
    settings: dict[str, Any] = {}
    missed: Missed = "once"
    within: float = 43_200.0
    overlap: Overlap = "skip"
    jitter: float = 0.0
    pause_after: int = 5
    gates: tuple[Gate, ...] = ()
    print: str = ""


class Fact(Struct, frozen=True):
    """One remembered statement: ``text`` as it stands in the soul, ``key`` what it is about, ``line`` from 1."""

    text: str
    key: str
    line: int = 0


class Run(Struct, frozen=True, kw_only=True):
    """A line in the list of runs: what is known of one run, finished or not."""

    run: str
    command: str
    trigger: Trigger
    status: str
    thread: str = ""
    engine: str = ""
    task: str = ""
    slot: datetime | None = None
    id: str = ""
    attempts: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    result: str = ""
    settled: str = ""
    changed: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    error: str = ""
    answer: str = ""
    usage: Usage = Usage()
    untrusted: bool = False
