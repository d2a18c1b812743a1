"""The engines by name. Built-in ones register by entry point (group ``fsagent.engines``) exactly as anybody's would."""

from __future__ import annotations

from importlib.metadata import entry_points

from fsagent.engines.base import Engine

GROUP = "fsagent.engines"


def load_engine(name: str) -> Engine:
    """One engine, loaded when it is first needed. Raises ``KeyError`` if none of this name is installed."""
    for point in entry_points(group=GROUP, name=name):
        engine: Engine = point.load()()
        return engine
    raise KeyError(name)


def engine_names() -> list[str]:
    """The names of the installed engines; nothing is loaded."""
    return sorted(point.name for point in entry_points(group=GROUP))
