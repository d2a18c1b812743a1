"""The Tool protocol: what an engine may use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from fsagent.files.paths import SafeRoot
from fsagent.model import Fact, Run, ToolCall, ToolResult

Effect = Literal["read", "repeatable", "once"]
A = TypeVar("A", bound=Struct)


class Remembered(Struct, frozen=True):
    """What ``remember`` did: the fact as it stands now, and the one that it took the place of (or "")."""

    fact: str
    replaced: str = ""
    known: bool = False


class TaskView(Struct, frozen=True):
    """A task as a person asks for it: its rule in words and its times (local)."""

    name: str
    rule: str
    request: str
    state: str
    last: datetime | None = None
    next: datetime | None = None


class Sandbox(Struct, frozen=True, kw_only=True):
    """How programs are to be locked in (see the settings). ``scratch`` is a folder on the workspace's file system, out
    of every tool's reach, for what belongs to one call. The default is not at all."""

    on: bool = False
    network: bool = False
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    scratch: Path = Path()


class Network(Struct, frozen=True, kw_only=True):
    """What the tool http may reach: the world, and of the owner's own network the hosts, addresses and networks in
    ``private``."""

    private: tuple[str, ...] = ()


class Home(Protocol):
    """What tools may ask of the workspace; the left wing answers. All methods raise ``ToolError`` when they cannot."""

    def facts(self) -> Sequence[Fact]:
        """The facts in the soul, in the order of the file."""
        ...

    def remember(self, text: str, key: str) -> Remembered:
        """Add a fact; where a fact with the same non-empty ``key`` stands, take its place."""
        ...

    def forget(self, facts: Sequence[Fact]) -> Sequence[str]:
        """Remove these facts; gives the texts that were removed."""
        ...

    def tasks(self) -> Sequence[TaskView]:
        """All tasks that can be read."""
        ...

    def create_task(self, name: str, body: str, every: str, steps: Sequence[ToolCall]) -> TaskView:
        """Write a new task file, or change the period of the same task made by the agent before."""
        ...

    def pause_task(self, name: str) -> TaskView:
        """Stop a task from falling due; its file stays as it is."""
        ...

    def resume_task(self, name: str) -> TaskView:
        """Undo ``pause_task``."""
        ...

    def run_task(self, name: str) -> str:
        """Hand in the task's request now; gives the run's id."""
        ...

    def runs(self, since: datetime | None, limit: int) -> Sequence[Run]:
        """Past runs, newest first."""
        ...

    def status(self) -> str:
        """The present status, in words."""
        ...

    def sandbox(self) -> Sandbox:
        """How programs are to be locked in, as the settings say now."""
        ...

    def network(self) -> Network:
        """What the tool http may reach, as the settings say now."""
        ...

    def secret(self, name: str, url: str) -> str:
        """The value of a secret, if it may be sent to this canonical address; else the error says why not."""
        ...


class Context(Struct, frozen=True, kw_only=True):
    """Where a tool call happens. ``now`` is in the workspace's time zone; ``seconds_left`` is what the run has.

    ``stopping`` is True once the daemon wants to end: long calls should look at it.
    """

    root: SafeRoot
    home: Home
    now: Callable[[], datetime]
    run: str
    trigger: str
    seconds_left: Callable[[], float]
    stopping: Callable[[], bool]
    max_output: int = 20_000


class Tool(ABC, Generic[A]):
    """One thing that an engine may do.

    ``args`` is the struct of its arguments and ``main`` the one that a bare value stands for (``- read: notes.md``).
    ``effect`` says what a crash in the middle means: ``read`` changes nothing, ``repeatable`` may be done again with
    the same outcome, ``once`` must not be done again unless ``happened`` can tell. ``slow`` marks tools that may take
    long (programs, the network): runs that use them never keep others waiting.

    Limits: a tool is one object used by several threads; it keeps no state between calls.
    """

    name: ClassVar[str]
    args: type[A]
    main: ClassVar[str]
    effect: ClassVar[Effect] = "once"
    slow: ClassVar[bool] = True

    @abstractmethod
    def run(self, args: A, context: Context) -> ToolResult:
        """Do it. Raises ``ToolError`` or ``UnsafePathError`` where it cannot."""

    def prepare(self, args: A, context: Context) -> A:
        """The arguments as policy shall judge them and ``run`` shall use them (links followed, an absolute path made
        relative, a URL in canonical form). Call it once, before ``subject``; ``run`` expects its outcome.

        Never fails: what cannot be understood stays as it was written, for ``run`` to refuse.
        """
        return args

    def subject(self, args: A) -> str:
        """What policy patterns are matched against: exactly what will be used (a path, a command line, a URL)."""
        return str(getattr(args, self.main))

    def preview(self, args: A, context: Context) -> str:
        """What the call would do, for a person who is to approve it: a diff, a whole request. Only reads.

        Empty where subject and arguments say it all. Raises as ``run`` does where the call could not be made now.
        """
        return ""

    def before(self, args: A, context: Context) -> dict[str, Any] | None:
        """What to record with the intent, so that ``happened`` can tell after a crash."""
        return None

    def happened(self, args: A, context: Context, before: dict[str, Any]) -> ToolResult | Literal[False] | None:
        """After a crash: the result if the call took place, False if it did not, None if nobody can know."""
        return None
