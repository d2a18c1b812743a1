"""How files really arrive (facts/files.md §1-3, §7): each writer gives exactly one whole command.

A small watcher scans as the daemon does and claims what is ready; the writers are the real programs or their syscalls.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fsagent.workspace.create import init_workspace
from fsagent.workspace.inbox import Arrival, Inbox, Scan
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, new_run_id

SETTLE, RENAMED = 0.4, 0.1
WHOLE = b"---\nthread: t\n---\n" + b"a line of the command\n" * 3000


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


def scan(layout: Layout, inbox: Inbox | None = None, **settings: float) -> Scan:
    wanted = {"settle": 0.0, "settle_renamed": 0.0, "attachment_wait": 600.0} | settings
    return (inbox or Inbox(layout)).scan(datetime.now(UTC), time.monotonic(), **wanted)


def ready(found: Scan) -> list[str]:
    return [arrival.name for arrival in found.ready]


def lying(found: Scan) -> dict[str, str]:
    return {each.name: each.why for each in found.lying}


def claim(layout: Layout, inbox: Inbox, arrival: Arrival) -> RunFolder | None:
    folder = inbox.claim(arrival, new_run_id(datetime.now(UTC)), datetime.now(UTC))
    if folder:
        folder.close()
    return folder


class Watcher:
    """Scans every few milliseconds and claims, until nothing came for a while."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.inbox = layout, Inbox(layout)
        self.claimed: list[tuple[str, bytes]] = []

    def look(self) -> Scan:
        found = scan(self.layout, self.inbox, settle=SETTLE, settle_renamed=RENAMED)
        for arrival in found.ready:
            folder = claim(self.layout, self.inbox, arrival)
            if folder:
                self.claimed.append((arrival.name, folder.raw()))
        return found

    def until_quiet(self, writer: threading.Thread, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while True:
            writing = writer.is_alive()
            found = self.look()
            if not writing and found.settling is None and not found.ready:
                return
            assert time.monotonic() < end, "the inbox did not settle"
            time.sleep(0.005)


# writers: each drops WHOLE under the name it is given


def rename_in(path: Path) -> None:
    beside = path.parent.parent / "tmp-outside.md"
    beside.write_bytes(WHOLE)
    os.rename(beside, path)


def rename_beside(path: Path) -> None:
    hidden = path.with_name(f".{path.name}.AbC123")
    hidden.write_bytes(WHOLE)
    os.rename(hidden, path)


def syncthing(path: Path) -> None:
    temporary = path.with_name(f".syncthing.{path.name}.tmp")
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.ftruncate(fd, len(WHOLE))
    os.write(fd, WHOLE)
    os.fsync(fd)
    os.close(fd)
    with suppress(FileNotFoundError):
        os.unlink(path)
    os.rename(temporary, path)
    time.sleep(0.02)
    os.utime(path, ns=(10**18, 10**18 + 7))


def in_place(path: Path) -> None:
    path.write_bytes(WHOLE)


def slowly(path: Path) -> None:
    """Short pauses, re-opened each time: nothing but quiet tells that it has ended."""
    size = len(WHOLE) // 6
    for start in range(0, len(WHOLE), size):
        with path.open("ab") as file:
            file.write(WHOLE[start : start + size])
        time.sleep(SETTLE / 3)


def with_open_handle(path: Path) -> None:
    """Long pauses with the file held open: the lease tells."""
    with path.open("wb", buffering=0) as file:
        for part in (WHOLE[:100], WHOLE[100:5000], WHOLE[5000:]):
            file.write(part)
            time.sleep(SETTLE * 1.6)


def held_after_rename(path: Path) -> None:
    hidden = path.with_name(f".{path.name}.part")
    with hidden.open("wb", buffering=0) as file:
        file.write(WHOLE[:5000])
        os.rename(hidden, path)
        time.sleep(RENAMED * 3)
        file.write(WHOLE[5000:])


def empty_first(path: Path) -> None:
    subprocess.run(["sh", "-c", ': > "$1"; sleep 0.6; cat >> "$1"', "sh", path], input=WHOLE, check=True)


def vim_dance(path: Path) -> None:
    """vim with backup: swap file, the 4913 probe, the old file moved aside, the new one written in place."""
    swap = path.with_name(f".{path.name}.swp")
    swap.write_bytes(b"b0VIM")
    probe = path.with_name("4913")
    probe.touch()
    probe.unlink()
    backup = path.with_name(f"{path.name}~")
    for text in (WHOLE[:2000], WHOLE):
        if path.exists():
            os.rename(path, backup)
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for start in range(0, len(text), 8192):
            os.write(fd, text[start : start + 8192])
        os.fsync(fd)
        os.close(fd)
        backup.unlink(missing_ok=True)
        time.sleep(SETTLE / 4)
    swap.unlink()


def cp_p(path: Path) -> None:
    source = path.parent.parent / "source.md"
    source.write_bytes(WHOLE)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    subprocess.run(["cp", "-p", source, path], check=True)
    source.unlink()


def from_the_future(path: Path) -> None:
    path.write_bytes(WHOLE)
    os.utime(path, (4_000_000_000, 4_000_000_000))


def hard_link(path: Path) -> None:
    source = path.parent.parent / "source.md"
    source.write_bytes(WHOLE)
    os.link(source, path)


def unnamed_then_linked(path: Path) -> None:
    fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY)
    os.write(fd, WHOLE)
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=os.open("/", os.O_RDONLY), follow_symlinks=True)
    os.close(fd)


