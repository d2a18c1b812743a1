"""The mission's own proofs and the README's promises, with a real daemon process on a real folder."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fsagent.daemon import Daemon
from fsagent.workspace.create import init_workspace
from fsagent.workspace.index import Index
from harness import FSAGENT, Agent, wait_for

FAST = "settle: 300ms\nsettle_renamed: 100ms\n"
TIMESTAMP = "Log the timestamp to log.txt every heartbeat\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", FAST, fork=False)
    yield agent
    agent.close()


# 1. Persistence


def test_a_name_survives_a_kill(agent: Agent) -> None:
    agent.start()
    agent.drop("1.md", "My name is Alice.")
    assert agent.result("1.md")["status"] == "done"
    agent.kill()
    agent.start()
    agent.drop("2.md", "What is my name?")
    assert "Alice" in agent.result("2.md").content


def test_a_kill_between_claim_and_result_loses_and_doubles_nothing(agent: Agent) -> None:
    """The run is held open by a playbook's slow program, and the daemon killed while it runs."""
    agent.layout.settings.write_text(FAST + "tools: {shell: allow}\nshutdown_wait: 1s\n")
    agent.start()
    agent.drop("1.md", "---\nsteps:\n  - remember: My name is Alice.\n  - shell: sleep 30\n  - read: log.txt\n---\n")
    steps = wait_for(lambda: list(agent.layout.runs.glob("*/steps.jsonl")), "it is claimed")[0]
    wait_for(lambda: '"event":"call","call":0,"tool":"shell"' in steps.read_text(), "the program is about to run")
    assert "Alice" in agent.layout.soul.read_text()
    assert not (agent.layout.inbox / "1.md").exists()
    agent.kill()
    agent.start()
    result = agent.result("1.md")
    assert result["status"] == "interrupted"
    assert "sleep" in result["error"]
    assert agent.layout.soul.read_text().count("Alice") == 1
    wait_for(lambda: agent.files(agent.layout.failed) == ["1.md"], "it is settled")
    assert not agent.files(agent.layout.inbox)
    agent.drop("2.md", "What is my name?")
    assert "Alice" in agent.result("2.md").content


def test_a_fact_edited_by_hand_is_what_is_answered(agent: Agent) -> None:
    agent.start()
    agent.drop("1.md", "My name is Alice.")
    agent.result("1.md")
    agent.kill()
    before = agent.layout.soul.read_text()
    agent.layout.soul.write_text(before.replace("Alice", "Berta"))
    agent.start()
    agent.drop("2.md", "What is my name?")
    assert "Berta" in agent.result("2.md").content


def test_a_missing_or_broken_soul_stops_nothing(agent: Agent) -> None:
    agent.start()
    agent.layout.soul.write_bytes(b"# Soul \xe9 broken")
    agent.drop("1.md", "What is my name?")
    assert agent.result("1.md")["status"] == "done"
    agent.drop("2.md", "My name is Alice.")
    assert agent.result("2.md")["status"] == "failed"
    assert agent.layout.soul.read_bytes() == b"# Soul \xe9 broken", "what nobody can read is left as it is"
    agent.layout.soul.unlink()
    agent.drop("3.md", "My name is Alice.")
    assert agent.result("3.md")["status"] == "done"
    assert "Alice" in agent.layout.soul.read_text()


# 2. Heartbeat


@pytest.mark.long
def test_ten_beats_in_real_time_with_a_kill_in_between(agent: Agent) -> None:
    agent.layout.settings.write_text(FAST + "heartbeat_interval: 1s\n")
    (agent.layout.tasks / "stamp.md").write_text(TIMESTAMP)
    agent.start()
    log = agent.root / "log.txt"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 5, "five beats")
    agent.kill()
    agent.start()
    wait_for(lambda: len(log.read_text().splitlines()) >= 11, "eleven beats")
    agent.stop()
    slots = sorted(run.slot for run in agent.runs() if run.task == "stamp" and run.status == "done")
    assert len(slots) == len(set(slots)) == len(log.read_text().splitlines())
    steps = [later - earlier for earlier, later in itertools.pairwise(slots)]
    assert all(step.total_seconds() % 1 == 0 for step in steps), "slots lie on whole seconds"
    journal = "".join(path.read_text() for path in agent.layout.journal.glob("*.jsonl"))
    told = sum(int(n) for n in re.findall(r'"missed","task":"stamp","slots":(\d+)', journal))
    told += len(re.findall(r'"skipped","task":"stamp"', journal))
    assert (slots[-1] - slots[0]).total_seconds() + 1 == len(slots) + told, "every slot was run, or told as missed"


