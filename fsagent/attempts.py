"""What a run's records say of its tries: how many there were, how many the daemon died over, when the next is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec


def tries(events: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How often the run was tried, and how often the daemon died over it: while it was read, or while it ran.

    A run that only waited for its turn when the daemon died has no part in that, nor has one that the disk did not take
    (``trouble``).
    """
    tried = crashes = 0
    reading = running = False
    for event in events:
        kind = event["event"]
        if kind == "trouble" or event.get("trouble"):
            tried -= running
            reading = running = False
        if kind == "attempt":
            crashes += reading or running
            reading, running = True, False
        elif kind == "understood":
            reading = False
        elif kind == "started":
            tried, running = tried + 1, True
        elif kind in ("retry", "held", "stopped", "asked"):
            tried -= running and kind in ("stopped", "asked")
            reading = running = False
    return tried, crashes + (reading or running)


def waits_until(events: Sequence[Mapping[str, Any]]) -> datetime | None:
    """The time for which a run waits: for another try, or because its command says so (``not_before``)."""
    last = events[-1] if events else {}
    return msgspec.convert(last["at"], datetime) if last.get("event") in ("retry", "held") else None
