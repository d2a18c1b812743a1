"""The command with which a program on this machine speaks MCP to the agent."""

from __future__ import annotations

from pathlib import Path

import click

from fsagent.faces.options import workspace_option


@click.command()
@workspace_option
@click.option("--approve", is_flag=True, help="Let the program answer questions that wait in approvals/, too.")
def mcp(root: Path, approve: bool) -> None:
    """Speak MCP on stdin and stdout, for a program that starts this; works with and without a daemon."""
    from fsagent.faces.extras import need
    from fsagent.workspace.layout import make_places, open_workspace

    layout = open_workspace(root)
    make_places(layout)
    need("mcp")
    from fsagent.faces.mcp.server import serve_stdio

    serve_stdio(layout, approve=approve)
