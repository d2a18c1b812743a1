"""What a diff shows, and that ``patch`` makes the new text of the old one by it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.faces.text import run_text
from fsagent.faces.views import RunView
from fsagent.model import Run
from fsagent.tools import diff as module
from fsagent.tools.diff import MAX_CHARACTERS, MAX_COMPARED, MAX_LINES, appended, diff, note, statements

HUNK = re.compile(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@")
NO_NEWLINE = "\\ No newline at end of file"

lines = st.sampled_from(["", "a", "b", "same", "--- a/x", "+++ b/x", "@@ -1,1 +1,1 @@", "\\", "tab\there", "ü €"])
odd = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
ends = st.sampled_from(["\n", "\n", "\n", "\r\n"])
texts = st.builds(
    lambda whole, last: "".join(line + end for line, end in whole) + last,
    st.lists(st.tuples(st.one_of(lines, lines, odd), ends), max_size=30),
    st.one_of(st.just(""), st.just("last"), odd),
)


def parts_of(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=\n)", text) if part]


def by_hand(old: str, shown: str) -> str:
    """The diff applied strictly: every number in it must be right."""
    there, made, at = parts_of(old), [], 0
    rows = shown.split("\n")[2:-1]
    while rows:
        head = HUNK.fullmatch(rows.pop(0))
        assert head, shown
        start, gone, new_start, come = map(int, head.groups())
        start, new_start = start - bool(gone), new_start - bool(come)
        made += there[at:start]
        at = start
        assert len(made) == new_start, shown
        while rows and rows[0][:1] != "@":
            row = rows.pop(0)
            end = "" if rows and rows[0] == NO_NEWLINE else "\n"
            if not end:
                rows.pop(0)
            if row[0] in " -":
                assert there[at] == row[1:] + end, shown
                at += 1
            if row[0] in " +":
                made.append(row[1:] + end)
        assert (at - start, len(made) - new_start) == (gone, come), shown
    return "".join(made + there[at:])


def by_patch(old: str, shown: str) -> str:
    """The diff applied by the real program, which finds the file by the name in it and may guess nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "my file.txt")
        if "--- /dev/null" not in shown:
            path.write_text(old, "utf-8", newline="")
        done = subprocess.run(
            ["patch", "--binary", "--strip=1", "--fuzz=0", "--batch", "--forward"],
            cwd=folder, input=shown.encode(), capture_output=True, timeout=30,
        )  # fmt: skip
        assert (done.returncode, b"offset" in done.stdout) == (0, False), (done.stdout, done.stderr, shown)
        return path.read_bytes().decode() if path.exists() else ""


WAYS = [by_hand, pytest.param(by_patch, marks=pytest.mark.skipif(not shutil.which("patch"), reason="no patch"))]
MANY = settings(max_examples=300, deadline=None)


@pytest.mark.parametrize("apply", WAYS)
@given(old=texts, new=texts)
@MANY
def test_a_diff_of_two_texts_makes_the_new_one(apply: Callable[[str, str], str], old: str, new: str) -> None:
    shown = diff("my file.txt", old.encode(), new.encode())
    assert (shown == "") == (old == new)
    if shown and "left out" not in shown and "binary" not in shown:
        assert apply(old, shown) == new


@pytest.mark.parametrize("apply", WAYS)
@given(text=texts, places=st.lists(st.tuples(st.integers(0, 99), st.sampled_from(["", "x\n", "y", "\n"])), max_size=4))
@MANY
def test_a_diff_of_small_changes_makes_the_new_text(
    apply: Callable[[str, str], str], text: str, places: list[tuple[int, str]]
) -> None:
    new = old = "".join(f"{number}\n" for number in range(20)) + text
    for at, more in places:
        new = new[:at] + more + new[at + 1 :]
    shown = diff("my file.txt", old.encode(), new.encode())
    if shown and "binary" not in shown:
        assert apply(old, shown) == new
        assert sum(line[:1] in "+-" for line in shown.split("\n")[2:-1]) <= 4 * len(places) + 4, "and no more than that"


@pytest.mark.parametrize("apply", WAYS)
@given(old=texts, more=st.lists(lines, min_size=1, max_size=4))
@MANY
def test_a_diff_of_an_append_makes_the_new_text(apply: Callable[[str, str], str], old: str, more: list[str]) -> None:
    closes = bool(old) and not old.endswith("\n")
    added = "\n" * closes + "".join(f"{line}\n" for line in more)
    head = old.encode()
    shown = appended("my file.txt", head, len(head), added.encode(), closes=closes)
    if not old.startswith("\ufeff") and module.detect(head)[0] == "utf-8":
        assert apply(old, shown) == old + added


@given(old=st.binary(max_size=40), new=st.binary(max_size=40), size=st.integers(0, 99), closes=st.booleans())
@MANY
def test_no_content_is_too_odd(old: bytes, new: bytes, size: int, closes: bool) -> None:
    for shown in (diff("x", old, new), diff("x", None, new), appended("x", old, size, new, closes=closes)):
        shown.encode()
        assert shown == "" or shown.endswith("\n")


def test_a_change_is_shown_with_three_lines_around_it() -> None:
    old = "".join(f"{number}\n" for number in range(1, 31))
    new = old.replace("10\n", "ten\n").replace("14\n", "").replace("25\n", "25\n25½\n")
    assert diff("notes/a b.md", old.encode(), new.encode()).split("\n") == [
        "--- a/notes/a b.md\t", "+++ b/notes/a b.md\t",
        "@@ -7,11 +7,10 @@", " 7", " 8", " 9", "-10", "+ten", " 11", " 12", " 13", "-14", " 15", " 16", " 17",
        "@@ -23,6 +22,7 @@", " 23", " 24", " 25", "+25½", " 26", " 27", " 28", "",
    ]  # fmt: skip


