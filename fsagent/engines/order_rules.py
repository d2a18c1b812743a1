"""Plain English about files and tasks."""

from __future__ import annotations

import re

from fsagent.engines.grammar import QUOTED, Sentence
from fsagent.engines.rules import Build, Match, Part, first_match, rule
from fsagent.model import ToolCall
from fsagent.statements import capital, fold
from fsagent.vocabulary import word_set

NOW, DATE = "{{ now }}", "{{ date }}"

_NO_FILE = word_set("com org net io dev edu gov")
_TEXT_FILES = word_set("md txt markdown log org text csv list")
_MADE_UP = re.compile(
    r"(?:an?|the|my|your|our|his|her|their|some|all|any|this|that|these|those|what|how|why|who|when|where|every|each|it|them|"
    r"today's|yesterday's|more|something|everything|nothing|no|not|another)\b|.*\b(?:summary|summaries|report|poem|haiku|story|"
    r"joke|essay|weather|forecast|news|results?|output|answer|explanation|translation|timestamps?|headings?|headers?|comments?|tests?|"
    r"links|documentation|docs|every|each|daily|hourly|weekly|heartbeat|timestamp|please|content|contents|frontmatter|date|"
    r"time|numbers|of|about|from|then|if|when|because)\b",
    re.IGNORECASE | re.DOTALL,
)
_NO_TASK = word_set(
    """
    it all everything everyone nothing anything them that this these those now music video playback yourself again task
    tasks the a an my for me please agent fsagent daemon heartbeat heartbeats until when if and or to not in on at work
    """
)

_FILE = rf"(?P<path>{QUOTED}|[^\s\"'`]+)"
_INTO = (
    r"(?:(?:in|on)?to|in|on|(?:at|to) the (?:end|bottom) of) "
    rf"(?P<my>(?:the |a |my )?(?:file|document|list|note) )?(?:called |named )?{_FILE}"
)
_MOMENT = (
    r"(?P<moment>(?:(?:the|a|this) )?(?:current |present )?(?:timestamp|time ?stamp|date and time|time and date"
    r"|date ?/ ?time|date-time|datetime|time)|now|(?:the )?(?:current |present |today's )?(?P<date>date))"
)
_TEXT = (
    r"(?:(?:the )?(?:text|words?|lines?|entry|item|note|sentence|phrase|content|contents)(?: of)?:? )?"
    rf"(?P<text>{QUOTED})"
)
_ADD = r"(?:log|append|add|put|write|note|jot|record|save|insert|store|stamp|print|output|echo)"
_WITH = r"(?: with| by|:) "
_CREATE = r"(?:create|make)(?P<my> (?:the |a |a new |new )?file)?(?: called| named)?"
_HOLDING = r" (?:with|containing|saying|that says|that contains)(?: the)?(?: content| contents| text)?:? "


def _path(match: Match) -> str:
    """The file that is meant, verbatim; "" where it does not look like one. What is allowed is not decided here."""
    path = match["path"]
    if path[:1] in "\"'`“”‘’«»„":
        return match.bare("path")
    ending = re.search(r"\.([^\W_]{1,8})$", path)
    if "://" in path or "@" in path or "*" in path or (ending and ending[1].casefold() in _NO_FILE):
        return ""
    return path if ending or "/" in path.strip("/.") or match["my"].endswith(("file", "document")) else ""


def _written(tool: str, path: str, text: str, templated: bool) -> Part | None:
    if not path or not text:
        return None
    return Part(tool, (ToolCall(tool, {"path": path, "text": text}),), frozenset({0} if templated else ()))


def _moment(tool: str) -> Build:
    return lambda match: _written(tool, _path(match), DATE if match["date"] else NOW, templated=True)


def _quoted(tool: str) -> Build:
    return lambda match: _written(tool, _path(match), match.bare("text"), templated=False)


def _words(tool: str) -> Build:
    return lambda match: _bare_words(tool, match)


def _bare_words(tool: str, match: Match) -> Part | None:
    """Add eggs to shopping.md: a few bare words that are no description of a text to be made up."""
    text, path = match["text"], _path(match)
    ending = path.rpartition(".")[2].casefold()
    if _MADE_UP.match(fold(text)) or len(text.split()) > 12 or re.search(r"[\"`?!;:]", fold(text)):
        return None
    return _written(tool, path, text, templated=False) if ending in _TEXT_FILES else None


WRITE = [
    *rule("order", _moment("append"), rf"{_ADD} (?:down )?{_MOMENT} {_INTO}", rf"(?:timestamp|time-stamp) {_FILE}"),
    *rule("order", _moment("append"), rf"(?:in|to|into) {_FILE},? {_ADD} {_MOMENT}"),
    *rule(
        "order", _quoted("append"), rf"{_ADD} (?:down )?{_TEXT} {_INTO}", rf"(?:in|to|into) {_FILE},? {_ADD} {_TEXT}"
    ),
    *rule(
        "order", _words("append"), rf"(?:add|append|put|log|note|note down|jot down|write down) (?P<text>\S.*) {_INTO}"
    ),
    *rule(
        "order",
        _quoted("write"),
        rf"(?:overwrite|replace)(?: the)?(?: contents? of)?(?P<my> (?:the |my )?file)? {_FILE}{_WITH}{_TEXT}",
        rf"{_CREATE} {_FILE}{_HOLDING}{_TEXT}",
    ),
    *rule("order", _words("write"), rf"{_CREATE} {_FILE} (?:with|containing) the (?:content|text):? (?P<text>\S.*)"),
    *rule(
        "order",
        _moment("write"),
        rf"(?:overwrite|replace)(?: the)?(?: contents? of)?(?P<my> (?:the |my )?file)? {_FILE}{_WITH}{_MOMENT}",
        rf"{_CREATE} {_FILE}{_HOLDING}{_MOMENT}",
    ),
]


