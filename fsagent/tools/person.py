"""The tools that turn to a person: ``ask_person`` waits for their words, ``notify`` only tells them something."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from fsagent.errors import ToolError
from fsagent.model import ToolResult
from fsagent.tools.base import Context, Reach, Tool

MAX_QUESTION, MAX_CHOICES, MAX_CHOICE = 4_000, 20, 100
MAX_TEXT, MAX_TITLE = 10_000, 100
BOXES = ("approve once", "always allow this", "answered", "refuse")
"""Labels that mean something in a file of questions, so that no choice can be called so."""


class AskArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``choices`` are short texts of one line; without them, the answer is free text."""

    question: str
    choices: tuple[str, ...] = ()


class AskPerson(Tool[AskArgs]):
    """Puts a question to a person, as a file in approvals/; the run waits, and what they write is the result.

    Limits: the call is never run. Whatever the policy says but ``deny``, the person is asked.
    """

    name = "ask_person"
    hint = (
        "Ask the owner, when only they can know or decide; it may take days. choices: short texts to choose from. "
        "Put all that they must know into the question."
    )
    args = AskArgs
    main = "question"
    effect = "read"
    slow = False
    asks = True

    def understand(self, args: dict[str, Any]) -> AskArgs:
        """See ``Tool``. Raises ``ToolError`` where nobody could answer it by ticking a box."""
        found = super().understand(args)
        if not found.question.strip():
            raise ToolError("ask_person: there is no text in this question; say what to ask")
        if len(found.question) > MAX_QUESTION:
            raise ToolError(f"ask_person: a question has at most {MAX_QUESTION:,} characters; write longer text to a "
                            "file, and name that in the question")  # fmt: skip
        if len(found.choices) > MAX_CHOICES:
            raise ToolError(f"ask_person: there are at most {MAX_CHOICES} choices")
        known = set[str]()
        for choice in found.choices:
            plain = " ".join(choice.split()).casefold()
            if not plain or len(choice) > MAX_CHOICE or not choice.isprintable() or set(choice) & set("[]<>`"):
                raise ToolError(f"ask_person: choices: {choice[:MAX_CHOICE]!r} is no choice; each is one line of at "
                                f"most {MAX_CHOICE} characters, without [ ] < > `")  # fmt: skip
            if plain in known or plain in BOXES:
                raise ToolError(f"ask_person: choices: {choice!r} is there twice, or means something else in the file")
            known.add(plain)
        return found

    def prepare(self, args: AskArgs, context: Context) -> AskArgs:
        """Without spaces around it."""
        return AskArgs(args.question.strip(), self.choices(args))

    def choices(self, args: AskArgs) -> tuple[str, ...]:
        """See ``Tool``."""
        return tuple(" ".join(choice.split()) for choice in args.choices)

    def reach(self, args: AskArgs, context: Context) -> Reach:
        """It goes to the owner only."""
        return "inside"

    def foreign(self, args: AskArgs, result: ToolResult) -> bool:
        """What comes back is the owner's own word."""
        return False

    def run(self, args: AskArgs, context: Context) -> ToolResult:
        """Never called: the runner asks."""
        raise ToolError("ask_person: nobody was asked")


class NotifyArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``title`` is a few words; without it, the beginning of the text."""

    text: str
    title: str = ""


class Notify(Tool[NotifyArgs]):
    """Tells the owner something without waiting: a file in outbox/notices/, pushed where the settings say so.

    Limit: a run has few notices (see ``Notices``); the same text twice is one.
    """

    name = "notify"
    hint = "Tell the owner something now, without waiting for an answer. Only what is worth disturbing them."
    args = NotifyArgs
    main = "text"
    slow = False

    def reach(self, args: NotifyArgs, context: Context) -> Reach:
        """It goes to the owner only."""
        return "inside"

    def foreign(self, args: NotifyArgs, result: ToolResult) -> bool:
        """It tells where the notice lies, and nothing else."""
        return False

    def happened(
        self, args: NotifyArgs, context: Context, before: dict[str, Any]
    ) -> ToolResult | Literal[False] | None:
        """To say the same again makes no second notice, so it may always be tried again."""
        return False

    def run(self, args: NotifyArgs, context: Context) -> ToolResult:
        """Tell it. ``ToolError`` where there is nothing to tell, or too much of it."""
        text, title = args.text.strip(), " ".join(args.title.split())
        if not text:
            raise ToolError("notify: there is no text in it; say what to tell")
        if len(text) > MAX_TEXT:
            raise ToolError(f"notify: a notice has at most {MAX_TEXT:,} characters; write longer text to a file, and "
                            "name that")  # fmt: skip
        title = title or " ".join(text.split("\n", 1)[0].split())
        title = title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1] + "…"
        file = context.home.notify(title, text, context.run)
        return ToolResult(f"told the owner ({file})", data={"file": file})
