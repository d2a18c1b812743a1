"""Serving the API: uvicorn without its ten wake-ups a second, and with the patience it lacks."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import h11
import msgspec
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from fsagent.config import ApiSettings
from fsagent.faces import door
from fsagent.faces.http.app import make_app
from fsagent.faces.http.guard import Log
from fsagent.faces.http.problems import MEDIA, problem
from fsagent.faces.http.table import Desk
from fsagent.faces.hub import Hub
from fsagent.files.refusals import SHORTAGES
from fsagent.memory import give_memory_back
from fsagent.workspace.layout import Layout
from fsagent.workspace.tokens import Tokens

MOST_CONNECTIONS = 4000
HEAD_PATIENCE = 20
GOODBYE = 3
THREADS = 8
KEYS_EVERY = 6 * 3600.0
QUEUE = 512
AT_ONCE = 1
"""Connections taken in one turn. Where no file can be opened, asyncio tries so often, and again after each failure."""
QUIET = 60.0


def bind(settings: ApiSettings) -> socket.socket:
    """The socket to listen on. Raises ``OSError``, for instance where the port is taken."""
    host, port = settings.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=QUEUE)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it; asyncio would miss it
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ApiServer:
    """The API of one workspace on one socket. ``serve`` blocks; ``stop`` ends it from any thread, once."""

    def __init__(self, layout: Layout, settings: ApiSettings, listener: socket.socket, log: Log) -> None:
        self._layout, self._settings, self._listener, self._log = layout, settings, listener, log
        self._lock = threading.Lock()
        self._stop: Callable[[], Any] | None = None
        self._stopped = False

    def serve(self) -> None:
        """Answer until ``stop`` is called."""
        _allow_many_files()
        for library in ("uvicorn", "python_multipart"):
            logging.getLogger(library).setLevel(logging.ERROR)  # what callers do wrong is told to them
        asyncio.run(self._serve())

    def stop(self) -> None:
        """End: what is being answered gets a moment, streams are closed."""
        with self._lock:
            self._stopped = True
            if self._stop:
                self._stop()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_Complaints(self._log))
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="api"))
        ended = asyncio.Event()
        with self._lock:
            self._stop = lambda: loop.call_soon_threadsafe(ended.set)
            if self._stopped:
                ended.set()
        hub = Hub(self._layout)
        mcp = _LazyMcp(self._layout, hub)
        app = make_app(Desk(self._layout, hub, Tokens(self._layout)), self._settings, self._log, mcp)
        config = uvicorn.Config(
            app, http=_Protocol, ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, proxy_headers=False, limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=HEAD_PATIENCE, timeout_graceful_shutdown=2 * GOODBYE,
            backlog=AT_ONCE,
        )  # fmt: skip
        keys = loop.create_task(_forget_keys(self._layout))
        try:
            await _Server(config, ended, hub, mcp, self._listener).serve(sockets=[self._listener])
        finally:
            with self._lock:
                self._stop = None
            keys.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server, ended by an event instead of ten looks a second."""

    def __init__(
        self, config: uvicorn.Config, ended: asyncio.Event, hub: Hub, mcp: _LazyMcp, listener: socket.socket
    ) -> None:
        super().__init__(config)
        self._ended, self._hub, self._mcp, self._listener = ended, hub, mcp, listener

    async def main_loop(self) -> None:
        self._listener.listen(QUEUE)  # asyncio made it as long as a turn
        await self.on_tick(0)
        gc.collect()
        give_memory_back()  # what loading took beyond what is loaded
        await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._hub.close()
        await self._mcp.close()
        cut = asyncio.get_running_loop().call_later(GOODBYE, self._cut)
        await super().shutdown(sockets)
        cut.cancel()

    def _cut(self) -> None:
        """Who has not read to the end by now never will."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Complaints:
    """What asyncio has to complain of; that no more files can be opened it would say with each caller who waits."""

    def __init__(self, log: Log) -> None:
        self._log, self._said = log, -QUIET

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in SHORTAGES:
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= QUIET:
            self._said = loop.time()
            self._log(f"callers have to wait: {error.strerror}")


class _Protocol(H11Protocol):
    """A connection on which no whole request arrives in time is closed; uvicorn only waits less after the first one.

    What is no HTTP gets a problem for an answer, like everything else.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        timer = self.timeout_keep_alive_task
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if self.timeout_keep_alive_task is None and (cycle is None or cycle.response_complete):
            self._await_head(timer)

    def send_400_response(self, msg: str) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle and not cycle.response_complete:
            cycle.disconnected = True  # for whoever waits for the rest of the body
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(problem(400, "this is no HTTP request, or its head is too large"))
            headers = [("Content-Type", MEDIA), ("Content-Length", str(len(body))), ("Connection", "close")]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def shutdown(self) -> None:
        with suppress(h11.LocalProtocolError):  # it is being closed already
            super().shutdown()

    def _await_head(self, timer: asyncio.TimerHandle | None = None) -> None:
        """The time runs from the connection's (or the last answer's) beginning, whatever trickles in."""
        delay = max(0.0, timer.when() - self.loop.time()) if timer else HEAD_PATIENCE
        self.timeout_keep_alive_task = self.loop.call_later(delay, self.timeout_keep_alive_handler)


class _LazyMcp:
    """MCP at ``/mcp``: the library, three times as heavy as all the rest, is loaded with the first request."""

    def __init__(self, layout: Layout, hub: Hub) -> None:
        self._layout, self._hub = layout, hub
        self._sessions: Any = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._loading:
            if self._sessions is None:
                self._sessions = await self._load()
        sessions: ASGIApp = self._sessions
        await sessions(scope, receive, send)

    async def close(self) -> None:
        if self._sessions is not None:
            await self._sessions.close()

    async def _load(self) -> Any:
        from fsagent.faces.extras import need

        await asyncio.get_running_loop().run_in_executor(None, need, "mcp")
        from fsagent.faces.mcp.http import HttpSessions

        sessions = HttpSessions(self._layout, self._hub)
        await sessions.start()
        return sessions


async def _forget_keys(layout: Layout) -> None:
    while True:
        with suppress(OSError):
            await asyncio.to_thread(door.forget_old_keys, layout, time.time())
        await asyncio.sleep(KEYS_EVERY)


def _allow_many_files() -> None:
    """Every connection is an open file; the usual soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + 1000
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
