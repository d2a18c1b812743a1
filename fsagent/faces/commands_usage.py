"""The command that tells what models took: usage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import json_option, workspace_option

if TYPE_CHECKING:
    from fsagent.workspace.usage import By


@click.command()
@workspace_option
@json_option
@click.option(
    "--days",
    default=30,
    show_default=True,
    type=click.IntRange(1, 3660),
    metavar="N",
    help="Today and the days before it, so many in all.",
)
@click.option("--by", default="day", show_default=True, type=click.Choice(["day", "task", "model"]),
              help="What the rows are.")  # fmt: skip
def usage(root: Path, as_json: bool, days: int, by: By) -> None:
    """What models took: runs, turns, tokens, cost; and how far the budgets are used."""
    from fsagent.faces.text import as_json_text
    from fsagent.faces.usage import read_usage_view
    from fsagent.workspace.layout import open_workspace

    view = read_usage_view(open_workspace(root), days, by)
    click.echo(as_json_text(view) if as_json else str(view))
