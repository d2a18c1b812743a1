"""The text of a file in approvals/: how questions are put to a person, and how the answers in it are read.

Promise: no bytes make reading fail, and none approve anything unless under exactly one question's own text exactly one
box is ticked. What is quoted from an engine stands in fenced blocks, is made visible, and is never read as an answer.
Limits: the file is a form, so that what is read of it are its boxes, its comments and the blocks with arguments alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from fsagent.errors import DocumentError
from fsagent.files.documents import decode, read_document, write_document
from fsagent.files.yamltext import dump_mapping, load_mapping, plain
from fsagent.model import Choice, Question
from fsagent.workspace import asking
from fsagent.workspace.form import Line, block, one_line, outside, quoted

LABELS: dict[str, Choice] = {"approve once": "once", "always allow this": "always", "refuse": "refuse"}
MAX_SHOWN = 16 * 1024
"""The most characters that one block has; arguments that are longer are approved or refused as they are."""
MAX_ALL = 400_000
MAX_COMMENT = 2_000
_BOX = re.compile(
    r"(?P<head>\s*[-*+]\s+\[)(?P<mark>[^\]]{0,5})(?P<close>\]\s*)"
    r"(?P<label>approve once|always allow this|refuse)\b(?P<tail>.*)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"\s*#+\s*Question\s+(\d{1,4})\b.*", re.IGNORECASE)
_COMMENT = re.compile(r"\s*Comment\s*:(.*)", re.IGNORECASE)
_BY = re.compile(r"\s*\(((?:cli|http|mcp)(?: [\w.-]{1,40})?)\)\s*")
_VERBS = {
    "shell": "run", "http": "send a request to", "read": "read", "write": "write", "append": "add to", "edit": "change",
    "list": "list", "search_files": "search in", "remember": "remember", "forget": "forget", "recall": "look up",
}  # fmt: skip
_RISKS = {
    "read": "It changes nothing. What it reads is known to the agent afterwards.",
    "repeatable": "It changes what is kept in this folder. Done twice, it comes to the same.",
    "once": "It changes something, and nothing takes it back by itself.",
}
_OUTSIDE = {
    "shell": "It runs a program. The sandbox holds it in this folder, unless the settings loosen it; `fsagent status` "
    "says what is in force. What it does here cannot be taken back.",
    "http": "It leaves this folder: the request goes to another machine, with all that stands in it.",
}


class Asked(Struct, frozen=True, kw_only=True):
    """What the file tells besides the questions: who asks (``inbox/a.md``, with the beginning of its text) and until
    when an answer is waited for (local)."""

    id: str
    run: str
    who: str
    words: str
    expires: datetime


class Mark(Struct, frozen=True, kw_only=True):
    """A person's answer to one question, as the file has it. ``args`` is None where the arguments are as asked;
    ``text`` is what they said where their words were asked for."""

    choice: Choice
    comment: str = ""
    text: str = ""
    by: str = ""
    args: dict[str, Any] | None = None


class Reading(Struct, frozen=True, kw_only=True):
    """What a file says. ``marks`` has one entry per question, None where it is not answered; ``faults`` says why an
    answer that somebody seems to have given does not count."""

    marks: tuple[Mark | None, ...]
    faults: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True once every question is answered."""
        return bool(self.marks) and None not in self.marks and not self.faults


def title(question: Question) -> str:
    """What is wanted, in a few words of one line."""
    shown = one_line(question.subject, 100).replace("`", "'")
    if question.kind == "answer":
        return f"ask you `{shown}`"
    return f"{_VERBS.get(question.tool, f'use {question.tool} on')} `{shown}`" if shown else f"use {question.tool}"


def render(asked: Asked, questions: Sequence[Question]) -> bytes:
    """The file as it is put to a person."""
    head = {
        "id": asked.id, "run": asked.run, "expires": asked.expires.isoformat(timespec="seconds"),
        "hashes": [question.hash[:16] for question in questions],
    }  # fmt: skip
    many, until = len(questions) > 1, f"{asked.expires:%Y-%m-%d %H:%M}"
    words = any(question.kind == "answer" for question in questions)
    how = f"Tick {'a box under each question' if many else 'one box'} (put an x between the brackets) and save."
    if words and many:
        what = f"waits for you: it has {len(questions)} questions."
        how += " Where your words are asked for, write them below `Answer:`, and tick `answered` if no other box fits."
    elif words:
        what, how = title(questions[0]).replace("ask you", "asks you:", 1), asking.how(questions[0])
    else:
        what = f"waits for you: may the agent {f'do {len(questions)} things' if many else title(questions[0])}?"
    parts = [f"**{asked.who} {what}**", f"{how} Until then nothing happens; after {until} it counts as refused."]
    for number, question in enumerate(questions, 1):
        if many:
            parts.append(f"## Question {number}: {title(question)}")
        if question.kind == "answer":
            parts += asking.put(question, _room(len(questions)))
            continue
        parts.append("\n".join(f"- [ ] {label}" for label in LABELS))
        parts.append("Comment:")
        parts += _details(question, len(questions))
    said = f": “{asked.words}”" if asked.words else ""
    parts.append(f"{asking.WHO_ASKS}\n\nThe command {asked.who}, run {asked.run}{said}")
    return write_document(head, "\n\n".join(parts))


