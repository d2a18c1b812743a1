"""Playbooks: tool calls that a person wrote down, filled in and carried out in order, with no model.

(The plain sentences have a test of their own: test_intents.py.)
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells import Programs
from fsagent.config import Rules
from fsagent.engines import engine_names, load_engine
from fsagent.engines.base import Request
from fsagent.engines.offline import Offline
from fsagent.errors import DocumentError
from fsagent.files.paths import SafeRoot
from fsagent.model import Command, Step, ToolCall, ToolResult, Turn
from fsagent.progress import Ending, Progress
from fsagent.runner import Runner
from fsagent.tools import load_tools
from fsagent.tools.base import Context
from fsagent.workspace.commands import read_command
from fsagent.workspace.runs import Envelope

NOW = datetime(2026, 11, 22, 17, 45, 12, tzinfo=ZoneInfo("Europe/Berlin"))
TOOLS = load_tools()


def command(steps: str, body: str = "", **envelope: Any) -> Command:
    """A command as a person drops it."""
    raw = f"---\nsteps:\n{steps}\n---\n{body}".encode()
    given: dict[str, Any] = {
        "run": "r1",
        "name": "taxes/x.md",
        "trigger": "inbox",
        "time": NOW,
        "path": "inbox/taxes/x.md",
    }
    return read_command(raw, Envelope(**given | envelope), timeout=60, retries=0, engine="auto")


class OneRequest:
    """A run's host that knows one request and keeps nothing."""

    def __init__(self, request: Request, rules: Rules) -> None:
        self.request, self.rules = lambda: request, lambda tool: rules
        self.standing = self.trusts = lambda tool, subject: False
        self.secrets = dict[str, str]
        self.record = lambda event, fields, durable: None
        self.exhausted = lambda used, steps, calls: ""
        self.keep = lambda name, text: name
        self.calls_left = lambda calls: 1e9


def run(folder: Path, what: Command, time_format: str = "%Y-%m-%d %H:%M:%S", allow: str = "allow") -> Ending:
    context = Context(
        root=SafeRoot(folder), home=cast(Any, Programs(folder, "off")), now=lambda: NOW, run="r1", trigger="inbox",
        seconds_left=lambda: 60.0, stopping=lambda: False,
    )  # fmt: skip
    request = Request(command=what, soul="", now=NOW, run="r1", time_format=time_format)
    rules: Rules = [("tools", cast(Any, allow))]
    return Runner(TOOLS).run(Offline(), OneRequest(request, rules), context, Progress(), False)


def faults(what: Command) -> list[tuple[int, str]]:
    return Runner(TOOLS).faults(what.steps)


def test_it_is_installed_as_any_engine_would_be() -> None:
    assert "offline" in engine_names()
    assert isinstance(load_engine("offline"), Offline)
    with pytest.raises(KeyError):
        load_engine("none")


def test_steps_are_done_in_order(tmp_path: Path) -> None:
    ending = run(
        tmp_path,
        command("""\
  - write: {path: notes/a.md, text: one}
  - append: {path: notes/a.md, text: two}
  - append: {path: notes/a.md, text: three}
  - read: notes/a.md"""),
    )
    assert (tmp_path / "notes" / "a.md").read_text() == "one\ntwo\nthree\n"
    assert ending.step.status == "done"
    assert "one\ntwo\nthree" in ending.step.answer
    assert ending.changed == ("notes/a.md",)
    assert not ending.step.quiet, "a step that reads has something to say"


def test_work_alone_is_quiet(tmp_path: Path) -> None:
    assert run(tmp_path, command("  - append: {path: log.txt, text: x}")).step.quiet
    assert not run(tmp_path, command("  - list: .")).step.quiet
    failing = command("  - read: {path: none}\n    on_error: continue\n  - append: {path: log.txt, text: x}")
    assert not run(tmp_path, failing).step.quiet, "a failure is told even where it was passed over"


