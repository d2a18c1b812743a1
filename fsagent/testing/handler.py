"""Real HTTP/1.1: one thread per connection, which reads requests and puts the script's replies on the wire."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from fsagent.testing.desk import Desk
from fsagent.testing.received import Received
from fsagent.testing.replies import Answer, Refusal, Reply
from fsagent.testing.wire import Wire, broken, data

SSE = "text/event-stream; charset=utf-8"


class Http(ThreadingHTTPServer):
    """Knows its open connections, so that ``break_connections()`` can end the threads that wait in them."""

    daemon_threads = False  # server_close() joins them
    request_queue_size = 128

    def __init__(self, desk: Desk, wire: Wire, *, keep_alive: bool, port: int = 0) -> None:
        self.desk, self.wire, self.keep_alive = desk, wire, keep_alive
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of a host name, which may take seconds where there is no network."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no fault; anything else is, and the test is told."""
        fault = sys.exception()
        if fault is not None and not isinstance(fault, ConnectionError):
            self.desk.failed(fault)

    def break_connections(self) -> None:
        """Wake every thread that reads or writes."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: Http
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fsagent.testing", ""
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the parent's word
        """A test's output is the test's."""

    def do_GET(self) -> None:
        received = self._received(b"", for_model=False)
        refusal = self.server.wire.objection(received)
        found = self.server.wire.lookup(received.path)
        if refusal is None and found is not None:
            self._whole(200, found)
        else:
            self._refuse(refusal or Refusal(status=404, message=f"Invalid URL (GET {received.path})"), received)

    def do_POST(self) -> None:
        size = self.headers.get("content-length", "")
        if not size.isdecimal():
            self.close_connection = True
            return self.send_error(411)
        raw = self.rfile.read(int(size))
        if len(raw) < int(size):
            self.close_connection = True  # the client left in the middle of its request
            return None
        for_model = urlsplit(self.path).path == self.server.wire.model_path
        received = self._received(raw, for_model=for_model)
        if not for_model:
            self._refuse(Refusal(status=404, message=f"Invalid URL (POST {received.path})"), received)
            return None
        try:
            self._reply(self._decide(received), received)
        except ConnectionError:
            self.close_connection = True  # the client left
        finally:
            self.server.desk.done()
        return None

    def _received(self, raw: bytes, *, for_model: bool) -> Received:
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        address = urlsplit(self.path)
        make = partial(
            Received,
            method=self.command,
            path=address.path,
            query=address.query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body if isinstance(body, dict) else {},
            size=len(raw),
        )
        return self.server.desk.arrived(make, for_model=for_model)

    def _decide(self, received: Received) -> Reply:
        refusal = self.server.wire.objection(received)
        if refusal:
            return refusal
        with self._answering_faults(received):
            return self.server.desk.next_reply(received)

    @contextmanager
    def _answering_faults(self, received: Received) -> Iterator[None]:
        """What the script raises is kept for the test, and the client hears of it."""
        fine = False
        try:
            yield
            fine = True
        finally:
            fault = sys.exception()
            if not fine and fault is not None:
                self.server.desk.failed(fault)
                self.close_connection = True
                self._refuse(broken(f"the script raised {fault!r}"), received)

    def _reply(self, reply: Reply, received: Received) -> None:
        if reply.held and not self._released():
            return
        if isinstance(reply, Answer):
            if reply.ending == "hang" and not reply.say:
                self._hang()
            elif received.stream:
                self._streamed(reply, received)
            else:
                self._at_once(reply, received)
        else:
            assert isinstance(reply, Refusal)
            if reply.after and received.stream:
                self._begin(200, {"Content-Type": SSE, "Transfer-Encoding": "chunked"})
                self._parts(self.server.wire.opening(Answer(say=reply.after), received))
                self._chunk(self.server.wire.error_event(reply, received))
                self._chunk(b"")
            else:
                self._refuse(reply, received)

    # outside of a stream

    def _at_once(self, answer: Answer, received: Received) -> None:
        for _ in answer.pieces[1:]:
            if not self._released():
                return
        body = data(self.server.wire.whole(answer, received))
        if answer.ending == "whole":
            self._send(200, body)
            return
        part = body[: len(body) // 2]
        self._begin(200, {"Content-Length": str(len(part if answer.ending == "quiet" else body))})
        self.wfile.write(part)
        self._stop(answer)

    def _refuse(self, refusal: Refusal, received: Received) -> None:
        self._whole(refusal.status, self.server.wire.error_body(refusal, received), refusal.headers)

    def _whole(self, status: int, value: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, data(value), headers or {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    # a stream

    def _streamed(self, answer: Answer, received: Received) -> None:
        wire = self.server.wire
        self._begin(200, {"Content-Type": SSE, "Transfer-Encoding": "chunked"})
        if answer.ending == "hang":
            self._parts(wire.opening(answer, received))
        elif answer.ending == "whole":
            if self._parts(wire.stream(answer, received)):
                self._chunk(b"")
            return
        else:
            events = [part for part in wire.stream(answer, received) if part]
            if answer.ending == "quiet":  # between two events, where nothing looks broken
                self._chunk(b"".join(events[: len(events) // 2]))
                self._chunk(b"")
            else:
                all_of_it = b"".join(events)
                self._chunk(all_of_it[: len(all_of_it) // 2])
        self._stop(answer)

    def _parts(self, parts: Iterator[bytes | None]) -> bool:
        """Write them, each after its release if it has one; False if there was none."""
        for part in parts:
            if part is not None:
                self._chunk(part)
            elif not self._released():
                return False
        return True

    def _chunk(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    # ends

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        if self.close_connection or not self.server.keep_alive:
            self.send_header("Connection", "close")  # which sets close_connection too
        self.end_headers()

    def _stop(self, answer: Answer) -> None:
        if answer.ending == "hang":
            self._hang()
        elif answer.ending == "break":
            self.close_connection = True

    def _hang(self) -> None:
        """Until the client leaves, or the server breaks the connection: both end the reading."""
        self.close_connection = True
        with suppress(ConnectionError):
            while self.connection.recv(65536):
                pass

    def _released(self) -> bool:
        released = self.server.desk.released(self._client_left)
        self.close_connection = self.close_connection or not released
        return released

    def _client_left(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
