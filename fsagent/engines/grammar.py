"""Reading plain English one sentence at a time: quotes, stops, politeness, "every 10 minutes". No intents here.

Everything is done on text of a bounded length, with patterns that take linear time, so that no text can hang a run.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from msgspec import Struct

from fsagent.statements import fold
from fsagent.vocabulary import NOT_NAMES, word_set

MAX_TEXT = 2000
MAX_SENTENCES = 12

QUOTED = r"(?:\"[^\"]+\"|`[^`]+`|'(?:[^']|(?<=\w)'(?=\w))+'(?!\w))"
_QUOTED = re.compile(rf"(?<!\w){QUOTED}")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_STOP = re.compile(r"([.!?…]+)(?=\s|$)|\s*\n\s*")
_ABBREVIATION = re.compile(r"(?:^|[\s.])(?:dr|mr|mrs|ms|st|jr|sr|prof|no|nr|vs|ca|[^\W\d_])$", re.IGNORECASE)
_GREETING = r"(?:hey|hi|hello|dear|good (?:morning|afternoon|evening))"
_BEFORE = re.compile(
    rf"(?:{_GREETING}(?: there)?(?:[, ]+(?:agent|fsagent|assistant|bot))?[,!:]*"
    r"|(?:agent|fsagent|assistant|bot)[,:]|(?:ok|okay|well|oh|and|also|by the way|btw|now|then|thanks|thank you),"
    r"|please,?|pls|plz|kindly|just)\s+(?=\S)",
    re.IGNORECASE,
)
_ONLY_GREETING = re.compile(rf"{_GREETING}(?: there)?(?:[, ]+(?:agent|fsagent|assistant|bot))?", re.IGNORECASE)
_ORDER = re.compile(
    r"(?:(?:could|can|would|will) you (?:please |kindly |just )?|i(?:'d| would) like you to |i (?:want|need) you to )",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"(?:,?\s+(?:please|pls|plz|for me)|,\s*(?:thanks|thank you|thx|ok|okay|agent|fsagent))$", re.IGNORECASE
)

_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "forty-five": 45, "sixty": 60, "ninety": 90,
}  # fmt: skip
_UNIT = r"(?P<{}>seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?)"
_EVERY = (
    r"(?:(?:(?:on|at|with) )?(?:every|each)(?: single)? (?P<beat>heartbeat|beat)|(?P<perbeat>(?:once )?per heartbeat)"
    rf"|(?:every|each) (?:(?P<count>\d{{1,6}}|{'|'.join(_NUMBERS)}) )?{_UNIT.format('unit')}"
    r"|every (?P<short>(?:\d{1,6}[dhms]){1,4}|\d{1,6} [dhms])"
    r"|(?P<half>every half(?: an)? hour)|(?P<quarter>every quarter(?: of an)? hour)"
    rf"|once (?:a|an|per|each|every) {_UNIT.format('once')}|(?P<adverb>hourly|daily|weekly))"
)
_EVERY_FIRST = re.compile(rf"{_EVERY}(?:,|:)? (?=\S)", re.IGNORECASE)
_EVERY_LAST = re.compile(rf",? {_EVERY}$", re.IGNORECASE)
_ADVERBS = {"hourly": "1h", "daily": "1d", "weekly": "7d"}

_NO_NAME_EVER = word_set("not unknown none nobody irrelevant secret undecided")
_NOT_IN_NAME = word_set("and or but is was are to with for please thanks who which because so if not as than be it's")
_EDGE = r"(?<![\w.@/\-'])(?:{})(?![\w@/\-']|\.\w)"
_CLAUSE = re.compile(
    _EDGE.format(
        "but|because|so|if|unless|when|while|then|please|what|who|how|why|where|which|not|never|longer|don't|doesn't|isn't|"
        "aren't|is|are|was|were|am|will|can|could|should|would|me|you|your|i|i'm|we|he|she|they|remind|tell|send|write|log|"
        "add|append|remember|forget|note|every|each|maybe|unknown|wrong|right"
    )
    + r"|[?!;]",
    re.IGNORECASE,
)


class Sentence(Struct, frozen=True):
    """One sentence without its final stops and courtesies.

    ``text`` has the person's own characters and ``folded`` the same ones with plain quotes, place by place.
    ``question`` tells of a question mark; ``order`` that a courtesy ("could you …") made it a request.
    """

    text: str
    folded: str
    question: bool = False
    order: bool = False


def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of ``text``; a line end ends one. None at all where the text is too long to be one of ours."""
    if len(text) > MAX_TEXT:
        return ()
    text = _BOLD.sub(r"\1", text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff"))
    found = tuple(sentence for piece, stop in _pieces(text) if (sentence := _sentence(piece, "?" in stop)))
    return found if len(found) <= MAX_SENTENCES else ()


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    folded = fold(text)
    quoted = [match.span() for match in _QUOTED.finditer(folded)]
    start = 0
    for match in _STOP.finditer(folded):
        inside = any(first < match.start() < last for first, last in quoted)
        if inside or (
            match[1] == "." and _ABBREVIATION.search(folded, start, match.start()) and match.end() < len(text)
        ):
            continue
        yield text[start : match.start()], match[1] or ""
        start = match.end()
    yield text[start:], ""


def _sentence(piece: str, question: bool) -> Sentence | None:
    text = _single_spaced(_without_emoji(piece))
    order = False
    while True:
        folded = fold(text)
        if _ONLY_GREETING.fullmatch(folded):
            break
        if match := _BEFORE.match(folded):
            text = text[match.end() :]
        elif match := _ORDER.match(folded):
            text, order = text[match.end() :], True
        elif match := _AFTER.search(folded):
            text = text[: match.start()]
        else:
            break
    text = text.rstrip(" ,:")
    return Sentence(text, fold(text), question, order) if text else None


def _without_emoji(text: str) -> str:
    """``text`` without spaces, emoji and dingbats at its ends."""
    start, end = 0, len(text)
    while start < end and _is_ornament(text[start]):
        start += 1
    while end > start and _is_ornament(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_ornament(char: str) -> bool:
    return (
        char.isspace()
        or char in "\u200d\ufe0f\u200b"
        or unicodedata.category(char) == "So"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
    )


def _single_spaced(text: str) -> str:
    """``text`` with runs of spaces made one, but not within quotes."""
    pieces: list[str] = []
    end = 0
    for match in _QUOTED.finditer(fold(text)):
        pieces += [re.sub(r"\s+", " ", text[end : match.start()]), text[match.start() : match.end()]]
        end = match.end()
    return "".join([*pieces, re.sub(r"\s+", " ", text[end:])]).strip()


def split_every(sentence: Sentence) -> tuple[Sentence, str]:
    """The sentence without "every …" at its start or end, and the period: ``10m``, ``heartbeat``, or "" for none."""
    match = _EVERY_FIRST.match(sentence.folded)
    if match:
        rest = sentence.text[match.end() :]
    elif match := _EVERY_LAST.search(sentence.folded):
        rest = sentence.text[: match.start()]
    else:
        return sentence, ""
    period = _period(match)
    if not period:
        return sentence, ""
    left = cut(sentence, rest)
    return (left, period) if left else (sentence, "")


def cut(sentence: Sentence, rest: str) -> Sentence | None:
    """What is left of a sentence; None where that is nothing."""
    left = _sentence(rest, sentence.question)
    return left and Sentence(left.text, left.folded, left.question, left.order or sentence.order)


def _period(match: re.Match[str]) -> str:
    found = {name: value.casefold() for name, value in match.groupdict().items() if value}
    if "beat" in found or "perbeat" in found:
        return "heartbeat"
    if "adverb" in found:
        return _ADVERBS[found["adverb"]]
    if "half" in found or "quarter" in found:
        return "30m" if "half" in found else "15m"
    if "short" in found:
        period = found["short"].replace(" ", "")
        return period if re.search(r"[1-9]", period) else ""
    word = found.get("count", "1")
    count = int(word) if word.isdigit() else _NUMBERS[word]
    unit = found.get("unit", found.get("once", ""))[0]
    if unit == "w":
        count, unit = count * 7, "d"
    return f"{count}{unit}" if count else ""


def unquoted(text: str) -> str:
    """``text`` without the quotes or backticks around the whole of it."""
    if len(text) > 2 and re.fullmatch(QUOTED, fold(text), re.DOTALL):
        return text[1:-1]
    return text


def is_name(text: str, lower: bool) -> bool:
    """True for one to five words that can be somebody's name; ``lower`` when the person does not use capitals."""
    parts = text.split()
    if not 0 < len(parts) <= 5 or not all(_is_name_word(part) for part in parts):
        return False
    known = {part.casefold() for part in parts}
    if known & (_NOT_IN_NAME | _NO_NAME_EVER):
        return False
    small = {part.casefold() for part in parts if lower or part.islower()}
    return not small & NOT_NAMES


def _is_name_word(word: str) -> bool:
    letters = [char for char in fold(word).rstrip(".") if char not in "'-.·‐"]
    return bool(letters) and all(unicodedata.category(char)[0] in "LM" for char in letters)


def is_value(text: str) -> bool:
    """True for a few words without a clause, a negation, a question or an order among them.

    Commas may stand in a list of short or capitalised pieces (``red, green and blue``, ``Lisbon, Portugal``).
    """
    bare = _QUOTED.sub("", fold(text))
    first, *more = bare.split(", ")
    listed = all(piece[:1].isupper() or piece[:1].isdigit() or len(piece.split()) <= 3 for piece in more)
    short = not more or len(first.split()) <= 4
    return 0 < len(text) <= 200 and len(text.split()) <= 12 and not _CLAUSE.search(bare) and listed and short