# templates


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ now }}", "2026-11-22 17:45:12"),
        ("{{now}}", "2026-11-22 17:45:12"),
        ("{{   now   }}", "2026-11-22 17:45:12"),
        ("at {{ date }}, {{ time }}!", "at 2026-11-22, 17:45:12!"),
        ("{{ body }}", "the *body* {{ now }}"),
        ("{{ command.name }} {{ command.trigger }} {{ command.run }}", "taxes/x.md inbox r1"),
        ("[{{ command.thread }}]", "[taxes]"),
        ("[{{ command.task }}{{ command.slot }}{{ command.id }}]", "[]"),
        ("{ now } {{ }} {{}} { { now } }", "{ now } {{ }} {{}} { { now } }"),
        ("{{ now }", "{{ now }"),
    ],
)
def test_templates(tmp_path: Path, template: str, text: str) -> None:
    what = command(f"  - write: {{path: out.txt, text: '{template}'}}", "the *body* {{ now }}", thread="taxes")
    assert run(tmp_path, what).step.status == "done"
    assert (tmp_path / "out.txt").read_text() == text


def test_the_time_format_is_the_settings(tmp_path: Path) -> None:
    run(tmp_path, command("  - write: {path: out.txt, text: {{ now }}}"), time_format="%d.%m.%Y")
    assert (tmp_path / "out.txt").read_text() == "22.11.2026"


def test_the_slot_of_a_task_is_shown_in_its_zone(tmp_path: Path) -> None:
    slot = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
    what = command("  - write: {path: out.txt, text: '{{ command.task }} {{ command.slot }}'}", task="beat", slot=slot)
    run(tmp_path, what)
    assert (tmp_path / "out.txt").read_text() == "beat 2026-11-22 17:00:00"


def test_a_step_may_use_what_a_step_before_brought(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("from a {{ body }}")
    ending = run(tmp_path, command("  - read: a\n  - write: {path: b, text: 'got: {{ steps.1 }}'}", "BODY"))
    assert ending.step.status == "done"
    assert (tmp_path / "b").read_text() == "got: from a {{ body }}", "what is filled in is not looked at again"


def test_paths_may_hold_templates_and_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    run(root, command("  - write: {path: 'notes/{{ date }}.md', text: x}"))
    assert (root / "notes" / "2026-11-22.md").exists()
    ending = run(root, command("  - write: {path: '{{ body }}', text: x}", "../outside.txt"))
    assert ending.step.status == "refused"
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize(
    "name",
    [
        "steps.2",
        "steps.0",
        "steps.9",
        "steps.x",
        "nwo",
        "command.body.x",
        "command.secret",
        "body.x",
        "__class__",
        "now.year",
        "command",
        "steps",
    ],
)
def test_a_name_that_stands_for_nothing_ends_the_run(tmp_path: Path, name: str) -> None:
    what = command(f"  - append: {{path: a, text: x}}\n  - write: {{path: b, text: '{{{{ {name} }}}}'}}")
    ending = run(tmp_path, what)
    assert ending.step.status == "failed"
    assert f"{{{{ {name} }}}} stands for nothing" in ending.step.error
    assert "known are now, date, time, body" in ending.step.error
    assert "step 2" in ending.step.error
    assert not (tmp_path / "b").exists()


def header(value: str, turns: Sequence[Turn] = (), body: str = "") -> str:
    """What becomes of a header of http."""
    steps = tuple(ToolCall("http", {"": "https://x.example/{{ date }}", "headers": {"X": value}}) for _ in range(2))
    request = Request(command=Command(name="a.md", body=body, steps=steps), soul="", now=NOW, run="r")
    (call,) = Offline().decide(request, turns).calls
    assert call.args[""] == "https://x.example/2026-11-22"
    return str(call.args["headers"]["X"])


def test_a_header_of_http_keeps_its_secrets_for_the_tool() -> None:
    assert header("Bearer {{ secrets.github }}") == "Bearer {{ secrets.github }}"
    assert header("{{secrets.a-b_c}} {{ date }} {{ body }}", body="b") == "{{secrets.a-b_c}} 2026-11-22 b"
    with pytest.raises(ValueError, match="stands for nothing"):
        header("{{ secret.github }}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{{ body }}", "{{ secrets.github }}"),
        ("{{{ body }}", "{secrets.github}}"),
        ("{{ body }}s.github }}", "{{ secret"),
        ("{{ secrets.other }}{{ body }}", "{{ secrets.github }}"),
    ],
)
def test_what_is_filled_in_in_a_header_names_no_secret(value: str, text: str) -> None:
    with pytest.raises(ValueError, match="names a secret; only the steps themselves may do that"):
        header(value, body=text)
    turn = Turn(Step(calls=(ToolCall("read", {"path": "a"}),)), (ToolResult(text),))
    with pytest.raises(ValueError, match="names a secret"):
        header(value.replace("body", "steps.1"), [turn])


