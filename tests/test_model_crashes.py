"""kill -9 at every record of a run in which a model makes five calls: each call happens at most once, and the run ends.

The daemon is a real process that ends itself by SIGKILL right behind its n-th record of the run, its worker with it;
then a daemon that nobody ends goes on.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fsagent.testing import Received, ScriptedOpenAI, call, calls, text
from harness import Agent

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

# Kills its own process behind the n-th record that is written into a run's folder.
DAEMON = """
import os, signal, sys
from fsagent.faces.cli import main
from fsagent.workspace.runs import RunFolder
left, record = int(sys.argv.pop(1)), RunFolder.record
def counting(self, event, **fields):
    global left
    record(self, event, **fields)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
RunFolder.record = counting
main()
"""
CALLS = (
    call("append", path="log.txt", text="one"),
    call("shell", command="echo two >> log.txt", shell=True),
    call("read", path="a.md"),
    call("write", path="written.md", text="three"),
    call("shell", command="echo four >> log.txt", shell=True),
)


def model(request: Received) -> Any:
    """Five calls, one after the other, whatever came of them; then an answer."""
    done = len(request.results)
    return calls(CALLS[done]) if done < len(CALLS) else text("All done.")


@pytest.mark.parametrize("first", [1, 2])
def test_every_call_happens_at_most_once_whatever_record_the_kill_comes_behind(tmp_path: Path, first: int) -> None:
    killed_at = []
    for number in range(first, 60, 2):
        with ScriptedOpenAI(model) as server:
            agent = Agent(
                tmp_path / f"ws{number}",
                f'model: {{name: "openai:x", base_url: "{server.base_url}"}}\nsettle: 0s\nsettle_renamed: 0s\n'
                "tools: {shell: allow}\nsandbox: off\ntrust: {read: ['*'], shell: ['*']}\n",
                fork_workers=True,
            )
            (agent.root / "a.md").write_text("hello")
            agent.drop("a.md", "Do the five things that we spoke of, please.")
            killed = agent.once_by(DAEMON, str(number)).returncode != 0
            agent.once()
            where = f"killed behind record {number}"
            (result,) = agent.results()
            assert (result["status"], result.content) == ("done", "All done."), f"{where}: {result.metadata}"
            lines = (agent.root / "log.txt").read_text().split() if (agent.root / "log.txt").exists() else []
            told = server.last.results
            for word, answer in (("one", told[0]), ("two", told[1]), ("four", told[4])):
                assert Counter(lines)[word] <= 1, where
                assert Counter(lines)[word] == 1 or "may have happened or not" in answer, f"{where}: {word} is lost"
            assert (agent.root / "written.md").exists() or "may have happened or not" in told[3], where
            assert told[2] == "hello", f"{where}: what only reads is simply done again"
            doubts = sum("may have happened or not" in answer for answer in told)
            assert doubts <= 1, where
            assert len(server.requests) <= len(CALLS) + 2, (
                f"{where}: at most one answer of the model is asked for twice"
            )
            steps = (agent.layout.runs / result["run"] / "steps.jsonl").read_text()
            records = [json.loads(line) for line in steps.splitlines()]
            assert sum(record["event"] == "call" for record in records) <= len(CALLS) + 1, where
        if not killed:
            break
        killed_at.append(number)
    assert len(killed_at) > 12, "the walk went through the whole run"
