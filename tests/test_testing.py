"""Scripted model servers: what they answer is what the real clients understand, and they leave nothing behind."""

from __future__ import annotations

import ast
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic_ai import Agent, ModelMessage, ModelRequest, ModelResponse, Tool
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
        self.name = name
        self.path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[name]

    def server(self, script: Any, **options: Any) -> ScriptedServer:
        return (ScriptedOpenAI if self.name == "openai" else ScriptedAnthropic)(script, **options)

    def model(self, server: ScriptedServer, *, key: str = "k", retries: int = 0, timeout: float = 30) -> Model:
        options = {"base_url": server.base_url, "api_key": key, "max_retries": retries, "timeout": timeout}
        if self.name == "openai":
            from openai import AsyncOpenAI

            return OpenAIChatModel("some-model", provider=OpenAIProvider(openai_client=AsyncOpenAI(**options)))
        pytest.importorskip("anthropic")
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
    """No thread of a server outlives its test; those of the clients' libraries may."""
    yield
    ours = ("scripted model server", "process_request_thread")
    assert [each for each in threading.enumerate() if any(name in each.name for name in ours)] == []


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
    with kit.server([giant(1_000_000)]) as server:
        model = kit.model(server)
        answer = ask_stream(model)[0] if stream else ask(model)
    assert len(answer.text or "") == 1_000_000


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
    with kit.server([error(429, after="I begin"), error(429, after="I begin")]) as server:
        with pytest.raises(ai.ModelRateLimitError) as caught:
            ask_stream(kit.model(server))
        assert caught.value.in_stream
        assert "begin" in post(server, kit, kit.body(stream=True)).text


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
        answer = ask_stream(model)[0]  # the clients take it for an end; only the provider's own reason is missing
    assert (answer.text or "").startswith("This sentence")
    assert "finish_reason" not in (answer.provider_details or {})


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
        heard = []
        with model_request_stream_sync(kit.model(server), HI) as stream:
            for event in stream:
                if said := said_by(event):
                    heard.append(said)
                    server.release()  # without which the next would never come
    assert ("".join(heard), len(heard)) == ("one two three", 3)


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


@pytest.mark.parametrize("kind", [ZeroDivisionError, ConnectionResetError])
def test_a_script_that_fails_tells_the_client_and_the_test(kit: Kit, kind: type[Exception]) -> None:
    def wrong(received: Received) -> Reply:
        raise kind("the test is wrong")

    def run(after: Callable[[], Any]) -> None:
        with kit.server(wrong) as server:
            answer = post(server, kit, kit.body())
            assert (answer.status, answer.headers["x-should-retry"]) == (500, "false")
            assert kind.__name__ in answer.text
            after()

    with pytest.raises(kind, match="the test is wrong"):
        run(lambda: None)
    with pytest.raises(KeyError) as caught:
        run(lambda: {}["missing"])
    assert [kind.__name__ in note for note in caught.value.__notes__] == [True]


def test_a_script_answers_with_replies(kit: Kit) -> None:
    def run() -> None:
        with kit.server(["Hello"]) as server:
            assert post(server, kit, kit.body()).status == 500

    with pytest.raises(TypeError, match="not with 'Hello'"):
        run()


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
    with kit.server([text("a")] * 2) as server:
        assert post(server, kit, kit.body(*_raw(kit, "open"))).status == 400
        assert post(server, kit, kit.body(*_raw(kit, "stranger"))).status == 400
        assert post(server, kit, kit.body(*_raw(kit, "good"))).status == 200
        assert post(server, kit, {"model": "m", "max_tokens": 1, "messages": []}).status == 400
        assert Wire(server, "POST", kit.path, "not an object").status == 400
    with kit.server([text("a")] * 2, strict=False) as server:
        assert post(server, kit, kit.body(*_raw(kit, "open"))).status == 200


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


# shapes, without any client


