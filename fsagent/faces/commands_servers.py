"""The commands about MCP servers whose tools the agent may use: what they offer, what is pinned, what was changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fsagent.faces.options import json_option, workspace_option

if TYPE_CHECKING:
    from fsagent.definitions import Definition, Pins
    from fsagent.mcpsettings import ServerSettings


@click.group(invoke_without_command=True)
@workspace_option
@json_option
@click.pass_context
def servers(context: click.Context, root: Path, as_json: bool) -> None:
    """The MCP servers of the settings, their tools, and what was changed in them since you approved it."""
    context.obj = root
    if context.invoked_subcommand:
        return
    from fsagent.config import load_settings
    from fsagent.faces.text import as_json_text
    from fsagent.workspace.layout import open_workspace
    from fsagent.workspace.pins import PinBook

    layout = open_workspace(root)
    settings, book = load_settings(layout.settings), PinBook(layout)
    known = {name: book.get(name) for name in settings.servers}
    if as_json:
        click.echo(as_json_text([_view(name, settings.servers[name], pins) for name, pins in known.items()]))
    elif not known:
        click.echo("no MCP servers; name some in fsagent.yaml (mcp_servers), and their tools are there for the agent")
    else:
        click.echo("\n\n".join(_text(name, settings.servers[name], pins) for name, pins in known.items()))


@servers.command()
@workspace_option
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def approve(context: click.Context, root: Path, name: str, yes: bool) -> None:
    """Show what the server NAME changed, and go by that from now on."""
    from fsagent.config import load_settings
    from fsagent.definitions import changes, difference, print_of
    from fsagent.errors import NotFoundError
    from fsagent.printable import visible
    from fsagent.workspace.layout import open_workspace
    from fsagent.workspace.pins import PinBook

    layout = open_workspace(named(context, root))
    pins = PinBook(layout).get(name)
    if pins is None or pins.since is None:
        if name not in load_settings(layout.settings).mcp_servers:
            raise NotFoundError(f"the settings have no MCP server {name!r}; 'fsagent servers' shows them")
        raise NotFoundError(f"{name} was never spoken to, so there is nothing to approve: fsagent servers test {name}")
    found = difference(pins)
    if not found:
        click.echo(f"{name}: nothing was changed; its {_count(len(pins.tools))} stay as you approved them")
        return
    click.echo(visible(changes(pins)))
    click.echo(f"{name}: {found.words}")
    if not yes:
        click.confirm("Approve?", abort=True)
    PinBook(layout).approve(name, print_of(pins.now))
    click.echo(f"{name}: approved; its {_count(len(pins.now))} are used as shown, from the next run on")


def named(context: click.Context, root: Path) -> Path:
    """The workspace that was named behind a command of this group, or else before it."""
    from click.core import ParameterSource

    outer: Path = context.obj
    return outer if context.get_parameter_source("root") is ParameterSource.DEFAULT else root


def _view(name: str, server: ServerSettings, pins: Pins | None) -> dict[str, Any]:
    from fsagent.definitions import difference

    return {
        "server": name,
        "where": server.url or [server.command, *server.args],
        "enabled": server.enabled,
        "pinned": pins.since if pins else None,
        "tools": [
            {"name": each.name, "print": each.print, "reads": each.reads, "description": each.description}
            for each in (pins.tools if pins else ())
        ],
        "difference": difference(pins) if pins else None,
        "trouble": pins.trouble if pins else "",
    }


def _text(name: str, server: ServerSettings, pins: Pins | None) -> str:
    """A server as the settings name it (secrets are not filled in), and what is known of it."""
    import shlex

    from fsagent.definitions import difference, told
    from fsagent.printable import visible

    lines = [f"{name}  {server.url or shlex.join([server.command, *server.args])}"]
    if not server.enabled:
        lines.append("  switched off (enabled: false)")
    if pins is None or pins.since is None:
        lines.append(f"  was never spoken to; its tools are pinned when it first answers: fsagent servers test {name}")
    else:
        lines.append(f"  {_count(len(pins.tools))}, pinned since {pins.since.astimezone():%Y-%m-%d %H:%M:%S}")
    found = difference(pins) if pins else None
    if pins and found:
        lines += [f"  changed: {each}" for each in found.changed]
        lines += [f"  new, and withheld: {each}" for each in found.new]
        lines += [f"  gone: {each}" for each in found.gone]
    if pins and (words := told(pins)):
        lines.append(f"  {words}")
    lines += [f"    {_tool(each)}" for each in (pins.tools if pins else ())]
    return visible("\n".join(lines))


def _tool(tool: Definition) -> str:
    words = " ".join(tool.description.split())
    words = words if len(words) <= 80 else f"{words[:79]}…"
    return f"{tool.name}{' (reads)' if tool.reads else ''}  {tool.print[:8]}  {words}".rstrip()


def _count(tools: int) -> str:
    return f"{tools} tool{'s' * (tools != 1)}"
