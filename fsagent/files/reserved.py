"""Refusing a path, in words that a person understands: what, why, and what to write instead.

Knows two reasons that need no walk on the disk: text that is no honest path, and names that are reserved.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from stat import S_ISLNK
from typing import Literal, NamedTuple, NoReturn

from fsagent.errors import UnsafePathError
from fsagent.files.names import fold

MAX_DEPTH = 64
MAX_NAME = 255
INSIDE = "write a path inside it, such as notes/today.md"

_MISLEADING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Place(NamedTuple):
    """A reserved name directly in the root, and what to do instead of touching it."""

    name: str
    hint: str


class Reserved:
    """The names in a root that tools may not write, or not even read, in every spelling some file system accepts.

    As mappings, ``write`` and ``read`` carry a hint per name. ``readable`` are patterns (``*`` for one component) of
    folders in a place reserved for reading that may be read all the same.
    """

    def __init__(
        self,
        write: Iterable[str] | Mapping[str, str],
        read: Iterable[str] | Mapping[str, str],
        readable: Iterable[str],
    ) -> None:
        self._read = _places(read)
        self._write = _places(write) | self._read
        self._readable = tuple(tuple(pattern.strip("/").split("/")) for pattern in readable)

    def hides(self, name: str) -> bool:
        """True if this name in the root may not even be read."""
        return fold(name) in self._read

    def rank(self, name: str) -> Literal["", "write", "read"]:
        """What this name in the root is reserved for."""
        return "read" if self.hides(name) else "write" if fold(name) in self._write else ""

    def readable(self, part: str) -> list[str]:
        """The readable folders, with ``part`` for each ``*``."""
        return ["/".join(part if each == "*" else each for each in pattern) for pattern in self._readable]

    def check(self, parts: Sequence[str], path: str, *, write: bool) -> None:
        """Refuse ``parts`` (of ``path``, as it was written) where they name a reserved place."""
        place = self._places(write).get(fold(parts[0])) if parts else None
        if place is None or (not write and any(_lies_in(parts, pattern) for pattern in self._readable)):
            return
        self.refuse(place, path, write=write)

    def on_disk(self, root: int, *, write: bool) -> dict[tuple[int, int], Place]:
        """The identities (device, inode) of the reserved places that exist now, those behind a link too."""
        found = {}
        for place in self._places(write).values():
            with suppress(OSError):
                status = os.stat(place.name, dir_fd=root, follow_symlinks=False)
                if S_ISLNK(status.st_mode):
                    status = os.stat(place.name, dir_fd=root)
                found[status.st_dev, status.st_ino] = place
        return found

    def refuse(self, place: Place, path: str, *, write: bool) -> NoReturn:
        """Say that ``path`` leads to this reserved place."""
        doing = "written" if write else "read"
        means = "" if path.partition("/")[0] == place.name else f" (it leads to {place.name})"
        refuse(path, f"is reserved and cannot be {doing} by a tool{means}", place.hint or "use another place")

    def _places(self, write: bool) -> dict[str, Place]:
        return self._write if write else self._read


def refuse(path: str, why: str, instead: str) -> NoReturn:
    """Raise ``UnsafePathError`` with all three; the path is shown so that no character in it can mislead."""
    shown = repr(path if len(path) <= 200 else path[:200] + "…")
    raise UnsafePathError(f"{shown} {why}: {instead}")


def check_text(path: str) -> None:
    """Refuse text that is no usable path on any disk, or that would show people another path than the one used."""
    if not path.strip():
        refuse(path, "names nothing", "write the path of a file, such as notes/today.md")
    if "\\" in path:
        refuse(path, "holds a backslash", "separate folders by /")
    for char in path:
        if unicodedata.category(char) in ("Cc", "Cs") or char in _MISLEADING:
            refuse(path, f"holds U+{ord(char):04X}, which cannot be seen", "leave it out, or rename the file")
    if any(len(part.encode()) > MAX_NAME for part in path.split("/")):
        refuse(path, f"holds a name longer than {MAX_NAME} bytes", "write a shorter name")


def without_dots(parts: Iterable[str], path: str) -> tuple[str, ...]:
    """The parts with ``.`` and ``..`` resolved as text; refuses ``path`` where they climb above the start."""
    kept: list[str] = []
    for part in parts:
        if part == "..":
            if not kept:
                refuse(path, "leaves the workspace", INSIDE)
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    if len(kept) > MAX_DEPTH:
        refuse(path, f"is more than {MAX_DEPTH} folders deep", "write a shorter path")
    return tuple(kept)


def _places(names: Iterable[str] | Mapping[str, str]) -> dict[str, Place]:
    hints = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
    return {fold(name): Place(name, hint) for name, hint in hints.items()}


def _lies_in(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) >= len(pattern) and all(want in ("*", part) for want, part in zip(pattern, parts, strict=False))
