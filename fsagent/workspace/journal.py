"""The journal: an append-only record of what happened, one JSON object a line, one file a month.

``.fsagent/journal/2026-11.jsonl``. Records are ordered as they were written; a crash can only tear the last one. Each
carries its number and a hash over itself and the record before it (``chain``), across months, restarts and torn lines;
who reads does not verify, ``journalcheck`` does.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from fsagent.files.atomic import append_whole, is_doubted, sync_written, write_all
from fsagent.secrets import Redactor
from fsagent.workspace.chain import HEAD_EVERY, Link, chain, newest_link, write_head

Listener = Callable[[dict[str, Any]], None]
_POSITION = re.compile(r"([0-9]{4}-[0-9]{2}):([0-9]{1,18})")
_BLOCK = 64 * 1024


class Journal:
    """Appends records; safe to share between threads. One process writes, any number may read.

    ``listener`` sees every record after it was written, for the line on the daemon's screen; so does who is added by
    ``heard_by``. Values that ``redactor`` knows are masked in all of them; it may be set at any time, and holds for the
    records from then on.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime], listener: Listener | None = None) -> None:
        self._folder = folder
        self._now = now
        self._listeners = [listener] if listener else []
        self.redactor: Redactor | None = None
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._fd = -1
        self._month = ""
        self._last: Link | None = None  # None until it is read from the files
        self._written = 0
        self._synced = 0
        self._next_head = 0.0

    def append(self, event: str, *, durable: bool = False, **fields: Any) -> None:
        """Record that something happened; ``durable`` returns only when a power cut cannot take it away.

        Threads that ask for it at the same time share one sync.
        """
        now = self._now().astimezone(UTC)
        record = {"time": now, "event": event, **fields}
        if self.redactor:
            record = self.redactor.value(record)
        encoded = msgspec.json.encode(record)
        with self._lock:
            month = f"{now:%Y-%m}"
            if month != self._month:
                self._open(month)
            self._write(encoded)
            self._written += 1
        if durable:
            self.sync()
        for listener in self._listeners:
            listener(record)

    def tell(self, event: str, **fields: Any) -> bool:
        """As ``append``; but where it cannot be written, the listeners hear it all the same. False then."""
        try:
            self.append(event, **fields)
        except OSError:
            record = {"time": self._now().astimezone(UTC), "event": event, **fields}
            for listener in self._listeners:
                listener(self.redactor.value(record) if self.redactor else record)
            return False
        return True

    def heard_by(self, listener: Listener) -> None:
        """Let somebody else see the records from now on, in the thread that writes them; so it must not wait."""
        self._listeners.append(listener)

    def unheard_by(self, listener: Listener) -> None:
        """That one sees no further records."""
        self._listeners = [each for each in self._listeners if each != listener]

    def sync(self) -> None:
        """Make durable what this thread has appended."""
        mine = self._written
        with self._sync_lock:
            if self._synced < mine:
                with self._lock:  # a copy, for a new month closes the file that this thread waits for
                    reach, last, path = self._written, self._last, self._path(self._month)
                    doubted = is_doubted(self._fd)
                    if doubted:  # nobody may append meanwhile
                        sync_written(path, self._fd)
                        self._let_go()
                    fd = -1 if doubted else os.dup(self._fd)
                if not doubted:
                    try:
                        sync_written(path, fd)
                    finally:
                        os.close(fd)
                self._synced = reach
                if last and time.monotonic() >= self._next_head:
                    self._next_head = time.monotonic() + HEAD_EVERY
                    write_head(self._folder, last)

    def close(self) -> None:
        """Sync and close; a later ``append`` opens it again."""
        with self._sync_lock, self._lock:
            try:
                if self._fd >= 0:
                    sync_written(self._path(self._month), self._fd)
                    if self._last:
                        write_head(self._folder, self._last)
            finally:
                self._let_go()
                self._synced = self._written

    def _write(self, record: bytes) -> None:
        line, link = chain(self._last or newest_link(self._folder), record)
        append_whole(self._fd, line)
        self._last = link

    def _open(self, month: str) -> None:
        if self._fd >= 0:
            sync_written(self._path(self._month), self._fd)
            self._synced = self._written
            self._let_go()
        self._fd, self._month = open_append(self._path(month)), month

    def _let_go(self) -> None:
        """The next record opens the file again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._month = -1, ""

    def _path(self, month: str) -> Path:
        return self._folder / f"{month}.jsonl"


def open_append(path: Path) -> int:
    """Open a file of records for appending; a last line that a crash tore is closed off first."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            write_all(fd, b"\n")
    except OSError:
        os.close(fd)
        raise
    return fd


class Entry(Struct, frozen=True):
    """A record as it stands in the journal, and the position behind it, by which reading goes on: ``2026-11:1234``."""

    position: str
    line: bytes


def end_of(folder: Path) -> str:
    """The position behind the last record that is whole."""
    last = max((path for path in folder.glob("????-??.jsonl")), default=None)
    if last is None:
        return "0000-00:0"
    with last.open("rb") as file:
        end, found = file.seek(0, os.SEEK_END), 0
        while end and not found:
            start = max(0, end - _BLOCK)
            file.seek(start)
            line_end = file.read(end - start).rfind(b"\n")
            found, end = (start + line_end + 1 if line_end >= 0 else 0), start
    return f"{last.stem}:{found}"


def read_after(folder: Path, position: str, most: int = 1000) -> list[Entry]:
    """The records behind a position, in order, at most so many. Raises ``ValueError`` for what is no position.

    A file that is gone is passed over; one that became shorter is read from its beginning, so that nothing is missed.
    What is no record (torn or damaged) is left out. Limit: where the clock was set back over the end of a month, what
    is written until then comes before positions of the later month, and is not seen from there.
    """
    known = _POSITION.fullmatch(position)
    if known is None:
        raise ValueError(f"{position!r} is no position in the journal")
    found: list[Entry] = []
    for path in sorted(path for path in folder.glob("????-??.jsonl") if path.stem >= known[1]):
        start = int(known[2]) if path.stem == known[1] else 0
        with suppress(FileNotFoundError), path.open("rb") as file:
            found += islice(_entries(path.stem, file, start), most - len(found))
    return found


def _entries(month: str, file: BinaryIO, start: int) -> Iterator[Entry]:
    at = start if start <= os.fstat(file.fileno()).st_size else 0
    if at:
        file.seek(at - 1)
        at += len(file.readline()) - 1  # nothing but the line's end, if it was a position of ours
    while (line := file.readline()).endswith(b"\n"):
        at += len(line)
        if decode_record(line) is not None:
            yield Entry(f"{month}:{at}", line[:-1])


def decode_record(line: bytes) -> dict[str, Any] | None:
    """One record, None where a line is none."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
