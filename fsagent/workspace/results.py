"""What a run leaves behind: the result for people in outbox/, the command in archive/ or failed/.

Both are handed over by giving the file a further name that nobody has (``files.atomic.give_name``) and leaving a
private copy in the run's folder. Every step can be done again after a crash at any point, and then finds what was
done before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from fsagent.files.atomic import give_name, numbered, sync_dir, write_atomic
from fsagent.files.documents import write_document
from fsagent.files.names import TEMPORARY_PREFIX, conflict_of
from fsagent.model import Status, Usage
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder


class Outcome(Struct, frozen=True, kw_only=True):
    """How a run ended; recorded as ``finished``, from which its result can be written again at any time.

    ``model`` is the model that was asked; several with commas, in the order in which they came.
    """

    status: Status
    answer: str = ""
    error: str = ""
    engine: str = ""
    model: str = ""
    thread: str = ""
    started: datetime
    finished: datetime
    seconds: float = 0.0
    attempts: int = 1
    changed: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    usage: Usage = Usage()
    untrusted: bool = False
    publish: bool = True


def publish(layout: Layout, folder: RunFolder, envelope: Envelope, data: bytes) -> Path | None:
    """Put a result into outbox/, whole and once; the caller makes the name durable (``sync_dir``), then calls ``keep``.

    After a crash it is found again by its bytes, which name the run. Where a person took it away before the crash was
    recovered from, the answer is None, or it is published a second time.
    """
    target = _free_of_files(layout.outbox, result_name(envelope.name))
    if not folder.result_new.exists():
        for path in numbered(target):
            if not os.path.lexists(path):
                break
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return path
        if folder.result.exists():
            return None
        write_atomic(folder.result_new, data, durable=False, synced=True)
    return give_name(folder.result_new, numbered(target), durable=False)


def keep(folder: RunFolder, data: bytes) -> None:
    """Leave the run its own copy of its result; the only one where there is nothing to say to a person."""
    write_atomic(folder.result, data, durable=False)
    folder.result_new.unlink(missing_ok=True)


def place(layout: Layout, folder: RunFolder, envelope: Envelope, outcome: Outcome) -> Path | None:
    """Give the command its last place, archive/ (done) or failed/, with its original bytes and its attachments.

    The caller makes the name durable, then calls ``let_go``. None where nobody dropped a command: a task's own stays
    in the run's folder, for the task file says it all. None too where ``let_go`` was called before.
    """
    if envelope.trigger == "task" or not folder.claimed.exists():
        return None
    done = outcome.status == "done"
    where = layout.archive / f"{outcome.finished:%Y-%m}" if done else layout.failed
    path = give_name(folder.claimed, numbered(_free_of_files(where, safe_name(envelope.name))), durable=False)
    beside = {
        attachment.name: layout.name(give_name(attachment, numbered(path.with_name(attachment.name)), durable=False))
        for attachment in _files(folder.attachments)
    }
    if beside:
        folder.record("placed", attachments=beside)
    return path


def let_go(folder: RunFolder) -> None:
    """Give up possession; the run keeps a copy of the command and its attachments."""
    if not folder.claimed.exists():
        return
    if folder.claimed.stat().st_nlink == 1:  # it has no other place
        os.rename(folder.claimed, folder.command)
        return
    write_atomic(folder.command, folder.raw(), durable=False, synced=True)
    os.unlink(folder.claimed)
    attachments = _files(folder.attachments)
    if attachments:  # which have their last place as long as there is no copy of them
        sync_dir(folder.path)
    for attachment in attachments:
        write_atomic(attachment, attachment.read_bytes(), durable=False, synced=True)


def take_back(layout: Layout, folder: RunFolder) -> None:
    """Remove a settled command from its last place, with its attachments, for another run has possession of it now.

    What a person changed or moved there is theirs and stays.
    """
    places: dict[Path, str] = {}
    for event in folder.events():
        if event["event"] == "placed":
            places |= {folder.attachments / name: place for name, place in event["attachments"].items()}
        elif event["event"] == "settled" and event["settled"]:
            places[folder.command] = event["settled"]
    for copy, place in places.items():
        with suppress(OSError):  # a person's doing
            if (layout.root / place).read_bytes() == copy.read_bytes():
                (layout.root / place).unlink()


def result_name(name: str) -> str:
    """The relative name of a result: the command's own, as markdown; one about a conflict copy is itself none."""
    path = PurePosixPath(safe_name(name))
    original = conflict_of(path.name)
    if original:
        path = path.with_name(f"{PurePosixPath(original).stem}-conflict-copy{PurePosixPath(original).suffix}")
    return str(path if path.suffix.lower() in (".md", ".markdown") else path.with_suffix(".md"))


def safe_name(name: str) -> str:
    """A relative name that stays where it is put: no empty, hidden or upward parts."""
    parts = [part for part in name.replace("\0", "").split("/") if part not in ("", ".", "..")]
    return "/".join(f"_{part}" if part.startswith(".") else part for part in parts) or "command.md"


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir() if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX)
        )
    except FileNotFoundError:
        return []


def _free_of_files(place: Path, name: str) -> Path:
    """``place/name``; where a file stands in the way of a folder, the folders become part of the file's name."""
    path = place / name
    for parent in _between(place, path):
        if parent.exists() and not parent.is_dir():
            return place / name.replace("/", "--")
    return path


def _between(place: Path, path: Path) -> Iterator[Path]:
    for parent in path.parents:
        if parent == place:
            return
        yield parent


def render(envelope: Envelope, outcome: Outcome, body: str) -> bytes:
    fields: dict[str, Any] = {
        "run": envelope.run,
        "command": envelope.path or envelope.name,
        "status": outcome.status,
        "trigger": envelope.trigger,
        "task": envelope.task,
        "thread": outcome.thread,
        "engine": outcome.engine,
        "model": outcome.model,
        "started": outcome.started.isoformat(timespec="seconds"),
        "finished": outcome.finished.isoformat(timespec="seconds"),
        "seconds": round(outcome.seconds, 3),
        "attempts": outcome.attempts if outcome.attempts > 1 else "",
        "changed": list(outcome.changed),
        "remembered": list(outcome.remembered),
        "tokens_in": outcome.usage.tokens_in or "",
        "tokens_out": outcome.usage.tokens_out or "",
        "cost": round(outcome.usage.cost, 6) or ("unknown" if outcome.usage.unpriced else ""),
        "error": outcome.error,
    }
    return write_document({name: value for name, value in fields.items() if value not in ("", [])}, body)
