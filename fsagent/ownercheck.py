"""Is ``owner.md`` as it should be, and what does it say of who runs the agent? Looks only; for ``doctor``."""

from __future__ import annotations

import os
from datetime import datetime

from fsagent.config import Settings
from fsagent.errors import DocumentError
from fsagent.files.fields import format_duration
from fsagent.model import Fault
from fsagent.ownership import RENEW, owner_words
from fsagent.workspace.hosts import find_host, machine_id
from fsagent.workspace.layout import Layout
from fsagent.workspace.owner import OWNER_FILE, Claim, read_claim, strongest
from fsagent.workspace.status import daemon_runs

AHEAD = 300.0
"""By so many seconds two clocks may differ; a sync client only ever makes a claim look older."""
SILENT = 2 * RENEW

_TAKE_OVER = "To have it run here: 'fsagent run --take-over'"


def check_owner_file(layout: Layout, settings: Settings, now: datetime) -> tuple[list[Fault], str]:
    """What is wrong with the file, and who else runs the agent, in words; "" where it is this host, or nobody yet."""
    record = find_host(layout, machine_id())
    known = record.best if record else None
    try:
        seen, faults = read_claim(layout), list[Fault]()
    except DocumentError as error:
        seen, faults = None, [_with_advice(fault, known) for fault in error.faults]
    except OSError as error:
        seen, faults = None, [Fault(OWNER_FILE, f"cannot be read: {os.strerror(error.errno or 0)}")]
    best = strongest(known, seen)
    ours = bool(best and record and best.id == record.id)
    runs = daemon_runs(layout)
    if best and seen is None and not faults and not (ours and runs):  # the owner's daemon writes it in a moment
        faults = [Fault(OWNER_FILE, _missing(best, ours=ours))]
    if seen:
        faults += _times(seen, settings, now, writes=not ours or runs, ours=ours)
    return faults, owner_words(best, settings) if best and not ours else ""


def _with_advice(fault: Fault, known: Claim | None) -> Fault:
    goes_on = f"as far as this host knows, {known.host} runs the agent, and writes it anew. " if known else ""
    return Fault(fault.file, f"{fault.message}; {goes_on}{_TAKE_OVER}", fault.line, fault.column, fault.field)


def _missing(best: Claim, *, ours: bool) -> str:
    if ours:
        return "is missing; 'fsagent run' writes it again. Until then a daemon on another machine may claim the folder"
    return f"is missing, though {best.host} runs the agent, which would write it: does the folder sync? {_TAKE_OVER}"


def _times(seen: Claim, settings: Settings, now: datetime, *, writes: bool, ours: bool) -> list[Fault]:
    """What its times tell of the clocks, and of a daemon that should write it."""
    ahead = (max(seen.renewed, seen.started) - now).total_seconds()
    if ahead > AHEAD and not ours:
        why = f"was written by {seen.host} {format_duration(int(ahead))} from now: set the clocks of both machines"
        return [Fault(OWNER_FILE, why, field="renewed")]
    silence = float(settings.take_over_after) or SILENT
    if not writes or -ahead <= silence:
        return []
    when = f"{settings.local(seen.renewed):%Y-%m-%d %H:%M}"
    if ours:
        why = f"was not renewed since {when}, though the daemon here should do that: see its log"
    else:
        why = (
            f"tells nothing of {seen.host} since {when}: is its daemon down, or does the folder not sync? {_TAKE_OVER}"
        )
    return [Fault(OWNER_FILE, why, field="renewed")]
