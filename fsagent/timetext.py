"""How people write when a task falls due, and how that becomes a ``Timetable``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fsagent.crontext import ALIASES, cron_in_words, cron_rule
from fsagent.errors import DocumentError
from fsagent.files.fields import Duration, format_duration, nearest, read_fields
from fsagent.timetable import Slots, Timetable, seconds_of

LEAST_PERIOD = 1.0
MAX_RULE = 4_000
"""The most characters in a field of a rule; a list of times or days has them all together."""
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT = {"tues": 1, "wednes": 2, "thur": 3, "thurs": 3}
_GROUPS = {
    "weekdays": range(5), "weekday": range(5), "workdays": range(5), "weekend": range(5, 7), "weekends": range(5, 7),
    "daily": range(7), "day": range(7), "days": range(7),
}  # fmt: skip
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_MOMENT = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:(?:[T ]\s*)(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(Z|[+-]\d{2}:?\d{2})?)?", re.IGNORECASE
)
_NOUNS = {
    "second": ("every", "1s"), "minute": ("every", "1m"), "hour": ("every", "1h"), "day": ("cron", "@daily"),
    "week": ("cron", "@weekly"), "month": ("cron", "@monthly"), "year": ("cron", "@yearly"),
}  # fmt: skip
_KINDS = ("every", "cron", "at", "once")
_EXAMPLES = "10m, heartbeat, 09:00, mon-fri 09:00, 0 9 * * mon-fri, @daily, or 2027-01-05 14:00"


class Period(Duration):
    """How often a task falls due: a duration, or ``heartbeat`` (0) for the settings' interval."""

    @classmethod
    def parse(cls, text: str) -> Period:
        """Seconds. Raises ``ValueError`` with what to write instead."""
        if text.strip().lower() == "heartbeat":
            return cls(0)
        try:
            period = cls(Duration.parse(text))
        except ValueError as error:
            raise ValueError(f"{error}, or heartbeat") from None
        if period < LEAST_PERIOD:
            raise ValueError("must be at least 1s")
        return period


class RuleFields(Struct, frozen=True, rename={"from_": "from"}):
    """The fields of a task's frontmatter that say when it falls due; all of them are optional."""

    every: Period | None = None
    cron: str = ""
    at: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    once: str = ""
    timezone: str = ""
    from_: str = ""
    until: str = ""
    active: str = ""


def timetable(fields: RuleFields) -> tuple[Timetable, list[tuple[str, str]]]:
    """The rule that the fields make, and what is wrong with them: (field, what to write instead)."""
    for kind in RuleFields.__struct_fields__:
        value = getattr(fields, kind)
        if isinstance(value, str | tuple) and sum(map(len, value)) > MAX_RULE:
            return Timetable(), [(kind.rstrip("_"), f"is longer than {MAX_RULE} characters; a rule is a few words")]
    given = [kind for kind in _KINDS if getattr(fields, kind) not in (None, "", ())]
    plain = given in ([], ["every"]) and not any(
        (fields.on, fields.timezone, fields.from_, fields.until, fields.active)
    )
    if plain:
        return Timetable(every=float(fields.every or 0)), []
    wrong: list[tuple[str, str]] = []
    if len(given) > 1:
        wrong.append((given[1], f"stands beside {' and '.join([given[0], *given[2:]])}; keep one of them"))

    def taken(field: str, reading: Callable[[], Any], default: Any) -> Any:
        try:
            return reading()
        except ValueError as error:
            wrong.append((field, str(error)))
            return default

    table = Timetable(
        every=float(fields.every or 0),
        cron=taken("cron", lambda: cron_rule(fields.cron) if fields.cron else "", ""),
        at=taken("at", lambda: _clocks(fields.at), ()),
        on=taken("on", lambda: _weekdays(fields.on), ()),
        once=taken("once", lambda: _moment(fields.once, date_will_do=False), ""),
        zone=taken("timezone", lambda: _zone(fields.timezone), ""),
        begin=taken("from", lambda: _moment(fields.from_), ""),
        end=taken("until", lambda: _moment(fields.until), ""),
        active=taken("active", lambda: _window(fields.active), None),
    )
    if fields.on and not fields.at:
        wrong.append(("on", _on_alone(fields, given)))
    if fields.once:
        for field, value in (("from", fields.from_), ("until", fields.until), ("active", fields.active)):
            if value:
                wrong.append((field, "says nothing beside once; leave it out"))
    if not wrong and (why := _never(table)):
        wrong.append((given[0] if given else "until", why))
    return table, wrong


def table_of(fields: Mapping[str, Any]) -> Timetable:
    """The rule that fields of frontmatter make, given as text and lists. Raises ``ValueError`` with what to write."""
    try:
        rule = read_fields(RuleFields, fields, "")
    except DocumentError as error:
        raise ValueError("; ".join(f"{fault.field}: {fault.message}" for fault in error.faults)) from None
    table, wrong = timetable(rule)
    if wrong:
        raise ValueError("; ".join(f"{field}: {why}" for field, why in wrong))
    return table