def preallocated(path: Path) -> None:
    """The size is final from the start and the content is not (rsync --inplace, downloads)."""
    with path.open("wb", buffering=0) as file:
        file.truncate(len(WHOLE))
        time.sleep(SETTLE * 1.5)
        file.write(WHOLE)


def sed_i(path: Path) -> None:
    path.write_bytes(WHOLE.replace(b"command", b"COMMAND"))
    subprocess.run(["sed", "-i", "s/COMMAND/command/", path], check=True)


def moved_folder(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.mkdir()
    (outside / path.name).write_bytes(WHOLE)
    os.rename(outside, path.parent / "moved")


WRITERS: list[Callable[[Path], None]] = [
    rename_in,
    rename_beside,
    syncthing,
    in_place,
    slowly,
    with_open_handle,
    held_after_rename,
    empty_first,
    vim_dance,
    cp_p,
    from_the_future,
    hard_link,
    unnamed_then_linked,
    preallocated,
    sed_i,
    moved_folder,
]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_each_writer_gives_one_whole_command(layout: Layout, writer: Callable[[Path], None]) -> None:
    failed: list[BaseException] = []

    def write() -> None:
        try:
            writer(layout.inbox / "x.md")
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            failed.append(error)

    thread = threading.Thread(target=write)
    watcher = Watcher(layout)
    thread.start()
    watcher.until_quiet(thread)
    thread.join()
    assert not failed
    assert [data == WHOLE for _, data in watcher.claimed] == [True], [len(data) for _, data in watcher.claimed]
    assert not [path for path in layout.inbox.rglob("*") if path.is_file()], "it was moved, not copied"


@pytest.mark.skipif(not shutil.which("vim"), reason="vim is not installed")
@pytest.mark.parametrize(
    "options", ["set backup backupskip=", "set nowritebackup", "set backupcopy=yes", "set backupcopy=no"]
)
def test_vim_itself_gives_one_whole_command(layout: Layout, options: str) -> None:
    path = layout.inbox / "x.md"
    write = [
        "vim",
        "-u",
        "NONE",
        "-es",
        "-c",
        options,
        "-c",
        "normal ifirst",
        "-c",
        "w",
        "-c",
        "normal osecond",
        "-c",
        "wq",
        path,
    ]

    def run() -> None:
        subprocess.run(write, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)

    thread = threading.Thread(target=run)
    watcher = Watcher(layout)
    thread.start()
    watcher.until_quiet(thread)
    thread.join()
    assert watcher.claimed == [("x.md", b"first\nsecond\n")]


# settling


def moved_in(layout: Layout, name: str, after: Path) -> None:
    """A file that was written after another one, elsewhere, and then moved in whole."""
    staged, path = layout.tmp / name, layout.inbox / name
    while not staged.exists() or staged.stat().st_mtime_ns <= after.stat().st_mtime_ns:
        staged.write_bytes(b"words")
    while not path.exists() or path.stat().st_ctime_ns <= path.stat().st_mtime_ns:
        os.rename(staged if staged.exists() else path, path if staged.exists() else staged)


def test_what_is_moved_in_does_not_overtake_what_was_written_before(layout: Layout) -> None:
    first = layout.inbox / "1-first.md"
    first.write_bytes(b"words")
    moved_in(layout, "2-second.md", first)
    found = scan(layout, settle=100, settle_renamed=0)
    assert ready(found) == [], "complete, but the one before it is not"
    assert found.settling == pytest.approx(100, abs=5)
    first.unlink()
    assert ready(scan(layout, settle=100, settle_renamed=0)) == ["2-second.md"]
    moved_in(layout, "3-third.md", layout.inbox / "2-second.md")
    (layout.inbox / "4-fourth.md").write_bytes(b"words")
    assert ready(scan(layout, settle=100, settle_renamed=0)) == ["2-second.md", "3-third.md"], "only the older ones"


def test_nothing_waits_longer_than_settle_for_what_came_before(layout: Layout) -> None:
    """However long somebody goes on touching an older file."""
    first = layout.inbox / "1-first.md"
    first.write_bytes(b"words")
    moved_in(layout, "2-second.md", first)
    changed = (layout.inbox / "2-second.md").stat().st_ctime_ns
    while first.stat().st_ctime_ns <= changed + 50_000_000:
        first.chmod(0o600)
    later = datetime.fromtimestamp(changed / 1e9 + 0.04, UTC)
    found = Inbox(layout).scan(later, time.monotonic(), 0.03, 0.0, 600.0)
    assert "2-second.md" in ready(found)


def test_quiet_is_counted_from_the_last_change(layout: Layout) -> None:
    path = layout.inbox / "x.md"
    path.write_bytes(b"words")
    found = scan(layout, settle=100, settle_renamed=50)
    assert ready(found) == []
    assert found.settling == pytest.approx(100, abs=5)
    os.rename(path, layout.inbox / "y.md")
    moved = scan(layout, settle=100, settle_renamed=50)
    assert moved.settling is not None
    assert moved.settling == pytest.approx(50, abs=5)
    assert ready(scan(layout)) == ["y.md"]


def test_a_file_from_the_future_settles_by_a_clock_that_never_jumps(layout: Layout) -> None:
    (layout.inbox / "x.md").write_bytes(b"words")
    inbox, long_ago = Inbox(layout), datetime.now(UTC) - timedelta(days=3650)
    assert inbox.scan(long_ago, 100.0, 1.0, 1.0, 0.0).settling == pytest.approx(1.0)
    assert inbox.scan(long_ago, 100.5, 1.0, 1.0, 0.0).settling == pytest.approx(0.5)
    assert ready(inbox.scan(long_ago, 101.5, 1.0, 1.0, 0.0)) == ["x.md"]


def test_a_scan_after_a_restart_says_the_same(layout: Layout) -> None:
    for name in ("b.md", "a.txt", "c.markdown"):
        (layout.inbox / name).write_bytes(b"words")
    inbox = Inbox(layout)
    assert scan(layout, inbox) == scan(layout, inbox) == scan(layout)
    assert ready(scan(layout)) == ["b.md", "a.txt", "c.markdown"], "in the order in which they were written"


# what is no command


NAMES = [
    "x.md~",
    "#x.md#",
    ".x.md.swp",
    ".#x.md",
    "4913",
    "x.md.part",
    "x.md.tmp",
    "~$x.md",
    ".syncthing.x.md.tmp",
    "Thumbs.db",
    "tmpab12cd",
    "x.md.crdownload",
    ".hidden.md",
]


def test_temporary_names_are_passed_over_in_silence(layout: Layout) -> None:
    for name in NAMES:
        (layout.inbox / name).write_bytes(b"words")
    (layout.inbox / ".git").mkdir()
    (layout.inbox / ".git" / "x.md").write_bytes(b"words")
    (layout.inbox / "@eaDir").mkdir()
    (layout.inbox / "@eaDir" / "x.md").write_bytes(b"words")
    assert scan(layout) == Scan([], [])


def test_what_stays_is_named_with_its_reason(layout: Layout, tmp_path: Path) -> None:
    inbox = layout.inbox
    (inbox / "photo.jpg").write_bytes(b"x")
    (inbox / "README").write_bytes(b"x")
    (inbox / "x.sync-conflict-20260102-030405-ABCDEF7.jpg").write_bytes(b"x")
    (inbox / "empty.md").touch()
    (inbox / "draft.md").write_bytes(b"---\ndraft: true\n---\nnot yet")
    (tmp_path / "secret.md").write_bytes(b"outside")
    (inbox / "link.md").symlink_to(tmp_path / "secret.md")
    (inbox / "folder").symlink_to(tmp_path)
    os.mkfifo(inbox / "pipe.md")
    (inbox / "sub").mkdir()
    (inbox / "sub" / "note.pdf").write_bytes(b"x")
    found = scan(layout)
    assert ready(found) == []
    why = lying(found)
    assert set(why) == {
        "photo.jpg",
        "README",
        "x.sync-conflict-20260102-030405-ABCDEF7.jpg",
        "empty.md",
        "draft.md",
        "link.md",
        "folder",
        "pipe.md",
        "sub/note.pdf",
    }
    assert "no command" in why["photo.jpg"]
    assert "conflict" in why["x.sync-conflict-20260102-030405-ABCDEF7.jpg"]
    assert "empty" in why["empty.md"]
    assert "draft" in why["draft.md"]
    assert "link" in why["link.md"]
    assert "link" in why["folder"]
    assert "special file" in why["pipe.md"]


def as_nobody(code: str, *args: object) -> str:
    """Run code that has ``layout``, without root's powers where this is root; else as who we are."""
    before = """
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from fsagent.workspace.inbox import Inbox
from fsagent.workspace.layout import Layout
layout = Layout(Path(sys.argv[1]))
if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
    done = subprocess.run(
        [sys.executable, "-c", before + code, *map(str, args)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_to_all(layout: Layout) -> None:
    """pytest's folders are closed to other users."""
    for parent in layout.root.parents:
        if parent != Path("/") and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)


