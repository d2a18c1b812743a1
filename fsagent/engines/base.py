"""The Engine protocol: who decides the next step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from fsagent.model import Command, Step, Turn


class Exchange(Struct, frozen=True):
    """A command of the same thread that was answered before. ``untrusted``: its run had taken in foreign text."""

    request: str
    answer: str
    untrusted: bool = False


class ToolSpec(Struct, frozen=True):
    """A tool that this run may use, as a model is told of it; ``schema`` is a JSON Schema of its arguments."""

    name: str
    hint: str
    schema: dict[str, Any]


class Model(Struct, frozen=True):
    """A model that may be asked. ``name`` is ``provider:model``; prices are US dollars per million tokens, None where
    the owner says nothing. ``key`` is a secret: it is not shown by ``repr``."""

    name: str
    base_url: str = ""
    key: str = ""
    temperature: float | None = None
    max_output: int = 4096
    price_in: float | None = None
    price_out: float | None = None
    price_cached: float | None = None

    def __repr__(self) -> str:
        return f"Model({self.name!r})"


class GivenUp(Exception):  # noqa: N818  # a pause, no error
    """An engine was told to stop while it was deciding, or the run's time was up."""


class Link(Protocol):
    """How an engine that takes long stays in touch with its run while it decides."""

    def seconds_left(self) -> float:
        """How long the run may still take."""
        ...

    def stopping(self) -> bool:
        """True once the run is to end: the engine drops what it is doing and raises ``GivenUp``."""
        ...

    def tell(self, text: str) -> None:
        """A further piece of what it is saying, for people who watch."""
        ...


class Request(Struct, frozen=True, kw_only=True):
    """What an engine is asked: the command, the soul as it is now, the moment, and where the run's attachments lie.

    ``now`` is aware and in the workspace's time zone; ``time_format`` is a strftime pattern. ``history`` are earlier
    exchanges of the thread, oldest first, ``tools`` what may be used, ``models`` those to ask, the first one first.
    ``link`` is a ``Link`` where the run has one.
    """

    command: Command
    soul: str
    now: datetime
    run: str
    time_format: str = "%Y-%m-%d %H:%M:%S"
    history: tuple[Exchange, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    models: tuple[Model, ...] = ()
    link: Any = None


class Engine(Protocol):
    """Decides the next step of a run, and nothing else: it never touches a disk and never executes a tool.

    ``decide`` must be able to go on from any list of past turns, also in another process: an engine keeps no state of
    its own between two calls. A step without calls ends the run. Any engine but ``offline`` runs in a worker process.

    An engine whose decisions text can sway, as it can a model's, is ``suggestible``: what it wants after it has taken
    in foreign text is judged more strictly (``consent``). An engine that does not say is taken for one.
    """

    name: str

    def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
        """The next step after ``turns``."""
        ...
