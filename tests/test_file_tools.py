"""The tools for files, on real files."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.paths import SafeRoot
from fsagent.model import ToolResult
from fsagent.tools.base import Context, Tool
from fsagent.tools.files import MAX_OLD, Append, Edit, EditArgs, Read, ReadArgs, TextArgs, Write
from fsagent.tools.find import List, ListArgs, SearchArgs, SearchFiles


def context_for(folder: Path, **settings: Any) -> Context:
    given: dict[str, Any] = {
        "root": SafeRoot(
            folder, {"soul.md": "use remember / forget"}, {".fsagent": ""}, [".fsagent/runs/*/attachments"]
        ),
        "home": cast(Any, None),
        "now": lambda: datetime(2026, 11, 22, tzinfo=UTC),
        "run": "r1",
        "trigger": "inbox",
        "seconds_left": lambda: 60.0,
        "stopping": lambda: False,
    }
    return Context(**given | settings)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / ".fsagent").mkdir()
    return context_for(tmp_path)


def call(tool: Tool[Any], args: Any, context: Context) -> ToolResult:
    """As the runner does it: prepare, then run."""
    return tool.run(tool.prepare(args, context), context)


def append(path: str, text: str, context: Context) -> ToolResult:
    return call(Append(), TextArgs(path, text), context)


# read


@pytest.mark.parametrize(
    "raw",
    [
        "Grüße\n".encode(),
        b"\xef\xbb\xbf" + "Grüße\n".encode(),
        "Grüße\n".encode("utf-16"),
        b"\xfe\xff" + "Grüße\n".encode("utf-16-be"),
        "Grüße\n".encode("utf-16-le"),
        "Grüße\n".encode("utf-16-be"),
    ],
)
def test_read_understands_utf8_and_utf16(tmp_path: Path, context: Context, raw: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(raw)
    assert call(Read(), ReadArgs("x.txt"), context).text == "Grüße\n"


@pytest.mark.parametrize(
    "raw", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xfe\xfd\x00\xd8", bytes(range(256)), b"caf\xe9 latin", b"\0" * 100]
)
def test_read_says_that_a_binary_file_is_no_text(tmp_path: Path, context: Context, raw: bytes) -> None:
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(ToolError, match="no text file"):
        call(Read(), ReadArgs("x"), context)


def test_read_is_bounded_and_says_so(tmp_path: Path) -> None:
    context = context_for(tmp_path, max_output=10)
    (tmp_path / "exact").write_text("ä" * 10)
    (tmp_path / "more").write_text("ä" * 11)
    (tmp_path / "huge").write_text("€" * 5000)
    assert call(Read(), ReadArgs("exact"), context).text == "ä" * 10
    for name, size in (("more", 22), ("huge", 15000)):
        text = call(Read(), ReadArgs(name), context).text
        head, note = text.split("\n")
        assert len(head) == 10
        assert f"first 10 characters of {size:,} bytes" in note


def test_a_missing_file_is_named(context: Context) -> None:
    with pytest.raises(ToolError, match=r"there is no 'no/x\.md'"):
        call(Read(), ReadArgs("no/x.md"), context)


def test_a_folder_cannot_be_read(tmp_path: Path, context: Context) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UnsafePathError, match="is a folder"):
        call(Read(), ReadArgs("d"), context)


# policy's view


def test_policy_sees_the_place_that_is_used(tmp_path: Path, context: Context) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    for path in ("real/x", f"{tmp_path}/real/x", "./alias/../alias//x", f"{tmp_path}/alias/x"):
        prepared = Write().prepare(TextArgs(path, ""), context)
        assert Write().subject(prepared) == "real/x"
    assert Write().run(prepared, context).changed == ("real/x",)
    assert Write().subject(TextArgs("a/./b/../c", "")) == "a/c"
    for path in ("../x", "/etc/passwd", "a\0b", ""):
        assert Read().prepare(ReadArgs(path), context) == ReadArgs(path)
        Read().subject(ReadArgs(path))
        with pytest.raises(UnsafePathError):
            call(Read(), ReadArgs(path), context)


def test_an_absolute_path_that_policy_has_not_seen_as_relative_is_refused(tmp_path: Path, context: Context) -> None:
    with pytest.raises(UnsafePathError, match="write 'x'"):
        Write().run(TextArgs(f"{tmp_path}/x", ""), context)


# write and append


def test_write_makes_and_replaces_exactly(tmp_path: Path, context: Context) -> None:
    result = call(Write(), TextArgs("lists/shopping.md", "milk"), context)
    assert result.changed == ("lists/shopping.md",)
    assert result.text == "wrote lists/shopping.md (4 characters)"
    call(Write(), TextArgs("lists/shopping.md", "bread\r\n"), context)
    assert (tmp_path / "lists/shopping.md").read_bytes() == b"bread\r\n"


def test_reserved_places_have_their_own_tools(context: Context) -> None:
    for tool in (Write(), Append()):
        with pytest.raises(UnsafePathError, match="use remember / forget"):
            call(tool, TextArgs("Soul.md", "evil"), context)


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        (None, "a", b"a\n"),
        (b"", "a", b"a\n"),
        (b"x\n", "a", b"x\na\n"),
        (b"x", "a", b"x\na\n"),
        (b"x\n", "a\nb\n", b"x\na\nb\n"),
        (b"x\r\n", "a\nb", b"x\r\na\r\nb\r\n"),
        (b"x\r\ny", "a", b"x\r\ny\r\na\r\n"),
        (b"x\n", "a\r\nb", b"x\na\nb\n"),
        (b"x\n", "", b"x\n\n"),
        (b"\xef\xbb\xbf", "a", b"\xef\xbb\xbfa\n"),
        ("x".encode("utf-16"), "ü", "x\nü\n".encode("utf-16")),
        ("x\r\n".encode("utf-16"), "ü", "x\r\nü\r\n".encode("utf-16")),
    ],
)
def test_append_adds_whole_lines(
    tmp_path: Path, context: Context, before: bytes | None, text: str, after: bytes
) -> None:
    if before is not None:
        (tmp_path / "log.txt").write_bytes(before)
    result = append("log.txt", text, context)
    assert (tmp_path / "log.txt").read_bytes() == after
    assert result.changed == ("log.txt",)
    assert result.text.startswith("added ")


def test_many_threads_append_whole_lines(tmp_path: Path, context: Context) -> None:
    def work(name: str) -> None:
        for number in range(50):
            append("log.txt", f"{name}{number} " + name * 500, context)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name}{number} " + name * 500 for name in "abcd" for number in range(50))


def test_an_append_that_does_not_fit_leaves_no_half_line(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"x" * 1000 + b"\n")
    code = f"""
