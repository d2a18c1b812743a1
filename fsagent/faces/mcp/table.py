"""What a tool is to a client: a row of a table. Its arguments and results are structs, which make the schemas."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from fsagent.errors import PersonError
from fsagent.faces.door import Caller
from fsagent.files.fields import nearest
from fsagent.workspace.layout import Layout
from fsagent.workspace.tokens import SCOPES, Scope

if TYPE_CHECKING:
    from fsagent.faces.hub import Hub

Effect = Literal["reads", "adds", "sets", "removes", "runs"]
"""What calling a tool does: nothing; keep something more; bring about a state; take something away; anything at all."""

_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "null",
          "array": "a list", "object": "an object"}  # fmt: skip
_WRAPPED = re.compile(r"(?<!\n)\n(?!\n)")
_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<field>[^`]*)`)?", re.DOTALL)
_TYPES = re.compile(r"Expected `(\w+)`, got `(\w+)`")
_LENGTH = re.compile(r"Expected `str` of length (>=|<=) (\d+)")
_BOUND = re.compile(r"Expected `\w+` (>=|<=) ([\d.]+)")


class Access(Struct, frozen=True):
    """On whose behalf a call comes, and what it may do."""

    caller: Caller
    scopes: tuple[Scope, ...] = SCOPES


class Call(Struct, frozen=True):
    """Where a tool call happens. ``report(progress, total, words)`` tells a client that asked for it how far it is."""

    layout: Layout
    hub: Hub
    caller: Caller
    report: Callable[[float, float, str], Awaitable[None]]


class Row(Struct, frozen=True):
    """A tool. The docstring of ``function`` is what a model reads of it; ``str`` of what it returns is its answer in
    words, and where that has a true attribute ``is_error`` the client is told so."""

    name: str
    title: str
    scope: Scope
    effect: Effect
    args: type[Struct]
    returns: type[Struct]
    function: Callable[[Call, Any], Awaitable[Struct]]

    @property
    def description(self) -> str:
        """What it does and its limits; a line is a paragraph."""
        return _WRAPPED.sub(" ", inspect.getdoc(self.function) or "")

    def decode(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments as the function takes them; null stands for what was left out. Raises ``PersonError``."""
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            args = msgspec.convert(given, self.args)
            msgspec.json.encode(args)
        except msgspec.ValidationError as error:
            raise PersonError(self._fault(str(error))) from None
        except UnicodeEncodeError:
            raise PersonError(f"{self.name}: there is a broken character in it that is no Unicode text") from None
        return args

    def _fault(self, message: str) -> str:
        """msgspec's message in words: the field, what is wrong, what to write."""
        found = _WHERE.fullmatch(message)
        what, field = (found["what"], found["field"] or "") if found else (message, "")
        names = [each.encode_name for each in msgspec.structs.fields(self.args)]
        missing = re.search(r"missing required field `(.*)`", what)
        unknown = re.search(r"unknown field `(.*)`", what)
        if unknown:
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            return f"{self.name}: there is no argument {unknown[1]!r}{nearest(unknown[1], names)}; {known}"
        if missing:
            field, what = missing[1], "is missing"
        elif types := _TYPES.match(what):
            what = f"must be {_KINDS.get(types[1], types[1])}, not {_KINDS.get(types[2], types[2])}"
        elif length := _LENGTH.match(what):
            what = "is empty" if length[2] == "1" else f"is longer than {length[2]} characters"
        elif bound := _BOUND.match(what):
            what = f"must be {'at least' if bound[1] == '>=' else 'at most'} {bound[2].removesuffix('.0')}"
        help_ = schema_of(self.args)["properties"].get(field, {}).get("description", "")
        return f"{self.name}: {field}: {what}" + (f". What belongs there: {help_}" if help_ else "")


def schema_of(type_: type[Struct]) -> dict[str, Any]:
    """The JSON schema of a struct, with nothing to look up elsewhere: every reference is replaced by what it means."""
    whole = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(type_)))
    known = whole.pop("$defs", {})

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            node = known[node["$ref"].removeprefix("#/$defs/")] | rest
        return {key: plain(value) for key, value in node.items()}

    schema: dict[str, Any] = plain(whole)
    return {key: value for key, value in schema.items() if key not in ("title", "description")}
