"""How a face hands things in: commands, retries, wishes to cancel. By files only, whether a daemon runs or not."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.errors import ConflictError, DocumentError, NotFoundError, ToolError
from fsagent.faces.views import settings_of
from fsagent.files.atomic import write_new
from fsagent.files.documents import Document, read_document, write_document
from fsagent.files.yamltext import plain
from fsagent.model import Fault, Task, Trigger
from fsagent.workspace.commands import is_attachment, peek, read_command
from fsagent.workspace.hosts import owner_elsewhere
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Cancel, Envelope, RunFolder, ask_to_cancel, drop, is_run_id, new_run_id

KEYS_LIVE = 7 * 86_400.0


class Caller(Struct, frozen=True):
    """Who hands something in: the trigger, whose policy counts, and the name of the access that was used (or "")."""

    trigger: Trigger
    name: str = ""


class HandedIn(Struct, frozen=True):
    """A command that is at the door: its run, its relative name, and whether it had been handed in before."""

    run: str
    command: str
    known: bool = False


def check_owner(layout: Layout) -> None:
    """Raise ``ConflictError`` where another host runs the agent in this folder.

    What is handed in by this side door does not sync, so it would wait here for ever. Nor does it become a file in
    inbox/: its trigger would be another one then, with more rights than the caller has.
    """
    owner = owner_elsewhere(layout)
    if owner:
        raise ConflictError(
            f"the agent in this folder is run by {owner.host}, not on this machine. Ask it there, or drop a file into "
            "inbox/, which syncs; to have it run here: fsagent run --take-over"
        )


def compose(text: str, fields: Mapping[str, Any], attachments: Mapping[str, Path] | None = None) -> bytes:
    """A command file from a text (markdown, perhaps with frontmatter of its own) and settings that come beside it.

    What comes beside it counts; attachments are named in the command if it does not do that itself. Raises
    ``DocumentError`` for everything that can be told before an engine looks at it: with the line in the text, where the
    text is at fault.
    """
    raw, files = _encode(text), attachments or {}
    beside = {name: value for name, value in fields.items() if value not in ("", None, (), [])}
    if not beside and not files:
        check(raw, files)
        return raw
    _check_names(files)
    _refuse([fault for fault in _faults(raw, files) if fault.line])
    if files:
        named = peek(raw, "command")
        beside["attachments"] = list(dict.fromkeys((*(named.attachments if named else ()), *files)))
    document = read_document(raw, "command")
    raw = _write({name: plain(value) for name, value in document.fields.items()} | beside, document.body)
    _refuse([Fault(fault.file, fault.message, field=fault.field) for fault in _faults(raw, files)])
    return raw


def check(raw: bytes, attachments: Mapping[str, Path]) -> None:
    """Raise ``DocumentError`` with all that is wrong with a command, as far as that can be seen without tools."""
    _check_names(attachments)
    _refuse(_faults(raw, attachments))


def hand_in(
    layout: Layout,
    raw: bytes,
    caller: Caller,
    *,
    thread: str = "",
    key: str = "",
    attachments: Mapping[str, Path] | None = None,
) -> HandedIn:
    """Drop a command at the side door. Its result will be ``outbox/<trigger>/<run>.md``.

    With a ``key`` the same command is handed in once, however often this is called: also after a crash in the middle,
    for the key is kept (for a week) before the command is dropped. Raises ``ConflictError`` where the key came with
    another command, ``DocumentError`` for an attachment that no disk can hold under its name.
    """
    check_owner(layout)
    _check_names(attachments or {})
    now = datetime.now(UTC)
    run, known = new_run_id(now), False
    if key:
        run, known = _run_of_key(layout, _whose(caller, key), _print(raw, thread, attachments or {}), run)
    envelope = Envelope(
        run=run, name=f"{caller.trigger}/{run}.md", trigger=caller.trigger, time=now, thread=thread, by=caller.name
    )
    drop(layout, envelope, raw, attachments)
    return HandedIn(run, envelope.name, known)


def act(layout: Layout, caller: Caller, tool: str, args: Mapping[str, str], body: str) -> HandedIn:
    """Hand in a command of one tool call. An argument ``{{ body }}`` stands for ``body``, whatever that holds."""
    return hand_in(layout, _write({"steps": [{tool: dict(args)}]}, body), caller)


def cancel(layout: Layout, run: str, caller: Caller) -> None:
    """Ask for the end of a run that waits or is under way. Raises ``ConflictError`` where it has ended already."""
    check_owner(layout)
    folder = find_run(layout, run)
    if folder.ended():
        summary = folder.summary()
        raise ConflictError(f"run {run} has ended already ({summary.status if summary else 'damaged'})")
    ask_to_cancel(layout, run, Cancel(time=datetime.now(UTC), trigger=caller.trigger, by=caller.name))


def retry(layout: Layout, run: str, caller: Caller) -> HandedIn:
    """Run a command again that gave up: as if a person had moved it from failed/ back, but by the side door.

    Asked twice, it is done once. What lies in failed/ is removed by the daemon when it takes the new run up. Raises
    ``ConflictError`` for a run that is not settled, or was done.
    """
    check_owner(layout)
    folder = find_run(layout, run)
    summary, envelope = folder.summary(), folder.envelope()
    if summary is None or envelope is None:
        raise ConflictError(f"run {run} is damaged; see 'fsagent doctor'")
    if not folder.settled():
        raise ConflictError(f"run {run} has not ended yet ({summary.status})")
    if summary.status == "done":
        raise ConflictError(f"run {run} was done; to have it done once more, hand the command in anew")
    now = datetime.now(UTC)
    new, known = _once(folder.again, new_run_id(now))
    trigger: Trigger = "task" if envelope.task else caller.trigger
    again = msgspec.structs.replace(
        envelope, run=new, trigger=trigger, time=now, slot=None, key="", by=caller.name, again=run
    )
    files = {path.name: path for path in sorted(folder.attachments.glob("*"))}
    drop(layout, again, folder.raw(), files)
    return HandedIn(new, again.name, known)


def run_task(layout: Layout, name: str, caller: Caller) -> HandedIn:
    """Hand a task's request in now, beside its slots. Raises ``NotFoundError``, ``DocumentError`` for a broken file."""
    check_owner(layout)
    task = find_task(layout, name)
    now = datetime.now(UTC)
    run = new_run_id(now)
    from fsagent.workspace.tasks import TaskBook

    TaskBook(layout).request(task, None, run, settings_of(layout).local(now), by=caller.name)
    envelope = find_run(layout, run).envelope()
    return HandedIn(run, envelope.name if envelope else task.name)


