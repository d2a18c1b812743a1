"""What people write about when a task falls due: the rule it makes, the faults it has, the words it gets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.errors import DocumentError
from fsagent.files.documents import write_document
from fsagent.timetable import Timetable
from fsagent.timetext import in_words, rule_from_text, table_of
from fsagent.workspace.tasks import read_task


def task(header: str) -> Timetable:
    return read_task(f"---\n{header}\n---\nbeat".encode(), "t", "tasks/t.md").table


def faults(header: str) -> list[tuple[int, str, str]]:
    with pytest.raises(DocumentError) as caught:
        task(header)
    assert all(fault.file == "tasks/t.md" for fault in caught.value.faults)
    return [(fault.line, fault.field, fault.message) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("header", "table"),
    [
        ("every: 90s", Timetable(every=90)),
        ("every: heartbeat", Timetable()),
        ("report: never", Timetable()),
        ("cron: */5 * * * *", Timetable(cron="*/5 * * * *")),
        ("cron: */5 * * * *  # often", Timetable(cron="*/5 * * * *")),
        ("cron: * * * * *", Timetable(cron="* * * * *")),
        ("cron: @daily", Timetable(cron="0 0 * * *")),
        ("cron: 0 9 * * MON-FRI", Timetable(cron="0 9 * * mon-fri")),
        ("cron: 0 9 * * friday#2", Timetable(cron="0 9 * * fri#2")),
        ("cron: 0 9 * january friL", Timetable(cron="0 9 * jan 5l")),
        ("cron: 0 9 * * sat-sun", Timetable(cron="0 9 * * sat-7")),
        ("cron: 5-5/2 9 * * *", Timetable(cron="5 9 * * *")),
        ("at: 09:00", Timetable(at=("09:00",))),
        ("at: 9:00, 8:30", Timetable(at=("08:30", "09:00"))),
        ("at: [18:30, 09:00]\non: [mon, Friday]", Timetable(at=("09:00", "18:30"), on=(0, 4))),
        ("at:\n  - 12:30:15\non: fri-mon", Timetable(at=("12:30:15",), on=(0, 4, 5, 6))),
        ("on: weekdays\nat: '09:00'", Timetable(at=("09:00",), on=(0, 1, 2, 3, 4))),
        ("on: tue, weekend\nat: 09:00", Timetable(at=("09:00",), on=(1, 5, 6))),
        ("once: 2027-01-05 14:00", Timetable(once="2027-01-05T14:00")),
        ("once: 2027-1-5 9:00 +01:00", Timetable(once="2027-01-05T09:00+01:00")),
        ("once: 2027-01-05T14:00:30Z", Timetable(once="2027-01-05T14:00:30+00:00")),
        ("cron: @hourly\ntimezone: Asia/Tokyo", Timetable(cron="0 * * * *", zone="Asia/Tokyo")),
        ("every: 1h\nfrom: 2027-01-05\nuntil: 2027-01-31 18:00",
         Timetable(every=3600, begin="2027-01-05", end="2027-01-31T18:00")),
        ("active: 7:00 - 24:00", Timetable(active=("07:00", "24:00"))),
        ("every: 5m\nactive: 22:00-06:00", Timetable(every=300, active=("22:00", "06:00"))),
    ],
)  # fmt: skip
def test_a_header_makes_a_rule(header: str, table: Timetable) -> None:
    assert task(header) == table


@pytest.mark.parametrize(
    ("header", "line", "field", "says"),
    [
        ("every: 0.5s", 2, "every", "at least 1s"),
        ("report: never\nevery: 5", 3, "every", "did you mean 5s?"),
        ("every: 5m\ncron: 0 9 * * *", 3, "cron", "stands beside every; keep one of them"),
        ("at: 09:00\nevery: heartbeat", 2, "at", "stands beside every"),
        ("at: 09:00\nonce: 2027-01-05 14:00\ncron: @daily", 2, "at", "stands beside cron and once"),
        ("on: mon", 2, "on", "write for instance at: 09:00"),
        ("every: 1h\non: mon, fri", 3, "on", "not with every; write for instance cron: '0 * * * mon,fri'"),
        ("cron: @daily\non: mon", 3, "on", "for instance cron: 0 9 * * mon"),
        ("at: 09:00\non: [mon, fryday]", 3, "on", "'fryday' is no day of the week (did you mean 'friday'?)"),
        ("at: 25:00", 2, "at", "'25:00' is no time of day; write 00:00 to 23:59"),
        ("at: 9am", 2, "at", "did you mean 09:00?"),
        ("at: [09:00, noon]", 2, "at", "'noon' is no time of day"),
        ("once: 2027-01-05", 2, "once", "write the time of day too, for instance 2027-01-05 09:00"),
        ("once: 2027-02-30 14:00", 2, "once", "does not exist"),
        ("once: tomorrow", 2, "once", "write for instance 2027-01-05 14:00"),
        ("once: 0001-01-01 00:00", 2, "once", "between 1970 and 2999"),
        ("once: 2027-01-05 14:00\nuntil: 2027-02-01", 3, "until", "says nothing beside once"),
        ("at: 09:00\ntimezone: Berlin", 3, "timezone", "write for instance Europe/Berlin"),
        ("at: 09:00\ntimezone: ../../etc/passwd", 3, "timezone", "is no time zone"),
        ("at: 09:00\nfrom: soon", 3, "from", "write for instance 2027-01-05"),
        ("at: 09:00\nfrom: 2027-02-01\nuntil: 2027-01-01", 2, "at", "until (2027-01-01) lies before from (2027-02-01)"),
        ("at: 09:00\nactive: 07:00", 3, "active", "write start and end, for instance 07:00-22:00"),
        ("at: 09:00\nactive: 07:00-25:00", 3, "active", "'25:00' is no time of day"),
        ("every: 5m\nactive: 07:00-07:00", 3, "active", "starts and ends at the same time"),
        ("at: 06:00\nactive: 07:00-22:00", 2, "at", "none of its times lies between 07:00 and 22:00 (active)"),
        ("cron: 0 3 * * *\nactive: 07:00-22:00", 2, "cron", "never comes: none of its times"),
        ("at: 09:00\non: mon\nfrom: 2027-01-05\nuntil: 2027-01-06", 2, "at", "no time between from and until"),
        ("cron: */10 * * * * *", 2, "cron", "six fields, with seconds; write every: 10s"),
        ("cron: 0 9 * *", 2, "cron", "has 4 fields and needs five"),
        ("cron: @reboot", 2, "cron", "there are @yearly, @annually"),
        ("cron: @dayly", 2, "cron", "did you mean '@daily'?"),
        ("report: never\ncron: 61 * * * *", 3, "cron", "'61' cannot be the minute (the first of the five fields)"),
        ("cron: 0 24 * * *", 2, "cron", "cannot be the hour (the second"),
        ("cron: 0 9 0 * *", 2, "cron", "cannot be the day of the month (the third"),
        ("cron: 0 9 * 13 *", 2, "cron", "cannot be the month (the fourth"),
        ("cron: 0 9 * * foo", 2, "cron", "cannot be the day of the week (the fifth"),
        ("cron: 0 99 * * foo", 2, "cron", "(the second of the five fields); it may hold 0 to 23"),
        ("cron: 0 99 * * foo", 2, "cron", "(the fifth of the five fields); it may hold 0 to 7"),
        ("cron: 0 9 ? * mon", 2, "cron", "write * for any"),
        ("cron: 0 22-6 * * *", 2, "cron", "runs backwards; write 22-23,0-6"),
        ("cron: */90 * * * *", 2, "cron", "write every: 90m"),
        ("cron: 0 0 30 2 *", 2, "cron", "never comes: no month that it names has such a day"),
        ("cron: 0 0 */8 * mon#5", 2, "cron", "never comes"),
        ("cron: [0 9 * * *, 0 18 * * *]", 2, "cron", "must be text, not a list"),
        ("chron: 0 9 * * *", 2, "chron", "did you mean 'cron'?"),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what_to_write(header: str, line: int, field: str, says: str) -> None:
    assert any((at, name) == (line, field) and says in message for at, name, message in faults(header)), faults(header)


def test_all_faults_of_a_rule_are_told_at_once() -> None:
    found = faults("cron: 61 * * * *\ntimezone: Moon\nuntil: never\nactive: day")
    assert [(line, field) for line, field, _ in found] == [(2, "cron"), (3, "timezone"), (4, "until"), (5, "active")]


# one line


@pytest.mark.parametrize(
    ("text", "fields", "words"),
    [
        ("10m", {"every": "10m"}, "every 10m"),
        ("every 10m", {"every": "10m"}, "every 10m"),
        ("1 hour 5 minutes", {"every": "1 hour 5 minutes"}, "every 1h5m"),
        ("Every hour", {"every": "1h"}, "every 1h"),
        ("heartbeat", {"every": "heartbeat"}, "every heartbeat (15m)"),
        ("0 9 * * mon-fri", {"cron": "0 9 * * mon-fri"}, "at 09:00 on Monday to Friday"),
        ("cron: */5 * * * *", {"cron": "*/5 * * * *"}, "every 5 minutes"),
        ("@daily", {"cron": "@daily"}, "at 00:00 every day"),
        ("daily", {"cron": "@daily"}, "at 00:00 every day"),
        ("every day", {"cron": "@daily"}, "at 00:00 every day"),
        ("hourly", {"cron": "@hourly"}, "at the start of every hour"),
        ("weekly", {"cron": "@weekly"}, "at 00:00 on Sunday"),
        ("09:00", {"at": "09:00"}, "at 09:00 every day"),
        ("at 9:00", {"at": "9:00"}, "at 09:00 every day"),
        ("daily at 9:00", {"at": "9:00"}, "at 09:00 every day"),
        ("mon,fri 09:00", {"at": "09:00", "on": ["mon", "fri"]}, "at 09:00 on Monday and Friday"),
        ("every monday at 9:00", {"at": "9:00", "on": "monday"}, "at 09:00 on Monday"),
        ("weekdays 09:00, 18:30", {"at": ["09:00", "18:30"], "on": "weekdays"},
         "at 09:00 and 18:30 on Monday to Friday"),
        ("sat - sun 08:00:30", {"at": "08:00:30", "on": "sat-sun"}, "at 08:00:30 on Saturday and Sunday"),
        ("2027-01-05 14:00", {"once": "2027-01-05 14:00"}, "once, 2027-01-05 14:00"),
        ("once 2027-01-05 14:00", {"once": "2027-01-05 14:00"}, "once, 2027-01-05 14:00"),
    ],
)  # fmt: skip
def test_one_line_makes_a_rule(text: str, fields: dict[str, Any], words: str) -> None:
    assert rule_from_text(text) == fields
    written = read_task(write_document(fields, "beat"), "t", "t.md").table
    assert written == table_of(fields), "what is written into a task's file means the same"
    assert in_words(written, 900) == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write for instance 10m, heartbeat, 09:00"),
        ("banana", "'banana' says no time; write for instance 10m"),
        ("every", "says no time"),
        ("tomorrow 9:00", "says no time"),
        ("5", "did you mean 5s?"),
        ("every fortnight", "write for instance 30s"),
        ("at 9am", "did you mean 09:00?"),
        ("9:30 pm", "did you mean 21:30?"),
        ("mon", "needs a time of day"),
        ("* * *", "needs five"),
        ("*/10 * * * * *", "write every: 10s"),
        ("0 0 30 2 *", "never comes"),
        ("@reboot", "there are @yearly"),
        ("2027-01-05", "2027-01-05 09:00"),
    ],
)
def test_a_line_that_is_no_rule_is_refused_with_examples(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        rule_from_text(text)


WORDS = st.sampled_from(
    "every at once on mon fri-mon 9:00 25:61 daily 5 m * */5 @weekly 2027-01-05 L # - , : é".split()
)
RULES = st.sampled_from(
    ["", "5 m", "every 5 m", "at 9:00", "on fri-mon 9:00", "daily 9:00", "*/5 * * * *", "@weekly", "2027-01-05 9:00"]
)
LINES = st.tuples(RULES, st.lists(WORDS, max_size=7).map(" ".join), RULES).map(" ".join)


def test_any_line_is_a_rule_or_a_value_error() -> None:
    rules = 0

    @settings(max_examples=600, deadline=None)
    @given(st.text(max_size=40) | LINES)
    def whatever(text: str) -> None:
        nonlocal rules
        try:
            fields = rule_from_text(text)
        except ValueError:
            return
        rules += 1
        assert in_words(table_of(fields))

    whatever()
    assert rules > 5, "hardly any was a rule"


# words


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (Timetable(), "every heartbeat"),
        (Timetable(every=90, active=("07:00", "22:00")), "every 1m30s, between 07:00 and 22:00"),
        (Timetable(at=("09:00",), begin="2027-01-05", end="2027-01-31T18:00"),
         "at 09:00 every day, from 2027-01-05, until 2027-01-31 18:00"),
        (Timetable(at=("08:00", "09:00", "10:00"), on=(0, 1, 2, 4)),
         "at 08:00, 09:00 and 10:00 on Monday to Wednesday and Friday"),
        (Timetable(cron="0 9 * * fri#2"), "at 09:00 on the second Friday of the month"),
        (Timetable(cron="0 9 * * 5l"), "at 09:00 on the last Friday of the month"),
        (Timetable(cron="0 9 l * *"), "at 09:00 on the last day of every month"),
        (Timetable(cron="0 9 22 * *"), "at 09:00 on the 22nd day of every month"),
        (Timetable(cron="0 9 11,31 * *"), "at 09:00 on the 11th and the 31st day of the month"),
        (Timetable(cron="0 9 1 * mon"), "at 09:00 on the first day of the month or on Monday"),
        (Timetable(cron="0 9 */2 * mon"), "at 09:00 on every other day of the month if it is Monday"),
        (Timetable(cron="0 */2 * * *"), "every other hour"),
        (Timetable(cron="0 9-17 * * *"), "every hour from 9 to 17"),
        (Timetable(cron="*/10 8-18 * * mon-fri"), "every 10 minutes from 08:00 to 18:59 on Monday to Friday"),
        (Timetable(cron="*/7 * * * *"), "every seventh minute of every hour"),
        (Timetable(cron="* * * * *"), "every minute"),
    ],
)  # fmt: skip
def test_rules_in_words(table: Timetable, words: str) -> None:
    assert in_words(table) == words
