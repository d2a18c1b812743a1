"""Where a server's threads and the test meet: what arrived, how far the script is, what was released."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Condition

from fsagent.testing.received import Received
from fsagent.testing.replies import Reply
from fsagent.testing.wire import broken

PATIENCE = 30.0
Step = Reply | Callable[[Received], Reply]
Script = Iterable[Step] | Callable[[Received], Reply]


class Desk:
    """Safe to use from any thread."""

    def __init__(self, script: Script) -> None:
        self._script: list[Step] | Callable[[Received], Reply] = script if callable(script) else list(script)
        self._state = Condition()
        self._used = self._released = self._busy = 0
        self._requests: list[Received] = []
        self._others: list[Received] = []
        self._faults: list[BaseException] = []
        self._closing = False

    def arrived(self, make: Callable[[int], Received], *, for_model: bool) -> Received:
        """Keep a request; ``make`` is given its number."""
        with self._state:
            received = make(len(self._requests) + 1 if for_model else 0)
            (self._requests if for_model else self._others).append(received)
            self._busy += for_model
            self._state.notify_all()
        return received

    def done(self) -> None:
        """A model request needs nothing more."""
        with self._state:
            self._busy -= 1
            self._state.notify_all()

    def next_reply(self, received: Received) -> Reply:
        """What the script says."""
        with self._state:
            if callable(self._script):
                step: Step = self._script
            elif self._used < len(self._script):
                step = self._script[self._used]
                self._used += 1
            else:
                return broken(f"the script is used up: it has {self._used} replies, and one more was asked for")
        reply = step(received) if callable(step) else step
        if not isinstance(reply, Reply):
            raise TypeError(f"a script answers with text(), calls(), error() and so on, not with {reply!r}")
        return reply

    def released(self, gone: Callable[[], bool]) -> bool:
        """Wait for one release, and take it; False where the server closes first, or the client is ``gone``."""
        with self._state:
            self._state.wait_for(lambda: self._released > 0 or self._closing)
            if self._closing or gone():
                return False
            self._released -= 1
            return True

    def release(self, n: int) -> None:
        """Give ``n`` releases, to whoever waits or will wait."""
        with self._state:
            self._released += n
            self._state.notify_all()

    def close(self) -> None:
        """Nobody waits for a release any more."""
        with self._state:
            self._closing = True
            self._state.notify_all()

    def failed(self, fault: BaseException) -> None:
        """Keep what a function of the script raised; once, however often it is told."""
        with self._state:
            if fault not in self._faults:
                self._faults.append(fault)

    @property
    def requests(self) -> list[Received]:
        """The model requests until now."""
        with self._state:
            return list(self._requests)

    @property
    def others(self) -> list[Received]:
        """The other requests until now."""
        with self._state:
            return list(self._others)

    @property
    def faults(self) -> list[BaseException]:
        """What the script's functions raised."""
        with self._state:
            return list(self._faults)

    @property
    def left(self) -> int:
        """How many replies are not used yet; 0 where the script is a function."""
        with self._state:
            return 0 if callable(self._script) else len(self._script) - self._used

    def wait_for(self, n: int) -> Received:
        """The n-th model request, once it is there. Raises ``TimeoutError``."""
        with self._state:
            if not self._state.wait_for(lambda: len(self._requests) >= n, PATIENCE):
                raise TimeoutError(f"{len(self._requests)} model requests came in {PATIENCE:.0f} s, not {n}")
            return self._requests[n - 1]

    def wait_idle(self) -> None:
        """Wait until no model request is being answered. Raises ``TimeoutError``."""
        with self._state:
            if not self._state.wait_for(lambda: not self._busy, PATIENCE):
                raise TimeoutError(f"{self._busy} model requests are still being answered after {PATIENCE:.0f} s")
