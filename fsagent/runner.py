"""The loop: engine → policy → tools, step by step, each recorded before and after.

The runner knows nothing of inboxes, results or journals; it asks its ``Host``, and gives back how the run ended. After
a crash it goes on from what the records tell (``progress``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.consent import ALWAYS, ApprovalNeeded, Consent, Place, refusal, spoken
from fsagent.engines.base import Engine, GivenUp, Link, ToolSpec
from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.fields import nearest
from fsagent.hosting import Host
from fsagent.model import Question, Step, ToolCall, ToolResult, Turn
from fsagent.policy import never_allowed
from fsagent.progress import Ending, Progress, calls_in, circle_in, used_by, with_call
from fsagent.secrets import Redactor
from fsagent.tools.base import Context, Tool

MAX_TURNS = 2_000
SHOWN = 20_000
SHOWN_TO_MODELS = 8_000
NO_CALLS_LEFT = ToolResult(error="this run may make no more tool calls; say how far it came", denied=True)


class Stopped(Exception):  # noqa: N818  # a pause, no error
    """The run is to end now: it goes on from its last record when it is taken up again."""


class _Ready(Struct, frozen=True):
    """A call that may be made. ``approval`` is the action whose approval it uses up, or ``ALWAYS``, or "".

    ``changed`` is the call as a person changed it. ``spoken`` is the result where a person was asked: what they said.
    """

    tool: Tool[Any]
    args: Any
    approval: str = ""
    changed: ToolCall | None = None
    spoken: ToolResult | None = None


class Runner:
    """Runs commands with a set of tools under a policy. Safe to share between threads."""

    def __init__(self, tools: Mapping[str, Tool[Any]]) -> None:
        self._tools = tools

    def faults(self, calls: Sequence[ToolCall]) -> list[tuple[int, str]]:
        """What is wrong with the calls of a playbook, before any of it runs: unknown tools and arguments, by line."""
        found = []
        for call in calls:
            try:
                self.understand(call)
            except ToolError as error:
                found.append((call.line, str(error)))
        return found

    def is_slow(self, calls: Sequence[ToolCall]) -> bool:
        """True if a playbook may take long: it runs programs or talks to the network."""
        return any(call.tool in self._tools and self._tools[call.tool].slow for call in calls)

    def run(
        self,
        engine: Engine,
        host: Host,
        context: Context,
        progress: Progress,
        repeat_unknown: bool,
        link: Link | None = None,
    ) -> Ending:
        """Go on from ``progress`` to the end of the run.

        ``repeat_unknown`` says whether a call whose outcome a crash left unknown may be made again. Raises ``Stopped``
        when the run is to end, ``ApprovalNeeded`` where a person is to be asked first, and whatever an engine or tool
        raises beyond its contract.
        """
        return _Run(self, engine, host, context, progress, repeat_unknown, link).to_the_end()

    def revise(self, place: Place, tool: str, args: Mapping[str, Any], context: Context, consent: Consent) -> Question:
        """The question for a call as a person changed it. Raises ``ToolError`` where it is none, or is denied."""
        judged = self.judge(place, ToolCall(tool, dict(args)), context, consent)
        if isinstance(judged, ToolResult):
            raise ToolError(judged.error)
        if isinstance(judged, Question):
            return judged
        return consent.question(place, judged.tool, judged.args, "", context)

    def judge(self, place: Place, call: ToolCall, context: Context, consent: Consent) -> _Ready | Question | ToolResult:
        """What is to become of a call: it may be made, or a person is asked first, or this is what comes of it."""
        try:
            tool, args = self.prepared(call, context)
            action, changed = consent.print(place, tool, args), None
            answer = consent.answer(action)
            if answer and answer.decision in ("refuse", "expired"):
                return ToolResult(error=refusal(tool, answer), denied=True)
            if answer and answer.args is not None:
                changed = msgspec.structs.replace(call, args=answer.args)
                other, changed_args = self.prepared(changed, context)
                if consent.print(place, other, changed_args) == answer.action:
                    tool, args = other, changed_args
                else:
                    answer = changed = None  # it leads somewhere else by now
            verdict = consent.verdict(tool, args, context)
            if verdict.decision == "deny":
                return ToolResult(error=verdict.why, denied=True)
            if answer and (answer.decision == "answer") == tool.asks:
                return _Ready(tool, args, action, changed, spoken(answer))
            if tool.asks:
                return consent.question(place, tool, args, "", context)
            if verdict.allowed:
                return _Ready(tool, args)
            if not verdict.firm and consent.for_good(tool.name, tool.subject(args)):
                return _Ready(tool, args, ALWAYS)
            return consent.question(place, tool, args, verdict.why, context)
        except ToolError as error:
            return ToolResult(error=str(error), retryable=error.retryable)
        except UnsafePathError as error:
            return ToolResult(error=str(error), denied=True)

    def prepared(self, call: ToolCall, context: Context) -> tuple[Tool[Any], Any]:
        """The tool, and its arguments as policy shall judge them."""
        tool, args = self.understand(call)
        return tool, tool.prepare(args, context)

    def understand(self, call: ToolCall) -> tuple[Tool[Any], Any]:
        """The tool and its arguments. Raises ``ToolError`` for those that there are not."""
        tool = self._tools.get(call.tool)
        if tool is None:
            known = ", ".join(sorted(self._tools))
            raise ToolError(f"there is no tool {call.tool!r}{nearest(call.tool, self._tools)}; there are: {known}")
        return tool, tool.understand(call.args)

    def offered(self, rules_of: Any) -> tuple[ToolSpec, ...]:
        """The tools that the policy does not deny altogether, by name, as a model is told of them."""
        return tuple(
            ToolSpec(name, tool.hint, tool.schema())
            for name, tool in sorted(self._tools.items())
            if not never_allowed(rules_of(tool.rule))
        )


class _Run:
    """One run on its way."""

    def __init__(
        self, runner: Runner, engine: Engine, host: Host, context: Context, progress: Progress, repeat: bool,
        link: Link | None,
    ) -> None:  # fmt: skip
        self._runner, self._engine, self._host, self._context = runner, engine, host, context
        self._progress, self._repeat, self._link = progress, repeat, link
        self._suggestible = bool(getattr(engine, "suggestible", True))
        self._redactor = Redactor(host.secrets())
        self._consent = Consent(context.run, host.rules, progress.answers, progress.used, host.standing, host.trusts)
        self._turns, self._earlier = list(progress.turns), progress.earlier
        self._tools: tuple[ToolSpec, ...] = ()

    def to_the_end(self) -> Ending:
        if self._progress.last is not None:
            return Ending(self._progress.last, self._all_turns())
        if self._suggestible:
            self._tools = self._runner.offered(self._host.rules)
            self._look_around()
        self._look_back(self._turns)
        if self._progress.pending is not None:
            lost = self._settle_unknown()
            if isinstance(lost, Step):
                return Ending(lost, self._progress.done())
            for number, result in enumerate(lost, len(self._progress.results)):
                self._host.record("result", {"call": number, "result": result}, False)
            self._carry_out(self._progress.pending, [*self._progress.results, *lost])
        while True:
            if self._context.stopping():
                raise Stopped
            step = self._limit() or self._decide()
            if not step.calls:
                if step.usage or step.blocked:  # it was paid for: after a crash nobody asks again
                    self._host.record("step", {"step": step}, False)
                return Ending(step, self._all_turns())
            self._host.record("step", {"step": step}, False)
            self._carry_out(step, [])

    def _limit(self) -> Step | None:
        """The end, where the run may not go on."""
        turns = self._turns
        if self._context.seconds_left() <= 0:
            return Step(status="failed", error="took longer than its timeout and was ended")
        if len(turns) >= MAX_TURNS:
            return Step(status="failed", error=f"took more than {MAX_TURNS} steps")
        if not self._suggestible:
            return None
        circle = circle_in(turns)
        if circle:
            return Step(status="failed", error=f"went in circles and was ended: {circle}")
        made = self._all_turns()
        why = self._host.exhausted(used_by(made), len(made), calls_in(made))
        return Step(status="failed" if made else "refused", error=why, halted=True) if why else None

    def _decide(self) -> Step:
        request = self._host.request()
        if self._suggestible:
            hidden = {name: self._redactor.value(getattr(request, name)) for name in ("command", "soul", "history")}
            request = msgspec.structs.replace(request, tools=self._tools, link=self._link, **hidden)
            self._host.record("thinking", {"turn": len(self._turns) + 1}, False)
        try:
            step = self._engine.decide(request, self._turns)
        except GivenUp:
            if self._context.stopping():
                raise Stopped from None
            return Step(status="failed", error="took longer than its timeout and was ended")
        except ValueError as error:
            return Step(status="failed", error=f"step {len(self._turns) + 1}: {error}")
        if not self._redactor:
            return step
        shown = {name: self._redactor.value(getattr(step, name)) for name in ("answer", "error", "memo", "blocked")}
        return msgspec.structs.replace(step, **shown)

    def _carry_out(self, step: Step, results: list[ToolResult]) -> None:
        """Make the calls of a step that have no result yet, and take the turn in."""
        made = self._all_turns()
        index = len(made)
        left = self._host.calls_left(calls_in(made)) if self._suggestible else len(step.calls)
        for number in range(len(results), len(step.calls)):
            if self._context.stopping():
                raise Stopped
            judged = self._judge(Place(index, number), step.calls[number]) if number < left else NO_CALLS_LEFT
            if isinstance(judged, Question):
                rest = [self._judge(Place(index, later), step.calls[later])
                        for later in range(number + 1, len(step.calls))]  # fmt: skip
                questions = [judged, *(each for each in rest if isinstance(each, Question))]
                self._host.record("asked", {"step": index, "questions": questions}, True)
                raise ApprovalNeeded(questions)
            used: dict[str, Any] = {}
            if isinstance(judged, _Ready):
                if self._link:
                    subject = " ".join(judged.tool.subject(judged.args).split())[:200]
                    self._link.tell(f"→ {judged.tool.name} {subject}\n")
                step = with_call(step, number, judged.changed) if judged.changed else step
                used = {"approval": judged.approval} if judged.spoken else {}
                result = self._taken_in(number, judged, self._call(number, judged))
            else:
                result = judged
            if not result.ok and self._context.stopping():
                raise Stopped  # the call was cut short; what came of it is found out at the next start
            self._host.record("result", {"call": number, "result": result, **used}, False)
            results.append(result)
        self._host.record("turn", {}, False)
        self._turns.append(Turn(step, tuple(results)))
        self._look_back(self._turns[-1:])

    def _judge(self, place: Place, call: ToolCall) -> _Ready | Question | ToolResult:
        masked = self._redactor.mask_in(call.args) if self._redactor else ""
        if masked:
            return ToolResult(
                error=f"the text holds a mask in place of the secret {masked!r}; leave that passage alone"
            )
        return self._runner.judge(place, call, self._context, self._consent)

    def _call(self, number: int, ready: _Ready) -> ToolResult:
        """Make a call. With the record of it, the approval that it was made under is used up."""
        tool, args, fields = ready.tool, ready.args, dict[str, Any]()
        if ready.spoken:  # no call: with the record of the result the answer is used up, so that no crash can lose it
            self._consent.use(ready.approval)
            return ready.spoken
        if ready.approval:
            fields["approval"] = ready.approval
        if ready.changed:
            fields["changed"] = ready.changed
        room = self._shown if tool.pages else self._context.max_output
        context = msgspec.structs.replace(self._context, max_output=min(room, self._context.max_output))
        try:
            before = tool.before(args, context) if tool.effect == "once" else None
            durable = tool.effect != "read" or bool(ready.approval)
            self._host.record("call", {"call": number, "tool": tool.name, "before": before, **fields}, durable)
            self._consent.use(ready.approval)
            return tool.run(args, context)
        except ToolError as error:
            return ToolResult(error=str(error), retryable=error.retryable)
        except UnsafePathError as error:
            return ToolResult(error=str(error), denied=True)

    def _taken_in(self, number: int, ready: _Ready, result: ToolResult) -> ToolResult:
        """A result as the engine and the records may have it: no secrets, not too long, and known for what it is."""
        tool, args = ready.tool, ready.args
        if self._redactor:
            result = msgspec.convert(self._redactor.value(msgspec.to_builtins(result)), ToolResult)
        foreign = tool.foreign(args, result) and not self._host.trusts(tool.rule, tool.subject(args))
        text = result.text
        if len(text) > self._shown and not tool.pages:
            where = self._host.keep(f"{len(self._all_turns()) + 1}-{number + 1}.txt", text)
            shown = text[: self._shown].rstrip()
            begin = shown.count("\n") + 1
            text = f"{shown}\n… ({len(text) - len(shown):,} more characters: read {where} with start: {begin})"
        return msgspec.structs.replace(result, text=text, untrusted=foreign)

    def _all_turns(self) -> tuple[Turn, ...]:
        """Those of this try, after those of the tries before it that were begun from scratch."""
        return (*self._earlier, *self._turns)

    @property
    def _shown(self) -> int:
        return SHOWN_TO_MODELS if self._suggestible else SHOWN

    def _look_around(self) -> None:
        """Note foreign text in the request itself; recorded, for the history may be another one after a pause."""
        request, source = self._host.request(), self._progress.foreign
        if not source and request.command.given:
            source = "what the task's gate brought"
        elif not source and any(each.untrusted for each in request.history):
            source = "an earlier answer"
        elif not source and request.command.attachments:
            source = "the names of its attachments"
        if source != self._progress.foreign:
            self._host.record("foreign", {"source": source}, False)
        self._consent.heed(request.command.body)
        self._consent.take_in(bool(source), source)

    def _look_back(self, turns: Sequence[Turn]) -> None:
        """Note foreign text in these turns: an engine that text can sway is judged more strictly from now on."""
        for turn in turns if self._suggestible else ():
            for call, result in zip(turn.step.calls, turn.results, strict=False):
                self._consent.take_in(result.untrusted, call.tool)

    def _settle_unknown(self) -> list[ToolResult] | Step:
        """After a crash: the result of the call that was under way, nothing if it is to be made (again), or the end."""
        progress = self._progress
        if progress.unknown is None or progress.pending is None:
            return []
        call = progress.pending.calls[len(progress.results)]
        try:
            tool, args = self._runner.prepared(call, self._context)
        except ToolError:  # a tool that is not there any more
            why = _in_doubt(call.tool)
            return [ToolResult(error=why)] if self._suggestible else Step(status="interrupted", error=why)
        if tool.effect == "read" or (tool.effect == "repeatable" and not self._suggestible):
            return []
        happened = tool.happened(args, self._context, progress.unknown.get("before") or {})
        if happened:
            return [self._taken_in(len(progress.results), _Ready(tool, args), happened)]
        if happened is False or self._repeat:
            return []
        subject = self._redactor.text(tool.subject(args))
        if self._suggestible:
            return [ToolResult(error=_in_doubt(f"{call.tool} ({subject})"))]
        return Step(
            status="interrupted",
            error=f"the daemon was ended while {call.tool} was under way ({subject}); it may have happened "
            "or not, so it was not repeated. To run the command again, move it back to inbox/",
        )


def _in_doubt(what: str) -> str:
    """What a model is told of a call of which nobody knows."""
    return (
        f"the daemon was ended while {what} was under way: it may have happened or not. It was not repeated; look first"
    )
