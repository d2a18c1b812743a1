"""What a rule is: one pattern of one intent, and how to make tool calls of what it matched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal

from msgspec import Struct

from fsagent.engines.grammar import Sentence, unquoted
from fsagent.model import ToolCall

SUBJECT = r"(?P<subject>[^\s,;:?!\"]+(?: [^\s,;:?!\"]+){0,3}?)"
TOPIC = r"(?P<topic>[^,;:?!]+)"
_STOPS = """
    again all and anything are but everything for from he her him how i if is it me not now or please she that them then
    they this to us was we were what when where who why with you about
"""
TOPIC_STOPS = re.compile(rf"\b(?:{'|'.join(_STOPS.split())})\b", re.IGNORECASE)
"""Words that a subject of a few words does not hold: with one of them, it is more than a subject."""

Mood = Literal["statement", "order", "question"]


class Part(Struct, frozen=True):
    """One understood sentence. ``templated`` are indexes into ``calls``; ``topic`` is what the answer speaks of."""

    intent: str
    calls: tuple[ToolCall, ...] = ()
    templated: frozenset[int] = frozenset()
    topic: str = ""


class Match:
    """A matched sentence: groups in the person's own characters."""

    def __init__(self, sentence: Sentence, match: re.Match[str]) -> None:
        self.sentence = sentence
        self._match = match

    def __getitem__(self, group: str) -> str:
        if group not in self._match.re.groupindex or self._match.start(group) < 0:
            return ""
        return self.sentence.text[self._match.start(group) : self._match.end(group)].strip(" ,")

    def bare(self, group: str) -> str:
        """The group without quotes around it."""
        return unquoted(self[group])


Build = Callable[[Match], Part | None]


class Rule(Struct, frozen=True):
    """A pattern for whole sentences of one mood; ``build`` may still say no."""

    pattern: str
    mood: Mood
    build: Build


def rule(mood: Mood, build: Build, *patterns: str) -> list[Rule]:
    """Rules that share a mood and a builder."""
    return [Rule(pattern, mood, build) for pattern in patterns]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Patterns are compiled on first use: a daemon that only runs steps needs none of them."""
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def first_match(rules: Iterable[Rule], sentence: Sentence) -> Part | None:
    """What the first rule that takes the whole sentence makes of it.

    A statement must be no question and no request; an order may have a question mark only as "could you …?".
    """
    for each in rules:
        if each.mood == "statement" and (sentence.question or sentence.order):
            continue
        if each.mood == "order" and sentence.question and not sentence.order:
            continue
        if (match := _compiled(each.pattern).fullmatch(sentence.folded)) and (
            part := each.build(Match(sentence, match))
        ):
            return part
    return None
