"""OpenAI's chat completions, as its own servers and the compatible ones (Ollama's list of models too) speak them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fsagent.testing.received import Received
from fsagent.testing.replies import Answer, Call, Refusal
from fsagent.testing.server import ScriptedServer
from fsagent.testing.wire import CREATED, Part, Wire, bearer, data, gated, in_parts, with_ids

_FINISH = {"length": "length", "filter": "content_filter"}

# By status, or by code where a status has several: type, code, message.
_ERRORS: dict[int | str, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "We could not parse the JSON body of your request."),
    401: (
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    402: ("unknown_error", "invalid_request_error", "Insufficient Balance"),  # as DeepSeek says it; OpenAI has none
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    429: (
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for {model} on requests per min (RPM): Limit 3, Used 3, Requested 1. Try again in 20s.",
    ),
    500: (
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    503: ("server_error", None, "That model is currently overloaded with other requests. You can retry your request."),
    "insufficient_quota": (
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "context_length_exceeded": (
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    ),
}


class OpenAIWire(Wire):
    """See the module."""

    prefix = "/v1"
    model_path = "/v1/chat/completions"

    def knows(self, received: Received) -> bool:
        return bearer(received) == self.key

    def no_tools(self, received: Received) -> Refusal:
        """In Ollama's words and shape."""
        model = received.model if ":" in received.model else f"{received.model}:latest"
        return Refusal(
            status=400, code="api_error", message=f"registry.ollama.ai/library/{model} does not support tools"
        )

    def fault(self, received: Received) -> str:
        if not received.model:
            return "you must provide a model parameter"
        if not received.messages:
            return "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array."
        open_calls: list[str] = []
        for message in received.messages:
            if message.get("role") == "tool":
                if message.get("tool_call_id") not in open_calls:
                    return (
                        "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                        "'tool_calls'."
                    )
                open_calls.remove(message["tool_call_id"])
            elif open_calls:
                break
            else:
                open_calls = [str(each.get("id")) for each in message.get("tool_calls") or ()]
        if open_calls:
            return (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                "'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(open_calls)
            )
        return ""

    def lookup(self, path: str) -> dict[str, Any] | None:
        if path == "/v1/models":
            return {"object": "list", "data": [_model(name) for name in self.models]}
        if path == "/api/tags":
            return {"models": [_tag(name) for name in self.models]}
        name = path.removeprefix("/v1/models/")
        return _model(name) if name in self.models else None

    def error_body(self, refusal: Refusal, received: Received) -> dict[str, Any]:
        kind, code, message = _ERRORS.get(refusal.code) or _ERRORS.get(refusal.status) or _other(refusal)
        if refusal.code == "api_error":  # the one type that Ollama has, without a code
            kind, code = "api_error", None
        elif refusal.code:
            code = refusal.code
        elif received.path != self.model_path and refusal.status == 404:
            code = None
        message = refusal.message or message.replace("{model}", received.model)
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def error_event(self, refusal: Refusal, received: Received) -> bytes:
        return _event(self.error_body(refusal, received))

    def whole(self, answer: Answer, received: Received) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.say or None, "refusal": None}
        if answer.calls:
            message["tool_calls"] = [_call(each) for each in with_ids(answer, received, "call")]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        return _frame(received, "chat.completion") | {"choices": [choice], "usage": _usage(answer)}

    def opening(self, answer: Answer, received: Received) -> Iterator[Part]:
        yield self._chunk(received, {"role": "assistant", "content": "" if answer.say else None, "refusal": None})
        for piece in gated(answer):
            yield None if piece is None else self._chunk(received, {"content": piece})

    def ending(self, answer: Answer, received: Received) -> Iterator[Part]:
        for n, each in enumerate(with_ids(answer, received, "call")):
            head = _call(each)
            head["function"]["arguments"] = ""
            yield self._chunk(received, {"tool_calls": [{"index": n, **head}]})
            for part in in_parts(each.arguments):
                yield self._chunk(received, {"tool_calls": [{"index": n, "function": {"arguments": part}}]})
        yield self._chunk(received, {}, _finish(answer))
        if _wants_usage(received):
            frame = _frame(received, "chat.completion.chunk")
            yield _event(frame | {"choices": [], "usage": _usage(answer)})
        yield b"data: [DONE]\n\n"

    def _chunk(self, received: Received, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        frame = _frame(received, "chat.completion.chunk")
        frame["choices"] = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        if _wants_usage(received):
            frame["usage"] = None
        return _event(frame)


class ScriptedOpenAI(ScriptedServer):
    """``POST /v1/chat/completions``, ``GET /v1/models``, and Ollama's ``GET /api/tags``; ``base_url`` ends in ``/v1``.

    The key is looked for in ``Authorization: Bearer``.
    """

    wire = OpenAIWire


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % data(value)


def _frame(received: Received, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{received.number}",
        "object": kind,
        "created": CREATED,
        "model": received.model,
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def _finish(answer: Answer) -> str:
    return _FINISH.get(answer.finish) or ("tool_calls" if answer.calls else "stop")


def _call(each: Call) -> dict[str, Any]:
    return {"id": each.id, "type": "function", "function": {"name": each.tool, "arguments": each.arguments}}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.tokens_in,
        "completion_tokens": answer.tokens_out,
        "total_tokens": answer.tokens_in + answer.tokens_out,
        "prompt_tokens_details": {"cached_tokens": answer.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _wants_usage(received: Received) -> bool:
    options = received.body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _other(refusal: Refusal) -> tuple[str, str | None, str]:
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return kind, None, f"The request was refused with status {refusal.status}."


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"}


def _tag(name: str) -> dict[str, Any]:
    family = name.partition(":")[0]
    return {
        "name": name,
        "model": name,
        "modified_at": "2026-01-01T00:00:00Z",
        "size": 2_019_393_189,
        "digest": "0" * 64,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": "3.2B",
            "quantization_level": "Q4_K_M",
        },
    }
