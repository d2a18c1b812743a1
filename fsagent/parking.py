"""Parking: runs that wait for a person's answer. This writes their questions into approvals/ and takes the answers.

A parked run has no thread and no timer but its expiry. All of it can be done again after a crash at any point:
what was asked, filed and answered stands in the run's own record, and nothing else counts.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fsagent.config import Settings
from fsagent.errors import PersonError, ToolError
from fsagent.files.atomic import read_plain
from fsagent.files.quiet import Identity, identity_of, is_written, seconds_to_quiet
from fsagent.model import MAX_DOCUMENT, Answer, Question
from fsagent.trouble import REFUSALS, Trouble
from fsagent.workspace import approvals, ballot
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.approvals import Pending
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder
from fsagent.workspace.status import Line

Revise = Callable[[Envelope, int, int, str, Mapping[str, Any]], Question]
HELD_OPEN = 0.5
MOST_STRAYS = 10


class _Held:
    """One parked run, what it asks, and what was seen of its file."""

    def __init__(self, run: str, envelope: Envelope, open_: Pending) -> None:
        self.run, self.envelope, self.open = run, envelope, open_
        self.filed = False  # by us, or found there
        self.seen: tuple[Identity, float] | None = None  # a state of the file, and since when it is known
        self.read: Identity | None = None  # the state that was read last
        self.missing_since: float | None = None
        self.faults: tuple[str, ...] = ()


class Parking:
    """See the module. Used by one thread, but for ``park``.

    ``revise`` gives the question that a changed call makes (envelope, step, call, tool, arguments); ``resume`` has a
    run taken up again.
    """

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        journal: Journal,
        allowances: Allowances,
        revise: Revise,
        resume: Callable[[RunFolder], None],
        now: Callable[[], datetime],
        trouble: Trouble,
    ) -> None:
        self._trouble = trouble
        self._layout, self._settings, self._journal, self._allowances = layout, settings, journal, allowances
        self._revise, self._resume, self._now = revise, resume, now
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._fresh = False
        self._next: float | None = None
        self._strays: tuple[str, ...] = ()
        self.settling = False

    def park(self, folder: RunFolder) -> None:
        """Take a run in that waits for answers. From any thread."""
        folder = RunFolder(folder.path)
        envelope, open_ = folder.envelope(), approvals.pending(folder)
        if envelope and open_:
            with self._lock:
                self._held[folder.run] = _Held(folder.run, envelope, open_)
                self._fresh = True

    def let_go(self, run: str) -> RunFolder | None:
        """Take a run away that somebody wants to end; its file goes to the archive."""
        with self._lock:
            held = self._held.pop(run, None)
        if held is None:
            return None
        self._trouble.worked(_source(held))
        if held.open.file:
            with self._trouble.guard("approvals/"):  # what stays there is put away later, as a stray
                approvals.put_away(self._layout, held.open.file, self._local())
        return RunFolder(self._layout.runs / run)

    def look(self, *, changed: bool) -> bool:
        """Write what is to be asked, read what was answered, end what is overdue; True if people see a difference.

        ``changed`` says that something may have happened in approvals/. What the disk does not take is tried again.
        """
        moment = time.monotonic()
        with self._lock:
            due = changed or self._fresh or (self._next is not None and moment >= self._next)
            self._fresh, held = False, list(self._held.values())
        if not due:
            return False
        before = self._picture()
        self.settling = False
        waits = []
        for each in held:
            try:
                waits.append(self._attend(each, moment))
            except REFUSALS as error:
                each.read = None  # what it says has not been taken
                waits.append(self._trouble.failed(_source(each), error))
            else:
                self._trouble.worked(_source(each))
        if changed:
            self._strays = tuple(self._explain_strays())
        self._next = moment + min(waits) if waits else None
        return self._picture() != before

    def wait(self) -> float | None:
        """Seconds until ``look`` has something to do by itself; None where only a change can make a difference."""
        with self._lock:
            if self._fresh:
                return 0.0
            return None if self._next is None else max(0.0, self._next - time.monotonic())

    def lines(self) -> Sequence[Line]:
        """What waits for a person: the file, and what it asks."""
        with self._lock:
            held = sorted(self._held.values(), key=lambda each: each.open.file)
        return [Line(f"approvals/{each.open.file}", self._words(each)) for each in held if each.open.file]

    def trouble(self) -> Sequence[str]:
        """Files in approvals/ whose answers do not count, and why."""
        with self._lock:
            held = list(self._held.values())
        found = [f"approvals/{each.open.file}: {fault}" for each in held for fault in each.faults]
        why = self._allowances.trouble()
        return [*found, *self._strays, *([f".fsagent/allowed.json {why}"] if why else [])]

    def _words(self, held: _Held) -> str:
        until = held.open.expires.astimezone(self._local().tzinfo) if held.open.expires else None
        who = approvals.who(held.envelope)
        kind = "answer" if any(question.kind == "answer" for question in held.open.questions) else "tick"
        return f"waits for your {kind}: {who} wants to {approvals.title(held.open)}" + (
            f", until {until:%Y-%m-%d %H:%M}" if until else ""
        )

    def _picture(self) -> object:
        return self.lines(), self.trouble()

    def _local(self) -> datetime:
        return self._settings().local(self._now())

    def _attend(self, held: _Held, moment: float) -> float:
        """Do what there is to do about one run; gives the seconds until it is worth a look again by itself."""
        if not held.filed:
            self._file(held)
        open_, now = held.open, self._now()
        assert open_.expires is not None
        rest = (open_.expires - now).total_seconds()
        if rest <= 0:
            self._take(held, [Answer(hash=each.hash, decision="expired") for each in open_.questions], b"")
            return math.inf
        path = self._layout.approvals / open_.file
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return min(rest, self._missing(held, moment))
        held.missing_since = None
        identity = identity_of(status)
        why = approvals.trouble_with(status) or ("is empty; save it again" if not status.st_size else "")
        if why or identity == held.read:
            held.faults = (why,) if why else held.faults
            return rest
        if held.seen is None or held.seen[0] != identity:
            held.seen = (identity, moment)
        settings = self._settings()
        quiet = seconds_to_quiet(status, now, moment - held.seen[1], settings.settle, settings.settle_renamed)
        raw = None if quiet > 0 else _read(path, identity)
        if raw is None:
            self.settling = True
            return min(rest, quiet if quiet > 0 else HELD_OPEN)
        held.read = identity
        reading = ballot.read(raw, open_.id, open_.questions)
        held.faults = reading.faults
        if reading.complete:
            answers = self._answers(held, [mark for mark in reading.marks if mark])
            if answers:
                self._take(held, answers, raw)
        return rest

    def _file(self, held: _Held) -> None:
        """Put the question into its file; what a crash left of that is found."""
        folder = RunFolder(self._layout.runs / held.run)
        told = bool(held.open.file)
        try:
            held.open = approvals.file_questions(
                self._layout, folder, held.open, self._local(), self._settings().approval_timeout
            )
        finally:
            folder.close()
        held.filed, held.missing_since = True, None
        if not told:
            self._journal.append("asked", command=approvals.who(held.envelope), **approvals.fields_of(held.open))

    def _missing(self, held: _Held, moment: float) -> float:
        """Deleting is no answer: the file is written again, once it is clear that no editor is only saving it."""
        settle = max(1.0, self._settings().settle)
        held.missing_since = moment if held.missing_since is None else held.missing_since
        if moment - held.missing_since >= settle:
            held.filed, held.read = False, None
            self._file(held)
            return math.inf
        self.settling = True
        return held.missing_since + settle - moment

    def _answers(self, held: _Held, marks: Sequence[ballot.Mark]) -> list[Answer]:
        """The answers to keep; none where one of them cannot be taken as it stands, and then it is told why."""
        found = []
        for number, (question, mark) in enumerate(zip(held.open.questions, marks, strict=True), 1):
            action, subject, by = "", question.subject, mark.by or "file"
            try:
                if mark.args is not None:
                    revised = self._revise(held.envelope, held.open.step, question.call, question.tool, mark.args)
                    action, subject = revised.hash, revised.subject
                if mark.choice == "always":
                    self._allowances.add(question.tool, subject, held.envelope.trigger, by)
            except (ToolError, PersonError) as error:
                where = f"question {number}: " if len(marks) > 1 else ""
                held.faults = (f"{where}{error}; the question stays open",)
                return []
            found.append(
                Answer(hash=question.hash, decision=mark.choice, by=by, comment=mark.comment, args=mark.args,
                       action=action, text=mark.text)
            )  # fmt: skip
        return found

    def _take(self, held: _Held, answers: Sequence[Answer], raw: bytes) -> None:
        """Make the answers durable, let the run go on, and put the file away: in this order."""
        folder = RunFolder(self._layout.runs / held.run)
        now = self._now()
        open_ = approvals.pending(folder)
        try:
            if open_ and open_.id == held.open.id:
                print_ = approvals.print_of(raw or _anything(self._layout, held.open.file))
                folder.record(
                    "answered", id=open_.id, file=open_.file, print=print_, time=now.astimezone(UTC), answers=answers
                )
                folder.sync()
        finally:
            folder.close()
        decisions = ", ".join(dict.fromkeys(answer.decision for answer in answers))
        self._journal.append(
            "answered", command=approvals.who(held.envelope), decision=decisions, **approvals.fields_of(held.open)
        )
        with self._lock:
            del self._held[held.run]
        self._resume(RunFolder(folder.path))
        with self._trouble.guard("approvals/"):  # what stays there is put away later, as a stray
            approvals.put_away(self._layout, held.open.file, self._local())

    def _explain_strays(self) -> list[str]:
        """What lies in approvals/ and is no open question; what a crash left over is put away."""
        with self._lock:
            known = {held.open.file for held in self._held.values()}
        found = []
        for name in approvals.names(self._layout):
            why = None if name in known else approvals.explain_stray(self._layout, name)
            if why == "":
                approvals.put_away(self._layout, name, self._local())
            elif why:
                found.append(f"approvals/{name} {why}")
        more = len(found) - MOST_STRAYS
        return [*found[:MOST_STRAYS], *([f"and {more} more files in approvals/ that do nothing"] if more > 0 else [])]


def _source(held: _Held) -> str:
    return f"the question of {approvals.who(held.envelope)}, run {held.run}"


def _read(path: os.PathLike[str], identity: Identity) -> bytes | None:
    """The file's bytes, if it is in this very state before and after, and nobody is writing it."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if identity_of(os.fstat(fd)) != identity or is_written(fd):
            return None
        raw = file.read(MAX_DOCUMENT + 1)
        return raw if identity_of(os.fstat(fd)) == identity else None


def _anything(layout: Layout, name: str) -> bytes:
    """What stands in a file now, if it can be read at all."""
    try:
        return read_plain(layout.approvals / name, MAX_DOCUMENT)
    except OSError:
        return b""
