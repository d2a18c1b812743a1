"""Approvals as files: real daemons, real files, ticked as editors, sync clients and faces do it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from diskshim import DiskCalls
from faultshim import why_not
from fsagent.doctor import examine
from fsagent.workspace.allowed import Allowances
from fsagent.workspace.approvals import pending
from fsagent.workspace.runs import RunFolder
from harness import Agent, wait_for

WHY_NOT = why_not()
QUICK = "settle: 0.1s\nsettle_renamed: 0.05s\nscan_interval: 0.5s\n"
ASK = QUICK + "tools: {shell: ask, append: ask, write: ask}\n"
LINE = "---\nsteps:\n  - append: {path: log.txt, text: one}\n---\nWrite it down.\n"
GO_ON = "---\nsteps:\n  - append: {path: log.txt, text: one}\n    on_error: continue\n  - read: there.txt\n---\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws", ASK)
    (agent.root / "there.txt").write_text("still here\n")
    yield agent.start()
    agent.close()


def files(agent: Agent) -> list[Path]:
    return sorted(agent.layout.approvals.glob("*.md"))


def asked(agent: Agent, count: int = 1) -> list[Path]:
    return wait_for(lambda: files(agent) if len(files(agent)) >= count else None, "the question is asked")


def ask(agent: Agent, name: str = "a.md", text: str = LINE) -> Path:
    before = set(files(agent))
    agent.drop(name, text)
    return wait_for(lambda: next(iter(set(files(agent)) - before), None), "the question is asked")


def sed(path: Path, label: str = "approve once") -> None:
    subprocess.run(["sed", "-i", f"s/- \\[ \\] {label}/- [x] {label}/", str(path)], check=True)


def beat(agent: Agent) -> datetime:
    return datetime.fromisoformat(json.loads(agent.layout.beat.read_text())["beat"])


def log(agent: Agent) -> str:
    path = agent.root / "log.txt"
    return path.read_text() if path.exists() else ""


def events(agent: Agent, number: int = 0) -> list[dict[str, Any]]:
    return RunFolder(sorted(agent.layout.runs.iterdir())[number]).events()


def trouble(agent: Agent, words: str) -> str:
    def told() -> str | None:
        text = agent.status()
        return text if words in text else None

    return wait_for(told, f"status.md says {words!r}")


def archived(agent: Agent) -> list[str]:
    return [name for name in agent.files(agent.layout.archive) if "/approvals/" in name]


# ticks


def test_a_call_waits_for_its_tick_and_happens_once(agent: Agent) -> None:
    path = ask(agent)
    text = path.read_text()
    assert path.name.endswith("-append-log-txt.md")
    assert "**inbox/a.md waits for you: may the agent add to `log.txt`?**" in text
    assert "+one" in text, "the diff"
    assert "append needs an approval (tools: append: ask)" in text
    assert "“Write it down.”" in text
    told = trouble(agent, "Needs you")
    assert f"`approvals/{path.name}` waits for your tick: inbox/a.md wants to add to `log.txt`, until " in told
    assert [run.status for run in agent.runs()] == ["waiting"]
    assert log(agent) == ""
    sed(path)
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"
    assert [event["event"] for event in events(agent) if event["event"] in ("asked", "filed", "answered", "call")] == [
        "asked", "filed", "answered", "call",
    ]  # fmt: skip
    assert archived(agent) == [f"{datetime.now(UTC):%Y-%m}/approvals/{path.name}"]
    assert files(agent) == []
    wait_for(lambda: not examine(agent.layout).faults, "the index is up to date")
    assert f"append `log.txt` (approvals/{path.name})" not in agent.output()
    assert f"(approvals/{path.name})" in agent.output()


def in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def renamed(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".syncthing.{path.name}.tmp")
    temporary.write_bytes(data)
    os.rename(temporary, path)


def backed_up(path: Path, data: bytes) -> None:
    os.rename(path, path.with_name(path.name + "~"))
    path.write_bytes(data)
    path.with_name(path.name + "~").unlink()


def in_two_parts(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        os.fsync(file.fileno())
        file.write(data[len(data) // 2 :])


@pytest.mark.parametrize("save", [in_place, renamed, backed_up, in_two_parts])
@pytest.mark.parametrize("crlf", [False, True])
def test_a_tick_saved_by_any_writer(agent: Agent, save: Callable[[Path, bytes], None], crlf: bool) -> None:
    path = ask(agent)
    data = path.read_bytes().replace(b"- [ ] approve once", b"* [X] approve once")
    save(path, b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") if crlf else data)
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"


def test_a_file_that_is_open_for_writing_is_not_read(agent: Agent) -> None:
    path = ask(agent)
    ticked = path.read_bytes().replace(b"- [ ] approve once", b"- [x] approve once")
    with path.open("r+b") as file:
        file.write(ticked)
        file.truncate()
        file.flush()
        since = beat(agent)
        wait_for(lambda: (beat(agent) - since).total_seconds() > 1, "it was looked at again")
        assert log(agent) == ""
    assert agent.result("a.md")["status"] == "done"


def test_a_refusal_and_its_comment_reach_the_result(agent: Agent) -> None:
    path = ask(agent)
    path.write_text(path.read_text().replace("- [ ] refuse", "- [x] refuse").replace("Comment:", "Comment: not today"))
    result = agent.result("a.md")
    assert result["status"] == "refused"
    assert "a person refused append: not today" in result.content
    assert log(agent) == ""


def test_a_playbook_goes_on_after_a_refusal_where_it_says_so(agent: Agent) -> None:
    sed(ask(agent, text=GO_ON), "refuse")
    result = agent.result("a.md")
    assert result["status"] == "done"
    assert "(append failed: a person refused append)" in result.content
    assert "still here" in result.content


def test_a_changed_block_is_what_is_done(agent: Agent) -> None:
    path = ask(agent)
    text = path.read_text().replace("- [ ] approve once", "- [x] approve once")
    path.write_text(text.replace("path: log.txt\ntext: one", "path: notes/log.txt\ntext: two"))
    assert agent.result("a.md")["status"] == "done"
    assert (agent.root / "notes" / "log.txt").read_text() == "two\n"
    assert log(agent) == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("path: log.txt", "path: ../out.txt", "leaves the workspace"),
        ("path: log.txt", "path: approvals/x.md", "only a person answers there"),
        ("text: one", "txet: one", "append has no argument 'txet'"),
        ("path: log.txt", "path: [", "the block with the arguments"),
        ("path: log.txt", "path: secret.txt", "is denied by the settings"),
    ],
)
def test_a_mistake_in_the_block_is_told_and_the_file_stays(agent: Agent, old: str, new: str, says: str) -> None:
    agent.layout.settings.write_text(QUICK + "tools: {append: {'secret*': deny, '*': ask}}\n")
    wait_for(lambda: "settings read" in agent.output())
    path = ask(agent)
    text = path.read_text().replace("- [ ] approve once", "- [x] approve once")
    if "leaves" in says or "only a person" in says:  # a path is refused when the call is made: it can do no harm
        path.write_text(text.replace(old, new))
        result = agent.result("a.md")
        assert result["status"] == "refused"
        assert says in result.content
        return
    path.write_text(text.replace(old, new))
    trouble(agent, says)
    assert path.read_text() == text.replace(old, new), "a person's file is not changed"
    path.write_text(text)
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"


def test_two_ticks_are_no_answer_and_are_told(agent: Agent) -> None:
    path = ask(agent)
    path.write_text(path.read_text().replace("- [ ] refuse", "- [x] refuse").replace("- [ ] approve", "- [x] approve"))
    trouble(agent, "two boxes are ticked; keep one")
    assert log(agent) == ""


def test_what_is_deleted_unanswered_is_written_again(agent: Agent) -> None:
    path = ask(agent)
    text = path.read_text()
    path.unlink()
    wait_for(path.exists, "it is written again")
    assert path.read_text() == text
    sed(path)
    assert agent.result("a.md")["status"] == "done"


def test_always_is_asked_no_more_for_exactly_this(agent: Agent) -> None:
    sed(ask(agent), "always allow this")
    assert agent.result("a.md")["status"] == "done"
    assert agent.layout.allowed.stat().st_mode & 0o777 == 0o600
    agent.drop("b.md", LINE.replace("text: one", "text: two"))
    assert agent.result("b.md")["status"] == "done"
    assert log(agent) == "one\ntwo\n"
    other = ask(agent, "c.md", LINE.replace("log.txt", "other.txt"))
    assert "other.txt" in other.read_text()
    done = agent.cli("ask", "--timeout", "1s", "Add three to log.txt")
    assert done.returncode == 5, "another trigger asks"
    shown = agent.cli("approvals", "--always").stdout
    assert shown.startswith("  1  append log.txt  asked for by inbox  since ")
    wait_for(lambda: not examine(agent.layout).faults, "the index is up to date")
    assert "asked again from now on: append log.txt" in agent.cli("approvals", "--forget", "1").stdout
    assert agent.cli("approvals", "--forget", "1").returncode == 1
    assert agent.cli("approvals", "--always").stdout == "nothing was allowed for good\n"
    ask(agent, "d.md")


def test_what_is_allowed_for_good_never_beats_a_deny(agent: Agent) -> None:
    Allowances(agent.layout).add("append", "log.txt", "inbox", "cli")
    agent.layout.settings.write_text(QUICK + "tools: {append: deny}\n")
    wait_for(lambda: "settings read" in agent.output())
    agent.drop("a.md", LINE)
    assert agent.result("a.md")["status"] == "refused"
    assert log(agent) == ""


def test_a_damaged_list_allows_nothing_and_is_told(agent: Agent) -> None:
    agent.layout.allowed.write_text("{")
    path = ask(agent)
    trouble(agent, ".fsagent/allowed.json is damaged")
    assert [fault.file for fault in examine(agent.layout).faults] == [".fsagent/allowed.json"]
    sed(path, "always allow this")
    trouble(agent, "the question stays open")
    assert log(agent) == ""


def test_a_question_that_nobody_answers_expires(agent: Agent) -> None:
    agent.layout.settings.write_text(ASK + "approval_timeout: 1s\n")
    wait_for(lambda: "settings read" in agent.output())
    path = ask(agent)
    text = path.read_text()
    result = agent.result("a.md")
    assert result["status"] == "refused"
    assert "nobody approved append in time" in result.content
    assert log(agent) == ""
    path.write_text(text.replace("- [ ] approve once", "- [x] approve once"))
    trouble(agent, f"approvals/{path.name} comes too late: the question was settled before (expired)")
    assert log(agent) == ""
    assert path.exists(), "a person's file stays"


# runs that wait


def test_a_waiting_run_keeps_nobody_waiting(agent: Agent) -> None:
    path = ask(agent, "t/a.md")
    agent.drop("t/b.md", "Hello")
    assert agent.result("t/b.md")["status"] == "done"
    trouble(agent, path.name)
    assert json.loads(agent.cli("status", "--json").stdout)["snapshot"]["approvals"][0]["name"].endswith(path.name)
    assert agent.stop() == 0
    assert "waits for your tick" in agent.status()


def test_a_task_that_waits_falls_due_no_more(agent: Agent) -> None:
    (agent.layout.tasks / "t.md").write_text("---\nevery: 1s\nsteps:\n  - append: {path: log.txt, text: beat}\n---\n")
    asked(agent)
    wait_for(lambda: "skipped" in agent.output(), "a slot is skipped")
    assert len(files(agent)) == 1


def test_the_time_that_a_run_waits_is_not_its_own(agent: Agent) -> None:
    path = ask(agent, text=LINE.replace("---\n", "---\ntimeout: 0.5s\n", 1))
    asked_at = path.stat().st_mtime
    wait_for(lambda: datetime.now(UTC).timestamp() - asked_at > 0.7)
    sed(path)
    assert agent.result("a.md")["status"] == "done"


def test_a_waiting_run_can_be_cancelled(agent: Agent) -> None:
    path = ask(agent)
    done = agent.cli("cancel", "last")
    assert done.returncode == 0, done.stderr
    assert agent.result("a.md")["status"] == "interrupted"
    assert [Path(name).name for name in archived(agent)] == [path.name]
    assert log(agent) == ""
    wait_for(lambda: not examine(agent.layout).faults, "the index is up to date")


def test_several_questions_of_one_run_come_one_after_the_other(agent: Agent) -> None:
    """A playbook has one call in a step; those of an engine with more come together (tests/test_consent.py)."""
    both = LINE.replace("text: one}", "text: one}\n  - append: {path: log.txt, text: two}")
    first = ask(agent, text=both)
    sed(first)
    second = wait_for(
        lambda: next((path for path in files(agent) if path.name != first.name or "two" in path.read_text()), None)
    )
    assert log(agent) == "one\n"
    sed(second)
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\ntwo\n"


def test_once_does_not_wait_for_people_but_takes_their_answers(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", ASK)
    agent.drop("a.md", LINE)
    agent.once()
    (path,) = files(agent)
    agent.once()
    assert files(agent) == [path], "no second file"
    sed(path)
    agent.once()
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"
    assert files(agent) == []


# crashes


def test_a_question_survives_restarts_and_kills(agent: Agent) -> None:
    path = ask(agent)
    text = path.read_text()
    for end in (agent.kill, agent.stop, agent.kill):
        end()
        agent.start()
    assert [each.name for each in files(agent)] == [path.name]
    assert path.read_text() == text
    agent.kill()
    sed(path)
    agent.start()
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"


def cut(folder: Path, last: str, index: Path) -> None:
    """Leave the records up to the ``last`` of this kind: as a kill right behind it would."""
    lines = (folder / "steps.jsonl").read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line)["event"] for line in lines]
    end = len(kinds) - kinds[::-1].index(last)
    (folder / "steps.jsonl").write_bytes(b"".join(lines[:end]))
    index.unlink()
    for tail in ("-wal", "-shm"):
        index.with_name(index.name + tail).unlink(missing_ok=True)


@pytest.mark.parametrize("last", ["asked", "filed"])
@pytest.mark.parametrize("there", [False, True])
def test_what_was_cut_off_while_asking_is_asked_once(tmp_path: Path, last: str, there: bool) -> None:
    agent = Agent(tmp_path / "ws", ASK)
    agent.drop("a.md", LINE)
    agent.once()
    (path,) = files(agent)
    if last == "asked" or not there:
        path.unlink()
    cut(next(agent.layout.runs.iterdir()), last, agent.layout.index)
    agent.once()
    assert len(files(agent)) == 1
    assert [event["event"] for event in events(agent)].count("asked") == 1
    assert pending(RunFolder(next(agent.layout.runs.iterdir()))).file == files(agent)[0].name
    sed(files(agent)[0])
    agent.once()
    assert log(agent) == "one\n"


def test_an_answer_that_was_recorded_counts_and_its_file_is_put_away(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", ASK)
    agent.drop("a.md", LINE)
    agent.once()
    (path,) = files(agent)
    sed(path)
    shutil.copytree(agent.root, tmp_path / "before")
    agent.once()
    folder = next(agent.layout.runs.iterdir())
    lines = (folder / "steps.jsonl").read_bytes().splitlines(keepends=True)
    end = [json.loads(line)["event"] for line in lines].index("answered") + 1
    cut_off = Agent(tmp_path / "before")
    (cut_off.layout.runs / folder.name / "steps.jsonl").write_bytes(b"".join(lines[:end]))
    assert files(cut_off), "the file was not put away yet"
    cut_off.once()
    assert log(cut_off) == "one\n"
    assert files(cut_off) == []
    assert [Path(name).name for name in archived(cut_off)] == [path.name]
    assert not examine(cut_off.layout).faults


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_kill_9_at_every_call_between_the_question_and_the_result(tmp_path: Path, disk: DiskCalls) -> None:
    """Killed before the n-th call while it asks, and again while it goes on: one line, never before a tick."""
    reached = True
    number = 0
    while reached:
        number += 1
        where = f"killed before call {number}"
        agent = Agent(tmp_path / str(number), ASK, programs=disk.programs)
        agent.drop("a.md", LINE)
        reached = disk.kills(agent, number)
        assert log(agent) == "", where
        agent.once()
        assert log(agent) == "", where
        (path,) = files(agent)
        sed(path)
        reached |= disk.kills(agent, number)
        agent.once()
        if files(agent):  # cut off in the middle of the call, which had not happened: one tick is not enough for two
            assert log(agent) == "", where
            assert "it was approved before" in files(agent)[0].read_text(), where
            sed(files(agent)[0])
            agent.once()
        (result,) = agent.results()
        lines = log(agent)
        if result["status"] == "done":
            assert lines == "one\n", where
        else:
            assert (result["status"], lines in ("", "one\n")) == ("interrupted", True), where
        assert files(agent) == [], where
        assert not examine(agent.layout).faults, where
        shutil.rmtree(agent.root)
        assert number < 400


# whoever tries to get around it


def two(agent: Agent) -> tuple[Path, Path]:
    return ask(agent), ask(agent, "b.md", LINE.replace("log.txt", "evil.txt"))


def test_an_answer_to_one_run_counts_for_no_other(agent: Agent) -> None:
    good, evil = two(agent)
    ticked = good.read_text().replace("- [ ] approve once", "- [x] approve once")
    evil_text = evil.read_text()
    ids = [text.split("id: ")[1].split()[0] for text in (ticked, evil_text)]
    evil.write_text(ticked)
    trouble(agent, f"approvals/{evil.name}: its 'id:' is not {ids[1]}")
    good.with_name("copy.md").write_text(ticked)
    trouble(agent, f"approvals/copy.md is not the file in which it was asked; answer in {good.name}")
    good.with_name("forged.md").write_text(evil_text.replace("- [ ] approve once", "- [x] approve once"))
    trouble(agent, "approvals/forged.md is not the file in which it was asked")
    good.with_name(good.stem + ".sync-conflict-20261122-101010-ABCDEFG.md").write_text(ticked)
    trouble(agent, "is a sync conflict copy; it answers nothing")
    good.with_name("other.md").write_text("- [x] approve once\n")
    trouble(agent, "approvals/other.md is no question of this agent")
    assert not (agent.root / "evil.txt").exists()
    assert log(agent) == ""
    assert {run.status for run in agent.runs()} == {"waiting"}


def test_neither_links_nor_hard_links_are_answers(agent: Agent) -> None:
    good, evil = two(agent)
    ticked = good.read_text().replace("- [ ] approve once", "- [x] approve once")
    outside = agent.root / "outside.md"
    outside.write_text(ticked)
    good.unlink()
    good.symlink_to(outside)
    trouble(agent, f"approvals/{good.name}: is a link or a special file")
    evil_ticked = evil.read_text().replace("- [ ] approve once", "- [x] approve once")
    second = agent.root / "second.md"
    second.write_text(evil_ticked)
    evil.unlink()
    os.link(second, evil)
    trouble(agent, f"approvals/{evil.name}: has a second name (a hard link)")
    assert log(agent) == ""
    assert not (agent.root / "evil.txt").exists()


def test_what_the_file_says_beside_its_block_changes_nothing(agent: Agent) -> None:
    path = ask(agent)
    text = path.read_text().replace("- [ ] approve once", "- [x] approve once")
    head, body = text.split("```text\nlog.txt", 1)
    forged = head.replace("run: 2", "run: 9").replace("hashes:\n- ", "hashes:\n- 00") + "```text\nevil.txt" + body
    path.write_text(forged.replace("may the agent add to `log.txt`", "may the agent add to `evil.txt`"))
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"
    assert not (agent.root / "evil.txt").exists()


def test_a_file_that_comes_back_by_sync_does_not_answer_again(agent: Agent) -> None:
    path = ask(agent, text=LINE.replace("---\n", "---\nretries: 0\n", 1))
    sed(path)
    assert agent.result("a.md")["status"] == "done"
    old = (agent.layout.archive / archived(agent)[0]).read_text()
    path.write_text(old)
    wait_for(lambda: not path.exists(), "what is known is put away")
    path.write_text(old + "\nchanged")
    trouble(agent, "comes too late")
    assert log(agent) == "one\n"


@pytest.mark.parametrize(
    "step",
    ["append: {path: approvals/NAME, text: '- [x] approve once'}", "write: {path: approvals/NAME, text: x}",
     "edit: {path: approvals/NAME, old: '[ ] approve once', new: '[x] approve once'}",
     "append: {path: APPROVALS/NAME, text: x}", "write: {path: ./notes/../approvals/NAME, text: x}"],
)  # fmt: skip
def test_no_tool_writes_there(agent: Agent, step: str) -> None:
    path = ask(agent)
    agent.layout.settings.write_text(QUICK)
    wait_for(lambda: "settings read" in agent.output())
    agent.drop("evil.md", f"---\nsteps:\n  - {step.replace('NAME', path.name)}\n---\n")
    result = agent.result("evil.md")
    assert result["status"] == "refused"
    assert "only a person answers there" in result.content
    assert "- [ ] approve once" in path.read_text()


# the command line


def test_the_command_line_answers_as_a_person_does(agent: Agent) -> None:
    path, other = two(agent)
    shown = agent.cli("approvals").stdout
    assert path.name in shown
    assert "add to `evil.txt`" in shown
    views = json.loads(agent.cli("approvals", "--json").stdout)
    assert [view["file"] for view in views] == [f"approvals/{path.name}", f"approvals/{other.name}"]
    assert views[0]["questions"][0]["args"] == {"path": "log.txt", "text": "one"}
    assert agent.cli("approve", "last").returncode == 1, "there are two"
    assert agent.cli("approve", "zzz").returncode == 1
    done = agent.cli("refuse", views[1]["id"], "--comment", "no evil")
    assert done.stdout.startswith("refused: add to `evil.txt`; run ")
    assert "a person refused append: no evil" in agent.result("b.md").content
    done = agent.cli("approve", f"approvals/{path.name}")
    assert done.stdout.startswith("approved: add to `log.txt`; run "), done.stderr
    assert agent.result("a.md")["status"] == "done"
    assert log(agent) == "one\n"
    answered = [event for event in events(agent) if event["event"] == "answered"]
    assert answered[0]["answers"][0]["by"] == "cli"
    assert agent.cli("approvals").stdout == "nothing waits for an answer\n"
    assert agent.cli("approve", "last").returncode == 1


def test_without_a_daemon_the_tick_waits(agent: Agent) -> None:
    path = ask(agent)
    agent.kill()
    done = agent.cli("approve", "last", "--always")
    assert "goes on once a daemon is started" in done.stdout
    assert "- [x] always allow this (cli)" in path.read_text()
    assert agent.cli("refuse", "last").returncode == 1
    agent.once()
    assert log(agent) == "one\n"
    assert [each.by for each in Allowances(agent.layout).list()] == ["cli"]
