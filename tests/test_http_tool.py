"""The http tool against real servers on 127.0.0.1, and the one spelling of an address."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsagent.errors import ToolError
from fsagent.model import ToolResult
from fsagent.tools.base import Network
from fsagent.tools.http import MAX_BYTES, Http, HttpArgs
from fsagent.tools.network import is_global, permitted, resolve
from fsagent.tools.url import canonical
from harness import Agent
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


def no_secret(name: str, url: str) -> str:
    raise ToolError(f"there is no secret {name!r}")


class NetworkHome:
    """A home that answers two questions: what the tool http may reach, and what a secret is."""

    def __init__(
        self, private: tuple[str, ...] = ("127.0.0.1",), secret: Callable[[str, str], str] = no_secret
    ) -> None:
        self.private = private
        self.secret = secret

    def network(self) -> Network:
        return Network(private=self.private)


def call(folder: Path, url: str, **more: Any) -> ToolResult:
    settings = {name: more.pop(name) for name in ("stopping", "seconds_left", "max_output") if name in more}
    network = {name: more.pop(name) for name in ("private", "secret") if name in more}
    context = context_for(folder, home=NetworkHome(**network), **settings)
    tool = Http(more.pop("resolve", resolve))
    return tool.run(tool.prepare(HttpArgs(url, **more), context), context)


def failure(folder: Path, url: str, **more: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        call(folder, url, **more)
    return caught.value


def test_a_get_brings_the_body(server: str, tmp_path: Path) -> None:
    result = call(tmp_path, server + "/echo?a=1#part")
    print_ = result.data.pop("print")
    assert result.data == {"status": 200, "type": "application/json", "url": server + "/echo?a=1"}
    assert (
        call(tmp_path, server + "/echo?a=1").data["print"]
        == print_
        != call(tmp_path, server + "/echo?a=2").data["print"]
    )
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
    assert f"it points to {target.format(server=server)}, which was not called" in str(error)
    assert str(error).endswith("is a new call, and the policy judges it anew")
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


# the owner's own network


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.10", "169.254.169.254", "0.0.0.0",
     "0.1.2.3", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1",
     "203.0.113.1", "224.0.0.251", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1",
     "::ffff:127.0.0.1", "::ffff:192.168.1.10", "::ffff:a9fe:a9fe", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe",
     "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:10a::1", "2002:a9fe:a9fe::", "2001::1", "2001:db8::1", "3fff::1",
     "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "ff0e::1", "100::1", "5f00::1"],
)  # fmt: skip
def test_what_is_no_address_of_the_world_is_refused(address: str) -> None:
    assert not is_global(ip_address(address))
    with pytest.raises(ToolError, match="is an address of your own network: list it"):
        permitted("x.example", [address], ["192.168.99.1", "other.local"])
    assert permitted("x.example", [address, "93.184.215.14"], []) == ["93.184.215.14"]
    assert permitted("x.example", [address], ["x.example"]) == [address]
    assert permitted("x.example", [address], [address.partition("%")[0]]) == [address] or "%" in address


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "172.32.0.1", "100.128.0.1", "192.169.0.1", "223.255.255.255",
                "2606:4700::1111", "2a00:1450:4001::1", "2001:200::1", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1",
                "2002:101:101::1"]
)  # fmt: skip
def test_addresses_of_the_world_need_no_leave(address: str) -> None:
    assert is_global(ip_address(address))
    assert permitted("x.example", [address], []) == [address]


@pytest.mark.parametrize(
    ("host", "address", "private", "allowed"),
    [
        ("ha.local", "192.168.1.10", ["ha.local"], True),
        ("ha.local", "192.168.1.10", ["HA.local"], True),
        ("ha.local", "192.168.1.10", ["*.local"], True),
        ("local", "192.168.1.10", ["*.local"], False),
        ("evil-ha.local", "192.168.1.10", ["ha.local"], False),
        ("ha.local.evil.example", "192.168.1.10", ["ha.local", "*.local"], False),
        ("x.example", "192.168.1.10", ["192.168.1.10"], True),
        ("x.example", "192.168.1.11", ["192.168.1.10"], False),
        ("x.example", "192.168.1.11", ["192.168.1.0/24"], True),
        ("x.example", "::ffff:192.168.1.11", ["192.168.1.0/24"], True),
        ("x.example", "fd00::5", ["192.168.1.0/24", "fd00::/8"], True),
        ("x.example", "127.0.0.1", ["192.168.1.0/24", "fd00::/8"], False),
    ],
)
def test_the_settings_open_what_they_name(host: str, address: str, private: list[str], allowed: bool) -> None:
    if allowed:
        assert permitted(host, [address], private) == [address]
    else:
        with pytest.raises(ToolError, match=f"{host} is {address}; it is an address of your own network"):
            permitted(host, [address], private)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_this_machine_is_not_reached_without_leave(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        error = failure(tmp_path, f"http://{host}:{listening.getsockname()[1]}/", private=())
        assert "address of your own network: list it in fsagent.yaml as http_private: [" in str(error)
        assert not error.retryable
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_name_is_resolved_once_and_what_was_checked_is_called(server: str, tmp_path: Path) -> None:
    """A name server that answers differently the second time (DNS rebinding) gains nothing."""
    port = int(server.rpartition(":")[2])
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    asked: list[tuple[str, int, str]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port, threading.current_thread().name))
        return answers.pop(0)

    seen = json.loads(call(tmp_path, f"http://rebind.example:{port}/echo", resolve=resolve).text)
    assert asked == [("rebind.example", port, "http")], "on the thread of the exchange"
    assert seen["headers"]["Host"] == f"rebind.example:{port}"
    error = failure(tmp_path, f"http://rebind.example:{port}/echo", resolve=resolve)
    assert "rebind.example is 127.0.0.2" in str(error)


def test_an_address_that_does_not_answer_is_followed_by_the_next(server: str, tmp_path: Path) -> None:
    port = int(server.rpartition(":")[2])
    found = call(
        tmp_path, f"http://two.example:{port}/echo", private=("127.0.0.0/8",),
        resolve=lambda host, port: ["127.0.0.77", "127.0.0.1"],
    )  # fmt: skip
    assert found.data["status"] == 200


def test_a_host_that_cannot_be_found_is_worth_another_try(tmp_path: Path) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    error = failure(tmp_path, "http://x.example/", resolve=resolve)
    assert "the host x.example cannot be found: Temporary failure" in str(error)
    assert error.retryable
    assert "has no address" in str(failure(tmp_path, "http://x.example/", resolve=lambda host, port: []))


def test_a_name_server_that_hangs_holds_nothing_up_and_nothing_is_sent_later(tmp_path: Path) -> None:
    go_on, went_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def resolve(host: str, port: int) -> list[str]:
            threads.append(threading.current_thread())
            go_on.wait(30)
            went_on.set()
            return ["127.0.0.1"]

        begin = time.monotonic()
        url = f"http://slow.example:{listening.getsockname()[1]}/"
        error = failure(tmp_path, url, method="POST", timeout="0.3s", resolve=resolve)
        assert time.monotonic() - begin < 5
        assert "took longer" in str(error)
        assert error.retryable, "nothing was sent"
        go_on.set()
        assert went_on.wait(30)
        threads[0].join(30)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for api.example.org, with its key, that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.example.org")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        made.public_bytes(form)
        + key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[tuple[int, list[str | None]]]:
    """The port of a server that speaks TLS, and the names under which it was called."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, context: names.append(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *args: None  # type: ignore[method-assign]  # who mistrusts it hangs up
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port, names
        server.shutdown()
        thread.join()


