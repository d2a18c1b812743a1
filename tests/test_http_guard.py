"""Who may come in: tokens, scopes, hosts, origins, limits, and requests that nobody honest sends."""

from __future__ import annotations

import base64
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api import API, PROBLEM, SETTINGS, Api, complaints, open_api, read_answer, says
from fsagent.config import ApiSettings
from fsagent.faces.http import guard, server
from fsagent.faces.http.guard import host_name
from fsagent.faces.http.server import ApiServer, bind
from fsagent.faces.http.table import takes_gzip
from fsagent.workspace.tokens import Tokens
from harness import PATIENCE, Agent, wait_for

NAMES = "allowed_hosts: [ha.local, Agent_1], allowed_origins: [https://home.example.org, 'http://[::1]:8080']"
EVIL = "http://evil.example"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    agent = Agent(tmp_path_factory.mktemp("guard") / "ws", SETTINGS + API.replace("}", f", {NAMES}}}")).start()
    with Api(agent) as api:
        yield api
    agent.stop()
    assert not complaints(agent)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", SETTINGS + API)
    yield agent
    agent.close()


def bare(api: Api, path: str = "/healthz", method: str = "GET", **headers: str) -> httpx.Response:
    """A request with these headers alone."""
    return httpx.request(method, api.url + path, headers=headers)


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# tokens


def test_nothing_is_answered_without_a_token(live: Api) -> None:
    basic = base64.b64encode(f"ha:{live.token}".encode()).decode()
    for good in (
        f"Bearer {live.token}",
        f"bearer {live.token}",
        f"BEARER   {live.token}",
        f"Basic {basic}",
        f"basic {basic}",
    ):
        assert bare(live, Authorization=good).status_code == 200, good
    wrong = base64.b64encode(f"{live.token}:x".encode()).decode()
    for bad in (
        "",
        "Bearer",
        "Bearer x",
        f"Bearer {live.token}x",
        f"Bearer {live.token[:-1]}",
        live.token,
        f"Token {live.token}",
        f"Basic {live.token}",
        "Basic %%%",
        "Basic /w==",
        f"Basic {wrong}",
        f"Bearer {live.token} {live.token}",
    ):
        answer = bare(live, Authorization=bad)
        says(answer, 401, "fsagent token")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in (
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/openapi.json",
        "/v1/events",
        "/v1/nothing",
        "/",
        "/mcp",
        "/mcp/",
    ):
        says(bare(live, path), 401)
    says(bare(live, "/v1/commands", "POST"), 401)
    says(bare(live, "/v1/commands", "OPTIONS"), 401)


def test_a_secret_in_a_url_is_refused_with_advice(live: Api) -> None:
    for query in (f"token={live.token}", f"limit=1&access_token={live.token}", "API_KEY=x", "password=x"):
        says(live.client.get(f"/v1/runs?{query}"), 400, "URL", "Bearer")


def test_what_a_token_may_do(live: Api) -> None:
    rights = {
        "read": ["GET /v1/runs", "GET /healthz", "GET /metrics", "GET /v1/soul", "GET /v1/approvals"],
        "command": [
            "POST /v1/commands",
            "POST /v1/runs/x/cancel",
            "POST /v1/runs/x/retry",
            "POST /v1/tasks/x/run",
            "POST /v1/tasks/x/pause",
            "POST /v1/tasks/x/resume",
        ],
        "admin": ["PUT /v1/soul"],
        "approve": ["POST /v1/approvals/x"],
    }
    for mine in rights:
        with Api(live.agent, mine, name=f"only-{mine}") as api:
            for scope, operations in rights.items():
                for operation in operations:
                    answer = api.client.request(*operation.split())
                    if scope != mine:
                        says(answer, 403, f"'only-{mine}'", f"the scope '{scope}'")
                        assert f'scope="{scope}"' in answer.headers["www-authenticate"]
                    else:
                        assert answer.status_code not in (401, 403), operation


