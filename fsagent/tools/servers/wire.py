"""The way to one MCP server: a program that is started, or an address. Loaded with the MCP library.

A program runs under a supervisor (``tools.supervise``), which ends it and all that it started: when the session is
closed, and when this process is killed. What it prints that is no MCP, and its error output, are read and forgotten but
for the last lines, for messages. Bounds: one message of a server is at most ``MAX_MESSAGE`` bytes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import httpx2
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

import fsagent.tools.supervise as supervise
from fsagent.files.pipes import two_pipes
from fsagent.mcpsettings import McpServer

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams

MAX_MESSAGE = 8 * 1024 * 1024
CONNECT = 10.0

_FOREVER = 10 * 365 * 86400.0
_MAX_GARBAGE = 1_000
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
_LEAVE = 1.0
_END = 7.0


class Traces:
    """What a server left behind for a message to a person: last error lines, what was no MCP, the last HTTP status."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.status = 0
        self._errors: deque[str] = deque(maxlen=3)
        self._garbage: list[str] = []
        self._outcome = ""

    def error_output(self, line: bytes) -> None:
        """A line that the program wrote to its error output."""
        text = _shown(line)
        if text:
            self._errors.append(text)

    def garbage(self, line: bytes) -> None:
        """A line that was no MCP."""
        if len(self._garbage) < 2 and (text := _shown(line)):
            self._garbage.append(text)

    def ended(self, report: str) -> None:
        """How the program ended, in the supervisor's words: that it could not be started comes before how it ended."""
        lines = sorted(report.splitlines()[1:], key=lambda line: not line.startswith("error"))
        word, _, number = lines[0].partition(" ") if lines else ("", "", "")
        code = int(number.split()[0]) if number[:1].isdigit() else 0
        self._outcome = {
            "exit": f"it ended with code {code}", "signal": f"it was ended by signal {code}",
            "error": f"it cannot be started: {os.strerror(code)}",
        }.get(word, "")  # fmt: skip

    @property
    def words(self) -> str:
        """All of it, to be put behind a message; empty where there is nothing."""
        parts = [self._outcome] if self._outcome else []
        if self.status >= 400:
            phrase = {each.value: each.phrase for each in HTTPStatus}.get(self.status, "")
            parts.append(f"HTTP {self.status} {phrase}".rstrip())
        if self._garbage:
            parts.append("it printed what is no MCP: " + " / ".join(self._garbage))
        if self._errors:
            parts.append("its last words: " + " / ".join(self._errors))
        return f" ({'; '.join(parts)})" if parts else ""


@asynccontextmanager
async def wire(server: McpServer, traces: Traces) -> AsyncGenerator[TransportStreams, None]:
    """The streams to and from a server. Raises what the libraries raise."""
    if server.command:
        async with _program(server, traces) as streams:
            yield streams
        return
    limits = httpx2.Timeout(CONNECT, read=None)

    def client(*_: object, **__: object) -> httpx2.AsyncClient:
        headers = {"User-Agent": "fsagent", "Accept-Encoding": "identity"} | server.headers
        return httpx2.AsyncClient(headers=headers, timeout=limits, transport=_Bounded(traces), trust_env=False)

    if server.sse:
        async with sse_client(server.url, httpx_client_factory=client) as streams:
            yield streams
    else:
        async with (
            client() as http,
            streamable_http_client(server.url, http_client=http, max_sse_event_size=MAX_MESSAGE) as streams,
        ):
            yield streams


