"""``fsagent model``: what works and what to fix, in words, against real HTTP; and that a daemon hears of it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from fsagent.engines.base import Model
from fsagent.faces.cli import main
from fsagent.purse import Breaker
from fsagent.testing import ScriptedAnthropic, ScriptedOpenAI, call, call_raw, calls, error, hang, text
from fsagent.workspace.create import init_workspace
from harness import FSAGENT, Agent, wait_for

pytestmark = pytest.mark.timeout(120)

COUNTED, CALLED = text("1 2 3 4 5"), calls(call("note", word="blue"))
KEY = "sk-only-for-tests"
NAMES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "OLLAMA_HOST")


class Desk:
    """A workspace, and the command line on it in this process: the providers' libraries take seconds to load."""

    def __init__(self, root: Path) -> None:
        self.layout = init_workspace(root)[0]
        self.root = self.layout.root

    def say(self, *lines: str) -> None:
        """Write the settings below ``model:``."""
        self.layout.settings.write_text("model:\n" + "".join(f"  {line}\n" for line in lines))

    def model(self, *words: str, **env: str) -> Result:
        """Run it; a key in ``env`` is for the server that the settings name, which gets none that they do not name."""
        settings = self.layout.settings.read_text()
        key = next((name for name in env if name.endswith("_API_KEY")), "")
        if key and "  base_url:" in settings and "api_key_env" not in settings:
            self.layout.settings.write_text(settings.rstrip("\n") + f"\n  api_key_env: {key}\n")
        found = CliRunner().invoke(main, ["model", *words, "-w", str(self.root)], env={**dict.fromkeys(NAMES), **env})
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exc_info
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "ws")


def told(found: Result, code: int, *passages: str) -> str:
    assert found.exit_code == code, found.output
    for passage in passages:
        assert passage in found.output, found.output
    return found.output


# what works


def test_all_that_works_is_said(desk: Desk) -> None:
    with ScriptedOpenAI([COUNTED, CALLED], models=["gpt-x"]) as server:
        desk.say(
            "name: openai:gpt-x", f"base_url: {server.base_url}", 'prices: {"openai:gpt-x": {in: 1000, out: 2000}}'
        )
        said = told(desk.model("test", OPENAI_API_KEY=KEY), 0, "reached; something came after ", "usable")
        assert [request.body["max_completion_tokens"] for request in server.requests] == [128, 128]
        assert len(server.requests) == 2
        assert sum(request.size for request in server.requests) / 4 < 400 - 2 * 5
    assert [line.split(None, 1) for line in said.splitlines()[2:-2]] == [
        ["ok", "the key is accepted (from OPENAI_API_KEY)"],
        ["ok", "answers: 1 2 3 4 5"],
        ["ok", "streams what it says"],
        ["ok", "uses tools"],
        ["ok", "tells how many tokens it used"],
        ["ok", "price: $1000 read, $2000 written per million tokens (from model.prices)"],
    ]
    assert "the test took 20 tokens read, 10 written, $0.04" in said
    assert KEY not in said


def test_anthropics_language_too(desk: Desk) -> None:
    with ScriptedAnthropic([COUNTED, CALLED], key=KEY) as server:
        desk.say("name: anthropic:claude-haiku-5-5", f"base_url: {server.base_url}")
        told(
            desk.model("test", ANTHROPIC_API_KEY=KEY), 0, "uses tools", "(from the table of genai-prices)", "\n  usable"
        )


def test_a_model_that_thinks_long_is_no_fault(desk: Desk) -> None:
    with ScriptedOpenAI([text("", finish="length")] * 2) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url}")
        told(desk.model("test"), 0, "needs no key", "?   takes tools (it was still thinking", "\n  usable")


