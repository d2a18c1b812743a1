"""What the tools return: fields for programs, and in ``str`` the same for a model to read."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from fsagent.faces.approvals import ApprovalView, Decided, approvals_text
from fsagent.faces.tasks import TaskLine
from fsagent.faces.text import task_text, tasks_text
from fsagent.faces.views import Hit
from fsagent.model import Run
from fsagent.workspace.status import Line

Next = Annotated[str, Meta(description="There is more: call again with this as 'before'. Empty: that was all.")]
ANSWER = 300


class Runs(Struct, frozen=True):
    """Runs, newest first; answers and errors are shortened."""

    runs: list[Run]
    next: Next = ""

    def __str__(self) -> str:
        lines = [_line(run, run.error or run.answer) for run in self.runs]
        return "\n".join(lines + _more(self.next)) or "There are no such runs."


class Hits(Struct, frozen=True):
    """Runs in which the words occur, newest first, each with the line that shows it."""

    hits: list[Hit]
    next: Next = ""

    def __str__(self) -> str:
        lines = [_line(hit.run, hit.snippet) for hit in self.hits]
        return "\n".join(lines + _more(self.next)) or "Nothing was found."


class TaskList(Struct, frozen=True):
    """Recurring tasks by name; where there is only one, ``str`` shows it whole."""

    tasks: list[TaskLine]
    next: Annotated[str, Meta(description="There is more: call again with this as 'after'. Empty: that was all.")] = ""

    def __str__(self) -> str:
        if len(self.tasks) == 1:
            return task_text(self.tasks[0])
        return "\n".join([tasks_text(self.tasks), *_more(self.next, "after")])


class ApprovalList(Struct, frozen=True):
    """What waits for a person's answer, oldest first."""

    approvals: list[ApprovalView]

    def __str__(self) -> str:
        return approvals_text(self.approvals)


class Decision(Decided, frozen=True, kw_only=True):
    """An answer as it stands in the file now; the daemon takes it up from there."""

    def __str__(self) -> str:
        left = f" Still open in {self.file}: question {', '.join(map(str, self.open))}." if self.open else ""
        return f"{self.decision}: {self.what} (run {self.run}).{left}"


class SoulText(Struct, frozen=True):
    """The memory as it stands."""

    text: Annotated[str, Meta(description="The whole file, markdown.")]
    tag: Annotated[str, Meta(description="A short name for exactly this text; it changes whenever the text does.")]

    def __str__(self) -> str:
        return self.text or "The memory is empty."


class AgentStatus(Struct, frozen=True, kw_only=True):
    """How the agent is."""

    agent: Annotated[str, Meta(description="Its name: that of its folder.")]
    alive: Annotated[bool, Meta(description="False: no daemon runs; commands wait until one is started.")]
    paused: Annotated[bool, Meta(description="True: a person paused it; nothing new starts.")]
    waiting: Annotated[int, Meta(description="How many commands wait for their turn.")] = 0
    running: Annotated[tuple[Line, ...], Meta(description="What runs now.")] = ()
    upcoming: Annotated[tuple[Line, ...], Meta(description="Tasks that come next.")] = ()
    paused_tasks: Annotated[
        tuple[Line, ...], Meta(description="Tasks that are paused, or that bring no run though they are on; and why.")
    ] = ()
    last: Annotated[tuple[Line, ...], Meta(description="What ran last.")] = ()
    trouble: Annotated[tuple[str, ...], Meta(description="What a person should look at.")] = ()

    def __str__(self) -> str:
        how = "paused by a person" if self.paused else "alive"
        head = f"{self.agent}: {how if self.alive else 'no daemon runs; commands wait until one is started'}"
        parts = [f"{head}. {self.waiting} waiting, {len(self.running)} running."]
        for title, lines in (
            ("Running", self.running), ("Next", self.upcoming), ("Paused", self.paused_tasks), ("Last", self.last),
        ):  # fmt: skip
            parts += [f"{title}: {line.name} {line.words}" for line in lines]
        return "\n".join([*parts, *(f"Needs a person: {each}" for each in self.trouble)])


def shortened(text: str) -> str:
    """A text of at most ``ANSWER`` characters."""
    return text if len(text) <= ANSWER else text[: ANSWER - 1] + "…"


def _line(run: Run, words: str) -> str:
    moment = f"{run.started:%Y-%m-%d %H:%M} " if run.started else ""
    words = " ".join(words.split())
    return f"- {run.run}: {moment}{run.status}, {run.task or run.command}" + (f": {words}" if words else "")


def _more(next_: str, argument: str = "before") -> list[str]:
    return [f"(There is more: call again with {argument}={next_!r}.)"] if next_ else []
