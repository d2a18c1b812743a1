"""The http tool against real servers on 127.0.0.1, and the one spelling of an address."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsagent.errors import ToolError
from fsagent.model import ToolResult
from fsagent.tools.http import MAX_BYTES, Http, HttpArgs
from fsagent.tools.url import canonical
from test_file_tools import context_for

# the address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.org", "https://api.example.org/"),
        ("HTTPS://API.Example.ORG:443/A", "https://api.example.org/A"),
        ("http://example.org:80/?q", "http://example.org/?q"),
        ("http://example.org:8080/x#y", "http://example.org:8080/x"),
        ("https://example.org.:443/", "https://example.org/"),
        ("https://example.org/a/./b/../c/..", "https://example.org/a/"),
        ("https://example.org/../../etc", "https://example.org/etc"),
        ("https://example.org/a/%2e%2E/b", "https://example.org/b"),
        ("https://example.org/%41%7e%2f%e4", "https://example.org/A~%2F%E4"),
        ("https://example.org/ü?q=ü&r=[1]", "https://example.org/%C3%BC?q=%C3%BC&r=%5B1%5D"),
        ("https://example.org/100%", "https://example.org/100%25"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://ｅｘａｍｐｌｅ.org/", "https://example.org/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("https://example.org?x=1", "https://example.org/?x=1"),
        ("https://example.org//a//b", "https://example.org//a//b"),
    ],
)
def test_an_address_has_one_spelling(url: str, expected: str) -> None:
    assert str(canonical(url)) == expected
    assert str(canonical(expected)) == expected
    assert Http().subject(HttpArgs(url)) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.org@evil.example/",
        "https://api.example.org:443@evil.example/",
        "https://user:pw@api.example.org/",
        "https://evil.example\\@api.example.org/",
        "https://api.example.org\\.evil.example/",
        "https:\\\\evil.example/",
        "https://api.example.org /",
        " https://api.example.org/",
        "https://api.example.org/\n",
        "https://api.example.org/\r\nHost: evil",
        "https://api.example.org/\u202e",
        "https://api.example.org/\u3000",
        "https://api.exam\u00adple.org/\0",
        "file:///etc/passwd",
        "ftp://example.org/",
        "javascript:alert(1)",
        "//example.org/",
        "example.org",
        "https:/example.org",
        "https:///path",
        "https://:80/",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:port/",
        "https://exa%6dple.org/",
        "https://a..b/",
        "https://-a.example/",
        "https://[::1/",
        "https://[::1]x/",
        "https://[fe80::1%25eth0]/",
        "https://[127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://1.2.3.4.5/",
        "https://" + "a" * 64 + ".example/",
        "https://example.org/" + "a" * 9000,
        "",
    ],
)
def test_what_is_read_in_different_ways_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="url"):
        canonical(url)
    args = HttpArgs(url)
    assert Http().subject(args) == url
    assert Http().prepare(args, context_for(tmp_path)) == args
    with pytest.raises(ToolError, match="url"):
        Http().run(args, context_for(tmp_path))


def test_a_pattern_means_what_its_owner_thinks() -> None:
    pattern = "https://api.example.org/*"
    subject = Http().subject
    assert fnmatchcase(subject(HttpArgs("HTTPS://API.example.org:443")), pattern)
    for url in (
        "https://api.example.org.evil.example/",
        "https://api.example.org:8443/",
        "http://api.example.org/",
        "https://evil.example/https://api.example.org/",
        "https://evil.example/#https://api.example.org/",
        "https://apixexample.org/",
    ):
        assert not fnmatchcase(subject(HttpArgs(url)), pattern)
    assert not fnmatchcase(subject(HttpArgs("https://api.example.org/public/%2e%2e/admin")), pattern + "public/*")


@given(st.text(max_size=80))
def test_canonical_is_final(text: str) -> None:
    for url in (text, "https://example.org/" + text, "http://" + text):
        try:
            once = canonical(url)
        except ToolError:
            continue
        assert canonical(str(once)) == once


# the request


class Handler(BaseHTTPRequestHandler):
    """Answers by path; ``/echo`` tells what arrived."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        if path == "/echo":
            seen = {"method": self.command, "path": self.path, "body": body.decode(), "headers": dict(self.headers)}
            self.answer(200, json.dumps(seen).encode(), Content_Type="application/json")
        elif path == "/status":
            self.answer(int(query), b"because", Content_Type="text/plain")
        elif path == "/to":
            self.answer(302, b"", Location=query)
        elif path == "/charset":
            self.answer(200, "Grüße €".encode(query), Content_Type=f"text/plain; charset={query}")
        elif path == "/huge":
            self.answer(200, b"x" * (MAX_BYTES + 10), Content_Type="text/plain")
        elif path == "/odd":
            self.answer(200, b"abc", Content_Type="text/plain; charset=punycode")
        elif path == "/image":
            self.answer(200, b"\x89PNG\0\0", Content_Type="image/png")
        elif path == "/gzip":
            self.answer(200, b"\x1f\x8b\x08abc", Content_Type="text/plain; charset=utf-8", Content_Encoding="gzip")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_any  # noqa: N815


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def raw_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that talks to one client as ``talk`` says, and is told by the event when the test is over."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                try:
                    talk(client, over)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        over.set()
        thread.join()


