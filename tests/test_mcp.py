"""The MCP face, spoken to by the official client: a real ``fsagent mcp`` process, real HTTP, and a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
import uvicorn
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from fsagent.faces.hub import Hub
from fsagent.faces.mcp import http
from fsagent.faces.mcp.http import HttpSessions
from fsagent.faces.mcp.resources import MAX_SIZE, PAGE
from fsagent.faces.mcp.table import schema_of
from fsagent.faces.mcp.tools import TOOLS
from fsagent.model import Run
from fsagent.workspace.index import Index
from fsagent.workspace.tokens import SCOPES, Token
from harness import FSAGENT, PATIENCE, Agent, wait_for

SETTINGS = "scan_interval: 1s\ntools: {shell: allow}\nshutdown_wait: 0s\n"
ERAS = ["legacy", "2026-07-28"]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A workspace without a daemon."""
    agent = Agent(tmp_path / "alfred", SETTINGS)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A daemon that several tests share."""
    agent = Agent(tmp_path_factory.mktemp("live") / "alfred", SETTINGS).start()
    yield agent
    agent.close()


def talk(agent: Agent, mode: str = "legacy", **options: Any) -> Client:
    """A client of ``fsagent mcp`` on stdio."""
    words = [*FSAGENT[1:], "mcp", "--approve", "-w", str(agent.root)]
    return Client(StdioServerParameters(command=FSAGENT[0], args=words), mode=mode, cache=None, **options)


async def call(client: Client, tool: str, **args: Any) -> Any:
    """What a tool returns, which is as its schema says."""
    result = await client.call_tool(tool, args)
    assert not result.is_error, result.content[0].text
    jsonschema.validate(result.structured_content, schema_of(next(row for row in TOOLS if row.name == tool).returns))
    return result.structured_content


async def words(client: Client, tool: str, **args: Any) -> str:
    """The same in words, as a model reads it."""
    result = await client.call_tool(tool, args)
    assert not result.is_error, result.content[0].text
    assert len(result.content) == 1
    return result.content[0].text


async def refused(client: Client, tool: str, **args: Any) -> str:
    """Why a tool call was refused."""
    result = await client.call_tool(tool, args)
    assert result.is_error
    return result.content[0].text


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + PATIENCE
    while not (value := await condition()):
        assert time.monotonic() < end, f"never happened: {what}"
        await asyncio.sleep(0.02)
    return value


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(50):
            return await work

    return asyncio.run(bounded())


# what is offered


@pytest.mark.parametrize("era", ERAS)
def test_what_is_offered(agent: Agent, era: str) -> None:
    async def work() -> None:
        async with talk(agent, era) as client:
            if era == "legacy":
                assert client.protocol_version == "2025-11-25"
                assert (client.server_info.name, client.server_info.title) == ("fsagent", "alfred")
                assert client.server_info.version
                assert "alfred is an agent" in client.instructions
                assert client.server_capabilities.resources.subscribe
                assert client.server_capabilities.resources.list_changed
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(tools) == [row.name for row in TOOLS]
            for tool in tools.values():
                for schema in (tool.input_schema, tool.output_schema):
                    jsonschema.Draft202012Validator.check_schema(schema)
                    assert schema["type"] == "object"
                    assert "$ref" not in json.dumps(schema)
                assert tool.description
                assert "\n" not in tool.description.replace("\n\n", "")
                assert tool.annotations.title == tool.title
                for name, field in tool.input_schema["properties"].items():
                    assert field["description"], f"{tool.name}.{name}"
            reads = {name for name, tool in tools.items() if tool.annotations.read_only_hint}
            assert reads == {
                "get_result", "list_runs", "search", "status", "usage", "list_tasks", "list_approvals", "read_soul",
            }  # fmt: skip
            destroys = {name for name, tool in tools.items() if tool.annotations.destructive_hint}
            assert destroys == {"send_command", "cancel_run", "retry_run", "run_task", "decide_approval", "forget"}
            assert tools["send_command"].annotations.open_world_hint
            assert tools["remember"].annotations.idempotent_hint

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_every_tool(agent: Agent, era: str) -> None:
    agent.start()

    async def work() -> None:
        async with talk(agent, era) as client:
            done = await call(client, "send_command", text="My name is Alice.", wait=30)
            assert (done["status"], done["answer"]) == ("done", "Remembered: Your name is Alice.")
            assert done["remembered"] == ["The owner's name is Alice."]
            assert done["result"] == f"outbox/{done['command']}"
            assert (agent.root / done["result"]).exists()
            assert await words(client, "send_command", text="What is my name?", wait=30) == "Your name is Alice."

            failed = await call(client, "send_command", text="---\nsteps:\n  - shell: 'false'\n---\n", wait=30)
            assert failed["status"] == "failed"
            assert failed["error"]
            again = await call(client, "retry_run", run=failed["run"], wait=30)
            assert again["status"] == "failed"
            assert again["run"] != failed["run"]
            assert "was done" in await refused(client, "retry_run", run=done["run"])
            assert (await call(client, "get_result", run=done["run"])) == done
            assert "has ended already (done)" in await refused(client, "cancel_run", run=done["run"])

            text = await words(client, "remember", fact="The router is a Fritzbox")
            assert text == "Remembered: The router is a Fritzbox."
            soul = await call(client, "read_soul")
            assert soul["text"] == agent.layout.soul.read_text()
            assert "- The router is a Fritzbox." in await words(client, "read_soul")
            assert (await call(client, "forget", about="the router"))["status"] == "done"
            assert (await call(client, "read_soul"))["tag"] != soul["tag"]
            assert "Fritzbox" not in agent.layout.soul.read_text()

            made = await call(client, "create_task", name="tick", request='Add "tick" to log.txt', every="1h")
            assert made["answer"].startswith("Created: tick: every 1h")
            task = next(t for t in (await call(client, "list_tasks"))["tasks"] if t["task"] == "tick")
            assert (task["rule"], task["state"]) == ("every 1h", "on")
            ran = await call(client, "run_task", task="tick", wait=30)
            assert ran["status"] == "done"
            assert ran["changed"] == ["log.txt"]
            assert "paused" in await words(client, "pause_task", task="tick")
            assert "tick  " in await words(client, "list_tasks")
            tasks = (await call(client, "list_tasks"))["tasks"]
            assert next(t for t in tasks if t["task"] == "tick")["state"] == "paused"
            assert "paused" not in await words(client, "resume_task", task="tick")

            used = await call(client, "usage", days=1, by="task")
            assert (used["rows"], used["today"][0]["limit"]) == ([], 1000)
            assert "no model was asked" in await words(client, "usage")

            status = await call(client, "status")
            assert (status["agent"], status["alive"], status["paused"]) == ("alfred", True, False)
            assert "alfred: alive" in await words(client, "status")

            async def settled() -> bool:
                return len((await call(client, "search", query="fritzbox"))["hits"]) == 2

            await until(settled, "the index knows the run")
            assert "The router is a Fritzbox" in await words(client, "search", query="fritzbox")
            found = await call(client, "list_runs", status="failed")
            assert [line["run"] for line in found["runs"]] == [again["run"], failed["run"]]

    run(work())


def test_without_leave_no_client_on_stdio_answers_a_question(agent: Agent) -> None:
    async def work() -> None:
        server = StdioServerParameters(command=FSAGENT[0], args=[*FSAGENT[1:], "mcp", "-w", str(agent.root)])
        async with Client(server, mode="legacy", cache=None) as client:
            offered = [tool.name for tool in (await client.list_tools()).tools]
            assert offered == [row.name for row in TOOLS if row.name != "decide_approval"]
            assert "fsagent mcp --approve" in await refused(client, "decide_approval", id="x", decision="once")

    run(work())


def test_a_question_is_answered_by_mcp(agent: Agent) -> None:
    agent.layout.settings.write_text(SETTINGS.replace("shell: allow", "append: ask"))
    agent.start()

    async def work() -> None:
        async with talk(agent) as client:
            assert await words(client, "list_approvals") == "nothing waits for an answer"
            handed = await call(client, "send_command", text="Add milk to log.txt", wait=60)
            assert handed["status"] == "waiting"
            assert "It waits for a person's answer" in handed["note"], "there is nothing to wait for"

            async def asked() -> Any:
                return (await call(client, "list_approvals"))["approvals"]

            (view,) = await until(asked, "it is asked")
            assert view["questions"][0]["args"] == {"path": "log.txt", "text": "milk"}
            assert "add to `log.txt`" in await words(client, "list_approvals")
            assert "there is no open question" in await refused(client, "decide_approval", id="x", decision="once")
            assert "decision" in await refused(client, "decide_approval", id=view["id"], decision="yes")
            done = await words(client, "decide_approval", id=view["id"], decision="once")
            assert done == f"once: add to `log.txt` (run {view['run']})."
            result = await call(client, "get_result", run=view["run"], wait=30)
            assert result["status"] == "done"
            assert (agent.root / "log.txt").read_text() == "milk\n"
            agent.drop("m.md", "---\nsteps:\n  - ask_person: Which month?\n---\n")
            (view,) = await until(asked, "it is asked")
            assert f"fsagent answer {view['id']} TEXT" in await words(client, "list_approvals")
            done = await words(client, "decide_approval", id=view["id"], decision="answer", answer="in May")
            assert done == f"answer: ask you `Which month?` (run {view['run']})."
            result = await call(client, "get_result", run=view["run"], wait=30)
            assert "in May" in result["answer"]

    run(work())


def test_lists_come_page_by_page(live: Agent) -> None:
    async def work() -> None:
        async with talk(live) as client:
            sent = [
                (await call(client, "send_command", text=f"Add pagina {n} to p.txt", thread="pages", wait=30))["run"]
                for n in range(5)
            ]

            async def all_of(tool: str, key: Callable[[Any], str], **args: Any) -> list[str]:
                found, before = [], ""
                while True:
                    page = await call(client, tool, limit=2, before=before, **args)
                    items = page.get("runs", page.get("hits"))
                    assert len(items) <= 2
                    found += [key(item) for item in items]
                    before = page["next"]
                    if not before:
                        return found

            async def searched() -> bool:
                return len((await call(client, "search", query="pagina"))["hits"]) == 5

            await until(searched, "the index knows all five")
            assert await all_of("list_runs", lambda line: line["run"], thread="pages") == sent[::-1]
            assert await all_of("search", lambda hit: hit["run"]["run"], query="pagina") == sent[::-1]
            assert "call again with before=" in await words(client, "list_runs", limit=1)
            assert "begin with the first page" in await refused(client, "list_runs", before="20200101-000000-aaaaa")
            for name in "abc":
                await call(client, "create_task", name=f"page-{name}", request="List my tasks")
            page = await call(client, "list_tasks", limit=2, after="page")
            assert [task["task"] for task in page["tasks"]] == ["page-a", "page-b"]
            rest = await call(client, "list_tasks", limit=2, after=page["next"])
            assert [task["task"] for task in rest["tasks"]] == ["page-c"]
            assert rest["next"] == ""

    run(work())


# commands


def test_what_was_told_by_mcp_outlives_the_daemon(agent: Agent) -> None:
    """The mission's proof of memory, through this face."""
    agent.start()

    async def work() -> None:
        async with talk(agent) as client:
            assert (await call(client, "send_command", text="My name is Alice.", wait=30))["status"] == "done"
            await asyncio.to_thread(agent.kill)
            await asyncio.to_thread(agent.start)
            assert await words(client, "send_command", text="What is my name?", wait=30) == "Your name is Alice."

    run(work())


