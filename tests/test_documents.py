"""Markdown with frontmatter as people, editors and attackers write it."""

from __future__ import annotations

import codecs
from typing import Any

import frontmatter
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.errors import DocumentError
from fsagent.files.documents import Document, read_document, write_document
from fsagent.files.yamltext import MAX_DEPTH, MAX_NODES, dump_mapping, load_mapping, plain, position
from fsagent.model import MAX_DOCUMENT, Fault


def fields(header: str) -> Any:
    """The settings of a document with this header, as plain data."""
    return plain(read_document(f"---\n{header}\n---\nbody\n".encode(), "x.md").fields)


def fault(raw: str | bytes) -> Fault:
    """The one fault of a document."""
    with pytest.raises(DocumentError) as caught:
        read_document(raw.encode() if isinstance(raw, str) else raw, "x.md")
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


def document_or_faults(raw: bytes) -> tuple[Document | None, tuple[Fault, ...]]:
    """Whichever of the two it is: never both, never neither, and no other error."""
    try:
        return read_document(raw, "x.md"), ()
    except DocumentError as error:
        faults = error.faults
    assert faults
    return None, faults


# encodings

TEXT = "---\nname: Grüße 😀\n---\n\nZeile eins\nZeile zwei\n"
ENCODED = {
    "utf-8": TEXT.encode(),
    "utf-8 with BOM": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16-le with BOM": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "utf-16-be with BOM": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-16-le": TEXT.encode("utf-16-le"),
    "utf-16-be": TEXT.encode("utf-16-be"),
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "crlf with BOM": codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode(),
    "utf-16 crlf": TEXT.replace("\n", "\r\n").encode("utf-16"),
    "lone cr": TEXT.replace("\n", "\r").encode(),
    "blank lines first": b"\n\n" + TEXT.encode(),
}


@pytest.mark.parametrize("raw", ENCODED.values(), ids=ENCODED)
def test_the_same_text_in_every_encoding_is_the_same_document(raw: bytes) -> None:
    document = read_document(raw, "x.md")
    assert plain(document.fields) == {"name": "Grüße 😀"}
    assert document.body == "Zeile eins\nZeile zwei"


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"eins\nzwei\ncaf\xe9\n", 3),
        (b"\xef\xbb\xbfcaf\xe9", 1),
        ("a\nb\n".encode("utf-16") + b"\x00\xd8a\x00", 3),
        (b"a\rb\rcaf\xe9", 3),
        (b"a\r\nb\r\ncaf\xe9", 3),
    ],
)
def test_another_encoding_is_a_fault_with_its_line(raw: bytes, line: int) -> None:
    found = fault(raw)
    assert found.line == line
    assert "save it as UTF-8" in found.message


def test_a_file_that_is_too_large_is_refused_and_the_largest_is_read() -> None:
    assert len(read_document(b"x" * MAX_DOCUMENT, "x.md").body) == MAX_DOCUMENT
    assert "larger than 1024 KiB" in fault(b"x" * (MAX_DOCUMENT + 1)).message


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        ("", ""),
        ("\n \n", ""),
        ("just words", "just words"),
        ("---\n---\nwords", "words"),
        ("---\n\n---\nwords", "words"),
        ("---\n# only a comment\n---\nwords", "words"),
        ("words\n\n---\n\nmore words", "words\n\n---\n\nmore words"),
        ("----\nno header\n----\n", "----\nno header\n----"),
        ("---\na: 1\n---\nwords\n---\nmore", "words\n---\nmore"),
        ("---   \na: 1\n--- \t\nwords", "words"),
    ],
)
def test_where_the_header_ends(raw: str, body: str) -> None:
    assert read_document(raw.encode(), "x.md").body == body


