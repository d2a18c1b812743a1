"""The task files of a workspace, read again only when they change, also across restarts.

A file is known by its identity: times of change, size and inode. What was written within two seconds of being read may
be written again without a sign of it, so it is read once more at the next look (git calls such files racy).

The cache, ``.fsagent/tasks/cache``, keeps of each file its identity and what it was understood as, so that a start
reads only what changed. It costs nothing to lose, is not synced, and one that is damaged, or written by another
version of this code, counts as none.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

import fsagent
from fsagent.errors import DocumentError
from fsagent.files.atomic import read_file, write_atomic
from fsagent.files.names import conflict_of, is_command_name, skip_directory
from fsagent.model import MAX_DOCUMENT, Fault, Task
from fsagent.workspace.layout import readable
from fsagent.workspace.taskfile import print_of, read_task

_DEEPEST = 8
_RACY = 2_000_000_000
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM)
_TITLE = b"fsagent tasks\n"
_DIGEST = 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NIL = Raw(b"\xc0")


class _File(Struct, array_like=True, gc=False):
    """What is known of one task file, in memory and in the cache; times are in nanoseconds.

    ``path`` is seen from the folder, ``raw`` is the task as msgpack, once the cache has it. Where there are ``faults``
    there is no task. A ``racy`` file is read again at the next look.
    """

    path: str
    name: str
    modified: int = 0
    changed: int = 0
    size: int = 0
    inode: int = 0
    racy: bool = True
    print: str = ""
    enabled: bool = True
    raw: Raw = _NIL
    faults: tuple[Fault, ...] = ()


_TASK = msgspec.msgpack.Decoder(Task)
_FILES = msgspec.msgpack.Decoder(list[_File])
_DAMAGED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class TaskFolder:
    """All task files under ``root``; not safe to share between threads.

    ``cache`` is the file of the cache, None for neither reading nor writing one; only who ``keeps`` it writes it.
    ``seconds`` is what the last look took.
    """

    def __init__(self, root: Path, cache: Path | None, *, keeps: bool) -> None:
        self._root, self._cache, self._keeps = root, cache, keeps
        self._files: dict[str, _File] = {}
        self._tasks: dict[str, Task] = {}
        self._usable: dict[str, _File] = {}
        self._broken: dict[str, DocumentError] = {}
        self._looked = False
        self._unsaved = 0
        self._conflicts: list[str] = []
        self.seconds = 0.0

    def scan(self) -> set[str]:
        """Look at every task file; gives the names of the tasks that came, changed or went. A broken file stands for
        itself only."""
        began = time.monotonic()
        if not self._looked:
            self._files = {file.path: file for file in self._load()}
        self._conflicts = []
        found, touched = self._look()
        gone = self._files.keys() - found.keys()
        for path in gone:
            touched.add(self._files[path].name)
            self._tasks.pop(path, None)
        self._files = found
        self._unsaved += len(gone)
        if touched or not self._looked:
            self._index()
        if not self._looked:
            self._looked, touched = True, {*self._usable, *self._broken}
        if self._keeps and self._cache and self._unsaved > 50 + len(found) // 50:
            with suppress(OSError):
                self._save(self._cache)
        self.seconds = time.monotonic() - began
        return touched

    def names(self) -> Collection[str]:
        """The names of all tasks that can be used."""
        return self._usable.keys()

    def get(self, name: str) -> Task | None:
        """The task of this very name, None where there is none that can be used."""
        file = self._usable.get(name)
        if file is None:
            return None
        if file.path not in self._tasks:
            try:
                self._tasks[file.path] = _TASK.decode(file.raw)
            except _DAMAGED:  # the next look reads it
                file.racy, file.print = True, ""
                return None
        return self._tasks[file.path]

    def is_enabled(self, name: str) -> bool:
        """True for a task that can be used and is not switched off; does not decode it."""
        return name in self._usable and self._usable[name].enabled

    def print_of(self, name: str) -> str:
        """The print of a task that can be used, or nothing; does not decode it."""
        return self._usable[name].print if name in self._usable else ""

    def prints(self) -> Iterator[tuple[str, str]]:
        """The tasks that can be used, each with the print of its file; decodes none."""
        return ((name, file.print) for name, file in self._usable.items())

    def conflicts(self) -> list[str]:
        """The sync clients' conflict copies, seen from the folder; none of them is ever read."""
        return sorted(self._conflicts)

    def broken(self) -> dict[str, DocumentError]:
        """The task files that cannot be used, by name."""
        return self._broken

    def _look(self) -> tuple[dict[str, _File], set[str]]:
        """Every file that is there, and the names of those whose content is new."""
        found: dict[str, _File] = {}
        touched: set[str] = set()
        folders = [""]
        while folders:
            folder = folders.pop()
            prefix = f"{folder}/" if folder else ""
            try:
                fd = os.open(self._root / folder, _FOLDER | (os.O_NOFOLLOW if folder else 0))
            except OSError as error:
                if error.errno not in _GONE:  # too many open files, a disk that stumbles: nobody took these away
                    found |= {path: file for path, file in self._files.items() if path.startswith(prefix)}
                continue
            try:
                with os.scandir(fd) as entries:
                    folders += self._look_into(fd, prefix, entries, found, touched)
            finally:
                os.close(fd)
        return found, touched

    def _look_into(
        self, fd: int, prefix: str, entries: Iterator[os.DirEntry[str]], found: dict[str, _File], touched: set[str]
    ) -> list[str]:
        """One folder; gives the folders in it."""
        known, folders = self._files, []
        for entry in entries:
            path = prefix + entry.name
            file = known.get(path)
            if file is None and entry.is_dir(follow_symlinks=False):
                if not skip_directory(entry.name) and path.count("/") < _DEEPEST:
                    folders.append(path)
                continue
            if file is None and not is_command_name(entry.name):
                if conflict_of(entry.name):
                    self._conflicts.append(readable(path))
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if (
                file is None
                or file.racy
                or status.st_mtime_ns != file.modified
                or status.st_ctime_ns != file.changed
                or status.st_size != file.size
                or status.st_ino != file.inode
            ):
                if stat.S_ISDIR(status.st_mode):
                    folders.append(path)
                    continue
                usable = _is_usable(status, file.inode if file else 0)
                file = self._read(fd, entry.name, path) if usable else self._unusable(path, status)
                if file is None:
                    continue
                if path not in known or known[path].print != file.print or known[path].faults != file.faults:
                    touched.add(file.name)
            found[path] = file
        return folders

    def _read(self, folder: int, entry: str, path: str) -> _File | None:
        """A file as it is now, None if it is gone or empty: then somebody is about to write it."""
        known = self._files.get(path)
        try:
            raw, status, now = _bytes_of(folder, entry, known.inode if known else 0)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if known and error.errno not in _GONE:
                known.racy = True
                return known
            why = f"cannot be read: {os.strerror(error.errno or 0)}"
            return _File(path, _name_of(path), faults=(Fault(self._shown(path), why),))
        if not raw:
            if known and status.st_nlink > 1:  # saved in its place, perhaps; once forgotten it would be a stranger
                empty = (Fault(self._shown(path), "is empty"),)
                return _File(path, _name_of(path), inode=status.st_ino, faults=empty)
            return None
        mark = print_of(raw)
        if known is None or known.print != mark:
            known = self._understand(raw, path, mark)
        racy = abs(now - status.st_mtime_ns) < _RACY or abs(now - status.st_ctime_ns) < _RACY
        identity = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, racy)
        if identity != (known.modified, known.changed, known.size, known.inode, known.racy):
            known.modified, known.changed, known.size, known.inode, known.racy = identity
            self._unsaved += 1
        return known

    def _unusable(self, path: str, status: os.stat_result) -> _File:
        """What is never opened, for it may lead out of the workspace, or wait for ever."""
        why = "is a link or a special file, not a file; put the task itself there"
        if stat.S_ISREG(status.st_mode):
            why = (
                "has a second name (a hard link), perhaps outside of the workspace, and is read only where the daemon "
                "knew it with one; copy it to a file of its own"
            )
        return _File(path, _name_of(path), print=why, faults=(Fault(self._shown(path), why),))

    def _understand(self, raw: bytes, path: str, mark: str) -> _File:
        file = _File(path, _name_of(path), print=mark)
        self._tasks.pop(path, None)
        self._unsaved += 1
        try:
            self._tasks[path] = task = read_task(raw, file.name, self._shown(path))
            file.enabled = task.enabled
        except DocumentError as error:
            file.faults = tuple(error.faults)
        return file

    def _shown(self, path: str) -> str:
        return f"{self._root.name}/{readable(path)}"

    def _index(self) -> None:
        """Which file stands for which task. Of two with the same name the first by path does."""
        usable: dict[str, _File] = {}
        broken: dict[str, DocumentError] = {}
        for path in sorted(self._files):
            file = self._files[path]
            if file.name in usable or file.name in broken:
                why = f"would be the task {file.name!r}, as another file is; give it another name"
                broken[readable(path)] = DocumentError([Fault(self._shown(path), why)])
            elif file.faults:
                broken[file.name] = DocumentError(file.faults)
            else:
                usable[file.name] = file
        self._usable, self._broken = usable, dict(sorted(broken.items()))

    def _load(self) -> list[_File]:
        """What the cache knows; nothing if there is any doubt about it."""
        head = _TITLE + _stamp()
        try:
            raw = read_file(self._cache) if self._cache else b""
        except OSError:
            return []
        digest, data = raw[len(head) : len(head) + _DIGEST], raw[len(head) + _DIGEST :]
        if not raw.startswith(head) or digest != _digest(data):
            return []
        try:
            return _FILES.decode(data)
        except _DAMAGED:
            return []

    def _save(self, cache: Path) -> None:
        parts = []
        for path, file in self._files.items():
            with suppress(UnicodeEncodeError):  # a name or a text that no other process could be told
                if path in self._tasks:
                    file.raw = Raw(msgspec.msgpack.encode(self._tasks[path]))
                parts.append(Raw(msgspec.msgpack.encode(file)))
        data = msgspec.msgpack.encode(parts)
        write_atomic(cache, _TITLE + _stamp() + _digest(data) + data, durable=False)
        self._unsaved = 0


