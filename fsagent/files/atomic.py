"""How a file comes into being, changes and gets its name, so that no reader and no crash ever sees half of it.

Limits: what was synced survives a power cut as far as the disk keeps its word; what was not may vanish, never tear.
A sync that failed is never made up for by a second one: the system may have thrown away what it could not write, and
then says that all is well. So a file whose sync failed is doubted until its bytes lie in another (``sync_written``).
Temporary files lie beside their target under a name that every scan leaves alone (``names.is_temporary``).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from fsagent.files.names import TEMPORARY_PREFIX

MAX_NAME_BYTES = 255

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EACCES}

_doubted: set[tuple[int, int]] = set()  # files, by device and inode; one that is gone costs its successor a copy
_torn: dict[tuple[int, int], tuple[int, bytes]] = {}  # files that end with a part of this, and where it begins


def sync_dir(path: Path) -> None:
    """Make the names in a folder durable. Does nothing where the system cannot sync folders."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def make_folders(path: Path) -> None:
    """Make a folder, with those above it that are missing, each durable in the one above. Raises ``OSError``."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_dir(folder.parent)


def write_atomic(
    path: Path, data: bytes, *, durable: bool = True, synced: bool = False, mode: int | None = None
) -> None:
    """Replace or create ``path`` with ``data`` in one instant, keeping its mode if it exists.

    ``durable`` syncs data and folder before returning, ``synced`` the data alone, before it has its name. Only for
    files that we own: it overwrites.
    """
    if mode is None:
        try:
            mode = os.stat(path).st_mode & 0o7777
        except FileNotFoundError:
            pass
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(6).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else mode)
    try:
        try:
            write_all(fd, data)
            if mode is not None:
                os.fchmod(fd, mode)
            if durable or synced:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the same fault; what it was is told below
            os.unlink(temporary)
        raise
    if durable:
        sync_dir(path.parent)


def write_new(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Create ``path``, whole or not at all. Raises ``FileExistsError`` if the name is taken, by whatever it is."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(6).hex()}")
    write_atomic(temporary, data, durable=False, synced=durable)
    try:
        _link(temporary, path)
    finally:
        with suppress(OSError):  # the file is there: a name too many must not make it look as if it were not
            os.unlink(temporary)
    if durable:
        sync_dir(path.parent)


def give_name(source: Path, candidates: Iterator[Path], *, durable: bool = True) -> Path:
    """Give the file at ``source`` a further name: the first of ``candidates`` that nobody has.

    Never overwrites. Called again after a crash it finds the name that it gave before, so a file is named once; only
    if somebody moved that name away in between may it be named anew. ``source`` itself must be synced already; where
    ``durable`` is False the caller has to sync the folder of the new name.
    Without hard links (some network and FAT file systems) the bytes are copied to a name reserved first.
    """
    status = os.stat(source)
    misses = 0
    for candidate in candidates:
        if status.st_nlink > 1:
            misses = misses + 1 if not _same(candidate, status) else -1
            if misses == -1:
                return candidate
            if misses < 20 and os.path.lexists(candidate):
                continue
        try:
            _link(source, candidate)
        except FileExistsError:
            if _is_our_copy(candidate, source):
                return candidate
            continue
        except FileNotFoundError:
            make_folders(candidate.parent)
            try:
                _link(source, candidate)
            except FileExistsError:
                continue
        if durable:
            sync_dir(candidate.parent)
        return candidate
    raise FileExistsError(errno.EEXIST, "no name is free", str(source))


def numbered(path: Path) -> Iterator[Path]:
    """``a.md``, ``a-2.md``, ``a-3.md`` …, each short enough for a file system."""
    stem, suffix = os.path.splitext(path.name)
    for number in count(1):
        tail = (f"-{number}" if number > 1 else "") + suffix
        room = MAX_NAME_BYTES - len(os.fsencode(tail))
        yield path.with_name(os.fsdecode(os.fsencode(stem)[:room]) + tail)


def read_file(path: Path, limit: int = sys.maxsize) -> bytes:
    """A small file, at most its first ``limit`` bytes; without what Python's own ``open`` asks the system besides."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_fd(fd, limit)
    finally:
        os.close(fd)


def is_doubted(fd: int) -> bool:
    """True for a file whose sync failed."""
    return bool(_doubted) and _identity(fd) in _doubted


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def sync_written(path: Path, fd: int) -> bool:
    """Make durable what was written to ``path`` through ``fd``; True if the file is another one now, to be opened anew.

    Raises ``OSError`` where the disk does not take it. Whoever asks again then has the bytes written to a new file.
    """
    if is_doubted(fd):
        _write_anew(path, fd)
        _doubted.discard(_identity(fd))
        return True
    try:
        os.fdatasync(fd)
    except OSError:
        _doubted.add(_identity(fd))
        raise
    return False


def read_fd(fd: int, limit: int) -> bytes:
    """What can be read from here on, at most ``limit`` bytes."""
    parts = []
    while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def open_plain(path: Path) -> int:
    """Open an ordinary file that people keep in the workspace, for reading; never waits.

    Raises ``OSError`` with words for what is a link (which may lead anywhere), a folder, a FIFO, a device.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise
        kind = "a link" if error.errno != errno.ENXIO else "a special file"
        raise OSError(error.errno, f"it is {kind}, not a file; put the file itself there", str(path)) from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a special file; put a file there", str(path))


def read_plain(path: Path, limit: int) -> bytes:
    """At most the first ``limit`` bytes of what ``open_plain`` opens."""
    fd = open_plain(path)
    try:
        return read_fd(fd, limit)
    finally:
        os.close(fd)


def swap(one: Path, other: Path) -> bool:
    """Exchange two files' names in one instant; False, with nothing done, where the system cannot (Linux can)."""
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange)) == 0)


def sync_file(path: Path) -> None:
    """Make the content of a file durable that is thrown away if this fails."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_anew(path: Path, source: int) -> None:
    """The same bytes in a new file in the same place."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(6).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, os.fstat(source).st_mode & 0o7777)
    try:
        try:
            at = 0
            while part := os.pread(source, 1 << 20, at):
                write_all(fd, part)
                at += len(part)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_dir(path.parent)


def append_whole(fd: int, data: bytes) -> None:
    """Append all of ``data`` to a file that nobody else writes, or nothing. Raises ``OSError``; what was written of it
    is cut off, if not at once, then before the next time."""
    if _torn and (identity := _identity(fd)) in _torn:
        before, part = _torn[identity]
        there = os.pread(fd, len(part) + 1, before)
        if there and part.startswith(there.removesuffix(b"\n")):  # and nothing else, in another file by that number
            os.ftruncate(fd, before)
        del _torn[identity]
    before = os.fstat(fd).st_size
    try:
        write_all(fd, data)
    except OSError:
        try:
            os.ftruncate(fd, before)
        except OSError:
            _torn[_identity(fd)] = before, data
        raise


def overwrite(path: Path, data: bytes) -> None:
    """Write over an existing file, in its place: what works where the disk is full, for its room is taken already.

    Only for what tells how things are, and may be seen half for a moment. Raises ``OSError``.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        write_all(fd, data)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        write_atomic(target, source.read_bytes())


def _is_our_copy(path: Path, source: Path) -> bool:
    """True if ``path`` holds the bytes of ``source`` and lies where links are refused: what a link would have told."""
    probe = path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(6).hex()}")
    try:
        if not path.is_file() or path.is_symlink() or path.read_bytes() != source.read_bytes():
            return False
        os.link(source, probe, follow_symlinks=False)
    except OSError as error:
        return error.errno in _NO_LINKS
    os.unlink(probe)
    return False


def _same(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False
