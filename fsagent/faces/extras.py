"""What only some installations have: the libraries of an extra, loaded on first use."""

from __future__ import annotations

from importlib import import_module

from fsagent.errors import FsagentError

_MODULES = {"api": ("starlette", "uvicorn", "python_multipart"), "mcp": ("mcp.server",)}
_WORDS = {"api": "HTTP", "mcp": "MCP"}


def need(extra: str) -> None:
    """Load an extra's libraries. Raises ``FsagentError`` saying how to install them where they are missing."""
    try:
        for module in _MODULES[extra]:
            import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {module.partition(".")[0] for module in _MODULES[extra]}:
            raise
        raise FsagentError(
            f"{_WORDS[extra]} needs the extra {extra!r}; install it with: pip install 'fsagent[{extra}]'"
        ) from None