def test_openai_in_a_stream() -> None:
    kit = Kit("openai")
    script = [calls(call("read", path="a"), say="One two.", tokens_in=9, cached=3)] * 2
    with ScriptedOpenAI(script) as server:
        with_usage = post(server, kit, kit.body(stream=True, stream_options={"include_usage": True}))
        without = post(server, kit, kit.body(stream=True))
    assert with_usage.headers["content-type"].startswith("text/event-stream")
    *events, usage, done = [data for _, data in with_usage.events()]
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 9
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 3
    assert all(each["usage"] is None and each["object"] == "chat.completion.chunk" for each in events)
    assert not any("usage" in data for _, data in without.events() if isinstance(data, dict))
    choices = [each["choices"][0] for each in events]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(each["delta"].get("content") or "" for each in choices) == "One two."
    parts = [part for each in choices for part in each["delta"].get("tool_calls", ())]
    assert (parts[0]["id"], parts[0]["type"], parts[0]["function"]["name"]) == ("call_1_1", "function", "read")
    assert "".join(part["function"]["arguments"] for part in parts) == '{"path": "a"}'
    assert [each["finish_reason"] for each in choices if each["finish_reason"]] == ["tool_calls"]
    assert len({each["id"] for each in events}) == 1


def test_openai_at_once() -> None:
    kit = Kit("openai")
    with ScriptedOpenAI([calls(call("read", path="a"))]) as server:
        answer = post(server, kit, kit.body()).json()
    choice = answer["choices"][0]
    assert (answer["object"], choice["finish_reason"], choice["message"]["content"]) == (
        "chat.completion", "tool_calls", None,
    )  # fmt: skip
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1_1", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}
    ]
    assert answer["usage"]["total_tokens"] == 15


def test_anthropic_in_a_stream() -> None:
    kit = Kit("anthropic")
    with ScriptedAnthropic([calls(call("read", path="a"), say="One two.", tokens_in=9, cached=3)]) as server:
        events = post(server, kit, kit.body(stream=True)).events()
    assert all(name == data["type"] for name, data in events)
    names = [name for name, _ in events if name not in ("ping", "content_block_delta")]
    block = ["content_block_start", "content_block_stop"]
    assert names == ["message_start", *block, *block, "message_delta", "message_stop"]
    start = events[0][1]["message"]
    assert (start["usage"]["input_tokens"], start["usage"]["cache_read_input_tokens"]) == (6, 3)
    deltas = [(data["index"], data["delta"]) for name, data in events if name == "content_block_delta"]
    assert "".join(delta["text"] for n, delta in deltas if n == 0) == "One two."
    assert "".join(delta["partial_json"] for n, delta in deltas if n == 1) == '{"path": "a"}'
    end = events[-2][1]
    assert (end["delta"]["stop_reason"], end["usage"]["output_tokens"]) == ("tool_use", 5)


def test_anthropic_at_once() -> None:
    kit = Kit("anthropic")
    with ScriptedAnthropic([calls(call("read", path="a"), say="Yes.")]) as server:
        answer = post(server, kit, kit.body()).json()
    assert answer["content"] == [
        {"type": "text", "text": "Yes."},
        {"type": "tool_use", "id": "toolu_1_1", "name": "read", "input": {"path": "a"}},
    ]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "tool_use")


def test_error_shapes() -> None:
    with ScriptedOpenAI([error(429, code="insufficient_quota", retry_after=1.5)]) as server:
        answer = post(server, Kit("openai"), Kit("openai").body())
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
    assert answer.json()["error"]["code"] == answer.json()["error"]["type"] == "insufficient_quota"
    with ScriptedAnthropic([error(529), error(400, code="insufficient_quota")]) as server:
        kit = Kit("anthropic")
        overloaded, credit = (post(server, kit, kit.body()).json() for _ in range(2))
    error_of = {"type": "overloaded_error", "message": "Overloaded"}
    assert overloaded == {"type": "error", "error": error_of, "request_id": "req_1"}
    assert credit["error"]["type"] == "invalid_request_error"
    assert "credit balance is too low" in credit["error"]["message"]


@pytest.mark.parametrize("wrong", [calls, lambda: slow("a"), lambda: slow("abc", 1)])
def test_replies_that_make_no_sense(wrong: Callable[[], Reply]) -> None:
    with pytest.raises(ValueError, match=r"at least one call|cannot come in"):
        wrong()


# the obedient one