def find_task(layout: Layout, name: str) -> Task:
    """A task by its name. Raises ``NotFoundError``, ``DocumentError`` for a broken file."""
    from fsagent.workspace.tasks import TaskBook

    book = TaskBook(layout)
    book.refresh()
    wanted = name.removeprefix("tasks/").removesuffix(".md")
    if wanted in book.broken():
        raise book.broken()[wanted]
    try:
        return book.get(name)
    except ToolError as error:
        raise NotFoundError(str(error)) from None


def find_run(layout: Layout, run: str) -> RunFolder:
    """The folder of a run with its events read, also of one that still waits at the side door.

    Raises ``NotFoundError``. From the side door the daemon may take the folder away at any moment.
    """
    for place in (layout.drop, layout.runs):  # in this order, for that is the way they take: perhaps just now
        folder = RunFolder(place / run)
        if is_run_id(run) and folder.path.is_dir() and (folder.events() or folder.path.is_dir()):
            return folder
    raise NotFoundError(f"there is no run {run!r}")


def is_published(layout: Layout, run: str) -> bool:
    """True once a run's result is where it stays, and the run says where that is."""
    folder = RunFolder(layout.runs / run)
    return is_run_id(run) and folder.result.exists() and any(event["event"] == "published" for event in folder.events())


