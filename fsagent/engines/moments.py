"""Times of the clock in plain English: "every weekday at 18:30", "tomorrow at 14:00". No intents here.

What is read becomes a rule in one line, as the tool ``task`` takes it: ``09:00``, ``mon,fri 09:00``,
``tomorrow 14:00``, ``2027-01-05 14:00``. A time that could be another one ("every evening at 9") is not read at all.
"""

from __future__ import annotations

import re
from datetime import date

from fsagent.engines.grammar import Sentence, cut

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = rf"(?:{'|'.join(_DAYS)})"
_AND = r"(?:,? and |, | & )"
_TIME = r"(?:\d{1,2}:\d{2}|\d{1,2}(?::\d{2})? ?[ap]\.?m\b\.?|\d{1,2}(?: o'clock)?|noon|midnight)"
_TIMES = rf"(?P<times>{_TIME}(?:{_AND}{_TIME}){{0,5}})(?![\w:.-]*\w)"
_PARTS = {
    "morning": range(4, 12),
    "afternoon": range(12, 18),
    "evening": range(17, 24),
    "night": (*range(20, 24), *range(5)),
}
_OFTEN = (
    rf"(?:(?P<daily>(?:every|each)(?: single)? day|daily)|(?:every|each) (?P<part>{'|'.join(_PARTS)})"
    r"|(?P<work>(?:every|each) (?:weekday|work ?day|working day)|on (?:weekdays|work ?days|working days)|weekdays)"
    r"|(?P<rest>(?:every|each) weekend|on weekends|weekends)"
    rf"|(?:(?:every|each) (?P<each>{_DAY}(?:{_AND}(?:every |each )?{_DAY}){{0,6}})"
    rf"|(?:on )?(?P<plural>{_DAY}s(?:{_AND}(?:on )?{_DAY}s){{0,6}})))"
)
_ONCE = r"(?:(?P<near>today|tomorrow)|(?:on )?(?P<date>\d{4}-\d{2}-\d{2}))"
_WHEN = (rf"{_OFTEN},? at {_TIMES}", rf"at {_TIMES},? {_OFTEN}", rf"{_ONCE},? at {_TIMES}", rf"at {_TIMES},? {_ONCE}")
_FIRST = [re.compile(rf"{when}(?:,|:)? (?=\S)", re.IGNORECASE) for when in _WHEN]
_LAST = [re.compile(rf",? {when}$", re.IGNORECASE) for when in _WHEN]


def split_moment(sentence: Sentence) -> tuple[Sentence, str, bool]:
    """The sentence without a time of the clock at its start or end; the rule that this makes, or "" for none; and
    whether it comes again and again."""
    for patterns, first in ((_FIRST, True), (_LAST, False)):
        for pattern in patterns:
            match = pattern.match(sentence.folded) if first else pattern.search(sentence.folded)
            if match and (rule := _rule(match)):
                rest = cut(sentence, sentence.text[match.end() :] if first else sentence.text[: match.start()])
                return (rest, rule, not _named(match, "near", "date")) if rest else (sentence, "", False)
    return sentence, "", False


def _rule(match: re.Match[str]) -> str:
    times = [_time(text, match) for text in re.split(_AND, match["times"], flags=re.IGNORECASE)]
    if "" in times:
        return ""
    if once := _named(match, "near", "date"):
        return _once(once.casefold(), times)
    days = _days(match)
    return f"{days} {','.join(times)}" if days else ",".join(times)


def _named(match: re.Match[str], *groups: str) -> str:
    """The first of these groups that took part; a pattern need not have them all."""
    known = match.re.groupindex
    return next((match[group] for group in groups if group in known and match[group]), "")


def _days(match: re.Match[str]) -> str:
    if _named(match, "work"):
        return "mon-fri"
    if _named(match, "rest"):
        return "sat,sun"
    found = re.findall(_DAY, _named(match, "each", "plural").casefold())
    return ",".join(day[:3] for day in dict.fromkeys(found))


def _time(text: str, match: re.Match[str]) -> str:
    """``18:30``, or "" where it is no time of day, or might be another one."""
    word = text.casefold().strip()
    if word in ("noon", "midnight"):
        return "12:00" if word == "noon" else "00:00"
    found = re.fullmatch(r"(\d{1,2})(?::(\d{2}))?(?: ?([ap])\.?m\.?| o'clock)?", word)
    if not found:
        return ""
    hour, minute, half = int(found[1]), int(found[2] or 0), found[3]
    if half:
        if not 1 <= hour <= 12:
            return ""
        hour = hour % 12 + 12 * (half == "p")
    part = _named(match, "part").casefold()
    if hour > 23 or minute > 59 or (part and hour not in _PARTS[part]):
        return ""
    return f"{hour:02}:{minute:02}"


def _once(day: str, times: list[str]) -> str:
    """One moment; "" where there are several, or where there is no such day."""
    if len(times) > 1:
        return ""
    try:
        return f"{day if day in ('today', 'tomorrow') else date.fromisoformat(day)} {times[0]}"
    except ValueError:
        return ""