def test_without_a_daemon_commands_wait_and_are_done_when_one_starts(agent: Agent) -> None:
    async def work() -> None:
        async with talk(agent) as client:
            sent = await call(client, "send_command", text="My name is Alice.", wait=300)
            assert sent["status"] == "waiting"
            assert "No daemon runs" in sent["note"]
            fact = await call(client, "remember", fact="The cat is called Tom.")
            assert fact["status"] == "waiting"
            assert "waits and goes on once one is started" in await words(client, "create_task", name="t", request="x")
            assert "no daemon runs; commands wait" in await words(client, "status")
            assert (await call(client, "status"))["waiting"] == 3
            await asyncio.to_thread(agent.start)
            assert (await call(client, "get_result", run=sent["run"], wait=30))["status"] == "done"
            assert (await call(client, "get_result", run=fact["run"], wait=30))["status"] == "done"
            assert "Tom" in (await call(client, "read_soul"))["text"]

            agent.layout.stop.touch()
            held = await call(client, "send_command", text="What is my name?", wait=300)
            assert held["status"] == "waiting"
            assert "paused by a person" in held["note"]
            agent.layout.stop.unlink()
            assert (await call(client, "get_result", run=held["run"], wait=30))["answer"] == "Your name is Alice."

    run(work())


def test_the_same_id_is_done_once(live: Agent) -> None:
    async def work() -> None:
        async with talk(live) as client:
            args = {"text": "Add once to once.txt", "id": "order-1", "thread": "orders"}
            several = await asyncio.gather(*(call(client, "send_command", wait=30, **args) for _ in range(5)))
            assert len({each["run"] for each in several}) == 1
            assert sum("before" in each["note"] for each in several) == 4
            assert (live.root / "once.txt").read_text() == "once\n"
            assert "came with another command" in await refused(
                client, "send_command", **args | {"text": "Add twice to once.txt"}
            )
            runs = (await call(client, "list_runs", thread="orders"))["runs"]
            assert [(line["id"], line["trigger"]) for line in runs] == [("order-1", "mcp")]

    run(work())


