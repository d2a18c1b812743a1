"""The tools by name. Built-in ones register by entry point (group ``fsagent.tools``) exactly as anybody's would."""

from __future__ import annotations

from typing import Any

from fsagent.extensions import installed
from fsagent.tools.base import Tool

GROUP = "fsagent.tools"


def load_tools() -> dict[str, Tool[Any]]:
    """One object of every installed tool. Raises ``ImportError`` or ``TypeError`` for a broken extension."""
    tools: dict[str, Tool[Any]] = {}
    for name, point in installed(GROUP).items():
        tool = point.load()()
        if not isinstance(tool, Tool):
            raise TypeError(f"{point.value} is registered as a tool and is none")
        tools[name] = tool
    return tools