def test_what_cannot_be_read_hurts_only_itself(layout: Layout) -> None:
    (layout.inbox / "mine.md").write_bytes(b"words")
    (layout.inbox / "secret.md").write_bytes(b"words")
    (layout.inbox / "locked").mkdir()
    (layout.inbox / "locked" / "x.md").write_bytes(b"words")
    (layout.inbox / "secret.md").chmod(0)
    (layout.inbox / "locked").chmod(0)
    open_to_all(layout)
    code = """
found = Inbox(layout).scan(datetime.now(UTC), time.monotonic(), 0, 0, 0)
print([each.name for each in found.ready], {each.name: each.why for each in found.lying})
"""
    said = as_nobody(code, layout.root)
    (layout.inbox / "locked").chmod(0o755)
    assert said.startswith("['mine.md']")
    assert "'secret.md': 'cannot be read: permission denied'" in said
    assert "locked" in said


def test_names_that_are_no_utf8_are_commands_like_others(layout: Layout) -> None:
    for raw in (b"caf\xe9.md", b"\xff\xfe.md"):
        (Path(os.fsdecode(bytes(layout.inbox) + b"/" + raw))).write_bytes(b"words")
    folder = os.fsdecode(bytes(layout.inbox) + b"/d\xe9")
    os.mkdir(folder)
    Path(folder, "x.md").write_bytes(b"words")
    inbox = Inbox(layout)
    found = scan(layout, inbox)
    assert sorted(ready(found)) == sorted(["caf\\xe9.md", "\\xff\\xfe.md", "d\\xe9/x.md"])
    for arrival in found.ready:
        arrival.name.encode()
        folder_of_run = claim(layout, inbox, arrival)
        assert folder_of_run
        envelope = folder_of_run.envelope()
        assert envelope
        assert envelope.name == arrival.name


