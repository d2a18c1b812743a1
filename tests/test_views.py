"""What faces show: pages, search, totals and one run, from the files alone, whether a daemon runs or not."""

from __future__ import annotations

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsagent.errors import FsagentError, NotFoundError
from fsagent.faces.search import SNIPPET, snippet
from fsagent.faces.views import (
    read_results,
    read_run,
    read_runs,
    read_totals,
    read_usage,
    search_runs,
)
from fsagent.model import Run, Usage
from fsagent.recovery import open_index, recover
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, make_folder
from harness import Agent

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


def settle(layout: Layout, number: int, text: str = "words", **finished: Any) -> str:
    """A settled run's folder."""
    at = START + timedelta(seconds=number)
    run = f"{at:%Y%m%d-%H%M%S}-a{number:04}"
    trigger, thread = ("http", "taxes") if number % 2 else ("inbox", "")
    folder = make_folder(
        layout.runs / run, Envelope(run=run, name=f"c{number}.md", trigger=trigger, time=at, thread=thread)
    )
    folder.command.write_text(text)
    folder.record("started", time=at)
    folder.record("finished", **{"status": "done", "answer": "", "error": "", "finished": at, **finished})
    folder.record("published", result=f"outbox/c{number}.md" if number % 3 else "")
    folder.record("settled", settled=f"archive/c{number}.md")
    folder.close()
    return run


def enlist(layout: Layout) -> None:
    index = open_index(layout)
    recover(layout, index)
    index.close()


def ids(runs: list[Run]) -> list[str]:
    return [run.run for run in runs]


def test_lists_are_read_page_by_page(layout: Layout) -> None:
    runs = [settle(layout, number) for number in range(12)][::-1]
    enlist(layout)
    assert ids(read_runs(layout, 99)) == runs
    assert ids(read_runs(layout, 4, before=runs[3])) == runs[4:8]
    odd = [run for run in runs if int(run[-4:]) % 2]
    assert ids(read_runs(layout, 2, thread="taxes", before=odd[0])) == odd[1:3]
    assert ids(read_runs(layout, 2, trigger="http", status="done", before=odd[0])) == odd[1:3]
    assert read_runs(layout, 9, task="none") == []
    published = [run for run in runs if int(run[-4:]) % 3]
    assert ids(read_results(layout, 3)) == published[:3]
    assert ids(read_results(layout, 99, published[2])) == published[3:]
    assert all(run.result for run in read_results(layout, 99))


def test_a_page_after_an_unknown_run_is_refused(layout: Layout) -> None:
    for made in (False, True):
        if made:
            settle(layout, 1)
            enlist(layout)
        with pytest.raises(NotFoundError, match="there is no run 'none' to go on after"):
            read_runs(layout, 5, before="none")
        with pytest.raises(NotFoundError):
            read_results(layout, 5, "none")
        with pytest.raises(NotFoundError):
            search_runs(layout, "words", 5, "none")


def test_before_any_daemon_ran_everything_is_empty(layout: Layout) -> None:
    assert read_runs(layout, 5) == read_results(layout, 5) == search_runs(layout, "a", 5) == read_totals(layout) == []
    assert read_usage(layout) == Usage()


def test_totals_and_usage(layout: Layout) -> None:
    for number in range(5):
        settle(layout, number, usage={"tokens_in": 10, "cost": 0.5} if number == 3 else {})
    enlist(layout)
    assert {(each.trigger, each.status): each.count for each in read_totals(layout)} == {
        ("http", "done"): 2, ("inbox", "done"): 3,
    }  # fmt: skip
    assert read_usage(layout) == Usage(10, 0, 0.5)


def test_times_are_those_of_the_workspace(layout: Layout) -> None:
    layout.settings.write_text("timezone: Asia/Tokyo\n")
    settle(layout, 1, "find me")
    enlist(layout)
    (hit,) = search_runs(layout, "find", 5)
    for run in (hit.run, *read_runs(layout, 5), *read_results(layout, 5)):
        assert run.started
        assert run.started.isoformat() == "2026-11-22T21:00:01+09:00"


# Search


