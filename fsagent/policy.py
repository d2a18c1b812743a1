"""Who may do what: ``decide`` answers allow, ask or deny for a tool call, before it happens.

Policy wraps tool calls from outside; no tool asks for leave itself. Limit: ``ask`` means deny until approvals exist.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from msgspec import Struct

from fsagent.config import Decision, Rule


class Verdict(Struct, frozen=True):
    """A decision and, for people, the reason for it."""

    decision: Decision
    why: str = ""

    @property
    def allowed(self) -> bool:
        """True when the call may happen now."""
        return self.decision == "allow"


def decide(tool: str, subject: str, rule_of: Callable[[str], Rule]) -> Verdict:
    """May this call happen? ``subject`` is exactly what it would use (a path, a command line, a URL).

    A rule is one word, or patterns (``*`` and ``?`` fit anything, ``/`` too) of which the first that fits counts; where
    none fits the call is denied.
    """
    rule = rule_of(tool)
    if isinstance(rule, str):
        decision, by = rule, f"tools: {tool}: {rule}"
    else:
        pattern = next((pattern for pattern in rule if fnmatchcase(subject, pattern)), None)
        decision = rule[pattern] if pattern is not None else "deny"
        by = (
            f"tools: {tool}: {pattern!r}: {decision}"
            if pattern is not None
            else f"no pattern of {tool} fits {subject!r}"
        )
    if decision == "allow":
        return Verdict("allow")
    if decision == "ask":
        return Verdict("ask", f"{tool} needs an approval ({by}), and approvals are not built yet: it counts as denied")
    return Verdict("deny", f"{tool} is denied by the settings ({by}); only a person can allow it, in fsagent.yaml")
