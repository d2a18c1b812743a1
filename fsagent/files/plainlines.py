"""The short way through YAML: lines of ``name: value`` as nearly everybody writes them, without a YAML reader.

What it understands it understands completely: names and values of plain ASCII, quoted text without escapes, a list or
a map in one line that holds nothing deeper, comments. For anything else it says so, and ``yamltext`` reads the text.
The two agree in every value and every position (tests/test_plainlines.py); this one is some twenty times as fast.
"""

from __future__ import annotations

import re

from ruamel.yaml.comments import CommentedMap, CommentedSeq

_MOST_LINES = 40  # fewer than the values that yamltext would put in quotes
_MOST_CHARACTERS = 1000  # in a line: YAML takes a longer name of a map for text

_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,60}"
_QUOTED = r""""[ !#-\[\]-~]*"|'[ -&(-~]*'"""
_TEXT = r"""[A-Za-z0-9_/.*@](?:[ !"$-9;-~]|:(?=[!-~]))*?"""
_WORDS = r"[A-Za-z0-9_/.](?:[A-Za-z0-9_/.*+()-]| (?=[A-Za-z0-9_/.*+()])|:(?=[A-Za-z0-9_/.]))*"
_ITEM = rf"(?:{_QUOTED}|{_WORDS})"
_PAIR = rf"{_NAME}: +{_ITEM}"
_LIST = rf"\[ *(?:{_ITEM} *(?:, *{_ITEM} *)*)?\]"
_MAP = rf"\{{ *(?:{_PAIR} *(?:, *{_PAIR} *)*)?\}}"

_LINE = re.compile(rf"({_NAME}): +({_QUOTED}|{_LIST}|{_MAP}|{_TEXT}) *(?: #[ -~]*)?")
_COMMENT = re.compile(r" *(?:#[ -~]*)?")
_ITEMS = re.compile(_ITEM)
_PAIRS = re.compile(rf"({_NAME}): +({_ITEM})")


def read_plain_lines(text: str) -> CommentedMap | None:
    """What ``yamltext.load_mapping`` makes of a text (LF) of plain lines, without its comments; None for any other."""
    lines = text.split("\n")
    if len(lines) > _MOST_LINES:
        return None
    found = CommentedMap()
    places = {}
    for number, line in enumerate(lines):
        if len(line) > _MOST_CHARACTERS:
            return None
        match = _LINE.fullmatch(line)
        if match is None:
            if _COMMENT.fullmatch(line):
                continue
            return None
        name, value = match.groups()
        if name in found:
            return None
        start = match.start(2)
        opening = value[0]
        if opening == "[":
            value = _sequence(value, number, start)
        elif opening == "{":
            value = _mapping(value, number, start)
            if value is None:
                return None
        elif opening in "\"'":
            value = value[1:-1]
        found[name] = value
        places[name] = [number, 0, number, start]
    found.lc.data = places
    return found


def _sequence(text: str, line: int, column: int) -> CommentedSeq:
    found, places = CommentedSeq(), {}
    for number, item in enumerate(_ITEMS.finditer(text, 1)):
        found.append(_unquoted(item[0]))
        places[number] = [line, column + item.start()]
    found.lc.data = places
    return found


def _mapping(text: str, line: int, column: int) -> CommentedMap | None:
    found, places = CommentedMap(), {}
    for pair in _PAIRS.finditer(text, 1):
        if pair[1] in found:
            return None
        found[pair[1]] = _unquoted(pair[2])
        places[pair[1]] = [line, column + pair.start(1), line, column + pair.start(2)]
    found.lc.data = places
    return found


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] in "\"'" else text
