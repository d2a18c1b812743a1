"""A person's answer lets one exact call happen once: not twice, not another one, and not after a crash in doubt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fsagent.consent import ApprovalNeeded, Consent, Place, action_print
from fsagent.errors import ToolError
from fsagent.model import Answer, Question, Step, ToolResult
from fsagent.progress import Ending, replay
from fsagent.runner import Runner
from fsagent.tools.base import Context
from test_runner import Crash, Mark, MarkArgs, Script, World, mark


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "w")
    world.rules = {"mark": "ask", "look": "ask", "repeatable": "ask"}
    return world


def asked_by(world: World, script: Script, **options: Any) -> list[Question]:
    with pytest.raises(ApprovalNeeded) as caught:
        world.run(script, **options)
    recorded = msgspec.convert(world.records[-1]["questions"], list[Question])
    assert (world.records[-1]["event"], recorded) == ("asked", list(caught.value.questions))
    return recorded


def answer(world: World, *answers: Answer) -> None:
    world.record("answered", {"answers": list(answers)}, False)


def yes(question: Question, **fields: Any) -> Answer:
    return Answer(hash=question.hash, decision="once", **fields)


def calls(world: World) -> list[dict[str, Any]]:
    return [record for record in world.records if record["event"] == "call"]


def test_nothing_happens_before_a_tick_and_all_of_a_step_is_asked_together(world: World) -> None:
    world.rules["look"] = "allow"
    script = Script(Step(calls=(*mark("a", tool="look").calls, *mark("b", "c", tool="mark").calls)))
    questions = asked_by(world, script)
    assert [(each.tool, each.subject, each.call) for each in questions] == [("mark", "b", 1), ("mark", "c", 2)]
    assert questions[0].why == "mark needs an approval (tools: mark: ask)"
    assert (questions[0].args, questions[0].effect) == ({"word": "b"}, "once"), "defaults are left out"
    assert world.marked() == ["a"], "what needs no leave was done already"
    assert world.durable.count("asked") == 1
    answer(world, *map(yes, questions))
    assert world.run(script).step.answer == "done"
    assert world.marked() == ["a", "b", "c"]
    assert [call.get("approval") for call in calls(world)] == [None, *(each.hash for each in questions)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Answer(hash="", decision="refuse", comment="not on Sundays"), "a person refused mark: not on Sundays"),
        (Answer(hash="", decision="refuse"), "a person refused mark"),
        (Answer(hash="", decision="expired"), "nobody approved mark in time, so it counts as refused"),
    ],
)
def test_a_refusal_is_a_result_and_the_engine_goes_on(world: World, given: Answer, says: str) -> None:
    script = Script(mark("a"), Step(answer="went on"))
    (question,) = asked_by(world, script)
    answer(world, msgspec.structs.replace(given, hash=question.hash))
    world.rules["mark"] = "allow"
    ending = world.run(script)
    assert (ending.step.answer, world.marked()) == ("went on", [])
    assert ending.turns[0].results == (ToolResult(error=says, denied=True),)
    assert not calls(world)


def test_a_deny_that_came_later_stays_denied(world: World) -> None:
    script = Script(mark("a"))
    (question,) = asked_by(world, script)
    answer(world, yes(question))
    world.rules["mark"] = "deny"
    ending = world.run(script)
    assert ending.turns[0].results[0].denied
    assert world.marked() == []


def test_the_same_call_later_in_the_run_is_asked_anew(world: World) -> None:
    script = Script(mark("a", "a"), mark("a"))
    first = asked_by(world, script)
    assert len({each.hash for each in first}) == 2, "each of two equal calls has its own question"
    answer(world, yes(first[0]), Answer(hash=first[1].hash, decision="refuse"))
    (later,) = asked_by(world, script)
    assert world.marked() == ["a"]
    assert later.hash not in {each.hash for each in first}
    answer(world, yes(later))
    world.run(script)
    assert world.marked() == ["a", "a"]


@pytest.mark.parametrize("change", ["tool", "args", "subject", "run", "step", "call"])
def test_every_part_of_an_action_is_in_its_print(change: str) -> None:
    def made(**changed: Any) -> str:
        parts: dict[str, Any] = {"run": "r", "step": 0, "call": 0, "tool": "t", "args": {"a": 1}, "subject": "s"}
        parts |= changed
        place = Place(parts.pop("step"), parts.pop("call"))
        return action_print(parts["run"], place, parts["tool"], parts["args"], parts["subject"])

    other: dict[str, Any] = {"tool": "u", "args": {"a": 2}, "subject": "s2", "run": "r2", "step": 1, "call": 1}
    assert made() != made(**{change: other[change]})
    assert made() == made()


def test_an_answer_of_another_run_or_with_another_print_counts_for_nothing(world: World) -> None:
    script = Script(mark("a"))
    (question,) = asked_by(world, script)
    for wrong in ("", "0" * 64, question.hash[:16], action_print("r2", Place(0, 0), "mark", {"word": "a"}, "a")):
        answer(world, Answer(hash=wrong, decision="once"))
        asked_by(world, script)
    assert world.marked() == []


def test_what_leads_somewhere_else_by_now_is_asked_again(world: World) -> None:
    class Moving(Mark):
        where = "here"

        def prepare(self, args: MarkArgs, context: Context) -> MarkArgs:
            return msgspec.structs.replace(args, word=f"{self.where}-{args.word}")

    moving = Moving(world.marks)
    world.tools = {"mark": moving}
    script = Script(mark("a"))
    (question,) = asked_by(world, script)
    answer(world, yes(question))
    moving.where = "there"
    (again,) = asked_by(world, script)
    assert again.subject == "there-a"
    answer(world, yes(again))
    world.run(script)
    assert world.marked() == ["there-a"]


def revised(world: World, question: Question, **args: Any) -> Answer:
    context = Context(
        root=None, home=None, now=None, run="r1", trigger="inbox", seconds_left=lambda: 9.0, stopping=lambda: False,
    )  # type: ignore[arg-type]  # fmt: skip
    consent = Consent("r1", lambda tool: [(tool, world.rules[tool])], {}, frozenset())
    found = Runner(world.tools).revise(Place(0, question.call), question.tool, args, context, consent)
    return yes(question, args=args, action=found.hash)


def test_a_changed_call_is_what_was_approved(world: World) -> None:
    script = Script(mark("a", "b"))
    first, second = asked_by(world, script)
    answer(world, revised(world, first, word="better", times="2"), yes(second))
    ending = world.run(script)
    assert world.marked() == ["better", "b"]
    assert ending.turns[0].step.calls[0].args == {"word": "better", "times": "2"}, "the engine sees what was done"
    assert replay(world.records).turns == ending.turns, "and so it does after a crash"


def test_a_changed_call_is_judged_like_any_other(world: World) -> None:
    script = Script(mark("a"))
    (question,) = asked_by(world, script)
    world.rules["mark"] = {"evil": "deny", "*": "ask"}
    with pytest.raises(ToolError, match="denied by the settings"):
        revised(world, question, word="evil")
    with pytest.raises(ToolError, match="no argument 'wrod'"):
        revised(world, question, wrod="a")
    with pytest.raises(ToolError, match="times"):
        revised(world, question, word="a", times="many")
    world.rules["mark"] = "ask"
    fine = revised(world, question, word="evil")
    world.rules["mark"] = {"evil": "deny", "*": "ask"}
    answer(world, fine)
    assert world.run(script).turns[0].results[0].denied, "also where the settings changed since"
    assert world.marked() == []


def test_what_is_allowed_for_good_is_not_asked_but_never_what_is_denied(world: World) -> None:
    seen: list[tuple[str, str]] = []

    def standing(tool: str, subject: str) -> bool:
        seen.append((tool, subject))
        return subject == "a"

    world.rules["mark"] = {"evil": "deny", "*": "ask"}
    world.standing = standing
    questions = asked_by(world, Script(mark("a"), mark("evil"), mark("b")))
    assert [each.subject for each in questions] == ["b"]
    assert seen == [("mark", "a"), ("mark", "b")]
    assert calls(world)[0]["approval"] == "always"
    assert world.marked() == ["a"]


def test_a_preview_that_fails_is_told_and_asked_all_the_same(world: World) -> None:
    class Failing(Mark):
        def preview(self, args: MarkArgs, context: Context) -> str:
            raise ToolError("no such passage")

    world.tools = {"mark": Failing(world.marks)}
    (question,) = asked_by(world, Script(mark("a")))
    assert question.preview == "(as things are now, this would fail: no such passage)"


# cut off anywhere: a call is never made without a tick, and never twice by one

ANSWERED = Script(mark("a", "b"), mark("c", tool="repeatable"), mark("d", tool="look"), mark("e"))


def live(world: World, script: Script, *, repeat: bool, say: Callable[[Question], Answer] = yes) -> Ending:
    """A person who answers whatever is asked, until the run ends or dies."""
    for _ in range(30):
        open_ = replay_open(world)
        if open_:
            answer(world, *map(say, open_))
        try:
            return world.run(script, repeat=repeat)
        except ApprovalNeeded:
            continue
    raise AssertionError("it asks for ever")


def replay_open(world: World) -> list[Question]:
    found: list[Question] = []
    for record in world.records:
        if record["event"] == "asked":
            found = msgspec.convert(record["questions"], list[Question])
        elif record["event"] == "answered":
            found = []
    return found


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_cut_off_at_any_record_nothing_is_done_twice_or_without_a_tick(
    tmp_path: Path, repeat: bool, written: bool
) -> None:
    def new(name: str) -> World:
        world = World(tmp_path / name)
        world.rules = dict.fromkeys(world.tools, "ask")
        return world

    whole = new("whole")
    live(whole, ANSWERED, repeat=repeat)
    assert whole.marked() == list("abcde")
    for number in range(len(whole.records)):
        world = new(f"w{number}")
        world.die_at = (number, written)
        with pytest.raises(Crash):
            live(world, ANSWERED, repeat=repeat)
        world.die_at = None
        ending = live(world, ANSWERED, repeat=repeat)
        ticks = [
            each["hash"] for record in world.records if record["event"] == "answered" for each in record["answers"]
        ]
        used = [call["approval"] for call in calls(world)]
        assert all(used), "no call without an approval"
        assert all(used.count(each) <= ticks.count(each) for each in used), f"record {number}"
        if ending.step.status == "done":
            assert list(dict.fromkeys(world.marked())) == list("abcde")
        else:
            assert (repeat, ending.step.status) == (False, "interrupted")
        if not repeat:
            assert all(world.marked().count(word) <= 1 for word in "abe"), f"record {number}"


def test_what_was_cut_off_in_the_middle_is_asked_again_and_the_question_says_so(tmp_path: Path) -> None:
    world = World(tmp_path / "w", "Ko")
    world.rules["mark"] = "ask"
    script = Script(mark("a"))
    (question,) = asked_by(world, script, repeat=True)
    answer(world, yes(question))
    with pytest.raises(Crash):
        world.run(script, repeat=True)
    assert world.marked() == ["a"]
    (again,) = asked_by(world, script, repeat=True)
    assert again.hash == question.hash
    assert "it was approved before" in again.why
    assert "it may have happened" in again.why
    answer(world, yes(again))
    assert world.run(script, repeat=True).step.status == "done"
    assert world.marked() == ["a", "a"], "twice, for it was ticked twice"
