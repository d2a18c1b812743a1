"""How people write when a task falls due, and how that becomes a ``Timetable``."""

from __future__ import annotations

from msgspec import Struct

from fsagent.files.fields import Duration
from fsagent.timetable import Timetable

LEAST_PERIOD = 1.0


class Period(Duration):
    """How often a task falls due: a duration, or ``heartbeat`` (0) for the settings' interval."""

    @classmethod
    def parse(cls, text: str) -> Period:
        """Seconds. Raises ``ValueError`` with what to write instead."""
        if text.strip().lower() == "heartbeat":
            return cls(0)
        try:
            period = cls(Duration.parse(text))
        except ValueError as error:
            raise ValueError(f"{error}, or heartbeat") from None
        if period < LEAST_PERIOD:
            raise ValueError("must be at least 1s")
        return period


class RuleFields(Struct, frozen=True):
    """The fields of a task's frontmatter that say when it falls due; all of them are optional."""

    every: Period = Period(0)


def timetable(fields: RuleFields) -> tuple[Timetable, list[tuple[str, str]]]:
    """The rule that the fields make, and what is wrong with them: (field, what to write instead)."""
    return Timetable(every=float(fields.every)), []


def rule_from_text(text: str) -> dict[str, str]:
    """The fields that say what a person wrote in one line: ``10m``, ``heartbeat``, ``0 9 * * mon-fri``, ``09:00``,
    ``mon,fri 09:00``, ``2027-01-05 14:00``. Raises ``ValueError`` with what to write instead."""
    Period.parse(text)
    return {"every": text}


def in_words(table: Timetable, heartbeat: float = 0.0) -> str:
    """The rule for people: ``every 10m``, ``every heartbeat (15m)``, ``at 09:00 on Mon-Fri``."""
    from fsagent.files.fields import format_duration

    return f"every {format_duration(table.every)}" if table.every else "every heartbeat"
