"""The engine ``model``, from a file in the inbox to its result: real daemons, workers and HTTP; scripted models."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fsagent.testing import (
    Received,
    ScriptedAnthropic,
    ScriptedOpenAI,
    call,
    call_raw,
    calls,
    error,
    giant,
    half,
    hang,
    held,
    text,
)
from harness import Agent, wait_for

pytestmark = pytest.mark.timeout(120)


def settings(server: Any, *more: str, provider: str = "openai", name: str = "gpt-x") -> str:
    head = f'model: {{name: "{provider}:{name}", base_url: "{server.base_url}"}}\n'
    return head + "settle: 0s\nsettle_renamed: 0s\n" + "".join(f"{line}\n" for line in more)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Start an agent on a scripted server; ended at the end of the test."""
    agents: list[Agent] = []

    def start(server: Any, *more: str, fork_workers: bool = True, **options: Any) -> Agent:
        agent = Agent(tmp_path / f"ws{len(agents)}", settings(server, *more, **options), fork_workers=fork_workers)
        agents.append(agent)
        return agent.start()

    yield start
    for agent in agents:
        agent.close()


def steps_of(agent: Agent, run: str) -> list[dict[str, Any]]:
    lines = (agent.layout.runs / run / "steps.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def journal(agent: Agent) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(agent.layout.journal.glob("*.jsonl"))
            for line in path.read_text().splitlines()]  # fmt: skip


def workers_of(agent: Agent) -> list[psutil.Process]:
    """The worker processes of a daemon, without their supervisors. It starts them itself: ``fork_workers=False``."""
    daemon = psutil.Process(agent.process.pid)
    return [each for each in daemon.children(recursive=True) if "fsagent.worker" in " ".join(each.cmdline()[:5])]


# what it does


def test_it_reads_acts_and_answers(started: Any) -> None:
    script = [
        calls(call("read", path="a.md"), say="Let me look."),
        calls(call("append", path="log.txt", text="seen"), call("list")),
        text("It says hello.", tokens_in=100, tokens_out=20, cached=60),
    ]
    with ScriptedOpenAI(script) as server:
        agent = started(server)
        (agent.root / "a.md").write_text("hello from a file")
        agent.drop("q.md", "Look at a.md, please, and tell me about it.")
        result = agent.result("q.md")
    assert (result["status"], result["engine"], result.content) == ("done", "model", "It says hello.")
    assert result["changed"] == ["log.txt"]
    assert (result["tokens_in"], result["tokens_out"]) == (120, 30)
    assert (agent.root / "log.txt").read_text() == "seen\n"
    last = json.dumps(server.last.body)
    assert "hello from a file" in last
    assert "added 1 line to log.txt" in last
    progress = (agent.layout.runs / result["run"] / "progress.md").read_text()
    told = r"Let me look\.\n+→ read a\.md\n.*→ append log\.txt\n→ list \.\n.*It says hello\."
    assert re.search(told, progress, re.DOTALL)


def test_what_is_understood_costs_no_tokens(started: Any) -> None:
    with ScriptedOpenAI([text("42")]) as server:
        agent = started(server)
        agent.drop("a.md", "My name is Alice.")
        assert agent.result("a.md")["engine"] == "offline"
        agent.drop("b.md", "---\nsteps:\n  - append: {path: x.md, text: hi}\n---\n")
        assert agent.result("b.md")["engine"] == "offline"
        assert server.requests == []
        agent.drop("c.md", "What is the meaning of all this, in a number?")
        assert agent.result("c.md").content == "42"
        assert "The owner's name is Alice." in server.last.system


def test_a_greeting_costs_little_with_all_tools(started: Any) -> None:
    with ScriptedOpenAI([text("Hello.")]) as server:
        agent = started(server, "tools: {shell: ask, http: ask}", "engine: model")
        agent.drop("hi.md", "hi")
        agent.result("hi.md")
    assert {"shell", "http", "read", "task"} <= set(server.last.tools)
    assert server.last.size < 6_000, "four bytes a token: 1,500 tokens"


