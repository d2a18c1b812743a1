"""Notices and their pushes: real daemons and a real HTTP server on loopback."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.header import decode_header
from pathlib import Path
from typing import Any

import frontmatter
import pytest

from fsagent.config import Settings
from fsagent.errors import ToolError
from fsagent.notices import MOST_OF_A_RUN, Notices
from fsagent.push import MAX_BODY, MOST_WAITING, Push, post
from fsagent.workspace.create import init_workspace
from fsagent.workspace.journal import Journal
from harness import Agent, wait_for
from test_approvals import QUICK, sed, trouble

TELL = "---\nsteps:\n  - notify: {text: The kettle is hot., title: Kettle}\n---\n"


class Phone:
    """What takes pushes. ``plan`` are the statuses that it answers with, the last one for ever; 0 hangs up."""

    def __init__(self, *plan: int) -> None:
        self.plan = list(plan) or [200]
        self.got: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []
        phone = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                phone.headers.append(dict(self.headers))
                phone.got.append((self.path, self.headers["Title"], body))
                status = phone.plan.pop(0) if len(phone.plan) > 1 else phone.plan[0]
                if status:
                    self.send_response(status)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/topic"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def phone() -> Iterator[Phone]:
    phone = Phone()
    yield phone
    phone.close()


@pytest.fixture
def agent(tmp_path: Path, phone: Phone) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", QUICK + f"tools: {{append: ask}}\nnotify: {phone.url}?auth=hush\n")
    yield agent
    agent.close()


def notices(agent: Agent) -> list[Path]:
    return sorted((agent.layout.outbox / "notices").glob("*.md"))


# notices


def test_a_run_tells_the_owner_something(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", QUICK)
    agent.drop("a.md", TELL.replace("---\n", "---\n", 1) + "\n")
    agent.once()
    (path,) = notices(agent)
    notice = frontmatter.load(str(path))
    assert path.name.endswith("-kettle.md")
    run = wait_for(agent.runs)[0].run
    assert (notice["notice"], notice["run"], notice.content) == ("Kettle", run, "The kettle is hot.")
    assert f"told the owner (outbox/notices/{path.name})" in agent.result("a.md").content


def test_a_task_that_only_tells_has_nothing_else_to_say(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", QUICK)
    (agent.layout.tasks / "t.md").write_text("---\nevery: 1d\nsteps:\n  - notify: The kettle is hot.\n---\n")
    agent.drop("a.md", "Run the t task now")
    agent.once()
    assert agent.files(agent.layout.outbox) == ["a.md", f"notices/{notices(agent)[0].name}"]


def test_the_same_text_is_one_notice_and_a_run_has_only_a_few(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", QUICK)
    texts = ["same", "same", *(f"text {number}" for number in range(MOST_OF_A_RUN))]
    agent.drop("a.md", "---\nsteps:\n" + "".join(f"  - notify: {text}\n" for text in texts) + "---\n")
    agent.once()
    assert len(notices(agent)) == MOST_OF_A_RUN
    assert "this run has told 5 things already" in agent.result("a.md").content
    agent.drop("b.md", "---\nsteps:\n  - notify: same\n---\n")
    agent.once()
    assert len(notices(agent)) == MOST_OF_A_RUN + 1, "another run may say it, too"


@pytest.mark.parametrize("number", range(8))
def test_what_was_cut_off_while_telling_is_told_once(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after each thing that the notice leaves on the disk: one notice, with its text."""
    layout, _ = init_workspace(tmp_path / "ws")
    (layout.runs / "r1").mkdir(parents=True)
    heard: list[str] = []
    journal = Journal(layout.journal, lambda: datetime.now(UTC))

    def new() -> Notices:
        return Notices(layout, journal, lambda: datetime.now(UTC), lambda title, text: heard.append(title))

    class Killed(BaseException):
        pass

    left = number

    def mortal(name: str) -> Any:
        import fsagent.notices as module

        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            done = real(*args, **options)
            left -= 1
            if left == 0:
                raise Killed
            return done

        monkeypatch.setattr(f"fsagent.notices.{name}", call)

    mortal("write_atomic")
    mortal("write_new")
    try:
        new().of_run("Title", "text", "r1")
    except Killed:
        left = 0
    again = new().of_run("Title", "text", "r1")
    assert new().of_run("Other title", "text", "r1") == again
    (path,) = (layout.outbox / "notices").glob("*.md")
    assert (layout.name(path), frontmatter.load(str(path)).content) == (again, "text")
    with pytest.raises(ToolError, match="is no run"):
        new().of_run("Title", "text", "../x")
    journal.close()


# pushes


def test_a_notice_is_pushed_with_its_title(agent: Agent, phone: Phone) -> None:
    agent.start()
    agent.drop("a.md", TELL.replace("Kettle", "Kaffee ist heiß"))
    wait_for(lambda: phone.got, "it is pushed")
    ((path, title, body),) = phone.got
    assert (path, body) == ("/topic?auth=hush", "The kettle is hot.")
    raw, charset = decode_header(title)[0]
    assert (raw.decode(charset or "") if isinstance(raw, bytes) else raw) == "Kaffee ist heiß"
    assert agent.result("a.md")["status"] == "done"


