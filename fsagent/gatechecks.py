"""What a gate of a task (``when:``) asks of the world, and what it makes of the answer. No engine, no tokens.

``changed`` and ``exists`` look at the workspace's files. ``shell`` and ``http`` are calls of the very tools of that
name, under the policy for tasks and the task's own rules, in the sandbox; nobody can be asked, so what would need an
approval is a fault, unless a person allowed it for good.

What is seen for the first time counts as changed, where there is anything at all. A file that is gone has changed, too.
Limits: a run that writes what its own gate looks at is due again; of an answer over http the first MiB is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.config import Settings
from fsagent.consent import Consent, Place
from fsagent.errors import SaidNoError, ToolError, UnsafePathError
from fsagent.files.fingerprint import TooManyFilesError, content_print, is_pattern, matching, quick_print
from fsagent.model import Gate, Question, Task, ToolCall, ToolResult
from fsagent.runner import Runner
from fsagent.secrets import Redactor
from fsagent.tools.base import Context
from fsagent.tools.shell import needs_sh

MOST_GIVEN = 20_000
MOST_OUTPUT = 200_000
_MOST_WORDS = 300
_EMPTY = "(no output)"


class Verdict(Struct, frozen=True):
    """What became of a task's gates. ``why`` is one line for people where they do not hold; a ``fault`` is one that
    could not be looked at, or not in time. ``given`` is what they brought, for the request; ``seen`` is what they saw,
    by the print of the gate, to be kept once the run is handed in."""

    holds: bool
    why: str = ""
    given: str = ""
    seen: dict[str, str] = {}
    fault: bool = False


class Look(Struct, frozen=True):
    """How one gate was found: ``held`` or why not, what it brought, and what it saw."""

    held: bool
    why: str = ""
    given: str = ""
    seen: str = ""
    fault: bool = False


class Checker:
    """Looks at gates. Safe to share between threads."""

    def __init__(
        self,
        runner: Runner,
        settings: Callable[[], Settings],
        standing: Callable[[str, str], bool],
        secrets: Callable[[], Mapping[str, str]],
    ) -> None:
        self._runner, self._settings, self._standing, self._secrets = runner, settings, standing, secrets

    def verdict(self, task: Task, seen: Mapping[str, str], context: Context, begin: Callable[[Gate], None]) -> Verdict:
        """Look at the gates of a task in order, until one does not hold. ``begin`` is called before each, and now and
        then while files are looked at; what it raises ends the check."""
        given, saw = list[str](), dict[str, str]()
        for gate in task.gates:
            begin(gate)
            name = print_of(gate)
            look = self._look(gate, task, seen.get(name, ""), context, partial(begin, gate))
            if not look.held:
                return Verdict(False, look.why, fault=look.fault)
            if look.given:
                given.append(look.given)
            if look.seen:
                saw[name] = look.seen
        return Verdict(True, given=shortened("\n\n".join(given)), seen=saw)

    def _look(self, gate: Gate, task: Task, before: str, context: Context, beat: Callable[[], None]) -> Look:
        if gate.kind in ("shell", "http"):
            return self._call(gate, task, before, context)
        try:
            if gate.kind == "changed":
                return _changed(gate, before, context, beat)
            there = context.root.status(gate.value) is not None or bool(
                is_pattern(gate.value) and matching(context.root, gate.value, beat)
            )
            return Look(there, "" if there else f"{gate.value} is not there")
        except (UnsafePathError, TooManyFilesError) as error:
            return Look(False, in_one_line(f"{gate.kind}: {error}"), fault=True)
        except OSError as error:
            return Look(False, in_one_line(f"{gate.kind}: {gate.value}: {error.strerror or error}"), fault=True)

    def _call(self, gate: Gate, task: Task, before: str, context: Context) -> Look:
        """Have the tool do it that is named like the gate."""
        redactor = Redactor(self._secrets())
        left = context.seconds_left
        args: dict[str, Any] = {"": gate.value, "timeout": max(0.1, round(left(), 1))}
        context = msgspec.structs.replace(context, seconds_left=lambda: left() + 1)  # the call's own time is up first
        if gate.kind == "shell":
            args["shell"] = needs_sh(gate.value)
        consent = Consent(
            context.run, lambda tool: self._settings().rules("task", tool, task.settings.get("tools")), {}, frozenset(),
            self._standing,
        )  # fmt: skip
        judged = self._runner.judge(Place(0, 0), ToolCall(gate.kind, args), context, consent)
        if isinstance(judged, ToolResult):
            return _fault(gate, redactor.text(judged.error))
        if isinstance(judged, Question):
            return _fault(gate, redactor.text(f"{judged.why}, and nobody can be asked here; allow it in fsagent.yaml"))
        try:
            result = judged.tool.run(judged.args, context)
        except SaidNoError as error:
            return _said_no(gate, error, redactor.text(str(error)), sh=bool(args.get("shell")))
        except (ToolError, UnsafePathError) as error:
            return _fault(gate, redactor.text(str(error)))
        text = redactor.text(result.text)
        saw = str((result.data or {}).get("print", "")) if gate.changed else ""
        if gate.changed and saw == before:
            return Look(False, f"{in_one_line(gate.value)} has not changed")
        return Look(True, given="" if text == _EMPTY else text, seen=saw)


def print_of(gate: Gate) -> str:
    """The name under which it is kept what a gate saw."""
    return hashlib.sha256(msgspec.json.encode([gate.kind, gate.value])).hexdigest()[:16]


def shortened(text: str) -> str:
    """At most ``MOST_GIVEN`` characters: the beginning and the end, and between them how many are missing."""
    if len(text) <= MOST_GIVEN:
        return text
    half = (MOST_GIVEN - 60) // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half:,} characters were left out) …\n{text[-half:]}"


def in_one_line(text: str) -> str:
    """For the journal and lists: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_WORDS else line[: _MOST_WORDS - 1] + "…"


def _changed(gate: Gate, before: str, context: Context, beat: Callable[[], None]) -> Look:
    """The cheap print first: what was not touched need not be read."""
    found = matching(context.root, gate.value, beat)
    quick, was = quick_print(found), before.partition(":")
    if not found and not before:
        return Look(False, f"no file is like {gate.value} yet")
    if quick == was[0]:
        return Look(False, f"{gate.value} has not changed")
    content = content_print(context.root, found, beat)
    if content == was[2]:
        return Look(False, f"{gate.value} has not changed")
    return Look(True, seen=f"{quick}:{content}")


def _said_no(gate: Gate, error: SaidNoError, words: str, *, sh: bool) -> Look:
    """A program that ended with another code, or a server with another status, says that the gate does not hold; but
    126 and 127 are what ``sh`` says of a program that cannot be run, or is not there."""
    first, _, rest = words.partition("\n")
    if gate.kind == "http":
        return Look(False, in_one_line(f"http: {first}"))
    why = in_one_line(f"shell exited with {error.code}: {rest.strip() or gate.value}")
    return Look(False, why, fault=sh and error.code in (126, 127))


def _fault(gate: Gate, words: str) -> Look:
    return Look(False, in_one_line(words if words.startswith(gate.kind) else f"{gate.kind}: {words}"), fault=True)