def test_tls_is_spoken_under_the_name_that_was_asked_for(
    tls_server: tuple[int, list[str | None]], certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, names = tls_server

    def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    url = f"https://api.example.org:{port}/echo"
    assert "certificate is not trusted" in str(failure(tmp_path, url, resolve=resolve))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names.clear()
    seen = json.loads(call(tmp_path, url, resolve=resolve).text)
    assert names == ["api.example.org"]
    assert seen["headers"]["Host"] == f"api.example.org:{port}"
    other = failure(tmp_path, f"https://other.example.org:{port}/echo", resolve=resolve)
    assert "certificate is not trusted" in str(other)


def test_a_handshake_that_hangs_ends_in_time(tmp_path: Path) -> None:
    with raw_server(hold) as url:
        begin = time.monotonic()
        error = failure(tmp_path, url.replace("http:", "https:"), method="POST", timeout="0.4s")
        assert time.monotonic() - begin < 5
        assert error.retryable, "nothing was sent"


# secrets


def secret(name: str, url: str) -> str:
    if name != "github" or "/echo" not in url:
        raise ToolError(f"the secret {name} may not be sent to {url}")
    return "ghp_very-secret"


def test_a_secret_is_filled_in_in_headers_only(server: str, tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer {{ secrets.github }}", "X": "{{secrets.github}}{{ now }}"}
    body = "{{ secrets.github }}"
    seen = json.loads(call(tmp_path, server + "/echo", headers=headers, body=body, method="POST", secret=secret).text)
    assert seen["headers"]["Authorization"] == "Bearer ghp_very-secret"
    assert seen["headers"]["X"] == "ghp_very-secret{{ now }}"
    assert seen["body"] == body
    assert "url" in str(failure(tmp_path, server + "/echo?{{ secrets.github }}", secret=secret))


def test_a_secret_goes_only_where_it_may_and_stands_in_no_message(server: str, tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer {{ secrets.github }}"}
    assert "may not be sent" in str(failure(tmp_path, server + "/status?200", headers=headers, secret=secret))
    other = failure(tmp_path, server + "/echo", headers={"X": "{{ secrets.other }}"}, secret=secret)
    assert "the secret other may not" in str(other)
    assert "there is no secret 'github'" in str(failure(tmp_path, server + "/echo", headers=headers))
    for odd in ("two\nlines", "Grüße", "a\0b"):
        error = failure(tmp_path, server + "/echo", headers=headers, secret=lambda name, url, odd=odd: odd)
        assert "the secret github must be plain ASCII" in str(error)
        assert odd not in str(error)


def test_what_is_asked_and_judged_shows_no_secret(tmp_path: Path) -> None:
    context = context_for(tmp_path, home=NetworkHome(secret=lambda name, url: pytest.fail("asked for too early")))
    args = HttpArgs("https://api.example.org", headers={"A": "{{ secrets.github }}"})
    tool = Http()
    prepared = tool.prepare(args, context)
    assert prepared.headers == args.headers
    assert tool.subject(prepared) == "https://api.example.org/"
    assert tool.preview(prepared, context) == ""


def test_the_settings_rule_what_a_playbook_may_reach_and_send(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: fsagent.yaml, a playbook, the policy, a real server."""
    monkeypatch.setenv("FSAGENT_TEST_TOKEN", "ghp_very-secret")
    agent = Agent(
        tmp_path / "ws",
        f"tools: {{http: allow}}\nhttp_private: [127.0.0.1]\n"
        f"secrets:\n  github: {{env: FSAGENT_TEST_TOKEN, for: '{server}/echo*'}}\n",
    )
    step = (
        "---\nsteps:\n  - http: {{url: '{url}', headers: {{Authorization: 'Bearer {{{{ secrets.github }}}}'}}}}\n---\n"
    )
    agent.drop("good.md", step.format(url=f"{server}/echo?1"))
    agent.drop("other.md", step.format(url=f"{server}/status?200"))
    agent.drop("own.md", f"---\nsteps:\n  - http: {server.replace('127.0.0.1', '127.0.0.2')}/echo\n---\n")
    agent.drop("body.md", f"---\nsteps:\n  - http: {{url: {server}/echo, body: '{{{{ secrets.github }}}}'}}\n---\n")
    agent.once()
    sent = json.loads(agent.result("good.md").content)["headers"]["Authorization"]
    assert sent == "Bearer [secret github]", "the server had the value, and what it says of it is masked"
    assert f"only to: {server}/echo*" in agent.result("other.md")["error"]
    assert "list it in fsagent.yaml as http_private: [127.0.0.2]" in agent.result("own.md")["error"]
    assert "a secret can stand in a header of http only" in agent.result("body.md")["error"]
