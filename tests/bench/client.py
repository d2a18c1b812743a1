"""A caller of the API that costs next to nothing itself: one connection, or one a stream."""

from __future__ import annotations

import http.client
import re
import resource
import socket
import time

from fsagent.workspace.tokens import Tokens
from harness import Agent, wait_for


class Client:
    """Speaks with the API of a daemon that was started; raises unless it is answered with 200."""

    def __init__(self, agent: Agent) -> None:
        found = wait_for(lambda: re.search(r"api started http://([\d.]+):(\d+)", agent.output()), "the API listens")
        self._address = found[1], int(found[2])
        self._token = Tokens(agent.layout).ensure().token
        self._connection = http.client.HTTPConnection(*self._address)

    def command(self, text: str) -> float:
        """Hand a command in and wait for its result; gives the seconds that took."""
        return self._ask("POST", "/v1/commands?wait=30", text)

    def get(self, path: str) -> float:
        """Get; gives the seconds that took."""
        return self._ask("GET", path, None)

    def streams(self, count: int) -> list[Stream]:
        """So many streams of events, all of them open."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
        made = [Stream(self._address, self._token) for _ in range(count)]
        for stream in made:
            stream.until(b"event: ready")
        return made

    def _ask(self, method: str, path: str, body: str | None) -> float:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "text/markdown"}
        begin = time.perf_counter()
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text!r}")
        return time.perf_counter() - begin


class Stream:
    """One stream of events."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._socket = socket.create_connection(address)
        request = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._socket.sendall(request.encode())
        self._seen = b""

    def until(self, what: bytes) -> None:
        """Read until this has come."""
        while what not in self._seen:
            more = self._socket.recv(65536)
            if not more:
                raise RuntimeError(f"the stream ended before {what!r}: {self._seen[-500:]!r}")
            self._seen += more

    def close(self) -> None:
        """Leave."""
        self._socket.close()
