"""A tool of an MCP server, as a tool of the agent; and how a run comes to have them.

What a model and the policy see of it is pinned (``definitions``): the server cannot change its words behind the owner's
back. A call of a tool whose definition differs from the pinned one carries the print of the new one in its prepared
arguments, so a person's approval is bound to exactly that definition, and it is not called if it changed once more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fsagent.definitions import Definition, Pins, print_of, shown
from fsagent.errors import ToolError
from fsagent.mcpsettings import McpServer
from fsagent.model import ToolResult
from fsagent.tools.base import Context, Effect, Home, Reach, Tool, lean_schema
from fsagent.tools.servers.client import Patience, Servers
from fsagent.tools.text import clip

if TYPE_CHECKING:
    from fsagent.tools.servers.link import Offer

FIRST_CONTACT = 5.0
MAX_NAME = 64
MAX_HINT = 300
MAX_WORDS, MAX_SCHEMA = 160, 6_000

_ODD = re.compile(r"[^A-Za-z0-9_-]")


class McpArgs(Struct, frozen=True):
    """``arguments`` as the server shall get them. ``definition`` is the print of the definition that the server gives
    now, where that is not the pinned one."""

    arguments: dict[str, Any] = {}
    definition: str = ""


class McpTool(Tool[McpArgs]):
    """One tool of one server, as it was pinned."""

    args = McpArgs
    main = "arguments"

    def __init__(self, name: str, server: McpServer, pinned: Definition, servers: Servers) -> None:
        self.name, self.server, self.pinned, self._servers = name, server, pinned, servers
        self.hint = _shortened(" ".join(pinned.description.split()))
        self.effect: Effect = "read" if server.trusted and pinned.reads else "once"

    @property
    def rule(self) -> str:
        """Rules stand under the name of the server; patterns are matched against the tool's own name and arguments."""
        return self.server.name

    def understand(self, args: dict[str, Any]) -> McpArgs:
        """Whatever was given; the server judges it."""
        if not isinstance(args, dict):
            raise ToolError(f"{self.name} takes an object of arguments")
        return McpArgs(args)

    def written(self, args: McpArgs) -> dict[str, Any]:
        """The arguments as the server would get them."""
        return args.arguments

    def schema(self) -> dict[str, Any]:
        """The pinned one; what it says of each argument is kept, shortened, where it is not much in all."""
        found = lean_schema(self.pinned.schema, MAX_WORDS)
        if len(msgspec.json.encode(found)) > MAX_SCHEMA:
            found = lean_schema(self.pinned.schema)
        properties = found.get("properties")
        return found | {"type": "object", "properties": properties if isinstance(properties, dict) else {}}

    def reach(self, args: McpArgs, context: Context) -> Reach:
        """Nobody knows how far a server reaches."""
        return "outside"

    def subject(self, args: McpArgs) -> str:
        """``create_issue {"title":"x"}``: the server's own name of the tool, and the arguments by name."""
        return f"{self.pinned.name} {msgspec.json.encode(args.arguments, order='sorted').decode()}"

    def prepare(self, args: McpArgs, context: Context) -> McpArgs:
        """The arguments with the print of the definition where it changed. Asks the server; where it does not answer
        nothing changed, as far as anybody knows, and ``run`` will tell."""
        try:
            now = self._now(context)
        except ToolError:
            return args
        changed = now is not None and now.print != self.pinned.print
        return replace(args, definition=now.print if now and changed else "")

    def doubt(self, args: McpArgs, context: Context) -> str:
        """A changed definition must be put to a person."""
        if not args.definition:
            return ""
        return (
            f"{self.server.name} has changed what it says of this tool since you approved it "
            f"(to approve that for good: fsagent servers approve {self.server.name})"
        )

    def preview(self, args: McpArgs, context: Context) -> str:
        """The arguments; and what was changed in the definition."""
        text = msgspec.json.format(msgspec.json.encode(args.arguments, order="sorted"), indent=2).decode()
        if not args.definition:
            return text if args.arguments else ""
        now = self._now(context)
        return f"{text}\n\nThe definition of the tool was changed:\n\n{shown(self.pinned, now)}"

    def run(self, args: McpArgs, context: Context) -> ToolResult:
        """What the server answers, as text. Raises ``ToolError`` for what it calls an error, too."""
        wanted = self.pinned
        if args.definition:
            now = self._now(context)
            if now is None or now.print != args.definition:
                raise ToolError(f"{self.server.name} has changed {self.pinned.name!r} once more; it was not called")
            wanted = now
        patience = Patience(context.stopping, context.seconds_left)
        found = self._servers.call(self.server, wanted, args.arguments, patience, acts=self.effect != "read")
        text = clip(found.text, context.max_output)
        if found.failed:
            raise ToolError(text or f"{self.server.name} says that {self.pinned.name} failed, and not why")
        small = found.data is not None and len(msgspec.json.encode(found.data)) <= context.max_output
        return ToolResult(text=text or "(no output)", data=found.data if small else None)

    def _now(self, context: Context) -> Definition | None:
        """The tool as the server defines it now, None where it has it no more; tells the workspace of the whole offer.

        Raises ``ToolError`` where the server does not answer.
        """
        offer = self._servers.offer(self.server, Patience(context.stopping, context.seconds_left))
        _record(context.home, self.server, offer)
        return {each.name: each for each in offer.tools}.get(self.pinned.name)


