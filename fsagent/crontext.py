"""Cron rules as people write them: checked field by field, and told in words. What they mean is cronsim's.

Five fields: minute, hour, day of the month, month, day of the week; besides numbers, lists, ranges and steps there are
names (``mon``, ``january``), ``L`` (last day), ``LW`` (last Monday-to-Friday day), ``fri#2`` (second Friday), ``friL``
(last Friday). As in Debian's cron, a day must fit the day of the month *and* the day of the week if one of the two
fields starts with ``*``, otherwise one of the two is enough.
"""

from __future__ import annotations

import re

from fsagent.files.fields import nearest

ALIASES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_DAYS = "sunday monday tuesday wednesday thursday friday saturday".split()
_MONTHS = "january february march april may june july august september october november december".split()
_PLACES = ("first", "second", "third", "fourth", "fifth")
# name, least, most, names, what it may hold
_FIELDS: tuple[tuple[str, int, int, list[str], str], ...] = (
    ("minute", 0, 59, [], "0 to 59, for instance 0, */15 or 0,30"),
    ("hour", 0, 23, [], "0 to 23, for instance 9, */2 or 9-17"),
    ("day of the month", 1, 31, [], "1 to 31, L (the last day) or LW (the last Monday-to-Friday day)"),
    ("month", 1, 12, _MONTHS, "1 to 12 or jan to dec"),
    ("day of the week", 0, 7, _DAYS, "0 to 7 (0 and 7 are Sunday) or sun to sat, for instance mon-fri, fri#2 or friL"),
)


def cron_rule(text: str) -> str:
    """The five fields of a rule, in small letters. Raises ``ValueError`` with what to write instead."""
    rule = " ".join(text.lower().split())
    if rule.startswith("@"):
        if rule not in ALIASES:
            raise ValueError(f"{text!r} is no rule{nearest(rule, ALIASES)}; there are {', '.join(ALIASES)}")
        return ALIASES[rule]
    fields = rule.split(" ")
    if len(fields) != 5:
        raise ValueError(_wrong_number(fields))
    checked, wrong = [], []
    for number, field in enumerate(fields):
        try:
            checked.append(_field(number, field))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    rule = " ".join(checked)
    if not _comes(rule):
        raise ValueError(f"{rule!r} never comes: no month that it names has such a day")
    return rule


def _wrong_number(fields: list[str]) -> str:
    said = "minute, hour, day of the month, month, day of the week; for instance 0 9 * * mon-fri"
    if len(fields) == 6:
        step = re.fullmatch(r"\*/(\d+)", fields[0])
        period = f"{step[1]}s" if step else "1s" if fields[0] == "*" else ""
        if period and fields[1:] == ["*"] * 5:
            return f"has six fields, with seconds; write every: {period} instead"
        return f"has six fields; seconds (or a year) have no place in it: write five ({said}), or every: 10s"
    return f"has {len(fields)} {'field' if len(fields) == 1 else 'fields'} and needs five: {said}"


def _field(number: int, field: str) -> str:
    """One field, checked, with names and ends that cronsim knows. Raises ``ValueError``."""
    from cronsim.cronsim import CronSimError, Field

    name, least, most, names, holds = _FIELDS[number]
    terms = []
    for term in field.split(","):
        known = re.sub("[a-z]{3,}", lambda found: _short(found[0], names), term)
        if number == 4:
            known = re.sub(r"^([a-z]{3})l$", lambda found: f"{_number(found[1], names)}l", known)
            known = re.sub(r"(?<!^sun)(?<!^0)-(sun|0)(?=$|/)", "-7", known)
        where = f"{term or field!r} cannot be the {name} (the {_PLACES[number]} of the five fields)"
        if term == "?":
            raise ValueError(f"{where}; write * for any")
        if backwards := re.fullmatch(r"(\w+)-(\w+)", known):
            start, end = (_number(each, names) for each in backwards.groups())
            if least <= end < start <= most:
                ends = f"{start}-{most if number != 4 else 6},{least}-{end}"
                raise ValueError(f"{where}: it runs backwards; write {ends}")
        step = known.partition("/")[2]
        if step.isdecimal() and int(step) > most:
            instead = f"; write every: {step}{'m' if number == 0 else 'h'}" if number < 2 else ""
            raise ValueError(f"{where}: its step is longer than the field{instead}")
        try:
            Field(number + 1).parse(known.upper())
        except (CronSimError, ValueError, AssertionError, TypeError):
            raise ValueError(f"{where}; it may hold {holds}, or *") from None
        # cronsim takes 5-5/2 for 5/2, which goes on to the end of the field
        terms.append(re.sub(r"^(\w+)-\1/\d+$", r"\1", known))
    return ",".join(terms)


def _short(name: str, names: list[str]) -> str:
    """The first three letters of a whole name; with the ``l`` of ``friL`` if it has one."""
    return name[:3] if name in names else name


def _number(name: str, names: list[str]) -> int:
    short = [each[:3] for each in names]
    if name in short:
        return short.index(name) + (len(names) == 12)
    return int(name) if name.isdecimal() else -1


def _comes(rule: str) -> bool:
    from datetime import UTC, datetime

    from cronsim import CronSim, CronSimError

    try:
        return next(CronSim(rule, datetime(2000, 1, 1, tzinfo=UTC)), None) is not None
    except CronSimError:
        return False


def cron_in_words(rule: str) -> str:
    """A checked rule for people: ``at 09:00 on Monday to Friday``."""
    from cronsim.explain import explain

    said = explain(rule)
    said = said[0].lower() + said[1:]
    said = re.sub(r"(\d+)th\b", lambda found: f"{found[1]}{_ordinal(int(found[1]))}", said)
    said = re.sub(r"\b(every )second (minute|hour|day|month)", r"\1other \2", said)
    said = said.replace(" through ", " to ").replace("day of month", "day of the month").replace(", and ", " and ")
    said = said.replace(" if it's on ", " if it is ")
    minute, _, day, _, weekday = rule.split(" ")
    step = re.fullmatch(r"(?:\*|0|0-59)/(\d+)", minute)
    if step and 60 % int(step[1]) == 0:
        said = re.sub("^every (?!minute)\\w+ minute(?: of every hour)?", f"every {int(step[1])} minutes", said)
    said = re.sub("^at minute 0 past every ", "every ", said)
    if not day.startswith("*") and not weekday.startswith("*"):
        said = said.replace(" and on ", " or on ")
    return said


def _ordinal(number: int) -> str:
    return "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
