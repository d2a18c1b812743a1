"""Gates: what must hold for a slot to be worth a run, looked at on a few threads beside the clock's.

A check that is slow or hangs delays no other: at most ``MOST`` go at a time, those of tasks that took long last time
never take the last place, and one that does not come back from the disk gives its place up.

Limit: a thread that hangs in the kernel (a dead mount) cannot be ended; its task is not looked at again until it
returns, and beyond ``MOST_STUCK`` of them no other gate that looks at files is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime

from fsagent.config import Settings
from fsagent.gatechecks import MOST_OUTPUT, Checker, Verdict
from fsagent.model import Gate, Task
from fsagent.runner import Runner
from fsagent.tools.base import Context, Home
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.layout import Layout
from fsagent.workspace.reserved import tools_root

__all__ = ["GateKeeper", "Verdict"]

MOST = 4
MOST_STUCK = 28
DEADLINE = 60.0
SILENCE = 10.0  # of a disk
FAREWELL = 25.0  # what a tool may take to end a program or a request
SLOW = 5.0
BEAT = 1.0

_FILES = ("changed", "exists")
_LATE = "the gates took longer than {} s"
_HANGS = "the check before hangs, in a folder that does not answer"
_MANY_HANG = "too many checks hang in folders that do not answer; is a disk or a network drive gone?"
_OURS = "the check broke off by a fault of fsagent or of an extension; the daemon's output says more"


class _Late(Exception):  # noqa: N818  # the end of a check, no error
    """The check's time is up, or the daemon ends."""


class _Check:
    """One check, from the moment it was asked for. ``given_up_at`` is when nobody waits for it any more."""

    def __init__(self, task: Task, slot: datetime, seen: Mapping[str, str], seconds: float) -> None:
        self.task, self.slot, self.seen, self.seconds = task, slot, dict(seen), seconds
        self.began = self.given_up_at = 0.0
        self.in_tool = self.lost = False

    def begin(self) -> None:
        self.began = time.monotonic()
        self.given_up_at = self.began + SILENCE

    def seconds_left(self) -> float:
        return self.began + self.seconds - time.monotonic()


