"""The commands about tasks: tasks, pause, resume. Without a task, the last two are about the whole agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import json_option, leave, workspace_option

if TYPE_CHECKING:
    from fsagent.config import Settings
    from fsagent.workspace.layout import Layout

WHOLE = 20
PATIENCE = 10.0


@click.command()
@workspace_option
@json_option
@click.option(
    "--explain", "rule", metavar="RULE", help='Say what RULE means, such as "0 9 * * mon-fri". Needs no workspace.'
)
@click.option("--timezone", default="", metavar="ZONE", help="With --explain: in this time zone.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def tasks(root: Path, as_json: bool, rule: str | None, timezone: str, names: tuple[str, ...]) -> None:
    """How each task stands and why, its last runs and its next slots; of many only a list, unless they are NAMEd."""
    from fsagent.faces.tasks import SHOWN, read_tasks
    from fsagent.faces.text import as_json_text, task_text, tasks_text
    from fsagent.workspace.layout import open_workspace

    if rule is not None:
        if names:
            raise click.UsageError("--explain is about a rule, not about tasks; leave their names out")
        _explain(root, as_json, rule, timezone)
        return
    if timezone:
        raise click.UsageError("--timezone goes with --explain; a task's own stands in its file")
    layout = open_workspace(root)
    views = read_tasks(layout, names, SHOWN, 0 if as_json or names else WHOLE)
    if as_json:
        click.echo(as_json_text(views))
    elif names or 0 < len(views) <= WHOLE:
        click.echo("\n\n".join(map(task_text, views)))
    else:
        click.echo(tasks_text(views))
        if views:
            click.echo(f"{len(views)} tasks; one of them whole: fsagent tasks NAME")


@click.command()
@workspace_option
@click.argument("task", required=False, metavar="[TASK]")
def pause(root: Path, task: str | None) -> None:
    """Keep TASK from falling due; without TASK, stop anything new from starting (makes the file STOP)."""
    from fsagent.workspace.layout import open_workspace

    layout = open_workspace(root)
    if task is not None:
        _set(layout, "pause", task)
        return
    layout.stop.touch()
    click.echo("paused: nothing new starts until 'fsagent resume', or until the file STOP is removed")


@click.command()
@workspace_option
@click.argument("task", required=False, metavar="[TASK]")
def resume(root: Path, task: str | None) -> None:
    """Let TASK fall due again, whoever paused it; without TASK, undo 'pause' (removes the file STOP)."""
    from fsagent.workspace.layout import open_workspace

    layout = open_workspace(root)
    if task is not None:
        _set(layout, "resume", task)
        return
    layout.stop.unlink(missing_ok=True)
    click.echo("resumed")


def _set(layout: Layout, action: str, name: str) -> None:
    """By a command, as every face does it, so that policy and history hold."""
    from fsagent.faces import door
    from fsagent.workspace.status import daemon_runs

    task = door.find_task(layout, name).name
    args = {"action": action, "name": "{{ body }}"}
    run = door.act(layout, door.Caller("cli"), "task", args, task).run
    if not daemon_runs(layout):
        click.echo(f"{action} {task}: counts when a daemon runs, and none does now (run {run})")
        return
    if layout.stopped():
        click.echo(f"{action} {task}: counts once the agent goes on; the file STOP pauses it (run {run})")
        return
    result = door.wait_for(layout, run, PATIENCE)
    if result is None:
        click.echo(f"fsagent: {action} {task} is not done after {PATIENCE:g} s; see: fsagent show {run}", err=True)
        leave(1)
    if result.fields.get("status") != "done":
        click.echo(f"fsagent: {result.body}", err=True)
        leave(1)
    click.echo(f"{action}d {result.body.removeprefix('- ')}")


def _explain(root: Path, as_json: bool, rule: str, timezone: str) -> None:
    from datetime import UTC, datetime

    from fsagent.faces.explain import explain
    from fsagent.faces.text import as_json_text, explained_text

    found = explain(rule, _settings(root), datetime.now(UTC), timezone)
    click.echo(as_json_text(found) if as_json else explained_text(found))


def _settings(root: Path) -> Settings:
    """Those of the workspace, where there is one: its time zone and its heartbeat."""
    from fsagent.config import Settings
    from fsagent.errors import WorkspaceError
    from fsagent.faces.views import settings_of
    from fsagent.workspace.layout import open_workspace

    try:
        return settings_of(open_workspace(root))
    except WorkspaceError:
        return Settings()
