"""Who may do what: one word per tool, or patterns of which the first that fits counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsagent.config import Decision, Rule, Settings, load_settings
from fsagent.model import Trigger
from fsagent.policy import decide
from fsagent.tools import load_tools
from harness import Agent, wait_for


def verdict(rule: Rule, subject: str, tool: str = "shell") -> str:
    return decide(tool, subject, [(f"tools: {tool}", rule)]).decision


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
    found = decide("write", "soul.md", [("tools: write", {"notes/*": "allow"})])
    assert not found.allowed
    assert "tools: write: no pattern fits 'soul.md'" in found.why
    assert verdict({}, "") == "deny"


def test_a_person_is_told_by_which_rule_and_what_to_do() -> None:
    denied = decide("shell", "rm -rf /", [("tools: shell", {"rm *": "deny"})])
    assert "tools: shell: 'rm *': deny" in denied.why
    assert "fsagent.yaml" in denied.why
    asked = decide("write", "a", [("tools: write", "ask")])
    assert (asked.decision, asked.allowed) == ("ask", False)
    assert asked.why == "write needs an approval (tools: write: ask)"
    assert decide("read", "a", [("tools: read", "allow")]).why == ""


def test_only_shell_and_http_are_denied_from_the_start() -> None:
    decisions = {name: decide(name, "x", Settings().rules("inbox", name)).decision for name in load_tools()}
    assert {name for name, decision in decisions.items() if decision == "deny"} == {"shell", "http"}
    assert set(decisions.values()) == {"allow", "deny"}


def test_rules_as_a_person_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "fsagent.yaml"
    path.write_text(
        'tools:\n  shell: {"df *": allow, "*": deny}\n  http:\n    https://api.example.org/*: allow\n  write: deny\n'
    )
    settings = load_settings(path)

    def allowed(tool: str, subject: str) -> bool:
        return decide(tool, subject, settings.rules("inbox", tool)).allowed

    assert allowed("shell", "df -h")
    assert not allowed("shell", "du -h")
    assert allowed("http", "https://api.example.org/x")
    assert not allowed("http", "https://api.example.org.evil.com/x")
    assert not allowed("write", "x")
    assert allowed("read", "x")


DECISIONS = ["allow", "ask", "deny"]


@pytest.mark.parametrize("first", DECISIONS)
@pytest.mark.parametrize("second", DECISIONS)
def test_of_several_rules_the_strictest_counts(first: Decision, second: Decision) -> None:
    found = decide("write", "a", [("tools: write", first), ("triggers: http: write", second)])
    assert found.decision == max(first, second, key=DECISIONS.index)
    stricter = "triggers: http: write" if DECISIONS.index(second) > DECISIONS.index(first) else "tools: write"
    assert found.why == "" if found.allowed else f"({stricter}: {found.decision})" in found.why


def test_a_trigger_narrows_and_the_refusal_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "fsagent.yaml"
    path.write_text(
        "tools: {write: {'secret/*': deny, '*': allow}}\n"
        "triggers:\n  http: {shell: allow, write: {'notes/*': allow, 'secret/*': allow, '*': deny}}\n"
        "  mcp: {read: deny}\n"
    )
    settings = load_settings(path)

    def why(trigger: Trigger, tool: str, subject: str) -> str:
        return decide(tool, subject, settings.rules(trigger, tool)).why

    assert why("http", "write", "notes/a.md") == why("inbox", "write", "b.md") == why("http", "read", "b.md") == ""
    assert "(triggers: http: write: '*': deny)" in why("http", "write", "b.md")
    assert "(tools: write: 'secret/*': deny)" in why("http", "write", "secret/a.md"), "it adds nothing"
    assert "(tools: shell: deny)" in why("http", "shell", "ls"), "it adds nothing"
    assert "(triggers: mcp: read: deny)" in why("mcp", "read", "a")
    assert why("cli", "read", "a") == ""


def test_what_one_trigger_may_not_do_another_still_may(tmp_path: Path) -> None:
    """A real daemon: by the command line nothing is appended, by a file it is; new settings count at once."""
    quick = "scan_interval: 0.2s\nsettle: 0.05s\nsettle_renamed: 0.05s\n"
    agent = Agent(tmp_path / "ws", quick + "triggers: {cli: {append: deny}}\n").start()
    try:
        denied = agent.cli("ask", "Add milk to shopping.md")
        assert denied.returncode == 4, denied.stdout + denied.stderr
        assert "append is denied by the settings (triggers: cli: append: deny)" in denied.stdout
        assert not (agent.root / "shopping.md").exists()
        agent.drop("a.md", "Add milk to shopping.md")
        assert agent.result("a.md")["status"] == "done"
        assert (agent.root / "shopping.md").read_text() == "milk\n"
        agent.layout.settings.write_text(quick + "triggers: {inbox: {append: deny}}\n")
        wait_for(lambda: "settings read" in agent.output(), "the settings are read")
        agent.drop("b.md", "Add eggs to shopping.md")
        assert agent.result("b.md")["status"] == "refused"
        assert agent.cli("ask", "Add tea to shopping.md").returncode == 0
        assert (agent.root / "shopping.md").read_text() == "milk\ntea\n"
    finally:
        agent.close()


@given(
    st.dictionaries(st.text(max_size=8), st.sampled_from(DECISIONS), max_size=4), st.sampled_from(DECISIONS), st.text()
)
def test_no_trigger_ever_adds_to_what_is_allowed(rule: dict[str, Decision], word: Decision, subject: str) -> None:
    rules: list[tuple[str, Rule]] = [("tools: shell", rule), ("triggers: http: shell", word)]
    for pair in (rules, rules[::-1]):
        assert decide("shell", subject, pair).allowed == all(decide("shell", subject, [each]).allowed for each in pair)


@given(
    st.dictionaries(st.text(max_size=8), st.sampled_from(["allow", "ask", "deny"]), max_size=4), st.text(max_size=12)
)
def test_nothing_is_allowed_without_a_pattern_that_says_so(rule: dict[str, str], subject: str) -> None:
    found = decide("shell", subject, [("tools: shell", rule)])  # type: ignore[list-item]
    if found.allowed:
        assert "allow" in rule.values()
    assert found.allowed == (found.why == "")
