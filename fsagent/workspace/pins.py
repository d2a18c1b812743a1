"""What is known of each MCP server, and which definitions of its tools are pinned: ``.fsagent/mcp/<server>.json``.

Pinned on first contact, without a question (the settings name the server, that is the owner's trust in it). After that
only a person pins anew. Each file is replaced as a whole; a damaged one is never taken for "no pins yet", for then a
server could pin itself again: its tools are not there until a person removes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from fsagent.definitions import Definition, Pins, difference, print_of
from fsagent.errors import ConflictError, PersonError
from fsagent.files.atomic import read_file, write_atomic
from fsagent.files.locks import lock
from fsagent.workspace.layout import Layout

MODE = 0o600


def _nobody(event: str, **fields: Any) -> None:
    """Nobody is told."""


class PinBook:
    """The pins of all servers. Safe to share between threads and processes: every file is read anew.

    ``tell(event, **fields)`` is told what a person may want to know: the journal, in a daemon.
    """

    def __init__(self, layout: Layout, tell: Callable[..., None] = _nobody) -> None:
        self._layout, self._tell = layout, tell

    def get(self, server: str) -> Pins | None:
        """What is known of a server; None if it was never spoken to. Raises ``PersonError`` for a damaged file."""
        path = self._path(server)
        try:
            return msgspec.json.decode(read_file(path), type=Pins)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PersonError(f"{self._layout.name(path)} cannot be read: {os.strerror(error.errno or 0)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise PersonError(
                f"{self._layout.name(path)} is damaged, so the tools of {server} are not used; "
                f"remove it, and look at what is pinned then: fsagent servers test {server}"
            ) from None

    def offer(self, server: str, tools: Sequence[Definition], trouble: str = "") -> Pins:
        """Record what a server offers now, and what was left out of it (``trouble``); gives what is known of it then.

        Pins it where nothing was pinned yet. Raises ``PersonError``.
        """
        with self._lock():
            known, tools = self.get(server) or Pins(server=server), tuple(tools)
            if known.since is None:
                new = Pins(server=server, since=_now(), tools=tools, trouble=trouble)
            else:
                same = print_of(known.tools) == print_of(tools)
                new = replace(known, offered=None if same else tools, trouble=trouble)
            if new == known:
                return known
            self._write(new)
        if known.since is None:
            names = [each.name for each in tools]
            self._tell("server pinned", server=server, tools=names, why=f"{len(names)} tools, as it describes them now")
        elif (found := difference(new)) and found != difference(known):
            self._tell("server changed", server=server, **msgspec.to_builtins(found), why=found.words)
        self._tell_trouble(known, new)
        return new

    def trouble(self, server: str, why: str) -> None:
        """Record why the tools of a server are not there; empty where they are. Raises ``PersonError``."""
        with self._lock():
            known = self.get(server) or Pins(server=server)
            if known.trouble == why:
                return
            new = replace(known, trouble=why)
            self._write(new)
        self._tell_trouble(known, new)

    def approve(self, server: str, seen: str) -> Pins:
        """Pin what the server offered last. ``seen`` is the ``print_of`` what the person was shown.

        Raises ``ConflictError`` if it offers something else by now, ``PersonError``.
        """
        with self._lock():
            known = self.get(server)
            if known is None or print_of(known.now) != seen:
                raise ConflictError(f"{server} offers something else by now; look again: fsagent servers")
            new = replace(known, since=_now(), tools=known.now, offered=None)
            self._write(new)
        return new

    def _tell_trouble(self, known: Pins, new: Pins) -> None:
        if new.trouble and new.trouble != known.trouble:
            self._tell("server trouble", server=new.server, error=new.trouble)

    def _write(self, pins: Pins) -> None:
        path = self._path(pins.server)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, msgspec.json.format(msgspec.json.encode(pins), indent=2) + b"\n", mode=MODE)

    def _path(self, server: str) -> Path:
        return self._layout.servers / f"{server}.json"

    def _lock(self) -> Any:
        return lock(self._layout.locks / "mcp.lock")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
