"""The server that a test holds in its hand; what is special to a provider lies in its ``Wire``."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread
from types import TracebackType
from typing import ClassVar, Self

from fsagent.testing.desk import Desk, Script
from fsagent.testing.handler import Http
from fsagent.testing.received import Received
from fsagent.testing.wire import Wire


class ScriptedServer:
    """A model server that answers by a script; use it as a context manager, or call ``start()`` and ``close()``.

    The script is a sequence of replies, one for each model request in the order of their arrival (some may be
    functions of the request), or one function for all. A function runs in the connection's thread, and ``close()``
    waits for it; what it raises is answered with 500, and raised again at the end of the ``with`` block.

    What the server itself refuses (a wrong key, an unknown model, tools, a conversation that the provider would not
    take) uses up no reply. After the last reply it answers 500 and says so, with ``x-should-retry: false``, which the
    providers' own clients heed.
    """

    wire: ClassVar[type[Wire]]

    def __init__(
        self, script: Script, *, key: str = "", models: Sequence[str] = (), tools: bool = True, strict: bool = True,
        keep_alive: bool = False, port: int = 0,
    ) -> None:  # fmt: skip
        """``key``: the only one that is let in. ``models``: those that there are; none given: any may be asked for.

        ``tools=False``: requests that offer tools are refused. ``strict=False``: conversations are taken that the
        provider would refuse, such as one with a tool call that has no result. ``keep_alive=True``: a connection may
        carry several requests, as a provider's does; without, a client that is never closed leaves none open either.
        ``port`` is where to listen, 0 for any free one: so a server can come back where it was.
        """
        self._wire = self.wire(key=key, models=tuple(models), tools=tools, strict=strict)
        self._desk = Desk(script)
        self._keep_alive, self._port = keep_alive, port
        self._http: Http | None = None
        self._thread: Thread | None = None
        self._root = ""

    def start(self) -> Self:
        """Listen on 127.0.0.1. A server starts once."""
        if self._root:
            raise RuntimeError("the server was started before; make a new one")
        self._http = Http(self._desk, self._wire, keep_alive=self._keep_alive, port=self._port)
        self._root = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.02,), name="scripted model server")
        self._thread.start()
        return self

    def close(self) -> None:
        """Break what is still answered, and return when no thread and no socket is left. What arrived stays."""
        http, thread = self._http, self._thread
        if http is None or thread is None:
            return
        self._http = self._thread = None
        http.shutdown()
        self._desk.close()
        http.break_connections()
        http.server_close()
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
        for fault in self._desk.faults:
            if error is None:
                raise fault
            error.add_note(f"In the script of the model server: {fault!r}")

    @property
    def root(self) -> str:
        """``http://127.0.0.1:PORT``."""
        if not self._root:
            raise RuntimeError("the server was not started")
        return self._root

    @property
    def base_url(self) -> str:
        """What a client of this provider takes as its base URL."""
        return self.root + self._wire.prefix

    @property
    def requests(self) -> list[Received]:
        """The model requests until now, in the order of their arrival, refused ones too."""
        return self._desk.requests

    @property
    def others(self) -> list[Received]:
        """What else was asked for until now, such as the list of models."""
        return self._desk.others

    @property
    def last(self) -> Received:
        """The newest model request."""
        return self.requests[-1]

    def prompts(self) -> list[str]:
        """The texts of the newest model request, in their order."""
        return self.last.texts

    @property
    def left(self) -> int:
        """How many replies of the script are not used yet; 0 where it is a function."""
        return self._desk.left

    def wait_for(self, n: int) -> Received:
        """Wait until ``n`` model requests have arrived; gives the n-th. Raises ``TimeoutError`` after 30 s."""
        return self._desk.wait_for(n)

    def wait_idle(self) -> None:
        """Wait until every model request has its answer, or its client has left. Raises ``TimeoutError`` after 30 s.

        That a client left is seen in ``hang()``; where a release is waited for, only at the next ``release()``.
        """
        self._desk.wait_idle()

    def release(self, n: int = 1) -> None:
        """Let the next ``n`` pieces of ``slow()`` and ``held()`` replies go, those too that nobody waits for yet."""
        self._desk.release(n)
