"""Plain English that changes the memory: remember, change, forget."""

from __future__ import annotations

import re

from fsagent.engines.grammar import is_name, is_value, unquoted
from fsagent.engines.rules import SUBJECT, TOPIC, TOPIC_STOPS, Match, Part, rule
from fsagent.model import ToolCall
from fsagent.statements import (
    about_owner,
    fact_key,
    fold,
    has_one_value,
    looks_like_name,
    plain,
    sentence,
    subject_key,
    third_person,
)
from fsagent.vocabulary import word_set

_NOT_CALLED = word_set(
    """
    back tomorrow later soon now today tonight maybe asap when if at on in tomorrow again once twice never always crazy
    monday tuesday wednesday thursday friday saturday sunday anytime anything whatever stupid names everything
    """
)
_PLACE_ENDS = re.compile(
    r"\b(?:last|next|ago|yesterday|since|until|before|after|for|with|without|temporarily|anymore|too|also|and|or)\b",
    re.IGNORECASE,
)
_NO_PLACE = frozenset({"the past", "the moment", "the now", "a dream", "denial", "fear", "peace", "hope", "sin"})
_ALL_OF_IT = frozenset({"", "fact", "memory", "memorie", "soul"})
_GOES_ON = "|".join(
    sorted(
        word_set(
            """
            add also append ask buy call change check close create delete do don't email find forget give how i let list
            log look make open please put read reboot remember remind remove restart run search send set show start stop
            tell then turn we what when where who why write you
            """
        )
    )
)
_MORE = re.compile(
    rf";|\b(?:and|but|so|then|or)\b[, ]+(?:{_GOES_ON})\b"
    r"|\b(?:and|but)\b.*?\b(?:is|are|am|was|were|lives?|has|have|isn't|aren't)\b"
    r"|, (?:please|can|could|would|what|who|how|why|where|when|right|ok|tell|then)\b",
    re.IGNORECASE | re.DOTALL,
)

_VALUE = r"(?P<value>\S.*?)"


def _known(text: str, key: str, value: str, changed: bool, lower: bool) -> Part | None:
    """A fact with one value; None where the value is none."""
    good = is_name(value, lower) if key in ("name", "nickname") else is_value(value)
    if not good:
        return None
    args = {"fact": sentence(text), "key": key} if changed else {"fact": sentence(text)}
    return Part("change" if changed else "remember", (ToolCall("remember", args),))


def _mine(match: Match) -> Part | None:
    """My X is Y."""
    subject, value = match["subject"], match.bare("value")
    changed = bool(match["mark"] or match["now"] or match["later"])
    if "MY " in match.sentence.text:
        subject = subject.lower()
    if subject.casefold().startswith("new "):
        subject, changed = subject[4:], True
    key = subject_key(subject)
    text = f"The owner's {subject} {match['verb'].lower() or 'is'} {value}"
    lower = match.sentence.text == match.sentence.text.lower() or match.sentence.text.isupper()
    if not key or TOPIC_STOPS.search(subject):
        return None
    if has_one_value(key):
        return _known(text, key, value, changed, lower)
    named = re.match(r"(?:called|named) (?=\S)", value, re.IGNORECASE)
    some = re.match(r"(?:an?|the) \S", value, re.IGNORECASE) and "the same" not in value.casefold()
    proper = all(word[0].isupper() or word == "and" for word in value.split())
    key = fact_key(text)
    if named:
        return _known(text, key, value, changed, lower) if is_name(value[named.end() :], lower) else None
    if not (changed or some or proper or any(char.isdigit() for char in value)):
        return None
    return _known(text, key, value, changed, lower)


def _called(match: Match) -> Part | None:
    """I am called X, my name's X."""
    name = match.bare("value")
    lower = match.sentence.text == match.sentence.text.lower() or match.sentence.text.isupper()
    changed = bool(match["mark"] or match["now"])
    return _known(f"The owner's name is {name}", "name", name, changed, lower)


