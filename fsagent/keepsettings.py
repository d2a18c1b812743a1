"""Settings of what is kept, and for how long. A part of ``config``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from fsagent.files.fields import Amount, Duration, format_duration

DAY = 86400.0
LEAST_UNREAD = 7 * DAY
"""For so long a run must be there: a client may ask for it again by its key, a sync client may bring its file again."""

_YEARS = re.compile(r"(\d+)\s*y(?:ears?)?\s*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([kmgt])i?)?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class Age(Duration):
    """An age in seconds, written ``90d`` or ``2y`` (years of 365 days), or ``off`` for no limit (infinity)."""

    @classmethod
    def parse(cls, text: str) -> Age:
        """The seconds. Raises ``ValueError`` with what to write instead."""
        if text.strip().lower() == "off":
            return cls("inf")
        years = _YEARS.fullmatch(text.strip().lower())
        try:
            return cls(int(years[1]) * 365 * DAY if years else Duration.parse(text))
        except ValueError:
            raise ValueError(f"{text!r} is no age; write for instance 90d or 2y, or off") from None

    def __str__(self) -> str:
        if self == float("inf"):
            return "off"
        years = self / (365 * DAY)
        return f"{years:g}y" if years and years == int(years) else format_duration(self)


class Size(Amount):
    """A number of bytes, written ``500MB`` or ``2GB`` (powers of ten), or ``off`` for no limit (infinity)."""

    @classmethod
    def parse(cls, text: str) -> Size:
        """The bytes. Raises ``ValueError`` with what to write instead."""
        if text.strip().lower() == "off":
            return cls("inf")
        found = _SIZE.fullmatch(text.strip())
        if not found:
            raise ValueError(f"{text!r} is no size; write for instance 500MB or 2GB, or off")
        return cls(float(found[1]) * _UNITS[(found[2] or "").lower()])

    def __str__(self) -> str:
        return "off" if self == float("inf") else format_size(self)


def format_size(size: float) -> str:
    """Bytes for people: ``1.5 GB``, ``12 kB``."""
    for unit in ("GB", "MB", "kB"):
        if size >= (least := _UNITS[unit[0].lower()]):
            return f"{size / least:.3g} {unit}"
    return f"{size:.0f} bytes"


class Kept(Struct, frozen=True, kw_only=True):
    """How long the things of one place are kept, and how much of them."""

    age: Age = Age(365 * DAY)
    size: Size = Size(10**9)


class KeptRuns(Kept, frozen=True, kw_only=True):
    """The runs' folders: they are large, and what people need of them lies elsewhere, too."""

    age: Age = Age(90 * DAY)
    size: Size = Size(2 * 10**9)


class KeptFailed(Kept, frozen=True, kw_only=True):
    """What failed waits for a person."""

    age: Age = Age(2 * 365 * DAY)


class KeptRecords(Kept, frozen=True, kw_only=True):
    """Records: whole months of them."""

    age: Age = Age(2 * 365 * DAY)


class KeepSettings(Struct, frozen=True, kw_only=True):
    """What is kept, by place. What ended less than ``unread`` ago is kept whatever the rest says."""

    unread: Age = Age(30 * DAY)
    archive: Kept = Kept()
    failed: KeptFailed = KeptFailed()
    outbox: Kept = Kept()
    runs: KeptRuns = KeptRuns()
    journal: KeptRecords = KeptRecords()
    usage: KeptRecords = KeptRecords()


def keep_faults(keep: KeepSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What no type can say, each with its place below ``keep``."""
    if not LEAST_UNREAD <= keep.unread < float("inf"):
        yield ("unread",), "must be at least 7d, and not off; to keep all there is, set each place to off"
