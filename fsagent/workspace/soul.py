"""soul.md on disk: read fresh for every run, changed under a lock, and only in the lines that are ours.

Editors and sync clients take the file away, empty it or write it bit by bit while they save it (facts/files.md §2).
So what is missing, empty, shorter than before or held open for writing is looked at again for up to a second, and only
what stays so counts; a run that cannot wait any longer has the last text that was whole.

A change of ours is exchanged with the file in one instant, and back if that was not the text it was made from, or
somebody writes to it: a person's save is never lost by it. Limits: where the system cannot exchange two names (only
Linux can, and not on every file system), a moment of some microseconds is left in which it would be. And a person
whose editor has an older text saves it over ours: they win, and ``dropped`` tells which facts of ours went by that.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fsagent.errors import DocumentError, StaleError, ToolError
from fsagent.facts import SOUL_TEMPLATE, add_fact, fact_key, read_facts, remove_facts, replace_fact
from fsagent.files.atomic import open_plain, read_fd, swap, sync_dir, write_atomic, write_new
from fsagent.files.documents import decode
from fsagent.files.locks import lock
from fsagent.files.names import TEMPORARY_PREFIX
from fsagent.files.quiet import Identity, identity_of, is_written
from fsagent.model import MAX_DOCUMENT, Fact

SOUL_PREFIX = f"{TEMPORARY_PREFIX}soul-"
_PATIENCE = 1.0
_PATIENCE_TO_CHANGE = 5.0
_REMEMBERED_FOR = 3600.0
_TRIES = 20


def tag(raw: bytes) -> str:
    """A short name for exactly these bytes; no bytes have none."""
    return hashlib.sha256(raw).hexdigest()[:32] if raw else ""


class Soul:
    """The memory of one workspace. Safe to share between threads and with other processes of ours."""

    def __init__(self, path: Path, lock_file: Path) -> None:
        self._path = path
        self._lock_file = lock_file
        self._guard = threading.Lock()
        self._good = b""
        self._mark: Identity | None = None
        self._since = 0.0
        self._added: dict[str, float] = {}

    def read(self) -> tuple[str, str]:
        """The text and, where it cannot be had, why: a missing, empty or unreadable soul never stops anything.

        Waits for up to a second while somebody saves it.
        """
        try:
            raw, rests = self._settled()
            return self._text(raw if rests else self._good or raw), "" if raw or not rests else self._nothing()
        except OSError as error:
            return "", f"{self._path.name} cannot be read: {error.strerror}"
        except DocumentError as error:
            return "", str(error)

    def trouble(self) -> list[str]:
        """What a person should know of it, at once: why it cannot be read, and what their save has dropped."""
        try:
            raw, rests = self._look()
            if not rests:
                return []
            return self._dropped(self._text(raw)) if raw else list(filter(None, [self._nothing()]))
        except OSError as error:
            return [f"{self._path.name} cannot be read: {error.strerror}"]
        except DocumentError as error:
            return [str(error)]

    def _text(self, raw: bytes) -> str:
        return decode(raw, self._path.name)[0] if raw else ""

    def _nothing(self) -> str:
        """Why there is no text where there are no bytes: an empty file needs no reason."""
        there = os.path.lexists(self._path)
        return "" if there else f"{self._path.name} is missing; it is made again with the next fact"

    def _dropped(self, text: str) -> list[str]:
        """Facts that we added within the hour, and that a save of somebody else took away again."""
        there, now = {fact.text for fact in read_facts(text)}, time.monotonic()
        with self._guard:
            self._added = {fact: at for fact, at in self._added.items() if now - at < _REMEMBERED_FOR}
            gone = [fact for fact in self._added if fact not in there]
        words = "was saved without a fact that the agent had just added; put it back if it is wanted"
        return [f"{self._path.name} {words}: {fact}" for fact in gone]

    def facts(self) -> tuple[Fact, ...]:
        """The facts as they stand now."""
        return read_facts(self.read()[0])

    def remember(self, text: str, key: str = "") -> tuple[str, str, bool]:
        """Add a fact; with a ``key``, take the place of the fact that has it.

        Gives the fact as it stands in the file, the text it replaced (or ""), and whether it was known already.
        """
        outcome = ("", "", False)

        def change(soul: str) -> str:
            nonlocal outcome
            facts = read_facts(soul)
            old = next((fact for fact in facts if key and fact.key == key), None)
            new = replace_fact(soul, old, text) if old else add_fact(soul, text)
            wanted = fact_key(text)
            same = [fact.text for fact in read_facts(new) if fact.text == text or (wanted and fact.key == wanted)]
            known = new == soul
            stands = same[-1] if same and text not in same else text
            outcome = (stands, old.text if old and not known else "", known)
            return new

        self._change(change)
        with self._guard:
            self._added.pop(outcome[1], None)
            if not outcome[2]:
                self._added[outcome[0]] = time.monotonic()
        return outcome

    def forget(self, facts: Sequence[Fact]) -> list[str]:
        """Remove these facts, wherever in the file they stand now; gives the texts that were there."""
        removed: list[str] = []
        wanted = {fact.text for fact in facts}

        def change(soul: str) -> str:
            there = [fact for fact in read_facts(soul) if fact.text in wanted]
            removed[:] = [fact.text for fact in there]
            return remove_facts(soul, there)

        self._change(change)
        with self._guard:
            for text in removed:
                self._added.pop(text, None)
        return removed

    def tagged(self) -> tuple[bytes, str]:
        """The file's bytes and their tag; both are empty where there is no file. Raises ``OSError``."""
        raw = self._settled()[0]
        return raw, tag(raw)

    def replace(self, raw: bytes, expected: str) -> str:
        """Put a person's whole text in the place of the one with the tag ``expected``; gives the new tag.

        Raises ``StaleError`` with the text as it is where that is another one by now, ``DocumentError`` for what is no
        text, ``TimeoutError`` where the soul is locked, ``OSError``. The limit is the same as for every change.
        """
        decode(raw, self._path.name)
        with lock(self._lock_file):
            current, now = self.tagged()
            if len(current) > MAX_DOCUMENT:
                decode(current, self._path.name)  # which refuses it: only its beginning was seen
            if now == expected and self._put(current, raw):
                return tag(raw)
            current, now = self.tagged()
            raise StaleError(f"{self._path.name} was changed since you read it; nothing was written", current, now)

    def _change(self, change: Callable[[str], str]) -> None:
        try:
            with lock(self._lock_file):
                for _ in range(_TRIES):
                    if self._try_change(change):
                        return
        except TimeoutError:
            raise ToolError(f"{self._path.name} is locked by another program", retryable=True) from None
        except DocumentError as error:
            raise ToolError(f"the soul is left as it is: {error}") from None
        except OSError as error:
            raise ToolError(f"{self._path.name}: {error.strerror}", retryable=True) from error
        raise ToolError(f"{self._path.name} is being changed again and again by another program", retryable=True)

    def _try_change(self, change: Callable[[str], str]) -> bool:
        raw, rests = self._settled(_PATIENCE_TO_CHANGE)
        if not rests:
            raise ToolError(f"{self._path.name} is being saved by another program", retryable=True)
        text, encoding = decode(raw, self._path.name) if raw else (SOUL_TEMPLATE, "utf-8")
        new = change(text)
        if raw and new == text:
            return True
        bom = raw[: len(raw) - len(text.encode(encoding))] if raw else b""
        return self._put(raw, bom + new.encode(encoding))  # else a person saved meanwhile: start again from their text

    def _put(self, expected: bytes, data: bytes) -> bool:
        """Put ``data`` in the place of what is ``expected``; False, with the file as it is, where it is another one."""
        try:
            mode = os.lstat(self._path).st_mode & 0o7777
        except FileNotFoundError:
            try:
                if not expected:
                    write_new(self._path, data)
            except FileExistsError:
                return False
            return not expected
        ours = self._path.with_name(f"{SOUL_PREFIX}{os.urandom(6).hex()}")
        write_atomic(ours, data, mode=mode)
        try:
            if not _holds(self._path, expected):
                return False
            if not swap(ours, self._path):
                os.replace(ours, self._path)
            elif not _holds(ours, expected):
                if not swap(ours, self._path):  # somebody saved in that very moment: give it back
                    os.replace(ours, self._path)
                elif not _holds(ours, data):
                    swap(ours, self._path)  # and once more in this one: that is the later save
                return False
        finally:
            ours.unlink(missing_ok=True)
        sync_dir(self._path.parent)
        return True

    def _settled(self, patience: float = _PATIENCE) -> tuple[bytes, bool]:
        """As ``_look``, but one who saves is given so many seconds to come to rest."""
        end = time.monotonic() + patience
        while True:
            raw, rests = self._look()
            if rests or time.monotonic() > end:
                return raw, rests
            time.sleep(0.02)

    def _look(self) -> tuple[bytes, bool]:
        """The file's bytes, none where it is missing; and whether it rests, or somebody seems to be saving it."""
        raw, mark, written = b"", None, False
        try:
            fd = open_plain(self._path)
        except FileNotFoundError:
            pass
        else:
            try:
                mark, raw, written = identity_of(os.fstat(fd)), read_fd(fd, MAX_DOCUMENT + 1), is_written(fd)
            finally:
                os.close(fd)
        now = time.monotonic()
        with self._guard:
            if mark != self._mark or not self._since:
                self._mark, self._since = mark, now
            suspect = not raw or len(raw) < len(self._good)
            rests = not written and not (suspect and now - self._since < _PATIENCE)
            if rests:
                self._good = raw
        return raw, rests


def _holds(path: Path, expected: bytes) -> bool:
    """True if these are the bytes of the file, and nobody has it open for writing."""
    try:
        fd = open_plain(path)
    except FileNotFoundError:
        return False
    try:
        return read_fd(fd, MAX_DOCUMENT + 1) == expected and not is_written(fd)
    finally:
        os.close(fd)
