"""The command line as a contract: real processes, their words, their exit codes (README, "Exit codes")."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fsagent.faces.door import Caller, hand_in
from harness import FSAGENT, Agent, wait_for

QUICK = "scan_interval: 0.2s\nsettle: 0.05s\nsettle_renamed: 0.05s\n"
Done = subprocess.CompletedProcess[str]


def fsagent(*words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Done:
    """Any command; nothing of the tests' own environment points it to a workspace."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FSAGENT")}
    return subprocess.run(
        [*FSAGENT, *map(str, words)], capture_output=True, text=True, timeout=50, env=clean | (env or {}), cwd=cwd
    )


def check(done: Done, code: int, *says: str) -> Done:
    """The exit code, the words, and no traceback."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    for word in says:
        assert word in said
    return done


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A workspace with no daemon."""
    agent = Agent(tmp_path / "ws", QUICK, fork=False)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A workspace with a daemon, shared by tests that only talk to it."""
    agent = Agent(tmp_path_factory.mktemp("live") / "ws", QUICK + "tools: {shell: allow}\n", fork=False).start()
    yield agent
    agent.close()


def read_json(done: Done) -> Any:
    check(done, 0)
    return json.loads(done.stdout)


# init


def test_init_makes_a_workspace_and_never_overwrites(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "agent"
    check(fsagent("init", root), 0, "is a workspace", "fsagent.yaml", "soul.md", "tasks/heartbeat.md", ".stignore")
    assert (root / ".fsagent" / "workspace.json").exists()
    (root / "soul.md").write_text("mine")
    (root / "tasks" / "heartbeat.md").unlink()
    (root / "tasks" / "own.md").write_text("beat")
    check(fsagent("init", root), 0, "nothing was missing")
    assert (root / "soul.md").read_text() == "mine"
    assert not (root / "tasks" / "heartbeat.md").exists(), "what a person removed does not come back beside their own"
    (root / "fsagent.yaml").unlink()
    check(fsagent("init", root), 0, "made fsagent.yaml")
    check(fsagent("doctor", "-w", root), 0, "no faults")


def test_init_fills_a_folder_that_holds_a_persons_files(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.md").write_text("My name is Alice.")
    check(fsagent("init", tmp_path, "--sample"), 0)
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert (tmp_path / "inbox" / "a.md").read_text() == "My name is Alice."


def test_init_says_what_stands_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check(fsagent("init", tmp_path / "file"), 1, "file")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "inbox").write_text("x")
    check(fsagent("init", tmp_path / "ws"), 1, "inbox")


# exit codes that any command may have

READING = [
    ["status"],
    ["runs"],
    ["tasks"],
    ["usage"],
    ["doctor"],
    ["health"],
    ["show", "last"],
    ["pause"],
    ["resume"],
    ["ask", "hello"],
    ["token"],
    ["token", "--list"],
    ["cancel", "last"],
    ["retry", "last"],
]


@pytest.mark.parametrize("words", [*READING, ["run"]], ids=" ".join)
def test_10_not_a_workspace(tmp_path: Path, words: list[str]) -> None:
    where = [str(tmp_path)] if words == ["run"] else ["-w", str(tmp_path)]
    done = check(fsagent(words[0], *where, *words[1:]), 10, "is not a workspace", "fsagent init")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is made by looking"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["runs", "-n", "0"],
        ["ask"],
        ["show"],
        ["cancel"],
        ["retry"],
        ["run", "--nope"],
        ["ask", "--timeout", "soon", "x"],
        ["init"],
        ["token", "--make"],
    ],
)
def test_2_usage(agent: Agent, words: list[str]) -> None:
    done = check(fsagent(*words, cwd=agent.root), 2, "Usage")
    assert done.stdout == ""


def test_12_bad_settings_are_told_with_their_lines(agent: Agent) -> None:
    agent.layout.settings.write_text("timeout: 5\nretrys: 2\n")
    done = check(
        fsagent("run", agent.root, "--once"), 12, "fsagent.yaml:1", "did you mean 5s?", "did you mean 'retries'?"
    )
    assert "fsagent.yaml:2" in done.stderr
    for words in (["status"], ["runs"], ["tasks"]):
        check(fsagent(*words, "-w", agent.root), 0)


def test_a_marker_that_is_damaged_or_from_a_later_version(agent: Agent) -> None:
    for raw, says in ((b"{", "damaged"), (b"\xff\xfe", "damaged"), (b'{"format": 99}', "format 99")):
        agent.layout.marker.write_bytes(raw)
        check(fsagent("status", "-w", agent.root), 10, says)
        check(fsagent("run", agent.root, "--once"), 10, says)


def test_the_workspace_is_found_by_option_environment_or_folder(agent: Agent, tmp_path: Path) -> None:
    named = check(fsagent("status", "-w", agent.root), 0, str(agent.root))
    for done in (
        fsagent("status", cwd=agent.root),
        fsagent("status", env={"FSAGENT_WORKSPACE": str(agent.root)}, cwd=tmp_path),
        fsagent("status", "-w", agent.root, env={"FSAGENT_WORKSPACE": "/none"}),
    ):
        assert done.stdout == named.stdout
    check(fsagent("run", "--once", cwd=agent.root), 0, "daemon started")


def test_the_installed_program_is_the_same(agent: Agent) -> None:
    program = Path(FSAGENT[0]).with_name("fsagent")
    said = [
        subprocess.run([*command, "status", "-w", str(agent.root)], capture_output=True, text=True, timeout=50)
        for command in ([str(program)], FSAGENT)
    ]
    assert said[0].stdout == said[1].stdout
    assert said[0].returncode == said[1].returncode == 0
    check(fsagent("--version"), 0, "fsagent 0.")
    check(
        fsagent("--help"),
        0,
        "init",
        "run",
        "ask",
        "status",
        "runs",
        "show",
        "tasks",
        "doctor",
        "health",
        "pause",
        "resume",
        "token",
    )


# before any daemon


def test_commands_work_before_any_daemon_ran(agent: Agent) -> None:
    check(agent.cli("status"), 0, "No daemon ever ran here")
    check(agent.cli("runs"), 0, "no runs yet")
    check(agent.cli("show", "last"), 1, "there are no runs yet")
    check(agent.cli("health"), 1, "no daemon runs on")
    check(agent.cli("doctor"), 0, "no faults")
    check(agent.cli("tasks"), 0, "heartbeat")
    check(agent.cli("ask", "hello"), 1, "no daemon runs on", f"fsagent run {agent.root}")
    assert read_json(agent.cli("runs", "--json")) == []
    view = read_json(agent.cli("status", "--json"))
    assert (view["alive"], view["snapshot"], view["waiting"]) == (False, None, 0)
    agent.drop("a.md", "My name is Alice.")
    check(agent.cli("status"), 0, "1 command waiting")


# once


def test_run_once_does_all_that_waits_and_ends(agent: Agent) -> None:
    for number in range(5):
        agent.drop(f"{number}.md", f"Remember that room {number} is warm")
    (agent.layout.tasks / "log.md").write_text("---\nevery: 1s\n---\nLog the timestamp to log.txt")
    done = check(fsagent("run", agent.root, "--once"), 0, "daemon started", "daemon stopped")
    assert len(agent.results()) == 5
    for number in range(5):
        assert len(re.findall(rf" started +inbox/{number}.md$", done.stdout, re.MULTILINE)) == 1
        assert len(re.findall(rf" done +inbox/{number}.md → outbox/{number}.md", done.stdout)) == 1
    check(agent.cli("status"), 0, "Stopped")
    check(agent.cli("health"), 1, "no daemon runs on")


def test_run_can_make_its_workspace(tmp_path: Path) -> None:
    root = tmp_path / "new"
    check(fsagent("run", root, "--once"), 10)
    check(fsagent("run", root, "--init", "--once"), 0, "is a workspace", "daemon stopped")
    check(fsagent("run", root, "--init", "--once"), 0)


# with a daemon


def ask(agent: Agent, text: str, *options: str) -> Done:
    """``--`` before a text that begins with a hyphen, as for any program."""
    return fsagent("ask", "-w", agent.root, *options, "--", text)


def test_ask_answers_and_its_code_tells_how_it_ended(live: Agent) -> None:
    check(live.cli("ask", "Remember that the router is a Fritzbox"), 0)
    assert "Fritzbox" in check(live.cli("ask", "What do you know about the router?"), 0).stdout
    check(live.cli("ask", "please", "paint", "the", "fence"), 4, "model")
    check(ask(live, "---\nretrys: 3\n---\nhello"), 4, "did you mean 'retries'?")
    check(ask(live, "---\nsteps:\n  - read: none.md\n---\n"), 3, "there is no 'none.md'")
    check(ask(live, "---\nsteps:\n  - shell: sleep 2\n---\n", "--timeout", "0.2s"), 5, "no answer after 0.2s", "run 2")


def test_a_conversation_keeps_its_thread(live: Agent) -> None:
    check(live.cli("ask", "--thread", "taxes", "My name is Alice."), 0)
    newest = read_json(live.cli("runs", "--json", "-n", "1"))[0]
    assert (newest["thread"], newest["trigger"], newest["status"]) == ("taxes", "cli", "done")


def test_the_list_of_runs(live: Agent) -> None:
    for name in ("list-a", "list-b"):
        live.drop(f"{name}.md", "What is my name?")
        live.result(f"{name}.md")
    table = check(live.cli("runs"), 0, "RUN", "list-a.md", "outbox/list-b.md").stdout.splitlines()
    assert table[0].split() == ["RUN", "STARTED", "STATUS", "TRIGGER", "COMMAND", "RESULT"]
    runs = wait_for(
        lambda: [r for r in read_json(live.cli("runs", "--json")) if r["command"].startswith("list-")][1:],
        "both listed",
    )
    assert runs
    started = [run["started"] for run in read_json(live.cli("runs", "--json"))]
    assert started == sorted(started, reverse=True), "newest first"
    assert len(read_json(live.cli("runs", "--json", "-n", "1"))) == 1
    assert {run["status"] for run in read_json(live.cli("runs", "--json", "--status", "done"))} == {"done"}


def test_show_finds_a_run_by_any_clear_part_of_its_name(live: Agent) -> None:
    live.drop("shown.md", "---\nsteps:\n  - append: {path: shown.txt, text: 'a line'}\n---\nthe words")
    run = str(live.result("shown.md")["run"])
    wait_for(lambda: read_json(live.cli("show", run, "--json"))["run"]["settled"], "settled")
    whole = check(
        live.cli("show", run), 0, "shown.md", "the words", "append", "added 1 line", "archive/", "outbox/shown.md"
    ).stdout
    for part in (run[:-2], run[-5:]):
        assert check(live.cli("show", part), 0).stdout == whole
    view = read_json(live.cli("show", run, "--json"))
    assert view["run"]["run"] == run
    assert "the words" in view["command"]
    check(live.cli("show", "2"), 1, "fits")
    check(live.cli("show", "none-such"), 1, "there is no run 'none-such'")
    for odd in ("..", ".", "../..", "/etc", "", "a/b"):
        check(live.cli("show", odd), 1)


def test_tasks_with_their_last_and_next_times(live: Agent) -> None:
    (live.layout.tasks / "tick.md").write_text("---\nevery: 1s\n---\nLog the timestamp to tick.txt")
    (live.layout.tasks / "bad.md").write_text("---\nevry: 1s\n---\nx")
    wait_for((live.root / "tick.txt").exists, "the task runs")
    check(live.cli("tasks"), 0, "tick", "every 1s", "broken", "did you mean 'every'?", "tasks/bad.md:2")
    tasks = {task["task"]: task for task in read_json(live.cli("tasks", "--json"))}
    tick = wait_for(
        lambda: next((t for t in read_json(live.cli("tasks", "--json")) if t["last_status"] == "done"), None),
        "its last time",
    )
    assert tick["task"] == "tick"
    assert all(run["late"] < 60 and run["slot"] for run in tick["runs"] if run["started"])
    assert len(tick["slots"]) == 5
    assert datetime.fromisoformat(tick["next"]) - datetime.fromisoformat(tick["last"]) < timedelta(minutes=1)
    assert tasks["bad"]["state"] == "broken"
    runs = read_json(live.cli("runs", "--json", "--task", "tick"))
    assert runs
    assert {run["task"] for run in runs} == {"tick"}
    (live.layout.tasks / "tick.md").unlink()
    (live.layout.tasks / "bad.md").unlink()


def test_status_of_a_living_daemon(live: Agent) -> None:
    check(live.cli("status"), 0, "Alive", f"pid {live.process.pid}")
    view = read_json(live.cli("status", "--json"))
    assert (view["alive"], view["paused"], view["snapshot"]["pid"]) == (True, False, live.process.pid)


def test_11_a_second_daemon_is_refused_with_the_pid_of_the_first(live: Agent) -> None:
    for words in (["run", live.root], ["run", live.root, "--once"]):
        check(fsagent(*words), 11, "a daemon runs on", f"pid {live.process.pid}")
    check(live.cli("health"), 0, "healthy")


def test_pause_and_resume(live: Agent) -> None:
    check(live.cli("pause"), 0, "paused")
    try:
        assert live.layout.stop.exists()
        wait_for(lambda: "Paused" in live.status(), "status.md says so")
        check(live.cli("status"), 0, "Paused")
        assert read_json(live.cli("status", "--json"))["paused"]
        check(live.cli("ask", "What is my name?"), 1, "paused by the file STOP", "fsagent resume")
        live.drop("held.md", "What is my name?")
        check(live.cli("health"), 0)
        check(live.cli("pause"), 0)
        assert (live.layout.inbox / "held.md").exists(), "nothing new starts"
    finally:
        check(live.cli("resume"), 0, "resumed")
    check(live.cli("resume"), 0)
    assert not live.layout.stop.exists()
    live.result("held.md")
    check(live.cli("ask", "--timeout", "20s", "What is my name?"), 0)


def test_health_says_what_is_wrong(agent: Agent) -> None:
    agent.start()
    wait_for(lambda: agent.cli("health").returncode == 0, "healthy")
    agent.process.send_signal(signal.SIGSTOP)
    snapshot = json.loads(agent.layout.beat.read_bytes())
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    agent.layout.beat.write_text(json.dumps(snapshot | {"beat": long_ago}))
    check(agent.cli("health"), 1, f"the daemon (pid {agent.process.pid}) has given no sign of life for 36")
    agent.layout.beat.write_text(json.dumps(snapshot | {"waiting": 3, "waiting_since": long_ago}))
    check(agent.cli("health"), 1, "3 commands wait, the oldest for 60 min")
    agent.layout.beat.write_bytes(b"\xff{")
    check(agent.cli("health"), 1, "not said a word")
    agent.process.send_signal(signal.SIGCONT)
    wait_for(lambda: agent.cli("health").returncode == 0, "healthy again")


def test_health_of_a_daemon_that_was_killed(agent: Agent) -> None:
    agent.start()
    wait_for(agent.layout.beat.exists, "its first word")
    agent.kill()
    check(agent.cli("health"), 1, "no daemon runs on")
    check(agent.cli("status"), 0, "Stopped")


def test_cancel_ends_a_run_and_tells_how(live: Agent) -> None:
    live.drop("long.md", "---\nsteps:\n  - shell: sleep 300\n---\n")

    def found() -> list[str]:
        return [each["run"] for each in read_json(live.cli("runs", "--json")) if each["command"] == "long.md"]

    (run,) = wait_for(found, "it runs")
    check(live.cli("cancel", run[:-3]), 0, f"run {run} ended: interrupted")
    assert "cancelled by cli" in check(live.cli("show", run), 0).stdout
    check(live.cli("cancel", run), 1, f"run {run} has ended already (interrupted)")
    check(live.cli("cancel", "nonsense"), 1, "there is no run 'nonsense'")


def test_cancel_counts_also_while_no_daemon_runs(agent: Agent) -> None:
    check(agent.cli("cancel", "last"), 1, "there are no runs yet")
    run = hand_in(agent.layout, b"My name is Alice.", Caller("cli")).run
    check(agent.cli("cancel", run[-6:]), 0, run, "no daemon runs now")
    agent.once()
    assert agent.result(f"cli/{run}.md")["status"] == "interrupted"
    assert "Alice" not in agent.layout.soul.read_text()


def test_retry_runs_what_gave_up_again_and_prints_the_new_run(agent: Agent) -> None:
    agent.drop("a.md", "---\nsteps:\n  - read: notes.txt\n---\n")
    agent.once()
    (agent.root / "notes.txt").write_text("noted")
    new = check(agent.cli("retry", "last"), 0).stdout.strip()
    assert check(agent.cli("retry", "last"), 0).stdout.strip() == new, "asked twice, done once"
    agent.once()
    assert agent.result("a-2.md")["run"] == new
    check(agent.cli("retry", new), 1, f"run {new} was done")
    check(agent.cli("retry", "nonsense"), 1, "there is no run 'nonsense'")


# signals


def test_sighup_reads_the_settings_again(agent: Agent) -> None:
    agent.layout.settings.write_text("scan_interval: 1h\nsettle_renamed: 0.05s\ntime_format: 'OLD'\n")
    agent.start()
    agent.drop("a.md", "---\nsteps:\n  - write: {path: a.txt, text: '{{ now }}'}\n---\n")
    agent.result("a.md")
    agent.layout.settings.write_text("scan_interval: 1h\nsettle_renamed: 0.05s\ntime_format: 'NEW'\n")
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "settings read" in agent.output(), "it says so")
    agent.drop("b.md", "---\nsteps:\n  - write: {path: b.txt, text: '{{ now }}'}\n---\n")
    agent.result("b.md")
    assert ((agent.root / "a.txt").read_text(), (agent.root / "b.txt").read_text()) == ("OLD", "NEW")
    agent.layout.settings.write_text("timeout: 5\n")
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "did you mean 5s?" in agent.output(), "a mistake is told")
    agent.drop("c.md", "---\nsteps:\n  - write: {path: c.txt, text: '{{ now }}'}\n---\n")
    agent.result("c.md")
    assert (agent.root / "c.txt").read_text() == "NEW", "the settings before stay in force"
    wait_for(lambda: "did you mean 5s?" in agent.status(), "status.md tells it too")


def test_a_stop_is_heard_while_nothing_happens(agent: Agent) -> None:
    """A signal may reach any thread of the daemon; no look around must be needed to hear it."""
    agent.layout.settings.write_text("scan_interval: 1h\nsettle_renamed: 0.05s\n")
    for number in range(3):
        agent.start()
        agent.drop(f"{number}.md", "What is my name?")
        agent.result(f"{number}.md")
        assert agent.stop() == 0


def start_slow(agent: Agent, settings: str, seconds: float) -> None:
    """A daemon with a program under way."""
    agent.layout.settings.write_text(QUICK + "tools: {shell: allow}\n" + settings)
    (agent.root / "work").mkdir()
    agent.start()
    line = f"touch work/begun; sleep {seconds}; touch work/ended"
    agent.drop("slow.md", f"---\nsteps:\n  - shell: {{command: '{line}', shell: true}}\n---\n")
    wait_for((agent.root / "work" / "begun").exists, "it runs")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stop_finishes_what_runs(agent: Agent, number: int, code: int) -> None:
    start_slow(agent, "shutdown_wait: 30s\n", 1.0)
    agent.drop("later.md", "My name is Alice.")
    assert agent.stop(number) == code
    assert (agent.root / "work" / "ended").exists()
    assert agent.result("slow.md")["status"] == "done"
    assert "daemon stopped" in agent.output()
    assert "Traceback" not in agent.output()
    check(agent.cli("status"), 0, "Stopped")
    agent.once()
    assert agent.result("later.md")["status"] == "done", "what came meanwhile waits for the next start"


def test_a_stop_is_bounded(agent: Agent) -> None:
    seconds = 10**6 + os.getpid()  # a number that tells our program from anybody's
    start_slow(agent, "shutdown_wait: 0.3s\n", seconds)
    before = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - before < 25
    assert not (agent.layout.outbox / "slow.md").exists()
    assert subprocess.run(["pgrep", "-f", f"sleep {seconds}"], capture_output=True).stdout.split() == [], (
        "its programs ended with it"
    )
    agent.once()
    assert agent.result("slow.md")["status"] == "interrupted", "it may have happened, so it is not repeated"


def test_a_second_signal_ends_at_once(agent: Agent) -> None:
    start_slow(agent, "shutdown_wait: 1h\n", 300)

    def ended() -> bool:
        agent.process.send_signal(signal.SIGTERM)  # until it has heard two of them
        return agent.process.poll() is not None

    wait_for(ended, "it ends")
    assert agent.process.returncode == 128 + signal.SIGTERM
    agent.process = None


def test_130_for_a_command_that_is_interrupted(live: Agent) -> None:
    before = len(live.runs())
    process = subprocess.Popen(
        [*FSAGENT, "ask", "-w", str(live.root), "--", "---\nsteps:\n  - shell: sleep 5\n---\n"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(live.runs()) > before, "the command is handed in")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_fault(live: Agent) -> None:
    for words in ("runs", "status", "tasks"):
        command = f"{' '.join(FSAGENT)} {words} -w '{live.root}' | true"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
        assert done.stderr == ""


@pytest.mark.parametrize(
    "env", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_a_terminal_that_knows_only_ascii(live: Agent, env: dict[str, str]) -> None:
    check(fsagent("ask", "-w", live.root, "Remember that the café is → closed", env=env), 0)
    check(fsagent("ask", "-w", live.root, "What do you know about the café?", env=env), 0, "closed")
    for words in (["runs"], ["status"], ["show", "last"]):
        check(fsagent(*words, "-w", live.root, env=env), 0)


# doctor

FAULTS = {
    "fsagent.yaml": b"timeout: 5\n",
    "soul.md": b"\xff\xfe\xfd",
    "soul.sync-conflict-20260102-030405-ABCDEF7.md": b"other",
    "tasks/bad.md": b"---\nevery: 5\n---\nx",
    "tasks/steps.md": b"---\nsteps:\n  - rea: x\n---\n",
    "tasks/x.sync-conflict-20260102-030405-ABCDEF7.md": b"x",
    "inbox/unknown.md": b"---\nretrys: 1\n---\nx",
    "inbox/steps.md": b"---\nsteps:\n  - write: {path: a}\n---\n",
    "inbox/latin.md": b"caf\xe9",
    "inbox/photo.jpg": b"x",
    ".fsagent/tokens.json": b"{",
    ".fsagent/journal/2026-01.jsonl": b'{"event": "a", "time": "2026-01-01T00:00:00Z"}\n{"ev',
    ".fsagent/usage/2026-01.jsonl": b'{"time": "2026-01-01T00:00:00Z", "run": "r", "trigger": "cli"}\n\n{"ti',
    ".fsagent/runs/20260101-000000-abcde/steps.jsonl": b"\xff\xfe{{",
    ".fsagent/removed/2026-01.jsonl": b'{"run": "r"}\n',
}
TOLD = [
    "fsagent.yaml:1:1: timeout:",
    "soul.md: ",
    "soul.sync-conflict-20260102-030405-ABCDEF7.md: is a sync conflict copy",
    "tasks/bad.md:2:1: every:",
    "tasks/steps.md:3: steps: there is no tool 'rea'",
    "tasks/x.sync-conflict",
    "inbox/unknown.md:2:1: retrys:",
    "inbox/steps.md:3: steps: write: misses the argument 'text'",
    "inbox/latin.md:1: is not UTF-8",
    "inbox/photo.jpg: is no command",
    ".fsagent/tokens.json: is damaged",
    ".fsagent/journal/2026-01.jsonl:2: is no record",
    ".fsagent/usage/2026-01.jsonl:3: is no model turn",
    ".fsagent/runs/20260101-000000-abcde: has no envelope",
    ".fsagent/removed/2026-01.jsonl:1: is no removed run",
    "outbox/: must be a folder",
]


def test_doctor_reports_all_faults_of_a_workspace(agent: Agent) -> None:
    for name, raw in FAULTS.items():
        (agent.root / name).parent.mkdir(exist_ok=True)
        (agent.root / name).write_bytes(raw)
    (agent.root / "outbox").rmdir()
    (agent.root / "outbox").write_bytes(b"")
    before = sorted(str(path) for path in agent.root.rglob("*"))
    done = check(agent.cli("doctor"), 1, *TOLD)
    assert f"{len(TOLD)} faults; looked at settings, soul" in done.stdout
    assert sorted(str(path) for path in agent.root.rglob("*")) == before, "it changes nothing"
    report = json.loads(agent.cli("doctor", "--json").stdout)
    assert len(report["faults"]) == len(TOLD)
    assert {"file", "message", "line", "column", "field"} <= set(report["faults"][0])


def test_doctor_finds_nothing_where_all_is_well(live: Agent) -> None:
    wait_for(lambda: "no faults" in live.cli("doctor").stdout, live.cli("doctor").stdout)
