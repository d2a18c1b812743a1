"""Notices: what the agent has to say without being asked, as a file in ``outbox/notices/``.

What is told of a state that lasts (a budget that is used up, a key that is refused) has a key and is told once; when
the state has passed, the key is forgotten and the next time counts as new.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import datetime

import msgspec

from fsagent.files.atomic import numbered, write_atomic, write_new
from fsagent.files.documents import write_document
from fsagent.files.names import conflict_of, is_temporary
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout

FOLDER = "notices"
MOST_KEYS = 200
MAX_SLUG = 40


class Notices:
    """Writes notices. ``local`` is the wall clock in the workspace's zone. Safe to share between threads."""

    def __init__(self, layout: Layout, journal: Journal, local: Callable[[], datetime]) -> None:
        self._layout, self._journal, self._local = layout, journal, local
        self._lock = threading.Lock()
        self._path = layout.machine / "notices.json"
        self._told: dict[str, str] | None = None

    def tell(self, title: str, text: str, *, run: str = "", key: str = "") -> str:
        """Put a notice into outbox/notices/; gives its name, or "" where the same ``key`` was told before."""
        with self._lock:
            told = self._known()
            if key and key in told:
                return ""
            now = self._local()
            redactor = self._journal.redactor
            if redactor:
                title, text = redactor.text(title), redactor.text(text)
            fields = {"notice": title, "time": now.isoformat(timespec="seconds"), **({"run": run} if run else {})}
            folder = self._layout.outbox / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            name = _file_name(title, now)
            for path in numbered(folder / name):
                try:
                    write_new(path, write_document(fields, text))
                except FileExistsError:
                    continue
                break
            if key:
                self._keep({**told, key: f"{now:%Y-%m-%d %H:%M}"})
        self._journal.append("notice", title=title, run=run, file=self._layout.name(path))
        return self._layout.name(path)

    def forget(self, key: str) -> None:
        """The state has passed."""
        with self._lock:
            told = self._known()
            if key in told:
                self._keep({each: when for each, when in told.items() if each != key})

    def _known(self) -> dict[str, str]:
        if self._told is None:
            try:
                self._told = msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
            except (OSError, msgspec.DecodeError):
                self._told = {}
        return self._told

    def _keep(self, told: dict[str, str]) -> None:
        self._told = dict(list(told.items())[-MOST_KEYS:])
        write_atomic(self._path, msgspec.json.encode(self._told) + b"\n")


def _file_name(title: str, now: datetime) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[:MAX_SLUG].strip("-") or "notice"
    name = f"{now:%Y-%m-%d-%H%M}-{slug}.md"
    return f"{now:%Y-%m-%d-%H%M}-notice.md" if is_temporary(name) or conflict_of(name) else name
