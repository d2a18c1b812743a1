"""Tokens: who may call the agent over the network, and for what. They lie in ``.fsagent/tokens.json``.

The file can be read by nobody but its owner, from its first byte on, and is only ever replaced as a whole. A damaged
one lets nobody in. Limit: secrets stand in it as they are, so that ``fsagent token`` can show them again; whoever can
read this user's files has them all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from fsagent.errors import ConflictError, NotFoundError, PersonError
from fsagent.files.atomic import read_file, write_atomic
from fsagent.files.fields import nearest
from fsagent.files.locks import lock
from fsagent.workspace.layout import Layout

if TYPE_CHECKING:
    from filelock import FileLock

Scope = Literal["read", "command", "approve", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
OWNER = "owner"
MODE = 0o600
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


class Token(Struct, frozen=True):
    """A name for a caller, the secret that proves it, and what it may do. ``repr`` does not show the secret."""

    name: str
    token: Annotated[str, Meta(min_length=20)]
    scopes: tuple[Scope, ...]
    made: Annotated[datetime, Meta(tz=True)]

    def __repr__(self) -> str:
        return f"Token({self.name!r}, {'+'.join(self.scopes)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("scopes", self.scopes)]


class _File(Struct, frozen=True):
    tokens: tuple[Token, ...]


class Tokens:
    """The tokens of one workspace. Safe to share between threads and processes.

    Every method raises ``PersonError`` where the file is damaged or cannot be read; only ``rotate`` of the owner's
    token writes a damaged one anew.
    """

    def __init__(self, layout: Layout) -> None:
        self._path, self._file, self._locks = layout.tokens, layout.name(layout.tokens), layout.locks
        self._refresh = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._known: tuple[tuple[bytes, Token], ...] = ()

    def list(self) -> Sequence[Token]:
        """All tokens, oldest first."""
        tokens = self._read()
        if tokens is None:
            raise PersonError(f"{self._file} {self._damaged()}")
        return tokens

    def get(self, name: str) -> Token:
        """The token with this name. Raises ``NotFoundError``, as do ``rotate`` and ``remove``."""
        return _named(self.list(), name)

    def make(self, name: str, scopes: Iterable[str]) -> Token:
        """A new token. Raises ``ConflictError`` where the name is taken."""
        token = _new(_checked(name), _ordered(scopes))
        with self._lock():
            tokens = self.list()
            if any(each.name == name for each in tokens):
                raise ConflictError(
                    f"there is a token {name!r} already; take another name, or give it a new secret: "
                    f"fsagent token --rotate {name}"
                )
            self._write([*tokens, token])
        return token

    def rotate(self, name: str) -> Token:
        """A new secret under the same name, with the same scopes; the old one counts no longer, from now on.

        The owner's also repairs a damaged file: it is written anew with this one token.
        """
        with self._lock():
            tokens = self._read()
            if tokens is None and name == OWNER:
                tokens = [_new(OWNER, SCOPES)]
            else:
                tokens = self.list()
                old = _named(tokens, name)
                tokens = [_new(name, old.scopes) if each is old else each for each in tokens]
            self._write(tokens)
        return _named(tokens, name)

    def remove(self, name: str) -> None:
        """Take a token away; it counts no longer, from now on."""
        with self._lock():
            tokens = self.list()
            old = _named(tokens, name)
            self._write([each for each in tokens if each is not old])

    def ensure(self) -> Token:
        """The owner's token, or the oldest one where a person removed that. Raises ``PersonError`` if they removed all.

        Where there is no file yet it is made, with a token ``owner`` for everything; all who ask at once get the same.
        """
        if not self._path.exists():
            with self._lock():
                if not self._path.exists():
                    self._write([_new(OWNER, SCOPES)])
        tokens = self.list()
        return next((each for each in tokens if each.name == OWNER), tokens[0]) if tokens else _named(tokens, OWNER)

    def find(self, secret: str) -> Token | None:
        """The token with this secret, as the file says at this moment; None if there is none.

        How long that takes tells nothing about any secret.
        """
        wanted, found = _digest(secret), None
        for digest, token in self._current():
            if hmac.compare_digest(digest, wanted):
                found = token
        return found

    def trouble(self) -> str:
        """What is wrong with the file: damaged, or open to others; empty where all is well (or there is no file)."""
        try:
            mode = os.stat(self._path).st_mode & 0o777
            self.list()
        except FileNotFoundError:
            return ""
        except PersonError as error:
            return str(error).removeprefix(f"{self._file} ")
        if mode & 0o077:
            return (
                f"is open to others (mode {mode:o}); close it (chmod 600 {self._file}), then give every token a new "
                "secret: fsagent token --rotate NAME"
            )
        return ""

    def _current(self) -> tuple[tuple[bytes, Token], ...]:
        """Every token with the digest of its secret; the file is read again when it has changed."""
        with self._refresh:
            try:
                status = os.stat(self._path)
            except FileNotFoundError:
                return ()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._stamp = None  # what was known counts no longer, also where the new file is damaged
                self._known = tuple((_digest(token.token), token) for token in self.list())
                self._stamp = stamp
            return self._known

    def _read(self) -> Sequence[Token] | None:
        """What the file holds; None where it is damaged."""
        try:
            tokens = msgspec.json.decode(read_file(self._path), type=_File).tokens
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PersonError(f"{self._file} cannot be read: {os.strerror(error.errno or 0)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        names = [token.name for token in tokens]
        return list(tokens) if len(set(names)) == len(names) and all(map(_NAME.fullmatch, names)) else None

    def _damaged(self) -> str:
        return (
            "is damaged, so it lets nobody in; mend it by hand, or write it anew with one new token "
            f"(all others are gone then): fsagent token --rotate {OWNER}"
        )

    def _write(self, tokens: Iterable[Token]) -> None:
        data = msgspec.json.format(msgspec.json.encode(_File(tuple(tokens))), indent=2) + b"\n"
        write_atomic(self._path, data, mode=MODE)

    def _lock(self) -> FileLock:
        self._locks.mkdir(exist_ok=True)
        return lock(self._locks / "tokens.lock")


def _new(name: str, scopes: tuple[Scope, ...]) -> Token:
    return Token(name, "fsa_" + secrets.token_urlsafe(32), scopes, datetime.now(UTC).replace(microsecond=0))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise PersonError(
            f"{name!r} cannot be the name of a token; write at most 40 letters, digits, '-', '_' and '.', and begin "
            "with a letter or digit: for instance phone"
        )
    return name


def _ordered(scopes: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes, checked, each once."""
    wanted = list(scopes)
    for scope in wanted:
        if scope not in SCOPES:
            raise PersonError(f"there is no scope {scope!r}{nearest(scope, SCOPES)}; there are: {', '.join(SCOPES)}")
    if not wanted:
        raise PersonError(f"a token needs a scope, or it opens nothing; there are: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)


def _named(tokens: Sequence[Token], name: str) -> Token:
    for token in tokens:
        if token.name == name:
            return token
    names = [token.name for token in tokens]
    known = f"there are: {', '.join(names)}" if names else "there are none"
    raise NotFoundError(
        f"there is no token {name!r}{nearest(name, names)}; {known}. To make one: fsagent token {name} --make"
    )