def rule_from_text(text: str) -> dict[str, Any]:
    """The fields that say what a person wrote in one line: ``10m``, ``heartbeat``, ``0 9 * * mon-fri``, ``@daily``,
    ``09:00``, ``mon,fri 09:00``, ``2027-01-05 14:00``; a word such as ``every``, ``at``, ``once`` or ``cron:`` may
    stand before it. Values are text and lists of text. Raises ``ValueError`` with what to write instead."""
    line = " ".join(text.strip().strip("\"'`").split())[:MAX_RULE]
    found = re.match(r"(every|each|cron|at|once)\b\s*:?\s*", line, re.IGNORECASE)
    said, rest = (found[1].lower(), line[found.end() :].strip("\"'")) if found else ("", line)
    fields = _fields(said, rest) if rest else None
    if fields is None:
        raise ValueError(f"{line[:80]!r} says no time; write for instance {_EXAMPLES}")
    table_of(fields)
    return fields


def _fields(said: str, text: str) -> dict[str, Any] | None:
    word, often = text.lower(), said in ("every", "each")
    parts = word.split()
    if often and word in _NOUNS:
        return dict([_NOUNS[word]])
    if not said and f"@{word}" in ALIASES:
        return {"cron": f"@{word}"}
    if (often or not said) and (word == "heartbeat" or _is_duration(word)):
        return {"every": text}
    is_rule = word.startswith("@") or (re.match(r"[\d*][\d*,/-]* ", word) and (len(parts) > 4 or "*" in word))
    if said == "cron" or (is_rule and not said):
        return {"cron": text}
    if said == "once" or _MOMENT.fullmatch(text):
        return {"once": text}
    if days_and_times := _days_and_times(word):
        return days_and_times
    if said == "at" or re.fullmatch(r".*\d\s*[ap]\.?m\.?", word):
        return {"at": text}
    return {"every": text} if often or parts[0][0].isdigit() else None


def _days_and_times(words: str) -> dict[str, Any] | None:
    """``mon,fri 09:00`` as ``on`` and ``at``; None if it is something else."""
    said = re.sub(r"\s*-\s*", "-", words).replace(",", " ").split()
    times = [word for word in said if _CLOCK.fullmatch(word)]
    days = [word for word in said if word not in times and word not in ("on", "at", "and", "every", "each")]
    try:
        on = _weekdays(tuple(days))
    except ValueError:
        return None
    fields: dict[str, Any] = {"at": times if len(times) > 1 else times[0]} if times else {}
    return fields | ({"on": days if len(days) > 1 else days[0]} if len(on) % 7 else {})


def in_words(table: Timetable, heartbeat: float = 0.0) -> str:
    """The rule for people: ``every 10m``, ``every heartbeat (15m)``, ``at 09:00 on Monday to Friday``."""
    if table.cron:
        said = cron_in_words(table.cron)
    elif table.at:
        said = f"at {_list(table.at)} {f'on {_list(_runs(table.on))}' if table.on else 'every day'}"
    elif table.once:
        said = f"once, {_shown(table.once)}"
    elif table.every:
        said = f"every {format_duration(table.every)}"
    else:
        said = f"every heartbeat ({format_duration(heartbeat)})" if heartbeat else "every heartbeat"
    if table.active:
        said += f", between {table.active[0]} and {table.active[1]}"
    if table.begin:
        said += f", from {_shown(table.begin)}"
    return f"{said}, until {_shown(table.end)}" if table.end else said


def _shown(moment: str) -> str:
    return moment.replace("T", " ")


def _list(words: tuple[str, ...]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _runs(on: tuple[int, ...]) -> tuple[str, ...]:
    """Names of weekdays; three or more in a row become ``Monday to Friday``."""
    names: list[str] = []
    for day in on:
        if day - 1 in on and day + 1 in on:
            continue
        ends_run = day - 1 in on and day - 2 in on
        name = _DAYS[day].capitalize()
        names = [*names[:-1], f"{names[-1]} to {name}"] if ends_run else [*names, name]
    return tuple(names)


def _is_duration(text: str) -> bool:
    try:
        Duration.parse(text)
    except ValueError:
        return False
    return True


def _clock(text: str, *, midnight: bool = False) -> str:
    """A time of day as ``09:00``; with ``midnight`` also ``24:00``. Raises ``ValueError``."""
    text = text.strip()
    if found := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in found.groups())
        if (hour < 24 and minute < 60 and second < 60) or (midnight and (hour, minute, second) == (24, 0, 0)):
            return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
    hint = ""
    if spoken := re.fullmatch(r"(\d{1,2})(?:[:.]?([0-5]\d))?\s*(?:([ap])\.?m\.?|h|uhr)?", text.lower()):
        hour = int(spoken[1]) % 12 + 12 * (spoken[3] == "p") if spoken[3] else int(spoken[1])
        hint = f"; did you mean {hour:02}:{spoken[2] or '00'}?" if hour < 24 else ""
    raise ValueError(f"{text!r} is no time of day; write 00:00 to 23:59, for instance 09:00{hint}")


