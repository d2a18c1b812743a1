"""A command as the API shows it: from the moment it is handed in to its result."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace
from starlette.responses import Response

from fsagent.errors import NotFoundError
from fsagent.faces import door, views
from fsagent.faces.door import Caller, HandedIn
from fsagent.faces.http.table import Call
from fsagent.model import Trigger
from fsagent.workspace.commands import peek
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder, dropped

DROPS_READ = 1000


class ResultView(Struct, frozen=True, kw_only=True):
    """What came of a run. ``path`` is where the result lies, empty if it was not published; ``text`` is for people."""

    path: str
    text: str
    error: str = ""
    changed: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    finished: datetime | None = None


class CommandView(Struct, frozen=True, kw_only=True):
    """A command and its run. ``id`` is its own id, or the run's; ``known`` says that it had been handed in before."""

    id: str
    run: str
    command: str
    trigger: Trigger
    status: str
    thread: str = ""
    by: str = ""
    handed_in: datetime | None = None
    known: bool = False
    text: str = ""
    attachments: tuple[str, ...] = ()
    settled: str = ""
    result: ResultView | None = None


def key_of(command_id: str) -> str:
    """The key under which a command with this id is handed in once; none for one without."""
    return f"id:{command_id}" if command_id else ""


def read(layout: Layout, wanted: str, caller: Caller) -> CommandView:
    """A command by its run, or by its own id: then the newest one. Raises ``NotFoundError``."""
    return views.while_it_moves(lambda: _view(layout, _find(layout, wanted, caller)))


def _find(layout: Layout, wanted: str, caller: Caller) -> RunFolder:
    """By id: one that the daemon knows; else one that this caller handed in; else what lies at the side door."""
    try:
        return door.find_run(layout, wanted)
    except NotFoundError:
        run = views.run_of_id(layout, wanted) or door.run_of_key(layout, caller, key_of(wanted))
    if not run:
        newest = (RunFolder(layout.drop / name) for name in islice(reversed(dropped(layout)), DROPS_READ))
        run = next((folder.run for folder in newest if _id_of(folder) == wanted), "")
    if not run:
        raise NotFoundError(f"there is no command {wanted!r}")
    return door.find_run(layout, run)


def _id_of(folder: RunFolder) -> str:
    try:
        fields = peek(folder.raw(), "command")
    except OSError:
        return ""
    return fields.id if fields else ""


def _view(layout: Layout, folder: RunFolder) -> CommandView:
    summary, envelope, raw = folder.summary(), folder.envelope(), folder.raw()
    if summary is None or envelope is None:
        raise NotFoundError(f"the run {folder.run} has no record; see 'fsagent doctor'")
    published = any(event["event"] == "published" for event in folder.events())  # which says where the result lies
    document = door.result_of(layout, folder.run) if published else None
    result = None
    if document:
        result = ResultView(
            path=summary.result, text=document.body, error=summary.error, changed=summary.changed,
            remembered=summary.remembered, finished=summary.finished,
        )  # fmt: skip
    files = os.listdir(folder.attachments) if folder.attachments.is_dir() else []
    fields = peek(raw, "command") if not (summary.id or summary.finished) else None  # perhaps not yet understood
    return CommandView(
        id=summary.id or (fields.id if fields else "") or folder.run,
        run=folder.run,
        command=summary.command,
        trigger=summary.trigger,
        status=summary.status,
        thread=summary.thread or (fields.thread if fields else ""),
        by=envelope.by,
        handed_in=envelope.time,
        text=raw.decode("utf-8", "replace"),
        attachments=tuple(sorted(name for name in files if not name.startswith("."))),
        settled=summary.settled,
        result=result,
    )


async def handed_in(call: Call, handed: HandedIn, wait: float) -> Response:
    """202 for a command that is at the door; 200 with its result where that was there in time."""
    if wait:
        await call.hub.published(handed.run, wait)
    found = await call.off(read, call.layout, handed.run, call.caller)
    found = replace(found, known=handed.known, text="")
    return await call.give(found, 200 if found.result else 202, {"Location": f"/v1/commands/{handed.run}"})