def result_of(layout: Layout, run: str) -> Document | None:
    """The result of a run, if it is published."""
    if not is_run_id(run):
        return None
    path = layout.runs / run / "result.md"
    try:
        return read_document(path.read_bytes(), path.name)
    except FileNotFoundError:
        return None


def wait_for(layout: Layout, run: str, seconds: float) -> Document | None:
    """The result of a run as soon as it is published; None if that takes longer than ``seconds``."""
    end, pause = time.monotonic() + seconds, 0.002
    while (result := result_of(layout, run)) is None and time.monotonic() < end:
        time.sleep(pause)  # to start watching would take longer than most answers
        pause = min(pause * 1.2, 0.2)
    return result


def forget_old_keys(layout: Layout, now: float) -> None:
    """Remove the keys that are older than ``KEYS_LIVE``; ``now`` in seconds since 1970."""
    if not layout.keys.is_dir():
        return
    for entry in list(os.scandir(layout.keys)):
        with suppress(FileNotFoundError):  # somebody else forgets them too
            if entry.is_file(follow_symlinks=False) and now - entry.stat().st_mtime > KEYS_LIVE:
                os.unlink(entry.path)


def run_of_key(layout: Layout, caller: Caller, key: str) -> str:
    """The run that this caller handed in under a key; "" where there is none (any more)."""
    try:
        return _path_of_key(layout, _whose(caller, key)).read_text("utf-8").partition(" ")[0] if key else ""
    except FileNotFoundError:
        return ""


def _run_of_key(layout: Layout, key: str, print_: str, run: str) -> tuple[str, bool]:
    layout.keys.mkdir(exist_ok=True)
    text, known = _once(_path_of_key(layout, key), f"{run} {print_}")
    run, _, before = text.partition(" ")
    if before != print_:
        raise ConflictError(f"this key came with another command before, as run {run}; use a new key")
    return run, known


def _whose(caller: Caller, key: str) -> str:
    return ascii((caller.trigger, caller.name, key))


def _path_of_key(layout: Layout, key: str) -> Path:
    return layout.keys / hashlib.sha256(key.encode()).hexdigest()


def _once(path: Path, text: str) -> tuple[str, bool]:
    """The text of a file that is written once, durably; and whether it was there before."""
    try:
        write_new(path, text.encode())
    except FileExistsError:
        return path.read_text("utf-8"), True
    return text, False


def _print(raw: bytes, thread: str, attachments: Mapping[str, Path]) -> str:
    """Tells one command from another."""
    files = []
    for name, path in sorted(attachments.items()):
        with path.open("rb") as file:
            files.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
    return hashlib.sha256(ascii((thread, files)).encode() + raw).hexdigest()


def _encode(text: str) -> bytes:
    """A text's bytes: a terminal's as they were typed; of what is no character at all, some that ``check`` refuses."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _faults(raw: bytes, attachments: Mapping[str, Path]) -> list[Fault]:
    envelope = Envelope(run="", name="command", trigger="cli", time=datetime.now(UTC))
    try:
        command = read_command(raw, envelope, timeout=1, retries=0, engine="auto")
    except DocumentError as error:
        return list(error.faults)
    faults, fields = list[Fault](), peek(raw, "command")
    if fields and fields.draft:
        faults.append(Fault("command", "a draft is not handed in; leave the field out", field="draft"))
    for name in command.attachments:
        if name not in attachments:
            faults.append(Fault("command", f"{name!r} did not come with the command", field="attachments"))
    return faults


def _check_names(attachments: Iterable[str]) -> None:
    unfit = [name for name in attachments if not is_attachment(name)]
    _refuse([Fault("command", f"{name!r} must be a plain file name", field="attachments") for name in unfit])


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        raise DocumentError(faults)


def _write(fields: Mapping[str, Any], body: str) -> bytes:
    try:
        return write_document(fields, body)
    except UnicodeEncodeError as error:
        strange = error.object[error.start]
        raise DocumentError([Fault("command", f"{strange!r} is half a character; no file can hold it")]) from None
    except RecursionError:
        raise DocumentError([Fault("command", "lists and maps are nested too deeply")]) from None
