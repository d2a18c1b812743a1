"""Approvals as every face shows and answers them. To decide is to tick the box in the file, as a person would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from fsagent.errors import ConflictError, NotFoundError
from fsagent.faces.door import Caller
from fsagent.faces.views import settings_of
from fsagent.files.atomic import read_file, write_atomic
from fsagent.files.fields import nearest
from fsagent.files.quiet import identity_of
from fsagent.model import MAX_DOCUMENT, Asking, Question, Trigger
from fsagent.printable import visible
from fsagent.workspace import approvals, ballot
from fsagent.workspace.approvals import Pending
from fsagent.workspace.form import one_line
from fsagent.workspace.hosts import owner_elsewhere
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder

Decision = Literal["once", "always", "refuse", "answer"]


class QuestionView(Struct, frozen=True, kw_only=True):
    """One thing that is asked. ``what`` says it in a few words, ``subject`` exactly; ``ticked`` is the answer in the
    file so far, or empty. Where ``kind`` is ``answer``, a person's own words are asked for, or one of ``choices``."""

    number: int
    what: str
    tool: str
    subject: str
    args: dict[str, Any]
    why: str
    effect: str
    preview: str = ""
    ticked: str = ""
    kind: Asking = "approval"
    choices: tuple[str, ...] = ()


class ApprovalView(Struct, frozen=True, kw_only=True):
    """A file in approvals/ that waits for an answer. ``words`` is the beginning of the command's text, ``fault`` says
    why an answer in the file does not count."""

    id: str
    file: str
    run: str
    command: str
    trigger: Trigger
    by: str = ""
    words: str = ""
    expires: datetime | None = None
    questions: tuple[QuestionView, ...] = ()
    fault: str = ""


class Decided(Struct, frozen=True, kw_only=True):
    """What was ticked, and for which run. ``open`` are the numbers of questions in the file that are not answered."""

    id: str
    file: str
    run: str
    decision: Decision
    what: str
    open: tuple[int, ...] = ()


def list_approvals(layout: Layout) -> list[ApprovalView]:
    """Everything that waits for an answer, oldest first. What a daemon has not filed yet is not among it."""
    return [_view(layout, open_, envelope) for open_, envelope in approvals.open_questions(layout)]


def decide(
    layout: Layout, wanted: str, decision: Decision, caller: Caller, comment: str = "", question: int = 0,
    answer: str = "",
) -> Decided:  # fmt: skip
    """Answer one question of a file, or (0) all that can be answered so. ``wanted`` is the id, the file's name, or
    ``last`` where there is but one. ``answer`` is what is said where words are asked for (decision ``answer``).

    Raises ``NotFoundError``, ``ConflictError`` where it is answered or overdue already, asks for another kind of
    answer, another host runs the agent, or the file is no form any more, ``DocumentError`` where it is no text.
    """
    open_ = _find(layout, wanted)
    owner = owner_elsewhere(layout)
    if owner:
        raise ConflictError(
            f"the agent in this folder is run by {owner.host}, and the run that asks waits until it is run here again "
            f"(fsagent run --take-over). A tick in {open_.file} itself counts then"
        )
    numbers = _meant(open_, decision, question, answer)
    if open_.expires and open_.expires <= datetime.now(UTC):
        raise ConflictError(f"{open_.file} was not answered in time; it counts as refused")
    path = layout.approvals / open_.file
    by = f"{caller.trigger} {caller.name}".strip()
    try:
        before = identity_of(os.lstat(path))
        raw = read_file(path, MAX_DOCUMENT + 1)
        new = ballot.ticked(raw, open_.questions, numbers, decision, comment, by, answer)
        if identity_of(os.lstat(path)) != before:
            raise ConflictError(f"{open_.file} is being changed by somebody else just now; look again")
        write_atomic(path, new)
    except FileNotFoundError:
        raise NotFoundError(f"{open_.file} was settled or removed just now") from None
    except ValueError as error:
        raise ConflictError(f"{open_.file}: {error}; answer in the file itself") from None
    reading = ballot.read(new, open_.id, open_.questions)
    left = tuple(number for number, mark in enumerate(reading.marks, 1) if mark is None)
    what = ballot.title(open_.questions[numbers[0] - 1]) if len(numbers) == 1 else approvals.title(open_)
    return Decided(id=open_.id, file=f"approvals/{open_.file}", run=open_.run, decision=decision, what=what, open=left)


