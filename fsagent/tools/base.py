"""The Tool protocol: what an engine may use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct

from fsagent.definitions import Definition, Pins
from fsagent.errors import ToolError
from fsagent.files.fields import nearest
from fsagent.files.paths import SafeRoot
from fsagent.mcpsettings import McpServer
from fsagent.model import Fact, Run, ToolCall, ToolResult

Effect = Literal["read", "repeatable", "once"]
Reach = Literal["inside", "memory", "outside"]
A = TypeVar("A", bound=Struct)
_SAYS_NOTHING = ("title", "description", "$defs", "$schema")
_MAX_NODES = 5_000
_EMPTY: tuple[tuple[str, object], ...] = (
    ("default", ""), ("default", []), ("default", {}), ("default", None), ("required", []),
    ("additionalProperties", False),
)  # fmt: skip


class Remembered(Struct, frozen=True):
    """What ``remember`` did: the fact as it stands now, and the one that it took the place of (or "")."""

    fact: str
    replaced: str = ""
    known: bool = False


class TaskView(Struct, frozen=True):
    """A task as a person asks for it: its rule and state in words, and its times (local).

    ``held_back`` says why its last slot brought no run; empty where it did.
    """

    name: str
    rule: str
    request: str
    state: str
    last: datetime | None = None
    next: datetime | None = None
    held_back: str = ""


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
        """Write a new task file, or change the rule of the same task made by the agent before.

        ``every`` is a rule in one line: ``1h``, ``heartbeat``, ``0 9 * * mon-fri``, ``mon,fri 09:00``,
        ``2027-01-05 14:00``."""
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

    def notify(self, title: str, text: str, run: str) -> str:
        """Tell the owner something; gives the notice's file. The same text told twice by one run is one notice."""
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

    def servers(self) -> Sequence[McpServer]:
        """The MCP servers that are to be used, as the settings say now, with secrets filled in."""
        ...

    def pins(self, server: str) -> Pins | None:
        """What is known of an MCP server, and pinned of its tools; None if it was never spoken to."""
        ...

    def offer(self, server: str, tools: Sequence[Definition], trouble: str) -> Pins:
        """Record what an MCP server offers now, and in words what was left out of it; the first offer is pinned."""
        ...

    def server_trouble(self, server: str, why: str) -> None:
        """Record why the tools of an MCP server are not there; empty where they are."""
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
    long (programs, the network): runs that use them never keep others waiting. ``hint`` says to a model what the tool
    is for and what its arguments mean, in as few words as will do; ``pages`` that it can be asked for the rest of a
    long result. ``asks`` means that the call is itself a question to a person: it is never run, what they write is its
    result.

    Limits: a tool is one object used by several threads; it keeps no state between calls.
    """

    name: str
    args: type[A]
    main: ClassVar[str]
    effect: Effect = "once"
    slow: ClassVar[bool] = True
    hint: str = ""
    pages: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    @property
    def rule(self) -> str:
        """The name under which policy looks for rules: the tool's own, or of what it belongs to (an MCP server)."""
        return self.name

    def understand(self, args: dict[str, Any]) -> A:
        """Arguments as they were written (JSON values; "" names the main one), as a value of ``args``.

        Raises ``ToolError`` that names the argument and what it takes.
        """
        names = self.args.__struct_fields__
        given = {self.main if name == "" else name: value for name, value in args.items()}
        for name in given:
            if name not in names:
                raise ToolError(
                    f"{self.name} has no argument {name!r}{nearest(name, names)}; it takes {', '.join(names)}"
                )
        try:
            return msgspec.convert(given, self.args, strict=False)
        except msgspec.ValidationError as error:
            raise ToolError(f"{self.name}: {_in_words(str(error))}") from None

    def schema(self) -> dict[str, Any]:
        """The arguments as a JSON Schema of an object, for models: no titles, no references."""
        return lean_schema(msgspec.json.schema(self.args))

    def reach(self, args: A, context: Context) -> Reach:
        """How far the call reaches: ``inside`` the workspace's files; into the ``memory``, which later runs obey (the
        soul, the tasks); or ``outside``, which is what holds for a tool that says nothing."""
        return "outside"

    def named_in(self, args: A, text: str) -> bool:
        """True if the call carries nothing but what stands word for word in ``text``. Then whoever wrote the text has
        asked for just this call, and nobody else can have put anything into it."""
        return False

    def foreign(self, args: A, result: ToolResult) -> bool:
        """True where the result may hold text that somebody else than the owner wrote: true of anything that was read
        anywhere. What was so taken in never gains authority (see ``consent``)."""
        return True

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

    def doubt(self, args: A, context: Context) -> str:
        """Why a person must be asked about this call although the policy allows it, or though it was allowed for good;
        empty where there is no reason. Only reads. ``args`` are prepared."""
        return ""

    def written(self, args: A) -> dict[str, Any]:
        """The arguments as a call would name them, those that say something: what ``understand`` takes."""
        kept = {}
        for each in msgspec.structs.fields(args):
            value = getattr(args, each.name)
            default = each.default if each.default_factory is msgspec.NODEFAULT else each.default_factory()
            if value != default:
                kept[each.name] = msgspec.json.decode(msgspec.json.encode(value))  # as it is when it was recorded
        return kept

    def choices(self, args: A) -> tuple[str, ...]:
        """What there is to choose from, where the call asks a person something (``asks``)."""
        return ()

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


def lean_schema(schema: dict[str, Any], words: int = 0) -> dict[str, Any]:
    """A JSON Schema as small as it can be with the same meaning for a model: references put in place, titles, texts
    and empty defaults left out. A reference that leads into itself ends as any value. Of descriptions ``words``
    characters are kept. Raises ``ValueError`` where it would become huge (references to references)."""
    parts = schema.get("$defs", {})
    nodes = 0

    def lean(node: Any, inside: tuple[str, ...] = ()) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > _MAX_NODES:
            raise ValueError("the schema is too large")
        if not isinstance(node, dict):
            return [lean(each, inside) for each in node] if isinstance(node, list) else node
        if "$ref" in node:
            name = str(node["$ref"]).rpartition("/")[2]
            part = parts.get(name, {}) if isinstance(parts, dict) else {}
            return {} if name in inside else lean(part, (*inside, name))
        kept: dict[str, Any] = {}
        for key, value in node.items():
            if key == "properties" and isinstance(value, dict):
                kept[key] = {name: lean(each, inside) for name, each in value.items()}
            elif key == "description" and words and isinstance(value, str):
                kept[key] = value if len(value) <= words else f"{value[:words].rstrip()}…"
            elif key not in _SAYS_NOTHING and (key, value) not in _EMPTY:
                kept[key] = lean(value, inside)
        return kept

    found: dict[str, Any] = lean(schema)
    return found


def _in_words(message: str) -> str:
    text, _, path = message.partition(" - at `$")
    where = path.strip("`.")
    text = text.replace("`", "'").replace("Object missing required field", "misses the argument")
    return f"{where}: {text}" if where else text