def test_folders_are_threads_and_bounded_in_depth(layout: Layout) -> None:
    deep = layout.inbox / "taxes" / "2026"
    deep.mkdir(parents=True)
    (deep / "x.md").write_bytes(b"words")
    very = layout.inbox.joinpath(*["d"] * 40)
    very.mkdir(parents=True)
    (very / "x.md").write_bytes(b"words")
    inbox = Inbox(layout)
    found = scan(layout, inbox)
    assert ready(found) == ["taxes/2026/x.md"]
    assert any("32 folders deep" in why for why in lying(found).values())
    folder = claim(layout, inbox, found.ready[0])
    assert folder
    envelope = folder.envelope()
    assert envelope
    assert (envelope.thread, envelope.path) == ("taxes/2026", "inbox/taxes/2026/x.md")


# settings that hold a command back


def test_not_before_waits_for_its_moment(layout: Layout) -> None:
    path = layout.inbox / "x.md"
    path.write_bytes(b"---\nnot_before: 2090-01-01 12:00\n---\nwords")
    found = scan(layout)
    assert ready(found) == []
    assert "2090-01-01 12:00" in lying(found)["x.md"]
    assert found.again is not None
    assert found.again > 86400 * 365
    path.write_bytes(b"---\nnot_before: 2020-01-01 12:00\n---\nwords")
    assert ready(scan(layout)) == ["x.md"]


