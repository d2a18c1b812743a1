"""The journal and the runs' own records: append-only, whole lines, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagent.workspace.journal import Journal, end_of, open_append, read_after
from journals import read_records

NOW = datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC)


def records(path: Path) -> list[dict[str, Any] | None]:
    return [record for _, record in read_records(path)]


def test_a_record_is_a_line_of_json_with_time_and_event(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    journal = Journal(tmp_path, lambda: NOW.astimezone(timezone(timedelta(hours=5))), seen.append)
    journal.append("started", run="r1", error="two\nlines ü", durable=True)
    journal.append("finished", run="r1")
    journal.close()
    lines = (tmp_path / "2026-11.jsonl").read_bytes().split(b"\n")
    assert len(lines) == 3
    first = json.loads(lines[0])
    place = {"seq": 1, "hash": first["hash"]}  # in the chain: tests/test_chain.py
    assert first == {"time": "2026-11-30T23:59:58Z", "event": "started", "run": "r1", "error": "two\nlines ü", **place}
    assert [each["event"] for each in seen] == ["started", "finished"]


def test_the_month_changes_the_file(tmp_path: Path) -> None:
    now = [NOW]
    journal = Journal(tmp_path, lambda: now[0])
    for number in range(6):
        journal.append("beat", number=number, durable=number % 2 == 0)
        now[0] += timedelta(seconds=1)
    journal.close()
    journal.append("after closing", number=6)
    journal.close()
    november, december = records(tmp_path / "2026-11.jsonl"), records(tmp_path / "2026-12.jsonl")
    assert [each and each["number"] for each in november] == [0, 1]
    assert [each and each["number"] for each in december] == [2, 3, 4, 5, 6]
    now[0] = NOW
    journal.append("the clock was set back", number=7)
    journal.close()
    assert len(records(tmp_path / "2026-11.jsonl")) == 3


def test_a_torn_last_line_is_told_and_hurts_no_other(tmp_path: Path) -> None:
    path = tmp_path / "2026-11.jsonl"
    whole = b'{"event": "a"}\n{"event": "b"}\n'
    path.write_bytes(whole + b'{"event": "c", "te')
    assert list(read_records(path)) == [(1, {"event": "a"}), (2, {"event": "b"}), (3, None)]
    journal = Journal(tmp_path, lambda: NOW)
    journal.append("d")
    journal.close()
    assert [each and each["event"] for each in records(path)] == ["a", "b", None, "d"]
    assert path.read_bytes().startswith(whole + b'{"event": "c", "te\n'), "nothing is taken away"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80))
def test_whatever_lies_in_the_file_a_new_record_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "x.jsonl"
    path.write_bytes((b'{"event": "a"}\n' + rest)[:cut])
    fd = open_append(path)
    os.write(fd, b'{"event": "new"}\n')
    os.close(fd)
    assert records(path)[-1] == {"event": "new"}


@pytest.mark.parametrize(
    "line", [b"[1]", b'"a"', b"null", b"1", b"{", b"\xff\xfe", b'{"event": "\xff"}', b"[" * 100_000]
)
def test_what_is_no_record_is_none(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"event": "a"}\n' + line + b'\n\n{"event": "b"}\n')
    assert list(read_records(path)) == [(1, {"event": "a"}), (2, None), (4, {"event": "b"})]


def test_threads_that_append_at_once_tear_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: NOW)

    def work(me: int) -> None:
        for number in range(100):
            journal.append("beat", me=me, number=number, text="x" * (number * 40), durable=number % 20 == 0)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = records(tmp_path / "2026-11.jsonl")
    assert None not in found
    for me in range(8):
        assert [each["number"] for each in found if each and each["me"] == me] == list(range(100)), "in order"


def test_threads_may_append_while_the_month_changes(tmp_path: Path) -> None:
    moments = iter(NOW + timedelta(seconds=1.5) * (n % 3) for n in range(100_000))  # back and forth: a change each time
    lock = threading.Lock()

    def now() -> datetime:
        with lock:
            return next(moments)

    journal, failed = Journal(tmp_path, now), list[BaseException]()

    def work(me: int) -> None:
        try:
            for number in range(200):
                journal.append("beat", me=me, number=number, durable=number % 3 == 0)
        except BaseException as error:  # noqa: BLE001  # told in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert not failed
    found = records(tmp_path / "2026-11.jsonl") + records(tmp_path / "2026-12.jsonl")
    assert None not in found
    assert len(found) == 800


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        "from fsagent.workspace.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), lambda: datetime(2026, 11, 30, tzinfo=UTC))\n"
        "n = 0\nwhile True:\n    journal.append('beat', n=n, text='x' * 500); print(n, flush=True); n += 1"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    last = -1
    for line in process.stdout:
        last = int(line)
        if last == 200:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    last = max([last, *(int(line) for line in rest if line.isdigit())][:-1] or [last])
    numbers = [each["n"] for each in records(tmp_path / "2026-11.jsonl") if each]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > last, "all that append returned for is there"


# Reading on from a position


def lines_after(folder: Path, position: str, most: int = 1000) -> list[bytes]:
    return [entry.line for entry in read_after(folder, position, most)]


def test_reading_goes_on_where_it_ended_across_months(tmp_path: Path) -> None:
    assert end_of(tmp_path) == "0000-00:0"
    assert read_after(tmp_path, end_of(tmp_path)) == []
    now = [NOW]
    journal = Journal(tmp_path, lambda: now[0])
    start, seen, position = end_of(tmp_path), list[bytes](), "0000-00:0"
    for number in range(6):
        journal.append("beat", number=number)
        now[0] += timedelta(seconds=1)
        (entry,) = read_after(tmp_path, position)
        assert entry.position == end_of(tmp_path)
        position = entry.position
        seen.append(entry.line)
    journal.close()
    assert [json.loads(line)["number"] for line in seen] == list(range(6))
    assert lines_after(tmp_path, start) == seen
    assert position.startswith("2026-12:")
    (tmp_path / "2026-11.jsonl").unlink()
    assert lines_after(tmp_path, "2026-11:90") == seen[2:], "what is gone is passed over"
    assert lines_after(tmp_path, "2026-10:999") == seen[2:]
    assert read_after(tmp_path, "2027-01:0") == []


@pytest.mark.parametrize("size", [1, 100, 200_000])
def test_the_end_lies_behind_the_last_whole_record(tmp_path: Path, size: int) -> None:
    path = tmp_path / "2026-11.jsonl"
    torn = b'{"event": "' + b"c" * size
    path.write_bytes(torn)
    assert end_of(tmp_path) == "2026-11:0"
    path.write_bytes(b'{"event": "a"}\n' + torn)
    assert (end := end_of(tmp_path)) == "2026-11:15"
    assert read_after(tmp_path, end) == []
    path.write_bytes(path.read_bytes() + b'"}\n')
    assert [entry.position for entry in read_after(tmp_path, end)] == [f"2026-11:{path.stat().st_size}"]


def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "2026-11.jsonl").write_bytes(b'{"a": 1}\n\n{"torn\n[1]\n\xff\n{"b": 2}\n{"torn')
    (tmp_path / "2026-12.jsonl").write_bytes(b'{"c": 3}\n')
    for name in ("notes.txt", "2026-11.jsonl.bak", "20261-1.jsonl.x"):
        (tmp_path / name).write_bytes(b'{"d": 4}\n')
    assert lines_after(tmp_path, "0000-00:0") == [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']


def test_a_position_that_is_not_ours_begins_with_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "2026-11.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c": 3}\n')
    for at in range(28):
        assert lines_after(tmp_path, f"2026-11:{at}") == [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}'][(at + 8) // 9 :]
    whole = lines_after(tmp_path, "2026-11:0")
    assert lines_after(tmp_path, "2026-11:28") == whole, "the file became shorter"
    assert lines_after(tmp_path, f"2026-11:{10**17}") == whole


@pytest.mark.parametrize(
    "text", ["", "x", "2026-11", "2026-11:", "2026-11:-1", "2026-11:1 ", "2026-11:1\n", "2026-11:" + "9" * 19,
             "٢٠٢٦-١١:١", "../../x:1", "2026-11:1.5", "a2026-11:1"],
)  # fmt: skip
def test_what_is_no_position_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="is no position in the journal"):
        read_after(tmp_path, text)


_RECORDS = st.lists(st.tuples(st.integers(1, 3), st.text(max_size=20), st.sampled_from(["", "", "torn", "blank"])))


@settings(max_examples=60, deadline=None)
@given(_RECORDS, st.lists(st.integers(1, 4), min_size=1), st.data())
def test_reading_in_any_pieces_gives_every_record_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[int, str, str]],
    pieces: list[int],
    data: st.DataObject,
) -> None:
    """While it is being written, in bytes of any number, with torn and empty lines between."""
    folder = tmp_path_factory.mktemp("journal")
    wanted, seen, position = list[int](), list[int](), end_of(folder)
    for number, (month, text, strange) in enumerate(sorted(written, key=lambda each: each[0])):
        line = json.dumps({"number": number, "text": text}).encode() + b"\n"
        line += {"": b"", "torn": b'{"torn\n', "blank": b"\n"}[strange]
        wanted.append(number)
        cut = data.draw(st.integers(0, len(line)))
        with (folder / f"2026-{month:02}.jsonl").open("ab", buffering=0) as file:
            for part in (line[:cut], line[cut:]):
                file.write(part)
                for entry in read_after(folder, position, data.draw(st.sampled_from(pieces))):
                    position = entry.position
                    seen.append(json.loads(entry.line)["number"])
    while entries := read_after(folder, position, pieces[0]):
        assert len(entries) <= pieces[0]
        position = entries[-1].position
        seen += [json.loads(entry.line)["number"] for entry in entries]
    assert seen == wanted
