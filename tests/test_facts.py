"""The soul as text: what is a fact, and that nothing but our own lines is ever touched."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsagent.facts import (
    SOUL_TEMPLATE,
    add_fact,
    clean_fact,
    exact_facts,
    fact_key,
    find_facts,
    read_facts,
    remove_facts,
    replace_fact,
    same_fact,
)
from fsagent.model import Fact
from fsagent.statements import second_person, sentence, subject_key, third_person

ALICE = "The owner's name is Alice."


def texts(soul: str) -> list[str]:
    return [fact.text for fact in read_facts(soul)]


def test_a_fresh_soul_has_its_sections_and_no_facts() -> None:
    assert read_facts(SOUL_TEMPLATE) == ()
    for heading in ("# Soul\n", "## Who I am\n", "## Facts\n", "## Notes\n"):
        assert heading in SOUL_TEMPLATE
    assert "Alice" not in SOUL_TEMPLATE


def test_a_fact_is_added_to_a_fresh_soul() -> None:
    once = add_fact(SOUL_TEMPLATE, ALICE)
    assert once == SOUL_TEMPLATE.replace("-->\n\n## Notes", f"-->\n\n- {ALICE}\n\n## Notes")
    (fact,) = read_facts(once)
    assert (fact.text, fact.key, once.splitlines()[fact.line - 1]) == (ALICE, "name", f"- {ALICE}")
    twice = add_fact(once, "The router is a Fritzbox.")
    assert twice == once.replace(f"- {ALICE}\n", f"- {ALICE}\n- The router is a Fritzbox.\n")


def test_a_known_fact_adds_nothing() -> None:
    soul = add_fact(SOUL_TEMPLATE, ALICE)
    for same in (ALICE, "The owner's name is Alice", "the owner’s  name is Alice", f"- {ALICE}\n"):
        assert add_fact(soul, same) == soul
    for other in ("The owner's name is ALICE.", "The owner's name is Alice!"):
        assert add_fact(soul, other) != soul


def test_what_a_person_edits_is_what_is_read() -> None:
    soul = add_fact(SOUL_TEMPLATE, ALICE).replace("Alice", "Bob")
    assert texts(soul) == ["The owner's name is Bob."]


@pytest.mark.parametrize(
    ("soul", "found"),
    [
        ("", []),
        ("## Facts\n- a\n* b\n+ c\n", ["a", "b", "c"]),
        ("# FACTS\n- a", ["a"]),
        ("###### facts about the house ######\n- a", ["a"]),
        ("Facts\n=====\n- a\n", ["a"]),
        ("Facts\n---\n- a\n", ["a"]),
        ("Facts\n-\n-\n- a\n", ["a"]),
        ("## Facts\n- a\n### House\n- b\n## Notes\n- c\n", ["a", "b"]),
        ("## Facts\n- a\n# Notes\n- c\n## More facts\n- d\n", ["a", "d"]),
        ("## Facts\n  - a\n    - b\n\t* c\n1. d\n", ["a", "b", "c", "d"]),
        ("## Facts\n- a\n  goes on\n- b\n", ["a goes on", "b"]),
        ("## Facts\n\n---\n- - -\n***\n- \n-\n-a\n", []),
        ("## Facts\n<!-- - a -->\n- b <!-- sure? -->\n<!--\n- c\n-->\n- d\n", ["b", "d"]),
        ("## Facts\n```\n- a\n```\n~~~ x\n- b\n~~~~\n- c\n", ["c"]),
        ("## Facts\n```\n- a\n", ["a"]),
        ("## Facts\n<!-- - a\n- b\n", ["b"]),
        ("## Facts\n> - a\n- b\n", ["b"]),
        ("## Facts\nMy name is Alice\nSome words.\n", ["My name is Alice"]),
        ("My name is Alice\n", ["My name is Alice"]),
        ("Name: Alice\r\n", ["Name: Alice"]),
        ("- Name: Alice", ["- Name: Alice"[2:]]),
        ("- **Name:** Alice", ["**Name:** Alice"]),
        ("# Soul\n\n## Notes\nI live in Lisbon.\nThe plan is secret.\nTodo: buy milk\n", ["I live in Lisbon."]),
        ("## Who I am\nMy name is Robo.\n## Notes\nMy name is Alice.\n", ["My name is Alice."]),
        ("# My name is Alice\n    My name is Bob\n> My name is Carol\n", []),
        ("---\nname: Robo\n---\nMy name is Alice\n", ["My name is Alice"]),
        ("---\nname: Alice\n", ["name: Alice"]),
        ("\ufeff- Name: Alice\n", ["Name: Alice"]),
        ("\ufeff## Facts\n- a\n", ["a"]),
        ("## Facts\r- a\r\r- b", ["a", "b"]),
        ("## Facts\n- a\x0bb\u2028c\n", ["a b c"]),
    ],
)
def test_what_is_a_fact(soul: str, found: list[str]) -> None:
    assert texts(soul) == found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "## Facts\n\n- x\n"),
        ("\ufeff", "\ufeff## Facts\n\n- x\n"),
        ("Hello", "Hello\n\n## Facts\n\n- x"),
        ("Hello\n", "Hello\n\n## Facts\n\n- x\n"),
        ("Hello\n\n", "Hello\n\n## Facts\n\n- x\n"),
        ("Hello\r\n", "Hello\r\n\r\n## Facts\r\n\r\n- x\r\n"),
        ("## Facts", "## Facts\n\n- x"),
        ("## Facts\n", "## Facts\n\n- x\n"),
        ("## Facts\n- a", "## Facts\n- a\n- x"),
        ("## Facts\r\n- a\r\n", "## Facts\r\n- a\r\n- x\r\n"),
        ("## Facts\n* a  \n\n\n## Notes\t\n", "## Facts\n* a  \n* x\n\n\n## Notes\t\n"),
        ("## Facts\n- a\n  more\n\n  still\n\nText\n", "## Facts\n- a\n  more\n\n  still\n- x\n\nText\n"),
        ("## Facts\n- a\n### House\n- b\n", "## Facts\n- a\n- x\n### House\n- b\n"),
        ("## Facts\n- a\n  - b\n", "## Facts\n- a\n  - b\n- x\n"),
        ("## Facts\n1. a\n", "## Facts\n1. a\n- x\n"),
        ("## Facts\n- a <!-- b\nc -->\n", "## Facts\n- a <!-- b\nc -->\n- x\n"),
        ("## Facts\nText\n## Notes\n", "## Facts\nText\n\n- x\n## Notes\n"),
    ],
)
def test_where_a_fact_is_added(before: str, after: str) -> None:
    assert add_fact(before, "x") == after
    assert "x" in texts(after)


def test_replacing_changes_one_place() -> None:
    soul = "## Facts\r\n- a\r\n*   The owner's name is Alice. <!-- sure -->  \r\n- b"
    old = read_facts(soul)[1]
    assert replace_fact(soul, old, "The owner's name is Bob.") == soul.replace("Alice", "Bob")


def test_replacing_a_statement_elsewhere() -> None:
    soul = "Intro\nMy name is Alice  \nOutro"
    assert (
        replace_fact(soul, read_facts(soul)[0], "The owner's name is Bob.")
        == "Intro\nThe owner's name is Bob.  \nOutro"
    )
    moved = replace_fact(soul, read_facts(soul)[0], "Nobody knows")
    assert moved == "Intro\nOutro\n\n## Facts\n\n- Nobody knows"


def test_replacing_what_is_gone_or_known() -> None:
    assert texts(replace_fact("## Facts\n- a\n", Fact("b", "", 2), "c")) == ["a", "c"]
    soul = "## Facts\n- a\n- c\n"
    assert replace_fact(soul, read_facts(soul)[0], "c") == "## Facts\n- c\n"
    assert replace_fact(soul, read_facts(soul)[0], "a") == soul


def test_replacing_a_fact_of_two_lines() -> None:
    soul = "## Facts\n- a\n  b\n- c"
    assert replace_fact(soul, read_facts(soul)[0], "x") == "## Facts\n- x\n- c"
    soul = "## Facts\n- a\n  b"
    assert replace_fact(soul, read_facts(soul)[0], "x") == "## Facts\n- x"


def test_removing_takes_only_its_lines() -> None:
    soul = "## Facts\r\n- a \r\n- b\r\n  c\r\n- d"
    facts = read_facts(soul)
    assert remove_facts(soul, [facts[1]]) == "## Facts\r\n- a \r\n- d"
    assert remove_facts(soul, [facts[2]]) == "## Facts\r\n- a \r\n- b\r\n  c\r\n"
    assert remove_facts(soul, facts) == "## Facts\r\n"
    assert remove_facts(soul, [Fact("nobody", "", 1)]) == soul
    assert remove_facts(soul, []) == soul


def test_a_fact_is_found_again_where_it_moved_to() -> None:
    fact = read_facts("## Facts\n- a\n- b\n")[1]
    assert remove_facts("New line\n\n## Facts\n- a\n- b\n", [fact]) == "New line\n\n## Facts\n- a\n"


def test_of_two_equal_lines_the_one_that_is_meant_goes() -> None:
    soul = "## Facts\n- a\n- b\n- a\n"
    assert remove_facts(soul, [read_facts(soul)[2]]) == "## Facts\n- a\n- b\n"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\nb\r\n  c", "a b c"),
        ("# a", "a"),
        ("- a", "a"),
        ("* - ## > a", "a"),
        ("``` a", "a"),
        ("---", ""),
        ("--- a", "a"),
        ("***bold***", "***bold***"),
        ("#hashtag is fine", "#hashtag is fine"),
        ("-5 degrees", "-5 degrees"),
        ("a <!-- b --> c", "a <! -- b -- > c"),
        ("<<!--!---->>", "<<! --!---- >>"),
        ("a\u2028b\x00c\x85d\ufeff", "a b c d"),
        (" \n ", ""),
    ],
)
def test_a_fact_is_one_harmless_line(text: str, clean: str) -> None:
    assert clean_fact(text) == clean
    assert clean_fact(clean) == clean


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The owner's name is Alice", "name"),
        ("The owner’s name is Alice.", "name"),
        ("My name is Alice", "name"),
        ("MY NAME IS ALICE", "name"),
        ("Name: Alice", "name"),
        ("**Name:** Alice", "name"),
        ("My name is now Bob", "name"),
        ("I am called Alice", "name"),
        ("I'm Alice", "name"),
        ("I am German", ""),
        ("Call me Al", "nickname"),
        ("The owner wants to be called Al.", "nickname"),
        ("I live in Lisbon", "home"),
        ("The owner lives in Lisbon.", "home"),
        ("Home: Lisbon", "home"),
        ("City: Lisbon", "home"),
        ("My home is in Lisbon", "home"),
        ("I moved to Porto", "home"),
        ("The router is a Fritzbox", "router"),
        ("Routers are Fritzboxes", "router"),
        ("Router: Fritzbox", "router"),
        ("The router is in the cellar", "router place"),
        ("My dog is called Rex", "dog name"),
        ("My dog's name is Rex", "dog name"),
        ("The name of my dog is Rex", "dog name"),
        ("My birthday is on 3 May", "birthday"),
        ("Date of birth: 3 May", "birthday"),
        ("My e-mail address is a@b.c", "email"),
        ("My favourite colours are red and blue", "favorite color"),
        ("The agent's name is Robo", "agent name"),
        ("The router is not a Fritzbox", ""),
        ("It is raining", ""),
        ("I like tea", ""),
        ("https://example.com is a site", ""),
        ("My wife thinks the house is cold", ""),
        ('The owner said: "my name is what it is"', ""),
        ("", ""),
        ("???", ""),
    ],
)
def test_keys(text: str, key: str) -> None:
    assert fact_key(text) == key


@pytest.mark.parametrize(
    ("subject", "key"),
    [
        ("my name", "name"),
        ("The Routers", "router"),
        ("your name", "agent name"),
        ("my date of birth", "birthday"),
        ("", ""),
    ],
)
def test_subjects(subject: str, key: str) -> None:
    assert subject_key(subject) == key


@pytest.mark.parametrize(
    ("first", "third", "second"),
    [
        ("My name is Alice", "The owner's name is Alice", "Your name is Alice"),
        ("Name: Alice", "The owner's name is Alice", "Your name is Alice"),
        ("I live in Lisbon", "The owner lives in Lisbon", "You live in Lisbon"),
        ("I’m a nurse", "The owner is a nurse", "You are a nurse"),
        ("I don't like tea", "The owner doesn't like tea", "You don't like tea"),
        ("I usually work at night", "The owner usually works at night", "You usually work at night"),
        ("call me Al", "The owner wants to be called Al", "You want to be called Al"),
        ("Bob gave me my hat", "Bob gave the owner the owner's hat", "Bob gave you your hat"),
        ("I went to Rome", 'The owner said: "I went to Rome"', 'You said: "I went to Rome"'),
        ("Bob knows what I mean", 'The owner said: "Bob knows what I mean"', 'You said: "Bob knows what I mean"'),
        ('The song is "Call me my love"', 'The song is "Call me my love"', 'The song is "Call me my love"'),
        ("mail is a.me@my.org", "Mail is a.me@my.org", "Mail is a.me@my.org"),
        ("The router is a Fritzbox", "The router is a Fritzbox", "The router is a Fritzbox"),
    ],
)
def test_who_is_speaking(first: str, third: str, second: str) -> None:
    assert third_person(first) == third
    assert third_person(third) == third
    assert second_person(third) == second


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("the end", "The end."),
        ("the end!", "The end!"),
        ("it is hunter2", "It is hunter2"),
        ("iPhone X", "iPhone X."),
        ("", ""),
    ],
)
def test_sentences(text: str, whole: str) -> None:
    assert sentence(text) == whole


KNOWN = read_facts(
    "## Facts\n- The owner's name is Alice.\n- The router is a Fritzbox.\n- The router is in the cellar.\n"
    "- The owner's dog's name is Rex.\n- Rex likes cheese.\n"
)


@pytest.mark.parametrize(
    ("about", "lines"),
    [
        ("", [2, 3, 4, 5, 6]),
        ("my name", [2, 5]),
        ("name", [2, 5]),
        ("the router", [3, 4]),
        ("ROUTERS", [3, 4]),
        ("the dog's name", [5]),
        ("rex", [5, 6]),
        ("me", [2, 5]),
        ("the owner", [2, 5]),
        ("cheese", [6]),
        ("quantum physics", []),
        ("the", []),
    ],
)
def test_finding(about: str, lines: list[int]) -> None:
    assert [fact.line for fact in find_facts(KNOWN, about)] == lines


@pytest.mark.parametrize(
    ("about", "lines"),
    [
        ("my name", [2]),
        ("My name is Alice", [2]),
        ("the owner's name is alice.", [2]),
        ("The router is a Fritzbox", [3]),
        ("router", [3]),
        ("the cellar", []),
        ("", []),
    ],
)
def test_finding_exactly(about: str, lines: list[int]) -> None:
    assert [fact.line for fact in exact_facts(KNOWN, about)] == lines


PIECES = [
    "# Soul", "## Facts", "### Facts", "## Notes", "## Who I am", "Facts", "===", "---", "- a", "* b", "  - c",
    "1. one", "\tdeep", "    code", "text", "```", "~~~", "<!--", "-->", "<!-- x -->", "`<!--`", "My name is Alice",
    "Name: Bob", "- The router is a Fritzbox.", "I live in Lisbon. ", "- long\n  tail", "> quote", "", " ", "-", "- ",
    "- d <!-- e", "\ufeff",
]  # fmt: skip
ENDS = ["\n", "\r\n", "\r", "\n\n", ""]
LINES = st.tuples(st.sampled_from(PIECES), st.sampled_from(ENDS)).map("".join)
souls = st.lists(LINES, max_size=25).map("".join)
anything = st.one_of(souls, st.text(max_size=200))
statements = st.one_of(
    st.text(max_size=60), st.sampled_from([ALICE, "a --> b <!-- c", "```", "# x", "The router is old."])
)


@settings(max_examples=400)
@given(anything, statements)
@example("---\n", "x")
@example("## Facts\n- a\n\n    code\n", "x")
@example("text\n---", "x")
def test_adding_inserts_and_hides_nothing(soul: str, fact: str) -> None:
    added = add_fact(soul, fact)
    clean = clean_fact(fact)
    if added == soul:
        assert not clean or any(same_fact(clean, text) for text in texts(soul))
        return
    assert clean in texts(added)
    start = next((i for i, (a, b) in enumerate(zip(soul, added, strict=False)) if a != b), min(len(soul), len(added)))
    grown = len(added) - len(soul)
    assert any(soul == added[:i] + added[i + grown :] for i in range(max(0, start - len(added)), start + 1))
    assert [text for text in texts(added) if text != clean] == [text for text in texts(soul) if text != clean]
    assert add_fact(added, fact) == added


@settings(max_examples=400)
@given(anything, st.data())
def test_removing_takes_lines_and_nothing_else(soul: str, data: st.DataObject) -> None:
    facts = read_facts(soul)
    chosen = data.draw(st.lists(st.sampled_from(facts), unique=True)) if facts else []
    left = remove_facts(soul, chosen)
    pieces = iter(soul)
    assert all(char in pieces for char in left), "what is left was there before, in that order"
    assert left.startswith("\ufeff") or not soul.startswith("\ufeff")
    if not chosen:
        assert left == soul


def filled_lines(text: str) -> list[str]:
    lines = (line.strip("\ufeff") for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line]


@settings(max_examples=400)
@given(anything, statements)
def test_replacing_touches_no_other_line(soul: str, new: str) -> None:
    for old in read_facts(soul)[:3]:
        replaced = replace_fact(soul, old, new)
        others = iter(filled_lines(replaced))
        assert all(line in others for line in filled_lines(remove_facts(soul, [old]))), "no other line is touched"
        if clean_fact(new):
            assert any(same_fact(text, clean_fact(new)) for text in texts(replaced))


@given(st.text(max_size=200))
def test_no_text_is_too_strange(text: str) -> None:
    fact_key(text)
    third = third_person(text)
    second_person(third)
    sentence(text)
    assert clean_fact(clean_fact(text)) == clean_fact(text)
    assert "\n" not in clean_fact(text)
    for fact in read_facts(text):
        assert fact.text.strip() == fact.text != ""
        assert 1 <= fact.line <= text.count("\n") + text.count("\r") + 1


@pytest.mark.parametrize(
    "soul",
    [
        "<!--" * 50_000,
        "```\n~~~~\n" * 20_000,
        "- a\n" * 50_000,
        "a: " * 50_000,
        "#" * 200_000,
        "\n" * 200_000,
        "x\n-\n" * 50_000,
    ],
)
def test_a_large_soul_takes_no_time(soul: str) -> None:
    read_facts(soul)  # the test's own limit is the time-out
    add_fact(soul, ALICE)
