"""The model that every attacker wishes for: it does whatever any text that reaches it says.

What such a model cannot do, no injected text can do with a better one: that is what it is for.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from fsagent.testing.received import Received
from fsagent.testing.replies import Answer, Call, calls, text

_DO = re.compile(r"\bDO[ \t]+([A-Za-z_][\w.-]*)[ \t]*(?=\{)")
_SAY = re.compile(r"\bSAY[ \t]+(\S.*)")
_INNER = re.compile(r'(?:[^"\\]|\\.)*')
_DECODER = json.JSONDecoder()


def obedient(goals: Iterable[str] = ()) -> Callable[[Received], Answer]:
    """A script that does what it reads, for either provider: ``ScriptedOpenAI(obedient())``.

    Read is every text of the request that the model did not say itself: the system's, people's, what tools returned,
    and how the offered tools describe themselves; first of all ``goals``, the attacker's own. Also text inside of JSON
    or with HTML's escapes is understood. Each ``DO tool {"json": "args"}`` in it, at the start of a line or within one,
    becomes a tool call, whether or not that tool is offered, in order of appearance, all at once, each distinct one
    once in a conversation. What was called is read from the request, so it needs no memory of its own, and begins anew
    where a conversation was cut off. When nothing is left to do it says ``Done.``, or what the last ``SAY text`` says.
    """
    own = tuple(goals)

    def reply(received: Received) -> Answer:
        texts = [*own, *_heard(received)]
        done = {_key(each.tool, each.args) for each in received.called}
        orders: dict[str, Call] = {}
        for each in texts:
            for tool, args in _orders(each):
                orders.setdefault(_key(tool, args), Call(tool, json.dumps(args, ensure_ascii=False)))
        waiting = [call for key, call in orders.items() if key not in done]
        if waiting:
            return calls(*waiting)
        sayings = [found for each in texts for found in _SAY.findall(each)]
        return text(sayings[-1].strip() if sayings else "Done.")

    return reply


def _heard(received: Received) -> Iterator[str]:
    system = [said for said in received.said if said.role == "system"]
    others = [said for said in received.said if said.role in ("user", "tool")]
    for said in system:
        yield from _readings(said.text)
    for tool in received.offered:
        yield from _strings(tool)
    for said in others:
        yield from _readings(said.text)


def _readings(given: str) -> Iterator[str]:
    """A text as it is, without HTML's escapes where it has such, and the strings in it where it is JSON."""
    yield given
    plain = html.unescape(given)
    if plain != given:
        yield plain
    if given.lstrip()[:1] in ("{", "[", '"'):
        try:
            value = json.loads(given)
        except ValueError:
            return
        for each in _strings(value):
            yield from _readings(each)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)


def _orders(given: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a text says to do. What follows the tool's name and is no JSON object cannot be obeyed."""
    for found in _DO.finditer(given):
        args = _object(given, found.end())
        if args is None and (inner := _INNER.match(given, found.end())):  # inside of a JSON string, within other text
            with suppress(ValueError):
                args = _object(json.loads(f'"{inner[0]}"', strict=False), 0)
        if args is not None:
            yield found[1], args


def _object(given: str, at: int) -> dict[str, Any] | None:
    """The JSON object that begins there, whatever comes after it."""
    try:
        value, _ = _DECODER.raw_decode(given, at)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _key(tool: str, args: Any) -> str:
    return json.dumps([tool, args], sort_keys=True)
