"""What a power cut leaves of a folder: a model of a disk that keeps only what it was made to keep.

It is told every call that changed something, in order (``diskshim``). At any moment it gives states that a disk may be
found in after a cut: what was synced is there, of all else some of it is, as the ``Loss`` says. A sync of a file keeps
what was written to it, and no name; a sync of a folder keeps the names in it that were given, taken and changed until
then; a rename happens in both folders or in neither, and names within one folder change in their order. Real disks keep
more. Limit: what was not synced may be missing, or end early; that other bytes than those written are found (a disk
that lies, a torn sector) is not told.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diskshim import CREATE, CUT, EXCHANGE, LINK, MKDIR, RENAME, RMDIR, SYNC, UNLINK, WRITE, Call


class Edit(NamedTuple):
    """``data`` was written at ``at``; or, where it is None, the file was cut to that size."""

    at: int
    data: bytes | None

    def on(self, content: bytearray, size: int | None = None) -> None:
        """Do it, or only its first ``size`` bytes."""
        if self.data is None:
            content[self.at :] = bytes(max(0, self.at - len(content)))
            return
        data = self.data[:size]
        content.extend(bytes(max(0, self.at - len(content))))
        content[self.at : self.at + len(data)] = data


class File:
    """A file, whatever its names: what it was at the beginning, and what was done to it."""

    def __init__(self, content: bytes = b"", status: os.stat_result | None = None) -> None:
        self.content, self.status = content, status
        self.edits: list[Edit] = []
        self.synced = 0  # how many of them

    def after(self, edits: int, torn: int | None = None) -> bytes:
        """With so many of the edits, and of the last one only ``torn`` bytes."""
        content = bytearray(self.content)
        for number, edit in enumerate(self.edits[:edits], 1):
            edit.on(content, torn if number == edits else None)
        return bytes(content)


class Folder:
    """A folder: its names at the beginning."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}


class Change(NamedTuple):
    """Names that were given and taken by one call: (folder, name, what had it, what has it)."""

    number: int
    names: tuple[tuple[Folder, str, File | Folder | None, File | Folder | None], ...]

    def on(self, tree: dict[Folder, dict[str, File | Folder]]) -> None:
        """Do it, as far as there is something to be done to."""
        for folder, name, before, after in self.names:
            there = tree.setdefault(folder, {})
            if after is not None:
                there[name] = after
            elif there.get(name) is before:
                del there[name]


State = dict[str, tuple[File | None, bytes]]
"""The files (with their contents) and folders (None) of a tree, by their paths."""


class Loss:
    """What is lost of all that was not synced: nothing but that much survives."""

    def names(self, changes: Sequence[Change], synced: frozenset[int]) -> list[Change]:
        """The changes that survive, in order."""
        return [change for change in changes if change.number in synced]

    def content(self, file: File) -> bytes:
        """The content that survives."""
        return file.after(file.synced)


class DataLoss(Loss):
    """All names are there; of the files only what was synced: a disk that writes names first."""

    def names(self, changes: Sequence[Change], synced: frozenset[int]) -> list[Change]:
        return list(changes)


class NameLoss(Loss):
    """All contents are there; of the names only those that were synced."""

    def content(self, file: File) -> bytes:
        return file.after(len(file.edits))


