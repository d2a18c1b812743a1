"""One session with one MCP server, on the event loop. Loaded with the MCP library.

Promise: whatever the server does, each operation ends within its time, with a ``ToolError`` in words where it failed.
What a server says is bounded before anything is done with it: tools, descriptions, schemas (see the constants).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import mcp_types as types
import msgspec
from mcp import Client
from mcp.shared.exceptions import MCPError
from msgspec import Struct

from fsagent import __version__
from fsagent.definitions import Definition
from fsagent.errors import ToolError
from fsagent.files.fields import format_duration
from fsagent.mcpsettings import McpServer
from fsagent.tools.base import lean_schema
from fsagent.tools.servers.wire import Traces, wire

MAX_TOOLS = 200
MAX_PAGES = 50
MAX_DESCRIPTION = 4_000
MAX_SCHEMA = 64 * 1024
MAX_DEPTH = 24
FRESH = 60.0
"""How long a list of tools is believed, in seconds; a server that says that it changed is asked again at once."""

_CLOSE = 10.0
_NAME = re.compile(r"[^\s{}\"\\]{1,128}")
T = TypeVar("T")


class Outcome(Struct, frozen=True):
    """What a call brought: its text, its structured part if there was one, and whether the server calls it an error."""

    text: str
    data: Any = None
    failed: bool = False


class Offer(Struct, frozen=True):
    """The tools of a server, and in words what was left out of them."""

    tools: tuple[Definition, ...] = ()
    left_out: str = ""


class Link:
    """A session. It begins to open at once; ``usable`` is False once it is to be replaced by a new one."""

    def __init__(self, server: McpServer) -> None:
        self.server, self.began = server, time.monotonic()
        self._traces = Traces()
        self._client: Client | None = None
        self._opened, self._leave = asyncio.Event(), asyncio.Event()
        self._offer: Offer | None = None
        self._listed = 0.0
        self._busy = 0
        self._broken = False
        self._task = asyncio.create_task(self._live(), name=f"mcp {server.name}")
        self._task.add_done_callback(_looked_at)

    @property
    def usable(self) -> bool:
        """True while calls may be made, or it still opens."""
        return not self._broken and not self._task.done()

    @property
    def over(self) -> bool:
        """True once nothing of it is left."""
        return self._task.done()

    @property
    def opened(self) -> bool:
        """True once the server has answered."""
        return self._opened.is_set()

    async def open(self, seconds: float) -> None:
        """Wait until the server has answered. The opening goes on where the time is up (``fail`` ends it)."""
        waits = [asyncio.create_task(each.wait()) for each in (self._opened, self._traces.gone)]
        try:
            await asyncio.wait([*waits, self._task], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if self._traces.gone.is_set():
                await asyncio.wait([self._task], timeout=0.2)  # it may know more
        finally:
            for each in waits:
                each.cancel()
        if self._task.done() or self._traces.gone.is_set():
            raise self._dead()
        if not self.opened:
            words = f"has not answered within {format_duration(round(seconds, 1))}{self._traces.words}"
            raise ToolError(self._say(words), retryable=True)

    async def offer(self, seconds: float) -> Offer:
        """The tools that the server has now; an answer of the last ``FRESH`` seconds will do."""
        if self._offer is None or time.monotonic() - self._listed > FRESH:
            begun = time.monotonic()
            tools = await self._within(self._list(), seconds, "listing its tools", acts=False)
            self._offer, self._listed = offer_of(tools), begun
        return self._offer

    async def call(self, tool: str, arguments: dict[str, Any], seconds: float, *, acts: bool) -> Outcome:
        """Call a tool; ``acts`` is False where it only reads, so that a call without an answer may be made again."""
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=arguments))
        # Not the library's own call_tool: that one judges the result by the server's own schema, which can hang a regex
        # engine, and would take a result from us that the server has long acted for.
        work = self._session().send_request(request, types.CallToolResult)
        return outcome_of(await self._within(work, seconds, tool, acts=acts))

    def fail(self) -> None:
        """Take it out of use; it closes when nobody uses it any more."""
        self._broken = True
        if not self._busy:
            self._let_go()

    async def close(self) -> None:
        """End the session and what was started for it."""
        self._broken = True
        self._let_go()
        await asyncio.wait([self._task], timeout=_CLOSE)
        self._task.cancel()

    def _let_go(self) -> None:
        self._leave.set()
        if not self.opened:
            self._task.cancel()

    async def _live(self) -> None:
        """Open the session and hold it, in the one task that may close it again."""
        info = types.Implementation(name="fsagent", version=__version__)
        transport = wire(self.server, self._traces)
        async with Client(transport, cache=None, client_info=info, message_handler=self._heard) as client:
            self._client = client
            self._opened.set()
            waits = [asyncio.create_task(self._leave.wait()), asyncio.create_task(self._traces.gone.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()

    async def _heard(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._listed = 0.0

    def _session(self) -> Any:
        if self._client is None or not self.usable:
            raise self._dead()
        return self._client.session

    async def _list(self) -> list[types.Tool]:
        found: list[types.Tool] = []
        cursor = None
        for _ in range(MAX_PAGES):
            page = await self._session().list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            found += page.tools
            cursor = page.next_cursor
            if not cursor or len(found) > 10 * MAX_TOOLS:
                break
        return found

    async def _within(self, work: Coroutine[Any, Any, T], seconds: float, what: str, *, acts: bool) -> T:
        """The outcome of ``work``, or the ``ToolError`` that it amounts to. Ends also when the session does."""
        task = asyncio.create_task(work)
        task.add_done_callback(_looked_at)
        self._busy += 1
        try:
            await asyncio.wait([task, self._task], timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self._task.done():
                await asyncio.wait([task], timeout=0.2)
            if task.done() and not task.cancelled():
                error = task.exception()
                if error is None:
                    return task.result()
                raise await self._explained(error, what, acts)
            if self._task.done():
                raise self._dead(what, acts)
            self._broken = True
            words = f"{what}: has not answered within {format_duration(round(seconds, 1))}"
            raise ToolError(self._say(words + self._traces.words + _doubt(acts)), retryable=not acts)
        finally:
            task.cancel()
            self._busy -= 1
            if self._broken and not self._busy:
                self._let_go()

    async def _explained(self, error: BaseException, what: str, acts: bool) -> BaseException:
        """An error of a request in words; takes the session out of use where it is the session's."""
        if isinstance(error, ToolError):
            return error
        if isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED:
            self._broken = True
            await asyncio.wait([self._task], timeout=0.5)  # it knows why
            return self._dead(what, acts)
        if isinstance(error, MCPError) and error.message == "Session terminated":
            self._broken = True
            return LostError(self._say("has forgotten the session"), retryable=True)
        words = self._words(error)
        if isinstance(error, MCPError):
            passing = self._traces.status in (408, 425, 429) or (self._traces.status >= 500 and not acts)
            status = self._traces.words if self._traces.status >= 400 else ""
            return ToolError(self._say(f"{what}: {words}{status}"), retryable=passing)
        return ToolError(self._say(f"{what}: has answered what is no MCP: {words}{_doubt(acts)}"))

    def _dead(self, what: str = "", acts: bool = False) -> ToolError:
        """The error that tells of the end of the session."""
        self._broken = True
        error = self._task.exception() if self._task.done() and not self._task.cancelled() else None
        words = self._words(error) if error else "the connection was closed" if self.server.url else "it has ended"
        doing = f"{what}: " if what else "" if self.opened else "cannot be reached: "
        text = f"{doing}{words}{self._traces.words}{_doubt(acts)}"
        return ToolError(self._say(text), retryable=not acts)

    def _words(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED:
            return "it has ended"
        if isinstance(error, MCPError) and error.message in ("Server returned an error response", "Not Found"):
            return "an error came back"  # the status says which
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return text.strip().split("\n")[0][:500]

    def _say(self, words: str) -> str:
        return self.server.without_secrets(f"{self.server.name}: {words}")


class LostError(ToolError):
    """The server knows nothing of our session, so it has not acted: the call may be made in a new one."""


def offer_of(tools: Iterable[types.Tool]) -> Offer:
    """Definitions of what a server lists, bounded, by name; what is beyond all bounds is left out and told."""
    found: dict[str, Definition] = {}
    odd: list[str] = []
    for tool in sorted(tools, key=lambda each: each.name):
        why = _unusable(tool, found)
        if why:
            odd.append(f"{tool.name[:60]!r} ({why})")
        elif len(found) < MAX_TOOLS:
            hints = (
                tool.annotations.model_dump(by_alias=True, mode="json", exclude_none=True) if tool.annotations else {}
            )
            kept = {key: value for key, value in hints.items() if isinstance(value, bool | str)}
            found[tool.name] = Definition(
                name=tool.name, description=_bounded(tool.description or ""), schema=tool.input_schema,
                annotations={key: value if isinstance(value, bool) else value[:200] for key, value in kept.items()},
            )  # fmt: skip
        else:
            odd.append(f"{tool.name!r} (it has more than {MAX_TOOLS} tools)")
    rest = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    return Offer(tuple(found.values()), f"left out of its tools: {', '.join(odd[:3])}{rest}" if odd else "")


def _unusable(tool: types.Tool, found: dict[str, Definition]) -> str:
    if not _NAME.fullmatch(tool.name) or not tool.name.isprintable():
        return "no name for a tool"
    if tool.name in found:
        return "named twice"
    if _deeper(tool.input_schema, MAX_DEPTH):
        return "its schema is too deep"
    try:
        if len(msgspec.json.encode(tool.input_schema)) > MAX_SCHEMA:
            return "its schema is too large"
        lean_schema(tool.input_schema)
        msgspec.msgpack.encode([tool.name, tool.description, tool.input_schema])  # as it goes to the daemon
    except (ValueError, OverflowError, RecursionError) as error:
        return str(error)[:80]
    return ""


def _deeper(node: Any, most: int) -> bool:
    if isinstance(node, dict | list):
        return most == 0 or any(_deeper(each, most - 1) for each in (node.values() if isinstance(node, dict) else node))
    return False


def _bounded(text: str) -> str:
    """A description, shortened; what was cut away is still in the print, by its SHA-256."""
    if len(text) <= MAX_DESCRIPTION:
        return text
    rest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{text[:MAX_DESCRIPTION]}\n… ({len(text):,} characters, SHA-256 {rest})"


def outcome_of(result: types.CallToolResult) -> Outcome:
    """The text of a result: what it says, or its structured part, and what kinds of content cannot be shown."""
    parts = [_text(each) for each in result.content]
    said = any(isinstance(each, types.TextContent | types.EmbeddedResource) for each in result.content)
    if result.structured_content is not None and not said:
        parts.insert(0, msgspec.json.format(msgspec.json.encode(result.structured_content), indent=2).decode())
    return Outcome("\n".join(parts), result.structured_content, result.is_error)


def _text(content: types.ContentBlock) -> str:
    if isinstance(content, types.TextContent):
        return content.text
    if isinstance(content, types.ImageContent):
        return f"(image, {_size(content.data):,} bytes)"
    if isinstance(content, types.AudioContent):
        return f"(audio, {_size(content.data):,} bytes)"
    if isinstance(content, types.EmbeddedResource):
        inner = content.resource
        if isinstance(inner, types.TextResourceContents):
            return inner.text
        return f"(resource {inner.uri[:200]}, {_size(inner.blob):,} bytes)"
    return f"(link to {content.uri[:200]})"


def _size(data: str) -> int:
    try:
        return len(base64.b64decode(data))
    except (binascii.Error, ValueError):
        return len(data) * 3 // 4


def _doubt(acts: bool) -> str:
    return "; nobody knows whether it has acted on it" if acts else ""


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Nothing: but a task whose error was looked at does not complain of it when it is collected."""
    if not task.cancelled():
        task.exception()