def test_only_what_the_policy_may_allow_is_shown(started: Any) -> None:
    with ScriptedOpenAI([text("a"), text("b")]) as server:
        agent = started(server, "tools: {forget: deny, write: {'notes/*': allow, '*': deny}}")
        agent.drop("a.md", "Tell me a story about the sea.")
        agent.result("a.md")
        assert not {"shell", "http", "forget"} & set(server.last.tools)
        assert {"write", "read"} <= set(server.last.tools)
        agent.drop("b.md", "---\ntools: {write: deny, read: deny, shell: allow}\n---\nTell me a story about the sea.")
        agent.result("b.md")
        assert not {"shell", "write", "read"} & set(server.last.tools), "a command narrows, and never widens"


def test_a_command_cannot_widen_what_the_settings_deny(started: Any) -> None:
    with ScriptedOpenAI([calls(call("shell", command="touch x")), text("No.")]) as server:
        agent = started(server)
        agent.drop("a.md", "---\ntools: {shell: allow}\n---\nMake the file x with the shell.")
        assert agent.result("a.md").content == "No."
        assert "denied by the settings" in json.dumps(server.last.body)
    assert not (agent.root / "x").exists()


def test_a_thread_remembers_what_was_said(started: Any) -> None:
    with ScriptedOpenAI([text("Lisbon is sunny."), text("You asked about Lisbon."), text("What?")]) as server:
        agent = started(server)
        agent.drop("travel/1.md", "---\ntimeout: 5m\n---\nIs it nice in Lisbon at this time of the year?")
        agent.result("travel/1.md")
        agent.drop("travel/2.md", "Which town did I speak of before?")
        agent.result("travel/2.md")
        said = server.last.messages
        roles = [message["role"] for message in said]
        assert roles == ["system", "user", "assistant", "user"]
        assert said[1]["content"].startswith("Is it nice in Lisbon")
        assert said[2]["content"] == "Lisbon is sunny."
        agent.drop("else.md", "Which town did I speak of before?")
        agent.result("else.md")
        assert [message["role"] for message in server.last.messages] == ["system", "user"]


def test_a_task_with_nothing_to_say_says_nothing(started: Any) -> None:
    with ScriptedOpenAI([text("Nothing to report."), text("The tank is empty!")]) as server:
        agent = started(server)
        (agent.layout.tasks / "tank.md").write_text(
            "---\nevery: 1s\n---\nLook after the tank and tell me of any trouble."
        )
        server.wait_for(2)
        (agent.layout.tasks / "tank.md").unlink()
        wait_for(lambda: agent.files(agent.layout.outbox), "the second run has something to say")
        assert "scheduled run" in server.requests[0].texts[-1]
    assert [result.content for result in agent.results()] == ["The tank is empty!"]


def test_a_long_result_is_cut_and_kept_whole(started: Any) -> None:
    lines = "\n".join(f"line {number}" for number in range(5_000))
    with ScriptedOpenAI([calls(call("shell", command=["cat", "big/long.txt"])), text("Long.")]) as server:
        agent = started(server, "tools: {shell: allow}", "sandbox: off")
        (agent.root / "big").mkdir()
        (agent.root / "big" / "long.txt").write_text(lines)
        agent.drop("a.md", "What does the program print, roughly?")
        run = agent.result("a.md")["run"]
    shown = server.last.results[0]
    assert len(shown) < 9_000
    where = re.search(r"read (\S+) with start: (\d+)", shown)
    assert where
    assert where[1] == f".fsagent/runs/{run}/outputs/1-1.txt"
    assert (agent.root / where[1]).read_text() == lines
    cut = shown.splitlines()[-2]
    assert lines.splitlines()[int(where[2]) - 1].startswith(cut), "reading goes on where it was cut"


def test_a_long_file_is_read_page_by_page(started: Any) -> None:
    lines = [f"line {number} {'x' * 80}" for number in range(1, 500)]

    def reader(request: Received) -> Any:
        found = re.search(r"go on with start: (\d+)\)$", request.results[-1]) if request.results else None
        if request.results and not found:
            return text("Read.")
        return calls(call("read", path="long.md", start=int(found[1]) if found else 1))

    with ScriptedOpenAI(reader) as server:
        agent = started(server)
        (agent.root / "long.md").write_text("\n".join(lines))
        agent.drop("a.md", "Read long.md to its very end, and think about it.")
        assert agent.result("a.md").content == "Read."
    pages = "\n".join(server.last.results)
    assert all(line in pages for line in lines)
    assert max(map(len, server.last.results)) < 9_000