def call(folder: Path, url: str, **more: Any) -> ToolResult:
    settings = {name: more.pop(name) for name in ("stopping", "seconds_left", "max_output") if name in more}
    context = context_for(folder, **settings)
    tool = Http()
    return tool.run(tool.prepare(HttpArgs(url, **more), context), context)


def failure(folder: Path, url: str, **more: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        call(folder, url, **more)
    return caught.value


def test_a_get_brings_the_body(server: str, tmp_path: Path) -> None:
    result = call(tmp_path, server + "/echo?a=1#part")
    assert result.data == {"status": 200, "type": "application/json", "url": server + "/echo?a=1"}
    seen = json.loads(result.text)
    assert (seen["method"], seen["path"], seen["body"]) == ("GET", "/echo?a=1", "")
    assert seen["headers"]["Host"] == server.removeprefix("http://")
    assert seen["headers"]["User-Agent"] == "fsagent"
    assert "Content-Type" not in seen["headers"]


def test_a_post_sends_body_and_headers(server: str, tmp_path: Path) -> None:
    seen = json.loads(call(tmp_path, server + "/echo", method="post", body="ü", headers={"X-Key": "1"}).text)
    assert (seen["method"], seen["body"], seen["headers"]["X-Key"]) == ("POST", "ü", "1")
    assert seen["headers"]["Content-Type"] == "text/plain; charset=utf-8"
    seen = json.loads(call(tmp_path, server + "/echo", method="PUT", body=' {"a": 1}').text)
    assert seen["headers"]["Content-Type"] == "application/json"
    typed = {"content-type": "text/csv", "user-agent": "me"}
    seen = json.loads(call(tmp_path, server + "/echo", method="POST", body="a,b", headers=typed).text)
    assert {name.lower(): value for name, value in seen["headers"].items()}.items() >= typed.items()


def test_no_proxy_of_the_environment_is_used(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert call(tmp_path, server + "/echo").data["status"] == 200


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Proxy-Authorization", "a b", "x:", ""]
)
def test_headers_that_change_the_request_are_refused(server: str, tmp_path: Path, name: str) -> None:
    assert "headers" in str(failure(tmp_path, server + "/echo", headers={name: "1"}))


@pytest.mark.parametrize("value", ["a\r\nHost: evil", "a\0", "ü"])
def test_header_values_are_one_line(server: str, tmp_path: Path, value: str) -> None:
    assert "one line" in str(failure(tmp_path, server + "/echo", headers={"X": value}))


def test_unknown_methods_are_refused(server: str, tmp_path: Path) -> None:
    assert "GET, HEAD" in str(failure(tmp_path, server + "/echo", method="CONNECT"))


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (404, False), (408, True), (425, True), (429, True), (500, True), (503, True)],
)
def test_a_bad_status_is_an_error(server: str, tmp_path: Path, status: int, retryable: bool) -> None:
    error = failure(tmp_path, f"{server}/status?{status}")
    assert f"GET {server}/status?{status}: {status} " in str(error)
    assert str(error).endswith("because")
    assert error.retryable is retryable


