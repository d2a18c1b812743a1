"""Plain English that only asks: for facts, for past runs, for the status, for help; and greetings."""

from __future__ import annotations

from fsagent.engines.rules import SUBJECT, TOPIC, TOPIC_STOPS, Build, Match, Part, rule
from fsagent.model import ToolCall
from fsagent.statements import subject_key


def _ask(about: str) -> Build:
    return lambda match: Part("ask", (ToolCall("recall", {"about": about}),), topic=about)


def _ask_mine(match: Match) -> Part | None:
    subject = match["subject"]
    if TOPIC_STOPS.search(subject) or " in " in subject or subject.casefold() in ("status", "tasks", "purpose"):
        return None
    return _ask(f"my {subject}")(match)


def _ask_name(match: Match) -> Part:
    calls = (ToolCall("recall", {"about": "my name"}), ToolCall("recall", {"about": "my nickname"}))
    return Part("ask", calls, topic="my name")


def _ask_about(match: Match) -> Part | None:
    topic = match.bare("topic")
    if subject_key(topic) in ("", "me", "myself"):
        return _ask("me")(match)
    return None if TOPIC_STOPS.search(topic) or len(topic.split()) > 6 else _ask(topic)(match)


_TELL = r"(?:do you (?:still )?(?:know|remember|recall)|tell me|remind me(?: of)?|say|have i told you|did i tell you)"
_KNOW = r"(?:already |still )?(?:know|remember|recall)"
_IN = r"(?:what|which) (?:city|town|place|country)"

ASK = [
    *rule(
        "question",
        _ask_name,
        r"(?:what(?:'s| is| was|s)|do you (?:still )?(?:know|remember|recall)) my name(?: again)?",
        rf"{_TELL} (?:what )?my name(?: is)?(?: again)?",
        rf"(?:who am i|{_TELL} who i am)(?: again)?",
        r"what am i called|what (?:do|should|will) you call me",
    ),
    *rule("question", _ask("my home"), rf"(?:{_TELL} )?(?:where|in {_IN}) (?:do i live|i live|am i living)"),
    *rule("question", _ask("my home"), rf"{_IN} do i live in|where(?:'s| is) my home"),
    *rule("question", _ask("my employer"), rf"(?:{_TELL} )?(?:where|whom?) (?:do i|i) work(?: for| at)?"),
    *rule("question", _ask("my age"), rf"(?:{_TELL} )?how old (?:am i|i am)"),
    *rule("question", _ask("my birthday"), rf"(?:{_TELL} )?when (?:was i|i was) born"),
    *rule(
        "question",
        _ask_mine,
        rf"(?:what|who|when|where)(?:'s|s| is| are| was) my {SUBJECT}(?: again)?",
        rf"{_TELL} (?:what|who|when|where) my {SUBJECT} (?:is|are)",
        rf"{_TELL} my {SUBJECT}",
    ),
    *rule(
        "question",
        _ask("me"),
        r"what do you (?:already )?know of me|tell me about (?:me|myself)",
        r"what have i told you about (?:me|myself)",
    ),
    *rule(
        "question",
        _ask_about,
        rf"what(?: else)? (?:do |did )?you {_KNOW} about {TOPIC}",
        rf"what (?:have i told|did i tell) you about {TOPIC}",
        rf"(?:tell me |show me )?(?:everything|all|anything|something|what) (?:that )?you {_KNOW} about {TOPIC}",
        rf"do you {_KNOW} (?:anything|something) about {TOPIC}",
        rf"what(?: facts)? do you have (?:on|about) {TOPIC}",
        rf"what facts do you know about {TOPIC}",
        rf"what(?:'s| is) in your (?:memory|soul) about {TOPIC}",
    ),
    *rule(
        "question",
        _ask(""),
        rf"what (?:all )?do you {_KNOW}|what have you remembered|what(?:'s| is) in (?:your|the) (?:memory|soul)",
        r"(?:list|show|tell|print)(?: me)? (?:all )?(?:the |your |my )?(?:facts|memor(?:y|ies))(?: you (?:know|have))?",
        rf"(?:what|which) facts do you (?:{_KNOW}|have)",
        rf"(?:(?:tell|show) me )?(?:everything|all|what) you {_KNOW}|recall everything",
    ),
]


