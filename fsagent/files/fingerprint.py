"""Which files a pattern means, and whether they are what they were: prints of names and times, and of what they hold.

In a pattern ``*``, ``?`` and ``[…]`` stand for a part of one name, ``**`` for any number of folders; one that names a
folder means all that lies in it. Hidden and temporary names, conflict copies of sync clients and links are passed over,
and so are reserved places in the root, unless the pattern begins with their name.

Limits: ``MOST_FILES`` names are looked at. Of files beyond ``MOST_READ`` bytes, and of all beyond ``MOST_IN_ALL`` bytes
together, size and time of change stand for what they hold.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from fsagent.errors import UnsafePathError
from fsagent.files.names import conflict_of, is_temporary, skip_directory
from fsagent.files.paths import SafeRoot

MOST_FILES = 50_000
MOST_READ = 1024 * 1024
MOST_IN_ALL = 32 * MOST_READ
_WILD = re.compile(r"[*?\[]")


class Found(NamedTuple):
    """A file as the disk has it; times in nanoseconds."""

    path: str
    size: int
    mtime: int
    ctime: int


class TooManyFilesError(ValueError):
    """A pattern leads to more names than are looked at."""


def is_pattern(path: str) -> bool:
    """True if a path may mean several files."""
    return _WILD.search(path) is not None


def matching(root: SafeRoot, pattern: str, beat: Callable[[], None]) -> list[Found]:
    """The files that a pattern means, by path. ``beat`` is called every now and then; what it raises ends the search.

    Raises ``UnsafePathError`` for what leaves the root, ``TooManyFilesError``, and ``OSError`` for what cannot be read.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    fixed = next((number for number, part in enumerate(parts) if is_pattern(part)), len(parts))
    place = root.normalize("/".join([*([""] if pattern.startswith("/") else []), *parts[:fixed]]) or ".")
    wanted = parts[fixed:]
    if ".." in wanted:
        raise UnsafePathError(f"{pattern!r}: after a * there can be no ..; write the path without it")
    if not wanted:
        status = root.status(place)
        if status is None:
            return []
        if not stat.S_ISDIR(status.st_mode):
            return [_found(place, status)]
    return sorted(_below(root, "" if place == "." else f"{place}/", wanted or ["**"], beat))


def quick_print(found: Sequence[Found]) -> str:
    """A print of what the disk says; where it is the same, nothing was touched."""
    return _print("\0".join(map(str, each)) for each in found)


def content_print(root: SafeRoot, found: Sequence[Found], beat: Callable[[], None]) -> str:
    """A print of names and contents: the same after a file was only touched, copied anew, or delivered again."""
    return _print(f"{each.path}\0{each.size}\0{held}" for each, held in _held(root, found, beat))


def _held(root: SafeRoot, found: Sequence[Found], beat: Callable[[], None]) -> Iterator[tuple[Found, str]]:
    room = MOST_IN_ALL
    for each in found:
        beat()
        held = str(each.mtime)
        if each.size <= min(MOST_READ, room):
            room -= each.size
            try:
                held = hashlib.sha256(root.read(each.path, MOST_READ)).hexdigest()
            except (OSError, UnsafePathError):
                pass  # gone, or not ours to read: its time must do
        yield each, held


def _below(root: SafeRoot, place: str, wanted: Sequence[str], beat: Callable[[], None]) -> Iterator[Found]:
    """The files beneath a folder (``""``, or with a slash at its end) that fit the rest of a pattern."""
    deep = wanted.index("**") if "**" in wanted else len(wanted)
    ahead, looked = [""], 0
    while ahead:
        beat()
        folder = ahead.pop()
        depth = folder.count("/")
        try:
            entries = root.stat_dir(f"{place}{folder}".rstrip("/") or ".")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except UnsafePathError:
            if not folder:
                raise
            continue  # no name that could be written, or too deep
        looked += len(entries)
        if looked > MOST_FILES:
            raise TooManyFilesError(f"there are more than {MOST_FILES:,} files to look at; name a smaller folder")
        for name, status in entries:
            if not (place or folder) and root.reserved(name):
                continue
            if stat.S_ISDIR(status.st_mode):
                enters = depth >= deep or (depth + 1 < len(wanted) and fnmatchcase(name, wanted[depth]))
                if enters and not skip_directory(name):
                    ahead.append(f"{folder}{name}/")
            elif stat.S_ISREG(status.st_mode) and _fits([*folder.split("/")[:-1], name], wanted) and not _passed(name):
                yield _found(f"{place}{folder}{name}", status)


def _passed(name: str) -> bool:
    return is_temporary(name) or conflict_of(name) is not None


def _fits(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """True if a path below the fixed part of a pattern is like the rest of it, name by name."""
    if not wanted or not names:
        return not wanted and not names
    if wanted[0] == "**":
        return len(wanted) == 1 or any(_fits(names[skipped:], wanted[1:]) for skipped in range(len(names)))
    return fnmatchcase(names[0], wanted[0]) and _fits(names[1:], wanted[1:])


def _found(path: str, status: os.stat_result) -> Found:
    return Found(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _print(lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:32]
