"""What is remembered of runs whose folder retention removed: one JSON line each in ``.fsagent/removed/2026-11.jsonl``.

Little, but enough that nothing is run twice for it: the run's id (so a slot of a task is known), the key of its file
(so what a sync client delivers again is known), the ``id`` of its command. And which files of the run still lie in
archive/, failed/ and outbox/, so that they can go in their turn. The last line of a run counts. Months are those in
which the line was written; a whole month is forgotten after ``LIVES`` or where all of them hold more than ``MOST``
bytes, and what still names files is written down anew then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fsagent.files.atomic import sync_dir, write_all
from fsagent.model import Run, Trigger
from fsagent.workspace.journal import open_append

LIVES = 2 * 365 * 86400.0
MOST = 100_000_000

Mark = tuple[int, int]
"""Size and mtime (ns) of a file: another one means that it is not ours any more."""


class RemovedRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run without a folder. ``files`` still lie where they were settled, by their path in the workspace; ``leaving``
    are about to be removed. ``gone`` says that the command itself is, or will be in a moment."""

    run: str
    command: str
    trigger: Trigger
    status: str
    finished: Annotated[datetime, Meta(tz=True)]
    id: str = ""
    key: str = ""
    task: str = ""
    result: str = ""
    settled: str = ""
    gone: bool = False
    files: dict[str, Mark] = {}
    leaving: dict[str, Mark] = {}

    def as_run(self, record: str) -> Run:
        """The run as lists have it; ``record`` is the file that it is remembered in, and the answer to where its
        command is settled, where that is gone."""
        settled = record if self.gone else self.settled
        return Run(
            run=self.run, command=self.command, trigger=self.trigger, status=self.status, task=self.task, id=self.id,
            started=self.finished, finished=self.finished, result=self.result, settled=settled,
        )  # fmt: skip


_DECODE = msgspec.json.Decoder(RemovedRun)


class RemovedLog:
    """Appends what is remembered. One process writes; not safe to share between threads."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.path = folder / f"{now.astimezone(UTC):%Y-%m}.jsonl"
        self._fd = -1

    def append(self, runs: Iterable[RemovedRun], *, durable: bool) -> int:
        """Write down some; gives the file's size behind them."""
        if self._fd < 0:
            self.path.parent.mkdir(exist_ok=True)
            self._fd = open_append(self.path)
            sync_dir(self.path.parent)
        write_all(self._fd, b"".join(msgspec.json.encode(run) + b"\n" for run in runs))
        if durable:
            os.fdatasync(self._fd)
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def removed_files(folder: Path) -> list[Path]:
    """The months that there are, oldest first."""
    return sorted(folder.glob("????-??.jsonl"))


def read_removed(path: Path, start: int = 0) -> Iterator[tuple[int, RemovedRun | None]]:
    """What is remembered in one file from a byte on, each with the byte behind it; None for a line that is no record.
    What has no end yet is left out. Raises ``OSError``."""
    with path.open("rb") as file:
        at = file.seek(start)
        for line in file:
            at += len(line)
            if line.endswith(b"\n") and line != b"\n":
                yield at, _decoded(line)


def _decoded(line: bytes) -> RemovedRun | None:
    try:
        return _DECODE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