# what YAML does to people


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("at: 12:30", {"at": "12:30"}),
        ("at: 12:30:45", {"at": "12:30:45"}),
        ("on: mon", {"on": "mon"}),
        ("off: yes", {"off": "yes"}),
        ("country: NO", {"country": "NO"}),
        ("id: 007", {"id": "007"}),
        ("id: 0x1F", {"id": "0x1F"}),
        ("id: 1e3", {"id": "1e3"}),
        ("id: 1_000", {"id": "1_000"}),
        ("version: 1.10", {"version": "1.10"}),
        ("day: 2026-01-02", {"day": "2026-01-02"}),
        ("a: null", {"a": "null"}),
        ("a: ~", {"a": "~"}),
        ("a:", {"a": ""}),
        ("a: ''", {"a": ""}),
        ("7: seven", {"7": "seven"}),
        ("<<: x", {"<<": "x"}),
        ("a: [1, 2.0, true]", {"a": ["1", "2.0", "true"]}),
        ("a: >\n  one\n  two\nb: |\n  three\n  four", {"a": "one two\n", "b": "three\nfour\n"}),
        ("a: # nothing\nb: c # a comment", {"a": "", "b": "c"}),
        ("'a b': \"c\\td\"", {"a b": "c\td"}),
    ],
)
def test_every_scalar_is_the_text_that_was_typed(header: str, value: dict[str, Any]) -> None:
    assert fields(header) == value


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("cron: */5 * * * *", {"cron": "*/5 * * * *"}),
        ("cron: */5 * * * *   # every five", {"cron": "*/5 * * * *"}),
        ("cron: * * * * *", {"cron": "* * * * *"}),
        ("cron: @daily", {"cron": "@daily"}),
        ("text: {{ now }}", {"text": "{{ now }}"}),
        ("text: {{ now }} and {{ body }}", {"text": "{{ now }} and {{ body }}"}),
        ("text: {{now}}: it's", {"text": "{{now}}: it's"}),
        ("format: %H:%M", {"format": "%H:%M"}),
        ("to: @alice", {"to": "@alice"}),
        ("text: !important", {"text": "!important"}),
        ("text: &and", {"text": "&and"}),
        ("a: &x [1]\nb: *x", {"a": "&x [1]", "b": "*x"}),
        ("a: !!python/object/apply:os.system [id]", {"a": "!!python/object/apply:os.system [id]"}),
        ("text: `date`", {"text": "`date`"}),
        ("a: x\ncron: */5 * * * *\nb: @y", {"a": "x", "cron": "*/5 * * * *", "b": "@y"}),
        (
            "steps:\n  - append: {path: log.txt, text: {{ now }}}",
            {"steps": [{"append": {"path": "log.txt", "text": "{{ now }}"}}]},
        ),
        (
            "steps:\n  - append: {text: {{ now }}, path: log.txt}",
            {"steps": [{"append": {"path": "log.txt", "text": "{{ now }}"}}]},
        ),
        (
            "steps:\n- read: {{ command.name }}\n- recall: @x",
            {"steps": [{"read": "{{ command.name }}"}, {"recall": "@x"}]},
        ),
        ("a: [*/5, @b]", {"a": ["*/5", "@b"]}),
    ],
)
def test_values_that_yaml_reserves_are_the_text_that_was_meant(header: str, value: dict[str, Any]) -> None:
    assert fields(header) == value


