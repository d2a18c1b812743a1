"""The inbox: which files in it are complete commands, and taking possession of one.

The scan is the truth; whoever saw an event only asks for a scan sooner. Nothing is remembered between two scans but
what would be costly to find out again, so a scan after a restart gives the same answer.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from fsagent.files.atomic import open_plain, sync_dir
from fsagent.files.names import conflict_of, is_command_copy, is_command_name, is_temporary, skip_directory
from fsagent.files.quiet import Identity, identity_of, is_written, seconds_to_quiet
from fsagent.files.refusals import SHORTAGES
from fsagent.model import MAX_DOCUMENT
from fsagent.workspace.commands import CommandFields, is_attachment, peek
from fsagent.workspace.layout import Layout, readable
from fsagent.workspace.runs import Envelope, RunFolder, discard_empty, make_folder

MAX_DEPTH = 32
_RECHECK = 0.25


class Arrival(Struct, frozen=True):
    """A complete command file. ``name`` is its relative name; ``identity`` what must not change until it is claimed."""

    path: Path
    name: str
    identity: Identity
    attachments: tuple[Path, ...] = ()


class Lying(Struct, frozen=True):
    """A file that stays where it is, and why."""

    name: str
    why: str


class Scan(Struct, frozen=True):
    """What one look at the inbox found: commands in the order to run them, files that stay, and when to look again.

    ``settling`` and ``again`` are in seconds from now: until a file that was just written may be complete, and until
    anything else that waits is worth a look. None where only a change can make a difference.
    """

    ready: list[Arrival]
    lying: list[Lying]
    settling: float | None = None
    again: float | None = None


class Inbox:
    """Scans and claims. Used by one thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: dict[str, tuple[Identity, float]] = {}
        self._peeked: dict[str, tuple[Identity, bool, CommandFields | None]] = {}

    def scan(
        self, now: datetime, monotonic: float, settle: float, settle_renamed: float, attachment_wait: float
    ) -> Scan:
        """Look at every file. ``settle`` is how long a file must be quiet, ``settle_renamed`` one moved in; this one
        waits for ``settle``, too, where an older one has yet to settle, so that it does not overtake it.

        ``now`` is aware; ``monotonic`` a clock that never jumps, for files whose times lie in the future. Raises
        ``OSError`` where the system has nothing to look with.
        """
        look = _Look()
        seen: dict[str, tuple[Identity, float]] = {}
        for path, status, why in _walk(self._layout.inbox):
            name = readable(os.path.relpath(path, self._layout.inbox))
            if status is None:
                look.lying.append(Lying(name, why))
                continue
            look.files[path] = status
            if not _is_taken(path.name):
                look.others[path] = name
                continue
            if status.st_size == 0:
                look.lying.append(Lying(name, "is empty; waits for content"))
                continue
            arrival = Arrival(path, name, identity_of(status))
            seen[name] = self._seen.get(name, (arrival.identity, monotonic))
            if seen[name][0] != arrival.identity:
                seen[name] = (arrival.identity, monotonic)
            rest = seconds_to_quiet(status, now, monotonic - seen[name][1], settle, settle_renamed)
            fields = self._peek(arrival, quiet=rest <= 0)
            for each in filter(is_attachment, fields.attachments if fields else ()):
                look.named[path.parent / each] = path
            if rest > 0:
                look.settling.append(rest)
                look.oldest = min(look.oldest, status.st_mtime_ns)
                continue
            slack = seconds_to_quiet(status, now, monotonic - seen[name][1], settle, settle)
            look.complete.append((status.st_mtime_ns, slack, arrival))
        self._seen = seen
        self._peeked = {name: value for name, value in self._peeked.items() if name in seen}
        return self._judge(look, now, attachment_wait)

    def _judge(self, look: _Look, now: datetime, patience: float) -> Scan:
        """What becomes of each file, once it is known which ones there are."""
        ready, lying = list[Arrival](), look.lying
        again: list[float] = []
        # a command that another one names is its attachment; of two that name each other, neither is
        beside = {
            path: look.files[path] for path, by in look.named.items() if path in look.files and by not in look.named
        }
        for written, slack, arrival in sorted(look.complete, key=lambda each: (each[0], each[2].name)):
            if arrival.path in beside:
                by = look.named[arrival.path].name
                lying.append(Lying(arrival.name, f"is an attachment of {readable(by)}, which names it"))
                continue
            if slack > 0 and written > look.oldest:  # what was moved in is complete sooner, and may yet not overtake
                look.settling.append(slack)
                continue
            try:
                held = self._held(arrival, beside, now, patience)
            except OSError as error:
                held = _Held(wait=_RECHECK * 4, why=f"cannot be read: {os.strerror(error.errno or 0)}")
            if held.wait is None:
                ready.append(Arrival(arrival.path, arrival.name, arrival.identity, held.found))
            else:
                lying.append(Lying(arrival.name, held.why))
                if held.wait:
                    (look.settling if held.settling else again).append(held.wait)
        lying += [Lying(name, _why_not(path.name)) for path, name in look.others.items() if path not in look.named]
        lying.sort(key=lambda each: each.name)
        return Scan(ready, lying, min(look.settling, default=None), min(again, default=None))

    def claim(self, arrival: Arrival, run: str, now: datetime) -> RunFolder | None:
        """Take possession by rename into the run's new folder; None if the file changed, is written to, or is gone.
        Raises ``OSError`` where it is refused."""
        try:
            fd = os.open(arrival.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            return None
        try:
            if not _is_whole(fd, arrival):
                return None
            folder = self._folder_for(arrival, run, now, os.read(fd, MAX_DOCUMENT + 1))
            try:
                if not _is_whole(fd, arrival):
                    discard_empty(folder)
                    return None
                os.rename(arrival.path, folder.claimed)
            except OSError as error:
                with suppress(OSError):  # the same fault; whoever asked for it removes it later
                    discard_empty(folder)
                if isinstance(error, FileNotFoundError):
                    return None
                raise
        finally:
            os.close(fd)
        # the rename itself renews the time of the status change
        if identity_of(os.lstat(folder.claimed))[:3] != arrival.identity[:3] and self._give_back(folder, arrival.path):
            return None
        if arrival.attachments:  # without the command they would be nobody's
            sync_dir(folder.path)
        for attachment in arrival.attachments:
            with suppress(OSError):  # gone since the scan: the command is answered that it did not arrive
                os.rename(attachment, folder.attachments / attachment.name)
        return folder

    def _folder_for(self, arrival: Arrival, run: str, now: datetime, raw: bytes) -> RunFolder:
        """The folder that is to have possession of a command, durable: of what follows a power cut may leave the rename
        alone, and a command must not lie where nothing leads to it, or says what it is. Raises ``OSError``."""
        digest = hashlib.sha256(raw)
        digest.update(f"\n{arrival.identity[2]}\n{arrival.name}".encode())
        folder = make_folder(
            self._layout.runs / run,
            Envelope(
                run=run, name=arrival.name, trigger="inbox", time=now.astimezone(UTC), path=f"inbox/{arrival.name}",
                thread=arrival.name.rpartition("/")[0], key=digest.hexdigest(),
            ),
        )  # fmt: skip
        try:
            if arrival.attachments:
                folder.attachments.mkdir()
            folder.sync()
            sync_dir(folder.path)
            sync_dir(self._layout.runs)
        finally:
            folder.close()
        return folder

    def _give_back(self, folder: RunFolder, path: Path) -> bool:
        """A file was saved in the very moment of the claim: let it settle first, unless its name is taken again."""
        try:
            os.link(folder.claimed, path, follow_symlinks=False)
        except OSError:
            return False
        try:
            os.unlink(folder.claimed)
        except OSError:  # it may not be in two places
            os.unlink(path)
            return False
        return discard_empty(folder)

    def _held(self, arrival: Arrival, others: dict[Path, os.stat_result], now: datetime, patience: float) -> _Held:
        fields = self._peek(arrival)
        if fields is None:
            return _Held()
        if fields.draft:
            return _Held(wait=0, why="is a draft (draft: true); it is left alone")
        if fields.not_before:
            written = datetime.fromtimestamp(arrival.identity[2] / 1e9, now.tzinfo)
            rest = (fields.not_before.at(written) - now).total_seconds()
            if rest > 0:
                return _Held(wait=rest, why=f"waits until {fields.not_before} (not_before)")
        found: list[Path] = []
        missing: list[Path] = []
        for name in fields.attachments:
            path = arrival.path.parent / name
            status = others.get(path)
            quiet = status is not None and now.timestamp() - status.st_ctime >= _RECHECK
            (found if quiet else missing).append(path)
        age = now.timestamp() - arrival.identity[3] / 1e9
        if missing and 0 <= age < patience:
            names = ", ".join(path.name for path in missing)
            settling = all(path in others for path in missing)
            return _Held((), _RECHECK * 4, f"waits for its attachments: {names}", settling)
        return _Held(tuple(found))

    def _peek(self, arrival: Arrival, *, quiet: bool = True) -> CommandFields | None:
        """The command's settings, read once per state of a file, and again when it is ``quiet``: times are coarse.

        Those of a conflict copy do not count.
        """
        if is_command_copy(arrival.path.name):
            return None
        known = self._peeked.get(arrival.name)
        if known and known[0] == arrival.identity and (known[1] or not quiet):
            return known[2]
        fields: CommandFields | None = None
        try:
            fd = os.open(arrival.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                fields = peek(file.read(MAX_DOCUMENT), arrival.name)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
        self._peeked[arrival.name] = (arrival.identity, quiet, fields)
        return fields


def bring_attachments(layout: Layout, folder: RunFolder, envelope: Envelope, names: Sequence[str]) -> None:
    """Take possession of what lay complete beside a command when it was claimed, where a crash came between the two."""
    if envelope.trigger != "inbox" or not folder.attachments.is_dir():
        return
    for name in names:
        source, target = (layout.root / envelope.path).with_name(name), folder.attachments / name
        if target.exists():
            continue
        with suppress(OSError):  # it is answered that it did not arrive
            fd = open_plain(source)
            try:
                if not is_written(fd):
                    os.rename(source, target)
            finally:
                os.close(fd)


def _is_taken(name: str) -> bool:
    """Whether a file is taken: a command, or a conflict copy of one, which is not run, but answered and put aside."""
    return is_command_name(name) or is_command_copy(name)


def _why_not(name: str) -> str:
    if conflict_of(name):
        return "is a sync conflict copy of a file that is no command; it is left alone"
    return "is no command (.md, .markdown or .txt) and no command names it as an attachment"


class _Look:
    """What lies in the inbox: every file, the complete commands with the time of their writing and what is left of
    ``settle``, what is no command, and what the commands name as their attachments, each with one that does."""

    def __init__(self) -> None:
        self.files: dict[Path, os.stat_result] = {}
        self.complete: list[tuple[int, float, Arrival]] = []
        self.others: dict[Path, str] = {}
        self.named: dict[Path, Path] = {}
        self.lying: list[Lying] = []
        self.settling: list[float] = []
        self.oldest = math.inf  # of those that settle


class _Held(Struct, frozen=True):
    """Whether a complete command may run: ``wait`` None means yes, 0 until it changes, else seconds to wait.

    ``settling``: all that it waits for is there, and was written just now.
    """

    found: tuple[Path, ...] = ()
    wait: float | None = None
    why: str = ""
    settling: bool = False


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result | None, str]]:
    """Every file that might matter, without following links; with a reason instead of a status if it cannot be used."""
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            yield folder, None, f"cannot be looked into: {os.strerror(error.errno or 0)}"
            continue
        for entry in entries:
            path = Path(entry.path)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield path, None, f"cannot be looked at: {os.strerror(error.errno or 0)}"
                continue
            if stat.S_ISDIR(status.st_mode):
                if skip_directory(entry.name):
                    continue
                if depth >= MAX_DEPTH:
                    yield path, None, f"lies more than {MAX_DEPTH} folders deep"
                else:
                    folders.append((path, depth + 1))
            elif is_temporary(entry.name):
                continue
            elif not stat.S_ISREG(status.st_mode):
                yield path, None, "is a link or a special file, not a file; it is left alone"
            elif _is_taken(entry.name) and not os.access(path, os.R_OK, follow_symlinks=False):
                yield path, None, "cannot be read: permission denied"
            else:
                yield path, status, ""


def _is_whole(fd: int, arrival: Arrival) -> bool:
    """True while the file is the one that was found complete, and nobody writes it."""
    return identity_of(os.fstat(fd)) == arrival.identity and not is_written(fd)