@pytest.mark.parametrize(
    "step",
    [
        "write: {path: b, text: '{{ secrets.github }}'}",
        "http: 'https://api.example.org/{{ secrets.github }}'",
        "http: {url: https://api.example.org/, body: '{{ secrets.github }}'}",
        "shell: {command: 'echo {{ secrets.github }}'}",
    ],
)
def test_a_secret_stands_nowhere_else(tmp_path: Path, step: str) -> None:
    ending = run(tmp_path, command(f"  - {step}"))
    assert ending.step.status == "failed"
    assert "stands for nothing here; a secret can stand in a header of http only" in ending.step.error


# errors


def test_the_first_step_that_fails_ends_the_run(tmp_path: Path) -> None:
    ending = run(tmp_path, command("  - append: {path: a, text: x}\n  - read: none\n  - append: {path: b, text: x}"))
    assert ending.step.status == "failed"
    assert ending.step.error.startswith("step 2 (read): there is no 'none'")
    assert "added 1 line to a" in ending.step.answer, "what was done is told"
    assert not (tmp_path / "b").exists()


def test_on_error_continue_passes_over_it_and_tells_it(tmp_path: Path) -> None:
    ending = run(
        tmp_path,
        command("""\
  - read: none
    on_error: continue
  - write: {path: b, text: 'before: [{{ steps.1 }}]'}"""),
    )
    assert ending.step.status == "done"
    assert "read failed: there is no 'none'" in ending.step.answer
    assert (tmp_path / "b").read_text() == "before: []"


def test_a_denied_step_is_a_refusal(tmp_path: Path) -> None:
    ending = run(tmp_path, command("  - shell: uptime"), allow="deny")
    assert ending.step.status == "refused"
    assert "fsagent.yaml" in ending.step.error


@pytest.mark.parametrize(
    ("steps", "line", "says"),
    [
        ("  - read: a\n  - rea: b", 4, "there is no tool 'rea' (did you mean 'read'?)"),
        ("  - write: {path: a, txt: b}", 3, "write has no argument 'txt' (did you mean 'text'?)"),
        ("  - read: a\n\n  - write: {path: a}", 5, "misses the argument 'text'"),
        ("  - append: log.txt", 3, "misses the argument 'text'"),
        ("  - list: .\n  - http: {url: x, methd: GET}", 4, "did you mean 'method'?"),
    ],
)
def test_mistakes_are_found_before_anything_runs_with_their_line(steps: str, line: int, says: str) -> None:
    ((at, why),) = faults(command(steps))
    assert at == line
    assert says in why


@pytest.mark.parametrize(
    ("steps", "line", "says"),
    [
        ("  - read", 3, "must name one tool"),
        ("  - {read: a, write: b}", 3, "must name one tool"),
        ("  - on_error: continue", 3, "must name one tool"),
        ("  - read: a\n  - read: b\n    on_error: perhaps", 4, "must be stop or continue"),
        ("  read: a", 2, "must be a list"),
        ("  - [read, a]", 3, "must name one tool"),
    ],
)
def test_steps_that_are_none_are_told_with_their_line(steps: str, line: int, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        command(steps)
    assert [fault.line for fault in caught.value.faults] == [line]
    assert says in str(caught.value)


def test_steps_may_be_quoted_as_json_is(tmp_path: Path) -> None:
    (call,) = command('  [{"read": "notes.md", "on_error": "continue"}]').steps
    assert (call.tool, call.args, type(call.tool)) == ("read", {"": "notes.md"}, str)


# nothing that is filled in becomes more than the one word it stands in

HOSTILE = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a && touch pwned",
    "| touch pwned",
    "> pwned",
    "' ; touch pwned ; '",
    '" ; touch pwned ; "',
    "\\",
    "a\ntouch pwned",
    "$HOME",
    "*",
    "~",
    "-n",
    "'",
    '"',
    "a  b",
    "{{ now }}",
    "#",
    "&",
    "ü 😀",
]


def shell_says(folder: Path, steps: str, body: str) -> str:
    ending = run(folder, command(steps, body))
    assert ending.step.status == "done", ending.step.error
    return ending.turns[-1].results[0].text


