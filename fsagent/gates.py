"""Gates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from fsagent.model import Task


class Verdict(Struct, frozen=True):
    """What came of the gates of a task."""

    holds: bool
    why: str = ""
    given: str = ""
    seen: dict[str, str] = {}
    fault: bool = False


class GateKeeper:
    """Stands in until the gates are merged."""

    def check(self, task: Task, slot: datetime, seen: Mapping[str, str]) -> None:
        raise NotImplementedError

    def take(self) -> list[tuple[Task, datetime, Verdict]]:
        return []

    def close(self) -> None:
        pass
