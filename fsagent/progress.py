"""How far a run has come, read from its records; and how it ended.

After a crash ``replay`` turns the records into the turns that are known, and the run goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.model import Answer, Step, ToolCall, ToolResult, Turn, Usage

CIRCLE, LOOKED_AT = 3, 8


class Ending(Struct, frozen=True):
    """How a run ended: the last step, and all that was done on the way."""

    step: Step
    turns: tuple[Turn, ...] = ()

    @property
    def changed(self) -> tuple[str, ...]:
        """The files that were changed, each once, in order."""
        return tuple(dict.fromkeys(path for result in self._results() for path in result.changed))

    @property
    def remembered(self) -> tuple[str, ...]:
        """The facts that were added to the soul."""
        return tuple(dict.fromkeys(fact for result in self._results() for fact in result.remembered))

    @property
    def untrusted(self) -> bool:
        """True if foreign text was taken in on the way."""
        return any(result.untrusted for result in self._results())

    @property
    def usage(self) -> Usage:
        """What the engine used in all."""
        return used_by(self.turns) + self.step.usage

    @property
    def models(self) -> tuple[str, ...]:
        """The models that decided, each once, in order."""
        steps = (*(turn.step for turn in self.turns), self.step)
        return tuple(dict.fromkeys(step.model for step in steps if step.model))

    def _results(self) -> Iterable[ToolResult]:
        return (result for turn in self.turns for result in turn.results)


def used_by(turns: Iterable[Turn]) -> Usage:
    """What deciding these turns took."""
    return sum((turn.step.usage for turn in turns), Usage())


def calls_in(turns: Iterable[Turn]) -> int:
    """How many tool calls they made."""
    return sum(len(turn.results) for turn in turns)


def circle_in(turns: Sequence[Turn]) -> str:
    """The call that was made ``CIRCLE`` times lately, each time with the same result, in words; "" where none was."""
    calls = [
        (call.tool, msgspec.json.encode(call.args, order="deterministic"), result.text, result.error)
        for turn in turns[-LOOKED_AT:]
        for call, result in zip(turn.step.calls, turn.results, strict=False)
    ][-LOOKED_AT:]
    if not calls or calls.count(calls[-1]) < CIRCLE:
        return ""
    return f"{calls[-1][0]} {calls[-1][1].decode()[:200]} was asked for {CIRCLE} times with the same result"


class Progress(Struct, frozen=True):
    """What the records of a run tell: whole turns, and perhaps one that was cut off.

    ``pending`` is the step that was under way, ``results`` what its first calls brought, ``unknown`` the intent of a
    call that may or may not have happened, ``last`` a step that ends the run and was recorded so far. ``answers`` are a
    person's answers that no call has used up yet, by the print of the action, ``used`` the prints of those that were.
    ``earlier`` are the turns of tries that came to an end without what was promised: the next began from scratch.
    """

    turns: tuple[Turn, ...] = ()
    pending: Step | None = None
    results: tuple[ToolResult, ...] = ()
    unknown: dict[str, Any] | None = None
    last: Step | None = None
    answers: dict[str, Answer] = {}
    used: frozenset[str] = frozenset()
    foreign: str = ""
    earlier: tuple[Turn, ...] = ()

    def done(self) -> tuple[Turn, ...]:
        """All that is known to have been done, a cut off turn as far as it came."""
        cut_off = (Turn(self.pending, self.results),) if self.pending else ()
        return (*self.earlier, *self.turns, *cut_off)


def replay(events: Iterable[Mapping[str, Any]]) -> Progress:
    """Read the records of a run. A turn that failed before a retry is taken out, so the retry begins with it; not where
    it was the engine that failed, asked what comes next. Before a retry ``anew`` all turns are."""
    turns: list[Turn] = []
    earlier: list[Turn] = []
    step: Step | None = None
    results: list[ToolResult] = []
    unknown: dict[str, Any] | None = None
    answers: dict[str, Answer] = {}
    used: set[str] = set()
    foreign, thinking = "", False
    for event in events:
        kind = event.get("event")
        thinking = kind == "thinking" or (thinking and kind == "retry")
        if kind == "step":
            step = msgspec.convert(event["step"], Step)
            results, unknown = [], None
        elif kind == "foreign":
            foreign = event["source"]
        elif kind == "asked":
            unknown = None  # what was in doubt before it is told in the question
        elif kind == "answered":
            answers |= {answer.hash: answer for answer in msgspec.convert(event["answers"], list[Answer])}
        elif kind == "call":
            unknown = dict(event)
            if answers.pop(event.get("approval", ""), None):
                used.add(event["approval"])
            if step is not None and event.get("changed"):
                step = with_call(step, event["call"], msgspec.convert(event["changed"], ToolCall))
        elif kind == "result":
            results.append(msgspec.convert(event["result"], ToolResult))
            unknown = None
            answers.pop(event.get("approval", ""), None)  # a person's words, which came with no call
        elif kind == "turn" and step is not None:
            turns.append(Turn(step, tuple(results)))
            step, results = None, []
        elif kind == "retry" and event.get("anew"):
            earlier += [*turns, Turn(step, tuple(results))] if step else turns
            turns, step, results, unknown = [], None, [], None
        elif kind == "retry":
            if step is None and turns and not turns[-1].results[-1].ok and not thinking:
                turns.pop()
            step, results, unknown = None, [], None
    last = step if step and not step.calls else None
    pending = step if step and step.calls else None
    return Progress(
        tuple(turns), pending, tuple(results), unknown, last, answers, frozenset(used), foreign, tuple(earlier)
    )


def with_call(step: Step, number: int, call: ToolCall) -> Step:
    """The step with one of its calls as a person changed it."""
    return msgspec.structs.replace(step, calls=(*step.calls[:number], call, *step.calls[number + 1 :]))
