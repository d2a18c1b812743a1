"""The loop and its promise: no call that has a result is made again, and none in doubt is repeated.

The tools here are real ones that write to disk; a crash is an exception that no part of ours catches, raised at one of
the points where a kill could strike: before or after any record, before or after the effect of a tool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import pytest

from fsagent.config import Rule, Rules
from fsagent.engines.base import Exchange, Request
from fsagent.errors import ToolError, UnsafePathError
from fsagent.files.paths import SafeRoot
from fsagent.model import Command, Step, ToolCall, ToolResult, Turn, Usage
from fsagent.progress import Ending, Progress, replay
from fsagent.runner import Runner, Stopped
from fsagent.tools import load_tools
from fsagent.tools.base import Context, Tool


class Crash(BaseException):
    """The daemon is killed here."""


class MarkArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    word: str
    times: int = 1


class Mark(Tool[MarkArgs]):
    """Writes its word into a file.

    ``plan`` says what happens, one letter per call, the last one for ever: o works, e fails, d is denied, k kills
    before the effect, K after it.
    """

    name = "mark"
    args = MarkArgs
    main = "word"

    def __init__(self, path: Path, plan: str = "o") -> None:
        self.path, self.plan = path, plan

    def run(self, args: MarkArgs, context: Context) -> ToolResult:
        letter, self.plan = self.plan[0], self.plan[1:] or self.plan
        if letter == "e":
            raise ToolError("did not work", retryable=True)
        if letter == "d":
            raise UnsafePathError("outside")
        if letter == "k":
            raise Crash
        with self.path.open("a") as file:
            file.write(args.word + "\n")
        if letter == "K":
            raise Crash
        return ToolResult(text=f"marked {args.word}", changed=(args.word,), remembered=(args.word,))


class Repeatable(Mark):
    name = "repeatable"
    effect: Any = "repeatable"


class Look(Mark):
    name = "look"
    effect: Any = "read"


class Script:
    """An engine that follows a list of steps."""

    name = "script"
    suggestible = False

    def __init__(self, *steps: Step) -> None:
        self.steps = steps

    def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
        return self.steps[len(turns)] if len(turns) < len(self.steps) else Step(answer="done")


class WorldHost:
    """What a run asks of its world."""

    def __init__(self, world: World) -> None:
        self.request, self.rules, self.record = world.request, world.rules_of, world.record
        self.standing = world.standing
        self.trusts = lambda tool, subject: (tool, subject) in world.trusted
        self.secrets = lambda: world.secrets
        self.exhausted = world.exhausted
        self.calls_left = lambda calls: 1e9

    def keep(self, name: str, text: str) -> str:
        raise AssertionError("nothing here is long")


class World:
    """One run in a folder of its own: its records as a disk would keep them, and where to die."""

    def __init__(self, folder: Path, plan: str = "o", tools: dict[str, Tool[Any]] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.marks = folder, folder / "marks"
        self.records: list[dict[str, Any]] = []
        self.durable: list[str] = []
        self.die_at: tuple[int, bool] | None = None  # the record's number, and whether it is still written
        self.asked = 0
        self.seconds = 60.0
        self.stop = False
        self.rules: dict[str, Rule] = {}
        self.history: tuple[Exchange, ...] = ()
        self.trusted: set[tuple[str, str]] = set()
        self.secrets: dict[str, str] = {}
        self.exhausted: Callable[[Usage, int, int], str] = lambda used, steps, calls: ""
        self.standing: Callable[[str, str], bool] = lambda tool, subject: False
        mark = Mark(self.marks, plan)
        self.tools = tools or {"mark": mark, "repeatable": Repeatable(self.marks), "look": Look(self.marks)}

    def request(self) -> Request:
        self.asked += 1
        now = datetime(2026, 11, 22, tzinfo=UTC)
        return Request(command=Command(name="x.md", body="words"), soul="", now=now, run="r1", history=self.history)

    def rules_of(self, tool: str) -> Rules:
        return [(f"tools: {tool}", self.rules.get(tool, "allow"))]

    def record(self, event: str, fields: dict[str, Any], durable: bool) -> None:
        line = msgspec.json.encode({"event": event, **fields})
        number = len(self.records)
        if self.die_at == (number, False):
            raise Crash
        self.records.append(json.loads(line))
        if durable:
            self.durable.append(event)
        if self.die_at == (number, True):
            raise Crash

    def run(self, engine: Any, *, repeat: bool = False) -> Ending:
        context = Context(
            root=SafeRoot(self.folder), home=cast(Any, None), now=lambda: datetime(2026, 11, 22, tzinfo=UTC), run="r1",
            trigger="inbox", seconds_left=lambda: self.seconds, stopping=lambda: self.stop,
        )  # fmt: skip

        host = WorldHost(self)
        return Runner(self.tools).run(engine, host, context, replay(self.records), repeat)

    def marked(self) -> list[str]:
        return self.marks.read_text().split() if self.marks.exists() else []


def mark(*words: str, tool: str = "mark") -> Step:
    return Step(calls=tuple(ToolCall(tool, {"": word}) for word in words))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w")


# a run that nothing disturbs


def test_steps_are_carried_out_in_order_and_recorded(world: World) -> None:
    ending = world.run(Script(mark("a", "b"), mark("c"), Step(answer="all done", quiet=True)))
    assert ending.step == Step(answer="all done", quiet=True)
    assert world.marked() == ["a", "b", "c"]
    assert (ending.changed, ending.remembered) == (("a", "b", "c"), ("a", "b", "c"))
    assert [[result.text for result in turn.results] for turn in ending.turns] == [
        ["marked a", "marked b"],
        ["marked c"],
    ]
    assert [record["event"] for record in world.records] == [
        "step", "call", "result", "call", "result", "turn", "step", "call", "result", "turn",
    ]  # fmt: skip
    assert world.asked == 3, "the request is made afresh for every step: the soul may have changed"


def test_an_intent_is_durable_before_a_call_that_changes_anything(world: World) -> None:
    world.run(Script(mark("a"), mark("b", tool="look"), mark("c", tool="repeatable")))
    calls = [record for record in world.records if record["event"] == "call"]
    assert [call["tool"] for call in calls] == ["mark", "look", "repeatable"]
    assert world.durable.count("call") == 2, "a look may be lost"


def test_a_failing_call_is_a_result_and_the_engine_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "eod")
    ending = world.run(Script(mark("a"), mark("b"), mark("c")))
    results = [turn.results[0] for turn in ending.turns]
    assert [(r.ok, r.retryable, r.denied) for r in results] == [
        (False, True, False),
        (True, False, False),
        (False, False, True),
    ]
    assert ending.step.answer == "done"
    assert world.marked() == ["b"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            ToolCall("mrk", {"": "a"}),
            "there is no tool 'mrk' (did you mean 'mark'?); there are: look, mark, repeatable",
        ),
        (ToolCall("mark", {"wrod": "a"}), "mark has no argument 'wrod' (did you mean 'word'?); it takes word, times"),
        (ToolCall("mark", {}), "misses the argument 'word'"),
        (ToolCall("mark", {"word": ["a"]}), "mark: word: Expected 'str', got 'array'"),
        (ToolCall("mark", {"word": "a", "times": "many"}), "times"),
    ],
)
def test_a_call_that_cannot_be_made_says_why(world: World, call: ToolCall, says: str) -> None:
    assert (
        says
        in Runner(world.tools).faults([ToolCall("mark", {"": "fine"}), msgspec.structs.replace(call, line=7)])[0][1]
    )
    assert Runner(world.tools).faults([call, call]) != []
    ending = world.run(Script(Step(calls=(call,))))
    assert says in ending.turns[0].results[0].error
    assert world.marked() == []


def test_faults_of_a_playbook_carry_their_lines(world: World) -> None:
    calls = [ToolCall("mark", {"": "a"}, line=3), ToolCall("x", line=4), ToolCall("mark", {"y": 1}, line=5)]
    assert [line for line, _ in Runner(world.tools).faults(calls)] == [4, 5]


@pytest.mark.parametrize("rule", ["deny", {"b*": "allow"}, {"a": "deny", "*": "ask"}])
def test_a_denied_call_never_happens_and_leaves_no_intent(world: World, rule: Rule) -> None:
    world.rules["mark"] = rule
    ending = world.run(Script(mark("a")))
    assert ending.turns[0].results[0].denied
    assert world.marked() == []
    assert "call" not in [record["event"] for record in world.records]


def test_a_run_is_bounded_in_time_and_steps(world: World) -> None:
    endless = Script(*[mark("a", tool="look")] * 2001)
    assert "more than 2000 steps" in world.run(endless).step.error
    world.records.clear()
    world.seconds = 0
    ending = world.run(Script(mark("b")))
    assert (ending.step.status, "timeout" in ending.step.error) == ("failed", True)


def test_an_engine_that_cannot_go_on_ends_the_run(world: World) -> None:
    class Lost(Script):
        def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
            if turns:
                raise ValueError("{{ x }} stands for nothing")
            return super().decide(request, turns)

    ending = world.run(Lost(mark("a")))
    assert (ending.step.status, ending.step.error) == ("failed", "step 2: {{ x }} stands for nothing")
    assert ending.changed == ("a",), "what was done is told"


def test_a_stop_comes_between_calls_and_the_run_goes_on_later(world: World) -> None:
    class StopAfter(Mark):
        def run(self, args: MarkArgs, context: Context) -> ToolResult:
            result = super().run(args, context)
            world.stop = args.word == "b"
            return result

    world.tools = {"mark": StopAfter(world.marks)}
    script = Script(mark("a", "b", "c"), mark("d"))
    with pytest.raises(Stopped):
        world.run(script)
    assert world.marked() == ["a", "b"]
    world.stop = False
    assert world.run(script).step.answer == "done"
    assert world.marked() == ["a", "b", "c", "d"]


# cut off anywhere

SCRIPT = Script(mark("a"), mark("b", "c"), mark("d", tool="repeatable"), mark("e", tool="look"), mark("f"))
WORDS = ["a", "b", "c", "d", "e", "f"]


def record_count(folder: Path) -> int:
    world = World(folder)
    world.run(SCRIPT)
    return len(world.records)


def has_result(records: list[dict[str, Any]]) -> set[str]:
    return {word for record in records if record["event"] == "result" for word in record["result"].get("changed", [])}


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_a_run_cut_off_at_any_record_is_gone_on_with(tmp_path: Path, repeat: bool, written: bool) -> None:
    for number in range(record_count(tmp_path / "whole")):
        world = World(tmp_path / f"w{number}")
        world.die_at = (number, written)
        with pytest.raises(Crash):
            world.run(SCRIPT, repeat=repeat)
        world.die_at = None
        before, known = world.marked(), has_result(world.records)
        ending = world.run(SCRIPT, repeat=repeat)
        after = world.marked()
        for word in known:
            assert after.count(word) == 1, f"{word} has a result and was made again (record {number})"
        if ending.step.status == "done":
            assert list(dict.fromkeys(after)) == WORDS
            assert [r.text for turn in ending.turns for r in turn.results] == [f"marked {word}" for word in WORDS]
            if not repeat:
                assert all(after.count(word) == 1 for word in "abcf"), f"a once-call was repeated (record {number})"
        else:
            assert not repeat
            assert ending.step.status == "interrupted"
            assert "it was not repeated" in ending.step.error
            assert after == before, "nothing more was done"
        again = world.run(SCRIPT, repeat=repeat)
        assert again.step.status == ending.step.status, "asked once more, it says the same"


@pytest.mark.parametrize("tool", ["mark", "repeatable", "look"])
@pytest.mark.parametrize("letter", ["k", "K"])
@pytest.mark.parametrize("repeat", [False, True])
def test_a_call_that_was_cut_off_is_in_doubt(tmp_path: Path, tool: str, letter: str, repeat: bool) -> None:
    world = World(tmp_path / "w")
    world.tools[tool] = type(world.tools[tool])(world.marks, f"{letter}o")  # type: ignore[call-arg]
    script = Script(mark("a", tool=tool), mark("b", tool="look"))
    with pytest.raises(Crash):
        world.run(script, repeat=repeat)
    done_once = letter == "K"
    ending = world.run(script, repeat=repeat)
    if tool == "mark" and not repeat:
        assert ending.step.status == "interrupted"
        assert "mark" in ending.step.error
        assert world.marked() == ["a"] * done_once
    else:
        assert ending.step.status == "done"
        assert world.marked() == ["a"] * done_once + ["a", "b"]


class Knowing(Mark):
    """Can tell after a crash: ``before`` notes how many marks there were."""

    def before(self, args: MarkArgs, context: Context) -> dict[str, Any] | None:
        return {"marks": self.path.read_text().count("\n") if self.path.exists() else 0}

    def happened(self, args: MarkArgs, context: Context, before: dict[str, Any]) -> ToolResult | Literal[False] | None:
        now = self.path.read_text().count("\n") if self.path.exists() else 0
        return ToolResult(text="found again", changed=(args.word,)) if now > before["marks"] else False


@pytest.mark.parametrize(("letter", "text"), [("k", "marked b"), ("K", "found again")])
def test_a_tool_that_can_tell_is_asked(tmp_path: Path, letter: str, text: str) -> None:
    world = World(tmp_path / "w")
    world.tools["mark"] = Knowing(world.marks, f"o{letter}o")
    script = Script(mark("a"), mark("b"), mark("c"))
    with pytest.raises(Crash):
        world.run(script)
    ending = world.run(script)
    assert ending.step.answer == "done"
    assert world.marked() == ["a", "b", "c"]
    assert ending.turns[1].results[0].text == text
    assert ending.changed == ("a", "b", "c")


# append, which can tell by looking


def lines(world: World) -> list[str]:
    return (world.folder / "log.txt").read_text().splitlines()


def append_script() -> Script:
    return Script(*[Step(calls=(ToolCall("append", {"path": "log.txt", "text": f"line {n}"}),)) for n in range(4)])


@pytest.mark.parametrize("written", [False, True])
def test_append_is_done_once_wherever_it_is_cut_off(tmp_path: Path, written: bool) -> None:
    tools = load_tools()
    whole = World(tmp_path / "whole", tools=tools)
    whole.run(append_script())
    for number in range(len(whole.records)):
        world = World(tmp_path / f"w{number}", tools=tools)
        (world.folder / "log.txt").write_text("there before, no newline")
        world.die_at = (number, written)
        with pytest.raises(Crash):
            world.run(append_script())
        world.die_at = None
        ending = world.run(append_script())
        assert ending.step.answer == "done", ending.step
        assert lines(world) == ["there before, no newline", *[f"line {n}" for n in range(4)]]


@pytest.mark.parametrize(
    ("meddle", "status", "count"),
    [
        (lambda path: path.write_text(path.read_text() + "a person's\n"), "done", 1),
        (lambda path: path.write_text("all new\n"), "interrupted", 0),
        (lambda path: path.unlink(), "interrupted", 0),
    ],
)
def test_a_person_who_wrote_meanwhile_is_never_overwritten(
    tmp_path: Path, meddle: Callable[[Path], None], status: str, count: int
) -> None:
    world = World(tmp_path / "w", tools=load_tools())
    path = world.folder / "log.txt"
    path.write_text("before\n")
    script = Script(Step(calls=(ToolCall("append", {"path": "log.txt", "text": "mine"}),)))
    world.die_at = (2, False)  # after the effect, before its result
    with pytest.raises(Crash):
        world.run(script)
    world.die_at = None
    assert lines(world) == ["before", "mine"]
    meddle(path)
    person = path.read_text() if path.exists() else None
    ending = world.run(script)
    assert ending.step.status == status
    assert (path.read_text() if path.exists() else None) == person
    assert (person or "").count("mine") == count


# replay


def test_replay_gives_back_what_was_recorded(world: World) -> None:
    ending = world.run(SCRIPT)
    assert replay(world.records) == Progress(turns=ending.turns)
    noise = [{"event": "claimed"}, {"event": "attempt", "n": 1}, {"event": "started"}]
    assert replay([*noise, *world.records, {"event": "stopped"}]).turns == ending.turns
    assert replay([]) == Progress()


def test_a_retry_begins_with_the_step_that_failed(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "oeo")
    script = Script(mark("a"), mark("b"), mark("c"))

    class Stopping(Script):
        def decide(self, request: Request, turns: Sequence[Turn]) -> Step:
            if turns and not turns[-1].results[-1].ok:
                return Step(status="failed", error="b failed")
            return super().decide(request, turns)

    engine = Stopping(*script.steps)
    assert world.run(engine).step.status == "failed"
    world.record("retry", {"error": "b failed"}, False)
    assert [turn.results[0].text for turn in replay(world.records).turns] == ["marked a"]
    assert world.run(engine).step.status == "done"
    assert world.marked() == ["a", "b", "c"]


# what it used


@pytest.mark.parametrize("written", [False, True])
def test_what_the_engine_used_is_summed_over_all_steps_also_after_a_crash(tmp_path: Path, written: bool) -> None:
    steps = [mark("a"), mark("b", "c"), mark("d", tool="look"), Step(answer="done")]
    spent = [Usage(tokens_in=10**n, tokens_out=2 * 10**n, cost=0.25 * 2**n) for n in range(4)]
    script = Script(*[msgspec.structs.replace(step, usage=used) for step, used in zip(steps, spent, strict=True)])
    whole = World(tmp_path / "whole")
    assert whole.run(script).usage == Usage(tokens_in=1111, tokens_out=2222, cost=3.75)
    for number in range(len(whole.records)):
        world = World(tmp_path / f"w{number}")
        world.die_at = (number, written)
        with pytest.raises(Crash):
            world.run(script, repeat=True)
        world.die_at = None
        assert world.run(script, repeat=True).usage == Usage(tokens_in=1111, tokens_out=2222, cost=3.75)
    assert whole.run(script).usage == Usage(tokens_in=1111, tokens_out=2222, cost=3.75), "asked once more, the same"
    assert World(tmp_path / "none").run(Script()).usage == Usage()


class Telling(Mark):
    """A tool that can tell after a crash that it did what it was asked to."""

    name = "telling"

    def happened(self, args: MarkArgs, context: Context, before: dict[str, Any]) -> ToolResult | Literal[False] | None:
        return ToolResult(text=f"found {args.word}")


def test_what_was_found_to_have_happened_is_recorded_so_the_next_crash_knows_it(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    world = World(folder, tools={"telling": Telling(folder / "marks", "Ko"), "mark": Mark(folder / "marks", "ko")})
    script = Script(Step(calls=(ToolCall("telling", {"": "a"}), ToolCall("mark", {"": "b"}))))
    for _ in range(2):  # behind the effect of the first call, then before that of the second
        with pytest.raises(Crash):
            world.run(script)
    ending = world.run(script, repeat=True)
    assert [result.text for result in ending.turns[0].results] == ["found a", "marked b"]
    assert world.marked() == ["a", "b"]
    assert replay(world.records).turns == ending.turns
