"""Anthropic's messages, in a stream and outside of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fsagent.testing.received import Received, parsed
from fsagent.testing.replies import Answer, Call, Refusal
from fsagent.testing.server import ScriptedServer
from fsagent.testing.wire import Part, Wire, bearer, data, gated, in_parts, with_ids

_STOP = {"length": "max_tokens", "filter": "refusal"}
_DAY = "2026-01-01T00:00:00Z"
_CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase "
    "credits."
)
# By status: type, message.
_ERRORS = {
    400: ("invalid_request_error", "messages: Field required"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", _CREDIT),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model: {model}"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit of 3 requests per minute."),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
# OpenAI's codes, in Anthropic's words: type, message.
_CODES = {
    "rate_limit_exceeded": ("rate_limit_error", _ERRORS[429][1]),
    "insufficient_quota": ("billing_error", _CREDIT),
    "context_length_exceeded": ("invalid_request_error", "prompt is too long: 209000 tokens > 200000 maximum"),
}


class AnthropicWire(Wire):
    """See the module."""

    model_path = "/v1/messages"

    def knows(self, received: Received) -> bool:
        """Either header will do: the older clients send ``x-api-key``, the newer ones a bearer."""
        return received.headers.get("x-api-key") == self.key or bearer(received) == self.key

    def no_tools(self, received: Received) -> Refusal:
        """Each of Anthropic's models takes tools; this is said by nobody but us."""
        return Refusal(status=400, message=f"tools: {received.model} does not support tools")

    def fault(self, received: Received) -> str:
        for name in ("model", "max_tokens", "messages"):
            if name not in received.body:
                return f"{name}: Field required"
        if "anthropic-version" not in received.headers:
            return "anthropic-version: header is required"
        if not received.messages:
            return "messages: at least one message is required"
        open_calls: set[str] = set()
        for n, message in enumerate(received.messages):
            blocks = [each for each in message.get("content") or () if isinstance(each, dict)]
            results = {str(each.get("tool_use_id")) for each in blocks if each.get("type") == "tool_result"}
            if open_calls - results:
                return _without_result(n - 1, open_calls - results)
            if results - open_calls:
                return (
                    f"messages.{n}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{', '.join(sorted(results - open_calls))}. Each `tool_result` block must have a corresponding "
                    "`tool_use` block in the previous message."
                )
            open_calls = {str(each.get("id")) for each in blocks if each.get("type") == "tool_use"}
            if any(each.get("type") == "tool_use" and not isinstance(each.get("input"), dict) for each in blocks):
                return f"messages.{n}.content.0.tool_use.input: Input should be a valid dictionary"
        return _without_result(len(received.messages) - 1, open_calls) if open_calls else ""

    def lookup(self, path: str) -> dict[str, Any] | None:
        if path == "/v1/models":
            names = self.models
            ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
            return {"data": [_model(name) for name in names], "has_more": False, **ends}
        name = path.removeprefix("/v1/models/")
        return _model(name) if name in self.models else None

    def error_body(self, refusal: Refusal, received: Received) -> dict[str, Any]:
        other = "api_error" if refusal.status >= 500 else "invalid_request_error"
        kind, message = _ERRORS.get(refusal.status, (other, f"The request was refused with status {refusal.status}."))
        if refusal.code:
            special, message = _CODES.get(refusal.code, (refusal.code, message))
            kind = special if refusal.status != 400 else kind  # an empty prepaid balance is a bad request, it says
        message = refusal.message or message.replace("{model}", received.model)
        request = f"req_{received.number}"
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request}

    def error_event(self, refusal: Refusal, received: Received) -> bytes:
        return _event(self.error_body(refusal, received))

    def whole(self, answer: Answer, received: Received) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.say}] if answer.say else []
        content += [_call(each, parsed(each.arguments)) for each in with_ids(answer, received, "toolu")]
        return _message(received, _usage(answer)) | {"content": content, "stop_reason": _stop(answer)}

    def opening(self, answer: Answer, received: Received) -> Iterator[Part]:
        message = _message(received, _usage(answer) | {"output_tokens": min(1, answer.tokens_out)})
        yield _event({"type": "message_start", "message": message})
        if answer.say:
            yield _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            yield _event({"type": "ping"})
        for piece in gated(answer):
            yield None if piece is None else _delta(0, {"type": "text_delta", "text": piece})

    def ending(self, answer: Answer, received: Received) -> Iterator[Part]:
        if answer.say:
            yield _event({"type": "content_block_stop", "index": 0})
        for n, each in enumerate(with_ids(answer, received, "toolu"), start=1 if answer.say else 0):
            yield _event({"type": "content_block_start", "index": n, "content_block": _call(each, {})})
            for part in ("", *in_parts(each.arguments)):
                yield _delta(n, {"type": "input_json_delta", "partial_json": part})
            yield _event({"type": "content_block_stop", "index": n})
        delta = {"stop_reason": _stop(answer), "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": delta, "usage": _usage(answer)})
        yield _event({"type": "message_stop"})


class ScriptedAnthropic(ScriptedServer):
    """``POST /v1/messages`` and ``GET /v1/models``; ``base_url`` ends with the port.

    The key is looked for in ``x-api-key`` and in ``Authorization: Bearer``.
    """

    wire = AnthropicWire


def _event(value: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), data(value))


def _delta(index: int, delta: Mapping[str, Any]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _message(received: Received, usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{received.number}",
        "type": "message",
        "role": "assistant",
        "model": received.model,
        "content": [],
        "stop_reason": None,
        "stop_details": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _call(each: Call, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": each.id, "name": each.tool, "input": given}


def _stop(answer: Answer) -> str:
    return _STOP.get(answer.finish) or ("tool_use" if answer.calls else "end_turn")


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.tokens_in - answer.cached,  # Anthropic counts what came from the cache apart
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached,
        "output_tokens": answer.tokens_out,
    }


def _without_result(n: int, ids: set[str]) -> str:
    return (
        f"messages.{n}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(sorted(ids))}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": _DAY, "lifecycle": "active"}
