"""Secrets stay secret: keys and registered values reach no result, no record, no log and no prompt, in no encoding."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from fsagent.testing import ScriptedOpenAI, call, calls, text
from harness import Agent, wait_for

KEY, PASS = "fsk-model-Key/0123+456789", "hunter2:correct horse & battery"
pytestmark = pytest.mark.timeout(120)


def spelled(value: str) -> list[str]:
    """The value as it may turn up."""
    raw = value.encode()
    return [
        value, quote(value, safe=""), json.dumps(value)[1:-1], raw.hex(), base64.b64encode(raw).decode(),
        base64.b64encode(b"x" + raw + b"yy").decode(), base64.urlsafe_b64encode(b"xy" + raw).decode(),
    ]  # fmt: skip


@pytest.fixture
def agent(tmp_path: Path):
    (tmp_path / "pass").write_text(PASS + "\n")
    os.environ["TEST_MODEL_KEY"] = KEY
    agent = Agent(tmp_path / "ws", fork_workers=True)
    yield agent
    agent.close()
    del os.environ["TEST_MODEL_KEY"]


def settings(agent: Agent, server: ScriptedOpenAI, *more: str) -> None:
    agent.layout.settings.write_text(
        f'settle: 0s\nsettle_renamed: 0s\nmodel: {{name: "openai:x", base_url: "{server.base_url}", '
        f'api_key_env: TEST_MODEL_KEY}}\nsecrets: {{pass: {{file: "{agent.root.parent}/pass"}}}}\n'
        + "".join(f"{line}\n" for line in more)
    )


def everything(agent: Agent) -> str:
    """All that was written down anywhere, but for what a person put there."""
    own = {agent.root / "leak.md", agent.layout.settings}
    files = [path for path in agent.root.rglob("*") if path.is_file() and path not in own and path.suffix != ".sqlite3"]
    index = list(agent.layout.machine.glob("index.sqlite3*"))
    return "\n".join(path.read_text(errors="replace") for path in [*files, *index]) + agent.output()


def test_no_spelling_of_a_secret_goes_anywhere(agent: Agent) -> None:
    leak = "\n".join(each for value in (KEY, PASS) for each in spelled(value))
    script = [
        calls(call("read", path="leak.md"), call("search_files", query="hunter2")),
        calls(call("shell", command=["cat", "leak.md"])),
        text(f"I found these: {leak}"),
    ]
    with ScriptedOpenAI(script, key=KEY) as server:
        settings(agent, server, "tools: {shell: allow}", "sandbox: off", "trust: {read: '*', search_files: '*'}")
        (agent.root / "leak.md").write_text(leak)
        agent.start()
        agent.drop("a.md", "Have a look at leak.md and tell me all that you find in it.")
        result = agent.result("a.md")
        assert result["status"] == "done"
        assert "[secret pass]" in result.content
        agent.stop()
        sent = json.dumps([request.body for request in server.requests])
    for value in (KEY, PASS):
        for each in (*spelled(value), base64.b64encode(value.encode()).decode().rstrip("=")[:-1]):
            assert each not in everything(agent), f"{each} was written down"
            assert each not in sent, f"{each} was sent"


def test_the_offline_engine_shows_none_either(agent: Agent) -> None:
    with ScriptedOpenAI([]) as server:
        settings(agent, server)
        (agent.root / "leak.md").write_text(f"the password is {PASS}")
        agent.start()
        agent.drop("a.md", "Show leak.md")
        assert agent.result("a.md").content == "the password is [secret pass]"
        agent.stop()
    assert PASS not in everything(agent)


def test_a_mask_is_never_written_in_the_place_of_a_secret(agent: Agent) -> None:
    wish = call("write", path="leak.md", text="a: [secret pass]\nb: 2")
    with ScriptedOpenAI([calls(wish), text("Not done.")]) as server:
        settings(agent, server)
        (agent.root / "leak.md").write_text(f"a: {PASS}\nb: 1")
        agent.start()
        agent.drop("a.md", "Change b to 2 in the file leak.md, carefully.")
        assert agent.result("a.md").content == "Not done."
        assert "holds a mask in place of the secret 'pass'" in server.last.results[0]
    assert (agent.root / "leak.md").read_text() == f"a: {PASS}\nb: 1"


def test_what_goes_wrong_does_not_tell_the_key(agent: Agent) -> None:
    from fsagent.testing import error

    with ScriptedOpenAI([error(401, message=f"Incorrect API key provided: {KEY}")]) as server:
        settings(agent, server)
        agent.start()
        agent.drop("a.md", "Tell me a story about the sea.")
        result = agent.result("a.md")
        wait_for(lambda: agent.files(agent.layout.outbox / "notices"), "the notice")
        agent.stop()
    assert "the key is refused" in result["error"]
    assert KEY not in everything(agent)


def test_what_was_said_before_and_a_secret_that_was_replaced_stay_hidden(agent: Agent) -> None:
    with ScriptedOpenAI([text("Good."), text("Good."), text("Good.")]) as server:
        settings(agent, server)
        agent.start()
        agent.drop("t/1.md", f"Let us say that the word of the day is {PASS}, shall we?")
        agent.result("t/1.md")
        (agent.root.parent / "pass").write_text("another-word-altogether")
        agent.drop("t/2.md", f"And is it still {PASS}, or another-word-altogether, what do you think?")
        agent.result("t/2.md")
        said = json.dumps([request.body for request in server.requests])
        assert len(server.last.texts) >= 3, "the earlier exchange is in it"
    assert PASS not in said
    assert "another-word-altogether" not in said
    assert "[secret pass]" in said


def test_a_key_that_only_a_command_could_ask_for_is_hidden(agent: Agent) -> None:
    os.environ["ANTHROPIC_API_KEY"] = "fsk-of-somebody-else"
    try:
        with ScriptedOpenAI([]) as server:
            settings(agent, server)
            (agent.root / "leak.md").write_text("it is fsk-of-somebody-else")
            agent.start()
            agent.drop("a.md", "Show leak.md")
            assert agent.result("a.md").content == "it is [secret ANTHROPIC_API_KEY]"
    finally:
        del os.environ["ANTHROPIC_API_KEY"]
