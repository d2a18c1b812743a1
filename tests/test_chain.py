"""The journal's chain: what was altered, moved, added or taken away is named, and a crash is not mistaken for it."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.workspace.chain import HEAD
from fsagent.workspace.journal import Journal
from fsagent.workspace.journalcheck import Finding, check_journal
from harness import Agent, wait_for
from journals import read_records

NOW = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)


def write(folder: Path, count: int = 20, *, restart: int = -1, back: int = -1, sync: bool = True) -> None:
    """So many records, one a second over the end of a month. The daemon is restarted before one of them, the clock
    set back before another; without ``sync`` it does not end in order."""
    now = [NOW]
    journal = Journal(folder, lambda: now[0])
    for number in range(count):
        if number == restart:
            journal.close()
            journal = Journal(folder, lambda: now[0])
        if number == back:
            now[0] -= timedelta(seconds=12)
        journal.append("beat", text=f"é {number}", number=number)
        now[0] += timedelta(seconds=1)
    if sync:
        journal.close()


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def fault(folder: Path) -> tuple[str, int, str]:
    (found,) = check_journal(folder).findings
    return found.path.name, found.line, found.why


@pytest.mark.parametrize(("restart", "back"), [(-1, -1), (5, -1), (10, -1), (15, -1), (-1, 14), (14, 14), (16, 12)])
def test_a_chain_goes_on_over_restarts_months_and_a_clock_that_is_set_back(
    tmp_path: Path, restart: int, back: int
) -> None:
    write(tmp_path, restart=restart, back=back)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    found = check_journal(tmp_path)
    assert (found.records, found.torn, found.findings) == (20, 0, [])
    numbers = [record["seq"] for path in tmp_path.glob("*.jsonl") for _, record in read_records(path) if record]
    assert sorted(numbers) == list(range(1, 21))


Lines = list[bytes]
CHANGES: dict[str, tuple[Callable[[Lines], Lines], int, str]] = {
    "altered": (lambda x: [*x[:3], x[3].replace("é".encode(), b"e"), *x[4:]], 4, "was altered after it was written"),
    "its number altered": (
        lambda x: [*x[:3], x[3].replace(b'"seq":4', b'"seq":6'), *x[4:]], 4, "was altered after it was written",
    ),
    "one missing": (lambda x: x[:3] + x[4:], 4, "record 4 is missing before this record"),
    "some missing": (lambda x: x[:3] + x[7:], 4, "records 4 to 7 are missing before this record"),
    "the first missing": (lambda x: x[1:], 1, "record 1 is missing before this record"),
    "two exchanged": (lambda x: [*x[:3], x[4], x[3], *x[5:]], 4, "record 5 stands where record 4 belongs"),
    "moved up": (lambda x: [x[7], *x[:7], *x[8:]], 1, "record 8 stands where record 1 belongs"),
    "moved down": (lambda x: [x[0], *x[2:8], x[1], *x[8:]], 2, "record 3 stands where record 2 belongs"),
    "written twice": (lambda x: [*x[:3], x[2], *x[3:]], 4, "record 3 stands behind record 3"),
    "added": (lambda x: [*x[:3], b'{"event":"x"}\n', *x[3:]], 4, "is not part of the chain"),
    "damaged": (lambda x: [*x[:3], b'{"event":"x\n', *x[4:]], 4, "is damaged; record 4 is lost"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_the_first_record_that_is_not_as_it_was_written_is_named(tmp_path: Path, name: str) -> None:
    change, line, why = CHANGES[name]
    write(tmp_path)
    path = tmp_path / "2026-11.jsonl"
    path.write_bytes(b"".join(change(lines_of(path))))
    file, at, words = fault(tmp_path)
    assert (file, at) == ("2026-11.jsonl", line)
    assert why in words
    assert words.endswith("; up to there the journal is as the daemon wrote it")


def test_a_month_that_is_gone_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "2026-11.jsonl").unlink()
    assert fault(tmp_path)[:2] == ("2026-12.jsonl", 1)
    assert "records 1 to 10 are missing" in fault(tmp_path)[2]
    (tmp_path / "2026-12.jsonl").unlink()
    assert fault(tmp_path) == (HEAD, 0, "names record 20, and no month holds it")


def test_what_is_taken_from_the_end_shows_by_the_head_also_after_a_restart(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "2026-12.jsonl"
    path.write_bytes(b"".join(lines_of(path)[:-3]))
    assert fault(tmp_path) == ("2026-12.jsonl", 0, "ends with record 17; those up to 20 were taken away")
    journal = Journal(tmp_path, lambda: NOW + timedelta(days=1))
    journal.append("beat")
    journal.close()
    assert fault(tmp_path)[:2] == ("2026-12.jsonl", 8)
    assert "records 18 to 20 are missing" in fault(tmp_path)[2]


def test_a_journal_that_was_written_anew_shows_by_the_head(tmp_path: Path) -> None:
    write(tmp_path)
    head = (tmp_path / HEAD).read_bytes()
    for path in tmp_path.iterdir():
        path.unlink()
    write(tmp_path, back=3)
    (tmp_path / HEAD).write_bytes(head)
    assert "is not the record that the daemon wrote" in fault(tmp_path)[2]


def test_what_a_power_cut_takes_from_the_end_is_no_fault(tmp_path: Path) -> None:
    """The head never names what was not on the disk; without a sync it names nothing."""
    write(tmp_path, sync=False)
    path = tmp_path / "2026-12.jsonl"
    path.write_bytes(b"".join(lines_of(path)[:-3]) + b"\0" * 100)
    write(tmp_path, restart=3, back=7)
    found = check_journal(tmp_path)
    assert (found.findings, found.torn) == ([], 1)


@pytest.mark.parametrize("whole", [0, 1, 7])
def test_a_torn_record_is_no_fault_wherever_it_is_torn(tmp_path: Path, whole: int) -> None:
    """Also the very first of a month, and one that only misses its end: that one counts."""
    folder = tmp_path / "journal"
    folder.mkdir()
    write(folder, 8, sync=False)
    path = folder / "2026-11.jsonl"
    lines = lines_of(path)
    for cut in (*range(1, len(lines[whole]), 20), len(lines[whole]) - 2, len(lines[whole]) - 1):
        path.write_bytes(b"".join(lines[:whole]) + lines[whole][:cut])
        write(folder, 3, restart=1)
        found, is_whole = check_journal(folder), cut == len(lines[whole]) - 1
        assert (found.findings, found.torn) == ([], 0 if is_whole else 1), cut
        assert found.records == whole + 1 + 3
        (folder / HEAD).unlink()


def test_records_from_before_the_chain_are_accepted_where_they_come_before_it(tmp_path: Path) -> None:
    (tmp_path / "2026-10.jsonl").write_bytes(b'{"event":"a"}\n{"event":"b"}\n')
    (tmp_path / "2026-11.jsonl").write_bytes(b'{"event":"c"}\n{"event":"d')
    write(tmp_path)
    path = tmp_path / "2026-11.jsonl"
    assert check_journal(tmp_path).findings == [Finding(path, 2, "is no record (torn by a crash, or damaged)")], (
        "nothing tells whether a crash tore it"
    )
    path.write_bytes(path.read_bytes().replace(b'{"event":"d\n', b""))
    found = check_journal(tmp_path)
    assert (found.records, found.findings) == (23, [])
    (tmp_path / "2026-12.jsonl").write_bytes(b'{"event":"e"}\n' + (tmp_path / "2026-12.jsonl").read_bytes())
    assert fault(tmp_path)[:2] == ("2026-12.jsonl", 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["set", "cut", "drop"]), st.integers(-1, 19))
def test_any_change_of_a_byte_is_found_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, how: str, restart: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    write(folder, restart=restart)
    path = random.Random(at).choice(sorted(folder.glob("*.jsonl")))
    raw = path.read_bytes()
    at %= len(raw)
    changed = {"set": raw[:at] + bytes([byte]) + raw[at + 1 :], "cut": raw[:at], "drop": raw[:at] + raw[at + 1 :]}[how]
    if changed == raw or changed.replace(b"\n\n", b"\n") == raw or changed == raw[:-1]:
        return  # no record is changed
    path.write_bytes(changed)
    line = raw[:at].count(b"\n") + 1
    file, found, _ = fault(folder)
    if how == "cut" and raw[:at].endswith(b"\n"):
        assert found in (0, 1), "what is missing is missed where the chain goes on, or at the end"
    elif how == "cut" or file != path.name:
        assert found <= line
    else:
        split = byte == ord("\n")
        assert line <= found <= line + (line == 1 or split), "a first line may look like one from before the chain"


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: the write that does is cut short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("missing", [1, 2, 40, 90])
def test_a_write_that_the_disk_cuts_short_hurts_no_other_record(tmp_path: Path, missing: int) -> None:
    """What came through is cut off again, and its number used again."""
    journal, path = Journal(tmp_path, lambda: NOW), tmp_path / "2026-11.jsonl"
    sizes = []
    for event in ("first", "other"):
        journal.append(event)
        sizes.append(path.stat().st_size)
    with files_end_at(2 * sizes[1] - sizes[0] - missing), pytest.raises(OSError, match="File too large"):
        journal.append("later")
    journal.append("at last", durable=True)
    journal.append("and on")
    journal.close()
    found = check_journal(tmp_path)
    assert (found.findings, found.torn) == ([], 0)
    events = [record["event"] for _, record in read_records(path) if record]
    assert events == ["first", "other", "at last", "and on"]


def test_a_chain_holds_over_kills_of_whoever_writes_it(tmp_path: Path) -> None:
    code = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from fsagent.workspace.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), lambda: datetime(2026, 11, 30, tzinfo=UTC))\n"
        "while True:\n    journal.append('beat', text='x' * 5000, durable=True); print(flush=True)"
    )
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout
        for _ in range(20):
            process.stdout.readline()
        process.kill()
        process.stdout.close()
        process.wait()
    found = check_journal(tmp_path)
    assert found.findings == []
    assert found.records >= 80


def test_doctor_names_the_record_and_the_daemon_goes_on(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    for name in ("a.md", "b.md", "c.md"):
        agent.drop(name, f"Log {name} to log.txt")
        agent.once()
    done = agent.cli("doctor")
    assert done.returncode == 0, done.stdout
    (path,) = agent.layout.journal.glob("*.jsonl")
    lines = lines_of(path)
    (at,) = [number for number, line in enumerate(lines) if b'"finished"' in line and b"b.md" in line]
    path.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    done = agent.cli("doctor")
    assert done.returncode == 1
    assert f".fsagent/journal/{path.name}:{at + 1}: record {at + 1} is missing before this record" in done.stdout
    agent.drop("d.md", "Log d to log.txt")
    agent.once()
    assert agent.result("d.md")["status"] == "done"
    assert f":{at + 1}: record {at + 1} is missing" in agent.cli("doctor").stdout
    agent.start()
    os.truncate(path, 100)
    wait_for(lambda: agent.cli("doctor").returncode == 1, "a daemon that runs changes nothing about it")
    agent.close()
