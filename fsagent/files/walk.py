"""Walking down a folder, component by component, so that what was checked is what is opened.

Each component is opened relative to the folder before it and never through a link; a link is read, and its target is
walked by the same rules. So whoever renames things meanwhile can make a walk fail, but not leave the root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from fsagent.files.reserved import MAX_DEPTH, Place, Reserved, refuse

MAX_LINKS = 8

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link that appeared this very moment",
}


class Roots(tuple[tuple[str, ...], ...]):
    """The ways to write the root as an absolute path, as components."""

    __slots__ = ()

    def below(self, parts: Sequence[str]) -> tuple[str, ...] | None:
        """What is left of an absolute path's components below the root; None if it does not lie there."""
        for root in self:
            if tuple(parts[: len(root)]) == root:
                return tuple(parts[len(root) :])
        return None


class Walk:
    """A way down from the root for one ``path``: the folders that are open, and their names. Closes them at the end.

    ``write`` says what the walk is for: then missing folders are made and the rules for writing apply.
    """

    def __init__(self, root: Path, roots: Roots, reserved: Reserved, path: str, *, write: bool) -> None:
        self.path = path
        self.write = write
        self.names: list[str] = []
        self._roots = roots
        self._reserved = reserved
        self._on_disk: dict[tuple[int, int], Place] | None = None
        self._links = 0
        self._fds = [os.open(root, FOLDER_FLAGS)]

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for fd in self._fds:
            os.close(fd)

    @property
    def folder(self) -> int:
        """The descriptor of the folder where the walk stands."""
        return self._fds[-1]

    def go(self, parts: Sequence[str], *, folder: bool = False, missing_ok: bool = False) -> tuple[str, ...]:
        """Walk; gives what is left: a file's name, or nothing where the path ends in a folder known as such.

        With ``folder`` every part is entered. With ``missing_ok`` the walk stops where the disk has no more, and gives
        all that is left.
        """
        ahead = list(reversed(parts))
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                self._up()
                continue
            target = self._link(part)
            if target is not None:
                ahead.extend(reversed(target))
            elif not ahead and not folder:
                return (part,)
            elif not self._enter(part, missing_ok, last=not ahead):
                return (part, *reversed(ahead))
        return ()

    def look(self, name: str) -> os.stat_result | None:
        """The status of a file in this folder, None if there is none; refuses what must not be touched."""
        try:
            status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        self._check_file(status)
        return status

    def open_file(self, name: str, flags: int) -> int:
        """Open an ordinary file in this folder; looks before (a device must not even be opened) and after."""
        if self.look(name) is None and not flags & os.O_CREAT:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        try:
            fd = os.open(name, flags | FILE_FLAGS, 0o666, dir_fd=self.folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EMLINK):
                raise
            refuse(self.path, "was replaced while it was being opened", "try again")
        try:
            self._check_file(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check_file(self, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            refuse(self.path, "is a folder", "name a file in it")
        if kind != stat.S_IFREG:
            refuse(self.path, f"is {_KINDS.get(kind, 'no ordinary file')}", "use an ordinary file")
        if status.st_nlink > 1:
            why = f"is one of {status.st_nlink} names (hard links) of one file; another may lie outside the workspace"
            refuse(self.path, why, "copy it to a new file and use that")
        if self.write and not status.st_mode & 0o222:
            refuse(self.path, "is write-protected", "write to another file, or make it writable first (chmod u+w)")
        self._check_identity(status)

    def _check_identity(self, status: os.stat_result) -> None:
        """Refuse what is, under another name, the same folder or file as a reserved one."""
        if self._on_disk is None:
            self._on_disk = self._reserved.on_disk(self._fds[0], write=self.write)
        place = self._on_disk.get((status.st_dev, status.st_ino))
        if place is not None and (self.write or not self.names or self.names[0] != place.name):
            self._reserved.refuse(place, self.path, write=self.write)

    def _up(self) -> None:
        if not self.names:
            refuse(self.path, "follows a link that leaves the workspace", "use a file inside the workspace")
        self.names.pop()
        os.close(self._fds.pop())

    def _link(self, name: str) -> Sequence[str] | None:
        """The parts of a link's target; None if ``name`` is no link. An absolute target goes on from the root."""
        try:
            target = os.readlink(name, dir_fd=self.folder)
        except OSError:
            return None
        self._links += 1
        if self._links > MAX_LINKS:
            refuse(self.path, f"follows more than {MAX_LINKS} links", "name the file itself")
        parts = target.split("/")
        if not target.startswith("/"):
            return parts
        while self.names:
            self._up()
        inside = self._roots.below([part for part in parts if part not in ("", ".")])
        return ("..",) if inside is None else inside

    def _enter(self, name: str, missing_ok: bool, *, last: bool) -> bool:
        """Open the next folder; False where it is missing and that is fine."""
        if len(self._fds) > MAX_DEPTH:
            refuse(self.path, f"is more than {MAX_DEPTH} folders deep", "write a shorter path")
        if self.write:
            self._reserved.check((*self.names, name), self.path, write=True)
        try:
            fd = self._open_folder(name)
        except NotADirectoryError:
            if last:
                raise
            refuse(self.path, f"goes through {name!r}, which is no folder", "use a folder there, or another name")
        except FileNotFoundError:
            if not missing_ok:
                raise
            return False
        self._fds.append(fd)
        self.names.append(name)
        self._check_identity(os.fstat(fd))
        return True

    def _open_folder(self, name: str) -> int:
        try:
            return os.open(name, FOLDER_FLAGS, dir_fd=self.folder)
        except FileNotFoundError:
            if not self.write:
                raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=self.folder)
            os.fsync(self.folder)
        return os.open(name, FOLDER_FLAGS, dir_fd=self.folder)
