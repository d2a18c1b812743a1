"""What a run asks of the house around it."""

from __future__ import annotations

from typing import Any, Protocol

from fsagent.config import Rules
from fsagent.engines.base import Request
from fsagent.model import Usage


class Host(Protocol):
    """What a run asks of the house around it. The daemon answers, also where the run is in a worker process; so what
    goes in and out are plain values."""

    def request(self) -> Request:
        """What the engine is asked, as things are now; without tools and link."""
        ...

    def rules(self, tool: str) -> Rules:
        """What the settings, and the command, say of a tool."""
        ...

    def standing(self, tool: str, subject: str) -> bool:
        """True if a person allowed this for good."""
        ...

    def trusts(self, tool: str, subject: str) -> bool:
        """True if what this call brings counts as the owner's own text."""
        ...

    def secrets(self) -> dict[str, str]:
        """The secrets that nobody may see, by name."""
        ...

    def record(self, event: str, fields: dict[str, Any], durable: bool) -> None:
        """Write one record of the run; ``durable`` before anything that cannot be taken back."""
        ...

    def exhausted(self, used: Usage, steps: int, calls: int) -> str:
        """Why a run that has used so much may not go on, in words; "" where it may."""
        ...

    def calls_left(self, calls: int) -> float:
        """How many tool calls a run that has made so many may still make."""
        ...

    def keep(self, name: str, text: str) -> str:
        """Keep a long output whole; gives the path under which ``read`` finds it."""
        ...
