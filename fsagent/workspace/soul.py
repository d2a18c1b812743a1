"""soul.md on disk: read fresh for every run, changed under a lock, and only in the lines that are ours.

Limits: no lock keeps an editor out. Between the last look at the file and its replacement lies a moment of some
microseconds in which a person's save would be lost; it cannot be closed. Merging comes later.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fsagent.errors import DocumentError, StaleError, ToolError
from fsagent.facts import SOUL_TEMPLATE, add_fact, fact_key, read_facts, remove_facts, replace_fact
from fsagent.files.atomic import write_atomic
from fsagent.files.documents import decode
from fsagent.files.locks import lock
from fsagent.model import Fact

_PATIENCE = 1.0
_TRIES = 20


def tag(raw: bytes) -> str:
    """A short name for exactly these bytes; no bytes have none."""
    return hashlib.sha256(raw).hexdigest()[:32] if raw else ""


class Soul:
    """The memory of one workspace. Safe to share between threads and with other processes of ours."""

    def __init__(self, path: Path, lock_file: Path) -> None:
        self._path = path
        self._lock_file = lock_file

    def read(self) -> tuple[str, str]:
        """The text and, where it cannot be had, why: a missing, empty or unreadable soul never stops anything."""
        try:
            return decode(self._path.read_bytes(), self._path.name)[0], ""
        except FileNotFoundError:
            return "", f"{self._path.name} is missing; it is made again with the next fact"
        except OSError as error:
            return "", f"{self._path.name} cannot be read: {os.strerror(error.errno or 0)}"
        except DocumentError as error:
            return "", str(error)

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
        return removed

    def tagged(self) -> tuple[bytes, str]:
        """The file's bytes and their tag; both are empty where there is no file. Raises ``OSError``."""
        raw = self._raw()
        return raw, tag(raw)

    def replace(self, raw: bytes, expected: str) -> str:
        """Put a person's whole text in the place of the one with the tag ``expected``; gives the new tag.

        Raises ``StaleError`` with the text as it is where that is another one by now, ``DocumentError`` for what is no
        text, ``TimeoutError`` where the soul is locked, ``OSError``. The limit is the same as for every change.
        """
        decode(raw, self._path.name)
        with lock(self._lock_file):
            current, now = self.tagged()
            if now != expected:
                raise StaleError(f"{self._path.name} was changed since you read it; nothing was written", current, now)
            write_atomic(self._path, raw)
        return tag(raw)

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
            raise ToolError(f"{self._path.name}: {os.strerror(error.errno or 0)}", retryable=True) from error
        raise ToolError(f"{self._path.name} is being changed again and again by another program", retryable=True)

    def _try_change(self, change: Callable[[str], str]) -> bool:
        raw = self._read_settled()
        text, encoding = decode(raw, self._path.name) if raw else (SOUL_TEMPLATE, "utf-8")
        new = change(text)
        if raw and new == text:
            return True
        bom = raw[: len(raw) - len(text.encode(encoding))] if raw else b""
        if self._raw() != raw:
            return False  # a person saved meanwhile: start again from their text
        write_atomic(self._path, bom + new.encode(encoding))
        return True

    def _read_settled(self) -> bytes:
        """The file's bytes; one that is missing or empty is given a second, for editors and sync clients do that."""
        end = time.monotonic() + _PATIENCE
        while not (raw := self._raw()) and time.monotonic() < end:
            time.sleep(0.02)
        return raw

    def _raw(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
