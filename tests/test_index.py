"""The index is a copy of what the runs' folders say: it may be lost, damaged or behind, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsagent.model import Run, Usage
from fsagent.recovery import open_index, recover
from fsagent.workspace.create import init_workspace
from fsagent.workspace.index import TEXTS_AT_ONCE, Index, Total
from fsagent.workspace.indexfile import IndexVersionError
from fsagent.workspace.indexschema import VERSION
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, RunFolder, make_folder
from fsagent.workspace.searched import MAX_TEXT

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


def line(number: int, **fields: Any) -> Run:
    """A run of the given second."""
    base = {"run": f"r{number:06}", "command": f"c{number}.md", "trigger": "inbox", "status": "done"}
    return Run(**{**base, "started": START + timedelta(seconds=number), **fields})


def put(index: Index, *runs: Run, text: str = "") -> None:
    for run in runs:
        index.put(run, key="", is_open=False, text=text)


def found(index: Index, query: str, limit: int = 99) -> list[str]:
    return [run.run for run in index.search(query, limit)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "index.sqlite3", write=True)
    yield index
    index.close()


MIXED = [
    line(
        number // 3,  # three of one moment
        run=f"r{number * 7 % 100:03}",
        trigger=("inbox", "task", "http")[number % 3],
        status=("done", "failed")[number % 7 == 0],
        task="beat" if number % 3 == 1 else "",
        thread=("", "taxes", "food")[number % 4 % 3],
        result=f"outbox/{number}.md" if number % 5 else "",
    )
    for number in range(100)
]
FILTERS = [{}, {"task": "beat"}, {"status": "failed"}, {"thread": "taxes"}, {"trigger": "http"}, {"published": True},
           {"since": START + timedelta(seconds=20)}, {"trigger": "inbox", "status": "failed"},
           {"task": "beat", "status": "done", "thread": "food", "published": True}, {"thread": "none"}]  # fmt: skip


def fits(run: Run, name: str, value: Any) -> bool:
    if name == "published":
        return bool(run.result)
    if name == "since":
        return bool(run.started) and run.started >= value
    return getattr(run, name) == value


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("size", [1, 7])
def test_pages_give_every_run_once_while_new_ones_come(index: Index, wanted: dict[str, Any], size: int) -> None:
    put(index, *MIXED)
    runs = [run for run in MIXED if all(fits(run, *each) for each in wanted.items())]
    expected = sorted(runs, key=lambda run: (run.started, run.run), reverse=True)
    pages, before, number = list[Run](), "", 1000
    while page := index.recent(size, before=before, **wanted):
        assert len(page) <= size
        pages += page
        before, number = page[-1].run, number + 1
        put(index, line(number, task="beat", thread="taxes", trigger="http", status="failed", result="x"))
    assert pages == expected


def test_a_page_after_a_run_that_is_not_there_is_an_error(index: Index) -> None:
    put(index, line(1))
    assert index.recent(5, before="r000001") == []
    for unknown in ("none", "r00000", "\udc80", "\0"):
        with pytest.raises(KeyError):
            index.recent(5, before=unknown)
        with pytest.raises(KeyError):
            index.search("word", 5, before=unknown)


def plans(index: Index, ask: Callable[[], Any]) -> list[str]:
    """How SQLite does what ``ask`` wants of it."""
    asked: list[str] = []
    index._db.set_trace_callback(asked.append)
    ask()
    index._db.set_trace_callback(None)
    wanted = [sql for sql in asked if sql.startswith("SELECT") and "texts_" not in sql]
    assert wanted
    return [row[3] for sql in wanted for row in index._db.execute(f"EXPLAIN QUERY PLAN {sql}")]


@pytest.mark.parametrize("before", ["", "r050"])
@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_no_list_reads_the_whole_table_or_sorts(index: Index, wanted: dict[str, Any], before: str) -> None:
    put(index, *MIXED)
    steps = plans(index, lambda: index.recent(5, before=before, **wanted))
    assert not [step for step in steps if "TEMP B-TREE" in step]
    scans = [step for step in steps if step.startswith("SCAN")]
    if wanted not in ({}, {"published": True}):  # these two go along an index from its end, and take all they meet
        assert not scans
    assert all("USING" in scan and "INDEX" in scan for scan in scans)


def test_totals_and_usage_come_from_their_indexes(index: Index) -> None:
    assert index.totals() == []
    assert index.usage() == Usage()
    put(index, *MIXED, line(500, usage=Usage(10, 5, 0.25)), line(501, usage=Usage(1, 0, 0.5)))
    index.put(line(502, status="running"), key="", is_open=True)
    assert index.usage() == Usage(11, 5, 0.75)
    totals = index.totals()
    assert sum(total.count for total in totals) == index.count() == 103
    assert Total("inbox", "running", 1) in totals
    failed = sum(run.trigger == "http" and run.status == "failed" for run in MIXED)
    assert Total("http", "failed", failed) in totals
    assert "COVERING INDEX runs_total" in str(plans(index, index.totals))
    assert "COVERING INDEX runs_used" in str(plans(index, index.usage))


def test_ids_are_found_by_beginning_and_end(index: Index) -> None:
    beginning, end = plans(index, lambda: index.matching("12"))
    assert "SEARCH runs USING PRIMARY KEY" in beginning
    assert "COVERING INDEX" in end
    put(index, line(12), line(112), line(13))
    assert index.matching("r00001") == ["r000012", "r000013"]
    assert index.matching("12") == ["r000012", "r000112"]
    assert index.matching("r000013") == ["r000013"]
    assert index.matching("%") == index.matching("\udc80") == index.matching("r" * 99) == []


# Search


def test_all_words_must_occur_wherever_they_stand(index: Index) -> None:
    put(index, line(1, command="taxes/letter.md", answer="You owe 30 €."), text="Sum up the müller invoice")
    put(index, line(2, status="failed", error="no such file: budget.txt"), text="Read the INVOICE, Straße")
    assert found(index, "invoice") == ["r000002", "r000001"]
    assert found(index, "invoice owe") == ["r000001"]
    assert found(index, "Muller invoice letter") == ["r000001"]
    assert found(index, "MU\u0308LLER") == ["r000001"]
    assert found(index, "taxes/letter.md") == ["r000001"]
    assert found(index, "budget.txt") == ["r000002"]
    assert found(index, "invoice nothing") == []


def test_the_last_word_may_be_a_beginning_and_quotes_hold_together(index: Index) -> None:
    put(index, line(1), text="the quick brown fox")
    put(index, line(2), text="brown and quick")
    assert found(index, "qui") == found(index, "brown qui") == ["r000002", "r000001"]
    assert found(index, "qui brown") == []
    assert found(index, '"quick brown"') == found(index, "„quick brown“") == ["r000001"]
    assert found(index, '"quick bro') == ["r000001"]
    assert found(index, '"quick bro"') == []
    assert found(index, 'fox "quick brown"') == found(index, '"quick brown" fo') == ["r000001"]
    assert found(index, "quick AND brown") == ["r000002"], "no word is an operator"


def test_a_phrase_does_not_reach_from_one_field_into_another(index: Index) -> None:
    put(index, line(1, answer="beta"), text="alpha")
    assert found(index, "alpha beta") == ["r000001"]
    assert found(index, '"alpha beta"') == []


def test_what_was_found_comes_newest_first_page_by_page(index: Index) -> None:
    for run in MIXED:
        put(index, run, text="word " + ("rare" if run.run.endswith("3") else ""))
    newest = [run.run for run in index.recent(999)]
    pages, before, number = list[str](), "", 1000
    while page := index.search("word", 7, before):
        pages += [run.run for run in page]
        before, number = page[-1].run, number + 1
        put(index, line(number), text="word")
    assert pages == newest
    assert found(index, "word rare") == [run for run in newest if run.endswith("3")]
    plan = plans(index, lambda: index.search("word", 7, newest[3]))
    assert not [step for step in plan if step.startswith("SCAN runs")], plan
    assert any("COVERING INDEX runs_doc" in step for step in plan), plan


def test_a_run_put_again_is_found_by_its_new_text_only(index: Index) -> None:
    def texts() -> int:
        return int(index._db.execute("SELECT count(*) FROM texts_docsize").fetchone()[0])

    put(index, line(1, answer="one"), text="first")
    put(index, line(2), text="first")
    put(index, line(1, answer="one"), text="first")
    assert found(index, "first") == ["r000002", "r000001"]
    assert texts() == 2
    put(index, line(1, answer="two"), text="second")
    assert found(index, "first") == ["r000002"]
    assert found(index, "one") == []
    assert found(index, "second two") == ["r000001"]
    index.commit()
    put(index, line(1, answer="two"), text="second")
    assert found(index, "second two") == ["r000001"]
    assert texts() == 3
    index.put(line(3), key="", is_open=True, text="not yet")
    assert found(index, "not yet") == []


def test_only_the_beginning_of_a_long_text_is_searched(index: Index) -> None:
    put(index, line(1, answer="x " * MAX_TEXT + "late"), text="early " + "y" * MAX_TEXT + " late")
    assert found(index, "early") == ["r000001"]
    assert found(index, "late") == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """One for all examples of hypothesis."""
    index = Index(tmp_path_factory.mktemp("shared") / "index.sqlite3", write=True)
    yield index
    index.close()


QUERIES = st.text() | st.text("ab\"„“*^:-+(){}'\\ \0\udc80äNEAROT²", max_size=40)


@given(query=QUERIES, text=QUERIES)
@example(query="a " * 2_000, text="")
@example(query='"a"' * 2_000, text="")
@example(query='"' + "a " * 300, text="")
@example(query="NEAR(a b) AND NOT answer:x ^a* OR", text="NOT")
def test_any_text_gives_a_list(shared: Index, query: str, text: str) -> None:
    put(shared, line(1, answer=query.encode("utf-8", "replace").decode()), text=text)
    assert isinstance(shared.search(query, 5), list)
    assert isinstance(shared.search(text, 5), list)


@given(words=st.lists(st.text("abcä1", min_size=1, max_size=4), min_size=1, max_size=5))
def test_a_text_is_found_by_its_own_words(shared: Index, words: list[str]) -> None:
    put(shared, line(1), text=" ".join(words))
    assert found(shared, " ".join(reversed(words))) == ["r000001"]
    assert found(shared, f'"{" ".join(words)}"') == ["r000001"]


def test_without_fts5_everything_works_but_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.sqlite3"
    with monkeypatch.context() as patch:
        patch.setattr("fsagent.workspace.indexfile._SEARCH_MODULE", "fts_none")
        index = Index(path, write=True)
        put(index, line(1), text="word")
        assert index.recent(5) == [line(1)]
        for query in ("word", ""):
            with pytest.raises(sqlite3.NotSupportedError, match="without FTS5"):
                index.search(query, 5)
        index.close()
        Index(path, write=True).close()
    reader = Index(path, write=False)  # this one could search, but there is nothing to search in
    assert reader.recent(5) == [line(1)]
    with pytest.raises(sqlite3.NotSupportedError):
        reader.search("word", 5)
    reader.close()
    with pytest.raises(IndexVersionError):  # the daemon builds it anew, so that it can be searched
        Index(path, write=True)


# Versions and crashes


@pytest.mark.parametrize("version", [0, 1, VERSION + 1])
def test_the_file_of_another_version_is_replaced(layout: Layout, version: int) -> None:
    folders = [make_run(layout, number) for number in range(5)]
    with sqlite3.connect(layout.index) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE runs (run TEXT PRIMARY KEY, record BLOB) WITHOUT ROWID")
        db.execute("INSERT INTO runs VALUES ('old', x'00')")
        db.execute(f"PRAGMA user_version={version}")
    db.close()
    for write in (True, False):
        with pytest.raises(sqlite3.DatabaseError, match=f"has version {version}, this fsagent needs {VERSION}"):
            Index(layout.index, write=write)
    index = open_index(layout)
    recover(layout, index)
    assert listed(index) == [folder.summary() for folder in reversed(folders)]
    index.close()
    assert sorted(path.name for path in layout.machine.glob("index*")) == ["index.sqlite3"]


def test_a_file_that_nothing_was_written_to_holds_no_list_yet(layout: Layout) -> None:
    layout.index.touch()
    with pytest.raises(FileNotFoundError):
        Index(layout.index, write=False)


def test_what_a_crash_took_is_searched_again(layout: Layout) -> None:
    count = TEXTS_AT_ONCE + 20
    folders = [make_run(layout, number) for number in range(count)]
    index = open_index(layout)
    recover(layout, index)
    assert len(found(index, "words ü", 999)) == count, "a command's text and its answer"
    index.close()
    with sqlite3.connect(layout.index) as db:
        db.execute("DELETE FROM runs WHERE run IN (?, ?)", (folders[3].run, folders[-1].run))
    db.close()
    index = open_index(layout)
    recover(layout, index)
    assert found(index, "words ü", 999) == [folder.run for folder in reversed(folders)]
    index.close()


@pytest.mark.parametrize("raw", ["Müller".encode("utf-16"), "Müller".encode("utf-16-le"), b"\xef\xbb\xbfM\xc3\xbcller",
                                 b"muller \xff\xfe\xff", b"\xc3\xbc" * MAX_TEXT + b"x"])  # fmt: skip
def test_commands_are_searched_however_they_were_written(layout: Layout, raw: bytes) -> None:
    folder = make_run(layout, 1)
    folder.claimed.write_bytes(raw)
    index = open_index(layout)
    recover(layout, index)
    assert found(index, "müller" if len(raw) < 99 else "üüü") == [folder.run]
    index.close()


def test_a_lost_command_file_hinders_nothing(layout: Layout) -> None:
    folder = make_run(layout, 1)
    folder.claimed.unlink()
    index = open_index(layout)
    recover(layout, index)
    assert found(index, "ü") == [folder.run]
    index.close()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_hundred_thousand_runs(index: Index) -> None:
    """Counted in SQLite's own steps: what gives little costs little, and no list looks at every run."""
    count = 100_000
    for number in range(count):
        rare = number % 10_000 == 5_000
        put(
            index,
            line(
                number,
                task="rare" if rare else "beat",
                thread="rare" if rare else "t",
                status="failed" if rare else "done",
                trigger="mcp" if rare else "task",
                result="outbox/x.md" if rare else "",
                usage=Usage(1, 1) if rare else Usage(),
            ),
            text=f"word w{number}" + (" rare" if rare else ""),
        )
    index.commit()
    tens = [0]

    def count_steps() -> int:
        tens[0] += 1
        return 0

    def cost(ask: Callable[[], Any]) -> int:
        tens[0] = 0
        index._db.set_progress_handler(count_steps, 10)
        ask()
        index._db.set_progress_handler(None, 0)
        return tens[0] * 10

    values = {"task": ("rare", "none", "beat"), "thread": ("rare", "none", "t"), "status": ("failed", "none", "done"),
              "trigger": ("mcp", "none", "task"), "published": (True,)}  # fmt: skip
    filters = [{}, *({name: value} for name, each in values.items() for value in each)]
    for before in ("", "r050000", "r000003"):
        for wanted in filters:
            assert cost(lambda wanted=wanted, before=before: index.recent(20, before=before, **wanted)) < 2_000
        assert cost(lambda before=before: index.search("word rare", 20, before)) < 2_000
    assert cost(index.usage) < 2_000
    assert index.usage() == Usage(10, 10)
    assert found(index, "rare") == [f"r{number:06}" for number in range(95_000, 0, -10_000)]
    assert found(index, "w77777") == ["r077777"]
    assert index.totals() == [Total("mcp", "failed", 10), Total("task", "done", count - 10)]
