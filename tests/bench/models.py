"""What a model engine costs beside the bare exchange: the request for «hi», a turn, a cold start, a worker's memory."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from fsagent.testing import Received, ScriptedOpenAI, call, calls, text
from harness import Agent

IMPORTS = "import pydantic_ai.direct, pydantic_ai.models.openai, pydantic_ai.providers.openai"


def figures(quick: bool) -> dict[str, Any]:
    """Everything that is measured, by name; times in seconds, sizes in bytes."""
    turns, runs = 10, 2 if quick else 20
    folder = Path(tempfile.mkdtemp(prefix="fsagent-bench-"))

    def model(request: Received) -> Any:
        done = len(request.results)
        if any("go through" in said for said in request.texts) and done < turns:
            return calls(call("read", path=f"{done}.md"))
        return text("Hello.")

    with ScriptedOpenAI(model, keep_alive=True) as server:
        agent = Agent(
            folder / "ws",
            f'engine: model\nmodel: {{name: "openai:x", base_url: "{server.base_url}"}}\nsettle: 0s\n'
            "settle_renamed: 0s\ntools: {shell: ask, http: ask}\n"
            "budget: {run: {steps: off, calls: off, tokens: off}}\n",
        )
        for number in range(turns):
            (agent.root / f"{number}.md").write_text(f"page {number}")
        agent.start()
        begin = time.perf_counter()
        agent.drop("hi.md", "hi")
        server.wait_for(1)
        cold = time.perf_counter() - begin
        agent.result("hi.md")
        hello = server.requests[0]
        worker = next(each for each in psutil.Process(agent.process.pid).children(recursive=True)
                      if each.cmdline()[1:4] == ["-P", "-m", "fsagent.worker"])  # fmt: skip
        cpu = sum(worker.cpu_times()[:2])
        seconds = 0.0
        for number in range(runs):
            agent.drop(f"{number}.md", f"go through all pages, for the {number}. time")
            seconds += agent.result(f"{number}.md", 300)["seconds"]
        exchanges = [json.dumps(each.body).encode() for each in server.requests[1:]]
        memory, supervisor = worker.memory_full_info().pss, worker.parent().memory_full_info().pss
        agent.stop()
        agent.close()
        bare = _exchanged(server, exchanges)
    began = time.perf_counter()
    told = "import os, psutil\nme = psutil.Process()\nprint(me.memory_full_info().pss, sum(me.cpu_times()[:2]))"
    alone = subprocess.run(
        [sys.executable, "-c", f"{IMPORTS}\n{told}"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    imported = time.perf_counter() - began
    pss, bare_cpu = alone.stdout.split()
    shutil.rmtree(folder)
    return {
        "hello": hello.size, "tools": len(hello.tools), "cold": cold, "imported": imported, "cpu": cpu,
        "turn": seconds / runs / (turns + 1), "bare": bare / len(exchanges), "bare_cpu": float(bare_cpu),
        "memory": memory, "supervisor": supervisor, "bare_memory": int(pss),
    }  # fmt: skip


def _exchanged(server: ScriptedOpenAI, bodies: list[bytes]) -> float:
    """The same requests by hand, over one connection, with every answer read to its end."""
    host, _, port = server.root.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port))
    begin = time.perf_counter()
    for body in bodies:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    taken = time.perf_counter() - begin
    connection.close()
    return taken
