"""The book of tasks: read again only what changed, in one process and across restarts, and never a wrong task."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.errors import ToolError
from fsagent.model import Task, ToolCall
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, dropped
from fsagent.workspace.taskfolder import TaskFolder
from fsagent.workspace.tasks import TaskBook

LONG_AGO = 1_700_000_000


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return workspace(tmp_path)


def workspace(folder: Path) -> Layout:
    layout = init_workspace(folder / "ws")[0]
    for path in layout.tasks.iterdir():
        path.unlink()
    return layout


def write(layout: Layout, name: str, text: str = "beat") -> Path:
    path = layout.tasks / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def many(layout: Layout, count: int = 60) -> None:
    """Enough for a cache to be worth its while."""
    for number in range(count):
        write(layout, f"many/{number}.md", f"---\nevery: {number + 1}m\nsteps: [{{read: a.md}}]\n---\nbeat {number}")


def settled(layout: Layout) -> None:
    """Until none of the files was written a moment ago."""
    newest = max(path.stat().st_ctime for path in layout.tasks.rglob("*"))
    time.sleep(max(0.0, newest + 2.05 - time.time()))


def opened(layout: Layout, *, keeps: bool = False) -> TaskBook:
    book = TaskBook(layout, keeps=keeps)
    book.scan()
    return book


def contents(book: TaskBook | TaskFolder) -> tuple[dict[str, Task | None], dict[str, str]]:
    get = book.get_task if isinstance(book, TaskBook) else book.get
    return {name: get(name) for name in sorted(book.names())}, {name: str(why) for name, why in book.broken().items()}


def cold(layout: Layout) -> tuple[dict[str, Task | None], dict[str, str]]:
    """What the files say, read one by one."""
    folder = TaskFolder(layout.tasks, None, keeps=False)
    folder.scan()
    return contents(folder)


# one process


def test_a_scan_names_what_came_changed_and_went(layout: Layout) -> None:
    write(layout, "a.md")
    write(layout, "sub/b.md")
    write(layout, "bad.md", "---\nevry: 1m\n---\nx")
    book = TaskBook(layout)
    assert book.scan() == {"a", "sub/b", "bad"}
    assert book.scan() == set()
    write(layout, "a.md", "another")
    write(layout, "bad.md", "mended")
    os.rename(layout.tasks / "sub" / "b.md", layout.tasks / "c.md")
    assert book.scan() == {"a", "bad", "sub/b", "c"}
    assert sorted(book.names()) == ["a", "bad", "c"]
    shutil.rmtree(layout.tasks)
    assert book.scan() == {"a", "bad", "c"}
    assert (list(book.names()), book.broken()) == ([], {})


def test_a_touch_changes_nothing(layout: Layout) -> None:
    path = write(layout, "a.md")
    book = opened(layout)
    before = book.get_task("a")
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert book.scan() == set()
    path.write_text(path.read_text())
    assert book.scan() == set()
    assert book.get_task("a") is before


def test_an_edit_in_the_same_tick_is_not_missed(layout: Layout) -> None:
    """Same size, same inode, and a disk whose clock stood still: as if written twice within one tick."""
    path = write(layout, "a.md", "beat 0")
    book = opened(layout)
    for number in range(1, 200):
        before = path.stat()
        path.write_text(f"beat {number % 10}")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert book.scan() == {"a"}
        task = book.get_task("a")
        assert task
        assert task.body == f"beat {number % 10}"


def test_what_is_asked_of_a_task_without_reading_it(layout: Layout) -> None:
    write(layout, "on.md")
    write(layout, "off.md", "---\nenabled: false\n---\nbeat")
    write(layout, "bad.md", "---\n")
    book = opened(layout)
    assert [book.is_enabled(name) for name in ("on", "off", "bad", "none")] == [True, False, False, False]
    task = book.get_task("on")
    assert task
    assert (book.print_of("on"), book.print_of("bad"), book.print_of("none")) == (task.print, "", "")
    assert (book.get_task("bad"), book.get_task("none")) == (None, None)
    assert 0 < book.scan_seconds < 5


def test_a_person_may_be_inexact(layout: Layout) -> None:
    write(layout, "Backup.md")
    write(layout, "bad.md", "---\nevry: 1m\n---\nx")
    book = opened(layout)
    assert {book.get(name).name for name in ("Backup", "backup", "tasks/Backup.md")} == {"Backup"}
    with pytest.raises(ToolError, match=r"did you mean 'backup'.*there are: Backup"):
        book.get("bakcup")
    with pytest.raises(ToolError, match="did you mean 'every'"):
        book.get("bad")


def test_names_that_disks_hold_and_text_does_not(layout: Layout) -> None:
    longest = "ü" * 126 + ".md"
    write(layout, longest)
    os.close(os.open(os.fsencode(layout.tasks) + b"/\xff.md", os.O_WRONLY | os.O_CREAT))
    (layout.tasks / os.fsdecode(b"\xff.md")).write_text("beat")
    many(layout)
    for _ in range(3):
        book = opened(layout, keeps=True)
        assert {"\\xff", longest[:-3]} <= set(book.names())
        for name in ("\\xff", longest[:-3]):
            book.set_state(name, paused=f"{book.state(name).paused}x")
    assert opened(layout).state("\\xff").paused == opened(layout).state(longest[:-3]).paused == "xxx"


def test_two_files_of_one_name_are_told(layout: Layout) -> None:
    first, second = write(layout, "a.md", "first"), write(layout, "a.txt", "second")
    book = opened(layout)
    task = book.get_task("a")
    assert task
    assert (task.body, list(book.broken())) == ("first", ["a.txt"])
    assert "give it another name" in str(book.broken()["a.txt"])
    assert book.scan() == set(), "it is told once"
    first.unlink()
    assert "a" in book.scan()
    assert (book.get("a").body, book.broken()) == ("second", {})
    second.unlink()
    assert book.scan() == {"a"}


def test_what_cannot_be_read_hurts_only_itself(layout: Layout) -> None:
    write(layout, "a.md")
    os.mkfifo(layout.tasks / "pipe.md")
    (layout.tasks / "folder.md").mkdir()
    (layout.tasks / "link.md").symlink_to(layout.soul)
    write(layout, "empty.md", "")
    write(layout, "giant.md", "x" * (1024 * 1024 + 1))
    book = opened(layout)
    assert list(book.names()) == ["a"]
    assert list(book.broken()) == ["giant", "link", "pipe"]
    assert "larger than 1024 KiB" in str(book.broken()["giant"])


# across restarts


def test_a_warm_start_knows_all(layout: Layout) -> None:
    many(layout)
    write(layout, "bad.md", "---\nevry: 1m\n---\nx")
    settled(layout)
    opened(layout, keeps=True)
    expected = cold(layout)
    book = TaskBook(layout)
    names = book.scan()
    assert names == {*book.names(), *book.broken()}, "all of them came"
    assert contents(book) == expected


def test_only_who_keeps_the_book_writes_a_cache(layout: Layout) -> None:
    many(layout)
    before = sorted(os.listdir(layout.task_states))
    opened(layout)
    assert sorted(os.listdir(layout.task_states)) == before
    opened(layout, keeps=True)
    assert (layout.task_states / "cache").exists()


def test_edits_between_two_starts_are_seen(layout: Layout) -> None:
    many(layout)
    settled(layout)
    opened(layout, keeps=True)
    write(layout, "many/1.md", "other 1")
    write(layout, "many/2.md", "---\n")
    (layout.tasks / "many" / "3.md").unlink()
    os.rename(layout.tasks / "many" / "4.md", layout.tasks / "many" / "5.md")
    write(layout, "new.md")
    assert contents(opened(layout)) == cold(layout)


def test_an_edit_in_the_tick_in_which_the_cache_was_written_is_seen(layout: Layout) -> None:
    many(layout)
    path = write(layout, "a.md", "beat 0")
    opened(layout, keeps=True)
    before = path.stat()
    path.write_text("beat 1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened(layout).get("a").body == "beat 1"


def test_a_copy_of_the_workspace_keeps_the_cache_honest(layout: Layout, tmp_path: Path) -> None:
    many(layout)
    opened(layout, keeps=True)
    shutil.copytree(layout.root, tmp_path / "copy")
    copy = Layout(tmp_path / "copy")
    write(copy, "many/7.md", "of the copy")
    assert contents(opened(copy)) == cold(copy)


def test_a_damaged_cache_is_a_cold_start(layout: Layout) -> None:
    many(layout, 52)
    opened(layout, keeps=True)
    cache = layout.task_states / "cache"
    sound, expected = cache.read_bytes(), cold(layout)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def damaged(data: st.DataObject) -> None:
        whole = bytearray(sound)
        kind = data.draw(st.sampled_from(["flip", "cut", "junk", "more", "swap"]))
        place = data.draw(st.integers(0, len(whole) - 1))
        if kind == "flip":
            whole[place] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del whole[place:]
        elif kind == "junk":
            whole = bytearray(data.draw(st.binary(max_size=100)))
        elif kind == "more":
            whole += b"\0"
        else:
            whole[place:] = reversed(whole[place:])
        cache.write_bytes(whole)
        assert contents(opened(layout)) == expected

    damaged()


TEXTS = st.sampled_from(
    [
        "beat", "taeb", "", "---\n", "---\nevry: 1m\n---\nx", "---\nevery: 5m\nenabled: false\n---\nx",
        "---\nengine: offline\nwhen: {exists: a}\n---\nx", '---\nsteps: [{write: {path: "\\ud800", text: a}}]\n---\n',
        "---\ntools: {shell: deny}\nbudget: {steps: 3}\n---\nx",
    ]
)  # fmt: skip
NAMES = st.sampled_from(["a.md", "a.txt", "b.md", "sub/a.md", "sub/c.md", "many/1.md", "many/2.md", ".x.md", "d.md~"])
MOVES = st.lists(
    st.tuples(st.just("write"), NAMES, TEXTS)
    | st.tuples(st.just("rename"), NAMES, NAMES)
    | st.tuples(st.sampled_from(["remove", "scan", "restart", "face", "crash"]), NAMES, st.just("")),
    max_size=25,
)


@settings(max_examples=20, deadline=None)
@given(MOVES)
def test_whatever_is_done_a_warm_book_says_what_a_cold_one_says(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, str, str]]
) -> None:
    layout = workspace(tmp_path_factory.mktemp("moves"))
    many(layout, 55)
    (layout.tasks / "sub").mkdir()
    book = opened(layout, keeps=True)
    for move, name, other in moves:
        path = layout.tasks / name
        if move == "write":
            path.write_text(other)
        elif move == "rename" and path.exists():
            os.replace(path, layout.tasks / other)
        elif move == "remove":
            path.unlink(missing_ok=True)
        elif move == "restart":
            book = opened(layout, keeps=True)
        else:
            book = opened(layout) if move == "face" else book
            before, said = contents(book), book.scan()
            after = contents(book)
            for each in {*before[0], *after[0], *before[1], *after[1]} - said:
                assert before[0].get(each) == after[0].get(each)
            assert after == cold(layout)
    book.scan()
    assert contents(book) == contents(opened(layout)) == cold(layout)


# the agent's own


STEPS = (ToolCall("append", {"path": "log.txt", "text": "tick"}),)


def test_a_task_of_the_agents_own_gets_another_rule(layout: Layout) -> None:
    book = opened(layout, keeps=True)
    book.create("tick", "Log it", {"every": "10m"}, STEPS)
    book.set_state("tick", paused="by request")
    again = book.create("tick", "Log it", {"every": "1h"}, ())
    assert (again.name, again.table.every, again.steps[0].args) == ("tick", 3600, STEPS[0].args)
    assert book.get("tick") == again
    assert (book.state("tick").paused, os.listdir(layout.tasks)) == ("", ["tick.md"])
    (layout.tasks / "tick.md").write_text("---\nevery: 2h\n---\nLog it")
    other = book.create("tick", "Log it", {"every": "3h"}, ())
    assert (other.name, book.get("tick").table.every) == ("tick-2", 7200), "a person's file is left alone"
    assert book.create("tick", "Another", {"every": "3h"}, ()).name == "tick-3"
    with pytest.raises(ToolError, match="every"):
        book.create("bad", "x", {"every": "sometimes"}, ())
    with pytest.raises(ToolError, match="cannot be the name"):
        book.create("../bad", "x", {"every": "1h"}, ())


def test_what_the_gates_brought_goes_along(layout: Layout) -> None:
    write(layout, "a.md", "---\nretries: 2\nexpects: {file: x}\n---\nbeat")
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    book = opened(layout)
    assert book.request(book.get("a"), now, "run-1", now, given="3 new files")
    assert not book.request(book.get("a"), now, "run-1", now, given="3 new files")
    (run,) = dropped(layout)
    folder = RunFolder(layout.drop / run)
    envelope = folder.envelope()
    assert envelope
    assert (envelope.given, envelope.task, envelope.slot) == ("3 new files", "a", now)
    text = folder.raw().decode()
    assert "retries: '2'" in text
    assert "file: x" in text


def opens(work: Callable[[], object]) -> int:
    """How many files and folders a piece of work opens."""
    seen = 0

    def profile(_frame: object, event: str, arg: object) -> None:
        nonlocal seen
        seen += event == "c_call" and arg is os.open

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


def test_what_did_not_change_is_not_opened(layout: Layout) -> None:
    many(layout, 200)
    settled(layout)
    book = TaskBook(layout, keeps=True)
    assert opens(book.scan) > 200
    assert opens(book.scan) == 2, "the two folders"
    warm = TaskBook(layout)
    assert opens(warm.scan) == 3, "and the cache"
    write(layout, "many/3.md", "other")
    assert opens(lambda: [book.scan(), *map(book.state, book.names())]) == 3, "and the one that did"
