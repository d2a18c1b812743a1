"""The folder carried by two real Syncthing nodes: Susan's side drops files, the agent runs on the other."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import frontmatter
import pytest

from fsagent.files.names import conflict_of
from fsagent.workspace.owner import read_claim
from harness import Agent, wait_for
from syncthing import Pair, missing

pytestmark = [pytest.mark.long, pytest.mark.timeout(240), pytest.mark.skipif(bool(missing()), reason=missing())]
SLOW = 90.0
BURST, STORM = 120, 40


class Side:
    """Susan's folder, as she uses it."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.root = pair, pair.one.folder

    def drop(self, name: str, text: str, *, scan: bool = True) -> Path:
        path = self.root / "inbox" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        if scan:
            self.pair.one.scan("inbox")
        return path

    def result(self, name: str) -> frontmatter.Post:
        path = self.root / "outbox" / name
        wait_for(path.exists, f"outbox/{name} comes back", SLOW)
        return frontmatter.load(str(path))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sync")


@pytest.fixture(scope="module")
def pair(base: Path) -> Iterator[Pair]:
    pair = Pair(base, "susan", "agent")
    try:
        (pair.two.folder / "inbox").mkdir()
        agent = Agent(pair.two.folder, "settle: 200ms\nscan_interval: 1h\ntimezone: UTC\n")
        pair.start()
        wait_for((pair.one.folder / agent.layout.soul.name).exists, "the folder arrives", SLOW)
        yield pair
    finally:
        pair.close()


@pytest.fixture
def agent(pair: Pair) -> Iterator[Agent]:
    agent = Agent(pair.two.folder)
    agent.start()
    yield agent
    agent.close()


@pytest.fixture
def susan(pair: Pair) -> Side:
    return Side(pair)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def numbered(text: str, file: str) -> str:
    return f"---\nsteps:\n  - append: {{path: {file}, text: '{text}'}}\n---\n"


def same(pair: Pair, place: str) -> bool:
    """Both sides hold the same files with the same bytes."""
    one, two = (
        {str(path.relative_to(node.folder)): path.read_bytes() for path in (node.folder / place).rglob("*.md")}
        for node in pair.nodes
    )
    return one == two


def commands_in(pair: Pair, place: str) -> list[list[str]]:
    return [sorted(path.name for path in (node.folder / place).rglob("*.md")) for node in pair.nodes]


def conflicts(root: Path, original: str) -> list[Path]:
    folder = (root / original).parent
    return sorted(each for each in folder.iterdir() if conflict_of(each.name) == Path(original).name)


def test_a_burst_runs_each_command_once_and_leaves_no_ghost(pair: Pair, agent: Agent, susan: Side) -> None:
    for number in range(BURST):
        susan.drop(f"burst-{number}.md", numbered(f"n{number}", "burst.txt"), scan=False)
    pair.one.scan("inbox")
    for number in range(BURST):
        assert susan.result(f"burst-{number}.md")["status"] == "done"
    wait_for(lambda: same(pair, "outbox"), "the results are whole on both sides", SLOW)
    wait_for(lambda: commands_in(pair, "inbox") == [[], []], "no ghost is left on either side", SLOW)
    assert sorted(lines(agent.root / "burst.txt")) == sorted(f"n{number}" for number in range(BURST))
    assert len([run for run in agent.runs() if run.command.startswith("burst-")]) == BURST
    assert not list((pair.one.folder / ".fsagent").glob("*"))


def test_an_edited_task_counts_by_its_new_rule(pair: Pair, agent: Agent, susan: Side) -> None:
    task = susan.root / "tasks" / "beat.md"
    task.write_text("---\nevery: 1s\n---\nLog the timestamp to one.txt")
    pair.one.scan("tasks")
    wait_for(lambda: len(lines(agent.root / "one.txt")) >= 2, "it runs", SLOW)
    task.write_text("---\nevery: 1s\n---\nLog the timestamp to two.txt")
    pair.one.scan("tasks")
    wait_for(lambda: len(lines(agent.root / "two.txt")) >= 2, "it runs by its new text", SLOW)
    before = lines(agent.root / "one.txt")
    wait_for(lambda: len(lines(agent.root / "two.txt")) >= 4, "and again", SLOW)
    assert lines(agent.root / "one.txt") == before
    task.unlink()
    pair.one.scan("tasks")
    wait_for(lambda: not (agent.layout.tasks / "beat.md").exists(), "the task goes", SLOW)


