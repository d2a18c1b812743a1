"""What happens, as server-sent events: each record of the journal, with its position as the id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response, StreamingResponse

from fsagent.faces.http.problems import ProblemError
from fsagent.faces.http.table import Call
from fsagent.workspace.journal import Entry

SSE = "text/event-stream"
PING = 20.0


class EventsQuery(Struct, frozen=True):
    after: Annotated[str, Meta(max_length=40, description="like Last-Event-ID, which comes first")] = ""


class _Kind(Struct):
    event: str = "record"


async def events(call: Call) -> Response:
    """What happens in the workspace, as it happens: a stream of server-sent events.

    Each has an id. Who comes back with the last one in `Last-Event-ID` misses nothing, across restarts of everything.
    """
    hub = call.hub
    position = call.request.headers.get("last-event-id") or call.query.after or await call.off(hub.end)
    try:
        hub.after(position)
    except ValueError as error:
        raise ProblemError(400, f"Last-Event-ID: {error}") from None
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if call.request.method == "HEAD":
        return Response(media_type=SSE, headers=headers)
    return StreamingResponse(_stream(call, position), media_type=SSE, headers=headers)


async def _stream(call: Call, position: str) -> AsyncIterator[bytes]:
    """First the place in the journal, so that also a caller who saw no event can come back to it.

    Ends with the server, and (at the next event or ping) with the caller's token.
    """
    hub, pulse = call.hub, call.hub.pulses["journal"]
    yield b"retry: 3000\nid: %b\nevent: ready\ndata: {}\n\n" % position.encode()
    async with hub.listening():
        while not hub.closed and call.still_known():
            count = pulse.count
            entries = hub.after(position)
            if entries:
                position = entries[-1].position
                yield b"".join(map(_event, entries))
            elif not await pulse.wait(count, PING):
                yield b": still here\n\n"


def _event(entry: Entry) -> bytes:
    try:
        kind = msgspec.json.decode(entry.line, type=_Kind).event.replace("\n", " ")
    except msgspec.DecodeError:
        kind = "damaged"
    line = entry.line.replace(b"\r", b" ")
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (entry.position.encode(), kind.encode(), line)
