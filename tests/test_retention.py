"""What is not kept goes, and only that: by age and by size, dry as for real, across kills, and without a second run."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from diskshim import DiskCalls
from faultshim import why_not
from fsagent.config import Settings, load_settings
from fsagent.daemon import Daemon
from fsagent.doctor import examine
from fsagent.faces.door import Caller, hand_in
from fsagent.keeper import alone, carry_out, last_pass, plan
from fsagent.recovery import open_index, rebuild_index, recover
from fsagent.retention import Item
from fsagent.workspace.create import init_workspace
from fsagent.workspace.journal import Journal
from fsagent.workspace.journalcheck import check_journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.removed import read_removed, removed_files
from fsagent.workspace.runs import Envelope, make_folder
from harness import Agent, wait_for
from journals import read_records

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WHY_NOT = why_not()
QUICK = "settle: 0s\nsettle_renamed: 0s\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = init_workspace(tmp_path / "ws")[0]
    layout.settings.write_text(QUICK)
    (layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    return layout


def drop(layout: Layout, name: str, text: str) -> Path:
    path = layout.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (START.timestamp(), START.timestamp()))
    return path


def live(layout: Layout, at: datetime, beats: int = 1) -> None:
    """A daemon does what waits, at this moment by its clock. It does not prune, for none was asked for or is due."""
    os.utime(layout.marker, (at.timestamp(), at.timestamp()))
    daemon = Daemon(layout, now=lambda: at)
    daemon.open()
    for _ in range(beats):
        daemon.beat()
        assert daemon.drain()
    wait_for(lambda: daemon.beat() >= 0 and daemon.drain() and not any(layout.inbox.rglob("*.md")), "all is taken")
    daemon.beat()
    assert daemon.drain()
    daemon.close()


def settings_of(layout: Layout) -> Settings:
    return load_settings(layout.settings)


def dry(layout: Layout, at: datetime) -> list[Item]:
    index = open_index(layout)
    try:
        recover(layout, index)
        return list(plan(layout, settings_of(layout), index, at))
    finally:
        index.close()


def prune(layout: Layout, at: datetime) -> list[Item]:
    """A pass, which must do what the dry run said before; and afterwards all is well."""
    planned = dry(layout, at)
    done = list(alone(layout, settings_of(layout), lambda: at))
    assert sorted(map(repr, done)) == sorted(map(repr, planned))
    for item in done:
        assert not os.path.lexists(layout.root / item.name), item
    assert dry(layout, at) == [], "nothing is left to do"
    is_well(layout)
    return done


def is_well(layout: Layout) -> None:
    before = rows(layout)
    assert examine(layout).faults == []
    rebuild_index(layout)
    assert rows(layout) == before, "the index says what the files say"
    assert not list(layout.tmp.iterdir())


def rows(layout: Layout) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{layout.index}?mode=ro", uri=True)) as db:
        runs = db.execute("SELECT run, at, open, status, id, key, digest, record FROM runs ORDER BY run").fetchall()
        removed = db.execute("SELECT * FROM removed ORDER BY run").fetchall()
        read = db.execute("SELECT * FROM removed_read ORDER BY file").fetchall()
        docs = db.execute("SELECT count(*) FROM runs WHERE doc").fetchone()[0]
        assert docs == db.execute("SELECT count(*) FROM texts").fetchone()[0], "words of removed runs are forgotten"
        return [*runs, *removed, *read]


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir() or path.is_symlink())


def events(layout: Layout, kind: str) -> list[dict[str, Any]]:
    found = [record for path in sorted(layout.journal.glob("*.jsonl")) for _, record in read_records(path)]
    return [record for record in found if record and record["event"] == kind]


def passed(layout: Layout, at: datetime) -> None:
    """As if passes had been made all the time, so that ages count from this moment (``keeper.AHEAD``)."""
    layout.kept.write_text(json.dumps({"time": at.isoformat(), "counted": at.isoformat()}))


# Ages


def test_each_place_is_kept_for_its_own_time(layout: Layout, tmp_path: Path) -> None:
    layout.settings.write_text(QUICK + "tools: {write: ask}\n")
    drop(layout, "a.md", "Log one to log.txt")
    (tmp_path / "b.bin").write_text("beside" * 1000)
    run = hand_in(layout, b"Log two to log.txt", Caller("cli"), attachments={"b.bin": tmp_path / "b.bin"}).run
    drop(layout, "bad.md", "---\nretrys: 1\n---\n")
    drop(layout, "asks.md", "---\nsteps:\n  - write: {path: x, text: y}\n---\n")
    live(layout, START)
    assert prune(layout, START + 29 * DAY) == []
    names = {"archive": ["2026-01/a.md", f"2026-01/cli/{run}.md", "2026-01/cli/b.bin"], "failed": ["bad.md"],
             "outbox": ["a.md", "bad.md", f"cli/{run}.md"]}  # fmt: skip
    assert {place: files(layout.root / place) for place in names} == names

    passed(layout, START + 91 * DAY)
    assert Counter(item.place for item in prune(layout, START + 91 * DAY)) == {"runs": 3}
    assert {place: files(layout.root / place) for place in names} == names
    assert len(os.listdir(layout.runs)) == 1, "one waits for an answer"

    passed(layout, START + 366 * DAY)
    gone = prune(layout, START + 366 * DAY)
    assert Counter(item.place for item in gone) == {"archive": 3, "outbox": 3}
    assert {item.why for item in gone} == {"older than 1y (keep.archive.age)", "older than 1y (keep.outbox.age)"}
    assert list(layout.archive.iterdir()) == list(layout.outbox.iterdir()) == [], (
        "the folders that were left empty, too"
    )
    assert files(layout.failed) == ["bad.md"]

    passed(layout, START + 731 * DAY)
    assert [item.name for item in prune(layout, START + 731 * DAY) if item.place == "failed"] == ["failed/bad.md"]
    assert len(os.listdir(layout.runs)) == 1
    assert files(layout.approvals) != []
    for place in ("inbox", "outbox", "archive", "failed", "approvals"):
        assert (layout.root / place).is_dir()


def test_what_others_put_there_or_changed_stays(layout: Layout, tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md", "d.md"):
        drop(layout, name, f"Log {name} to log.txt")
    live(layout, START)
    month = layout.archive / "2026-01"
    (month / "notes.md").write_text("mine")
    (month / "b.md").write_text("changed by me")
    (layout.outbox / "a.md").write_text((layout.outbox / "a.md").read_text() + "\nread it, Bob")
    os.utime(layout.outbox / "d.md", (1, 1))
    outside = tmp_path / "outside.md"
    outside.write_bytes((month / "c.md").read_bytes())
    (month / "c.md").unlink()
    (month / "c.md").symlink_to(outside)
    (layout.archive / "2025-11").mkdir()
    (layout.outbox / "notices").mkdir()
    (layout.outbox / "notices" / "mine.md").write_text("no notice")
    os.utime(layout.outbox / "notices" / "mine.md", (1, 1))
    for days in (400, 800, 1200):
        passed(layout, START + days * DAY)
        prune(layout, START + days * DAY)
    assert files(layout.archive) == ["2026-01/b.md", "2026-01/c.md", "2026-01/notes.md"]
    assert files(layout.outbox) == ["a.md", "notices/mine.md"]
    assert outside.exists()
    assert (layout.archive / "2025-11").is_dir(), "an empty folder of somebody else's"


def test_a_moved_folder_that_is_linked_to_is_left_alone(layout: Layout, tmp_path: Path) -> None:
    drop(layout, "a.md", "Log one to log.txt")
    live(layout, START)
    os.rename(layout.archive / "2026-01", tmp_path / "elsewhere")
    (layout.archive / "2026-01").symlink_to(tmp_path / "elsewhere")
    prune(layout, START + 400 * DAY)
    assert files(tmp_path / "elsewhere") == ["a.md"]
    assert (layout.archive / "2026-01").is_symlink()


def test_a_task_keeps_its_newest_runs_while_it_has_a_file(layout: Layout) -> None:
    (layout.tasks / "yearly.md").write_text("---\nevery: 30d\nmissed: all\nwithin: 300d\n---\nLog beat to log.txt")
    for number in range(14):
        live(layout, START + number * 30 * DAY + DAY / 2, beats=2)
    assert len(os.listdir(layout.runs)) == 13
    later = START + 14 * 30 * DAY + 100 * DAY
    passed(layout, later)
    assert len(prune(layout, later)) == 3
    (layout.tasks / "yearly.md").unlink()
    assert len(prune(layout, later)) == 10


def test_notices_and_answered_questions_go_too(layout: Layout) -> None:
    layout.settings.write_text(QUICK + "tools: {write: ask}\n")
    drop(layout, "asks.md", "---\nsteps:\n  - notify: {title: Hi, text: there}\n  - write: {path: x, text: y}\n---\n")
    live(layout, START)
    (question,) = layout.approvals.glob("*.md")
    question.write_text(question.read_text().replace("[ ] approve once", "[x] approve once"))
    live(layout, START + timedelta(minutes=1), beats=30)
    (put_away,) = layout.archive.glob("*/approvals/*.md")
    (notice,) = layout.outbox.glob("notices/*.md")
    for path in (put_away, notice):
        os.utime(path, (START.timestamp(), START.timestamp()))
    passed(layout, START + 366 * DAY)
    names = {item.name for item in prune(layout, START + 366 * DAY)}
    assert names >= {layout.name(put_away), layout.name(notice), "archive/2026-01/asks.md"}
    assert list(layout.archive.iterdir()) == []


@pytest.mark.parametrize("left", ["claimed.md", "result.new", "unsettled"])
def test_what_is_not_settled_or_not_published_stays_whatever_the_index_says(layout: Layout, left: str) -> None:
    run = make_run(layout, 0)
    now = START + 3000 * DAY
    index = open_index(layout)
    recover(layout, index)
    if left == "unsettled":
        steps = layout.runs / run / "steps.jsonl"
        steps.write_bytes(b"".join(steps.read_bytes().splitlines(keepends=True)[:-1]))
    else:
        (layout.runs / run / left).write_text("x")
    assert [item for item in plan(layout, settings_of(layout), index, now) if item.place != "journal"] == []
    journal = Journal(layout.journal, lambda: now)
    assert list(carry_out(layout, settings_of(layout), index, journal, now, lambda: None)) == []
    index.close()
    journal.close()
    assert os.listdir(layout.runs) == [run]
    assert files(layout.outbox) == ["0.md"]


def test_off_keeps_everything(layout: Layout) -> None:
    off = ", ".join(f"{place}: {{age: off, size: off}}" for place in ("archive", "failed", "outbox", "runs", "journal"))
    layout.settings.write_text(f"{QUICK}keep: {{{off}}}\n")
    drop(layout, "a.md", "Log one to log.txt")
    live(layout, START)
    assert prune(layout, START + 3000 * DAY) == []


def test_a_clock_that_jumps_years_ahead_takes_little_away(layout: Layout) -> None:
    for number in range(0, 120, 10):
        drop(layout, f"{number}.md", f"Log {number} to log.txt")
        live(layout, START + number * DAY)
    passed(layout, START + 110 * DAY)
    gone = prune(layout, START + 5000 * DAY)
    assert [item.place for item in gone] == ["runs"] * 3, "as if seven days had passed since the pass before"
    done = last_pass(layout)
    assert done
    assert (done.time, done.counted) == (START + 5000 * DAY, START + 117 * DAY)


# Sizes


def make_run(layout: Layout, number: int, size: int = 1_000, *, every: timedelta = timedelta(hours=1)) -> str:
    """A settled run as the pipeline leaves it, with a command and a result of its own."""
    at = START + number * every
    run = f"{at:%Y%m%d-%H%M%S}-{number:08}"
    failed = number % 10 == 3
    place = f"failed/{number}.md" if failed else f"archive/{at:%Y-%m}/{number}.md"
    envelope = Envelope(
        run=run, name=f"{number}.md", trigger="inbox", time=at, path=f"inbox/{number}.md", key=f"k{run}"
    )
    folder = make_folder(layout.runs / run, envelope)
    for path, text in ((folder.command, "x" * size), (folder.result, f"result {number}\n" + "y" * size)):
        path.write_text(text)
    for path, source in ((layout.root / place, folder.command), (layout.outbox / f"{number}.md", folder.result)):
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, path)
    folder.record("understood", id=f"order-{number}" if number % 7 == 0 else "", thread="")
    folder.record("finished", status="failed" if failed else "done", answer=f"answer {number}", finished=at, outcome={})
    folder.record("published", result=f"outbox/{number}.md")
    folder.record("settled", settled=place)
    folder.close()
    return run


def test_beyond_its_size_the_oldest_of_a_place_go_dry_as_for_real(layout: Layout) -> None:
    """Thousands of runs; what the pass removes is exactly what the dry run names, and what is left fits."""
    count = 1_500
    for number in range(count):
        make_run(layout, number, 200)
    now = START + timedelta(hours=count)
    layout.settings.write_text(
        QUICK
        + "keep: {unread: 10d, runs: {size: 10MB}, archive: {size: 4MB}, outbox: {size: 2MB}, failed: {age: off}}\n"
    )
    passed(layout, now)
    gone = prune(layout, now)
    places = Counter(item.place for item in gone)
    assert places["archive"]
    assert places["outbox"]
    assert places["failed"] == 0
    assert {item.why for item in gone if item.place == "outbox"} == {"more than 2 MB (keep.outbox.size)"}
    kept = sorted(int(path.stem) for path in layout.outbox.glob("*.md"))
    assert kept == list(range(count - len(kept), count)), "the newest stay"
    for place, limit in (("runs", 10e6), ("archive", 4e6), ("outbox", 2e6)):
        folder = layout.runs if place == "runs" else layout.root / place
        size = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if place == "runs" or path.is_file())
        assert limit - 100_000 < size <= limit, place
    assert {record["place"]: record["count"] for record in events(layout, "removed")} == dict(places)
    kept_runs = set(os.listdir(layout.runs))
    remembered = {each.run for path in removed_files(layout.removed) for _, each in read_removed(path) if each}
    assert len(kept_runs | remembered) == count
    assert not kept_runs & remembered
    assert prune(layout, now) == []


def test_what_is_unread_stays_whatever_the_size_and_that_is_told(layout: Layout) -> None:
    for number in range(50):
        make_run(layout, number)
    layout.settings.write_text(f"{QUICK}keep: {{unread: 7d, runs: {{size: 0}}, outbox: {{size: 1kB}}}}\n")
    assert prune(layout, START + 2 * DAY) == []
    (record, _) = events(layout, "too much")
    assert (record["place"], record["bytes"] > 1000) == ("outbox", True)
    assert "ended less than 7d ago" in record["why"]
    live(layout, START + 2 * DAY)
    needs = layout.status.read_text().partition("## Needs you")[2].partition("\n## ")[0]
    assert re.search(r"- outbox/ takes \d+ kB, more than 1 kB \(keep.outbox.size\): what is left ended less", needs)
    assert "- .fsagent/runs/ takes" in needs
    layout.settings.write_text(f"{QUICK}keep: {{unread: 7d}}\n")
    live(layout, START + 2 * DAY)
    assert "keep.outbox.size" not in layout.status.read_text(), "the limit was raised"


# Records by the month


def write_months(layout: Layout, months: int, back: int = -1) -> None:
    """A journal over so many months; the clock is set back over the end of one of them."""
    now = [START]
    journal = Journal(layout.journal, lambda: now[0])
    for month in range(months):
        now[0] = START + month * 31 * DAY
        if month == back:
            now[0] -= 31 * DAY
        for number in range(20):
            journal.append("beat", number=number, text="x" * 500)
    journal.close()


@pytest.mark.parametrize("back", [-1, 2])
def test_old_months_of_the_journal_go_and_the_chain_knows(layout: Layout, back: int) -> None:
    write_months(layout, 8, back)
    names = files(layout.journal)
    assert prune(layout, START + 500 * DAY) == []
    layout.settings.write_text(QUICK + "keep: {journal: {age: 400d}}\n")
    for days in (450, 510, 600):
        passed(layout, START + days * DAY)
        gone = prune(layout, START + days * DAY)
        assert gone, days
        assert {item.place for item in gone} == {"journal"}
    left = files(layout.journal)
    assert not set(names[:3]) & set(left)
    assert (check := check_journal(layout.journal)).findings == []
    assert check.records > 20
    first = next(path for path in sorted(layout.journal.glob("*.jsonl")))
    first.unlink()
    (fault,) = check_journal(layout.journal).findings
    assert "are missing before this record" in fault.why, "what went by another hand is told"


def test_a_journal_that_is_too_large_loses_its_oldest_months_but_never_the_newest_three(layout: Layout) -> None:
    write_months(layout, 8)
    layout.settings.write_text(QUICK + "keep: {journal: {size: 30kB}, usage: {size: 0}}\n")
    for month in ("2026-01", "2026-08"):
        turn = {"time": f"{month}-01T00:00:00Z", "run": "r", "trigger": "cli"}
        (layout.usage / f"{month}.jsonl").write_text(json.dumps(turn) + "\n")
    (layout.usage / "notes.jsonl").write_text("")
    gone = prune(layout, START + 7 * 31 * DAY)
    assert Counter(item.place for item in gone) == {"journal": 5, "usage": 1}
    assert [name for name in files(layout.journal) if name.endswith("l")] == [
        f"2026-0{month}.jsonl" for month in (6, 7, 8)
    ]
    assert files(layout.usage) == ["2026-08.jsonl", "notes.jsonl"]


def test_what_is_remembered_of_removed_runs_is_forgotten_after_years_but_for_what_still_lies(layout: Layout) -> None:
    layout.settings.write_text(QUICK + "keep: {failed: {age: off}, journal: {age: off}}\n")
    for number in range(12):
        make_run(layout, number)
    for days in (400, 1000):
        passed(layout, START + days * DAY)
        prune(layout, START + days * DAY)
    (month,) = removed_files(layout.removed)
    passed(layout, START + 1300 * DAY)
    (gone,) = prune(layout, START + 1300 * DAY)
    assert (gone.place, gone.name, gone.why) == ("removed", layout.name(month), "older than 2y")
    (month,) = removed_files(layout.removed)
    assert [each.settled for _, each in read_removed(month) if each] == ["failed/3.md"]
    assert files(layout.failed) == ["3.md"]


# Nothing runs twice


def deliver(layout: Layout, raw: bytes, times: tuple[int, int], name: str = "a.md") -> None:
    path = layout.inbox / name
    path.write_bytes(raw)
    os.utime(path, ns=times)


def log(layout: Layout) -> list[str]:
    return (layout.root / "log.txt").read_text().splitlines()


def test_what_is_delivered_again_after_years_is_not_run_again(layout: Layout) -> None:
    path = drop(layout, "a.md", "Log one to log.txt")
    raw, status = path.read_bytes(), path.stat()
    times = (status.st_atime_ns, status.st_mtime_ns)
    live(layout, START)
    for days, lies in ((100, True), (400, False), (600, False)):
        now = START + days * DAY
        passed(layout, now)
        prune(layout, now)
        assert (layout.archive / "2026-01" / "a.md").exists() == lies
        deliver(layout, raw, times)
        live(layout, now)
        assert log(layout) == ["one"], f"{days} days later"
        assert len(events(layout, "redelivered")) == {100: 1, 400: 2, 600: 3}[days]
    layout.index.unlink()
    deliver(layout, raw, times)
    live(layout, START + 601 * DAY)
    assert log(layout) == ["one"], "nor where the index was lost"


def test_what_a_person_moves_back_runs_as_long_as_it_lies_there(layout: Layout) -> None:
    drop(layout, "a.md", "Log one to log.txt")
    live(layout, START)
    passed(layout, START + 100 * DAY)
    prune(layout, START + 100 * DAY)
    os.rename(layout.archive / "2026-01" / "a.md", layout.inbox / "a.md")
    live(layout, START + 100 * DAY)
    assert log(layout) == ["one", "one"]


def test_an_id_stays_taken(layout: Layout) -> None:
    drop(layout, "a.md", "---\nid: order-1\n---\nLog one to log.txt")
    live(layout, START)
    passed(layout, START + 400 * DAY)
    prune(layout, START + 400 * DAY)
    drop(layout, "b.md", "---\nid: order-1\n---\nLog one to log.txt")
    live(layout, START + 400 * DAY)
    assert log(layout) == ["one"]
    assert "'order-1' was run already" in (layout.outbox / "b.md").read_text()


def test_a_slot_of_a_task_has_one_run_even_if_its_state_is_lost(layout: Layout) -> None:
    task = layout.tasks / "beat.md"
    task.write_text("---\nevery: 40d\nmissed: all\nwithin: 3000d\n---\nLog the timestamp to log.txt")
    live(layout, START)
    for number in range(1, 16):
        live(layout, START + number * 40 * DAY, beats=3)
    before = log(layout)
    assert len(before) == len(set(before)) == 15
    now = START + 15 * 40 * DAY
    passed(layout, now)
    assert prune(layout, now)
    state = (layout.task_states / "states.jsonl").read_bytes().splitlines(keepends=True)
    (layout.task_states / "states.jsonl").write_bytes(state[0])  # as an old copy of the folder would have it
    live(layout, now, beats=5)
    assert log(layout) == before
    assert events(layout, "redelivered")


# Kills


class Killed(BaseException):
    """Ends a pass as a kill would: nothing that it holds in memory is used again."""


def passes(layout: Layout, now: datetime, stop_at: int) -> int:
    """A pass that is cut short at its n-th step; gives the steps that it made."""
    index, journal, steps = open_index(layout), Journal(layout.journal, lambda: now), [0]
    recover(layout, index)

    def step() -> None:
        steps[0] += 1
        if steps[0] == stop_at:
            raise Killed

    try:
        for _ in carry_out(layout, settings_of(layout), index, journal, now, step):
            pass
    except Killed:
        pass
    finally:
        index.close()
        journal.close()
    return steps[0]


def test_a_pass_that_is_cut_short_anywhere_is_finished_by_the_next(layout: Layout, tmp_path: Path) -> None:
    for number in range(5):
        make_run(layout, number)
    now = START + 400 * DAY
    passed(layout, now)
    model, end = tmp_path / "model", 1
    shutil.copytree(layout.root, model)
    while True:
        root = tmp_path / f"copy-{end}"
        shutil.copytree(model, root)
        copy = Layout(root)
        steps = passes(copy, now, end)
        assert examine(copy).faults == [], f"step {end}: half of it is no damage"
        deliverable = {each.run for each in _by_key(copy)}
        assert len(deliverable) == 5, f"step {end}: every file is known still"
        prune(copy, now)
        assert files(copy.archive) == files(copy.outbox) == os.listdir(copy.runs) == []
        assert files(copy.failed) == ["3.md"]
        shutil.rmtree(root)
        if steps < end:
            assert end > 20
            return
        end += 1


def _by_key(layout: Layout) -> list[Any]:
    """The runs that keep their files from running again: who delivers them now is told."""
    from fsagent.repeats import delivered_before

    index = open_index(layout)
    try:
        recover(layout, index)
        found = []
        for number in range(5):
            at = START + timedelta(hours=number)
            run = f"{at:%Y%m%d-%H%M%S}-{number:08}"
            envelope = Envelope(run="new", name=f"{number}.md", trigger="inbox", time=at, key=f"k{run}")
            earlier = delivered_before(layout, index, envelope)
            found += [earlier] if earlier else []
        return found
    finally:
        index.close()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_a_kill_at_every_call_of_a_pass(tmp_path: Path, disk: DiskCalls) -> None:
    model = init_workspace(tmp_path / "model")[0]
    ages = ", ".join(f"{place}: {{age: 60d}}" for place in ("runs", "archive", "outbox"))
    model.settings.write_text(f"{QUICK}keep: {{{ages}}}\n")
    (model.tasks / "heartbeat.md").unlink(missing_ok=True)
    for number in range(3):
        make_run(model, number, every=DAY)
    passed(model, datetime.now(UTC) - 2 * DAY)
    for number in range(1, 400):
        agent = Agent(tmp_path / str(number), programs=disk.programs)
        shutil.rmtree(agent.root)
        shutil.copytree(model.root, agent.root)
        killed = disk.kills(agent, number)
        faults = [str(fault) for fault in examine(agent.layout).faults]
        assert not [fault for fault in faults if "index" not in fault and "owner.md: is missing" not in fault], number
        agent.layout.prune.touch()
        agent.once()
        left = [*files(agent.layout.runs), *files(agent.layout.archive), *files(agent.layout.outbox)]
        assert left == [], number
        assert examine(agent.layout).faults == []
        shutil.rmtree(agent.root)
        if not killed:
            return
    raise AssertionError("more than 400 calls")


# The daemon


@pytest.mark.timeout(180)
def test_the_daemon_prunes_once_a_day_and_on_demand_and_commands_do_not_wait(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", QUICK + "scan_interval: 200ms\nkeep: {unread: 7d, runs: {age: 8d}}\n")
    (agent.layout.tasks / "heartbeat.md").unlink(missing_ok=True)
    hours = int((datetime.now(UTC) - START) / timedelta(hours=1))
    for number in range(600):
        make_run(agent.layout, hours - 400 - number, 100)
    agent.start()
    assert last_pass(agent.layout) is None, "a new workspace has a day's time"
    asked = agent.layout.prune
    asked.touch()
    agent.drop("a.md", "Log one to log.txt")
    assert agent.result("a.md")["status"] == "done"
    assert len(os.listdir(agent.layout.runs)) > 100, "the pass goes on"
    wait_for(lambda: not asked.exists(), "the pass is through", 60)
    assert len(os.listdir(agent.layout.runs)) == 1
    assert "removed" in agent.output()
    done = agent.cli("prune")
    assert done.stdout == "nothing was to go\n", done.stderr
    agent.drop("b.md", "Log two to log.txt")
    agent.result("b.md")
    before = last_pass(agent.layout)
    assert before
    passed(agent.layout, before.time - 2 * DAY)
    wait_for(lambda: (last_pass(agent.layout) or before).time > before.time, "a day is over, so the daemon does it")
    agent.stop()
    assert agent.cli("doctor").stdout.startswith("no faults")
    assert "keep.journal.size" not in agent.status()
    agent.layout.settings.write_text(QUICK + "keep: {unread: 7d, runs: {age: 8d}, journal: {size: 0}}\n")
    make_run(agent.layout, hours - 400)
    agent.once()
    dry_run = agent.cli("prune", "--dry-run")
    assert ".fsagent/runs/" in dry_run.stdout
    assert "older than 8d (keep.runs.age)" in dry_run.stdout
    done = agent.cli("prune")
    assert "1 thing went: runs: 1" in done.stdout
    assert "more than 0 bytes (keep.journal.size): its newest three months stay. Raise the limit" in done.stdout
    assert json.loads(agent.cli("prune", "--dry-run", "--json").stdout) == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_disk_use_is_bounded_over_a_long_life(layout: Layout) -> None:
    """Half a year of a few commands and a task a day, with a pass a day: what lies there does not grow any more."""
    keep = ", ".join(f"{place}: {{age: 30d, size: 3MB}}" for place in ("runs", "archive", "failed", "outbox"))
    layout.settings.write_text(f"{QUICK}keep: {{unread: 10d, {keep}, journal: {{age: 30d, size: 1MB}}}}\n")
    (layout.tasks / "daily.md").write_text("---\nevery: 1d\n---\nLog the timestamp to log.txt")
    dice, sizes = random.Random(6), list[int]()
    clock = [START]
    os.utime(layout.marker, (START.timestamp(), START.timestamp()))
    daemon = Daemon(layout, now=lambda: clock[0])
    daemon.open()
    for day in range(160):
        clock[0] = START + day * DAY
        for number in range(dice.randrange(1, 6)):
            drop(
                layout,
                f"t{number}/{day}.md",
                dice.choice(["Log x to log.txt", "---\nretrys: 1\n---\n", "What is 2+3?"]),
            )
        daemon.wake("root")  # for the commands and the task
        daemon.wake("cancel")  # for the pass
        for _ in range(3):
            daemon.beat()
            assert daemon.drain()
        if day % 10 == 9:
            sizes.append(sum(p.lstat().st_blocks * 512 for p in layout.root.rglob("*") if p.name != "log.txt"))
    daemon.close()
    assert max(sizes[8:]) < 1.3 * max(sizes[4:8]), sizes
    assert events(layout, "removed")
    is_well(layout)