def load_server_tools(
    home: Home,
    servers: Servers,
    stopping: Callable[[], bool] = lambda: False,
    seconds_left: Callable[[], float] = lambda: float("inf"),
) -> dict[str, Tool[Any]]:
    """The tools of all MCP servers of the settings, by their names, at the beginning of a run.

    A server that has pins is not contacted. One that has none is, for at most ``FIRST_CONTACT`` seconds, all such at
    the same time; if it does not answer, its tools are not there this time, and ``home`` is told why.
    """
    tools: dict[str, Tool[Any]] = {}
    known: dict[str, Pins | None] = {}
    wanted = {server.name: server for server in home.servers()}
    for name in list(wanted):
        try:
            known[name] = home.pins(name)
        except ToolError:
            del wanted[name]  # its pins are damaged, which status.md tells
    new = [server for name, server in wanted.items() if not _pinned(known[name]) and not server.trouble]
    patience = Patience(stopping, seconds_left)
    for name, found in servers.contact(new, FIRST_CONTACT, patience).items():
        if patience.over():
            break  # the run ends, and what it did not hear says nothing of the servers
        try:
            if isinstance(found, ToolError):
                why = f"{str(found).removeprefix(f'{name}: ')}. Its tools are not there until it answers"
                home.server_trouble(name, f"{why}: fsagent servers test {name}")
            else:
                known[name] = home.offer(name, found.tools, found.left_out)
        except ToolError:
            continue  # nothing can be pinned, so there are no tools of it
    for name, server in wanted.items():
        pins = known[name]
        for own, pinned in names_of(name, pins.tools if pins else ()):
            tools[own] = McpTool(own, server, pinned, servers)
    return tools


def names_of(server: str, pinned: Sequence[Definition]) -> list[tuple[str, Definition]]:
    """Each tool with the name that a model calls it by: ``server__tool``, of letters, digits, ``_`` and ``-``, at most
    ``MAX_NAME`` characters. Where that does not tell two apart, a print of the whole name does."""
    plain = [_ODD.sub("_", each.name) for each in pinned]
    found = []
    for each, name in zip(pinned, plain, strict=True):
        whole = f"{server}__{name}"
        if len(whole) > MAX_NAME or (name != each.name and plain.count(name) > 1):
            mark = hashlib.sha256(f"{server}\0{each.name}".encode()).hexdigest()[:6]
            whole = f"{whole[: MAX_NAME - 7]}_{mark}"
        found.append((whole, each))
    return found


def _pinned(pins: Pins | None) -> bool:
    return pins is not None and pins.since is not None


def _record(home: Home, server: McpServer, offer: Offer) -> None:
    """Tell the workspace what a server offers, where it knows it otherwise."""
    known = home.pins(server.name)
    if known is None or known.trouble != offer.left_out or print_of(known.now) != print_of(offer.tools):
        home.offer(server.name, offer.tools, offer.left_out)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_HINT else f"{text[: MAX_HINT - 1].rstrip()}…"