def slow(name: str, seconds: float) -> str:
    command = f"touch marks/{name}-begun; sleep {seconds}; touch marks/{name}-ended"
    shell = f"{{command: '{command}', shell: true}}"
    return f"---\nsteps:\n  - write: {{path: marks/{name}, text: a folder}}\n  - shell: {shell}\n---\n"


@pytest.mark.parametrize("era", ERAS)
def test_cancelling_the_request_ends_the_waiting_only(live: Agent, era: str) -> None:
    async def work() -> None:
        async with talk(live, era) as client:
            name = f"patient-{era}"
            asking = asyncio.create_task(client.call_tool("send_command", {"text": slow(name, 0.5), "wait": 60}))
            await asyncio.to_thread(wait_for, (live.root / "marks" / f"{name}-begun").exists, "the run is under way")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert (await call(client, "status"))["alive"], "the session goes on"
            await asyncio.to_thread(wait_for, (live.root / "marks" / f"{name}-ended").exists, "the command is done")

    run(work())


def test_cancel_run_ends_the_run_and_others_are_served_meanwhile(live: Agent) -> None:
    async def work() -> None:
        async with talk(live) as client:
            sent = await call(client, "send_command", text=slow("endless", 60))
            assert sent["status"] in ("waiting", "running")
            waits = [asyncio.create_task(call(client, "get_result", run=sent["run"], wait=60)) for _ in range(40)]
            await asyncio.to_thread(wait_for, (live.root / "marks" / "endless-begun").exists, "the run is under way")
            begin = time.monotonic()
            for _ in range(10):
                await call(client, "status")
            assert time.monotonic() - begin < 5, "waiting keeps nobody else waiting"
            ended = await call(client, "cancel_run", run=sent["run"])
            assert ended["status"] in ("failed", "interrupted", "refused")
            assert "cancelled by mcp" in ended["error"]
            assert all(each["run"] == sent["run"] and each["error"] == ended["error"] for each in await _all(waits))
            assert not (live.root / "marks" / "endless-ended").exists()

    run(work())