def _details(question: Question, count: int) -> Iterator[str]:
    yield "### What exactly\n\n" + quoted("text", question.subject, _room(count))
    if question.preview:
        yield quoted("diff", question.preview, _room(count))
    risk = _OUTSIDE.get(question.tool) or _RISKS.get(question.effect, _RISKS["once"])
    always = (
        f"every later call of {question.tool} with exactly what the first block above says, whatever else it is given, "
        "asked for in the same way (by a file, a task, HTTP …)."
    )
    why = one_line(question.why, 500)
    yield f"- Why you are asked: {why}.\n- The risk: {risk}\n- “Always” allows {always}"
    text = arguments(question, count)
    if text:
        yield "To change what is done, change this block before you tick:\n\n" + block("yaml", text)
    else:
        yield "The arguments are too long to be shown and changed here; `fsagent show` has all of them."


def arguments(question: Question, count: int) -> str:
    """The arguments as they stand in a file of so many questions, or "" where they are too long for it."""
    text = dump_mapping(question.args, blocks=True)
    return text if len(text) <= _room(count) else ""


def read(raw: bytes, id_: str, questions: Sequence[Question]) -> Reading:
    """What a person answered to these questions. Never raises."""
    nothing = (None,) * len(questions)
    try:
        document = read_document(raw, "the file")
    except DocumentError as error:
        return Reading(marks=nothing, faults=(str(error.faults[0].message),))
    if str(document.fields.get("id", "")) != id_:
        return Reading(marks=nothing, faults=(f"its 'id:' is not {id_}, so it answers nothing; put that back",))
    whole = document.body.split("\n")
    parts = _parts(whole, len(questions))
    if parts is None:
        return Reading(marks=nothing, faults=("its headings 'Question 1' and so on are not there once each",))
    marks, faults = list[Mark | None](), list[str]()
    for number, (lines, question) in enumerate(zip(parts, questions, strict=True), 1):
        where = f"question {number}: " if len(questions) > 1 else ""
        if question.kind == "answer":
            mark, fault = _spoken(whole, parts, number, question)
        else:
            mark, fault = _mark(lines, question, len(questions))
        marks.append(mark)
        if fault:
            faults.append(where + fault)
    return Reading(marks=tuple(marks), faults=tuple(faults))


def id_in(raw: bytes) -> tuple[str, str]:
    """The id and the run that a file names; empty where it names none."""
    try:
        fields = read_document(raw, "the file").fields
    except DocumentError:
        return "", ""
    return str(fields.get("id", "")), str(fields.get("run", ""))


def ticked(
    raw: bytes, questions: Sequence[Question], numbers: Sequence[int], choice: Choice, comment: str, by: str,
    text: str = "",
) -> bytes:  # fmt: skip
    """The file answered under these questions (from 1), as a person would; all else stays as it is.

    ``text`` is the answer where words are asked for. Raises ``ValueError`` in words where a box is missing or another
    one is ticked already, ``DocumentError`` for what is no text.
    """
    decoded, encoding = decode(raw, "the file")
    bom = raw[: len(raw) - len(decoded.encode(encoding))]
    eol = "\r\n" if "\r\n" in decoded else "\n"
    lines = decoded.replace("\r\n", "\n").split("\n")
    parts = _parts(lines, len(questions))
    if parts is None:
        raise ValueError("its headings 'Question 1' and so on are not there once each")
    for number in sorted(set(numbers)):
        question, part = questions[number - 1], parts[number - 1]
        if question.kind == "answer":
            words = comment if choice == "refuse" else text
            asking.fill(lines, part, _end(parts, number, lines), question, choice, words, by)
        else:
            _tick(lines, part, choice, comment, by)
    return bom + eol.join("\n".join(lines).split("\n")).encode(encoding)


