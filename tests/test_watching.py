"""Changes are noticed whatever becomes of the watched folders: by events, and by looking where none come."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsagent.files.atomic import swap
from fsagent.files.mounts import is_far, kind_of
from fsagent.watcher import CHANGES, Watcher
from harness import Agent, wait_for

SETTINGS = "settle: 0s\nsettle_renamed: 0s\nscan_interval: 1h\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", SETTINGS)
    yield agent
    agent.close()


def answers(agent: Agent, name: str) -> None:
    agent.drop(name, "My name is Alice.")
    assert agent.result(name)["status"] == "done"


def says(agent: Agent, words: str) -> None:
    status = agent.layout.status
    wait_for(lambda: status.exists() and words in " ".join(status.read_text().split()), words)


def test_an_inbox_that_is_removed_or_moved_away_is_watched_again_without_a_scan(agent: Agent) -> None:
    """With scans once an hour, only events can tell."""
    inbox = agent.layout.inbox
    agent.start()
    answers(agent, "a.md")
    says(agent, "Watching by events.")
    for number in range(3):  # often under the same inode number
        shutil.rmtree(inbox)
        wait_for(inbox.is_dir, "the daemon makes it again")
        answers(agent, f"removed-{number}.md")
    inbox.rename(agent.root / "old")
    wait_for(inbox.is_dir, "the daemon makes it again")
    answers(agent, "moved.md")
    assert agent.stop() == 0


def test_a_workspace_that_is_moved_away_and_back_goes_on(agent: Agent) -> None:
    """As when a disk is unmounted for a while: nothing is made in its place, nothing that came meanwhile is lost."""
    agent.layout.settings.write_text(SETTINGS.replace("1h", "1s"))
    agent.start()
    answers(agent, "a.md")
    away = agent.root.with_name("away")
    agent.root.rename(away)
    wait_for(lambda: "trouble" in agent.output(), "the daemon tells")
    assert not agent.root.exists()
    (away / "inbox" / "b.md").write_text("What is my name?")
    away.rename(agent.root)
    assert "Alice" in agent.result("b.md").content
    answers(agent, "c.md")
    assert agent.stop() == 0


def test_nothing_is_made_in_a_folder_that_takes_the_place_of_the_workspace(agent: Agent) -> None:
    """As the empty folder that a disk leaves behind when it is unmounted. Files there are nobody's commands."""
    agent.layout.settings.write_text(SETTINGS.replace("1h", "1s"))
    other = agent.root.with_name("other")
    (other / "inbox").mkdir(parents=True)
    (other / "inbox" / "n.md").write_text("My name is Mallory.")
    agent.start()
    answers(agent, "a.md")
    if not swap(other, agent.root):
        pytest.skip("this file system exchanges no names")
    wait_for(lambda: "No such file" in agent.output() or "cannot be used" in agent.output(), "the daemon tells")
    wait_for(lambda: "settings read" in agent.output(), "it has looked: there are none")
    (other / "inbox" / "b.md").write_text("What is my name?")
    assert swap(other, agent.root)
    assert "Alice" in agent.result("b.md").content
    answers(agent, "c.md")
    assert {*os.listdir(other)} - {"status.md"} == {"inbox"}, "but for what was under way in that very moment"
    assert agent.files(other / "inbox") == ["n.md"]
    wait_for(lambda: len(agent.files(agent.layout.archive)) == 3, "all of them are settled")
    assert agent.stop() == 0


def test_a_workspace_behind_a_link_is_the_folder_that_it_led_to(agent: Agent) -> None:
    """A daemon stays with its folder: what another one is given it does not touch, and nothing of its own is lost."""
    other = Agent(agent.root.with_name("other"), SETTINGS)
    link = agent.root.with_name("link")
    link.symlink_to(agent.root)
    real, agent.root = agent.root, link
    agent.start()
    answers(agent, "a.md")
    link.unlink()
    link.symlink_to(other.root)
    other.drop("theirs.md", "My name is Mallory.")
    answers(agent, "b.md")
    assert str(real) in agent.output()
    assert other.files(other.layout.inbox) == ["theirs.md"]
    assert agent.stop() == 0


