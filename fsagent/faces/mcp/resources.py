"""The agent's files as resources: ``fsagent://soul.md``, ``status.md``, ``tasks/{name}`` and ``results/{path}``.

Limits: only ordinary text files up to ``MAX_SIZE`` that really lie in these places are read; no link is followed, but
for soul.md, which a person may keep elsewhere. Results are listed as the daemon lists runs, so one that lies in outbox/
by other ways can be read but is not listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from fsagent.errors import NotFoundError, PersonError, UnsafePathError
from fsagent.faces.views import read_results, settings_of
from fsagent.files.documents import decode
from fsagent.files.paths import SafeRoot
from fsagent.model import Run
from fsagent.timetext import in_words
from fsagent.workspace.layout import Layout
from fsagent.workspace.outlook import outlook
from fsagent.workspace.status import daemon_runs, read_snapshot, render
from fsagent.workspace.tasks import TaskBook

SCHEME = "fsagent"
MARKDOWN = "text/markdown"
PAGE = 100
MAX_SIZE = 1024 * 1024
SUFFIXES = (".md", ".markdown", ".txt", "")
TEMPLATES = (
    ("fsagent://tasks/{name}", "task", "A recurring task: its rule and its request."),
    ("fsagent://results/{path}", "result", "The published result of a run; its path as 'result' of the run gives it."),
)


class Entry(Struct, frozen=True, kw_only=True):
    """A resource as a list shows it. ``modified`` is an ISO time, or empty."""

    uri: str
    name: str
    title: str
    description: str
    size: int | None = None


class Page(Struct, frozen=True):
    """Some of the resources, and the cursor with which the list goes on."""

    entries: list[Entry]
    next: str = ""


class Place(Struct, frozen=True):
    """What a URI stands for: a file in the root (``kind`` is its name), or a path in ``tasks`` or ``results``."""

    kind: str
    path: str = ""


class Resources:
    """The resources of one workspace. Safe to share between threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._book = TaskBook(layout)
        self._roots = {"tasks": layout.tasks, "results": layout.outbox}

    def page(self, cursor: str = "") -> Page:
        """soul.md, status.md and the tasks by name, then the results, newest first. Raises ``NotFoundError`` for a
        cursor that is none of ours, or whose run is gone."""
        kind, _, place = cursor.partition("/")
        if kind not in ("", "tasks", "results"):
            raise NotFoundError(f"there is no page {cursor!r}; begin with the first one again")
        if kind == "results":
            return self._results(place)
        entries = [] if cursor else self._single()
        tasks = [(name, words) for name, words in self._tasks() if name > place]
        for name, words in tasks[:PAGE]:
            path = self._find(Place("tasks", name))
            entries.append(Entry(uri=uri_of("tasks", name), name=name, title=name, description=words, size=_size(path)))
        if len(tasks) > PAGE:
            return Page(entries, f"tasks/{tasks[PAGE - 1][0]}")
        rest = self._results("")
        return Page(entries + rest.entries, rest.next)

    def read(self, uri: str) -> str:
        """The text of a resource. Raises ``NotFoundError`` where there is none, ``PersonError`` for what is too large
        or lies elsewhere, ``OSError``."""
        place = place_of(uri)
        if place.kind == "soul.md":
            return _text(_read_plain(self._layout.soul), uri)
        if place.kind == "status.md":
            return self._status()
        root = SafeRoot(self._roots[place.kind])
        for path in _spellings(place):
            try:
                if root.resolve(path) != path:
                    raise UnsafePathError(f"{uri} is a link; only files that lie there themselves are read")
                return _text(root.read(path, MAX_SIZE + 1), uri)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
        raise NotFoundError(f"there is no resource {uri}")

    def print_of(self, uri: str) -> object:
        """Something that changes when the resource does; cheap, nothing is read."""
        place = place_of(uri)
        path = self._layout.root / place.kind if not place.path else self._find(place)
        try:
            alive = place.kind == "status.md" and daemon_runs(self._layout)
            status = os.stat(path) if place.kind == "soul.md" else os.lstat(path)
        except OSError:
            return None
        return (alive, status.st_mtime_ns, status.st_size, status.st_ino)

    def print_of_list(self) -> object:
        """Something that changes when tasks or the newest results come or go."""
        results = tuple(run.result for run in read_results(self._layout, PAGE))
        return (tuple(name for name, _ in self._tasks()), results)

    def _single(self) -> list[Entry]:
        return [
            Entry(
                uri=f"{SCHEME}://soul.md", name="soul.md", title="Memory", size=_size(self._layout.soul),
                description="What the agent remembers; people and the agent both write it.",
            ),
            Entry(
                uri=f"{SCHEME}://status.md", name="status.md", title="Status",
                description="Alive? What ran, what comes next, what waits for a person?",
            ),
        ]  # fmt: skip

    def _tasks(self) -> list[tuple[str, str]]:
        """Every task file's name without its ending, with a few words on it; those that cannot be used too."""
        self._book.refresh()
        settings, now = settings_of(self._layout), datetime.now(UTC)
        found = []
        for task in self._book.tasks():
            rule = in_words(task.table, settings.heartbeat_interval)
            stands = outlook(task, self._book.state(task.name), settings, now)
            state = "" if stands.state == "on" else f", {stands.words}"
            found.append((task.name, f"{rule}{state}: {_first_line(task.body)}"))
        return sorted(found + [(name, str(error)) for name, error in self._book.broken().items()])

    def _results(self, before: str) -> Page:
        runs = read_results(self._layout, PAGE + 1, before)
        shown = runs[:PAGE]
        return Page(list(self._entries(shown)), f"results/{shown[-1].run}" if len(runs) > PAGE else "")

    def _entries(self, runs: Iterable[Run]) -> Iterable[Entry]:
        for run in runs:
            name = os.path.relpath(run.result, self._layout.outbox.name)
            size = _size(self._layout.outbox / name)
            if size is not None:  # people take results away
                words = f"{run.status}: {_first_line(run.error or run.answer)}"
                yield Entry(uri=uri_of("results", name), name=name, title=name, description=words, size=size)

    def _find(self, place: Place) -> Path:
        """Where the file of a task or result is, in the first spelling that exists."""
        paths = [self._roots[place.kind] / path for path in _spellings(place)]
        return next((path for path in paths if os.path.lexists(path)), paths[0])

    def _status(self) -> str:
        """status.md; where the daemon was killed it still says that it lives, so then the truth is told instead."""
        if daemon_runs(self._layout):
            return _text(_read_plain(self._layout.status), "status.md")
        snapshot = read_snapshot(self._layout)
        if snapshot is None:
            return "# Status\n\nNo daemon ever ran here.\n"
        return render(snapshot, alive=False)


