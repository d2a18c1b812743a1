"""A run's folder: ``.fsagent/runs/<run-id>/``, the whole story of one run.

::

    claimed.md     the command itself, while the run has possession of it
    command.md     the command as it was dropped, kept once the original has moved on to archive/ or failed/
    steps.jsonl    what happened, in order: claimed, attempt, step, call, result …, finished, published, settled
    result.new     the result, durable and not yet published
    result.md      the result, published
    attachments/   files that came with the command

The first line of ``steps.jsonl`` is the run's envelope. Whoever hands a command in by the side door writes the same
folder under ``.fsagent/drop/``; claiming it is one rename.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.files.atomic import read_file, sync_dir, sync_file, write_all, write_atomic
from fsagent.model import MAX_DOCUMENT, Report, Run, Trigger
from fsagent.workspace.journal import decode_record, open_append
from fsagent.workspace.layout import Layout

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class Envelope(Struct, frozen=True, kw_only=True):
    """Who asked for a run, and where its command lay.

    ``key`` tells a re-delivered file from one dropped anew; ``by`` names the access (a token) that handed it in,
    ``again`` the earlier run that a person wants repeated.
    """

    run: str
    name: str
    trigger: Trigger
    time: datetime
    path: str = ""
    thread: str = ""
    task: str = ""
    slot: datetime | None = None
    report: Report = "always"
    key: str = ""
    by: str = ""
    again: str = ""


def new_run_id(now: datetime) -> str:
    """A name for a run that sorts by time: ``20261122-174512-k3f9q`` (UTC)."""
    tail = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in os.urandom(5))
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{tail}"


class RunFolder:
    """One run on disk. Not shared between threads; ``close`` it when done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path.name
        self.claimed = path / "claimed.md"
        self.command = path / "command.md"
        self.steps = path / "steps.jsonl"
        self.result_new = path / "result.new"
        self.result = path / "result.md"
        self.attachments = path / "attachments"
        self._fd = -1
        self._events: list[dict[str, Any]] | None = None

    def record(self, event: str, **fields: Any) -> None:
        """Append to ``steps.jsonl``. In the system's hands on return: a kill cannot take it away, a power cut can."""
        record = {"event": event, **fields}
        write_all(self._open(), msgspec.json.encode(record) + b"\n")
        if self._events is not None:
            self._events.append(msgspec.to_builtins(record))

    def sync(self) -> None:
        """Make what was recorded durable."""
        os.fdatasync(self._open())

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def events(self) -> list[dict[str, Any]]:
        """What was recorded, without a torn last line; read once, for a run has one writer. Not to be changed."""
        if self._events is None:
            try:
                lines = read_file(self.steps).split(b"\n")
            except FileNotFoundError:
                lines = []
            self._events = [record for line in lines if line and (record := decode_record(line))]
        return self._events

    def envelope(self, events: Sequence[dict[str, Any]] | None = None) -> Envelope | None:
        """The envelope, or None where the folder has none (a crash before anything was claimed)."""
        first = next(iter(self.events() if events is None else events), None)
        if first is None or first.get("event") != "claimed":
            return None
        try:
            return msgspec.convert({key: value for key, value in first.items() if key != "event"}, Envelope)
        except msgspec.ValidationError:
            return None

    def raw(self) -> bytes:
        """The command's bytes, wherever in the folder they lie now; of a giant only enough to refuse it."""
        try:
            return read_file(self.claimed, MAX_DOCUMENT + 1)
        except FileNotFoundError:
            return read_file(self.command, MAX_DOCUMENT + 1)

    def summary(self) -> Run | None:
        """The run as a line of a list, read from its own record; None for a folder without envelope."""
        events = self.events()
        envelope = self.envelope(events)
        if envelope is None:
            return None
        values: dict[str, Any] = {"status": "waiting", "started": envelope.time}
        begun = None
        for event in events:
            kind = event["event"]
            if kind == "attempt":
                values["attempts"] = event.get("n", 0)
            elif kind == "started":
                values["started"] = begun = begun or event.get("time")
                values["status"] = "running"
            elif kind == "retry":
                values["status"] = "waiting"
            elif kind in ("finished", "published", "settled", "understood"):
                values.update(event)
        known = Run.__struct_fields__
        base = {"run": envelope.run, "command": envelope.name, "trigger": envelope.trigger, "thread": envelope.thread,
                "task": envelope.task, "slot": envelope.slot}  # fmt: skip
        data = {**base, **{key: value for key, value in values.items() if key in known}}
        return msgspec.convert(data, Run)

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = open_append(self.steps)
        return self._fd


def make_folder(path: Path, envelope: Envelope) -> RunFolder:
    """Make a run's folder with its envelope and nothing else. Raises ``FileExistsError`` if the run exists."""
    path.mkdir()
    folder = RunFolder(path)
    try:
        folder.record("claimed", **msgspec.structs.asdict(envelope))
    except OSError:  # a full disk: leave nothing behind that never was a run
        folder.close()
        shutil.rmtree(path, ignore_errors=True)
        raise
    return folder


def drop(layout: Layout, envelope: Envelope, command: bytes, attachments: Sequence[Path] = ()) -> bool:
    """Hand a command in by the side door: whole, durable, in one rename. False if this run exists already.

    ``attachments`` are copied. The daemon need not run; nothing is executed here.
    """
    if (layout.runs / envelope.run).exists() or (layout.drop / envelope.run).exists():
        return False
    temporary = layout.tmp / f"{envelope.run}-{os.urandom(3).hex()}"
    folder = make_folder(temporary, envelope)
    try:
        folder.sync()
        folder.close()
        write_atomic(folder.claimed, command, durable=False)
        sync_file(folder.claimed)
        for source in attachments:
            folder.attachments.mkdir(exist_ok=True)
            shutil.copyfile(source, folder.attachments / source.name)
            sync_file(folder.attachments / source.name)
        sync_dir(temporary)
        os.rename(temporary, layout.drop / envelope.run)
    except FileExistsError:
        return False
    except OSError as error:
        if (layout.drop / envelope.run).exists():
            return False
        raise error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_dir(layout.drop)
    return True


def dropped(layout: Layout) -> list[str]:
    """The runs that wait at the side door, oldest first."""
    try:
        return sorted(name for name in os.listdir(layout.drop) if not name.startswith("."))
    except FileNotFoundError:
        return []


def claim_dropped(layout: Layout, run: str) -> RunFolder | None:
    """Take possession of a command at the side door; None if somebody else has it."""
    try:
        os.rename(layout.drop / run, layout.runs / run)
    except OSError:
        if (layout.drop / run).exists() and not (layout.runs / run).exists():
            raise
        return None
    return RunFolder(layout.runs / run)


def discard_empty(folder: RunFolder) -> bool:
    """Remove a run's folder that never got possession of anything; True if it was such a one."""
    if folder.claimed.exists() or folder.command.exists() or folder.result_new.exists() or folder.result.exists():
        return False
    if folder.attachments.exists():
        return False
    shutil.rmtree(folder.path)
    return True