class _Bounded(httpx2.AsyncBaseTransport):
    """Answers that are too long, or compressed (so that nobody knows how long they are), break off."""

    def __init__(self, traces: Traces) -> None:
        self._inner, self._traces = httpx2.AsyncHTTPTransport(), traces

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if request.method == "POST":
            self._traces.status = response.status_code
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.DecodingError("the answer is compressed, which was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if not response.headers.get("content-type", "").startswith(
            "text/event-stream"
        ):  # of which the library takes care
            response.stream = _BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_MESSAGE
        async for chunk in self._inner:
            left -= len(chunk)
            if left < 0:
                raise httpx2.ReadError(f"the answer is longer than {MAX_MESSAGE:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def _program(server: McpServer, traces: Traces) -> AsyncGenerator[TransportStreams, None]:
    (control_in, control_out), (report_in, report_out) = two_pipes()
    words = [control_in, report_out, _FOREVER, 0]
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(supervise.__file__), *map(str, words), server.command, *server.args),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd="/", env=_environment(server), pass_fds=(control_in, report_out), start_new_session=True,
            limit=MAX_MESSAGE,
        )  # fmt: skip
    except BaseException:
        os.close(control_out)
        os.close(report_in)
        raise
    finally:
        os.close(control_in)
        os.close(report_out)
    to_session, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    work = [
        asyncio.create_task(_read(process, to_session, traces)),
        asyncio.create_task(_write(process, from_session)),
        asyncio.create_task(_read_errors(process, traces)),
    ]
    over = asyncio.create_task(_follow(process, report_in, traces, work))
    try:
        yield from_server, to_server
    finally:
        ending = asyncio.create_task(_end(process, control_out, work, over))
        await _in_spite_of_cancels(ending)
        for stream in (to_session, from_server, to_server, from_session):
            stream.close()


async def _read(
    process: asyncio.subprocess.Process, out: MemoryObjectSendStream[SessionMessage | Exception], traces: Traces
) -> None:
    """Hand on each message of the program, until it ends or prints too much that is none."""
    assert process.stdout is not None
    odd = 0
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError), out:
        while odd < _MAX_GARBAGE:
            try:
                line = await process.stdout.readline()
            except ValueError:
                traces.garbage(f"a line of more than {MAX_MESSAGE:,} bytes".encode())
                return
            if not line:
                return
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                odd += 1
                traces.garbage(line)
                await asyncio.sleep(0)  # others are served even while one floods
                continue
            await out.send(SessionMessage(message))


async def _write(process: asyncio.subprocess.Process, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert process.stdin is not None
    with suppress(OSError, anyio.ClosedResourceError), messages:
        async for each in messages:
            text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()


async def _read_errors(process: asyncio.subprocess.Process, traces: Traces) -> None:
    assert process.stderr is not None
    rest = b""
    while chunk := await process.stderr.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines[-3:]:
            traces.error_output(line)
        rest = rest[-1000:]
    traces.error_output(rest)


async def _follow(
    process: asyncio.subprocess.Process, report: int, traces: Traces, work: list[asyncio.Task[None]]
) -> None:
    """Wait for the end of the program, or of its output, and tell it."""
    exited = asyncio.create_task(process.wait())
    await asyncio.wait([exited, work[0]], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait([exited, work[2]], timeout=0.5)  # its last words and how it ended, if they are to be had
    os.set_blocking(report, False)
    with suppress(OSError):
        traces.ended(os.read(report, 1000).decode("ascii", "replace"))
    os.close(report)
    traces.gone.set()
    await exited


async def _end(
    process: asyncio.subprocess.Process, control: int, work: list[asyncio.Task[None]], over: asyncio.Task[None]
) -> None:
    """End the program: by closing its input, as MCP has it; soon after that by force, with all that it started."""
    assert process.stdin is not None
    transport = process._transport  # type: ignore[attr-defined]  # nothing public lets go of its pipes
    try:
        process.stdin.close()
        await asyncio.wait([over], timeout=_LEAVE)
    finally:
        os.close(control)
    for number in (1, 2):  # it would wait for their ends, which it does not see where it was told too much
        transport.get_pipe_transport(number).close()
    await asyncio.wait([over], timeout=_END)
    for task in work:
        task.cancel()
    if not over.done():
        with suppress(ProcessLookupError):
            process.kill()
    await asyncio.wait([*work, over], timeout=1.0)
    if not over.done():
        over.cancel()
    transport.close()
    await asyncio.sleep(0)


async def _in_spite_of_cancels(task: asyncio.Task[None]) -> None:
    """Wait for a task to its end, also where this one is cancelled meanwhile; then the cancel goes on."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _environment(server: McpServer) -> dict[str, str]:
    """A bare environment, and what the settings say. HOME is the user's own, for a server is the owner's program."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "TERM": "dumb"} | kept | server.env


def _shown(line: bytes) -> str:
    """A line for a message: short, and without what a terminal would obey."""
    text = line[:300].decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else " " for char in text)
