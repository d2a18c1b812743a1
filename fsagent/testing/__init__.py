"""Scripted model servers: test what your agent does, with real HTTP, without a real model, key or network.

A server is told its answers beforehand; your agent is pointed at its ``base_url``, and finds no difference::

    def test_it_reads_before_it_answers(tmp_path):
        (tmp_path / "a.md").write_text("Hello!")
        with ScriptedOpenAI([calls(call("read", path="a.md")), text("It says hello.")]) as server:
            model = OpenAIChatModel("any", provider=OpenAIProvider(base_url=server.base_url, api_key="any"))
            agent = Agent(model)
            agent.tool_plain(name="read")(lambda path: (tmp_path / path).read_text())
            answer = agent.run_sync("What does a.md say?").output
        assert answer == "It says hello."
        assert server.last.results == ["Hello!"]

``ScriptedAnthropic`` does the same in Anthropic's shapes. A script is a list of replies, or a function of the request:

- ``text("…")``, ``calls(call("tool", path="a"), say="…")``, ``call_raw("tool", "{not json")``, ``giant(n)``
- ``error(429, retry_after=1)``: any status in the provider's own shape, also in the middle of a stream (``after="…"``)
- ``hang()``, ``half()``: nothing more comes; the connection breaks
- ``slow("…", pieces=3)``, ``held(reply)``: wait for ``server.release()``, so that a test can look at what is in between
- ``obedient()``: does whatever any text tells it, for tests that an injected text gets no authority

The servers listen on 127.0.0.1 only, do not sleep, and leave no thread or socket behind. They imitate what a client can
see of a provider; they check no schema of a request, and count no tokens. Only the standard library is needed.
"""

from fsagent.testing.anthropic import ScriptedAnthropic
from fsagent.testing.obedient import obedient
from fsagent.testing.openai import ScriptedOpenAI
from fsagent.testing.received import Called, Received, Said
from fsagent.testing.replies import (
    Answer,
    Call,
    Refusal,
    Reply,
    call,
    call_raw,
    calls,
    error,
    giant,
    half,
    hang,
    held,
    slow,
    text,
)
from fsagent.testing.server import ScriptedServer

__all__ = [
    "Answer",
    "Call",
    "Called",
    "Received",
    "Refusal",
    "Reply",
    "Said",
    "ScriptedAnthropic",
    "ScriptedOpenAI",
    "ScriptedServer",
    "call",
    "call_raw",
    "calls",
    "error",
    "giant",
    "half",
    "hang",
    "held",
    "obedient",
    "slow",
    "text",
]