def _meant(open_: Pending, decision: Decision, question: int, answer: str) -> list[int]:
    """The numbers of the questions that this decision is for. Raises ``NotFoundError``, ``ConflictError``."""
    every = list(range(1, len(open_.questions) + 1))
    if question and question not in every:
        raise NotFoundError(f"there is no question {question} in {open_.file}; it has {len(every)}")
    if bool(answer.strip()) != (decision == "answer"):
        raise ConflictError(
            "the decision 'answer' needs a text, and no other decision takes one; a comment may go along"
        )
    asked = [question] if question else every
    if decision == "refuse":
        return asked
    kind = "answer" if decision == "answer" else "approval"
    fit = [number for number in asked if open_.questions[number - 1].kind == kind]
    if not fit and kind == "answer":
        raise ConflictError(f"{open_.file} asks for a yes or no: approve or refuse it")
    if not fit:
        raise ConflictError(
            f"{open_.file} asks for your words, not for a yes: answer it (fsagent answer {open_.id} TEXT)"
        )
    if kind == "answer" and len(fit) > 1:
        raise ConflictError(f"{open_.file} asks for {len(fit)} answers, so say for which question: "
                            f"{', '.join(map(str, fit))}")  # fmt: skip
    return fit


def _find(layout: Layout, wanted: str) -> Pending:
    every = [open_ for open_, _ in approvals.open_questions(layout)]
    name = wanted.removeprefix("approvals/").removesuffix(".md")
    found = every if wanted == "last" else [each for each in every if name in (each.id, each.file.removesuffix(".md"))]
    if len(found) == 1:
        return found[0]
    if wanted == "last" and found:
        raise ConflictError(f"{len(found)} questions wait, so say which: {', '.join(each.id for each in found)}")
    _explain(layout, name)
    ids = [each.id for each in every]
    known = f"there are: {', '.join(ids)}" if ids else "nothing waits for an answer"
    raise NotFoundError(f"there is no open question {wanted!r}{nearest(wanted, ids)}; {known}")


def _explain(layout: Layout, name: str) -> None:
    """Raise ``NotFoundError`` with why this file in approvals/ (or the one with this id) is no open question here."""
    for file in approvals.names(layout):
        if name in (file.removesuffix(".md"), approvals.id_of(layout, file)):
            why = approvals.explain_stray(layout, file)
            if why:
                raise NotFoundError(f"approvals/{file} {why}")


def _view(layout: Layout, open_: Pending, envelope: Envelope) -> ApprovalView:
    settings = settings_of(layout)
    reading = _reading(layout, open_)
    ticked = [mark.choice if mark else "" for mark in reading.marks]
    return ApprovalView(
        id=open_.id,
        file=f"approvals/{open_.file}",
        run=open_.run,
        command=envelope.path or envelope.name,
        trigger=envelope.trigger,
        by=envelope.by,
        words=approvals.words(RunFolder(layout.runs / open_.run), 300),
        expires=settings.local(open_.expires) if open_.expires else None,
        questions=tuple(
            _question(*each) for each in zip(range(1, 1 + len(ticked)), open_.questions, ticked, strict=True)
        ),
        fault="; ".join(reading.faults),
    )


def _reading(layout: Layout, open_: Pending) -> ballot.Reading:
    try:
        raw = read_file(layout.approvals / open_.file, MAX_DOCUMENT + 1)
    except OSError:
        raw = b""
    return ballot.read(raw, open_.id, open_.questions)


def _question(number: int, question: Question, ticked: str) -> QuestionView:
    return QuestionView(
        number=number, what=ballot.title(question), tool=question.tool, subject=question.subject, args=question.args,
        why=question.why, effect=question.effect, preview=question.preview, ticked=ticked, kind=question.kind,
        choices=question.choices,
    )  # fmt: skip


def approvals_text(views: Sequence[ApprovalView]) -> str:
    """The list for a terminal, or for a model to read."""
    if not views:
        return "nothing waits for an answer"
    parts = []
    for view in views:
        until = f", until {view.expires:%Y-%m-%d %H:%M}" if view.expires else ""
        head = f"{view.id}  {view.command} (by {view.trigger}{f' {view.by}' if view.by else ''}{until})  {view.file}"
        lines = [one_line(head, 500)]
        for each in view.questions:
            number = f"{each.number}. " if len(view.questions) > 1 else ""
            lines.append(f"  {number}{each.what}" + (f"  [{each.ticked}]" if each.ticked else ""))
            shown = visible(each.preview or ("" if each.what.endswith(f"`{each.subject}`") else each.subject))
            lines += [f"      {line}" for line in shown.splitlines()]
            lines += [f"      - {one_line(choice, 200)}" for choice in each.choices]
            if each.kind == "answer":
                part = f" --question {each.number}" if len(view.questions) > 1 else ""
                lines.append(f"      (answer it: fsagent answer {view.id} TEXT{part})")
        parts.append("\n".join([*lines, *([f"  {view.fault}"] if view.fault else [])]))
    return "\n".join(parts)
