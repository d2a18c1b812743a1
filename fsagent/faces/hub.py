"""What happens in a workspace, told to any number of listeners on one event loop.

One watch and one reading of the journal serve them all. It rests while nobody listens: then it costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

from fsagent.faces.door import is_published
from fsagent.watcher import CHANGES, GROWTH, Watcher
from fsagent.workspace.journal import Entry, end_of, read_after
from fsagent.workspace.layout import Layout

REMEMBERED = 4096
CHECK = 15.0
CHECK_UNWATCHED = 0.25
LINGER = 60.0


class Pulse:
    """Beats when something happened in one place. Belongs to one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def beat(self) -> None:
        """Wake everybody who waits."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, count: int, seconds: float) -> bool:
        """True as soon as there was a beat after the ``count``-th; False if that takes longer."""
        if self.count != count:
            return True
        try:
            await asyncio.wait_for(self._event.wait(), max(0.0, seconds))
        except TimeoutError:
            return False
        return True


class Hub:
    """Pulses for ``journal``, ``root`` (soul.md, settings, STOP) and ``tasks``, and the journal's newest entries.

    Events of the system are hints: every ``CHECK`` seconds all pulses beat anyway (more often where nothing can be
    watched), so a listener that looks at the files at each beat misses nothing. Made and used on one event loop.
    """

    def __init__(self, layout: Layout, linger: float = LINGER) -> None:
        self._layout, self._linger = layout, linger
        self._loop = asyncio.get_running_loop()
        self.pulses = {"journal": Pulse(), "root": Pulse(), "tasks": Pulse()}
        self._listeners = 0
        self._tending: asyncio.Task[None] | None = None
        self.closed = False
        self._forget()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """While somebody is in here, the pulses beat."""
        self._listeners += 1
        if self._tending is None:
            self._tending = self._loop.create_task(self._tend())
        try:
            yield
        finally:
            self._listeners -= 1

    def end(self) -> str:
        """The position behind the newest record of the journal."""
        return end_of(self._layout.journal)

    def after(self, position: str) -> list[Entry]:
        """The records behind a position, at most a thousand. Raises ``ValueError`` for what is no position."""
        if self._tending is None:
            return read_after(self._layout.journal, position)
        self._catch_up()
        if position == self._end:
            return []
        if position in self._numbers:
            start = self._numbers[position] + 1 - (self._next - len(self._entries))
            return list(islice(self._entries, start, start + 1000))
        return read_after(self._layout.journal, position)

    async def published(self, run: str, seconds: float) -> bool:
        """True as soon as the result of a run is published; False if that takes longer."""
        end, pulse = self._loop.time() + seconds, self.pulses["journal"]
        async with self.listening():
            while True:
                count = pulse.count
                found = is_published(self._layout, run)
                left = end - self._loop.time()
                if found or left <= 0 or self.closed:
                    return found
                await pulse.wait(count, left)

    async def close(self) -> None:
        """Stop watching, now, and let everybody who waits go."""
        self.closed = True
        if self._tending:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        self._beat()

    def _forget(self) -> None:
        """Begin anew at the end of the journal; what lies before it is read from the files."""
        self._entries: deque[Entry] = deque(maxlen=REMEMBERED)
        self._numbers: dict[str, int] = {}  # position → number of the entry that ends there
        self._next = 0
        self._end = ""
        self._read_at = -1

    def _catch_up(self) -> None:
        """Read what is new in the journal: once a beat, whoever asks first."""
        count = self.pulses["journal"].count
        if self._read_at == count:
            return
        self._read_at = count
        if not self._end:
            self._end = self.end()
        while new := read_after(self._layout.journal, self._end):
            for entry in new:
                if len(self._entries) == REMEMBERED:
                    self._numbers.pop(self._entries[0].position, None)
                self._entries.append(entry)
                self._numbers[entry.position] = self._next
                self._next += 1
            self._end = new[-1].position

    async def _tend(self) -> None:
        """Watch while anybody listens, and a little longer: starting to watch is the dear part."""
        places = {
            "journal": (self._layout.journal, False, GROWTH),
            "root": (self._layout.root, False, CHANGES),
            "tasks": (self._layout.tasks, True, CHANGES),
        }
        daemons = {str(self._layout.status), str(self._layout.owner), str(self._layout.machine)}
        watcher = Watcher(places, self._heard, lambda path: path in daemons)
        try:
            watcher.start()
            alone = 0.0
            while alone < self._linger:
                await asyncio.sleep(pause := min(CHECK_UNWATCHED if watcher.trouble else CHECK, self._linger))
                alone = 0.0 if self._listeners else alone + pause
                watcher.check()
                self._beat()
        finally:
            self._tending = None
            self._forget()
            await asyncio.to_thread(watcher.stop)
            self._beat()

    def _beat(self) -> None:
        for pulse in self.pulses.values():
            pulse.beat()

    def _heard(self, place: str) -> None:
        """From watchdog's thread."""
        try:
            self._loop.call_soon_threadsafe(self.pulses[place].beat)
        except RuntimeError:
            pass  # the loop has ended meanwhile
