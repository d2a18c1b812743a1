"""The ``task`` tool: recurring requests, as a person speaks of them. It sees ``context.home`` and no disk.

``data`` of its results: ``{"action", "tasks": [{"name", "rule", "request", "state", "last", "next", "held_back"}],
"run"}``; times are ISO texts, "" where there is none, and ``run`` is the id that the action ``run`` brought, else "".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fsagent.errors import ToolError
from fsagent.model import ToolCall, ToolResult
from fsagent.tools.base import Context, Reach, TaskView, Tool

Action = Literal["create", "list", "show", "pause", "resume", "run"]

_NEAR = re.compile(r"(today|tomorrow),? (?:at )?(\d{1,2}:\d{2})", re.IGNORECASE)


class TaskArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``create`` needs ``name``, and ``request`` or ``steps`` (``[{"append": {"path": …, "text": …}}]``).

    ``every`` is a rule in one line: ``1h``, ``heartbeat`` (also meant by ""), ``0 9 * * mon-fri``, ``mon,fri 09:00``,
    ``2027-01-05 14:00``, ``tomorrow 14:00``. All other actions but ``list`` need ``name`` alone.
    """

    action: Action
    name: str = ""
    every: str = ""
    request: str = ""
    steps: tuple[dict[str, Any], ...] = ()


class TaskTool(Tool[TaskArgs]):
    """Creates, lists, shows, pauses, resumes and runs tasks.

    Limit: ``run`` hands in a request, so it is done once; after a crash nobody can tell whether it was.
    """

    name = "task"
    hint = (
        "Requests that are run again and again. create: name, every (1h, heartbeat, mon,fri 09:00, tomorrow 14:00, "
        "cron), and request (plain words) or steps; to change a task of yours, create it again."
    )
    args = TaskArgs
    main = "action"
    slow = False

    def run(self, args: TaskArgs, context: Context) -> ToolResult:
        """Do it. ``ToolError`` names a missing argument, or the tasks whose names come near an unknown one."""
        home = context.home
        if args.action == "list":
            tasks = list(home.tasks())
            return _result(args.action, tasks, "\n".join(_line(task) for task in tasks) or "There are no tasks.")
        if not args.name.strip():
            raise ToolError(f"task: {args.action} needs a name")
        if args.action == "create":
            if not args.request.strip() and not args.steps:
                raise ToolError("task: create needs a request (what to do each time) or steps")
            steps = [_step(step) for step in args.steps]
            created = home.create_task(args.name.strip(), args.request.strip(), args.every or "heartbeat", steps)
            return _result(args.action, [created], "Created: " + _line(created).removeprefix("- "))
        task = _named(args.name, home.tasks())
        if args.action == "pause":
            task = home.pause_task(task.name)
        elif args.action == "resume":
            task = home.resume_task(task.name)
        elif args.action == "run":
            run = home.run_task(task.name)
            return _result(args.action, [task], f"Handed in: {task.name} (run {run})", run)
        return _result(args.action, [task], _line(task))

    def prepare(self, args: TaskArgs, context: Context) -> TaskArgs:
        """``tomorrow 14:00`` as the day that it is, so that it stays this one."""
        found = _NEAR.fullmatch(args.every.strip())
        if not found:
            return args
        day = context.now() + timedelta(days=found[1].casefold() == "tomorrow")
        return msgspec.structs.replace(args, every=f"{day:%Y-%m-%d} {found[2]}")

    def reach(self, args: TaskArgs, context: Context) -> Reach:
        """A task is obeyed later; to look at it changes nothing."""
        return "inside" if args.action in ("list", "show") else "memory"

    def foreign(self, args: TaskArgs, result: ToolResult) -> bool:
        """The task files are the owner's word."""
        return False

    def subject(self, args: TaskArgs) -> str:
        """The action and the task, as in ``pause backup``."""
        return f"{args.action} {args.name}".strip()


def _step(step: dict[str, Any]) -> ToolCall:
    """``{"append": {…}}`` as a tool call; ``on_error`` may stand beside it, a bare value for the main argument."""
    names = [name for name in step if name != "on_error"]
    on_error = step.get("on_error", "stop")
    if len(names) != 1 or on_error not in ("stop", "continue"):
        raise ToolError(f'task: steps: each is one tool with its arguments, like {{"append": {{…}}}}; found {step!r}')
    args = step[names[0]]
    return ToolCall(tool=names[0], args=args if isinstance(args, dict) else {"": args}, on_error=on_error)


def _plain_name(name: str) -> str:
    words = name.casefold().removesuffix(".md").replace("_", " ").replace("-", " ").replace("/", " / ").split()
    return "-".join(words)


def _named(name: str, tasks: Sequence[TaskView]) -> TaskView:
    """The task of that name; case, ``.md``, and hyphens or spaces between words do not matter if only one is meant."""
    wanted = name.strip()
    for same in (
        [task for task in tasks if task.name == wanted],
        [task for task in tasks if _plain_name(task.name) == _plain_name(wanted)],
    ):
        if len(same) == 1:
            return same[0]
    names = {_plain_name(task.name): task.name for task in tasks}
    close = [names[near] for near in difflib.get_close_matches(_plain_name(wanted), names, n=3, cutoff=0.5)]
    close = close or [task.name for task in tasks][:5]
    hint = f"; there are: {', '.join(close)}" if close else "; there are no tasks yet"
    raise ToolError(f"task: no task is named {wanted!r}{hint}")


def _row(task: TaskView) -> dict[str, Any]:
    return {
        "name": task.name,
        "rule": task.rule,
        "request": task.request,
        "state": task.state,
        "last": task.last.isoformat(timespec="seconds") if task.last else "",
        "next": task.next.isoformat(timespec="seconds") if task.next else "",
        "held_back": task.held_back,
    }


def _line(task: TaskView) -> str:
    request = " ".join(task.request.split())[:120]
    moment = f", next {task.next:%Y-%m-%d %H:%M:%S}" if task.next else ""
    held = f", its last slot brought no run: {task.held_back}" if task.held_back else ""
    return f"- {task.name}: {task.rule}, {task.state}{moment}{held}" + (f": {request}" if request else "")


def _result(action: str, tasks: Sequence[TaskView], text: str, run: str = "") -> ToolResult:
    return ToolResult(text, data={"action": action, "tasks": [_row(task) for task in tasks], "run": run})