async def _all(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks)


@pytest.mark.parametrize("era", ERAS)
def test_progress_is_told_while_a_client_waits(live: Agent, era: str) -> None:
    async def work() -> None:
        told: list[tuple[float, float | None, str | None]] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, total, message))

        text = "---\nsteps:\n  - append: {path: steps.txt, text: one}\n  - shell: sleep 1.5\n---\n"
        async with talk(live, era) as client:
            done = await client.call_tool("send_command", {"text": text, "wait": 30}, progress_callback=hear)
            assert done.structured_content["status"] == "done"
        assert len(told) >= 2
        assert [each[0] for each in told] == sorted({each[0] for each in told})
        assert {each[1] for each in told} == {30.0}
        assert told[-1][2] == "running, 2 steps so far"

    run(work())


def test_waiting_ends_when_its_time_is_over(live: Agent) -> None:
    async def work() -> None:
        async with talk(live) as client:
            begin = time.monotonic()
            sent = await call(client, "send_command", text=slow("longer", 20), wait=0.3)
            assert 0.3 <= time.monotonic() - begin < 10
            assert sent["status"] in ("waiting", "running")
            assert "ask get_result" in await words(client, "get_result", run=sent["run"])
            await call(client, "cancel_run", run=sent["run"])

    run(work())


# hostile and mistaken callers


def test_bad_arguments_are_answered_with_what_to_write(live: Agent) -> None:
    async def work() -> None:
        async with talk(live) as client:
            for tool, args, expected in (
                ("send_command", {}, "send_command: text: is missing"),
                (
                    "send_command",
                    {"text": 7},
                    "text: must be text, not a whole number. What belongs there: The request",
                ),
                ("send_command", {"text": ""}, "text: is empty"),
                ("send_command", {"text": "hi", "wait": 301}, "wait: must be at most 300"),
                ("send_command", {"text": "hi", "wait": "soon"}, "wait: must be a number, not text"),
                ("send_command", {"txt": "hi"}, "no argument 'txt' (did you mean 'text'?)"),
                ("send_command", {"text": "x" * 1_000_001}, "text: is longer than 1000000 characters"),
                ("send_command", {"text": "é" * 600_000}, "is larger than 1024 KiB"),
                ("send_command", {"text": "hi", "thread": "../x"}, "must be a plain name such as taxes"),
                ("send_command", {"text": "hi", "id": "a\nb"}, "id: must be one line"),
                ("send_command", {"text": "---\ntimeout: soon\n---\nhi"}, "timeout"),
                ("list_runs", {"limit": 10**30}, "limit: must be at most 100"),
                ("get_result", {"run": "../../etc"}, "there is no run"),
                ("cancel_run", {"run": "20200101-000000-aaaaa"}, "there is no run"),
                ("run_task", {"task": "nothing"}, "there is no task 'nothing'"),
                ("pause_task", {"task": "{{ now }}"}, "there is no task"),
                ("create_task", {"name": "{{ now }}", "request": "x"}, "cannot be a task's name"),
                ("create_task", {"name": "../x", "request": "x"}, "cannot be a task's name"),
                ("create_task", {"name": "a\nevery: 1s", "request": "x"}, "cannot be a task's name"),
                (
                    "create_task",
                    {"name": "x", "request": "x", "every": "{{ body }}"},
                    "every: '{{ body }}' says no time",
                ),
                ("create_task", {"name": "x", "request": "x", "every": "0.1s"}, "every: must be at least 1s"),
                ("remember", {"fact": "   "}, "there is no text"),
                ("status", {"verbose": True}, "there is no argument 'verbose'; it takes none"),
            ):
                assert expected in await refused(client, tool, **args), tool
            with pytest.raises(MCPError, match="there is no tool 'sendcommand'; did you mean 'send_command'"):
                await client.call_tool("sendcommand", {})
            assert (await call(client, "list_runs", task=None))["runs"] is not None, "null is what was left out"

    run(work())