def test_new_rotated_and_removed_tokens_count_at_once(agent: Agent) -> None:
    with open_api(agent) as api:
        tokens = Tokens(agent.layout)
        assert api.client.get("/healthz").status_code == 200
        new = tokens.rotate("owner").token
        says(api.client.get("/healthz"), 401)
        assert bare(api, Authorization=f"Bearer {new}").status_code == 200
        phone = tokens.make("phone", ["read"]).token
        assert bare(api, Authorization=f"Bearer {phone}").status_code == 200
        tokens.remove("phone")
        says(bare(api, Authorization=f"Bearer {phone}"), 401)
        for damaged in (b"", b"{", b"\xff", b'{"tokens": "all"}'):
            agent.layout.tokens.write_bytes(damaged)
            says(bare(api, Authorization=f"Bearer {new}"), 503, "damaged")
            says(bare(api, Authorization="Bearer"), 401)
        agent.layout.tokens.unlink()
        says(bare(api, Authorization=f"Bearer {new}"), 401)
        agent.layout.tokens.mkdir()
        says(bare(api, Authorization=f"Bearer {new}"), 503)


def test_the_token_is_written_nowhere(agent: Agent) -> None:
    with open_api(agent) as api:
        api.command("My name is Alice.")
        api.client.get(f"/v1/runs?token={api.token}")
        api.client.get("/v1/nothing")
        says(bare(api, Authorization=f"Bearer {api.token}x"), 401)
        api.raw(api.head("GET /v1/runs HTTP/1.1", f"X-Request-Id: {api.token}", "Connection: close"))
        secret = api.token.encode()
    agent.stop()
    assert secret not in agent.output().encode()
    agent.layout.tokens.unlink()
    assert secret not in everything(agent.root)


# hosts and origins


def test_only_our_own_names_are_answered(live: Api) -> None:
    port = live.address[1]
    for good in (
        "localhost",
        f"localhost:{port}",
        "LOCALHOST.",
        "127.0.0.1",
        f"127.0.0.1:{port}",
        "[::1]",
        "[::1]:80",
        "192.168.1.7:8765",
        "ha.local",
        "HA.Local:1",
        "agent_1",
    ):
        assert live.client.get("/healthz", headers={"Host": good}).status_code == 200, good
    for bad in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "ha.local.evil.example",
        "[::1].evil.example",
        "[::1",
        "x[::1]",
        "::1x",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "",
        "localhost:80:evil",
        "localhost:evil",
        "[evil.example]",
    ):
        answer = live.client.get("/healthz", headers={"Host": bad})
        says(answer, 421, "allowed_hosts")


def test_a_missing_or_doubled_host(live: Api) -> None:
    missing = live.raw(live.head("GET /healthz HTTP/1.1", host=""))
    assert (missing.status, missing.headers["content-type"]) == (400, PROBLEM)
    assert live.raw(live.head("GET /healthz HTTP/1.1", "Host: localhost")).status == 400
    old = live.raw(live.head("GET /healthz HTTP/1.0", host=""))
    assert (old.status, old.headers["content-type"]) == (421, PROBLEM)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a:1", "a"),
        ("a", "a"),
        ("A.", "a"),
        ("[::1]:1", "::1"),
        ("[::1]x", "[::1]x"),
        ("a:b", "a:b"),
        ("", ""),
        (":1", ""),
    ],
)
def test_the_name_in_a_host(host: str, name: str) -> None:
    assert host_name(host) == name


