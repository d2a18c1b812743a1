"""The whole way with a real model: only where ``FSAGENT_LIVE_MODEL`` names one, for it takes time and may cost money.

``FSAGENT_LIVE_MODEL=ollama:qwen3:8b pytest -n 0 tests/test_live_model.py``. ``FSAGENT_LIVE_BASE_URL`` says where, if
not at the provider's own address, ``FSAGENT_LIVE_KEY_ENV`` which variable holds the key, if not the provider's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from harness import Agent

NAME = os.environ.get("FSAGENT_LIVE_MODEL", "")
PATIENT = 300.0

pytestmark = [
    pytest.mark.skipif(not NAME, reason="no live model: set FSAGENT_LIVE_MODEL, such as ollama:qwen3:8b"),
    pytest.mark.timeout(3 * PATIENT),
]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A daemon whose commands all go to the model."""
    model = {"name": NAME, "base_url": os.environ.get("FSAGENT_LIVE_BASE_URL", ""),
             "api_key_env": os.environ.get("FSAGENT_LIVE_KEY_ENV", "")}  # fmt: skip
    agent = Agent(tmp_path / "ws")
    lines = ["engine: model", "settle: 0s", "settle_renamed: 0s", f"model: {msgspec.json.encode(model).decode()}"]
    agent.layout.settings.write_text("\n".join([*lines, "budget: {run: {tokens: 60k, cost: 0.20}}", ""]))
    try:
        yield agent.start()
    finally:
        agent.close()


def test_three_small_commands_with_tools(agent: Agent) -> None:
    """It reads a file, writes one, and remembers a fact: real tools, so what was done can be looked at."""
    (agent.root / "notes.txt").write_text("The kettle is red.\nThe code of the shed is 4711.\n")
    agent.drop("read.md", "What is the code of the shed? It stands in the file notes.txt.")
    answer = agent.result("read.md", PATIENT)
    assert answer["status"] == "done", answer.content
    assert "4711" in answer.content
    assert answer["engine"] == "model"
    assert answer["tokens_in"] > 0
    agent.drop("write.md", "Make the file list.txt. It holds exactly one line: milk")
    assert agent.result("write.md", PATIENT)["status"] == "done"
    assert (agent.root / "list.txt").read_text().strip() == "milk"
    agent.drop("remember.md", "Please keep in mind for good that my bicycle is green.")
    assert agent.result("remember.md", PATIENT)["status"] == "done"
    assert "green" in agent.layout.soul.read_text()


def test_the_model_passes_its_test(agent: Agent) -> None:
    done = agent.cli("model", "test", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
