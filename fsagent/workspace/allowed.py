"""What a person allowed for good by ticking "always allow this": ``.fsagent/allowed.json``.

An entry holds for one tool, one exact subject and one trigger, and only where the policy says ``ask``. The file can be
read by nobody but its owner and is only ever replaced as a whole. A damaged one allows nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from fsagent.errors import NotFoundError, PersonError
from fsagent.files.atomic import read_file, write_atomic
from fsagent.files.locks import lock
from fsagent.model import Trigger
from fsagent.workspace.layout import Layout

MODE = 0o600


class Allowance(Struct, frozen=True, kw_only=True):
    """One thing that need not be asked any more; ``by`` says how it was allowed."""

    tool: str
    subject: str
    trigger: Trigger
    since: datetime
    by: str = ""


class _File(Struct, frozen=True):
    allowed: tuple[Allowance, ...]


class Allowances:
    """All that was allowed for good. Safe to share between threads and processes: it is read anew each time."""

    def __init__(self, layout: Layout) -> None:
        self._path, self._file, self._lock = layout.allowed, layout.name(layout.allowed), layout.locks / "allowed.lock"

    def list(self) -> Sequence[Allowance]:
        """Everything, oldest first. Raises ``PersonError`` for a damaged file."""
        try:
            return msgspec.json.decode(read_file(self._path), type=_File).allowed
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise PersonError(f"{self._file} cannot be read: {os.strerror(error.errno or 0)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise PersonError(
                f"{self._file} is damaged, so nothing is allowed for good; mend it by hand, or remove it"
            ) from None

    def allows(self, tool: str, subject: str, trigger: Trigger) -> bool:
        """True if exactly this was allowed. A damaged file allows nothing; ``trouble`` says so."""
        try:
            return any((each.tool, each.subject, each.trigger) == (tool, subject, trigger) for each in self.list())
        except PersonError:
            return False

    def add(self, tool: str, subject: str, trigger: Trigger, by: str) -> None:
        """Allow this from now on; what is allowed already stays as it is. Raises ``PersonError``."""
        with lock(self._lock):
            known = self.list()
            if not self.allows(tool, subject, trigger):
                since = datetime.now(UTC).replace(microsecond=0)
                self._write([*known, Allowance(tool=tool, subject=subject, trigger=trigger, since=since, by=by)])

    def forget(self, number: int) -> Allowance:
        """Take the entry with this number (from 1) away; it is asked again from now on. Raises ``NotFoundError``."""
        with lock(self._lock):
            known = list(self.list())
            if not 1 <= number <= len(known):
                raise NotFoundError(f"there is no number {number}; 'fsagent approvals --always' shows what there is")
            gone = known.pop(number - 1)
            self._write(known)
        return gone

    def trouble(self) -> str:
        """What is wrong with the file: damaged, or open to others; empty where all is well."""
        try:
            self.list()
            mode = os.stat(self._path).st_mode & 0o777
        except FileNotFoundError:
            return ""
        except PersonError as error:
            return str(error).removeprefix(f"{self._file} ")
        return f"can be written by others (mode {mode:o}); close it: chmod 600 {self._file}" if mode & 0o022 else ""

    def _write(self, allowed: Sequence[Allowance]) -> None:
        data = msgspec.json.format(msgspec.json.encode(_File(tuple(allowed))), indent=2) + b"\n"
        write_atomic(self._path, data, mode=MODE)
