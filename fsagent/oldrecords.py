"""What is kept by the month, and lone files: the journal, what models took, what is remembered of removed runs; notices
in outbox/notices/, and answered questions in archive/."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from fsagent.keepsettings import Age, KeepSettings, Kept, Size
from fsagent.model import MAX_DOCUMENT
from fsagent.notices import FOLDER
from fsagent.retention import Item, disk_use, remove_empty
from fsagent.workspace.ballot import id_in
from fsagent.workspace.chain import chained
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.journalcheck import Stretch
from fsagent.workspace.layout import Layout
from fsagent.workspace.removed import LIVES, MOST, RemovedLog

MONTHS_STAY = 3
"""The newest months stay whatever the settings say: budgets are counted from them, and a day may lie in two."""

_MONTH = re.compile(r"(19|2[0-9])[0-9]{2}-(0[1-9]|1[0-2])")
_NOTICE = re.compile(rb"---\r?\nnotice: ")
_REMEMBERED = Kept(age=Age(LIVES), size=Size(MOST))


class Lone(Struct, frozen=True):
    """A file that belongs to no run's folder."""

    path: Path
    item: Item


def old_months(layout: Layout, keep: KeepSettings, now: datetime) -> Iterator[tuple[Path, Item]]:
    """The months that go: of each kind the oldest first, by age and by what all of them take together."""
    kinds = (("journal", layout.journal, keep.journal), ("usage", layout.usage, keep.usage),
             ("removed", layout.removed, _REMEMBERED))  # fmt: skip
    for place, folder, kept in kinds:
        months = sorted(path for path in folder.glob("????-??.jsonl") if _MONTH.fullmatch(path.stem))
        total = sum(map(_size, months))
        for path in months:
            end = _month_after(path.stem)
            if _months(now) - _months(end) + 1 < MONTHS_STAY:
                break
            if (now - end).total_seconds() > kept.age:
                why = f"older than {kept.age}"
            elif total > kept.size:
                why = f"more than {kept.size}"
            else:
                break
            total -= (size := _size(path))
            yield path, Item(place, layout.name(path), size, why + (f" (keep.{place})" if place != "removed" else ""))


def records_over(layout: Layout, keep: KeepSettings) -> dict[str, int]:
    """The kinds of which the months take more than their limit, and how much."""
    kinds = (("journal", layout.journal, keep.journal), ("usage", layout.usage, keep.usage))
    sizes = {place: sum(map(_size, folder.glob("????-??.jsonl"))) for place, folder, _ in kinds}
    return {place: sizes[place] for place, _, kept in kinds if sizes[place] > kept.size}


def remove_month(
    layout: Layout, path: Path, item: Item, journal: Journal, index: Index, now: datetime, pause: Callable[[], None]
) -> None:
    """Remove a month, after what is needed of it was written down elsewhere. Raises ``OSError``."""
    if item.place == "journal":
        others = [each for each in path.parent.glob("????-??.jsonl") if each != path]
        journal.append("removed", durable=True, place="journal", file=item.name, bytes=item.bytes,
                       chain=_stretches(path, others, pause))  # fmt: skip
    if item.place == "removed":
        log = RemovedLog(path.parent, now)
        try:
            lying = index.removed.in_file(item.name)
            if lying:
                size = log.append(lying, durable=True)
                index.removed.put(layout.name(log.path), lying, size)
        finally:
            log.close()
        index.removed.forget(item.name)
        index.commit()
    path.unlink(missing_ok=True)


def lone_files(layout: Layout, keep: KeepSettings, now: datetime, over: Callable[[str], bool]) -> Iterator[Lone]:
    """Notices and answered questions that go, the oldest of each first. ``over`` says whether more lies in a place than
    its limit; what is not known by its content as ours stays."""
    places: Sequence[tuple[str, Kept, list[Path], Callable[[bytes], bool]]] = (
        ("outbox", keep.outbox, [layout.outbox / FOLDER], lambda raw: bool(_NOTICE.match(raw))),
        ("archive", keep.archive, sorted(layout.archive.glob("????-??/approvals")), lambda raw: all(id_in(raw))),
    )
    for place, kept, folders, is_ours in places:
        for age, status, path in sorted(_aged(folders, now), key=lambda each: -each[0]):
            if age < keep.unread:
                break
            why = f"older than {kept.age} (keep.{place}.age)" if age >= kept.age else ""
            why = why or (f"more than {kept.size} (keep.{place}.size)" if over(place) else "")
            if why and is_ours(_read(path)):
                yield Lone(path, Item(place, layout.name(path), disk_use(status), why))


def remove_lone(layout: Layout, lone: Lone) -> None:
    """Remove one of them, and the folders that it leaves empty. Raises ``OSError``."""
    lone.path.unlink(missing_ok=True)
    remove_empty(lone.path.parent, layout.root)


def _aged(folders: Sequence[Path], now: datetime) -> Iterator[tuple[float, os.stat_result, Path]]:
    for folder in folders:
        if folder.is_symlink() or folder.parent.is_symlink():
            continue
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(".md") and stat.S_ISREG(status.st_mode):
                    yield now.timestamp() - status.st_mtime, status, Path(entry)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT)
    except OSError:
        return b""


def _stretches(path: Path, others: Sequence[Path], pause: Callable[[], None]) -> list[Stretch]:
    """The parts of the chain that lie in a month; what is gone already before the first of all counts in."""
    found: list[Stretch] = []
    with path.open("rb") as file:
        for count, line in enumerate(file):
            if count % 1000 == 0:
                pause()
            if part := chained(line):
                number, first = part.link.number, part.link.number
                if found and found[-1].last == number - 1:
                    first = found.pop().first
                found.append(Stretch(first, number, part.link.hash))
    if found and found[0].first < min(map(_first, others), default=10**18):
        found[0] = Stretch(1, found[0].last, found[0].hash)
    return found


def _first(path: Path) -> int:
    """The number of the first record of a month that is chained; a great one where none is."""
    with path.open("rb") as file:
        return next((part.link.number for line in file if (part := chained(line))), 10**18)


def _size(path: Path) -> int:
    try:
        return disk_use(os.stat(path))
    except FileNotFoundError:
        return 0


def _month_after(month: str) -> datetime:
    """When a month ends: the next one's first moment, in UTC."""
    year, number = map(int, month.split("-"))
    return datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _months(moment: datetime) -> int:
    return moment.year * 12 + moment.month