def _i_am(match: Match) -> Part | None:
    """I'm Alice: only where it looks like a name."""
    return _called(match) if looks_like_name(match["value"]) else None


def _call_me(match: Match) -> Part | None:
    name = match.bare("value")
    if not _NOT_CALLED.isdisjoint(name.casefold().split()):
        return None
    changed = bool(match["mark"] or match["now"])
    return _known(f"The owner wants to be called {name}", "nickname", name, changed, name.islower())


def _lives(match: Match) -> Part | None:
    place = match.bare("value")
    changed = bool(match["mark"] or match["now"] or match["later"] or not match["where"])
    if _PLACE_ENDS.search(place) or place.casefold() in _NO_PLACE:
        return None
    return _known(f"The owner lives {match['where'].lower() or 'in'} {place}", "home", place, changed, False)


def _works(match: Match) -> Part | None:
    value, how = match.bare("value"), match["how"].casefold()
    if _PLACE_ENDS.search(value):
        return None
    return _known(
        f"The owner works {how} {value}", "job" if how == "as" else "employer", value, bool(match["now"]), False
    )


def _age(match: Match) -> Part | None:
    return _known(f"The owner is {match['value']} years old", "age", match["value"], bool(match["now"]), False)


def _born(match: Match) -> Part | None:
    return _known(f"The owner's birthday is {match['value']}", "birthday", match["value"], False, False)


def _clause(match: Match) -> Part | None:
    """Remember that S: the whole of S is the fact, unless S goes on to something else."""
    text = match["fact"]
    bare = fold(text)
    if "?" in bare or len(text) > 400 or len(text.split()) < 2 or _MORE.search(re.sub(r"\"[^\"]*\"", '""', bare)):
        return None
    if re.match(r"(?:to|that|when|how|why|where|what|who|if|not|me|this|these|those|it)\b", bare, re.IGNORECASE):
        return None
    now = re.search(r"\b(is|are) now (?=\S)", bare, re.IGNORECASE)
    if now:
        text = text[: now.end(1)] + " " + text[now.end() :]
    fact = sentence(third_person(text))
    key = fact_key(fact)
    if not match["that"] and not key:
        return None
    args = {"fact": fact, "key": key} if now and key else {"fact": fact}
    return Part("change" if "key" in args else "remember", (ToolCall("remember", args),))


def _forget(match: Match) -> Part | None:
    topic = match.bare("topic")
    if TOPIC_STOPS.search(topic) or len(topic.split()) > 6 or subject_key(topic) in _ALL_OF_IT:
        return None
    return _forgotten(topic)


def _forget_fact(match: Match) -> Part | None:
    text = match["fact"]
    if len(text.split()) < 2 or _MORE.search(fold(text)):
        return None
    return _forgotten(third_person(text) if about_owner(text) else text)


def _forget_where(match: Match) -> Part | None:
    keys = {
        "where i live": "my home",
        "who i am": "my name",
        "how old i am": "my age",
        "when i was born": "my birthday",
    }
    return _forgotten(keys[plain(match["fact"]).casefold()])


def _forgotten(about: str) -> Part:
    return Part("forget", (ToolCall("forget", {"about": unquoted(about)}),), topic=about)


_MARK = r"(?P<mark>(?:actually|correction|no|sorry|wait|update|from now on|as of today|as of now)[,:]? )?"
_MAY = r"(?:you (?:can|may) )?"
_ALL = r"(?:everything |all |anything |what )?"
_NOTE = (
    r"(?:(?:always |do )?remember(?: the fact)?|(?:don't|do not|never) forget|(?:keep|bear) in mind|note(?: down)?"
    r"|take note|make a note|memori[sz]e|for the record|you should (?:know|remember)|be aware|save the fact|fyi)"
)

