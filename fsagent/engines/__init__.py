"""The engines by name. Built-in ones register by entry point (group ``fsagent.engines``) exactly as anybody's would."""

from __future__ import annotations

from fsagent.engines.base import Engine
from fsagent.extensions import installed

GROUP = "fsagent.engines"


def load_engine(name: str) -> Engine:
    """One engine, loaded when it is first needed. Raises ``KeyError`` if none of this name is installed."""
    engine: Engine = installed(GROUP)[name].load()()
    return engine


def engine_names() -> list[str]:
    """The names of the installed engines; nothing is loaded."""
    return list(installed(GROUP))