@pytest.mark.parametrize(
    ("header", "line", "column", "says"),
    [
        ("a: 1\nb: 2\na: 3", 4, 1, "stands twice"),
        ("a:\n  b: 1\n  b: 2", 4, 3, "stands twice"),
        ("a: &x\n  b: 1", 3, 3, ""),
        ("a: !!map\n  b: 1", 3, 3, ""),
        ("? !!x a\n: b", 2, 3, "tags"),
        ("ok: 1\nnot a mapping line", 3, 0, ""),
        ("a: b: c", 2, 5, "quotes"),
        ("a: 'open\nb: 1\nc: 2", 2, 4, "quote"),
        ('a: "open\nb: 1\nc: 2', 2, 4, "quote"),
        ("a:\n\tb: 1", 3, 1, "spaces"),
        ("- a\n- b", 0, 0, "name: value"),
        ("words", 0, 0, "name: value"),
        ("a: [1, 2\nb: 3", 3, 0, "not closed"),
        ("a: {b: 1\nc: 3", 3, 0, "not closed"),
        ("a: 1\n  b: 2", 3, 4, ""),
        ("a: \x07", 2, 0, "control character"),
        ("a: 1\n...\nb: 2", 0, 0, "one block"),
    ],
)
def test_a_mistake_is_told_with_its_place(header: str, line: int, column: int, says: str) -> None:
    found = fault(f"---\n{header}\n---\nbody")
    assert says in found.message
    assert found.file == "x.md"
    if line:
        assert found.line == line, str(found)
    if column:
        assert found.column == column, str(found)


def test_a_header_that_is_never_closed_names_the_line_that_opened_it() -> None:
    found = fault("\n\n---\na: 1\n\nDo it.\n")
    assert found.line == 3
    assert "never closed" in found.message


def test_lines_count_from_the_top_of_the_file() -> None:
    assert fault("\n\n---\na: 1\na: 2\n---\n").line == 5
    document = read_document(b"\r\n---\r\na: 1\r\nlist:\r\n  - x\r\n  - y\r\n---\r\nbody", "x.md")
    assert position(document.fields, "a", document.first_line) == (3, 1)
    assert position(document.fields["list"], 1, document.first_line) == (6, 5)


# bombs: each ends in a document or a fault, under the test's own time-out


