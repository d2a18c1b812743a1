"""Who may do what: one word per tool, or patterns of which the first that fits counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsagent.config import Rule, Settings, load_settings
from fsagent.policy import decide
from fsagent.tools import load_tools


def verdict(rule: Rule, subject: str, tool: str = "shell") -> str:
    return decide(tool, subject, lambda _: rule).decision


@pytest.mark.parametrize("word", ["allow", "ask", "deny"])
def test_one_word_holds_for_every_call(word: Rule) -> None:
    for subject in ("", "anything", "a/b", "x" * 10_000, "\n"):
        assert verdict(word, subject) == word


@pytest.mark.parametrize(
    ("subject", "decision"),
    [
        ("df -h", "allow"),
        ("df", "deny"),
        ("dfx -h", "deny"),
        ("DF -h", "deny"),
        (" df -h", "deny"),
        ("uptime", "allow"),
        ("uptime ", "deny"),
        ("rm -rf /", "ask"),
        ("rm x; df -h", "ask"),
        ("df -h\nrm -rf /", "allow"),
        ("cat a?b", "allow"),
        ("cat ab", "deny"),
        ("notes/a/b.md", "allow"),
        ("notes", "deny"),
        ("[x]", "deny"),
        ("", "deny"),
    ],
)
def test_the_first_pattern_that_fits_counts(subject: str, decision: str) -> None:
    rule: Rule = {
        "df *": "allow",
        "uptime": "allow",
        "rm *": "ask",
        "cat a?b": "allow",
        "notes/*": "allow",
        "df -h": "deny",
    }
    assert verdict(rule, subject) == decision


def test_the_order_is_the_order_of_the_file() -> None:
    assert verdict({"*": "deny", "df *": "allow"}, "df -h") == "deny"
    assert verdict({"df *": "allow", "*": "deny"}, "df -h") == "allow"


def test_where_no_pattern_fits_the_call_is_denied_and_the_reason_is_told() -> None:
    found = decide("write", "soul.md", lambda _: {"notes/*": "allow"})
    assert not found.allowed
    assert "no pattern of write fits 'soul.md'" in found.why
    assert decide("write", "", lambda _: {}).decision == "deny"


def test_a_person_is_told_by_which_rule_and_what_to_do() -> None:
    denied = decide("shell", "rm -rf /", lambda _: {"rm *": "deny"})
    assert "tools: shell: 'rm *': deny" in denied.why
    assert "fsagent.yaml" in denied.why
    asked = decide("write", "a", lambda _: "ask")
    assert (asked.decision, asked.allowed) == ("ask", False)
    assert "approvals are not built yet" in asked.why
    assert "counts as denied" in asked.why
    assert decide("read", "a", lambda _: "allow").why == ""


def test_only_shell_and_http_are_denied_from_the_start() -> None:
    rule_of = Settings().rule
    decisions = {name: decide(name, "x", rule_of).decision for name in load_tools()}
    assert {name for name, decision in decisions.items() if decision == "deny"} == {"shell", "http"}
    assert set(decisions.values()) == {"allow", "deny"}


def test_rules_as_a_person_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "fsagent.yaml"
    path.write_text(
        'tools:\n  shell: {"df *": allow, "*": deny}\n  http:\n    https://api.example.org/*: allow\n  write: deny\n'
    )
    rule_of = load_settings(path).rule
    assert decide("shell", "df -h", rule_of).allowed
    assert not decide("shell", "du -h", rule_of).allowed
    assert decide("http", "https://api.example.org/x", rule_of).allowed
    assert not decide("http", "https://api.example.org.evil.com/x", rule_of).allowed
    assert not decide("write", "x", rule_of).allowed
    assert decide("read", "x", rule_of).allowed


@given(
    st.dictionaries(st.text(max_size=8), st.sampled_from(["allow", "ask", "deny"]), max_size=4), st.text(max_size=12)
)
def test_nothing_is_allowed_without_a_pattern_that_says_so(rule: dict[str, str], subject: str) -> None:
    found = decide("shell", subject, lambda _: rule)  # type: ignore[arg-type, return-value]
    if found.allowed:
        assert "allow" in rule.values()
    assert found.allowed == (found.why == "")
