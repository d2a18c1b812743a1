"""What is installed for fsagent by entry point. Read once, for it means a look at every installed package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from fsagent.config import FILE, Settings
from fsagent.files.fields import nearest
from fsagent.model import Fault


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is loaded."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def unknown_names(settings: Settings) -> list[Fault]:
    """What the settings name and nobody has installed: tools, and the engine."""
    faults = []
    for field, names, group in (
        ("tools", list(settings.tools), "fsagent.tools"),
        ("engine", [settings.engine] if settings.engine != "auto" else [], "fsagent.engines"),
    ):
        known = installed(group)
        for name in names:
            if name not in known:
                why = f"there is no {name!r}{nearest(name, known)}; there are: {', '.join(known)}"
                faults.append(Fault(FILE, why, field=field))
    return faults
