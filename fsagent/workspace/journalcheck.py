"""Is the journal as it was written? Names the first record that was altered, moved, added or taken away.

Months are followed in the order in which their records were written, which is not that of their names where the clock
was set back. Records of versions that had no chain yet are accepted where they come before it. Whole months that
retention removed are accepted where a record later in the chain says so, with the hash that stood there last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.workspace.chain import HEAD, Chained, Link, chained, read_head
from fsagent.workspace.journal import decode_record

_SO_FAR = "; up to there the journal is as the daemon wrote it"
_ALTERED = "was altered after it was written"
_NO_RECORD = "is no record (torn by a crash, or damaged)"


class Finding(Struct, frozen=True):
    """What is wrong, and where."""

    path: Path
    line: int
    why: str


class Found(Struct, frozen=True):
    """How many lines there are, how many of them are the remains of a write that a crash tore, what is wrong."""

    records: int
    torn: int
    findings: list[Finding]


class Stretch(Struct, frozen=True):
    """Records of the chain that were removed together, and the hash of the last of them."""

    first: int
    last: int
    hash: str


class _Removed(Struct, frozen=True):
    """The part of a ``removed`` record that concerns the chain."""

    chain: tuple[Stretch, ...] = ()


class _Gap(Struct, frozen=True):
    """Records that are not there, and what comes behind them."""

    first: int
    behind: Chained
    finding: Finding


class _Month:
    """One file, read line by line. ``at`` is the record that comes next, None at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = self.torn = self.line = 0
        self.at: Chained | None = None
        self.stranger = 0  # the line of a record that no chain holds, in or behind the chain
        self._file = self._read()
        self.old: list[int] = []  # lines of records from before the chain
        self.odd: list[int] = []  # lines among them that are none
        for number, raw in self._file:
            if found := chained(raw):
                self.at, self.line = found, number
                break
            (self.old if decode_record(raw) is not None else self.odd).append(number)
        self.begun = self.at is not None
        self.damaged = self.odd[0] if self.odd else 0  # the first line of what is no record, just before ``at``

    def step(self) -> None:
        """On to the next record."""
        self.at, self.damaged = None, 0
        for number, raw in self._file:
            if found := chained(raw):
                self.at, self.line = found, number
                return
            if decode_record(raw) is not None:
                self.stranger = self.stranger or number
                continue
            self.torn += 1
            self.damaged = self.damaged or number

    def rest(self) -> int:
        """Read what is left, unchecked; gives the number of lines in all."""
        for _ in self._file:
            pass
        return self.lines

    def _read(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    if raw != b"\n":
                        self.lines += 1
                        yield number, raw
        except FileNotFoundError:
            return


def check_journal(folder: Path) -> Found:
    """Read the whole journal; a daemon may write it meanwhile. Of the chain the first fault is told, for behind it
    nothing is certain; lines from before the chain that are no records are all told. Raises ``OSError``."""
    head = read_head(folder)  # before the records, of which there may be more in a moment
    months = [_Month(path) for path in sorted(folder.glob("????-??.jsonl"))]
    is_chain = any(month.begun for month in months)
    for month in months:
        if is_chain and not month.old:
            month.torn += len(month.odd)
            month.odd.clear()
    findings = [Finding(month.path, line, _NO_RECORD) for month in months for line in month.odd]
    broken = _Walk(months, head).first_fault()
    if broken:
        findings.append(broken)
    elif head.number and not is_chain:
        findings.append(Finding(folder / HEAD, 0, f"names record {head.number}, and no month holds it"))
    return Found(sum(month.rest() for month in months), sum(month.torn for month in months), findings)


class _Walk:
    """From the first record that is there to the last, in the order of their numbers."""

    def __init__(self, months: list[_Month], head: Link) -> None:
        self._months, self._head = months, head
        self._last = Link()
        self._gaps: list[_Gap] = []
        self._removed: list[Stretch] = []

    def first_fault(self) -> Finding | None:
        """What is wrong first; None where all is well."""
        begun = [month for month in self._months if month.at]
        if not begun:
            return None
        month = min(begun, key=_number)
        late = [each for each in self._months if each.old and each.path.name > month.path.name]
        if late:
            return _stranger(late[0].path, late[0].old[0])
        fault = None
        while fault is None and (following := self._next(month)):
            fault = self._take(month := following)
        for gap in self._gaps:
            if not self._accounted(gap):
                return gap.finding
        return fault or self._at_the_end(month)

    def _next(self, month: _Month) -> _Month | None:
        """The month in which the chain goes on; where it does not, the one in which that shows."""
        left = [each for each in self._months if each.at]
        for each in (month, *left):
            if each.at and _number(each) == self._last.number + 1:
                return each
        if month.at and _number(month) <= self._last.number:
            return month
        later = [each for each in left if _number(each) > self._last.number]
        return min(later or left, key=_number, default=None)

    def _take(self, month: _Month) -> Finding | None:
        """One record; what is wrong with it, if that ends the walk."""
        found, line, before = month.at, month.line, self._last
        assert found is not None
        number = found.link.number
        if number <= before.number:
            return self._out_of_order(month, number)
        if number > before.number + 1:
            self._gaps.append(_Gap(before.number + 1, found, _missing(month, before.number + 1, number - 1)))
        elif not found.follows(before.hash):
            return Finding(month.path, line, _ALTERED + _SO_FAR)
        if number == self._head.number and found.link.hash != self._head.hash:
            why = "is not the record that the daemon wrote: the journal was written anew up to here, or before"
            return Finding(month.path, line, why)
        self._removed += _removed_in(found.body)
        self._last = found.link
        month.step()
        return _stranger(month.path, month.stranger) if month.stranger else None

    def _out_of_order(self, month: _Month, number: int) -> Finding:
        for gap in self._gaps:
            jumped = gap.behind.link.number
            if gap.first <= number < jumped:
                self._gaps.remove(gap)
                why = f"is out of order: record {jumped} stands where record {number} belongs"
                if self._last == gap.behind.link and number == gap.first + 1:  # all goes on as if it had been in line
                    why = _ALTERED
                return Finding(gap.finding.path, gap.finding.line, why + _SO_FAR)
        why = f"is out of order: record {number} stands behind record {self._last.number}"
        return Finding(month.path, month.line, why + _SO_FAR)

    def _accounted(self, gap: _Gap) -> bool:
        last = gap.behind.link.number - 1
        return any(
            each.first <= gap.first and each.last == last and gap.behind.follows(each.hash) for each in self._removed
        )

    def _at_the_end(self, month: _Month) -> Finding | None:
        if self._head.number <= self._last.number:
            return None
        if month.damaged:
            return _missing(month, self._last.number + 1, self._head.number)
        why = f"ends with record {self._last.number}; those up to {self._head.number} were taken away"
        return Finding(month.path, 0, why)


def _number(month: _Month) -> int:
    return month.at.link.number if month.at else 0


def _removed_in(body: bytes) -> tuple[Stretch, ...]:
    if b'"event":"removed"' not in body:
        return ()
    try:
        return msgspec.json.decode(body + b"}", type=_Removed).chain
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ()


def _missing(month: _Month, first: int, last: int) -> Finding:
    records = f"record {first} is" if first == last else f"records {first} to {last} are"
    if month.damaged:
        return Finding(month.path, month.damaged, f"is damaged; {records} lost{_SO_FAR}")
    return Finding(month.path, month.line, f"{records} missing before this record{_SO_FAR}")


def _stranger(path: Path, line: int) -> Finding:
    why = "is not part of the chain: somebody else wrote it, or an earlier version of fsagent"
    return Finding(path, line, why + _SO_FAR)
