"""Hostile files in inbox/, tasks/, approvals/ and the root: nothing leads out, nothing hangs, each has its answer."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsagent.printable import harmless
from harness import Agent, wait_for

SECRET = "Remember that the outside secret is 4711"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside the workspace, with what nobody in it may see, change or take away."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.md").write_text(SECRET)
    (folder / "folder").mkdir()
    (folder / "folder" / "inner.md").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    settings = "settle: 0s\nsettle_renamed: 0s\nscan_interval: 200ms\n"
    agent = Agent(tmp_path_factory.mktemp("hostile") / "ws", settings).start()
    yield agent
    agent.close()


def unix_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # for a socket's path may have 107 bytes at the most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o20644, os.makedev(1, 5))  # /dev/zero: it never ends
    except PermissionError:
        pytest.skip("no right to make devices")


def giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, outside: path.symlink_to(outside / "secret.md"),
    "dangling": lambda path, outside: path.symlink_to(outside / "nothing.md"),
    "circle": lambda path, outside: path.symlink_to(path),
    "endless": lambda path, outside: path.symlink_to("/dev/zero"),
    "folder": lambda path, outside: path.symlink_to(outside / "folder"),
    "fifo": lambda path, outside: os.mkfifo(path),
    "socket": lambda path, outside: unix_socket(path),
    "device": lambda path, outside: device(path),
    "giant": lambda path, outside: giant(path),
}


def unmoved(outside: Path) -> bool:
    """True if the folder beside the workspace is as it was."""
    names = sorted(str(path.relative_to(outside)) for path in outside.rglob("*"))
    texts = {(outside / name).read_text() for name in names if name.endswith(".md")}
    return names == ["folder", "folder/inner.md", "secret.md"] and texts == {SECRET}


def still_works(agent: Agent, name: str) -> None:
    """The next honest command runs, and nobody knows the secret."""
    agent.drop(f"honest-{name}.md", "What do you remember?")
    result = agent.result(f"honest-{name}.md")
    assert result["status"] == "done"
    assert "4711" not in result.content


def needs(agent: Agent) -> str:
    """What the status tells a person to look at."""
    return agent.status().partition("## Needs you")[2].partition("\n## ")[0]


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_file_is_told_in_every_place(agent: Agent, outside: Path, kind: str) -> None:
    make, name = MAKERS[kind], f"evil-{kind}.md"
    places = [agent.layout.inbox, agent.layout.tasks, agent.layout.approvals]
    for place in places:
        make(place / name, outside)
    agent.drop(f"with-{kind}.md", f"---\nattachments: [{kind}.bin]\n---\nWhat do you remember?")
    make(agent.layout.inbox / f"{kind}.bin", outside)
    try:
        for place in places:
            told = f"{place.name}/{name}" if place.name != "inbox" else name
            if kind == "giant" and place.name == "inbox":
                answer = agent.result(name)
                assert (answer["status"], "larger than 1024 KiB" in answer.content) == ("refused", True)
            elif not (kind == "folder" and place.name == "approvals"):
                wait_for(lambda told=told: told in agent.status(), f"the status tells of {told}: {agent.status()}")
        still_works(agent, kind)
        assert unmoved(outside)
    finally:
        for place in places:
            (place / name).unlink(missing_ok=True)
        (agent.layout.inbox / f"{kind}.bin").unlink(missing_ok=True)
    wait_for(lambda: f"tasks/{name}" not in agent.status(), "what is gone is not told any more")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("place", ["soul.md", "fsagent.yaml"])
def test_the_files_in_the_root_are_read_only_where_they_are_files(
    agent: Agent, outside: Path, place: str, kind: str
) -> None:
    path = agent.root / place
    honest = path.read_bytes()
    path.unlink()
    MAKERS[kind](path, outside)
    try:
        wait_for(lambda: place in needs(agent), f"the status tells of {place}")
        still_works(agent, f"{place}-{kind}")
        agent.drop(f"fact-{place}-{kind}.md", "Remember that the hat is green")
        assert agent.result(f"fact-{place}-{kind}.md")["status"] == ("failed" if place == "soul.md" else "done")
        assert unmoved(outside)
    finally:
        path.unlink()
        path.write_bytes(honest)
    wait_for(lambda: place not in needs(agent), "it is well again")


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "giant"])
def test_stop_stops_whatever_it_is(agent: Agent, outside: Path, kind: str) -> None:
    MAKERS[kind](agent.layout.stop, outside)
    try:
        wait_for(lambda: "**Paused**" in agent.status(), "it pauses")
    finally:
        agent.layout.stop.unlink()
    wait_for(lambda: "**Alive**" in agent.status(), "it goes on")
    assert unmoved(outside)


def test_a_hard_link_gives_nothing_that_is_outside_away(agent: Agent, outside: Path) -> None:
    os.link(outside / "secret.md", agent.layout.tasks / "hard.md")
    os.link(outside / "secret.md", agent.layout.approvals / "hard.md")
    try:
        wait_for(lambda: "tasks/hard.md: has a second name" in agent.status(), "the task is refused")
        wait_for(lambda: "approvals/hard.md has a second name" in agent.status(), "the answer is refused")
    finally:
        (agent.layout.tasks / "hard.md").unlink()
        (agent.layout.approvals / "hard.md").unlink()
    still_works(agent, "hard")
    assert unmoved(outside)


def test_a_backup_that_links_all_files_breaks_no_task(agent: Agent, tmp_path: Path) -> None:
    """``cp -al`` of the folder: the daemon knew the files when they had one name; another file in their place not."""
    task, words = agent.layout.tasks / "kept.md", "---\nevery: 1h\n---\nLog {} to kept.txt"
    task.write_text(words.format("one"))
    backup, other = tmp_path / "backup", tmp_path / "other.md"
    other.write_text(words.format("outside"))
    try:
        wait_for(lambda: "`kept` every 1h" in agent.status(), "it is known")
        subprocess.run(["cp", "-al", agent.layout.tasks, backup], check=True)
        task.write_text("---\nevery: 2h\n---\nLog two to kept.txt")  # in its place, as some editors do
        wait_for(lambda: "`kept` every 2h" in agent.status(), "it is read")
        assert "second name" not in agent.status()
        task.write_text("")
        wait_for(lambda: "`kept` every" not in agent.status(), "it is none while it is empty")
        task.write_text(words.format("three"))
        wait_for(lambda: "`kept` every 1h" in agent.status(), "it is the same file all the time")
        task.unlink()
        os.link(other, task)
        wait_for(lambda: "tasks/kept.md: has a second name" in agent.status(), "another file is not")
    finally:
        task.unlink()
    still_works(agent, "linked")


NAMES = {
    "newline": b"two\nlines.md",
    "carriage": b"re\rturn.md",
    "escape": b"red\x1b[31m\x1b]0;title\x07.md",
    "rtl": "evil\u202edm.exe.md".encode(),
    "bytes": b"no\xff\xfeutf8.md",
    "long": b"n" * 252 + b".md",
    "long letters": "ü".encode() * 126 + b".md",
    "backtick": b"a`b ![x](y) <b>.md",
    "windows": b"a:b*c?\"<>|.md",
    "reserved": b"CON.md",
    "spaces": b" lead and trail .md",
    "dash": b"-rf.md",
    "upper": b"Twin.md",
    "lower": b"twin.md",
    "zero width": "a\u200bb\ufeff.md".encode(),
    "decomposed": "u\u0308.md".encode(),
    "composed": "ü.md".encode(),
}  # fmt: skip


def test_a_name_of_any_bytes_gets_its_answer_and_steers_nothing(agent: Agent) -> None:
    before = len(agent.results())
    folder = os.fsencode(agent.layout.inbox)
    for number, name in enumerate(NAMES.values()):
        with open(folder + b"/.new", "wb") as file:
            file.write(f"Remember that name {number} is told".encode())
        os.rename(folder + b"/.new", folder + b"/" + name)
    wait_for(lambda: len(agent.results()) >= before + len(NAMES), "each has its answer")
    text = agent.layout.soul.read_text()
    assert all(f"ame {number} is told" in text for number in range(len(NAMES)))
    still_works(agent, "names")
    wait_for(lambda: "honest-names.md" in agent.status(), "the status is of now")
    said = [agent.status(), agent.output(), agent.cli("status").stdout, agent.cli("runs").stdout]
    for each in said:
        assert harmless(each) == each, each
    for line in b"".join(path.read_bytes() for path in agent.layout.journal.glob("*.jsonl")).splitlines():
        assert b"\x1b" not in line


def test_ten_thousand_folders_deep(agent: Agent, outside: Path) -> None:
    """Deeper than any path can be: made by going down step by step."""
    places = (agent.layout.inbox, agent.layout.tasks)
    try:
        for place in places:
            fd = os.open(place, os.O_RDONLY)
            for _ in range(10_000):
                os.mkdir("d", dir_fd=fd)
                down = os.open("d", os.O_RDONLY, dir_fd=fd)
                os.close(fd)
                fd = down
            os.close(fd)
        wait_for(lambda: "folders deep" in agent.status(), "it is told")
        still_works(agent, "deep")
        assert agent.stop() == 0
        agent.start()  # with all of them there
        still_works(agent, "deeper")
    finally:  # not even pytest could remove them
        subprocess.run(["rm", "-rf", *(place / "d" for place in places)], check=True)
    wait_for(lambda: "folders deep" not in agent.status(), "it is well again")


def test_a_file_that_turns_into_a_link_and_back_never_leads_out(agent: Agent, outside: Path) -> None:
    """Swapped some hundred times, in a race with scans: the secret is never read, and the daemon lives."""
    task, command = agent.layout.tasks / "flip.md", agent.layout.inbox / "flip.md"
    for _ in range(150):
        for path in (task, command):
            fresh = path.with_name(".flip")
            fresh.write_text("---\nenabled: false\n---\nWhat do you remember?")
            os.replace(fresh, path)
            fresh.symlink_to(outside / "secret.md")
            os.replace(fresh, path)
    for path in (task, command):
        path.unlink(missing_ok=True)
    still_works(agent, "flip")
    assert unmoved(outside)
    assert not [path for path in agent.layout.runs.rglob("*.md") if path.is_symlink() or "4711" in path.read_text()]