def test_templates_stay_text_where_a_client_writes_freely(live: Agent) -> None:
    async def work() -> None:
        async with talk(live) as client:
            for fact in ("The time is {{ now }}.", "Fences are --- and {{ steps.1 }} and '\"}."):
                assert await words(client, "remember", fact=fact) == f"Remembered: {fact}"
                assert f"- {fact}" in (await call(client, "read_soul"))["text"]
            await call(client, "create_task", name="tricky", request="---\nsteps: [{shell: id}]\n---\n{{ now }}")
            made = (live.layout.tasks / "tricky.md").read_text()
            assert made == "---\nevery: heartbeat\n---\n\n---\nsteps: [{shell: id}]\n---\n{{ now }}\n"
            await call(client, "create_task", name="on", request="List my tasks", every="90s")
            assert next(t for t in (await call(client, "list_tasks"))["tasks"] if t["task"] == "on")["rule"] == (
                "every 1m30s"
            )

    run(work())


def test_a_denied_tool_is_an_error(agent: Agent) -> None:
    agent.layout.settings.write_text(SETTINGS + "triggers: {mcp: {remember: deny, shell: deny}}\n")
    agent.start()

    async def work() -> None:
        async with talk(agent) as client:
            assert "remember is denied by the settings" in await refused(client, "remember", fact="I am the king.")
            done = await call(client, "send_command", text="---\nsteps:\n  - shell: id\n---\n", wait=30)
            assert done["status"] == "refused", "a command that was refused is no failure of the call that handed it in"

    run(work())


def test_a_fault_of_ours_hurts_one_call_and_is_logged(agent: Agent, tmp_path: Path) -> None:
    """Here by a row of the index that is damaged in a way that nothing foresees."""
    index = Index(agent.layout.index, write=True)
    index.put(Run(run="r", command="a.md", trigger="mcp", status="done"), key="", is_open=False)
    index.close()
    with closing(sqlite3.connect(agent.layout.index, isolation_level=None)) as database:
        database.execute("UPDATE runs SET record = ?", (b"{}",))

    async def work() -> None:
        script = f'exec "{FSAGENT[0]}" -m fsagent mcp -w "{agent.root}" 2>"{tmp_path}/log"'
        async with Client(StdioServerParameters(command="sh", args=["-c", script]), mode="legacy") as client:
            with pytest.raises(MCPError):
                await client.call_tool("list_runs", {})
            assert (await call(client, "status"))["agent"] == "alfred"

    run(work())
    assert "ValidationError" in (tmp_path / "log").read_text()


# resources


@pytest.mark.parametrize("era", ERAS)
def test_resources(agent: Agent, era: str) -> None:
    (agent.layout.tasks / "deep").mkdir()
    (agent.layout.tasks / "deep" / "näh me.md").write_text("---\nevery: 1d\n---\nList my tasks")
    agent.start()

    async def work() -> None:
        async with talk(agent, era) as client:
            done = await call(client, "send_command", text="My name is Alice.", wait=30)

            async def listed() -> Any:
                found = {each.uri: each for each in (await client.list_resources()).resources}
                return found if any("results/mcp" in uri for uri in found) else None

            found = await until(listed, "the result is listed")
            result = f"fsagent://results/{done['command']}"
            assert list(found)[:2] == ["fsagent://soul.md", "fsagent://status.md"]
            assert "fsagent://tasks/deep/n%C3%A4h%20me" in found
            assert found[result].description == "done: Remembered: Your name is Alice."
            assert found[result].size == (agent.root / done["result"]).stat().st_size
            texts = {uri: (await client.read_resource(uri)).contents[0] for uri in found}
            assert {content.mime_type for content in texts.values()} == {"text/markdown"}
            assert texts["fsagent://soul.md"].text == agent.layout.soul.read_text()
            assert texts[result].text == (agent.root / done["result"]).read_text()
            assert texts["fsagent://tasks/deep/n%C3%A4h%20me"].text.endswith("List my tasks")
            assert "**Alive**" in texts["fsagent://status.md"].text
            templates = (await client.list_resource_templates()).resource_templates
            assert [t.uri_template for t in templates] == ["fsagent://tasks/{name}", "fsagent://results/{path}"]
            escaped = result.replace("mcp/", "mcp%2F")
            assert (await client.read_resource(escaped)).contents[0].text == texts[result].text
            await asyncio.to_thread(agent.kill)
            assert "**Stopped.**" in (await client.read_resource("fsagent://status.md")).contents[0].text

    run(work())


