"""How facts stand in the text of a soul.md: pure text functions, no I/O.

A fact is one line: a bullet under a heading with the word "Facts", or a plain personal statement that somebody wrote
elsewhere (``My name is Alice``, ``Name: Alice``). HTML comments, code fences, quotations, the YAML header and the
section that says who the agent is hold no facts.

Promise: every function that gives a new text changes its own lines only; everything else stays byte for byte, with its
line endings, its BOM, its trailing spaces and its missing last newline.
Limit: a comment or fence that is opened and never closed is taken for plain text, so that it can hide no fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from fsagent.model import Fact
from fsagent.outline import BULLET, RULE, Section, sections, visible
from fsagent.statements import about_owner, fact_key, fold, is_personal, plain, subject_key, third_person, words
from fsagent.vocabulary import OWNER_WORDS

__all__ = [
    "SOUL_TEMPLATE",
    "add_fact",
    "clean_fact",
    "exact_facts",
    "fact_key",
    "find_facts",
    "read_facts",
    "remove_facts",
    "replace_fact",
    "same_fact",
]

SOUL_TEMPLATE = """\
# Soul

<!-- The memory of your agent. What stands in this file is what it knows: read it, change it, at any time. -->

## Who I am

<!-- Who the agent is and how it should behave, in your words. -->

I am a quiet, careful agent that lives in this folder. I do what I am asked, and I say so when I cannot.

## Facts

<!-- One fact per line, as in "- The kettle is red." The agent adds and removes lines here; so may you. -->

## Notes

