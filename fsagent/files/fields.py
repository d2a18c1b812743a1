"""From a map of text to a typed value, collecting every fault with its place.

The schema is a msgspec struct: its fields, their types and defaults. Besides msgspec's own types there are
``Duration`` (seconds), ``Amount`` (a number or no limit) and ``Moment`` (a point in time).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from fsagent.errors import DocumentError
from fsagent.files.yamltext import plain, position
from fsagent.model import Fault

S = TypeVar("S", bound=msgspec.Struct)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNIT_WORDS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h", "day": "d", "week": "w"}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
MAX_SECONDS = 3650 * 86400


class Duration(float):
    """A length of time in seconds, written ``30s``, ``5m``, ``1h30m``, ``1d``."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Seconds of a written duration. Raises ``ValueError`` with what to write instead."""
        rest, total = text.strip().lower(), 0.0
        if not rest:
            raise ValueError("is empty; write a duration such as 30s, 5m, 1h30m or 1d")
        while rest:
            found = _PART.match(rest)
            unit = found and (_UNIT_WORDS.get(found[2].rstrip("s") if len(found[2]) > 1 else found[2], found[2]))
            if not found or unit not in _UNITS:
                hint = f"; did you mean {text.strip()}s?" if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else ""
                raise ValueError(f"{text!r} is no duration; write for instance 30s, 5m, 1h30m or 1d{hint}")
            total += float(found[1]) * _UNITS[unit]
            rest = rest[found.end() :]
        if total > MAX_SECONDS:
            raise ValueError(f"{text!r} is longer than ten years")
        return cls(total)


class Amount(float):
    """A number that may be written short (``20k``, ``1.5M``), or ``off`` for no limit (infinity)."""

    @classmethod
    def off(cls) -> Amount:
        """No limit."""
        return cls("inf")

    @classmethod
    def parse(cls, text: str) -> Amount:
        """The number. Raises ``ValueError`` with what to write instead."""
        word = text.strip().lower().replace("_", "")
        if word in ("off", "none", "unlimited"):
            return cls.off()
        found = re.fullmatch(r"\$?(\d+(?:\.\d+)?|\.\d+)\s*([km]?)", word)
        if not found:
            raise ValueError(f"{text!r} is no amount; write a number such as 200, 20k, 1.5M or 0.50, or off")
        return cls(float(found[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[found[2]])

    def __str__(self) -> str:
        return "off" if self == float("inf") else f"{float(self):,.10g}"


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration: ``90`` gives ``1m30s``."""
    if seconds < 1 or seconds != int(seconds):
        return f"{seconds:g}s"
    rest, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return "".join(parts)


class Moment(str):
    """A point in time as written: ``2026-12-24 18:00``, ISO 8601 with a zone, or ``18:00`` for the next such time."""

    @classmethod
    def parse(cls, text: str) -> Moment:
        """The text, checked. Raises ``ValueError`` with what to write instead."""
        parse_moment(text, datetime.fromtimestamp(0, UTC))
        return cls(text)

    def at(self, now: datetime) -> datetime:
        """The moment as an aware time; ``now`` is aware and gives the zone. Raises ``ValueError``."""
        return parse_moment(self, now)


def parse_moment(text: str, now: datetime) -> datetime:
    """See ``Moment``."""
    zone: tzinfo | None = now.tzinfo
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text.strip()):
        clock = [int(part) for part in text.strip().split(":")] + [0]
        try:
            then = now.replace(hour=clock[0], minute=clock[1], second=clock[2], microsecond=0)
        except ValueError:
            raise ValueError(f"{text!r} is no time of day") from None
        return then if then > now else then + timedelta(days=1)
    try:
        then = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time; write for instance 2026-12-24 18:00") from None
    return then if then.tzinfo else then.replace(tzinfo=zone)


def _hook(kind: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a single value, not a list or a map")
    if not issubclass(kind, Amount | Duration | Moment):
        raise NotImplementedError  # so msgspec hears that the type has no meaning here
    return kind.parse(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the known word that looks most like ``word``, or an empty text."""
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def read_fields(
    schema: type[S],
    fields: Mapping[str, Any],
    file: str,
    first_line: int = 1,
    prefix: str = "",
    extra: Mapping[str, str] | None = None,
) -> S:
    """``fields`` as a ``schema``. Raises ``DocumentError`` with all faults: unknown names, wrong values.

    An empty value counts as not given; where the schema has a struct (a group of fields, read by the same rules), it
    counts as a group that says nothing. ``extra`` maps names that belong elsewhere to a hint.
    """
    if not fields:
        return schema()
    known = _known(schema)
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, node in fields.items():
        line, column = position(fields, name, first_line)
        where = prefix + name
        if name not in known:
            hint = (extra or {}).get(name) or f"is not known here{nearest(name, known)}; known are: {', '.join(known)}"
            faults.append(Fault(file, hint, line, column, where))
            continue
        value, group = plain(node), _group(known[name].type)
        if value == "" and not group:
            continue
        try:
            if group and (value == "" or isinstance(value, dict)):
                values[name] = read_fields(group, node or {}, file, first_line, f"{where}.")
            else:
                values[name] = convert(value, group or known[name].type)
        except DocumentError as error:
            faults += error.faults
        except (ValueError, msgspec.ValidationError) as error:
            at, message = _inside(node, str(error), first_line)
            faults.append(Fault(file, message, *(at or (line, column)), where))
    if faults:
        raise DocumentError(faults)
    return schema(**{known[name].name: value for name, value in values.items()})


def convert(value: Any, kind: Any) -> Any:
    """Plain data as ``kind``: text becomes the number, truth value, duration or list that the type asks for."""
    if kind is bool and isinstance(value, str):
        value = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower(), value.lower())
    elif isinstance(value, str) and getattr(kind, "__origin__", None) is tuple:
        value = [value]
    return msgspec.convert(value, kind, strict=False, dec_hook=_hook)


def place(node: Any, path: Iterable[str | int], first_line: int = 1) -> tuple[int, int]:
    """Line and column of what lies under ``path`` (names in maps, numbers in lists), or of what leads there."""
    found = (0, 0)
    for key in path:
        here = position(node, key, first_line)
        if here == (0, 0):
            break
        found, node = here, node[key]
    return found


@cache
def _known(schema: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(schema)}


def _group(kind: Any) -> type[msgspec.Struct] | None:
    """The struct in a field's type, be it optional or not."""
    for each in get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]:
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None


def _inside(node: Any, message: str, first_line: int) -> tuple[tuple[int, int] | None, str]:
    """Split msgspec's ``… - at `$.a[0]``` into a place in the file and words for a person."""
    text, _, path = message.partition(" - at `")
    keys = [int(part[0]) if part[0] else part[1] for part in re.findall(r"\[(\d+)\]|\.([\w-]+)", path)]
    found = place(node, keys, first_line)
    text = text.replace("Object missing required field", "misses").replace("`", "'")
    text = re.sub(
        r"^Expected '?(\w+)(?: \| null)?'?, got '?(\w+)'?", lambda m: f"must be {_word(m[1])}, not {_word(m[2])}", text
    )
    text = re.sub(r"^Invalid enum value", "cannot be", text)
    return found if found != (0, 0) else None, text


def _word(kind: str) -> str:
    return {
        "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
        "array": "a list", "object": "a map of names and values",
    }.get(kind, kind)  # fmt: skip
