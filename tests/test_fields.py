"""From text to values: durations, moments, and faults that a person can act on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from fsagent.errors import DocumentError
from fsagent.files.documents import read_document
from fsagent.files.fields import Duration, Moment, format_duration, nearest, parse_moment, read_fields

NOW = datetime(2026, 11, 22, 17, 45, 12, 500_000, tzinfo=ZoneInfo("Europe/Berlin"))


class Sample(Struct, frozen=True):
    every: Duration | None = None
    enabled: bool = True
    retries: int = 0
    ratio: float = 1.0
    not_before: Moment | None = None
    attachments: tuple[str, ...] = ()
    rules: dict[str, int] = {}
    name: str = ""


def read(header: str, **more: Any) -> Sample:
    document = read_document(f"---\n{header}\n---\nbody".encode(), "x.md")
    return read_fields(Sample, document.fields, document.file, document.first_line, **more)


def faults(header: str, **more: Any) -> list[tuple[int, int, str, str]]:
    with pytest.raises(DocumentError) as caught:
        read(header, **more)
    assert all(fault.file == "x.md" for fault in caught.value.faults)
    return [(fault.line, fault.column, fault.field, fault.message) for fault in caught.value.faults]


# durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1w", 604800),
        ("1d 2h 3m 4s", 93784),
        (" 5M ", 300),
        ("1.5h", 5400),
        ("0.25s", 0.25),
        ("150ms", 0.15),
        ("1s500ms", 1.5),
        ("10 min", 600),
        ("2 hours", 7200),
        ("1 hour 5 minutes", 3900),
        ("1 second", 1),
        ("3 hrs", 10800),
        ("90 secs", 90),
        ("0s", 0),
        ("3650d", 3650 * 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5", "did you mean 5s?"),
        ("1.5", "did you mean 1.5s?"),
        ("", "is empty; write a duration such as 30s"),
        ("5x", "write for instance 30s, 5m, 1h30m or 1d"),
        ("5m3", "is no duration"),
        ("m", "is no duration"),
        ("-5m", "is no duration"),
        ("5m,3s", "is no duration"),
        ("soon", "is no duration"),
        ("nan s", "is no duration"),
        ("3651d", "longer than ten years"),
        ("9" * 400 + "d", "longer than ten years"),
    ],
)
def test_what_is_no_duration_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years") as caught:
        Duration.parse(text)
    assert says in str(caught.value)


@given(st.integers(1, 10**8) | st.floats(0.001, 0.999))
def test_a_duration_is_written_so_that_it_is_read_alike(seconds: float) -> None:
    assert Duration.parse(format_duration(seconds)) == pytest.approx(seconds, rel=1e-4)


def test_a_duration_is_written_short() -> None:
    assert [format_duration(n) for n in (1, 60, 90, 3600, 5400, 86400, 90061, 0.5)] == [
        "1s", "1m", "1m30s", "1h", "1h30m", "1d", "1d1h1m1s", "0.5s",
    ]  # fmt: skip


# moments


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-12-24 18:00", "2026-12-24T18:00:00+01:00"),
        ("2026-12-24", "2026-12-24T00:00:00+01:00"),
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00+00:00"),
        ("2026-12-24T18:00:00-05:00", "2026-12-24T18:00:00-05:00"),
        ("2026-07-01 12:00", "2026-07-01T12:00:00+02:00"),
        ("18:00", "2026-11-22T18:00:00+01:00"),
        ("17:45", "2026-11-23T17:45:00+01:00"),
        ("17:45:13", "2026-11-22T17:45:13+01:00"),
        (" 9:05 ", "2026-11-23T09:05:00+01:00"),
    ],
)
def test_moments(text: str, when: str) -> None:
    assert parse_moment(text, NOW).isoformat() == when
    assert Moment(text).at(NOW) == datetime.fromisoformat(when)


@pytest.mark.parametrize(
    "text", ["25:00", "12:60", "tomorrow", "", "2026-13-01", "2026-02-30", "18", "18:0", "99:99:99"]
)
def test_what_is_no_moment_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_moment(text, NOW)


@given(st.times(), st.floats(0, 4 * 10**9))
def test_a_time_of_day_is_the_next_one(clock: Any, seconds: float) -> None:
    now = datetime.fromtimestamp(seconds, UTC)
    then = parse_moment(f"{clock:%H:%M:%S}", now)
    assert now < then <= now + timedelta(days=1)
    assert (then.hour, then.minute, then.second) == (clock.hour, clock.minute, clock.second)


# faults


def test_values_of_every_kind() -> None:
    sample = read(
        "every: 1h30m\nenabled: off\nretries: '3'\nratio: 1e3\n"
        "not_before: 18:00\nattachments: a.pdf\nrules: {x: 1}\nname: 007"
    )
    assert sample == Sample(Duration(5400), False, 3, 1000.0, Moment("18:00"), ("a.pdf",), {"x": 1}, "007")
    assert read("attachments: [a, b]").attachments == ("a", "b")
    assert read("every:\nretries: ''\nenabled:") == Sample(), "an empty value counts as not given"
    assert [read(f"enabled: {word}").enabled for word in ("yes", "No", "ON", "off", "True", "FALSE")] == [
        True, False, True, False, True, False,
    ]  # fmt: skip


def test_an_unknown_field_names_the_nearest_one_and_all_there_are() -> None:
    ((line, column, field, message),) = faults("name: x\nretrys: 3")
    assert (line, column, field) == (3, 1, "retrys")
    assert "did you mean 'retries'?" in message
    assert "every, enabled, retries" in message
    assert "did you mean" not in faults("zzz: 3")[0][3]
    assert "did you mean 'not_before'?" in faults("Not-Before: 18:00")[0][3]


def test_a_field_that_belongs_elsewhere_has_its_own_words() -> None:
    assert faults("cron: 1", extra={"cron": "comes later"}) == [(2, 1, "cron", "comes later")]


def test_all_faults_are_told_at_once_each_at_its_place() -> None:
    found = faults("every: 5\nenabled: maybe\n# a comment\nretries: many\nunknown: 1\nnot_before: noon\nname: fine")
    assert [(line, column, field) for line, column, field, _ in found] == [
        (2, 1, "every"), (3, 1, "enabled"), (5, 1, "retries"), (6, 1, "unknown"), (7, 1, "not_before"),
    ]  # fmt: skip
    words = {field: message for _, _, field, message in found}
    assert "did you mean 5s?" in words["every"]
    assert "true or false" in words["enabled"]
    assert "a whole number" in words["retries"]
    assert "2026-12-24 18:00" in words["not_before"]


def test_a_fault_inside_a_value_has_the_place_of_the_part() -> None:
    assert [each[:3] for each in faults("attachments:\n  - a\n  - [b]")] == [(4, 5, "attachments")]
    assert "a list" in faults("attachments: {a: b}")[0][3]
    assert "text" in faults("name: [a]")[0][3]


def test_no_message_speaks_of_our_own_code() -> None:
    for header in (
        "every: [1]",
        "every: {a: b}",
        "enabled: []",
        "retries: 1.5",
        "retries: x",
        "rules: x",
        "rules: {a: b}",
        "not_before: [1]",
        "ratio: x",
        "name: {a: b}",
        "attachments: [[]]",
        "every: ''\nname: []",
    ):
        for *_, message in faults(header):
            for word in ("`", "$", "Expected", "Struct", "Object", "str", "int", "array", "None", "null"):
                assert word not in message, f"{header!r}: {message}"


@pytest.mark.parametrize(
    ("word", "near"), [("evry", "every"), ("EVERY", "every"), ("re-tries", "retries"), ("zzz", "")]
)
def test_nearest(word: str, near: str) -> None:
    assert nearest(word, ["every", "retries"]) == (f" (did you mean '{near}'?)" if near else "")
