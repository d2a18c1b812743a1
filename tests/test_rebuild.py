"""``doctor --rebuild``: the index is a copy of the files, so it can be built anew at any time, and is the same."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fsagent.doctor import examine
from fsagent.faces import door
from fsagent.faces.door import Caller
from fsagent.model import Run
from fsagent.recovery import rebuild_index, renew_index
from fsagent.workspace.index import Index
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, make_folder
from harness import Agent, wait_for

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = "settle: 0s\nsettle_renamed: 0s\nretry_wait: 1h\ntools: {write: {'asked/*': ask, '*': allow}}\n"
COMMANDS = (
    "Log line {n} to log.txt",
    "My name is Alice {n}.",
    "---\nid: order-{n}\nthread: orders\n---\nLog order {n} to orders.txt",
    "---\nsteps:\n  - write: {{path: 'a/{n}.txt', text: 'Größe {n}'}}\n  - read: missing-{n}.md\n---\n",
    "---\nretrys: {n}\n---\nrefused",
    "What is {n} times {n}?",
    "---\nsteps:\n  - write: {{path: 'asked/{n}.txt', text: may I}}\n---\n",
    "---\nretries: 3\nsteps:\n  - read: missing-{n}.md\n---\n",
)


def rows(layout: Layout) -> list[tuple[Any, ...]]:
    """Everything that the index holds but the numbers of texts, which count the buildings."""
    with closing(sqlite3.connect(f"file:{layout.index}?mode=ro", uri=True)) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(runs)") if row[1] != "doc"]
        found = db.execute(f"SELECT {', '.join(columns)}, doc != 0 FROM runs ORDER BY run").fetchall()
        docs = [row[0] for row in db.execute("SELECT doc FROM runs WHERE doc")]
        assert len(docs) == len(set(docs)) == db.execute("SELECT count(*) FROM texts").fetchone()[0]
        return found


def finds(layout: Layout) -> dict[str, list[str]]:
    index = Index(layout.index, write=False)
    try:
        words = ("line", "alice", "größe 7", "missing", "refused", "retrys", "1")
        return {word: [run.run for run in index.search(word, 10_000)] for word in words}
    finally:
        index.close()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return world(tmp_path_factory.mktemp("rebuild") / "ws", 400)


def world(root: Path, count: int) -> Agent:
    """A workspace with so many runs, and some more, of many kinds; some wait for a person, for another try, or for
    their time."""
    agent = Agent(root, SETTINGS)
    for number in range(count):
        kind = number % len(COMMANDS) if number < 100 else number % 6
        agent.drop(f"{number % 7}/c{number}.md", COMMANDS[kind].format(n=number))
    for number in range(10):
        (agent.layout.tasks / f"t{number}.md").write_text(f"---\nevery: 2s\n---\nLog task {number} to log.txt")
    agent.once()
    for name in agent.files(agent.layout.archive)[:20]:  # as a sync client would deliver them again
        lies = agent.layout.archive / name
        shutil.copy2(lies, agent.layout.inbox / name.partition("/")[2])
    door.hand_in(agent.layout, b"---\nnot_before: 2099-01-01 00:00\n---\nlater still", Caller("cli"))
    agent.once()
    return agent


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_index_of_thousands_of_runs_is_built_anew_as_it_was(tmp_path: Path) -> None:
    test_a_rebuilt_index_equals_the_old_one(world(tmp_path / "ws", 2_500))


@pytest.mark.timeout(180)
def test_a_rebuilt_index_equals_the_old_one(agent: Agent) -> None:
    before, found = rows(agent.layout), finds(agent.layout)
    statuses = {run.status for run in agent.runs()}
    assert len(before) > 400
    assert statuses == {"done", "failed", "refused", "waiting"}
    assert all(found.values())
    done = agent.cli("doctor", "--rebuild")
    assert done.returncode == 0, done.stdout
    assert f"it lists {len(before)} runs" in done.stdout
    assert rows(agent.layout) == before
    assert finds(agent.layout) == found
    assert not list(agent.layout.machine.glob("index*.new*"))
    agent.drop("one-more.md", "Log one more to log.txt")
    agent.once()
    assert set(before) < set(rows(agent.layout)), "a daemon goes on with it"


@pytest.mark.timeout(180)
def test_doctor_tells_where_the_index_says_other_than_the_files_and_rebuild_mends_it(agent: Agent) -> None:
    before = rows(agent.layout)
    with closing(sqlite3.connect(agent.layout.index)) as db:
        db.execute("UPDATE runs SET record = replace(record, 'c12.md', 'c13.md') WHERE command = '5/c12.md'")
        db.execute("INSERT INTO runs (run, record) VALUES ('20200101-000000-aaaaaaaa', x'7b7d')")
        db.commit()
    told = agent.cli("doctor")
    assert told.returncode == 1
    assert "differs from the index; 'fsagent doctor --rebuild' builds it anew" in told.stdout
    assert "lists a run that has no folder: 20200101-000000-aaaaaaaa" in told.stdout
    assert agent.cli("doctor", "--rebuild", "--json").returncode == 0
    assert rows(agent.layout) == before
    agent.layout.index.write_bytes(b"no database" * 1000)
    assert "cannot be read" in agent.cli("doctor").stdout
    assert agent.cli("doctor", "--rebuild").returncode == 0
    assert rows(agent.layout) == before


def test_a_rebuild_that_was_cut_short_leaves_the_old_index_and_hinders_no_later_one(agent: Agent) -> None:
    before = rows(agent.layout)
    for name in ("index.sqlite3.new", "index.sqlite3.new-wal"):
        (agent.layout.machine / name).write_bytes(b"half" * 999)
    assert examine(agent.layout).faults == []
    assert rebuild_index(agent.layout) == len(before)
    assert rows(agent.layout) == before


def test_a_rebuild_that_a_kill_cut_short_is_done_by_the_next_daemon(agent: Agent) -> None:
    before, fresh = rows(agent.layout), agent.layout.index.with_name("index.sqlite3.new")
    agent.start()
    try:
        agent.layout.rebuild.write_bytes(b"")
        wait_for(fresh.exists, "it has begun")
        agent.kill()
        assert set(before) <= set(rows(agent.layout)), "its tasks may have run meanwhile"
        agent.start()
        wait_for(lambda: not agent.layout.rebuild.exists(), "it is done")
        assert agent.stop() == 0
    finally:
        agent.close()
    after = rows(agent.layout)
    assert set(before) <= set(after)
    assert not fresh.exists()
    rebuild_index(agent.layout)
    assert rows(agent.layout) == after


def test_a_rebuild_beside_a_daemon_takes_nothing_from_the_list(tmp_path: Path) -> None:
    """Again and again while commands run; one waits for a person all the time, one for its time."""
    agent, drops = Agent(tmp_path / "ws", SETTINGS), 60
    agent.start()
    agent.drop("asked.md", COMMANDS[6].format(n=0))
    door.hand_in(agent.layout, b"---\nnot_before: 2099-01-01 00:00\n---\nlater still", Caller("cli"))
    wait_for(lambda: len(agent.runs()) == 2, "both are listed")
    seen = {run.run for run in agent.runs()}
    stop = threading.Event()
    shrunk: list[set[str]] = []

    def look() -> None:
        known = set[str]()
        while not stop.is_set():
            found = {run.run for run in agent.runs()}
            shrunk.extend([known - found] if known - found else [])
            known = found

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(drops):
            agent.drop(f"{number}.md", f"Log {number} to log.txt")
            if number % 10 == 5:
                done = agent.cli("doctor", "--rebuild")
                assert (done.returncode, done.stderr) == (0, ""), done.stdout
                assert "the index was built anew" in done.stdout
        for number in range(drops):
            agent.result(f"{number}.md")
        wait_for(lambda: [run.status for run in agent.runs()].count("done") == drops, "all are listed as done")
    finally:
        stop.set()
        watcher.join()
        agent.close()
    assert not shrunk
    assert seen < {run.run for run in agent.runs()}
    assert agent.output().count("is built anew, as somebody asked for") == 6
    before = rows(agent.layout)
    assert agent.cli("doctor", "--rebuild").returncode == 0
    assert rows(agent.layout) == before


def test_a_rebuild_that_the_daemon_cannot_do_says_why_and_leaves_the_old_index(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", SETTINGS)
    agent.start()
    try:
        agent.drop("one.md", "Log one to log.txt")
        agent.result("one.md")
        in_the_way = agent.layout.index.with_name(f"{agent.layout.index.name}.new")
        in_the_way.mkdir()
        done = agent.cli("doctor", "--rebuild")
        assert done.returncode == 1
        assert "the daemon could not build the index anew" in done.stderr
        assert [run.command for run in agent.runs()] == ["one.md"]
        in_the_way.rmdir()
        assert agent.cli("doctor", "--rebuild").returncode == 0
        assert not list(agent.layout.cancel.iterdir())
        assert not list(agent.layout.machine.glob("index*.new*"))
    finally:
        agent.close()


def test_what_is_put_while_an_index_is_built_is_in_it(tmp_path: Path) -> None:
    """Many threads put and remove; what each did last counts, whether the building came before it or after."""
    layout = Agent(tmp_path / "ws").layout
    with closing(Index(layout.index, write=True)) as index:

        def put(thread: int) -> None:
            for number in range(300):
                name = f"20260101-{thread:06}-{number:08}"
                index.put(Run(run=name, command="a.md", trigger="inbox", status="running"), key="", is_open=True)
                folder = make_folder(layout.runs / name, Envelope(run=name, name="a.md", trigger="inbox", time=START))
                folder.record("settled", status="done", settled="archive/a.md", finished=START)
                folder.close()
                run = folder.summary()
                assert run
                index.put(run, key="", is_open=False, text=f"words {number}")

        threads = [threading.Thread(target=put, args=(thread,)) for thread in range(3)]
        for each in threads:
            each.start()
        built = 0
        while any(each.is_alive() for each in threads) or not built:
            renew_index(layout, index, lambda: None)
            built += 1
        for each in threads:
            each.join()
        index.commit()
        assert index.count() == 900
        assert index.open_runs() == []
        assert {run.status for run in index.recent(1000)} == {"done"}
