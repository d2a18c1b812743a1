"""From the end of a run to its settled command: the result durable, then known, then the command in its last place.

Several runs are completed together, so that they share the syncs of the folders they end in. Each step can be done
again after a crash at any point; what was done before is found by the files themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from pathlib import Path

from fsagent.files.atomic import sync_dir
from fsagent.model import Run, Step
from fsagent.repeats import ANOTHER_NAME
from fsagent.workspace import results
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.results import Outcome
from fsagent.workspace.runs import Envelope, RunFolder
from fsagent.workspace.searched import command_text


class Ended:
    """A run that has ended and is not settled. ``result`` and ``place`` are filled in on the way.

    ``status`` is what lists show; it differs from the outcome's where nothing was run at all.
    """

    def __init__(self, folder: RunFolder, envelope: Envelope, outcome: Outcome, body: str) -> None:
        self.folder, self.envelope, self.outcome, self.body = folder, envelope, outcome, body
        self.data = results.render(envelope, outcome, body)
        self.result: Path | None = None
        self.place: Path | None = None


class Completion:
    """Publishes and settles. Safe to share between threads, each with runs of its own."""

    def __init__(self, layout: Layout, journal: Journal, index: Index) -> None:
        self._layout, self._journal, self._index = layout, journal, index

    def record(self, run: Ended, status: str) -> None:
        """Write down how a run ended. Durable with the first step of ``complete``."""
        outcome = run.outcome
        run.folder.record(
            "finished", outcome=outcome, body=run.body, status=status, answer=outcome.answer, error=outcome.error,
            engine=outcome.engine, changed=outcome.changed, remembered=outcome.remembered, usage=outcome.usage,
            untrusted=outcome.untrusted,
            finished=outcome.finished.astimezone(UTC),
        )  # fmt: skip

    def complete(self, runs: Sequence[Ended]) -> list[tuple[Ended, Exception]]:
        """Publish and settle these runs; gives those that the disk did not take, to be gone on with later."""
        troubled: list[tuple[Ended, Exception]] = []
        left = _each(runs, self._publish, troubled)
        left = self._synced(left, lambda run: run.result, troubled)
        left = _each(left, self._tell, troubled)
        left = self._synced(left, lambda run: run.place, troubled)
        _each(left, self._settle, troubled)
        return troubled

    def enlist(self, folder: RunFolder, envelope: Envelope, *, is_open: bool) -> None:
        """Bring the run's line in the index up to date; a settled run is found by its words from now on."""
        summary = folder.summary()
        if summary:
            text = "" if is_open else command_text(folder)
            self._index.put(summary, key=envelope.key, is_open=is_open, text=text)

    def _publish(self, run: Ended) -> None:
        run.folder.sync()
        run.folder.anchor()
        if run.outcome.publish:
            run.result = results.publish(self._layout, run.folder, run.envelope, run.data)

    def _tell(self, run: Ended) -> None:
        """The result is known and durable: say so, and give the command its last place."""
        folder, envelope, outcome = run.folder, run.envelope, run.outcome
        results.keep(folder, run.data)
        name = self._layout.name(run.result) if run.result else ""
        folder.record("published", result=name)
        self._journal.append(
            "finished", run=folder.run, command=envelope.path or envelope.name, status=outcome.status,
            seconds=round(outcome.seconds, 3), result=name, error=outcome.error,
        )  # fmt: skip
        run.place = results.place(self._layout, folder, envelope, outcome)

    def _settle(self, run: Ended) -> None:
        results.let_go(run.folder)
        run.folder.record("settled", settled=self._layout.name(run.place) if run.place else "")
        run.folder.close()
        self.enlist(run.folder, run.envelope, is_open=False)

    @staticmethod
    def _synced(
        runs: Sequence[Ended], file_of: Callable[[Ended], Path | None], troubled: list[tuple[Ended, Exception]]
    ) -> list[Ended]:
        """Make the names of these files durable, each folder once."""
        files = {run: file_of(run) for run in runs}
        bad: dict[Path, Exception] = {}
        for folder in {file.parent for file in files.values() if file}:
            try:
                sync_dir(folder)
            except OSError as error:
                bad[folder] = error
        troubled += [(run, bad[file.parent]) for run, file in files.items() if file and file.parent in bad]
        return [run for run, file in files.items() if not file or file.parent not in bad]


def _each(runs: Iterable[Ended], step: Callable[[Ended], None], troubled: list[tuple[Ended, Exception]]) -> list[Ended]:
    """Do a step for every run; one that fails hurts only itself."""
    left = []
    for run in runs:
        try:
            step(run)
        except (OSError, sqlite3.Error) as error:
            troubled.append((run, error))
        else:
            left.append(run)
    return left


def is_news(envelope: Envelope, step: Step, last: Callable[[], Run | None] = lambda: None) -> bool:
    """Whether a result lands in outbox/: what a person dropped always does, a task where it has something to say.

    ``last`` gives the run of the task before: with ``on_change`` it is news where its status or its words were others.
    """
    if step.halted and envelope.trigger == "task":
        return False  # a limit is told once, by a notice
    if envelope.report == "auto":
        return step.status != "done" or (not step.quiet and bool(step.answer))
    if envelope.report == "on_failure":
        return step.status != "done"
    if envelope.report == "on_change":
        before = last()
        return before is None or (before.status, before.answer, before.error) != (step.status, step.answer, step.error)
    return envelope.report == "always" or step.status == "waiting"


def words(envelope: Envelope, outcome: Outcome) -> str:
    """The result for people."""
    parts = [outcome.answer] if outcome.answer else []
    if outcome.status == "done" and not parts:
        parts.append("Done.")
    if outcome.status in ("failed", "interrupted"):
        word = "Failed" if outcome.status == "failed" else "Interrupted"
        parts.append(f"**{word}:** {outcome.error}")
    elif outcome.status == "refused" and outcome.error not in outcome.answer:
        parts.append(f"**Refused:** {outcome.error}")
    if outcome.status != "done" and envelope.trigger != "task":
        again = "" if ANOTHER_NAME in outcome.error else " To run it again, move it back to `inbox/`."
        parts.append(f"The command lies in `failed/`, as it was.{again}")
    return "\n\n".join(parts)