def _runs(since: str) -> Build:
    return lambda match: _past(since)


def _past(since: str) -> Part:
    return Part("history", (ToolCall("recall", {"source": "runs", "since": since}),), topic=since)


def _runs_since(match: Match) -> Part:
    return _past(match["day"])


def _status(match: Match) -> Part:
    return Part("status", (ToolCall("recall", {"source": "status"}),))


def _help(match: Match) -> Part:
    return Part("help")


def _greeting(topic: str) -> Build:
    return lambda match: Part("greeting", topic=topic)


_AGENT = r"(?:,? (?:agent|fsagent|assistant|bot))?"
_WELL = r"(?:ok|okay|great|perfect|cool|good|nice)"
_DID = (
    r"what (?:did you (?:do|get done)|have you (?:done|been doing|been up to)|were you (?:doing|up to)"
    r"|happened|was done|has happened)"
)
_SHOW = r"(?:list|show|tell)(?: me)?"

ABOUT = [
    *rule(
        "question",
        _runs("today"),
        rf"{_DID}(?: so far)? today(?: so far)?|what(?:'s| has) happened today|(?:{_SHOW} )?today's runs",
        rf"{_SHOW} (?:(?:all )?(?:the )?runs (?:of|from) today|what you (?:did|have done) today)",
    ),
    *rule(
        "question",
        _runs("yesterday"),
        rf"{_DID} yesterday|(?:{_SHOW} )?yesterday's runs",
        rf"{_SHOW} (?:(?:all )?(?:the )?runs (?:of|from) yesterday|what you did yesterday)",
    ),
    *rule("question", _runs_since, rf"{_DID} since (?P<day>\d{{4}}-\d\d-\d\d)"),
    *rule(
        "question",
        _runs(""),
        rf"{_DID}(?: so far| lately| recently)?",
        rf"{_SHOW} (?:(?:all )?(?:the |your )?(?:past |recent |last )?runs|(?:the |your )?history)",
    ),
    *rule(
        "question",
        _status,
        r"(?:(?:show|give|tell)(?: me)? )?(?:the |your )?(?:current )?status(?: report)?",
        r"what(?:'s| is) (?:your|the)(?: current)? status",
        r"how are you(?: doing| today)?|how(?:'s| is) it going|ping|is everything (?:ok|okay|fine|all right)",
        r"are you (?:(?:still )?(?:alive|there|running|up|working)|ok|okay|well|awake)",
        r"what(?:'s| is) (?:waiting|pending)(?: for me)?|is (?:anything|something) (?:waiting|pending)(?: for me)?",
        r"what waits(?: for me)?|is there (?:anything|something) (?:waiting|pending)",
    ),
    *rule(
        "question",
        _help,
        r"help(?: me)?|(?:show|give)(?: me)? (?:the )?help|what (?:can you do(?: for me)?|are you able to do)",
        r"what (?:do|can) you understand|what can i (?:ask|tell|say|write)(?: to)?(?: you)?(?: to do)?",
        r"how (?:do|can) i use you|how do you work|who are you|what are you",
        r"what (?:commands|sentences) do you (?:know|understand)|(?:list|show)(?: me)? (?:all )?(?:your )?commands",
    ),
    *rule(
        "order",
        _greeting("hello"),
        rf"(?:hi|hello|hey|hiya|howdy|good (?:morning|afternoon|evening|day)|greetings)(?: there)?{_AGENT}",
    ),
    *rule(
        "order",
        _greeting("thanks"),
        rf"(?:{_WELL},? )?(?:thanks|thank you|thx|cheers|many thanks)(?: a lot| so much| very much| again)?{_AGENT}",
        rf"(?:{_WELL}|well done|good job|bye|goodbye|good night|see you){_AGENT}",
    ),
]
