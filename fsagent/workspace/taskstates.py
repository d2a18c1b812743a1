"""What the daemon keeps of each task, as one append-only log: ``.fsagent/tasks/states.jsonl``.

Each change appends the task's whole state as one line, in one write; the last line of a task counts. So a crash can
tear the last line only, and what is torn or damaged costs that change only. The log is written anew, without what no
longer counts, when it has grown well beyond its tasks.

A task whose file is gone keeps its state, for it may be back in a moment. What is dropped when the log is written anew
are states of missing files that say nothing but which slots are settled (no pause, no file of the agent's own), once
the newest slot of the log lies 30 days later.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from fsagent.files.atomic import append_whole, read_file, sync_dir, sync_written, write_all, write_atomic
from fsagent.files.names import TEMPORARY_PREFIX

KEPT = timedelta(days=30)
_SPARE_LINES = 1_000
_NEVER = datetime.min.replace(tzinfo=UTC)
_TORN = b"#\n"  # ends a line that was cut off, and makes it no record even if only its end was missing

_Moment = Annotated[datetime, Meta(tz=True)]


class TaskState(Struct, frozen=True, omit_defaults=True):
    """What the daemon keeps of a task.

    ``watermark`` is the last slot that is settled, ``next`` the one after it by the rule whose print is ``rule``, and
    ``armed`` the print of all that this was found from. ``paused`` says why nothing is handed in, ``paused_print`` is
    the print of the file whose failures led to that; failures count from ``since`` on. ``seen`` is what its gates saw
    when they last held, ``held_back`` why the last slot brought no run. ``made`` is the print of the agent's own text
    of the file.
    """

    watermark: _Moment | None = None
    next: _Moment | None = None
    rule: str = ""
    paused: str = ""
    paused_print: str = ""
    since: _Moment | None = None
    seen: dict[str, str] = {}
    held_back: str = ""
    armed: str = ""
    made: str = ""


class _Line(Struct, frozen=True):
    task: str
    state: TaskState


_EMPTY = TaskState()
_LINES = msgspec.json.Decoder(_Line)
_STATE = msgspec.json.Decoder(TaskState)
_DAMAGED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class StateLog:
    """The states of all tasks, read when the first is asked for. One process writes, any number may read; not safe to
    share between threads.

    Only who ``keeps`` the log writes it anew, or removes anything.
    """

    def __init__(self, folder: Path, *, keeps: bool) -> None:
        self._folder = folder
        self._path = folder / "states.jsonl"
        self._keeps = keeps
        self._states: dict[str, TaskState] | None = None
        self._lines = 0
        self._fd = -1

    def get(self, name: str) -> TaskState:
        """The state of a task; the empty one where nothing is kept."""
        return self._all().get(name, _EMPTY)

    def set(self, name: str, state: TaskState, *, durable: bool) -> None:
        """Append a state. Raises ``OSError``: then it was not taken up, save where only making it durable failed."""
        states = self._all()
        fd = self._open()
        append_whole(fd, msgspec.json.encode(_Line(name, state)) + b"\n")
        states[name] = state
        self._lines += 1
        if durable and sync_written(self._path, fd):
            self.close()

    def paused(self) -> Collection[str]:
        """The tasks that are paused."""
        return [name for name, state in self._all().items() if state.paused]

    def tidy(self, tasks: Collection[str]) -> None:
        """Write the log anew if it has grown well beyond its tasks; ``tasks`` are those that have a file (where
        there are none, perhaps nobody has looked yet). A disk that refuses leaves it as it is, to be tried again some
        thousand changes later."""
        if not self._keeps:
            return
        states = self._all()
        if self._lines <= 2 * len(states) + _SPARE_LINES:
            return
        newest = max((state.watermark or _NEVER for state in states.values()), default=_NEVER)
        gone = states.keys() - set(tasks) if tasks else ()
        for name in [name for name in gone if _is_past(states[name], newest)]:
            del states[name]
        self._lines = len(states)
        with suppress(OSError):
            self._write_anew()

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _all(self) -> dict[str, TaskState]:
        if self._states is None:
            old = self._read_old()
            lines = read_states(self._path)
            self._states = old | {line.task: line.state for _, line in lines if line}
            self._lines = len(lines)
            if self._keeps and old:
                with suppress(OSError):
                    self._write_anew()
                    for path in self._folder.glob("*.json"):
                        path.unlink()
        return self._states

    def _read_old(self) -> dict[str, TaskState]:
        """The states that lie there as one file each, as they once did; and what a crash left is removed."""
        found = {}
        for name in os.listdir(self._folder) if self._folder.is_dir() else ():
            if name.endswith(".json") and not name.startswith("."):
                with suppress(OSError, *_DAMAGED):
                    found[unquote(name.removesuffix(".json"))] = _STATE.decode(read_file(self._folder / name))
            elif self._keeps and name.startswith(TEMPORARY_PREFIX):
                with suppress(OSError):
                    os.unlink(self._folder / name)
        return found

    def _open(self) -> int:
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink:  # somebody removed or replaced it
            self.close()
            if self._keeps:
                self._write_anew()
        if self._fd < 0:
            self._fd = fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            size = os.fstat(fd).st_size
            if not size:
                sync_dir(self._folder)
            elif os.pread(fd, 1, size - 1) != b"\n":
                try:
                    write_all(fd, _TORN)
                except OSError:
                    self.close()
                    raise
        return self._fd

    def _write_anew(self) -> None:
        lines = [_Line(name, state) for name, state in self._all().items() if state != _EMPTY]
        write_atomic(self._path, _encoded(lines))
        self.close()


def read_states(path: Path) -> list[tuple[int, _Line | None]]:
    """The lines of a log with their numbers, in their order; None for one that is no record. What a crash tore is left
    out, and a missing file has no lines. Raises ``OSError``."""
    try:
        raw = read_file(path)
    except FileNotFoundError:
        return []
    raw = raw[: raw.rfind(b"\n") + 1]
    try:
        return list(enumerate(_LINES.decode_lines(raw), 1))
    except _DAMAGED:
        lines = enumerate(raw.split(b"\n")[:-1], 1)
        return [(number, _line(each)) for number, each in lines if not each.endswith(_TORN[:1])]


def _line(raw: bytes) -> _Line | None:
    try:
        return _LINES.decode(raw)
    except _DAMAGED:
        return None


def _encoded(lines: Iterable[_Line]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _is_past(state: TaskState, newest: datetime) -> bool:
    """True for a state that says nothing but which slots were settled, long ago."""
    said = state.paused or state.made
    return not said and state.watermark is not None and newest - state.watermark > KEPT
