"""The tool that speaks to the web: http.

One request to exactly the address that policy saw: no redirects, no proxy, no cookies. Limits: http and https only;
1 MiB of an answer is read; what a name resolves to is not checked, so an allowed host decides where it points.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from fsagent.errors import ToolError
from fsagent.files.fields import format_duration
from fsagent.model import ToolResult
from fsagent.tools.base import Context, Tool
from fsagent.tools.text import clip, decode, seconds
from fsagent.tools.url import Url, canonical

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

MAX_BYTES = 1024 * 1024
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")

_REPEATABLE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
_PASSING = (408, 425, 429)
_OURS = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Real ones only: Python knows encodings (punycode, unicode_escape) that a hostile answer could make slow or odd.
_CHARSET = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|(us-)?ascii|iso-?8859-\d+|latin-?1|(windows|cp)-?\d+|koi8-[ru]|gb\w+|big5\w*|euc-\w\w"
    r"|shift_jis\w*",
    re.IGNORECASE,
)
_BEAT = 0.25
_SHOWN_ERROR = 2_000


class HttpArgs(Struct, frozen=True, forbid_unknown_fields=True):
    """``body`` is sent as UTF-8; ``timeout`` (``30`` or ``2m``) is for the whole request."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    timeout: str | float = 30.0


class Http(Tool[HttpArgs]):
    """Send one request to a web address."""

    name = "http"
    args = HttpArgs
    main = "url"
    effect = "once"

    def prepare(self, args: HttpArgs, context: Context) -> HttpArgs:
        """The arguments with the address in its canonical spelling."""
        try:
            return replace(args, url=str(canonical(args.url)))
        except ToolError:
            return args

    def subject(self, args: HttpArgs) -> str:
        """The canonical address; one that cannot be used stays as it is, for ``run`` to refuse."""
        try:
            return str(canonical(args.url))
        except ToolError:
            return args.url

    def run(self, args: HttpArgs, context: Context) -> ToolResult:
        """The body of the answer, as text. A redirect and any status from 400 on is a ``ToolError``."""
        url = canonical(args.url)
        method = args.method.upper()
        if method not in METHODS:
            raise ToolError(f"method: {args.method!r} is not known; known are: {', '.join(METHODS)}")
        allowed = min(seconds(args.timeout, "timeout"), context.seconds_left())
        if allowed <= 0:
            raise ToolError("the run has no time left")
        exchange = _Exchange(url, method, _headers(args), args.body.encode("utf-8", "replace"), allowed)
        exchange.carry_out(context)
        return _result(exchange, context.max_output)


class _Exchange:
    """One request and its answer, on a thread of its own, so that a slow name server or peer cannot hold up the run."""

    def __init__(self, url: Url, method: str, headers: dict[str, str], body: bytes, allowed: float) -> None:
        self.url, self.method, self.headers, self.body, self.allowed = url, method, headers, body, allowed
        self.status = 0
        self.reason = ""
        self.content = b""
        self.type = ""
        self.charset = ""
        self.encoding = ""
        self.location = ""
        self._sent = False
        self._error: Exception | None = None
        self._connection: HTTPConnection | None = None

    @property
    def name(self) -> str:
        """Method and address, for messages."""
        return f"{self.method} {self.url}"

    def carry_out(self, context: Context) -> None:
        """Do it, within the time. Raises ``ToolError`` where no answer came."""
        thread = threading.Thread(target=self._work, name="http", daemon=True)
        thread.start()
        end = time.monotonic() + self.allowed
        while thread.is_alive():
            thread.join(_BEAT)
            if thread.is_alive() and (time.monotonic() > end or context.stopping()):
                self._abort()
                why = "the daemon stops" if context.stopping() else f"took longer than {format_duration(self.allowed)}"
                raise ToolError(f"{self.name}: {why}{self._doubt()}", retryable=self._may_repeat())
        if self._error is not None:
            raise self._explained(self._error) from self._error

    def _work(self) -> None:
        from http.client import HTTPException

        try:
            self._connection = self._connect()
            self._connection.connect()
            self._sent = True
            self._connection.request(self.method, self.url.target, self.body or None, self.headers)
            with self._connection.getresponse() as answer:
                self._take(answer)
        except (OSError, HTTPException, ValueError) as error:
            self._error = error
        finally:
            if self._connection is not None:
                self._connection.close()

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        if self.url.scheme == "http":
            return HTTPConnection(self.url.host, self.url.port, timeout=self.allowed)
        import ssl

        secure = ssl.create_default_context()
        return HTTPSConnection(self.url.host, self.url.port, timeout=self.allowed, context=secure)

    def _take(self, answer: HTTPResponse) -> None:
        self.status, self.reason = answer.status, answer.reason
        self.type = answer.headers.get_content_type()
        self.charset = answer.headers.get_content_charset() or ""
        self.encoding = answer.headers.get("Content-Encoding", "").strip().lower()
        self.location = answer.headers.get("Location", "")
        self.content = answer.read(MAX_BYTES + 1)
        if answer.length and len(self.content) <= MAX_BYTES:
            raise ConnectionError("the answer broke off")

    def _abort(self) -> None:
        """Wake the thread from whatever it waits for, but for the name server, which has a time-out of its own."""
        import socket

        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which takes the state from the thread
            except OSError:
                pass

    def _may_repeat(self) -> bool:
        return not self._sent or self.method in _REPEATABLE

    def _doubt(self) -> str:
        return "" if self._may_repeat() else "; nobody knows whether the other side has acted on it"

    def _explained(self, error: Exception) -> ToolError:
        import socket

        distrust = getattr(error, "verify_message", "")  # of ssl.SSLCertVerificationError, without importing it
        if distrust:
            return ToolError(f"{self.name}: the certificate is not trusted: {distrust}")
        if isinstance(error, socket.gaierror):
            return ToolError(f"{self.name}: the host {self.url.host} cannot be found: {error.strerror}", retryable=True)
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ToolError(f"{self.name}: {why}{self._doubt()}", retryable=self._may_repeat())


