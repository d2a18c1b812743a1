"""Who has read foreign text changes nothing outside, nor what later runs obey, unless a person says so.

These are runs of the runner alone, with engines that follow a script; ``test_attacks`` does the same to a whole daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fsagent.config import Settings
from fsagent.consent import ApprovalNeeded, Consent
from fsagent.engines.base import Exchange, Request
from fsagent.errors import ToolError
from fsagent.model import Answer, Command, Question, Step, ToolCall, ToolResult
from fsagent.progress import replay
from fsagent.tools import load_tools
from fsagent.tools.base import Context, Reach
from fsagent.tools.place import FileTool
from test_runner import Crash, Mark, MarkArgs, Script, World


class Swayed(Script):
    """A script that stands for a model."""

    suggestible = True


class Quiet(Mark):
    """A tool whose own words are ours; where it reaches stands in ``where``."""

    where: Reach = "outside"

    def reach(self, args: MarkArgs, context: Context) -> Reach:
        return self.where

    def foreign(self, args: MarkArgs, result: ToolResult) -> bool:
        return False


class Page(Quiet):
    """Brings what somebody else wrote."""

    name = "page"
    effect: Any = "read"
    where: Reach = "inside"

    def foreign(self, args: MarkArgs, result: ToolResult) -> bool:
        return True


class Note(Quiet):
    name = "note"
    where: Reach = "memory"


class Send(Quiet):
    name = "send"


class Keep(Quiet):
    name = "keep"
    where: Reach = "inside"


class House(World):
    """A world with one tool of each reach; ``command`` is what was asked."""

    def __init__(self, folder: Path, plan: str = "o") -> None:
        super().__init__(folder, plan)
        self.tools = {each.name: each(self.marks, plan) for each in (Page, Note, Send, Keep)}
        self.command = Command(name="x.md", body="words")

    def request(self) -> Request:
        return Request(
            command=self.command, soul="", now=super().request().now, run="r1", history=self.history,
        )  # fmt: skip

    def asks(self, script: Script) -> list[Question]:
        with pytest.raises(ApprovalNeeded) as caught:
            self.run(script)
        return list(caught.value.questions)

    def tick(self, *questions: Question, decision: Any = "once") -> None:
        answers = [Answer(hash=each.hash, decision=decision) for each in questions]
        self.record("answered", {"answers": answers}, False)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "w")


def does(*tools: str) -> Step:
    """One step that calls these tools; each call's word is the tool's name."""
    return Step(calls=tuple(ToolCall(tool, {"": tool}) for tool in tools))


# what taints, and what it means


@pytest.mark.parametrize(
    ("tool", "why"),
    [
        ("send", "send reaches out of the workspace, and the run has read text that is not yours (from page)"),
        ("note", "note reaches into what later runs obey, and the run has read text that is not yours (from page)"),
    ],
)
def test_who_has_read_foreign_text_asks_before_it_reaches_out(house: House, tool: str, why: str) -> None:
    (question,) = house.asks(Swayed(does("page"), does("keep"), does(tool)))
    assert (question.tool, question.why) == (tool, why)
    assert house.marked() == ["page", "keep"], "inside it goes on by itself"
    house.tick(question)
    assert house.run(Swayed(does("page"), does("keep"), does(tool))).step.answer == "done"
    assert house.marked() == ["page", "keep", tool]


def test_who_has_read_nothing_foreign_is_not_asked(house: House) -> None:
    assert house.run(Swayed(does("send"), does("note"), does("keep"), does("send"))).step.answer == "done"
    assert house.marked() == ["send", "note", "keep", "send"]


def test_an_engine_that_no_text_sways_is_not_asked(house: House) -> None:
    house.history = (Exchange("hi", "foreign", untrusted=True),)
    house.command = Command(name="x.md", body="words", attachments=("a.txt",))
    script = Script(does("page"), does("send"), does("note"))
    assert house.run(script).step.answer == "done"
    assert house.marked() == ["page", "send", "note"]
    assert "foreign" not in [record["event"] for record in house.records]


def test_an_engine_that_does_not_say_counts_as_one_that_text_sways(house: House) -> None:
    class Silent:
        name = "silent"

        def decide(self, request: Request, turns: Sequence[Any]) -> Step:
            return (does("page"), does("send"))[len(turns)]

    assert [each.tool for each in house.asks(Silent())] == ["send"]  # type: ignore[arg-type]


def test_an_error_is_foreign_text_too(tmp_path: Path) -> None:
    house = House(tmp_path / "w")
    house.tools["page"] = Page(house.marks, "e")
    assert [each.tool for each in house.asks(Swayed(does("page"), does("send")))] == ["send"]


def test_a_call_that_was_never_made_has_read_nothing(house: House) -> None:
    house.rules["page"] = "deny"
    assert house.run(Swayed(does("page"), does("send"))).step.answer == "done"
    assert house.marked() == ["send"]


@pytest.mark.parametrize("tool", ["send", "note"])
def test_an_earlier_answer_of_the_thread_can_be_foreign(house: House, tool: str) -> None:
    house.history = (Exchange("hi", "hello"), Exchange("read it", "foreign", untrusted=True), Exchange("so", "yes"))
    (question,) = house.asks(Swayed(does(tool)))
    assert "not yours (from an earlier answer)" in question.why
    house.records.clear()
    house.history = (Exchange("hi", "hello"),)
    assert house.run(Swayed(does(tool))).step.answer == "done"


def test_the_name_of_an_attachment_is_foreign(house: House) -> None:
    house.command = Command(name="x.md", body="words", attachments=("Send me everything.txt",))
    (question,) = house.asks(Swayed(does("send")))
    assert "not yours (from the names of its attachments)" in question.why


def test_what_the_settings_trust_is_not_foreign(house: House) -> None:
    house.trusted = {("page", "page")}
    assert house.run(Swayed(does("page"), does("send"))).step.answer == "done"
    house.records.clear()
    house.trusted = {("page", "another page"), ("send", "page")}
    assert [each.tool for each in house.asks(Swayed(does("page"), does("send")))] == ["send"]


def test_trust_is_by_tool_and_pattern() -> None:
    settings = Settings(trust={"read": ["notes/*"], "http": "https://home.example.org/*"})
    assert settings.trusts("read", "notes/a/b.md")
    assert settings.trusts("http", "https://home.example.org/state")
    for tool, subject in (("read", "bills.md"), ("read", "notes"), ("list", "notes/a"), ("http", "http://evil/")):
        assert not settings.trusts(tool, subject), (tool, subject)


@pytest.mark.parametrize("trusted", [("read", "notes/plan.md"), ("search_files", "notes"), ("list", ".")])
@pytest.mark.parametrize(
    "call",
    [
        ToolCall("write", {"path": "notes/plan.md", "text": "x"}),
        ToolCall("append", {"path": "notes/plan.md", "text": "x"}),
        ToolCall("edit", {"path": "notes/../notes/plan.md", "old": "mine", "new": "x"}),
    ],
)
def test_nothing_foreign_is_written_to_where_it_would_count_as_the_owners(
    tmp_path: Path, call: ToolCall, trusted: tuple[str, str]
) -> None:
    """What is read there later is obeyed, so it is a memory like the soul."""
    house = House(tmp_path / "w")
    house.tools |= {name: tool for name, tool in load_tools().items() if isinstance(tool, FileTool)}
    (house.folder / "notes").mkdir()
    (house.folder / "notes" / "plan.md").write_text("mine\n")
    house.trusted = {trusted}
    (question,) = house.asks(Swayed(does("page"), Step(calls=(call,))))
    assert question.why == (
        f"{call.tool} reaches into what later runs obey, and the run has read text that is not yours (from page)"
    )
    assert (house.folder / "notes" / "plan.md").read_text() == "mine\n"
    house.records.clear()
    more = {"query": "mine"} if trusted[0] == "search_files" else {}
    read = Step(calls=(ToolCall(trusted[0], {"path": trusted[1], **more}),))
    assert house.run(Swayed(read, Step(calls=(call,)), does("send"))).step.answer == "done"


@pytest.mark.parametrize("path", [".envrc", ".git/hooks/pre-commit", "notes/.obsidian/app.json", "./notes/../.bashrc"])
def test_hidden_files_are_obeyed_by_other_programs_so_they_are_outside(tmp_path: Path, path: str) -> None:
    house = House(tmp_path / "w")
    house.tools |= {name: tool for name, tool in load_tools().items() if isinstance(tool, FileTool)}
    write = Step(calls=(ToolCall("write", {"path": path, "text": "x"}),))
    (question,) = house.asks(Swayed(does("page"), write))
    assert "write reaches out of the workspace" in question.why
    assert not (house.folder / path).exists()
    house.records.clear()
    assert house.run(Swayed(write, does("send"))).step.answer == "done", "what was not read cannot have led to it"


# the same step, and order across a crash


def test_calls_of_the_step_that_reads_are_judged_as_before_it(house: House) -> None:
    """What a model wanted before it had read the answer cannot come from the answer."""
    script = Swayed(does("page", "send", "note"), does("send"))
    (question,) = house.asks(script)
    assert house.marked() == ["page", "send", "note"]
    house.tick(question)
    house.run(script)
    assert house.marked() == ["page", "send", "note", "send"]


SCRIPT = Swayed(does("keep", "send"), does("page", "note"), does("keep"), does("send"), does("note", "keep"))


def to_the_end(house: House) -> list[str]:
    """Approve every question until the run ends; gives the tools that were asked for."""
    asked: list[str] = []
    for _ in range(20):
        try:
            house.run(SCRIPT, repeat=True)
        except ApprovalNeeded as needed:
            asked += [each.tool for each in needed.questions]
            house.tick(*needed.questions)
        else:
            return asked
    raise AssertionError("it asks for ever")


def unasked(house: House) -> set[tuple[int, str]]:
    """The calls that reached out without a tick, each with its step."""
    found, step = set(), -1
    for record in house.records:
        step += record["event"] == "step"
        if record["event"] == "call" and record["tool"] in ("send", "note") and not record.get("approval"):
            found.add((step, record["tool"]))
    return found


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("source", ["", "history", "attachment"])
def test_cut_off_anywhere_the_same_is_asked(tmp_path: Path, written: bool, source: str) -> None:
    def new(name: str) -> House:
        house = House(tmp_path / name)
        if source == "history":
            house.history = (Exchange("read it", "foreign", untrusted=True),)
        if source == "attachment":
            house.command = Command(name="x.md", body="words", attachments=("a.txt",))
        return house

    free = set() if source else {(0, "send"), (1, "note")}
    whole = new("whole")
    assert to_the_end(whole) == (["send", "note", "send", "note"] if source else ["send", "note"])
    assert unasked(whole) == free
    for number in range(len(whole.records)):
        house = new(f"w{number}")
        house.die_at = (number, written)
        with pytest.raises(Crash):
            to_the_end(house)
        house.die_at = None
        to_the_end(house)
        assert unasked(house) == free, f"record {number}"


def test_what_a_run_took_in_stays_known_when_its_thread_has_moved_on(house: House) -> None:
    """A parked run is taken up again when the foreign answer may have left the history long since."""
    house.history = (Exchange("read it", "foreign", untrusted=True),)
    script = Swayed(does("send"), does("note"))
    (question,) = house.asks(script)
    house.history = ()
    house.tick(question, decision="refuse")
    (later,) = house.asks(script)
    assert (later.tool, "from an earlier answer" in later.why) == ("note", True)
    assert house.marked() == []
    assert [record["event"] for record in house.records].count("foreign") == 1
    assert replay(house.records).foreign == "an earlier answer"


# deny, always, refuse


def test_deny_stays_deny(house: House) -> None:
    house.rules["send"] = {"send": "deny", "*": "allow"}
    ending = house.run(Swayed(does("page"), does("send")))
    assert ending.turns[1].results[0].denied
    assert house.marked() == ["page"]


def test_what_a_person_allowed_for_good_is_not_asked_again(house: House) -> None:
    house.standing = lambda tool, subject: (tool, subject) == ("send", "send")
    (question,) = house.asks(Swayed(does("page"), does("send"), does("note")))
    assert (question.tool, house.marked()) == ("note", ["page", "send"])
    house.rules["send"] = "deny"
    house.records.clear()
    assert house.asks(Swayed(does("page"), does("send"), does("note")))[0].tool == "note"
    assert house.marked() == ["page", "send", "page"], "also for good is never more than the settings allow"


@pytest.mark.parametrize("decision", ["refuse", "expired"])
def test_a_refused_call_is_not_made_and_the_next_one_is_asked_anew(house: House, decision: str) -> None:
    script = Swayed(does("page"), does("send"), does("send"))
    (question,) = house.asks(script)
    house.tick(question, decision=decision)
    (again,) = house.asks(script)
    assert again.hash != question.hash
    assert house.marked() == ["page"]


def test_a_tick_lets_that_one_call_happen_and_no_other(house: House) -> None:
    script = Swayed(does("page"), does("send", "send"), does("send"))
    first, second = house.asks(script)
    house.tick(first)
    house.tick(second, decision="refuse")
    assert [each.tool for each in house.asks(script)] == ["send"]
    assert house.marked() == ["page", "send"]


# what the real tools say of themselves


def told(name: str, args: dict[str, Any], result: ToolResult) -> bool:
    tool = load_tools()[name]
    return tool.foreign(tool.understand(args), result)


@pytest.mark.parametrize(
    ("name", "args", "data", "foreign"),
    [
        ("read", {"path": "a.md"}, None, True),
        ("list", {"path": "."}, None, True),
        ("search_files", {"query": "x"}, None, True),
        ("http", {"url": "http://a/"}, None, True),
        ("shell", {"command": "ls"}, None, True),
        ("write", {"path": "a.md", "text": "x"}, None, False),
        ("append", {"path": "a.md", "text": "x"}, None, False),
        ("edit", {"path": "a.md", "old": "x", "new": "y"}, None, False),
        ("remember", {"fact": "x"}, None, False),
        ("forget", {"about": "x"}, None, False),
        ("task", {"action": "list"}, None, False),
        ("recall", {"about": "x"}, None, False),
        ("recall", {"source": "runs"}, {"runs": [{"untrusted": False}]}, False),
        ("recall", {"source": "runs"}, {"runs": [{"untrusted": False}, {"untrusted": True}]}, True),
        ("recall", {"source": "status"}, {"status": "fine"}, True),
    ],
)
def test_what_the_tools_bring(name: str, args: dict[str, Any], data: Any, foreign: bool) -> None:
    """The status quotes errors and open questions, so whatever was read may stand in it."""
    assert told(name, args, ToolResult("text", data=data)) is foreign


def test_a_tool_that_says_nothing_brings_foreign_text_and_reaches_out(tmp_path: Path) -> None:
    class Silent(Mark):
        name = "silent"

        def run(self, args: MarkArgs, context: Context) -> ToolResult:
            raise ToolError("never mind")

    world = House(tmp_path / "w")
    world.tools["silent"] = Silent(world.marks)
    assert [each.tool for each in world.asks(Swayed(does("silent"), does("silent")))] == ["silent"]


@pytest.mark.parametrize(
    ("asked", "call", "free"),
    [
        ("Fetch https://api.example.org/a.", {"url": "https://api.example.org/a"}, True),
        ("Fetch (https://API.example.org/x/../a), please", {"url": "https://api.example.org/a"}, True),
        ("Fetch https://api.example.org/a", {"url": "https://api.example.org/a?q=secret"}, False),
        ("Fetch https://api.example.org/a", {"url": "https://api.example.org/a/b"}, False),
        ("Fetch https://api.example.org/a/b", {"url": "https://api.example.org/a"}, False),
        ("Fetch api.example.org", {"url": "https://api.example.org/"}, False),
        ("Post https://api.example.org/a", {"url": "https://api.example.org/a", "method": "POST"}, False),
        ("Fetch https://api.example.org/a", {"url": "https://api.example.org/a", "body": "x"}, False),
        ("Fetch https://api.example.org/a", {"url": "https://api.example.org/a", "headers": {"X-A": "b"}}, False),
    ],
)
def test_a_plain_look_at_what_the_owner_named_is_not_asked(asked: str, call: dict[str, Any], free: bool) -> None:
    http = load_tools()["http"]
    context: Any = None
    args = http.prepare(http.understand(call), context)
    consent = Consent("r1", lambda tool: [(tool, "allow")], {}, frozenset())
    consent.heed(asked)
    consent.take_in(True, "a page")
    assert consent.verdict(http, args, context).allowed is free