def _tick(lines: list[str], part: Sequence[Line], choice: Choice, comment: str, by: str) -> None:
    """Tick the box of this name in one part, and put the comment behind the next ``Comment:``."""
    wanted = next((label for label, each in LABELS.items() if each == choice), "")
    done = noted = False
    for at, line, language in part:
        box, words = (None, None) if language else (_BOX.fullmatch(line), _COMMENT.fullmatch(line))
        if box and box["mark"].strip().lower() == "x":
            raise ValueError(f"'{box['label']}' is ticked there already")
        if box and box["label"].lower() == wanted and not done:
            done = True
            lines[at] = f"{box['head']}x{box['close']}{box['label']} ({by})"
        if words and done and not noted and comment:
            noted = True
            lines[at] = f"{line.rstrip()} {one_line(comment, MAX_COMMENT)}"
    if not done:
        raise ValueError(f"there is no box '{wanted}' in it any more")


def _parts(lines: Sequence[str], count: int) -> list[list[Line]] | None:
    """The lines outside of blocks under each question, its heading first, and the blocks; None where the headings are
    not all there."""
    if count == 1:
        return [list(outside(lines))]
    parts: dict[int, list[Line]] = {}
    current: list[Line] = []
    order: list[int] = []
    for each in outside(lines):
        heading = None if each[2] else _HEADING.fullmatch(each[1])
        if heading:
            number = int(heading[1])
            order.append(number)
            current = parts.setdefault(number, [])
        current.append(each)
    return [parts[number] for number in range(1, count + 1)] if order == list(range(1, count + 1)) else None


def _end(parts: Sequence[Sequence[Line]], number: int, lines: Sequence[str]) -> int:
    """The line behind the part of this question."""
    return parts[number][0][0] if number < len(parts) else len(lines)


def _spoken(
    lines: Sequence[str], parts: Sequence[Sequence[Line]], number: int, question: Question
) -> tuple[Mark | None, str]:
    """As ``_mark``, where a person's words are asked for."""
    end, room, last = _end(parts, number, lines), _room(len(parts)), number == len(parts)
    decision, text, by, fault = asking.read(lines, parts[number - 1], end, question, room, last)
    if decision == "refuse":
        return Mark(choice="refuse", comment=text[:MAX_COMMENT], by=by), ""
    return (Mark(choice="answer", text=text, by=by) if decision else None), fault


def _mark(lines: Sequence[Line], question: Question, count: int) -> tuple[Mark | None, str]:
    """The answer under one question; or why there is none, where somebody seems to have given one."""
    boxes: dict[Choice, tuple[str, str]] = {}
    for _, line, language in lines:
        box = None if language else _BOX.fullmatch(line)
        if box:
            choice = LABELS[box["label"].lower()]
            if choice in boxes:
                return None, f"there are two boxes '{box['label']}'; keep one"
            boxes[choice] = (box["mark"].strip().lower(), box["tail"])
    chosen = [choice for choice, (mark, _) in boxes.items() if mark == "x"]
    if len(chosen) > 1:
        return None, "two boxes are ticked; keep one"
    if not chosen:
        return None, ""
    choice = chosen[0]
    by = _BY.fullmatch(boxes[choice][1])
    args = None
    if choice != "refuse":
        try:
            args = _changed(lines, question, count)
        except ValueError as error:
            return None, str(error)
    return Mark(choice=choice, comment=_comment(lines), by=by[1] if by else "", args=args), ""


def _comment(lines: Sequence[Line]) -> str:
    """What stands behind ``Comment:`` and below it, up to the next heading or block."""
    words: list[str] | None = None
    for _, line, language in lines:
        found = None if language else _COMMENT.fullmatch(line)
        if words is None and found:
            words = [found[1]]
        elif words is not None:
            if language or line.lstrip().startswith("#") or _BOX.fullmatch(line):
                break
            words.append(line)
    return "\n".join(line.strip() for line in words or []).strip()[:MAX_COMMENT]


def _changed(lines: Sequence[Line], question: Question, count: int) -> dict[str, Any] | None:
    """The arguments as a person changed them, None where they did not. Raises ``ValueError`` in words."""
    asked = arguments(question, count)
    blocks = [text for _, text, language in lines if language == "yaml"]
    if any(language == "?" for _, _, language in lines):
        raise ValueError("a block in it is opened by ``` and never closed")
    if not asked:
        return None
    if len(blocks) != 1:
        raise ValueError("the block with the arguments is not there once; put it back as it was")
    return None if _values(blocks[0]) == _values(asked) else dict(_values(blocks[0]))


def _values(text: str) -> Mapping[str, Any]:
    try:
        values: dict[str, Any] = plain(load_mapping(text, "the block with the arguments"))
    except DocumentError as error:
        raise ValueError(str(error.faults[0])) from None
    return values


def _room(count: int) -> int:
    """How many characters a block may have in a file of so many questions."""
    return min(MAX_SHOWN, MAX_ALL // (3 * count))
