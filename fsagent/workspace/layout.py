"""The workspace on disk: which place has which name, how it is made and recognised."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fsagent.config import SETTINGS_TEMPLATE
from fsagent.errors import WorkspaceError
from fsagent.facts import SOUL_TEMPLATE
from fsagent.files.atomic import write_new
from fsagent.files.paths import SafeRoot

FORMAT = 1
PLACES = ("inbox", "outbox", "tasks", "approvals", "archive", "failed")
MACHINE_PLACES = ("runs", "drop", "tmp", "locks", "tasks", "journal")

RESERVED_WRITE = {
    "fsagent.yaml": "only a person changes the settings",
    "soul.md": "use the tools remember and forget",
    "tasks": "use the tool task",
    "inbox": "commands are dropped by people",
    "outbox": "the answer of a run lands there by itself",
    "approvals": "only a person answers there",
    "archive": "finished commands are kept there as they were",
    "failed": "commands that gave up are kept there as they were",
    "status.md": "the daemon writes it",
    "STOP": "only a person stops or resumes the agent",
    ".fsagent": "it is the daemon's own",
    ".stignore": "only a person decides what is synced",
}
RESERVED_READ = {".fsagent": "it is the daemon's own"}

IGNORE_LINES = (
    "(?d)/.fsagent", "(?d).#*", "(?d)#*#", "(?d)*~", "(?d).*.sw?", "(?d)4913", "(?d)*.lock", "(?d).~lock.*#", "(?d)~$*",
    "(?d).DS_Store", "(?d)._*", "(?d)*.part", "(?d)*.crdownload", "(?d).fsagent-tmp-*",
)  # fmt: skip

EXAMPLE_TASK = """\
---
# A heartbeat task: the daemon wakes itself for it. Delete this file, or change it: changes count at once.
every: heartbeat      # or a duration: 30s, 5m, 1h30m, 1d; 'heartbeat' is heartbeat_interval in fsagent.yaml
enabled: false        # set to true (or delete this line) to start it
---
Log the timestamp to log.txt every heartbeat
"""


class Layout:
    """The places of one workspace. Makes nothing and checks nothing; see ``open_workspace`` and ``init_workspace``."""

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
        self.machine = root / ".fsagent"
        self.marker = self.machine / "workspace.json"
        self.runs = self.machine / "runs"
        self.drop = self.machine / "drop"
        self.tmp = self.machine / "tmp"
        self.locks = self.machine / "locks"
        self.task_states = self.machine / "tasks"
        self.journal = self.machine / "journal"
        self.index = self.machine / "index.sqlite3"
        self.beat = self.machine / "daemon.json"

    def name(self, path: Path) -> str:
        """How a path is called in messages and results: relative, with ``/``, always writable as UTF-8."""
        return readable(os.path.relpath(path, self.root))

    def tools_root(self) -> SafeRoot:
        """The door for tools: the root, without its reserved places."""
        return SafeRoot(self.root, RESERVED_WRITE, RESERVED_READ, readable=(".fsagent/runs/*/attachments",))


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
    """Make every folder of the workspace that is missing. Raises ``OSError`` where a file stands in the way."""
    for place in PLACES:
        (layout.root / place).mkdir(exist_ok=True)
    for place in MACHINE_PLACES:
        (layout.machine / place).mkdir(exist_ok=True)


def init_workspace(root: Path, sample: Path | None = None) -> tuple[Layout, list[str]]:
    """Make ``root`` a workspace and give the names of the files that were made. Never overwrites anything.

    ``sample`` is a folder whose files are copied first. The marker comes last: a half-made workspace is none.
    """
    root.mkdir(parents=True, exist_ok=True)
    layout = Layout(Path(os.path.realpath(root)))
    layout.machine.mkdir(exist_ok=True)
    make_places(layout)
    files: dict[Path, bytes] = {}
    for source in sorted(sample.rglob("*")) if sample else ():
        if source.is_file():
            files[layout.root / source.relative_to(sample or source)] = source.read_bytes()
    files.setdefault(layout.settings, SETTINGS_TEMPLATE.encode())
    files.setdefault(layout.soul, SOUL_TEMPLATE.encode())
    files.setdefault(layout.root / ".stignore", ("\n".join(IGNORE_LINES) + "\n").encode())
    if not sample and not any(layout.tasks.iterdir()):
        files[layout.tasks / "heartbeat.md"] = EXAMPLE_TASK.encode()
    made = []
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_new(path, data)
        except FileExistsError:
            continue
        made.append(layout.name(path))
    marker = msgspec.json.encode({"format": FORMAT, "made_by": "fsagent"}) + b"\n"
    try:
        write_new(layout.marker, marker)
    except FileExistsError:
        open_workspace(root)
    return layout, made