def uri_of(kind: str, path: str) -> str:
    """The URI of a task or result."""
    return f"{SCHEME}://{kind}/{quote(path)}"


def place_of(uri: str) -> Place:
    """What a URI stands for. Raises ``NotFoundError`` where it is none of ours, ``UnsafePathError`` for tricks."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    kind, path = parts.netloc, unquote(parts.path, errors="surrogateescape").removeprefix("/")
    single, several = kind in ("soul.md", "status.md") and not path, kind in ("tasks", "results") and path
    if parts.scheme != SCHEME or parts.query or parts.fragment or not (single or several):
        raise NotFoundError(
            f"there is no resource {uri!r}; there are {SCHEME}://soul.md, {SCHEME}://status.md, "
            + " and ".join(template for template, _, _ in TEMPLATES)
        )
    for part in path.split("/") if path else ():
        if part.startswith(".") or not part or not part.isprintable() or "\\" in part:
            raise UnsafePathError(f"{uri!r}: {part!r} cannot be part of the path of a resource")
    return Place(kind, path)


def _spellings(place: Place) -> list[str]:
    """A task is named without its ending, a result with it."""
    return [place.path + suffix for suffix in SUFFIXES] if place.kind == "tasks" else [place.path]


def _read_plain(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return b""


def _text(raw: bytes, uri: str) -> str:
    if len(raw) > MAX_SIZE:
        raise PersonError(f"{uri} is larger than {MAX_SIZE // 1024} KiB; have the agent read a part of it")
    return decode(raw, uri)[0]


def _size(path: Path) -> int | None:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
