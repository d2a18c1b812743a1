"""How text of others stands in a file that a person is to fill in, and which lines of it count when it is read.

Promise: what is put into a block cannot close it, and nothing in a block is ever taken for a line of the form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fsagent.printable import visible

Line = tuple[int, str, str]
"""The number of a line, its text, and "" for a line of the form; or a whole block with its language."""

_FENCE = re.compile(r"\s*(`{3,})\s*(\w*)\s*")


def outside(lines: Sequence[str]) -> Iterator[Line]:
    """Each line that stands in no fenced block, with its number; a whole block as one entry, with its language.

    A block that is never closed reaches to the end and has the language ``?``.
    """
    fence, language, begin = "", "", 0
    for at, line in enumerate(lines):
        found = _FENCE.fullmatch(line)
        if not fence and found:
            fence, language, begin = found[1], found[2] or "text", at
        elif not fence:
            yield at, line, ""
        elif found and not found[2] and len(found[1]) >= len(fence):
            yield begin, "".join(f"{each}\n" for each in lines[begin + 1 : at]), language
            fence = ""
    if fence:
        yield begin, "", "?"


def one_line(text: str, most: int) -> str:
    """A text on one line, at most so long, with everything that cannot be seen made visible."""
    text = visible(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"


def quoted(language: str, text: str, room: int) -> str:
    """A block that shows at most so much of a text, with everything that cannot be seen made visible."""
    return block(language, shown(text, room))


def shown(text: str, room: int) -> str:
    """What stands in such a block."""
    text = visible(text)
    more = len(text) - room
    return text if more <= 0 else f"{text[:room]}\n… ({more:,} more characters)"


def block(language: str, text: str) -> str:
    """A fenced block that nothing in the text can close."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"
