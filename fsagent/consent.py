"""What a person says to a tool call: questions where the policy says ``ask``, and answers to exactly one action each.

An action is a tool, its prepared arguments and its subject, at one place of one run. An answer counts for the action
whose print it carries and for no other: not for the same call in another run, nor for the same call made once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.config import Rules
from fsagent.errors import ToolError, UnsafePathError
from fsagent.model import Answer, Question, ToolResult
from fsagent.policy import Verdict, decide
from fsagent.tools.base import Context, Reach, Tool
from fsagent.tools.place import FileTool

ALWAYS = "always"
_READERS = ("read", "list", "search_files")


class ApprovalNeeded(Exception):  # noqa: N818  # a pause, no error
    """The run goes on when a person has answered all of these questions; they are recorded."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = tuple(questions)
        super().__init__(f"{len(self.questions)} questions")


class Place(Struct, frozen=True):
    """Which call of a run: the number of its step, and its own number in the step."""

    step: int
    call: int


class Consent:
    """What one run may do: by the policy, by what a person allowed for good, by answers that were not used yet.

    ``standing(tool, subject)`` says of a call under ``ask`` whether a person allowed it for good. ``used`` are prints
    of actions that were approved once and begun. ``for_good`` is asked only after ``ask``, never after ``deny``.
    ``trusts(tool, subject)`` says of what a call brings that it counts as the owner's own text.
    """

    def __init__(
        self,
        run: str,
        rules_of: Callable[[str], Rules],
        answers: Mapping[str, Answer],
        used: frozenset[str],
        standing: Callable[[str, str], bool] = lambda tool, subject: False,
        trusts: Callable[[str, str], bool] = lambda tool, subject: False,
    ) -> None:
        self._run, self._rules_of, self._standing, self._trusts = run, rules_of, standing, trusts
        self._answers, self._used = dict(answers), used
        self._foreign = self._words = ""

    def heed(self, words: str) -> None:
        """The owner's own request: what it names word for word is not asked again."""
        self._words = words

    def take_in(self, foreign: bool, source: str) -> None:
        """Note that the engine has read foreign text (from ``source``): the first source stands in the questions."""
        if foreign and not self._foreign:
            self._foreign = source

    def verdict(self, tool: Tool[Any], args: Any, context: Context) -> Verdict:
        """What the settings say; and of what they allow, what must be asked all the same.

        The Rule of Two: who has read foreign text, and sees the owner's own (the soul is in every request), does not
        change anything outside, nor what later runs obey, unless a person says so. So it can be led to ask, no further.
        Source: shared/facts/memory-security-time.md §2.
        """
        verdict = decide(tool.name, tool.subject(args), self._rules_of(tool.rule))
        if not verdict.allowed:
            return verdict
        doubt = tool.doubt(args, context)
        if doubt:
            return Verdict("ask", doubt, firm=True)
        if self._foreign and (reach := self._reach(tool, args, context)) != "inside":
            goes = "into what later runs obey" if reach == "memory" else "out of the workspace"
            return Verdict("ask", f"{tool.name} reaches {goes}, and the run has read text that is not yours "
                                  f"(from {self._foreign})")  # fmt: skip
        return verdict

    def _reach(self, tool: Tool[Any], args: Any, context: Context) -> Reach:
        """How far a call reaches. A file whose text counts as the owner's own is a memory: what is written there is
        obeyed later. Hidden files are obeyed by other programs (``.git/hooks``, ``.envrc``), outside of any sandbox.
        Limit: a program that is locked in can write either, and is not asked for."""
        reach: Reach = "inside" if tool.named_in(args, self._words) else tool.reach(args, context)
        if reach == "inside" and isinstance(tool, FileTool) and tool.effect != "read":
            path = PurePosixPath(tool.subject(args))
            if any(part.startswith(".") for part in path.parts):
                return "outside"
            if any(self._trusts(reader, str(place)) for reader in _READERS for place in (path, *path.parents)):
                return "memory"
        return reach

    def for_good(self, tool: str, subject: str) -> bool:
        """True if a person allowed this for good."""
        return self._standing(tool, subject)

    def answer(self, action: str) -> Answer | None:
        """The answer to this action, if it was not used yet."""
        return self._answers.get(action)

    def use(self, action: str) -> None:
        """Use an answer up: it counts for nothing any more."""
        self._answers.pop(action, None)

    def print(self, place: Place, tool: Tool[Any], args: Any) -> str:
        """What names this action, and no other in any run."""
        return action_print(self._run, place, tool.name, msgspec.to_builtins(args), tool.subject(args))

    def question(self, place: Place, tool: Tool[Any], args: Any, why: str, context: Context) -> Question:
        """Ask a person for this action."""
        action = self.print(place, tool, args)
        if tool.asks:
            why = f"the agent has read text that is not yours (from {self._foreign})" if self._foreign else ""
        if action in self._used:
            why += "; it was approved before, and the daemon was ended while it was under way: it may have happened"
        return Question(
            hash=action, call=place.call, tool=tool.name, args=tool.written(args), subject=tool.subject(args),
            why=why, effect=tool.effect, preview="" if tool.asks else _preview(tool, args, context),
            kind="answer" if tool.asks else "approval", choices=tool.choices(args) if tool.asks else (),
        )  # fmt: skip


def action_print(run: str, place: Place, tool: str, args: Mapping[str, Any], subject: str) -> str:
    """The SHA-256 of an action, in hexadecimal."""
    action = {"run": run, "step": place.step, "call": place.call, "tool": tool, "args": args, "subject": subject}
    return hashlib.sha256(msgspec.json.encode(action, order="deterministic")).hexdigest()


def refusal(tool: Tool[Any], answer: Answer) -> str:
    """What an engine is told of a call that was not approved, or of a question that was not answered."""
    if answer.decision == "expired":
        why = "nobody answered" if tool.asks else f"nobody approved {tool.name}"
        return f"{why} in time, so it counts as refused"
    what = "to answer" if tool.asks else tool.name
    return f"a person refused {what}" + (f": {answer.comment}" if answer.comment else "")


def spoken(answer: Answer | None) -> ToolResult | None:
    """The result of a call that asked a person, once they have answered it."""
    return ToolResult(answer.text) if answer and answer.decision == "answer" else None


def _preview(tool: Tool[Any], args: Any, context: Context) -> str:
    try:
        return tool.preview(args, context)
    except (ToolError, UnsafePathError) as error:
        return f"(as things are now, this would fail: {error})"
