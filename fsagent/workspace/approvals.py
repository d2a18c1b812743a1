"""The questions of runs and their files in ``approvals/``: which are open, what they are called, where they go.

What counts is the record in the run's folder: ``asked`` with the questions, ``filed`` with the file's name,
``answered`` with what a person said. A file only selects a question that is recorded as open, and only under the
recorded name.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.errors import DocumentError
from fsagent.files.atomic import make_folders, numbered, read_plain, write_new
from fsagent.files.documents import read_document
from fsagent.files.names import conflict_of, is_temporary
from fsagent.model import MAX_DOCUMENT, Question
from fsagent.workspace import ballot
from fsagent.workspace.form import one_line
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder, is_run_id

_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"
_CLOSING = ("answered", "retry", "finished", "settled")
MAX_SLUG = 40


class Pending(Struct, frozen=True, kw_only=True):
    """The questions for which a run waits. ``file`` is "" and ``expires`` None until the file was given its name."""

    id: str
    run: str
    step: int
    questions: tuple[Question, ...]
    file: str = ""
    expires: datetime | None = None


def pending(folder: RunFolder) -> Pending | None:
    """What a run waits for a person to answer; None where it waits for nobody."""
    found: Pending | None = None
    asked = 0
    for event in folder.events():
        kind = event["event"]
        if kind == "asked":
            asked += 1
            questions = msgspec.convert(event["questions"], tuple[Question, ...])
            found = Pending(
                id=_id(folder.run, asked, questions), run=folder.run, step=event["step"], questions=questions
            )
        elif kind == "filed" and found:
            expires = msgspec.convert(event["expires"], datetime)
            found = msgspec.structs.replace(found, file=event["file"], expires=expires)
        elif kind in _CLOSING:
            found = None
    return found


def file_questions(layout: Layout, folder: RunFolder, open_: Pending, now: datetime, timeout: float) -> Pending:
    """Put a question into its file, if it is not there; ``now`` is local. Gives the question with its file's name.

    The name is recorded before the file is written, so a crash in between leads to no second file.
    """
    envelope = folder.envelope()
    assert envelope is not None
    while True:
        fresh = not open_.file or open_.expires is None
        if fresh:
            path = next(path for path in numbered(layout.approvals / _name(open_, now)) if not os.path.lexists(path))
            expires = (now + timedelta(seconds=timeout)).astimezone(UTC).replace(microsecond=0)
            folder.record("filed", id=open_.id, file=path.name, expires=expires)
            open_ = msgspec.structs.replace(open_, file=path.name, expires=expires)
        assert open_.expires is not None
        local = open_.expires.astimezone(now.tzinfo)
        asked = ballot.Asked(id=open_.id, run=folder.run, who=who(envelope), words=words(folder, 300), expires=local)
        try:
            write_new(layout.approvals / open_.file, ballot.render(asked, open_.questions), durable=False)
        except FileExistsError:
            if fresh:  # somebody took the name in this very moment
                open_ = msgspec.structs.replace(open_, file="")
                continue
        return open_


def answered(layout: Layout, open_: Pending) -> bool:
    """True if the file answers everything, though nobody may have read that yet."""
    try:
        raw = read_plain(layout.approvals / open_.file, MAX_DOCUMENT + 1)
    except OSError:
        return False
    return ballot.read(raw, open_.id, open_.questions).complete


def put_away(layout: Layout, name: str, now: datetime) -> None:
    """Move a file that is settled, unchanged, to ``archive/<month>/approvals/``. Does nothing where it is gone."""
    target = layout.archive / f"{now:%Y-%m}" / "approvals" / name
    make_folders(target.parent)
    path = next(path for path in numbered(target) if not os.path.lexists(path))
    with suppress(FileNotFoundError):
        os.rename(layout.approvals / name, path)


def trouble_with(status: os.stat_result) -> str:
    """Why a file in approvals/ cannot be an answer, whatever it says; or ""."""
    if not stat.S_ISREG(status.st_mode):
        return "is a link or a special file, so it answers nothing; remove it, and the question is written again"
    if status.st_nlink > 1:
        return "has a second name (a hard link), so it answers nothing; copy it to a file of its own"
    return ""


def open_file(layout: Layout, name: str) -> Pending | None:
    """The open question whose file this is: by the id in it, and by the record of the run that it names."""
    try:
        if trouble_with(os.lstat(layout.approvals / name)):
            return None
        id_, run = ballot.id_in(read_plain(layout.approvals / name, MAX_DOCUMENT))
    except OSError:
        return None
    found = pending(RunFolder(layout.runs / run)) if is_run_id(run) else None
    return found if found and found.id == id_ and found.file == name else None


def id_of(layout: Layout, name: str) -> str:
    """The id that a file in approvals/ names; empty where it names none, or cannot be read."""
    try:
        return ballot.id_in(read_plain(layout.approvals / name, MAX_DOCUMENT))[0]
    except OSError:
        return ""


def open_questions(layout: Layout) -> list[tuple[Pending, Envelope]]:
    """All questions that have a file, oldest run first."""
    found = []
    for name in names(layout):
        open_ = open_file(layout, name)
        envelope = RunFolder(layout.runs / open_.run).envelope() if open_ else None
        if open_ and envelope:
            found.append((open_, envelope))
    return sorted(found, key=lambda each: each[0].run)


def names(layout: Layout) -> list[str]:
    """What lies in approvals/, without folders, and without what editors and sync clients use while they work."""
    try:
        entries = list(os.scandir(layout.approvals))
    except FileNotFoundError:
        return []
    return sorted(entry.name for entry in entries
                  if not is_temporary(entry.name) and not entry.is_dir(follow_symlinks=False))  # fmt: skip


_ELSEWHERE = (
    "asks for a run that is not on this machine. A tick in it counts on the machine that asked, while the agent runs "
    "there. To have it done here, drop the command anew and remove this file"
)


def explain_stray(layout: Layout, name: str) -> str | None:
    """Why a file in approvals/ does nothing; "" where it is only left over and may be put away, None for a question."""
    original = conflict_of(name)
    if original:
        return f"is a sync conflict copy; it answers nothing. Put your answer into {original}, and remove this one"
    try:
        why = trouble_with(os.lstat(layout.approvals / name))
        raw = b"" if why else read_plain(layout.approvals / name, MAX_DOCUMENT)
    except OSError as error:
        return None if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    if why:
        return why
    id_, run = ballot.id_in(raw)
    if not id_ or not is_run_id(run):
        return "is no question of this agent; it does nothing"
    folder = RunFolder(layout.runs / run)
    if not folder.events():
        return _ELSEWHERE
    now = pending(folder)
    if now and now.id == id_:
        return None if now.file in ("", name) else f"is not the file in which it was asked; answer in {now.file}"
    return _explain_settled(folder, name, id_, raw)


def _explain_settled(folder: RunFolder, name: str, id_: str, raw: bytes) -> str:
    """Late answers are told; what was only left over by a crash is not."""
    events = folder.events()
    if not any(event["event"] == "filed" and (event["id"], event["file"]) == (id_, name) for event in events):
        return "is no question of this agent; it does nothing"
    answered = next((event for event in events if event["event"] == "answered" and event["id"] == id_), None)
    if answered is None or answered["print"] == print_of(raw):
        return ""
    decisions = ", ".join(dict.fromkeys(answer["decision"] for answer in answered["answers"]))
    return f"comes too late: the question was settled before ({decisions}). It does nothing; remove it"


def print_of(raw: bytes) -> str:
    """Tells one state of a file from another by its bytes."""
    return hashlib.sha256(raw).hexdigest()


def who(envelope: Envelope) -> str:
    """Who asks, in words."""
    name = one_line(envelope.path or envelope.name, 200)
    return f"{name} (access {envelope.by})" if envelope.by else name


def words(folder: RunFolder, most: int) -> str:
    """The beginning of a command's text, on one line."""
    try:
        return one_line(read_document(folder.raw(), "command").body, most)
    except (DocumentError, OSError):
        return ""


def title(open_: Pending) -> str:
    """What is wanted, in a few words."""
    more = len(open_.questions) - 1
    return ballot.title(open_.questions[0]) + (f" and {more} more" if more else "")


def _name(open_: Pending, now: datetime) -> str:
    question = open_.questions[0]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{question.tool} {question.subject}".lower())[:MAX_SLUG].strip("-")
    name = f"{now:%Y-%m-%d-%H%M}-{slug}.md"
    return f"{now:%Y-%m-%d-%H%M}-question.md" if is_temporary(name) or conflict_of(name) else name


def _id(run: str, number: int, questions: Sequence[Question]) -> str:
    """Six characters that name one pause of one run: asked once more, the same question has another id."""
    text = "\n".join([run, str(number), *(question.hash for question in questions)])
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_ALPHABET[byte % 32] for byte in digest[:6])


def fields_of(open_: Pending) -> Mapping[str, Any]:
    """What the journal tells of a question."""
    return {"run": open_.run, "file": f"approvals/{open_.file}", "why": f"{title(open_)} (approvals/{open_.file})"}
