"""Asks a model for the next step: streams what it says, tries again what may pass, goes on to the next model."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence

from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model as Client
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.usage import RequestUsage

from fsagent.engines.base import GivenUp, Link, Model, Request
from fsagent.engines.model import prompt
from fsagent.engines.model.failures import Trouble, trouble_of
from fsagent.engines.model.price import cost_of
from fsagent.engines.model.providers import connect, settings_for
from fsagent.model import Step, Turn, Usage

TRIES = 3
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
LONGEST_SILENCE = 180.0
BEAT = 0.1


class ModelEngine:
    """See the package. Keeps connections to providers, and nothing that counts."""

    name = "model"
    suggestible = True

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._clients: dict[Model, Client] = {}

    def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
        """The next step. Raises ``GivenUp`` when the run is to stop or its time is up."""
        link: Link = request.link or _Alone()
        troubles: dict[str, Trouble] = {}
        for model in request.models:
            outcome = self._runner.run(self._insist(model, request, turns, link))
            if isinstance(outcome, ModelResponse):
                return _step(outcome, model, request, turns, _blocked(troubles))
            troubles[model.name] = outcome
        why = "; ".join(each.why for each in troubles.values()) or "no model may be asked"
        blocked = _blocked(troubles)
        return Step(
            status="failed", error=why, blocked=blocked, halted=0 < len(blocked) == len(troubles),
            passing=any(each.retry for each in troubles.values()),
        )  # fmt: skip

    async def _insist(
        self, model: Model, request: Request, turns: Sequence[Turn], link: Link
    ) -> ModelResponse | Trouble:
        """Ask one model, and again where that may help."""
        trouble = Trouble("")
        for number in range(TRIES):
            if number:
                await _rest(max(trouble.wait, FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.8, 1.2)), link)
                link.tell(f"\n({trouble.why}; trying again)\n")
            try:
                return await self._watched(model, request, turns, link)
            except GivenUp:
                raise
            except (AgentRunError, UserError, OSError, ValueError) as error:
                trouble = trouble_of(error, model)
            if not trouble.retry or trouble.wait > LONGEST_WAIT:
                break
        return trouble

    async def _watched(self, model: Model, request: Request, turns: Sequence[Turn], link: Link) -> ModelResponse:
        """Ask once; given up as soon as the run is to stop."""
        task = asyncio.ensure_future(self._ask(model, request, turns, link))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=BEAT)
                if not task.done() and (link.stopping() or link.seconds_left() <= 0):
                    raise GivenUp
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return task.result()

    async def _ask(self, model: Model, request: Request, turns: Sequence[Turn], link: Link) -> ModelResponse:
        client = self._clients.get(model)
        if client is None:
            client = self._clients[model] = connect(model)
        said: list[ModelMessage] = prompt.messages(request, turns)
        asked = ModelRequestParameters(function_tools=prompt.definitions(request), allow_text_output=True)
        settings = settings_for(model, min(LONGEST_SILENCE, max(1.0, link.seconds_left())))
        async with model_request_stream(
            client, said, model_settings=settings, model_request_parameters=asked
        ) as stream:
            async for event in stream:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    link.tell(event.part.content)
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    link.tell(event.delta.content_delta)
        response = stream.get()
        if not model.name.startswith("google:") and "finish_reason" not in (response.provider_details or {}):
            raise ConnectionError("the answer broke off")  # the library takes a stream that just ends for a whole one
        if not response.parts:
            raise ValueError("it answered nothing at all")
        link.tell("\n")
        return response


class _Alone:
    """A link to nobody."""

    def seconds_left(self) -> float:
        return LONGEST_SILENCE

    def stopping(self) -> bool:
        return False

    def tell(self, text: str) -> None: ...


def _blocked(troubles: Mapping[str, Trouble]) -> dict[str, str]:
    """The models that let nobody in."""
    return {name: trouble.why for name, trouble in troubles.items() if trouble.shut}


async def _rest(seconds: float, link: Link) -> None:
    """Wait, but not longer than the run may."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        if link.stopping() or link.seconds_left() <= 0:
            raise GivenUp
        await asyncio.sleep(min(BEAT, left))


def _step(
    response: ModelResponse, model: Model, request: Request, turns: Sequence[Turn], blocked: dict[str, str]
) -> Step:
    calls, text = prompt.calls_in(response), prompt.text_of(response)
    usage = _usage(response, model, request, turns)
    if calls:
        memo = prompt.memo_of(response)
        return Step(calls=calls, answer=text, usage=usage, model=model.name, memo=memo, blocked=blocked)
    if response.finish_reason == "length":
        text += f"\n\n(The answer was cut off at {model.max_output:,} tokens; model.max_output sets that.)"
    elif response.finish_reason == "content_filter" and not text:
        text = "The provider's filter let no answer through."
    quiet = bool(request.command.task) and prompt.is_silence(text)
    return Step(answer=text, quiet=quiet, usage=usage, model=model.name, blocked=blocked)


def _usage(response: ModelResponse, model: Model, request: Request, turns: Sequence[Turn]) -> Usage:
    """What the turn took. A server that does not count is counted by the length of the text: four bytes a token."""
    used = response.usage
    if not used.input_tokens and not used.output_tokens:
        sent = sum(len(str(part)) for message in prompt.messages(request, turns) for part in message.parts)
        sent += len(prompt.instructions(request)) + sum(len(json.dumps(tool.schema)) for tool in request.tools)
        used = RequestUsage(input_tokens=sent // 4, output_tokens=sum(len(str(part)) for part in response.parts) // 4)
    cost = cost_of(used, model)
    return Usage(
        tokens_in=used.input_tokens, tokens_out=used.output_tokens, cost=cost or 0.0,
        tokens_cached=used.cache_read_tokens, turns=1, unpriced=int(cost is None),
    )  # fmt: skip
