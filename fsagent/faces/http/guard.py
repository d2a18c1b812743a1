"""The guard: who may come in at all. It stands before the router, so nothing is reached past it.

In this order: is the request meant for us (Host, against DNS rebinding), is it from a page that may call us (Origin,
against CSRF), who is it (a token, always), is it too often. Then it bounds the size and the patience of the body.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
import secrets
import time
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsagent.config import ApiSettings
from fsagent.errors import FsagentError, PersonError
from fsagent.faces.http.problems import ProblemError, problem_of, problem_response
from fsagent.workspace.tokens import Token, Tokens

BURST = 4  # seconds' worth of requests that may come at once
WRONG = 0.01  # of as many requests as a token may make, so many may come with a wrong one
WRONG_AT_ONCE = 20  # at least
BODY_PATIENCE = 30.0
SAFE = ("GET", "HEAD", "OPTIONS")
_SECRET_WORDS = {"token", "access_token", "api_key", "apikey", "key", "authorization", "password"}
_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Mcp-Protocol-Version, "
    b"Mcp-Session-Id, X-Request-Id"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Log = Callable[[str], None]


class Buckets:
    """Token buckets: ``rate`` requests a second for each name, ``burst`` of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, name: str) -> float:
        """Take one from a bucket; gives 0, or the seconds after which there is one again."""
        now = time.monotonic()
        left, at = self._left.get(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        if left < 1:
            return (1 - left) / self._rate
        if len(self._left) > 10_000:
            self._left.clear()  # that many callers are none of ours
        self._left[name] = (left - 1, now)
        return 0.0


class Guard:
    """An ASGI app around another one. Lets a request in with its token in ``scope["state"]["token"]``."""

    def __init__(self, app: ASGIApp, tokens: Tokens, settings: ApiSettings, log: Log) -> None:
        self._app, self._tokens, self._settings, self._log = app, tokens, settings, log
        self._hosts = {host.casefold() for host in settings.allowed_hosts}
        self._origins = {origin.casefold().rstrip("/") for origin in settings.allowed_origins}
        self._rates = Buckets(settings.rate, BURST * settings.rate)
        self._wrong = Buckets(WRONG * settings.rate, max(WRONG_AT_ONCE, settings.rate))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started, status, who = time.monotonic(), 0, ""

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["Date"] = formatdate(usegmt=True)
                sent["X-Request-Id"] = request_id
                sent["X-Content-Type-Options"] = "nosniff"
                self._allow_page(headers, sent)
            await send(message)

        try:
            _check_framing(scope, headers)
            self._check_host(headers)
            self._check_origin(scope["method"], headers)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight(sending)
                return
            token = self._authenticate(scope, headers)
            state["token"], who = token, token.name
            wait = self._rates.wait(token.name)
            if wait:
                raise ProblemError(429, f"more than {self._settings.rate} requests a second", _later(wait))
            await self._app(scope, _patient(receive), sending)
        except (ProblemError, FsagentError) as error:
            found = problem_of(error)
            assert found is not None
            await problem_response(*found, request_id)(scope, receive, sending)
        finally:
            if scope["method"] not in SAFE or status >= 400 or not status:
                took = (time.monotonic() - started) * 1000
                path = scope["path"].encode("ascii", "backslashreplace").decode()
                line = f"{status or 'cut'} {scope['method']} {path[:200]!r} ({who or _client(scope)}) {took:.0f} ms"
                self._log(f"{line}, request {request_id}" if status >= 500 else line)

    def _check_host(self, headers: Headers) -> None:
        """An address cannot be rebound, a name can: names must be ours."""
        name = host_name(headers.get("host", ""))
        if name == "localhost" or name in self._hosts or _is_address(name):
            return
        raise ProblemError(
            421, f"{name!r} is not among the names of this agent; a person adds it in fsagent.yaml: api: allowed_hosts"
        )

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Pages of others may not call us, not even with a password that the browser remembers."""
        origin = headers.get("origin", "")
        if origin and not self._known_origin(origin, headers):
            raise ProblemError(
                403, f"pages of {origin} may not call this agent; see api: allowed_origins in fsagent.yaml"
            )
        if not origin and method not in SAFE and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ProblemError(403, "a page of another site may not call this agent")

    def _known_origin(self, origin: str, headers: Headers) -> bool:
        if origin.casefold() in self._origins:
            return True
        try:
            return urlsplit(origin).netloc.casefold() == headers.get("host", "").casefold() != ""
        except ValueError:
            return False

    def _allow_page(self, headers: Headers, sent: MutableHeaders) -> None:
        origin = headers.get("origin", "")
        if origin and origin.casefold() in self._origins:
            sent["Access-Control-Allow-Origin"] = origin
            sent["Access-Control-Expose-Headers"] = "ETag, Location, Link, Retry-After, X-Request-Id, Mcp-Session-Id"
            sent.add_vary_header("Origin")

    def _authenticate(self, scope: Scope, headers: Headers) -> Token:
        named = {name.casefold() for name, _ in parse_qsl(scope["query_string"].decode("latin-1"))}
        if named & _SECRET_WORDS:
            raise ProblemError(400, "a secret does not belong in a URL, where logs keep it; send it as "
                                    "'Authorization: Bearer …'")  # fmt: skip
        secret = secret_of(headers.get("authorization", ""))
        try:
            token = self._tokens.find(secret) if secret else None
        except PersonError as error:
            raise ProblemError(503, str(error)) from None
        except OSError as error:
            raise ProblemError(503, f"the tokens cannot be read: {error.strerror or error}") from None
        if token is None:
            wait = self._wrong.wait(_client(scope))
            if wait:
                raise ProblemError(429, "too many wrong tokens from this address", _later(wait))
            why = "this token is not known" if secret else "a token is needed"
            raise ProblemError(
                401, f"{why}; 'fsagent token' prints one. Send it as 'Authorization: Bearer …'",
                {"WWW-Authenticate": 'Bearer realm="fsagent"'},
            )  # fmt: skip
        return token


def _check_framing(scope: Scope, headers: Headers) -> None:
    """Where a request ends must be beyond doubt, or a proxy before us may see two in it, or half of one."""
    if "transfer-encoding" in headers and ("content-length" in headers or scope["http_version"] == "1.0"):
        raise ProblemError(400, "it is in doubt where this request ends; send either Content-Length or "
                                "Transfer-Encoding", {"Connection": "close"})  # fmt: skip


def secret_of(authorization: str) -> str:
    """The secret of a Bearer header, or the password of a Basic one; "" where there is none."""
    kind, _, value = authorization.partition(" ")
    if kind.casefold() == "bearer":
        return value.strip()
    if kind.casefold() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def host_name(host: str) -> str:
    """The name in a Host header, without its port: ``[::1]:80`` is ``::1``."""
    found = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:]*))(?::[0-9]*)?", host)
    return (found[1] or found[2] or "").casefold().rstrip(".") if found else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _later(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(int(seconds) + 1)}


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
        (b"access-control-allow-headers", _HEADERS),
        (b"access-control-max-age", b"600"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _patient(receive: Receive) -> Receive:
    """A body that does not come is not waited for; waiting for the caller to leave may take as long as it likes."""
    more = True

    async def receiving() -> Message:
        nonlocal more
        if not more:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), BODY_PATIENCE)
        except TimeoutError:
            raise ProblemError(408, f"nothing came for {BODY_PATIENCE:g} s") from None
        more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    return receiving
