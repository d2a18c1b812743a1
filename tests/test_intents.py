"""Plain English: what is understood, in how many ways, and above all what is not."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.engines.base import Request
from fsagent.engines.intents import INTENTS, Understood, help_text, refusal, understand
from fsagent.model import Command, ToolCall, ToolResult

NOW, DATE = "{{ now }}", "{{ date }}"


def request(body: str = "x", trigger: str = "inbox") -> Request:
    return Request(
        command=Command(name="a.md", body=body, trigger=trigger),  # type: ignore[arg-type]
        soul="",
        now=datetime(2026, 11, 22, 12, 0, tzinfo=UTC),
        run="r1",
    )


def only(text: str, recurring: bool = False) -> Understood:
    understood = understand(text, recurring)
    assert understood is not None, f"not understood: {text!r}"
    return understood


def call(text: str) -> ToolCall:
    (one,) = only(text).calls
    return one


ALICE = [
    "My name is Alice.",
    "My name is Alice",
    "my name is Alice",
    "MY NAME IS Alice!",
    "My  name   is Alice .",
    "My name's Alice.",
    "My name’s Alice",
    "I'm Alice",
    "I’m Alice.",
    "I am Alice",
    "I am called Alice.",
    "I'm called Alice!",
    "I am named Alice",
    "Hi, I'm Alice.",
    "Hello! My name is Alice.",
    "Hey agent, my name is Alice",
    "Name: Alice",
    "My name: Alice",
    "Please remember that my name is Alice.",
    "Remember that my name is Alice",
    "Remember: my name is Alice",
    "Don't forget that my name is Alice!",
    "Don’t forget my name is Alice",
    "please note that my name is Alice.",
    "Could you remember that my name is Alice?",
    "My name is **Alice**.",
    'My name is "Alice"',
    "  My name is Alice 😊  ",
    "My name is Alice!!!",
    "My name is Alice. Thanks!",
    "\ufeffMy name is Alice.\r\n",
    "OK, my name is Alice",
    "By the way, my name is Alice.",
    "For the record, my name is Alice",
    "Keep in mind that my name is Alice.",
    "I’d like you to remember that my name is Alice.",
]


@pytest.mark.parametrize("text", ALICE)
def test_a_name_is_remembered(text: str) -> None:
    assert call(text) == ToolCall("remember", {"fact": "The owner's name is Alice."})
    assert only(text).intent == "remember"


REMEMBERED = [
    ("My name is Ólafur Jónsson", "The owner's name is Ólafur Jónsson."),
    ("my name is alice", "The owner's name is alice."),
    ("MY NAME IS ALICE", "The owner's name is ALICE."),
    ("My name is Mary-Jane O’Brien.", "The owner's name is Mary-Jane O’Brien."),
    ("My name is John Q. Public.", "The owner's name is John Q. Public."),
    ("My name is Dr. Smith", "The owner's name is Dr. Smith."),
    ("My name is Christian", "The owner's name is Christian."),
    ("My name is Ludwig van Beethoven", "The owner's name is Ludwig van Beethoven."),
    ("My name is 山田太郎。".rstrip("。"), "The owner's name is 山田太郎."),
    ("My name is Анна Каренина!", "The owner's name is Анна Каренина."),
    ("I live in Lisbon", "The owner lives in Lisbon."),
    ("I live in Lisbon.", "The owner lives in Lisbon."),
    ("i live in Lisbon!", "The owner lives in Lisbon."),
    ("I LIVE IN Lisbon", "The owner lives in Lisbon."),
    ("I'm living in Lisbon", "The owner lives in Lisbon."),
    ("I am currently living in Lisbon.", "The owner lives in Lisbon."),
    ("I currently live in Lisbon", "The owner lives in Lisbon."),
    ("My home is in Lisbon", "The owner lives in Lisbon."),
    ("Remember that I live in Lisbon.", "The owner lives in Lisbon."),
    ("I live in São Paulo, please", "The owner lives in São Paulo."),
    ("I live at 5 Main Street", "The owner lives at 5 Main Street."),
    ("I live near St. Gallen.", "The owner lives near St. Gallen."),
    ("Call me Al", "The owner wants to be called Al."),
    ("call me Al.", "The owner wants to be called Al."),
    ("Please call me Al!", "The owner wants to be called Al."),
    ("You can call me Al", "The owner wants to be called Al."),
    ("call me al", "The owner wants to be called al."),
    ("Everyone calls me Al", "The owner wants to be called Al."),
    ("I go by Al.", "The owner wants to be called Al."),
    ("I prefer to be called Al", "The owner wants to be called Al."),
    ("Could you call me Al?", "The owner wants to be called Al."),
    ("Just call me Al", "The owner wants to be called Al."),
    ("Remember that the router is a Fritzbox", "The router is a Fritzbox."),
    ("remember that the router is a Fritzbox.", "The router is a Fritzbox."),
    ("Remember the router is a Fritzbox", "The router is a Fritzbox."),
    ("Remember: the router is a Fritzbox", "The router is a Fritzbox."),
    ("Remember this: the router is a Fritzbox!", "The router is a Fritzbox."),
    ("Please remember that the router is a Fritzbox.", "The router is a Fritzbox."),
    ("Please note that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Note: the router is a Fritzbox", "The router is a Fritzbox."),
    ("Don't forget that the router is a Fritzbox", "The router is a Fritzbox."),
    ("do not forget that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Never forget that the router is a Fritzbox!", "The router is a Fritzbox."),
    ("Keep in mind that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Bear in mind that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Make a note that the router is a Fritzbox.", "The router is a Fritzbox."),
    ("Memorize that the router is a Fritzbox", "The router is a Fritzbox."),
    ("For the record, the router is a Fritzbox", "The router is a Fritzbox."),
    ("FYI, the router is a Fritzbox", "The router is a Fritzbox."),
    ("You should know that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Can you remember that the router is a Fritzbox?", "The router is a Fritzbox."),
    ("I want you to remember that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Hey agent, remember that the router is a Fritzbox", "The router is a Fritzbox."),
    ("Agent: remember that the router is a Fritzbox", "The router is a Fritzbox."),
    ("REMEMBER THAT the router is a Fritzbox", "The router is a Fritzbox."),
    ("Remember that the router is a Fritzbox 7590 AX", "The router is a Fritzbox 7590 AX."),
    ("Remember that the wifi password is hunter2", "The wifi password is hunter2"),
    ("Remember that I like tea", "The owner likes tea."),
    ("Remember that I don't like coffee", "The owner doesn't like coffee."),
    ("Remember that my wife's name is Eve", "The owner's wife's name is Eve."),
    ("Remember that I went to Rome", 'The owner said: "I went to Rome"'),
    ("Remember that the bins are emptied every week", "The bins are emptied every week."),
    ("My birthday is 3 May", "The owner's birthday is 3 May."),
    ("My birthday is on 3 May.", "The owner's birthday is on 3 May."),
    ("My email is a.b@example.com", "The owner's email is a.b@example.com"),
    ("My favourite colours are red and blue", "The owner's favourite colours are red and blue."),
    ("My dog is called Rex", "The owner's dog is called Rex."),
    ("My dog's name is Rex", "The owner's dog's name is Rex."),
    ("My router is a Fritzbox 7590 AX.", "The owner's router is a Fritzbox 7590 AX."),
    ("My doctor is Dr. Smith", "The owner's doctor is Dr. Smith."),
    ("I am 34 years old", "The owner is 34 years old."),
    ("I work at Siemens", "The owner works at Siemens."),
    ("I work as a nurse.", "The owner works as a nurse."),
    ("I live in Lisbon, Portugal", "The owner lives in Lisbon, Portugal."),
    ("Remember, the router is a Fritzbox", "The router is a Fritzbox."),
    ("My PIN is 1234", "The owner's PIN is 1234."),
    ("My favourite colours are red, green and blue", "The owner's favourite colours are red, green and blue."),
    ("I was born on 3 May 1990", "The owner's birthday is 3 May 1990."),
]


@pytest.mark.parametrize(("text", "fact"), REMEMBERED)
def test_facts_are_remembered_in_the_third_person(text: str, fact: str) -> None:
    assert call(text) == ToolCall("remember", {"fact": fact})


CHANGED = [
    ("My name is now Bob", "The owner's name is Bob.", "name"),
    ("My name is now Bob.", "The owner's name is Bob.", "name"),
    ("my name is now Bob!", "The owner's name is Bob.", "name"),
    ("My name is Bob now", "The owner's name is Bob.", "name"),
    ("Now my name is Bob", "The owner's name is Bob.", "name"),
    ("Actually, my name is Bob", "The owner's name is Bob.", "name"),
    ("Actually my name is Bob.", "The owner's name is Bob.", "name"),
    ("No, my name is Bob", "The owner's name is Bob.", "name"),
    ("Correction: my name is Bob", "The owner's name is Bob.", "name"),
    ("Sorry, my name is Bob.", "The owner's name is Bob.", "name"),
    ("Update: my name is Bob", "The owner's name is Bob.", "name"),
    ("From now on my name is Bob", "The owner's name is Bob.", "name"),
    ("From now on, my name is Bob.", "The owner's name is Bob.", "name"),
    ("Change my name to Bob", "The owner's name is Bob.", "name"),
    ("change my name to **Bob**.", "The owner's name is Bob.", "name"),
    ("Please change my name to Bob", "The owner's name is Bob.", "name"),
    ("Could you change my name to Bob?", "The owner's name is Bob.", "name"),
    ("Update my name to Bob", "The owner's name is Bob.", "name"),
    ("Set my name to Bob", "The owner's name is Bob.", "name"),
    ("Correct my name to Bob!", "The owner's name is Bob.", "name"),
    ("I changed my name to Bob", "The owner's name is Bob.", "name"),
    ("I've changed my name to Bob.", "The owner's name is Bob.", "name"),
    ("I have just changed my name to Bob", "The owner's name is Bob.", "name"),
    ("My new name is Bob", "The owner's name is Bob.", "name"),
    ("I am now called Bob", "The owner's name is Bob.", "name"),
    ("Remember that my name is now Bob", "The owner's name is Bob.", "name"),
    ("I moved to Porto", "The owner lives in Porto.", "home"),
    ("I have moved to Porto.", "The owner lives in Porto.", "home"),
    ("I've just moved to Porto!", "The owner lives in Porto.", "home"),
    ("I now live in Porto", "The owner lives in Porto.", "home"),
    ("I live in Porto now", "The owner lives in Porto.", "home"),
    ("Actually, I live in Porto", "The owner lives in Porto.", "home"),
    ("Remember that the router is now a Speedport", "The router is a Speedport.", "router"),
    ("Change my birthday to 4 May", "The owner's birthday is 4 May.", "birthday"),
]


@pytest.mark.parametrize(("text", "fact", "key"), CHANGED)
def test_facts_are_changed(text: str, fact: str, key: str) -> None:
    assert call(text) == ToolCall("remember", {"fact": fact, "key": key})
    assert only(text).intent == "change"


NAME = [
    "What is my name?",
    "What is my name",
    "what is my name?",
    "WHAT IS MY NAME?",
    "What's my name?",
    "what’s my name",
    "Whats my name?",
    "What was my name again?",
    "Who am I?",
    "who am i",
    "Do you know my name?",
    "Do you know who I am?",
    "Do you remember my name?",
    "Do you still know my name?",
    "Tell me my name.",
    "Tell me my name, please",
    "Please tell me what my name is",
    "Can you tell me my name?",
    "Could you please tell me my name?",
    "Hey agent, what is my name?",
    "Hi! What's my name?",
    "Say my name.",
    "What am I called?",
    "Have I told you my name?",
    "**What is my name?**",
    "What  is  my  name ??",
]


@pytest.mark.parametrize("text", NAME)
def test_the_name_is_asked_for(text: str) -> None:
    about = [one.args["about"] for one in only(text).calls]
    assert about == ["my name", "my nickname"]


ASKED = [
    ("Where do I live?", "my home"),
    ("where do i live", "my home"),
    ("Do you know where I live?", "my home"),
    ("Tell me where I live.", "my home"),
    ("What city do I live in?", "my home"),
    ("In which city do I live?", "my home"),
    ("When is my birthday?", "my birthday"),
    ("What's my birthday?", "my birthday"),
    ("Do you know when my birthday is?", "my birthday"),
    ("When was I born?", "my birthday"),
    ("How old am I?", "my age"),
    ("Where do I work?", "my employer"),
    ("Who do I work for?", "my employer"),
    ("What is my wifi password?", "my wifi password"),
    ("Who is my doctor?", "my doctor"),
    ("What are my favourite colours?", "my favourite colours"),
    ("What's my dog's name?", "my dog's name"),
    ("What do you know about the router?", "the router"),
    ("what do you know about the router", "the router"),
    ("What do you know about THE ROUTER?", "THE ROUTER"),
    ("Do you know anything about the router?", "the router"),
    ("Tell me what you know about the router.", "the router"),
    ("Tell me everything you know about the router", "the router"),
    ("What have I told you about the router?", "the router"),
    ("What did I tell you about the router?", "the router"),
    ("What do you remember about the router?", "the router"),
    ("What facts do you have about the router?", "the router"),
    ("What else do you know about the router?", "the router"),
    ("What do you know about “the router”?", "the router"),
    ("What is in your memory about the router?", "the router"),
    ("What do you know about me?", "me"),
    ("Tell me about me", "me"),
    ("What have I told you about myself?", "me"),
    ("What do you remember?", ""),
    ("What do you know?", ""),
    ("List the facts", ""),
    ("Show me your memory.", ""),
    ("What's in your memory?", ""),
    ("What facts do you know?", ""),
    ("Tell me everything you know.", ""),
]


@pytest.mark.parametrize(("text", "about"), ASKED)
def test_facts_are_asked_for(text: str, about: str) -> None:
    assert call(text) == ToolCall("recall", {"about": about})


FORGOTTEN = [
    ("Forget my name", "my name"),
    ("forget my name.", "my name"),
    ("FORGET my name!", "my name"),
    ("Please forget my name.", "my name"),
    ("Forget my name, please", "my name"),
    ("Could you forget my name?", "my name"),
    ("You can forget my name", "my name"),
    ("Forget about my name", "my name"),
    ("Delete my name from your memory", "my name"),
    ("Remove my name from the facts.", "my name"),
    ("Erase my name from your soul", "my name"),
    ("Forget who I am", "my name"),
    ("Forget where I live", "my home"),
    ("Forget how old I am.", "my age"),
    ("Forget the router", "the router"),
    ("Forget about the router", "the router"),
    ("Forget everything about the router.", "the router"),
    ("Forget everything you know about the router", "the router"),
    ("Forget what I told you about the router", "the router"),
    ("Forget all about the router!", "the router"),
    ("Delete everything about the router", "the router"),
    ("Forget that the router is a Fritzbox", "the router is a Fritzbox"),
    ("forget that the router is a Fritzbox.", "the router is a Fritzbox"),
    ("Please forget the fact that the router is a Fritzbox", "the router is a Fritzbox"),
    ("Forget that my name is Alice", "The owner's name is Alice"),
    ("Forget that I live in Lisbon.", "The owner lives in Lisbon"),
    ("Forget: the router is a Fritzbox", "the router is a Fritzbox"),
]


@pytest.mark.parametrize(("text", "about"), FORGOTTEN)
def test_facts_are_forgotten(text: str, about: str) -> None:
    assert call(text) == ToolCall("forget", {"about": about})


STAMPED = [
    ("Log the timestamp to log.txt", "log.txt", NOW),
    ("log the timestamp to log.txt.", "log.txt", NOW),
    ("LOG THE TIMESTAMP TO log.txt", "log.txt", NOW),
    ("Please log the timestamp to log.txt", "log.txt", NOW),
    ("Log the timestamp to log.txt, please!", "log.txt", NOW),
    ("Could you log the timestamp to log.txt?", "log.txt", NOW),
    ("Log the current timestamp to `log.txt`", "log.txt", NOW),
    ("Log the timestamp to **log.txt**.", "log.txt", NOW),
    ('Log the timestamp to "log.txt"', "log.txt", NOW),
    ("Log the timestamp to “log.txt”.", "log.txt", NOW),
    ("Log the timestamp in log.txt", "log.txt", NOW),
    ("Log the timestamp into the file log.txt", "log.txt", NOW),
    ("Log a timestamp to the file log", "log", NOW),
    ("Append the timestamp to log.txt", "log.txt", NOW),
    ("Add the current time to log.txt", "log.txt", NOW),
    ("Add a timestamp at the end of log.txt", "log.txt", NOW),
    ("put the current time into log.txt", "log.txt", NOW),
    ("Write the date and time to log.txt", "log.txt", NOW),
    ("Record the time in notes/log.txt", "notes/log.txt", NOW),
    ("Save the current date/time to log.txt", "log.txt", NOW),
    ("To log.txt, append the timestamp", "log.txt", NOW),
    ("In log.txt, write the timestamp.", "log.txt", NOW),
    ("Log the time to ../../etc/log.txt", "../../etc/log.txt", NOW),
    ("write down the date in diary.md", "diary.md", DATE),
    ("Write today's date to diary.md", "diary.md", DATE),
    ("Note down the current date in diary.md.", "diary.md", DATE),
]


@pytest.mark.parametrize(("text", "path", "stamp"), STAMPED)
def test_the_time_is_appended(text: str, path: str, stamp: str) -> None:
    assert call(text) == ToolCall("append", {"path": path, "text": stamp})
    assert only(text).templated == {0}


APPENDED = [
    ("Write 'milk' to shopping.md", "shopping.md", "milk"),
    ("write 'milk' to shopping.md.", "shopping.md", "milk"),
    ('Write "milk" to shopping.md!', "shopping.md", "milk"),
    ("Write “milk” to shopping.md", "shopping.md", "milk"),
    ("Write ‘milk’ to shopping.md", "shopping.md", "milk"),
    ("Write «milk» to shopping.md", "shopping.md", "milk"),
    ("Write `milk` to `shopping.md`", "shopping.md", "milk"),
    ("Please write 'milk' into shopping.md", "shopping.md", "milk"),
    ("Could you add 'milk' to **shopping.md**?", "shopping.md", "milk"),
    ('append "milk" to notes/a.md', "notes/a.md", "milk"),
    ("Append the text 'milk' to shopping.md", "shopping.md", "milk"),
    ("Append the line “milk” to the file shopping.md", "shopping.md", "milk"),
    ("Put 'milk' on shopping.md", "shopping.md", "milk"),
    ("Log 'milk' to shopping.md", "shopping.md", "milk"),
    ("In shopping.md, write 'milk'", "shopping.md", "milk"),
    ("To shopping.md add 'milk'.", "shopping.md", "milk"),
    ("Add 'milk' to the end of shopping.md", "shopping.md", "milk"),
    ("Add eggs to shopping.md", "shopping.md", "eggs"),
    ("add Eggs to shopping.md.", "shopping.md", "Eggs"),
    ("Please add eggs to my list shopping.md", "shopping.md", "eggs"),
    ("Put two bottles on shopping.md", "shopping.md", "two bottles"),
    ("Add milk and eggs to shopping.md", "shopping.md", "milk and eggs"),
    ("Log hello world to log.txt", "log.txt", "hello world"),
    ("Write 'it's done' to log.txt", "log.txt", "it's done"),
    ('Write "a  b. c? d" to log.txt', "log.txt", "a  b. c? d"),
    ('Write "one\ntwo" to log.txt', "log.txt", "one\ntwo"),
    ("Write 'x' to 'my notes.md'", "my notes.md", "x"),
    ("Write '{{ now }}' to log.txt", "log.txt", "{{ now }}"),
    ("Write '🥛 Milch' to Einkäufe.md", "Einkäufe.md", "🥛 Milch"),
]


@pytest.mark.parametrize(("text", "path", "words"), APPENDED)
def test_text_is_appended_literally(text: str, path: str, words: str) -> None:
    assert call(text) == ToolCall("append", {"path": path, "text": words})
    assert only(text).templated == frozenset()


WRITTEN = [
    ("Overwrite notes.md with 'Hello'", "Hello"),
    ('overwrite notes.md with "Hello".', "Hello"),
    ("Please overwrite notes.md with 'Hello'", "Hello"),
    ("Could you overwrite notes.md with 'Hello'?", "Hello"),
    ("Overwrite the file notes.md with “Hello”", "Hello"),
    ("Overwrite `notes.md` with `Hello`", "Hello"),
    ("Overwrite the contents of notes.md with 'Hello'", "Hello"),
    ("Replace the content of notes.md with 'Hello'", "Hello"),
    ("Replace the contents of notes.md by 'Hello'", "Hello"),
    ("Replace the contents of the file notes.md with ‘Hello’!", "Hello"),
    ("Replace notes.md with 'Hello'", "Hello"),
    ("Create notes.md with 'Hello'", "Hello"),
    ("create notes.md with the text 'Hello'", "Hello"),
    ("Create a file notes.md with 'Hello'", "Hello"),
    ("Create a new file notes.md with the content 'Hello'.", "Hello"),
    ("Create the file notes.md containing 'Hello'", "Hello"),
    ("Create a file called notes.md with 'Hello'", "Hello"),
    ("Create a file named notes.md saying “Hello”", "Hello"),
    ("Make a file notes.md containing the text 'Hello'", "Hello"),
    ('Make notes.md with "Hello"', "Hello"),
    ("Create a file notes.md with the content Hello", "Hello"),
    ("Overwrite notes.md with the timestamp", NOW),
    ("Create notes.md with the current time", NOW),
]


@pytest.mark.parametrize(("text", "words"), WRITTEN)
def test_files_are_written(text: str, words: str) -> None:
    assert call(text) == ToolCall("write", {"path": "notes.md", "text": words})
    assert only(text).templated == ({0} if words == NOW else frozenset())


SCHEDULED = [
    ("Log the timestamp to log.txt every heartbeat", "heartbeat"),
    ("Every heartbeat, log the timestamp to log.txt", "heartbeat"),
    ("every heartbeat log the timestamp to log.txt.", "heartbeat"),
    ("On every heartbeat, log the timestamp to log.txt", "heartbeat"),
    ("At each heartbeat, log the timestamp to log.txt", "heartbeat"),
    ("Log the timestamp to log.txt on each heartbeat!", "heartbeat"),
    ("Log the timestamp to log.txt once per heartbeat", "heartbeat"),
    ("Every 10 minutes, log the timestamp to log.txt", "10m"),
    ("every 10 minutes: log the timestamp to log.txt", "10m"),
    ("EVERY 10 MINUTES, log the timestamp to log.txt", "10m"),
    ("Log the timestamp to log.txt every 10 minutes.", "10m"),
    ("Please log the timestamp to log.txt every 10 minutes", "10m"),
    ("Could you log the timestamp to log.txt every 10 minutes?", "10m"),
    ("Every ten minutes, please log the timestamp to log.txt", "10m"),
    ("Log the timestamp to log.txt every 10 min", "10m"),
    ("Log the timestamp to log.txt every 10m", "10m"),
    ("Log the timestamp to log.txt every 1h30m", "1h30m"),
    ("Log the timestamp to `log.txt` every 30 seconds", "30s"),
    ("Log the timestamp to log.txt every minute", "1m"),
    ("Each hour, log the timestamp to log.txt", "1h"),
    ("Log the timestamp to log.txt hourly", "1h"),
    ("Hourly, log the timestamp to log.txt", "1h"),
    ("Log the timestamp to log.txt once an hour", "1h"),
    ("Log the timestamp to log.txt every half hour", "30m"),
    ("Log the timestamp to log.txt daily", "1d"),
    ("Every day, log the timestamp to log.txt.", "1d"),
    ("Once a day, log the timestamp to log.txt", "1d"),
    ("Every 2 days, log the timestamp to log.txt", "2d"),
    ("Log the timestamp to log.txt weekly", "7d"),
]


@pytest.mark.parametrize(("text", "every"), SCHEDULED)
def test_recurring_requests_become_tasks(text: str, every: str) -> None:
    made = call(text)
    assert only(text).intent == "schedule"
    assert made.tool == "task"
    assert made.args["action"] == "create"
    assert made.args["name"] == "log-txt-timestamp"
    assert made.args["every"] == every
    assert made.args["steps"] == [{"append": {"path": "log.txt", "text": NOW}}]
    again = only(made.args["request"], recurring=True)
    assert again.calls == (ToolCall("append", {"path": "log.txt", "text": NOW}),)


@pytest.mark.parametrize(("text", "every"), SCHEDULED)
def test_in_a_task_every_is_passed_over(text: str, every: str) -> None:
    assert only(text, recurring=True).calls == (ToolCall("append", {"path": "log.txt", "text": NOW}),)


def test_braces_of_a_person_stay_literal_in_a_task_too() -> None:
    made = call("Every hour, write '{{ now }}' to log.txt")
    assert made.args["steps"] == []
    again = only(made.args["request"], recurring=True)
    assert again.calls == (ToolCall("append", {"path": "log.txt", "text": "{{ now }}"}),)
    assert again.templated == frozenset()


def test_other_requests_may_stand_in_a_task() -> None:
    assert only("What did you do today?", recurring=True).intent == "history"
    assert only("Every day, what did you do today?", recurring=True).intent == "history"


TASK_LISTS = [
    "list my tasks",
    "List my tasks.",
    "LIST TASKS",
    "Show tasks",
    "Show me my tasks",
    "show me all my tasks, please",
    "Tasks",
    "My tasks",
    "What tasks do you have?",
    "What tasks do I have",
    "Which tasks are there?",
    "Which tasks are running?",
    "What are your tasks?",
    "What are my scheduled tasks?",
    "What are you doing regularly?",
    "what do you do regularly",
    "What do you do on every heartbeat?",
    "Do you have any tasks?",
    "Are there any tasks?",
    "What's scheduled?",
    "Could you list my tasks?",
    "Please list all tasks",
    "List the recurring tasks",
]


@pytest.mark.parametrize("text", TASK_LISTS)
def test_tasks_are_listed(text: str) -> None:
    assert call(text) == ToolCall("task", {"action": "list"})


VERBS = {
    "pause": ("Pause", "suspend", "disable", "Stop"),
    "resume": ("Resume", "unpause", "enable", "continue"),
    "run": ("Run", "execute", "trigger", "kick off"),
    "show": ("Show", "show me", "describe", "Display"),
}
FORMS = (
    "{} the backup task",
    "{} task backup",
    "{} the task backup.",
    "please {} my backup task!",
    "Could you {} the `backup` task?",
    '{} the task called "backup", please',
)


@pytest.mark.parametrize(
    ("action", "text"),
    [(action, form.format(verb)) for action, verbs in VERBS.items() for verb in verbs for form in FORMS],
)
def test_tasks_are_paused_resumed_run_and_shown(action: str, text: str) -> None:
    assert call(text) == ToolCall("task", {"action": action, "name": "backup"})


@pytest.mark.parametrize(
    ("text", "action", "name"),
    [
        ("pause backup", "pause", "backup"),
        ("Resume backup.", "resume", "backup"),
        ("run the backup task now", "run", "backup"),
        ("Run the Log Txt task right now!", "run", "Log Txt"),
        ("Pause log-txt-timestamp", "pause", "log-txt-timestamp"),
    ],
)
def test_tasks_by_name(text: str, action: str, name: str) -> None:
    assert call(text) == ToolCall("task", {"action": action, "name": name})


HISTORY = [
    ("What did you do today?", "today"),
    ("what did you do today", "today"),
    ("WHAT DID YOU DO TODAY?", "today"),
    ("What have you done today?", "today"),
    ("What have you been doing today?", "today"),
    ("What have you been up to today?", "today"),
    ("What did you do so far today?", "today"),
    ("What happened today?", "today"),
    ("What's happened today?", "today"),
    ("What was done today?", "today"),
    ("Show me today's runs", "today"),
    ("Today's runs", "today"),
    ("List the runs of today.", "today"),
    ("Tell me what you did today", "today"),
    ("Can you tell me what you did today?", "today"),
    ("Hey agent, what did you do today?", "today"),
    ("What did you do yesterday?", "yesterday"),
    ("What happened yesterday?", "yesterday"),
    ("Tell me what you did yesterday.", "yesterday"),
    ("Show yesterday's runs", "yesterday"),
    ("What did you do?", ""),
    ("What have you done so far?", ""),
    ("Show me your history", ""),
    ("List the past runs", ""),
    ("What did you do since 2026-11-01?", "2026-11-01"),
]


@pytest.mark.parametrize(("text", "since"), HISTORY)
def test_the_past_is_asked_for(text: str, since: str) -> None:
    assert call(text) == ToolCall("recall", {"source": "runs", "since": since})


STATUS = [
    "status",
    "Status?",
    "STATUS!",
    "Show status",
    "Show me the status.",
    "Status report, please",
    "What's your status?",
    "What is the current status?",
    "Tell me your status",
    "How are you?",
    "how are you doing",
    "How are you today?",
    "How's it going?",
    "Are you alive?",
    "are you still alive",
    "Are you there?",
    "Are you running?",
    "Are you OK?",
    "Hello, are you there?",
    "What is waiting?",
    "What's pending?",
    "Is anything waiting for me?",
    "What waits for me?",
    "Ping",
    "Is everything OK?",
]


@pytest.mark.parametrize("text", STATUS)
def test_the_status_is_asked_for(text: str) -> None:
    assert call(text) == ToolCall("recall", {"source": "status"})


HELP = [
    "help",
    "Help!",
    "HELP",
    "Help me.",
    "Please help",
    "Help, please",
    "Can you help me?",
    "Show help",
    "Show me the help",
    "What can you do?",
    "what can you do",
    "What can you do for me?",
    "What do you understand?",
    "What can you understand?",
    "What can I ask you?",
    "What can I say?",
    "What can I ask you to do?",
    "How do I use you?",
    "How do you work?",
    "What are you able to do?",
    "What commands do you know?",
    "List your commands",
    "Who are you?",
    "What are you?",
]


@pytest.mark.parametrize("text", HELP)
def test_help(text: str) -> None:
    understood = only(text)
    assert understood.calls == ()
    assert understood.answer([], request()) == help_text()


GREETINGS = [
    "hi",
    "Hi!",
    "HI",
    "Hello",
    "hello there!",
    "Hello, agent.",
    "Hey",
    "Hey agent",
    "Good morning",
    "good evening!",
    "Greetings",
    "Howdy",
    "Thanks",
    "thanks!",
    "Thank you.",
    "Thank you very much!",
    "Thanks a lot",
    "Many thanks",
    "thx 😊",
    "OK, thanks",
    "Great, thank you!",
    "Well done",
    "Bye",
    "Good night!",
]


@pytest.mark.parametrize("text", GREETINGS)
def test_greetings_are_answered(text: str) -> None:
    understood = only(text)
    assert understood.intent == "greeting"
    assert understood.calls == ()
    assert understood.answer([], request())


READ = [
    "show shopping.md",
    "Show shopping.md.",
    "SHOW shopping.md",
    "Show me shopping.md",
    "Show the file shopping.md",
    "Show me the file `shopping.md`",
    "Show the contents of shopping.md",
    "Show me the content of **shopping.md**",
    "Read shopping.md",
    "read 'shopping.md'",
    "Please read “shopping.md”",
    "Could you read shopping.md?",
    "Can you show me shopping.md, please?",
    "Print shopping.md",
    "Display shopping.md!",
    "Open shopping.md",
    "cat shopping.md",
    "View the file shopping.md",
    "What is in shopping.md?",
    "what's in shopping.md",
    "What’s in the file shopping.md?",
    "What does shopping.md say?",
    "What does shopping.md contain?",
]


@pytest.mark.parametrize("text", READ)
def test_files_are_read(text: str) -> None:
    assert call(text) == ToolCall("read", {"path": "shopping.md"})


LISTED = [
    ("list files", "."),
    ("List files.", "."),
    ("LIST FILES", "."),
    ("List all files", "."),
    ("List the files", "."),
    ("list my files, please", "."),
    ("Show files", "."),
    ("Show me the files", "."),
    ("Show me all my files", "."),
    ("Could you list the files?", "."),
    ("What files are there?", "."),
    ("which files do I have", "."),
    ("What files do you have?", "."),
    ("What files are in the workspace?", "."),
    ("List the files here", "."),
    ("ls", "."),
    ("What is in the workspace?", "."),
    ("What files are in notes/?", "notes/"),
    ("list files in notes/", "notes/"),
    ("List the files in `notes`", "notes"),
    ("List the files in the folder notes", "notes"),
    ("Show me the files in a/b", "a/b"),
    ("Which files are in **notes/**?", "notes/"),
]


@pytest.mark.parametrize(("text", "path"), LISTED)
def test_files_are_listed(text: str, path: str) -> None:
    assert call(text) == ToolCall("list", {"path": path})


REFUSED = [
    # nothing at all
    "",
    "   \n\t ",
    "...",
    "😊",
    # what only a model can do
    "Write a poem about the sea",
    "Summarise notes.md",
    "What is the capital of France?",
    "Translate 'hello' to German",
    "Plan my week",
    "What is the weather today?",
    "Send an email to bob@example.com",
    "Why is my name Alice?",
    "Do my taxes",
    "Write a summary of notes.md to summary.md",
    "Add the weather to log.txt",
    "Add a poem to poems.md",
    "Add some eggs to my shopping list",
    "Write poetry to poems.md",
    "Add type hints to main.py",
    "Log everything to log.txt",
    "Log timestamps to log.txt",
    "Create a.md with the content of b.md",
    "Put it in log.txt",
    # more than the understood thing
    "My name is Alice and I live in Lisbon",
    "My name is Alice and my dog is Rex",
    "My name is Alice, what is yours?",
    "My name is Alice. Write me a poem.",
    "My name is Alice because my mother liked it",
    "My name is Alice but call me later",
    "My name is Alice\nCheers\nAlice Smith",
    "My name is Alice\n-- \nAlice",
    "# My name is Alice",
    "# Note\n\nMy name is Alice.",
    "> My name is Alice",
    "I live in Lisbon and work in Porto",
    "I live in Lisbon but I was born in Porto",
    "I live in Lisbon until May",
    "I live in Lisbon with my wife",
    "I live in the moment",
    "My birthday is 3 May, come to the party",
    "What is my name and where do I live?",
    "What is my name? Tell me a joke.",
    "Log the timestamp to log.txt and restart the server",
    "Log the timestamp and the weather to log.txt",
    "Write 'milk' to shopping.md and 'eggs' to other.md",
    "Write 'milk' to shopping.md, then read it",
    "Forget my name and tell me a joke",
    "Remember that the router is a Fritzbox and restart it",
    "Remember that the router is a Fritzbox, please tell Bob",
    "Pause the backup task and run it",
    "List my tasks and pause them",
    # negations
    "My name is not Alice",
    "My name isn't Alice",
    "I don't live in Lisbon",
    "I do not live in Lisbon",
    "Don't forget my name",
    "Never forget my birthday",
    "Don't log the timestamp to log.txt",
    "Do not pause the backup task",
    "Don't remember that the router is a Fritzbox",
    "Don't call me Al",
    # questions in the place of statements, and the past
    "My name is Alice?",
    "Is my name Alice?",
    "I live in Lisbon?",
    "Do I live in Lisbon?",
    "Log the timestamp to log.txt?",
    "Forget my name?",
    "Pause backup?",
    "My name was Alice",
    "I lived in Lisbon",
    "If my name is Alice, say hello",
    "I think my name is Alice",
    "Alice said my name is Bob",
    # what looks like a name and is none
    "I'm hungry",
    "I'm Hungry",
    "I am German",
    "I'm tired.",
    "i'm fine",
    "I am a nurse",
    "I'm from Lisbon",
    "I'm Alice from Lisbon",
    "My name is a secret",
    "My name is unknown",
    "my name is hard to pronounce",
    "My name is what?",
    "Call me tomorrow",
    "Call me back",
    "Call me a taxi",
    "Call me when you are done",
    "Call Bob",
    "My computer is broken",
    "My code is not working",
    "My order is late",
    "My head hurts",
    "My name is",
    "My name is Alice Bob Carol Dave Eve Frank",
    # unclear or too wide
    "Forget it",
    "Forget that",
    "Forget everything",
    "Forget all facts",
    "Forget me",
    "Forget",
    "I forgot my name",
    "Remember",
    "Remember me",
    "Remember to buy milk",
    "Remember my name",
    "Remember when we met?",
    "Remind me to call Bob",
    "Remember that",
    "Delete shopping.md",
    "Delete all files",
    "Pause",
    "Pause everything",
    "Pause the music",
    "Pause for 10 minutes",
    "Stop",
    "Stop it",
    "Run backup",
    "Run the tests",
    "run rm -rf /",
    "Start the backup task",
    "Show me the money",
    "Show me how to do it",
    "Read my mind",
    "Read the news",
    "Open the door",
    "What is in the box?",
    "What is my purpose in life?",
    "What is the router?",
    "What do you know about the router and how do I restart it?",
    "What did you do to my file?",
    "What did you do on Monday?",
    "Create notes.md",
    "Overwrite notes.md",
    "Replace 'a' with 'b' in notes.md",
    "Write 'hello' to bob@example.com",
    "Write 'hello' to https://example.com/a.md",
    "Write 'milk'",
    "Write 'milk' to the list",
    "Add milk",
    # times that are not understood
    "Log the timestamp to log.txt every Monday",
    "Log the timestamp to log.txt every other day",
    "Log the timestamp to log.txt every 0 minutes",
    "Log the timestamp to log.txt every 1.5 hours",
    "Log the timestamp to log.txt tomorrow",
    "Log the timestamp to log.txt in 10 minutes",
    "Log hello every day to log.txt",
    "Every 10 minutes, tell me a joke",
    "Every 10 minutes",
    "Every day, my name is Alice",
    "Twice a day, log the timestamp to log.txt",
    "Every hour, every day, log the timestamp to log.txt",
    # orders that are statements
    "Could you my name is Alice",
    "You log the timestamp to log.txt",
    "The router is a Fritzbox",
    "It is raining",
    "Helpful",
    "hellothere",
    "Thanks for nothing",
    "How are you going to do that?",
    "Are you alive or a machine?",
    "Help me write a letter",
    "What can you do about the noise?",
    "Say hello to Bob",
]


@pytest.mark.parametrize("text", REFUSED)
def test_nothing_is_guessed(text: str) -> None:
    assert understand(text) is None


def test_several_sentences_are_understood_together_or_not_at_all() -> None:
    both = only("My name is Alice. I live in Lisbon.")
    assert [one.args["fact"] for one in both.calls] == ["The owner's name is Alice.", "The owner lives in Lisbon."]
    three = only("Hi! Log the timestamp to log.txt.\nWrite '{{ now }}' to a.md. Log the time to b.txt")
    assert three.templated == {0, 2}
    assert understand("My name is Alice. Make me a sandwich. I live in Lisbon.") is None


def test_every_example_is_understood_as_its_intent() -> None:
    for intent in INTENTS:
        for example in intent.examples:
            assert only(example).intent == intent.name
            assert example in help_text()


def test_the_refusal_is_honest() -> None:
    text = refusal("Write a poem\nabout the sea")
    assert '"Write a poem about the sea"' in text
    assert "model" in text
    assert "name it with `engine:`" in text
    for intent in INTENTS:
        assert intent.does in text
    assert refusal("")
    assert len(refusal("x" * 10_000)) < 4_000


def facts(*rows: tuple[str, bool]) -> ToolResult:
    return ToolResult(
        "x", data={"about": "", "facts": [{"text": text, "key": "", "exact": exact} for text, exact in rows]}
    )


NONE = facts()
ROW: dict[str, Any] = {
    "name": "backup",
    "rule": "every 10m",
    "request": "Back up",
    "state": "active",
    "last": "",
    "next": "2026-11-22T12:10:00+00:00",
}
TASKS = ToolResult("x", data={"action": "list", "tasks": [ROW], "run": "r9"})
RUNS = [
    {
        "run": "r",
        "command": "a.md",
        "task": "",
        "status": "done",
        "started": "2026-11-22T09:00:00",
        "answer": "Hi",
        "error": "",
    }
]


@pytest.mark.parametrize(
    ("text", "results", "said"),
    [
        ("What is my name?", [facts(("The owner's name is Bob.", True)), NONE], "Your name is Bob."),
        ("What is my name?", [facts(("My name is Bob", True)), NONE], "Your name is Bob"),
        ("What is my name?", [facts(("Name: Bob", True)), NONE], "Your name is Bob"),
        ("What is my name?", [NONE, facts(("The owner wants to be called Al.", True))], "You want to be called Al."),
        ("What is my name?", [NONE, NONE], "I do not know your name yet."),
        ("What is my name?", [facts(("The owner's dog's name is Rex.", False)), NONE], "I do not know your name yet."),
        ("Where do I live?", [facts(("The owner lives in Lisbon.", True))], "You live in Lisbon."),
        ("Where do I live?", [NONE], "I do not know where you live yet."),
        (
            "What do you know about the router?",
            [facts(("The router is a Fritzbox.", True))],
            "The router is a Fritzbox.",
        ),
        ("What do you know about the router?", [NONE], "I know nothing about the router."),
        ("What do you remember?", [facts(("A is B.", True), ("The owner likes tea.", True))], "- You like tea."),
        ("What do you remember?", [NONE], "I know nothing yet."),
        ("My name is Alice", [ToolResult("x", data={"fact": "The owner's name is Alice."})], "Your name is Alice."),
        (
            "My name is now Bob",
            [ToolResult("x", data={"fact": "The owner's name is Bob.", "replaced": ["The owner's name is Alice."]})],
            "Before, it was: Your name is Alice.",
        ),
        (
            "Forget my name",
            [ToolResult("x", data={"removed": ["The owner's name is Al."]})],
            "Forgotten: Your name is Al.",
        ),
        ("Forget my name", [ToolResult("x", data={"removed": []})], "I know nothing about your name."),
        ("Log the timestamp to log.txt", [ToolResult("x", changed=("log.txt",))], "Added the timestamp to log.txt."),
        ("Write 'milk' to a.md", [ToolResult("x")], 'Added "milk" to a.md.'),
        ("Create a.md with 'x'", [ToolResult("x")], 'Wrote "x" to a.md.'),
        ("Every hour, log the time to a.md", [TASKS], "Created the task backup (every 10m)"),
        ("List my tasks", [TASKS], "- **backup**: every 10m, active, next 2026-11-22 12:10:00. Back up"),
        ("List my tasks", [ToolResult("x", data={"tasks": []})], "There are no tasks."),
        ("Show task backup", [TASKS], "**backup**: every 10m"),
        ("Pause backup", [TASKS], "Paused the task backup."),
        ("Resume backup", [TASKS], "Resumed the task backup. The next time is 2026-11-22 12:10:00."),
        ("Run the backup task", [TASKS], "backup runs now"),
        ("What did you do today?", [ToolResult("x", data={"runs": RUNS})], "1 run today: 1 done."),
        ("What did you do today?", [ToolResult("x", data={"runs": []})], "Nothing ran today."),
        ("Status", [ToolResult("All is well.\n")], "All is well."),
        ("Read a.md", [ToolResult("text\n")], "text"),
        ("Read a.md", [ToolResult("")], "a.md is empty."),
        ("Read a.md", [ToolResult(error="there is no a.md")], "That did not work: there is no a.md"),
    ],
)
def test_answers(text: str, results: list[ToolResult], said: str) -> None:
    answer = only(text).answer(results, request(text))
    assert said in answer
    if said == "I do not know your name yet.":
        assert "Your name is" not in answer


def test_an_answer_to_what_broke_off_tells_what_was_done() -> None:
    understood = only("My name is Alice. I live in Lisbon.")
    assert understood.answer([ToolResult("x", data={"fact": "The owner's name is Alice."})], request()) == (
        "Remembered: Your name is Alice."
    )
    assert understood.answer([], request()) == ""


WORDS = [
    "my", "name", "is", "now", "Alice", "and", "the", "router", "remember", "that", "forget", "log", "timestamp", "to",
    "log.txt", "every", "10", "minutes", "what", "do", "you", "know", "about", "I", "live", "in", "please", "could",
    "write", "task", "show", "list", "call", "me", "'", '"', "`", "’", ".", "?", ",", "\n", "**", "{{ now }}", "🙂",
    "\u200d",
]  # fmt: skip


@given(st.text(max_size=300), st.booleans())
def test_no_text_is_too_strange(text: str, recurring: bool) -> None:
    understand(text, recurring)
    refusal(text)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=40), st.booleans())
def test_no_mix_of_words_is_too_strange(words: list[str], recurring: bool) -> None:
    text = " ".join(words)
    understood = understand(text, recurring)
    assert understood == understand(text, recurring)
    for index in understood.templated if understood else ():
        assert understood is not None
        assert understood.calls[index].args["text"] in (NOW, DATE)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2_000,
        " " * 2_000 + "x",
        "my name is " + "A " * 990,
        "remember that " + "and " * 490,
        "log " * 500,
        "write '" * 280,
        "every 10 minutes " * 110,
        "what is my " + "x " * 990,
        "please " * 280,
        "could you " * 200,
        "'" * 2_000,
        '"' * 1_999,
        ". " * 1_000,
        "\n" * 2_000,
        "forget " + "a of " * 390,
        "add " + "to " * 600 + "a.md",
        "x" * 1_000_000,
        "what files are " + "in " * 600,
        "show me the " * 160,
        "my " + "name's " * 280,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    understand("warm up")
    start = time.process_time()
    understand(text)
    understand(text, recurring=True)
    assert time.process_time() - start < 0.5
