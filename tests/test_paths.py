"""A hostile corpus for the one door to a folder's files. Outside lies a canary that nothing may read or change."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import sys
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.errors import UnsafePathError
from fsagent.files.paths import Entry, SafeRoot

HINTS = {
    "fsagent.yaml": "a person changes the settings",
    "soul.md": "use remember / forget",
    "tasks": "use task",
    "inbox": "",
    "STOP": "",
}
CANARY = b"outside, untouched"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the root; checked at the end."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(CANARY)
    yield folder
    assert (folder / "secret").read_bytes() == CANARY
    assert sorted(os.listdir(folder)) == ["secret"]


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    for name in ("inbox", "tasks", ".fsagent/runs/r1/attachments", ".fsagent/tmp", "notes"):
        (folder / name).mkdir(parents=True)
    for name in ("fsagent.yaml", "soul.md", "notes/a.txt", ".fsagent/runs/r1/attachments/in.txt", ".fsagent/key"):
        (folder / name).write_text(f"content of {name}\n")
    return folder


@pytest.fixture
def root(ws: Path) -> SafeRoot:
    return SafeRoot(ws, HINTS, {".fsagent": "it is the daemon's own"}, [".fsagent/runs/*/attachments"])


def refused(root: SafeRoot, path: str, *, reading: bool = True, writing: bool = True) -> str:
    """Every way in is refused; gives the last message."""
    message = ""
    if reading:
        for read in (root.open_read, lambda p: root.read(p, 10)):
            with pytest.raises(UnsafePathError) as caught:
                read(path)
            message = str(caught.value)
    if writing:
        for write in (root.open_append, lambda p: root.replace(p, b"evil")):
            with pytest.raises(UnsafePathError) as caught:
                write(path)
            message = str(caught.value)
    return message


def test_files_are_read_replaced_and_appended(root: SafeRoot, ws: Path) -> None:
    root.replace("new/deep/x.txt", b"one\n")
    fd = root.open_append("new/deep/x.txt")
    os.write(fd, b"two\n")
    os.close(fd)
    assert root.read("new/deep/x.txt", 100) == b"one\ntwo\n"
    assert root.read("new/deep/x.txt", 5) == b"one\nt"
    assert (ws / "new/deep/x.txt").read_bytes() == b"one\ntwo\n"
    assert sorted(os.listdir(ws / "new/deep")) == ["x.txt"]


def test_an_absolute_path_beneath_the_root_counts_as_relative(root: SafeRoot, ws: Path, tmp_path: Path) -> None:
    assert root.normalize(f"{ws}/notes/../notes/./a.txt") == "notes/a.txt"
    assert root.read(f"{ws}/notes/a.txt", 100) == b"content of notes/a.txt\n"
    (tmp_path / "alias").symlink_to(ws)
    by_alias = SafeRoot(tmp_path / "alias")
    assert by_alias.normalize(f"{tmp_path}/alias/x") == by_alias.normalize(f"{ws}/x") == "x"
    assert root.normalize(str(ws)) == root.normalize(".") == root.normalize("a/..") == "."


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret",
        "notes/../../outside/secret",
        "./.././outside/secret",
        "/etc/passwd",
        "//etc/passwd",
        "/",
        "~/secret",
        "..",
        "notes\\..\\..\\outside\\secret",
        "C:\\secret",
        "notes/\0secret",
        "notes/a\n.txt",
        "notes/\u202egpj.exe",
        "notes/a\u200f.txt",
        "notes/\udcff",
        "",
        " ",
        ".",
        "notes/",
        "notes",
        "x" * 256,
        "ü" * 128,
        "a/" * 65 + "x",
    ],
)
def test_paths_that_lead_nowhere_good_are_refused(root: SafeRoot, outside: Path, path: str) -> None:
    assert ": " in refused(root, path)


def test_a_path_beside_the_root_with_its_name_as_prefix_is_outside(root: SafeRoot, ws: Path) -> None:
    Path(f"{ws}-other").mkdir()
    refused(root, f"{ws}-other/x")
    refused(root, f"{ws}/../{ws.name}-other/x")


def test_names_of_255_bytes_and_odd_but_honest_names_work(root: SafeRoot) -> None:
    for name in (
        "x" * 255,
        "ü" * 127,
        "日本語.md",
        "a b 'c' \"d\".md",
        "👩‍🔬.md",
        "-rf",
        "inbox.md",
        "x:y",
        "...",
        "$HOME",
    ):
        root.replace(name, b"1")
        root.replace(name, b"2")
        assert root.read(name, 10) == b"2"


@pytest.mark.parametrize("name", HINTS)
def test_reserved_places_are_not_written_in_any_spelling(root: SafeRoot, ws: Path, name: str) -> None:
    twins = {
        name,
        name.upper(),
        name.title(),
        name + ".",
        name + " ",
        name + "::$DATA",
        "./" + name,
        "notes/../" + name,
        f"{ws}/{name}",
        name[:1] + "\u200d" + name[1:],
        name.replace("s", "ſ").replace("i", "ｉ"),
        unicodedata.normalize("NFD", name),
    }
    before = sorted(os.listdir(ws))
    for twin in twins:
        for path in (twin, twin + "/x", twin + "/x/y"):
            message = refused(root, path, reading=False)
            assert HINTS[name] in message
    assert sorted(os.listdir(ws)) == before
    assert sorted(os.listdir(ws / "inbox")) == []


def test_a_refusal_says_what_why_and_what_instead(root: SafeRoot) -> None:
    assert refused(root, "Soul.md", reading=False) == (
        "'Soul.md' is reserved and cannot be written by a tool (it leads to soul.md): use remember / forget"
    )


def test_reserved_names_may_be_read_and_are_free_further_down(root: SafeRoot) -> None:
    assert root.read("soul.md", 100) == b"content of soul.md\n"
    root.replace("notes/soul.md", b"mine")
    assert root.read("notes/soul.md", 100) == b"mine"


@pytest.mark.parametrize(
    "path", [".fsagent/key", ".FSAGENT/key", ".fsagent/runs/r1/x", ".fsagent/runs/r1", ".fsagent/tmp/x"]
)
def test_a_place_reserved_for_reading_stays_closed(root: SafeRoot, path: str) -> None:
    assert "daemon's own" in refused(root, path)
    with pytest.raises(UnsafePathError):
        root.list_dir(path)


def test_attachments_of_a_run_can_be_read_but_not_written(root: SafeRoot, ws: Path) -> None:
    place = ".fsagent/runs/r1/attachments"
    assert root.read(place + "/in.txt", 100).startswith(b"content")
    assert root.list_dir(place) == [Entry("in.txt", "file", (ws / place / "in.txt").stat().st_size)]
    refused(root, place + "/in.txt", reading=False)
    refused(root, place + "/../key")
    (ws / place / "out").symlink_to("../../../key")
    refused(root, place + "/out")


def test_links_that_stay_inside_are_followed(root: SafeRoot, ws: Path) -> None:
    (ws / "short").symlink_to("notes")
    (ws / "notes/up").symlink_to("../notes/./a.txt")
    (ws / "absolute").symlink_to(ws / "notes/a.txt")
    for path in ("short/a.txt", "notes/up", "short/up", "absolute"):
        assert root.read(path, 100) == b"content of notes/a.txt\n"
        assert root.resolve(path) == "notes/a.txt"
    root.replace("short/new.txt", b"1")
    assert (ws / "notes/new.txt").read_bytes() == b"1"
    root.replace("absolute", b"2")
    assert (ws / "absolute").is_symlink()
    assert (ws / "notes/a.txt").read_bytes() == b"2"
    assert root.resolve("short/missing/x") == "notes/missing/x"
    assert root.resolve(".") == "."


@pytest.mark.parametrize(
    "target", ["../outside/secret", "{outside}/secret", "/etc/passwd", "notes/../../outside/secret", ".."]
)
def test_links_that_leave_are_refused(root: SafeRoot, ws: Path, outside: Path, target: str) -> None:
    (ws / "out").symlink_to(target.format(outside=outside))
    refused(root, "out")
    refused(root, "out/secret")
    (ws / "notes/again").symlink_to("../out")
    refused(root, "notes/again")
    with pytest.raises(UnsafePathError):
        root.resolve("out")


def test_links_into_reserved_places_are_refused(root: SafeRoot, ws: Path) -> None:
    (ws / "notes/in").symlink_to("../inbox")
    (ws / "memory").symlink_to(ws / "soul.md")
    (ws / "state").symlink_to(".fsagent")
    refused(root, "notes/in/1.md", reading=False)
    refused(root, "memory", reading=False)
    assert "daemon's own" in refused(root, "state/key")
    with pytest.raises(UnsafePathError):
        root.list_dir("state")


def test_a_reserved_name_that_is_itself_a_link_reserves_its_target(root: SafeRoot, ws: Path) -> None:
    (ws / "inbox").rmdir()
    (ws / "queue").mkdir()
    (ws / "inbox").symlink_to("queue")
    refused(root, "queue/1.md", reading=False)


def test_chains_and_circles_of_links_end(root: SafeRoot, ws: Path) -> None:
    (ws / "l0").symlink_to("notes/a.txt")
    for number in range(1, 9):
        (ws / f"l{number}").symlink_to(f"l{number - 1}")
    assert root.read("l7", 7) == b"content"
    assert "more than 8 links" in refused(root, "l8")
    (ws / "circle").symlink_to("circle")
    refused(root, "circle")
    refused(root, "circle/x")


def test_dangling_links_do_not_create_outside(root: SafeRoot, ws: Path, outside: Path) -> None:
    (ws / "dangling").symlink_to(outside / "new")
    refused(root, "dangling")
    (ws / "later").symlink_to("notes/later.txt")
    root.replace("later", b"1")
    assert (ws / "notes/later.txt").read_bytes() == b"1"


def test_hard_links_are_refused(root: SafeRoot, ws: Path, outside: Path) -> None:
    os.link(outside / "secret", ws / "hard")
    assert "hard links" in refused(root, "hard")
    os.unlink(ws / "hard")


def test_pipes_sockets_and_devices_are_refused_at_once(root: SafeRoot, ws: Path) -> None:
    os.mkfifo(ws / "pipe")
    assert "named pipe" in refused(root, "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(ws / "s"))
        assert "socket" in refused(root, "s")
    try:
        os.mknod(ws / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        return
    assert "device" in refused(root, "null")


def test_a_file_on_the_way_is_no_folder(root: SafeRoot) -> None:
    assert "no folder" in refused(root, "notes/a.txt/x")


def test_a_write_protected_file_stays_as_it_is(root: SafeRoot, ws: Path) -> None:
    (ws / "notes/a.txt").chmod(0o444)
    assert "write-protected" in refused(root, "notes/a.txt", reading=False)


def test_replace_keeps_the_mode_and_leaves_no_temporary_file(root: SafeRoot, ws: Path) -> None:
    (ws / "notes/a.txt").chmod(0o640)
    root.replace("notes/a.txt", b"new")
    assert stat.S_IMODE((ws / "notes/a.txt").stat().st_mode) == 0o640
    (ws / "notes/b.txt").mkdir()
    refused(root, "notes/b.txt")
    assert sorted(os.listdir(ws / "notes")) == ["a.txt", "b.txt"]


def test_missing_files_are_the_disks_own_error(root: SafeRoot) -> None:
    for path in ("nothing", "no/thing"):
        with pytest.raises(FileNotFoundError):
            root.read(path, 1)
    with pytest.raises(FileNotFoundError):
        root.list_dir("nothing")
    with pytest.raises(NotADirectoryError):
        root.list_dir("soul.md")


def test_a_listing_shows_odd_names_and_hides_what_may_not_be_read(root: SafeRoot, ws: Path) -> None:
    (ws / "link").symlink_to("notes")
    os.mkfifo(ws / "pipe")
    with open(os.fsencode(ws) + b"/caf\xe9", "wb"):
        pass
    assert root.list_dir() == [
        Entry("caf\udce9", "file", 0),
        Entry("fsagent.yaml", "file", 24),
        Entry("inbox", "folder", 0),
        Entry("link", "link", 0),
        Entry("notes", "folder", 0),
        Entry("pipe", "other", 0),
        Entry("soul.md", "file", 19),
        Entry("tasks", "folder", 0),
    ]
    assert root.list_dir("link") == [Entry("a.txt", "file", 23)]


def test_no_descriptor_leaks(root: SafeRoot, ws: Path, outside: Path) -> None:
    (ws / "out").symlink_to(outside)
    (ws / "up").symlink_to("notes/../notes/a.txt")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        refused(root, "out/secret")
        refused(root, "inbox/x", reading=False)
        refused(root, "notes")
        root.read("up", 10)
        root.replace("a/b/c", b"")
        root.list_dir("notes")
        root.resolve("notes/none/x")
    assert len(os.listdir("/proc/self/fd")) == before


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one instant (``renameat2`` with ``RENAME_EXCHANGE``)."""
    assert ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux swaps two names in one instant")
