"""Who may do what: ``decide`` answers allow, ask or deny for a tool call, before it happens.

Policy wraps tool calls from outside; no tool asks for leave itself. How a person is asked, and what becomes of their
answer, is in ``consent``.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from msgspec import Struct

from fsagent.config import Decision, Rule, Rules

_STRICTER: dict[Decision, int] = {"allow": 0, "ask": 1, "deny": 2}


class Verdict(Struct, frozen=True):
    """A decision and, for people, the reason for it. A ``firm`` one holds though a person allowed the call for good."""

    decision: Decision
    why: str = ""
    firm: bool = False

    @property
    def allowed(self) -> bool:
        """True when the call may happen now."""
        return self.decision == "allow"


def decide(tool: str, subject: str, rules: Rules) -> Verdict:
    """May this call happen? ``subject`` is exactly what it would use (a path, a command line, a URL).

    A rule is one word, or patterns (``*`` and ``?`` fit anything, ``/`` too) of which the first that fits counts; where
    none fits the call is denied. Of several rules the strictest decision counts, so one can only narrow another.
    """
    decision, by = max((_apply(rule, where, subject) for where, rule in rules), key=lambda each: _STRICTER[each[0]])
    if decision == "allow":
        return Verdict("allow")
    if decision == "ask":
        return Verdict("ask", f"{tool} needs an approval ({by})")
    return Verdict("deny", f"{tool} is denied by the settings ({by}); only a person can allow it, in fsagent.yaml")


def never_allowed(rules: Rules) -> bool:
    """True if these rules deny a tool whatever it is used on."""
    return any(
        all(word == "deny" for word in (rule.values() if isinstance(rule, dict) else (rule,))) for _, rule in rules
    )


def _apply(rule: Rule, where: str, subject: str) -> tuple[Decision, str]:
    """What one rule decides, and by which line of the settings."""
    if isinstance(rule, str):
        return rule, f"{where}: {rule}"
    for pattern, decision in rule.items():
        if fnmatchcase(subject, pattern):
            return decision, f"{where}: {pattern!r}: {decision}"
    return "deny", f"{where}: no pattern fits {subject!r}"
