"""What a tool changed, as a unified diff for people. Pure text: it reads and writes no file.

Promise: a diff that shows everything is exact: ``patch`` makes the new content of the old by it, if both are in UTF-8.
Line ends are shown as they are (a line of a CRLF file ends in ``\\r``), a byte-order mark as U+FEFF. Equal contents
make an empty diff. No content makes a function here fail, or take long: bounds hold what is compared line by line.

Limits: at most ``MAX_LINES`` lines and ``MAX_CHARACTERS`` characters are shown; the last line tells what was left out.
Where a comparison would take long, where a file is no text, or where a line's number cannot be known without reading a
large file, words in the place of a hunk or of its numbers say what happened: such a diff is for the eye alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fsagent.tools.text import decode, detect

MAX_LINES = 200
MAX_CHARACTERS = 16 * 1024
MAX_PAIRS = 1_000_000
"""How many pairs of an old and a new line are compared at most: 1,000 lines with 1,000 lines."""
MAX_COMPARED = 1024 * 1024
"""How many characters, old and new together, may lie between the first and the last difference to be compared."""

_CONTEXT = 3
_NO_NEWLINE = "\\ No newline at end of file"
_Change = tuple[int, int, int, int]
"""Old lines from the first number up to the second became new lines from the third up to the fourth."""


def diff(path: str, old: bytes | None, new: bytes) -> str:
    """The change from ``old`` (None where there was no file) to ``new``."""
    if old == new:
        return ""
    lines = _names(path, made=old is None)
    before, after = _text(old or b""), _text(new)
    if before is None or after is None:
        what = f"replaced; bytes: {len(old):,} → {len(new):,}" if old else f"written; bytes: {len(new):,}"
        return _shortened([lines, [f"(binary file {what})"]])
    if old and new and detect(old)[0] != detect(new)[0]:
        lines.append(f"(the encoding was {detect(old)[0]} and is {detect(new)[0]} now)")
    return _shortened([lines, _compared(before, after)])


def appended(path: str, head: bytes, size: int, added: bytes, *, closes: bool) -> str:
    """The one hunk of ``added``, the bytes put at the end of a file of ``size`` bytes. Looks at nothing but its input.

    ``head`` are the file's first bytes; ``closes`` tells that ``added`` begins with the end of an unfinished line. An
    empty file counts as new. Where ``head`` is not the whole file, the hunk says ``@@ after 70,000 bytes @@`` in the
    place of line numbers, and an unfinished line is told by the usual mark but not shown.
    """
    encoding, mark = detect(head)
    text = added.decode(encoding, "replace")
    if size > len(head):
        rest = text.partition("\n")[2] if closes else text
        lines = [*_names(path), f"@@ after {size:,} bytes @@", *([_NO_NEWLINE] if closes else [])]
        return _shortened([lines, _signed("+", _split(rest))])
    there = "" if size <= len(mark) else head.decode(encoding, "replace")
    last = there[there.rfind("\n") + 1 :] if closes else ""
    old, new = _split(last), _split(last + text)
    hunk = _hunk(old, new, [(0, len(old), 0, len(new))], there.count("\n"))
    return _shortened([_names(path, made=not there), hunk])


def statements(path: str, removed: Iterable[str], added: Iterable[str]) -> str:
    """Statements (one line each) that went from a file and came to it; in which lines they stood is not told."""
    lines = [*(f"-{text}" for text in removed), *(f"+{text}" for text in added)]
    return _shortened([_names(path), lines]) if lines else ""


def note(path: str, words: str) -> str:
    """What happened to a file in words, where its lines cannot be compared."""
    return _shortened([_names(path), [f"({words})"]])


def _text(raw: bytes) -> str | None:
    """The text with its byte-order mark as a character; None for what is no text."""
    try:
        return "\ufeff" * bool(detect(raw)[1]) + decode(raw)
    except ValueError:
        return None


def _names(path: str, *, made: bool = False) -> list[str]:
    """The two header lines. As in git, a tab ends a name with spaces: else ``patch`` would end it at the first one."""
    end = "\t" if " " in path else ""
    return ["--- /dev/null" if made else f"--- a/{path}{end}", f"+++ b/{path}{end}"]


def _compared(old: str, new: str) -> Iterator[str]:
    """The hunks of two texts. Only what lies between the first and the last difference is compared line by line."""
    if old == new:
        return
    start, end, new_end = _differing(old, new)
    count, new_count = _count(old[start:end]), _count(new[start:new_end])
    if count * new_count > MAX_PAIRS or end + new_end - 2 * start > MAX_COMPARED:
        yield (
            f"(from line {_count(old[:start]) + 1:,} on, too much to compare line by line; lines: {count:,} → "
            f"{new_count:,}, characters: {end - start:,} → {new_end - start:,})"
        )
        return
    first, last = start, end
    for _ in range(_CONTEXT):
        first = old.rfind("\n", 0, max(0, first - 1)) + 1
        last = old.find("\n", last) + 1 or len(old)
    above, below = _split(old[first:start]), _split(old[end:last])
    gone, come = _split(old[start:end]), _split(new[start:new_end])
    old_lines, new_lines, number = [*above, *gone, *below], [*above, *come, *below], _count(old[:first])
    for group in _groups(_changes(gone, come, len(above))):
        yield from _hunk(old_lines, new_lines, group, number)


def _differing(old: str, new: str) -> tuple[int, int, int]:
    """Where the first line that differs begins (in both texts), and where the last one ends in each."""
    start = old.rfind("\n", 0, _same(old, new)) + 1
    tail = _same(old[start:][::-1], new[start:][::-1])
    end, new_end = len(old) - tail, len(new) - tail
    if any(at and text[at - 1] != "\n" for text, at in ((old, end), (new, new_end))):
        rest = old.find("\n", end) + 1 or len(old)  # up to the end of the line that they share a part of
        end, new_end = rest, new_end + rest - end
    return start, end, new_end


def _same(one: str, other: str) -> int:
    """With how many equal characters both begin."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _changes(old: Sequence[str], new: Sequence[str], above: int) -> list[_Change]:
    """The changes between two lists of lines that have ``above`` equal lines above them."""
    if len(old) * len(new) <= 1:
        return [(above, above + len(old), above, above + len(new))]
    from difflib import SequenceMatcher  # on its first use: an idle daemon needs none

    codes = SequenceMatcher(None, old, new).get_opcodes()
    return [(a + above, b + above, c + above, d + above) for tag, a, b, c, d in codes if tag != "equal"]


