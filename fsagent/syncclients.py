"""What sync clients on this machine are set to, as far as it endangers the workspace. Reads only; for ``doctor``.

Known are Syncthing (its ``config.xml`` and ``.stignore``) and Dropbox (the attribute that it heeds on Linux). Limit:
of a client that runs in a container or as another user the settings cannot be seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fsagent.files.names import conflict_of
from fsagent.model import Fault
from fsagent.workspace.create import DROPBOX_IGNORES
from fsagent.workspace.layout import Layout

_DROPBOX_SIGNS = (".dropbox", ".dropbox.cache")


def sync_faults(layout: Layout) -> Iterator[Fault]:
    """All that is wrong."""
    yield from _ignore_file(layout)
    for config in _syncthing_configs():
        yield from _conflicts_lost(layout, config)
    yield from _dropbox(layout)
    yield from _leaks(layout)


def _ignore_file(layout: Layout) -> Iterator[Fault]:
    try:
        lines = (layout.root / ".stignore").read_text("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    if (layout.root / ".stfolder").exists() and not any(line.endswith("/.fsagent") for line in lines):
        yield Fault(".stignore", "must hold the line (?d)/.fsagent, or Syncthing copies the daemon's own state")


def _syncthing_configs() -> Iterator[Path]:
    """Where Syncthing keeps its settings, by its documentation, for whoever asks."""
    home, given = Path.home(), os.environ.get
    places = [
        given("STHOMEDIR"), given("STCONFDIR"),
        Path(given("XDG_STATE_HOME") or home / ".local" / "state") / "syncthing",
        Path(given("XDG_CONFIG_HOME") or home / ".config") / "syncthing",
    ]  # fmt: skip
    for place in places:
        if place and (config := Path(place) / "config.xml").is_file():
            yield config


def _conflicts_lost(layout: Layout, config: Path) -> Iterator[Fault]:
    """A folder of Syncthing's with the workspace in it, whose conflicts lose one of the two texts without a word."""
    from xml.etree import ElementTree as ET

    try:
        folders = ET.parse(config).getroot().iter("folder")  # noqa: S314  # the owner's own settings
    except (OSError, ET.ParseError) as error:
        yield Fault(str(config), f"cannot be read: {error}; so nobody knows what Syncthing does with conflicts")
        return
    for folder in folders:
        path = os.path.realpath(os.path.expanduser(folder.get("path") or "/nowhere"))
        inside = layout.root == Path(path) or Path(path) in layout.root.parents
        if inside and (folder.findtext("maxConflicts") or "0").strip() == "0":
            why = (
                f"the folder {folder.get('label') or folder.get('id')!r} has maxConflicts 0 (or none, which means "
                "the same): of a text that two devices changed, one is lost unseen; write "
                "<maxConflicts>10</maxConflicts>, or set it in Syncthing under the folder's advanced settings"
            )
            yield Fault(str(config), why)


def _dropbox(layout: Layout) -> Iterator[Fault]:
    above = next((each for each in layout.root.parents if any((each / sign).exists() for sign in _DROPBOX_SIGNS)), None)
    if above is None:
        return
    with suppress(OSError):
        if os.getxattr(layout.machine, DROPBOX_IGNORES) == b"1":
            return
    yield Fault(
        ".fsagent",
        f"lies in {above}, which Dropbox copies; have it left out: attr -s com.dropbox.ignored -V 1 {layout.machine}",
    )


def _leaks(layout: Layout) -> Iterator[Fault]:
    """Conflict copies in the daemon's own folder: proof that a client copies it."""
    for folder in (layout.machine, layout.journal, layout.task_states):
        with suppress(OSError):
            for name in sorted(os.listdir(folder)):
                if conflict_of(name):
                    why = "a sync client copies .fsagent/: have it left out, and remove this conflict copy"
                    yield Fault(layout.name(folder / name), why)
