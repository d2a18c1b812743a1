"""The ASGI app: guard → router → a row of the table. Every error becomes a problem with the status that fits it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsagent.config import ApiSettings
from fsagent.errors import FsagentError
from fsagent.faces.http.guard import Guard, Log
from fsagent.faces.http.problems import ProblemError, in_words, problem_of, problem_response
from fsagent.faces.http.routes import TABLE
from fsagent.faces.http.table import Call, Desk, Row, kind_of
from fsagent.files.fields import nearest
from fsagent.workspace.tokens import Scope as TokenScope
from fsagent.workspace.tokens import Token


def make_app(desk: Desk, settings: ApiSettings, log: Log, mcp: ASGIApp | None = None) -> ASGIApp:
    """The whole API of one workspace. ``mcp`` answers at ``/mcp``, behind the same guard."""
    by_path: dict[str, list[Row]] = {}
    for row in TABLE:
        by_path.setdefault(row.path, []).append(row)
    routes: list[BaseRoute] = [Route(path, _Endpoint(desk, rows)) for path, rows in by_path.items()]
    if mcp is not None:
        routes.append(Route("/mcp", mcp, methods=["GET", "POST", "DELETE"]))
        routes.append(Mount("/mcp/", mcp))
    kinds: Sequence[type[Exception]] = (HTTPException, FsagentError, OSError, sqlite3.Error, TimeoutError)
    router = Starlette(routes=routes, exception_handlers=dict.fromkeys(kinds, _known) | {Exception: _unknown})
    router.router.redirect_slashes = False
    return Guard(router, desk.tokens, settings, log)


class _Endpoint:
    """All rows of one path, as an ASGI app."""

    def __init__(self, desk: Desk, rows: Sequence[Row]) -> None:
        self._desk, self._rows = desk, {row.method: row for row in rows}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = self._rows.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if row is None:  # told here, for a longer path may also be the name of something at a shorter one
            raise HTTPException(405, headers={"Allow": ", ".join(self._rows)})
        request = Request(scope, _limited(receive, row.max_body))
        check_scope(request.state.token, row.scope)
        if int(request.headers.get("content-length") or 0) > row.max_body:
            raise _too_large(row.max_body)
        query = _query(row.query or _Nothing, request.query_params)
        _check_kind(request, row)
        try:
            response = await row.handler(Call(self._desk, request, query))
        except ClientDisconnect:
            return  # in the middle of its body; nobody is left to answer
        await response(scope, receive, send)


class _Nothing(msgspec.Struct, frozen=True):
    """The query of an operation that has none."""


def check_scope(token: Token, scope: TokenScope) -> None:
    """Raise a 403 where the token may not do this."""
    if scope not in token.scopes:
        raise ProblemError(
            403, f"the token {token.name!r} may {' and '.join(token.scopes)}; this needs the scope {scope!r}",
            {"WWW-Authenticate": f'Bearer realm="fsagent", error="insufficient_scope", scope="{scope}"'},
        )  # fmt: skip


def _query(kind: type[msgspec.Struct], params: Mapping[str, str]) -> msgspec.Struct:
    known = kind.__struct_fields__
    for name in params:
        if name not in known:
            there = f"; there are: {', '.join(known)}" if known else " here"
            raise ProblemError(422, f"there is no parameter {name!r}{nearest(name, known)}{there}")
    try:
        return msgspec.convert(dict(params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ProblemError(422, in_words(str(error))) from None


def _check_kind(request: Request, row: Row) -> None:
    kind = kind_of(request)
    if row.takes and kind not in row.takes:
        takes = ", ".join(row.takes)
        accept = "Accept-Post" if request.method == "POST" else "Accept"
        raise ProblemError(415, f"the Content-Type is {kind or 'missing'}; send one of {takes}", {accept: takes})


def _limited(receive: Receive, most: int) -> Receive:
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _too_large(most)
        return message

    return receiving


def _too_large(most: int) -> ProblemError:
    return ProblemError(413, f"the body is larger than {most:,} bytes")  # what still comes is read, and forgotten


async def _known(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and not isinstance(error, ProblemError):
        error = _in_our_words(request, error)
    found = problem_of(error)
    assert found is not None
    return problem_response(*found, request.state.request_id)


def _in_our_words(request: Request, error: HTTPException) -> HTTPException:
    detail = error.detail
    if error.status_code == 404:
        detail = f"there is nothing at {request.scope['path']!r}; GET /v1/openapi.json lists what there is"
    elif error.status_code == 405:
        detail = f"{request.method} cannot be done here; there is: {(error.headers or {}).get('Allow', 'nothing')}"
    return HTTPException(error.status_code, detail, error.headers)


async def _unknown(request: Request, error: Exception) -> Response:
    """A fault of ours: the caller gets its id, the log (by uvicorn, which then closes) the whole of it."""
    fault = ProblemError(
        500, f"a fault of fsagent's own ({type(error).__name__}); its log has it all", {"Connection": "close"}
    )
    found = problem_of(fault)
    assert found is not None
    return problem_response(*found, request.state.request_id)
