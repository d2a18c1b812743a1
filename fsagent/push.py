"""Pushes what the owner should know to their phone: a POST to each address in the setting ``notify``.

Each address has a queue and, while there is something in it, a thread of its own; so nobody waits for a push, and an
address that does not answer holds up no other. A push that fails is tried again a few times, with growing waits.
Limits: queues are in memory, so that a daemon that is killed loses what was not sent yet (a notice's file is there all
the same); an address gets each push at least once where its answer was lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from fsagent import __version__
from fsagent.config import Settings

WAITS = (1.0, 5.0, 30.0, 120.0, 600.0)
TIMEOUT = 15.0
MOST_WAITING = 50
MAX_BODY = 3_900
"""Bytes of a text that are pushed; ntfy.sh makes a file of what is longer than 4,096."""
FAREWELL = 3.0


class Push:
    """See the module. ``settings`` names the addresses, ``tell`` journals what fails. Safe to share between threads."""

    def __init__(
        self, settings: Callable[[], Settings], tell: Callable[..., None], waits: Sequence[float] = WAITS
    ) -> None:
        self._settings, self._tell, self._waits = settings, tell, waits
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def send(self, title: str, text: str) -> None:
        """Push this to every address, soon. Returns at once."""
        for url in self._settings().notify:
            with self._lock:
                if url not in self._lines:
                    self._lines[url] = _Line(url, self._wanted, self._tell, self._waits, self._ending)
                line = self._lines[url]
            line.put(title, text)

    def hear(self, record: Mapping[str, Any]) -> None:
        """A record of the journal: what ``notify_on`` names is pushed."""
        event, settings = record["event"], self._settings()
        if event not in ("asked", "finished") or not settings.notify:
            return
        who = record.get("command", "")
        if event == "asked" and "approval" in settings.notify_on:
            self.send(f"{who} waits for you", f"{who} wants to {record['why']}")
        elif event == "finished" and record["status"] in ("failed", "interrupted") and "failure" in settings.notify_on:
            where = f" ({record['result']})" if record["result"] else ""
            self.send(f"{who} {record['status']}", f"{record['error']}{where}")

    def trouble(self) -> list[str]:
        """Addresses that did not take the last push, and why."""
        wanted = self._settings().notify
        with self._lock:
            lines = list(self._lines.values())
        return [f"notify: {line.host}: {line.fault}" for line in lines if line.fault and line.url in wanted]

    def close(self) -> None:
        """What was not tried yet is tried once, for some seconds at most; nothing is tried again."""
        self._ending.set()
        end = time.monotonic() + FAREWELL
        for line in list(self._lines.values()):
            line.join(max(0.0, end - time.monotonic()))

    def _wanted(self, url: str) -> bool:
        return url in self._settings().notify


class _Line:
    """One address: its queue, and its thread while there is something in it."""

    def __init__(
        self, url: str, wanted: Callable[[str], bool], tell: Callable[..., None], waits: Sequence[float],
        ending: threading.Event,
    ) -> None:  # fmt: skip
        self.url, self.host, self.fault = url, urlsplit(url).hostname or "", ""
        self._wanted, self._tell, self._waits, self._ending = wanted, tell, waits, ending
        self._queue: deque[tuple[str, str]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, title: str, text: str) -> None:
        with self._lock:
            full = len(self._queue) >= MOST_WAITING
            if full:
                self._queue.popleft()
            self._queue.append((title, text))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=f"push {self.host}", daemon=True)
                self._thread.start()
        if full:
            self._tell("push failed", to=self.host, error=f"more than {MOST_WAITING} wait; the oldest was given up")

    def join(self, seconds: float) -> None:
        thread = self._thread
        if thread:
            thread.join(seconds)

    def _serve(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._queue:
                        self._thread = None
                        return
                    title, text = self._queue.popleft()
                self._deliver(title, text)
        finally:
            with self._lock:
                if self._thread is threading.current_thread():  # whatever ended it, the next push begins anew
                    self._thread = None

    def _deliver(self, title: str, text: str) -> None:
        """Push one thing, with what tries it takes. The first failure is told, and that it was given up."""
        for number in range(len(self._waits) + 1):
            if not self._wanted(self.url):
                return
            why, again = post(self.url, title, text)
            if not why:
                if self.fault:
                    self.fault = ""
                    self._tell("pushed again", to=self.host)
                return
            last = not again or number == len(self._waits) or self._ending.is_set()
            self.fault = why
            if number == 0 or last:
                self._tell("push failed", to=self.host, error=why + ("; given up" if last else "; tried again"),
                           title=title)  # fmt: skip
            if last:
                return
            if self._ending.wait(self._waits[number]):
                return


def post(url: str, title: str, text: str) -> tuple[str, bool]:
    """One POST, without redirects and proxies; gives why it failed ("" where it did not), and whether to try again may
    help."""
    import http.client
    from base64 import b64encode

    parts = urlsplit(url)
    headers = {"Title": _header(title), "Content-Type": "text/plain; charset=utf-8",
               "User-Agent": f"fsagent/{__version__}"}  # fmt: skip
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    end = threading.Timer(2 * TIMEOUT, _cut, (connection,))  # one that answers byte by byte
    end.daemon = True
    end.start()
    try:
        connection.request("POST", target, _body(text), headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return getattr(error, "strerror", "") or str(error) or type(error).__name__, True
    finally:
        end.cancel()
        connection.close()
    if 200 <= status < 300:
        return "", False
    return f"it answered with status {status}", status >= 500 or status in (408, 425, 429)


def _cut(connection: Any) -> None:
    import socket

    try:
        if connection.sock:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _header(text: str) -> str:
    """A text as a header takes it: on one line, and encoded (RFC 2047) where it is more than ASCII."""
    from base64 import b64encode

    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]
    if text.isascii():
        return text
    return f"=?UTF-8?B?{b64encode(text.encode('utf-8', 'replace')).decode()}?="


def _body(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_BODY:
        return data
    return data[:MAX_BODY].decode("utf-8", "ignore").encode() + " …".encode()
