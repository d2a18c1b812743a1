"""``fsagent init`` offers what it finds and never spends; ``--model`` writes into fsagent.yaml and keeps all else."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsagent.config import SETTINGS_TEMPLATE, load_settings
from fsagent.errors import DocumentError
from fsagent.modelfind import OLLAMA_HOME, SUGGESTED, find_ollama, named_in, offers, ollama_root, with_model
from fsagent.modelsettings import KEYS, ModelSettings, model_faults
from fsagent.testing import ScriptedOpenAI
from harness import FSAGENT

NOWHERE = "127.0.0.1:1"  # no Ollama of the machine that runs the tests
CLEAN = {name: value for name, value in os.environ.items() if name not in (*KEYS.values(), "OLLAMA_HOST")}


def init(root: Path, *words: str, code: int = 0, **env: str) -> str:
    done = subprocess.run(
        [*FSAGENT, "init", str(root), *words], capture_output=True, text=True, timeout=30,
        env=CLEAN | {"OLLAMA_HOST": NOWHERE} | env,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# what is offered


def test_nothing_is_offered_where_nothing_is_found(tmp_path: Path) -> None:
    assert len(init(tmp_path / "ws").splitlines()) == 1


def test_an_ollama_is_offered_with_its_models(tmp_path: Path) -> None:
    names = ["nomic-embed-text:latest", "odd:1b", "llama3.2:latest", "qwen3:8b"]
    with ScriptedOpenAI([], models=names) as server:
        said = init(tmp_path / "ws", OLLAMA_HOST=server.root)
        assert [request.path for request in server.others] == ["/api/tags"]
        assert server.requests == []
    assert f"Ollama runs here at {server.root} with qwen3:8b, llama3.2, odd:1b: to use one, put this into" in said
    block = said.splitlines()[2].strip()
    assert block == f'model: {{name: "ollama:qwen3:8b", base_url: "{server.base_url}"}}'
    (tmp_path / "ws" / "fsagent.yaml").write_text(block + "\n")
    assert load_settings(tmp_path / "ws" / "fsagent.yaml").model.base_url == server.base_url
    assert f"fsagent model test -w {tmp_path / 'ws'}" in said


def test_an_ollama_without_a_model_is_told_what_to_pull(tmp_path: Path) -> None:
    with ScriptedOpenAI([], models=["bge-m3:latest"]) as server:
        said = init(tmp_path / "ws", OLLAMA_HOST=server.root)
    assert "has no model: get one with 'ollama pull qwen3:8b'" in said


def test_keys_are_offered_and_never_used(tmp_path: Path) -> None:
    with ScriptedOpenAI([]) as server:
        keys = {variable: f"sk-{number}-secret" for number, variable in enumerate(KEYS.values()) if variable}
        elsewhere = dict.fromkeys(("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"), server.root)
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), server.root)
        said = init(tmp_path / "ws", **keys, **elsewhere, **proxies)
        assert (server.requests, server.others) == ([], [])
    for provider, variable in KEYS.items():
        if variable:
            assert f"{variable} is set: to use it, put this into fsagent.yaml" in said
            assert f'model: {{name: "{SUGGESTED[provider]}"}}' in said
    assert "secret" not in said
    assert load_settings(tmp_path / "ws" / "fsagent.yaml").model.name == ""


def test_nothing_is_offered_where_a_model_is_named(tmp_path: Path) -> None:
    init(tmp_path / "ws", "--model", "ollama:qwen3")
    with ScriptedOpenAI([], models=["qwen3:8b"]) as server:
        said = init(tmp_path / "ws", OLLAMA_HOST=server.root, OPENAI_API_KEY="sk-1-secret")
        assert server.others == []
    assert said == f"{tmp_path / 'ws'} is a workspace; nothing was missing\n"
    (tmp_path / "ws" / "fsagent.yaml").write_text("modle: {}\n")
    assert init(tmp_path / "ws", OPENAI_API_KEY="sk-1-secret") == said, "a fault in it is told elsewhere"


def test_run_with_init_offers_it_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [*FSAGENT, "run", str(tmp_path / "ws"), "--init", "--once"], capture_output=True, text=True, timeout=30,
        env=CLEAN | {"OLLAMA_HOST": NOWHERE, "GEMINI_API_KEY": "g-1-secret"},
    )  # fmt: skip
    assert done.returncode == 0
    assert "GEMINI_API_KEY is set" in done.stdout


@pytest.fixture
def silent() -> Iterator[str]:
    """Somebody who takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_ollama_that_hangs_costs_a_moment(silent: str) -> None:
    before = time.monotonic()
    assert find_ollama({"OLLAMA_HOST": silent}, 0.3) is None
    assert time.monotonic() - before < 5


