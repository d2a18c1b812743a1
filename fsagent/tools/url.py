"""One spelling per web address, so that a pattern in the settings means what its owner thinks.

``canonical`` gives ``scheme://host[:port]/path[?query]``: lower-case scheme and host (IDNA), the default port left out,
dot segments resolved, percent escapes in one form, no fragment. What browsers and servers read in different ways
(a user name before the host, backslashes, blanks, an IPv4 address that is not four numbers) is refused.

Limit: two addresses that one server happens to treat alike stay two.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from fsagent.errors import ToolError

MAX_URL = 8192

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE)
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_IN_PATH = _UNRESERVED | frozenset("/!$&'()*+,;=:@")
_IN_QUERY = _IN_PATH | frozenset("?")
_PORTS = {"http": 80, "https": 443}


class Url(NamedTuple):
    """A canonical address, in parts. ``target`` is path and query; ``host`` of an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int
    target: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def canonical(url: str) -> Url:
    """The address in its one spelling. Raises ``ToolError`` that says what to write instead."""
    if len(url) > MAX_URL:
        raise ToolError(f"url: is longer than {MAX_URL} characters")
    odd = next((char for char in url if char.isspace() or not char.isprintable() or char == "\\"), "")
    if odd:
        raise ToolError(f"url: must not hold {odd!r}; write %20 for a blank")
    found = _URL.fullmatch(url)
    if not found:
        raise ToolError(f"url: {url!r} is no web address; write for instance https://example.org/page")
    scheme, authority, path, query = found[1].lower(), found[2], found[3], found[4] or ""
    if "@" in authority:
        raise ToolError("url: must not hold a user name or password before the host; send an Authorization header")
    host, port = _host_and_port(authority, scheme)
    return Url(scheme, host, port, _path(path) + _escaped(query, _IN_QUERY))


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?", authority)
    if not found or not found[1]:
        raise ToolError(f"url: {authority!r} is no host; write for instance https://example.org/page")
    port = int(found[2]) if found[2] else _PORTS[scheme]
    if not 0 < port < 65536:
        raise ToolError(f"url: {port} is no port; ports go from 1 to 65535")
    return _host(found[1]), port


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            address = IPv6Address(text[1:-1])
        except ValueError:
            raise ToolError(f"url: {text!r} is no IPv6 address") from None
        if address.scope_id:
            raise ToolError("url: leave the zone (%…) out of the IPv6 address")
        return str(address)
    host = text.lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode().lower()
        except UnicodeError:
            raise ToolError(f"url: {text!r} is no host name") from None
    host = host.removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ToolError(f"url: {text!r} is no host name")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ToolError(f"url: {text!r}: write an IPv4 address as four numbers, such as 192.0.2.1") from None
    return host


def _path(text: str) -> str:
    """The path with escapes in one form and dot segments resolved."""
    kept: list[str] = []
    parts = _escaped(text, _IN_PATH).split("/")[1:] or [""]
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _escaped(text: str, allowed: frozenset[str]) -> str:
    """Percent escapes in one form: none where none is needed, upper case where one is."""

    def plain(escape: re.Match[str]) -> str:
        char = chr(int(escape[1], 16))
        return char if char in _UNRESERVED else f"%{escape[1].upper()}"

    text = _ESCAPE.sub(plain, re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text))
    keep = allowed | {"%"}
    return "".join(char if char in keep else "".join(f"%{byte:02X}" for byte in char.encode()) for char in text)