def test_fallbacks_are_tested_and_the_first_model_decides(desk: Desk) -> None:
    with ScriptedOpenAI([COUNTED, CALLED, COUNTED, CALLED], models=["b"]) as server:
        desk.say("name: openai:a", f"base_url: {server.base_url}", "fallback: [openai:b, anthropic:c]")
        said = told(desk.model("test"), 1, "openai:a at", "openai:b at", "anthropic:c at https://api.anthropic.com")
        assert said.count("\n  usable") == 1
        told(desk.model("test", "openai:b"), 0)
        found = json.loads(desk.model("test", "openai:a", "--json").output)
    assert (found[0]["name"], found[0]["usable"], found[0]["trouble"]["kind"]) == ("openai:a", False, "model")


# what does not

WRONG: dict[str, tuple[list[Any], dict[str, Any], tuple[str, ...]]] = {
    "401": ([], {"key": "another"}, ("ok  reached", "the key is refused (401: Incorrect API key", "make a new one")),
    "402": ([error(402)], {}, ("the account is used up (402: Insufficient Balance)", "add credit")),
    "403": ([error(403)], {}, ("the key may not do this (403: Country", "check what the account may use")),
    "quota": ([error(429, code="insufficient_quota")], {}, ("the account is used up (429: You exceeded",)),
    "429": ([error(429)], {}, ("too many requests (429: Rate limit", "wait a little")),
    "500": ([error(500)], {}, ("the server has a fault of its own (500: ", "look into its log")),
    "503": ([error(503)], {}, ("the server has a fault of its own (503: ",)),
    "no tools": ([COUNTED], {"tools": False}, ("ok  answers", "no  this model cannot use tools", "name one that can")),
    "calls nothing": ([COUNTED, text("No.")], {}, ("does not call a tool that it is told to call; it answered: No.",)),
    "malformed": ([COUNTED, calls(call_raw("note", "{oops"))], {}, ("not with the arguments", "a larger model")),
    "nothing": ([text(""), text("")], {}, ("it answers nothing at all", "name another model")),
    "unknown": ([], {"models": ["y", "xx", "zzz"]}, ("there is no model x; there are: xx, ", "name one of these")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_words(desk: Desk, case: str) -> None:
    script, options, passages = WRONG[case]
    with ScriptedOpenAI(script, **options) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url}")
        said = told(desk.model("test", OPENAI_API_KEY=KEY), 1, "not usable; what to do: ", *passages)
        assert server.left == 0
    assert KEY not in said


def test_what_a_server_says_is_shown_without_the_key_and_without_escapes(desk: Desk) -> None:
    with ScriptedOpenAI([error(401, message=f"\x1b[31mbad key {KEY}\nsecond line")]) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url}")
        said = told(desk.model("test", OPENAI_API_KEY=KEY), 1, "(401: �[31mbad key … second line)")
    assert KEY not in said


def test_no_answer_in_time(desk: Desk) -> None:
    with ScriptedOpenAI([hang()]) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url}")
        told(desk.model("test", "--timeout", "0.5s"), 1, "no answer within 0.5 s", "--timeout 5m")
    assert desk.model("test", "--timeout", "5").exit_code == 2


def test_no_key(desk: Desk) -> None:
    desk.say("name: anthropic:x")
    told(desk.model("test"), 1, "no  there is no key\n", "what to do: set ANTHROPIC_API_KEY where the daemon")
    desk.say("name: anthropic:x", "api_key_file: /nowhere/key")
    told(desk.model("test"), 1, "the key in /nowhere/key cannot be read: No such file", "correct that file")
    with ScriptedOpenAI([], key=KEY) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url}")
        told(desk.model("test"), 1, "it wants a key, and none is given (401", "api_key_env: NAME")


