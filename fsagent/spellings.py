"""The spellings of a text: as it is, and in the encodings that programs put on it on its way through the world.

Hex, base64 (both alphabets, at every alignment), percent escapes, JSON and HTML; each also where only some characters
are escaped. Limit: one encoding at a time, but for base64 within a URL or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import product

_HEAD = 16


class Form:
    """One way to write one text: a row of items, each of which is written in one of several ways.

    No way to write an item begins another one of it, so a text can be read in one way only, from left to right.
    ``sure`` stands in every text that holds it in this form; ``name`` is what it is called.
    """

    def __init__(self, name: str, items: Iterable[tuple[str, ...]], sure: str = "") -> None:
        self.name = name
        self.items = tuple(tuple(dict.fromkeys(item)) for item in items)
        self.sure = sure or _longest_run(self.items)

    @cached_property
    def _head(self) -> re.Pattern[str]:
        """Its first items: so few places in a text fit them that the rest may be compared slowly."""
        ways = ("|".join(map(re.escape, item)) for item in self.items[:_HEAD])
        return re.compile("".join(f"(?:{way})" for way in ways))

    @cached_property
    def _opening(self) -> re.Pattern[str]:
        """The characters with which it may begin."""
        return re.compile("|".join(re.escape(each) for each in sorted({each[0] for each in self.items[0]})))

    @cached_property
    def longest(self) -> int:
        """The most characters that it can have."""
        return sum(max(map(len, item)) for item in self.items)

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Begin and end of each place where it stands, also of those that overlap."""
        at = 0 if self.sure in text else len(text)
        while found := self._head.search(text, at):
            end = self._end(text, found.start())
            if end > 0:
                yield found.start(), end
            at = found.start() + 1

    def open_from(self, text: str) -> int:
        """The first place at which it may have begun, if the text goes on; the end of the text if there is none."""
        openings = self._opening.finditer(text, max(0, len(text) - self.longest))
        return next((each.start() for each in openings if self._end(text, each.start()) < 0), len(text))

    def _end(self, text: str, at: int) -> int:
        """Where it ends if it begins at ``at``; 0 where it does not, -1 where more text is needed to tell."""
        for item in self.items:
            for each in item:
                if text.startswith(each, at):
                    at += len(each)
                    break
            else:
                rest = text[at : at + max(map(len, item))]
                return -1 if at + len(rest) == len(text) and any(each.startswith(rest) for each in item) else 0
        return at


def forms(name: str, value: str) -> Iterator[Form]:
    """All ways in which ``value`` may be written. Raises ``UnicodeEncodeError`` for what is no text."""
    data = value.encode()
    yield Form(name, [(value,)])
    yield Form(name, [(data.hex(),)])
    yield Form(name, [(data.hex().upper(),)])
    for before in range(3):
        yield Form(name, _base64(data, before))
    percent = [_percent(char) for char in value]
    yield Form(name, percent, "%")
    if " " in value:
        yield Form(name, percent, "+")
    yield Form(name, [_json(char) for char in value], "\\")
    yield Form(name, [_html(char) for char in value], "&")


def _percent(char: str) -> tuple[str, ...]:
    """In a URL or a form: a character that needs it is escaped, any other may be."""
    escaped = "".join(f"%{byte:02X}" for byte in char.encode())
    plain = () if char == "%" else (char, "+") if char == " " else (char,)
    return (*plain, escaped, escaped.lower())


def _json(char: str) -> tuple[str, ...]:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\\": "\\\\"}.get(char, f"\\{char}")
    units = char.encode("utf-16-be")
    codes = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    escaped = "".join(f"\\u{code}" for code in codes), "".join(f"\\u{code.upper()}" for code in codes)
    plain = () if char == "\\" else (char,)
    return (*plain, *((short,) if char in '\n\r\t\b\f\\"/' else ()), *escaped)


def _html(char: str) -> tuple[str, ...]:
    code = ord(char)
    named = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}.get(char)
    plain = () if char == "&" else (char,)
    numbers = (f"&#{code};", f"&#{code:03};", f"&#x{code:x};", f"&#x{code:X};", f"&#X{code:X};")
    return (*plain, *((named,) if named else ()), *numbers)


_BASE64 = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"]
_SIXTY_FOUR = [*((char,) for char in _BASE64), ("+", "-", "%2B", "%2b"), ("/", "_", "%2F", "%2f", "\\/")]


def _base64(data: bytes, before: int) -> Iterator[tuple[str, ...]]:
    """The characters that hold bits of ``data`` where so many bytes stand before it, in both alphabets.

    The outer ones may hold bits of what stands around it, so they have several values.
    """
    bits = "".join(f"{byte:08b}" for byte in data)
    bits = "x" * (before * 8 % 6) + bits
    bits += "x" * (-len(bits) % 6)
    for at in range(0, len(bits), 6):
        six = bits[at : at + 6]
        codes = (int("".join(each), 2) for each in product(*("01" if bit == "x" else bit for bit in six)))
        yield tuple(written for code in codes for written in _SIXTY_FOUR[code])


def _longest_run(items: tuple[tuple[str, ...], ...]) -> str:
    """The longest text that stands in every way to write these items."""
    runs = [""]
    for item in items:
        runs = [*runs[:-1], runs[-1] + item[0]] if len(item) == 1 else [*runs, ""]
    return max(runs, key=len)
