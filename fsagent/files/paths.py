"""One door to the files of a folder: every path that an engine wrote goes through a ``SafeRoot``.

This module knows no workspace names: what is reserved, and what to do instead, is told to it. How a path is followed
without a race is in ``walk``; what is refused by its name alone, and in which words, is in ``reserved``.

Limits: POSIX only. A folder that someone else moves out of the root *while* a file in it is being written takes that
file along. Mounts beneath the root count as part of it. Whoever can run programs as the same user needs no door.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from fsagent.files.names import TEMPORARY_PREFIX
from fsagent.files.reserved import INSIDE, Reserved, check_text, refuse, without_dots
from fsagent.files.walk import FILE_FLAGS, Roots, Walk


class Entry(NamedTuple):
    """One name in a folder. ``size`` is in bytes and 0 for anything but a file; links are not followed.

    ``name`` may hold surrogates where the disk's name is not UTF-8; such a file is listed but cannot be opened here.
    """

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int


class SafeRoot:
    """The files beneath ``root``, for paths that nobody has vetted.

    ``reserved_write`` and ``reserved_read`` are names directly in the root that may not be written (or not even read);
    as mappings they carry a hint for people: what to do instead. What may not be read may not be written either.
    ``readable`` are patterns, ``*`` for one component, of folders in a place reserved for reading that may be read.
    Reserved names are refused in every spelling that some file system takes for the same, and under any alias that
    leads to the same folder or file on disk.

    Paths are POSIX text relative to the root; an absolute path beneath the root counts as relative. A link is followed
    where its target stays inside (at most 8 in one path). Only ordinary files with one name (no hard links) are opened.
    Every method raises ``UnsafePathError`` in words for people, or ``OSError`` for what the disk itself says.
    """

    def __init__(
        self,
        root: Path,
        reserved_write: Iterable[str] | Mapping[str, str] = (),
        reserved_read: Iterable[str] | Mapping[str, str] = (),
        readable: Iterable[str] = (),
    ) -> None:
        self.path = Path(os.path.realpath(root))
        self._roots = Roots({self.path.parts[1:], Path(os.path.abspath(root)).parts[1:]})
        self._reserved = Reserved(reserved_write, reserved_read, readable)

    def normalize(self, path: str) -> str:
        """The path as policy and messages name it: relative to the root, ``..`` resolved, ``"."`` for the root itself.

        Purely textual: links are not followed, nothing needs to exist, and reserved places are not refused here.
        """
        return "/".join(self._parts(path)) or "."

    def resolve(self, path: str) -> str:
        """The place that ``path`` leads to with every link followed; what is missing from the disk stays as written."""
        parts = self._parts(path)
        with self._walk(path, write=False) as walk:
            rest = walk.go(parts, missing_ok=True)
            return "/".join(without_dots((*walk.names, *rest), path)) or "."

    def open_read(self, path: str) -> int:
        """A descriptor for reading an existing file; the caller closes it."""
        with self._file(path, write=False) as (walk, name):
            return walk.open_file(name, os.O_RDONLY)

    def read(self, path: str, limit: int) -> bytes:
        """The first ``limit`` bytes of a file."""
        with open(self.open_read(path), "rb", buffering=0) as file:
            chunks = []
            while limit > 0 and (chunk := file.read(limit)):
                chunks.append(chunk)
                limit -= len(chunk)
            return b"".join(chunks)

    def status(self, path: str) -> os.stat_result | None:
        """What the disk says of a file or folder, links followed; None where there is none. Nothing is opened."""
        parts = self._parts(path)
        self._reserved.check(parts, path, write=False)
        with self._walk(path, write=False) as walk:
            try:
                rest = walk.go(parts)
                self._reserved.check((*walk.names, *rest), path, write=False)
                if not rest:
                    return os.fstat(walk.folder)
                return os.stat(rest[0], dir_fd=walk.folder, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def open_append(self, path: str) -> int:
        """A descriptor that reads anywhere and writes only at the end; makes the file and its folders if missing."""
        with self._file(path, write=True) as (walk, name):
            try:
                return walk.open_file(name, os.O_RDWR | os.O_APPEND)
            except FileNotFoundError:
                fd = walk.open_file(name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
                try:
                    os.fsync(walk.folder)
                except OSError:
                    os.close(fd)
                    raise
                return fd

    def replace(self, path: str, data: bytes) -> None:
        """Write a whole file, durably: readers see the old content or the new, nothing between, even after a crash.

        Missing folders are made. An existing file keeps its mode and, where we may set it, its owner.
        """
        with self._file(path, write=True) as (walk, name):
            before = walk.look(name)
            temporary = TEMPORARY_PREFIX + os.urandom(8).hex()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS, 0o666, dir_fd=walk.folder)
            try:
                with open(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    if before is not None:
                        _take_after(fd, before)
                    os.fsync(fd)
                os.replace(temporary, name, src_dir_fd=walk.folder, dst_dir_fd=walk.folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=walk.folder)
                raise
            os.fsync(walk.folder)

    def reserved(self, name: str) -> Literal["", "write", "read"]:
        """What a name directly in the root is reserved for: nothing, writing, or even reading."""
        return self._reserved.rank(name)

    def readable(self, part: str) -> list[str]:
        """The folders in places reserved for reading that may be read, with ``part`` in the place of each ``*``."""
        return self._reserved.readable(part)

    def list_dir(self, path: str = ".") -> list[Entry]:
        """What lies in a folder, sorted by name; places reserved for reading are left out."""
        with self._scanned(path) as found:
            return sorted(map(_entry, found))

    def stat_dir(self, path: str = ".") -> list[tuple[str, os.stat_result]]:
        """The same with what the disk says of each; links are not followed. What goes meanwhile is left out."""
        statuses: list[tuple[str, os.stat_result]] = []
        with self._scanned(path) as found:
            for item in found:
                with suppress(FileNotFoundError):
                    statuses.append((item.name, item.stat(follow_symlinks=False)))
        return sorted(statuses, key=lambda each: each[0])

    @contextmanager
    def _scanned(self, path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        parts = self._parts(path)
        self._reserved.check(parts, path, write=False)
        with self._walk(path, write=False) as walk:
            walk.go(parts, folder=True)
            self._reserved.check(walk.names, path, write=False)
            with os.scandir(walk.folder) as found:
                yield (item for item in found if walk.names or not self._reserved.hides(item.name))

    def _walk(self, path: str, *, write: bool) -> Walk:
        return Walk(self.path, self._roots, self._reserved, path, write=write)

    @contextmanager
    def _file(self, path: str, *, write: bool) -> Iterator[tuple[Walk, str]]:
        """Stand in the folder of a file: the walk and the file's name, with everything checked but the file itself."""
        parts = self._parts(path)
        self._reserved.check(parts, path, write=write)
        if not parts or path.endswith("/"):
            refuse(path, "names a folder", "add the name of a file")
        with self._walk(path, write=write) as walk:
            rest = walk.go(parts)
            if not rest:
                refuse(path, "is a folder", "name a file in it")
            self._reserved.check((*walk.names, *rest), path, write=write)
            yield walk, rest[0]

    def _parts(self, path: str) -> tuple[str, ...]:
        """The components of a path relative to the root, after every check that needs no disk."""
        check_text(path)
        if path == "~" or path.startswith("~/"):
            refuse(path, "means the home folder", INSIDE)
        parts = without_dots(path.split("/"), path)
        if not path.startswith("/"):
            return parts
        below = self._roots.below(parts)
        if below is None:
            refuse(path, "lies outside the workspace", INSIDE)
        return below


def _take_after(fd: int, before: os.stat_result) -> None:
    """Give a new file the owner and mode of the one it replaces."""
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.fchown(fd, before.st_uid, before.st_gid)
    os.fchmod(fd, stat.S_IMODE(before.st_mode) & 0o777)


def _entry(item: os.DirEntry[str]) -> Entry:
    with suppress(OSError):  # it may go between the listing and the look
        if item.is_symlink():
            return Entry(item.name, "link", 0)
        if item.is_dir(follow_symlinks=False):
            return Entry(item.name, "folder", 0)
        if item.is_file(follow_symlinks=False):
            return Entry(item.name, "file", item.stat(follow_symlinks=False).st_size)
    return Entry(item.name, "other", 0)