# what goes wrong


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401), "the key is refused"),
        (error(403), "the key is refused"),
        (error(402), "the account is used up"),
        (error(429, code="insufficient_quota"), "the account is used up"),
        (error(404), "there is no such model"),
        (error(400), "answered 400"),
    ],
)
def test_what_cannot_pass_ends_at_once_and_clearly(started: Any, reply: Any, words: str) -> None:
    with ScriptedOpenAI([reply]) as server:
        agent = started(server)
        agent.drop("a.md", "Tell me a story about the sea.")
        result = agent.result("a.md")
        assert len(server.requests) == 1
    assert result["status"] == "failed"
    assert words in result["error"]


@pytest.mark.parametrize(
    "reply", [error(429, retry_after=1, code="rate_limit_exceeded"), error(500), error(503), half(text("Once upon a")),
              half(text("Once upon a time"), quiet=True), half(calls(call("read", path="a.md")), quiet=True)]
)  # fmt: skip
def test_what_may_pass_is_tried_again(started: Any, reply: Any) -> None:
    with ScriptedOpenAI([reply, text("Once upon a time.")]) as server:
        agent = started(server)
        agent.drop("a.md", "Tell me a story about the sea.")
        assert agent.result("a.md").content == "Once upon a time."
        assert len(server.requests) == 2


def test_the_next_model_answers_where_the_first_does_not(started: Any) -> None:
    with ScriptedOpenAI(lambda request: error(500) if request.model == "gpt-x" else text("I am here.")) as server:
        agent = started(server)
        agent.layout.settings.write_text(
            agent.layout.settings.read_text().replace("}", ', fallback: ["openai:gpt-y"]}', 1)
        )
        agent.drop("a.md", "Tell me a story about the sea.")
        result = agent.result("a.md", 60)
        assert (result["status"], result["model"], result.content) == ("done", "openai:gpt-y", "I am here.")
        assert [request.model for request in server.requests] == ["gpt-x"] * 3 + ["gpt-y"]


def test_where_none_answers_all_reasons_are_told(started: Any) -> None:
    with ScriptedOpenAI(lambda request: error(400 if request.model == "gpt-x" else 404)) as server:
        agent = started(server)
        agent.layout.settings.write_text(
            agent.layout.settings.read_text().replace("}", ', fallback: ["openai:gpt-y"]}', 1)
        )
        agent.drop("a.md", "Tell me a story about the sea.")
        result = agent.result("a.md")
    assert result["status"] == "failed"
    assert "openai:gpt-x: answered 400" in result["error"]
    assert "openai:gpt-y: there is no such model" in result["error"]


def test_a_command_waits_for_a_provider_that_cannot_be_reached(started: Any) -> None:
    """What it did before is not done again; and no ``retries:`` is needed."""
    with ScriptedOpenAI([calls(call("append", path="log.txt", text="once"), call("read", path="no.md"))]) as server:
        agent = started(server, "retry_wait: 100ms")
        port = int(server.root.rpartition(":")[2])
        agent.drop("a.md", "Write a line about the weather into log.txt, as you like it.")
        server.wait_for(1)
    wait_for(lambda: any(each["event"] == "retry" for each in journal(agent)), "nobody is there, so it waits")
    assert not (agent.layout.outbox / "a.md").exists()
    with ScriptedOpenAI([text("Done now.")], port=port) as back:
        result = agent.result("a.md", 60)
        assert "once" in json.dumps(back.last.body)
    assert (result["status"], result.content) == ("done", "Done now.")
    assert (agent.root / "log.txt").read_text() == "once\n"


def test_anthropic_speaks_too(started: Any) -> None:
    script = [calls(call("read", path="a.md"), say="Looking."), text("It says hello.", tokens_in=50, cached=40)]
    with ScriptedAnthropic(script, key="fsk-123456") as server:
        os.environ["TEST_ANTHROPIC_KEY"] = "fsk-123456"
        try:
            agent = started(server, provider="anthropic", name="claude-x")
            agent.layout.settings.write_text(
                f'settle: 0s\nsettle_renamed: 0s\nmodel: {{name: "anthropic:claude-x", '
                f'base_url: "{server.base_url}", api_key_env: TEST_ANTHROPIC_KEY}}\n'
            )
            (agent.root / "a.md").write_text("hello from a file")
            agent.drop("a.md", "Look at a.md, please, and tell me about it.")
            assert agent.result("a.md").content == "It says hello."
        finally:
            del os.environ["TEST_ANTHROPIC_KEY"]
    assert server.last.results == ["hello from a file"]
    assert "fsk-123456" not in "".join(
        path.read_text(errors="replace") for path in agent.root.rglob("*.*") if path.is_file()
    )


