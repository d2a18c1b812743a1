"""A person's whole new text for soul.md: written only where it takes the place of the text that they saw."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fsagent.errors import DocumentError, StaleError
from fsagent.workspace.soul import Soul, tag
from harness import Agent, wait_for


@pytest.fixture
def soul(tmp_path: Path) -> Soul:
    return Soul(tmp_path / "soul.md", tmp_path / "soul.lock")


def test_a_text_takes_the_place_of_the_one_that_was_seen(soul: Soul, tmp_path: Path) -> None:
    assert soul.tagged() == (b"", "")
    first = soul.replace(b"- one\n", "")
    assert soul.tagged() == (b"- one\n", first)
    (tmp_path / "soul.md").chmod(0o640)
    second = soul.replace(b"\xef\xbb\xbf- zw\xc3\xb6lf\r\n", first)
    assert second == tag(b"\xef\xbb\xbf- zw\xc3\xb6lf\r\n") != first
    assert (tmp_path / "soul.md").read_bytes() == b"\xef\xbb\xbf- zw\xc3\xb6lf\r\n"
    assert (tmp_path / "soul.md").stat().st_mode & 0o777 == 0o640
    assert soul.replace(b"", second) == ""
    assert soul.tagged() == (b"", "")
    assert soul.replace(b"- one\n", "") == first, "the same text has the same tag"


@pytest.mark.parametrize("expected", ["", "0" * 32, "nonsense", "*"])
def test_a_text_that_was_changed_meanwhile_is_not_overwritten(soul: Soul, expected: str) -> None:
    soul.replace(b"- one\n", "")
    with pytest.raises(StaleError, match="nothing was written") as error:
        soul.replace(b"- two\n", expected)
    assert (error.value.current, error.value.tag) == (b"- one\n", tag(b"- one\n"))
    assert soul.tagged()[0] == b"- one\n"


def test_a_text_that_is_gone_is_not_made_again_by_one_who_saw_it(soul: Soul, tmp_path: Path) -> None:
    seen = soul.replace(b"- one\n", "")
    (tmp_path / "soul.md").unlink()
    with pytest.raises(StaleError) as error:
        soul.replace(b"- two\n", seen)
    assert (error.value.current, error.value.tag) == (b"", "")
    assert not (tmp_path / "soul.md").exists()


@pytest.mark.parametrize("raw", [b"caf\xe9", b"\xff\xfe\x00", b"x" * (1024 * 1024 + 1)])
def test_what_is_no_text_is_refused(soul: Soul, raw: bytes) -> None:
    seen = soul.replace(b"- one\n", "")
    with pytest.raises(DocumentError, match=r"soul\.md"):
        soul.replace(raw, seen)
    assert soul.tagged()[0] == b"- one\n"


def test_of_many_with_the_same_tag_exactly_one_wins(soul: Soul, tmp_path: Path) -> None:
    seen = soul.replace(b"- one\n", "")

    def write(number: int) -> str:
        try:
            return Soul(tmp_path / "soul.md", tmp_path / "soul.lock").replace(b"- %d\n" % number, seen)
        except StaleError as error:
            return "" if tag(error.current) == error.tag else "nothing of the kind"

    with ThreadPoolExecutor(8) as pool:
        won = [each for each in pool.map(write, range(16)) if each]
    assert won == [soul.tagged()[1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["soul.lock", "soul.md"]


_WRITER = """
import sys
from pathlib import Path
from fsagent.errors import StaleError
from fsagent.workspace.soul import Soul

soul = Soul(Path(sys.argv[1]), Path(sys.argv[2]))
for number in range(60):
    raw, tag = soul.tagged()
    while True:
        try:
            soul.replace(raw + b"- the person's line %d\\n" % number, tag)
            break
        except StaleError as error:
            raw, tag = error.current, error.tag
"""


def test_no_confirmed_fact_is_lost_while_a_person_writes(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n").start()
    try:
        layout = agent.layout
        command = [sys.executable, "-c", _WRITER, str(layout.soul), str(layout.locks / "soul.lock")]
        person = subprocess.Popen(command)
        for number in range(60):
            agent.drop(f"{number}.md", f"Remember that box {number} is red")
        assert person.wait(40) == 0
        wait_for(lambda: len(agent.files(layout.outbox)) == 60, "all is confirmed")
        assert {result["status"] for result in agent.results()} == {"done"}
        text = layout.soul.read_text()
        for number in range(60):
            assert f"ox {number} is red" in text
            assert text.count(f"- the person's line {number}\n") == 1
    finally:
        agent.close()