def test_nobody_listens(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    desk.say("name: openai:x", f"base_url: http://127.0.0.1:{port}/v1")
    told(desk.model("test"), 1, f"nobody listens at 127.0.0.1:{port} (the connection is refused)", "start the server")
    desk.say("name: ollama:qwen3", f"base_url: http://127.0.0.1:{port}/v1")
    told(desk.model("test"), 1, f"nobody listens at 127.0.0.1:{port}: Ollama does not run", "ollama serve")
    told(desk.model("list"), 1, "Ollama does not run; start it: ollama serve")


def test_a_name_that_is_not_found(desk: Desk) -> None:
    desk.say("name: openai:x", "base_url: http://nowhere.invalid/v1")
    told(desk.model("test"), 1, "the name nowhere.invalid is not found (DNS)", "correct model.base_url")
    told(desk.model("list"), 1, "the name nowhere.invalid is not found (DNS)")


def test_ollama_says_what_to_pull(desk: Desk) -> None:
    with ScriptedOpenAI([], models=["llama3.2:latest", "qwen3:8b"]) as server:
        desk.say("name: ollama:qwen3:4b", f"base_url: {server.base_url}")
        told(
            desk.model("test"), 1, "there is no model qwen3:4b; there are: qwen3:8b, llama3.2:latest",
            "get it: ollama pull qwen3:4b; or name one of these",
        )  # fmt: skip


@pytest.mark.parametrize("tail", ["", "/v1/chat/completions"])
@pytest.mark.parametrize("provider", ["openai", "ollama"])
def test_a_wrong_path_is_put_right(desk: Desk, provider: str, tail: str) -> None:
    with ScriptedOpenAI([], models=["x"]) as server:
        desk.say(f"name: {provider}:x", f"base_url: {server.root}{tail}")
        said = told(desk.model("test"), 1, f"there is nothing at {server.root}{tail} (404")
    assert f'what to do: write into fsagent.yaml: model: {{base_url: "{server.base_url}"}}' in said


def test_a_wrong_path_of_anthropics(desk: Desk) -> None:
    with ScriptedAnthropic([], models=["x"]) as server:
        desk.say("name: anthropic:x", f"base_url: {server.root}/v1")
        told(desk.model("test", ANTHROPIC_API_KEY=KEY), 1, f'base_url: "{server.root}"}}')


class _Odd(BaseHTTPRequestHandler):
    """Answers all with 200 and something: ``page``, or an answer that is no stream."""

    page = False
    answer: ClassVar[Any] = {"id": "1", "object": "chat.completion", "created": 1, "model": "x", "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "1 2 3"}}]}  # fmt: skip

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_GET(self) -> None:
        body = b"<html>Welcome</html>" if self.page else json.dumps(self.answer).encode()
        self.send_response(200)
        self.send_header("content-type", "text/html" if self.page else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def odd() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Odd", (_Odd,), {})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_server_that_does_not_stream(desk: Desk, odd: ThreadingHTTPServer) -> None:
    desk.say("name: openai:x", f"base_url: http://127.0.0.1:{odd.server_port}/v1")
    told(desk.model("test"), 1, "it answers, but not in a stream")


def test_a_web_page_is_no_model(desk: Desk, odd: ThreadingHTTPServer) -> None:
    odd.RequestHandlerClass.page = True
    desk.say("name: openai:x", f"base_url: http://127.0.0.1:{odd.server_port}/v1")
    told(desk.model("test"), 1, f"what answers at http://127.0.0.1:{odd.server_port}/v1 is no model")
    told(desk.model("list"), 1, "no list of models")


def test_a_certificate_that_nobody_trusts(desk: Desk, odd: ThreadingHTTPServer, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path / "own.pem"))
    odd.handle_error = lambda *_: None  # type: ignore[method-assign]  # that the client leaves is what is tested
    odd.socket = context.wrap_socket(odd.socket, server_side=True, do_handshake_on_connect=False)
    desk.say("name: openai:x", f"base_url: https://127.0.0.1:{odd.server_port}/v1")
    told(desk.model("test"), 1, f"the certificate of 127.0.0.1:{odd.server_port} is not trusted: self", "SSL_CERT_FILE")
    told(desk.model("list"), 1, "is not trusted")


def test_https_where_there_is_none(desk: Desk) -> None:
    with ScriptedOpenAI([]) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url.replace('http:', 'https:')}")
        told(desk.model("test"), 1, "does not speak TLS as it should", "write http:// in model.base_url")


def _certificate(path: Path) -> Path:
    """A key and a certificate that it signs itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def test_the_library_is_missing(desk: Desk, tmp_path: Path) -> None:
    """In a process of its own, in which it cannot be found."""
    (tmp_path / "openai.py").write_text("raise ImportError('no openai')")
    desk.say("name: openai:x", "base_url: http://127.0.0.1:9/v1")
    done = subprocess.run(
        [*FSAGENT, "model", "test", "-w", str(desk.root)], capture_output=True, text=True, timeout=100,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        "the library for openai is not installed\n  not usable; what to do: pip install 'fsagent[model]'" in done.stdout
    )


# without a question


def test_show_says_which_model_is_asked_and_never_the_key(desk: Desk) -> None:
    desk.say("name: openai:gpt-5-mini", "fallback: [ollama:qwen3:8b, anthropic:nobody-knows]")
    said = told(desk.model(OPENAI_API_KEY=KEY), 0, "model    openai:gpt-5-mini\nwhere    https://api.openai.com/v1")
    assert "key      from OPENAI_API_KEY, as it is set here; the daemon has an environment of its own" in said
    assert "per million tokens (from the table of genai-prices)" in said
    assert "then     ollama:qwen3:8b\nwhere    http://127.0.0.1:11434/v1\nkey      none is needed" in said
    assert "price    nothing: it runs on a machine of your own" in said
    assert "key      none: ANTHROPIC_API_KEY is not set here" in said
    assert "price    unknown; costs are not counted until model.prices names it" in said
    assert said.count("breaker  closed") == 3
    assert KEY not in said
    assert desk.model("show", OPENAI_API_KEY=KEY).output == said
    before = ["model", "-w", str(desk.root), "show"]  # -w may stand before the last word, too
    assert CliRunner().invoke(main, before, env=dict.fromkeys(NAMES) | {"OPENAI_API_KEY": KEY}).output == said
    found = json.loads(desk.model("--json", OPENAI_API_KEY=KEY).output)
    assert [each["price"]["source"] for each in found] == ["table", "free", "unknown"]


def test_show_says_why_the_breaker_is_open(desk: Desk) -> None:
    breaker = Breaker(desk.layout.machine / "breaker.json", lambda: datetime(2026, 11, 27, 12, tzinfo=UTC))
    breaker.open(Model("openai:x", key=KEY), "the account is used up")
    desk.say("name: openai:x")
    told(desk.model(OPENAI_API_KEY=KEY), 0, "breaker  open since 2026-11-2", "do not ask it: the account is used up")
    told(desk.model(OPENAI_API_KEY="another-key"), 0, "breaker  closed")


def test_without_a_model_it_says_how_to_name_one(desk: Desk) -> None:
    desk.layout.settings.write_text("")
    for words in ([], ["show"], ["test"], ["list"]):
        told(desk.model(*words, OPENAI_API_KEY=KEY, OLLAMA_HOST="127.0.0.1:1"), 1, "no model is named",
             "OPENAI_API_KEY is set: to use it")  # fmt: skip
    told(desk.model("test", "nonsense"), 1, "'nonsense' is no model; write provider:model")
    desk.layout.settings.write_text("model: {name: 5}")
    assert desk.model("test").exit_code == 12


def test_list_shows_what_is_offered(desk: Desk) -> None:
    with ScriptedOpenAI([], models=["b", "a"], key=KEY) as server:
        desk.say("name: openai:x", f"base_url: {server.base_url}")
        assert told(desk.model("list", OPENAI_API_KEY=KEY), 0) == "openai:a\nopenai:b\n"
        assert json.loads(desk.model("list", "--json", OPENAI_API_KEY=KEY).output) == ["openai:a", "openai:b"]
        told(desk.model("list", OPENAI_API_KEY="not-this-one"), 1, "the key is refused (401")
        desk.say("name: ollama:x", f"base_url: {server.base_url}", "api_key_env: OPENAI_API_KEY")
        assert told(desk.model("list", OPENAI_API_KEY=KEY), 0) == "ollama:a\nollama:b\n"
        desk.say("name: openai:x", f"base_url: {server.root}")
        told(
            desk.model("list", OPENAI_API_KEY=KEY),
            1,
            f'write into fsagent.yaml: model: {{base_url: "{server.base_url}"',
        )
    with ScriptedAnthropic([], models=["c"], key=KEY) as server:
        desk.say("name: anthropic:x", f"base_url: {server.base_url}")
        assert told(desk.model("list", ANTHROPIC_API_KEY=KEY), 0) == "anthropic:c\n"


# the breaker


def test_breakers_of_two_processes_see_each_other(tmp_path: Path) -> None:
    path, model = tmp_path / "breaker.json", Model("openai:x", key=KEY)
    ours, theirs = (Breaker(path, lambda: datetime.now(UTC)) for _ in range(2))
    assert ours.why(model) == theirs.why(model) == ""
    assert ours.open(model, "the key is refused")
    assert theirs.why(model) == "the key is refused"
    assert not theirs.open(model, "again")
    assert theirs.close("openai:x")
    assert ours.why(model) == ""
    assert not ours.close("openai:x")
    assert ours.open(model, "once more")
    path.unlink()
    assert (ours.why(model), theirs.why(model)) == ("", "")


def test_a_breaker_is_shared_between_threads(tmp_path: Path) -> None:
    breaker = Breaker(tmp_path / "breaker.json", lambda: datetime.now(UTC))
    opened: list[bool] = []

    def work(number: int) -> None:
        opened.append(breaker.open(Model("openai:same", key=KEY), "why"))
        breaker.open(Model(f"openai:{number}", key=KEY), "why")
        breaker.close(f"openai:{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened.count(True) == 1
    assert len(breaker.lines()) == 1


def test_a_test_that_passes_lets_the_tasks_of_a_running_daemon_ask_again(tmp_path: Path) -> None:
    """The whole way, by processes: the account is used up, no task asks; credit is added, tested; tasks ask again."""
    paid = threading.Event()

    def script(received: Any) -> Any:
        if not paid.is_set():
            return error(429, code="insufficient_quota")
        return CALLED if "note" in received.tools else text("1 2 3: all is well")

    agent = Agent(tmp_path / "ws", fork_workers=True)
    with ScriptedOpenAI(script) as server:
        agent.layout.settings.write_text(
            f'settle: 0s\nsettle_renamed: 0s\nmodel: {{name: "openai:x", base_url: "{server.base_url}"}}\n'
        )
        try:
            agent.start()
            (agent.layout.tasks / "look.md").write_text("---\nevery: 1s\nreport: always\n---\nJudge the weather")
            wait_for((agent.layout.machine / "breaker.json").exists, "the breaker opens", 60)
            wait_for(lambda: "openai:x lets nobody in" in agent.cli("status").stdout, "it is told")
            server.wait_idle()
            asked = len(server.requests)
            agent.drop("wait.md", "What is my name?")
            agent.result("wait.md")
            assert len(server.requests) == asked, "tasks do not ask it any more"
            paid.set()
            done = agent.cli("model", "test")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "tasks had stopped asking it; from now on they ask it again" in done.stdout
            wait_for(lambda: any("all is well" in each.content for each in agent.results()), "a task asks it", 60)
            wait_for(lambda: "lets nobody in" not in agent.cli("status").stdout, "the status tells")
        finally:
            agent.close()


def test_the_command_line_stays_light(tmp_path: Path) -> None:
    """Only a test loads a provider's library."""
    layout = init_workspace(tmp_path / "ws")[0]
    layout.settings.write_text('model: {name: "ollama:x"}\n')
    code = (
        "import sys\nfrom fsagent.faces.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(sorted({'pydantic_ai', 'openai', 'httpx', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "model", "-w", str(layout.root)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.endswith("closed\n[]\n"), done.stdout + done.stderr
