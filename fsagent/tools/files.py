"""The tools that read and write files: read, write, append, edit.

All paths go through the context's ``SafeRoot``. Limits: text only (UTF-8 or UTF-16); a person who saves the same file
in the same instant may win over ``append`` and ``edit``, as between any two programs.

Results of what changes a file carry its ``diff``, made when all is written. Limits: ``write`` compares with what stood
there a moment before; a ``write`` that is made again after a crash shows only what was still to change.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.paths import SafeRoot
from fsagent.model import ToolResult
from fsagent.tools.base import Context
from fsagent.tools.diff import appended, diff, note
from fsagent.tools.place import FileTool, PathArgs, count, on_disk, relative
from fsagent.tools.text import decode, detect

MAX_EDIT = 10 * 1024 * 1024
MAX_WAIT = 2.0
MAX_OLD = 1024 * 1024
"""How many bytes of a file's old content ``write`` reads, for its diff alone."""
_HEAD = 64 * 1024


class TextArgs(PathArgs, frozen=True, forbid_unknown_fields=True):
    """``text`` is the text to write, or the lines to add."""

    text: str


class EditArgs(PathArgs, frozen=True, forbid_unknown_fields=True):
    """``old`` must occur exactly once and becomes ``new``."""

    old: str
    new: str


class ReadArgs(PathArgs, frozen=True, forbid_unknown_fields=True):
    """``start`` is the line to begin with, from 1."""

    path: str
    start: int = 1


class Read(FileTool[ReadArgs]):
    """The text of a file."""

    name = "read"
    pages = True
    args = ReadArgs
    effect = "read"
    hint = "The text of a file. start: the line to begin with (from 1)."

    def run(self, args: ReadArgs, context: Context) -> ToolResult:
        """The text from ``start`` on, at most ``max_output`` characters of it; says how to go on where that is not all.

        Limit: ``start`` looks for its line in the first ``MAX_EDIT`` bytes.
        """
        path = relative(args.path, context.root)
        most = 4 * context.max_output if args.start <= 1 else MAX_EDIT
        with on_disk(path), _reading(context.root, path) as fd:
            size = os.fstat(fd).st_size
            raw = _pread(fd, most, 0)
        text = _text(raw, path, complete=len(raw) >= size)
        if args.start > 1:
            text = "".join(text.splitlines(keepends=True)[args.start - 1 :])
            if not text:
                raise ToolError(f"{path}: has no line {args.start}")
        if len(text) <= context.max_output and len(raw) >= size:
            return ToolResult(text=text)
        shown = text[: context.max_output]
        if args.start <= 1 and "\n" not in shown:
            return ToolResult(text=f"{shown}\n… (only the first {len(shown):,} characters of {size:,} bytes are shown)")
        going_on = args.start + shown.count("\n")
        part = f"the first {len(shown):,} characters" if args.start <= 1 else f"{len(shown):,} characters"
        return ToolResult(text=f"{shown}\n… (only {part} of {size:,} bytes are shown; go on with start: {going_on})")


class Write(FileTool[TextArgs]):
    """Make a file, or replace all of it."""

    name = "write"
    hint = "Make a file, or replace all of it."
    args = TextArgs
    effect = "repeatable"

    def run(self, args: TextArgs, context: Context) -> ToolResult:
        """Write exactly ``text``; readers see the old file or the new one, nothing between."""
        path = relative(args.path, context.root)
        with on_disk(path):
            new = _encoded(args.text, "utf-8")
            old, unknown = _standing(path, context.root)
            context.root.replace(path, new)
        shown = note(path, f"{unknown} was replaced by {count(len(new), 'byte')}") if unknown else diff(path, old, new)
        return ToolResult(text=f"wrote {path} ({count(len(args.text), 'character')})", changed=(path,), diff=shown)

    def preview(self, args: TextArgs, context: Context) -> str:
        """The diff from what stands there now."""
        path = relative(args.path, context.root)
        new = _encoded(args.text, "utf-8")
        old, unknown = _standing(path, context.root)
        return (
            note(path, f"{unknown} will be replaced by {count(len(new), 'byte')}") if unknown else diff(path, old, new)
        )


