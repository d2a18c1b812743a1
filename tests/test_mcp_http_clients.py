"""MCP clients of other people on ``/mcp`` of a real server: the Inspector, and the conformance scenarios that fit us.

Most conformance scenarios want tools of their own that a server must offer for them; those listed here say something
about any server. ``tools-call-simple-text`` is left out: it passes even where there is no such tool.
"""

from __future__ import annotations

import asyncio
import json
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from fsagent.config import ApiSettings
from fsagent.faces.http.app import make_app
from fsagent.faces.http.server import bind, url_of
from fsagent.faces.http.table import Desk
from fsagent.faces.hub import Hub
from fsagent.faces.mcp.http import HttpSessions
from fsagent.faces.mcp.tools import TOOLS
from fsagent.workspace.tokens import Tokens
from harness import Agent, wait_for
from test_mcp_clients import inspector, install

__all__ = ["inspector"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CONFORMANCE = "@modelcontextprotocol/conformance@0.1.16"
SCENARIOS = (
    "server-initialize", "ping", "tools-list", "resources-list", "server-sse-multiple-streams",
    "dns-rebinding-protection",
)  # fmt: skip


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "alfred", 'scan_interval: 1s\napi: {listen: "127.0.0.1:0", rate: 1000}\n').start()
    yield agent
    agent.close()


def api_of(agent: Agent) -> str:
    return wait_for(lambda: re.search(r"api started (\S+)", agent.output()), "the API listens")[1]


def test_the_inspector_over_http(inspector: tuple[Path, dict[str, str]], agent: Agent) -> None:
    program, env = inspector
    token = Tokens(agent.layout).ensure().token

    def ask(method: str, *options: str) -> Any:
        words = [str(program), "--cli", f"{api_of(agent)}/mcp", "--transport", "http", "--header",
                 f"Authorization: Bearer {token}", "--method", method, *options]  # fmt: skip
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    assert [tool["name"] for tool in ask("tools/list")["tools"]] == [row.name for row in TOOLS]
    sent = ask("tools/call", "--tool-name", "send_command", "--tool-arg", "text=My name is Alice.", "wait=30")
    assert sent["content"][0]["text"] == "Remembered: Your name is Alice."
    assert "fsagent://soul.md" in [each["uri"] for each in ask("resources/list")["resources"]]
    assert "Alice" in ask("resources/read", "--uri", "fsagent://soul.md")["contents"][0]["text"]
    assert f"done        {sent['structuredContent']['command']}" in agent.output()


class Trusting:
    """The whole app, for a client that cannot send a header: it gets the owner's token on its way in."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {self._token}".encode())]
        await self._app(scope, receive, send)


@pytest.fixture
def trusting(agent: Agent) -> Iterator[str]:
    """The URL of ``/mcp`` on a server in this process, with the guard and all, that adds the token itself."""
    tokens = Tokens(agent.layout)
    listener = bind(ApiSettings(listen="127.0.0.1:0"))
    loops: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def serve() -> None:
        ended, hub = asyncio.Event(), Hub(agent.layout)
        sessions = HttpSessions(agent.layout, hub)
        await sessions.start()
        app = make_app(Desk(agent.layout, hub, tokens), ApiSettings(rate=1000), lambda _: None, sessions)
        trusting = Trusting(app, tokens.ensure().token)
        config = uvicorn.Config(trusting, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        loops.put((asyncio.get_running_loop(), ended))
        await ended.wait()
        await hub.close()
        await sessions.close()
        server.should_exit = True
        await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, ended = loops.get(timeout=30)
    yield f"{url_of(listener)}/mcp"
    loop.call_soon_threadsafe(ended.set)
    thread.join(20)
    assert not thread.is_alive()


def test_the_conformance_scenarios(inspector: tuple[Path, dict[str, str]], trusting: str) -> None:
    program, env = inspector
    conformance = program.with_name("conformance")
    if not conformance.exists():
        install(program.parent.parent.parent, CONFORMANCE, env)
    failed = {}
    for scenario in SCENARIOS:
        done = subprocess.run(
            [str(conformance), "server", "--url", trusting, "--scenario", scenario],
            env=env, capture_output=True, text=True, timeout=100, cwd=program.parent,
        )  # fmt: skip
        if done.returncode:
            failed[scenario] = done.stdout + done.stderr
    assert not failed, "\n\n".join(f"{name}:\n{shown}" for name, shown in failed.items())
