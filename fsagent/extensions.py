"""What is installed for fsagent by entry point. Read once, for it means a look at every installed package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from fsagent.config import FILE, Settings, place_of
from fsagent.files.fields import nearest
from fsagent.model import Fault


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is loaded."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def unknown_names(settings: Settings, file: Path | None = None) -> list[Fault]:
    """What the settings name and nobody has installed: tools, and the engine; each at its line if ``file`` is given.

    Rules may name MCP servers, too; a server must not have the name of a tool.
    """
    named: list[tuple[tuple[str, ...], str, str]] = [(("tools",), tool, "fsagent.tools") for tool in settings.tools]
    for trigger, rules in settings.triggers.items():
        named += [(("triggers", trigger), tool, "fsagent.tools") for tool in rules]
    if settings.engine != "auto":
        named.append((("engine",), settings.engine, "fsagent.engines"))
    faults = []
    for path, name, group in named:
        known = [*installed(group), *(settings.mcp_servers if group == "fsagent.tools" else ())]
        if name not in known:
            why = f"there is no {name!r}{nearest(name, known)}; there are: {', '.join(known)}"
            line, column = place_of(file, (*path, name)) if file else (0, 0)
            faults.append(Fault(FILE, why, line, column, ".".join(path)))
    for name in settings.mcp_servers:
        if name in installed("fsagent.tools"):
            why = f"{name!r} is the name of a tool, so this server is not used; give it another name"
            faults.append(Fault(FILE, why, *(place_of(file, ("mcp_servers", name)) if file else (0, 0)), "mcp_servers"))
    return faults