REMEMBER = [
    *rule(
        "statement",
        _lives,
        rf"{_MARK}i (?P<now>now )?(?:currently )?live (?P<where>in|at|near) {_VALUE}(?P<later>,? now)?",
        rf"{_MARK}(?:i am|i'm|im) (?P<now>now )?(?:currently )?living (?P<where>in|at|near) {_VALUE}(?P<later>,? now)?",
        rf"{_MARK}i(?: have|'ve)? (?:just |recently )?(?:moved|relocated) to {_VALUE}",
        rf"my (?:home|house|flat) is (?P<now>now )?(?P<where>in|at|near) {_VALUE}",
    ),
    *rule(
        "statement",
        _mine,
        rf"{_MARK}my {SUBJECT} (?P<verb>is|are) (?P<now>now )?{_VALUE}(?P<later>,? (?:now|from now on))?",
        rf"{_MARK}my {SUBJECT}(?: ?[:=] ?| is: ?){_VALUE}",
        rf"(?P<mark>now )my {SUBJECT} (?P<verb>is|are) {_VALUE}",
    ),
    *rule("order", _mine, rf"(?P<mark>change|update|set|correct) my {SUBJECT} (?:to|into|=) {_VALUE}"),
    *rule("statement", _mine, rf"(?P<mark>i(?: have|'ve)? (?:just )?changed) my {SUBJECT} to {_VALUE}"),
    *rule(
        "statement",
        _called,
        rf"{_MARK}(?:i am|i'm|im) (?P<now>now )?(?:called|named|known as) {_VALUE}",
        rf"{_MARK}(?:my|the) name's (?P<now>now )?{_VALUE}",
        rf"name ?[:=] ?{_VALUE}",
    ),
    *rule("statement", _i_am, rf"{_MARK}(?:i am|i'm|im) {_VALUE}"),
    *rule(
        "order", _call_me, rf"{_MARK}(?P<now>from now on,? )?(?:(?:you can|you may|you should|just) )?call me {_VALUE}"
    ),
    *rule(
        "statement",
        _call_me,
        rf"(?:my friends|people|everyone|everybody|they) calls? me {_VALUE}",
        rf"i(?: prefer|'d prefer| want|'d like| would like| like) to be called {_VALUE}",
        rf"i go by {_VALUE}",
    ),
    *rule("statement", _works, rf"{_MARK}i (?P<now>now )?work (?P<how>at|for|as) {_VALUE}"),
    *rule("statement", _age, rf"{_MARK}(?:i am|i'm|im) (?P<now>now )?(?P<value>\d{{1,3}})(?: years? old)?"),
    *rule("statement", _born, rf"{_MARK}i was born on (?:the )?{_VALUE}"),
    *rule(
        "order",
        _clause,
        rf"{_NOTE},? (?P<that>that) (?P<fact>.+)",
        rf"{_NOTE}(?: (?P<that>this|the following))?: ?(?P<fact>.+)",
    ),
    *rule("order", _clause, r"(?:remember,?|(?:don't|do not|never) forget|for the record,|fyi,?) (?P<fact>.+)"),
]

FORGET = [
    *rule("order", _forget_where, rf"{_MAY}forget (?P<fact>where i live|who i am|how old i am|when i was born)"),
    *rule("order", _forget_fact, rf"{_MAY}(?:forget|delete|remove|erase) (?:the fact )?that (?P<fact>.+)"),
    *rule("order", _forget_fact, r"forget: ?(?P<fact>.+)"),
    *rule(
        "order",
        _forget,
        rf"{_MAY}forget {_ALL}(?:that )?(?:i (?:told you|said)|you know) about {TOPIC}",
        rf"{_MAY}forget {_ALL}(?:about )?{TOPIC}",
        rf"(?:delete|remove|erase|drop) {TOPIC} (?:from|in|out of) (?:your|the) (?:memory|soul|facts)",
        rf"(?:delete|remove|erase|drop) (?:the facts?|everything|all(?: facts)?|what you know) about {TOPIC}",
    ),
]
