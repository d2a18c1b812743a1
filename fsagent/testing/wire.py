"""What a provider has of its own: paths, shapes, errors, and what it refuses. One implementation per provider."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fsagent.testing.received import Received
from fsagent.testing.replies import Answer, Call, Refusal

Part = bytes | None  # of a stream; None: what follows comes after a release
CREATED = 1_767_225_600  # 2026-01-01: a server that says the same each time has no clock


def broken(message: str) -> Refusal:
    """A fault of the test itself: 500, and both clients are told not to try again."""
    return Refusal(status=500, message=f"fsagent.testing: {message}", headers={"x-should-retry": "false"})


@dataclass(frozen=True)
class Wire(ABC):
    """How one provider speaks, and whom it lets in."""

    key: str = ""
    models: Sequence[str] = ()
    tools: bool = True
    strict: bool = True

    prefix = ""
    model_path = ""

    def objection(self, received: Received) -> Refusal | None:
        """What the provider refuses whatever its model would say."""
        if self.key and not self.knows(received):
            return Refusal(status=401)
        if received.path != self.model_path or received.method != "POST":
            return None
        if self.models and received.model not in self.models:
            return Refusal(status=404)
        if received.offered and not self.tools:
            return self.no_tools(received)
        fault = self.fault(received) if self.strict else ""
        return Refusal(status=400, message=fault) if fault else None

    def stream(self, answer: Answer, received: Received) -> Iterator[Part]:
        """The whole stream, in its parts."""
        yield from self.opening(answer, received)
        yield from self.ending(answer, received)

    @abstractmethod
    def knows(self, received: Received) -> bool:
        """Whether the request has the key."""

    @abstractmethod
    def no_tools(self, received: Received) -> Refusal:
        """What is said where tools are offered to a model that has none."""

    @abstractmethod
    def fault(self, received: Received) -> str:
        """What the provider would not take about the conversation, in its words."""

    @abstractmethod
    def lookup(self, path: str) -> dict[str, Any] | None:
        """What a GET answers; None: nothing is there."""

    @abstractmethod
    def error_body(self, refusal: Refusal, received: Received) -> dict[str, Any]:
        """An error in the provider's shape."""

    @abstractmethod
    def error_event(self, refusal: Refusal, received: Received) -> bytes:
        """The same in the middle of a stream."""

    @abstractmethod
    def whole(self, answer: Answer, received: Received) -> dict[str, Any]:
        """The answer outside of a stream."""

    @abstractmethod
    def opening(self, answer: Answer, received: Received) -> Iterator[Part]:
        """The events up to the end of the text."""

    @abstractmethod
    def ending(self, answer: Answer, received: Received) -> Iterator[Part]:
        """The events after that."""


def bearer(received: Received) -> str:
    """The token of ``Authorization: Bearer``, or nothing."""
    scheme, _, token = received.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def with_ids(answer: Answer, received: Received, prefix: str) -> tuple[Call, ...]:
    """The calls, each with its id: the same for the same request, others as the conversation grows."""
    turn = len(received.messages)
    return tuple(
        each if each.id else replace(each, id=f"{prefix}_{turn}_{n}") for n, each in enumerate(answer.calls, start=1)
    )


def gated(answer: Answer) -> Iterator[str | None]:
    """The text in its pieces, with a None where a release is waited for."""
    for n, piece in enumerate(answer.spoken()):
        if n and answer.pieces:
            yield None
        yield piece


def in_parts(arguments: str) -> Iterator[str]:
    """Arguments as a stream has them: a few parts, cut anywhere."""
    size = max(1, -(-len(arguments) // 3))
    return (arguments[at : at + size] for at in range(0, len(arguments), size))


def data(value: Any) -> bytes:
    """JSON as the providers send it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
