"""Telling clients that a resource changed: by ``resources/subscribe`` and, since 2026-07-28, ``subscriptions/listen``.

Nothing is watched while nobody wants to know. Limits: told is that something changed, not what; of several changes in
a moment the client hears once. status.md may be up to fifteen seconds behind. A client of the older protocols hears of
resources that come or go only while it has subscribed to one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST

from fsagent.errors import FsagentError
from fsagent.faces.mcp.resources import Resources, place_of

if TYPE_CHECKING:
    from mcp.server.connection import Connection
    from mcp.server.context import ServerRequestContext
    from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

    from fsagent.faces.hub import Hub

MOST = 200
STREAMS = 256
PATIENCE = 5.0
GATHER = 0.1
AGAIN = 1.5
LONG = 3600.0


class Changes:
    """Who wants to hear of which resource, and the one task that looks and tells. Used on one event loop."""

    def __init__(self, hub: Hub, resources: Resources) -> None:
        self._hub, self._resources = hub, resources
        self._wanted: Counter[str] = Counter()
        self._prints: dict[str, object] = {}
        self._list: object = None
        self._lists_wanted = 0
        self._clients: dict[Connection, set[str]] = {}
        self._bus = InMemorySubscriptionBus()
        self._streams = ListenHandler(self._bus, max_subscriptions=STREAMS)
        self._watching: asyncio.Task[None] | None = None

    async def subscribe(self, connection: Connection, uri: str) -> None:
        """Tell this client from now on, until it leaves. Raises ``PersonError`` for what is no resource."""
        place_of(uri)
        if connection not in self._clients:
            self._clients[connection] = set()
            self._lists_wanted += 1
            connection.exit_stack.callback(self._gone, connection)
        uris = self._clients[connection]
        if uri not in uris:
            self._check(len(uris) + 1)
            uris.add(uri)
            await self._want([uri])

    def unsubscribe(self, connection: Connection, uri: str) -> None:
        """Tell it no longer; nothing is wrong with not having subscribed."""
        uris = self._clients.get(connection, set())
        if uri in uris:
            uris.remove(uri)
            self._drop([uri])

    async def listen(
        self, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one stream of changes until its client closes it. Raises ``PersonError`` for what is no resource."""
        uris = list(dict.fromkeys(params.notifications.resource_subscriptions or ()))
        self._check(len(uris))
        for uri in uris:
            place_of(uri)
        with self._wanting(uris):
            await self._want(uris, count=False)
            return await self._streams(context, params)

    async def close(self) -> None:
        """End every stream and the watching."""
        self._streams.close()
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    @staticmethod
    def _check(count: int) -> None:
        if count > MOST:
            raise MCPError(INVALID_REQUEST, f"a client may subscribe to {MOST} resources at most")

    @contextmanager
    def _wanting(self, uris: Sequence[str]) -> Iterator[None]:
        self._wanted.update(uris)
        self._lists_wanted += 1
        try:
            yield
        finally:
            self._lists_wanted -= 1
            self._drop(uris)

    async def _want(self, uris: Sequence[str], *, count: bool = True) -> None:
        """Look at these now, so that every later change is one; and begin to watch."""
        if count:
            self._wanted.update(uris)
        new = [uri for uri in uris if uri not in self._prints]
        first = self._watching is None
        if first:
            self._watching = asyncio.create_task(self._watch())
        prints, list_ = await asyncio.to_thread(self._look, new)
        for uri, print_ in prints.items():
            self._prints.setdefault(uri, print_)
        if first:
            self._list = list_

    def _drop(self, uris: Sequence[str]) -> None:
        self._wanted.subtract(uris)
        self._wanted = +self._wanted
        for uri in uris:
            if uri not in self._wanted:
                self._prints.pop(uri, None)

    def _gone(self, connection: Connection) -> None:
        uris = self._clients.pop(connection, set())
        self._lists_wanted -= 1
        self._drop(list(uris))

    async def _watch(self) -> None:
        try:
            async with self._hub.listening():
                again = True
                while self._lists_wanted:
                    beaten = await self._beat(AGAIN if again else LONG)
                    await asyncio.sleep(GATHER)
                    prints, list_ = await asyncio.to_thread(self._look, list(self._wanted))
                    changed = [uri for uri, print_ in prints.items() if self._prints.get(uri, print_) != print_]
                    self._prints |= {uri: print_ for uri, print_ in prints.items() if uri in self._wanted}
                    came = self._list is not None and list_ is not None and list_ != self._list
                    self._list = list_ or self._list
                    await self._tell(changed, came=came)
                    again = beaten  # what the daemon writes a little later is looked at once more
        finally:
            self._watching, self._list = None, None

    def _look(self, uris: Sequence[str]) -> tuple[dict[str, object], object]:
        """Prints of these resources, and of the list; None while the list of runs cannot be read."""
        prints = {uri: self._resources.print_of(uri) for uri in uris}
        try:
            return prints, self._resources.print_of_list()
        except (FsagentError, OSError):
            return prints, None

    async def _beat(self, seconds: float) -> bool:
        """Wait for any of the hub's pulses; False if none came."""
        waits = [
            asyncio.create_task(pulse.wait(pulse.count, seconds))
            for name, pulse in self._hub.pulses.items()
            if name in ("root", "tasks", "journal")
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return any(wait.result() for wait in done)

    async def _tell(self, uris: Sequence[str], *, came: bool) -> None:
        for uri in uris:
            await self._bus.publish(ResourceUpdated(uri))
        if came:
            await self._bus.publish(ResourcesListChanged())
        for connection, wanted in list(self._clients.items()):
            try:
                async with asyncio.timeout(PATIENCE):
                    for uri in wanted.intersection(uris):
                        await connection.send_resource_updated(uri)
                    if came:
                        await connection.send_resource_list_changed()
            except TimeoutError:
                continue  # a client that does not read keeps nobody else waiting
