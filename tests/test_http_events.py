"""What happens, as a stream: each record once and in order, across restarts, for many and for those who are deaf."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from api import API, SETTINGS, Api, Stream, complaints, open_api, says
from fsagent.faces.http import events
from fsagent.workspace.tokens import Tokens
from harness import PATIENCE, Agent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", SETTINGS + API)
    yield agent
    agent.close()
    assert not complaints(agent)


def records(agent: Agent) -> list[dict[str, Any]]:
    lines = [line for path in sorted(agent.layout.journal.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_every_record_comes_once_in_order_with_an_id(agent: Agent) -> None:
    with open_api(agent) as api, Stream(api) as stream:
        assert "content-type: text/event-stream" in stream.head
        assert "cache-control: no-store" in stream.head
        before = len(records(agent))
        runs = [api.command(f"Log {number} to log.txt", wait=0)["run"] for number in range(20)]
        for run in runs:
            api.ends(run)
        seen: list[dict[str, Any]] = []
        ids = [stream.ready]
        while len([each for each in seen if each["event"] == "finished"]) < 20:
            kind, record, position = stream.next()
            assert kind == record["event"]
            seen.append(record)
            ids.append(position)
        assert seen == records(agent)[before:][: len(seen)]
        assert len(set(ids)) == len(ids)
        with Stream(api, after=ids[7]) as again:
            assert [again.next()[1] for _ in seen[7:]] == seen[7:]
        with Stream(api, after="0000-00:0") as all_of_it:
            assert all_of_it.next()[1]["event"] == "daemon started"


def test_who_comes_back_misses_nothing(agent: Agent) -> None:
    """A caller who saw no event at all, after a restart, a kill, and work that was done while nobody listened."""
    with open_api(agent) as api, Stream(api) as stream:
        after = stream.ready
    before = len(records(agent))
    assert agent.stop() == 0
    agent.drop("1.md", "Log 1 to log.txt")
    agent.once()
    with open_api(agent) as api, Stream(api, after=after) as stream:
        seen = stream.until("finished")
        agent.kill()
        seen += stream.rest()
        after = stream.position
    agent.start()
    with open_api(agent) as api:
        run = api.command("Log 2 to log.txt")["run"]
        with Stream(api, after=after) as stream:
            seen += stream.until("finished", run=run)
    assert seen == records(agent)[before:][: len(seen)]


def test_what_is_no_id_is_refused(agent: Agent) -> None:
    with open_api(agent) as api:
        for bad in (
            "x",
            "1",
            "2026-11",
            "2026-11:",
            "2026-11:-1",
            "2026-11:1 2",
            "../../etc/passwd:1",
            "2026-11:" + "9" * 19,
        ):
            says(api.client.get("/v1/events", headers={"Last-Event-ID": bad}), 400, "Last-Event-ID")
            says(api.client.get("/v1/events", params={"after": bad}), 400)
        says(api.client.get("/v1/events", params={"after": "x" * 41}), 422)
        says(api.client.get("/v1/events", params={"since": "x"}), 422)


def test_who_may_no_longer_listen_hears_no_more(agent: Agent) -> None:
    with open_api(agent) as api, Api(agent, "read") as other, Stream(api) as mine, Stream(other) as stream:
        run = api.command("Log 1 to log.txt")["run"]
        stream.until("finished", run=run)
        Tokens(agent.layout).rotate("read")
        run = api.command("Log 2 to log.txt")["run"]
        mine.until("finished", run=run)
        assert run not in [record.get("run") for record in stream.rest()]


def test_nothing_is_sent_when_nothing_happens_but_a_sign_of_life(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_http_guard import hasty

    monkeypatch.setattr(events, "PING", 0.05)
    token = Tokens(agent.layout).ensure().token
    with hasty(agent, monkeypatch) as address, socket.create_connection(address, PATIENCE) as connection:
        head = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(head.encode())
        data = b""
        while data.count(b": still here\n\n") < 10:  # for longer than a head may take
            data += connection.recv(65536)
        assert data.count(b"event:") == 1


def test_who_never_reads_holds_up_nobody(agent: Agent) -> None:
    """Far more is to be told than all buffers on the way can hold."""
    line = b'{"time":"2020-01-01T00:00:00Z","event":"old","what":"' + b"x" * 20_000 + b'"}\n'
    (agent.layout.journal / "2020-01.jsonl").write_bytes(line * 2_000)
    with open_api(agent) as api, ExitStack() as stack:
        for _ in range(5):
            deaf = stack.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(api.address)
            deaf.sendall(api.head("GET /v1/events HTTP/1.1", "Last-Event-ID: 0000-00:0"))
        with Stream(api) as stream:
            for number in range(20):
                run = api.command(f"Log {number} to log.txt")["run"]
                stream.until("finished", run=run)
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 20, "nobody waits for who does not read"
    assert "daemon stopped" in agent.output()


def test_the_server_ends_promptly_with_open_streams(agent: Agent) -> None:
    with open_api(agent) as api, ExitStack() as stack:
        streams = [stack.enter_context(Stream(api)) for _ in range(20)]
        assert agent.stop() == 0
        for stream in streams:
            assert "daemon stopped" not in [record["event"] for record in stream.rest()][:-1]
    assert "daemon stopped" in agent.output()


def many(agent: Agent, count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 500)), hard))
    with open_api(agent) as api, ExitStack() as stack:
        streams = [stack.enter_context(Stream(api)) for _ in range(count)]
        run = api.command("Log 1 to log.txt")["run"]
        heard = [stream.until("finished", run=run) for stream in streams]
        assert all(each == heard[0] for each in heard)
        assert agent.stop() == 0


def test_fifty_hear_the_same(agent: Agent) -> None:
    many(agent, 50)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_thousand_hear_the_same(agent: Agent) -> None:
    many(agent, 1000)
