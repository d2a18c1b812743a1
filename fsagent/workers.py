"""The daemon's side of worker processes: starts them, hands runs to them, answers what they ask, and ends them.

One worker does one run at a time; idle ones wait a while for the next run and then leave. Each stands under a
supervisor (``tools/supervise.py``), so that a worker is ended with everything that it started: at the run's deadline,
when it does not stop, and when the daemon is gone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from fsagent.files.wire import Wire, WireError, answer
from fsagent.hosting import Host
from fsagent.tools.base import Context, Home
from fsagent.worker import IDLE, Clock, Job, Outcome

BEAT = 0.25
GRACE = 5.0
_SUPERVISOR = Path(__file__).with_name("tools") / "supervise.py"
_FOR_EVER = str(10 * 365 * 86400)
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "SSL_CERT_FILE",
         "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy",
         "no_proxy", "XDG_CACHE_HOME")  # fmt: skip


class WorkerLost(Exception):  # noqa: N818  # what becomes of the run is for the caller to say
    """The worker died in the middle of the run."""


class WorkerOverdue(Exception):  # noqa: N818
    """The run's time was up, or it was to stop, and the worker did not obey; it was ended with all it had started."""


class _Worker:
    """One process and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        report = os.open(os.devnull, os.O_WRONLY)
        try:
            control, self._control = os.pipe()
        except OSError:
            os.close(report)
            raise
        numbers = (control, report, theirs.fileno())
        command = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(control), str(report), _FOR_EVER, "0",
                   sys.executable, "-P", "-m", "fsagent.worker", str(theirs.fileno())]  # fmt: skip
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True, pass_fds=numbers,
            )  # fmt: skip
        except OSError:
            os.close(self._control)
            ours.close()
            raise
        finally:
            os.close(control)
            os.close(report)
            theirs.close()
        self.wire = Wire(ours)
        self.used = False
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Until the process and all it started have ended."""
        self._process.wait()
        self.end()

    def alive(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it with everything that it started, at once; returns when that is under way."""
        with self._lock:
            if self._control >= 0:
                os.close(self._control)
                self._control = -1
                self.wire.close()


class Workers:
    """A pool of workers. Safe to share between threads."""

    def __init__(self, root: Path, idle: float = IDLE) -> None:
        self._root, self._idle_for = root, idle
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._all: set[_Worker] = set()
        self._closed = False

    def run(
        self, run: str, engine: str, trigger: str, repeat: bool, host: Host, home: Home, context: Context
    ) -> Outcome:
        """Have a worker do a run to its end or to a pause. Raises ``WorkerLost``, ``WorkerOverdue``, ``OSError``."""
        while True:
            worker, fresh = self._take()
            job = Job(
                run=run, root=str(self._root), engine=engine, trigger=trigger, seconds=context.seconds_left(),
                repeat=repeat, max_output=context.max_output, idle=self._idle_for,
            )  # fmt: skip
            try:
                outcome = self._attend(worker, job, host, home, context)
            except WireError as error:
                worker.end()
                if worker.used or fresh:
                    raise WorkerLost(str(error)) from error
                continue  # it was just leaving, and had not begun
            except BaseException:
                worker.end()
                raise
            self._give_back(worker)
            return outcome

    def count(self) -> int:
        """How many worker processes there are."""
        with self._lock:
            return len(self._all)

    def close(self) -> None:
        """End all of them, and wait for that."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.wait()

    def _take(self) -> tuple[_Worker, bool]:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive():
                    worker.used = False
                    return worker, False
            worker = _Worker()
            self._all.add(worker)
        threading.Thread(target=self._watch, args=(worker,), name="worker", daemon=True).start()
        return worker, True

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if self._closed:
                worker.end()
            else:
                self._idle.append(worker)

    def _watch(self, worker: _Worker) -> None:
        """Wait for the end of a worker: it leaves by itself when it was idle for long."""
        worker.wait()
        with self._lock:
            self._all.discard(worker)
            with suppress(ValueError):
                self._idle.remove(worker)

    def _attend(self, worker: _Worker, job: Job, host: Host, home: Home, context: Context) -> Outcome:
        """Answer what the worker asks until it has done its job."""
        targets: dict[str, tuple[type, Any]] = {
            "host": (Host, host), "home": (Home, home), "clock": (Clock, _Clock(context)),
        }  # fmt: skip
        worker.wire.send({"job": job})
        told: float | None = None
        while True:
            message = worker.wire.receive(BEAT)
            if message is not None and "outcome" in message:
                return msgspec.convert(message["outcome"], Outcome)
            if message is not None:
                worker.used = True
                worker.wire.send(answer(message, targets))
            moment = time.monotonic()
            if told is None and context.stopping():
                told = moment
                worker.wire.send({"stop": True})
            if context.seconds_left() < -GRACE or (told is not None and moment - told > GRACE):
                worker.end()
                raise WorkerOverdue


class _Clock:
    """Answers for ``worker.Clock``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def now(self) -> datetime:
        return self._context.now()
