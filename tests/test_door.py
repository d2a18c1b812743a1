"""The door of all faces: handing in, cancelling and running again, by files, with a real daemon on a real folder."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from fsagent.daemon import Daemon
from fsagent.errors import ConflictError, DocumentError, NotFoundError
from fsagent.faces import door
from fsagent.faces.door import Caller
from fsagent.files.documents import Document, read_document
from fsagent.model import Fault
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Cancel, RunFolder, ask_to_cancel, dropped, new_run_id
from fsagent.workspace.tasks import TaskBook
from harness import Agent, wait_for

SETTINGS = (
    "settle: 50ms\nsettle_renamed: 50ms\nscan_interval: 1h\nretry_wait: 1h\nshutdown_wait: 1s\n"
    "max_runs: 6\ntools: {shell: allow}\n"
)
CLI, PHONE = Caller("cli"), Caller("http", "phone")
LATER = "2999-01-01T00:00+00:00"
MISSING = {"steps": [{"read": "missing.md"}]}
SLEEP = {"steps": [{"shell": "sleep 300"}]}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """A workspace with no daemon."""
    agent = Agent(tmp_path / "ws", SETTINGS)
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A workspace with a daemon, shared by tests that each look at their own runs only."""
    agent = Agent(tmp_path_factory.mktemp("live") / "ws", SETTINGS).start()
    yield agent
    agent.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


def give(agent: Agent, text: str = "", caller: Caller = CLI, **fields: object) -> str:
    return door.hand_in(agent.layout, door.compose(text, fields), caller).run


def fields_of(agent: Agent, run: str) -> dict[str, object]:
    """The frontmatter of a run's result, once everything is done about the run."""
    wait_for(lambda: door.find_run(agent.layout, run).settled(), f"{run} is settled", 20)
    found = door.result_of(agent.layout, run)
    assert found
    return found.fields


def begins(agent: Agent, run: str, event: str) -> None:
    wait_for(lambda: event in [each["event"] for each in door.find_run(agent.layout, run).events()], f"{run}: {event}")


def is_cancelled(agent: Agent, run: str, who: str = "cli") -> dict[str, object]:
    found = fields_of(agent, run)
    assert found["status"] == "interrupted"
    assert str(found["error"]).partition(" while ")[0] == f"cancelled by {who}"
    assert (agent.layout.failed / "cli" / f"{run}.md").is_file()
    assert not (agent.layout.cancel / run).exists()
    return found


