"""What the daemon tells of itself: ``status.md`` for people, ``.fsagent/daemon.json`` for programs.

Both are written by the daemon alone. ``daemon.json`` is renewed at least every scan interval, which is the sign of
life; ``status.md`` only when something in it changed, so that it does not travel through sync clients for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.files.atomic import overwrite, write_atomic
from fsagent.files.locks import is_locked
from fsagent.printable import visible
from fsagent.workspace.layout import Layout

DAEMON_LOCK = "daemon.lock"
_SHEET, _MOST, _LONGEST = 4096, 6, 300


class Line(Struct, frozen=True):
    """One thing and a few words on it."""

    name: str
    words: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """The daemon at one moment. Times are aware; ``waiting`` counts commands that wait for their turn, ``approvals``
    are the questions that wait for a person, ``paused_tasks`` the tasks that bring no run though they are on.

    ``scan_seconds`` is how long the last look at every place took, ``memory`` what the daemon holds, in bytes.
    ``sandbox`` says what locks programs in; empty where none may run. ``disk`` is what the disk, or the system, refuses
    at this moment. ``standby`` says on which other host the agent runs; empty where it runs here. ``watching`` says
    how changes in the folder are noticed.
    """

    pid: int
    version: str
    since: datetime
    beat: datetime
    interval: float
    paused: bool = False
    running: tuple[Line, ...] = ()
    waiting: int = 0
    waiting_since: datetime | None = None
    lying: tuple[Line, ...] = ()
    retries: tuple[Line, ...] = ()
    upcoming: tuple[Line, ...] = ()
    paused_tasks: tuple[Line, ...] = ()
    last: tuple[Line, ...] = ()
    approvals: tuple[Line, ...] = ()
    trouble: tuple[str, ...] = ()
    disk: tuple[str, ...] = ()
    scan_seconds: float = 0.0
    memory: int = 0
    sandbox: str = ""
    standby: str = ""
    watching: str = ""


class StatusBoard:
    """Writes both files. Used by one thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._text = b""

    def write(self, snapshot: Snapshot) -> None:
        """Tell how things are. Raises ``OSError`` when the disk does not take it."""
        try:
            text = render(snapshot, alive=True).encode()
            if text != self._text:
                _put(self._layout.status, text)
                self._text = text
        finally:
            write_beat(self._layout, snapshot)

    def farewell(self, snapshot: Snapshot) -> None:
        """Say that the daemon has ended."""
        write_atomic(self._layout.status, render(snapshot, alive=False).encode(), durable=False)


def write_beat(layout: Layout, snapshot: Snapshot) -> None:
    """The sign of life alone: all that a daemon writes of itself where it stands by."""
    _put(layout.beat, msgspec.json.encode(snapshot) + b"\n")


def _put(path: Path, data: bytes) -> None:
    """A new file in the place of the old one; where the disk has no room for two, the old one is written over."""
    try:
        write_atomic(path, data, durable=False)
    except OSError as error:
        try:
            overwrite(path, data)
        except OSError:
            raise error from None


class Sheet:
    """What is refused at this moment, in a file that takes neither room nor a descriptor when it is needed, for it has
    both already: ``.fsagent/refused.json``. A disk that refuses even this is told of by the screen alone."""

    def __init__(self, layout: Layout) -> None:
        self._fd = -1
        self._stands = b""
        with suppress(OSError):
            self._fd = os.open(layout.refused, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self.write([])

    def write(self, lines: Sequence[str]) -> None:
        """Put these lines on it, in the place of those before. Costs nothing where they stand there."""
        data = msgspec.json.encode([line[:_LONGEST] for line in lines[:_MOST]])
        if self._fd >= 0 and data != self._stands:
            with suppress(OSError):
                os.pwrite(self._fd, data.ljust(_SHEET), 0)
                self._stands = data

    def close(self) -> None:
        """Let go of it."""
        self.write([])
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def read_sheet(layout: Layout) -> list[str]:
    """What is refused to the daemon at this moment, in words; means nothing where none runs."""
    try:
        return msgspec.json.decode(layout.refused.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError):
        return []


def read_snapshot(layout: Layout) -> Snapshot | None:
    """The last snapshot, or None if no daemon ever ran here."""
    try:
        return msgspec.json.decode(layout.beat.read_bytes(), type=Snapshot)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def daemon_runs(layout: Layout) -> bool:
    """True while a daemon on this machine holds the workspace."""
    return is_locked(layout.locks / DAEMON_LOCK)


def render(snapshot: Snapshot, *, alive: bool) -> str:
    """The status for people, as markdown. Holds no time that passes by itself, so it changes only with the facts."""
    since = f"{snapshot.since:%Y-%m-%d %H:%M:%S}"
    if not alive:
        head = "**Stopped.** Commands in `inbox/` wait until `fsagent run` is started again."
    elif snapshot.standby:
        head = f"**Standing by.** {stands_by(snapshot.standby)}"
    elif snapshot.paused:
        head = f"**Paused** by the file `STOP`: nothing new starts until it is removed. Alive since {since}."
    else:
        head = f"**Alive** since {since} (pid {snapshot.pid}, fsagent {snapshot.version})."
    if snapshot.sandbox and alive:
        head += f" Sandbox of programs: {snapshot.sandbox}."
    if snapshot.watching and alive:
        head += f" Watching {snapshot.watching}."
    parts = ["# Status", head]
    needs = [_one_line(each) for each in snapshot.disk]
    needs += [f"{_code(line.name)} {_one_line(line.words)}" for line in snapshot.approvals]
    needs += [_one_line(each) for each in snapshot.trouble]
    if needs:
        parts.append("## Needs you\n\n" + "\n".join(f"- {each}" for each in needs))
    waiting = f"{snapshot.waiting} command{'s' * (snapshot.waiting != 1)} waiting" if snapshot.waiting else ""
    for title, lines, word in (
        ("Running now", snapshot.running if alive else (), waiting),
        ("Waiting to be tried again", snapshot.retries, ""),
        ("Lying in inbox/", snapshot.lying, ""),
        ("Next", snapshot.upcoming if alive else (), ""),
        ("Paused or held back", snapshot.paused_tasks, ""),
        ("Last runs", snapshot.last, ""),
    ):
        rows = [f"- {_code(line.name)} {_one_line(line.words)}" for line in lines]
        if rows or word:
            parts.append(f"## {title}\n\n" + "\n".join([*rows, *([f"- {word}"] if word else [])]))
    return "\n\n".join(parts) + "\n"


def stands_by(owner: str) -> str:
    """That nothing runs here, and what to do about it. ``owner`` is the host that does."""
    return (
        f"The agent in this folder is run by {owner}. A command dropped into `inbox/` syncs and is run there. To have "
        "it run here: `fsagent run --take-over`."
    )


def limited(lines: Iterable[Line], most: int, words: str, unseen: int = 0) -> tuple[Line, ...]:
    """At most ``most`` lines; where there are more, ``unseen`` ones among them, the last line tells how many."""
    every = list(lines)
    rest = max(0, len(every) - most) + unseen
    return (*every[:most], *([Line("…", words.format(rest))] if rest else []))


def _code(name: str) -> str:
    return "`" + _one_line(name).replace("`", "'") + "`"


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))
