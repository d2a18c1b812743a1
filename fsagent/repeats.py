"""Was this asked for before? What a sync client delivers again, an id that is taken, a command saved once more.

A person who moves a command back from archive/ or failed/ means it: whatever lay there is gone then, and that is the
test. What still lies where it was settled was not moved, so the new file is a repetition.
"""

from __future__ import annotations

import os
from datetime import timedelta

from fsagent.model import Command, Fault, Run
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder

SUPERSEDED_WITHIN = timedelta(minutes=10)


def delivered_before(layout: Layout, index: Index, envelope: Envelope) -> Run | None:
    """The earlier run of the very same file: name, content and time of change are alike (facts/files.md §7 rule 6)."""
    for run in index.by_key(envelope.key):
        if run.run != envelope.run and _still_lies(layout, run):
            return run
    return None


def ran_before(index: Index, envelope: Envelope) -> Run | None:
    """This very run, if it ended long ago and was removed since: whoever hands it in again could not see that."""
    removed = index.removed.get(envelope.run)
    return removed.as_run("") if removed else None


def taken_id(layout: Layout, index: Index, envelope: Envelope, command: Command) -> list[Fault]:
    """The fault of an ``id`` that has its run already.

    One that gave up may be run again: by moving it back, or where a person asked for just that (``again``).
    """
    for run in index.by_id(command.id):
        lies = _still_lies(layout, run) and not envelope.again
        if run.run != envelope.run and (run.status == "done" or not run.settled or lies):
            result = f"; its result is {run.result}" if run.result else ""
            why = f"{command.id!r} was run already, as run {run.run}{result}"
            return [Fault(envelope.path or envelope.name, why, field="id")]
    return []


def superseded(layout: Layout, index: Index, envelope: Envelope, raw: bytes) -> list[Fault]:
    """The fault of a file saved again with more text, minutes after its first save was taken for the whole command.

    Where that first save did nothing (refused, failed) the new text is what was meant, and runs.
    """
    if envelope.trigger != "inbox":
        return []
    run = index.last_of(envelope.name, but=envelope.run)
    if run is None or run.started is None or run.status in ("refused", "failed", "interrupted"):
        return []
    if envelope.time - run.started > SUPERSEDED_WITHIN:
        return []
    try:
        before = RunFolder(layout.runs / run.run).raw().rstrip()
    except OSError:
        return []
    if not _still_lies(layout, run) or len(raw.rstrip()) <= len(before) or not raw.startswith(before):
        return []
    why = (
        f"looks like a later save of the command that ran as {run.run}; it was not run twice. To run this text too, "
        "drop it under another name. While you write over some minutes, say draft: true at the top"
    )
    return [Fault(envelope.path or envelope.name, why)]


def _still_lies(layout: Layout, run: Run) -> bool:
    return bool(run.settled) and os.path.lexists(layout.root / run.settled)
