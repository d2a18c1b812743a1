"""Was this asked for before? What a sync client delivers again, a conflict copy, an id that is taken, a later save.

A person who moves a command back from archive/ or failed/ means it: whatever lay there is gone then, and that is the
test. What still lies where it was settled was not moved, so the new file is a repetition; so it is while the first one
has not ended. Limit: where a person deletes an archived command and a sync client then delivers the same file again,
the two cannot be told from a move, and it runs again.
"""

from __future__ import annotations

import os
from datetime import timedelta

from fsagent.files.names import conflict_of, device_copy_of
from fsagent.model import Command, Fault, Run
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder

SUPERSEDED_WITHIN = timedelta(minutes=10)
ANOTHER_NAME = "drop it under another name"  # and not: move it back, which would change nothing
_SAVES = 20  # as many saves of one file are looked back at
_DELIVERED_AGAIN = "delivered again; ran as"
_LATER_SAVE = "looks like a later save of the command that ran as"


def delivered_before(layout: Layout, index: Index, envelope: Envelope) -> Run | None:
    """The earlier run of the very same file: name, content and time of change are alike (facts/files.md §7 rule 6).

    One that was set aside itself is none. Of two that are under way, the one with the first name is the earlier.
    """
    for run in index.by_key(envelope.key):
        if run.run == envelope.run or run.error.startswith(_DELIVERED_AGAIN):
            continue
        if _still_lies(layout, run) if run.settled else run.run < envelope.run:
            return run
    return None


def ran_before(index: Index, envelope: Envelope) -> Run | None:
    """This very run, if it ended long ago and was removed since: whoever hands it in again could not see that."""
    removed = index.removed.get(envelope.run)
    return removed.as_run("") if removed else None


def told_of(earlier: Run) -> str:
    """What is recorded of a file that was delivered again."""
    return f"{_DELIVERED_AGAIN} {earlier.run}"


def conflict_copy(layout: Layout, index: Index, envelope: Envelope) -> list[Fault]:
    """The fault of a sync client's conflict copy, which nobody asked for: it says what became of the original."""
    folder, slash, name = envelope.name.rpartition("/")
    original = conflict_of(name)
    doubtful = None if original else device_copy_of(name, [os.uname().nodename])
    if not (original or doubtful):
        return []
    name = f"{folder}{slash}{original or doubtful}"
    run = index.last_of(name, but=envelope.run)
    if os.path.lexists(layout.inbox / name):
        became = f"inbox/{name} lies there still"
    elif run:
        became = f"{name} is run {run.run} ({run.status}" + (f", {run.result})" if run.result else ")")
    elif doubtful:
        return []  # there was no such command: somebody chose the name
    else:
        became = f"there is no {name} in inbox/, and none was run"
    why = (
        f"is a sync conflict copy of {name}: two devices wrote it at the same time. It was not run; {became}. Compare "
        f"the two. To have this text run, too, {ANOTHER_NAME}"
    )
    return [Fault(envelope.path or envelope.name, why)]


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
    runs = (run for run in index.latest_of(envelope.name, _SAVES) if run.run < envelope.run)
    run = next((run for run in runs if _LATER_SAVE not in run.error and _DELIVERED_AGAIN not in run.error), None)
    if run is None or run.started is None or run.status in ("refused", "failed", "interrupted"):
        return []
    if envelope.time - run.started > SUPERSEDED_WITHIN:
        return []
    try:
        before = RunFolder(layout.runs / run.run).raw().rstrip()
    except OSError:
        return []
    moved_away = run.settled and not _still_lies(layout, run)
    if moved_away or len(raw.rstrip()) <= len(before) or not raw.startswith(before):
        return []
    why = (
        f"{_LATER_SAVE} {run.run}; it was not run twice. To run this text too, "
        f"{ANOTHER_NAME}. While you write over some minutes, say draft: true at the top"
    )
    return [Fault(envelope.path or envelope.name, why)]


def _still_lies(layout: Layout, run: Run) -> bool:
    return bool(run.settled) and os.path.lexists(layout.root / run.settled)
