"""Others write where the system tells only of our own writes: it is noticed, told, and looked at. Nothing else is
mistaken for it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsagent.watcher import ARRIVALS, Watcher
from harness import Agent, wait_for

SETTINGS = "settle: 0s\nsettle_renamed: 0s\nscan_interval: {}\n"


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder, and the one behind it: what is written there appears in the first, and no event tells of it."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for each in (lower, upper, work, merged):
        each.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "none", "-o", options, str(merged)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no overlay can be mounted here (root, and a disk that bears one): {mounted.stderr.strip()}")
    try:
        yield merged, upper
    finally:
        subprocess.run(["umount", "--lazy", str(merged)], check=True)


def words(agent: Agent) -> str:
    return " ".join(agent.status().split())


def test_a_mount_that_tells_only_of_our_own_writes_is_found_out(overlay: tuple[Path, Path]) -> None:
    """Its canary is heard and its type says nothing. Once found out, an hour between scans makes no difference."""
    agent = Agent(overlay[0] / "ws", SETTINGS.format("2s"))
    behind = overlay[1] / "ws"
    try:
        agent.start()
        wait_for(lambda: "Watching by events." in words(agent), "its own writes are told")
        (behind / "inbox" / "a.md").write_text("My name is Alice.")
        assert agent.result("a.md")["status"] == "done"
        wait_for(lambda: "(what others write there is not told)" in words(agent), "it is told")
        assert "Watching by looking every 1 s: everything (what others write there is not told)." in words(agent)
        agent.layout.settings.write_text(SETTINGS.format("1h"))
        for number in range(3):
            (behind / "inbox" / f"{number}.md").write_text("What is my name?")
            assert "Alice" in agent.result(f"{number}.md").content
        (behind / "tasks" / "t.md").write_text("---\nevery: 1h\n---\nMy name is Bob.\n")
        wait_for(lambda: "`t` every 1h" in words(agent), "a task that others write")
        (behind / "tasks" / "t.md").write_text("---\nevery: 2h\n---\nMy name is Carol.\n")
        wait_for(lambda: "`t` every 2h" in words(agent), "a task that others change")
        agent.layout.settings.write_text(SETTINGS.format("1h") + "watch: events\n")
        wait_for(lambda: "Watching by events." in words(agent), "the settings know better")
        assert agent.stop() == 0
    finally:
        agent.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, Watcher, threading.Event]]:
    place, heard = tmp_path / "place", threading.Event()
    place.mkdir()
    (place / "there-before.md").touch()
    watcher = Watcher({"place": (place, True, ARRIVALS)}, lambda _: heard.set(), canary=True)
    watcher.start()
    yield place, watcher, heard
    watcher.stop()


def is_sure(watcher: Watcher) -> bool:
    """Every canary was heard."""
    return watcher.listening() is None and not watcher.deaf()


def test_events_that_are_only_late_are_no_alarm(watched: tuple[Path, Watcher, threading.Event], tmp_path: Path) -> None:
    """Looked at in the very moment when it comes, whichever way: the event is still on its way; and what goes away is
    not told at all."""
    place, watcher, _ = watched
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(150):
        (place / f"{number}.md").touch()
        watcher.check()
        (outside / "moved.md").touch()
        os.rename(outside / "moved.md", place / f"moved-{number}.md")
        watcher.check()
        os.rename(place / f"{number}.md", outside / f"{number}.md")
        os.link(outside / f"{number}.md", place / f"linked-{number}.md")
        watcher.check()
        assert not watcher.misses()
    for number in range(20):
        (place / f"thread-{number}" / "deeper").mkdir(parents=True)
        (place / f"thread-{number}" / "deeper" / "a.md").touch()
        watcher.check()
        os.rename(place / f"thread-{number}", place / f"renamed-{number}")
        watcher.check()
        assert not watcher.misses()
    wait_for(lambda: is_sure(watcher), "all canaries are heard")
    watcher.check()
    assert not watcher.misses()
    assert not watcher.trouble


def test_what_comes_while_nothing_is_watched_is_no_alarm(watched: tuple[Path, Watcher, threading.Event]) -> None:
    place, watcher, _ = watched
    for number in range(20):
        shutil.rmtree(place)
        place.mkdir()
        for each in range(number):
            (place / f"{each}.md").touch()
        for _ in range(2):
            wait_for(lambda: watcher.check() or is_sure(watcher), "it is watched again, and no doubt is left")
        assert not watcher.misses()


def test_what_is_mounted_within_a_place_and_written_to_elsewhere_is_missed(
    watched: tuple[Path, Watcher, threading.Event], tmp_path: Path
) -> None:
    """The watch lies on the folder beneath the mount."""
    place, watcher, _ = watched
    outside, inside = tmp_path / "outside", place / "thread"
    outside.mkdir()
    inside.mkdir()
    watcher.check()
    if subprocess.run(["mount", "--bind", str(outside), str(inside)], capture_output=True).returncode:
        pytest.skip("mount(8) needs root")
    try:
        wait_for(lambda: is_sure(watcher), "it is watched")
        watcher.check()
        assert not watcher.misses()
        (outside / "a.md").touch()
        watcher.check()
        wait_for(lambda: watcher.misses() == {"place"}, "the canary is heard, and nothing of the file")
    finally:
        subprocess.run(["umount", str(inside)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_watching_begins_anew_where_the_thread_that_hears_has_ended(
    watched: tuple[Path, Watcher, threading.Event],
) -> None:
    """As by an error in a library: from the next look on, events come again."""
    place, watcher, heard = watched
    wait_for(lambda: is_sure(watcher), "it is watched")
    (hears,) = [thread for thread in threading.enumerate() if thread is watcher._observer._inotify_fd]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(hears.ident), ctypes.py_object(SystemExit))

    def ended() -> bool:
        (place / "x.md").touch()  # it has to wake up to end
        return not hears.is_alive()

    wait_for(ended, "the thread has ended")
    watcher.check()
    wait_for(lambda: is_sure(watcher), "it is watched again")
    heard.clear()
    (place / "y.md").touch()
    assert heard.wait(30)
    assert not watcher.misses()
