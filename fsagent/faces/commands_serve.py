"""The command that serves HTTP without a daemon: what is handed in waits until one runs."""

from __future__ import annotations

from pathlib import Path

import click

from fsagent.faces.options import leave, workspace_option


@click.command()
@workspace_option
def api(root: Path) -> None:
    """Serve HTTP and MCP in the foreground, without a daemon; 'run --api' serves them beside one."""
    import signal
    import threading

    from fsagent.config import load_settings
    from fsagent.errors import SettingsError
    from fsagent.faces.beside import Beside
    from fsagent.faces.extras import need
    from fsagent.faces.screen import log_request, tell
    from fsagent.workspace.layout import make_places, open_workspace

    need("api")
    layout = open_workspace(root)
    make_places(layout)
    beside = Beside(layout, log_request, always=True)
    beside.configure(load_settings(layout.settings), tell)
    caught: list[int] = []
    ended = threading.Event()

    def end(number: int, _: object) -> None:
        caught.append(number)
        ended.set()

    def read_again(*_: object) -> None:
        try:
            beside.configure(load_settings(layout.settings), tell)
        except SettingsError as error:
            tell("settings refused", error=str(error))

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, read_again)
    ended.wait()
    beside.stop()
    leave(130 if caught[0] == signal.SIGINT else 0)
