"""The line of a run's text that shows why a search found it."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from fsagent.model import Run
from fsagent.workspace.searched import phrases

SNIPPET = 160
_LEAD = 50
_WORD = 20


def snippet(query: str, text: str, run: Run) -> str:
    """About ``SNIPPET`` characters in one line around the first word of ``query`` that occurs in the command's
    ``text``, else in the answer, else in the error; the beginning of these where none does (the name was meant).

    Words are compared nearly as SQLite does, so that now and then a rare character hides the place.
    """
    places = [line for each in (text, run.answer, run.error) if (line := _one_line(each))]
    wanted = [pattern for words, whole in phrases(query) if (pattern := _pattern(words, whole=whole))]
    for line in places:
        folded = _fold(line)
        found = [match.start() for pattern in wanted if (match := re.search(pattern, folded))]
        if found:
            return _cut(line, min(found))
    return _cut(places[0], 0) if places else ""


def _one_line(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _pattern(words: str, *, whole: bool) -> str:
    """These words one after the other, whatever stands between them, beginning where a word begins."""
    parts = re.findall(r"[^\W_]+", _fold(_one_line(words)))
    end = r"(?![^\W_])" if whole else ""
    return r"(?<![^\W_])" + r"[\W_]+".join(parts) + end if parts else ""


def _fold(text: str) -> str:
    """Text of the same length without case and accents."""
    return text.lower() if text.isascii() else "".join(map(_fold_one, text))


@lru_cache(4096)
def _fold_one(char: str) -> str:
    return unicodedata.normalize("NFD", char)[0].lower()[0]


def _cut(line: str, at: int) -> str:
    """The piece of the line in which ``at`` lies, cut between words unless they are very long."""
    start = max(0, min(at - _LEAD, len(line) - SNIPPET))
    end = start + SNIPPET
    if start:
        start = line.find(" ", start, min(at, start + _WORD)) + 1 or start
    if end < len(line):
        space = line.rfind(" ", end - _WORD, end + 1)
        end = space if space > 0 else end
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
