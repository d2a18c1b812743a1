"""YAML as people write it: every scalar is text, and each field gives its own text a meaning.

YAML 1.2 by ruamel.yaml's round-trip loader, with three differences that keep a person's file out of trouble:

- No scalar is guessed into a number, date or truth value: ``at: 12:30``, ``on: mon``, ``id: 007`` stay what was typed.
- Anchors, aliases and tags are not part of it, depth and the number of nodes are bounded; so no file can grow, hang or
  instantiate anything. Duplicate keys are errors.
- A value that starts with a character YAML reserves (``*/5 * * * *``, ``{{ now }}``, ``@daily``, ``%d``) is taken as
  the text that its author meant.

Source of the traps: shared/facts/libraries.md §5.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import AliasEvent, MappingStartEvent, SequenceStartEvent
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scanner import ScannerError
from ruamel.yaml.tag import Tag

from fsagent.errors import DocumentError
from fsagent.files.plainlines import read_plain_lines
from fsagent.model import Fault

MAX_CHARACTERS = 64 * 1024
MAX_DEPTH = 16
MAX_NODES = 5_000
_MAX_REPAIRS = 50
_MAX_REREAD = 64 * 1024  # characters read again for repairs: each costs some 20 µs
_RESERVED_VALUE = re.compile(r"(?:^|(?<=[:\[,{-]))[ \t]*((?:[*&!%@`]|\{\{))")
_FLOW_STOP = re.compile(r"\{\{|[,\]}]")
_COMMENT = re.compile(r"[ \t]#")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MISREAD = re.compile(r"y|n|yes|no|on|off|[-+.\d][-+.\d:_ex]*", re.IGNORECASE)


class _TextResolver(VersionedResolver):
    """Resolves every plain scalar to text, when reading and when writing."""

    @property
    def versioned_resolver(self) -> dict[str, Any]:
        return {}


class _BoundedComposer(Composer):
    """Refuses aliases, anchors, tags, mappings as keys, and more nodes than ``MAX_NODES``."""

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise MarkedYAMLError(problem=f"has more than {MAX_NODES} values", problem_mark=event.start_mark)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            raise MarkedYAMLError(problem="anchors and aliases", problem_mark=event.start_mark)
        if getattr(event, "ctag", None) is not None and str(event.ctag) not in ("None", "!"):
            raise MarkedYAMLError(problem="tags", problem_mark=event.start_mark)
        if _SURROGATE.search(getattr(event, "value", None) or ""):
            raise MarkedYAMLError(problem="half a character", problem_mark=event.start_mark)
        is_key = parent is not None and parent.id == "mapping" and index is None
        if is_key and isinstance(event, MappingStartEvent | SequenceStartEvent):
            what = "a mapping as key" if isinstance(event, MappingStartEvent) and event.flow_style else "no name"
            raise MarkedYAMLError(problem=what, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_TEXT = Tag(suffix="tag:yaml.org,2002:str")  # one for all: each decodes its name letter by letter, once


class _QuotingRepresenter(SafeRepresenter):
    """Quotes text that a YAML 1.1 reader (PyYAML, Obsidian) would take for a truth value, a number or a time."""

    def represent_text(self, data: str) -> Any:
        style = "'" if _MISREAD.fullmatch(data) else None
        return self.represent_scalar(_TEXT, data, style)


_QuotingRepresenter.add_representer(str, _QuotingRepresenter.represent_text)


class _BlockRepresenter(_QuotingRepresenter):
    """Writes text of several lines as the lines that it has, where YAML can."""

    def represent_text(self, data: str) -> Any:
        if "\n" not in data:
            return super().represent_text(data)
        return self.represent_scalar("tag:yaml.org,2002:str", data, "|")


_BlockRepresenter.add_representer(str, _BlockRepresenter.represent_text)


class _Yaml(YAML):
    """ruamel's own ``YAML`` looks through its folder for plug-ins each time it is made; we use none."""

    def official_plug_ins(self) -> list[str]:
        return []


