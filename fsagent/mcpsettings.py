"""Settings of MCP servers: whose tools the agent may use, and how they are started or reached. A part of ``config``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fsagent.files.fields import Duration, convert, nearest

MAX_NAME = 32

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_GAP = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_Path = tuple[str | int, ...]


class ServerSettings(Struct, frozen=True, kw_only=True):
    """One server: a program that is started (``command``), or an address (``url``).

    ``timeout`` is for one call. With ``read_only: trust`` the owner believes the server where it says that a tool only
    reads. ``type`` need be said only for an old server that speaks ``sse``.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}
    type: Literal["", "stdio", "http", "streamable-http", "sse"] = ""
    enabled: bool = True
    timeout: Duration = Duration(60)
    read_only: Literal["ignore", "trust"] = "ignore"


class McpServer(Struct, frozen=True, kw_only=True):
    """A server as it is to be started or called: every ``${NAME}`` filled in. ``secrets`` are what was filled in.

    ``trouble`` says why it can be neither started nor called (a variable is missing); then nothing is filled in.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}
    sse: bool = False
    timeout: float = 60.0
    trusted: bool = False
    secrets: tuple[str, ...] = ()
    trouble: str = ""

    def without_secrets(self, text: str) -> str:
        """``text`` with what was filled in, and the values of headers and variables, left out."""
        for secret in sorted({*self.secrets, *self.env.values(), *self.headers.values()}, key=len, reverse=True):
            if len(secret) >= 6:
                text = text.replace(secret, "…")
        return text


def servers_of(raw: Mapping[str, Any]) -> dict[str, ServerSettings]:
    """The servers by name, of settings that were found good."""
    return {name: _read(fields) for name, fields in raw.items()}


def filled(name: str, server: ServerSettings, environment: Mapping[str, str]) -> McpServer:
    """The server with every ``${NAME}`` from ``environment``; ``${NAME:-text}`` takes ``text`` where there is none.

    An empty variable counts as missing, for an empty secret would only fail later, with less clear words.
    """
    missing: list[str] = []
    found: list[str] = []

    def fill(text: str) -> str:
        def one(gap: re.Match[str]) -> str:
            known = _VARIABLE.fullmatch(gap[1])
            value = environment.get(known[1], "") if known else ""
            if known and value:
                found.append(value)
            elif known and known[2] is not None:
                value = known[2]
            else:
                missing.append(known[1] if known else gap[0])
            return value

        return _GAP.sub(one, text)

    whole = McpServer(
        name=name, command=server.command, args=tuple(map(fill, server.args)), url=fill(server.url),
        env={key: fill(value) for key, value in server.env.items()}, timeout=float(server.timeout),
        headers={key: fill(value) for key, value in server.headers.items()}, sse=server.type == "sse",
        trusted=server.read_only == "trust", secrets=tuple(dict.fromkeys(found)),
    )  # fmt: skip
    if not missing:
        broken = [key for key, value in whole.headers.items() if not value.isprintable() or not value.isascii()]
        if not broken:
            return whole
        words = f"the header {broken[0]} is no plain ASCII text on one line"
    else:
        names = ", ".join(dict.fromkeys(missing))
        words = f"the environment has no {names}; set it where fsagent is started"
    return McpServer(name=name, timeout=whole.timeout, trusted=whole.trusted, trouble=words)


def server_faults(servers: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    """What is wrong with the servers, each with its place below ``mcp_servers``."""
    known = ServerSettings.__struct_fields__
    for name, fields in servers.items():
        if not _NAME.fullmatch(name) or "__" in name or len(name) > MAX_NAME:
            rule = f"letters, digits, - and _ (one at a time, not at the ends), at most {MAX_NAME}"
            yield (name,), f"{name!r} is no name for a server; use {rule}"
        if not isinstance(fields, dict):
            yield (name,), "must be a map, such as {command: npx, args: [...]} or {url: http://...}"
            continue
        wrong = [*_unknown(name, fields, known), *_types(name, fields)]
        yield from wrong or _senseless(name, _read(fields))


def _read(fields: Mapping[str, Any]) -> ServerSettings:
    types = {each.name: each.type for each in msgspec.structs.fields(ServerSettings)}
    return ServerSettings(**{name: convert(value, types[name]) for name, value in fields.items() if value != ""})


def _unknown(name: str, fields: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[tuple[_Path, str]]:
    for field in fields:
        if field not in known:
            yield (name, field), f"is not known here{nearest(field, known)}; known are: {', '.join(known)}"


def _types(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    for each in msgspec.structs.fields(ServerSettings):
        if fields.get(each.name, "") != "":
            try:
                convert(fields[each.name], each.type)
            except (ValueError, msgspec.ValidationError) as error:
                yield (name, each.name), _words(each.name, str(error))


def _words(field: str, error: str) -> str:
    wanted = {
        "args": "must be a list of texts", "env": "must be a map from names to texts",
        "headers": "must be a map from names to texts", "enabled": "must be true or false",
        "read_only": "must be ignore or trust", "type": "must be stdio, http or sse",
    }  # fmt: skip
    return wanted.get(field, error.partition(" - at `")[0])


def _senseless(name: str, server: ServerSettings) -> Iterator[tuple[_Path, str]]:
    if bool(server.command) == bool(server.url):
        yield (name,), "needs either a command (a program to start) or a url (an address to call)"
    for field in ("headers",) if server.command else ("args", "env"):
        if getattr(server, field):
            yield (name, field), f"goes with {'url' if server.command else 'command'} only"
    if server.type and (server.type == "stdio") != bool(server.command):
        yield (name, "type"), "must be stdio for a command, http or sse for a url; leave it out"
    if server.url and not _URL.fullmatch(server.url) and not server.url.startswith("${"):
        yield (name, "url"), f"{server.url!r} is no address; write for instance http://ha.local:8123/api/mcp"
    if not 0.1 <= server.timeout <= 3600:
        yield (name, "timeout"), "must be between 0.1s and 1h"
    for header in server.headers:
        if not _HEADER.fullmatch(header):
            yield (name, "headers", header), "is no name of a header"
    texts: list[tuple[_Path, str]] = [((name, "args", number), text) for number, text in enumerate(server.args)]
    texts += [((name, "url"), server.url)]
    texts += [((name, "env", key), text) for key, text in server.env.items()]
    texts += [((name, "headers", key), text) for key, text in server.headers.items()]
    for path, text in texts:
        if "\0" in text:
            yield path, "must not hold a zero byte"
        for gap in _GAP.findall(text):
            if not _VARIABLE.fullmatch(gap):
                yield path, f"${{{gap}}} names no environment variable; write for instance ${{HA_TOKEN}}"
