"""The thread on which MCP servers are spoken to, for callers on any other thread.

Promise: an operation ends within its time, and within moments where the run is to stop; a server that hangs, crashes or
speaks garbage delays only those who call it. One session per server, opened on first use, kept until ``close``, and
opened anew after a failure: at once if it had worked, else after a pause, during which calls fail with the last reason.
Nothing is loaded and no thread started before the first use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from fsagent.definitions import Definition
from fsagent.errors import ToolError
from fsagent.mcpsettings import McpServer

if TYPE_CHECKING:
    import asyncio

    from fsagent.tools.servers.link import Link, Offer, Outcome

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

_BEAT = 0.25
_MARGIN = 15.0
_CLOSE = 10.0
_LIBRARY = ("mcp", "mcp_types", "httpx2", "anyio", "pydantic")
T = TypeVar("T")


class Patience:
    """How long a caller waits: until its run is to ``stop``, or has no time left."""

    def __init__(
        self, stopping: Callable[[], bool] = lambda: False, seconds_left: Callable[[], float] = lambda: float("inf")
    ) -> None:
        self._stopping, self._seconds_left = stopping, seconds_left

    def over(self) -> str:
        """Why it is over, in words; empty while it is not."""
        return "the daemon stops" if self._stopping() else "" if self._seconds_left() > 0 else "the run's time is up"


class Servers:
    """All sessions of one process, by the names of their servers. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        # Only the loop's thread touches these. Of all sessions, some may be out of use and not yet at their end.
        self._links: dict[str, Link] = {}
        self._every: list[Link] = []
        self._pauses: dict[str, tuple[float, float, str]] = {}

    def offer(self, server: McpServer, patience: Patience) -> Offer:
        """What a server offers now (or did a moment ago). Raises ``ToolError``."""
        return self._wait(self._begin(self._offer(server, server.timeout)), server, patience)

    def call(
        self, server: McpServer, tool: Definition, arguments: Mapping[str, Any], patience: Patience, *, acts: bool
    ) -> Outcome:
        """Call a tool, if the server still defines it so, else raise ``ToolError`` and call nothing.

        ``acts`` is False where it only reads. Raises ``ToolError``: with ``retryable`` where nothing can have happened.
        """
        future = self._begin(self._call(server, tool, dict(arguments), acts))
        return self._wait(future, server, patience, "; nobody knows whether it has acted on it" if acts else "")

    def contact(self, servers: Sequence[McpServer], seconds: float, patience: Patience) -> dict[str, Offer | ToolError]:
        """What each of several servers offers, or why it cannot be known after ``seconds``; all at the same time.

        The opening of one that is slow goes on. One that was begun to be opened before gets only the rest of its time.
        """
        if not servers:
            return {}
        found: dict[str, Offer | ToolError] = {}
        futures = [(server, self._begin(self._offer(server, seconds))) for server in servers]
        for server, future in futures:
            try:
                found[server.name] = self._wait(future, server, patience)
            except ToolError as error:
                found[server.name] = error
        return found

    def close(self) -> None:
        """End all sessions, with every program that was started for them. Nothing can be called after that."""
        import asyncio

        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(_CLOSE)
        except TimeoutError:
            pass  # the supervisors see that we are gone, and end what they started
        loop.call_soon_threadsafe(loop.stop)
        thread.join(1.0)

    # what happens on the loop

    async def _offer(self, server: McpServer, seconds: float) -> Offer:
        return await (await self._link(server, seconds)).offer(min(seconds, server.timeout))

    async def _call(self, server: McpServer, tool: Definition, arguments: dict[str, Any], acts: bool) -> Outcome:
        from fsagent.tools.servers.link import LostError

        lost = ToolError("")
        for _ in range(2):
            link = await self._link(server, server.timeout)
            try:
                now = {each.name: each for each in (await link.offer(server.timeout)).tools}.get(tool.name)
                if now is None:
                    raise ToolError(f"{server.name} offers no tool {tool.name!r} any more")
                if now.print != tool.print:
                    raise ToolError(
                        f"{server.name} has just changed the definition of {tool.name!r}, so it was not called; "
                        "call it again, and a person will be asked"
                    )
                return await link.call(tool.name, arguments, server.timeout, acts=acts)
            except LostError as error:
                lost = error
        raise lost

    async def _link(self, server: McpServer, seconds: float) -> Link:
        """The session with a server, open; ``seconds`` is how long this caller waits for it."""
        if server.trouble:
            raise ToolError(f"{server.name}: {server.trouble}")
        known = _library()
        link = self._links.get(server.name)
        if link is not None and (link.server != server or (link.opened and not link.usable)):
            link.fail()
            link = None
        if link is None:
            until, _, why = self._pauses.get(server.name, (0.0, 0.0, ""))
            if time.monotonic() < until:
                rest = f"{until - time.monotonic():.0f}s".replace("0s", "a moment")
                raise ToolError(f"{why} (it is tried again in {rest})", retryable=True)
            link = self._links[server.name] = known(server)
            self._every = [each for each in self._every if not each.over] + [link]
        if not link.opened:
            await self._open(link, seconds)
        return link

    async def _open(self, link: Link, seconds: float) -> None:
        name = link.server.name
        end = link.began + link.server.timeout
        try:
            await link.open(max(0.0, min(link.began + seconds, end) - time.monotonic()))
        except ToolError as error:
            if not link.usable or time.monotonic() >= end:
                link.fail()
                if self._links.get(name) is link:
                    del self._links[name]
                    pause = min(LONGEST_PAUSE, 2 * self._pauses.get(name, (0.0, FIRST_PAUSE / 2, ""))[1])
                    self._pauses[name] = (time.monotonic() + pause, pause, str(error))
            raise
        self._pauses.pop(name, None)

    async def _end(self) -> None:
        import asyncio

        await asyncio.gather(*(link.close() for link in self._every), return_exceptions=True)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)

    # what happens on the caller's thread

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        import asyncio

        with self._lock:
            if self._closed:
                work.close()
                raise ToolError("the MCP servers were left already, for the daemon stops", retryable=True)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="mcp servers", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, future: Future[T], server: McpServer, patience: Patience, doubt: str = "") -> T:
        """The outcome, for which the loop keeps the time; only where it does not, we do it here."""
        from concurrent.futures import wait

        end = time.monotonic() + 3 * server.timeout + _MARGIN
        while not wait([future], _BEAT).done:
            why = patience.over() or ("took too long" if time.monotonic() > end else "")
            if why:
                future.cancel()
                raise ToolError(f"{server.name}: {why}{doubt}", retryable=not doubt)
        return future.result()


def _library() -> type[Link]:
    """Load what speaks MCP. Raises ``ToolError`` saying how to install it where it is missing."""
    try:
        from fsagent.tools.servers.link import Link
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARY:
            raise
        raise ToolError(
            "MCP servers need the extra 'mcp'; install it with: pip install 'fsagent[mcp]'", retryable=False
        ) from None
    import logging

    for name in ("mcp", "client"):  # what a server says wrongly is told by us, to whom it concerns
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    return Link


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
