"""What an MCP server says its tools are, what of it the owner goes by (pins), and how the two differ. Pure text.

Why: a server may describe a tool harmlessly when it is approved and differently later, and a model obeys what it reads
there. So definitions are pinned on first contact, only pinned ones are shown to a model, and a change is for a person.
"""

from __future__ import annotations

import difflib
import hashlib
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

_MAX_DIFF = 120


class Definition(Struct, frozen=True, kw_only=True):
    """One tool as its server defines it. Bounded: see ``tools.servers.link``, which makes them."""

    name: str
    description: str = ""
    schema: dict[str, Any] = {}
    annotations: dict[str, Any] = {}

    @property
    def print(self) -> str:
        """SHA-256 of all of it, in hexadecimal: two definitions are the same where their prints are."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    @property
    def reads(self) -> bool:
        """True where the server says that the tool changes nothing."""
        return self.annotations.get("readOnlyHint") is True

    def lines(self) -> list[str]:
        """All of it, for people."""
        words = [line for part in self.description.split("\n") for line in textwrap.wrap(part, 100) or [""]]
        rest = msgspec.json.format(
            msgspec.json.encode({"input": self.schema, "annotations": self.annotations}, order="deterministic")
        )
        return [f"tool {self.name}", *(f"  {line}".rstrip() for line in words), *rest.decode().split("\n")]


class Pins(Struct, frozen=True, kw_only=True):
    """What is known of one server. ``since`` is None where nothing was pinned yet.

    ``tools`` are pinned. ``offered`` is what the server offered last, where that is something else. ``trouble`` says
    why its tools were not there the last time, or what of them was left out.
    """

    server: str
    since: datetime | None = None
    tools: tuple[Definition, ...] = ()
    offered: tuple[Definition, ...] | None = None
    trouble: str = ""

    @property
    def now(self) -> tuple[Definition, ...]:
        """What the server offered last."""
        return self.tools if self.offered is None else self.offered


class Difference(Struct, frozen=True):
    """How what a server offers differs from what is pinned: names of tools, in order."""

    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.new or self.gone)

    @property
    def words(self) -> str:
        """``2 of its tools were changed, 1 is new``; empty where all is as it was."""
        parts = []
        if self.changed:
            parts.append(f"{len(self.changed)} of its tools {'were' if len(self.changed) > 1 else 'was'} changed")
        if self.new:
            parts.append(f"{len(self.new)} {'are' if len(self.new) > 1 else 'is'} new")
        if self.gone:
            parts.append(f"{len(self.gone)} {'are' if len(self.gone) > 1 else 'is'} gone")
        return ", ".join(parts)


def difference(pins: Pins) -> Difference:
    """How the last offer differs from the pins."""
    if pins.offered is None or pins.since is None:
        return Difference()
    before, after = {each.name: each for each in pins.tools}, {each.name: each for each in pins.offered}
    return Difference(
        tuple(name for name in before if name in after and before[name].print != after[name].print),
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
    )


def told(pins: Pins) -> str:
    """What a person should know of a server and do about it, in one line; empty where all is well."""
    found = difference(pins)
    if found:
        return f"{pins.server}: {found.words} since you approved them: fsagent servers approve {pins.server}"
    return f"{pins.server}: {pins.trouble}" if pins.trouble else ""


def shown(before: Definition | None, after: Definition | None) -> str:
    """The change of one definition, as a diff for people; shortened where it is long."""
    lines = difflib.unified_diff(
        before.lines() if before else [], after.lines() if after else [], "approved", "offered now", lineterm="", n=2
    )
    kept = [line if len(line) <= 400 else f"{line[:400]}…" for line in lines]
    more = f"\n… ({len(kept) - _MAX_DIFF} more lines)" if len(kept) > _MAX_DIFF else ""
    return "\n".join(kept[:_MAX_DIFF]) + more


def changes(pins: Pins) -> str:
    """All that differs from the pins, as diffs for people."""
    before, after = {each.name: each for each in pins.tools}, {each.name: each for each in pins.now}
    found = difference(pins)
    return "\n".join(shown(before.get(name), after.get(name)) for name in (*found.changed, *found.new, *found.gone))


def print_of(tools: Sequence[Definition]) -> str:
    """One print of several definitions, whatever their order."""
    return hashlib.sha256("".join(sorted(each.print for each in tools)).encode()).hexdigest()
