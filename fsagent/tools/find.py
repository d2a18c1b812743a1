"""The tools that find files: list, search_files.

Hidden and temporary names, links and what may not be read are passed over. Both are bounded in files, time and output,
and say where they stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath

from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.names import is_temporary, skip_directory
from fsagent.files.paths import Entry, SafeRoot
from fsagent.model import ToolResult
from fsagent.printable import visible
from fsagent.tools.base import Context
from fsagent.tools.place import FileTool, PathArgs, count, on_disk, relative
from fsagent.tools.text import clip, decode

MAX_LISTED = 2_000
MAX_FILES = 10_000
MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_FOUND = 200
MAX_SECONDS = 10.0
MAX_LINE = 300


class ListArgs(PathArgs, frozen=True, forbid_unknown_fields=True):
    """``pattern`` is matched against names (``*.md``); with a ``/`` in it (``**/*.md``) folders are searched too."""

    path: str = "."
    pattern: str = ""


class SearchArgs(PathArgs, frozen=True, forbid_unknown_fields=True):
    """``query`` is plain text, found in any case; ``path`` a folder or a file."""

    path: str = "."
    query: str = ""


class List(FileTool[ListArgs]):
    """What lies in a folder."""

    name = "list"
    hint = "What lies in a folder. pattern: *.md, or **/*.md for subfolders too."
    args = ListArgs
    effect = "read"

    def run(self, args: ListArgs, context: Context) -> ToolResult:
        """One line per name, sorted: folders end in ``/``, files have their size; what is not shown is counted."""
        path = relative(args.path, context.root)
        with on_disk(path):
            found = _below(context.root, path) if "/" in args.pattern else context.root.list_dir(path)
        shown = [entry for entry in found if not _hidden(entry)]
        hidden = len(found) - len(shown)
        if args.pattern:
            pattern = args.pattern.replace("**/", "")
            shown = [entry for entry in shown if PurePosixPath(entry.name).match(pattern)]
        lines = [_listed(entry) for entry in shown[:MAX_LISTED]] or ["nothing"]
        if len(shown) > MAX_LISTED:
            lines.append(f"… and {len(shown) - MAX_LISTED:,} more")
        if hidden:
            lines.append(f"({count(hidden, 'hidden or temporary name')} not shown)")
        return ToolResult(text=clip("\n".join(lines), context.max_output))


class SearchFiles(FileTool[SearchArgs]):
    """Lines that hold a text."""

    name = "search_files"
    hint = "Lines of files that hold a plain text, in any case."
    args = SearchArgs
    main = "query"
    effect = "read"

    def run(self, args: SearchArgs, context: Context) -> ToolResult:
        """``file:line: text`` for every line found, in the order of the files; says where it stopped looking."""
        if not args.query.strip() or "\n" in args.query:
            raise ToolError("query: write the text to look for, on one line")
        path, query = relative(args.path, context.root), args.query.casefold()
        end = time.monotonic() + min(MAX_SECONDS, context.seconds_left())
        found: list[str] = []
        looked, stopped = 0, ""
        with on_disk(path):
            for entry in _files(context.root, path):
                if looked >= MAX_FILES or time.monotonic() > end or context.stopping():
                    stopped = f"(stopped after {count(looked, 'file')}: name a folder to search in)"
                    break
                looked += 1
                found += _found(context.root, entry, query)
                if len(found) > MAX_FOUND:
                    stopped = f"(stopped after {MAX_FOUND} lines: search for something rarer)"
                    break
        lines = found[:MAX_FOUND] or [f"no line holds {args.query!r} ({count(looked, 'file')} searched)"]
        return ToolResult(text=clip("\n".join([*lines, stopped] if stopped else lines), context.max_output))


def _hidden(entry: Entry) -> bool:
    name = entry.name.rpartition("/")[2]
    return skip_directory(name) if entry.kind == "folder" else is_temporary(name)


def _below(root: SafeRoot, path: str) -> list[Entry]:
    """The files in a folder and its folders, named relative to it, at most ``MAX_FILES``."""
    below = "" if path == "." else path + "/"
    return [entry._replace(name=entry.name.removeprefix(below)) for entry in islice(_files(root, path), MAX_FILES)]


def _files(root: SafeRoot, path: str) -> Iterator[Entry]:
    """All files in a folder and its folders, as entries named by their path; or the file itself."""
    ahead = [path]
    while ahead:
        folder = ahead.pop()
        try:
            entries = root.list_dir(folder)
        except NotADirectoryError:
            yield Entry(folder, "file", 0)
            continue
        except (OSError, UnsafePathError):
            if folder == path:
                raise
            continue  # gone meanwhile, or not ours to read
        below = "" if folder == "." else folder + "/"
        shown = [entry for entry in entries if not _hidden(entry)]
        yield from (entry._replace(name=below + entry.name) for entry in shown if entry.kind == "file")
        ahead += reversed([below + entry.name for entry in shown if entry.kind == "folder"])


def _found(root: SafeRoot, entry: Entry, query: str) -> list[str]:
    """The lines of one file that hold ``query``; none where it is no text or cannot be read."""
    try:
        text = decode(root.read(entry.name, MAX_FILE_BYTES), complete=entry.size <= MAX_FILE_BYTES)
    except (OSError, UnsafePathError, ValueError):
        return []
    if query not in text.casefold():
        return []
    lines = enumerate(text.splitlines(), 1)
    return [f"{entry.name}:{n}: {line.strip()[:MAX_LINE]}" for n, line in lines if query in line.casefold()]


def _listed(entry: Entry) -> str:
    """One line for people: odd characters are shown as escapes, so that a name cannot pose as several lines."""
    name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    name = visible(name, but="")
    if entry.kind == "folder":
        return name + "/"
    return f"{name} ({count(entry.size, 'byte')})" if entry.kind == "file" else f"{name} ({entry.kind})"