def test_an_empty_answer_tells_its_status(server: str, tmp_path: Path) -> None:
    assert call(tmp_path, server + "/status?204", method="HEAD").text == "204 No Content"
    assert call(tmp_path, server + "/status?200", method="HEAD").text == "200 OK"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/other", "{server}/other"),
        ("https://evil.example/x", "https://evil.example/x"),
        ("file:///etc/passwd", "'file:///etc/passwd'"),
    ],
)
def test_a_redirect_is_told_and_not_followed(server: str, tmp_path: Path, location: str, target: str) -> None:
    error = failure(tmp_path, f"{server}/to?{location}")
    assert f"it points to {target.format(server=server)}; ask for that" in str(error)
    assert not error.retryable


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-15", "windows-1252", "utf-16"])
def test_text_is_decoded_by_its_charset(server: str, tmp_path: Path, charset: str) -> None:
    assert call(tmp_path, f"{server}/charset?{charset}").text == "Grüße €"


def test_what_is_no_text_is_named(server: str, tmp_path: Path) -> None:
    assert call(tmp_path, server + "/odd").text == "abc"
    assert call(tmp_path, server + "/image").text == "(no text: image/png, 6 bytes)"
    assert call(tmp_path, server + "/gzip").text == "(no text: text/plain, 6 bytes)"


def test_a_huge_answer_is_bounded(server: str, tmp_path: Path) -> None:
    text = call(tmp_path, server + "/huge", max_output=100).text
    assert text.startswith("x" * 100 + "\n… (")
    assert len(text) < 200


def test_nobody_there_is_worth_another_try(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for method in ("GET", "POST"):
        error = failure(tmp_path, f"http://127.0.0.1:{port}/", method=method)
        assert "refused" in str(error)
        assert error.retryable


def drip(client: socket.socket, over: threading.Event) -> None:
    """One byte of a header after the other, for ever."""
    client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.wait(0.02):
        client.sendall(b"x")


def hold(client: socket.socket, over: threading.Event) -> None:
    over.wait(30)


@pytest.mark.parametrize("talk", [drip, hold])
@pytest.mark.parametrize(("method", "retryable"), [("GET", True), ("POST", False)])
def test_the_time_is_for_the_whole_request(tmp_path: Path, talk: Any, method: str, retryable: bool) -> None:
    with raw_server(talk) as url:
        begin = time.monotonic()
        error = failure(tmp_path, url, method=method, timeout="0.4s")
        assert time.monotonic() - begin < 5
    assert "took longer" in str(error) or "timed out" in str(error)
    assert error.retryable is retryable
    assert ("nobody knows" in str(error)) is not retryable


def test_it_ends_when_the_daemon_stops(tmp_path: Path) -> None:
    with raw_server(hold) as url:
        assert "the daemon stops" in str(failure(tmp_path, url, stopping=lambda: True))
        assert "no time left" in str(failure(tmp_path, url, seconds_left=lambda: 0.0))


@pytest.mark.parametrize("said", [b"", b"\0\1\2 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
def test_a_broken_answer_is_an_error(tmp_path: Path, said: bytes) -> None:
    def talk(client: socket.socket, over: threading.Event) -> None:
        client.recv(65536)
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        over.wait(30)

    with raw_server(talk) as url:
        assert failure(tmp_path, url).retryable


def test_tls_to_something_else_is_an_error(server: str, tmp_path: Path) -> None:
    assert "SSL" in str(failure(tmp_path, server.replace("http:", "https:") + "/echo"))


def test_heavy_modules_load_on_first_use_only() -> None:
    code = (
        "import sys, fsagent.tools.http, fsagent.tools.shell, fsagent.tools.files, fsagent.tools.find;"
        "print([m for m in ('ssl', 'http.client', 'urllib.request', 'subprocess', 'ctypes') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
