"""The server beside the daemon, and alone: ports, settings, signals, a missing extra, faults of our own, its rest."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api import API, SETTINGS, Api, Stream, address_of, complaints, open_api, url_of
from fsagent.faces.beside import Beside
from fsagent.workspace.layout import Layout
from harness import FSAGENT, PATIENCE, Agent, wait_for

FAULTY = """
import sys
from fsagent.faces import tasks
from fsagent.faces.cli import main

def broken(layout, *rest):
    raise ZeroDivisionError("a fault of ours")

tasks.read_tasks = broken
main(sys.argv[1:])
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", SETTINGS + API)
    yield agent
    agent.close()


def taken() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def settings(agent: Agent, api: str) -> None:
    """Settings as an editor saves them."""
    temporary = agent.root / ".fsagent.yaml.tmp"
    temporary.write_text(SETTINGS + api)
    temporary.rename(agent.layout.settings)


def answers(agent: Agent, url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 401
    except httpx.TransportError:
        return False


def needs(agent: Agent) -> str:
    status = agent.layout.status
    return status.read_text().partition("## Needs you")[2] if status.exists() else ""


# beside the daemon


def test_a_port_that_is_taken_is_told_and_tried_again(agent: Agent) -> None:
    listener, port = taken()
    with listener:
        settings(agent, f'api: {{listen: "127.0.0.1:{port}"}}\n')
        agent.start()
        wait_for(
            lambda: f"cannot listen on 127.0.0.1:{port}: Address already in use" in needs(agent), "status.md says so"
        )
        agent.drop("1.md", "Log 1 to log.txt")
        assert agent.result("1.md")["status"] == "done"
    wait_for(lambda: answers(agent, f"http://127.0.0.1:{port}"), "it listens")
    wait_for(lambda: "cannot listen" not in needs(agent), "status.md is content again")
    assert agent.output().count("cannot listen") == 1, "told once, however often it is tried"
    assert agent.stop() == 0
    assert not complaints(agent)


def test_settings_count_without_a_restart(agent: Agent) -> None:
    settings(agent, "")
    agent.start()
    assert "api started" not in agent.output()
    settings(agent, API)
    first = url_of(agent)
    with Api(agent) as api, Stream(api) as stream:
        settings(agent, API.replace("127.0.0.1", "localhost"))
        second = url_of(agent, 2)
        assert answers(agent, second)
        wait_for(lambda: not answers(agent, first), "the first one is closed")
        stream.rest()
    settings(agent, 'api: {listen: "everywhere"}\n')
    wait_for(lambda: "api.listen" in needs(agent), "a fault is told")
    assert answers(agent, second), "what was there before stays in force"
    settings(agent, "")
    wait_for(lambda: not answers(agent, second), "it ends")
    agent.drop("1.md", "Log 1 to log.txt")
    assert agent.result("1.md")["status"] == "done"
    settings(agent, API)
    assert answers(agent, url_of(agent, 3))
    assert agent.stop() == 0
    assert not complaints(agent)


def test_trouble_ends_with_the_wish_to_serve(agent: Agent) -> None:
    listener, port = taken()
    with listener:
        settings(agent, f'api: {{listen: "127.0.0.1:{port}"}}\n')
        agent.start()
        wait_for(lambda: "cannot listen" in needs(agent), "status.md says so")
        settings(agent, "")
        wait_for(lambda: "cannot listen" not in needs(agent), "nobody wants it any more")
    assert agent.stop() == 0


def test_an_address_of_version_six(agent: Agent) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    settings(agent, 'api: {listen: "[::1]:0"}\n')
    agent.start()
    url = url_of(agent)
    assert url.startswith("http://[::1]:")
    assert answers(agent, url)


def without_uvicorn(tmp_path: Path) -> dict[str, str]:
    """An installation without the extra: a module that is not there cannot be imported."""
    package = tmp_path / "missing" / "uvicorn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise ModuleNotFoundError("No module named \'uvicorn\'", name="uvicorn")\n')
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def test_without_the_extra_it_says_how_to_install_it(agent: Agent, tmp_path: Path) -> None:
    environment = without_uvicorn(tmp_path)
    words = "HTTP needs the extra 'api'; install it with: pip install 'fsagent[api]'"
    for command in (["api", "-w", str(agent.root)], ["run", str(agent.root), "--api"]):
        done = subprocess.run([*FSAGENT, *command], env=environment, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"fsagent: {words}\n")
    agent.start(env=environment)
    wait_for(lambda: words in needs(agent), "status.md says so")
    agent.drop("1.md", "Log 1 to log.txt")
    assert agent.result("1.md")["status"] == "done"
    assert agent.stop() == 0
    assert not complaints(agent)