class Ordered(Loss):
    """A disk with a journal of names: they survive in the order in which they came, up to some moment; and each file up
    to some byte."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def names(self, changes: Sequence[Change], synced: frozenset[int]) -> list[Change]:
        least = max((at for at, change in enumerate(changes, 1) if change.number in synced), default=0)
        return list(changes[: self._dice.randint(least, len(changes))])

    def content(self, file: File) -> bytes:
        edits = self._dice.randint(file.synced, len(file.edits))
        last = file.edits[edits - 1].data if edits > file.synced else None
        return file.after(edits, self._dice.randint(0, len(last)) if last else None)


class Disordered(Ordered):
    """A disk that keeps the order within each folder, and no other."""

    def names(self, changes: Sequence[Change], synced: frozenset[int]) -> list[Change]:
        kept: set[int] = set(synced)
        folders = list(dict.fromkeys(folder for change in changes for folder, *_ in change.names))
        for folder in folders:
            here = [change.number for change in changes if any(folder is each for each, *_ in change.names)]
            least = max((at for at, number in enumerate(here, 1) if number in synced), default=0)
            kept.update(here[: self._dice.randint(least, len(here))])
        return [change for change in changes if change.number in kept]


class Disk:
    """A folder's disk, from the state that it is found in now. ``do`` what was done, and look at what may be left."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._inodes: dict[int, File] = {}
        self.top = Folder()
        self._now: dict[Folder, dict[str, File | Folder]] = {}
        self._read(root, self.top)
        self._changes: list[Change] = []
        self._synced: set[int] = set()

    def _read(self, path: Path, folder: Folder) -> None:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                below = Folder()
                self._read(Path(entry.path), below)
                folder.names[entry.name] = below
            else:
                status = entry.stat(follow_symlinks=False)
                if status.st_ino not in self._inodes:
                    self._inodes[status.st_ino] = File(Path(entry.path).read_bytes(), status)
                folder.names[entry.name] = self._inodes[status.st_ino]
        self._now[folder] = dict(folder.names)

    def do(self, call: Call) -> None:
        """One more call."""
        if call.kind in (WRITE, CUT):
            self._inodes[call.inode].edits.append(Edit(call.at, call.data if call.kind == WRITE else None))
        elif call.kind == SYNC:
            self._sync(call)
        else:
            change = Change(len(self._changes), tuple(self._named(call)))
            change.on(self._now)
            self._changes.append(change)

    def _sync(self, call: Call) -> None:
        node = self._find(call.path)
        if isinstance(node, Folder):
            self._synced |= {
                change.number for change in self._changes if any(node is folder for folder, *_ in change.names)
            }
        else:
            file = self._inodes[call.inode]
            file.synced = len(file.edits)

    def _named(self, call: Call) -> Iterator[tuple[Folder, str, File | Folder | None, File | Folder | None]]:
        folder, name = self._place(call.path)
        node = self._now[folder].get(name)
        if call.kind in (CREATE, MKDIR):
            assert node is None, f"{call.path} was there before"
            made: File | Folder = Folder() if call.kind == MKDIR else File()
            if isinstance(made, File):
                self._inodes[call.inode] = made
            else:
                self._now[made] = {}
            yield folder, name, None, made
            return
        assert node is not None, f"{call.path} is not there"
        if call.kind in (UNLINK, RMDIR):
            yield folder, name, node, None
            return
        there, other = self._place(call.other)
        old = self._now[there].get(other)
        if call.kind == LINK:
            yield there, other, None, node
        elif call.kind == RENAME:
            yield folder, name, node, old if call.flags & EXCHANGE else None
            yield there, other, old, node
        else:
            raise AssertionError(f"a call that this disk does not know: {call}")

    def _place(self, path: str) -> tuple[Folder, str]:
        parent, name = os.path.split(path)
        folder = self._find(parent)
        assert isinstance(folder, Folder), f"{parent} is no folder"
        return folder, name

    def _find(self, path: str) -> File | Folder | None:
        node: File | Folder | None = self.top
        assert path == self._root or path.startswith(f"{self._root}/"), path
        for name in path[len(self._root) + 1 :].split("/"):
            if name:
                node = self._now[node].get(name) if isinstance(node, Folder) else None
        return node

    def now(self) -> State:
        """The state of this moment: what a killed process leaves."""
        return self._state(self._now, lambda file: file.after(len(file.edits)))

    def left(self, loss: Loss) -> State:
        """A state after a power cut."""
        tree = {folder: dict(folder.names) for folder in self._now}
        for change in loss.names(self._changes, frozenset(self._synced)):
            change.on(tree)
        return self._state(tree, loss.content)

    def _state(self, tree, content_of) -> State:  # type: ignore[no-untyped-def]
        contents: dict[File, bytes] = {}
        found: State = {}

        def walk(folder: Folder, path: str) -> None:
            for name, node in sorted(tree[folder].items()):
                if isinstance(node, Folder):
                    found[path + name] = None, b""
                    walk(node, f"{path}{name}/")
                else:
                    if node not in contents:
                        contents[node] = content_of(node)
                    found[path + name] = node, contents[node]

        walk(self.top, "")
        return found


def restore(root: Path, state: State) -> None:
    """Make a folder what this state says; files that have several names get them."""
    shutil.rmtree(root)
    root.mkdir()
    first: dict[File, Path] = {}
    for name, (file, content) in state.items():
        path = root / name
        if file is None:
            path.mkdir()
        elif file in first:
            os.link(first[file], path)
        else:
            first[file] = path
            path.write_bytes(content)
            if file.status:
                os.utime(path, ns=(file.status.st_atime_ns, file.status.st_mtime_ns))
                os.chmod(path, file.status.st_mode & 0o7777)
