"""What one statement is about, and who is speaking in it: pure text functions, no I/O.

A fact in the soul is one English sentence. People write about themselves in the first person ("My name is Alice"),
the soul keeps it in the third ("The owner's name is Alice.") so that a person and a model read the same thing, and an
answer gives it back in the second ("Your name is Alice.").

Limit: this knows a small, closed set of English patterns. A sentence that it cannot turn safely is kept as a quotation,
and a sentence whose subject it cannot tell has the key "".
"""

from __future__ import annotations

import re

from fsagent.vocabulary import (
    ADVERBS,
    ATTRIBUTES,
    KEY_ALIASES,
    NO_SUBJECT,
    NOT_IN_SUBJECT,
    NOT_NAMES,
    PERSONAL,
    SECOND_PERSON,
    SMALL_WORDS,
    SPELLING,
    UNCHANGED_VERBS,
    VERBS,
)

MAX_STATEMENT = 1000

_QUOTES = str.maketrans(
    dict.fromkeys("’‘ʼ‛´′", "'")
    | dict.fromkeys("“”„‟«»″", '"')
    | dict.fromkeys("\u00a0\u2007\u202f\u2009\u3000\t", " ")
)

_OWN = r"(?:my|our|(?:the )?(?:owner|user)'s)"
_SELF = r"(?:i|the owner|the user)"
_SELF_IS = r"(?:i am|i'm|the owner is|the user is)"
_FIXED = tuple(
    (re.compile(pattern, re.IGNORECASE), key)
    for pattern, key in (
        (rf"(?:please )?call me \S|{_SELF} (?:wants? to|would like to|likes? to|prefers? to) be called \S", "nickname"),
        (rf"{_SELF} go(?:es)? by \S", "nickname"),
        (rf"{_SELF_IS} (?:called|named) \S", "name"),
        (rf"{_SELF} (?:now |currently )?(?:lives?|resides?) (?:now )?(?:in|at|on|near) \S", "home"),
        (rf"{_SELF_IS} (?:now |currently )?living (?:in|at|on|near) \S", "home"),
        (rf"(?:{_SELF}|i have|i've|the owner has) (?:just )?moved to \S", "home"),
        (rf"{_SELF} works? (?:at|for) \S", "employer"),
        (rf"{_SELF} works? as \S", "job"),
        (rf"{_SELF_IS} \d+ years old$", "age"),
        (rf"{_SELF} was born on \S", "birthday"),
    )
)
_SELF_NAME = re.compile(rf"{_SELF_IS} (.+)", re.IGNORECASE)
_LABEL = re.compile(r"([^\s:=,;.?!]+(?: [^\s:=,;.?!]+){0,3}) ?[:=] ?(?!//)(\S.*)")
_COPULA = re.compile(r"((?:[^\s,;:]+ ){1,6}?)(?:is|are) (?:now |currently )?(\S.*)", re.IGNORECASE)
_PLACE = re.compile(r"(?:in|inside|under|behind|near|next to|between|above|below|located)\b", re.IGNORECASE)
_NAMED = re.compile(r"(?:called|named) \S", re.IGNORECASE)
_NEGATION = re.compile(r"(?:not|no longer|never|no)\b", re.IGNORECASE)
_DETERMINER = re.compile(r"(?:the|a|an|my|our|this|that|his|her|their|(?:the )?(?:owner|user)'s)\s+", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*", re.UNICODE)


def fold(text: str) -> str:
    """``text`` with typographic quotes and odd spaces made plain; every character keeps its place."""
    return text.translate(_QUOTES)


def plain(text: str) -> str:
    """``text`` for comparing: folded, without emphasis marks and final stops, single spaces. Case is kept."""
    bare = fold(text).replace("**", "").replace("__", "").replace("`", "")
    return " ".join(bare.split()).rstrip(" .!;,")


def words(text: str) -> frozenset[str]:
    """The words of ``text`` that carry meaning: without case, articles, possessives and plural s."""
    found = (_stem(word) for word in _WORD.findall(fold(text).casefold()))
    return frozenset(word for word in found if word not in SMALL_WORDS)


def _stem(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return SPELLING.get(word, word)


def subject_key(subject: str) -> str:
    """One key for one subject: ``my birth date`` → ``birthday``, ``the routers`` → ``router``, "" for nothing."""
    text = plain(subject).casefold().rstrip("?:")
    while match := _DETERMINER.match(text):
        text = text[match.end() :]
    head, of, tail = text.partition(" of ")
    if of:
        return subject_key(f"{_DETERMINER.sub('', tail, count=1)} {head}")
    key = " ".join(_stem(word) for word in _WORD.findall(text))
    key = re.sub(r"\byour\b", "agent", key)
    return KEY_ALIASES.get(key, key)


def looks_like_name(text: str) -> bool:
    """True for one to three capitalised words that are not known to be something else (``German``, ``Hungry``)."""
    parts = text.split()
    return 0 < len(parts) <= 3 and all(
        part[0].isupper()
        and part.casefold() not in NOT_NAMES
        and any(letter.islower() for letter in part)
        and _WORD.fullmatch(fold(part)) is not None
        for part in parts
    )


def fact_key(text: str) -> str:
    """What a statement is about, as one canonical subject; "" where that cannot be told.

    Two statements with the same key can hardly both be true: ``My name is Alice``, ``Name: Alice`` and ``The owner's
    name is Bob.`` are all about ``name``. Where a thing is has a key of its own (``router place``).
    """
    bare = plain(text)
    if len(bare) > MAX_STATEMENT or bare.casefold().startswith("the owner said"):
        return ""
    for pattern, key in _FIXED:
        if pattern.match(bare):
            return key
    if (match := _SELF_NAME.fullmatch(bare)) and looks_like_name(match[1]):
        return "name"
    if match := _LABEL.fullmatch(bare):
        return subject_key(match[1])
    match = _COPULA.fullmatch(bare)
    return _copula_key(match[1], match[2]) if match else ""


def _copula_key(subject: str, value: str) -> str:
    key = subject_key(subject)
    parts = key.split()
    if not parts or parts[0] in NO_SUBJECT or not NOT_IN_SUBJECT.isdisjoint(parts) or _NEGATION.match(value):
        return ""
    if _NAMED.match(value):
        key = f"{key} name"
    elif _PLACE.match(value):
        key = f"{key} place"
    return KEY_ALIASES.get(key, key)


def is_personal(text: str) -> bool:
    """True for a statement about the owner that stands by itself: ``I live in Lisbon``, ``Name: Alice``."""
    if len(text) > MAX_STATEMENT:
        return False
    bare = plain(text)
    return _is_personal_label(bare) or (_is_owned(bare) and bool(fact_key(bare)))


def _is_personal_label(bare: str) -> bool:
    """``Name: Alice``, but not ``My name: Alice`` and not ``Router: Fritzbox``."""
    return _LABEL.fullmatch(plain(bare)) is not None and not _is_owned(bare) and fact_key(bare) in PERSONAL


def _is_owned(bare: str) -> bool:
    return re.match(rf"(?:{_OWN}|{_SELF}|i'm|i've|call me)\b", bare, re.IGNORECASE) is not None


def about_owner(text: str) -> bool:
    """True where a fact says something about the owner."""
    return re.search(rf"\b(?:{_OWN}|{_SELF}|me)\b", plain(text), re.IGNORECASE) is not None or is_personal(text)


_QUOTED = re.compile(r"\"[^\"]*\"|`[^`]*`|(?<!\w)'[^']*'(?!\w)")
_EDGE = r"(?<![\w.@/\-']){}(?![\w@/\-']|\.\w)"
_PRONOUNS = tuple(
    (re.compile(_EDGE.format(word), re.IGNORECASE), other)
    for word, other in {
        "my": "the owner's",
        "mine": "the owner's",
        "myself": "the owner",
        "me": "the owner",
        "your": "the agent's",
    }.items()
)
_LEFT_OVER = re.compile(_EDGE.format("(?:i|you|we|us|i'm|i've|i'd|i'll|yours|you're|you've)"), re.IGNORECASE)
_I = re.compile(rf"i ((?:(?:{'|'.join(sorted(ADVERBS))}) )?)(\S+)(.*)", re.IGNORECASE)
_SHORT = (("i'm ", "I am "), ("i've ", "I have "), ("i'd ", "I would "), ("i'll ", "I will "))


def third_person(text: str) -> str:
    """A person's statement as the soul keeps it: ``I live in Lisbon`` → ``The owner lives in Lisbon``.

    Quoted words stay as they are. What cannot be turned safely becomes ``The owner said: "…"``; a statement that speaks
    of no one stays the same.
    """
    text = " ".join(text.split())
    bare = fold(text)
    if match := re.match(r"(?:please )?call me (?=\S)", bare, re.IGNORECASE):
        return f"The owner wants to be called {text[match.end() :]}"
    if _is_personal_label(bare):
        label, _, value = text.replace("**", "").replace("=", ":", 1).partition(":")
        return f"The owner's {subject_key(label)} is {value.strip()}"
    turned = _outside_quotes(_turn_subject(text, bare))
    if _LEFT_OVER.search(_QUOTED.sub('""', fold(turned))):
        return 'The owner said: "' + text.replace('"', "'") + '"'
    return capital(turned)


def _turn_subject(text: str, bare: str) -> str:
    for short, full in _SHORT:
        if bare.casefold().startswith(short):
            text = full + text[len(short) :]
            break
    match = _I.fullmatch(text)
    if not match:
        return text
    adverb, verb, rest = match.groups()
    third = VERBS.get(fold(verb).casefold())
    if third is None and fold(verb).casefold() in UNCHANGED_VERBS:
        third = verb
    return f"The owner {adverb}{third}{rest}" if third else text


def _outside_quotes(text: str) -> str:
    pieces: list[str] = []
    end = 0
    for match in [*_QUOTED.finditer(fold(text)), None]:
        piece = text[end : match.start() if match else len(text)]
        for pattern, other in _PRONOUNS:
            piece = pattern.sub(other, piece)
        pieces.append(piece)
        if match:
            pieces.append(text[match.start() : match.end()])
            end = match.end()
    return "".join(pieces)


def second_person(text: str) -> str:
    """A fact as one tells it to the owner: ``The owner's name is Alice.`` → ``Your name is Alice.``"""
    turned = third_person(text)
    if turned.startswith("The owner said:"):
        return "You said:" + turned.removeprefix("The owner said:")
    if match := re.match(rf"The owner ((?:(?:{'|'.join(sorted(ADVERBS))}) )?)(\S+)", turned):
        base = SECOND_PERSON.get(match[2]) or (match[2] if match[2] in UNCHANGED_VERBS else "")
        if not base:
            return turned
        turned = f"You {match[1]}{base}{turned[match.end() :]}"
    turned = re.sub(r"\bthe owner's\b", "your", turned, flags=re.IGNORECASE)
    return capital(re.sub(r"\bthe owner\b(?!')", "you", turned, flags=re.IGNORECASE))


def capital(text: str) -> str:
    """``text`` with its first letter large, unless its first word is spelled in a way of its own (iPhone, a.b, x2)."""
    first = text.split(" ", 1)[0].rstrip(".,:;!?")
    return text[:1].upper() + text[1:] if re.fullmatch(r"[^\W\d_A-Z]+(?:['’\-][^\W\d_A-Z]+)*", first) else text


def has_one_value(key: str) -> bool:
    """True for a key that holds one value at a time: a new statement about it makes the old one untrue."""
    return key in PERSONAL or key.startswith("favorite ") or key.rsplit(" ", 1)[-1] in ATTRIBUTES


def sentence(text: str) -> str:
    """``text`` as a sentence: a capital first and a final stop.

    No stop is added after what a reader could take for part of the value: an address, a password, a version.
    """
    text = capital(text.strip())
    last = text.rsplit(" ", 1)[-1] if text else ""
    plain_word = last.isdigit() or all(part.isalpha() for part in re.split(r"['’\-]", last))
    return text + "." if last and plain_word else text