def _is_usable(status: os.stat_result, known: int) -> bool:
    """A regular file, no name of which may lead out: it has but one, or is the one (by its inode) that was ``known``
    when it had. So a backup that links what it finds (``cp -al``) breaks no task."""
    return stat.S_ISREG(status.st_mode) and (status.st_nlink == 1 or status.st_ino == known)


def _bytes_of(folder: int, name: str, inode: int) -> tuple[bytes, os.stat_result, int]:
    """The bytes of a regular file (of a giant only enough to refuse it), how it was, and when that was (ns)."""
    fd = os.open(name, _PLAIN, dir_fd=folder)
    try:
        now, status = time.time_ns(), os.fstat(fd)
        if not _is_usable(status, inode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))  # it was replaced since it was looked at
        raw = part = os.read(fd, min(status.st_size, MAX_DOCUMENT) + 1)
        while part and len(raw) <= MAX_DOCUMENT:
            part = os.read(fd, MAX_DOCUMENT + 1 - len(raw))
            raw += part
        return raw, status, now
    finally:
        os.close(fd)


def _name_of(path: str) -> str:
    return readable(os.path.splitext(path)[0])


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


@cache
def _stamp() -> bytes:
    """The version of the code that understands task files: another one may understand them otherwise."""
    home = Path(fsagent.__file__).parent
    files = []
    for folder in (home, home / "files", home / "workspace"):
        with suppress(OSError):
            files += [(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(folder) if entry.is_file()]
    return _digest(repr((fsagent.__version__, sys.hexversion, sorted(files))).encode())
