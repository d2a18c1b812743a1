"""The tools remember, forget, recall and task, on a home that is a text and a few lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fsagent.engines.base import Request
from fsagent.engines.intents import understand
from fsagent.errors import ToolError
from fsagent.facts import SOUL_TEMPLATE, add_fact, read_facts, remove_facts, replace_fact
from fsagent.files.paths import SafeRoot
from fsagent.model import Command, Fact, Run, ToolCall, ToolResult
from fsagent.tools.base import Context, Network, Remembered, Sandbox, TaskView
from fsagent.tools.memory import Forget, ForgetArgs, Recall, RecallArgs, Remember, RememberArgs
from fsagent.tools.task import TaskArgs, TaskTool
from fsagent.workspace.soul import Soul

LISBON_WINTER = timezone(timedelta(hours=-5))
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=LISBON_WINTER)


class TextHome:
    """A whole home in memory: a soul that is a text, tasks and runs that are lists."""

    def __init__(self, soul: str = SOUL_TEMPLATE, runs: Sequence[Run] = ()) -> None:
        self.soul = soul
        self.past = list(runs)
        self.views: dict[str, TaskView] = {}
        self.created: list[tuple[str, str, str, tuple[ToolCall, ...]]] = []

    def facts(self) -> Sequence[Fact]:
        return read_facts(self.soul)

    def remember(self, text: str, key: str) -> Remembered:
        old = next((fact for fact in self.facts() if key and fact.key == key), None)
        new = replace_fact(self.soul, old, text) if old else add_fact(self.soul, text)
        known = new == self.soul
        self.soul = new
        return Remembered(text, replaced=old.text if old and not known else "", known=known)

    def forget(self, facts: Sequence[Fact]) -> Sequence[str]:
        self.soul = remove_facts(self.soul, facts)
        return [fact.text for fact in facts]

    def tasks(self) -> Sequence[TaskView]:
        return list(self.views.values())

    def create_task(self, name: str, body: str, every: str, steps: Sequence[ToolCall]) -> TaskView:
        self.created.append((name, body, every, tuple(steps)))
        self.views[name] = TaskView(name, f"every {every}", body, "active", next=NOW + timedelta(minutes=10))
        return self.views[name]

    def _state(self, name: str, state: str) -> TaskView:
        self.views[name] = msgspec.structs.replace(self.views[name], state=state)
        return self.views[name]

    def pause_task(self, name: str) -> TaskView:
        return self._state(name, "paused")

    def resume_task(self, name: str) -> TaskView:
        return self._state(name, "active")

    def run_task(self, name: str) -> str:
        return f"run-of-{name}"

    def runs(self, since: datetime | None, limit: int) -> Sequence[Run]:
        return [run for run in self.past if since is None or (run.started and run.started >= since)][:limit]

    def status(self) -> str:
        return "All is well."

    def sandbox(self) -> Sandbox:
        return Sandbox()

    def network(self) -> Network:
        return Network()

    def secret(self, name: str, url: str) -> str:
        raise ToolError(f"there is no secret {name!r}")


def context(home: TextHome, tmp_path: Path) -> Context:
    return Context(
        root=SafeRoot(tmp_path),
        home=home,
        now=lambda: NOW,
        run="this-run",
        trigger="inbox",
        seconds_left=lambda: 60.0,
        stopping=lambda: False,
    )


class Agent:
    """A text home with hands: each method is one tool call."""

    def __init__(self, path: Path, soul: str = SOUL_TEMPLATE, runs: Sequence[Run] = ()) -> None:
        self.home = TextHome(soul, runs)
        self.context = context(self.home, path)

    def remember(self, fact: str, key: str = "") -> ToolResult:
        return Remember().run(RememberArgs(fact, key), self.context)

    def forget(self, about: str) -> ToolResult:
        return Forget().run(ForgetArgs(about), self.context)

    def recall(self, **args: Any) -> ToolResult:
        return Recall().run(RecallArgs(**args), self.context)

    def task(self, action: str, **args: Any) -> ToolResult:
        return TaskTool().run(msgspec.convert({"action": action, **args}, TaskArgs), self.context)

    def facts(self) -> list[str]:
        return [fact.text for fact in self.home.facts()]

    def say(self, text: str) -> str:
        """What the offline engine does with a sentence, without its steps being journaled."""
        understood = understand(text)
        assert understood is not None, text
        tools = {tool.name: tool for tool in (Remember(), Forget(), Recall(), TaskTool())}
        results = []
        for call in understood.calls:
            tool: Any = tools[call.tool]
            results.append(tool.run(msgspec.convert(call.args, tool.args), self.context))
        command = Command(name="a.md", body=text)
        return understood.answer(results, Request(command=command, soul=self.home.soul, now=NOW, run="this-run"))


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


def test_remember_keeps_a_fact_in_the_third_person(agent: Agent) -> None:
    result = agent.remember("My name is Alice")
    assert agent.facts() == ["The owner's name is Alice."]
    assert result.remembered == ("The owner's name is Alice.",)
    assert result.data == {"fact": "The owner's name is Alice.", "key": "name", "known": False, "replaced": []}
    assert result.text == "Remembered: The owner's name is Alice."


def test_remembering_twice_adds_nothing(agent: Agent) -> None:
    agent.remember("My name is Alice")
    soul = agent.home.soul
    for same in ("My name is Alice", "The owner's name is Alice.", "Name: Alice", "my name is Alice."):
        result = agent.remember(same)
        assert (agent.home.soul, result.data["known"], result.remembered) == (soul, True, ()), same


def test_one_value_takes_the_place_of_the_old_one(agent: Agent) -> None:
    agent.remember("My name is Alice")
    result = agent.remember("My name is Bob")
    assert agent.facts() == ["The owner's name is Bob."]
    assert result.data["replaced"] == ["The owner's name is Alice."]
    assert "before: The owner's name is Alice." in result.text


def test_a_value_that_stands_twice_is_replaced_in_both_places(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "My name is Alice\n\n## Facts\n- The owner's name is Alicia.\n- x\n")
    agent.remember("My name is Bob", "name")
    assert agent.facts() == ["The owner's name is Bob.", "x"]


def test_what_is_known_already_stays_where_others_are_untrue(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "## Facts\n- The owner's name is Alice.\n- The owner's name is Bob.\n")
    agent.remember("My name is Bob")
    assert agent.facts() == ["The owner's name is Bob."]


def test_a_hand_written_statement_counts(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "Name: Alice\r\n")
    assert agent.remember("My name is Alice").data["known"] is True
    assert agent.home.soul == "Name: Alice\r\n"
    agent.remember("My name is Bob")
    assert agent.home.soul == "The owner's name is Bob.\r\n"


def test_several_facts_about_one_thing_stand_side_by_side(agent: Agent) -> None:
    agent.remember("The router is a Fritzbox")
    agent.remember("The router is white")
    agent.remember("The router is in the cellar")
    assert len(agent.facts()) == 3


def test_case_counts_in_a_value(agent: Agent) -> None:
    agent.remember("The wifi password is hunter2")
    assert agent.remember("The wifi password is Hunter2").data["replaced"] == ["The wifi password is hunter2"]
    assert agent.facts() == ["The wifi password is Hunter2"]


def test_what_changed_in_the_soul_is_shown(agent: Agent) -> None:
    names = "--- a/soul.md\n+++ b/soul.md\n"
    assert agent.remember("My name is Alice").diff == f"{names}+The owner's name is Alice.\n"
    assert agent.remember("My name is Alice").diff == ""
    assert agent.remember("My name is Bob").diff == f"{names}-The owner's name is Alice.\n+The owner's name is Bob.\n"
    agent.remember("The router is white")
    agent.remember("The router is in the cellar")
    assert agent.forget("the router").diff == f"{names}-The router is white.\n"
    assert agent.forget("the router").diff == f"{names}-The router is in the cellar.\n"
    assert agent.forget("the router").diff == ""


def test_a_fact_that_stood_already_is_not_shown_as_new(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "## Facts\n- The owner's name is Alice.\n- The owner's name is Bob.\n")
    assert agent.remember("My name is Bob").diff == "--- a/soul.md\n+++ b/soul.md\n-The owner's name is Alice.\n"


def test_a_soul_on_disk_shows_what_changed_in_it(tmp_path: Path) -> None:
    soul = Soul(tmp_path / "soul.md", tmp_path / "lock")

    class DiskHome(TextHome):
        def facts(self) -> Sequence[Fact]:
            return soul.facts()

        def remember(self, text: str, key: str) -> Remembered:
            return Remembered(*soul.remember(text, key))

        def forget(self, facts: Sequence[Fact]) -> Sequence[str]:
            return soul.forget(facts)

    agent = Agent(tmp_path)
    agent.context = context(DiskHome(), tmp_path)
    (tmp_path / "soul.md").write_text("Name: Alice\n\n## Facts\n* The cup is red.\n")
    for tell in (
        lambda: agent.remember("My name is Bob"),
        lambda: agent.remember("The pot is blue"),
        lambda: agent.forget("the cup"),
        lambda: agent.remember("My name is Bob"),
    ):
        before = {fact.text for fact in soul.facts()}
        rows = tell().diff.splitlines()
        after = {fact.text for fact in soul.facts()}
        names = ["--- a/soul.md", "+++ b/soul.md"] if before != after else []
        assert rows[:2] == names
        assert set(rows[2:]) == {f"-{text}" for text in before - after} | {f"+{text}" for text in after - before}


def test_a_key_says_what_is_replaced(agent: Agent) -> None:
    agent.remember("The router is a Fritzbox")
    assert agent.remember("The router is a Speedport", "the Router").data["replaced"] == ["The router is a Fritzbox."]
    assert agent.facts() == ["The router is a Speedport."]


def test_a_key_that_could_mean_several_facts_changes_nothing(agent: Agent) -> None:
    agent.remember("The router is a Fritzbox")
    agent.remember("The router is white")
    with pytest.raises(ToolError, match="The router is a Fritzbox"):
        agent.remember("The router is a Speedport", "router")
    assert len(agent.facts()) == 2


@pytest.mark.parametrize("fact", ["", "  \n ", "---", "# "])
def test_there_is_something_to_remember(agent: Agent, fact: str) -> None:
    with pytest.raises(ToolError, match="no text"):
        agent.remember(fact)


def test_a_fact_is_short(agent: Agent) -> None:
    with pytest.raises(ToolError, match="at most 1000"):
        agent.remember("word " * 300)


def test_a_fact_cannot_break_the_file(agent: Agent) -> None:
    agent.remember("# Notes\n- x <!-- y")
    assert agent.home.soul.count("# Notes") == 1
    assert agent.facts() == ["Notes - x <! -- y."]


def test_forget_by_key_and_by_statement(agent: Agent) -> None:
    for fact in ("My name is Alice", "The router is a Fritzbox", "The router is in the cellar"):
        agent.remember(fact)
    assert agent.forget("my name").data == {"about": "my name", "removed": ["The owner's name is Alice."]}
    assert agent.forget("The router is in the cellar").data["removed"] == ["The router is in the cellar."]
    assert agent.forget("the router").data["removed"] == ["The router is a Fritzbox."]
    assert agent.home.soul.replace("-->\n\n\n", "-->\n\n") == SOUL_TEMPLATE


def test_forgetting_the_unknown_is_no_error(agent: Agent) -> None:
    result = agent.forget("my name")
    assert result.ok
    assert result.data["removed"] == []


def test_forget_wants_to_be_told_exactly(agent: Agent) -> None:
    agent.remember("Bob likes tea")
    agent.remember("Eve likes tea")
    with pytest.raises(ToolError, match=r"be exact(.|\n)*Bob likes tea\.\n- Eve likes tea\."):
        agent.forget("tea")
    assert len(agent.facts()) == 2
    assert agent.forget("Bob").data["removed"] == ["Bob likes tea."]


@pytest.mark.parametrize("about", ["me", "the owner"])
def test_forget_never_takes_the_whole_owner(agent: Agent, about: str) -> None:
    agent.remember("My name is Alice")
    with pytest.raises(ToolError, match="be exact"):
        agent.forget(about)


def test_forget_needs_a_subject(agent: Agent) -> None:
    with pytest.raises(ToolError, match="say what to forget"):
        agent.forget(" . ")


def test_recall_of_facts(agent: Agent) -> None:
    for fact in ("My name is Alice", "The router is in the cellar", "The router is a Fritzbox"):
        agent.remember(fact)
    assert agent.recall(about="the router").data == {
        "about": "the router",
        "facts": [
            {"text": "The router is a Fritzbox.", "key": "router", "exact": True},
            {"text": "The router is in the cellar.", "key": "router place", "exact": False},
        ],
    }
    assert len(agent.recall().data["facts"]) == 3
    assert agent.recall(about="me").data["facts"] == [
        {"text": "The owner's name is Alice.", "key": "name", "exact": True}
    ]
    assert agent.recall(about="physics").text == "Nothing is known about 'physics'."
    assert agent.recall(about="my name").text == "- The owner's name is Alice."


def run(number: int, started: datetime | None, **more: Any) -> Run:
    return Run(run=f"r{number}", command=f"{number}.md", trigger="inbox", status="done", started=started, **more)


@pytest.fixture
def busy(tmp_path: Path) -> Agent:
    hours = [1, 13, 30, 60]
    runs = [run(number, (NOW - timedelta(hours=hour)).astimezone(UTC)) for number, hour in enumerate(hours)]
    runs.insert(0, msgspec.structs.replace(runs[0], run="this-run"))
    return Agent(tmp_path, runs=runs)


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("", ["r0", "r1", "r2", "r3"]),
        ("today", ["r0"]),
        ("Yesterday", ["r1", "r2"]),
        ("2026-11-21", ["r0", "r1", "r2"]),
        ("2027-01-01", []),
    ],
)
def test_recall_of_runs_by_local_days(busy: Agent, since: str, found: list[str]) -> None:
    data = busy.recall(source="runs", since=since).data
    assert data["since"] == since
    assert [row["run"] for row in data["runs"]] == found


def test_a_run_is_told_with_what_it_said(tmp_path: Path) -> None:
    agent = Agent(tmp_path, runs=[run(1, NOW, answer="Hello\nthere", task="greet"), run(2, None, error="no disk")])
    result = agent.recall(source="runs")
    assert result.text == "- 2026-11-22 12:00 done: greet (Hello there)\n- not started done: 2.md (no disk)"
    assert result.data["runs"][0]["started"] == "2026-11-22T12:00:00-05:00"
    assert msgspec.json.decode(msgspec.json.encode(result.data)) == result.data


def test_recall_of_no_runs_of_no_day_and_of_the_status(agent: Agent) -> None:
    assert agent.recall(source="runs").text == "No runs."
    assert agent.recall(source="status").text == "All is well."
    with pytest.raises(ToolError, match="is no day; write today"):
        agent.recall(source="runs", since="monday")


def test_tasks_are_created_and_listed(agent: Agent) -> None:
    step = {"append": {"path": "log.txt", "text": "{{ now }}"}}
    result = agent.task(
        "create", name="log", every="10m", request="Log it", steps=[step, {"read": "a.md", "on_error": "continue"}]
    )
    assert agent.home.created == [
        (
            "log",
            "Log it",
            "10m",
            (ToolCall("append", step["append"]), ToolCall("read", {"": "a.md"}, on_error="continue")),
        )
    ]
    assert result.text == "Created: log: every 10m, active, next 2026-11-22 12:10:00: Log it"
    row = {
        "name": "log",
        "rule": "every 10m",
        "request": "Log it",
        "state": "active",
        "last": "",
        "next": "2026-11-22T12:10:00-05:00",
        "held_back": "",
    }
    assert agent.task("list").data == {"action": "list", "tasks": [row], "run": ""}
    assert agent.task("show", name="LOG.md").data["tasks"] == [row]


def test_tasks_are_paused_resumed_and_run(agent: Agent) -> None:
    agent.task("create", name="log-txt", request="Log it")
    assert agent.home.created[0][2] == "heartbeat"
    assert agent.task("pause", name="log txt").data["tasks"][0]["state"] == "paused"
    assert agent.task("resume", name="Log-TXT").data["tasks"][0]["state"] == "active"
    result = agent.task("run", name="log-txt")
    assert result.data["run"] == "run-of-log-txt"
    assert result.text == "Handed in: log-txt (run run-of-log-txt)"


def test_an_unknown_task_is_answered_with_the_nearest(agent: Agent) -> None:
    with pytest.raises(ToolError, match="there are no tasks yet"):
        agent.task("pause", name="backup")
    agent.task("create", name="backup", request="x")
    agent.task("create", name="weather", request="x")
    with pytest.raises(ToolError, match=r"no task is named 'bakcup'; there are: backup$"):
        agent.task("pause", name="bakcup")
    with pytest.raises(ToolError, match="there are: backup, weather"):
        agent.task("show", name="zzz")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"action": "pause"}, "pause needs a name"),
        ({"action": "create", "request": "x"}, "create needs a name"),
        ({"action": "create", "name": "x"}, "create needs a request"),
        ({"action": "create", "name": "x", "steps": [{}]}, "each is one tool"),
        ({"action": "create", "name": "x", "steps": [{"read": {}, "write": {}}]}, "each is one tool"),
        ({"action": "create", "name": "x", "steps": [{"read": {}, "on_error": "panic"}]}, "each is one tool"),
    ],
)
def test_missing_arguments_are_named(agent: Agent, args: dict[str, Any], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        agent.task(**args)


def test_what_policy_sees() -> None:
    assert TaskTool().subject(TaskArgs("pause", "backup")) == "pause backup"
    assert TaskTool().subject(TaskArgs("list")) == "list"
    assert Remember().subject(RememberArgs("a fact")) == "a fact"
    effects = {tool.name: tool.effect for tool in (Remember(), Forget(), Recall(), TaskTool())}
    assert effects == {"remember": "repeatable", "forget": "repeatable", "recall": "read", "task": "once"}


def test_a_conversation(agent: Agent) -> None:
    assert agent.say("What is my name?").startswith("I do not know your name yet.")
    assert agent.say("My name is Alice. I live in Lisbon.") == (
        "Remembered: Your name is Alice.\n\nRemembered: You live in Lisbon."
    )
    assert agent.say("What is my name?") == "Your name is Alice."
    agent.home.soul = agent.home.soul.replace("Alice", "Bob")
    assert agent.say("who am i") == "Your name is Bob."
    assert agent.say("My name is Bob") == "I knew that already: Your name is Bob."
    assert agent.say("My name is now Carol") == "Remembered: Your name is Carol. Before, it was: Your name is Bob."
    assert agent.say("Call me Caz") == "Remembered: You want to be called Caz."
    assert agent.say("What is my name?") == "Your name is Carol.\nYou want to be called Caz."
    assert agent.say("I moved to Porto").endswith("Before, it was: You live in Lisbon.")
    assert agent.say("Where do I live?") == "You live in Porto."
    agent.say("Remember that the router is a Fritzbox 7590 AX")
    assert agent.say("What do you know about the router?") == "The router is a Fritzbox 7590 AX."
    assert agent.say("Forget about the router") == "Forgotten: The router is a Fritzbox 7590 AX."
    assert agent.say("What do you know about the router?") == "I know nothing about the router."
    assert agent.say("Forget my name") == "Forgotten: Your name is Carol."
    assert agent.say("What is my name?") == "You want to be called Caz."
    assert (
        agent.say("What do you know about me?")
        == "This is what I know about you:\n\n- You live in Porto.\n- You want to be called Caz."
    )
    assert "log-txt-timestamp (every 10m)" in agent.say("Every 10 minutes, log the timestamp to log.txt")
    assert agent.say("Pause log-txt-timestamp") == "Paused the task log-txt-timestamp."
