"""What a scripted model answers, as plain values that know no provider; ``openai.py`` and ``anthropic.py`` put them
on the wire.

Tokens are what the server claims, not what anybody counted: ``tokens_in`` is the whole input, the part that came from
the cache (``cached``) included, as pydantic-ai counts it for both providers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

TOKENS_IN, TOKENS_OUT = 10, 5
_WORDS_UP_TO = 2000  # a longer text is streamed in pieces of this many characters, a shorter one word by word


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer to one model request. ``held`` ones wait for ``server.release()`` before their first byte."""

    held: bool = False


@dataclass(frozen=True)
class Call:
    """A tool call. ``arguments`` is what is sent, which need not be JSON; without an ``id`` the server gives one."""

    tool: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer(Reply):
    """What the model says and calls, and how that ends: whole, never (``hang``), or in its middle.

    ``break`` breaks the connection there; ``quiet`` ends the HTTP answer properly, as a bad proxy does, so that only
    its contents show that something is missing. ``pieces`` are parts of ``say`` that are released one by one.
    """

    say: str = ""
    calls: tuple[Call, ...] = ()
    tokens_in: int = TOKENS_IN
    tokens_out: int = TOKENS_OUT
    cached: int = 0
    finish: Literal["", "length", "filter"] = ""
    ending: Literal["whole", "hang", "break", "quiet"] = "whole"
    pieces: tuple[str, ...] = ()

    def spoken(self) -> tuple[str, ...]:
        """The text in the pieces in which it is streamed."""
        if self.pieces or not self.say:
            return self.pieces
        if len(self.say) <= _WORDS_UP_TO:
            return tuple(re.findall(r"\s*\S+|\s+$", self.say))
        return tuple(self.say[at : at + _WORDS_UP_TO] for at in range(0, len(self.say), _WORDS_UP_TO))


@dataclass(frozen=True, kw_only=True)
class Refusal(Reply):
    """An error of the provider; ``after`` is streamed before it, where the request asked for a stream."""

    status: int
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: str = ""


def text(
    say: str,
    *,
    tokens_in: int = TOKENS_IN,
    tokens_out: int = TOKENS_OUT,
    cached: int = 0,
    finish: Literal["", "length", "filter"] = "",
) -> Answer:
    """The model says something. ``finish="length"``: cut off by the token limit; ``"filter"``: by the provider."""
    return Answer(say=say, tokens_in=tokens_in, tokens_out=tokens_out, cached=cached, finish=finish)


def call(tool: str, /, **args: Any) -> Call:
    """A call for ``calls(...)``."""
    return Call(tool, json.dumps(args, ensure_ascii=False))


def call_raw(tool: str, arguments: str, *, id: str = "") -> Call:  # noqa: A002  # the word of both providers
    """A call with these very arguments, such as ``{not json``, and this id.

    Anthropic's answers can carry malformed arguments only in a stream; outside of one, ``input`` is then a string.
    """
    return Call(tool, arguments, id)


def calls(
    *those: Call, say: str = "", tokens_in: int = TOKENS_IN, tokens_out: int = TOKENS_OUT, cached: int = 0
) -> Answer:
    """The model calls tools, several at once if there are several, and perhaps says something before.

    Their ids follow from the conversation: the same request gets the same ids, a longer one gets others.
    """
    if not those:
        raise ValueError("calls() needs at least one call(...)")
    return Answer(say=say, calls=those, tokens_in=tokens_in, tokens_out=tokens_out, cached=cached)


def error(
    status: int,
    *,
    retry_after: float | None = None,
    code: str = "",
    message: str = "",
    headers: Mapping[str, str] | None = None,
    after: str = "",
) -> Refusal:
    """The provider refuses, in its own shape and words (``message`` replaces the words).

    ``code`` is OpenAI's: ``rate_limit_exceeded`` (the usual 429), ``insufficient_quota``, ``context_length_exceeded``…
    Anthropic has no codes: those three get its own type and words; any other replaces the error's type.
    With ``after`` a request for a stream gets 200 and that text, and then the error as an event in the stream.
    Beware: the clients repeat 408, 409, 429 and 5xx by themselves; a script needs a reply for each try.
    """
    more = dict(headers or {})
    if retry_after is not None:
        more["retry-after"] = str(math.ceil(retry_after))
        if retry_after != math.ceil(retry_after):  # the header of the standard has whole seconds only
            more["retry-after-ms"] = f"{retry_after * 1000:.0f}"
    return Refusal(status=status, code=code, message=message, headers=more, after=after)


def hang(after: str = "") -> Answer:
    """No answer, until the client leaves or the server closes.

    With ``after`` the answer begins with that text, and then nothing comes (outside of a stream: half of its body).
    """
    return Answer(say=after, ending="hang")


def half(whole: Answer | None = None, *, quiet: bool = False) -> Answer:
    """The first half of an answer (of some text, if none is given), counted in bytes; then the connection breaks.

    With ``quiet`` the HTTP answer ends as if it were whole, in a stream after half of its events: no client's transport
    can see that something is missing.
    """
    whole = whole or text("This sentence is not heard to its end, because the connection breaks before that.")
    return replace(whole, ending="quiet" if quiet else "break")


def giant(n: int) -> Answer:
    """A text of ``n`` characters, in lines."""
    line = "All work and no play makes Jack a dull boy.\n"
    return Answer(say=(line * (n // len(line) + 1))[:n], tokens_out=max(1, n // 4))


def slow(say: str, pieces: int = 2, *, tokens_in: int = TOKENS_IN, tokens_out: int = TOKENS_OUT) -> Answer:
    """A text in so many pieces: the first comes at once, each further one after one ``server.release()``.

    Outside of a stream all of it comes after the last release.
    """
    if not 2 <= pieces <= len(say):
        raise ValueError(f"{len(say)} characters cannot come in {pieces} pieces")
    cuts = [len(say) * n // pieces for n in range(pieces + 1)]
    parts = tuple(say[start:end] for start, end in pairwise(cuts))
    return Answer(say=say, pieces=parts, tokens_in=tokens_in, tokens_out=tokens_out)


_R = TypeVar("_R", Answer, Refusal)


def held(reply: _R) -> _R:
    """The same reply, not before one ``server.release()``: so that a test can look around while the model thinks."""
    return replace(reply, held=True)