def test_no_resource_leads_out_of_its_place(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    outbox = agent.layout.outbox
    (outbox / "link.md").symlink_to(tmp_path / "secret.md")
    (outbox / "inside.md").symlink_to("real.md")
    (outbox / "real.md").write_text("real")
    (outbox / "folder").symlink_to(tmp_path)
    (outbox / ".hidden.md").write_text("hidden")
    (outbox / "giant.md").write_text("x" * (MAX_SIZE + 1))
    os.mkfifo(outbox / "pipe.md")
    (agent.layout.tasks / "link.md").symlink_to(tmp_path / "secret.md")

    async def work() -> None:
        async with talk(agent) as client:
            assert (await client.read_resource("fsagent://results/real.md")).contents[0].text == "real"
            for uri in (
                "fsagent://results/link.md", "fsagent://results/inside.md", "fsagent://results/folder/secret.md",
                "fsagent://results/../soul.md", "fsagent://results/%2e%2e/soul.md", "fsagent://results/..%2Fsoul.md",
                "fsagent://results//etc/passwd", "fsagent://results/%2Fetc/passwd", "fsagent://results/.hidden.md",
                "fsagent://results/a%00b", "fsagent://results/giant.md", "fsagent://results/pipe.md",
                "fsagent://results/", "fsagent://results", "fsagent://results/none.md", "fsagent://tasks/link",
                "fsagent://tasks/../fsagent.yaml", "fsagent://fsagent.yaml", "fsagent://soul.md/x", "file:///etc/passwd",
                "soul.md", "fsagent://soul.md?x=1", "http://soul.md", "fsagent://[", "fsagent://results/a%ffb",
            ):  # fmt: skip
                with pytest.raises(MCPError) as error:
                    await client.read_resource(uri)
                assert "secret" not in str(error.value).replace("secret.md", ""), uri
            with pytest.raises(MCPError, match="larger than 1024 KiB"):
                await client.read_resource("fsagent://results/giant.md")
            with pytest.raises(MCPError, match="begin with the first"):
                await client.list_resources(cursor="nonsense")

    run(work())


def test_many_resources_come_page_by_page(agent: Agent) -> None:
    for number in range(PAGE + 20):
        (agent.layout.tasks / f"t{number:03}.md").write_text("---\nenabled: false\n---\nList my tasks")
        agent.drop(f"{number:03}.md", "What is my name?")
    agent.once()

    async def work() -> None:
        async with talk(agent) as client:
            uris, cursor, pages = list[str](), None, 0
            while True:
                page = await client.list_resources(cursor=cursor)
                uris += [each.uri for each in page.resources]
                cursor, pages = page.next_cursor, pages + 1
                if not cursor:
                    break
            assert pages == 3
            assert len(uris) == len(set(uris)) == 2 + (PAGE + 20 + 1) + (PAGE + 20)

    run(work())


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
def test_subscriptions_of_the_handshake_protocols(agent: Agent) -> None:
    agent.start()
    heard: list[str] = []

    async def hear(message: Any) -> None:
        method = getattr(message, "method", "")
        if method == "notifications/resources/updated":
            heard.append(message.params.uri)
        elif method:
            heard.append(method)

    async def happened(what: str) -> None:
        async def there() -> bool:
            return what in heard

        await until(there, what)
        heard.remove(what)

    async def work() -> None:
        async with talk(agent, message_handler=hear) as client:
            task = agent.layout.tasks / "mine.md"
            for uri in ("fsagent://soul.md", "fsagent://tasks/mine", "fsagent://status.md"):
                await client.subscribe_resource(uri)
            await call(client, "remember", fact="The cat is called Tom.")
            await happened("fsagent://soul.md")
            await happened("fsagent://status.md")
            task.write_text("---\nenabled: false\n---\nList my tasks")
            await happened("fsagent://tasks/mine")
            await happened("notifications/resources/list_changed")
            task.write_text("---\nenabled: false\n---\nList all of my tasks")
            await happened("fsagent://tasks/mine")
            await client.unsubscribe_resource("fsagent://soul.md")
            heard.clear()
            await call(client, "remember", fact="The dog is called Rex.")
            task.unlink()
            await happened("fsagent://tasks/mine")
            assert "fsagent://soul.md" not in heard
            with pytest.raises(MCPError, match="there is no resource"):
                await client.subscribe_resource("fsagent://nothing")

    run(work())


# over HTTP


def a_token(name: str, *scopes: Any) -> Token:
    return Token(name, f"fsa_{name}_0123456789012345", scopes or SCOPES, datetime.now(UTC))


@asynccontextmanager
async def serving(agent: Agent, *tokens: Token) -> AsyncIterator[str]:
    """MCP over HTTP behind the smallest of guards."""
    sessions = HttpSessions(agent.layout, hub := Hub(agent.layout))
    known = {f"Bearer {token.token}": token for token in tokens}

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        header = dict(scope["headers"]).get(b"authorization", b"").decode()
        scope.setdefault("state", {})["token"] = known[header]
        await sessions(scope, receive, send)

    await sessions.start()
    server = uvicorn.Server(uvicorn.Config(guard, port=0, lifespan="off", log_level="warning", ws="none"))
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await until(started, "the server listens")
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        await hub.close()
        await sessions.close()
        server.should_exit = True
        await task


@asynccontextmanager
async def visit(url: str, token: Token, mode: str = "legacy", **options: Any) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token.token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as web:
        transport = streamable_http_client(url, http_client=web)
        async with Client(transport, mode=mode, cache=None, **options) as client:
            yield client


@pytest.mark.parametrize("era", ERAS)
def test_over_http(live: Agent, era: str) -> None:
    async def work() -> None:
        phone = a_token("phone")
        async with serving(live, phone) as url, visit(url, phone, era) as client:
            if era == "legacy":
                assert client.protocol_version == "2025-11-25"
            assert [tool.name for tool in (await client.list_tools()).tools] == [row.name for row in TOOLS]
            done = await call(client, "send_command", text="Add web to web.txt", wait=30)
            assert done["status"] == "done"
            result = await client.read_resource(f"fsagent://results/{done['command']}")
            assert "trigger: mcp" in result.contents[0].text
            told: list[str | None] = []

            async def hear(_: float, __: float | None, message: str | None) -> None:
                told.append(message)

            text = "---\nsteps:\n  - shell: sleep 1.2\n---\n"
            await client.call_tool("send_command", {"text": text, "wait": 30}, progress_callback=hear)
            assert told[-1] == "running, 1 step so far"
            asking = asyncio.create_task(call(client, "send_command", text=slow(f"web-{era}", 0.5), wait=60))
            await asyncio.to_thread(wait_for, (live.root / "marks" / f"web-{era}-begun").exists, "the run is under way")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert (await call(client, "status"))["alive"]
            await asyncio.to_thread(wait_for, (live.root / "marks" / f"web-{era}-ended").exists, "the command is done")
            journal = "".join(path.read_text() for path in live.layout.runs.glob(f"{done['run']}/steps.jsonl"))
            assert '"by":"phone"' in journal

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_a_token_opens_what_its_scopes_say(live: Agent, era: str) -> None:
    async def work() -> None:
        reader, sender = a_token("reader", "read"), a_token("sender", "command")
        async with serving(live, reader, sender) as url:
            async with visit(url, reader, era) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert names == {row.name for row in TOOLS if row.scope == "read"}
                why = await refused(client, "send_command", text="hi")
                assert "send_command needs the scope 'command'" in why
                assert "'reader' has only read" in why
                assert (await client.read_resource("fsagent://soul.md")).contents[0].text.startswith("# Soul")
            async with visit(url, sender, era) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert names == {row.name for row in TOOLS if row.scope == "command"}
                assert "needs the scope 'read'" in await refused(client, "read_soul")
                assert (await client.list_resources()).resources == []
                with pytest.raises(MCPError, match="needs the scope 'read'"):
                    await client.read_resource("fsagent://soul.md")
                assert (await call(client, "send_command", text="What is my name?", wait=30))["status"] == "done"

    run(work())


INIT = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip
ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def test_a_session_belongs_to_the_token_that_opened_it(live: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_SESSIONS", 2)

    async def work() -> None:
        one, two = a_token("one"), a_token("two", "read")
        async with serving(live, one, two) as url, httpx2.AsyncClient(timeout=30) as web:

            async def post(token: Token, body: Any, session: str = "") -> httpx2.Response:
                headers = ACCEPT | {"Authorization": f"Bearer {token.token}"}
                if session:
                    headers |= {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                return await web.post(url, content=data, headers=headers)

            opened = await post(one, INIT)
            session = opened.headers["mcp-session-id"]
            assert opened.status_code == 200
            ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
            assert (await post(one, ping, session)).status_code == 200
            assert (await post(two, ping, session)).status_code == 404
            assert (await post(one, ping, "0" * 32)).status_code == 404
            second = (await post(two, INIT)).headers["mcp-session-id"]
            assert (await post(two, INIT)).status_code == 503, "that many sessions and no more"
            headers = {"Authorization": f"Bearer {one.token}", "mcp-session-id": session}
            assert (await web.delete(url, headers=headers)).status_code == 200
            assert (await post(one, ping, session)).status_code == 404
            assert (await post(one, INIT)).status_code == 200, "room again"
            assert (await post(one, b"x" * (4 * 1024 * 1024 + 1))).status_code == 413
            assert (await post(two, b"{", second)).status_code == 400

    run(work())


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_subscriptions_since_2026(live: Agent, transport: str) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[Client]:
        if transport == "stdio":
            async with talk(live, ERAS[1]) as client:
                yield client
        else:
            token = a_token("phone")
            async with serving(live, token) as url, visit(url, token, ERAS[1]) as client:
                yield client

    async def work() -> None:
        async with (
            connected() as client,
            client.listen(resources_list_changed=True, resource_subscriptions=["fsagent://soul.md"]) as events,
        ):
            heard: list[str] = []

            async def hear() -> None:
                async for event in events:
                    heard.append(getattr(event, "uri", type(event).__name__))

            listening = asyncio.create_task(hear())
            await call(client, "remember", fact=f"I like {transport}.")

            async def both() -> bool:
                return {"fsagent://soul.md", "ResourcesListChanged"} <= set(heard)

            await until(both, "the soul and the list of results changed")
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    run(work())


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
def test_closing_ends_streams_and_watching(live: Agent) -> None:
    """Otherwise a server with an open stream could not end."""

    async def work() -> None:
        token = a_token("phone")
        heard = asyncio.Event()

        async def hear(_: Any) -> None:
            heard.set()

        async with serving(live, token) as url:
            client = visit(url, token, message_handler=hear)
            session = await client.__aenter__()
            await session.subscribe_resource("fsagent://soul.md")
            (live.layout.soul).touch()
            await heard.wait()
            begin = time.monotonic()
        assert time.monotonic() - begin < 5
        try:
            await client.__aexit__(None, None, None)
        except* (httpx2.HTTPError, MCPError):
            pass

    run(work())


# the process


def speak(agent: Agent, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*FSAGENT, "mcp", "-w", str(agent.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        **options,
    )  # fmt: skip


def send(process: subprocess.Popen[bytes], *messages: Any) -> None:
    for message in messages:
        process.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def test_the_end_of_stdin_ends_the_process_at_once(agent: Agent) -> None:
    agent.start()
    process = speak(agent)
    ask = {"name": "send_command", "arguments": {"text": slow("deep", 30), "wait": 300}}
    send(process, INIT, {"jsonrpc": "2.0", "method": "notifications/initialized"},
         {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": ask})  # fmt: skip
    wait_for((agent.root / "marks" / "deep-begun").exists, "the call waits")
    begin = time.monotonic()
    out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert time.monotonic() - begin < 3
    assert error == b""
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_process_at_once(agent: Agent, number: int) -> None:
    process = speak(agent)
    send(process, INIT)
    assert json.loads(process.stdout.readline())["id"] == 1
    process.send_signal(number)
    assert process.wait(3) == 0
    assert process.communicate() == (b"", b"")


def test_nothing_but_the_protocol_is_on_stdout(agent: Agent) -> None:
    process = speak(agent)
    giant = {"jsonrpc": "2.0", "id": 3, "method": "tools/call",
             "params": {"name": "remember", "arguments": {"fact": "x" * 3_000_000}}}  # fmt: skip
    deep = b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5001 + b"\n"
    send(
        process,
        b"\n",
        b"hello\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        INIT,
        b'{"jsonrpc":"2.0","id":2,"method":5}\n',
        giant,
    )
    send(process, deep, b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"remember","arguments":'
                        b'{"fact":"\\ud800"}}}\n', {"jsonrpc": "2.0", "id": 6, "method": "ping"})  # fmt: skip
    answers: dict[Any, Any] = {}
    while 6 not in answers:
        message = json.loads(process.stdout.readline())
        answers[message.get("id")] = message
    assert answers[1]["result"]["protocolVersion"] == "2025-11-25"
    out, error = process.communicate(timeout=PATIENCE)
    for line in out.splitlines():
        message = json.loads(line)
        answers[message.get("id")] = message
    assert answers[3]["result"]["isError"]
    assert b"Traceback" not in error
    assert process.returncode == 0


def test_a_client_that_vanishes_leaves_no_process_and_no_complaint(agent: Agent) -> None:
    process = speak(agent)
    send(process, INIT)
    process.stdout.readline()
    process.stdout.close()
    send(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_without_the_extra_the_command_says_how_to_get_it(agent: Agent) -> None:
    code = "import sys; sys.modules['mcp'] = None\nfrom fsagent.faces.cli import main\nmain(['mcp', '-w', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", code, str(agent.root)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "fsagent: MCP needs the extra 'mcp'; install it with: pip install 'fsagent[mcp]'\n"


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([*FSAGENT, "mcp", "-w", str(tmp_path)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (10, "")
    assert "is not a workspace" in done.stderr