def test_a_search_shows_where_it_found_what(layout: Layout) -> None:
    first = settle(layout, 1, f"{'before ' * 100}the Müller\ninvoice {'after ' * 100}", answer="Done.")
    second = settle(layout, 2, "Sum it up", answer="The total of the muller\u0131 invoice is 3.")
    third = settle(layout, 4, "read it", status="failed", error="no such file: muller.txt")
    enlist(layout)
    hits = search_runs(layout, "MULLER", 9)
    assert ids([hit.run for hit in hits]) == [third, second, first]
    assert [hit.snippet for hit in hits[:2]] == [
        "no such file: muller.txt", "The total of the muller\u0131 invoice is 3.",
    ]  # fmt: skip
    assert "the Müller invoice after" in hits[2].snippet
    assert hits[2].snippet.startswith("…before")
    assert hits[2].snippet.endswith("after…")
    assert SNIPPET - 20 < len(hits[2].snippet) <= SNIPPET + 2
    assert ids([hit.run for hit in search_runs(layout, "muller", 9, third)]) == [second, first]
    (named,) = search_runs(layout, "c2.md", 9)
    assert named.snippet == "Sum it up"
    assert search_runs(layout, "nowhere", 9) == search_runs(layout, '"', 9) == []


def test_a_hit_whose_folder_is_gone_is_shown_without_its_command(layout: Layout) -> None:
    run = settle(layout, 1, "some words", answer="an answer")
    enlist(layout)
    shutil.rmtree(layout.runs / run)
    (hit,) = search_runs(layout, "words", 9)
    assert (hit.run.run, hit.snippet) == (run, "an answer")


@pytest.mark.parametrize(
    ("query", "text", "shown"),
    [
        ('"b c"', "a b, c d", "a b, c d"),
        ("nothing", "x " * 200, ("x " * 80).rstrip() + "…"),
        ("y", "x" * 500 + " y", "…" + "x" * 158 + " y"),
        ("x", "x" * 500, "x" * 160 + "…"),
        ("_", "", ""),
        ("İ", "İİ İ", "İİ İ"),
    ],
)
def test_snippets(query: str, text: str, shown: str) -> None:
    assert snippet(query, text, Run(run="r", command="c", trigger="cli", status="done")) == shown


def test_a_rebuilt_index_finds_what_the_old_one_found(tmp_path: Path) -> None:
    """With the daemon's own process: once as the runs were settled, once from their folders."""
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("1.md", "My name is Alice.")
    agent.drop("taxes/2.md", "---\nsteps:\n  - append: {path: log.txt, text: pelican}\n---\n")
    agent.drop("3.md", "---\nengine: nonsense\n---\nflamingo")
    agent.once()
    queries = ["alice", "ali", "taxes 2", "pelican", '"my name"', "flamingo", "nonsense engine", "none"]

    def everything() -> list[Any]:
        found = [(read_runs(agent.layout, 99), read_results(agent.layout, 99), read_totals(agent.layout))]
        return [*found, *(search_runs(agent.layout, query, 9) for query in queries)]

    before = everything()
    assert [len(each) for each in before[1:]] == [1, 1, 1, 1, 1, 1, 1, 0]
    for path in agent.layout.machine.glob("index.sqlite3*"):
        path.unlink()
    assert everything()[1:] == [[] for _ in queries]
    agent.once()
    assert everything() == before


# One run


def test_a_run_is_found_by_its_id_and_by_a_part_of_it(layout: Layout) -> None:
    runs = [settle(layout, number) for number in (1, 2, 61)]
    enlist(layout)
    late = settle(layout, 3)  # not listed yet
    for run in (*runs, late):
        for part in (run, run[-5:], run[:-2]):
            assert read_run(layout, part).run.run == run
    assert read_run(layout, "last").run.run == runs[-1]
    with pytest.raises(FsagentError, match=f"'20261122-12000' fits 2 runs, for instance {runs[0]} and {runs[1]}"):
        read_run(layout, "20261122-12000")
    for unknown in ("none", "", "..", "../runs", "x" * 5_000, "\0", "\udc80", "*", "%"):
        with pytest.raises(NotFoundError, match="there is no run"):
            read_run(layout, unknown)
    with pytest.raises(NotFoundError, match=f"did you mean '{runs[0]}'"):
        read_run(layout, runs[0][:-1] + "9")


def test_a_run_is_found_without_a_list_and_where_its_folder_is_gone_it_is_not(layout: Layout) -> None:
    runs = [settle(layout, number) for number in (1, 2)]
    assert read_run(layout, runs[0][-5:]).run.run == runs[0]
    enlist(layout)
    shutil.rmtree(layout.runs / runs[0])
    with pytest.raises(NotFoundError):
        read_run(layout, runs[0][-5:])


def test_a_list_of_another_version_is_said_to_be_built_anew(layout: Layout) -> None:
    with sqlite3.connect(layout.index) as db:
        db.execute("CREATE TABLE runs (run TEXT)")
    db.close()
    with pytest.raises(FsagentError, match=r"has version 0.*the daemon builds it anew"):
        read_runs(layout, 5)
