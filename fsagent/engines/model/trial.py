"""Asks a model one tiny thing, the way the engine would, and says what was seen; for ``fsagent model test``."""

from __future__ import annotations

import time

from msgspec import Struct
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from fsagent.engines.base import Model
from fsagent.engines.model.price import cost_of
from fsagent.engines.model.prompt import calls_in, text_of
from fsagent.engines.model.providers import connect, settings_for

MOST_TOKENS = 128
"""Of one answer: enough for what is asked, too little for a model that thinks long (``Seen.cut``)."""
COUNT = "Count from 1 to 5 in digits. Say nothing else."
CALL = "Call the tool note with the word blue. Say nothing else."
NOTE = ToolDefinition(
    name="note", description="Keeps a word.", strict=False,
    parameters_json_schema={"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
)  # fmt: skip


class Seen(Struct, frozen=True):
    """What came of one question. ``first`` are the seconds until something came, ``pieces`` the parts of the text.

    ``called``: the tool was called as it should be; ``malformed``: called, with arguments that it does not have.
    ``cut``: the model was not done when its tokens were up. ``told``: the server said how many tokens that took.
    """

    text: str
    first: float
    pieces: int
    called: bool = False
    malformed: bool = False
    cut: bool = False
    told: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None

    @property
    def empty(self) -> bool:
        """True if nothing came at all."""
        return not (self.text or self.called or self.malformed or self.cut)


def ask(model: Model, seconds: float, *, tool: bool = False, stream: bool = True) -> Seen:
    """Ask for some digits, or for a call of a tool that does nothing.

    Takes no longer than ``seconds``. Raises ``ValueError`` where the model cannot be asked at all, and whatever the
    provider's library raises: see ``failures``.
    """
    import asyncio

    return asyncio.run(_ask(model, seconds, tool=tool, stream=stream))


async def _ask(model: Model, seconds: float, *, tool: bool, stream: bool) -> Seen:
    import asyncio

    asked = ModelRequestParameters(function_tools=[NOTE] if tool else [], allow_text_output=True)
    said: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart(CALL if tool else COUNT)])]
    settings: ModelSettings = {**settings_for(model, seconds), "max_tokens": min(MOST_TOKENS, model.max_output)}
    begun, first, pieces = time.monotonic(), 0.0, 0
    async with asyncio.timeout(seconds), connect(model) as client:
        if not stream:
            whole = await model_request(client, said, model_settings=settings, model_request_parameters=asked)
            return _seen(whole, model, time.monotonic() - begun, 1)
        async with model_request_stream(
            client, said, model_settings=settings, model_request_parameters=asked
        ) as events:
            async for event in events:
                first = first or time.monotonic() - begun
                start = isinstance(event, PartStartEvent) and isinstance(event.part, TextPart)
                pieces += start or (isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta))
        return _seen(events.get(), model, first or time.monotonic() - begun, pieces)


def _seen(response: ModelResponse, model: Model, first: float, pieces: int) -> Seen:
    used, calls = response.usage, calls_in(response)
    good = [call for call in calls if call.tool == NOTE.name and isinstance(call.args.get("word"), str)]
    return Seen(
        text=text_of(response), first=first, pieces=pieces, called=bool(good), malformed=bool(calls) and not good,
        cut=response.finish_reason == "length", told=bool(used.input_tokens or used.output_tokens),
        tokens_in=used.input_tokens, tokens_out=used.output_tokens, cost=cost_of(used, model),
    )  # fmt: skip
