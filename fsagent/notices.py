"""Notices: what the agent has to say without being asked, as a file in ``outbox/notices/``.

What is told of a state that lasts (a budget that is used up, a key that is refused) has a key and is told once; when
the state has passed, the key is forgotten and the next time counts as new. What a run tells stands in its folder
(``notices.json``: which texts, and their files), so that a run cut short by a crash says nothing twice.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from fsagent.errors import ToolError
from fsagent.files.atomic import make_folders, numbered, write_atomic, write_new
from fsagent.files.documents import write_document
from fsagent.files.names import conflict_of, is_temporary
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import is_run_id

Told = Callable[[str, str], None]
FOLDER = "notices"
MOST_KEYS = 200
MAX_SLUG = 40
MOST_OF_A_RUN = 5


class Notices:
    """Writes notices. ``local`` is the wall clock in the workspace's zone; ``told`` hears title and text of each notice
    once it is written. Safe to share between threads."""

    def __init__(
        self, layout: Layout, journal: Journal, local: Callable[[], datetime], told: Told = lambda title, text: None
    ) -> None:
        self._layout, self._journal, self._local, self._heard = layout, journal, local, told
        self._lock = threading.Lock()
        self._path = layout.machine / "notices.json"
        self._told: dict[str, str] | None = None

    def tell(self, title: str, text: str, *, run: str = "", key: str = "") -> str:
        """Put a notice into outbox/notices/; gives its name, or "" where the same ``key`` was told before."""
        title, text = self._redacted(title), self._redacted(text)
        with self._lock:
            told = self._known()
            if key and key in told:
                return ""
            path = self._write(title, text, run)
            if key:
                self._keep({**told, key: f"{self._local():%Y-%m-%d %H:%M}"})
        return self._say(path, title, text, run)

    def of_run(self, title: str, text: str, run: str) -> str:
        """What a run wants to tell the owner; gives the notice's name, also where the run told the same before.

        Raises ``ToolError`` after ``MOST_OF_A_RUN`` notices, and where the disk does not take it.
        """
        title, text = self._redacted(title), self._redacted(text)
        if not is_run_id(run):
            raise ToolError(f"notify: {run!r} is no run")
        try:
            with self._lock:
                path, fresh = self._once(self._layout.runs / run / "notices.json", title, text, run)
        except OSError as error:
            raise ToolError(
                f"notify: the notice cannot be written: {error.strerror or error}", retryable=True
            ) from None
        return self._say(path, title, text, run) if fresh else self._layout.name(path)

    def _once(self, record: Path, title: str, text: str, run: str) -> tuple[Path, bool]:
        """Write a notice of a run, if that is not done; its name is kept before, so that a crash leads to no second."""
        told, print_ = _read(record), hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
        if print_ in told:
            path = self._layout.outbox / FOLDER / told[print_]
            if os.path.lexists(path):
                return path, False
            return self._write(title, text, run, path), True
        if len(told) >= MOST_OF_A_RUN:
            raise ToolError(f"notify: this run has told {MOST_OF_A_RUN} things already; put the rest into the answer")
        name = _file_name(title, self._local())
        path = next(each for each in numbered(self._layout.outbox / FOLDER / name) if not os.path.lexists(each))
        write_atomic(record, msgspec.json.encode({**told, print_: path.name}) + b"\n")
        return self._write(title, text, run, path), True

    def _write(self, title: str, text: str, run: str, path: Path | None = None) -> Path:
        """A new file with the notice: under this name, if nobody has taken it."""
        now = self._local()
        fields = {"notice": title, "time": now.isoformat(timespec="seconds"), **({"run": run} if run else {})}
        folder = self._layout.outbox / FOLDER
        make_folders(folder)
        for each in numbered(path or folder / _file_name(title, now)):
            try:
                write_new(each, write_document(fields, text))
            except FileExistsError:
                continue
            return each
        raise AssertionError("there is always a further number")

    def _say(self, path: Path, title: str, text: str, run: str) -> str:
        name = self._layout.name(path)
        self._journal.append("notice", title=title, run=run, file=name)
        self._heard(title, text)
        return name

    def _redacted(self, text: str) -> str:
        redactor = self._journal.redactor
        return redactor.text(text) if redactor else text

    def forget(self, key: str) -> None:
        """The state has passed."""
        with self._lock:
            told = self._known()
            if key in told:
                self._keep({each: when for each, when in told.items() if each != key})

    def _known(self) -> dict[str, str]:
        if self._told is None:
            self._told = _read(self._path)
        return self._told

    def _keep(self, told: dict[str, str]) -> None:
        self._told = dict(list(told.items())[-MOST_KEYS:])
        write_atomic(self._path, msgspec.json.encode(self._told) + b"\n")


def _read(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _file_name(title: str, now: datetime) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[:MAX_SLUG].strip("-") or "notice"
    name = f"{now:%Y-%m-%d-%H%M}-{slug}.md"
    return f"{now:%Y-%m-%d-%H%M}-notice.md" if is_temporary(name) or conflict_of(name) else name