import resource, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
from test_file_tools import append, context_for
from fsagent.errors import ToolError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    append("log.txt", "y" * 1500, context_for(Path({str(tmp_path)!r})))
except ToolError as error:
    print("refused", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused log.txt: File too large"), done.stderr
    assert (tmp_path / "log.txt").read_bytes() == b"x" * 1000 + b"\n"


def test_half_a_character_is_refused(context: Context) -> None:
    with pytest.raises(ToolError, match="half a character"):
        call(Write(), TextArgs("x", "ab\ud800"), context)


# what a person sees of it


def shown(result: ToolResult) -> list[str]:
    """The lines of a diff below its two names."""
    assert result.diff.endswith("\n")
    return result.diff.split("\n")[2:-1]


def patched(old: bytes, result: ToolResult) -> bytes:
    """What the program ``patch`` makes of the old content by the diff."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("old", old), ("diff", result.diff.encode())):
            Path(folder, name).write_bytes(content)
        subprocess.run(
            ["patch", "--binary", "--fuzz=0", "--output=new", "old", "diff"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        return Path(folder, "new").read_bytes()


@pytest.mark.skipif(not shutil.which("patch"), reason="no patch")
@pytest.mark.parametrize("old", [b"one\ntwo\n", b"one\ntwo", b"one\r\ntwo\r\n", b"one\r\ntwo", b"two\n" + b"x\n" * 400])
def test_the_diff_is_what_changed(tmp_path: Path, context: Context, old: bytes) -> None:
    for tool, args in (
        (Write(), TextArgs("a/my x", "one\n2\n")),
        (Append(), TextArgs("a/my x", "three\nfour")),
        (Edit(), EditArgs("a/my x", "two", "2\n2")),
    ):
        path = tmp_path / "a/my x"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(old)
        result = call(cast(Any, tool), args, context)
        if "left out" not in result.diff:
            assert result.diff.startswith("--- a/a/my x\t\n+++ b/a/my x\t\n@@ ")
            assert patched(old, result) == path.read_bytes() != old


def test_write_shows_the_change(tmp_path: Path, context: Context) -> None:
    result = call(Write(), TextArgs("x", "a\nb"), context)
    assert result.diff == "--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\n+b\n\\ No newline at end of file\n"
    assert call(Write(), TextArgs("x", "a\nb"), context).diff == ""
    assert shown(call(Write(), TextArgs("x", "a\nc\n"), context)) == [
        "@@ -1,2 +1,2 @@", " a", "-b", "\\ No newline at end of file", "+c",
    ]  # fmt: skip
    for raw, words in (
        (b"\0" * 10, "(binary file replaced; bytes: 10 → 4)"),
        (b"x" * (MAX_OLD + 1), "(content of more than 1 MiB was replaced by 4 bytes)"),
    ):
        (tmp_path / "x").write_bytes(raw)
        assert shown(call(Write(), TextArgs("x", "text"), context)) == [words]
        assert (tmp_path / "x").read_bytes() == b"text"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_what_cannot_be_read_can_be_replaced(tmp_path: Path, context: Context) -> None:
    (tmp_path / "x").write_text("secret")
    (tmp_path / "x").chmod(0o200)
    assert shown(call(Write(), TextArgs("x", "new"), context)) == [
        "(content that cannot be read was replaced by 3 bytes)"
    ]


def test_a_call_that_fails_shows_the_error_it_always_did(tmp_path: Path, context: Context) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UnsafePathError, match="is a folder"):
        call(Write(), TextArgs("d", "x"), context)
    with pytest.raises(ToolError, match="half a character"):
        call(Write(), TextArgs("x", "\ud800"), context)


def test_append_shows_the_added_lines(tmp_path: Path, context: Context) -> None:
    result = append("x", "a", context)
    assert result.diff == "--- /dev/null\n+++ b/x\n@@ -0,0 +1,1 @@\n+a\n"
    assert shown(append("x", "b\nc", context)) == ["@@ -1,0 +2,2 @@", "+b", "+c"]
    (tmp_path / "x").write_bytes("eins\r\nzwei".encode("utf-16"))
    assert shown(append("x", "ü", context)) == [
        "@@ -2,1 +2,2 @@", "-zwei", "\\ No newline at end of file", "+zwei\r", "+ü\r",
    ]  # fmt: skip
    (tmp_path / "x").write_bytes(b"\0\xff binary")
    assert shown(append("x", "a", context))[-1] == "+a"


def test_append_reads_no_large_file_for_a_line_number(tmp_path: Path, context: Context) -> None:
    (tmp_path / "x").write_bytes(b"12345678\n" * 10_000)
    assert shown(append("x", "a", context)) == ["@@ after 90,000 bytes @@", "+a"]
    (tmp_path / "x").write_bytes(b"12345678\n" * 10_000 + b"torn")
    assert shown(append("x", "a", context)) == ["@@ after 90,004 bytes @@", "\\ No newline at end of file", "+a"]


def test_edit_shows_the_change_in_a_large_file_too(tmp_path: Path, context: Context) -> None:
    old = b"".join(b"line %d\r\n" % number for number in range(1, 100_001))
    (tmp_path / "x").write_bytes(old)
    assert shown(call(Edit(), EditArgs("x", "line 50000\n", "a\nb\n"), context)) == [
        "@@ -49997,7 +49997,8 @@", " line 49997\r", " line 49998\r", " line 49999\r", "-line 50000\r", "+a\r", "+b\r",
        " line 50001\r", " line 50002\r", " line 50003\r",
    ]  # fmt: skip


# after a crash


@pytest.mark.parametrize("start", [None, b"", b"one", b"one\r\n", "eins\n".encode("utf-16")])
def test_append_knows_afterwards_whether_it_happened(tmp_path: Path, context: Context, start: bytes | None) -> None:
    path, tool, args = tmp_path / "log.txt", Append(), TextArgs("log.txt", "new line")
    if start is not None:
        path.write_bytes(start)
    before = tool.before(args, context)
    assert before is not None
    assert before["size"] == len(start or b"")
    assert tool.happened(args, context, before) is False
    done = tool.run(args, context)
    assert tool.happened(args, context, before) == done
    append("log.txt", "of another run", context)
    assert tool.happened(args, context, before) == done


def test_append_does_not_guess(tmp_path: Path, context: Context) -> None:
    path, tool, args = tmp_path / "log.txt", Append(), TextArgs("log.txt", "new line")
    path.write_bytes(b"one\n")
    before = cast(dict[str, Any], tool.before(args, context))
    path.write_bytes(b"one\nother\n")
    assert tool.happened(args, context, before) is False
    for content in (b"ONE\nnew line\n", b"one\nnew", b"one", b"one\nother\nnew line\n"):
        path.write_bytes(content)
        assert tool.happened(args, context, before) is None
    path.unlink()
    assert tool.happened(args, context, before) is None


def test_without_a_record_nobody_knows(context: Context) -> None:
    assert Append().happened(TextArgs("x", "y"), context, {}) is None
    assert Edit().happened(EditArgs("x", "y", "z"), context, {}) is None


def test_a_lock_of_another_program_does_not_hold_an_append_up_for_good(tmp_path: Path, context: Context) -> None:
    with (tmp_path / "log.txt").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        append("log.txt", "a", context)
    assert (tmp_path / "log.txt").read_text() == "a\n"


def test_edit_knows_afterwards_whether_it_happened(tmp_path: Path, context: Context) -> None:
    path, tool, args = tmp_path / "x", Edit(), EditArgs("x", "one", "two")
    path.write_bytes(b"one\n")
    before = cast(dict[str, Any], tool.before(args, context))
    assert tool.happened(args, context, before) is False
    done = tool.run(args, context)
    assert tool.happened(args, context, before) == done
    path.write_bytes(b"three\n")
    assert tool.happened(args, context, before) is None
    assert tool.before(args, context) is None


@pytest.mark.parametrize(("old", "new"), [("one", "two"), ("one\n", "")])
def test_an_edit_that_cannot_be_undone_is_known_without_its_diff(
    tmp_path: Path, context: Context, old: str, new: str
) -> None:
    tool, args = Edit(), EditArgs("x", old, new)
    (tmp_path / "x").write_bytes(b"one\r\ntwo\r\n")
    before = cast(dict[str, Any], tool.before(args, context))
    done = tool.run(args, context)
    assert done.diff
    assert tool.happened(args, context, before) == replace(done, diff="")


# edit


def test_edit_changes_one_passage_and_nothing_else(tmp_path: Path, context: Context) -> None:
    raw = b"\xef\xbb\xbfa\r\nb\r\nc \xc3\xbc\r\nlast"
    (tmp_path / "x").write_bytes(raw)
    result = call(Edit(), EditArgs("x", "b\nc", "B\nC"), context)
    assert (tmp_path / "x").read_bytes() == raw.replace(b"b\r\nc", b"B\r\nC")
    assert result.text == "changed x at line 2"
    assert result.changed == ("x",)


def test_edit_wants_exactly_one_place(tmp_path: Path, context: Context) -> None:
    (tmp_path / "x").write_text("a\nb\na\n\naa\n")
    with pytest.raises(ToolError, match=r"more than once \(lines 1, 3, 5, 5\)"):
        call(Edit(), EditArgs("x", "a", "b"), context)
    with pytest.raises(ToolError, match="does not hold"):
        call(Edit(), EditArgs("x", "z", "b"), context)
    for old, new in (("", "x"), ("a\nb", "a\nb")):
        with pytest.raises(ToolError, match="old:"):
            call(Edit(), EditArgs("x", old, new), context)
    assert (tmp_path / "x").read_text() == "a\nb\na\n\naa\n"


# list and search


def test_list_is_sorted_and_counts_what_it_hides(tmp_path: Path, context: Context) -> None:
    for name in ("b.md", "a.txt", ".hidden", "x.md~", "one\nline.md"):
        (tmp_path / name).write_text("12345")
    (tmp_path / "notes/deep").mkdir(parents=True)
    (tmp_path / "notes/deep/c.md").write_text("1")
    assert call(List(), ListArgs(), context).text.splitlines() == [
        "a.txt (5 bytes)",
        "b.md (5 bytes)",
        "notes/",
        "one\\nline.md (5 bytes)",
        "(2 hidden or temporary names not shown)",
    ]
    assert call(List(), ListArgs(pattern="b*"), context).text.startswith("b.md (5 bytes)\n(")
    assert "notes/deep/c.md (1 byte)" in call(List(), ListArgs(pattern="**/*.md"), context).text
    assert call(List(), ListArgs("notes", "**/*.md"), context).text == "deep/c.md (1 byte)"
    assert call(List(), ListArgs("notes/deep", "*.txt"), context).text == "nothing"
    for path in ("none", "a.txt"):
        with pytest.raises(ToolError, match=path):
            call(List(), ListArgs(path), context)
    with pytest.raises(UnsafePathError):
        call(List(), ListArgs(".fsagent"), context)


def test_search_finds_lines_in_any_case(tmp_path: Path, context: Context) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "a.md").write_text("one\nThe Router is a Fritzbox\n")
    (tmp_path / "notes/b.md").write_bytes("der ROUTER\r\n".encode("utf-16"))
    (tmp_path / "binary").write_bytes(b"router\0\0")
    (tmp_path / ".fsagent/key").write_text("router")
    (tmp_path / ".hidden").write_text("router")
    (tmp_path / "link").symlink_to("a.md")
    text = call(SearchFiles(), SearchArgs(query="router"), context).text
    assert text.splitlines() == ["a.md:2: The Router is a Fritzbox", "notes/b.md:1: der ROUTER"]
    assert call(SearchFiles(), SearchArgs("notes", "router"), context).text == "notes/b.md:1: der ROUTER"
    assert call(SearchFiles(), SearchArgs("a.md", "router"), context).text == "a.md:2: The Router is a Fritzbox"
    assert "no line holds 'zzz' (3 files searched)" in call(SearchFiles(), SearchArgs(query="zzz"), context).text
    with pytest.raises(ToolError, match="query"):
        call(SearchFiles(), SearchArgs(query=" "), context)
    with pytest.raises(ToolError, match="there is no"):
        call(SearchFiles(), SearchArgs("none", "x"), context)


def test_search_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("hit\n" * 1000)
    text = call(SearchFiles(), SearchArgs(query="hit"), context_for(tmp_path)).text
    assert text.count("a.md:") == 200
    assert "stopped after 200 lines" in text
    for name in ("b.md", "c.md"):
        (tmp_path / name).write_text("x")
    stopping = context_for(tmp_path, stopping=lambda: True)
    assert "stopped after 0 files" in call(SearchFiles(), SearchArgs(query="hit"), stopping).text
    late = context_for(tmp_path, seconds_left=lambda: -1.0)
    assert "stopped after 0 files" in call(SearchFiles(), SearchArgs(query="hit"), late).text
