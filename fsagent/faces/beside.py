"""HTTP beside the daemon, or alone: a server on a thread of its own, as the settings say, and again if it fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsagent.config import ApiSettings, Settings
from fsagent.errors import FsagentError
from fsagent.workspace.layout import Layout

if TYPE_CHECKING:
    from fsagent.faces.http.server import ApiServer

RETRY = 5.0
PATIENCE = 8.0

Tell = Callable[..., None]
Log = Callable[[str], None]


class Beside:
    """A companion of the daemon (``daemon.Companion``). Nothing is loaded while the settings ask for nothing.

    ``always`` serves even where the settings have no ``api:``, with its defaults. A port that is taken is tried again.
    ``log`` is given a line for each request that changed something or failed.
    """

    def __init__(self, layout: Layout, log: Log, *, always: bool = False) -> None:
        self._layout, self._log, self._always = layout, log, always
        self._tell: Tell = _nobody
        self._changed = threading.Condition()
        self._wanted: ApiSettings | None = None
        self._server: ApiServer | None = None
        self._thread: threading.Thread | None = None
        self._ending = False
        self._trouble = ""

    def configure(self, settings: Settings, tell: Tell) -> None:
        """Serve as these settings say, from now on; ``tell(event, **fields)`` what happens on the way."""
        self._tell = tell
        wanted = settings.api or (ApiSettings() if self._always else None)
        with self._changed:
            if wanted == self._wanted:
                return
            self._wanted = wanted
            if self._server:
                self._server.stop()
            if wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="api", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def trouble(self) -> str:
        """Why it does not serve, in words; empty if all is well."""
        return self._trouble

    def stop(self) -> None:
        """Stop serving, and wait for the end."""
        with self._changed:
            self._ending = True
            if self._server:
                self._server.stop()
            self._changed.notify_all()
        if self._thread:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        while wanted := self._next():
            trouble = ""
            try:
                self._serve(wanted)
            except FsagentError as error:
                trouble = str(error)
            except OSError as error:
                trouble = f"cannot listen on {wanted.listen}: {error.strerror or error}"
            except Exception as error:  # around a thread's loop: the daemon must not lose its face
                logging.getLogger("fsagent").exception("the API ended")
                trouble = f"ended by a fault of its own: {error!r}"
            with self._changed:
                self._server = None
                before, self._trouble = self._trouble, trouble
                if trouble and trouble != before:
                    self._tell("error", error=f"api: {trouble}")
                if trouble:
                    self._changed.wait_for(lambda: self._ending or self._wanted != wanted, RETRY)

    def _next(self) -> ApiSettings | None:
        """What is to be served now; waits until something is. None at the end."""
        with self._changed:
            if self._wanted is None:
                self._trouble = ""
            self._changed.wait_for(lambda: self._ending or self._wanted is not None)
            return None if self._ending else self._wanted

    def _serve(self, wanted: ApiSettings) -> None:
        from fsagent.faces.extras import need

        need("api")
        from fsagent.faces.http.server import ApiServer, bind, url_of
        from fsagent.workspace.tokens import Tokens

        Tokens(self._layout).ensure()
        with bind(wanted) as listener:
            server = ApiServer(self._layout, wanted, listener, self._log)
            with self._changed:
                if self._ending or self._wanted != wanted:
                    return
                self._server, self._trouble = server, ""
            self._tell("api started", url=url_of(listener))
            server.serve()


def _nobody(event: str, **fields: Any) -> None:
    """Nobody is told yet."""