def test_a_folder_that_is_swapped_for_a_link_never_leads_out(root: SafeRoot, ws: Path, outside: Path) -> None:
    """One thread swaps a folder and a link to the outside as fast as it can; the other goes through it."""
    (ws / "swap").mkdir()
    (ws / "swap/secret").write_bytes(b"inside")
    (ws / "bait").symlink_to(outside)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            exchange(ws / "swap", ws / "bait")

    thread = threading.Thread(target=swap)
    thread.start()
    went = number = 0
    try:
        while number < 1500 or not went:  # on a busy machine the two threads may long take turns in the wrong order
            number += 1
            try:
                assert root.read("swap/secret", 100) != CANARY
                root.replace("swap/secret", b"inside %d" % number)
                os.close(root.open_append("swap/more"))
                went += 1
            except (UnsafePathError, FileNotFoundError):
                pass
    finally:
        ended.set()
        thread.join()


def test_a_file_that_is_swapped_for_a_link_never_leads_out(root: SafeRoot, ws: Path, outside: Path) -> None:
    (ws / "bait").symlink_to(outside / "secret")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            (ws / "plain").write_bytes(b"inside")
            os.rename(ws / "plain", ws / "target")
            os.symlink(outside / "secret", ws / "bait2")
            os.rename(ws / "bait2", ws / "target")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(1500):
            try:
                fd = root.open_append("target")
                os.write(fd, b"more")
                os.close(fd)
                assert root.read("target", 100) != CANARY
                root.replace("target", b"new")
            except (UnsafePathError, FileNotFoundError):
                pass
    finally:
        ended.set()
        thread.join()


PARTS = st.sampled_from(
    ["..", ".", "", "notes", "inbox", "out", "up", "in", "x", "a.txt", "~", "secret", "INBOX", ".fsagent"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=8), st.booleans())
def test_no_path_gets_out_or_into_reserved_places(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], absolute: bool
) -> None:
    base = tmp_path_factory.mktemp("walk")
    ws, outside = base / "ws", base / "outside"
    for folder in (ws / "notes", ws / "inbox", ws / ".fsagent", outside):
        folder.mkdir(parents=True)
    (outside / "secret").write_bytes(CANARY)
    (ws / "out").symlink_to("../outside")
    (ws / "notes/up").symlink_to("..")
    (ws / "notes/in").symlink_to("../inbox")
    root = SafeRoot(ws, ["inbox"], [".fsagent"])
    path = ("/" if absolute else "") + "/".join(parts)
    for action in (lambda: root.replace(path, b"x"), lambda: os.close(root.open_append(path))):
        try:
            action()
        except (UnsafePathError, OSError):
            pass
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == CANARY
    assert sorted(os.listdir(base)) == ["outside", "ws"]
    assert os.listdir(ws / "inbox") == os.listdir(ws / ".fsagent") == []