def programs(word: str) -> list[str]:
    """The processes that have a word on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if word.encode() in path.read_bytes().split(b"\0") else []
        except OSError:
            continue
    return found


def test_what_is_handed_in_one_after_the_other_runs_in_this_order(agent: Agent) -> None:
    for number in range(50):
        give(agent, f"Log {number} to log.txt")
    agent.once()
    assert (agent.root / "log.txt").read_text().split() == [str(number) for number in range(50)]


# Cancel


def test_a_run_under_way_is_ended_with_all_that_it_started(live: Agent) -> None:
    length = f"300.{random.randrange(10**9):09}"
    line = f"sleep {length} & setsid sleep {length} & (sleep {length} &) ; wait"
    steps = [{"append": {"path": "t1.txt", "text": "one"}}, {"shell": {"command": line, "shell": True}}]
    run = give(live, thread="t1", steps=steps)
    wait_for(lambda: len(programs(length)) == 3, "the programs run")
    door.cancel(live.layout, run, PHONE)
    started = time.monotonic()
    found = is_cancelled(live, run, "http (phone)")
    assert time.monotonic() - started < 10
    assert found["changed"] == ["t1.txt"]
    assert "while shell was under way" in str(found["error"])
    assert not programs(length)
    result = live.result(f"cli/{run}.md")
    assert result["thread"] == "t1"
    assert "cancelled by http (phone)" in result.content
    wait_for(
        lambda: next(each for each in live.runs() if each.run == run).status == "interrupted", "it is listed as ended"
    )


def test_a_run_that_waits_behind_another_is_ended_and_lets_those_behind_it_pass(live: Agent) -> None:
    first, second = (give(live, thread="t2", **SLEEP) for _ in range(2))
    third = give(live, "Log three to t2.txt", thread="t2")
    begins(live, first, "started")
    begins(live, third, "understood")
    door.cancel(live.layout, second, CLI)
    assert is_cancelled(live, second)["thread"] == "t2"
    assert door.find_run(live.layout, third).summary().status == "waiting"
    door.cancel(live.layout, first, CLI)
    is_cancelled(live, first)
    assert fields_of(live, third)["status"] == "done"


def test_what_waits_behind_a_cancelled_run_need_not_wait_for_any_other(agent: Agent) -> None:
    agent.layout.settings.write_text(SETTINGS.replace("max_runs: 6", "max_runs: 1"))
    agent.start()
    slow = give(agent, **SLEEP)
    begins(agent, slow, "started")
    second, third = give(agent, thread="t", **SLEEP), give(agent, "Log three to log.txt", thread="t")
    begins(agent, third, "understood")
    door.cancel(agent.layout, second, CLI)
    assert fields_of(agent, third)["status"] == "done"
    assert not door.find_run(agent.layout, slow).ended()


def test_a_run_that_waits_for_a_retry_is_ended_and_tells_what_it_changed(live: Agent) -> None:
    run = give(live, retries=3, steps=[{"append": {"path": "t3.txt", "text": "one"}}, {"read": "missing.md"}])
    begins(live, run, "retry")
    door.cancel(live.layout, run, CLI)
    assert is_cancelled(live, run)["changed"] == ["t3.txt"]


def test_a_run_that_waits_for_its_time_is_ended(live: Agent) -> None:
    run = give(live, "Log one to t4.txt", not_before=LATER)
    begins(live, run, "held")
    door.cancel(live.layout, run, CLI)
    is_cancelled(live, run)
    assert not (live.root / "t4.txt").exists()


def test_a_run_that_was_cancelled_before_any_daemon_saw_it_is_never_run(agent: Agent) -> None:
    runs = [give(agent, f"Log {number} to log.txt") for number in range(3)]
    door.cancel(agent.layout, runs[1], CLI)
    agent.start()
    is_cancelled(agent, runs[1])
    assert {fields_of(agent, run)["status"] for run in (runs[0], runs[2])} == {"done"}
    assert sorted((agent.root / "log.txt").read_text().split()) == ["0", "2"]


def test_what_is_paused_is_cancelled_all_the_same(agent: Agent) -> None:
    agent.start()
    under_way, retried, held = (
        give(agent, **SLEEP),
        give(agent, retries=1, **MISSING),
        give(agent, "x", not_before=LATER),
    )
    begins(agent, under_way, "started")
    begins(agent, retried, "retry")
    begins(agent, held, "held")
    agent.layout.stop.touch()
    new = give(agent, "Log one to log.txt")
    for run in (under_way, retried, held, new):
        door.cancel(agent.layout, run, CLI)
    for run in (under_way, retried, held, new):
        is_cancelled(agent, run)
    assert not (agent.root / "log.txt").exists()


def test_what_has_ended_or_never_was_cannot_be_cancelled(live: Agent) -> None:
    run = give(live, "hello")
    fields_of(live, run)
    with pytest.raises(ConflictError, match=rf"run {run} has ended already \(done\)"):
        door.cancel(live.layout, run, CLI)
    for name in ("", ".", "..", "../runs", "a/b", "20260101-000000-aaaaa", "x" * 300, "a\0b", f"{run}/", f"{run}\n"):
        with pytest.raises(NotFoundError):
            door.cancel(live.layout, name, CLI)
        assert door.result_of(live.layout, name) is None
    assert not list(live.layout.cancel.iterdir())


def test_a_wish_that_comes_too_late_leaves_nothing_behind(live: Agent) -> None:
    run = give(live, "hello")
    fields_of(live, run)
    for name in (run, "20260101-000000-aaaaa"):
        ask_to_cancel(live.layout, name, Cancel(time=datetime.now(UTC), trigger="cli"))
    wait_for(lambda: not list(live.layout.cancel.iterdir()), "the wishes are gone")
    assert not RunFolder(live.layout.runs / run).cancel.exists()
    assert f"cancel      {run}" not in live.output()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_wish_survives_the_death_of_the_daemon(agent: Agent, when: str) -> None:
    agent.start()
    steps = [{"append": {"path": "log.txt", "text": "one"}}, {"shell": "sleep 300"}]
    run, waits = give(agent, thread="t", steps=steps), give(agent, "Log two to log.txt", thread="t")
    begins(agent, waits, "understood")
    steps_file = door.find_run(agent.layout, run).steps
    wait_for(lambda: '"tool":"shell","before"' in steps_file.read_text(), "the second step is under way")
    for when_to_kill in ("after", "before"):
        if when == when_to_kill:
            for each in (run, waits):
                door.cancel(agent.layout, each, CLI)
        if when_to_kill == "after":
            agent.kill()
    agent.start()
    assert is_cancelled(agent, run)["changed"] == ["log.txt"]
    is_cancelled(agent, waits)
    assert (agent.root / "log.txt").read_text() == "one\n"


def test_a_wish_in_the_moment_of_a_failure_is_not_put_off_to_the_retry(live: Agent) -> None:
    dice, runs = random.Random(7), []
    for _ in range(60):
        runs.append(give(live, retries=1, **MISSING))
        folder, events = live.layout.runs / runs[-1], dice.randrange(1, 7)
        wait_for(lambda folder=folder, events=events: len(RunFolder(folder).events()) >= events, "it goes on")
        door.cancel(live.layout, runs[-1], CLI)
    for run in runs:
        is_cancelled(live, run)
    assert not list(live.layout.cancel.iterdir())


def test_strange_things_in_the_place_of_wishes_hurt_nobody(agent: Agent) -> None:
    agent.start()
    runs = [give(agent, **SLEEP) for _ in range(4)]
    for run in runs:
        begins(agent, run, "started")
    place = agent.layout.cancel
    for name in (".hidden", "a b", "ünïcode", "x" * 200, "-rf", "new\nline"):
        (place / name).write_text("{}")
    (place / runs[0]).mkdir()
    os.mkfifo(place / runs[1])
    (place / runs[2]).symlink_to("/dev/zero")
    (place / runs[3]).write_bytes(b'{"time": "\xff')
    last = give(agent, **SLEEP)
    begins(agent, last, "started")
    door.cancel(agent.layout, last, CLI)
    assert fields_of(agent, last)["status"] == "interrupted"
    assert sorted(path.name for path in place.iterdir()) == sorted(
        [".hidden", "a b", "ünïcode", "x" * 200, "-rf", "new\nline", runs[0]]
    )
    assert not any(door.find_run(agent.layout, run).ended() for run in runs), "no wish, no end"
    assert "error" not in agent.output()
    shutil.rmtree(place)
    door.cancel(agent.layout, runs[0], CLI)
    agent.stop()
    agent.once()
    is_cancelled_now = door.result_of(agent.layout, runs[0])
    assert is_cancelled_now
    assert is_cancelled_now.fields["status"] == "interrupted"


# Retry


def once_each(agent: Agent, *texts: str) -> None:
    """Each of these commands lies in one place and no other."""
    layout = agent.layout
    lying = [
        path for place in (layout.inbox, layout.archive, layout.failed) for path in place.rglob("*") if path.is_file()
    ]
    lying += [path for place in (layout.runs, layout.drop) for path in place.glob("*/claimed.md")]
    assert Counter(path.read_text() for path in lying) == Counter(texts)


def test_what_failed_runs_again_under_its_own_name(agent: Agent) -> None:
    text = "---\nattachments: data.csv\nsteps:\n  - read: '{{ command.attachments.1 }}'\n  - read: notes.txt\n---\n"
    (agent.layout.inbox / "taxes").mkdir()
    (agent.layout.inbox / "taxes" / "data.csv").write_text("1;2")
    agent.drop("taxes/a.md", text)
    agent.start()
    assert agent.result("taxes/a.md")["status"] == "failed"
    run = wait_for(agent.runs, "the run is listed")[0].run
    wait_for(lambda: door.find_run(agent.layout, run).settled(), "it is settled")
    (agent.root / "notes.txt").write_text("noted")
    handed = door.retry(agent.layout, run, PHONE)
    assert (handed.known, handed.command) == (False, "taxes/a.md")
    assert fields_of(agent, handed.run)["status"] == "done"
    assert "noted" in agent.result("taxes/a-2.md").content
    once_each(agent, text, "1;2")
    assert not agent.files(agent.layout.failed)
    assert RunFolder(agent.layout.runs / handed.run).raw() == text.encode()
    envelope = RunFolder(agent.layout.runs / handed.run).envelope()
    assert (envelope.again, envelope.by, envelope.trigger, envelope.thread) == (run, "phone", "http", "taxes")


def test_asked_twice_it_runs_once_and_a_chain_goes_on(agent: Agent) -> None:
    agent.start()
    text = "---\nid: order-7\nsteps:\n  - read: missing.md\n---\n"
    agent.drop("a.md", text)
    agent.result("a.md")
    runs = [wait_for(agent.runs)[0].run]
    for number in range(2, 5):
        wait_for(lambda: door.find_run(agent.layout, runs[-1]).settled(), "it is settled")
        again = [door.retry(agent.layout, runs[-1], CLI) for _ in range(2)]
        assert [each.known for each in again] == [False, True]
        assert again[0].run == again[1].run
        assert "missing.md" in str(fields_of(agent, again[0].run)["error"])
        assert agent.result(f"a-{number}.md")["run"] == again[0].run
        assert door.retry(agent.layout, runs[-1], CLI) == again[1], "asked once more when all is over"
        once_each(agent, text)
        runs.append(again[0].run)
    agent.kill()
    agent.start()
    assert len(agent.runs()) == 4
    once_each(agent, text)


def test_each_takes_its_own_attachments_along_and_no_others(agent: Agent) -> None:
    agent.start()
    file = agent.root / "data.csv"
    runs = []
    for text in ("one", "one", "two"):
        file.write_text(text)
        raw = door.compose("", MISSING, {"data.csv": file})
        runs.append(door.hand_in(agent.layout, raw, CLI, attachments={"data.csv": file}).run)
        fields_of(agent, runs[-1])
    failed = agent.layout.failed / "cli"
    assert [(failed / name).read_text() for name in ("data.csv", "data-2.csv", "data-3.csv")] == ["one", "one", "two"]
    again = door.retry(agent.layout, runs[1], CLI).run
    fields_of(agent, again)
    assert [(failed / name).read_text() for name in ("data.csv", "data-2.csv", "data-3.csv")] == ["one", "one", "two"]
    (agent.root / "missing.md").write_text("here now")
    for run in (again, runs[2]):
        assert fields_of(agent, door.retry(agent.layout, run, CLI).run)["status"] == "done"
    assert agent.files(failed) == [f"{runs[0]}.md", "data.csv"]


def test_what_a_person_made_of_a_failed_command_is_theirs(agent: Agent) -> None:
    agent.start()
    run = give(agent, **MISSING)
    fields_of(agent, run)
    path = agent.layout.failed / "cli" / f"{run}.md"
    path.write_text("my own words")
    new = door.retry(agent.layout, run, CLI).run
    fields_of(agent, new)
    assert path.read_text() == "my own words"
    assert len(agent.files(agent.layout.failed)) == 2


def test_refused_and_cancelled_runs_run_again_too(live: Agent) -> None:
    refused, cancelled = give(live, "Frobnicate the quux"), give(live, **SLEEP)
    begins(live, cancelled, "started")
    door.cancel(live.layout, cancelled, CLI)
    assert fields_of(live, refused)["status"] == "refused"
    is_cancelled(live, cancelled)
    assert fields_of(live, door.retry(live.layout, refused, CLI).run)["status"] == "refused"
    again = door.retry(live.layout, cancelled, CLI).run
    begins(live, again, "started")
    door.cancel(live.layout, again, CLI)
    is_cancelled_again = fields_of(live, again)
    assert is_cancelled_again["status"] == "interrupted"
    assert not (live.layout.failed / "cli" / f"{cancelled}-2.md").exists()


def test_what_is_done_or_not_over_is_not_run_again(live: Agent) -> None:
    done, held = give(live, "hello"), give(live, "hello", not_before=LATER)
    fields_of(live, done)
    begins(live, held, "held")
    with pytest.raises(ConflictError, match="was done"):
        door.retry(live.layout, done, CLI)
    with pytest.raises(ConflictError, match=r"has not ended yet \(waiting\)"):
        door.retry(live.layout, held, CLI)
    with pytest.raises(NotFoundError):
        door.retry(live.layout, "../runs", CLI)
    (live.layout.runs / "20260101-000000-aaaaa").mkdir(exist_ok=True)
    with pytest.raises(ConflictError, match="damaged"):
        door.retry(live.layout, "20260101-000000-aaaaa", CLI)


def test_a_held_command_that_is_run_again_has_waited_enough(agent: Agent) -> None:
    agent.start()
    run = give(agent, "Log one to log.txt", not_before=LATER)
    begins(agent, run, "held")
    door.cancel(agent.layout, run, CLI)
    fields_of(agent, run)
    assert fields_of(agent, door.retry(agent.layout, run, CLI).run)["status"] == "done"


def test_a_tasks_run_is_run_again_beside_its_slots(agent: Agent) -> None:
    (agent.layout.tasks / "report.md").write_text("---\nevery: 1d\nsteps:\n  - read: missing.md\n---\n")
    agent.start()
    run = door.run_task(agent.layout, "report", CLI).run
    assert fields_of(agent, run)["status"] == "failed"
    again = door.retry(agent.layout, run, PHONE).run
    assert fields_of(agent, again)["status"] == "failed"
    found = {each.run: each for each in agent.runs()}
    assert (found[again].trigger, found[again].task, found[again].slot) == ("task", "report", None)
    assert len(agent.files(agent.layout.outbox)) == 2


def test_a_retry_that_died_before_it_dropped_anything_is_finished_by_the_next(agent: Agent) -> None:
    run = give(agent, **MISSING)
    agent.once()
    promised = new_run_id(datetime.now(UTC))
    RunFolder(agent.layout.runs / run).again.write_text(promised)
    once_each(agent, raw_of(agent, run))
    handed = door.retry(agent.layout, run, CLI)
    assert (handed.run, handed.known) == (promised, True)
    (agent.root / "missing.md").write_text("here now")
    agent.once()
    assert fields_of(agent, promised)["status"] == "done"
    once_each(agent, raw_of(agent, run))


def test_a_retry_whose_process_dies_after_the_drop_is_finished_by_the_daemon(agent: Agent) -> None:
    run = give(agent, **MISSING)
    agent.once()
    again = door.retry(agent.layout, run, CLI).run
    assert (agent.layout.failed / "cli" / f"{run}.md").exists(), "the daemon alone removes it"
    assert dropped(agent.layout) == [again]
    agent.once()
    assert agent.files(agent.layout.failed) == [f"cli/{run}.md"]
    assert RunFolder(agent.layout.runs / again).summary().settled == f"failed/cli/{run}.md"
    once_each(agent, raw_of(agent, run))
    assert [each.run for each in agent.runs()] == [again, run]


def raw_of(agent: Agent, run: str) -> str:
    return RunFolder(agent.layout.runs / run).raw().decode()


# Keys

_CROWD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fsagent.faces.door import Caller, hand_in
from fsagent.workspace.layout import open_workspace

layout = open_workspace(Path(sys.argv[1]))
sys.stdin.readline()
with ThreadPoolExecutor(5) as pool:
    found = pool.map(lambda _: hand_in(layout, b"Log one to log.txt", Caller("http", "phone"), key="k"), range(5))
print(*{each.run for each in found})
print(sum(not each.known for each in found))
"""