def test_an_ollama_that_drips_costs_a_moment() -> None:
    done = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not done.wait(0.02):
                try:
                    connection.sendall(b"H")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        before = time.monotonic()
        assert find_ollama({"OLLAMA_HOST": f"127.0.0.1:{listener.getsockname()[1]}"}, 0.2) is None
        assert time.monotonic() - before < 5
        done.set()
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"\xff\xfe", b"HTTP/1.0 200 OK\r\n\r\n[1, 2]", b"HTTP/1.0 404 No\r\n\r\n{}",
                                    b'HTTP/1.0 200 OK\r\n\r\n{"models": [{"name": 5}]}',
                                    b'HTTP/1.0 200 OK\r\n\r\n{"models": 7}'])  # fmt: skip
def test_somebody_else_on_the_port_is_no_ollama(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert find_ollama({"OLLAMA_HOST": f"127.0.0.1:{listener.getsockname()[1]}"}, 10) is None
        thread.join()


@pytest.mark.parametrize(
    ("host", "root"),
    [("", OLLAMA_HOME), ("0.0.0.0", OLLAMA_HOME), ("localhost", OLLAMA_HOME), (":11434", OLLAMA_HOME),
     ("10.0.0.5", "http://10.0.0.5:11434"), ("10.0.0.5:80", "http://10.0.0.5:80"), ("http://box", "http://box:80"),
     ("https://box.example.org", "https://box.example.org:443"), ("box:99999", OLLAMA_HOME),
     ("::1", "http://[::1]:11434"), ("[::1]:8080", "http://[::1]:8080")],
)  # fmt: skip
def test_ollama_host_is_read_as_ollama_reads_it(host: str, root: str) -> None:
    assert ollama_root({"OLLAMA_HOST": host}) == root


def test_what_is_suggested_are_models() -> None:
    assert set(SUGGESTED) == set(KEYS)
    assert [list(model_faults(ModelSettings(name=name))) for name in SUGGESTED.values()] == [[]] * len(SUGGESTED)
    assert offers({}, None, "ws") == []
    assert named_in(["llama3.2", "qwen3:8b", "qwen2.5"], "qwen3:4b")[0] == "qwen3:8b"


# what is written


def test_init_with_a_model_writes_it(tmp_path: Path) -> None:
    said = init(tmp_path / "ws", "--model", "ollama:qwen3:8b", OLLAMA_HOST="")
    assert f"fsagent.yaml names the model ollama:qwen3:8b; try it: fsagent model test -w {tmp_path / 'ws'}" in said
    file = tmp_path / "ws" / "fsagent.yaml"
    assert load_settings(file).model == ModelSettings(name="ollama:qwen3:8b")
    lines = file.read_text().splitlines()
    assert [line for line in SETTINGS_TEMPLATE.splitlines() if line not in lines] == [
        line for line in SETTINGS_TEMPLATE.splitlines() if line.startswith(("# model:", "#   name:"))
    ]
    assert init(tmp_path / "ws", "--model", "ollama:qwen3:8b", OLLAMA_HOST="").endswith(said.splitlines()[1] + "\n")
    assert "has a 'model:' already, which stays" in init(tmp_path / "ws", "--model", "openai:x", code=2)
    assert load_settings(file).model.name == "ollama:qwen3:8b"


def test_init_with_an_ollama_elsewhere_writes_where(tmp_path: Path) -> None:
    init(tmp_path / "ws", "--model", "ollama:qwen3", OLLAMA_HOST="10.0.0.5")
    assert load_settings(tmp_path / "ws" / "fsagent.yaml").model.base_url == "http://10.0.0.5:11434/v1"


def test_a_name_that_is_none_makes_no_workspace(tmp_path: Path) -> None:
    assert "'qwen3' is no model; write provider:model" in init(tmp_path / "ws", "--model", "qwen3", code=2)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("before", [b"", b"# mine\n", b"timeout:  5m   # as it is", b"tools:\n    shell: deny\n",
                                    b"timeout: 5m\r\n# caf\xc3\xa9\r\n", b"\xef\xbb\xbftimeout: 5m\n",
                                    "timeout: 5m\n".encode("utf-16")])  # fmt: skip
def test_all_else_stays_byte_for_byte(tmp_path: Path, before: bytes) -> None:
    after = with_model(before, "openai:x", "http://127.0.0.1:8080/v1")
    assert after.startswith(before)
    assert b"\r\n" not in before or b"\n" not in after.replace(b"\r\n", b"")
    (tmp_path / "fsagent.yaml").write_bytes(after)
    settings = load_settings(tmp_path / "fsagent.yaml")
    assert settings.model == ModelSettings(name="openai:x", base_url="http://127.0.0.1:8080/v1")
    assert settings.timeout == (300 if b"5\x00m" in before or b"5m" in before else 600)


@pytest.mark.parametrize("before", [b"model: {temperature: 0}\n", b"model:\n", b"{timeout: 5m}\n", b"timeout: [\n"])
def test_where_it_cannot_be_written_nothing_is(before: bytes) -> None:
    with pytest.raises(DocumentError):
        with_model(before, "openai:x")
