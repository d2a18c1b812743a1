"""The contract of a run, ``expects:``: what it promised to leave, looked for when its engine says that it has ended.

Whether a file is ``newer`` is told without any clock: what the disk says of it is recorded when the run first begins,
and at the end it has to say something else. The record outlives restarts and retries.

Limits: a change of its mode or times counts as a newer file; what a person or another run wrote meanwhile counts, too.
A run that somebody cancelled, that a crash left in doubt, or that a budget ended is not judged: it ends as that.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from fsagent.errors import UnsafePathError
from fsagent.files.paths import SafeRoot
from fsagent.model import Expects, Step

_Seen = list[int] | None


def promise_of(expects: Expects, root: SafeRoot, day: datetime) -> dict[str, Any]:
    """What to record, as ``promised``, when a run begins: by the path of the file, what the disk says of it now."""
    path = expects.file_on(day)
    return {"files": {path: _look(root, path)[0]} if path else {}}


def judged(step: Step, expects: Expects, promised: Mapping[str, Any], root: SafeRoot, day: datetime) -> Step:
    """The last step of a run as the contract makes it: failed where something is missing, with words for what.

    A run that was to end in another way than ``done``, and did, has done what was promised: it is done.
    """
    wanted = expects.status or "done"
    if step.halted or step.passing or step.status not in ("done", "failed", "refused"):
        return step
    if step.status != wanted and (step.status == "failed" or not expects.status):
        return step
    missing = []
    if step.status != wanted:
        missing.append(f"it ended as {step.status}, not {wanted}" + (f": {step.error}" if step.error else ""))
    if expects.contains and expects.contains not in f"{step.answer}\n{step.error}":
        missing.append(f"the answer does not hold {expects.contains!r}")
    if expects.file and (why := _file_missing(expects, promised.get("files") or {}, root, day)):
        missing.append(why)
    if missing:
        error = f"did not leave what it promised (expects): {'; '.join(missing)}"
        return msgspec.structs.replace(step, status="failed", error=error, quiet=False)
    if step.status == "done":
        return step
    ended = "It failed" if step.status == "failed" else "It was refused"
    answer = "\n\n".join(filter(None, [step.answer, f"{ended}, as expected: {step.error}"]))
    return msgspec.structs.replace(step, status="done", answer=answer, error="")


def _file_missing(expects: Expects, before: Mapping[str, Any], root: SafeRoot, day: datetime) -> str:
    """What is wrong with the file; "" where it is there. ``{{ date }}`` may be the day on which the run began, or the
    one on which it ends; of the latter nothing may be known from before."""
    paths = list(dict.fromkeys([*before, expects.file_on(day)]))
    found = [_file_trouble(path, before.get(path), root, newer=expects.newer) for path in paths]
    return "" if "" in found else found[-1]


def _file_trouble(path: str, before: Sequence[int] | None, root: SafeRoot, *, newer: bool) -> str:
    seen, why = _look(root, path)
    if seen is None:
        return f"{path} {why}"
    return f"{path} was not written" if newer and seen == before else ""


def _look(root: SafeRoot, path: str) -> tuple[_Seen, str]:
    """What tells one state of a file from another, as the disk has it; or None, and why there is none."""
    if not path:
        return None, ""
    try:
        status = root.status(path)
    except UnsafePathError as error:
        return None, f"cannot be looked at: {error}"
    except OSError as error:
        return None, f"cannot be looked at: {error.strerror or error}"
    if status is None:
        return None, "is not there"
    if not stat.S_ISREG(status.st_mode):
        return None, "is no file"
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino], ""