def test_a_new_file_comes_from_nowhere() -> None:
    assert diff("x", None, b"a\nb") == f"--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\n+b\n{NO_NEWLINE}\n"
    assert diff("x", None, b"") == "--- /dev/null\n+++ b/x\n"
    assert diff("x", b"", b"a\n") == "--- a/x\n+++ b/x\n@@ -0,0 +1,1 @@\n+a\n"
    assert diff("x", b"a\n", b"") == "--- a/x\n+++ b/x\n@@ -1,1 +0,0 @@\n-a\n"
    assert diff("x", b"a\n", b"a\n") == ""


def test_line_ends_and_encodings_are_shown() -> None:
    assert diff("x", b"a\r\nb\r\n", b"a\nb\r\n").split("\n")[3:6] == ["-a\r", "+a", " b\r"]
    old, new = "grün\nb\n".encode("utf-16"), "grün\nc\n".encode("utf-16")
    assert diff("x", old, new).split("\n")[2:-1] == ["@@ -1,2 +1,2 @@", " \ufeffgrün", "-b", "+c"]
    assert "(the encoding was utf-16-le and is utf-8 now)" in diff("x", old, b"c\n")
    bare = "ab\n".encode("utf-16-be")
    assert diff("x", bare, b"ab\n").split("\n")[2:-1] == ["(the encoding was utf-16-be and is utf-8 now)"]


def test_a_binary_file_is_not_shown() -> None:
    assert diff("x", b"\x89PNG\0\0", b"text\n") == "--- a/x\n+++ b/x\n(binary file replaced; bytes: 6 → 5)\n"
    assert diff("x", None, b"\0") == "--- /dev/null\n+++ b/x\n(binary file written; bytes: 1)\n"


def test_a_long_diff_is_shortened_and_says_so() -> None:
    rows = diff("x", None, b"line\n" * 1000).split("\n")
    assert len(rows) == MAX_LINES + 2
    assert rows[-2:] == ["… (803 more lines, 4,015 characters in all, were left out)", ""]
    for text in ("x" * 100_000, "x" * 1000 + "\n" + "€" * 100_000 + "\n", ("y" * 500 + "\n") * 100):
        shown = diff("x", None, text.encode())
        assert MAX_CHARACTERS < len(shown) < MAX_CHARACTERS + 100
        shown_of_it = sum(len(row) for row in shown.split("\n")[3:-2])
        left_out = int(re.findall(r"([\d,]+) characters in all", shown)[0].replace(",", ""))
        whole = [f"+{part}" for part in text.removesuffix("\n").split("\n")] + [NO_NEWLINE] * (text[-1] != "\n")
        assert shown_of_it + left_out == sum(map(len, whole))
    assert len(note("x", "y" * 100_000)) < MAX_CHARACTERS + 100
    assert len(statements("x", ["y" * 1000] * 50, ["z"])) < MAX_CHARACTERS + 100


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("".join(f"{number}\n" for number in range(3000)), "".join(f"{number}\n" for number in range(3000, 0, -1))),
        ("x\ny\n" * 100_000, "y\nx\n" * 100_000),
        ("x" * MAX_COMPARED, "y" * MAX_COMPARED),
        ("", "line\n" * MAX_COMPARED),
    ],
)
def test_what_would_take_long_is_told_in_words(old: str, new: str) -> None:
    (words,) = diff("x", f"a\n{old}\nz\n".encode(), f"a\n{new}\nz\n".encode()).split("\n")[2:-1]
    assert re.fullmatch(r"\(from line 2 on, too much to compare line by line; lines: .* → .*, characters: .*\)", words)


def test_a_small_change_of_a_large_text_is_shown() -> None:
    old = "some line\n" * 500_000
    rows = diff("x", old.encode(), (old + "one more\n" + old).encode()[: len(old) + 9]).split("\n")
    assert rows[2:-1] == ["@@ -499998,3 +499998,4 @@", *[" some line"] * 3, "+one more"]


def test_an_append_to_a_large_file_tells_its_place_in_bytes() -> None:
    head = b"line\n" * 10
    rows = ["--- a/x", "+++ b/x", "@@ after 70,000 bytes @@"]
    assert appended("x", head, 70_000, b"a\n\n", closes=False).split("\n") == [*rows, "+a", "+", ""]
    assert appended("x", head, 70_000, b"\na\n", closes=True).split("\n") == [*rows, NO_NEWLINE, "+a", ""]


def test_statements_are_shown_without_line_numbers() -> None:
    assert statements("soul.md", ["a", "b"], ["c"]) == "--- a/soul.md\n+++ b/soul.md\n-a\n-b\n+c\n"
    assert statements("soul.md", [], []) == ""


def test_a_run_is_shown_with_its_diffs() -> None:
    run = Run(run="r", command="a.md", trigger="inbox", status="done", started=datetime(2026, 11, 22, tzinfo=UTC))
    shown = diff("x", b"a\r\n", "b\x1b[2J\u202e\u2028\n".encode())
    steps = [
        {"event": "result", "result": {"text": "wrote x", "diff": shown}},
        {"event": "result", "result": {"text": "read it"}},
    ]
    text = run_text(RunView(run=run, command="words", steps=steps, result=""))
    assert text.split("steps\n")[1].split("\n") == [
        "    → wrote x", "      --- a/x", "      +++ b/x", "      @@ -1,1 +1,1 @@", "      -a\\r",
        "      +b\\x1b[2J\\u202e\\u2028", "    → read it",
    ]  # fmt: skip
