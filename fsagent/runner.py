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
from fsagent.consent import ALWAYS, ApprovalNeeded, Consent, Place, refusal
from fsagent.engines.base import Engine, Request
from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.fields import nearest
from fsagent.model import Answer, Question, Step, ToolCall, ToolResult, Turn, Usage
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
    call that may or may not have happened. ``answers`` are a person's answers that no call has used up yet, by the
    print of the action, ``used`` the prints of those that were.
    """

    turns: tuple[Turn, ...] = ()
    pending: Step | None = None
    results: tuple[ToolResult, ...] = ()
    unknown: dict[str, Any] | None = None
    answers: dict[str, Answer] = {}
    used: frozenset[str] = frozenset()


class _Ready(Struct, frozen=True):
    """A call that may be made. ``approval`` is the action whose approval it uses up, or ``ALWAYS``, or "".

    ``changed`` is the call as a person changed it.
    """

    tool: Tool[Any]
    args: Any
    approval: str = ""
    changed: ToolCall | None = None


def replay(events: Iterable[Mapping[str, Any]]) -> Progress:
    """Read the records of a run. A turn that failed before a retry is taken out, so the retry begins with it."""
    turns: list[Turn] = []
    step: Step | None = None
    results: list[ToolResult] = []
    unknown: dict[str, Any] | None = None
    answers: dict[str, Answer] = {}
    used: set[str] = set()
    for event in events:
        kind = event.get("event")
        if kind == "step":
            step = msgspec.convert(event["step"], Step)
            results, unknown = [], None
        elif kind == "asked":
            unknown = None  # what was in doubt before it is told in the question
        elif kind == "answered":
            answers |= {answer.hash: answer for answer in msgspec.convert(event["answers"], list[Answer])}
        elif kind == "call":
            unknown = dict(event)
            if answers.pop(event.get("approval", ""), None):
                used.add(event["approval"])
            if step is not None and event.get("changed"):
                step = _with(step, event["call"], msgspec.convert(event["changed"], ToolCall))
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
    pending = step if step and step.calls else None
    return Progress(tuple(turns), pending, tuple(results), unknown, answers, frozenset(used))


def _with(step: Step, number: int, call: ToolCall) -> Step:
    """The step with one of its calls as a person changed it."""
    return msgspec.structs.replace(step, calls=(*step.calls[:number], call, *step.calls[number + 1 :]))


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
        standing: Callable[[str, str], bool] = lambda tool, subject: False,
    ) -> Ending:
        """Go on from ``progress`` to the end of the run. ``ask`` gives the request afresh for every step.

        ``repeat_unknown`` says whether a call whose outcome a crash left unknown may be made again, ``standing`` what a
        person allowed for good. Raises ``Stopped`` when the daemon wants to end, ``ApprovalNeeded`` where a person is
        to be asked first, and whatever an engine or tool raises beyond its contract.
        """
        turns = list(progress.turns)
        consent = Consent(context.run, rules_of, progress.answers, progress.used, standing)
        if progress.pending is not None:
            lost = self._settle_unknown(progress, context, repeat_unknown)
            if isinstance(lost, Step):
                return Ending(lost, (*turns, Turn(progress.pending, progress.results)))
            results = [*progress.results, *lost]
            turns.append(self._carry_out(progress.pending, len(turns), results, context, consent, record))
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
            turns.append(self._carry_out(step, len(turns), [], context, consent, record))

    def revise(self, place: Place, tool: str, args: Mapping[str, Any], context: Context, consent: Consent) -> Question:
        """The question for a call as a person changed it. Raises ``ToolError`` where it is none, or is denied."""
        judged = self._judge(place, ToolCall(tool, dict(args)), context, consent)
        if isinstance(judged, ToolResult):
            raise ToolError(judged.error)
        if isinstance(judged, Question):
            return judged
        return consent.question(place, judged.tool, judged.args, "", context)

    def _carry_out(
        self, step: Step, index: int, results: list[ToolResult], context: Context, consent: Consent, record: Record
    ) -> Turn:
        """Make the calls of a step that have no result yet."""
        for number in range(len(results), len(step.calls)):
            if context.stopping():
                raise Stopped
            judged = self._judge(Place(index, number), step.calls[number], context, consent)
            if isinstance(judged, Question):
                rest = [self._judge(Place(index, later), step.calls[later], context, consent)
                        for later in range(number + 1, len(step.calls))]  # fmt: skip
                questions = [judged, *(each for each in rest if isinstance(each, Question))]
                record("asked", durable=True, step=index, questions=questions)
                raise ApprovalNeeded(questions)
            if isinstance(judged, _Ready):
                step = _with(step, number, judged.changed) if judged.changed else step
                result = self._call(number, judged, context, consent, record)
            else:
                result = judged
            if not result.ok and context.stopping():
                raise Stopped  # the call was cut short; what came of it is found out at the next start
            record("result", call=number, result=result)
            results.append(result)
        record("turn")
        return Turn(step, tuple(results))

    def _judge(
        self, place: Place, call: ToolCall, context: Context, consent: Consent
    ) -> _Ready | Question | ToolResult:
        """What is to become of a call: it may be made, or a person is asked first, or this is what comes of it."""
        try:
            tool, args = self._prepared(call, context)
            action, changed = consent.print(place, tool, args), None
            answer = consent.answer(action)
            if answer and answer.decision in ("refuse", "expired"):
                return ToolResult(error=refusal(call.tool, answer), denied=True)
            if answer and answer.args is not None:
                changed = msgspec.structs.replace(call, args=answer.args)
                other, changed_args = self._prepared(changed, context)
                if consent.print(place, other, changed_args) == answer.action:
                    tool, args = other, changed_args
                else:
                    answer = changed = None  # it leads somewhere else by now
            verdict = consent.verdict(tool.name, tool.subject(args))
            if verdict.decision == "deny":
                return ToolResult(error=verdict.why, denied=True)
            if answer:
                return _Ready(tool, args, action, changed)
            if verdict.allowed:
                return _Ready(tool, args)
            if consent.for_good(tool.name, tool.subject(args)):
                return _Ready(tool, args, ALWAYS)
            return consent.question(place, tool, args, verdict.why, context)
        except ToolError as error:
            return ToolResult(error=str(error), retryable=error.retryable)
        except UnsafePathError as error:
            return ToolResult(error=str(error), denied=True)

    def _call(self, number: int, ready: _Ready, context: Context, consent: Consent, record: Record) -> ToolResult:
        """Make a call. With the record of it, the approval that it was made under is used up."""
        tool, args, fields = ready.tool, ready.args, dict[str, Any]()
        if ready.approval:
            fields["approval"] = ready.approval
        if ready.changed:
            fields["changed"] = ready.changed
        try:
            before = tool.before(args, context) if tool.effect == "once" else None
            durable = tool.effect != "read" or bool(ready.approval)
            record("call", durable=durable, call=number, tool=tool.name, before=before, **fields)
            consent.use(ready.approval)
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
        tool, args = self._prepared(call, context)
        if tool.effect != "once":
            return []
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

    def _prepared(self, call: ToolCall, context: Context) -> tuple[Tool[Any], Any]:
        """The tool, and its arguments as policy shall judge them."""
        tool, args = self._args(call)
        return tool, tool.prepare(args, context)

    def _args(self, call: ToolCall) -> tuple[Tool[Any], Any]:
        tool = self._tools.get(call.tool)
        if tool is None:
            known = ", ".join(sorted(self._tools))
            raise ToolError(f"there is no tool {call.tool!r}{nearest(call.tool, self._tools)}; there are: {known}")
        return tool, tool.understand(call.args)
