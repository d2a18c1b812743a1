"""A worker process: it hosts the same runner as the daemon does, for engines that are heavy, slow or not trusted.

The daemon starts it (``workers``) and speaks to it over one socket. It gets a job, asks the daemon for whatever it
needs (``Host``, ``Home``), and says how the run ended. It holds no state that counts: when the daemon is gone, so is
the worker, in the middle of whatever it does. After ``IDLE`` seconds without a job it leaves.
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from fsagent.consent import ApprovalNeeded
from fsagent.engines import load_engine
from fsagent.engines.base import Engine
from fsagent.files.wire import Wire, WireError, stub
from fsagent.hosting import Host
from fsagent.model import Step
from fsagent.progress import Ending, replay
from fsagent.runner import Runner, Stopped
from fsagent.secrets import RedactedStream, Redactor
from fsagent.tools import load_tools
from fsagent.tools.base import Context, Home
from fsagent.tools.servers.client import Servers
from fsagent.tools.servers.tool import load_server_tools
from fsagent.workspace.layout import Layout
from fsagent.workspace.reserved import tools_root
from fsagent.workspace.runs import RunFolder

IDLE = 60.0
MOST_MEMORY = 600 * 1024 * 1024
MOST_PROGRESS = 1024 * 1024


class Job(Struct, frozen=True, kw_only=True):
    """One run for a worker. ``seconds`` is how long it may take from now on."""

    run: str
    root: str
    engine: str
    trigger: str
    seconds: float
    repeat: bool
    max_output: int
    idle: float = IDLE


class Outcome(Struct, frozen=True, omit_defaults=True):
    """How a job ended: with an ending, stopped, with questions (recorded by then), or by a fault of ours."""

    ending: Ending | None = None
    stopped: bool = False
    asks: bool = False
    fault: str = ""
    where: str = ""


class Clock(Protocol):
    """The daemon's clock."""

    def now(self) -> datetime:
        """The wall clock, in the workspace's time zone."""
        ...


def main() -> None:
    """Serve the daemon on the socket whose number is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which tells us
    wire = Wire(socket.socket(fileno=int(sys.argv[1])))
    worker = Worker(wire)
    threading.Thread(target=worker.listen, name="wire", daemon=True).start()
    worker.serve()
    os._exit(0)  # libraries' threads have nothing to finish


class Worker:
    """See the module. ``listen`` belongs to one thread, ``serve`` to another."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._jobs: queue.Queue[Job] = queue.Queue()
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stop = threading.Event()
        self._asking = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._servers = Servers()

    def listen(self) -> None:
        """Take what the daemon sends; when it is gone, end everything at once."""
        try:
            while True:
                message = self._wire.receive()
                if message is None:
                    continue
                if "job" in message:
                    self._stop.clear()
                    self._jobs.put(msgspec.convert(message["job"], Job))
                elif "stop" in message:
                    self._stop.set()
                else:
                    self._answers.put(message)
        except WireError:
            os._exit(0)

    def serve(self) -> None:
        """Do jobs until none has come for a while, or this process has grown too large."""
        idle = IDLE
        while True:
            try:
                job = self._jobs.get(timeout=idle)
            except queue.Empty:
                return
            idle = job.idle
            outcome = self._do(job)
            try:
                self._wire.send({"outcome": outcome})
            except WireError:
                return
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MOST_MEMORY:
                return

    def _do(self, job: Job) -> Outcome:
        try:
            return Outcome(ending=self._run(job))
        except Stopped:
            return Outcome(stopped=True)
        except ApprovalNeeded:
            return Outcome(asks=True)
        except WireError:
            os._exit(0)
        except Exception as error:  # noqa: BLE001  # around one command: the daemon journals it
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(fault=repr(error), where=f"{Path(frame.filename).name}:{frame.lineno}")

    def _run(self, job: Job) -> Ending:
        host: Host = stub(Host, "host", self._ask)
        home: Home = stub(Home, "home", self._ask)
        clock: Clock = stub(Clock, "clock", self._ask)
        layout = Layout(Path(job.root))
        folder = RunFolder(layout.runs / job.run)
        deadline = time.monotonic() + job.seconds
        context = Context(
            root=tools_root(layout), home=home, now=clock.now, run=job.run, trigger=job.trigger,
            seconds_left=lambda: deadline - time.monotonic(), stopping=self._stop.is_set, max_output=job.max_output,
        )  # fmt: skip
        try:
            if job.engine not in self._engines:
                self._engines[job.engine] = load_engine(job.engine)
        except ImportError as error:
            why = f"the engine {job.engine} needs {error.name or error}, which is not installed"
            return Ending(Step(status="failed", error=f"{why}; try: pip install 'fsagent[{job.engine}]'"))
        tools = load_tools() | load_server_tools(home, self._servers, context.stopping, context.seconds_left)
        link = _Link(folder.progress, context, Redactor(host.secrets()).stream())
        try:
            return Runner(tools).run(
                self._engines[job.engine], host, context, replay(folder.events()), job.repeat, link
            )
        finally:
            link.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._asking:
            self._wire.send(message)
            return self._answers.get()


class _Link:
    """What an engine says while it decides goes into the run's folder (``progress.md``), without secrets."""

    def __init__(self, path: Path, context: Context, redacted: RedactedStream) -> None:
        self._path, self._context, self._redacted = path, context, redacted
        self._fd = -1
        self._written = 0

    def seconds_left(self) -> float:
        return self._context.seconds_left()

    def stopping(self) -> bool:
        return self._context.stopping()

    def tell(self, text: str) -> None:
        self._write(self._redacted.feed(text))

    def close(self) -> None:
        self._write(self._redacted.end())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, text: str) -> None:
        if not text or self._written >= MOST_PROGRESS:
            return
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o644)
        self._written += os.write(self._fd, text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