def _groups(changes: Sequence[_Change]) -> Iterator[list[_Change]]:
    """Changes that share a hunk: those so near to each other that their context would touch."""
    group: list[_Change] = []
    for change in changes:
        if group and change[0] - group[-1][1] > 2 * _CONTEXT:
            yield group
            group = []
        group.append(change)
    yield group


def _hunk(old: Sequence[str], new: Sequence[str], changes: Sequence[_Change], above: int) -> Iterator[str]:
    """The lines of one hunk; above the first of the ``old`` lines stand ``above`` more in both files."""
    begin, end = max(0, changes[0][0] - _CONTEXT), min(len(old), changes[-1][1] + _CONTEXT)
    new_begin = begin + changes[0][2] - changes[0][0]
    new_end = end + changes[-1][3] - changes[-1][1]
    yield f"@@ -{_range(above + begin, end - begin)} +{_range(above + new_begin, new_end - new_begin)} @@"
    for gone, gone_end, come, come_end in changes:
        yield from _signed(" ", old[begin:gone])
        yield from _signed("-", old[gone:gone_end])
        yield from _signed("+", new[come:come_end])
        begin = gone_end
    yield from _signed(" ", old[begin:end])


def _range(above: int, count: int) -> str:
    """Lines in a hunk's header: the first one's number from 1, or of the line before it where there are none."""
    return f"{above + 1 if count else above},{count}"


def _signed(sign: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield sign + line.removesuffix("\n")
        if not line.endswith("\n"):
            yield _NO_NEWLINE


def _split(text: str) -> list[str]:
    """The lines with their ends; ``str.splitlines`` would split at more than newlines."""
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]


def _count(text: str) -> int:
    """How many lines ``_split`` would make of it."""
    return text.count("\n") + (text[-1:] not in ("", "\n"))


def _shortened(parts: Iterable[Iterable[str]]) -> str:
    """The lines as one text, as many of them as may be shown, and then how much was left out."""
    shown: list[str] = []
    room, lines, characters = MAX_CHARACTERS, 0, 0
    for line in (line for part in parts for line in part):
        if room > 0 and len(shown) < MAX_LINES:
            shown.append(line[:room])
            characters += max(0, len(line) - room)
        else:
            lines += 1
            characters += len(line)
        room -= len(line) + 1
    if lines or characters:
        shown.append(f"… ({lines:,} more line{'s' * (lines != 1)}, {characters:,} characters in all, were left out)")
    return "\n".join([*shown, ""])
