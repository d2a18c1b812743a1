"""What is installed for fsagent by entry point: read once, for it means a look at every installed package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is loaded."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}