def test_of_two_souls_the_one_that_syncthing_keeps_is_read_and_the_other_is_told(
    pair: Pair, agent: Agent, susan: Side
) -> None:
    wait_for(lambda: pair.one.idle() and pair.two.idle(), "all is carried", SLOW)
    pair.part()
    agent.drop("bob.md", "My name is Bob")
    assert agent.result("bob.md")["status"] == "done"
    soul = susan.root / "soul.md"
    soul.write_text(soul.read_text() + "\nMy name is Susan.\n")
    later = time.time() + 5  # of two, Syncthing keeps the one that was written later
    os.utime(soul, (later, later))
    pair.heal()
    for node in pair.nodes:
        wait_for(lambda node=node: conflicts(node.folder, "soul.md"), "the conflict copy is on both sides", SLOW)
    (copy,) = conflicts(agent.root, "soul.md")
    assert "Bob" in copy.read_text()
    wait_for(lambda: "Susan" in agent.layout.soul.read_text(), "the winner is there", SLOW)
    susan.drop("who.md", "What is my name?")
    assert "Susan" in susan.result("who.md").content
    assert "Bob" not in susan.result("who.md").content
    wait_for(lambda: copy.name in agent.status(), "status.md names the copy", SLOW)
    assert copy.name in agent.cli("doctor").stdout
    assert "Bob" in copy.read_text(), "nothing of it is lost"
    copy.unlink()


def test_a_conflict_copy_of_a_command_never_runs_and_is_told(pair: Pair, agent: Agent, susan: Side) -> None:
    path = susan.drop("plan.md", "---\ndraft: true\n---\nfirst thoughts")
    wait_for((agent.layout.inbox / "plan.md").exists, "the draft arrives", SLOW)
    wait_for(lambda: pair.one.idle() and pair.two.idle(), "all is carried", SLOW)
    pair.part()
    path.write_text(numbered("it ran", "forbidden.txt"))
    (agent.layout.inbox / "plan.md").write_text("---\ndraft: true\n---\nsecond thoughts")
    later = time.time() + 5
    os.utime(agent.layout.inbox / "plan.md", (later, later))
    pair.heal()
    wait_for(lambda: conflicts(susan.root, "inbox/plan.md") or not path.exists(), "a conflict copy is made", SLOW)

    def told() -> bool:
        answers = [each.read_text() for each in agent.layout.outbox.rglob("plan*.md")]
        return any("conflict copy" in text for text in (agent.status(), *answers))

    wait_for(told, "it is told", SLOW)
    susan.drop("after.md", numbered("x", "after.txt"))
    assert susan.result("after.md")["status"] == "done"
    assert not (agent.root / "forbidden.txt").exists()
    kept = [
        each for each in agent.root.rglob("*.md") if "it ran" in each.read_text() and "forbidden" in each.read_text()
    ]
    assert kept, "its text is not lost"
    for each in (path, *conflicts(susan.root, "inbox/plan.md")):
        each.unlink(missing_ok=True)
    pair.one.scan("inbox")
    wait_for(lambda: commands_in(pair, "inbox") == [[], []], "they go on both sides", SLOW)


