"""A run's folder: ``.fsagent/runs/<run-id>/``, the whole story of one run.

::

    claimed.md     the command itself, while the run has possession of it
    command.md     the command as it was dropped, kept once the original has moved on to archive/ or failed/
    steps.jsonl    what happened, in order: claimed, attempt, step, call, result …, finished, published, settled
    result.new     the result, durable and not yet published
    result.md      the result, published
    attachments/   files that came with the command
    outputs/       what tools brought that was too long to be shown whole
    progress.md    what a model says while it says it
    cancel.json    somebody wants the run to end (``Cancel``)
    notices.json   what the run told the owner: prints of the texts, and the names of the notices
    again          the name of the run that repeats this one

The first line of ``steps.jsonl`` is the run's envelope. Whoever hands a command in by the side door writes the same
folder under ``.fsagent/drop/``; claiming it is one rename.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.files.atomic import append_whole, read_file, sync_dir, sync_file, sync_written, write_atomic
from fsagent.model import MAX_DOCUMENT, Report, Run, Trigger
from fsagent.workspace.journal import decode_record, open_append
from fsagent.workspace.layout import Layout

_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"  # in the order in which names are sorted
_RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")


class Envelope(Struct, frozen=True, kw_only=True):
    """Who asked for a run, and where its command lay.

    ``key`` tells a re-delivered file from one dropped anew; ``by`` names the access (a token) that handed it in,
    ``again`` the earlier run that a person wants repeated, ``given`` what the gates of a task brought.
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
    given: str = ""


class Cancel(Struct, frozen=True, kw_only=True):
    """Who wants a run to end, and since when."""

    time: datetime
    trigger: Trigger
    by: str = ""

    def __str__(self) -> str:
        return f"cancelled by {self.trigger}" + (f" ({self.by})" if self.by else "")


def is_run_id(text: str) -> bool:
    """True for what may be the name of a run: one plain file name."""
    return _RUN_ID.fullmatch(text) is not None


def new_run_id(now: datetime) -> str:
    """A name for a run that sorts by time, to some 30 µs: ``20261122-174512-h7qk3f9q`` (UTC)."""
    part = now.microsecond * 32**3 // 1_000_000
    tail = [part >> 10, part >> 5, part, *os.urandom(5)]
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{''.join(_ALPHABET[number % 32] for number in tail)}"


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
        self.outputs = path / "outputs"
        self.progress = path / "progress.md"
        self.cancel = path / "cancel.json"
        self.again = path / "again"
        self._fd = -1
        self._anchored = False
        self._events: list[dict[str, Any]] | None = None

    def record(self, event: str, **fields: Any) -> None:
        """Append to ``steps.jsonl``. In the system's hands on return: a kill cannot take it away, a power cut can.

        Raises ``OSError``, and then nothing was appended.
        """
        record = {"event": event, **fields}
        append_whole(self._open(), msgspec.json.encode(record) + b"\n")
        if self._events is not None:
            self._events.append(msgspec.to_builtins(record))

    def sync(self) -> None:
        """Make what was recorded durable. Raises ``OSError``; asked again, it writes all of it anew."""
        if sync_written(self.steps, self._open()):
            self.close()

    def anchor(self) -> None:
        """Make it durable that the run has possession of its command, and of all that came with it. Raises ``OSError``.

        Due before anything that a second run of the command would do again.
        """
        if self._anchored:
            return
        envelope = self.envelope()
        at_the_side_door = not (envelope and envelope.trigger == "inbox")
        for place in (self.attachments, self.path, *([self.path.parent] if at_the_side_door else [])):
            if place.is_dir():
                sync_dir(place)
        self._anchored = True

    def keep(self, name: str, text: str) -> Path:
        """Keep a long output under a plain name; gives its path."""
        self.outputs.mkdir(exist_ok=True)
        write_atomic(self.outputs / name, text.encode("utf-8", "replace"), durable=False)
        return self.outputs / name

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
            records = [record for line in lines if line and (record := decode_record(line))]
            self._events = [record for record in records if isinstance(record.get("event"), str)]
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

    def cancelled(self) -> Cancel | None:
        """Who wants this run to end, if anybody does."""
        return _read_cancel(self.cancel)

    def ended(self) -> bool:
        """True once it is recorded how the run ended, though its result may not be published yet."""
        return any(event.get("event") in ("finished", "settled") for event in self.events())

    def settled(self) -> bool:
        """True once everything is done about this run."""
        return any(event.get("event") == "settled" for event in self.events())

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
            elif kind in ("retry", "held", "asked"):
                values["status"] = "waiting"
            elif kind in ("finished", "published", "settled", "understood"):
                values.update(event)
        known = Run.__struct_fields__
        base = {"run": envelope.run, "command": envelope.name, "trigger": envelope.trigger, "thread": envelope.thread,
                "task": envelope.task, "slot": envelope.slot}  # fmt: skip
        data = {**base, **{key: value for key, value in values.items() if key in known}}
        try:
            return msgspec.convert(data, Run)
        except msgspec.ValidationError:  # damaged on the disk: what the envelope tells is still true
            return msgspec.convert({**base, "status": "interrupted", "started": envelope.time}, Run)

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


