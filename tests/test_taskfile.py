"""What a task file may say, and what is answered where it says something else."""

from __future__ import annotations

from typing import Any

import pytest

from fsagent.errors import DocumentError
from fsagent.model import Gate, Task
from fsagent.workspace.taskfile import MOST_GATES, read_task


def task(header: str, body: str = "beat") -> Task:
    return read_task(f"---\n{header}\n---\n{body}\n".encode(), "t", "tasks/t.md")


def faults(header: str, body: str = "beat") -> list[tuple[int, str, str]]:
    """Line, field and words of all that is wrong."""
    with pytest.raises(DocumentError) as caught:
        task(header, body)
    return [(fault.line, fault.field, fault.message) for fault in caught.value.faults]


def test_nothing_said_gives_the_defaults() -> None:
    read = read_task(b"beat", "t", "tasks/t.md")
    assert (read.missed, read.within, read.overlap, read.jitter, read.pause_after) == ("once", 43_200, "skip", 0, 5)
    assert (read.gates, read.settings, read.report, read.enabled) == ((), {}, "auto", True)
    assert len(read.print) == 32


def test_all_can_be_said() -> None:
    read = task(
        "every: 1h\nmissed: all\nwithin: 2d\noverlap: replace\njitter: 30s\nretries: 3\nbackoff: 1m\ntimeout: 90s\n"
        "pause_after: 2\nenabled: no\nreport: on_change\nwhen: {exists: data/in.csv}\n"
        "expects: {file: report.md, newer: true, contains: total, status: done}\nengine: offline\nmodel: ollama:x"
    )
    assert (read.missed, read.within, read.overlap, read.jitter) == ("all", 172_800, "replace", 30)
    assert (read.pause_after, read.enabled, read.report, read.timeout) == (2, False, "on_change", 90)
    assert read.gates == (Gate(kind="exists", value="data/in.csv"),)
    assert read.settings == {
        "retries": "3",
        "backoff": "1m",
        "model": "ollama:x",
        "expects": {"file": "report.md", "newer": "true", "contains": "total", "status": "done"},
    }


def test_an_empty_value_counts_as_not_given() -> None:
    read = task("retries:\nbackoff:\nwhen:\nwithin:\nbudget:")
    assert (read.settings, read.gates, read.within) == ({}, (), 43_200)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("off", 0), ("never", 0), ("7", 7)])
def test_failures_that_pause(text: str, number: int) -> None:
    assert task(f"pause_after: {text}").pause_after == number


GATES: dict[str, list[Gate]] = {
    'when: {changed: "data/**/*.csv"}': [Gate(kind="changed", value="data/**/*.csv")],
    "when: {shell: 'test -e x && echo \"a: b\"'}": [Gate(kind="shell", value='test -e x && echo "a: b"')],
    "when: {http: 'https://example.org/feed?x=1'}": [Gate(kind="http", value="https://example.org/feed?x=1")],
    "when: {http: HTTP://example.org, changed: true}": [Gate(kind="http", value="HTTP://example.org", changed=True)],
    "when: {changed: yes, http: 'http://[::1]:80/'}": [Gate(kind="http", value="http://[::1]:80/", changed=True)],
    "when: {http: 'https://example.org', changed: no}": [Gate(kind="http", value="https://example.org")],
    "when: {http: 'https://example.org', changed: '*.md'}": [
        Gate(kind="http", value="https://example.org"), Gate(kind="changed", value="*.md"),
    ],
    "when:\n  exists: a\n  shell: b": [Gate(kind="exists", value="a"), Gate(kind="shell", value="b")],
    "when:\n  - {exists: a}\n  - exists: b c/d\n": [Gate(kind="exists", value="a"), Gate(kind="exists", value="b c/d")],
}  # fmt: skip


@pytest.mark.parametrize("header", GATES)
def test_gates(header: str) -> None:
    assert list(task(header).gates) == GATES[header]