@pytest.mark.parametrize("body", HOSTILE)
@pytest.mark.parametrize(
    "line", ["printf [%s] {{ body }} end", "printf [%s] '{{ body }}' end", 'printf [%s] "{{ body }}" end']
)
def test_the_body_stays_one_word_of_a_command_line(tmp_path: Path, body: str, line: str) -> None:
    said = shell_says(tmp_path, f"  - shell:\n      command: >-\n        {line}", body)
    assert said == f"[{body.strip()}][end]"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("body", HOSTILE)
def test_what_a_step_before_brought_stays_one_word(tmp_path: Path, body: str) -> None:
    (tmp_path / "in.txt").write_text(body)
    assert (
        shell_says(tmp_path, "  - read: in.txt\n  - shell: printf [%s] pre{{ steps.1 }}post end", "x")
        == f"[pre{body}post][end]"
    )
    assert not (tmp_path / "pwned").exists()


def test_a_bare_value_and_a_list_are_guarded_alike(tmp_path: Path) -> None:
    body = "; touch pwned"
    assert shell_says(tmp_path, "  - shell: printf [%s] {{ body }}", body) == f"[{body}]"
    assert shell_says(tmp_path, "  - shell: {command: [printf, '[%s]', '{{ body }}']}", body) == f"[{body}]"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("word", ["{{ body }}", "{{ steps.1 }}", "{{ command.name }}", "x{{body}}y"])
@pytest.mark.parametrize("shell", ["true", "'yes'", "1", "'{{ body }}'"])
def test_a_line_for_a_shell_takes_nothing_but_the_time(tmp_path: Path, word: str, shell: str) -> None:
    what = command(
        f"  - append: {{path: a, text: x}}\n  - shell: {{command: 'echo {word}', shell: {shell}}}", "; touch pwned"
    )
    ending = run(tmp_path, what)
    assert ending.step.status == "failed"
    assert "hand the text over as stdin" in ending.step.error
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("line", ["sh -c 'echo {{ body }}'", "bash -lc '{{ steps.1 }}'", "python3 -c '{{ body }}'"])
@pytest.mark.parametrize("form", ["text", "list"])
def test_what_is_filled_in_is_never_a_program_for_an_interpreter(tmp_path: Path, line: str, form: str) -> None:
    call = json.dumps(line if form == "text" else shlex.split(line))
    what = command(f"  - append: {{path: a, text: x}}\n  - shell: {{command: {call}}}", "; touch pwned")
    ending = run(tmp_path, what)
    assert ending.step.status == "failed"
    assert "hand the text over as stdin" in ending.step.error
    assert not (tmp_path / "pwned").exists()


def test_a_filled_line_means_no_more_than_an_unfilled_one(tmp_path: Path) -> None:
    ending = run(tmp_path, command("  - shell: echo {{ body }} > out.txt", "hello"))
    assert ending.step.status == "failed"
    assert "only to a shell" in ending.step.error


def test_a_line_for_a_shell_takes_the_time_and_text_by_stdin(tmp_path: Path) -> None:
    said = shell_says(
        tmp_path,
        "  - shell: {command: 'echo {{ date }}; cat | tr a-z A-Z', shell: true, stdin: '{{ body }}'}",
        "$(touch pwned)",
    )
    assert said == "2026-11-22\n$(TOUCH PWNED)"
    assert not (tmp_path / "pwned").exists()


def test_a_quote_that_is_left_open_ends_the_run(tmp_path: Path) -> None:
    ending = run(tmp_path, command("  - shell:\n      command: echo 'open {{ body }}", "x"))
    assert ending.step.status == "failed"
    assert "quot" in ending.step.error


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_any_body_fills_exactly_one_argument(body: str) -> None:
    steps = (ToolCall("shell", {"": "prog a{{ body }}b '{{ body }} x' end"}),)
    request = Request(command=Command(name="x", body=body, steps=steps), soul="", now=NOW, run="r1")
    (call,) = Offline().decide(request, ()).calls
    assert call.args == {"command": ["prog", f"a{body}b", f"{body} x", "end"]}


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.text(max_size=10) | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6))  # fmt: skip
def test_values_without_templates_are_passed_on_as_they_are(value: Any) -> None:
    steps = (ToolCall("write", {"text": value}),)
    request = Request(command=Command(name="x", body="b", steps=steps), soul="", now=NOW, run="r1")
    if "{{" not in repr(value):
        assert Offline().decide(request, ()).calls[0].args == {"text": value}