class Stepped:
    """A wall clock that moves when it is told to."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def _minutes(daemon: Daemon, clock: Stepped, seconds: int) -> None:
    for _ in range(seconds):
        clock.at += timedelta(seconds=1)
        daemon.beat()
        assert daemon.drain()


def test_ten_minutes_give_ten_entries_on_a_stepped_clock(tmp_path: Path) -> None:
    layout, _ = init_workspace(tmp_path / "ws")
    layout.settings.write_text("heartbeat_interval: 1m\n")
    (layout.tasks / "stamp.md").write_text(TIMESTAMP)
    clock = Stepped(datetime(2026, 3, 1, 12, 0, 17, tzinfo=UTC))
    daemon = Daemon(layout, now=clock)
    daemon.open()
    _minutes(daemon, clock, 290)
    daemon.close()
    daemon = Daemon(layout, now=clock)
    daemon.open()
    _minutes(daemon, clock, 310)
    daemon.close()
    lines = (layout.root / "log.txt").read_text().splitlines()
    assert len(lines) == 10
    assert not [path for path in layout.outbox.rglob("*") if path.is_file()], "a quiet task publishes nothing"


_STEPS = """
import os, signal, sys
from datetime import datetime, timedelta
from fsagent.daemon import Daemon
from fsagent.workspace.layout import open_workspace

now = datetime.fromisoformat(sys.argv[2])
daemon = Daemon(open_workspace(sys.argv[1]), now=lambda: now)
daemon.open()
for _ in range(int(sys.argv[3])):
    now += timedelta(seconds=1)
    daemon.beat()
    if sys.argv[4] == "drain":
        daemon.drain()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ten_minutes_on_a_stepped_clock_across_kills(agent: Agent) -> None:
    """The process that steps the clock is killed for real: between two beats, and with a run under way."""
    agent.layout.settings.write_text("heartbeat_interval: 1m\n")
    (agent.layout.tasks / "stamp.md").write_text(TIMESTAMP)
    now = datetime(2026, 3, 1, 12, 0, 17, tzinfo=UTC)
    for seconds, how in ((150, "drain"), (13, "at once"), (437, "drain")):
        command = [sys.executable, "-c", _STEPS, str(agent.root), now.isoformat(), str(seconds), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        now += timedelta(seconds=seconds)
    assert len((agent.root / "log.txt").read_text().splitlines()) == 10
    slots = [run.slot for run in agent.runs()]
    assert len(slots) == len(set(slots)) == 10
    assert {run.status for run in agent.runs()} == {"done"}


def test_a_quiet_task_speaks_when_it_fails(agent: Agent) -> None:
    agent.layout.settings.write_text(FAST)
    (agent.layout.tasks / "report.md").write_text("---\nevery: 1s\nsteps:\n  - read: nothing-there.md\n---\n")
    agent.start()
    wait_for(lambda: agent.files(agent.layout.outbox), "a result")
    assert agent.results()[0]["status"] == "failed"


def test_a_failing_and_a_slow_task_delay_no_other(agent: Agent) -> None:
    agent.layout.settings.write_text(FAST + "tools: {shell: allow}\nsandbox: off\nshutdown_wait: 1s\n")
    for number in range(4):  # with the slow one, more than may go on side by side
        steps = "steps:\n  - shell: {command: 'sleep 7777 & sleep 7777', shell: true}\n"
        hangs = f"---\nevery: 1s\ntimeout: 1s\npause_after: off\n{steps}---\n"
        (agent.layout.tasks / f"hanging-{number}.md").write_text(hangs)
    (agent.layout.tasks / "broken.md").write_text("---\nevery: 1s\nevry: 2s\n---\nLog the timestamp to x.txt\n")
    (agent.layout.tasks / "failing.md").write_text("---\nevery: 1s\nsteps:\n  - read: nothing-there.md\n---\n")
    (agent.layout.tasks / "slow.md").write_text("---\nevery: 1s\nsteps:\n  - shell: sleep 20\n---\n")
    (agent.layout.tasks / "good.md").write_text("---\nevery: 1s\n---\nLog the timestamp to log.txt\n")
    agent.start()
    log = agent.root / "log.txt"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= 3, "the good task goes on")
    wait_for(
        lambda: '"skipped","task":"slow"' in "".join(p.read_text() for p in agent.layout.journal.glob("*.jsonl")),
        "skips",
    )
    tasks = agent.cli("tasks")
    assert "tasks/broken.md:3:1: evry" in tasks.stdout
    assert "did you mean 'every'" in tasks.stdout

    def hung() -> dict[str, str]:
        return {run.task: run.error for run in agent.runs() if run.status == "failed" and run.task[:4] == "hang"}

    wait_for(lambda: len(hung()) == 4, "each that hangs is ended at its deadline")
    assert set(hung().values()) == {"took longer than its timeout and was ended"}
    wait_for(lambda: _programs(agent, "sleep\0007777"), "they begin again")
    for number in range(4):
        (agent.layout.tasks / f"hanging-{number}.md").unlink()
    wait_for(lambda: not _programs(agent, "sleep\0007777"), "and so is all that it started")
    assert agent.stop() == 0


