"""Standing by: what a daemon does on a host that does not own the workspace, which is next to nothing.

It watches who owns it, gives its sign of life, and writes nothing but that and its journal, in ``.fsagent/``.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from fsagent import __version__, recovery
from fsagent.files.atomic import make_folders, sync_dir
from fsagent.inforce import SettingsInForce
from fsagent.memory import resident_bytes
from fsagent.ownership import Ownership
from fsagent.watcher import CHANGES, Watcher
from fsagent.workspace.index import Index
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder, dropped
from fsagent.workspace.status import Snapshot, write_beat

_UNTOUCHED = {"claimed", "attempt", "understood", "stopped"}


class Standby:
    """Made when it begins: commands that this host took and has not begun go back to ``inbox/`` first. Used by the
    daemon's thread; ``changed`` hears of other settings, ``wake`` asks for a beat. It has the face of a ``Duty``."""

    owns = False
    alarm: datetime | None = None

    def __init__(
        self,
        layout: Layout,
        settings: SettingsInForce,
        changed: Callable[[], None],
        journal: Journal,
        ownership: Ownership,
        wake: Callable[[str], None],
        now: Callable[[], datetime],
    ) -> None:
        self._layout, self._settings, self._changed = layout, settings, changed
        self._ownership, self._now, self._since = ownership, now, now()
        with suppress(OSError, sqlite3.Error):
            index = recovery.open_index(layout)
            hand_back(layout, index, journal)
            index.close()
        self._watcher = Watcher({"root": (layout.root, False, CHANGES)}, wake, lambda path: path == str(layout.status))
        self._watcher.start()

    def beat(self, woken: set[str]) -> float:
        """See who owns the workspace, and give a sign of life; gives the seconds until the next. Raises ``OSError``."""
        self._ownership.look()
        if self._ownership.mine:
            return 0.0
        self._watcher.check()
        self._settings.look(self._changed)
        settings = self._settings()
        write_beat(
            self._layout,
            Snapshot(
                pid=os.getpid(), version=__version__, since=settings.local(self._since), beat=self._now(),
                interval=float(settings.scan_interval), memory=resident_bytes(), standby=self._ownership.words,
                trouble=self._trouble(),
            ),
        )  # fmt: skip
        return float(settings.scan_interval)

    def configure(self) -> None:
        """Nothing here depends on the settings."""

    def busy(self) -> bool:
        """Never: nothing runs."""
        return False

    def refused(self) -> Sequence[str]:
        """Nothing: what is refused is raised."""
        return ()

    def wait_idle(self, seconds: float) -> bool:
        """Nothing runs."""
        return True

    def drain(self) -> None:
        """Nothing new is ever begun."""

    def close(self, *, farewell: bool) -> Sequence[str]:
        """Watch no longer."""
        self._watcher.stop()
        return ()

    def _trouble(self) -> tuple[str, ...]:
        """What waits here and nowhere else."""
        waiting = len(dropped(self._layout))
        found = [f"{waiting} commands that faces handed in here wait until this host runs the agent"] if waiting else []
        if self._settings.fault:
            found.append(f"{self._settings.fault} (the settings before stay in force)")
        return tuple(found)


def hand_back(layout: Layout, index: Index, journal: Journal) -> None:
    """Give commands that were taken from ``inbox/`` and not begun their old place there, so that whoever owns the
    workspace runs them. What has begun here stays, and goes on when this host owns it again.

    Where somebody else has the name by now, the command stays, too. Raises ``OSError``, ``sqlite3.Error``.
    """
    kept = []
    for folder in recovery.recover(layout, index):
        envelope = folder.envelope()
        if envelope is None:
            continue
        if _untouched(folder, envelope) and _return(layout, folder, envelope):
            index.remove(folder.run)
            journal.append("handed back", command=envelope.path, run=folder.run)
        else:
            kept.append(folder.run)
    index.commit()
    if kept:
        journal.append("kept", run=kept[0], runs=kept, why=f"{len(kept)} runs that began here wait until it is ours")


def _untouched(folder: RunFolder, envelope: Envelope) -> bool:
    return (
        envelope.trigger == "inbox"
        and not envelope.again
        and {event["event"] for event in folder.events()} <= _UNTOUCHED
        and folder.claimed.exists()
    )


def _return(layout: Layout, folder: RunFolder, envelope: Envelope) -> bool:
    """All of it or nothing; the attachments first, for a command without them would be answered that they did not come.

    Called again after a kill it goes on.
    """
    target = layout.root / envelope.path
    moves = [(path, target.with_name(path.name)) for path in sorted(folder.attachments.glob("*"))]
    moves.append((folder.claimed, target))
    try:
        if any(os.path.lexists(place) and not _is_same(source, place) for source, place in moves):
            return False
        make_folders(target.parent)
        for source, place in moves:
            if not _is_same(source, place):
                os.link(source, place, follow_symlinks=False)  # which never replaces what is there
            sync_dir(place.parent)
            os.unlink(source)
    except OSError:
        return False
    shutil.rmtree(folder.path)
    return True


def _is_same(source: Path, place: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(source), os.lstat(place))
    except FileNotFoundError:
        return False
