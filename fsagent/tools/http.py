"""The tool that speaks to the web: http.

One request to exactly the address that policy saw: no redirects, no proxy, no cookies. A name is resolved once, and
the connection goes to an address that was checked: none of the owner's own network but what the settings list. Header
values may hold ``{{ secrets.NAME }}``, which is filled in when the request is sent and nowhere else.
Limits: http and https only; 1 MiB of an answer is read; a server may send a secret back.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from fsagent.errors import SaidNoError, ToolError
from fsagent.files.fields import format_duration
from fsagent.model import ToolResult
from fsagent.secrets import REFERENCE
from fsagent.tools.base import Context, Home, Network, Tool
from fsagent.tools.network import Resolve, permitted, resolve
from fsagent.tools.text import clip, decode, seconds
from fsagent.tools.url import Url, canonical

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse
    from socket import socket

MAX_BYTES = 1024 * 1024
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")

_REPEATABLE = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
_PASSING = (408, 425, 429)
_OURS = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect")
_URLS = re.compile(r"https?://[^\s<>\"']+", re.IGNORECASE)
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
    """``body`` is sent as UTF-8; ``timeout`` (``30`` or ``2m``) is for the whole request.

    Values of ``headers`` may hold ``{{ secrets.NAME }}``.
    """

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    timeout: str | float = 30.0


class Http(Tool[HttpArgs]):
    """Send one request to a web address. ``resolve`` gives the addresses of a name, as ``network.resolve`` does."""

    name = "http"
    hint = "One web request. Redirects are told, not followed."
    args = HttpArgs
    main = "url"
    effect = "once"

    def __init__(self, resolve: Resolve = resolve) -> None:
        self._resolve = resolve

    def prepare(self, args: HttpArgs, context: Context) -> HttpArgs:
        """The arguments with the address in its canonical spelling."""
        try:
            return replace(args, url=str(canonical(args.url)))
        except ToolError:
            return args

    def named_in(self, args: HttpArgs, text: str) -> bool:
        """True of a plain look at an address that the text names."""
        if args.method.upper() not in ("GET", "HEAD") or args.headers or args.body:
            return False
        return any(self.subject(HttpArgs(url.rstrip(".,;:!?)]}>\"'"))) == args.url for url in _URLS.findall(text))

    def subject(self, args: HttpArgs) -> str:
        """The canonical address; one that cannot be used stays as it is, for ``run`` to refuse."""
        try:
            return str(canonical(args.url))
        except ToolError:
            return args.url

    def run(self, args: HttpArgs, context: Context) -> ToolResult:
        """The body of the answer, as text. A redirect and any status from 400 on is a ``SaidNoError``."""
        url = canonical(args.url)
        method = args.method.upper()
        if method not in METHODS:
            raise ToolError(f"method: {args.method!r} is not known; known are: {', '.join(METHODS)}")
        allowed = min(seconds(args.timeout, "timeout"), context.seconds_left())
        if allowed <= 0:
            raise ToolError("the run has no time left")
        network = context.home.network()
        headers = {name: _with_secrets(value, url, context.home) for name, value in _headers(args).items()}
        body = args.body.encode("utf-8", "replace")
        exchange = _Exchange(url, method, headers, body, allowed, network, self._resolve)
        exchange.carry_out(context)
        return _result(exchange, context.max_output)


class _Exchange:
    """One request and its answer, on a thread of its own, so that a slow name server or peer cannot hold up the run."""

    def __init__(
        self,
        url: Url,
        method: str,
        headers: dict[str, str],
        body: bytes,
        allowed: float,
        network: Network,
        resolve: Resolve,
    ) -> None:
        self.url, self.method, self.body, self.allowed = url, method, body, allowed
        self._network, self._resolve = network, resolve
        self.status = 0
        self.reason = ""
        self.content = b""
        self.type = ""
        self.charset = ""
        self.encoding = ""
        self.location = ""
        self._headers = headers
        self._sent = False
        self._over = False  # nobody waits any more: what has not been sent is not to be
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._socket: socket | None = None

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

        connection: HTTPConnection | None = None
        try:
            found = self._resolve(self.url.host, self.url.port)
            allowed = permitted(self.url.host, found, self._network.private)
            connection = None if self._given_up() else self._connect(allowed)
            if connection is None or self._given_up(sending=True):
                return
            connection.request(self.method, self.url.target, self.body or None, self._headers)
            with connection.getresponse() as answer:
                self._take(answer)
        except (OSError, HTTPException, ValueError, ToolError) as error:
            self._error = error
        finally:
            if connection is not None:
                connection.close()
            elif self._socket is not None:
                self._socket.close()

    def _given_up(self, *, sending: bool = False) -> bool:
        """True if nobody waits any more; else, with ``sending``, the request counts as sent from now on."""
        with self._lock:
            self._sent = sending and not self._over
            return self._over

    def _connect(self, addresses: Sequence[str]) -> HTTPConnection:
        """A connection to the first of these addresses that takes it, and to nothing else, under the host's name."""
        import socket
        from http.client import HTTPConnection, HTTPSConnection

        for number, address in enumerate(addresses, 1):
            try:
                self._socket = socket.create_connection((address, self.url.port), self.allowed)  # nothing to resolve
                break
            except OSError:
                if number == len(addresses) or self._over:
                    raise
        assert self._socket is not None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.url.scheme == "http":
            connection = HTTPConnection(self.url.host, self.url.port)
        else:
            import ssl

            secure = ssl.create_default_context()
            connection = HTTPSConnection(self.url.host, self.url.port, context=secure)
            shaking = secure.wrap_socket(self._socket, server_hostname=self.url.host, do_handshake_on_connect=False)
            self._socket = shaking  # from here on it can be woken
            shaking.do_handshake()
        connection.sock, connection.auto_open = self._socket, 0  # it never connects by itself
        return connection

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
        """Let the thread send nothing any more, and wake it from what it waits for, but for the name server, which has
        a time-out of its own."""
        import socket

        with self._lock:
            self._over = True
        if self._socket is not None:
            try:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # not TLS's own, which takes its state away
            except OSError:
                pass

    def _may_repeat(self) -> bool:
        return not self._sent or self.method in _REPEATABLE

    def _doubt(self) -> str:
        return "" if self._may_repeat() else "; nobody knows whether the other side has acted on it"

    def _explained(self, error: Exception) -> ToolError:
        import socket

        if isinstance(error, ToolError):
            return ToolError(f"{self.name}: {error}")
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