def test_tasks_that_are_removed_or_replaced_by_a_link_are_known_without_a_scan(agent: Agent) -> None:
    tasks, elsewhere = agent.layout.tasks, agent.root.with_name("elsewhere")
    agent.start()
    says(agent, "Watching by events.")
    for number in range(2):
        shutil.rmtree(tasks)
        wait_for(tasks.is_dir, "the daemon makes it again")
        (tasks / "t.md").write_text(f"---\nevery: {number + 1}h\n---\nMy name is Bob.\n")
        says(agent, f"`t` every {number + 1}h")
    elsewhere.mkdir()
    (elsewhere / "linked.md").write_text("---\nevery: 1h\n---\nMy name is Carol.\n")
    link = agent.root / "link"
    link.symlink_to(elsewhere)
    if not swap(link, tasks):
        pytest.skip("this file system exchanges no names")
    says(agent, "`linked` every 1h")
    assert "`t` every" not in agent.status()
    (elsewhere / "linked.md").write_text("---\nevery: 2h\n---\nMy name is Carol.\n")
    says(agent, "`linked` every 2h")
    assert agent.stop() == 0


def test_an_inbox_that_is_replaced_by_a_link_is_watched_where_it_leads(agent: Agent) -> None:
    agent.start()
    answers(agent, "a.md")
    elsewhere, link = agent.root / "elsewhere", agent.root / "link"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    if not swap(link, agent.layout.inbox):
        pytest.skip("this file system exchanges no names")
    answers(agent, "b.md")
    assert agent.stop() == 0


def test_polling_sees_commands_tasks_and_stop_and_says_so(agent: Agent) -> None:
    agent.layout.settings.write_text(SETTINGS + "watch: poll\n")
    agent.start()
    says(agent, "Watching by looking every 1 s: everything (as the settings say).")
    answers(agent, "a.md")
    (agent.layout.tasks / "t.md").write_text("---\nevery: 1s\n---\nMy name is Bob.\n")
    says(agent, "`t` every 1s")
    agent.layout.stop.touch()
    says(agent, "**Paused**")
    agent.layout.settings.write_text(SETTINGS)
    says(agent, "Watching by events.")
    agent.layout.stop.unlink()
    answers(agent, "b.md")
    assert agent.stop() == 0


@pytest.fixture
def limited(agent: Agent) -> Callable[[str, int], None]:
    """Start the agent with a limit of inotify's in force; called again, set another limit on it while it runs."""

    def limit(name: str, most: int) -> None:
        path = f"/proc/sys/user/max_inotify_{name}"
        if agent.process:
            change = ["nsenter", "--user", "--target", str(agent.process.pid)]
            subprocess.run([*change, "sh", "-c", f"echo {most} > {path}"], check=True)
            return
        few = ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo {most} > {path} && exec "$@"', "sh"]
        if subprocess.run([*few, "true"], capture_output=True).returncode:
            pytest.skip("no user namespaces here")
        agent.start(few)

    return limit


def test_too_few_watches_are_told_and_subfolders_are_looked_at(
    agent: Agent, limited: Callable[[str, int], None]
) -> None:
    for number in range(12):
        (agent.layout.inbox / f"thread-{number}").mkdir()
    limited("watches", 9)
    says(agent, "too few inotify watches")
    says(agent, "by looking every 1 s")
    for number in range(12):
        agent.drop(f"thread-{number}/a.md", "My name is Alice.")
    for number in range(12):
        assert agent.result(f"thread-{number}/a.md")["status"] == "done"
    limited("watches", 100)
    says(agent, "Watching by events.")
    assert "too few inotify watches" not in agent.status()
    answers(agent, "thread-11/b.md")
    assert agent.stop() == 0