def test_malformed_arguments_are_told_to_the_model(started: Any) -> None:
    with ScriptedOpenAI(
        [calls(call_raw("read", '{"path": ')), calls(call("raed", path="a.md")), text("Ok.")]
    ) as server:
        agent = started(server)
        agent.drop("a.md", "Tell me a story about the sea.")
        assert agent.result("a.md").content == "Ok."
        told = server.last.results
    assert "Failed: read has no argument" in told[0]
    assert "there is no tool 'raed' (did you mean 'read'?)" in told[1]


def test_a_giant_answer_arrives_whole(started: Any) -> None:
    with ScriptedOpenAI([giant(300_000)]) as server:
        agent = started(server)
        agent.drop("a.md", "Tell me a very long story about the sea.")
        assert len(agent.result("a.md").content) >= 300_000


def test_going_in_circles_ends_the_run(started: Any) -> None:
    with ScriptedOpenAI(lambda request: calls(call("read", path="a.md"))) as server:
        agent = started(server)
        (agent.root / "a.md").write_text("hello")
        agent.drop("a.md", "Look at a.md, please, and tell me about it.")
        result = agent.result("a.md")
        assert len(server.requests) == 3
    assert result["status"] == "failed"
    assert "went in circles" in result["error"]


def test_a_name_that_is_no_model_is_refused_with_its_line(started: Any) -> None:
    with ScriptedOpenAI([]) as server:
        agent = started(server)
        agent.drop("a.md", "---\nmodel: gpt4\n---\nTell me a story about the sea.")
        assert "inbox/a.md:2:1: model: 'gpt4' is no model" in agent.result("a.md")["error"]


# the circuit breaker


def test_a_refused_key_is_told_once_and_tasks_stop_trying(started: Any) -> None:
    replies = [error(401), text("I am back.")]
    with ScriptedOpenAI(lambda request: replies[0] if len(server.requests) < 3 else replies[1]) as server:
        agent = started(server, "scan_interval: 1s")
        (agent.layout.tasks / "t.md").write_text("---\nevery: 1s\n---\nThink about the state of the world.")
        server.wait_for(1)
        wait_for(lambda: agent.files(agent.layout.outbox / "notices"), "the notice")
        wait_for(
            lambda: sum("lets nobody in" in each.get("why", "") for each in journal(agent)) >= 3, "slots are skipped"
        )
        assert len(server.requests) == 1, "no task tries it again"
        assert len(agent.files(agent.layout.outbox / "notices")) == 1
        assert len(agent.files(agent.layout.outbox / "t")) <= 1, "one failed run is told, no storm"
        wait_for(lambda: "lets nobody in" in agent.status(), "status.md says it")
        agent.drop("a.md", "Tell me a story about the sea.")
        assert agent.result("a.md")["status"] == "failed", "a person's command tries it"
        agent.drop("b.md", "Tell me a story about the woods.")
        assert agent.result("b.md").content == "I am back."
        server.wait_for(4)
        wait_for(lambda: "lets nobody in" not in agent.status(), "status.md is clean again")


# time, crashes, cancelling


def test_a_run_that_hangs_is_ended_at_its_deadline(started: Any) -> None:
    with ScriptedOpenAI([hang("Once upon"), text("Hello.")]) as server:
        agent = started(server)
        agent.drop("a.md", "---\ntimeout: 8s\n---\nTell me a story about the sea.")
        server.wait_for(1)
        result = agent.result("a.md")
        assert result["status"] == "failed"
        assert "timeout" in result["error"]
        agent.drop("b.md", "Say something else, if you would.")
        assert agent.result("b.md").content == "Hello.", "the daemon and its workers go on"


def test_a_run_is_cancelled_while_the_model_thinks(started: Any) -> None:
    with ScriptedOpenAI([hang("Once upon")]) as server:
        agent = started(server)
        agent.drop("a.md", "Tell me a story about the sea.")
        server.wait_for(1)
        wait_for(lambda: any(agent.layout.runs.glob("*/progress.md")), "it has begun to speak")
        assert agent.cli("cancel", "last").returncode == 0
        result = agent.result("a.md")
    assert result["status"] == "interrupted"
    assert "cancelled by cli" in result["error"]


