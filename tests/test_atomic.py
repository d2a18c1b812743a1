"""Files that come into being whole, and names that are given once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsagent.files.atomic import MAX_NAME_BYTES, give_name, numbered, write_atomic, write_new
from fsagent.files.names import is_temporary


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# write_atomic


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for durable in (True, False):
        for data in (b"one", b"", b"x" * 300_000):
            write_atomic(path, data, durable=durable)
            assert path.read_bytes() == data
    assert names(tmp_path) == ["a"], "nothing temporary is left"


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for mode in (0o600, 0o640, 0o444, 0o755):
        path.touch()
        path.chmod(mode)
        write_atomic(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        path.unlink()
    write_atomic(path, b"secret", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_atomic(tmp_path / "a", b"x")
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "a", b"x")
    assert names(tmp_path) == ["a"]


def test_readers_see_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"0" * 100_000)
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            data = path.read_bytes()
            seen.add(bytes({len(data) % 251}) + bytes(set(data)))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        write_atomic(path, str(number % 10).encode() * 100_000, durable=False)
    done.set()
    reader.join()
    whole = bytes({100_000 % 251})
    assert seen <= {whole + str(digit).encode() for digit in range(10)}
    assert seen


def test_a_writer_that_is_killed_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"a" * 1_000_000)
    code = (
        "import sys; from pathlib import Path; from fsagent.files.atomic import write_atomic\n"
        "path = Path(sys.argv[1]); print('go', flush=True)\n"
        "while True:\n    for byte in (b'b', b'a'): write_atomic(path, byte * 1_000_000, durable=False)"
    )
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        before = path.stat().st_ino
        while path.stat().st_ino == before:
            pass  # it has begun
        writer.kill()
        writer.wait()
        writer.stdout.close()
        data = path.read_bytes()
        assert len(data) == 1_000_000
        assert set(data) in ({ord("a")}, {ord("b")})
    assert all(name == "a" or is_temporary(name) for name in names(tmp_path)), (
        "what is left is passed over by every scan"
    )


# write_new


def test_a_new_file_never_takes_a_name_that_is_taken(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    before = names(tmp_path)
    for name in before:
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, b"yours")
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert names(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_of_many_who_want_one_name_one_gets_it(tmp_path: Path) -> None:
    wins: list[bytes] = []

    def want(me: bytes) -> None:
        try:
            write_new(tmp_path / "a", me * 1000, durable=False)
        except FileExistsError:
            return
        wins.append(me)

    threads = [threading.Thread(target=want, args=(bytes([65 + n]),)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert (tmp_path / "a").read_bytes() == wins[0] * 1000
    assert names(tmp_path) == ["a"]


# names


def test_numbered_names(tmp_path: Path) -> None:
    candidates = numbered(tmp_path / "a.b.md")
    assert [next(candidates).name for _ in range(3)] == ["a.b.md", "a.b-2.md", "a.b-3.md"]
    assert [path.name for path, _ in zip(numbered(tmp_path / "plain"), "12", strict=False)] == ["plain", "plain-2"]


@pytest.mark.parametrize("stem", ["x" * 252, "ü" * 126, "😀" * 63, "x" * 400, "\udcff" * 252])
def test_long_names_stay_short_enough_for_a_disk(tmp_path: Path, stem: str) -> None:
    made = []
    for path, _ in zip(numbered(tmp_path / f"{stem}.md"), range(12), strict=False):
        assert len(os.fsencode(path.name)) <= MAX_NAME_BYTES
        assert path.name.endswith(".md")
        path.touch(exist_ok=False)
        made.append(path.name)
    assert len(set(made)) == 12


# give_name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "result.new"
    path.parent.mkdir()
    path.write_bytes(b"the result")
    return path


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """A file on another file system: hard links from there to the test's folder are refused, as FAT refuses all."""
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            if os.stat(file.name).st_dev == tmp_path.stat().st_dev:
                pytest.skip("/dev/shm and the test's folder are one file system: links cannot be refused here")
            file.write(b"the result")
            file.flush()
            yield Path(file.name)
    except OSError as error:
        pytest.skip(f"no second file system at /dev/shm to refuse hard links: {error}")


def outbox(tmp_path: Path, name: str = "a.md") -> Iterator[Path]:
    return numbered(tmp_path / "outbox" / name)


def test_a_name_is_given_and_the_file_keeps_its_own(tmp_path: Path, source: Path) -> None:
    given = give_name(source, outbox(tmp_path, "taxes/2026/a.md"))
    assert given == tmp_path / "outbox" / "taxes" / "2026" / "a.md"
    assert given.read_bytes() == source.read_bytes() == b"the result"


def test_a_name_that_is_taken_is_never_overwritten(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / "a.md").write_bytes(b"a person's")
    (folder / "a-2.md").mkdir()
    (folder / "a-3.md").symlink_to("nowhere")
    assert give_name(source, outbox(tmp_path)).name == "a-4.md"
    assert (folder / "a.md").read_bytes() == b"a person's"
    assert names(folder) == ["a-2.md", "a-3.md", "a-4.md", "a.md"]


@pytest.mark.parametrize("others", [0, 1, 3])
def test_after_a_crash_the_name_that_was_given_is_found_again(tmp_path: Path, source: Path, others: int) -> None:
    folder = tmp_path / "outbox"
    folder.mkdir()
    for path, _ in zip(outbox(tmp_path), range(others), strict=False):
        path.write_bytes(b"other")
    first = give_name(source, outbox(tmp_path))
    for _ in range(3):  # killed before it could note the name
        assert give_name(source, outbox(tmp_path)) == first
    assert len(names(folder)) == others + 1


def test_a_file_with_another_link_is_not_taken_for_named(tmp_path: Path, source: Path) -> None:
    """A person's own hard link (cp -al, a backup) makes it look as if the name had been given."""
    os.link(source, tmp_path / "backup")
    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / "a.md").write_bytes(b"a person's")
    given = give_name(source, outbox(tmp_path))
    assert given.read_bytes() == b"the result"
    assert given.parent == folder
    assert (folder / "a.md").read_bytes() == b"a person's"


def test_of_many_runs_each_gets_a_name_of_its_own(tmp_path: Path) -> None:
    sources = []
    for number in range(12):
        path = tmp_path / f"run{number}"
        path.write_bytes(str(number).encode())
        sources.append(path)
    threads = [threading.Thread(target=give_name, args=(path, outbox(tmp_path))) for path in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [path.read_bytes() for path in (tmp_path / "outbox").iterdir()]
    assert sorted(found) == sorted(str(number).encode() for number in range(12))


def test_where_links_are_refused_the_bytes_are_copied(tmp_path: Path, far: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "a.md").write_bytes(b"a person's")
    given = give_name(far, outbox(tmp_path))
    assert (given.name, given.read_bytes()) == ("a-2.md", b"the result")
    assert (tmp_path / "outbox" / "a.md").read_bytes() == b"a person's"
    assert names(tmp_path / "outbox") == ["a-2.md", "a.md"]


def test_where_links_are_refused_a_copy_is_found_again_after_a_crash(tmp_path: Path, far: Path) -> None:
    first = give_name(far, outbox(tmp_path))
    assert give_name(far, outbox(tmp_path)) == first
    assert names(tmp_path / "outbox") == ["a.md"]


def test_where_links_are_refused_a_crash_in_the_middle_leaves_no_empty_result(tmp_path: Path, far: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "a.md").touch()  # reserved, then killed before the bytes came
    given = give_name(far, outbox(tmp_path))
    assert given.read_bytes() == b"the result"
