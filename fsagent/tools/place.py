"""What all tools for files share: where a path leads, and the disk's errors in words for people."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.paths import SafeRoot
from fsagent.model import ToolResult
from fsagent.tools.base import Context, Reach, Tool

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class PathArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``path`` is relative to the workspace."""

    path: str


P = TypeVar("P", bound=PathArgs)


class FileTool(Tool[P]):
    """A tool for one file or folder. Policy sees the place that its path really leads to."""

    main = "path"
    slow = False

    def reach(self, args: P, context: Context) -> Reach:
        """The workspace's files, and nothing else."""
        return "inside"

    def foreign(self, args: P, result: ToolResult) -> bool:
        """True of what is read; what writing tells is ours."""
        return self.effect == "read"

    def prepare(self, args: P, context: Context) -> P:
        """The arguments with the path's real place: relative to the root, links followed."""
        try:
            return replace(args, path=context.root.resolve(args.path))
        except (UnsafePathError, OSError):
            return args

    def subject(self, args: P) -> str:
        """The path, cleaned up as text; one that climbs out stays as it is, for ``run`` to refuse."""
        parts: list[str] = []
        for part in args.path.split("/"):
            if part == "..":
                if not parts:
                    return args.path
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return ("/" if args.path.startswith("/") else "") + "/".join(parts) or "."


def relative(path: str, root: SafeRoot) -> str:
    """The normalised path for ``run``. Refuses an absolute one: ``prepare`` would have made it relative for policy."""
    clean = root.normalize(path)
    if path.startswith("/"):
        raise UnsafePathError(f"{path!r} is absolute: write {clean!r}")
    return clean


@contextmanager
def on_disk(path: str) -> Iterator[None]:
    """Turn what the disk says into a ``ToolError`` that names ``path``."""
    try:
        yield
    except FileNotFoundError:
        raise ToolError(f"there is no {path!r} in the workspace; list shows what there is") from None
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror or error}", retryable=error.errno in _PASSING) from error


def count(number: int, noun: str) -> str:
    """``1 line``, ``2 lines``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
