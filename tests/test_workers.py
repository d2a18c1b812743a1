"""Worker processes, without a daemon: they serve, leave when nobody needs them, and end with all that they started."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from fsagent.engines.base import Request
from fsagent.files.paths import SafeRoot
from fsagent.model import Command, ToolCall
from fsagent.tools.base import Context
from fsagent.workers import WorkerLost, WorkerOverdue, Workers
from fsagent.workspace.create import init_workspace
from fsagent.workspace.runs import Envelope, make_folder
from harness import wait_for

NOW = datetime(2026, 11, 27, tzinfo=UTC)


class Desk:
    """Answers what a worker asks, for one run of a playbook; notes what is recorded."""

    def __init__(self, *steps: ToolCall) -> None:
        command = Command(name="x.md", body="words", steps=steps)
        self.asked = Request(command=command, soul="", now=NOW, run="r1")
        self.records: list[str] = []
        self.stop_at = ""

    def request(self) -> Request:
        return self.asked

    def rules(self, tool: str) -> list[Any]:
        return [(f"tools: {tool}", "allow")]

    def standing(self, tool: str, subject: str) -> bool:
        return False

    def trusts(self, tool: str, subject: str) -> bool:
        return False

    def secrets(self) -> dict[str, str]:
        return {}

    def record(self, event: str, fields: dict[str, Any], durable: bool) -> None:
        self.records.append(event)

    def exhausted(self, used: Any, steps: int, calls: int) -> str:
        return ""

    def calls_left(self, calls: int) -> float:
        return 1e9

    def keep(self, name: str, text: str) -> str:
        return name


class Lodging:
    """A home without servers, whose programs are not locked in."""

    def servers(self) -> list[Any]:
        return []

    def sandbox(self) -> Any:
        from fsagent.tools.base import Sandbox

        return Sandbox()


class Shop:
    """A workspace with one run in it, and workers for it."""

    def __init__(self, root: Path, idle: float = 60.0) -> None:
        self.layout = init_workspace(root)[0]
        self.workers = Workers(self.layout.root, idle)
        envelope = Envelope(run="r1", name="x.md", trigger="inbox", time=NOW)
        make_folder(self.layout.runs / "r1", envelope).close()
        self.end = time.monotonic() + 60
        self.stop = False

    def run(self, *steps: ToolCall, seconds: float = 60.0) -> tuple[Any, Desk]:
        self.end = time.monotonic() + seconds
        context = Context(
            root=SafeRoot(self.layout.root), home=cast(Any, None), now=lambda: NOW, run="r1", trigger="inbox",
            seconds_left=lambda: self.end - time.monotonic(), stopping=lambda: self.stop,
        )  # fmt: skip
        desk = Desk(*steps)
        return self.workers.run("r1", "offline", "inbox", False, desk, cast(Any, Lodging()), context), desk


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "ws")
    yield shop
    shop.workers.close()
    assert shop.workers.count() == 0 or wait_for(lambda: shop.workers.count() == 0)


def below(*ends: str) -> list[psutil.Process]:
    """The processes below this one whose command line ends with one of these words; ``worker`` means a worker."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            line = each.cmdline()
        except psutil.Error:
            continue  # it has just ended
        is_worker = line[1:4] == ["-P", "-m", "fsagent.worker"]
        if (line and line[-1] in ends) or (is_worker and "worker" in ends):
            found.append(each)
    return found


def append(word: str) -> ToolCall:
    return ToolCall("append", {"path": "log.txt", "text": word})


def test_a_worker_does_what_the_daemon_would(shop: Shop) -> None:
    outcome, desk = shop.run(append("a"), append("b"))
    assert outcome.ending.step.status == "done"
    assert outcome.ending.changed == ("log.txt",)
    assert (shop.layout.root / "log.txt").read_text() == "a\nb\n"
    assert desk.records == ["step", "call", "result", "turn"] * 2


def test_one_worker_serves_again_and_again(shop: Shop) -> None:
    for word in "abc":
        shop.run(append(word))
        assert shop.workers.count() == 1
    assert (shop.layout.root / "log.txt").read_text() == "a\nb\nc\n"


def test_an_idle_worker_leaves_and_another_one_comes(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "ws", idle=0.05)
    for word in "ab":
        shop.run(append(word))
        wait_for(lambda: shop.workers.count() == 0, "it has left")
    assert (shop.layout.root / "log.txt").read_text() == "a\nb\n"
    assert not below("worker")


def test_one_that_does_not_end_in_time_is_ended_with_all_it_started(shop: Shop) -> None:
    """The program leaves its session and its parents, and does not listen to SIGTERM."""
    stubborn = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 298' & sleep 299"
    with pytest.raises(WorkerOverdue):
        _overdue(shop, stubborn)
    wait_for(lambda: not _anywhere("298", "299"), "nothing of it is left")


def _anywhere(*ends: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [""])[-1] in ends]


def _overdue(shop: Shop, line: str) -> None:
    """A run that is to stop, whose worker is stopped by SIGSTOP and cannot obey."""

    def freeze() -> None:
        wait_for(lambda: below("299"), "the program runs")
        for each in below("worker"):
            each.suspend()
        shop.stop = True

    thread = threading.Thread(target=freeze)
    thread.start()
    try:
        shop.run(ToolCall("shell", {"command": line, "shell": True, "timeout": "100s"}))
    finally:
        thread.join()


def test_a_killed_worker_is_told(shop: Shop) -> None:
    def kill() -> None:
        wait_for(lambda: below("297"), "the program runs")
        for each in below("worker"):
            each.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(WorkerLost):
        shop.run(ToolCall("shell", {"": "sleep 297", "timeout": "100s"}))
    thread.join()
    shop.run(append("a"))
    assert (shop.layout.root / "log.txt").read_text() == "a\n"


def test_an_engine_whose_library_is_missing_is_told_in_words(shop: Shop, tmp_path: Path) -> None:
    """``pydantic_ai`` is hidden by a module of that name that cannot be imported."""
    (tmp_path / "pydantic_ai.py").write_text("raise ModuleNotFoundError('No module named x', name='pydantic_ai')")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        context = Context(
            root=SafeRoot(shop.layout.root), home=cast(Any, None), now=lambda: NOW, run="r1", trigger="inbox",
            seconds_left=lambda: 60.0, stopping=lambda: False,
        )  # fmt: skip
        outcome = shop.workers.run("r1", "model", "inbox", False, Desk(), cast(Any, Lodging()), context)
    finally:
        del os.environ["PYTHONPATH"]
    assert "needs pydantic_ai, which is not installed" in outcome.ending.step.error
    assert "pip install 'fsagent[model]'" in outcome.ending.step.error
