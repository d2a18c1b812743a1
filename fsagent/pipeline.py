"""One command, from claim to settle. Here the two wings of the house meet.

``admit`` understands a claimed command, ``begin`` and ``execute`` run it, ``complete`` publishes and settles. Each can
be called again after a crash at any point: what was done is found in the run's folder and not done twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from fsagent import repeats
from fsagent.attempts import tries, waits_until
from fsagent.completion import Completion, Ended
from fsagent.config import Settings
from fsagent.consent import ApprovalNeeded, Consent, Place
from fsagent.dispatch import OFFLINE, engine_for
from fsagent.endings import Endings, cancelled, ended_before, overdue
from fsagent.engines import engine_names, load_engine
from fsagent.errors import DocumentError
from fsagent.files.fields import nearest
from fsagent.files.paths import SafeRoot
from fsagent.host import Purse, RunHost, source_of
from fsagent.model import Command, Fault, Question, Run, Step, ToolCall, Trigger
from fsagent.progress import Ending, replay
from fsagent.runner import Runner, Stopped
from fsagent.tools.base import Context, Home
from fsagent.trouble import REFUSALS, Trouble, is_passing
from fsagent.workers import WorkerLost, WorkerOverdue, Workers
from fsagent.workspace import approvals
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.commands import read_command, steps_of
from fsagent.workspace.inbox import bring_attachments
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.reserved import tools_root
from fsagent.workspace.results import Outcome, take_back
from fsagent.workspace.runs import Envelope, RunFolder, discard_empty
from fsagent.workspace.soul import Soul

MAX_CRASHES = 2
MAX_OUTPUT = 200_000
OUTAGE_TRIES = 6  # a person's command waits some ten minutes for a provider; a task has its next slot


class Admitted(Struct, frozen=True):
    """A command that is understood and ready to run. ``slow`` runs may not keep others waiting."""

    folder: RunFolder
    envelope: Envelope
    command: Command
    attempt: int
    slow: bool


class Again(Struct, frozen=True):
    """A run that is to be tried again at ``at`` (aware)."""

    folder: RunFolder
    at: datetime


class Parked(Struct, frozen=True):
    """A run that waits until a person has answered what it asks."""

    folder: RunFolder


class Pipeline:
    """Carries commands through their runs. ``admit`` belongs to one thread, ``execute`` may be called by several.

    ``stopping`` says of a run under way whether it must end now: the daemon ends, or somebody cancelled it.
    """

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        journal: Journal,
        index: Index,
        soul: Soul,
        home: Home,
        runner: Runner,
        workers: Workers,
        purse: Purse,
        secrets: Callable[[], Mapping[str, str]],
        now: Callable[[], datetime],
        stopping: Callable[[str], bool],
        trouble: Trouble,
    ) -> None:
        self._trouble = trouble
        self._layout, self._settings, self._journal, self._index = layout, settings, journal, index
        self._soul, self._home, self._runner = soul, home, runner
        self._workers, self._purse, self._secrets = workers, purse, secrets
        self._now, self._stopping = now, stopping
        self._completion = Completion(layout, journal, index)
        self._allowances = Allowances(layout)
        self._root: SafeRoot = tools_root(layout)
        self._endings = Endings(settings, journal, index, self._completion, self._root, now)
        self._offline = load_engine(OFFLINE)
        self._engine_names = ("auto", *engine_names())

    def admit(self, folder: RunFolder, *, anew: bool = False) -> Admitted | Again | Parked | None:
        """Understand a run that has possession of its command; None if that alone settled it. ``anew``: this very
        daemon tried it before, and the disk did not take it.

        A command that ended the daemon ``MAX_CRASHES`` times is given up before it is looked at again.
        """
        events = folder.events()
        envelope = folder.envelope(events)
        known = {event["event"] for event in events}
        if envelope is not None and "settled" in known:
            self._completion.enlist(folder, envelope, is_open=False)
            return None
        if envelope is None or not (folder.claimed.exists() or folder.command.exists()):
            if discard_empty(folder):  # of a claim that a crash cut short: the command lies in inbox/, and never ran
                self._index.remove(folder.run, "")
            else:
                self._journal.append("damaged", run=folder.run, error="has no envelope; see fsagent doctor")
            return None
        if "finished" in known:
            self._complete_one(ended_before(folder, envelope, events))
            return None
        attempt, crashes = tries(events)
        if envelope.again and not any(event["event"] == "attempt" for event in events):
            take_back(self._layout, RunFolder(self._layout.runs / envelope.again))
        cancel = folder.cancelled()
        if cancel:
            ending = cancelled(cancel, replay(events))
            self._complete_one(self._endings.end(folder, envelope, None, attempt, ending))
            return None
        if approvals.pending(folder):
            return self._park(folder, envelope)
        waiting, now = waits_until(events), self._now()
        if waiting and waiting > now:
            return Again(folder, waiting)
        fields = {"trouble": True} if anew else {}
        attempt, crashes = tries([*events, {"event": "trouble"}]) if anew else (attempt, crashes)
        folder.record("attempt", n=attempt + 1, time=now.astimezone(UTC), pid=os.getpid(), **fields)
        if crashes >= MAX_CRASHES:
            error = f"the daemon, or its worker, was ended {crashes} times while this ran, so it is not tried again"
            ending = Ending(Step(status="interrupted", error=error), replay(events).done())
            self._complete_one(self._endings.end(folder, envelope, None, attempt, ending))
            return None
        try:
            return self._understand(folder, envelope, attempt + 1)
        except DocumentError as error:
            ending = Ending(Step(status="refused", error=str(error)))
        except REFUSALS:
            raise
        except Exception as error:  # noqa: BLE001  # around one command: it hurts only itself
            ending = self._endings.internal(folder, error)
        self._complete_one(self._endings.end(folder, envelope, None, attempt + 1, ending))
        return None

    def begin(self, runs: Sequence[Admitted]) -> None:
        """Make it durable that these runs have started, before an engine is asked.

        That a run's folder is durable too is seen to before its first call that changes anything (``_run``).
        """
        for run in runs:
            folder, envelope = run.folder, run.envelope
            resumed = any(event["event"] == "step" for event in folder.events())
            self._journal.append(
                "resumed" if resumed else "started", run=folder.run, command=envelope.path or envelope.name,
                trigger=envelope.trigger, attempt=run.attempt,
            )  # fmt: skip
        self._journal.sync()

    def execute(self, admitted: Admitted) -> Ended | Again | Parked | None:
        """Run an admitted command that has begun to its end, or to a pause: a retry, a question, or (None) a stop of
        the daemon. Raises ``OSError`` and ``sqlite3.Error`` where it has to be gone on with later."""
        folder, envelope, command = admitted.folder, admitted.envelope, admitted.command
        self._endings.promise(folder, command)
        self._patiently(admitted, lambda: folder.record("started", time=self._now().astimezone(UTC)))
        try:
            ending = self._run(folder, command)
        except Stopped:
            cancel = folder.cancelled()
            if cancel is None:
                self.put_back(admitted)
                return None
            ending = cancelled(cancel, replay(folder.events()))
        except ApprovalNeeded:
            return self._park(folder, envelope)
        except WorkerLost as error:  # it counts as a try that a crash cut short
            self._journal.append("error", run=folder.run, error=f"the worker process died: {error}")
            folder.close()
            return Again(folder, self._now())
        except Exception as error:  # around one command: it hurts only this run
            if is_passing(error):
                raise
            ending = self._endings.internal(folder, error)
        ended, ending = ending, self._endings.judge(folder, command, ending)
        patience = max(command.retries, OUTAGE_TRIES) if ending.step.passing and not command.task else command.retries
        if ending.step.status == "failed" and admitted.attempt <= patience:
            anew = ended.step.status != "failed"  # all was done, and not what was promised
            at = self._endings.retry(folder, envelope, command, admitted.attempt, ending.step.error, anew=anew)
            return Again(folder, at)
        ends: list[Ended] = []
        self._patiently(
            admitted, lambda: ends.append(self._endings.end(folder, envelope, command, admitted.attempt, ending))
        )
        return ends[0]

    def revise(self, envelope: Envelope, step: int, call: int, tool: str, args: Mapping[str, Any]) -> Question:
        """The question that a call makes as a person changed it. Raises ``ToolError`` for a mistake or a denied one."""
        settings = self._settings()
        context = self._context(envelope.run, envelope.trigger, settings.timeout)
        consent = Consent(envelope.run, partial(settings.rules, envelope.trigger), {}, frozenset())
        return self._runner.revise(Place(step, call), tool, args, context, consent)

    def complete(self, runs: Sequence[Ended]) -> list[tuple[Ended, Exception]]:
        """Publish and settle runs that have ended; gives those that the disk did not take."""
        return self._completion.complete(runs)

    def put_back(self, admitted: Admitted) -> None:
        """The daemon ends before the run: it goes on where it is when the daemon starts again."""
        with suppress(*REFUSALS):
            admitted.folder.record("stopped")
        admitted.folder.close()

    def _patiently(self, run: Admitted, write: Callable[[], object]) -> None:
        folder = run.folder
        self._trouble.patiently(source_of(folder), write, lambda: self._stopping(folder.run), run.command.name)

    def _complete_one(self, run: Ended) -> None:
        for _, error in self._completion.complete([run]):
            raise error

    def _understand(self, folder: RunFolder, envelope: Envelope, attempt: int) -> Admitted | Again | None:
        settings = self._settings()
        raw, file = folder.raw(), envelope.path or envelope.name
        earlier = repeats.ran_before(self._index, envelope) or repeats.delivered_before(
            self._layout, self._index, envelope
        )
        if earlier:
            self._set_aside(folder, envelope, earlier)
            return None
        copied = repeats.conflict_copy(self._layout, self._index, envelope)
        if copied:
            raise DocumentError(copied)
        try:
            command = read_command(
                raw, msgspec.structs.replace(envelope, time=settings.local(envelope.time)),
                timeout=settings.timeout, retries=settings.retries, engine=settings.engine,
            )  # fmt: skip
        except DocumentError as error:
            raise DocumentError([*error.faults, *self._tool_faults(steps_of(raw), file)]) from None
        faults = self._tool_faults(command.steps, file)
        if command.engine not in self._engine_names:
            near, known = nearest(command.engine, self._engine_names), ", ".join(self._engine_names)
            faults.append(
                Fault(file, f"there is no engine {command.engine!r}{near}; there are: {known}", field="engine")
            )
        bring_attachments(self._layout, folder, envelope, command.attachments)
        for name in command.attachments:
            if not (folder.attachments / name).exists():
                faults.append(Fault(file, f"{name!r} did not arrive beside the command", 0, 0, "attachments"))
        if command.not_before and command.not_before > self._now() and not faults:
            return self._hold(folder, envelope, command.not_before)
        faults += repeats.taken_id(self._layout, self._index, envelope, command)
        faults += repeats.superseded(self._layout, self._index, envelope, raw)
        if faults:
            raise DocumentError(faults)
        command = msgspec.structs.replace(command, engine=engine_for(command, settings))
        folder.record("understood", id=command.id, thread=command.thread)
        self._completion.enlist(folder, envelope, is_open=True)
        slow = command.engine != OFFLINE or self._runner.is_slow(command.steps)
        return Admitted(folder, envelope, command, attempt, slow)

    def _hold(self, folder: RunFolder, envelope: Envelope, at: datetime) -> Again:
        """Leave a command that came by the side door alone until its time; one in the inbox waits there."""
        folder.record("held", at=at.astimezone(UTC))
        folder.close()
        self._completion.enlist(folder, envelope, is_open=True)
        return Again(folder, at)

    def _park(self, folder: RunFolder, envelope: Envelope) -> Parked:
        """Leave a run alone until a person has answered; listed as waiting."""
        folder.close()
        self._completion.enlist(folder, envelope, is_open=True)
        return Parked(folder)

    def _tool_faults(self, steps: Sequence[ToolCall], file: str) -> list[Fault]:
        return [Fault(file, why, line, 0, "steps") for line, why in self._runner.faults(steps)]

    def _set_aside(self, folder: RunFolder, envelope: Envelope, earlier: Run) -> None:
        """A sync client delivered again what was settled already: it is kept, told, and not run."""
        now = self._now()
        outcome = Outcome(status="done", started=now, finished=now, error=repeats.told_of(earlier), publish=False)
        self._journal.append("redelivered", run=folder.run, command=envelope.path, earlier=earlier.run)
        run = Ended(folder, envelope, outcome, "")
        self._completion.record(run, status="refused")
        self._complete_one(run)

    def _run(self, folder: RunFolder, command: Command) -> Ending:
        """Have the run done: by the offline engine here, by any other in a worker process."""
        host = RunHost(
            self._layout, folder, command, self._settings, self._soul, self._index, self._allowances, self._purse,
            self._secrets, self._now, self._trouble, lambda: self._stopping(folder.run),
        )  # fmt: skip
        context = self._context(folder.run, command.trigger, command.timeout, lambda: host.waited)
        repeat = command.retries > 0
        if command.engine == OFFLINE:
            return self._runner.run(self._offline, host, context, replay(folder.events()), repeat)
        try:
            outcome = self._workers.run(folder.run, command.engine, command.trigger, repeat, host, self._home, context)
        except WorkerOverdue:
            if context.stopping():
                raise Stopped from None
            return overdue(replay(folder.events()))
        except WorkerLost:
            if context.stopping():
                raise Stopped from None
            raise
        if outcome.stopped:
            raise Stopped
        if outcome.asks:
            raise ApprovalNeeded(())
        if outcome.ending is None:
            self._journal.append("error", run=folder.run, error=outcome.fault, where=outcome.where)
            return Ending(
                Step(status="failed", error=f"internal error: {outcome.fault}"), replay(folder.events()).done()
            )
        return outcome.ending

    def _context(
        self, run: str, trigger: Trigger, timeout: float, waited: Callable[[], float] = lambda: 0.0
    ) -> Context:
        """Where the tool calls of a run happen; its time begins now, and stands still while it ``waited``."""
        deadline = time.monotonic() + timeout
        return Context(
            root=self._root, home=self._home, now=lambda: self._settings().local(self._now()), run=run,
            trigger=trigger, seconds_left=lambda: deadline + waited() - time.monotonic(),
            stopping=lambda: self._stopping(run), max_output=MAX_OUTPUT,
        )  # fmt: skip
