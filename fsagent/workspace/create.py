"""Making a workspace: its folders, its first files, its marker."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from fsagent.config import SETTINGS_TEMPLATE
from fsagent.facts import SOUL_TEMPLATE
from fsagent.files.atomic import make_folders, write_atomic, write_new
from fsagent.modelfind import with_model
from fsagent.workspace.layout import FORMAT, Layout, make_places, open_workspace
from fsagent.workspace.tokens import Tokens

IGNORE_LINES = (
    "(?d)/.fsagent", "(?d).#*", "(?d)#*#", "(?d)*~", "(?d).*.sw?", "(?d)4913", "(?d)*.lock", "(?d).~lock.*#", "(?d)~$*",
    "(?d).DS_Store", "(?d)._*", "(?d)*.part", "(?d)*.crdownload", "(?d).fsagent-tmp-*",
)  # fmt: skip

DROPBOX_IGNORES = "user.com.dropbox.ignored"
"""The attribute by which Dropbox, on Linux, leaves a folder out."""

EXAMPLE_TASK = """\
---
# A heartbeat task: the daemon wakes itself for it. Delete this file, or change it: changes count at once.
every: heartbeat      # or a duration: 30s, 5m, 1h30m, 1d; 'heartbeat' is heartbeat_interval in fsagent.yaml
enabled: false        # set to true (or delete this line) to start it
---
Log the timestamp to log.txt every heartbeat
"""


def init_workspace(root: Path, sample: Path | None = None) -> tuple[Layout, list[str]]:
    """Make ``root`` a workspace and give the names of the files that were made. Never overwrites anything.

    ``sample`` is a folder whose files are copied first. The marker comes last: a half-made workspace is none. The
    owner's token, without which nobody could call the agent, is made and not named.
    """
    root.mkdir(parents=True, exist_ok=True)
    layout = Layout(Path(os.path.realpath(root)))
    layout.machine.mkdir(exist_ok=True)
    with suppress(OSError, AttributeError):  # not every disk keeps attributes, nor every system
        os.setxattr(layout.machine, DROPBOX_IGNORES, b"1")
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
        make_folders(path.parent)
        try:
            write_new(path, data)
        except FileExistsError:
            continue
        made.append(layout.name(path))
    if not layout.tokens.exists():
        Tokens(layout).ensure()
    marker = msgspec.json.encode({"format": FORMAT, "made_by": "fsagent"}) + b"\n"
    try:
        write_new(layout.marker, marker)
    except FileExistsError:
        open_workspace(root)
    return layout, made


def name_model(layout: Layout, name: str, base_url: str = "") -> None:
    """Write a model into fsagent.yaml, whose other characters stay. Raises ``DocumentError`` where one is there."""
    try:
        raw = layout.settings.read_bytes()
    except FileNotFoundError:
        raw = b""
    write_atomic(layout.settings, with_model(raw, name, base_url))
