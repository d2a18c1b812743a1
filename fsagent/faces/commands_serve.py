"""The command that serves HTTP without a daemon: what is handed in waits until one runs."""

from __future__ import annotations

from pathlib import Path

import click

from fsagent.faces.options import leave, workspace_option


@click.command()
@workspace_option
def api(root: Path) -> None:
    """Serve HTTP and MCP in the foreground, without a daemon; 'run --api' serves them beside one."""
    import queue
    import signal

    from fsagent.config import load_settings
    from fsagent.errors import SettingsError
    from fsagent.faces.beside import Beside
    from fsagent.faces.extras import need
    from fsagent.faces.screen import log_request, tell
    from fsagent.workspace.layout import make_places, open_workspace

    need("api")
    layout = open_workspace(root)
    make_places(layout)
    # Heard from now on, and heeded here one by one: one that comes while the server starts ends nothing half-way.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda number, _: signals.put(number))
    beside = Beside(layout, log_request, always=True)
    beside.configure(load_settings(layout.settings), tell)
    while (number := signals.get()) == signal.SIGHUP:
        try:
            beside.configure(load_settings(layout.settings), tell)
        except SettingsError as error:
            tell("settings refused", error=str(error))
    beside.stop()
    leave(130 if number == signal.SIGINT else 0)