def test_a_dead_worker_costs_a_try_and_hurts_nobody(started: Any) -> None:
    with ScriptedOpenAI([calls(call("append", path="log.txt", text="once")), hang(), text("Done now.")]) as server:
        agent = started(server, fork_workers=False)
        agent.drop("a.md", "Write a line about the weather into log.txt, as you like it.")
        server.wait_for(2)
        for worker in workers_of(agent):
            worker.kill()
        result = agent.result("a.md")
    assert (result["status"], result.content, result["attempts"]) == ("done", "Done now.", 2)
    assert (agent.root / "log.txt").read_text() == "once\n"


def test_a_run_that_kills_its_worker_again_and_again_is_given_up_with_all_it_did(started: Any) -> None:
    with ScriptedOpenAI(
        lambda request: hang() if request.results else calls(call("append", path="x.md", text="x"))
    ) as server:
        agent = started(server, fork_workers=False)
        agent.drop("a.md", "Write a line about the weather into x.md, as you like it.")
        for number in (2, 3):
            server.wait_for(number)
            for worker in workers_of(agent):
                worker.kill()
        result = agent.result("a.md")
    assert result["status"] == "interrupted"
    assert "was ended 2 times" in result["error"]
    assert result["changed"] == ["x.md"]
    assert (agent.root / "x.md").read_text() == "x\n"


def test_nothing_of_a_worker_outlives_the_daemon(started: Any) -> None:
    with ScriptedOpenAI([calls(call("shell", command="sleep 300"))]) as server:
        agent = started(server, "tools: {shell: allow}", "sandbox: off", fork_workers=False)
        agent.drop("a.md", "Sleep for a good long while, and dream.")
        daemon = psutil.Process(agent.process.pid)
        below = wait_for(
            lambda: [each for each in daemon.children(recursive=True) if each.cmdline()[:2] == ["sleep", "300"]],
            "the program runs",
        )
        everything = daemon.children(recursive=True)
        agent.kill()
        _, alive = psutil.wait_procs(everything, timeout=20)
        assert not alive
        assert below


def test_idle_workers_are_used_again(started: Any) -> None:
    with ScriptedOpenAI(lambda request: text("Yes."), keep_alive=True) as server:
        agent = started(server, fork_workers=False)
        pids = set()
        for number in range(4):
            agent.drop(f"{number}.md", f"Tell me story number {number} about the sea.")
            agent.result(f"{number}.md")
            pids |= {worker.pid for worker in workers_of(agent)}
    assert len(pids) == 1


def test_runs_go_side_by_side_but_a_thread_goes_in_order(started: Any) -> None:
    with ScriptedOpenAI(lambda request: held(text("Yes."))) as server:
        agent = started(server, "max_runs: 3")
        for name in ("t/1", "t/2", "u/1", "v/1", "w/1"):
            agent.drop(f"{name}.md", f"Tell me story {name} about the sea.")
        server.wait_for(3)
        begun = sorted(re.search(r"story (\S+)", request.texts[-1])[1] for request in server.requests)
        assert begun == ["t/1", "u/1", "v/1"]
        server.release(5)
        for name in ("t/1", "t/2", "u/1", "v/1", "w/1"):
            assert agent.result(f"{name}.md").content == "Yes."


def test_a_person_is_not_kept_out_by_tasks(started: Any) -> None:
    with ScriptedOpenAI(lambda request: held(text("Nothing to report."))) as server:
        agent = started(server, "max_runs: 1")
        agent.layout.stop.touch()
        for number in range(6):
            (agent.layout.tasks / f"t{number}.md").write_text(
                "---\nevery: 1h\n---\nThink about the state of the world."
            )
            wait_for(lambda number=number: agent.cli("ask", f"Run the t{number} task now").returncode is not None)
        agent.drop("a.md", "Tell me a story about the sea.")
        agent.layout.stop.unlink()
        server.wait_for(1)
        server.release(10)
        agent.result("a.md")
        order = ["sea" in request.texts[-1] for request in server.requests]
    assert True in order[:2]


