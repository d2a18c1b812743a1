"""What several files of the command line share: the options that most commands have, and how a command ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import click

ENVIRONMENT = "FSAGENT_WORKSPACE"


def default_workspace() -> str:
    """The workspace where none is named: that of the environment, else the current folder."""
    return os.environ.get(ENVIRONMENT) or "."


workspace_option = click.option(
    "-w", "--workspace", "root", default=default_workspace, show_default=f"${ENVIRONMENT} or the current folder",
    type=click.Path(readable=False, path_type=Path), help="The workspace.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def leave(code: int) -> NoReturn:
    """End the command with this exit code."""
    click.get_current_context().exit(code)
