"""What comes again: a sync client's second delivery, a person's second wish, an id that is taken, a later save."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Agent, wait_for


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", "settle: 100ms\nsettle_renamed: 50ms\n")
    agent.start()
    yield agent
    agent.close()


def log(agent: Agent) -> list[str]:
    return (agent.root / "log.txt").read_text().splitlines()


def test_what_a_sync_client_delivers_again_is_not_run_again(agent: Agent) -> None:
    agent.drop("a.md", "Log one to log.txt")
    agent.result("a.md")
    wait_for(lambda: agent.files(agent.layout.archive), "it is settled")
    shutil.copy2(agent.layout.archive / agent.files(agent.layout.archive)[0], agent.layout.inbox / "a.md")
    wait_for(lambda: "delivered again" in agent.output(), "the daemon tells")
    wait_for(lambda: len(agent.files(agent.layout.archive)) == 2, "it is kept")
    assert log(agent) == ["one"]
    assert agent.files(agent.layout.outbox) == ["a.md"]
    assert not agent.files(agent.layout.inbox)


def test_what_a_person_drops_again_is_run_again(agent: Agent) -> None:
    for name in ("a.md", "a-2.md"):
        agent.drop("a.md", "Log one to log.txt")
        agent.result(name)
    assert log(agent) == ["one", "one"]


@pytest.mark.parametrize("place", ["archive", "failed"])
def test_a_command_that_is_moved_back_is_run_again(agent: Agent, place: str) -> None:
    text = "Log one to log.txt" if place == "archive" else "---\nid: x\nsteps:\n  - read: missing.md\n---\n"
    agent.drop("a.md", text)
    agent.result("a.md")
    folder = getattr(agent.layout, place)
    (name,) = wait_for(lambda: agent.files(folder), "it is settled")
    os.rename(folder / name, agent.layout.inbox / "a.md")
    assert agent.result("a-2.md")["status"] == agent.result("a.md")["status"]
    assert wait_for(lambda: agent.files(folder), "it is settled again") == [name]


def test_one_run_per_id(agent: Agent) -> None:
    for name in ("a.md", "b.md"):
        agent.drop(name, "---\nid: order-1\n---\nLog one to log.txt")
        agent.result(name)
    assert agent.result("b.md")["status"] == "refused"
    assert "order-1" in agent.result("b.md")["error"]
    assert log(agent) == ["one"]


def test_a_later_save_with_more_text_is_told_and_not_run(agent: Agent) -> None:
    agent.drop("a.md", "Log one to log.txt")
    agent.result("a.md")
    agent.drop("a.md", "Log one to log.txt\nLog two to log.txt")
    assert "later save" in agent.result("a-2.md")["error"]
    assert log(agent) == ["one"]


def test_a_correction_of_what_was_refused_is_run(agent: Agent) -> None:
    agent.drop("a.md", "Log one")
    assert agent.result("a.md")["status"] == "refused"
    agent.drop("a.md", "Log one to log.txt")
    assert agent.result("a-2.md")["status"] == "done"


def deliver(agent: Agent, name: str, text: str, modified: int, mode: int = 0o644) -> None:
    """As Syncthing does it: written elsewhere, given its name, then its time."""
    path = agent.layout.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".syncthing.{path.name}.tmp")
    temporary.write_text(text)
    temporary.chmod(mode)
    os.rename(temporary, path)
    os.utime(path, ns=(modified, modified))


ONE, TWO = 1_790_000_000_111_222_333, 1_790_000_003_111_222_333
REDELIVERIES = {
    "sender chmod": ("Log one to log.txt", ONE, 0o600, 1),
    "receiver index lost": ("Log one to log.txt", ONE, 0o644, 1),
    "sender touch": ("Log one to log.txt", TWO, 0o644, 2),
    "deliberate re-drop": ("Log one to log.txt", TWO, 0o644, 2),
    "author keeps saving": ("Log one to log.txt\nLog two to log.txt", TWO, 0o644, 1),
}


def test_every_row_of_the_table_of_redeliveries_also_across_a_restart_and_a_lost_index(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", "settle: 100ms\nsettle_renamed: 50ms\n")
    for number, row in enumerate(REDELIVERIES):
        deliver(agent, f"{number}.md", f"Log {row} to log.txt", ONE)
    agent.once()
    agent.layout.index.unlink()
    for number, (row, (text, modified, mode, _)) in enumerate(REDELIVERIES.items()):
        deliver(agent, f"{number}.md", text.replace("one", row), modified, mode)
    agent.once()
    lines = log(agent)
    assert {row: lines.count(row) for row in REDELIVERIES} == {row: times for row, (*_, times) in REDELIVERIES.items()}
    assert not agent.files(agent.layout.inbox), "nothing stays behind"
    assert len(agent.files(agent.layout.archive)) + len(agent.files(agent.layout.failed)) == 2 * len(REDELIVERIES)


SLOW = "---\nretries: 3\nbackoff: 1h\nsteps:\n  - append: {path: log.txt, text: one}\n  - read: missing.md\n---\n"


def test_what_is_delivered_again_while_the_first_one_has_not_ended(agent: Agent) -> None:
    """The first waits for another try, then the daemon is killed; it goes on, the repetition does not."""
    deliver(agent, "a.md", SLOW, ONE)
    wait_for(lambda: "retry" in agent.output(), "it waits for another try")
    deliver(agent, "a.md", SLOW, ONE, 0o600)
    wait_for(lambda: "delivered again" in agent.output(), "the daemon tells")
    deliver(agent, "a.md", SLOW + "\nand more", TWO)
    assert "later save" in agent.result("a.md")["error"]
    deliver(agent, "a.md", SLOW + "\nand more and more", TWO)
    assert "later save" in agent.result("a-2.md")["error"], "of the first one, which alone ran"
    agent.kill()
    agent.start()
    first = agent.runs()[-1]
    assert (first.status, first.settled) == ("waiting", ""), "it was not taken for a repetition of its repetition"
    agent.cli("cancel", first.run)
    assert agent.result("a-3.md")["status"] == "interrupted"
    assert log(agent) == ["one"]


CONFLICT = "sync-conflict-20260102-030405-ABCDEF7"


def test_a_conflict_copy_is_set_aside_and_told_and_runs_under_another_name(agent: Agent) -> None:
    agent.drop("home/a.md", "Log one to log.txt")
    done = agent.result("home/a.md")
    agent.drop(f"home/a.{CONFLICT}.md", "---\nattachments: [photo.jpg]\n---\nLog other to log.txt")
    told = agent.result("home/a-conflict-copy.md")
    assert told["status"] == "refused"
    assert (
        "conflict copy of home/a.md: two devices wrote it at the same time. It was not run; "
        f"home/a.md is run {done['run']} (done, outbox/home/a.md)" in told["error"]
    )
    assert "drop it under another name" in told["error"]
    assert "move it back" not in told.content
    place = agent.layout.failed / "home" / f"a.{CONFLICT}.md"
    wait_for(place.exists, "it is set aside")
    wait_for(lambda: "conflict copy of home/a.md" in agent.status(), "status tells")
    os.rename(place, agent.layout.inbox / "home" / place.name)
    assert agent.result("home/a-conflict-copy-2.md")["status"] == "refused", "moved back as it is, it is refused again"
    wait_for(place.exists, "it is set aside again")
    place.write_text("Log other to log.txt")
    os.rename(place, agent.layout.inbox / "home" / "b.md")
    assert agent.result("home/b.md")["status"] == "done"
    assert log(agent) == ["one", "other"]


def test_a_conflict_copy_tells_where_its_original_is(agent: Agent) -> None:
    agent.drop("draft.md", "---\ndraft: true\n---\nLog one to log.txt")
    agent.drop("draft (Anna's conflicted copy 2026-01-02).md", "---\ndraft: true\n---\nLog two to log.txt")
    assert "inbox/draft.md lies there still" in agent.result("draft-conflict-copy.md")["error"]
    agent.drop("gone (conflicted copy 2026-01-02 030405).md", "Log three to log.txt")
    assert "there is no gone.md in inbox/, and none was run" in agent.result("gone-conflict-copy.md")["error"]
    agent.drop("plan-DESKTOP-AB12CD3.md", "Log four to log.txt")
    assert agent.result("plan-DESKTOP-AB12CD3.md")["status"] == "done", "there is no plan.md: the name was chosen"
    agent.drop("plan.md", "Log five to log.txt")
    agent.result("plan.md")
    agent.drop("plan-LAPTOP-AB12CD3.md", "Log six to log.txt")
    assert "conflict copy of plan.md" in agent.result("plan-LAPTOP-AB12CD3.md")["error"]
    assert log(agent) == ["four", "five"]


def deadly(site: Path) -> dict[str, str]:
    """An environment with a tool and an engine that end their process, as a crash in a library would."""
    info = site / "deadly-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fsagent.tools]\ndie = deadly:Die\n[fsagent.engines]\ndeadly = deadly:Deadly\n"
    )
    (site / "deadly.py").write_text(
        "import os\nfrom fsagent.tools.base import Tool\nfrom fsagent.tools.place import PathArgs\n\n"
        "class Die(Tool):\n    name, args, main, effect, slow = 'die', PathArgs, 'path', 'read', False\n\n"
        "    def run(self, *_):\n        os._exit(9)\n\n"
        "class Deadly:\n    name = 'deadly'\n\n    def decide(self, *_):\n        os._exit(9)\n"
    )
    return {**os.environ, "PYTHONPATH": str(site)}


def test_a_command_that_ends_the_daemon_is_tried_twice_and_not_a_third_time(tmp_path: Path) -> None:
    environment = deadly(tmp_path / "site")
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("a.md", "---\nsteps:\n  - die: x\n---\n")
    for _ in range(2):
        assert agent.once(check=False, env=environment).returncode == 9
    assert agent.once(env=environment).returncode == 0
    assert agent.result("a.md")["status"] == "interrupted"
    assert agent.files(agent.layout.failed) == ["a.md"]
    assert not agent.files(agent.layout.inbox)


def test_a_deadly_command_takes_none_of_those_that_wait_behind_it_along(tmp_path: Path) -> None:
    environment = deadly(tmp_path / "site")
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("0.md", "---\nthread: one\nsteps:\n  - die: x\n---\n")
    for number in range(1, 10):
        agent.drop(f"{number}.md", f"---\nthread: one\n---\nLog {number} to log.txt")
    for _ in range(2):
        assert agent.once(check=False, env=environment).returncode == 9
    assert agent.once(env=environment).returncode == 0
    assert sorted(result["status"] for result in agent.results()) == ["done"] * 9 + ["interrupted"]
    assert sorted(log(agent)) == [str(number) for number in range(1, 10)]


def test_an_engine_that_ends_its_process_does_not_end_the_daemon(tmp_path: Path) -> None:
    environment = deadly(tmp_path / "site")
    agent = Agent(tmp_path / "ws", "settle: 0s\nsettle_renamed: 0s\n")
    agent.drop("a.md", "---\nengine: deadly\n---\nanything")
    assert agent.once(env=environment).returncode == 0
    assert agent.result("a.md")["status"] == "interrupted"
    assert "was ended 2 times" in agent.result("a.md")["error"]


def test_a_conflict_copy_of_a_task_is_told_once_and_left_alone(agent: Agent) -> None:
    copy = agent.layout.tasks / f"water.{CONFLICT}.md"
    copy.write_text("---\nevery: 1s\n---\nLog wrong to log.txt")
    notices = agent.layout.outbox / "notices"
    wait_for(lambda: list(notices.glob("*conflict-copy-of-task-water*")), "it is told in outbox")
    wait_for(lambda: f"tasks/{copy.name} is a sync conflict copy" in agent.status(), "status tells")
    agent.kill()
    agent.start()
    agent.drop("after.md", "Log right to log.txt")
    agent.result("after.md")
    assert (copy.exists(), log(agent), len(list(notices.iterdir()))) == (True, ["right"], 1)
    copy.unlink()
    wait_for(lambda: copy.name not in agent.status(), "it is settled")