def test_a_model_on_hold_costs_the_daemon_nothing(started: Any) -> None:
    """While a worker thinks, the offline engine answers at once."""
    with ScriptedOpenAI([held(text("Yes."))]) as server:
        agent = started(server)
        agent.drop("slow.md", "Tell me a story about the sea.")
        server.wait_for(1)
        agent.drop("quick.md", "What is my name?")
        assert agent.result("quick.md")["engine"] == "offline"
        assert not (agent.layout.outbox / "slow.md").exists()
        server.release()
        assert agent.result("slow.md").content == "Yes."


def test_a_stop_in_the_middle_goes_on_at_the_next_start(started: Any) -> None:
    with ScriptedOpenAI([calls(call("append", path="log.txt", text="once")), hang(), text("Done now.")]) as server:
        agent = started(server, "shutdown_wait: 1s")
        agent.drop("a.md", "Write a line about the weather into log.txt, as you like it.")
        server.wait_for(2)
        assert agent.stop() == 0
        assert not (agent.layout.outbox / "a.md").exists()
        agent.start()
        result = agent.result("a.md")
    assert (result["status"], result.content) == ("done", "Done now.")
    assert (agent.root / "log.txt").read_text() == "once\n"
    assert "attempts" not in result.metadata, "a stop is no try"


# tools of MCP servers


def test_tools_of_an_mcp_server_are_offered_asked_about_and_used(started: Any) -> None:
    script = [calls(call("box__echo", text="hello")), text("It said hello.")]
    with ScriptedOpenAI(script) as server:
        program = Path(__file__).parent / "servers" / "good.py"
        agent = started(server, f"mcp_servers: {{box: {{command: {sys.executable}, args: [{program}]}}}}")
        agent.drop("a.md", "Have the box echo a greeting, and tell me what it said.")
        file = wait_for(lambda: list(agent.layout.approvals.glob("*.md")), "a question: nothing allows the server")[0]
        assert "box__echo" in file.read_text()
        assert "box__echo" in server.last.tools
        assert agent.cli("approve", "last").returncode == 0
        assert agent.result("a.md").content == "It said hello."
        assert "hello" in server.last.results[0]


# approvals


def test_an_approved_call_goes_on_without_asking_the_model_again(started: Any) -> None:
    with ScriptedOpenAI([calls(call("write", path="site.html", text="<b>hi</b>")), text("Published.")]) as server:
        agent = started(server, "tools: {write: ask}", fork_workers=False)
        agent.drop("a.md", "Publish a friendly page as site.html.")
        file = wait_for(lambda: list(agent.layout.approvals.glob("*.md")), "a question")[0]
        asked = file.read_text()
        assert "site.html" in asked
        assert len(server.requests) == 1
        assert not workers_of(agent) or all(worker.status() == "sleeping" for worker in workers_of(agent))
        agent.kill()
        file.write_text(asked.replace("[ ] approve once", "[x] approve once"))
        agent.start()
        result = agent.result("a.md")
        assert result.content == "Published."
        assert len(server.requests) == 2
        assert "Failed" not in server.last.results[0]
    assert (agent.root / "site.html").read_text() == "<b>hi</b>"


def test_a_refusal_is_told_to_the_model_with_the_reason(started: Any) -> None:
    with ScriptedOpenAI([calls(call("write", path="site.html", text="hi")), text("Then not.")]) as server:
        agent = started(server, "tools: {write: ask}")
        agent.drop("a.md", "Publish a friendly page as site.html.")
        wait_for(lambda: list(agent.layout.approvals.glob("*.md")), "a question")
        assert agent.cli("refuse", "last", "--comment", "not today").returncode == 0
        assert agent.result("a.md").content == "Then not."
        assert "a person refused write: not today" in server.last.results[0]


def test_time_does_not_run_while_a_person_thinks(started: Any) -> None:
    with ScriptedOpenAI([text("."), calls(call("write", path="site.html", text="hi")), text("Published.")]) as server:
        agent = started(server, "tools: {write: ask}")
        agent.drop("warm.md", "Tell me a story about the sea.")
        agent.result("warm.md")
        agent.drop("a.md", "---\ntimeout: 5s\n---\nPublish a friendly page as site.html.")
        wait_for(lambda: list(agent.layout.approvals.glob("*.md")), "a question")
        wait_for(lambda moment=time.monotonic(): time.monotonic() - moment > 6, "longer than the timeout")
        assert agent.cli("approve", "last").returncode == 0
        assert agent.result("a.md").content == "Published."