def test_pages_of_others_may_not_call(live: Api) -> None:
    own, body = f"http://127.0.0.1:{live.address[1]}", {"text": "Log x to origin.txt"}
    for good in (own, "https://home.example.org", "HTTPS://Home.Example.org", "http://[::1]:8080"):
        answer = live.client.post("/v1/commands", json=body, headers={"Origin": good})
        assert answer.status_code == 202, (good, answer.text)
        assert answer.headers.get("access-control-allow-origin") == (good if good != own else None)
    for bad in (
        EVIL,
        "null",
        "http://localhost",
        "https://home.example.org.evil.example",
        "https://home.example.org:444",
        "http://home.example.org",
        "file://",
        "x",
        "http://[",
        own + "1",
    ):
        for method in ("GET", "POST", "OPTIONS"):
            answer = live.client.request(method, "/v1/commands", headers={"Origin": bad})
            says(answer, 403, "allowed_origins")
            assert "access-control-allow-origin" not in answer.headers
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 202), ("none", 202)):
        assert live.client.post("/v1/commands", json=body, headers={"Sec-Fetch-Site": site}).status_code == status
    assert live.client.get("/healthz", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_page_that_may_call_asks_first(live: Api) -> None:
    asks = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization, if-match"}
    page = "https://home.example.org"
    answer = bare(live, "/v1/soul", "OPTIONS", Origin=page, **asks)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == page
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert {"Authorization", "If-Match"} <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    says(bare(live, "/v1/soul", "OPTIONS", Origin=EVIL, **asks), 403)
    refused = bare(live, "/v1/soul", Origin=page)
    says(refused, 401)
    assert refused.headers["access-control-allow-origin"] == page, "or the page could not read why"


# requests


def test_every_answer_has_the_id_of_its_request(live: Api) -> None:
    mine = live.client.get("/v1/nothing", headers={"X-Request-Id": "my-id.1_2"})
    assert says(mine, 404, "/v1/openapi.json")["instance"] == "urn:request:my-id.1_2"
    for bad in ("a b", "x" * 65, "<script>", 'a"', "a,b"):
        found = live.client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", found)
    assert live.client.get("/healthz").headers["x-content-type-options"] == "nosniff"
    assert live.client.get("/healthz").headers["date"].endswith("GMT")


def test_methods_that_there_are_not(live: Api) -> None:
    for method, path, allowed in (
        ("POST", "/v1/runs", "GET"),
        ("DELETE", "/v1/soul", "PUT"),
        ("PUT", "/v1/commands", "POST"),
        ("GET", "/v1/commands", "POST"),
        ("TRACE", "/healthz", "GET"),
        ("X-Y", "/healthz", "GET"),
        ("OPTIONS", "/v1/soul", "PUT"),
    ):
        answer = live.client.request(method, path)
        says(answer, 405, method)
        assert allowed in answer.headers["allow"]
    head = live.client.head("/v1/runs")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == int(live.client.get("/v1/runs").headers["content-length"])
    assert live.client.head("/v1/nothing").status_code == 404
    events = live.client.head("/v1/events")
    assert (events.status_code, events.headers["content-type"].split(";")[0]) == (200, "text/event-stream")


def test_paths_that_nobody_honest_asks_for(live: Api) -> None:
    for path in (
        "//v1/runs",
        "/v1//runs",
        "/v1/runs/",
        "/V1/runs",
        "/v1/runs/..%2f..%2fsoul",
        "/v1/../v1/runs",
        "/%00",
        "/v1/runs/%00",
        "/v1/runs/%ff%fe",
        "http://evil.example/v1/runs",
        "*",
        "/v1/commands/..%2f..",
        "/v1/runs/%2e%2e",
        "/" + "a" * 8000,
        "/v1/tasks/%2e%2e/run",
        "/v1;x/runs",
        "/v1/runs%3flimit=1",
    ):
        answer = live.raw(live.head(f"GET {path} HTTP/1.1", "Connection: close"))
        assert answer.status in (404, 405), path
        assert answer.headers["content-type"] == PROBLEM
    for target in (b"/\xe4", b"/v1/runs?q=\xff", b"/ x", b"/\x00", b""):
        head = live.head("GET /@ HTTP/1.1").replace(b"/@", target)
        answer = live.raw(head)
        assert (answer.status, answer.headers["content-type"]) == (400, PROBLEM), target


def test_requests_whose_end_is_in_doubt_are_refused(live: Api) -> None:
    post, kind = "POST /v1/commands HTTP/1.1", "Content-Type: text/markdown"
    chunked = "Transfer-Encoding: chunked"
    for headers in (
        ("Content-Length: 1", "Content-Length: 2"),
        (chunked, "Content-Length: 5"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Content-Length: -1",),
        ("Content-Length: 1x",),
        ("Content-Length: 1, 2",),
        (chunked, "Transfer-Encoding: x"),
        ("Content-Length : 1",),
        ("Transfer-Encoding\x0b: chunked",),
    ):
        answer = live.raw(live.head(post, kind, *headers) + b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n")
        assert answer.status == 400, headers
        assert answer.headers["content-type"] == PROBLEM
        assert b"HTTP/1.1" not in answer.body, "nothing behind it is answered"
    assert live.raw(live.head("POST /v1/commands HTTP/1.0", kind, chunked) + b"1\r\nx\r\n0\r\n\r\n").status == 400


def test_noise_is_answered_once_and_never_complained_of(live: Api) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00\x01" + b"x" * 100,
        b"\r\n\r\n\r\nHELLO\r\n\r\n",
        b"GET\r\n\r\n",
        b"x" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        answer = live.raw(noise)
        assert (answer.status, answer.headers["content-type"]) == (421 if noise[:3] == b"PRI" else 400, PROBLEM), noise
    huge = live.raw(live.head("GET /healthz HTTP/1.1", "X-Big: " + "x" * 200_000))
    assert huge.status in (0, 400), "the rest of the head may meet a connection that is closed already"
    post = "POST /v1/commands HTTP/1.1"
    # refused before the body came, which then turns out to be no body
    head = b"POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(live.address, PATIENCE) as connection:
        connection.sendall(head)
        assert read_answer(connection, close=False).status == 401
        connection.sendall(b"this is no chunk\r\n")
        assert connection.recv(100) == b""
    # the same with a handler that waits for the body
    with socket.create_connection(live.address, PATIENCE) as connection:
        connection.sendall(live.head(post, "Content-Type: text/plain", "Transfer-Encoding: chunked"))
        connection.sendall(b"5\r\nhello\r\nthis is no chunk\r\n")
        assert read_answer(connection).status == 400
    with socket.create_connection(live.address, PATIENCE) as connection:  # who leaves in the middle
        connection.sendall(live.head(post, "Content-Type: text/plain", "Content-Length: 99") + b"x")
    upgrade = live.head(
        "GET /healthz HTTP/1.1", "Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Key: eA=="
    )
    assert live.raw(upgrade, close=False).status == 200
    assert live.client.get("/healthz").status_code == 200
    assert not complaints(live.agent)


# limits


def test_a_body_over_the_limit(live: Api) -> None:
    kinds = ["Content-Type: text/markdown", "If-None-Match: *"]
    said = live.raw(live.head("PUT /v1/soul HTTP/1.1", *kinds, "Content-Length: 99999999"), close=False)
    assert (said.status, said.headers["content-type"]) == (413, PROBLEM)
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = live.head("PUT /v1/soul HTTP/1.1", *kinds, "Transfer-Encoding: chunked")
    with socket.create_connection(live.address, PATIENCE) as connection:
        connection.sendall(head + 20 * block + b"0\r\n\r\n")
        assert read_answer(connection, close=False).status == 413
        connection.sendall(live.head("GET /healthz HTTP/1.1"))
        assert read_answer(connection, close=False).status == 200, "what came too much was read and forgotten"

    def too_much() -> Iterator[bytes]:
        for _ in range(70):
            yield bytes(1024 * 1024)

    says(live.client.post("/v1/commands", content=too_much(), headers={"Content-Type": "application/json"}), 413)
    big = live.client.post("/v1/commands", files={"text": (None, "x"), "f": ("a", bytes(65 * 1024 * 1024))})
    says(big, 413, "67,108,864 bytes")
    wait_for(lambda: not list(live.agent.layout.tmp.glob("upload*")), "nothing is left")


def test_too_many_requests_have_to_wait(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS + 'api: {listen: "127.0.0.1:0", rate: 2}\n')
    try:
        with open_api(agent) as api, Api(agent, "read") as other:
            answers = [api.client.get("/healthz") for _ in range(30)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert len(refused) >= 10
            says(refused[0], 429, "2 requests a second")
            assert int(refused[0].headers["retry-after"]) >= 1
            assert other.client.get("/healthz").status_code == 200, "each token has its own measure"
            wrong = [bare(api, Authorization="Bearer wrong").status_code for _ in range(40)]
            assert wrong[:20] == [401] * 20
            assert 429 in wrong
            wait_for(lambda: api.client.get("/healthz").status_code == 200, "it may come again")
    finally:
        agent.close()


def test_buckets_fill_up_again() -> None:
    buckets = guard.Buckets(10, 2)
    assert [buckets.wait("a") for _ in range(2)] == [0, 0]
    assert 0 < buckets.wait("a") <= 0.1
    assert buckets.wait("b") == 0
    for number in range(20_000):
        buckets.wait(str(number))
    assert len(buckets._left) <= 10_002


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.1", True),
        ("xgzip", False),
        ("identity", False),
        ("deflate, gzip ;q=1.0, *;q=0.5", True),
    ],
)
def test_who_takes_gzip(header: str, takes: bool) -> None:
    assert takes_gzip(header) is takes


# patience, with a server in this process


@contextmanager
def hasty(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server that waits a fifth of a second for what others give half a minute."""
    monkeypatch.setattr(server, "HEAD_PATIENCE", 0.2)
    monkeypatch.setattr(guard, "BODY_PATIENCE", 0.2)
    with bind(ApiSettings(listen="127.0.0.1:0")) as listener:
        serving = ApiServer(agent.layout, ApiSettings(rate=10_000), listener, lambda _: None)
        thread = threading.Thread(target=serving.serve)
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            serving.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def trickle(connection: socket.socket, data: bytes) -> int:
    """Send one byte after the other until the server has closed; gives how many it took."""
    for number, byte in enumerate(data):
        try:
            connection.sendall(bytes([byte]))
            connection.settimeout(0.02)
            if connection.recv(1) == b"":
                return number
        except TimeoutError:
            continue
        except OSError:
            return number
    return len(data)


def test_who_is_slow_is_not_waited_for(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    token = Tokens(agent.layout).ensure().token
    head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
    with hasty(agent, monkeypatch) as address:
        with socket.create_connection(address, PATIENCE) as silent:
            assert silent.recv(1) == b"", "nothing at all"
        with socket.create_connection(address, PATIENCE) as slow:
            assert trickle(slow, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 2000) < 2000, "a head that never ends"
        with socket.create_connection(address, PATIENCE) as idle:
            idle.sendall(f"GET /healthz HTTP/1.1\r\n{head}\r\n".encode())
            assert read_answer(idle, close=False).status == 200
            assert trickle(idle, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 2000) < 2000, "a second one that never ends"
        with socket.create_connection(address, PATIENCE) as slow:
            slow.sendall(
                f"POST /v1/commands HTTP/1.1\r\n{head}Content-Type: text/plain\r\nContent-Length: 9\r\n\r\nx".encode()
            )
            answer = read_answer(slow, close=False)
            assert (answer.status, answer.headers["content-type"]) == (408, PROBLEM)
            assert slow.recv(1) == b"", "and it is closed after a while"
        with socket.create_connection(address, PATIENCE) as stranger:
            stranger.sendall(b"POST /v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n")
            assert read_answer(stranger, close=False).status == 401
            assert trickle(stranger, b"x" * 3000) < 3000, "who is refused cannot stay"
    assert not list(agent.layout.drop.iterdir())


def test_many_at_once(live: Api) -> None:
    def ask(number: int) -> int:
        return live.raw(live.head(f"GET /v1/runs?limit={number + 1} HTTP/1.1", "Connection: close")).status

    with ThreadPoolExecutor(32) as threads:
        assert set(threads.map(ask, range(300))) == {200}