def test_kills_of_syncthing_and_of_the_daemon_lose_and_double_nothing(pair: Pair, agent: Agent, susan: Side) -> None:
    for number in range(STORM):
        susan.drop(f"storm-{number}.md", numbered(f"n{number}", "storm.txt"), scan=False)
        if number == STORM // 2:
            pair.one.scan("inbox")
            wait_for((agent.layout.outbox / "storm-0.md").exists, "it begins", SLOW)
            agent.kill()
            pair.two.kill()
            pair.two.start()
            agent.start()
            pair.one.kill()
            pair.one.start()
    pair.join()
    pair.one.scan("inbox")
    for number in range(STORM):
        assert susan.result(f"storm-{number}.md")["status"] == "done"
    wait_for(lambda: commands_in(pair, "inbox") == [[], []], "no ghost is left on either side", SLOW)
    assert sorted(lines(agent.root / "storm.txt")) == sorted(f"n{number}" for number in range(STORM))
    assert not [name for name in agent.files(agent.layout.outbox) if name.startswith("storm-") and "-2" in name[8:]]


def test_two_hosts_one_owner_a_take_over_and_a_partition(pair: Pair, agent: Agent, susan: Side) -> None:
    other = Agent(susan.root)  # makes it a workspace, with its own .fsagent/
    try:
        _two_hosts(pair, agent, other, susan)
    finally:
        other.close()
        shutil.rmtree(other.layout.machine)


def _two_hosts(pair: Pair, agent: Agent, other: Agent, susan: Side) -> None:
    def owner(host: Agent) -> Callable[[], bool]:
        return lambda: "**Standing by.**" not in host.cli("status").stdout

    def turn() -> int:
        claims = [read_claim(each.layout) for each in (agent, other)]
        return claims[0].turn if claims[0] and claims[0] == claims[1] else 0

    wait_for(lambda: turn() == 1, "both know who owns the folder", SLOW)
    other.start()
    assert "standing by" in other.output()
    susan.drop("first.md", numbered("first", "owned.txt"))
    assert susan.result("first.md")["run"] in {run.run for run in agent.runs()}
    assert not other.layout.index.exists() or not other.runs()

    wait_for(lambda: commands_in(pair, "inbox") == [[], []], "that it ran is known on both sides", SLOW)

    # a take-over: the daemon that stood by goes on, the other one yields
    other._run((), ["run", str(other.root), "--take-over"], {})
    wait_for(lambda: "standing by" in agent.output(), "the first host yields", SLOW)
    wait_for(lambda: turn() == 2, "both know it", SLOW)
    assert owner(other)()
    assert not owner(agent)()
    agent.drop("second.md", numbered("second", "owned.txt"))
    pair.two.scan("inbox")
    assert susan.result("second.md")["run"] in {run.run for run in other.runs()}
    wait_for(lambda: same(pair, "outbox") and commands_in(pair, "inbox") == [[], []], "all is carried", SLOW)
    assert lines(susan.root / "owned.txt") == ["first", "second"]

    # a partition: the other side is taken over although its owner lives; both work
    pair.part()
    agent._run((), ["run", str(agent.root), "--take-over"], {})
    for host in (agent, other):
        host.drop("both.md", numbered("both", "twice.txt"))
        assert host.result("both.md")["status"] == "done"
    pair.heal()
    wait_for(lambda: other.output().count("standing by") == 2, "the one that was taken over yields", SLOW)
    wait_for(lambda: turn() == 3, "both know it", SLOW)
    assert owner(agent)()
    assert not owner(other)()
    wait_for(lambda: conflicts(susan.root, "outbox/both.md"), "both results are there", SLOW)
    found = {frontmatter.load(str(path))["run"] for path in (susan.root / "outbox").glob("both*.md")}
    runs = [run.run for host in (agent, other) for run in host.runs() if run.command == "both.md"]
    assert found == set(runs)
    assert len(found) == 2
    susan.drop("third.md", numbered("third", "owned.txt"))
    assert susan.result("third.md")["run"] in {run.run for run in agent.runs()}
    assert lines(agent.root / "owned.txt") == ["first", "second", "third"]
    (agent.root / "nudge.txt").touch()  # the owner looks at its root, and clears away what the partition left there
    wait_for(
        lambda: not any(conflicts(each.root, name) for each in (agent, other) for name in ("owner.md", "status.md")),
        "no conflict copy of a daemon's own file is left",
        SLOW,
    )
