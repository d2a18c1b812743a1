"""A question for a person's own words, as a part of a file in approvals/: how it is put, answered, and read.

Promise: nothing is an answer unless a box above ``Answer:`` is ticked, and nothing that the question says can be one:
it stands in a block, its choices on one plain line each. What a person writes below ``Answer:`` is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fsagent.model import Question
from fsagent.workspace.form import Line, block, one_line, quoted, shown

ANSWERED, REFUSE = "answered", "refuse"
WHO_ASKS = "### Who asks"
MAX_ANSWER = 20_000
MAX_LABEL = 200
_WORDS = re.compile(r"\s*(?:Answer|Comment)\s*:(.*)", re.IGNORECASE)
_BOX = re.compile(r"(?P<head>\s*[-*+]\s+\[)(?P<mark>[^\]]{0,5})(?P<close>\]\s*)(?P<rest>\S.*)")
_TAIL = re.compile(r"\s*(?:\((?P<by>(?:cli|http|mcp)(?: [\w.-]{1,40})?)\)|✅.*)?\s*")
_FACES = "answer"
"""The language of a block in which a face has put an answer of several lines."""


def put(question: Question, room: int) -> Iterator[str]:
    """The parts of the file: the question in full, the boxes, and where the answer goes."""
    yield quoted("text", question.subject, room)
    if question.why:
        yield f"Take care: {one_line(question.why, 500)}."
    yield "\n".join(f"- [ ] {label}" for label in labels(question))
    yield "Answer:"


def how(question: Question) -> str:
    """How it is answered, in words."""
    if question.choices:
        return (
            "Tick one box (put an x between the brackets) and save; what you write below `Answer:` goes along. If none "
            f"of them fits, write below `Answer:` and tick `{ANSWERED}`."
        )
    return f"Write below `Answer:`, tick `{ANSWERED}` (put an x between the brackets) and save."


def labels(question: Question) -> list[str]:
    """The labels of the boxes. No choice can look like anything but a choice."""
    return [*map(_label, question.choices), ANSWERED, REFUSE]


def read(
    lines: Sequence[str], part: Sequence[Line], end: int, question: Question, room: int, last: bool
) -> tuple[str, str, str, str]:
    """The decision (``answer``, ``refuse``, or "" for none), the person's words, who ticked it for them, and what is
    wrong with an answer that somebody seems to have given.

    ``part`` are the entries of the question's part of the file (see ``outside``), ``end`` the line behind it. Its block
    must be there as it was put (with this ``room``), or the question's own text might be read; in the ``last`` part
    also the end of the file, for half of an answer is none.
    """
    at = next((at for at, line, language in part if not language and _WORDS.fullmatch(line)), end)
    ticked, by = list[str](), ""
    for line in (line for number, line, language in part if number < at and not language):
        box = _BOX.fullmatch(line)
        if not box or box["mark"].strip().lower() != "x":
            continue
        label, who = _known(box["rest"], question)
        if not label:
            return "", "", "", f"the ticked box '{one_line(box['rest'], 60)}' is none of those that were asked"
        ticked.append(label)
        by = who or by
    choices = [label for label in ticked if label not in (ANSWERED, REFUSE)]
    if not ticked:
        return "", "", "", ""
    if len(choices) + (REFUSE in ticked) > 1 or len(set(ticked)) < len(ticked) or {ANSWERED, REFUSE} <= set(ticked):
        return "", "", "", "two boxes are ticked; keep one"
    words = _words(lines, part, at, end)
    if REFUSE in ticked:
        return "refuse", words, by, ""
    if any(language == "?" for _, _, language in part):
        return "", "", "", "a block in it is opened by ``` and never closed"
    if _bare(shown(question.subject, room)) not in [_bare(text) for _, text, language in part if language == "text"]:
        return "", "", "", "the block with the question is not as it was; put it back"
    if last and not any(_is_end(each) for each in part):
        return "", "", "", f"its last part, '{WHO_ASKS}', is gone; put it back"
    if len(words) > MAX_ANSWER:
        return "", "", "", f"the answer is longer than {MAX_ANSWER:,} characters; put it into a file, and name that"
    chosen = [each for each in question.choices if _label(each) in choices]
    text = "\n\n".join(filter(None, [*chosen, words]))
    if text:
        return "answer", text, by, ""
    return "", "", "", f"'{ANSWERED}' is ticked, and nothing stands below 'Answer:'; write your answer there"


def fill(
    lines: list[str], part: Sequence[Line], end: int, question: Question, decision: str, text: str, by: str
) -> None:
    """Tick a box and write an answer (or why it is refused) into the lines, as a person would.

    A text that is one of the choices ticks that. Raises ``ValueError`` in words where the form is not as it was put.
    """
    at = next((at for at, line, language in part if not language and _WORDS.fullmatch(line)), end)
    above = [(number, box) for number, line, language in part
             if number < at and not language and (box := _BOX.fullmatch(line))]  # fmt: skip
    if any(_known(box["rest"], question)[0] and box["mark"].strip().lower() == "x" for _, box in above):
        raise ValueError("a box is ticked there already")
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    chosen = next((each for each in question.choices if text.casefold() in (each.casefold(), _label(each).casefold())),
                  None) if text else None  # fmt: skip
    wanted = REFUSE if decision == "refuse" else ANSWERED if chosen is None else _label(chosen)
    for number, box in above:
        if _known(box["rest"], question)[0] == wanted:
            if _known(f"{wanted} ({by})", question) != (wanted, by):
                raise ValueError(f"'{wanted}' and another choice look alike")
            lines[number] = f"{box['head']}x{box['close']}{wanted} ({by})"
            break
    else:
        raise ValueError(f"there is no box '{wanted}' in it any more")
    if not text or (chosen is not None and decision != "refuse"):
        return
    if at == end:
        raise ValueError("the line 'Answer:' is not in it any more")
    if _words(lines, part, at, end):
        raise ValueError("something is written below 'Answer:' already")
    lines[at] = f"{lines[at].rstrip()} {text}" if "\n" not in text else f"{lines[at]}\n\n{block(_FACES, text)}"


def _words(lines: Sequence[str], part: Sequence[Line], at: int, end: int) -> str:
    """What stands behind ``Answer:`` and below it, up to the part about who asks: the last heading of that name."""
    if at >= end:
        return ""
    stop = [each[0] for each in part if each[0] > at and _is_end(each)]
    end = stop[-1] if stop else end
    found = _WORDS.fullmatch(lines[at])
    first = found[1].strip() if found else ""
    entries = [(line, language) for number, line, language in part if at < number < end and (language or line.strip())]
    if not first and len(entries) == 1 and entries[0][1] == _FACES:
        return entries[0][0].removesuffix("\n")
    return "\n".join([first, *(line.rstrip() for line in lines[at + 1 : end])]).strip()


def _bare(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _is_end(entry: Line) -> bool:
    return not entry[2] and entry[1].strip().lower() == WHO_ASKS.lower()


def _label(choice: str) -> str:
    """A choice as the label of its box: one plain line in which nothing is markup."""
    return one_line(re.sub(r"[\[\]<>`]", "'", choice), MAX_LABEL)


def _known(rest: str, question: Question) -> tuple[str, str]:
    """The label with which the text of a box begins, the longest first, and who ticked it for a person; or ""."""
    for label in sorted(labels(question), key=len, reverse=True):
        tail = _TAIL.fullmatch(rest[len(label) :]) if rest[: len(label)].casefold() == label.casefold() else None
        if label and tail:
            return label, tail["by"] or ""
    return "", ""
