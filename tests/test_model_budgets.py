"""Budgets hold where a model spends: asked before every turn and call, told once, and kept across kills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsagent.testing import Received, ScriptedOpenAI, call, calls, hang, text
from harness import Agent, wait_for

pytestmark = pytest.mark.timeout(120)
STORY = "Tell me a story about the sea."


def working(request: Received) -> Any:
    """A model that reads on and on, each time something else."""
    return calls(call("append", path="log.txt", text=str(len(request.results))), tokens_in=1_000, tokens_out=100)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    agents: list[Agent] = []

    def start(server: Any, *more: str) -> Agent:
        price = 'prices: {"openai:x": {in: 10, out: 100}}'
        model = f'model: {{name: "openai:x", base_url: "{server.base_url}", {price}}}'
        lines = [model, "settle: 0s", "settle_renamed: 0s", *more]
        agents.append(Agent(tmp_path / "ws", "\n".join(lines) + "\n", fork_workers=True))
        return agents[0].start()

    yield start
    for agent in agents:
        agent.close()


@pytest.mark.parametrize(
    ("budget", "requests", "words"),
    [
        ("steps: 3", 3, "3 steps"),
        ("tokens: 3000", 3, "3,300 of 3,000 tokens"),
        ("cost: 0.05", 3, "budget.run.cost"),
        ("calls: 2", 3, "budget.run.calls"),
    ],
)
def test_a_run_ends_when_its_budget_is_used_up(started: Any, budget: str, requests: int, words: str) -> None:
    with ScriptedOpenAI(working) as server:
        agent = started(server, f"budget: {{run: {{{budget}}}}}")
        agent.drop("a.md", STORY)
        result = agent.result("a.md")
        assert len(server.requests) == requests
    assert result["status"] == "failed"
    assert words in result["error"]
    lines = (agent.root / "log.txt").read_text().split()
    assert len(lines) == (2 if "calls" in budget else requests), "no call is made beyond the budget"
    assert result["tokens_in"] == 1_000 * requests
    assert result["cost"] == pytest.approx(0.02 * requests)


def test_a_command_may_ask_for_less_but_not_for_more(started: Any) -> None:
    with ScriptedOpenAI(working) as server:
        agent = started(server, "budget: {run: {steps: 4}}")
        agent.drop("less.md", f"---\nbudget: {{steps: 2}}\n---\n{STORY}")
        assert "its own budget" in agent.result("less.md")["error"]
        assert len(server.requests) == 2
        agent.drop("more.md", f"---\nbudget: {{steps: 9}}\n---\n{STORY}")
        assert "budget.run.steps" in agent.result("more.md")["error"]
        assert len(server.requests) == 6


def test_a_day_that_is_used_up_is_told_once_and_stops_heartbeats(started: Any) -> None:
    with ScriptedOpenAI(lambda request: text("Once upon a time.", tokens_in=600, tokens_out=0)) as server:
        agent = started(server, "budget: {day: {tokens: 1000}}")
        for name in ("a", "b"):
            agent.drop(f"{name}.md", STORY)
            agent.result(f"{name}.md")
        for number in range(3):
            (agent.layout.tasks / f"t{number}.md").write_text(
                "---\nevery: 1s\n---\nThink about the state of the world."
            )
        agent.drop("c.md", STORY)
        refused = agent.result("c.md")
        assert refused["status"] == "refused"
        assert "1,200 of 1,000 tokens (budget.day.tokens)" in refused["error"]
        skipped = [f'"skipped","task":"t{number}"' for number in range(3)]
        journal = agent.layout.journal
        wait_for(lambda: all(each in _text(journal) for each in skipped), "the heartbeats are skipped")
        assert "budget.day.tokens" in wait_for(lambda: "Needs you" in (text := agent.status()) and text, "the status")
        assert len(server.requests) == 2
        assert len(agent.files(agent.layout.outbox / "notices")) == 1
        assert not (agent.layout.outbox / "t0").exists()
        agent.drop("d.md", "My name is Alice.")
        assert agent.result("d.md")["status"] == "done", "what needs no model goes on"
        agent.kill()
        agent.start()
        agent.drop("e.md", STORY)
        assert agent.result("e.md")["status"] == "refused", "the count survives a kill"
        assert len(agent.files(agent.layout.outbox / "notices")) == 1
        told = json.loads(agent.cli("usage", "--json").stdout)
    assert told["total"]["usage"]["tokens_in"] == 1_200


def _text(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.jsonl"))


def test_what_a_killed_run_had_spent_counts(started: Any) -> None:
    script = [calls(call("list"), tokens_in=900, tokens_out=0), hang(), text("Never.")]
    with ScriptedOpenAI(script) as server:
        agent = started(server, "budget: {run: {tokens: 800}}")
        agent.drop("a.md", STORY)
        result = agent.result("a.md")
        assert result["status"] == "failed"
        assert len(server.requests) == 1
        assert json.loads(agent.cli("usage", "--json").stdout)["total"]["usage"]["tokens_in"] == 900


def test_an_unknown_price_is_said_and_not_guessed(started: Any) -> None:
    with ScriptedOpenAI([text("Once upon a time.")]) as server:
        agent = started(server)
        agent.layout.settings.write_text(agent.layout.settings.read_text().replace('openai:x": {in', 'openai:y": {in'))
        agent.drop("a.md", STORY)
        assert agent.result("a.md")["cost"] == "unknown"
        assert "unknown price" in agent.cli("usage").stdout