def _round_trip() -> YAML:
    yaml = _Yaml(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.Resolver = _TextResolver
    yaml.Composer = _BoundedComposer
    yaml.max_depth = MAX_DEPTH
    return yaml


def load_mapping(text: str, file: str, first_line: int = 1) -> CommentedMap:
    """Read a YAML mapping whose scalars are all ``str``; an empty text gives an empty mapping.

    ``first_line`` is the line of the file on which ``text`` starts. Raises ``DocumentError`` with line and column.
    """
    found = read_plain_lines(text)
    return _load(text, file, first_line) if found is None else found


def _load(text: str, file: str, first_line: int) -> CommentedMap:
    if len(text) > MAX_CHARACTERS:
        raise DocumentError([Fault(file, f"the settings part is longer than {MAX_CHARACTERS // 1024} KiB", first_line)])
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for _ in range(max(2, min(_MAX_REPAIRS, _MAX_REREAD // max(1, len(text))))):
        try:
            data = _round_trip().load(text)
            break
        except YAMLError as error:
            repaired = _quote_reserved(text, error)
            if repaired is None:
                raise DocumentError([_fault(error, text, file, first_line)]) from None
            text = repaired
        except (RecursionError, ValueError, AssertionError, AttributeError, TypeError, IndexError, KeyError) as error:
            # ruamel answers some malformed inputs with a bare Python error; for the person it is the same thing
            raise DocumentError([Fault(file, f"is not YAML that can be read ({error})", first_line)]) from None
    else:
        raise DocumentError([Fault(file, "has too many values that need quotes; put them in quotes", first_line)])
    if data is None or data == "":
        return CommentedMap()
    if not isinstance(data, CommentedMap):
        raise DocumentError([Fault(file, "must be lines of the form 'name: value'", first_line)])
    return data


def dump_mapping(data: Mapping[str, Any], *, blocks: bool = False) -> str:
    """Typed YAML for what we write ourselves: any YAML reader gets the same values back, in the same order.

    With ``blocks`` a text of several lines stands there as lines, for people to edit.
    """
    yaml = _Yaml(typ="safe")
    yaml.Representer = _BlockRepresenter if blocks else _QuotingRepresenter
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel types its default only
    yaml.width = 4096
    out = io.StringIO()
    yaml.dump(dict(data), out)
    return out.getvalue()


def position(node: Any, key: Any, first_line: int = 1) -> tuple[int, int]:
    """Line and column (from 1) of ``key`` in a mapping or of item ``key`` in a list; (0, 0) when unknown."""
    try:
        line, column = node.lc.key(key) if isinstance(node, CommentedMap) else node.lc.item(key)
    except (AttributeError, KeyError, TypeError, IndexError):
        return 0, 0
    return int(line) + first_line, int(column) + 1


def plain(node: Any) -> Any:
    """The same data as builtin ``dict``, ``list`` and ``str``."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return "" if node is None else str(node)


def _quote_reserved(text: str, error: YAMLError) -> str | None:
    """Put the value in or before which reading failed in quotes, when it starts with a character YAML reserves."""
    mark = getattr(error, "problem_mark", None)
    lines = text.split("\n")
    if not isinstance(mark, StringMark) or mark.line >= len(lines):
        return None
    line = lines[mark.line]
    starts = [found.start(1) for found in _RESERVED_VALUE.finditer(line) if found.start(1) <= mark.column]
    if not starts:
        return None
    if _opens_flow(line[: starts[-1]]):
        start, end = starts[-1], _flow_end(line, starts[-1])
    else:
        start = starts[0]
        comment = _COMMENT.search(line, start)
        end = comment.start() if comment else len(line)
    value = line[start:end].rstrip()
    lines[mark.line] = line[:start] + "'" + value.replace("'", "''") + "'" + line[start + len(value) :]
    return "\n".join(lines)


def _flow_end(line: str, start: int) -> int:
    """Where a value in a list or map on one line ends: before a comma or bracket that stands in no ``{{ … }}``."""
    at, last = start, line.rfind("}}")
    while stop := _FLOW_STOP.search(line, at):
        if stop[0] != "{{":
            return stop.start()
        at = line.index("}}", stop.end()) + 2 if stop.end() <= last else stop.end()
    return len(line)


def _opens_flow(text: str) -> bool:
    return text.count("[") + text.count("{") > text.count("]") + text.count("}")


_ADVICE = (
    (
        "anchors and aliases",
        "anchors (&) and aliases (*) are not used here; write the value out, in quotes if it is text",
    ),
    ("tags", "tags (!) are not used here; put the value in quotes"),
    ("no name", "a name before ':' must be plain text, not a list or a map"),
    ("half a character", "\\ud800 to \\udfff are halves of a character; write the character itself"),
    ("a mapping as key", "put a value that starts with {{ in quotes"),
    ("maximum depth", f"lists and maps may nest at most {MAX_DEPTH} deep"),
    ("mapping values are not allowed", "a value that holds ': ' must be in quotes, and names must line up"),
    ("cannot start any token", "this character cannot start a value; indent with spaces, and put the value in quotes"),
    ("could not find expected ':'", "a line is missing its ':' or its value is not in quotes"),
    ("expected <block end>", "the line is not indented like its neighbours"),
    ("while scanning a quoted scalar", "a quote is opened and never closed"),
    ("unexpected end of stream", "a quote is opened and never closed"),
    ("while parsing a flow", "a list [ … ] or map { … } is not closed, or a comma in it is missing"),
    ("but found another document", "only one block of settings may stand between the --- lines"),
)


def _fault(error: YAMLError, text: str, file: str, first_line: int) -> Fault:
    """One fault a person can act on, from what ruamel says."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", "") or "")
    if isinstance(error, ScannerError) and error.context_mark is not None:
        mark = error.context_mark  # where it begins (an open quote), not where reading it had to end
    said = " ".join(part for part in (str(getattr(error, "context", "") or ""), problem) if part) or str(error)
    line, column = 0, 0
    if mark is not None:
        last = text.count("\n")
        line, column = min(mark.line, last) + first_line, mark.column + 1
    elif (position_of := getattr(error, "position", None)) is not None:
        line = text.count("\n", 0, position_of) + first_line
        return Fault(file, "holds a control character that YAML does not allow; remove it", line)
    if isinstance(error, DuplicateKeyError):
        found = re.search(r'found duplicate key "(.*?)"', problem, re.DOTALL)
        name = found[1] if found else ""
        return Fault(file, "stands twice; keep one of the two", line, column, name)
    for needle, advice in _ADVICE:
        if needle in said:
            return Fault(file, advice, line, column)
    return Fault(file, f"is not YAML that can be read: {' '.join(said.split())[:200]}", line, column)
