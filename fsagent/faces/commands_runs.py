"""The commands that change the course of one run: cancel, retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import leave, workspace_option

if TYPE_CHECKING:
    from fsagent.workspace.layout import Layout

PATIENCE = 10.0


@click.command()
@workspace_option
@click.argument("run", metavar="RUN")
def cancel(root: Path, run: str) -> None:
    """End RUN, whether it waits or is under way. RUN may be shortened, or 'last'."""
    from fsagent.faces import door
    from fsagent.workspace.layout import open_workspace
    from fsagent.workspace.status import daemon_runs

    layout = open_workspace(root)
    name = _meant(layout, run)
    door.cancel(layout, name, door.Caller("cli"))
    if not daemon_runs(layout):
        click.echo(f"run {name} goes no further: no daemon runs now, and the next one ends it before anything else")
        return
    result = door.wait_for(layout, name, PATIENCE)
    if result is None:
        click.echo(f"fsagent: run {name} was told to end and is still at work after {PATIENCE:g} s", err=True)
        leave(1)
    status = result.fields.get("status")
    click.echo(f"run {name} ended: {status}" + ("" if status == "interrupted" else ", before it could be cancelled"))
    leave(0 if status == "interrupted" else 1)


@click.command()
@workspace_option
@click.argument("run", metavar="RUN")
def retry(root: Path, run: str) -> None:
    """Run the command of RUN again, which gave up; prints the new run. RUN may be shortened, or 'last'."""
    from fsagent.faces import door
    from fsagent.workspace.layout import open_workspace

    layout = open_workspace(root)
    click.echo(door.retry(layout, _meant(layout, run), door.Caller("cli")).run)


def _meant(layout: Layout, wanted: str) -> str:
    """The one run that is meant, be it at the side door still."""
    from fsagent.faces.views import read_run
    from fsagent.workspace.runs import dropped

    waiting = [run for run in dropped(layout) if wanted and (run.startswith(wanted) or run.endswith(wanted))]
    return waiting[0] if len(waiting) == 1 else read_run(layout, wanted).run.run