def test_what_is_under_way_when_the_daemon_ends_gets_its_answer(agent: Agent) -> None:
    with open_api(agent) as api:
        found: list[httpx.Response] = []

        def ask() -> None:
            text = "---\nsteps: [{shell: sleep 60}]\n---\n"
            found.append(api.client.post("/v1/commands", params={"wait": 60}, json={"text": text}))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: list(agent.layout.runs.glob("*/steps.jsonl")), "it is claimed")
        assert agent.stop() == 0
        thread.join(PATIENCE)
    assert found[0].status_code in (200, 202)
    assert found[0].json()["status"] in ("running", "waiting", "interrupted")
    assert not complaints(agent)


def test_a_fault_of_our_own_is_told_and_the_server_lives(agent: Agent) -> None:
    with agent.log.open("w") as log:
        agent.process = subprocess.Popen(
            [sys.executable, "-c", FAULTY, "run", str(agent.root)], stdout=log, stderr=subprocess.STDOUT
        )
    with Api(agent) as api:
        answer = api.client.get("/v1/tasks", headers={"X-Request-Id": "what-failed"})
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["instance"] == "urn:request:what-failed"
        assert "ZeroDivisionError" in answer.json()["detail"]
        assert "a fault of ours" not in answer.text, "the words of a fault are for the log"
        assert api.client.get("/healthz").status_code == 200
    assert agent.stop() == 0
    assert "ZeroDivisionError: a fault of ours" in agent.output()
    assert re.search(r"500 GET '/v1/tasks' \(owner\) \d+ ms, request what-failed", agent.output())


def test_an_idle_server_sleeps(agent: Agent) -> None:
    """At most one and a half wake-ups a second, all threads of daemon and server together."""
    settings(agent, API)
    agent.layout.settings.write_text("scan_interval: 30s\n" + API)
    with open_api(agent) as api:
        api.ends(api.command("Log 1 to log.txt")["run"])
        with Stream(api):
            pass
        pid = agent.process.pid

        def switches() -> int:
            found = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
            return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", each, re.MULTILINE)[1]) for each in found)

        def quiet() -> bool:
            before = switches()
            time.sleep(4)  # the measurement itself: how often it wakes while nothing happens
            return switches() - before <= 6

        wait_for(quiet, "it sleeps")
        assert api.client.get("/healthz").status_code == 200


# alone


def alone(agent: Agent) -> subprocess.Popen[bytes]:
    with agent.log.open("w") as log:
        process = subprocess.Popen([*FSAGENT, "api", "-w", str(agent.root)], stdout=log, stderr=subprocess.STDOUT)
    url_of(agent)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_alone_it_queues_and_ends_promptly(agent: Agent, number: int, code: int) -> None:
    process = alone(agent)
    try:
        with Api(agent) as api, Stream(api) as stream:
            found = api.command("Log 1 to log.txt", wait=0)
            assert found["status"] == "waiting"
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(PATIENCE) == code
            assert time.monotonic() - began < 10
            with pytest.raises(EOFError):
                stream.next()
    finally:
        process.kill()
        process.wait()
    assert not complaints(agent)
    agent.once()
    assert (agent.root / "log.txt").read_text() == "1\n"


def test_alone_it_reads_its_settings_again_and_outlives_bad_ones(agent: Agent) -> None:
    process = alone(agent)
    try:
        agent.layout.settings.write_text("api: {listen: everywhere}\n")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "settings refused" in agent.output(), "it says so")
        assert answers(agent, url_of(agent))
        agent.layout.settings.write_text(API.replace("127.0.0.1", "localhost"))
        process.send_signal(signal.SIGHUP)
        assert answers(agent, url_of(agent, 2))
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert not complaints(agent)


def test_two_servers_on_one_workspace(agent: Agent) -> None:
    """One beside the daemon and one alone, with the same tokens."""
    agent.start()
    beside = url_of(agent)
    second = subprocess.Popen(
        [*FSAGENT, "api", "-w", str(agent.root)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        url = re.search(rb"http://\S+", second.stdout.readline())[0].decode()
        assert address_of(url) != address_of(beside)
        with Api(agent) as api:
            body = {"text": "Log 1 to log.txt"}
            answer = httpx.post(
                f"{url}/v1/commands?wait=20", json=body, headers={"Authorization": f"Bearer {api.token}"}
            )
            assert answer.json()["status"] == "done"
    finally:
        second.terminate()
        assert second.wait(PATIENCE) == 0
        second.stdout.close()


def test_nothing_is_done_where_nothing_is_wanted(tmp_path: Path) -> None:
    beside = Beside(Layout(tmp_path), lambda _: None)
    beside.stop()
    assert beside.trouble() == ""