def test_questions_are_pushed_and_failures_where_it_is_said(agent: Agent, phone: Phone) -> None:
    agent.start()
    agent.drop("a.md", "---\nsteps:\n  - append: {path: log.txt, text: one}\n  - read: nothing.txt\n---\n")
    wait_for(lambda: phone.got, "it is pushed")
    (path,) = agent.layout.approvals.glob("*.md")
    assert phone.got[0][1:] == (
        "inbox/a.md waits for you",
        f"inbox/a.md wants to add to `log.txt` (approvals/{path.name})",
    )
    agent.layout.settings.write_text(agent.layout.settings.read_text() + "notify_on: [failure]\n")
    wait_for(lambda: "settings read" in agent.output())
    sed(path)
    agent.result("a.md")
    wait_for(lambda: len(phone.got) == 2, "the failure is pushed")
    assert phone.got[1][1] == "inbox/a.md failed"
    assert "outbox/a.md" in phone.got[1][2]
    agent.drop("b.md", "---\nsteps:\n  - ask_person: Which month?\n---\n")
    wait_for(lambda: len(list(agent.layout.approvals.glob("*.md"))) == 1)
    agent.drop("c.md", TELL)
    wait_for(lambda: len(phone.got) == 3)
    assert phone.got[2][1] == "Kettle", "questions are pushed no more"


def test_a_push_that_fails_is_tried_again_and_holds_up_nobody(agent: Agent, phone: Phone) -> None:
    phone.plan = [503, 0, 200]
    agent.start()
    agent.drop("a.md", TELL)
    assert agent.result("a.md")["status"] == "done"
    told = trouble(agent, "notify: 127.0.0.1: it answered with status 503")
    assert "hush" not in told, "an address may hold a secret"
    assert "hush" not in agent.output()
    wait_for(lambda: "push failed" in agent.output())
    wait_for(lambda: len(phone.got) == 3, "twice more")
    wait_for(lambda: "pushed again" in agent.output(), "it is told that it works again")
    wait_for(lambda: "notify: 127.0.0.1" not in agent.status(), "the status shows it")


def test_killed_in_between_the_notice_is_there(agent: Agent, phone: Phone) -> None:
    phone.plan = [503]
    agent.start()
    agent.drop("a.md", TELL)
    wait_for(lambda: phone.got)
    agent.kill()
    assert len(notices(agent)) == 1
    phone.plan = [200]
    agent.start()
    agent.drop("b.md", TELL)
    wait_for(lambda: len(phone.got) >= 2 and agent.layout.outbox.joinpath("b.md").exists())
    assert len(notices(agent)) == 2


def test_once_pushes_before_it_ends(agent: Agent, phone: Phone) -> None:
    agent.drop("a.md", TELL)
    agent.once()
    assert [title for _, title, _ in phone.got] == ["Kettle"]


def loaded(push: Push) -> int:
    return sum(line._thread is not None for line in push._lines.values())


def test_one_address_that_hangs_holds_up_no_other_and_threads_end(phone: Phone) -> None:
    silent = __import__("socket").create_server(("127.0.0.1", 0))
    settings = Settings(notify=(f"http://127.0.0.1:{silent.getsockname()[1]}/", phone.url))
    told: list[dict[str, Any]] = []
    push = Push(lambda: settings, lambda event, **fields: told.append(fields), (0.01, 0.01))
    for number in range(MOST_WAITING + 3):
        push.send(f"title {number}", "text")
        if number % 20 == 0:
            wait_for(lambda number=number: len(phone.got) == number + 1)
    wait_for(lambda: len(phone.got) == MOST_WAITING + 3)
    assert [title for _, title, _ in phone.got] == [f"title {number}" for number in range(MOST_WAITING + 3)]
    assert any("more than 50 wait" in each["error"] for each in told)
    wait_for(lambda: loaded(push) == 1, "a thread ends when there is nothing to push")
    began = time.monotonic()
    push.close()
    assert time.monotonic() - began < 10
    silent.close()


def test_what_fails_for_good_is_given_up_and_told() -> None:
    phone = Phone(404, 500)
    settings = Settings(notify=(phone.url,))
    told: list[tuple[str, dict[str, Any]]] = []
    push = Push(lambda: settings, lambda event, **fields: told.append((event, fields)), (0.01, 0.01))
    push.send("one", "text")
    wait_for(lambda: told)
    push.send("two", "text")
    wait_for(lambda: len(told) == 3)
    assert [title for _, title, _ in phone.got] == ["one", "two", "two", "two"], "a 404 is not tried again"
    assert [fields["error"] for _, fields in told] == [
        "it answered with status 404; given up", "it answered with status 500; tried again",
        "it answered with status 500; given up",
    ]  # fmt: skip
    assert push.trouble() == ["notify: 127.0.0.1: it answered with status 500"]
    settings = Settings()
    assert push.trouble() == []
    push.send("three", "nobody gets it")
    assert len(phone.got) == 4
    phone.close()


def test_no_header_is_smuggled_and_no_text_is_too_long(phone: Phone) -> None:
    url = phone.url.replace("http://", "http://me:p%40ss@")
    assert post(url, "a\r\nX-Evil: 1\n\x00b", "x" * 10_000) == ("", False)
    ((_, title, body),) = phone.got
    assert title == "a X-Evil: 1 b"
    assert "X-Evil" not in phone.headers[0]
    assert phone.headers[0]["Authorization"] == "Basic bWU6cEBzcw=="
    assert MAX_BODY <= len(body.encode()) < 4096
    assert post("http://127.0.0.1:1/", "a", "b")[1]


def test_without_addresses_nothing_is_loaded_or_started(tmp_path: Path) -> None:
    push = Push(Settings, lambda event, **fields: None)
    push.send("title", "text")
    push.hear({"event": "asked", "command": "a.md", "why": "x"})
    assert not push._lines
    assert json.dumps(push.trouble()) == "[]"
