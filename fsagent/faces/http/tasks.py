"""Tasks over HTTP: how they stand, and to run, pause and resume them."""

from __future__ import annotations

from msgspec import Struct
from starlette.responses import Response

from fsagent.faces import door, tasks
from fsagent.faces.http import commands
from fsagent.faces.http.table import Call
from fsagent.faces.tasks import SHOWN, TaskLine


class Tasks(Struct, frozen=True):
    """All tasks, those that cannot be used among them; each with its last run and its next slot."""

    tasks: list[TaskLine]


async def get_tasks(call: Call) -> Response:
    """All tasks: how each stands and why, with its last run and its next slot."""
    return await call.give(Tasks(await call.off(tasks.read_tasks, call.layout)))


async def get_task(call: Call) -> Response:
    """How a task stands and why, with its last runs and its next slots.

    One whose name ends in `/run`, `/pause` or `/resume` is found in the list only.
    """
    found = await call.off(tasks.read_tasks, call.layout, [call.part("name")], SHOWN)
    return await call.give(found[0])


async def run_task(call: Call) -> Response:
    """Run a task now, beside its slots."""
    handed = await call.off(door.run_task, call.layout, call.part("name"), call.caller)
    return await commands.handed_in(call, handed, call.query.wait)


async def pause_task(call: Call) -> Response:
    """Keep a task from falling due, until it is resumed. Done by a command, so policy and history hold."""
    return await _task_command(call, "pause")


async def resume_task(call: Call) -> Response:
    """Let a paused task fall due again, whoever or whatever paused it."""
    return await _task_command(call, "resume")


async def _task_command(call: Call, action: str) -> Response:
    name = await call.off(door.find_task, call.layout, call.part("name"))
    args = {"action": action, "name": "{{ body }}"}
    handed = await call.off(door.act, call.layout, call.caller, "task", args, name.name)
    return await commands.handed_in(call, handed, call.query.wait)