def _clocks(texts: tuple[str, ...]) -> tuple[str, ...]:
    clocks = {_clock(each) for text in texts for each in re.split(r",| and ", text)}
    return tuple(sorted(clocks, key=seconds_of))


def _weekdays(texts: tuple[str, ...]) -> tuple[int, ...]:
    """0 is Monday. Raises ``ValueError`` with what to write instead."""
    found: set[int] = set()
    for text in re.split(r"[\s,]+", re.sub(r"\s*-\s*", "-", " ".join(texts).lower()).strip()) if texts else ():
        if text in _GROUPS:
            found.update(_GROUPS[text])
        elif text and text != "and":
            start, _, end = text.partition("-")
            first = _weekday(start)
            found.update((first + n) % 7 for n in range((_weekday(end or start) - first) % 7 + 1))
    return tuple(sorted(found))


def _weekday(text: str) -> int:
    short = text.rstrip(".")
    for number, name in enumerate(_DAYS):
        if short in (name, name[:2], name[:3], f"{name}s"):
            return number
    if short in _SHORT:
        return _SHORT[short]
    raise ValueError(
        f"{text!r} is no day of the week{nearest(text, [*_DAYS, *_GROUPS])}; write for instance mon, fri, mon-fri, "
        "weekdays or weekend"
    )


def _moment(text: str, *, date_will_do: bool = True) -> str:
    """ISO 8601 of a moment, or of a date where one will do. Raises ``ValueError`` with what to write instead."""
    if not text:
        return ""
    text = text.strip()
    found = _MOMENT.fullmatch(text)
    if not found:
        kind, example = ("date", "2027-01-05 or 2027-01-05 14:00") if date_will_do else ("moment", "2027-01-05 14:00")
        raise ValueError(f"{text!r} is no {kind}; write for instance {example}")
    if found[4] is None and not date_will_do:
        raise ValueError(f"{text!r} is a day; write the time of day too, for instance {text} 09:00")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    if not 1970 <= year < 3000:
        raise ValueError(f"{text!r} is out of reach; the year must be between 1970 and 2999")
    exact = "seconds" if second else "minutes"
    try:
        then = datetime(year, month, day, hour, minute, second).isoformat()  # noqa: DTZ001  # the zone is the task's
        then = datetime.fromisoformat(then + (found[7] or "").upper()).isoformat(timespec=exact)
    except ValueError:
        raise ValueError(f"{text!r} does not exist; look at its day and its time") from None
    return then[:10] if found[4] is None else then


def _window(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    start, separator, end = (part.strip() for part in re.sub(r"\s+to\s+|\s*–\s*", "-", text).partition("-"))
    if not separator:
        raise ValueError(f"{text!r} is no part of the day; write start and end, for instance 07:00-22:00")
    window = _clock(start), _clock(end, midnight=True)
    if window[0] == window[1]:
        raise ValueError("starts and ends at the same time; write for instance 07:00-22:00, or leave it out")
    return window


def _zone(name: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name).key if name else ""
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write for instance Europe/Berlin") from None


def _on_alone(fields: RuleFields, given: list[str]) -> str:
    days = ",".join(_DAYS[day][:3] for day in _safe(fields.on)) or "mon-fri"
    if given == ["cron"]:
        return f"goes with at, not with cron; name the days in the rule itself, for instance cron: 0 9 * * {days}"
    if given == ["every"]:
        return f"goes with at, not with every; write for instance cron: '0 * * * {days}' instead of both"
    if given == ["once"]:
        return "goes with at, not with once; leave it out"
    return "needs a time of day; write for instance at: 09:00 beside it"


def _safe(texts: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return _weekdays(texts)
    except ValueError:
        return ()


def _never(table: Timetable) -> str:
    """Why a rule has no slot at all; "" if it has one, or if that depends on a zone or heartbeat that is not known."""
    if table.begin and table.end and table.end[:10] < table.begin[:10]:
        return f"never comes: until ({_shown(table.end)}) lies before from ({_shown(table.begin)})"
    if not (table.cron or table.at or (table.every and table.zone)):
        return ""
    start = datetime.fromtimestamp(0, UTC)
    if Slots(table, 0, UTC).after(start):
        return ""
    unbound = replace(table, begin="", end="")
    if table.active and not Slots(unbound, 0, UTC).after(start):
        return f"never comes: none of its times lies between {table.active[0]} and {table.active[1]} (active)"
    return "never comes: it has no time between from and until"