def bombs() -> dict[str, str]:
    lol = "a0: &a0 [x, x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    room = 60_000
    return {
        "billion laughs": lol,
        "merge keys": "a: &a {x: 1}\nb:\n  <<: *a\n",
        "deep flow list": "a: " + "[" * room,
        "deep flow map": "a: " + "{a: " * (room // 4),
        "closed deep list": "a: " + "[" * (room // 2) + "]" * (room // 2),
        "deep block list": "a:\n" + "- " * (room // 2) + "x",
        "deep block map": "".join(" " * n + f"k{n}:\n" for n in range(300)),
        "many keys": "".join(f"k{n}: v\n" for n in range(room // 9)),
        "many items": "a: [" + "x," * (room // 2) + "]",
        "many stars": "a: *b\n" * (room // 6),
        "many different stars": "".join(f"k{n}: *b\n" for n in range(room // 12)),
        "question marks": "? " * (room // 2),
        "question lines": "?\n" * (room // 2),
        "colons": ":" * room,
        "dashes": "- " * (room // 2),
        "quotes": "a: '" + "''" * (room // 2),
        "escapes": 'a: "' + "\\u0041" * (room // 6),
        "one long line": "a: " + "x" * room,
        "blank lines": "a: |\n" + "\n" * room,
        "comments": "#\n" * (room // 2),
        "tags": "a: " + "!!x " * (room // 4),
        "percent": "%" * room,
        "braces": "a: " + "{{" * (room // 2),
        "braces closed": "a: " + "{{ x }} " * (room // 8),
        "braces in flow": "a: {b: " + "{{ x }}, c: " * (room // 12),
        "complex keys": "? [a, b]\n: c\n",
        "map as key": "{a: b}: c",
        "too long": "a: " + "x" * 70_000,
    }


@pytest.mark.parametrize("name", bombs())
def test_no_header_can_hang_or_kill(name: str) -> None:
    document, faults = document_or_faults(f"---\n{bombs()[name]}\n---\nbody".encode())
    assert len(faults) <= 5
    assert all(len(str(each)) < 2_000 for each in faults)
    assert document is None or len(document.fields) <= MAX_NODES


def test_depth_and_number_of_values_are_bounded_and_what_fits_is_read() -> None:
    fits = "x"
    for _ in range(MAX_DEPTH - 2):
        fits = f"[{fits}]"
    assert fields(f"a: {fits}")
    assert f"at most {MAX_DEPTH} deep" in fault("---\na: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "\n---\n").message
    half = MAX_NODES // 2 - 5
    assert len(fields("".join(f"k{n}: v\n" for n in range(half)))) == half
    assert "values" in fault("---\n" + "".join(f"k{n}: v\n" for n in range(half + 10)) + "---\n").message


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda raw: b"---\n" + raw + b"\n---\nbody"))
def test_any_bytes_are_a_document_or_a_fault(raw: bytes) -> None:
    _, faults = document_or_faults(raw)
    for each in faults:
        assert each.message
        assert 0 <= each.line <= raw.count(b"\n") + raw.count(b"\r") + 2


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab:-#{}[]'\"|>&*!%@`?,.~<= \t\n\\0\r\u00a0\u2028\ufeff\x85\x07", max_size=60))
def test_any_yaml_like_header_is_a_document_or_a_fault(header: str) -> None:
    document, _ = document_or_faults(f"---\n{header}\n---\nbody".encode())
    if document:
        _only_text(plain(document.fields))


def _only_text(value: Any) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            assert isinstance(key, str)
            _only_text(each)
    elif isinstance(value, list):
        for each in value:
            _only_text(each)
    else:
        assert isinstance(value, str)


# what we write ourselves is read alike by everybody

VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
STRINGS = [
    "12:30",
    "yes",
    "no",
    "on",
    "007",
    "1e3",
    "1_000",
    "0x1F",
    "null",
    "~",
    "",
    "2026-01-02",
    "a: b",
    "# x",
    "- a",
    "two\nlines",
    " lead",
    "trail ",
    "'",
    '"',
    "{{ now }}",
    "*x",
    "&x",
    "!x",
    "@x",
    "%x",
    "`x`",
    "=",
    "<<",
    "y",
    "n",
    "Grüße 😀",
    "tab\there",
    ".5",
    "+1",
    "0o17",
    "012",
    "1:20:30",
    ".inf",
    "---",
    "...",
    "?",
    "[a]",
    "\u2028",
    "\x85",
]


@pytest.mark.parametrize("value", STRINGS)
def test_a_string_stays_a_string_for_every_reader(value: str) -> None:
    raw = write_document({"v": value, "l": [value], "m": {"v": value}}, "body")
    wanted = {"v": value, "l": [value], "m": {"v": value}}
    assert frontmatter.loads(raw.decode()).metadata == wanted
    assert yaml.safe_load(raw.decode().split("---\n")[1]) == wanted
    assert plain(read_document(raw, "x.md").fields) == wanted


def test_numbers_and_truth_values_stay_what_they_are_for_typed_readers() -> None:
    wanted: dict[str, Any] = {"seconds": 1.5, "attempts": 2, "ok": True, "list": ["a", 1], "none": None}
    raw = write_document(wanted, "body\n\n---\nmore")
    post = frontmatter.loads(raw.decode())
    assert post.metadata == wanted
    assert post.content == "body\n\n---\nmore"
    assert list(post.metadata) == list(wanted), "the order is kept"


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["run", "error", "changed"]),
        VALUES | st.booleans() | st.integers(-9, 9) | st.lists(VALUES),
        max_size=3,
    )
)
def test_what_is_written_is_read_by_pyyaml_as_it_was(fields: dict[str, Any]) -> None:
    assert (yaml.safe_load(dump_mapping(fields)) or {}) == fields
    assert set(plain(load_mapping(dump_mapping(fields), "x.md"))) == set(fields)


def test_a_result_with_text_that_is_no_utf8_is_written_all_the_same() -> None:
    raw = write_document({"command": "a"}, "lone surrogate: \udc80")
    assert "lone surrogate" in read_document(raw, "x.md").body