class Append(FileTool[TextArgs]):
    """Add whole lines to the end of a file."""

    name = "append"
    hint = "Add whole lines at the end of a file."
    args = TextArgs
    effect = "once"

    def run(self, args: TextArgs, context: Context) -> ToolResult:
        """Add the lines in one write: all of them or, where the disk says no, none."""
        path = relative(args.path, context.root)
        with on_disk(path):
            fd = _open_alone(context.root, path)
            try:
                size = os.fstat(fd).st_size
                added = _added(args.text, fd, size)
                _write_whole(fd, added.raw, size)
                os.fsync(fd)
            finally:
                os.close(fd)
        return self._done(path, args, size, added)

    def preview(self, args: TextArgs, context: Context) -> str:
        """The lines where they would be added now."""
        path = relative(args.path, context.root)
        with on_disk(path):
            try:
                with _reading(context.root, path) as fd:
                    size = os.fstat(fd).st_size
                    added = _added(args.text, fd, size)
            except FileNotFoundError:
                return diff(path, None, _encoded(args.text.replace("\r\n", "\n").removesuffix("\n") + "\n", "utf-8"))
        return appended(path, added.head, size, added.raw, closes=added.closes)

    def before(self, args: TextArgs, context: Context) -> dict[str, Any] | None:
        """The file's size and a checksum of its last bytes."""
        try:
            with _reading(context.root, args.path) as fd:
                size = os.fstat(fd).st_size
                return {"size": size, "tail": _checksum(fd, size)}
        except FileNotFoundError:
            return {"size": 0, "tail": 0}
        except (OSError, UnsafePathError):
            return None

    def happened(self, args: TextArgs, context: Context, before: dict[str, Any]) -> ToolResult | Literal[False] | None:
        """Looks for the lines where they would have been added; None where the file changed in another way since."""
        if not before:
            return None
        start = int(before["size"])
        try:
            with _reading(context.root, args.path) as fd:
                if os.fstat(fd).st_size < start or _checksum(fd, start) != before.get("tail"):
                    return None
                added = _added(args.text, fd, start)
                after = _pread(fd, MAX_EDIT, start)
        except FileNotFoundError:
            return False if start == 0 else None
        except (OSError, UnsafePathError):
            return None
        if after.startswith(added.raw):
            return self._done(context.root.normalize(args.path), args, start, added)
        torn = after and added.raw.startswith(after)
        return None if torn or added.raw in after else False

    def _done(self, path: str, args: TextArgs, size: int, added: _Added) -> ToolResult:
        lines = args.text.count("\n") + (not args.text.endswith("\n"))
        shown = appended(path, added.head, size, added.raw, closes=added.closes)
        return ToolResult(text=f"added {count(lines, 'line')} to {path}", changed=(path,), diff=shown)


class Edit(FileTool[EditArgs]):
    """Replace one passage of a file."""

    name = "edit"
    hint = "Replace the one passage old by new; copy old exactly."
    args = EditArgs
    effect = "once"

    def run(self, args: EditArgs, context: Context) -> ToolResult:
        """Replace ``old``, which must occur exactly once, by ``new``; encoding and line ends stay as they are."""
        path = relative(args.path, context.root)
        with on_disk(path):
            old = context.root.read(path, MAX_EDIT + 1)
            new, line = _edited(args, old)
            context.root.replace(path, new)
        return self._done(path, line, diff(path, old, new))

    def preview(self, args: EditArgs, context: Context) -> str:
        """The diff of the edit as the file is now."""
        path = relative(args.path, context.root)
        with on_disk(path):
            old = context.root.read(path, MAX_EDIT + 1)
        return diff(path, old, _edited(args, old)[0])

    def before(self, args: EditArgs, context: Context) -> dict[str, Any] | None:
        """Checksums of the file as it is and as it will be."""
        try:
            old = context.root.read(args.path, MAX_EDIT + 1)
            new, line = _edited(args, old)
        except (OSError, UnsafePathError, ToolError):
            return None
        return {"old": zlib.crc32(old), "new": zlib.crc32(new), "line": line}

    def happened(self, args: EditArgs, context: Context, before: dict[str, Any]) -> ToolResult | Literal[False] | None:
        """Compares the file's checksum; None where it is neither the old nor the new one.

        The diff is known where the edit can be undone (``new`` stands in one place alone), and else left out.
        """
        if not before:
            return None
        try:
            raw = context.root.read(args.path, MAX_EDIT + 1)
        except (OSError, UnsafePathError):
            return None
        if zlib.crc32(raw) != before["new"]:
            return False if zlib.crc32(raw) == before["old"] else None
        path = context.root.normalize(args.path)
        try:
            old, _ = _edited(EditArgs(args.path, args.new, args.old), raw)
        except ToolError:
            return self._done(path, before["line"], "")
        return self._done(path, before["line"], diff(path, old, raw) if zlib.crc32(old) == before["old"] else "")

    def _done(self, path: str, line: int, shown: str) -> ToolResult:
        return ToolResult(text=f"changed {path} at line {line}", changed=(path,), diff=shown)


