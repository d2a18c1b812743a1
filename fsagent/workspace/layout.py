"""The workspace on disk: which place has which name, how it is made and recognised."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fsagent.errors import WorkspaceError
from fsagent.files.atomic import sync_dir

FORMAT = 1
PLACES = ("inbox", "outbox", "tasks", "approvals", "archive", "failed")
MACHINE_PLACES = ("runs", "drop", "cancel", "keys", "tmp", "locks", "tasks", "journal", "usage", "removed")


class Layout:
    """The places of one workspace. Makes nothing and checks nothing; see ``open_workspace`` and ``create``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = root / "fsagent.yaml"
        self.soul = root / "soul.md"
        self.inbox = root / "inbox"
        self.outbox = root / "outbox"
        self.tasks = root / "tasks"
        self.approvals = root / "approvals"
        self.archive = root / "archive"
        self.failed = root / "failed"
        self.status = root / "status.md"
        self.stop = root / "STOP"
        self.owner = root / "owner.md"
        self.machine = root / ".fsagent"
        self.marker = self.machine / "workspace.json"
        self.runs = self.machine / "runs"
        self.drop = self.machine / "drop"
        self.cancel = self.machine / "cancel"
        self.tmp = self.machine / "tmp"
        self.locks = self.machine / "locks"
        self.task_states = self.machine / "tasks"
        self.journal = self.machine / "journal"
        self.usage = self.machine / "usage"
        self.removed = self.machine / "removed"
        self.index = self.machine / "index.sqlite3"
        self.beat = self.machine / "daemon.json"
        self.refused = self.machine / "refused.json"
        self.tokens = self.machine / "tokens.json"
        self.keys = self.machine / "keys"
        self.allowed = self.machine / "allowed.json"
        self.kept = self.machine / "kept.json"
        self.prune = self.cancel / "_prune"  # somebody asks for a pass of retention
        self.rebuild = self.cancel / "_rebuild"  # somebody asks for a new index; what is said to that, if it failed
        self.breaker = self.machine / "breaker.json"
        self.servers = self.machine / "mcp"
        self.hosts = self.machine / "hosts"
        self.boot = self.machine / "boot"

    def stopped(self) -> bool:
        """True if STOP is there, as whatever it is: a file, a folder, a link that leads nowhere."""
        return os.path.lexists(self.stop)

    def name(self, path: Path) -> str:
        """How a path is called in messages and results: relative, with ``/``, always writable as UTF-8."""
        return readable(os.path.relpath(path, self.root))


def readable(name: str) -> str:
    """A file name that can be written as UTF-8: bytes that are none become ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def open_workspace(root: Path) -> Layout:
    """The workspace at ``root``, by its real path. Raises ``WorkspaceError`` when it is none, or from a later version.

    Missing places are made again: people delete empty folders, and some sync clients do.
    """
    layout = Layout(Path(os.path.realpath(root)))
    try:
        marker = msgspec.json.decode(layout.marker.read_bytes(), type=dict[str, object])
    except FileNotFoundError:
        raise WorkspaceError(
            f"{root} is not a workspace (no .fsagent/workspace.json); make one: fsagent init {root}"
        ) from None
    except NotADirectoryError:
        raise WorkspaceError(f"{root} is not a folder") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise WorkspaceError(f"{layout.marker} is damaged; 'fsagent init {root}' writes it anew") from None
    if marker.get("format") != FORMAT:
        raise WorkspaceError(f"{root} has workspace format {marker.get('format')}; this fsagent knows format {FORMAT}")
    return layout


def make_places(layout: Layout) -> None:
    """Make every folder of the workspace that is missing. Raises ``OSError`` where a file stands in the way, and before
    anything is made where the folder is no workspace any more, but what its disk or another one left in its place."""
    make_machine_places(layout)
    for place in PLACES:
        _make(layout.root / place)


def make_machine_places(layout: Layout) -> None:
    """The same for the daemon's own folders only, which do not sync."""
    for place in MACHINE_PLACES:
        _make(layout.machine / place)


def _make(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        sync_dir(path.parent)