class GateKeeper:
    """Looks whether the gates of tasks hold. Safe to share between threads; ``wake`` is called for every verdict."""

    def __init__(
        self,
        layout: Layout,
        settings: Callable[[], Settings],
        runner: Runner,
        home: Home,
        secrets: Callable[[], Mapping[str, str]],
        now: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        allowed = Allowances(layout)
        self._checker = Checker(runner, settings, lambda tool, subject: allowed.allows(tool, subject, "task"), secrets)
        self._root, self._home = tools_root(layout), home
        self._settings, self._now, self._wake = settings, now, wake
        self._changed = threading.Condition()
        self._open: dict[str, _Check] = {}  # by task, until its verdict is taken
        self._waiting: deque[_Check] = deque()
        self._running: set[_Check] = set()
        self._stuck: set[str] = set()
        self._slow: set[str] = set()
        self._ready: list[tuple[Task, datetime, Verdict]] = []
        self._watching = self._closed = False

    def check(self, task: Task, slot: datetime, seen: Mapping[str, str]) -> None:
        """Have a task's gates looked at; returns at once. ``seen`` is what they saw when the last run was handed in.

        Nothing happens where a check of this task is under way.
        """
        limits = (DEADLINE, task.timeout or self._settings().timeout)
        check = _Check(task, slot, seen, min(limits))
        with self._changed:
            if self._closed or task.name in self._open:
                return
            self._open[task.name] = check
            hopeless = self._hopeless(task)
            if not hopeless:
                self._waiting.append(check)
                self._dispatch()
                return
            self._ready.append((task, slot, Verdict(False, hopeless, fault=True)))
        self._wake()

    def take(self) -> list[tuple[Task, datetime, Verdict]]:
        """The verdicts that are ready, each once."""
        with self._changed:
            ready, self._ready = self._ready, []
            for task, _, _ in ready:
                self._open.pop(task.name, None)
        return ready

    def close(self) -> None:
        """Begin nothing more, and end what is under way with all that it started. Their verdicts are never given."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not any(check.in_tool for check in self._running), FAREWELL)

    def _hopeless(self, task: Task) -> str:
        if task.name in self._stuck:
            return _HANGS
        at_disk = any(gate.kind in _FILES for gate in task.gates)
        return _MANY_HANG if at_disk and len(self._stuck) >= MOST_STUCK else ""

    def _dispatch(self) -> None:
        """Begin what may begin now, each on a thread of its own. Called with the lock held."""
        while (check := self._next()) is not None:
            threading.Thread(target=self._work, args=(check,), name="gate", daemon=True).start()
        if self._running and not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="gates", daemon=True).start()

    def _next(self) -> _Check | None:
        """The check whose turn it is, which counts as running from now on. Called with the lock held."""
        if self._closed or len(self._running) >= MOST:
            return None
        slow = sum(check.task.name in self._slow for check in self._running)
        for check in self._waiting:
            if check.task.name not in self._slow or slow < MOST - 1:
                self._waiting.remove(check)
                self._running.add(check)
                check.begin()
                return check
        return None

    def _work(self, first: _Check) -> None:
        """Do one check after the other, as long as there are any."""
        check: _Check | None = first
        try:
            while check is not None:
                self._do(check)
                with self._changed:
                    check = self._next()
        finally:
            with self._changed:
                self._dispatch()  # where an error of ours ended this thread, another goes on

    def _do(self, check: _Check) -> None:
        verdict = Verdict(False, _OURS, fault=True)
        try:
            verdict = self._judge(check)
        finally:
            with self._changed:
                given = not (check.lost or self._closed)
                self._settle(check, verdict)
            if given:
                self._wake()

    def _judge(self, check: _Check) -> Verdict:
        context = Context(
            root=self._root, home=self._home, now=lambda: self._settings().local(self._now()), run="gate",
            trigger="task", seconds_left=check.seconds_left, stopping=lambda: self._closed or check.lost,
            max_output=MOST_OUTPUT,
        )  # fmt: skip

        def begin(gate: Gate) -> None:
            left = check.seconds_left()
            if left <= 0 or self._closed or check.lost:
                raise _Late
            check.in_tool = gate.kind not in _FILES
            check.given_up_at = time.monotonic() + (left + FAREWELL if check.in_tool else SILENCE)

        try:
            return self._checker.verdict(check.task, check.seen, context, begin)
        except _Late:
            return Verdict(False, _LATE.format(f"{check.seconds:g}"), fault=True)

    def _settle(self, check: _Check, verdict: Verdict) -> None:
        """Take a check off, with its verdict. Called with the lock held."""
        name = check.task.name
        self._running.discard(check)
        check.in_tool = False
        (self._slow.add if time.monotonic() - check.began > SLOW else self._slow.discard)(name)
        if check.lost:
            self._stuck.discard(name)
        elif not self._closed:
            self._ready.append((check.task, check.slot, verdict))
        if self._closed:
            self._changed.notify_all()

    def _watch(self) -> None:
        """Give up checks that hang, so that others have their places. Leaves when nothing runs."""
        while True:
            with self._changed:
                self._changed.wait(BEAT)
                if self._closed or not self._running:
                    self._watching = False
                    return
                lost = [check for check in self._running if time.monotonic() > check.given_up_at]
                for check in lost:
                    self._settle(check, Verdict(False, self._silent(check), fault=True))
                    check.lost = True
                    self._stuck.add(check.task.name)
                self._dispatch()
            for _ in lost:
                self._wake()

    @staticmethod
    def _silent(check: _Check) -> str:
        what = "its program or request did not end" if check.in_tool else "a folder did not answer"
        return f"{what} in time; it is not looked at again before that"
