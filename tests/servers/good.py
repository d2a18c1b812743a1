"""A real MCP server of the official library: ``good.py [FILE]`` on stdio; ``good.py --http PORT`` over HTTP.

FILE may hold Python that changes it before it starts: the definitions differ between starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp_types import ToolAnnotations
from typing_extensions import TypedDict

app = MCPServer("good")


class Sum(TypedDict):
    sum: int


@app.tool(structured_output=False)
def echo(text: str, times: int = 1) -> str:
    """Say it again.

    As often as you like.
    """
    return "\n".join([text] * times)


@app.tool(annotations=ToolAnnotations(readOnlyHint=True))
def add(a: int, b: int) -> Sum:
    """Add two numbers."""
    return {"sum": a + b}


@app.tool(structured_output=False)
def picture() -> list[Any]:
    """A picture with words."""
    return ["a dot", Image(data=b"\x89PNG" + b"\0" * 96, format="png")]


@app.tool(structured_output=False)
def fail(why: str) -> str:
    """It fails."""
    raise ValueError(why)


@app.tool(structured_output=False)
def slow(seconds: float) -> str:
    """It takes its time."""
    time.sleep(seconds)
    return "done"


@app.tool(structured_output=False)
def environment() -> str:
    """Its environment, and its process id."""
    return "\n".join(f"{name}={value}" for name, value in [*os.environ.items(), ("PID", str(os.getpid()))])


@app.tool(structured_output=False)
def die() -> str:
    """It dies in the middle."""
    print("something went badly wrong", file=sys.stderr, flush=True)
    os._exit(3)


@app.tool(structured_output=False)
def spawn(mark: str) -> str:
    """It leaves a process behind that has left its session."""
    code = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(600)"
    subprocess.run([sys.executable, "-c", code, mark], check=True)
    return "spawned"


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--http"]:
        app.run("streamable-http", port=int(words[1]))
    else:
        if words and Path(words[0]).exists():
            exec(Path(words[0]).read_text())
        app.run("stdio")
