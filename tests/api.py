"""The HTTP face of a real daemon, for tests: where it listens, with which token, and what it answers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from fsagent.workspace.tokens import Tokens
from harness import PATIENCE, Agent, wait_for

SETTINGS = "settle: 50ms\nsettle_renamed: 50ms\nscan_interval: 1s\nshutdown_wait: 0s\ntools: {shell: allow}\n"
API = 'api: {listen: "127.0.0.1:0", rate: 10000}\n'
PROBLEM = "application/problem+json"


class Api:
    """A caller with a token: the owner's, or a new one for these scopes."""

    def __init__(self, agent: Agent, *scopes: str, name: str = "") -> None:
        self.agent = agent
        tokens = Tokens(agent.layout)
        self.token = tokens.make(name or "-".join(scopes), scopes).token if scopes else tokens.ensure().token
        self.url = url_of(agent)
        self.address = address_of(self.url)
        self.client = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=40)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def command(self, text: str, wait: float = 20, **fields: Any) -> dict[str, Any]:
        """Hand a command in; gives what is answered."""
        answer = self.client.post("/v1/commands", params={"wait": wait} if wait else {}, json={"text": text, **fields})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def get(self, path: str, **options: Any) -> Any:
        """What a path holds, which must be there."""
        answer = self.client.get(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ends(self, run: str) -> dict[str, Any]:
        """A run, once everything is done about it."""
        return wait_for(lambda: (found := self.get(f"/v1/runs/{run}"))["run"]["settled"] and found, f"{run} is settled")

    def raw(self, data: bytes, *, close: bool = True) -> Answer:
        """Send these very bytes, and read the answer until the server closes the connection (or to the head's end)."""
        with socket.create_connection(self.address, PATIENCE) as connection:
            connection.sendall(data)
            return read_answer(connection, close=close)

    def head(self, line: str, *headers: str, host: str = "localhost") -> bytes:
        """A request's head, with the token."""
        lines = [line, *([f"Host: {host}"] if host else []), f"Authorization: Bearer {self.token}", *headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")


class Answer:
    """An answer as it came over the wire."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.headers = {name.casefold(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def json(self) -> Any:
        return json.loads(self.body)


def read_answer(connection: socket.socket, *, close: bool = True) -> Answer:
    """What comes until the end of the connection, or as much as the head says."""
    data = b""
    while part := _receive(connection):
        data += part
        if close or b"\r\n\r\n" not in data:
            continue
        answer = Answer(data)
        if len(answer.body) >= int(answer.headers.get("content-length", 0)):
            return answer
    return Answer(data)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


class Stream:
    """Server-sent events on a socket of our own. ``position`` is the id of the last one that was read."""

    def __init__(self, api: Api, after: str = "") -> None:
        self.position, self._data = "", b""
        self.socket = socket.create_connection(api.address, PATIENCE)
        self.socket.sendall(api.head("GET /v1/events HTTP/1.1", *([f"Last-Event-ID: {after}"] if after else [])))
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        self.status, self.head = int(head.split()[1]), head.decode().casefold()
        if self.status == 200:
            kind, _, self.ready = self.next()
            assert kind == "ready"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def next(self) -> tuple[str, dict[str, Any], str]:
        """The next event: its kind, the record, and its id. Raises ``EOFError`` at the end of the stream."""
        while True:
            block = self._block()
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if fields:
                self.position = fields["id"]
                return fields["event"], json.loads(fields["data"]), fields["id"]

    def until(self, event: str, **wanted: Any) -> list[dict[str, Any]]:
        """Every record up to the first such one."""
        seen = []
        while not seen or seen[-1]["event"] != event or any(seen[-1].get(key) != val for key, val in wanted.items()):
            seen.append(self.next()[1])
        return seen

    def rest(self) -> list[dict[str, Any]]:
        """Every record until the server ends the stream."""
        seen = []
        with suppress(EOFError):
            while True:
                seen.append(self.next()[1])
        return seen

    def _block(self) -> str:
        while (found := re.search(rb"\r\n\r\n|\n\n", text := _unchunked(self._data)[0])) is None:
            self._more()
        block = text[: found.start()]
        self._data = _rechunked(text[found.end() :], _unchunked(self._data)[1])
        return block.decode()

    def _more(self) -> None:
        part = _receive(self.socket)
        if not part or part.endswith(b"0\r\n\r\n"):
            raise EOFError
        self._data += part


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    """The content of whole chunks, and what is left behind them."""
    text = b""
    while match := re.match(rb"([0-9a-f]+)\r\n", data):
        size, start = int(match[1], 16), match.end()
        if len(data) < start + size + 2:
            break
        text, data = text + data[start : start + size], data[start + size + 2 :]
    return text, data


def _rechunked(text: bytes, rest: bytes) -> bytes:
    return (b"%x\r\n%b\r\n" % (len(text), text) if text else b"") + rest


def url_of(agent: Agent, times: int = 1) -> str:
    """Where the API listens, once it has said so that often."""
    said = lambda: re.findall(r"api started\s+(http://\S+)", agent.output())  # noqa: E731
    return wait_for(lambda: len(found := said()) >= times and found[-1], "the API listens")


def address_of(url: str) -> tuple[str, int]:
    found = re.fullmatch(r"http://\[?([^]]+?)\]?:(\d+)", url)
    assert found
    return found[1], int(found[2])


@contextmanager
def open_api(agent: Agent) -> Iterator[Api]:
    """A daemon that is started if need be, and its API; nothing may be complained of on its screen."""
    if agent.process is None:
        agent.start()
    with Api(agent) as api:
        yield api


def complaints(agent: Agent) -> list[str]:
    """What stands on the daemon's screen that is not one of its own lines."""
    output = agent.output() if agent.log.exists() else ""
    return [line for line in output.splitlines() if line and not re.match(r"\d\d:\d\d:\d\d \S", line)]


def says(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """The problem that was answered: with this status, and these words in its sentence."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == f"urn:request:{answer.headers['x-request-id']}"
    for word in words:
        assert word in problem["detail"], problem["detail"]
    return problem