def test_a_draft_becomes_a_command_when_the_word_goes(layout: Layout) -> None:
    path, inbox = layout.inbox / "x.md", Inbox(layout)
    path.write_bytes(b"---\ndraft: true\n---\nwords")
    found = scan(layout, inbox)
    assert (ready(found), found.again, found.settling) == ([], None, None), "nothing to wait for but a change"
    path.write_bytes(b"words")
    assert ready(scan(layout, inbox)) == ["x.md"]


def test_a_broken_header_holds_nothing_back(layout: Layout) -> None:
    (layout.inbox / "x.md").write_bytes(b"---\ndraft: [\n---\nwords")
    (layout.inbox / "y.md").write_bytes(b"---\ndraft: true\nwords that never close")
    assert sorted(ready(scan(layout))) == ["x.md", "y.md"], "they are claimed, and answered"


def test_attachments_come_along(layout: Layout) -> None:
    sub = layout.inbox / "sub"
    sub.mkdir()
    (sub / "x.md").write_bytes(b"---\nattachments: [a.pdf, b.pdf]\n---\nwords")
    inbox = Inbox(layout)
    found = scan(layout, inbox)
    assert ready(found) == []
    assert lying(found)["sub/x.md"] == "waits for its attachments: a.pdf, b.pdf"
    assert found.again
    (sub / "a.pdf").write_bytes(b"A")
    (sub / "b.pdf").write_bytes(b"B")
    (layout.inbox / "a.pdf").write_bytes(b"another")
    end = time.monotonic() + 10
    while not (found := scan(layout, inbox)).ready:
        assert time.monotonic() < end
        assert set(lying(found)) == {"sub/x.md", "a.pdf"}, "the files that it names are not complained of"
        time.sleep(0.01)
    folder = claim(layout, inbox, found.ready[0])
    assert folder
    assert sorted((path.name, path.read_bytes()) for path in folder.attachments.iterdir()) == [
        ("a.pdf", b"A"),
        ("b.pdf", b"B"),
    ]
    assert os.listdir(sub) == []
    assert set(lying(scan(layout, inbox))) == {"a.pdf"}