def _headers(args: HttpArgs) -> dict[str, str]:
    """The headers to send. Raises ``ToolError`` for those that would change what the request means to a server."""
    headers = {"User-Agent": "fsagent", "Accept": "*/*", "Accept-Encoding": "identity"}
    given = {name.lower() for name in args.headers}
    for name, value in args.headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS or name.lower().startswith("proxy-"):
            raise ToolError(f"headers: {name!r} cannot be set here; leave it out")
        if not value.isprintable() or not value.isascii():
            raise ToolError(f"headers: the value of {name!r} must be plain ASCII text on one line")
    if args.body and "content-type" not in given:
        json = args.body.lstrip()[:1] in ("{", "[")
        headers["Content-Type"] = "application/json" if json else "text/plain; charset=utf-8"
    return {name: value for name, value in headers.items() if name.lower() not in given} | args.headers


def _result(answer: _Exchange, limit: int) -> ToolResult:
    """The answer for the engine, or the ``ToolError`` that it amounts to."""
    said = f"{answer.status} {answer.reason}".strip()
    if 300 <= answer.status < 400 and answer.location:
        raise ToolError(f"{answer.name}: {said}: it points to {_target(answer)}; ask for that address instead")
    text = _text(answer)
    if answer.status >= 400:
        passing = answer.status in _PASSING or answer.status >= 500
        raise ToolError(f"{answer.name}: {said}\n{clip(text, _SHOWN_ERROR)}".rstrip(), retryable=passing)
    data = {"status": answer.status, "type": answer.type, "url": str(answer.url)}
    return ToolResult(text=clip(text, limit) or said, data=data)


def _text(answer: _Exchange) -> str:
    """The body as text: by its charset, else as it looks; for anything else, what it is."""
    complete = len(answer.content) <= MAX_BYTES
    content = answer.content[:MAX_BYTES]
    try:
        if answer.encoding not in ("", "identity"):
            raise ValueError(answer.encoding)
        if _CHARSET.fullmatch(answer.charset):
            text = content.decode(answer.charset, "replace")
        else:
            text = decode(content, complete=complete)
    except (LookupError, ValueError):
        if answer.encoding or not answer.type.startswith("text/"):
            return f"(no text: {answer.type}, {len(content):,} bytes{'' if complete else ' and more'})"
        text = content.decode("latin-1")
    return text if complete else f"{text}\n… (only the first {MAX_BYTES:,} bytes were read)"


def _target(answer: _Exchange) -> str:
    """Where a redirect points, as an absolute address."""
    from urllib.parse import urljoin

    try:
        return str(canonical(urljoin(str(answer.url), answer.location)))
    except (ToolError, ValueError):
        return repr(answer.location[:200])