def _programs(agent: Agent, words: str) -> list[int]:
    """The processes of this agent's runs with these words in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if words in (path / "cmdline").read_text() and Path(os.readlink(path / "cwd")) == agent.root:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_suspend_of_hours_ends_no_run_and_brings_no_storm(tmp_path: Path) -> None:
    """The wall clock jumps, as it does when a laptop is opened again; what a run may take is measured without it."""
    layout, _ = init_workspace(tmp_path / "ws")
    layout.settings.write_text("tools: {shell: allow}\nsandbox: off\n")
    program = "touch begun; until test -e go; do sleep 0.05; done; date >> log.txt"
    steps = f"steps:\n  - shell: {{command: '{program}', shell: true}}\n"
    (layout.tasks / "long.md").write_text(f"---\nevery: 1m\ntimeout: 30m\n{steps}---\n")
    (layout.tasks / "quick.md").write_text("---\nevery: 1m\noverlap: queue\n---\nLog the timestamp to quick.txt\n")
    clock = Stepped(datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC))
    daemon = Daemon(layout, now=clock)
    daemon.open()
    clock.at += timedelta(seconds=40)
    daemon.beat()
    wait_for((layout.root / "begun").exists, "the program runs")
    for _ in range(3):
        clock.at += timedelta(hours=5)
        for _ in range(5):
            daemon.beat()
    (layout.root / "go").touch()
    assert daemon.drain()
    daemon.close()
    assert len((layout.root / "quick.txt").read_text().splitlines()) == 4, "one after each sleep"
    assert len((layout.root / "log.txt").read_text().splitlines()) == 1
    index = Index(layout.index, write=False)
    runs = index.recent(100)
    index.close()
    assert {run.status for run in runs} == {"done"}
    journal = "".join(path.read_text() for path in layout.journal.glob("*.jsonl"))
    assert journal.count('"skipped","task":"long"') == 3
    assert journal.count('"missed","task":"quick","slots":299') == 3


def test_tasks_count_at_once_when_added_changed_and_removed(agent: Agent) -> None:
    agent.start()
    task, log = agent.layout.tasks / "stamp.md", agent.root / "log.txt"
    task.write_text("---\nevery: 1h\n---\nLog the timestamp to log.txt\n")
    wait_for(lambda: "every 1h" in agent.cli("tasks").stdout, "the task is known")
    task.write_text("---\nevery: 1s\n---\nLog the timestamp to log.txt\n")
    wait_for(log.exists, "the changed period counts")
    task.unlink()
    wait_for(lambda: "stamp" not in agent.cli("tasks").stdout, "the task is gone")
    settled = len(log.read_text().splitlines())
    (agent.layout.tasks / "other.md").write_text("---\nevery: 1s\n---\nLog the timestamp to other.txt\n")
    wait_for((agent.root / "other.txt").exists, "two more seconds have passed")
    assert len(log.read_text().splitlines()) <= settled + 1


# 3. Headless


def test_headless_without_display_terminal_home_or_a_writable_root(agent: Agent) -> None:
    """A plain user, no DISPLAY, no HOME, no terminal, and a root file system that nobody can write."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount the root read-only and to become another user")
    for path in (agent.root, *agent.root.rglob("*")):
        os.chown(path, 65534, 65534)
    for path in agent.root.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    script = (
        f"mount --make-rprivate / && mount --bind {agent.root} {agent.root} && mount -o remount,bind,ro / && "
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all,+dac_read_search "
        "--ambient-caps=-all,+dac_read_search " + " ".join([*FSAGENT, "run", str(agent.root)])
    )
    probe = subprocess.run(["unshare", "-m", "sh", "-c", "mount --make-rprivate /"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no mount namespaces here: {probe.stderr.strip()}")
    environment = {"PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=environment, start_new_session=True, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or agent.layout.beat.exists(), "it starts")
        assert process.poll() is None, process.stdout.read()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+65534", status, re.MULTILINE)
        agent.drop("1.md", "My name is Alice.")
        assert agent.result("1.md")["status"] == "done"
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_many_slow_commands_keep_no_quick_one_waiting(agent: Agent) -> None:
    agent.layout.settings.write_text(FAST + "max_runs: 2\ntools: {shell: allow}\nshutdown_wait: 0s\n")
    agent.start()
    for number in range(60):
        agent.drop(f"slow-{number}.md", "---\nsteps:\n  - shell: sleep 300\n---\n")
    wait_for(lambda: len(os.listdir(agent.layout.runs)) >= 60, "all of them are taken")
    agent.drop("quick.md", "What is my name?")
    assert agent.result("quick.md")["status"] == "done"
    running = [line for line in agent.output().splitlines() if " started " in line and "slow-" in line]
    assert len(running) == 2
    assert agent.stop() == 0
    assert len([name for name in agent.files(agent.layout.runs) if name.endswith("claimed.md")]) == 60


# Idle


def _switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)[1])
    return found


def test_an_idle_daemon_sleeps_and_stays_small(agent: Agent) -> None:
    agent.start()
    agent.drop("1.md", "My name is Alice.")
    agent.result("1.md")
    pid = agent.process.pid

    def quiet(most: int) -> bool:
        before = _switches(pid)
        time.sleep(2)  # the measurement itself: how often it wakes while nothing happens
        return _switches(pid) - before <= 2 * most

    assert "Watching by events." in " ".join(agent.status().split())
    wait_for(lambda: quiet(1), "where events tell, at most one wake-up a second, all threads together")
    (pss,) = re.findall(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert int(pss) < 40 * 1024
    assert "/ssl" not in (maps := Path(f"/proc/{pid}/maps").read_text())
    assert "pydantic" not in maps
    agent.layout.settings.write_text("watch: poll\n")
    wait_for(lambda: "Watching by looking every 1 s" in " ".join(agent.status().split()), "it looks")
    wait_for(lambda: quiet(2), "where it looks every second, at most two")


# 4. Many at once


def _drop_renamed(agent: Agent, number: int) -> None:
    agent.drop(f"renamed-{number}.md", f"Log {number} to out.txt")


def _drop_in_place(agent: Agent, number: int) -> None:
    (agent.layout.inbox / f"place-{number}.md").write_text(f"Log {number} to out.txt")


def _drop_slowly(agent: Agent, number: int) -> None:
    with (agent.layout.inbox / f"slow-{number}.md").open("w") as file:
        for part in ("Log ", str(number), " to out", ".txt"):
            file.write(part)
            file.flush()
            time.sleep(0.05)  # a writer that pauses; nothing waits for it


def _drop_like_vim(agent: Agent, number: int) -> None:
    path = agent.layout.inbox / f"vim-{number}.md"
    swap = path.with_name(f".{path.name}.swp")
    swap.write_text("b0VIM")
    probe = path.with_name("4913")
    probe.touch()
    probe.unlink(missing_ok=True)
    with path.open("w") as file:
        file.write(f"Log {number} to out.txt\n")
        file.flush()
        os.fsync(file.fileno())
    swap.unlink()


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_thousand_files_dropped_in_mixed_ways_are_run_once_each(agent: Agent) -> None:
    agent.start()
    ways = [_drop_renamed, _drop_in_place, _drop_slowly, _drop_like_vim]

    def writer(way: int) -> None:
        for number in range(way, 1000, 8):
            ways[way % 4](agent, number)

    threads = [threading.Thread(target=writer, args=(way,)) for way in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(os.listdir(agent.layout.outbox)) >= 1000, "1000 results", 120)
    assert agent.stop() == 0
    results = agent.results()
    assert len(results) == 1000
    assert {result["status"] for result in results} == {"done"}
    assert not any(re.search(r"-\d+-\d+\.md$", name) for name in agent.files(agent.layout.outbox)), "no second result"
    lines = Counter((agent.root / "out.txt").read_text().splitlines())
    assert set(lines.values()) == {1}
    assert len(lines) == 1000
    assert len(agent.files(agent.layout.archive)) == 1000
    assert not agent.files(agent.layout.inbox)