def scheduled(sentence: Sentence, every: str) -> Part | None:
    """ "Every 10 minutes, log the timestamp to log.txt": a task that does it; ``sentence`` is without the "every …"."""
    each = first_match(WRITE, sentence)
    if each is None:
        return None
    request = capital(sentence.text)
    call = each.calls[0]
    steps = [{call.tool: dict(call.args)}]
    if not each.templated and any("{{" in value for value in call.args.values()):
        steps = []  # as steps these braces would be filled in; as a request they are read again, and stay
    name = _slug(call.args["path"], call.args["text"])
    args = {"action": "create", "name": name, "every": every, "request": request, "steps": steps}
    return Part("schedule", (ToolCall("task", args),), topic=request)


def _slug(path: str, text: str) -> str:
    what = {NOW: "timestamp", DATE: "date"}.get(text, text)
    parts = re.findall(r"[^\W_]+", f"{path} {what}".casefold())
    slug = ""
    for part in parts:
        if len(slug) + len(part) > 40:
            break
        slug = f"{slug}-{part}" if slug else part
    return slug or "task"


def _task(action: str) -> Build:
    def build(match: Match) -> Part | None:
        name = match.bare("name") or match.bare("bare")
        words = name.casefold().split()
        if not words or not _NO_TASK.isdisjoint(words) or len(words) > 5:
            return None
        return Part(
            "tasks" if action == "show" else action, (ToolCall("task", {"action": action, "name": name}),), topic=name
        )

    return build


def _all_tasks(match: Match) -> Part:
    return Part("tasks", (ToolCall("task", {"action": "list"}),))


_NAME = (
    rf"(?:(?:the |my )?(?:task|heartbeat) (?:called |named )?(?P<name>{QUOTED}|[^\s,;:?!\"'`]+)"
    rf"|(?:the |my )?(?P<bare>{QUOTED}|[^,;:?!\"'`]+?) (?:task|heartbeat))"
)
_ONE_WORD = r"(?P<bare>[^\s,;:?!\"'`]+)"

_KIND = r"(?:current |active |scheduled |recurring |heartbeat )?"

TASKS = [
    *rule("order", _task("pause"), rf"(?:pause|suspend|disable|stop|halt) {_NAME}", rf"(?:pause|suspend) {_ONE_WORD}"),
    *rule("order", _task("resume"), rf"(?:resume|unpause|continue|(?:re-?)?enable) {_NAME}"),
    *rule("order", _task("resume"), rf"(?:resume|unpause) {_ONE_WORD}"),
    *rule("order", _task("run"), rf"(?:run|execute|trigger|kick off) {_NAME}(?: (?:right )?now| once| immediately)?"),
    *rule("order", _task("show"), rf"(?:show(?: me)?|describe|display) {_NAME}"),
    *rule(
        "question",
        _all_tasks,
        rf"(?:(?:list|show|print|display|give) )?(?:me )?(?:all )?(?:of )?(?:my |your |the |our )?{_KIND}tasks",
        rf"(?:what|which) {_KIND}tasks (?:are there|do (?:you|i|we) have|are (?:running|active|scheduled))",
        rf"what are (?:my|your|the) {_KIND}tasks|what(?:'s| is) scheduled|what do you have scheduled",
        r"what (?:are you doing|do you do) (?:regularly|periodically|on a schedule|again and again)",
        r"what (?:are you doing|do you do) (?:on|with|at) (?:each|every|a) heartbeat",
        r"do (?:you|i|we) have (?:any )?tasks|are there (?:any )?tasks",
    ),
]


def _read(match: Match) -> Part | None:
    path = _path(match)
    return Part("read", (ToolCall("read", {"path": path}),), topic=path) if path else None


def _list(match: Match) -> Part | None:
    path = match.bare("path") or "."
    if match["path"] and path == match["path"] and "/" not in path and not match["my"]:
        return None
    return Part("list", (ToolCall("list", {"path": path}),), topic=path)


_SHOW = r"(?:list|show)(?: me)?"
_ALL_FILES = r"(?:all )?(?:of )?(?:the |my |your )?(?:files|folder contents|contents)"
_OF_FOLDER = (
    rf"(?: (?:in|inside|of|under) (?P<my>(?:the )?(?:folder|directory) )?(?:the )?{_FILE}(?: folder| directory)?)?"
)
_HERE = r"(?: (?:here|there|in (?:the |this |my |your )?(?:workspace|folder|directory)))?"
_MY_FILE = rf"(?P<my>(?:the |my )?file )?{_FILE}"

READ = [
    *rule("order", _list, rf"{_SHOW} {_ALL_FILES}{_HERE}", rf"{_SHOW} {_ALL_FILES}{_OF_FOLDER}", r"ls|dir"),
    *rule(
        "question",
        _list,
        rf"(?:what|which) files (?:are|do (?:i|you|we) have|exist)(?: there)?{_HERE}",
        rf"(?:what|which) files (?:are|do (?:i|you|we) have|exist)(?: there)?{_OF_FOLDER}",
        r"what(?:'s| is) in (?:the |this |my |your )?(?:workspace|folder)",
    ),
    *rule(
        "order",
        _read,
        rf"(?:show|read|print|display|open|cat|output|view)(?: me)? (?:the )?(?:contents? of )?{_MY_FILE}",
    ),
    *rule(
        "question",
        _read,
        rf"what(?:'s| is) (?:in|inside|written in|the contents? of) {_MY_FILE}",
        rf"what does {_MY_FILE} (?:say|contain)",
    ),
]