def drop(layout: Layout, envelope: Envelope, command: bytes, attachments: Mapping[str, Path] | None = None) -> bool:
    """Hand a command in by the side door: whole, durable, in one rename. False if this run exists already.

    ``attachments`` maps plain file names to files, which are copied. The daemon need not run; nothing is executed here.
    """
    if exists(layout, envelope.run):
        return False
    temporary = layout.tmp / f"{envelope.run}-{os.urandom(3).hex()}"
    folder = make_folder(temporary, envelope)
    try:
        folder.sync()
        write_atomic(folder.claimed, command, durable=False, synced=True)
        for name, source in (attachments or {}).items():
            folder.attachments.mkdir(exist_ok=True)
            shutil.copyfile(source, folder.attachments / name)
            sync_file(folder.attachments / name)
        if attachments:
            sync_dir(folder.attachments)
        sync_dir(temporary)
        os.rename(temporary, layout.drop / envelope.run)
    except OSError:
        if exists(layout, envelope.run):
            return False
        raise
    finally:
        folder.close()
        shutil.rmtree(temporary, ignore_errors=True)
    sync_dir(layout.drop)
    return True


def exists(layout: Layout, run: str) -> bool:
    """True if a run of this name was handed in. Looks at the side door first, for that is the way they take."""
    return (layout.drop / run).exists() or (layout.runs / run).exists()


def dropped(layout: Layout) -> list[str]:
    """The runs that wait at the side door, oldest first."""
    try:
        return sorted(name for name in os.listdir(layout.drop) if not name.startswith("."))
    except FileNotFoundError:
        return []


def claim_dropped(layout: Layout, run: str) -> RunFolder | None:
    """Take possession of a command at the side door; None if somebody else has it.

    Where two handed in the same run in the same instant, the second copy is thrown away.
    """
    try:
        os.rename(layout.drop / run, layout.runs / run)
    except OSError:
        if (layout.runs / run).exists():
            shutil.rmtree(layout.drop / run, ignore_errors=True)
        elif (layout.drop / run).exists():
            raise
        return None
    return RunFolder(layout.runs / run)


def ask_to_cancel(layout: Layout, run: str, cancel: Cancel) -> None:
    """Ask the daemon to end a run. Counts also if none runs now: the next one does it."""
    layout.cancel.mkdir(exist_ok=True)
    write_atomic(layout.cancel / run, msgspec.json.encode(cancel) + b"\n")


def take_cancels(layout: Layout) -> Iterator[str]:
    """Put what was asked for into the runs' own folders, where it is part of their story; gives the runs.

    What is no wish, or comes too late, is thrown away; a file under a name that no run can have is left alone.
    """
    try:
        names = sorted(filter(is_run_id, os.listdir(layout.cancel)))
    except FileNotFoundError:
        return
    for name in names:
        if _take_cancel(layout, name):
            yield name


def _take_cancel(layout: Layout, run: str) -> bool:
    wish = layout.cancel / run
    for folder in (RunFolder(layout.drop / run), RunFolder(layout.runs / run)):
        if folder.path.is_dir() and not folder.ended() and _read_cancel(wish):
            os.rename(wish, folder.cancel)
            return True
    try:
        wish.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        pass  # a folder: nobody's wish, nor ours to remove
    return False


def _read_cancel(path: Path) -> Cancel | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cancel)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def discard_empty(folder: RunFolder) -> bool:
    """Remove a run's folder that never got possession of anything; True if it was such a one."""
    if folder.claimed.exists() or folder.command.exists() or folder.result_new.exists() or folder.result.exists():
        return False
    if folder.attachments.exists() and any(folder.attachments.iterdir()):
        return False
    shutil.rmtree(folder.path)
    return True