WRONG: dict[str, tuple[int, str, str]] = {
    "when: data/*.csv": (2, "when", "must be a map such as"),
    "when: [{exists: a}, b]": (2, "when[2]", "must be a map such as"),
    "when:\n  - {}": (3, "when[1]", "must be a map such as"),
    "when: {exist: x}": (2, "when.exist", "did you mean 'exists'"),
    "when:\n  - exists: x\n  - url: x": (4, "when[2].url", "known are: changed, exists, shell, http"),
    "when: {exists: /etc/passwd}": (2, "when.exists", "must lie in the workspace"),
    "when: {exists: a/../../b}": (2, "when.exists", "must lie in the workspace"),
    "when: {changed: '~/x'}": (2, "when.changed", "must lie in the workspace"),
    "when: {exists: 'a\\b'}": (2, "when.exists", "must have / between"),
    "when: {exists: ''}": (2, "when.exists", "is empty"),
    "when: {shell: ''}": (2, "when.shell", "is empty"),
    "when: {shell: [ls]}": (2, "when.shell", "must be a single value"),
    "when: {changed: true}": (2, "when.changed", "belongs to an http in the same map"),
    "when:\n  - http: https://a.b\n  - changed: true": (4, "when[2].changed", "belongs to an http"),
    "when: {http: example.org}": (2, "when.http", "write for instance https://example.org/page"),
    "when: {http: 'ftp://example.org'}": (2, "when.http", "is no web address"),
    "when: {http: 'https://'}": (2, "when.http", "is no web address"),
    "when: {http: 'https://a b'}": (2, "when.http", "is no web address"),
    "when: {http: 'https://me:pw@example.org'}": (2, "when.http", "is no web address"),
    "every: 1m\njitter: 60s": (3, "jitter", "must be shorter than every, which is 1m"),
    "jitter: 2d": (2, "jitter", "at most 1d"),
    "within: 0s": (2, "within", "write missed: skip"),
    "timeout: 0s": (2, "timeout", "longer than nothing"),
    "retries: 21": (2, "retries", "between 0 and 20"),
    "retries: -1": (2, "retries", "between 0 and 20"),
    "retries: many": (2, "retries", "must be a whole number"),
    "backoff: 0s": (2, "backoff", "longer than nothing"),
    "pause_after: -1": (2, "pause_after", "a whole number such as 5, or off"),
    "pause_after: 2.5": (2, "pause_after", "a whole number such as 5, or off"),
    "missed: twice": (2, "missed", "'twice'"),
    "overlap: kill": (2, "overlap", "'kill'"),
    "report: loud": (2, "report", "'loud'"),
    "expects: report.md": (2, "expects", "must be a map"),
    "expects: {}": (2, "expects", "must name a file, a text that the answer contains, or a status"),
    "expects: {newer: true}": (2, "expects", "must name a file, too"),
    "expects:\n  contains: x\n  newer: true": (4, "expects.newer", "needs a file"),
    "expects: {file: ../x}": (2, "expects.file", "must lie in the workspace"),
    "expects: {status: waiting}": (2, "expects.status", "must be done, failed, refused or interrupted"),
    "expects: {files: x}": (2, "expects.files", "did you mean 'file'"),
    "expects: {file: x, newer: maybe}": (2, "expects.newer", ""),
    "evry: 1m": (2, "evry", "did you mean 'every'"),
}


@pytest.mark.parametrize("header", WRONG)
def test_a_mistake_is_answered_with_its_line_and_what_to_write(header: str) -> None:
    line, field, words = WRONG[header]
    found = faults(header)
    assert [each[:2] for each in found] == [(line, field)]
    assert words in found[0][2]


def test_all_mistakes_are_told_at_once() -> None:
    found = faults(
        "every: 1m\njitter: 2m\nwhen:\n  - {exists: /x}\n  - {htp: x}\nexpects: {newer: true}\nretries: 99\n"
        "steps: read\ntools: none"
    )
    assert sorted(found) == sorted(found, key=lambda each: each[0])
    assert [each[:2] for each in sorted(found)] == [
        (3, "jitter"), (5, "when[1].exists"), (6, "when[2].htp"), (7, "expects"), (8, "retries"),
        (9, "steps"), (10, "tools"),
    ]  # fmt: skip


def test_gates_have_an_end() -> None:
    listed = "".join(f"  - exists: f{number}\n" for number in range(MOST_GATES + 1))
    assert "more than 20" in faults(f"when:\n{listed}")[0][2]
    assert len(task("when:\n" + listed.rpartition("  - ")[0]).gates) == MOST_GATES


def test_a_task_without_a_request_is_none() -> None:
    assert faults("every: 1m", "")[0][2].startswith("holds no request")
    assert task("steps: [{read: a.md}]", "").steps


@pytest.mark.parametrize("other", ["every: 2h", "enabled: false", "# a comment"])
def test_the_print_is_that_of_the_whole_file(other: str) -> None:
    before: Any = task("every: 1h")
    assert task("every: 1h").print == before.print
    assert task(other).print != before.print
