"""What a row of the API's table is, and what its handlers are given and give back.

One table (``routes.TABLE``) makes the router, the checks of scope, query and body, and the OpenAPI document: they
cannot say different things.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from fsagent.errors import PersonError
from fsagent.faces.door import Caller
from fsagent.faces.http.problems import ProblemError, in_words
from fsagent.faces.hub import Hub
from fsagent.workspace.layout import Layout
from fsagent.workspace.tokens import Scope, Token, Tokens

JSON = "application/json"
MARKDOWN = "text/markdown"
GZIP_FROM = 1024
ON_A_THREAD = 64 * 1024
MAX_BODY = 2 * 1024 * 1024

T = TypeVar("T")
S = TypeVar("S", bound=Struct)


class Desk(Struct, frozen=True):
    """What all handlers share."""

    layout: Layout
    hub: Hub
    tokens: Tokens


class Call:
    """One request, let in and checked. ``query`` holds the row's query struct, if it has one."""

    def __init__(self, desk: Desk, request: Request, query: Any) -> None:
        self.layout, self.hub, self.request, self.query = desk.layout, desk.hub, request, query
        self._tokens = desk.tokens

    @property
    def token(self) -> Token:
        """The token that the caller came with."""
        token: Token = self.request.state.token
        return token

    @property
    def caller(self) -> Caller:
        """Who hands something in."""
        return Caller("http", self.token.name)

    def still_known(self) -> bool:
        """False once the token was taken away or given a new secret; to be asked by what goes on for long."""
        try:
            return self._tokens.find(self.token.token) == self.token
        except (PersonError, OSError):
            return False

    def part(self, name: str) -> str:
        """A part of the path, decoded."""
        return str(self.request.path_params[name])

    async def off(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do work that touches the disk on a thread, so that nobody else waits for it."""
        return await asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **kwargs))

    async def json(self, kind: type[S]) -> S:
        """The body, which must be such a JSON object. Raises ``ProblemError``."""
        body = await self.request.body()
        decode = partial(msgspec.json.decode, body, type=kind)
        try:
            return await self.off(decode) if len(body) > ON_A_THREAD else decode()
        except msgspec.ValidationError as error:
            raise ProblemError(422, in_words(str(error), kind.__struct_fields__)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProblemError(400, f"the body is no JSON: {error}") from None
        except RecursionError:
            raise ProblemError(400, "the body is nested too deeply") from None

    async def give(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """An answer as JSON."""
        return await self.give_bytes(msgspec.json.encode(value), JSON, status, headers)

    async def give_bytes(
        self, body: bytes, media: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """An answer of any kind; squeezed if the caller takes that. One that has an ETag stays as it is."""
        sent = {"Cache-Control": "no-store", **(headers or {})}
        if len(body) >= GZIP_FROM and "ETag" not in sent:
            sent["Vary"] = "Accept-Encoding"
            if takes_gzip(self.request.headers.get("accept-encoding", "")):
                squeeze = partial(gzip.compress, body, 5, mtime=0)
                body = await self.off(squeeze) if len(body) > ON_A_THREAD else squeeze()
                sent["Content-Encoding"] = "gzip"
        return Response(body, status, sent, media_type=media)


def kind_of(request: Request) -> str:
    """The media type of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().casefold()


def takes_gzip(accepted: str) -> bool:
    """True where an Accept-Encoding header names gzip, and not to forbid it."""
    kinds = dict(each.replace(" ", "").casefold().partition(";")[::2] for each in accepted.split(","))
    return not re.fullmatch(r"q=0(\.0*)?", kinds.get("gzip", "q=0"))


Handler = Callable[[Call], Awaitable[Response]]


class Row(Struct, frozen=True, kw_only=True):
    """One operation. The handler's docstring is its description; its first sentence the summary.

    ``replies`` maps a status to what is sent with it: a struct (JSON), a media type (text), or None (nothing).
    ``takes`` maps the media types of the body to what they must hold; any other is refused. ``needs`` names headers
    of the request, ``gives`` those of the answer, with their meaning.
    """

    method: str
    path: str
    scope: Scope
    handler: Handler
    replies: Mapping[int, Any]
    query: type[Struct] | None = None
    takes: Mapping[str, Any] = {}
    needs: Mapping[str, str] = {}
    gives: Mapping[str, str] = {}
    problems: tuple[int, ...] = ()
    max_body: int = MAX_BODY