@contextmanager
def _reading(root: SafeRoot, path: str) -> Iterator[int]:
    fd = root.open_read(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _standing(path: str, root: SafeRoot) -> tuple[bytes | None, str]:
    """The content that ``write`` is about to replace (None where there is none), or in words why it is not known."""
    try:
        old = root.read(path, MAX_OLD + 1)
    except FileNotFoundError:
        return None, ""
    except (OSError, UnsafePathError):
        return None, "content that cannot be read"
    return (old, "") if len(old) <= MAX_OLD else (None, f"content of more than {MAX_OLD // 1024 // 1024} MiB")


def _pread(fd: int, size: int, start: int) -> bytes:
    """``size`` bytes from ``start``, fewer only where the file ends."""
    chunks: list[bytes] = []
    while size > 0 and (chunk := os.pread(fd, size, start)):
        chunks.append(chunk)
        start, size = start + len(chunk), size - len(chunk)
    return b"".join(chunks)


def _checksum(fd: int, end: int) -> int:
    """A checksum of the last bytes before ``end``."""
    start = max(0, end - 4096)
    return zlib.crc32(_pread(fd, end - start, start))


def _text(raw: bytes, path: str, *, complete: bool = True) -> str:
    try:
        return decode(raw, complete=complete)
    except ValueError:
        raise ToolError(f"{path!r} is no text file (neither UTF-8 nor UTF-16)") from None


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise ToolError(f"text: character {error.start + 1} is half a character and cannot be written") from None


class _Added(NamedTuple):
    """``raw`` is what ``append`` writes to a file with the first bytes ``head``; ``closes`` if it ends a line there."""

    raw: bytes
    head: bytes
    closes: bool


def _added(text: str, fd: int, size: int) -> _Added:
    """The bytes that add ``text`` as whole lines to a file of ``size`` bytes, in its encoding and line ends."""
    head = _pread(fd, min(size, _HEAD), 0)
    encoding, mark = detect(head)
    newline = "\n".encode(encoding)
    text = text.replace("\r\n", "\n")
    if not text.endswith("\n"):
        text += "\n"
    closes = size > len(mark) and _pread(fd, len(newline), size - len(newline)) != newline
    if closes:
        text = "\n" + text
    if "\r\n".encode(encoding) in head:
        text = text.replace("\n", "\r\n")
    return _Added(_encoded(text, encoding), head, closes)


def _open_alone(root: SafeRoot, path: str) -> int:
    """The file for appending, locked against other appends (by ``flock``, so those of other processes too).

    Without the lock two of them could both see a line without its end. Waits at most ``MAX_WAIT`` seconds: a lock that
    some other program holds for good is passed over.
    """
    end = time.monotonic() + MAX_WAIT
    while True:
        fd = root.open_append(path)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        return fd
                    time.sleep(0.002)
            if os.fstat(fd).st_nlink or time.monotonic() > end:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # replaced by another file while we waited


def _write_whole(fd: int, lines: bytes, size: int) -> None:
    """Write all, or take back what was written (unless somebody else has added to the file meanwhile)."""
    written = 0
    try:
        while written < len(lines):
            written += os.write(fd, lines[written:])
    except OSError:
        if written and os.fstat(fd).st_size == size + written:
            os.ftruncate(fd, size)
        raise


def _edited(args: EditArgs, raw: bytes) -> tuple[bytes, int]:
    """The file's bytes after the edit, and the line where it begins; ``raw`` are its bytes before."""
    if len(raw) > MAX_EDIT:
        raise ToolError(f"{args.path!r} is larger than {MAX_EDIT // 1024 // 1024} MiB, too large to edit")
    if not args.old or args.old == args.new:
        raise ToolError("old: write the text that stands there now, and in new what shall stand there instead")
    text, (encoding, mark) = _text(raw, args.path), detect(raw)
    old, new = args.old, args.new
    if "\r\n" in text and "\r\n" not in old:
        old, new = old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n")
    at = [text.find(old)]
    while at[-1] >= 0:
        at.append(text.find(old, at[-1] + 1))
    places = [text.count("\n", 0, start) + 1 for start in at[:11] if start >= 0]
    if not places:
        raise ToolError(f"{args.path!r} does not hold the text of old; read it and copy the passage exactly")
    if len(places) > 1:
        lines = ", ".join(map(str, places[:10])) + (" …" if len(at) > 11 else "")
        raise ToolError(f"{args.path!r} holds that text more than once (lines {lines}); write more of the passage")
    return mark + _encoded(text[: at[0]] + new + text[at[0] + len(old) :], encoding), places[0]
