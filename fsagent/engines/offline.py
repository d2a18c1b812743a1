"""The offline engine: playbooks (``steps:``) and a stated set of plain sentences, with no model and no network.

It needs zero tokens and does the same thing every time. What it does not understand it refuses; it never guesses.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from fsagent.engines.base import Request
from fsagent.engines.intents import refusal, understand
from fsagent.model import Step, ToolCall, Turn
from fsagent.secrets import REFERENCE
from fsagent.tools.shell import operator_in

QUIET_TOOLS = frozenset({"write", "append", "edit", "remember", "forget", "task", "notify"})
"""Tools whose success is no news: a task that used nothing else has nothing to tell a person."""

_CODE_OPTION = re.compile(r"-\w*[ce]|--(?:eval|command)")
_WOULD_BE_RUN = "a shell line takes no {{ … }} but the time, for it would be run; hand the text over as stdin:"
_TEMPLATE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


class Offline:
    """See the module. Keeps no state; ``decide`` derives everything from the request and the past turns."""

    name = "offline"
    suggestible = False

    def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
        """The next step of the playbook or of what was understood; ends at the first step that failed."""
        if request.command.steps:
            return _playbook(request, turns)
        return _sentence(request, turns)


def _playbook(request: Request, turns: Sequence[Turn]) -> Step:
    failed = _failure(turns)
    if failed:
        return failed
    if len(turns) < len(request.command.steps):
        return Step(calls=(_filled(request.command.steps[len(turns)], request, turns),))
    said = [_account(turn) for turn in turns]
    quiet = all(turn.step.calls[0].tool in QUIET_TOOLS or not turn.results[0].text for turn in turns)
    broken = any(not turn.results[0].ok for turn in turns)
    return Step(answer="\n\n".join(text for text in said if text) or "Done.", quiet=quiet and not broken)


def _sentence(request: Request, turns: Sequence[Turn]) -> Step:
    understood = understand(request.command.body, recurring=request.command.trigger == "task")
    if understood is None:
        honest = refusal(request.command.body)
        return Step(answer=honest, status="refused", error=honest.partition("\n")[0])
    failed = _failure(turns)
    if failed:
        return failed
    if len(turns) < len(understood.calls):
        number = len(turns)
        call = understood.calls[number]
        return Step(calls=(_filled(call, request, turns) if number in understood.templated else call,))
    quiet = bool(turns) and all(turn.step.calls[0].tool in QUIET_TOOLS for turn in turns)
    return Step(answer=understood.answer([turn.results[0] for turn in turns], request), quiet=quiet)


def _failure(turns: Sequence[Turn]) -> Step | None:
    """How the run ends if its last step failed and may not be passed over."""
    if not turns:
        return None
    call, result = turns[-1].step.calls[0], turns[-1].results[0]
    if result.ok or call.on_error == "continue":
        return None
    done = [_account(turn) for turn in turns[:-1]]
    error = result.error if len(turns) == 1 and not call.line else f"step {len(turns)} ({call.tool}): {result.error}"
    return Step(
        answer="\n\n".join(text for text in done if text), status="refused" if result.denied else "failed", error=error
    )


def _account(turn: Turn) -> str:
    """What a step of a playbook has to say."""
    result = turn.results[0]
    return result.text if result.ok else f"({turn.step.calls[0].tool} failed: {result.error})"


def _filled(call: ToolCall, request: Request, turns: Sequence[Turn]) -> ToolCall:
    """The call with its ``{{ … }}`` filled in: substitution only, once, in values only.

    A command line is split into words before, so that nothing filled in can become more than one word of it.
    """

    def value_of(match: re.Match[str]) -> str:
        return _value(match[1], request, turns)

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return _TEMPLATE.sub(value_of, value)
        if isinstance(value, dict):
            return {key: fill(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [fill(each) for each in value]
        return value

    args = dict(call.args)
    if call.tool == "http" and isinstance(args.get("headers"), dict):
        args["headers"] = {name: _filled_header(value, value_of) for name, value in args["headers"].items()}
        rest = {name: value if name == "headers" else fill(value) for name, value in args.items()}
        return msgspec.structs.replace(call, args=rest)
    filled = _filled_command_line(args, value_of) if call.tool == "shell" else {}
    return msgspec.structs.replace(call, args=fill(args) | filled)


def _filled_header(value: Any, value_of: Callable[[re.Match[str]], str]) -> Any:
    """A header of ``http`` with all but its secrets, which the tool fills in.

    Raises ``ValueError`` where what is filled in names a secret: only who wrote the playbook may do that.
    """
    if not isinstance(value, str):
        return value
    filled = _TEMPLATE.sub(lambda match: match[0] if REFERENCE.match(match[0]) else value_of(match), value)
    if REFERENCE.findall(filled) != REFERENCE.findall(value):
        raise ValueError("what is filled in in a header of http names a secret; only the steps themselves may do that")
    return filled


def _filled_command_line(args: dict[str, Any], value_of: Callable[[re.Match[str]], str]) -> dict[str, Any]:
    """Take a command line with templates out of ``args`` and give its words; empty where there is nothing to fill.

    Raises ``ValueError`` where what is filled in would be run: in a shell's line, or as the program of a ``-c``.
    """
    key = "" if "" in args else "command"
    line = args.get(key)
    if isinstance(line, list):
        _guard_code([str(word) for word in line])
    if not isinstance(line, str) or not _TEMPLATE.search(line):
        return {}
    if str(args.get("shell", "false")).lower() not in ("false", "no", "off", "0", ""):
        if _holds_text(line):
            raise ValueError(_WOULD_BE_RUN)
        return {}
    if operator := operator_in(line):
        raise ValueError(f"{operator!r} means something only to a shell; add shell: true, or quote it")
    words = shlex.split(_TEMPLATE.sub(lambda match: "{{" + match[1] + "}}", line))
    _guard_code(words)
    del args[key]
    return {"command": [_TEMPLATE.sub(value_of, word) for word in words]}


def _guard_code(words: Sequence[str]) -> None:
    if any(_CODE_OPTION.fullmatch(before) and _holds_text(word) for before, word in pairwise(words)):
        raise ValueError(_WOULD_BE_RUN)


def _holds_text(line: str) -> bool:
    """True if a template other than the time stands in ``line``."""
    return any(match[1] not in ("now", "date", "time") for match in _TEMPLATE.finditer(line))


def _value(name: str, request: Request, turns: Sequence[Turn]) -> str:
    """The text for one ``{{ name }}``. Raises ``ValueError`` for a name that stands for nothing."""
    command = request.command
    if name == "now":
        return request.now.strftime(request.time_format)
    if name == "date":
        return request.now.strftime("%Y-%m-%d")
    if name == "time":
        return request.now.strftime("%H:%M:%S")
    if name == "body":
        return command.body
    if name == "given":
        return command.given
    kind, _, rest = name.partition(".")
    if kind == "steps" and rest.isdecimal() and 1 <= int(rest) <= len(turns):
        return turns[int(rest) - 1].results[0].text
    if kind == "command":
        attachments = {
            f"attachments.{number}": f".fsagent/runs/{request.run}/attachments/{path}"
            for number, path in enumerate(command.attachments, 1)
        }
        slot = command.slot.astimezone(request.now.tzinfo).strftime(request.time_format) if command.slot else ""
        values = {
            "name": command.name, "thread": command.thread, "trigger": command.trigger, "id": command.id,
            "task": command.task, "slot": slot, "run": request.run, "body": command.body, **attachments,
        }  # fmt: skip
        if rest in values:
            return values[rest]
    if kind == "secrets":
        raise ValueError(f"{{{{ {name} }}}} stands for nothing here; a secret can stand in a header of http only")
    raise ValueError(
        f"{{{{ {name} }}}} stands for nothing; known are now, date, time, body, given, steps.N (a step before this "
        "one), command.name, .thread, .trigger, .id, .task, .slot, .run and .attachments.N"
    )
