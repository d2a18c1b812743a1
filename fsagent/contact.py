"""Trying an MCP server out on behalf of a person: connect, ask what it offers, record that, tell it in words."""

from __future__ import annotations

import time

from msgspec import Struct

from fsagent.config import Settings
from fsagent.definitions import Pins
from fsagent.errors import FsagentError, NotFoundError
from fsagent.files.fields import nearest
from fsagent.home import resolved
from fsagent.tools.servers.client import Patience, Servers
from fsagent.workspace.layout import Layout
from fsagent.workspace.pins import PinBook


class Contact(Struct, frozen=True):
    """A server that answered: after how many seconds, whether its tools were pinned by that, and what is known now."""

    server: str
    seconds: float
    pinned: bool
    pins: Pins


def contact(layout: Layout, settings: Settings, name: str) -> Contact:
    """Start or call a server as a run would, with the environment of this process.

    Raises ``NotFoundError`` where the settings have no such server, ``FsagentError`` where it does not answer.
    """
    found = {server.name: server for server in resolved(settings)}
    if name not in found:
        if name in settings.mcp_servers:
            raise FsagentError(f"{name} is not used: it is switched off (enabled: false), or has the name of a tool")
        there = f"there are: {', '.join(found)}" if found else "there are none"
        raise NotFoundError(f"the settings have no MCP server {name!r}{nearest(name, found)}; {there}")
    book, servers = PinBook(layout), Servers()
    before, began = book.get(name), time.monotonic()
    try:
        offer = servers.offer(found[name], Patience())
    finally:
        seconds = time.monotonic() - began
        servers.close()
    pins = book.offer(name, offer.tools, offer.left_out)
    return Contact(name, round(seconds, 1), before is None or before.since is None, pins)
