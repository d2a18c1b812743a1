"""What a run promised to leave (``expects``), when it is told (``report``), and how long it waits (``backoff``)."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fsagent.contract import judged, promise_of
from fsagent.engines.base import Request
from fsagent.engines.model import prompt
from fsagent.errors import DocumentError
from fsagent.files.paths import SafeRoot
from fsagent.model import Command, Expects, Run, Step, ToolCall, ToolResult, Turn, Usage
from fsagent.progress import Ending, replay
from fsagent.workspace.commands import read_command
from fsagent.workspace.runs import Envelope, RunFolder, drop, new_run_id
from harness import Agent, wait_for
from journals import read_records
from test_rule_of_two import House as RunnerHouse
from test_rule_of_two import Swayed, does

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FAST = "settle: 0s\nsettle_renamed: 0s\n"
SHELL = FAST + "sandbox: off\ntools: {shell: allow}\n"
BROKEN = "did not leave what it promised (expects): "
pytestmark = pytest.mark.timeout(120)


def playbook(*steps: str, **fields: str) -> str:
    lines = [f"{name}: {value}\n" for name, value in fields.items()] + [
        "steps:\n",
        *(f"  - {step}\n" for step in steps),
    ]
    return f"---\n{''.join(lines)}---\n"


@pytest.fixture
def agent(tmp_path: Path):
    agent = Agent(tmp_path / "ws", SHELL)
    yield agent
    agent.close()


def outcome(agent: Agent, name: str, text: str) -> tuple[str, str]:
    """Have a command run to its end: its status and its error."""
    agent.drop(name, text)
    agent.once()
    result = agent.result(name)
    return str(result["status"]), str(result.get("error", ""))


def retry_of(agent: Agent) -> dict[str, Any] | None:
    """The record that a run is to be tried again, once there is one."""
    records = [record for path in sorted(agent.layout.journal.glob("*.jsonl")) for _, record in read_records(path)]
    return next((record for record in records if record and record["event"] == "retry"), None)


# what is promised


def test_a_file_that_is_there_keeps_the_promise(agent: Agent) -> None:
    kept = playbook("write: {path: out/report.md, text: hi}", expects="{file: out/report.md}")
    assert outcome(agent, "a.md", kept) == ("done", "")
    idle = playbook("list: .", expects="{file: other.md}")
    assert outcome(agent, "b.md", idle) == ("failed", f"{BROKEN}other.md is not there")
    assert (agent.layout.failed / "b.md").exists(), "a promise that was not kept is a failure like any other"
    assert "**Failed:** did not leave what it promised" in agent.result("b.md").content
    assert outcome(agent, "c.md", playbook("list: .", expects="{file: out}"))[1] == f"{BROKEN}out is no file"


def test_an_old_file_is_no_new_one(agent: Agent) -> None:
    report = agent.root / "report.md"
    report.write_text("old")
    os.utime(report, (2**33, 2**33))  # far in the future: no clock is asked
    idle = playbook("list: .", expects="{file: report.md, newer: true}")
    assert outcome(agent, "a.md", idle) == ("failed", f"{BROKEN}report.md was not written")
    same = playbook("write: {path: report.md, text: old}", expects="{file: report.md, newer: true}")
    assert outcome(agent, "b.md", same) == ("done", ""), "written anew, with the same words"
    before = playbook("shell: rm report.md", expects="{file: report.md, newer: true}")
    assert outcome(agent, "c.md", before)[1] == f"{BROKEN}report.md is not there"
    assert outcome(agent, "d.md", same)[0] == "done", "where there was none"


def test_the_day_may_stand_in_the_name(agent: Agent) -> None:
    steps = ("write: {path: 'r/{{ date }}.md', text: hi}",)
    assert outcome(agent, "a.md", playbook(*steps, expects="{file: 'r/{{ date }}.md', newer: true}"))[0] == "done"
    today = next((agent.root / "r").iterdir()).name
    why = outcome(agent, "b.md", playbook("list: .", expects="{file: 'r/{{date}}.md', newer: true}"))[1]
    assert why == f"{BROKEN}r/{today} was not written"


def test_a_run_over_midnight_may_write_for_either_day(tmp_path: Path) -> None:
    root, expects = SafeRoot(tmp_path), Expects(file="{{ date }}.md", newer=True)
    evening, morning = NOON.replace(hour=23), NOON.replace(day=23, hour=0)
    promised = promise_of(expects, root, evening)
    step = Step(answer="ok")
    assert judged(step, expects, promised, root, morning).error == f"{BROKEN}2026-11-23.md is not there"
    for name in ("2026-11-22.md", "2026-11-23.md"):
        (tmp_path / name).write_text("x")
        assert judged(step, expects, promised, root, morning).status == "done", name
        (tmp_path / name).unlink()


def test_the_answer_has_to_hold_the_words(agent: Agent) -> None:
    assert outcome(agent, "a.md", playbook("shell: echo all is OK", expects="{contains: OK}"))[0] == "done"
    status, error = outcome(agent, "b.md", playbook("shell: echo all is fine", expects="{contains: OK}"))
    assert (status, error) == ("failed", f"{BROKEN}the answer does not hold 'OK'")
    assert "all is fine" in agent.result("b.md").content, "what was said is told all the same"


def test_everything_that_is_missing_is_named(agent: Agent) -> None:
    both = playbook("list: .", expects="{file: a.md, contains: nonsense}")
    assert outcome(agent, "a.md", both)[1] == f"{BROKEN}the answer does not hold 'nonsense'; a.md is not there"


def test_the_outcome_itself_may_be_promised(agent: Agent) -> None:
    denied = "read: .fsagent/index.sqlite3"
    status, error = outcome(agent, "a.md", playbook(denied, expects="{status: done}"))
    assert status == "failed"
    assert error.startswith(f"{BROKEN}it ended as refused, not done: step 1 (read)")
    assert outcome(agent, "b.md", playbook(denied, expects="{contains: x}"))[0] == "refused", "refused is refused"
    assert outcome(agent, "c.md", playbook(denied, expects="{status: refused}")) == ("done", "")
    assert "It was refused, as expected: step 1 (read)" in agent.result("c.md").content
    assert next(agent.layout.archive.rglob("c.md"))
    why = outcome(agent, "d.md", playbook("list: .", expects="{status: refused}"))[1]
    assert why == f"{BROKEN}it ended as done, not refused"
    assert outcome(agent, "e.md", playbook("shell: 'false'", expects="{status: failed}", retries="3"))[0] == "done"
    assert agent.result("e.md").get("attempts") is None, "nothing that was to fail is tried again"


@pytest.mark.parametrize("step", [Step(status="interrupted", error="e"), Step(status="failed", error="e", halted=True),
                                  Step(status="failed", error="e", passing=True)])  # fmt: skip
def test_what_did_not_end_by_itself_is_not_judged(step: Step, tmp_path: Path) -> None:
    root = SafeRoot(tmp_path)
    for expects in (Expects(status="failed"), Expects(status="done"), Expects(file="x")):
        assert judged(step, expects, {}, root, NOON) is step


@pytest.mark.parametrize(
    ("expects", "line", "field", "why"),
    [
        ("{file: /etc/passwd}", 2, "expects.file", "must be the path of a file in the workspace"),
        ("{file: ../x}", 2, "expects.file", "must be the path of a file in the workspace"),
        ("{file: 'a/{{ now }}.md'}", 2, "expects.file", "only {{ date }} can stand here"),
        ("{newer: true}", 2, "expects.newer", "needs the file that it is about"),
        ("{status: great}", 2, "expects.status", "'great' cannot be promised; write done, failed or refused"),
        ("{status: interrupted}", 2, "expects.status", "cannot be promised"),
        ("{newer: false}", 2, "expects.file", "is needed, or contains, or status"),
        ("{fil: x}", 2, "expects.fil", "is not known here (did you mean 'file'?)"),
        ("\n  file: x\n  newer: perhaps", 4, "expects.newer", "must be true or false"),
        ("x", 2, "expects", ""),
    ],
)
def test_a_promise_that_cannot_be_one_names_its_place(expects: str, line: int, field: str, why: str) -> None:
    raw = f"---\nexpects: {expects}\n---\nList files\n".encode()
    with pytest.raises(DocumentError) as caught:
        read_command(raw, Envelope(run="r", name="a.md", trigger="inbox", time=NOON), timeout=1, retries=0, engine="")
    (fault,) = caught.value.faults
    assert (fault.line, fault.field) == (line, field)
    assert why in fault.message


def test_a_model_is_told_what_it_has_to_leave() -> None:
    command = Command(name="a.md", body="Report.", expects=Expects(file="r/{{ date }}.md", newer=True, contains="OK"))
    said = prompt.question(Request(command=command, soul="", now=NOON, run="r"))
    assert 'What the run has to leave: a new r/2026-11-22.md and an answer that holds "OK".' in said


# tries


COUNTS = "shell: {command: 'echo x >> tries; test $(wc -l < tries) -lt 2 || date > report.md', shell: true}"
NEW_REPORT = "{file: report.md, newer: true}"


def test_a_broken_promise_is_tried_again_from_the_beginning(agent: Agent) -> None:
    (agent.root / "report.md").write_text("old")
    agent.start()
    agent.drop("a.md", playbook(COUNTS, expects=NEW_REPORT, retries="2", backoff="10ms"))
    result = agent.result("a.md")
    assert (result["status"], result["attempts"]) == ("done", 2)
    assert (agent.root / "tries").read_text() == "x\nx\n"
    events = [event["event"] for event in RunFolder(agent.layout.runs / result["run"]).events()]
    assert events.count("promised") == 1, "what was there is looked at once"


def test_the_tries_come_to_an_end(agent: Agent) -> None:
    agent.start()
    agent.drop("a.md", playbook("shell: 'true'", expects=NEW_REPORT, retries="2", backoff="10ms"))
    result = agent.result("a.md")
    assert (result["status"], result["attempts"]) == ("failed", 3)
    assert result["error"] == f"{BROKEN}report.md is not there"


def test_a_restart_between_two_tries_changes_nothing(agent: Agent) -> None:
    report = agent.root / "report.md"
    report.write_text("old")
    agent.start()
    agent.drop("a.md", playbook(COUNTS, expects=NEW_REPORT, retries="1", backoff="2s"))
    wait_for(lambda: retry_of(agent), "a retry")
    agent.kill()
    assert report.read_text() == "old"
    agent.start()
    result = agent.result("a.md")
    assert (result["status"], result["attempts"]) == ("done", 2)
    assert report.read_text() != "old"


def test_what_was_written_before_a_kill_counts_as_new_after_it(agent: Agent) -> None:
    report = agent.root / "report.md"
    report.write_text("old")
    held = playbook(
        "write: {path: report.md, text: new}", "shell: {command: 'touch begun; test -e go || sleep 600', shell: true}",
        expects=NEW_REPORT, retries="3",
    )  # fmt: skip
    agent.start()
    agent.drop("a.md", held)
    wait_for((agent.root / "begun").exists, "the second step")
    agent.kill()
    (agent.root / "go").touch()  # what hung does not hang any more
    agent.start()
    assert agent.result("a.md")["status"] == "done", "looked at before the first start, not before this one"


def test_what_an_earlier_try_did_and_used_is_not_forgotten(tmp_path: Path) -> None:
    call, used = ToolCall("write", {"path": "a"}), Usage(10, 5, 0.5, 0, 1)
    turn = [
        {"event": "step", "step": Step(calls=(call,), usage=used, model="m")},
        {"event": "call", "call": 0, "tool": "write"},
        {"event": "result", "call": 0, "result": ToolResult("wrote", changed=("a",))},
        {"event": "turn"},
        {"event": "step", "step": Step(answer="done", usage=used, model="m")},
    ]
    import msgspec

    events = msgspec.to_builtins([*turn, {"event": "retry", "at": NOON, "error": "e", "anew": True}])
    progress = replay(events)
    assert (progress.turns, progress.pending, progress.last) == ((), None, None)
    ending = Ending(Step(answer="again", usage=used), progress.done())
    assert (ending.usage.turns, ending.changed, ending.models) == (3, ("a",), ("m",))
    assert replay(events[:-1]).last is not None, "cut off before the retry, it ends as it had ended"
    assert len(replay([*events, *msgspec.to_builtins(turn[:4])]).turns) == 1
    assert isinstance(progress.earlier[0], Turn)


def test_an_approval_of_the_try_before_is_none_of_this_one(tmp_path: Path) -> None:
    house = RunnerHouse(tmp_path / "w")
    script = Swayed(does("page"), does("send"))
    (question,) = house.asks(script)
    house.tick(question)
    assert house.run(script).step.answer == "done"
    house.record("retry", {"at": NOON, "error": "e", "anew": True}, False)
    (again,) = house.asks(script)
    assert again.hash != question.hash
    assert "approved before" not in again.why
    assert house.marked() == ["page", "send", "page"]


@pytest.mark.parametrize(
    ("fields", "settings", "least", "most"),
    [({"backoff": "100s"}, "", 80, 120), ({}, "retry_wait: 50s\n", 40, 60), ({"backoff": "3h"}, "", 8640, 12960)],
)
def test_the_wait_before_the_second_try(
    tmp_path: Path, fields: dict[str, str], settings: str, least: float, most: float
) -> None:
    agent = Agent(tmp_path / "ws", SHELL + settings).start()
    agent.drop("a.md", playbook("shell: 'false'", retries="2", **fields))
    record = wait_for(lambda: retry_of(agent), "a retry")
    wait = datetime.fromisoformat(record["at"]) - datetime.fromisoformat(record["time"])
    agent.close()
    assert least - 1 <= wait.total_seconds() <= most + 1


# report


class Reports:
    """Runs of one task, each with what it says; gives how many results lie in the outbox."""

    def __init__(self, agent: Agent, report: Any) -> None:
        self.agent, self.report = agent, report

    def run(self, step: str, **fields: str) -> int:
        now = datetime.now(UTC)
        envelope = Envelope(
            run=new_run_id(now), name=f"t/{now:%H%M%S%f}.md", trigger="task", time=now, path="tasks/t.md", task="t",
            thread="t", report=self.report,
        )  # fmt: skip
        assert drop(self.agent.layout, envelope, playbook(step, **fields).encode())
        self.agent.once()
        return len(list((self.agent.layout.outbox / "t").glob("*.md")))


SAYS = {
    "one": "shell: echo one",
    "two": "shell: echo two",
    "bad": "shell: cat nothing",
    "quiet": "append: {path: l, text: x}",
}


@pytest.mark.parametrize(
    ("report", "said", "told"),
    [
        ("always", "one one quiet bad", [1, 2, 3, 4]),
        ("never", "one bad", [0, 0]),
        ("auto", "one quiet bad one", [1, 1, 2, 3]),
        ("on_failure", "one bad bad one", [0, 1, 2, 2]),
        ("on_change", "one one two bad bad two two one", [1, 1, 2, 3, 3, 4, 4, 5]),
    ],
)
def test_when_a_result_is_told(tmp_path: Path, report: str, said: str, told: list[int]) -> None:
    agent = Agent(tmp_path / "ws", SHELL)
    (agent.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    reports = Reports(agent, report)
    assert [reports.run(SAYS[word]) for word in said.split()] == told


def test_a_promise_that_keeps_being_broken_is_told_once(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", SHELL)
    (agent.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    reports = Reports(agent, "on_change")
    assert [reports.run(SAYS["one"], expects=NEW_REPORT) for _ in range(3)] == [1, 1, 1]
    (result,) = agent.results()
    assert result["error"] == f"{BROKEN}report.md is not there"
    assert reports.run("write: {path: report.md, text: x}", expects=NEW_REPORT) == 2
    runs: list[Run] = [run for run in agent.runs() if run.task == "t"]
    assert [run.status for run in runs] == ["done", "failed", "failed", "failed"]
