"""Markdown with frontmatter: bytes on a disk to settings and text, and back.

python-frontmatter finds and writes the ``---`` block; its content goes through ``yamltext``.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Any

import frontmatter
from frontmatter.default_handlers import YAMLHandler
from msgspec import Struct
from ruamel.yaml.comments import CommentedMap

from fsagent.errors import DocumentError
from fsagent.files import yamltext
from fsagent.model import MAX_DOCUMENT, Fault

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Document(Struct, frozen=True):
    """A markdown file, read. ``fields`` is a map of text (see ``yamltext``) whose first line is ``first_line``.

    ``body`` has LF line ends and no blank lines around it; the file itself is never changed by reading.
    """

    file: str
    fields: CommentedMap
    body: str
    first_line: int = 1


class _Frontmatter(YAMLHandler):
    """python-frontmatter's YAML handler over our own reading and writing of YAML."""

    FM_BOUNDARY = re.compile(r"^-{3}[ \t]*$", re.MULTILINE)

    def __init__(self, file: str = "", first_line: int = 1) -> None:
        super().__init__()
        self.file = file
        self.first_line = first_line

    def load(self, fm: str, **_: object) -> CommentedMap:
        return yamltext.load_mapping(fm, self.file, self.first_line)

    def export(self, metadata: Mapping[str, object], **_: object) -> str:
        return yamltext.dump_mapping(metadata).strip("\n")


def decode(raw: bytes, file: str) -> tuple[str, str]:
    """Text and encoding of a file: UTF-8 with or without BOM, UTF-16 with or without BOM. Line ends stay as they are.

    Raises ``DocumentError`` naming the line for anything else, and for files over ``MAX_DOCUMENT``.
    """
    if len(raw) > MAX_DOCUMENT:
        raise DocumentError([Fault(file, f"is larger than {MAX_DOCUMENT // 1024} KiB; attach large texts as files")])
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            return _decode_as(raw[len(bom) :], encoding, file), encoding
    if len(raw) >= 4 and len(raw) % 2 == 0:
        sample = raw[:2000]
        for encoding, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[0::2])):
            if zeros.count(0) * 10 >= len(zeros) * 6:
                return _decode_as(raw, encoding, file), encoding
    return _decode_as(raw, "utf-8", file), "utf-8"


def _decode_as(raw: bytes, encoding: str, file: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        before = raw[: error.start].replace(b"\r\n", b"\n")
        line = before.count(b"\n") + before.count(b"\r") + 1
        byte = f"0x{raw[error.start]:02X}"
        raise DocumentError(
            [Fault(file, f"is not {encoding.upper()} text (byte {byte}); save it as UTF-8", line)]
        ) from None


def read_document(raw: bytes, file: str) -> Document:
    """Understand a markdown file; ``file`` is its name in messages. Raises ``DocumentError``, never anything else."""
    text, _ = decode(raw, file)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    stripped = text.lstrip("\n \t")
    skipped = text.count("\n", 0, len(text) - len(stripped))
    handler = _Frontmatter(file, skipped + 1)
    if not handler.detect(stripped):
        return Document(file, CommentedMap(), text.strip("\n \t"))
    try:
        header, body = handler.split(stripped)
    except ValueError:
        line = skipped + 1
        raise DocumentError(
            [Fault(file, "the settings opened by --- on this line are never closed by a second ---", line)]
        ) from None
    return Document(file, handler.load(header), body.strip("\n \t"), skipped + 1)


def write_document(fields: Mapping[str, Any], body: str) -> bytes:
    """A new markdown file of ours: typed frontmatter, then the text, UTF-8 with LF and one final newline."""
    post = frontmatter.Post(body, None)
    post.metadata = dict(fields)
    return (frontmatter.dumps(post, handler=_Frontmatter()) + "\n").encode("utf-8", "backslashreplace")
