"""The baseline: a bare loop on inotify that claims by rename and makes the same syncs as a run of the daemon, no more.

``python bare.py FOLDER`` serves ``FOLDER/inbox`` until it is killed. What it makes durable for each file is what the
daemon does for a command that changes nothing: the folder that takes it, that it is there and that it started, how it
ended, the result, the result's name, the file's new name, and the copy that is kept.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

CLOSE_WRITE, MOVED_TO = 0x8, 0x80


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def write(path: Path, data: bytes, sync: Callable[[int], None]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, data)
    sync(fd)
    os.close(fd)


def serve(root: Path) -> None:
    for name in ("inbox", "runs", "outbox", "archive"):
        (root / name).mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(0)
    libc.inotify_add_watch(events, os.fsencode(root / "inbox"), CLOSE_WRITE | MOVED_TO)
    journal = os.open(root / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    while True:
        data = os.read(events, 1 << 16)
        while data:
            length = struct.unpack_from("iIII", data)[3]
            name = data[16 : 16 + length].rstrip(b"\0").decode()
            data = data[16 + length :]
            handle(root, journal, name)


def handle(root: Path, journal: int, name: str) -> None:
    folder = root / "runs" / name
    folder.mkdir()
    write(folder / "steps", b"{}", os.fdatasync)
    sync_folder(folder)
    sync_folder(root / "runs")
    os.rename(root / "inbox" / name, folder / "claimed")
    text = (folder / "claimed").read_bytes()
    os.write(journal, b'{"started":"%s"}\n' % name.encode())
    os.fdatasync(journal)
    write(folder / "steps", text * 50, os.fdatasync)
    sync_folder(folder)
    write(folder / "result", text * 50, os.fsync)
    os.link(folder / "result", root / "outbox" / name)
    sync_folder(root / "outbox")
    os.link(folder / "claimed", root / "archive" / name)
    sync_folder(root / "archive")
    write(folder / "command", text, os.fsync)
    os.unlink(folder / "claimed")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
