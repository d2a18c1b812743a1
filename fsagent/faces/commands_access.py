"""The commands that say who may call the agent over the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import json_option, workspace_option

if TYPE_CHECKING:
    from fsagent.workspace.tokens import Token


@click.command()
@workspace_option
@json_option
@click.argument("name", required=False)
@click.option("--make", is_flag=True, help="Make a new token NAME.")
@click.option(
    "--scope", "scopes", multiple=True, help="With --make: read, command, approve or admin. Repeat it for more."
)
@click.option("--rotate", is_flag=True, help="Give it a new secret; the old one counts no longer.")
@click.option("--remove", is_flag=True, help="Take it away.")
@click.option("--list", "show_all", is_flag=True, help="The names of all tokens, without their secrets.")
def token(
    root: Path,
    as_json: bool,
    name: str | None,
    make: bool,
    scopes: tuple[str, ...],
    rotate: bool,
    remove: bool,
    show_all: bool,
) -> None:
    """Print the secret of the token NAME (or 'owner'), with which programs and pages may call the agent."""
    _check(name, make=make, scopes=scopes, rotate=rotate, remove=remove, show_all=show_all)
    from fsagent.faces.text import as_json_text
    from fsagent.workspace.layout import open_workspace
    from fsagent.workspace.tokens import OWNER, Tokens

    layout = open_workspace(root)
    tokens, name = Tokens(layout), name or OWNER
    if not layout.tokens.exists():
        tokens.ensure()  # a workspace from before there were tokens
    if show_all:
        known = [{"name": each.name, "scopes": each.scopes, "made": each.made} for each in tokens.list()]
        click.echo(as_json_text(known) if as_json else _table(tokens.list()))
        return
    if remove:
        tokens.remove(name)
        click.echo(as_json_text({"removed": name}) if as_json else f"removed {name}: its secret opens nothing any more")
        return
    if make:
        found = tokens.make(name, scopes or ("read", "command"))
    elif rotate:
        found = tokens.rotate(name)
    else:
        found = tokens.get(name)
    click.echo(as_json_text(found) if as_json else found.token)


def _table(tokens: Sequence[Token]) -> str:
    if not tokens:
        return "no tokens; make one: fsagent token owner --make --scope read --scope command"
    rows = [("NAME", "SCOPES", "MADE")]
    rows += [(each.name, " ".join(each.scopes), f"{each.made.astimezone():%Y-%m-%d %H:%M:%S}") for each in tokens]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {scopes:<{widths[1]}}  {made}" for name, scopes, made in rows)


def _check(
    name: str | None, *, make: bool, scopes: tuple[str, ...], rotate: bool, remove: bool, show_all: bool
) -> None:
    """Raises ``click.UsageError`` for options that do not go together."""
    wanted = {"--make": make, "--rotate": rotate, "--remove": remove, "--list": show_all}
    chosen = [option for option, given in wanted.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} do not go together; use one at a time")
    if scopes and not make:
        raise click.UsageError("--scope goes with --make only; a token keeps the scopes that it was made with")
    if show_all and name:
        raise click.UsageError("--list shows all tokens; leave NAME out")
    if (make or remove) and not name:
        raise click.UsageError(f"{chosen[0]} needs a NAME, for instance: fsagent token {chosen[0]} phone")
