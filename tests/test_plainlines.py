"""The short way through YAML gives what the long way gives, to the last position, or leaves the text to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from fsagent.errors import DocumentError
from fsagent.files.plainlines import read_plain_lines
from fsagent.files.yamltext import load_mapping, plain, position

FIRST_LINE = 7


def shape(node: Any) -> Any:
    """Every value with the place it stands at."""
    if isinstance(node, CommentedMap):
        return [(str(name), position(node, name, FIRST_LINE), shape(value)) for name, value in node.items()]
    if isinstance(node, CommentedSeq):
        return [(position(node, number, FIRST_LINE), shape(value)) for number, value in enumerate(node)]
    return plain(node)


def the_long_way(text: str) -> Any:
    """Read by YAML's rules alone: what follows a name that the short way does not know is left to them."""
    try:
        found = load_mapping(f"{text}\n? last\n: x\n", "x.md", FIRST_LINE)
    except DocumentError as error:
        return str(error)
    return shape(found)[:-1]


UNDERSTOOD = {
    "every: 1d": {"every": "1d"},
    "": {},
    "# only a comment\n\n  # and another": {},
    "cron: 0 9 * * mon-fri # at nine": {"cron": "0 9 * * mon-fri"},
    "cron: */5 * * * *\nengine: offline": {"cron": "*/5 * * * *", "engine": "offline"},
    "cron: @daily": {"cron": "@daily"},
    "at: [09:00, 18:30]\non: [mon, 'fri']": {"at": ["09:00", "18:30"], "on": ["mon", "fri"]},
    'when: {changed: "data/**/*.csv"}': {"when": {"changed": "data/**/*.csv"}},
    "when: {http: https://example.org/x, changed: true}": {
        "when": {"http": "https://example.org/x", "changed": "true"}
    },
    "active: 07:00-22:00  ": {"active": "07:00-22:00"},
    "a: []\nb: {}\nc: ''": {"a": [], "b": {}, "c": ""},
    "once: 2027-01-05 14:00": {"once": "2027-01-05 14:00"},
    'shell: test -e x && echo it\'s "there"': {"shell": 'test -e x && echo it\'s "there"'},
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_what_people_write_is_understood(text: str) -> None:
    found = read_plain_lines(text)
    assert found is not None
    assert plain(found) == UNDERSTOOD[text]
    assert shape(found) == the_long_way(text)


LEFT = [
    "a: 1\na: 2",
    "a:\n  - b",
    "a: b: c",
    "a: b\n  c",
    "a: |\n  b",
    'a: "b\\n"',
    "a: 'it''s'",
    "a: {b: {c: d}}",
    "a: {b: 1, b: 2}",
    "a:",
    "a: &x b",
    "a: !t b",
    "a: é",
    "- a",
    "a",
    "a: [b",
    "a: b\r\nc: d",
    "a: {{ now }}",
    "a:\tb",
    "a: b\tc",
    "... ",
    "%a",
    "a: x:",
    "a: " + "x" * 2000,
    "\n".join(f"a{number}: b" for number in range(60)),
]


@pytest.mark.parametrize("text", LEFT)
def test_the_rest_is_left_to_those_who_know(text: str) -> None:
    assert read_plain_lines(text) is None


PIECES = st.sampled_from(
    [
        "a",
        "b",
        "every",
        ": ",
        ":",
        " ",
        "  ",
        "#",
        " # c",
        "\n",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ",",
        "'",
        '"',
        "*/5 * * * *",
        "@daily",
        "*",
        "09:00",
        "0 9 * * mon-fri",
        "1d",
        "true",
        "~",
        "null",
        "-",
        "- ",
        "/x/y",
        "**/*.csv",
        "http://a.b/c?d=e&f",
        "..",
        "---",
        "%",
        "&a",
        "!t",
        "|",
        ">",
        "?",
        "\t",
        "é",
        "\\",
        "=",
        "<<",
        "(",
        "7",
        "key: val",
        "k: 'v'",
        'k: "v"',
        "k: [a, b]",
        "k: {x: y}",
        "\n# hm\n",
        "\nc: ",
        "\nd: {",
        "\ne: [",
    ],
)


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=20), st.booleans())
def test_both_ways_agree(text: str, named: bool) -> None:
    text = f"k: {text}" if named else text
    found = read_plain_lines(text)
    if found is not None:
        assert shape(found) == the_long_way(text)