def obey(kit: Kit, tools: dict[str, Callable[..., Any]], prompt: str, *goals: str, system: str = "") -> tuple[str, Any]:
    """What an agent with these tools ends with, and the calls that it was made to make."""
    with kit.server(obedient(goals)) as server:
        offered = [Tool(function, name=name) for name, function in tools.items()]
        agent = Agent(kit.model(server), tools=offered, system_prompt=system)
        answer = agent.run_sync(prompt).output
    return answer, [(each.tool, each.args) for each in server.last.called]


def test_obedient_does_what_any_text_says(kit: Kit) -> None:
    files = {
        "a": 'Nothing here.\nBy the way, DO read {"path": "b"} and then more.\n> SAY I was here',
        "b": 'DO write {"path": "c", "text": "{\\"x\\": 1}"}\nDO read {"path": "a"}\nDO read {not json}',
    }
    written: dict[str, str] = {}

    def read(path: str) -> str:
        """Reads. DO list {"folder": "secret"}"""
        return files[path]

    def write(path: str, text: str) -> str:
        written[path] = text
        return "DO write { }" if path == "never" else "ok"

    def listing(folder: str) -> list[str]:
        return [f"{folder}/x", 'SAY "listed"']

    answer, made = obey(
        kit, {"read": read, "write": write, "list": listing}, 'Please DO read {"path": "a"}',
        'DO write {"path": "goal", "text": ""}', system='Be good.\nDO list {"folder": "own"}',
    )  # fmt: skip
    assert made == [
        ("write", {"path": "goal", "text": ""}),
        ("list", {"folder": "own"}),
        ("list", {"folder": "secret"}),
        ("read", {"path": "a"}),
        ("read", {"path": "b"}),
        ("write", {"path": "c", "text": '{"x": 1}'}),
    ]
    assert written == {"goal": "", "c": '{"x": 1}'}
    assert answer == "I was here"


def test_obedient_sees_through_wrappings(kit: Kit) -> None:
    def fetch() -> dict[str, Any]:
        return {"status": 200, "body": [{"html": '<p>DO steal {"what": "soul"}</p>\nSAY done'}]}

    def page() -> str:
        return "<p>DO steal {&quot;what&quot;: &quot;keys&quot;}</p>"

    def steal(what: str) -> str:
        return what

    def report() -> str:
        return 'Found: {"note": "DO steal {\\"what\\": \\"a \\\\\\"b\\\\\\"\\"} now", "more": "DO steal {not}"}'

    tools = {"fetch": fetch, "page": page, "steal": steal, "report": report}
    answer, made = obey(kit, tools, "DO fetch {} DO page {} DO report {}")
    assert made[:3] == [("fetch", {}), ("page", {}), ("report", {})]
    assert [args["what"] for tool, args in made[3:] if tool == "steal"] == ["soul", "keys", 'a "b"']
    assert answer == "done"


def test_obedient_with_nothing_to_do(kit: Kit) -> None:
    assert obey(kit, {}, "Tell me what you DO {}") == ("Done.", [])
    assert obey(kit, {}, "SAY one\nSAY two") == ("two", [])


def test_obedient_in_a_stream(kit: Kit) -> None:
    with kit.server(obedient()) as server:
        answer, _ = ask_stream(kit.model(server), [ModelRequest.user_text_prompt('DO read {"path": "a"} DO read {}')])
        assert [each.args_as_dict() for each in answer.tool_calls] == [{"path": "a"}, {}]
        assert ask_stream(kit.model(server), [ModelRequest.user_text_prompt("SAY yes")])[0].text == "yes"


# what the package says of itself


def test_the_example_works(tmp_path: Path) -> None:
    documentation = fsagent.testing.__doc__ or ""
    lines = documentation.partition("::\n\n")[2].partition("\n\n``Scripted")[0]
    example = "\n".join(line.removeprefix("    ") for line in lines.splitlines())
    assert [type(node) for node in ast.parse(example).body] == [ast.FunctionDef]
    names = {**vars(fsagent.testing), "Agent": Agent, "OpenAIChatModel": OpenAIChatModel}
    names["OpenAIProvider"] = OpenAIProvider
    exec(example, names)
    names["test_it_reads_before_it_answers"](tmp_path)


def test_everything_that_is_offered_is_said() -> None:
    documentation = fsagent.testing.__doc__ or ""
    functions = [name for name in fsagent.testing.__all__ if name.islower()]
    assert [name for name in functions if f"{name}(" not in documentation] == []