def _with_secrets(value: str, url: Url, home: Home) -> str:
    """A header's value with its secrets. Raises ``ToolError`` for one that may not be sent to this address."""

    def secret(found: re.Match[str]) -> str:
        value = home.secret(found[1], str(url))
        if not value.isprintable() or not value.isascii():
            raise ToolError(f"headers: the secret {found[1]} must be plain ASCII text on one line")
        return value

    return REFERENCE.sub(secret, value)


def _result(answer: _Exchange, limit: int) -> ToolResult:
    """The answer for the engine, or the ``ToolError`` that it amounts to."""
    said = f"{answer.status} {answer.reason}".strip()
    if 300 <= answer.status < 400 and answer.location:
        raise SaidNoError(
            f"{answer.name}: {said}: it points to {_target(answer)}, which was not called. To call "
            "it is a new call, and the policy judges it anew",
            answer.status,
        )
    text = _text(answer)
    if answer.status >= 400:
        passing = answer.status in _PASSING or answer.status >= 500
        words = f"{answer.name}: {said}\n{clip(text, _SHOWN_ERROR)}".rstrip()
        raise SaidNoError(words, answer.status, retryable=passing)
    print_ = hashlib.sha256(answer.content).hexdigest()[:32]
    data = {"status": answer.status, "type": answer.type, "url": str(answer.url), "print": print_}
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
