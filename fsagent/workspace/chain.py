"""The chain that holds the journal together: each record has a number and a hash over itself and the record before.

A record is one line, ``{"time": …, …, "seq": 17, "hash": "…"}``; the hash is BLAKE2b (16 bytes) of the hash before it
and of the line's bytes up to it. So nothing can be altered, moved or taken out without showing, but for what comes at
the very end: a chain does not know what nothing follows. Therefore ``head.json`` beside the months names the newest
record that was known to be on the disk, written every ``HEAD_EVERY`` seconds at the most and when the daemon ends.

Limit: it has no key. It shows accidents and careless hands; who rewrites all from some record on, and head.json too,
is not seen.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.files.atomic import read_file, write_atomic

HEAD = "head.json"
HEAD_EVERY = 10.0
_BLOCK = 64 * 1024
_LINE = re.compile(rb'(\{.*,"seq":([1-9][0-9]{0,17})),"hash":"([0-9a-f]{32})"\}\n?', re.DOTALL)


class Link(Struct, frozen=True):
    """A record's place in the chain; number 0 is the place before the first."""

    number: int = 0
    hash: str = ""


class Chained(Struct, frozen=True):
    """A line of the chain, taken apart: its place as it claims, and the bytes that its hash is over."""

    link: Link
    body: bytes

    def follows(self, before: str) -> bool:
        """True if it is as it was written, behind the record with this hash."""
        return _hash(before, self.body) == self.link.hash


def chain(before: Link, record: bytes) -> tuple[bytes, Link]:
    """The line of a record (a JSON object that is not empty) that comes behind another, and its own place."""
    number = before.number + 1
    body = b'%b,"seq":%d' % (record[:-1], number)
    link = Link(number, _hash(before.hash, body))
    return b'%b,"hash":"%b"}\n' % (body, link.hash.encode()), link


def chained(line: bytes) -> Chained | None:
    """A line taken apart; None for what is no part of a chain: torn, damaged, or a record of earlier versions."""
    found = _LINE.fullmatch(line)
    return Chained(Link(int(found[2]), found[3].decode()), found[1]) if found else None


def newest_link(folder: Path) -> Link:
    """Where the chain goes on: behind the newest record that is there, or was known to be."""
    links = [read_head(folder)]
    for path in folder.glob("????-??.jsonl"):
        with suppress(OSError):  # the journal goes on, whatever became of its past
            links.append(_last_of(path))
    return max(links, key=lambda link: link.number)


def read_head(folder: Path) -> Link:
    """The newest record that was known to be on the disk; number 0 where nothing is known."""
    try:
        return msgspec.json.decode(read_file(folder / HEAD), type=Link)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Link()


def write_head(folder: Path, link: Link) -> None:
    """Name the newest record, which must be on the disk. What cannot be written is left out: an old head is true."""
    with suppress(OSError):
        write_atomic(folder / HEAD, msgspec.json.encode(link) + b"\n", durable=False)


def _last_of(path: Path) -> Link:
    """The place of a file's last whole record, read from its end; number 0 where that one is not chained."""
    with path.open("rb") as file:
        start, tail = file.seek(0, os.SEEK_END), b""
        while start:
            step = min(_BLOCK, start)
            start -= step
            file.seek(start)
            lines = (file.read(step) + tail).split(b"\n")
            for line in reversed(lines[1:] if start else lines):
                if found := chained(line):
                    return found.link
                if _is_record(line):
                    return Link()
            tail = lines[0]
    return Link()


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _hash(before: str, body: bytes) -> str:
    return hashlib.blake2b(before.encode() + body, digest_size=16).hexdigest()
