"""The loop: engine → policy → tools, step by step, each recorded before and after.

The runner knows nothing of inboxes, results or journals; it is given a ``record`` callable and gives back how the run
ended. After a crash ``replay`` turns the records into the turns that are known, and the run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from fsagent.config import Rules
from fsagent.engines.base import Engine, Request
from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.fields import nearest
from fsagent.model import Step, ToolCall, ToolResult, Turn, Usage
from fsagent.policy import decide
from fsagent.tools.base import Context, Tool

MAX_TURNS = 2_000


class Record(Protocol):
    """Writes one record of a run; ``durable`` before anything that cannot be taken back."""

    def __call__(self, event: str, *, durable: bool = False, **fields: Any) -> None: ...


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
    def usage(self) -> Usage:
        """What the engine used in all."""
        return sum((turn.step.usage for turn in self.turns), self.step.usage)

    def _results(self) -> Iterable[ToolResult]:
        return (result for turn in self.turns for result in turn.results)


class Stopped(Exception):  # noqa: N818  # a pause, no error
    """The daemon wants to end: the run goes on from its last record when it starts again."""


class Progress(Struct, frozen=True):
    """What the records of a run tell: whole turns, and perhaps one that was cut off.

    ``pending`` is the step that was under way, ``results`` what its first calls brought, ``unknown`` the intent of a
    call that may or may not have happened.
    """

    turns: tuple[Turn, ...] = ()
    pending: Step | None = None
    results: tuple[ToolResult, ...] = ()
    unknown: dict[str, Any] | None = None


def replay(events: Iterable[Mapping[str, Any]]) -> Progress:
    """Read the records of a run. A turn that failed before a retry is taken out, so the retry begins with it."""
    turns: list[Turn] = []
    step: Step | None = None
    results: list[ToolResult] = []
    unknown: dict[str, Any] | None = None
    for event in events:
        kind = event.get("event")
        if kind == "step":
            step = msgspec.convert(event["step"], Step)
            results, unknown = [], None
        elif kind == "call":
            unknown = dict(event)
        elif kind == "result":
            results.append(msgspec.convert(event["result"], ToolResult))
            unknown = None
        elif kind == "turn" and step is not None:
            turns.append(Turn(step, tuple(results)))
            step, results = None, []
        elif kind == "retry":
            if step is None and turns and not turns[-1].results[-1].ok:
                turns.pop()
            step, results, unknown = None, [], None
    return Progress(tuple(turns), step if step and step.calls else None, tuple(results), unknown)


class Runner:
    """Runs commands with a set of tools under a policy. Safe to share between threads."""

    def __init__(self, tools: Mapping[str, Tool[Any]]) -> None:
        self._tools = tools

    def faults(self, calls: Sequence[ToolCall]) -> list[tuple[int, str]]:
        """What is wrong with the calls of a playbook, before any of it runs: unknown tools and arguments, by line."""
        found = []
        for call in calls:
            try:
                self._args(call)
            except ToolError as error:
                found.append((call.line, str(error)))
        return found

    def is_slow(self, calls: Sequence[ToolCall]) -> bool:
        """True if a playbook may take long: it runs programs or talks to the network."""
        return any(call.tool in self._tools and self._tools[call.tool].slow for call in calls)

    def run(
        self,
        engine: Engine,
        ask: Callable[[], Request],
        context: Context,
        rules_of: Callable[[str], Rules],
        record: Record,
        progress: Progress,
        repeat_unknown: bool,
    ) -> Ending:
        """Go on from ``progress`` to the end of the run. ``ask`` gives the request afresh for every step.

        ``repeat_unknown`` says whether a call whose outcome a crash left unknown may be made again. Raises ``Stopped``
        when the daemon wants to end, and whatever an engine or tool raises beyond its contract.
        """
        turns = list(progress.turns)
        if progress.pending is not None:
            lost = self._settle_unknown(progress, context, repeat_unknown)
            if isinstance(lost, Step):
                return Ending(lost, (*turns, Turn(progress.pending, progress.results)))
            turns.append(self._carry_out(progress.pending, [*progress.results, *lost], context, rules_of, record))
        while True:
            if context.stopping():
                raise Stopped
            if context.seconds_left() <= 0:
                return Ending(Step(status="failed", error="took longer than its timeout and was ended"), tuple(turns))
            if len(turns) >= MAX_TURNS:
                return Ending(Step(status="failed", error=f"took more than {MAX_TURNS} steps"), tuple(turns))
            try:
                step = engine.decide(ask(), turns)
            except ValueError as error:
                return Ending(Step(status="failed", error=f"step {len(turns) + 1}: {error}"), tuple(turns))
            if not step.calls:
                return Ending(step, tuple(turns))
            record("step", step=step)
            turns.append(self._carry_out(step, [], context, rules_of, record))

    def _carry_out(
        self, step: Step, results: list[ToolResult], context: Context, rules_of: Callable[[str], Rules], record: Record
    ) -> Turn:
        """Make the calls of a step that have no result yet."""
        for number in range(len(results), len(step.calls)):
            if context.stopping():
                raise Stopped
            result = self._call(number, step.calls[number], context, rules_of, record)
            if not result.ok and context.stopping():
                raise Stopped  # the call was cut short; what came of it is found out at the next start
            record("result", call=number, result=result)
            results.append(result)
        record("turn")
        return Turn(step, tuple(results))

    def _call(
        self, number: int, call: ToolCall, context: Context, rules_of: Callable[[str], Rules], record: Record
    ) -> ToolResult:
        try:
            tool, args = self._args(call)
            args = tool.prepare(args, context)
            verdict = decide(call.tool, tool.subject(args), rules_of(call.tool))
            if not verdict.allowed:
                return ToolResult(error=verdict.why, denied=True)
            before = tool.before(args, context) if tool.effect == "once" else None
            record("call", durable=tool.effect != "read", call=number, tool=call.tool, before=before)
            return tool.run(args, context)
        except ToolError as error:
            return ToolResult(error=str(error), retryable=error.retryable)
        except UnsafePathError as error:
            return ToolResult(error=str(error), denied=True)

    def _settle_unknown(self, progress: Progress, context: Context, repeat: bool) -> list[ToolResult] | Step:
        """After a crash: the result of the call that was under way, nothing if it is to be made (again), or the end."""
        if progress.unknown is None or progress.pending is None:
            return []
        call = progress.pending.calls[len(progress.results)]
        tool, args = self._args(call)
        if tool.effect != "once":
            return []
        args = tool.prepare(args, context)
        happened = tool.happened(args, context, progress.unknown.get("before") or {})
        if happened:
            return [happened]
        if happened is False or repeat:
            return []
        return Step(
            status="interrupted",
            error=f"the daemon was ended while {call.tool} was under way ({tool.subject(args)}); it may have happened "
            "or not, so it was not repeated. To run the command again, move it back to inbox/",
        )

    def _args(self, call: ToolCall) -> tuple[Tool[Any], Any]:
        tool = self._tools.get(call.tool)
        if tool is None:
            known = ", ".join(sorted(self._tools))
            raise ToolError(f"there is no tool {call.tool!r}{nearest(call.tool, self._tools)}; there are: {known}")
        names = tool.args.__struct_fields__
        args = {tool.main if name == "" else name: value for name, value in call.args.items()}
        for name in args:
            if name not in names:
                raise ToolError(
                    f"{call.tool} has no argument {name!r}{nearest(name, names)}; it takes {', '.join(names)}"
                )
        try:
            return tool, msgspec.convert(args, tool.args, strict=False)
        except msgspec.ValidationError as error:
            raise ToolError(f"{call.tool}: {_in_words(str(error))}") from None


def _in_words(message: str) -> str:
    text, _, path = message.partition(" - at `$")
    where = path.strip("`.")
    text = text.replace("`", "'").replace("Object missing required field", "misses the argument")
    return f"{where}: {text}" if where else text
