"""The shape of a soul.md as a reader sees it: which lines are visible, and which part each heading begins.

Pure functions over lines; columns and line numbers are those of the text, so that a line can be changed in its place.
Limit: this is the part of Markdown that matters for finding facts (headings, fences, comments, the YAML header).
A comment or fence that is opened and never closed is taken for plain text, so that it can hide no fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_UNDERLINE = re.compile(r"(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_AGENT_SECTION = re.compile(r"\b(?:who (?:i am|you are)|agent|assistant|identity|persona)\b", re.IGNORECASE)
_FACTS_SECTION = re.compile(r"\bfacts\b", re.IGNORECASE)
BULLET = re.compile(r"([ \t]*)([-*+]|\d{1,9}[.)])[ \t]+(?=\S)")
RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*$")


class Section(Struct, frozen=True):
    """The part between one heading and the next, lines ``first`` to ``last`` (exclusive), and what it is for."""

    first: int
    last: int
    facts: bool = False
    agent: bool = False
    heads_facts: bool = False


def visible(lines: Sequence[str]) -> tuple[list[str], frozenset[int]]:
    """The lines without their endings; what is hidden (header, fences, comments) is blanked, column by column.

    The second value are the lines that begin within a comment: what is put before one of them is not seen.
    """
    seen = [line.rstrip("\r\n") for line in lines]
    number = _header_end(seen)
    seen[:number] = [""] * number
    unclosed: dict[str, int] = {}
    inside: set[int] = set()
    last_close = max((i for i, line in enumerate(seen) if "-->" in line), default=-1)
    while number < len(seen):
        fence = _FENCE.match(seen[number])
        end = _fence_end(seen, number, fence[1], unclosed) if fence else 0
        if end:
            seen[number:end] = [""] * (end - number)
            number = end
        else:
            number = _blank_comments(seen, number, last_close, inside)
    return seen, frozenset(inside)


def _header_end(seen: Sequence[str]) -> int:
    """The number of lines that a YAML header takes; 0 if there is none."""
    if not seen or seen[0].rstrip() != "---":
        return 0
    return next((i + 1 for i, line in enumerate(seen) if i and line.rstrip() in ("---", "...")), 0)


def _fence_end(seen: Sequence[str], number: int, mark: str, unclosed: dict[str, int]) -> int:
    """The line after the end of the fence that opens at ``number``; 0 if nothing closes it."""
    if len(mark) >= unclosed.get(mark[0], len(mark) + 1):
        return 0
    for i in range(number + 1, len(seen)):
        line = seen[i].strip()
        if len(line) >= len(mark) and not line.strip(mark[0]) and len(seen[i]) - len(seen[i].lstrip(" ")) <= 3:
            return i + 1
    unclosed[mark[0]] = len(mark)
    return 0


def _blank_comments(seen: list[str], number: int, last_close: int, inside: set[int]) -> int:
    """Blank the comments that begin in this line; gives the next line to look at."""
    start = _blank_closed(seen, number, seen[number].find("<!--"))
    while start >= 0:
        if last_close <= number:
            break
        seen[number] = seen[number][:start]
        number += 1
        inside.add(number)
        while "-->" not in seen[number]:
            seen[number] = ""
            number += 1
            inside.add(number)
        end = seen[number].find("-->") + 3
        seen[number] = " " * end + seen[number][end:]
        start = _blank_closed(seen, number, seen[number].find("<!--", end))
    return number + 1


def _blank_closed(seen: list[str], number: int, start: int) -> int:
    """Blank the comments from ``start`` on that end in this line too; gives where one begins that does not, or -1."""
    line, parts, done = seen[number], list[str](), 0
    while start >= 0 and (end := line.find("-->", start + 4)) >= 0:
        parts += [line[done:start], " " * (end + 3 - start)]
        done, start = end + 3, line.find("<!--", end)
    if parts:
        seen[number] = "".join([*parts, line[done:]])
    return start


def sections(seen: Sequence[str]) -> Iterator[Section]:
    """The text cut at its headings; what stands below a Facts heading, at any depth, is for facts."""
    first, facts_level, agent_level, heads = 0, 0, 0, False
    for number, level, title, body in _headings(seen):
        yield Section(first, number, bool(facts_level), bool(agent_level), heads)
        facts_level = 0 if level <= facts_level else facts_level
        agent_level = 0 if level <= agent_level else agent_level
        heads = bool(_FACTS_SECTION.search(title))
        facts_level = facts_level or (level if heads else 0)
        agent_level = agent_level or (level if _AGENT_SECTION.search(title) and not heads else 0)
        first = body
    yield Section(first, len(seen), bool(facts_level), bool(agent_level), heads)


def _headings(seen: Sequence[str]) -> Iterator[tuple[int, int, str, int]]:
    """Each heading: its line, level, title, and the line after it."""
    body = 0
    for number, line in enumerate(seen):
        if number < body:
            continue
        if match := _HEADING.match(line):
            body = number + 1
            yield number, len(match[1]), match[2] or "", body
        elif _is_title(line) and number + 1 < len(seen) and _UNDERLINE.match(seen[number + 1]):
            body = number + 2
            yield number, 1 if seen[number + 1][0] == "=" else 2, line, body


def _is_title(line: str) -> bool:
    """Could this line be a heading, if it were underlined?"""
    starts_text = bool(line[:1].strip()) and line.rstrip() not in ("-", "*", "+") and not line.startswith(">")
    return starts_text and not BULLET.match(line) and not RULE.match(line)