def test_a_command_does_not_wait_for_ever(layout: Layout) -> None:
    (layout.inbox / "x.md").write_bytes(b"---\nattachments: [a.pdf]\n---\nwords")
    assert ready(scan(layout, attachment_wait=0)) == ["x.md"], "it runs, and is answered that a.pdf did not arrive"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/a.pdf"])
def test_an_attachment_outside_its_folder_is_never_taken(layout: Layout, name: str) -> None:
    (layout.root / "secret").write_bytes(b"S")
    (layout.inbox / "sub").mkdir()
    (layout.inbox / "sub" / "a.pdf").write_bytes(b"A")
    (layout.inbox / "x.md").write_bytes(f"---\nattachments: [{name}]\n---\nwords".encode())
    inbox = Inbox(layout)
    found = scan(layout, inbox, attachment_wait=0)
    for arrival in found.ready:
        folder = claim(layout, inbox, arrival)
        assert folder
        assert not folder.attachments.exists() or os.listdir(folder.attachments) == []
    assert (layout.root / "secret").read_bytes() == b"S"


# the claim


def arrival_of(layout: Layout, inbox: Inbox, data: bytes = b"words") -> Arrival:
    (layout.inbox / "x.md").write_bytes(data)
    (arrival,) = scan(layout, inbox).ready
    return arrival


def no_run(layout: Layout) -> bool:
    return os.listdir(layout.runs) == []


def test_a_file_that_changed_since_the_scan_is_left_to_settle(layout: Layout) -> None:
    inbox = Inbox(layout)
    arrival = arrival_of(layout, inbox)
    with (layout.inbox / "x.md").open("ab") as file:
        file.write(b" and more")
    assert claim(layout, inbox, arrival) is None
    assert (layout.inbox / "x.md").read_bytes() == b"words and more"
    assert no_run(layout)


def test_a_file_that_somebody_writes_is_not_claimed(layout: Layout) -> None:
    inbox = Inbox(layout)
    arrival = arrival_of(layout, inbox)
    with (layout.inbox / "x.md").open("ab"):
        assert claim(layout, inbox, arrival) is None
        assert no_run(layout)
    assert claim(layout, inbox, arrival)


def test_a_file_that_is_read_is_claimed(layout: Layout) -> None:
    inbox = Inbox(layout)
    arrival = arrival_of(layout, inbox)
    with (layout.inbox / "x.md").open("rb"):
        assert claim(layout, inbox, arrival)


def test_what_is_gone_or_became_a_link_is_not_claimed(layout: Layout, tmp_path: Path) -> None:
    inbox = Inbox(layout)
    arrival = arrival_of(layout, inbox)
    (layout.inbox / "x.md").unlink()
    assert claim(layout, inbox, arrival) is None
    (tmp_path / "secret").write_bytes(b"words")
    (layout.inbox / "x.md").symlink_to(tmp_path / "secret")
    assert claim(layout, inbox, arrival) is None
    assert no_run(layout)
    assert (tmp_path / "secret").exists()


@pytest.fixture
def saving(layout: Layout) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Calls what it is given the next time that a run's folder is made: after the check, before the rename."""
    waiting: list[Callable[[], None]] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "os.mkdir" and waiting and str(args[0]).startswith(str(layout.runs)):
            waiting.pop()()

    sys.addaudithook(hook)
    yield waiting.append
    waiting.clear()


