"""The ends of runs: what is recorded when one has ended, by itself or not, or is to be tried again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from fsagent.completion import Completion, Ended, is_news, words
from fsagent.config import Settings
from fsagent.contract import judged, promise_of
from fsagent.files.paths import SafeRoot
from fsagent.model import Command, Run, Step
from fsagent.progress import Ending, Progress
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.results import Outcome
from fsagent.workspace.runs import Cancel, Envelope, RunFolder

MAX_RETRY_WAIT = 3600.0
_LOOKED_BACK = 10


class Endings:
    """Judges and records how runs end. Safe to share between threads, each with runs of its own."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        journal: Journal,
        index: Index,
        completion: Completion,
        root: SafeRoot,
        now: Callable[[], datetime],
    ) -> None:
        self._settings, self._journal, self._index, self._completion = settings, journal, index, completion
        self._root, self._now = root, now

    def promise(self, folder: RunFolder, command: Command) -> None:
        """Record what is there of all that the run promises to leave, before it first begins."""
        if command.expects and _promised(folder) is None:
            day = self._settings().local(self._now())
            folder.record("promised", **promise_of(command.expects, self._root, day))

    def judge(self, folder: RunFolder, command: Command, ending: Ending) -> Ending:
        """The ending as the run's contract makes it."""
        if command.expects is None:
            return ending
        day = self._settings().local(self._now())
        step = judged(ending.step, command.expects, _promised(folder) or {}, self._root, day)
        return msgspec.structs.replace(ending, step=step)

    def retry(
        self, folder: RunFolder, envelope: Envelope, command: Command, attempt: int, error: str, *, anew: bool
    ) -> datetime:
        """Record that the run is to be tried again; gives when. ``anew``: from scratch, for its engine had ended it."""
        first = self._settings().retry_wait if command.backoff is None else command.backoff
        wait = min(first * 2 ** (attempt - 1), max(first, MAX_RETRY_WAIT))
        at = self._now() + timedelta(seconds=wait * random.uniform(0.8, 1.2))
        folder.record("retry", at=at.astimezone(UTC), error=error, **({"anew": True} if anew else {}))
        folder.close()
        self._journal.append("retry", run=folder.run, command=envelope.path or envelope.name, at=at, error=error)
        self._completion.enlist(folder, envelope, is_open=True)
        return at

    def end(
        self, folder: RunFolder, envelope: Envelope, command: Command | None, attempts: int, ending: Ending
    ) -> Ended:
        """Record how the run ended. ``command`` is None where it was not even understood, or only waited."""
        settings, now, step, events = self._settings(), self._now(), ending.step, folder.events()
        understood = next((event for event in events if event["event"] == "understood"), {})
        times = {event["event"]: event["time"] for event in reversed(events) if "time" in event}
        begun = times.get("started") or times.get("attempt")
        started = msgspec.convert(begun, datetime) if begun else now
        foreign = bool(envelope.given) or any(event["event"] == "foreign" for event in events)
        outcome = Outcome(
            status=step.status,
            answer=step.answer,
            error=step.error,
            engine=command.engine if command else "",
            thread=command.thread if command else understood.get("thread") or envelope.thread,
            started=settings.local(started),
            finished=settings.local(now),
            seconds=max(0.0, (now - started).total_seconds()),
            attempts=max(1, attempts),
            changed=ending.changed,
            remembered=ending.remembered,
            usage=ending.usage,
            model=", ".join(ending.models),
            untrusted=ending.untrusted or foreign,
            publish=is_news(envelope, step, lambda: self._last(envelope)),
        )
        run = Ended(folder, envelope, outcome, words(envelope, outcome))
        self._completion.record(run, status=outcome.status)
        return run

    def internal(self, folder: RunFolder, error: Exception) -> Ending:
        """A fault of ours, or of an extension: told in the journal with its place, and to the person as what it is."""
        self._journal.append("error", run=folder.run, error=repr(error), where=_where(error))
        return Ending(Step(status="failed", error=f"internal error: {error!r}"))

    def _last(self, envelope: Envelope) -> Run | None:
        """The run of the same task before this one, of those that are over."""
        runs = self._index.recent(_LOOKED_BACK, task=envelope.task)
        return next((run for run in runs if run.run != envelope.run and run.finished), None)


def ended_before(folder: RunFolder, envelope: Envelope, events: Sequence[Mapping[str, Any]]) -> Ended:
    """A run that had ended when the daemon was killed, as it was recorded then."""
    finished = next(event for event in events if event["event"] == "finished")
    return Ended(folder, envelope, msgspec.convert(finished["outcome"], Outcome), finished["body"])


def cancelled(cancel: Cancel, progress: Progress) -> Ending:
    """The end of a run that somebody cancelled, with all that it is known to have done until then."""
    return Ending(Step(status="interrupted", error=f"{cancel}{_in_doubt(progress)}"), progress.done())


def overdue(progress: Progress) -> Ending:
    """The end of a run that did not end by itself when its time was up."""
    error = "took longer than its timeout and was ended with everything that it had started"
    return Ending(Step(status="failed", error=error + _in_doubt(progress)), progress.done())


def _promised(folder: RunFolder) -> dict[str, Any] | None:
    return next((event for event in folder.events() if event["event"] == "promised"), None)


def _in_doubt(progress: Progress) -> str:
    if not progress.unknown:
        return ""
    return f" while {progress.unknown['tool']} was under way; it may have happened, or a part of it"


def _where(error: BaseException) -> str:
    """The last place of ours in a traceback."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
