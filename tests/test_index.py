"""The index is a copy of what the runs' folders say: it may be lost, damaged or behind, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsagent.model import Run
from fsagent.recovery import open_index, recover
from fsagent.workspace.create import init_workspace
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder, make_folder

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


def make_run(layout: Layout, number: int, *, settled: bool = True, **more: Any) -> RunFolder:
    """A run as the pipeline leaves it."""
    at = START + timedelta(seconds=number)
    run = f"{at:%Y%m%d-%H%M%S}-{number:05}"
    task = "beat" if number % 3 == 0 else ""
    envelope = Envelope(
        run=run, name=f"c{number % 4}.md", trigger="task" if task else "inbox", time=at, task=task, key=f"k{number}"
    )
    folder = make_folder(layout.runs / run, envelope)
    folder.claimed.write_bytes(b"words")
    folder.record("attempt", n=1, time=at)
    folder.record("understood", id=f"id{number}", thread="t")
    folder.record("started", time=at)
    if settled:
        status = "failed" if number % 5 == 0 else "done"
        finished = {
            "status": status,
            "answer": "ü",
            "error": "",
            "engine": "offline",
            "changed": ["a"],
            "remembered": [],
        }
        folder.record("finished", **finished, finished=at + timedelta(seconds=1), outcome={}, body="x", **more)
        folder.record("published", result=f"outbox/c{number}.md")
        folder.record("settled", settled="archive/x.md")
    folder.close()
    return folder


def listed(index: Index) -> list[Run]:
    return index.recent(10_000)


def test_a_rebuilt_index_says_what_the_folders_say(layout: Layout) -> None:
    folders = [make_run(layout, number) for number in range(30)]
    open_ones = [make_run(layout, number, settled=False) for number in range(30, 33)]
    index = open_index(layout)
    assert [folder.run for folder in recover(layout, index)] == [folder.run for folder in open_ones]
    first = listed(index)
    assert first == [folder.summary() for folder in reversed(folders)]
    index.close()
    for path in layout.machine.glob("index.sqlite3*"):
        path.unlink()
    again = open_index(layout)
    assert [folder.run for folder in recover(layout, again)] == [folder.run for folder in open_ones]
    assert listed(again) == first
    again.close()


def test_an_open_run_stays_listed_until_it_is_settled(layout: Layout) -> None:
    folder = make_run(layout, 1, settled=False)
    index = open_index(layout)
    summary = folder.summary()
    assert summary
    assert summary.status == "running"
    index.put(summary, key="k1", is_open=True)
    index.close()
    index = open_index(layout)
    assert index.open_runs() == [folder.run]
    assert [each.run for each in recover(layout, index)] == [folder.run]
    index.put(summary, key="k1", is_open=False)
    assert recover(layout, index) == []
    index.close()


def test_rows_that_a_crash_took_are_written_again(layout: Layout) -> None:
    folders = [make_run(layout, number) for number in range(10)]
    index = open_index(layout)
    recover(layout, index)
    whole = listed(index)
    index.close()
    with sqlite3.connect(layout.index) as db:
        db.execute("DELETE FROM runs WHERE run IN (?, ?)", (folders[3].run, folders[9].run))
    db.close()
    for number in (1, 2, 4):  # a person tidied up: there are more rows than folders, and still rows are missing
        shutil.rmtree(folders[number].path)
    index = open_index(layout)
    assert recover(layout, index) == []
    assert listed(index) == whole
    index.close()


@pytest.mark.parametrize("damage", [b"this is no database" * 500, b"", b"SQLite format 3\0" + b"\xff" * 5000, "middle"])
def test_a_damaged_index_is_put_aside_and_built_anew(layout: Layout, damage: bytes | str) -> None:
    for number in range(200):
        make_run(layout, number)
    index = open_index(layout)
    recover(layout, index)
    whole = listed(index)
    index.close()
    if isinstance(damage, bytes):
        layout.index.write_bytes(damage)
    else:
        raw = layout.index.read_bytes()
        layout.index.write_bytes(raw[:4096] + b"\xa5" * (len(raw) - 8192) + raw[-4096:])
    index = open_index(layout)
    recover(layout, index)
    assert listed(index) == whole
    index.close()
    if damage:
        assert layout.index.with_name("index.sqlite3.damaged").exists()


def test_looking_up(layout: Layout) -> None:
    for number in range(12):
        make_run(layout, number)
    index = open_index(layout)
    recover(layout, index)
    newest = listed(index)
    assert [run.started for run in newest] == sorted((run.started for run in newest if run.started), reverse=True)
    assert [run.task for run in index.recent(99, task="beat")] == ["beat"] * 4
    assert {run.status for run in index.recent(99, status="failed")} == {"failed"}
    assert len(index.recent(5)) == 5
    assert index.recent(99, since=START + timedelta(seconds=10)) == newest[:2]
    assert [run.id for run in index.by_id("id3")] == ["id3"]
    assert index.by_id("") == index.by_key("") == []
    assert [run.id for run in index.by_key("k4")] == ["id4"]
    last = index.last_of("c1.md", but="")
    assert last
    assert last.id == "id9"
    before = index.last_of("c1.md", but=last.run)
    assert before
    assert before.id == "id5"
    assert index.get(newest[0].run) == newest[0]
    assert index.get("none") is None
    assert newest[0].run in index.runs()
    index.close()


def test_names_with_strange_characters_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c?d%41é"
    folder.mkdir()
    index = Index(folder / "index.sqlite3", write=True)
    run = Run(run="r1", command="it's \\xe9 \"; DROP TABLE runs; --.md", trigger="inbox", status="done", started=START)
    index.put(run, key="k", is_open=False)
    assert index.last_of(run.command, but="") == run
    index.close()
    assert (folder / "index.sqlite3").exists()
    reader = Index(folder / "index.sqlite3", write=False)
    assert reader.get("r1") == run
    with pytest.raises(sqlite3.OperationalError):
        reader.put(run, key="", is_open=False)
    reader.close()


def test_without_a_file_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Index(tmp_path / "none", write=False)
    assert os.listdir(tmp_path) == []


def test_threads_and_readers_share_it(layout: Layout) -> None:
    index = Index(layout.index, write=True)
    failed: list[BaseException] = []

    def write(me: int) -> None:
        try:
            for number in range(50):
                run = Run(run=f"{me}-{number}", command="c", trigger="inbox", status="done", started=START)
                index.put(run, key="", is_open=number % 2 == 0)
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            failed.append(error)

    def read() -> None:
        try:
            reader = Index(layout.index, write=False)
            for _ in range(50):
                reader.recent(10)
            reader.close()
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=write, args=(me,)) for me in range(4)] + [
        threading.Thread(target=read) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert index.count() == 200
    assert len(index.open_runs()) == 100
    index.close()


def test_a_list_does_not_slow_down_with_the_years(layout: Layout) -> None:
    """Counted in SQLite's own steps, not in seconds."""
    index = Index(layout.index, write=True)
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    def cost() -> int:
        steps[0] = 0
        index._db.set_progress_handler(count, 1)
        index.recent(20)
        index.recent(20, task="beat")
        index.by_id("id7")
        index.by_key("k7")
        index.last_of("c7", but="")
        index.open_runs()
        index._db.set_progress_handler(None, 0)
        return steps[0]

    costs = []
    for size in (200, 4000):
        for number in range(size):
            at = START + timedelta(seconds=number)
            index.put(
                Run(
                    run=f"r{number:06}",
                    command=f"c{number}",
                    trigger="inbox",
                    status="done",
                    started=at,
                    id=f"id{number}",
                    task="beat" if number % 7 == 0 else "",
                ),
                key=f"k{number}",
                is_open=False,
            )
        costs.append(cost())
    assert costs[1] < costs[0] * 1.5, costs
    index.close()
