"""What is to be said of a task: whether it falls due, why not, its next slots, and in which time zone."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from fsagent.config import Settings
from fsagent.model import Task
from fsagent.timetable import Timetable
from fsagent.workspace.tasks import slots_of
from fsagent.workspace.taskstates import TaskState

State = Literal["on", "off", "paused", "done", "broken"]


class Outlook(Struct, frozen=True):
    """How a task stands. ``why`` is the reason where it does not fall due; then it has no ``slots`` (UTC)."""

    state: State
    why: str = ""
    slots: tuple[datetime, ...] = ()

    @property
    def words(self) -> str:
        """The state for people, as in ``paused (by request)``."""
        return f"{self.state} ({self.why})" if self.why else self.state


def outlook(task: Task, state: TaskState, settings: Settings, now: datetime, most: int = 1) -> Outlook:
    """How a task stands at ``now``, with its next slots, at most ``most``."""
    if not task.enabled:
        return Outlook("off", "enabled: false")
    if state.paused and state.paused_print in ("", task.print):
        return Outlook("paused", state.paused)
    slots, found = slots_of(task, settings), list[datetime]()
    slot = slots.after(max(now, state.watermark or now))
    if slot is None and state.watermark:
        slot = slots.after(state.watermark)  # nobody was there when it came, and it is not settled
    while slot is not None and len(found) < most:
        found.append(slot)
        slot = slots.after(slot)
    return Outlook("on", slots=tuple(found)) if found else Outlook("done", "no slot is left")


def zone_of(table: Timetable, settings: Settings) -> tzinfo | None:
    """The time zone in which a task's rule is meant; None for the system's own."""
    return ZoneInfo(table.zone) if table.zone else settings.zone
