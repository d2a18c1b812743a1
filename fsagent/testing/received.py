"""A model request as it arrived, and its parts in words that are the same for both providers.

The readers are tolerant: what they do not know they leave out. ``body`` has everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant", "tool"]


class Said(NamedTuple):
    """A text in a request, and who said it; what a tool returned is said by ``tool``."""

    role: Role
    text: str


class Called(NamedTuple):
    """A tool call that the request's messages tell of. ``args`` is the text itself where that is not JSON."""

    id: str
    tool: str
    args: Any


@dataclass(frozen=True)
class Received:
    """A request: ``headers`` have lower-case names, ``path`` has no query, ``size`` is that of the body in bytes.

    ``body`` is the parsed JSON, or an empty dict where the body is none. ``number`` counts the model requests from 1.
    """

    number: int
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    size: int

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        """Whether the answer is to be a stream."""
        return self.body.get("stream") is True

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, as the provider has them."""
        found = self.body.get("messages")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    @property
    def said(self) -> list[Said]:
        """Every text of the conversation, in order, the system's first."""
        return [*_said("system", self.body.get("system")), *(one for each in self.messages for one in _of(each))]

    @property
    def texts(self) -> list[str]:
        """The same without who said it."""
        return [said.text for said in self.said]

    @property
    def system(self) -> str:
        """What the system says, as one text."""
        return "\n".join(said.text for said in self.said if said.role == "system")

    @property
    def results(self) -> list[str]:
        """What the tools returned, in order."""
        return [said.text for said in self.said if said.role == "tool"]

    @property
    def called(self) -> list[Called]:
        """The tool calls in the messages, in order."""
        return [one for message in self.messages for one in _calls(message)]

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model may call, as the provider has them, without OpenAI's wrapping."""
        found = self.body.get("tools")
        tools = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        return [each["function"] if isinstance(each.get("function"), dict) else each for each in tools]

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [str(each.get("name", "")) for each in self.offered]


def _of(message: Mapping[str, Any]) -> Iterator[Said]:
    role = message.get("role")
    if role == "developer":  # OpenAI's newer word
        role = "system"
    if role in ("system", "user", "assistant", "tool"):
        yield from _said(role, message.get("content"))


def _said(role: Role, content: Any) -> Iterator[Said]:
    """The texts of a content, which is a text or a list of blocks."""
    if isinstance(content, str):
        yield Said(role, content)
    for block in content if isinstance(content, list) else ():
        if isinstance(block, str):
            yield Said(role, block)
        elif isinstance(block, dict) and block.get("type") == "tool_result":
            yield from _said("tool", block.get("content"))
        elif isinstance(block, dict) and isinstance(block.get("text"), str):
            yield Said(role, block["text"])


def _calls(message: Mapping[str, Any]) -> Iterator[Called]:
    for each in message.get("tool_calls") or ():
        function = each.get("function") or {}
        yield Called(str(each.get("id", "")), str(function.get("name", "")), parsed(function.get("arguments")))
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_use":
            yield Called(str(block.get("id", "")), str(block.get("name", "")), block.get("input"))


def parsed(arguments: Any) -> Any:
    """A call's arguments as JSON says them; as they are where they are none."""
    try:
        return json.loads(arguments)
    except (TypeError, ValueError):
        return arguments