def test_a_file_saved_in_the_moment_of_the_claim_is_given_back(
    layout: Layout, saving: Callable[[Callable[[], None]], None]
) -> None:
    inbox, path = Inbox(layout), layout.inbox / "x.md"
    arrival = arrival_of(layout, inbox)
    saving(lambda: path.write_bytes(b"words, and what was saved in that moment") and None)
    assert claim(layout, inbox, arrival) is None
    assert path.read_bytes() == b"words, and what was saved in that moment"
    assert no_run(layout)
    (again,) = scan(layout, inbox).ready
    folder = claim(layout, inbox, again)
    assert folder
    assert folder.raw() == b"words, and what was saved in that moment"


def test_a_file_removed_in_the_moment_of_the_claim_leaves_no_run(
    layout: Layout, saving: Callable[[Callable[[], None]], None]
) -> None:
    inbox = Inbox(layout)
    arrival = arrival_of(layout, inbox)
    saving((layout.inbox / "x.md").unlink)
    assert claim(layout, inbox, arrival) is None
    assert no_run(layout)


def test_a_file_that_cannot_be_moved_stays_and_leaves_no_run(layout: Layout) -> None:
    (layout.inbox / "x.md").write_bytes(b"words")
    layout.runs.chmod(0o777)
    open_to_all(layout)
    code = """
inbox = Inbox(layout)
(arrival,) = inbox.scan(datetime.now(UTC), time.monotonic(), 0, 0, 0).ready
try: print(inbox.claim(arrival, "r1", datetime.now(UTC)))
except PermissionError as error: print("refused")
"""
    if os.geteuid() != 0:
        layout.inbox.chmod(0o555)
    assert as_nobody(code, layout.root) == "refused\n"
    layout.inbox.chmod(0o755)
    assert (layout.inbox / "x.md").exists()
    assert no_run(layout)


def test_an_attachment_that_goes_before_the_claim_does_not_lose_the_command(layout: Layout) -> None:
    inbox = Inbox(layout)
    (layout.inbox / "a.pdf").write_bytes(b"A")
    (layout.inbox / "x.md").write_bytes(b"---\nattachments: [a.pdf]\n---\nwords")
    end = time.monotonic() + 10
    while not (found := scan(layout, inbox)).ready:
        assert time.monotonic() < end
        time.sleep(0.01)
    (layout.inbox / "a.pdf").unlink()
    folder = claim(layout, inbox, found.ready[0])
    assert folder, "the run has possession, and will be answered that a.pdf did not arrive"
    assert folder.claimed.exists()


def test_of_two_who_claim_one_file_one_gets_it(layout: Layout) -> None:
    for number in range(40):
        (layout.inbox / f"{number}.md").write_bytes(b"words")
    arrivals = scan(layout).ready
    assert len(arrivals) == 40
    got: list[str] = []

    def take() -> None:
        inbox = Inbox(layout)
        for arrival in arrivals:
            if claim(layout, inbox, arrival):
                got.append(arrival.name)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(arrival.name for arrival in arrivals)
    assert len(os.listdir(layout.runs)) == 40


def test_the_key_tells_a_delivery_from_a_new_command(layout: Layout) -> None:
    """Same name, bytes and time stamp: the same file delivered again (a sync client). A new time: dropped anew."""
    inbox, keys = Inbox(layout), []
    for data, moment in ((b"a", 1), (b"a", 1), (b"a", 2), (b"b", 1)):
        (layout.inbox / "x.md").write_bytes(data)
        os.utime(layout.inbox / "x.md", ns=(moment * 10**18, moment * 10**18))
        folder = claim(layout, inbox, scan(layout, inbox).ready[0])
        assert folder
        envelope = folder.envelope()
        assert envelope
        keys.append(envelope.key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_lease_is_given_back(layout: Layout) -> None:
    inbox = Inbox(layout)
    folder = claim(layout, inbox, arrival_of(layout, inbox))
    assert folder
    os.close(os.open(folder.claimed, os.O_WRONLY | os.O_NONBLOCK))  # EWOULDBLOCK while a lease is held