def test_one_key_is_one_run_however_many_ask_at_once(agent: Agent) -> None:
    agent.start()
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", _CROWD, str(agent.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    told = [process.communicate("go\n", timeout=30)[0].splitlines()[0] for process in crowd]
    assert [process.returncode for process in crowd] == [0] * 4
    (run,) = set(told)
    assert fields_of(agent, run)["status"] == "done"
    agent.stop()
    agent.once()
    assert (agent.root / "log.txt").read_text() == "one\n"
    assert [each.run for each in agent.runs()] == [run]
    assert agent.files(agent.layout.outbox) == [f"http/{run}.md"]
    assert not dropped(agent.layout)
    assert not list(agent.layout.tmp.iterdir())


def test_a_key_whose_process_died_before_the_drop_is_dropped_by_the_next(layout: Layout) -> None:
    first = door.hand_in(layout, b"hello", CLI, key="k")
    shutil.rmtree(layout.drop / first.run)
    again = door.hand_in(layout, b"hello", CLI, key="k")
    assert (again.run, again.known) == (first.run, True)
    assert dropped(layout) == [first.run]


def test_a_key_stands_for_one_command(layout: Layout, tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("a")
    other.write_text("b")
    raw = b"---\nattachments: x\n---\nhello"
    first = door.hand_in(layout, raw, CLI, key="k", attachments={"x": file})
    for text, thread, attachments in (
        (b"hello you", "", {}), (raw, "", {}), (raw, "t", {"x": file}), (raw, "", {"x": other}), (raw, "", {"y": file}),
    ):  # fmt: skip
        with pytest.raises(ConflictError, match=f"run {first.run}"):
            door.hand_in(layout, text, CLI, key="k", thread=thread, attachments=attachments)
    assert door.hand_in(layout, raw, CLI, key="k", attachments={"x": file}).known
    assert dropped(layout) == [first.run]


def test_keys_of_different_callers_are_different(layout: Layout) -> None:
    callers = [(CLI, "k"), (Caller("http"), "k"), (PHONE, "k"), (Caller("mcp", "phone"), "k"), (PHONE, "k\n"),
               (Caller("http", "phone\nk"), ""), (Caller("http", "a\nb"), "c"), (Caller("http", "a"), "b\nc"),
               (PHONE, "\ud800"), (PHONE, "\udcff"), (PHONE, "../../k"), (PHONE, "k" * 9_999), (PHONE, "")]  # fmt: skip
    runs = [door.hand_in(layout, b"hello", caller, key=key).run for caller, key in callers]
    assert len(set(runs)) == len(callers)
    assert len(list(layout.keys.iterdir())) == len([key for _, key in callers if key])


def test_old_keys_are_forgotten(layout: Layout) -> None:
    old, new = (door.hand_in(layout, b"hello", CLI, key=key).run for key in ("old", "new"))
    now = time.time()
    for path in layout.keys.iterdir():
        if path.read_text().startswith(old):
            os.utime(path, (now - door.KEYS_LIVE - 1,) * 2)
    (layout.keys / "folder").mkdir()
    os.utime(layout.keys / "folder", (0, 0))
    (layout.keys / "nowhere").symlink_to("/nowhere")
    door.forget_old_keys(layout, now)
    assert door.hand_in(layout, b"other", CLI, key="old").run != old
    assert door.hand_in(layout, b"hello", CLI, key="new").run == new
    shutil.rmtree(layout.keys)
    door.forget_old_keys(layout, now)
    assert not door.hand_in(layout, b"hello", CLI, key="new").known, "the place is made again"


# Compose and check


def faults(text: str, attachments: dict[str, Path] | None = None, **fields: object) -> list[Fault]:
    with pytest.raises(DocumentError) as error:
        door.compose(text, fields, attachments)
    return list(error.value.faults)


def composed(text: str, **fields: object) -> Document:
    return read_document(door.compose(text, fields), "command")


def test_a_text_by_itself_is_handed_in_as_it_is() -> None:
    for text in ("hello", "---\nid: x # mine\n---\n\nhello\n\n", "\r\nhello\r\n", "\ufeffhello", "a\n---\nb", "ü"):
        assert door.compose(text, {}) == text.encode()
        assert door.compose(text, {"id": "", "thread": None, "steps": [], "attachments": ()}) == text.encode()


def test_fields_beside_the_text_are_merged_into_it() -> None:
    found = composed("---\nid: x\nretries: 2\nthread: one\n---\n\nhello\n", thread="two", timeout="5m", draft=False)
    assert dict(found.fields) == {"id": "x", "retries": "2", "thread": "two", "timeout": "5m", "draft": "false"}
    assert found.body == "hello"
    assert composed("hello", retries=0).fields["retries"] == "0"


@pytest.mark.parametrize(
    "body", ["--- \nfoo\n--- \nbar", "---\n\nbar", "a\n---\nid: y\n---\nb", "# h\n\n```\n---\n```"]
)
def test_a_body_may_hold_and_begin_with_lines_of_dashes(body: str) -> None:
    assert composed(f"---\nid: x\n---\n\n{body}", thread="t").body == body


def test_what_begins_like_settings_and_is_none_is_told_with_its_line() -> None:
    assert "never closed" in faults("---\nhello")[0].message
    assert faults("---\nhello", thread="t")[0].line == 1
    assert faults("---\nhello\n---\nworld")[0].line == 1


def test_steps_may_come_beside() -> None:
    steps = [{"append": {"path": "log.txt", "text": "{{ body }}", "more": [1, True, None]}}, {"shell": "df"}]
    found = composed("---\nthread: t\n---\nhello", steps=steps)
    assert [next(iter(step)) for step in found.fields["steps"]] == ["append", "shell"]
    assert composed("", steps=steps).body == ""


def test_faults_in_the_text_have_their_line_and_those_beside_it_have_none() -> None:
    text = "---\n# a comment\n\nretrys: 1\nsteps:\n  - read: x\n    write: y\n---\nhello"
    for beside in ({}, {"thread": "t", "id": "x"}):
        assert [(fault.line, fault.field) for fault in faults(text, **beside)] == [(4, "retrys"), (6, "steps[1]")]
    assert [(fault.line, fault.field) for fault in faults("hello", retries=21, timeout="5")] == [(0, "timeout")]
    assert [(fault.line, fault.field) for fault in faults("hello", retries=21)] == [(0, "retries")]
    assert "did you mean 'thread'" in faults("hello", tread="t")[0].message
    assert faults("hello", steps="read x")[0].field == "steps"


@pytest.mark.parametrize("text", ["", " \n\t\n", "---\nid: x\n---\n", "\ufeff"])
def test_nothing_is_no_command(text: str) -> None:
    assert "holds no request" in faults(text)[0].message
    assert "holds no request" in faults(text, thread="t")[0].message


def test_a_draft_is_not_handed_in() -> None:
    assert faults("---\ndraft: true\n---\nhello")[0].field == "draft"
    assert faults("hello", draft=True)[0].field == "draft"


@pytest.mark.parametrize("text", ["half \ud83d of it", "\udcff", "a\n\ud800\udcff", "---\nid: \ud800\n---\nhello"])
def test_what_is_no_text_is_told(text: str) -> None:
    for beside in ({}, {"thread": "t"}):
        assert "is not UTF-8" in faults(text, **beside)[0].message


def test_half_characters_beside_the_text_are_told(layout: Layout) -> None:
    assert "half a character" in faults("hello", thread="\ud800")[0].message
    with pytest.raises(DocumentError, match="half a character"):
        door.act(layout, CLI, "read", {"path": "\udcff"}, "")


def test_a_text_that_is_too_large_is_told() -> None:
    assert "is larger than" in faults("x" * 1024 * 1024 + "y")[0].message
    assert "is larger than" in faults("x" * 1024 * 1024, thread="t")[0].message


def test_attachments_are_named_in_the_command(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    raw = door.compose("---\nattachments: b.txt\n---\nhello", {}, {"a b.txt": file, "b.txt": file})
    assert read_document(raw, "command").fields["attachments"] == ["b.txt", "a b.txt"]
    (fault,) = faults("---\nattachments: b.txt\n---\nhello", {"a.txt": file})
    assert (fault.field, fault.message) == ("attachments", "'b.txt' did not come with the command")
    assert faults("---\nattachments: b.txt\n---\nhello")[0].field == "attachments"


HOSTILE = ["", " ", ".", "..", "../../evil", "/etc/passwd", "a/b", ".hidden", " a", "a ", "a\0b", "a\nb", "x" * 256,
           "ü" * 128, "\ud800", "\udcff"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_an_attachment_has_a_plain_name(layout: Layout, tmp_path: Path, name: str) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    assert {fault.field for fault in faults("hello", {name: file})} == {"attachments"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DocumentError, match="attachments"):
        door.hand_in(layout, b"hello", CLI, attachments={name: file})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["data.tmp", "~$sheet.xlsx", "movie.part", "notes.md~"])
def test_an_attachment_may_be_called_as_programs_call_what_they_write(agent: Agent, tmp_path: Path, name: str) -> None:
    agent.start()
    (tmp_path / "file").write_text("1,2")
    raw = f"---\nattachments: ['{name}']\n---\nLog one to log.txt".encode()
    run = door.hand_in(agent.layout, raw, CLI, attachments={name: tmp_path / "file"}).run
    wait_for(lambda: RunFolder(agent.layout.runs / run).settled(), "it is settled")
    assert [path.read_text() for path in agent.layout.archive.rglob(name)] == ["1,2"]
    assert (agent.layout.runs / run / "attachments" / name).stat().st_nlink == 1, "the run has a copy of its own"


def test_an_attachment_that_is_gone_leaves_nothing_behind(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        door.hand_in(layout, b"hello", CLI, attachments={"a": tmp_path / "gone"})
    assert not dropped(layout)
    assert not list(layout.tmp.iterdir())


def test_an_attachment_whose_name_no_disk_takes_is_a_fault_of_the_command_only(agent: Agent) -> None:
    agent.start()
    raw = b"---\nattachments: " + b"x" * 300 + b"\n---\nhello"
    run = door.hand_in(agent.layout, raw, CLI).run
    assert fields_of(agent, run)["status"] == "refused"


# What is held back


def test_a_command_by_the_side_door_waits_for_its_time_across_kills(agent: Agent) -> None:
    at = datetime.now(UTC) + timedelta(seconds=12)
    run = give(agent, "Log one to log.txt", not_before=at.isoformat())
    for _ in range(4):  # more often than a command may end the daemon
        agent.start()
        begins(agent, run, "held")
        agent.kill()
    assert datetime.now(UTC) < at, "four starts take longer than twelve seconds"
    agent.start()
    found = fields_of(agent, run)
    assert found["status"] == "done"
    assert "attempts" not in found
    assert datetime.fromisoformat(str(found["started"])) >= at.replace(microsecond=0)
    assert (agent.root / "log.txt").read_text() == "one\n"


def test_a_time_of_day_is_that_of_the_workspace(layout: Layout) -> None:
    zone = ZoneInfo("Pacific/Auckland")
    layout.settings.write_text("timezone: Pacific/Auckland\nretry_wait: 1h\n")
    now = datetime.now(UTC)
    at = (now.astimezone(zone) + timedelta(hours=5)).replace(second=0, microsecond=0)
    run = door.hand_in(layout, door.compose("Log one to log.txt", {"not_before": f"{at:%H:%M}"}), CLI).run
    for moment, there in ((now, False), (at - timedelta(seconds=1), False), (at + timedelta(seconds=1), True)):
        daemon = Daemon(layout, now=lambda moment=moment: moment)
        daemon.open()
        daemon.beat()
        assert daemon.drain()
        daemon.close()
        assert (layout.root / "log.txt").exists() == there, moment
    assert RunFolder(layout.runs / run).summary().attempts == 1


# Tasks, callers, acts


def test_a_task_is_run_now_whatever_its_state(agent: Agent) -> None:
    tasks = agent.layout.tasks
    for name, head in (("on", ""), ("off", "enabled: false\n"), ("paused", ""), ("broken", "evry: 1d\n")):
        (tasks / f"{name}.md").write_text(f"---\nevery: 1d\n{head}---\nLog {name} to log.txt\n")
    TaskBook(agent.layout).set_state("paused", paused="by request")
    agent.start()
    for name in ("on", "off", "paused", "tasks/on.md", "ON"):
        handed = door.run_task(agent.layout, name, PHONE)
        envelope = door.find_run(agent.layout, handed.run).envelope()
        assert (envelope.by, envelope.trigger, envelope.name) == ("phone", "task", handed.command)
        assert fields_of(agent, handed.run)["status"] == "done"
    assert Counter((agent.root / "log.txt").read_text().split()) == {"on": 3, "off": 1, "paused": 1}
    for name in ("broken", "tasks/broken.md"):
        with pytest.raises(DocumentError, match=r"tasks/broken.md:3:1: evry"):
            door.run_task(agent.layout, name, CLI)
    for name in ("unknown", "", "../soul", "a\0b"):
        with pytest.raises(NotFoundError, match="there is no task"):
            door.run_task(agent.layout, name, CLI)


def test_who_handed_a_command_in_is_recorded(layout: Layout) -> None:
    handed = door.hand_in(layout, b"hello", PHONE, thread="t")
    envelope = door.find_run(layout, handed.run).envelope()
    assert (envelope.by, envelope.trigger, envelope.thread) == ("phone", "http", "t")
    assert handed.command == envelope.name == f"http/{handed.run}.md"
    door.cancel(layout, handed.run, Caller("mcp", "desk"))
    wish = msgspec.json.decode((layout.cancel / handed.run).read_bytes(), type=Cancel)
    assert str(wish) == "cancelled by mcp (desk)"


@pytest.mark.parametrize(
    "text", ["---\nid: x\n---\nno", "{{ now }} {{ steps.1 }} {{", "ünï\n\n---", "a: b # c", "'\"\\"]
)
def test_an_act_takes_any_text_as_it_is(agent: Agent, text: str) -> None:
    run = door.act(agent.layout, CLI, "write", {"path": "a.txt", "text": "{{ body }}"}, text).run
    agent.once()
    assert fields_of(agent, run)["status"] == "done"
    assert (agent.root / "a.txt").read_text().rstrip("\n") == text
