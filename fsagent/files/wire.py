"""Calls between two processes over a socket: what the one asks by name, the other answers, as an interface says.

The interface is a class whose methods have plain, whole annotations: their types say how values travel (JSON, by
msgspec). An error of our own tree comes out on the other side as what it was; any other ends the exchange.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from fsagent import errors

MAX_FRAME = 64 * 1024 * 1024
_HEAD = struct.Struct(">I")


class WireError(Exception):
    """The other side is gone, or speaks another language."""


class Wire:
    """One end of a connected socket. Frames are JSON objects with their length before them.

    ``send`` may be called by several threads that take turns; ``receive`` belongs to one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def fileno(self) -> int:
        """For ``poll``."""
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one frame, whole. Raises ``WireError`` where nobody is there to take it."""
        data = msgspec.json.encode(message, enc_hook=_encode)
        try:
            self._socket.sendall(_HEAD.pack(len(data)) + data)
        except OSError as error:
            raise WireError(str(error)) from error

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The next frame; None where none came in time. Raises ``WireError`` at the end."""
        while True:
            frame = self._frame()
            if frame is not None:
                return frame
            try:
                if not _readable(self._socket, seconds):
                    return None
                chunk = self._socket.recv(65536)
            except (OSError, ValueError) as error:
                raise WireError(str(error)) from error
            if not chunk:
                raise WireError("the other side is gone")
            self._buffer += chunk

    def close(self) -> None:
        """Close the socket; whoever waits in ``receive`` learns of it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _frame(self) -> dict[str, Any] | None:
        if len(self._buffer) < _HEAD.size:
            return None
        (size,) = _HEAD.unpack_from(self._buffer)
        if size > MAX_FRAME:
            raise WireError(f"a frame of {size:,} bytes")
        if len(self._buffer) < _HEAD.size + size:
            return None
        data = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
        del self._buffer[: _HEAD.size + size]
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise WireError(str(error)) from error


def _readable(sock: socket.socket, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))


def stub(interface: type, name: str, ask: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """An object with the methods of ``interface``; each asks the other side for what ``name`` stands for there.

    ``ask`` sends a frame and gives the answer to it.
    """

    def method(each: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            answer = ask({"ask": f"{name}.{each}", "args": args})
            if "error" in answer:
                raise _error(answer["error"])
            return msgspec.convert(answer.get("value"), _hints(interface, each)["return"], dec_hook=_decode)

        return call

    return type(f"Far{interface.__name__}", (), {each: staticmethod(method(each)) for each in _methods(interface)})()


def answer(message: Mapping[str, Any], targets: Mapping[str, tuple[type, Any]]) -> dict[str, Any]:
    """The answer to a frame of a ``stub``. ``targets`` are interfaces and who answers for them, by name.

    Raises ``WireError`` for what is no question, and what a target raises beyond our own errors.
    """
    name, _, method = str(message.get("ask", "")).partition(".")
    if name not in targets or method not in _methods(targets[name][0]):
        raise WireError(f"asked for {message.get('ask')!r}")
    interface, target = targets[name]
    kinds = [kind for each, kind in _hints(interface, method).items() if each != "return"]
    args = [msgspec.convert(arg, kind, dec_hook=_decode) for arg, kind in zip(message["args"], kinds, strict=True)]
    try:
        return {"value": getattr(target, method)(*args)}
    except errors.FsagentError as error:
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KNOWN)
        return {"error": {"kind": kind, "text": str(error), "retryable": getattr(error, "retryable", False)}}


_KNOWN: dict[str, type[errors.FsagentError]] = {
    "ToolError": errors.ToolError, "UnsafePathError": errors.UnsafePathError, "PersonError": errors.PersonError,
    "FsagentError": errors.FsagentError,
}  # fmt: skip


def _error(told: Mapping[str, Any]) -> errors.FsagentError:
    kind = _KNOWN[told["kind"]]
    return (
        errors.ToolError(told["text"], retryable=told["retryable"]) if kind is errors.ToolError else kind(told["text"])
    )


@cache
def _methods(interface: type) -> tuple[str, ...]:
    return tuple(name for name, value in vars(interface).items() if callable(value) and not name.startswith("_"))


@cache
def _hints(interface: type, method: str) -> dict[str, Any]:
    return get_type_hints(getattr(interface, method))


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    for kind in (float, int, str):  # a number or text with a meaning of its own
        if isinstance(value, kind):
            return kind(value)
    # What msgspec asks its hooks to raise for a type that they do not know.
    raise NotImplementedError(f"{type(value).__name__} does not travel")


def _decode(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} does not travel")  # as in ``_encode``
