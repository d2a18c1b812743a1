"""MCP over streamable HTTP: an ASGI app for ``/mcp``, behind the guard of the HTTP face.

The guard has checked Host, Origin and token before anything comes here, and left the token in
``scope["state"]["token"]``. A session belongs to the token that opened it: with any other its id is unknown (404).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.responses import Response

from fsagent.faces.door import Caller
from fsagent.faces.mcp.server import make_server
from fsagent.faces.mcp.table import Access
from fsagent.workspace.layout import Layout
from fsagent.workspace.tokens import Token

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from starlette.types import Receive, Scope, Send

    from fsagent.faces.hub import Hub

MAX_BODY = 4 * 1024 * 1024
MAX_SESSIONS = 200
IDLE = 900.0


class HttpSessions:
    """All MCP sessions over HTTP of one workspace: at most ``MAX_SESSIONS`` with an id, each ended after ``IDLE``
    seconds without a request or an open stream; requests since 2026-07-28 need no session.

    Made and used on the hub's event loop, between ``start`` and ``close``.
    """

    def __init__(self, layout: Layout, hub: Hub) -> None:
        server, self._changes = make_server(layout, hub, _access)
        self._manager = StreamableHTTPSessionManager(
            server, max_sessions=MAX_SESSIONS, session_idle_timeout=IDLE, max_request_body_size=MAX_BODY
        )
        self._ready, self._end = asyncio.Event(), asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        self._running = asyncio.create_task(self._run())
        await self._ready.wait()

    async def close(self) -> None:
        """End every stream and every session."""
        await self._changes.close()
        self._end.set()
        if self._running:
            await self._running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Without a token in the scope nothing is answered: ``KeyError``."""
        if self._end.is_set():
            await Response("this server is ending", 503)(scope, receive, send)
            return
        token: Token = scope["state"]["token"]
        owner = AccessToken(token="", client_id=token.name, subject=token.made.isoformat(), scopes=list(token.scopes))
        scope["user"] = AuthenticatedUser(owner)
        await self._manager.handle_request(scope, receive, send)

    async def _run(self) -> None:
        async with self._manager.run():
            self._ready.set()
            await self._end.wait()


def _access(context: ServerRequestContext[Any, Any]) -> Access:
    assert context.request is not None
    token: Token = context.request.scope["state"]["token"]
    return Access(Caller("mcp", token.name), token.scopes)
