"""Plain English for a stated set of intents, with no model: a pure function of the text.

``understand`` says what a text asks for, or None. It never guesses: where a text holds more than what is understood (a
second clause, a negation, a question in the place of a statement), nothing of it is done. Several sentences are
understood together if each one is.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fsagent.engines.base import Request
from fsagent.engines.grammar import Sentence, sentences, split_every
from fsagent.engines.memory_rules import FORGET, REMEMBER
from fsagent.engines.moments import split_moment
from fsagent.engines.order_rules import READ, TASKS, WRITE, scheduled
from fsagent.engines.phrases import answer_part
from fsagent.engines.question_rules import ABOUT, ASK
from fsagent.engines.rules import Part, first_match
from fsagent.model import ToolCall, ToolResult

_RULES = (*WRITE, *TASKS, *ABOUT, *READ, *FORGET, *ASK, *REMEMBER)


class Intent(Struct, frozen=True):
    """One documented intent: its name, what it does, and sentences that mean it."""

    name: str
    does: str
    examples: tuple[str, ...]


INTENTS: tuple[Intent, ...] = (
    Intent(
        "remember",
        "keep a fact in soul.md",
        ("My name is Alice.", "I live in Lisbon.", "Call me Al", "Remember that the router is a Fritzbox"),
    ),
    Intent("change", "put a new fact in the place of an old one", ("My name is now Bob", "I moved to Porto")),
    Intent(
        "ask",
        "tell what soul.md says",
        ("What is my name?", "Where do I live?", "What do you know about the router?", "What do you remember?"),
    ),
    Intent("forget", "take a fact out of soul.md", ("Forget my name", "Forget that the router is a Fritzbox")),
    Intent(
        "append",
        "add a line, or the time, to the end of a file",
        ("Log the timestamp to log.txt", 'Write "milk" to shopping.md', "Add eggs to shopping.md"),
    ),
    Intent(
        "write", "make a file, or replace all of it", ('Create notes.md with "Hello"', 'Overwrite notes.md with "Bye"')
    ),
    Intent(
        "schedule",
        "make a task that does this again and again, or once later",
        (
            "Every 10 minutes, log the timestamp to log.txt",
            'Add "tick" to log.txt every heartbeat',
            "Every weekday at 18:30, log the time to hours.txt",
            'On 2027-01-05 at 14:00, add "call Bob" to todo.md',
        ),
    ),
    Intent("tasks", "list the tasks, or show one", ("List my tasks", "Show task backup")),
    Intent("pause", "stop a task from falling due", ("Pause the backup task",)),
    Intent("resume", "let a paused task fall due again", ("Resume backup",)),
    Intent("run", "do a task now", ("Run the backup task now",)),
    Intent("read", "show a file", ("Show shopping.md", "What is in shopping.md?")),
    Intent("list", "show what lies in a folder", ("List files", "What files are in notes/?")),
    Intent("history", "tell what ran", ("What did you do today?", "What did you do yesterday?")),
    Intent("status", "tell how things stand", ("Status", "How are you?", "What is waiting?")),
    Intent("help", "show this list", ("Help", "What can you do?")),
    Intent("greeting", "answer in kind", ("Hello", "Thanks")),
)


class Understood(Struct, frozen=True):
    """What a text asks for. ``calls`` are to be made in their order, each one after the one before has worked.

    ``templated`` are the indexes of the calls whose ``{{ now }}`` or ``{{ date }}`` is to be filled in. In every other
    call braces are a person's own text and stay as they are.
    """

    parts: tuple[Part, ...]

    @property
    def intent(self) -> str:
        """The name of the first intent."""
        return self.parts[0].intent

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of all sentences."""
        return tuple(call for part in self.parts for call in part.calls)

    @property
    def templated(self) -> frozenset[int]:
        """See the class."""
        found: set[int] = set()
        number = 0
        for part in self.parts:
            found.update(number + index for index in part.templated)
            number += len(part.calls)
        return frozenset(found)

    def answer(self, results: Sequence[ToolResult], request: Request) -> str:
        """The answer for people, from one result per call in the order of ``calls``; fewer mean that it broke off."""
        said: list[str] = []
        number = 0
        for part in self.parts:
            own = results[number : number + len(part.calls)]
            number += len(part.calls)
            if len(own) < len(part.calls):
                break
            said.append(help_text() if part.intent == "help" else answer_part(part, own))
        return "\n\n".join(said)


def understand(text: str, recurring: bool = False) -> Understood | None:
    """What ``text`` asks for; None where any of it is not understood.

    ``recurring`` is for the body of a task: there "every …" is what the task's file is for, and is passed over.
    """
    parts: list[Part] = []
    for sentence in sentences(text):
        part = _part(sentence, recurring)
        if part is None:
            return None
        parts.append(part)
    if any(part.intent != "greeting" for part in parts):
        parts = [part for part in parts if part.intent != "greeting"]
    return Understood(tuple(parts)) if parts else None


def _part(sentence: Sentence, recurring: bool) -> Part | None:
    rest, moment, again = split_moment(sentence)
    if moment and (again or not recurring):
        part = first_match(_RULES, rest) if recurring else scheduled(rest, moment)
        if part:
            return part
    rest, every = split_every(sentence)
    if every and recurring:
        return first_match(_RULES, rest)
    if every:
        # "What do you do on every heartbeat?" asks; in "Remember that … every week" the words belong to the fact.
        whole = (*TASKS, *REMEMBER) if " that " in sentence.folded else TASKS
        return scheduled(rest, every) or first_match(whole, sentence)
    return first_match(_RULES, sentence)


def help_text() -> str:
    """What is understood without a model, for people."""
    return "\n".join(["This is what I understand without a model:", "", *_catalogue()])


def refusal(text: str) -> str:
    """The honest answer to a text that was not understood."""
    asked = " ".join(text.split())
    asked = f'"{asked[:80]}…"' if len(asked) > 80 else f'"{asked}"'
    lines = [
        f"I did not understand {asked}, and did nothing." if asked != '""' else "There was no text, so I did nothing.",
        "",
        "This needs a model, and none answers here.",
        "To connect one, install an engine for it and name it with `engine:` (see README, 'Engines').",
        "An engine that is built in comes with a later version.",
        "",
        "Without a model I understand whole sentences like these:",
        "",
    ]
    return "\n".join([*lines, *_catalogue()])


def _catalogue() -> list[str]:
    return [
        f"- {intent.name}: {intent.does}. {' · '.join(f'`{text}`' for text in intent.examples)}" for intent in INTENTS
    ]
