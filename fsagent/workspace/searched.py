"""The words by which runs are found: what of a run is searched, and what a person looks for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fsagent.errors import DocumentError
from fsagent.model import Run
from fsagent.workspace.runs import RunFolder

MAX_TEXT = 64 * 1024
MAX_QUERY = 1_000
_QUOTES = str.maketrans("“”„«»\0", '""""" ')


def phrases(query: str) -> list[tuple[str, bool]]:
    """What a person looks for, in order: single words and what stands in quotes, never with a quote in it.

    With each goes whether it is whole; the last one may be the beginning of more, unless its quotes are closed.
    """
    parts = re.findall(r'"([^"]*)("?)|([^\s"]+)', plain(query[:MAX_QUERY].translate(_QUOTES)))
    found = [(text, bool(closed)) for quoted, closed, word in parts if any(map(str.isalnum, text := quoted or word))]
    return [(text, True) for text, _ in found[:-1]] + found[-1:]


def command_text(folder: RunFolder) -> str:
    """A command's text as ``Index.put`` wants it: as much of its file as is searched, however it was written."""
    from fsagent.files.documents import decode

    try:
        raw = folder.raw()[:MAX_TEXT]
    except FileNotFoundError:
        return ""
    try:
        return decode(raw, folder.run)[0]
    except DocumentError:
        return raw.decode("utf-8", "replace")


def texts_of(run: Run, text: str) -> list[str]:
    """What a settled run is found by."""
    return [plain(each[:MAX_TEXT]) for each in (run.command, text, run.answer, run.error)]


def digest_of(texts: Sequence[str]) -> bytes:
    import hashlib  # not for those who only read

    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()


def plain(text: str) -> str:
    """Text that SQLite takes: file names may hold what is no UTF-8."""
    return text.encode("utf-8", "replace").decode()