def test_no_instance_of_inotify_is_told_and_everything_is_looked_at(
    agent: Agent, limited: Callable[[str, int], None]
) -> None:
    """As on a machine where editors and desktops have used them up, until one of them gives one back."""
    limited("instances", 0)
    says(agent, "by looking every 1 s: everything (not watched: Too many open files")
    answers(agent, "a.md")
    (agent.layout.tasks / "t.md").write_text("---\nevery: 1h\n---\nMy name is Bob.\n")
    says(agent, "`t` every 1h")
    limited("instances", 10)
    says(agent, "Watching by events.")
    answers(agent, "b.md")
    assert agent.stop() == 0


def test_folders_that_are_very_deep_or_moved_about_end_no_watching(agent: Agent) -> None:
    """watchdog goes down by calling itself, and its thread would end a thousand folders below."""
    outside = agent.root.with_name("outside")
    outside.mkdir()
    agent.start()
    says(agent, "Watching by events.")
    try:
        for place, name in ((agent.layout.inbox, "made"), (outside, "moved")):
            (place / name).mkdir()
            fd = os.open(place / name, os.O_RDONLY)
            for _ in range(1500):
                os.mkdir("d", dir_fd=fd)
                down = os.open("d", os.O_RDONLY, dir_fd=fd)
                os.close(fd)
                fd = down
            os.close(fd)
        os.rename(outside / "moved", agent.layout.inbox / "moved")
        answers(agent, "a.md")
        answers(agent, "thread/b.md")
        os.rename(agent.layout.inbox / "thread", agent.layout.inbox / "other")
        answers(agent, "other/c.md")
        answers(agent, "thread/d.md")
        assert "Warning" not in agent.output()
        assert "Error" not in agent.output()
        assert agent.stop() == 0
    finally:  # not even pytest could remove them
        subprocess.run(["rm", "-rf", str(outside), *map(str, agent.layout.inbox.iterdir())], check=True)


def test_an_inbox_on_a_mount_of_its_own_comes_and_goes(agent: Agent) -> None:
    inbox = agent.layout.inbox
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(inbox)], capture_output=True).returncode:
        pytest.skip("mount(8) needs root")
    try:
        agent.layout.settings.write_text(SETTINGS.replace("1h", "1s"))
        assert kind_of(inbox) == "tmpfs"
        agent.start()
        says(agent, "Watching by events.")
        subprocess.run(["umount", str(inbox)], check=True)
        answers(agent, "below.md")
    finally:
        subprocess.run(["umount", str(inbox)], capture_output=True)
    assert agent.stop() == 0


def test_what_is_moved_out_of_a_watched_place_holds_nothing_back(tmp_path: Path) -> None:
    """watchdog waits half a second behind each move away; five moves would take more than two."""
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    heard = threading.Event()
    watcher = Watcher({"place": (place, True, CHANGES)}, lambda _: heard.set(), canary=True)
    watcher.start()
    try:
        wait_for(lambda: watcher.listening() is None and not watcher.deaf(), "the canary is heard")
        emitter = next(iter(watcher._observer.emitters))
        assert emitter._inotify._move_event_grouper._queue.delay < 0.05
        best = 9.0
        for number in range(5):
            (place / f"{number}.md").touch()
            began = time.monotonic()
            os.rename(place / f"{number}.md", outside / f"{number}.md")
            heard.clear()
            (place / f"next-{number}.md").touch()
            assert heard.wait(30)
            best = min(best, time.monotonic() - began)
        assert best < 0.4
    finally:
        watcher.stop()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", "fuse.grpcfuse", "fakeowner"])
def test_kinds_of_mounts_on_which_others_write_unheard(kind: str) -> None:
    assert is_far(kind)
    assert not any(map(is_far, ("ext4", "btrfs", "overlay", "tmpfs", "xfs", "fuseblk", "")))
