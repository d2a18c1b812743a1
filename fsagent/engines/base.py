"""The Engine protocol: who decides the next step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from fsagent.model import Command, Step, Turn


class Request(Struct, frozen=True, kw_only=True):
    """What an engine is asked: the command, the soul as it is now, the moment, and where the run's attachments lie.

    ``now`` is aware and in the workspace's time zone; ``time_format`` is a strftime pattern.
    """

    command: Command
    soul: str
    now: datetime
    run: str
    time_format: str = "%Y-%m-%d %H:%M:%S"


class Engine(Protocol):
    """Decides the next step of a run, and nothing else: it never touches a disk and never executes a tool.

    ``decide`` must be able to go on from any list of past turns, also in another process: an engine keeps no state of
    its own between two calls. A step without calls ends the run.
    """

    name: str

    def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
        """The next step after ``turns``."""
        ...