<!-- Anything else the agent should know. It reads this, and leaves it as it is. -->
"""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_LEADING_MARK = re.compile(r"(?:(?:#{1,6}|[-*+])(?=\s|$)|>|`{3,}|~{3,}|([-*_=])(?:\s*\1){2,}(?=\s|$))\s*")


class _Entry(Struct, frozen=True):
    """One fact and where it stands: lines ``first`` to ``last`` (from 0), columns ``start`` to ``end`` of the first."""

    fact: Fact
    first: int
    last: int
    start: int
    end: int


def read_facts(text: str) -> tuple[Fact, ...]:
    """All facts in ``text``, in the order of their lines."""
    return tuple(entry.fact for entry in _Soul(text).entries)


def add_fact(text: str, fact: str) -> str:
    """``text`` with one more fact, at the end of the first Facts section, which is made if there is none.

    A fact that is known already, or is empty after ``clean_fact``, adds nothing.
    """
    fact = clean_fact(fact)
    if not fact or any(same_fact(fact, known.text) for known in read_facts(text)):
        return text
    return _Soul(text).with_fact(fact)


def replace_fact(text: str, old: Fact, new: str) -> str:
    """``text`` with ``new`` in the place of ``old``; where ``old`` is gone meanwhile, ``new`` is added.

    Where ``new`` stands already on another line, ``old`` is only removed.
    """
    new = clean_fact(new)
    soul = _Soul(text)
    if any(same_fact(new, entry.fact.text) and not same_fact(new, old.text) for entry in soul.entries):
        return remove_facts(text, [old])
    entry = next(iter(soul.standing([old])), None)
    if entry is None or not new:
        return add_fact(text, new)
    first = soul.lines[entry.first].rstrip("\r\n")
    line = first[: entry.start] + new + first[entry.end :] + _ending(soul.lines[entry.last])
    lines = [*soul.lines[: entry.first], line, *soul.lines[entry.last + 1 :]]
    replaced = soul.bom + "".join(lines)
    if any(fact.text == new for fact in read_facts(replaced)):
        return replaced
    return add_fact(remove_facts(text, [old]), new)  # a statement that is no fact where the old one stood


def remove_facts(text: str, facts: Iterable[Fact]) -> str:
    """``text`` without the lines of these facts. A fact that does not stand there any more is passed over."""
    soul = _Soul(text)
    gone = {number for entry in soul.standing(facts) for number in range(entry.first, entry.last + 1)}
    return soul.bom + "".join(line for number, line in enumerate(soul.lines) if number not in gone)


def exact_facts(facts: Sequence[Fact], about: str) -> tuple[Fact, ...]:
    """The facts that ``about`` names exactly: the same statement, or else the same key (``my name``)."""
    statement = plain(third_person(about)).casefold()
    same = tuple(fact for fact in facts if plain(third_person(fact.text)).casefold() == statement)
    if same:
        return same
    key = subject_key(about)
    return tuple(fact for fact in facts if fact.key == key) if key else ()


def find_facts(facts: Sequence[Fact], about: str) -> tuple[Fact, ...]:
    """What is known about something: exact matches first, then facts with all of its words. "" finds all facts."""
    if not about.strip():
        return tuple(facts)
    if subject_key(about) in OWNER_WORDS:
        return tuple(fact for fact in facts if about_owner(fact.text))
    exact = exact_facts(facts, about)
    wanted = words(about)
    loose = (fact for fact in facts if fact not in exact and wanted <= words(f"{fact.text} {fact.key}"))
    return (*exact, *loose) if wanted else exact


def clean_fact(text: str) -> str:
    """``text`` as one line that can be nothing but a fact: no newline, no heading, bullet, fence or comment."""
    line = "".join(char if char.isprintable() else " " for char in text.replace("\ufeff", ""))
    line = " ".join(line.split())
    start = 0
    while match := _LEADING_MARK.match(line, start):
        start = match.end()
    line = line[start:]
    while "<!--" in line or "-->" in line:
        line = line.replace("<!--", "<! --").replace("-->", "-- >")
    return line


def same_fact(one: str, other: str) -> bool:
    """True where two texts are one statement: the first letter's case, spaces, quotes and a final stop do not count.

    Any other difference in case does: a password may differ in it.
    """
    return _normal(one) == _normal(other)


def _normal(text: str) -> str:
    line = " ".join(fold(text).split()).rstrip(" .")
    return line[:1].lower() + line[1:]


def _ending(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


class _Soul:
    """A text, taken apart: the BOM and the lines are the text; ``seen`` are the lines as a reader sees them."""

    def __init__(self, text: str) -> None:
        self.bom = "\ufeff" if text.startswith("\ufeff") else ""
        self.lines: list[str] = _LINE.findall(text.removeprefix("\ufeff"))
        self.seen, self.inside = visible(self.lines)
        self.sections = list(sections(self.seen))
        self.entries = [entry for section in self.sections for entry in self._entries(section)]

    def _entries(self, section: Section) -> Iterator[_Entry]:
        number = section.first
        while number < section.last:
            entry = self._entry(number, section)
            yield from [entry] if entry else []
            number = entry.last + 1 if entry else number + 1

    def _entry(self, number: int, section: Section) -> _Entry | None:
        line = self.seen[number]
        bullet = BULLET.match(line)
        start = bullet.end() if bullet else len(line) - len(line.lstrip())
        body = line[start:].rstrip()
        if not body or RULE.match(line) or body.startswith(">") or (not bullet and (start > 3 or "\t" in line[:start])):
            return None
        last = number
        while bullet and last + 1 < section.last and self._continues(last + 1):
            last += 1
        text = " ".join(" ".join([body, *self.seen[number + 1 : last + 1]]).split())
        if section.facts:
            counts = bool(bullet or fact_key(text))
        else:
            counts = not section.agent and is_personal(text)
        fact = Fact(text, fact_key(text), number + 1)
        return _Entry(fact, number, last, start, start + len(body)) if counts else None

    def _continues(self, number: int) -> bool:
        """Is this line the rest of the bullet above it? An indented line that begins nothing of its own is."""
        line = self.seen[number]
        return line[:1] in (" ", "\t") and bool(line.strip()) and not BULLET.match(line) and not RULE.match(line)

    def standing(self, facts: Iterable[Fact]) -> list[_Entry]:
        """The entries that hold ``facts`` now: the same text on the same line, or else on any line."""
        found: list[_Entry] = []
        for fact in facts:
            same = [entry for entry in self.entries if entry.fact.text == fact.text]
            found += [entry for entry in same if entry.fact.line == fact.line] or same
        return found

    def with_fact(self, fact: str) -> str:
        section = next((section for section in self.sections if section.heads_facts), None)
        if section is None:
            return self._with_section(fact)
        own = [entry for entry in self._entries(section) if BULLET.match(self.seen[entry.first])]
        prefix, at = "- ", section.last
        if own:
            outer = min(own, key=lambda entry: (entry.start, -entry.first))
            mark = self.seen[outer.first][: outer.start]
            prefix = prefix if any(char.isdigit() for char in mark) else mark
            at = self._end_of_list(own[-1].last + 1, section.last)
        else:
            while at > section.first and not self.lines[at - 1].strip():
                at -= 1
        while at in self.inside:
            at += 1
        if at > section.last:
            return self._with_section(fact)  # a comment reaches from the section into the next heading
        newline = self._newline(at)
        gap = "" if own else newline
        before, after = self.bom + "".join(self.lines[:at]), "".join(self.lines[at:])
        if at and not _ending(self.lines[at - 1]):
            return f"{before}{newline}{gap}{prefix}{fact}"
        return f"{before}{gap}{prefix}{fact}{newline}{after}"

    def _newline(self, at: int) -> str:
        """The line ending in use before line ``at``, or else anywhere in the text."""
        near = _ending(self.lines[at - 1]) if at else ""
        return near or next((_ending(line) for line in self.lines if _ending(line)), "\n")

    def _end_of_list(self, at: int, last: int) -> int:
        """Past the indented paragraphs that belong to the last bullet of a list."""
        end = at
        while at < last and (not self.lines[at].strip() or self.lines[at][:1] in (" ", "\t")):
            at += 1
            if self.lines[at - 1].strip():
                end = at
        return end

    def _with_section(self, fact: str) -> str:
        newline = self._newline(len(self.lines))
        section = f"## Facts{newline}{newline}- {fact}"
        before = self.bom + "".join(self.lines)
        if not self.lines:
            return f"{before}{section}{newline}"
        if not _ending(self.lines[-1]):
            return f"{before}{newline}{newline}{section}"
        gap = newline if self.lines[-1].strip() else ""
        return f"{before}{gap}{section}{newline}"
