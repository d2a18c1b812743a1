"""Scripted model servers: what they answer is what the real clients understand, and they leave nothing behind."""

from __future__ import annotations

import ast
import http.client
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic_ai import Agent, ModelMessage, ModelRequest, ModelResponse, Tool, ToolCallPart, ToolReturnPart
from pydantic_ai import exceptions as ai
from pydantic_ai.direct import model_request_stream_sync, model_request_sync
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

import fsagent.testing
from fsagent.testing import (
    Answer,
    Received,
    Reply,
    ScriptedAnthropic,
    ScriptedOpenAI,
    ScriptedServer,
    call,
    call_raw,
    calls,
    error,
    giant,
    half,
    hang,
    held,
    obedient,
    slow,
    text,
)

NAMES = ("openai", "anthropic")
HI = [ModelRequest.user_text_prompt("Hi")]
READ = ModelRequestParameters(
    function_tools=[
        ToolDefinition(
            name="read", parameters_json_schema={"type": "object", "properties": {"path": {"type": "string"}}}
        )
    ]
)


class Kit:
    """A provider: its server, and its real client behind pydantic-ai."""

    def __init__(self, name: str) -> None:
        if name == "anthropic":
            pytest.importorskip("anthropic")
        self.name = name
        self.path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[name]

    def server(self, script: Any, **options: Any) -> ScriptedServer:
        return (ScriptedOpenAI if self.name == "openai" else ScriptedAnthropic)(script, **options)

    def model(self, server: ScriptedServer, *, key: str = "k", retries: int = 0, timeout: float = 30) -> Model:
        options = {"base_url": server.base_url, "api_key": key, "max_retries": retries, "timeout": timeout}
        if self.name == "openai":
            from openai import AsyncOpenAI

            return OpenAIChatModel("some-model", provider=OpenAIProvider(openai_client=AsyncOpenAI(**options)))
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        return AnthropicModel("some-model", provider=AnthropicProvider(anthropic_client=AsyncAnthropic(**options)))

    def body(self, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A request as the provider wants it, without any client."""
        limit = {"max_tokens": 100} if self.name == "anthropic" else {}
        return {"model": "m", "messages": list(messages) or [{"role": "user", "content": "Hi"}], **limit, **more}


@pytest.fixture(params=NAMES)
def kit(request: pytest.FixtureRequest) -> Kit:
    return Kit(request.param)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread of a server outlives its test."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and "asyncio" not in thread.name]
    assert not left


def ask(model: Model, messages: list[ModelMessage] = HI, **options: Any) -> ModelResponse:
    return model_request_sync(model, messages, **options)


def ask_stream(model: Model, messages: list[ModelMessage] = HI, **options: Any) -> tuple[ModelResponse, list[str]]:
    """The answer, and the pieces of its text as they came."""
    pieces = []
    with model_request_stream_sync(model, messages, **options) as stream:
        for event in stream:
            pieces += [said] if (said := said_by(event)) else []
        return stream.response, pieces


def said_by(event: Any) -> str:
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


class Wire:
    """One HTTP answer, without any provider's client."""

    def __init__(self, server: ScriptedServer, method: str, path: str, body: Any = None, **headers: str) -> None:
        parts = urlsplit(server.root)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        sent = {"anthropic-version": "2023-06-01", **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            self.status, self.headers, self.text = answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def json(self) -> Any:
        return json.loads(self.text)

    def events(self) -> list[tuple[str, Any]]:
        """Server-sent events: their names, and their data as JSON where it is some."""
        found = []
        for block in self.text.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            data = fields["data"]
            found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
        return found


def post(server: ScriptedServer, kit: Kit, body: Any, **headers: str) -> Wire:
    return Wire(server, "POST", kit.path, body, **headers)


# what the real clients understand


@pytest.mark.parametrize("stream", [False, True])
def test_text_and_usage(kit: Kit, stream: bool) -> None:
    with kit.server([text("Hello there, you!", tokens_in=100, tokens_out=7, cached=40)]) as server:
        model = kit.model(server)
        answer, pieces = ask_stream(model) if stream else (ask(model), [])
    assert answer.text == "Hello there, you!"
    assert pieces == (["Hello", " there,", " you!"] if stream else [])
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (100, 7, 40)
    assert answer.finish_reason == "stop"
    assert server.requests[0].stream is stream
    assert server.last.model == "some-model"
    assert server.prompts() == ["Hi"]
    assert server.left == 0


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(kit: Kit, stream: bool) -> None:
    reply = calls(call("read", path="ä.md"), call("read", path="b", lines=[1, 2]), say="I look.")
    with kit.server([reply]) as server:
        model = kit.model(server)
        options = {"model_request_parameters": READ}
        answer = ask_stream(model, **options)[0] if stream else ask(model, **options)
    assert answer.text == "I look."
    made = answer.tool_calls
    assert [(each.tool_name, each.args_as_dict()) for each in made] == [
        ("read", {"path": "ä.md"}),
        ("read", {"path": "b", "lines": [1, 2]}),
    ]
    assert len({each.tool_call_id for each in made}) == 2
    assert answer.finish_reason == "tool_call"
    assert server.last.tools == ["read"]


@pytest.mark.parametrize("stream", [False, True])
def test_arguments_that_are_no_json(kit: Kit, stream: bool) -> None:
    with kit.server([calls(call_raw("read", "{not json", id="mine"))]) as server:
        model = kit.model(server)
        made = (ask_stream(model)[0] if stream else ask(model)).tool_calls
    assert [(each.tool_name, each.args, each.tool_call_id) for each in made] == [("read", "{not json", "mine")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_was_cut_off(kit: Kit, stream: bool) -> None:
    with kit.server([text("And then", finish="length"), text("No", finish="filter")]) as server:
        model = kit.model(server)
        reasons = [(ask_stream(model)[0] if stream else ask(model)).finish_reason for _ in range(2)]
    assert reasons == ["length", "content_filter"]


@pytest.mark.parametrize("stream", [False, True])
def test_giant(kit: Kit, stream: bool) -> None:
    with kit.server([giant(3_000_000)]) as server:
        model = kit.model(server)
        answer = ask_stream(model)[0] if stream else ask(model)
    assert len(answer.text or "") == 3_000_000


def test_a_whole_conversation_of_an_agent(kit: Kit) -> None:
    """Also that the provider's rules of a conversation, which the server checks, hold for a good client."""
    script = [calls(call("read", path="a"), call("read", path="b")), calls(call("read", path="a")), text("Done.")]

    def read(path: str) -> str:
        return f"<{path}>"

    for streamed in (False, True):
        with kit.server(script) as server:
            agent = Agent(kit.model(server), tools=[Tool(read)], system_prompt="Be brief.")
            if streamed:
                with agent.run_stream_sync("Read them") as stream:
                    assert stream.get_output() == "Done."
            else:
                assert agent.run_sync("Read them").output == "Done."
        assert server.last.system == "Be brief."
        assert server.last.results == ["<a>", "<b>", "<a>"]
        assert [each.args for each in server.last.called] == [{"path": "a"}, {"path": "b"}, {"path": "a"}]
        assert len({each.id for each in server.last.called}) == 3


ERRORS: list[tuple[dict[str, Any], type[Exception], int]] = [
    ({"status": 400}, ai.ModelRequestRejectedError, 400),
    ({"status": 400, "code": "context_length_exceeded"}, ai.ModelContextWindowExceededError, 400),
    ({"status": 401}, ai.ModelAuthenticationError, 401),
    ({"status": 402}, ai.ModelQuotaExceededError, 402),
    ({"status": 403}, ai.ModelAuthenticationError, 403),
    ({"status": 404}, ai.ModelNotFoundError, 404),
    ({"status": 429}, ai.ModelRateLimitError, 429),
    ({"status": 429, "code": "rate_limit_exceeded", "retry_after": 7}, ai.ModelRateLimitError, 429),
    ({"status": 429, "code": "insufficient_quota"}, ai.ModelQuotaExceededError, 429),
    ({"status": 500}, ai.ModelServerError, 500),
    ({"status": 503}, ai.ModelUnavailableError, 503),
    ({"status": 529}, ai.ModelOverloadedError, 529),
    ({"status": 418, "message": "I am a teapot"}, ai.ModelHTTPError, 418),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("given", "kind", "status"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors(kit: Kit, given: dict[str, Any], kind: type[Exception], status: int, stream: bool) -> None:
    with kit.server([error(**given)]) as server:
        model = kit.model(server)
        with pytest.raises(kind) as caught:
            ask_stream(model) if stream else ask(model)
    assert isinstance(caught.value, ai.ModelHTTPError)
    assert caught.value.status_code == status
    assert caught.value.retry_after == given.get("retry_after")
    assert given.get("message", "") in str(caught.value)
    assert caught.value.provider_error_type


def test_an_error_in_the_middle_of_a_stream(kit: Kit) -> None:
    heard: list[str] = []
    with kit.server([error(429, after="I begin")]) as server:
        with pytest.raises(ai.ModelRateLimitError) as caught:  # noqa: SIM117, PT012
            with model_request_stream_sync(kit.model(server), HI) as stream:
                heard.extend(said_by(event) for event in stream)
    assert caught.value.in_stream
    assert "I begin".startswith("".join(heard) or "-") or heard == []


def test_the_clients_repeat_what_may_be_repeated(kit: Kit) -> None:
    with kit.server([error(429, retry_after=0.01), error(503, retry_after=0.01), text("At last")]) as server:
        assert ask(kit.model(server, retries=2)).text == "At last"
    assert len(server.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("whole", [None, calls(call("write", path="a.md", text="x" * 500))], ids=["text", "calls"])
def test_half(kit: Kit, whole: Answer | None, stream: bool) -> None:
    with kit.server([half(whole)]) as server:
        model = kit.model(server)
        with pytest.raises(ai.ModelConnectionError):
            ask_stream(model) if stream else ask(model)


def test_half_that_looks_whole(kit: Kit) -> None:
    with kit.server([half(quiet=True), half(quiet=True)]) as server:
        model = kit.model(server)
        with pytest.raises(ai.ModelAPIError):
            ask(model)
        answer = ask_stream(model)[0]  # the clients take it for an end; only the finish reason is missing
    assert (answer.text or "").startswith("This sentence")
    assert answer.finish_reason is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", ["", "I begin"])
def test_hang_until_the_client_leaves(kit: Kit, after: str, stream: bool) -> None:
    with kit.server([hang(after), text("Still there")]) as server:
        model = kit.model(server, timeout=0.3)
        with pytest.raises(ai.ModelTimeoutError):
            ask_stream(model) if stream else ask(model)
        server.wait_idle()  # it saw that the client left
        assert ask(kit.model(server)).text == "Still there"


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Something that blocks, beside the test; it must end by itself."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reply", [hang(), hang("I begin"), slow("ab"), held(text("a"))], ids=["", "after", "slow", ""])
def test_the_end_of_the_server_ends_what_hangs(kit: Kit, reply: Reply, stream: bool) -> None:
    with kit.server([reply]) as server:
        waiting = in_thread(lambda: post(server, kit, kit.body(stream=stream)))
        server.wait_for(1)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        waiting.result(20)


def test_slow_shows_what_is_in_between(kit: Kit) -> None:
    with kit.server([slow("one two three", pieces=3)]) as server:
        with model_request_stream_sync(kit.model(server), HI) as stream:
            heard = []
            for event in stream:
                if said := said_by(event):
                    heard.append(said)
                    server.release()  # not before: each piece came without the next
        assert heard == ["one ", "two t", "hree"] or "".join(heard) == "one two three"
        assert len(heard) == 3


def test_slow_outside_of_a_stream_waits_for_all(kit: Kit) -> None:
    with kit.server([slow("one two three", pieces=3)]) as server:
        server.release(2)
        assert ask(kit.model(server)).text == "one two three"


@pytest.mark.parametrize("reply", [text("Yes"), error(500)], ids=["text", "error"])
def test_held(kit: Kit, reply: Reply) -> None:
    with kit.server([held(reply), text("Next")]) as server:
        waiting = in_thread(lambda: post(server, kit, kit.body()).status)
        server.wait_for(1)
        assert post(server, kit, kit.body()).status == 200  # the second is not behind the first
        assert not waiting.done()
        server.release()
        assert waiting.result(20) == (200 if isinstance(reply, Answer) else 500)


def test_a_client_that_left_takes_no_release(kit: Kit) -> None:
    with kit.server([held(text("a")), held(text("b"))]) as server:
        parts = urlsplit(server.root)
        body = json.dumps(kit.body()).encode()
        with socket.create_connection((parts.hostname, parts.port)) as gone:
            head = f"POST {kit.path} HTTP/1.1\r\nHost: x\r\nanthropic-version: 1\r\nContent-Length: {len(body)}\r\n\r\n"
            gone.sendall(head.encode() + body)
            server.wait_for(1)
        waiting = in_thread(lambda: post(server, kit, kit.body()).text)
        server.wait_for(2)
        server.release()
        assert '"b"' in waiting.result(20)


# scripts


def test_a_script_that_is_used_up_says_so_once(kit: Kit) -> None:
    with kit.server([text("One")]) as server:
        model = kit.model(server, retries=2)
        ask(model)
        with pytest.raises(ai.ModelServerError, match="the script is used up: it has 1 replies"):
            ask(model)
    assert len(server.requests) == 2, "the client tried again"


def test_a_script_may_be_a_function(kit: Kit) -> None:
    def echo(received: Received) -> Reply:
        return text(f"{received.number}: {received.texts[-1]}")

    with kit.server(echo) as server:
        assert ask(kit.model(server)).text == "1: Hi"
        assert ask_stream(kit.model(server))[0].text == "2: Hi"
    with kit.server([text("a"), echo]) as server:
        assert [ask(kit.model(server)).text for _ in range(2)] == ["a", "2: Hi"]


def test_a_script_that_fails_tells_the_client_and_the_test(kit: Kit) -> None:
    def wrong(received: Received) -> Reply:
        raise ZeroDivisionError("the test is wrong")

    with pytest.raises(ZeroDivisionError, match="the test is wrong"), kit.server(wrong) as server:
        answer = post(server, kit, kit.body())
        assert (answer.status, answer.headers["x-should-retry"]) == (500, "false")
        assert "ZeroDivisionError" in answer.text
    with pytest.raises(KeyError) as caught, kit.server(wrong) as server:
        post(server, kit, kit.body())
        raise KeyError
    assert any("ZeroDivisionError" in note for note in caught.value.__notes__)


def test_ids_follow_from_the_conversation(kit: Kit) -> None:
    ids = []
    with kit.server(lambda _: calls(call("a"), call("b"))) as server:
        for messages in (1, 1, 3):
            history: list[ModelMessage] = HI * messages if kit.name == "openai" else [
                ModelRequest.user_text_prompt("Hi"), *[ModelResponse([TextPart("Yes")]), *HI] * (messages // 2)
            ]  # fmt: skip
            ids.append([each.tool_call_id for each in ask(kit.model(server), history).tool_calls])
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_requests_are_kept_as_they_came(kit: Kit) -> None:
    with kit.server([text("a"), text("b")]) as server:
        first = post(server, kit, kit.body(extra="ü"), X_Mine="1")
        assert first.status == 200
        post(server, kit, kit.body())
        assert server.wait_for(2) is server.last
    received = server.requests[0]
    assert received.body == kit.body(extra="ü")
    assert received.headers["x-mine"] == "1"
    assert (received.method, received.path, received.number) == ("POST", kit.path, 1)
    assert received.size == len(json.dumps(kit.body(extra="ü")))


def test_many_at_once(kit: Kit) -> None:
    with kit.server(lambda received: text(received.texts[-1])) as server, ThreadPoolExecutor(8) as pool:
        asked = [f"number {n}" for n in range(40)]
        bodies = [kit.body({"role": "user", "content": each}, stream=bool(n % 2)) for n, each in enumerate(asked)]
        answers = list(pool.map(lambda body: post(server, kit, body).text, bodies))
        server.wait_idle()
    assert all(each.split()[-1] in answer for each, answer in zip(asked, answers, strict=True))
    assert sorted(received.number for received in server.requests) == list(range(1, 41))


@pytest.mark.parametrize("keep_alive", [False, True])
def test_connections_end_with_the_server(kit: Kit, keep_alive: bool) -> None:
    with kit.server([text("a"), text("b")], keep_alive=keep_alive) as server:
        parts = urlsplit(server.root)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        for _ in range(2):
            connection.request("POST", kit.path, json.dumps(kit.body()), {"anthropic-version": "1"})
            answer = connection.getresponse()
            assert answer.will_close is not keep_alive
            answer.read()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((parts.hostname, parts.port), 5)
    with pytest.raises(RuntimeError, match="started before"):
        server.start()
    server.close()  # again is no fault


# who is let in


def test_the_key(kit: Kit) -> None:
    with kit.server([text("In")], key="right") as server:
        with pytest.raises(ai.ModelAuthenticationError):
            ask(kit.model(server, key="wrong"))
        assert Wire(server, "GET", "/v1/models").status == 401
        assert ask(kit.model(server, key="right")).text == "In"
        headers = {"x_api_key": "right"} if kit.name == "anthropic" else {"authorization": "Bearer right"}
        assert Wire(server, "GET", "/v1/models", **headers).status == 200
    assert (len(server.requests), len(server.others), server.left) == (2, 2, 0)


def test_models(kit: Kit) -> None:
    with kit.server([text("In")], models=["a", "b:1b"]) as server:
        with pytest.raises(ai.ModelNotFoundError, match="some-model"):
            ask(kit.model(server))
        assert post(server, kit, {**kit.body(), "model": "a"}).status == 200
        listed = Wire(server, "GET", "/v1/models").json()
        assert [each["id"] for each in listed["data"]] == ["a", "b:1b"]
        assert Wire(server, "GET", "/v1/models/a").json()["id"] == "a"
        assert Wire(server, "GET", "/v1/models/c").status == 404
        assert Wire(server, "GET", "/v2").status == 404
        assert Wire(server, "POST", "/v1/embeddings", {}).status == 404
    assert [each.path for each in server.others] == [
        "/v1/models", "/v1/models/a", "/v1/models/c", "/v2", "/v1/embeddings",
    ]  # fmt: skip


def test_ollama() -> None:
    with ScriptedOpenAI([text("In")], models=["llama3.2:3b"]) as server:
        tags = Wire(server, "GET", "/api/tags").json()
        assert [each["name"] for each in tags["models"]] == ["llama3.2:3b"]
        assert tags["models"][0]["details"]["family"] == "llama3.2"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_without_tools(kit: Kit, stream: bool) -> None:
    with kit.server([text("Without")], tools=False) as server:
        model = kit.model(server)
        with pytest.raises(ai.ModelHTTPError, match="does not support tools") as caught:
            (ask_stream if stream else ask)(model, model_request_parameters=READ)
        assert caught.value.status_code == 400
        assert ask(model).text == "Without"
    if kit.name == "openai":
        assert caught.value.body == {
            "message": "registry.ollama.ai/library/some-model:latest does not support tools",
            "type": "api_error", "param": None, "code": None,
        }  # fmt: skip


def test_a_conversation_that_no_provider_takes(kit: Kit) -> None:
    open_call: list[ModelMessage] = [*HI, ModelResponse([ToolCallPart("read", {"path": "a"}, "call_7")]), *HI]
    stranger: list[ModelMessage] = [*HI, ModelRequest([ToolReturnPart("read", "x", "call_8")])]
    with kit.server([text("a")] * 2) as server:
        assert post(server, kit, kit.body(*_raw(kit, "open"))).status == 400
        assert post(server, kit, kit.body(*_raw(kit, "stranger"))).status == 400
        assert post(server, kit, kit.body(*_raw(kit, "good"))).status == 200
        assert post(server, kit, {"model": "m", "max_tokens": 1, "messages": []}).status == 400
        assert Wire(server, "POST", kit.path, "not an object").status == 400
    with kit.server([text("a")] * 2, strict=False) as server:
        assert post(server, kit, kit.body(*_raw(kit, "open"))).status == 200
    assert open_call
    assert stranger


def _raw(kit: Kit, which: str) -> list[dict[str, Any]]:
    """A conversation with a tool call; its result is there, misses, or is that of another."""
    identity = "other" if which == "stranger" else "c1"
    if kit.name == "openai":
        made = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
        said: dict[str, Any] = {"role": "assistant", "tool_calls": [made]}
        result: dict[str, Any] = {"role": "tool", "tool_call_id": identity, "content": "x"}
    else:
        said = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "read", "input": {}}]}
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": identity, "content": "x"}]}
    user = {"role": "user", "content": "Hi"}
    return [user, said, user] if which == "open" else [user, said, result]
