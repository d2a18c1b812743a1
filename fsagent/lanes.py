"""Lanes: which admitted run goes when, and on which thread.

Quick runs (no program, no network) go one after the other on a thread of their own, in the order in which they came, so
that "My name is Alice" is known to the question that came after it. Slow ones go side by side, at most ``max_runs`` at
once; where there are more, tasks and what people asked for take turns, so that neither keeps the other out. Of one
conversation (``thread:``, or one task) only one run goes at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from fsagent.pipeline import Admitted
from fsagent.workspace.runs import RunFolder

Work = Callable[[Sequence[Admitted]], None]
AHEAD = 32
BATCH = 16
MOST_WAITING = 1_000
LOW = 4


class Lanes:
    """Hands runs to threads. ``work`` is called with one of them, or with several quick ones; it must not raise.

    ``hungry`` is called when only a few quick runs are left, and whenever a run has ended with none waiting: not after
    every run, for a thread that wakes for each of them takes the interpreter away from the one that works.
    """

    def __init__(self, work: Work, max_runs: Callable[[], int], hungry: Callable[[], None]) -> None:
        self._work, self._max_runs, self._hungry = work, max_runs, hungry
        self._changed = threading.Condition()
        self._waiting: deque[Admitted] = deque()
        self._running: dict[str, Admitted] = {}
        self._quick_thread: threading.Thread | None = None
        self._quick_queue: deque[Admitted] = deque()
        self._slow = {True: 0, False: 0}  # tasks, and what people asked for
        self._task_last = True
        self._cancelled: set[str] = set()
        self._closed = False

    def put(self, run: Admitted) -> None:
        """Take a run; returns at once."""
        with self._changed:
            self._waiting.append(run)
            self._dispatch()

    def waiting(self) -> int:
        """How many runs have not begun."""
        with self._changed:
            return len(self._waiting) + len(self._quick_queue)

    def full(self) -> bool:
        """True while so much waits that nothing more need be admitted. Slow runs that wait keep no quick one out."""
        with self._changed:
            return len(self._quick_queue) >= AHEAD or len(self._waiting) >= MOST_WAITING

    def running(self) -> list[Admitted]:
        """The runs that are under way."""
        with self._changed:
            return list(self._running.values())

    def let_go(self, run: str) -> RunFolder | None:
        """Take a run out that has not begun; whoever does this ends it. Those that waited behind it may begin."""
        with self._changed:
            for queue in (self._waiting, self._quick_queue):
                for each in queue:
                    if each.folder.run == run:
                        queue.remove(each)
                        self._dispatch()
                        return each.folder
        return None

    def cancel(self, run: str) -> bool:
        """Have a run end that is under way: it finds out by asking ``cancelled``. False if it is not under way."""
        with self._changed:
            if run in self._running:
                self._cancelled.add(run)
            return run in self._running

    def cancelled(self, run: str) -> bool:
        """True for a run under way that is to end. Asked often, from the run's own thread."""
        return run in self._cancelled

    def close(self, seconds: float) -> list[Admitted]:
        """Begin nothing more, wait for what is under way, and give what has not begun."""
        with self._changed:
            self._closed = True
            left = [*self._quick_queue, *self._waiting]
            self._quick_queue.clear()
            self._waiting.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, seconds)
        return left

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing waits or runs; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._quick_queue or self._running), seconds)

    def _dispatch(self) -> None:
        """Begin what may begin now, in the order of arrival. Called with the lock held."""
        busy = {_conversation(run) for run in (*self._running.values(), *self._quick_queue)} - {""}
        begun: set[str] = set()
        slow: list[Admitted] = []
        for run in () if self._closed else self._waiting:
            conversation = _conversation(run)
            if conversation not in busy and run.folder.run not in self._running:  # its own last try may yet be ending
                if run.slow:
                    slow.append(run)
                else:
                    begun.add(run.folder.run)
                    self._quick_queue.append(run)
            if conversation:
                busy.add(conversation)
        if self._quick_queue and self._quick_thread is None:
            self._quick_thread = threading.Thread(target=self._run_quick, name="quick", daemon=True)
            self._quick_thread.start()
        while slow and sum(self._slow.values()) < self._max_runs():
            run = self._next_slow(slow)
            slow.remove(run)
            begun.add(run.folder.run)
            self._slow[_is_task(run)] += 1
            self._task_last = _is_task(run)
            self._running[run.folder.run] = run
            threading.Thread(target=self._run_slow, args=(run,), name=f"run-{run.folder.run}", daemon=True).start()
        if begun:
            self._waiting = deque(run for run in self._waiting if run.folder.run not in begun)
        if self._quick_queue or not self._running:
            self._changed.notify_all()

    def _next_slow(self, slow: Sequence[Admitted]) -> Admitted:
        """The kind of which fewer are under way; of two equals the one whose turn it is. Then the order of arrival."""
        task = self._slow[True] < self._slow[False] or (self._slow[True] == self._slow[False] and not self._task_last)
        return next((run for run in slow if _is_task(run) == task), slow[0])

    def _ended(self, run: Admitted) -> None:
        del self._running[run.folder.run]
        self._cancelled.discard(run.folder.run)

    def _run_slow(self, run: Admitted) -> None:
        self._work([run])
        with self._changed:
            self._ended(run)
            self._slow[_is_task(run)] -= 1
            self._dispatch()
        self._hungry()

    def _run_quick(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._quick_queue))
                if not self._quick_queue:
                    return
                runs = [self._quick_queue.popleft() for _ in range(min(BATCH, len(self._quick_queue)))]
                self._running.update((run.folder.run, run) for run in runs)
            self._work(runs)
            with self._changed:
                for run in runs:
                    self._ended(run)
                if self._waiting:
                    self._dispatch()
                left = len(self._quick_queue)
                if not left:
                    self._changed.notify_all()
            if left <= LOW:
                self._hungry()


def _is_task(run: Admitted) -> bool:
    return bool(run.envelope.task)


def _conversation(run: Admitted) -> str:
    if run.envelope.task:
        return f"task {run.envelope.task}"
    return f"thread {run.command.thread}" if run.command.thread else ""
