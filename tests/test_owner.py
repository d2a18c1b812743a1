"""Two machines, one folder: one host runs the agent, the others stand by, and it is clear to all of them which."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import frontmatter
import msgspec
import pytest

from fsagent import recovery
from fsagent.config import Settings
from fsagent.daemon import Daemon
from fsagent.errors import ConflictError
from fsagent.faces import approvals, door
from fsagent.files.fields import Duration
from fsagent.files.locks import lock
from fsagent.ownercheck import check_owner_file
from fsagent.ownership import MISSING_FOR, Ownership
from fsagent.standby import hand_back
from fsagent.workspace.create import init_workspace
from fsagent.workspace.hosts import owner_elsewhere, this_host
from fsagent.workspace.inbox import Inbox
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import Layout
from fsagent.workspace.owner import Claim, read_claim, strongest
from fsagent.workspace.runs import RunFolder, new_run_id
from fsagent.workspace.status import DAEMON_LOCK
from harness import Agent, wait_for

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
ENDLESS = "settle: 0s\nsettle_renamed: 0s\nscan_interval: 1h\n"


class Host:
    """A copy of the folder, and who owns it as seen from there, on clocks that the test moves."""

    def __init__(self, root: Path, silence: float = 0) -> None:
        self.layout: Layout = init_workspace(root)[0]
        self.wall, self.monotonic = NOW, 0.0
        self.settings = Settings(timezone="UTC", take_over_after=Duration(silence))
        self.events: list[str] = []
        self.restart()

    def restart(self, *, take_over: bool = False) -> None:
        """A new daemon."""
        self.wall += timedelta(seconds=1)
        journal = Journal(self.layout.journal, lambda: self.wall, lambda record: self.events.append(record["event"]))
        self.ownership = Ownership(
            self.layout, lambda: self.settings, journal, lambda: self.wall, lambda: self.monotonic
        )
        self._take_over = take_over

    def open(self) -> Host:
        self.ownership.open(take_over=self._take_over)
        return self

    def look(self, seconds: float = 0) -> bool:
        """Time passes, and the daemon looks; True if it owns the workspace."""
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds
        self.ownership.look()
        return self.ownership.mine

    def owns(self) -> bool:
        return self.ownership.mine

    @property
    def id(self) -> str:
        return this_host(self.layout, "").id


def carry(source: Host, target: Host) -> None:
    """What a sync client does: the file is replaced by the other's."""
    temporary = target.layout.root / ".syncthing.owner.md.tmp"
    shutil.copyfile(source.layout.owner, temporary)
    os.replace(temporary, target.layout.owner)


@pytest.fixture
def hosts(tmp_path: Path) -> Callable[..., tuple[Host, Host]]:
    def make(**options: float) -> tuple[Host, Host]:
        one, two = (Host(tmp_path / name, **options) for name in ("one", "two"))
        one.open()
        carry(one, two)
        two.open()
        return one, two

    return make


def test_the_first_owns_the_folder_and_the_second_stands_by(hosts: Callable[..., tuple[Host, Host]]) -> None:
    one, two = hosts()
    assert (one.owns(), two.owns()) == (True, False)
    assert owner_elsewhere(one.layout) is None
    found = owner_elsewhere(two.layout)
    assert found
    assert (found.host, found.turn) == (os.uname().nodename, 1)
    for host in (one, two):
        host.restart()
        host.open()
    assert (one.owns(), two.owns()) == (True, False)


def test_the_file_is_for_people(tmp_path: Path) -> None:
    host = Host(tmp_path / "one").open()
    found = frontmatter.load(str(host.layout.owner))
    assert list(found.metadata) == ["host", "id", "turn", "since", "started", "renewed"]
    assert f"run by **{os.uname().nodename}**, since 2026-11-27 12:00 UTC" in found.content
    assert "fsagent run --take-over" in found.content


def test_a_take_over_counts_once_it_arrives(hosts: Callable[..., tuple[Host, Host]]) -> None:
    one, two = hosts()
    two.restart(take_over=True)
    two.open()
    assert two.owns()
    assert one.look(), "nothing has come yet"
    carry(two, one)
    assert not one.look()
    assert "standing by" in one.events
    one.restart()
    assert not one.open().owns()
    one.restart(take_over=True)
    one.open()
    carry(one, two)
    assert not two.look()
    assert one.look()


@pytest.mark.parametrize("kept", ["one", "two"])
@pytest.mark.parametrize("case", ["both took it over", "both were first", "one took over, the other renewed"])
def test_after_a_partition_exactly_one_yields_whichever_file_the_sync_client_keeps(
    tmp_path: Path, hosts: Callable[..., tuple[Host, Host]], case: str, kept: str
) -> None:
    if case == "both were first":
        one, two = Host(tmp_path / "one").open(), Host(tmp_path / "two")
        two.wall += timedelta(minutes=1)
        two.open()
    else:
        one, two = hosts()
        two.restart(take_over=True)
        two.open()
        one.restart(take_over=case == "both took it over")
        one.open()
        one.look(90_000)
    assert one.owns()
    assert two.owns()
    named = {"one": one, "two": two}
    other = named["two" if kept == "one" else "one"]
    carry(named[kept], other)
    shutil.copyfile(other.layout.owner, other.layout.root / "owner.sync-conflict-20261127-120000-ABCDEFG.md")
    for _ in range(3):  # each change is carried to the other side
        for source, target in permutations((one, two)):
            before = read_claim(source.layout)
            source.look()
            if read_claim(source.layout) != before:
                carry(source, target)
    assert one.owns() != two.owns()
    assert read_claim(one.layout) == read_claim(two.layout)
    if case == "one took over, the other renewed":
        assert two.owns()
    if case == "both were first":
        assert one.owns()


def test_what_is_put_back_removed_or_damaged_changes_nothing(hosts: Callable[..., tuple[Host, Host]]) -> None:
    one, two = hosts()
    old = one.layout.owner.read_bytes()
    two.restart(take_over=True)
    two.open()
    carry(two, one)
    assert not one.look()
    for host, mine in ((one, False), (two, True)):
        claim = read_claim(two.layout)
        host.layout.owner.write_bytes(old)
        assert host.look() == mine
        host.layout.owner.write_bytes(b"---\nhost: [\n")
        assert host.look() == mine
        host.layout.owner.unlink()
        assert host.look() == mine
        assert not host.layout.owner.exists(), "a sync client takes it away for a moment, and then puts it there anew"
        assert host.look(MISSING_FOR) == mine
        assert host.layout.owner.exists() == mine, "only the owner writes it"
        if mine:
            found = read_claim(host.layout)
            assert found
            assert claim
            assert found.rank == claim.rank


def test_a_file_that_cannot_be_understood_is_nobodys_invitation(tmp_path: Path) -> None:
    host = Host(tmp_path / "one")
    host.layout.owner.write_text("---\nhost: elsewhere\nturn: many\n---\n")
    assert not host.open().owns()
    assert "cannot be understood" in host.ownership.words
    host.restart(take_over=True)
    assert host.open().owns()


def test_a_silent_owner_is_followed_after_the_stated_time_only(hosts: Callable[..., tuple[Host, Host]]) -> None:
    one, two = hosts(silence=3600)
    for _ in range(30):  # while it says so, it stays
        one.look(900)
        carry(one, two)
        assert not two.look(900)
    assert not two.look(3500)
    assert two.look(100)
    assert "owner silent" in two.events
    carry(two, one)
    assert not one.look()


def test_without_that_setting_nobody_follows_and_little_is_written(hosts: Callable[..., tuple[Host, Host]]) -> None:
    one, two = hosts()
    written = one.layout.owner.stat().st_mtime_ns
    for _ in range(23):
        one.look(3600)
        assert not two.look(3600)
    assert one.layout.owner.stat().st_mtime_ns == written
    one.look(3600)
    assert one.layout.owner.stat().st_mtime_ns != written, "once a day it says that it is there"
    assert not two.look(400 * 86_400)


def test_a_host_is_known_by_its_machine_or_by_its_folder(tmp_path: Path) -> None:
    layout = init_workspace(tmp_path / "ws")[0]
    first = this_host(layout, "m1").id
    assert this_host(layout, "m2").id == first, "the same volume in another container, or another image"
    assert this_host(layout, "").id == first
    assert this_host(layout, "m1").id == first
    restored = Layout(shutil.copytree(layout.root, tmp_path / "restored"))
    assert this_host(restored, "m1").id == first, "a backup, restored on the same machine"
    moved = Layout(shutil.copytree(layout.root, tmp_path / "moved"))
    other = this_host(moved, "m3").id
    assert other != first, "a folder that was carried to another machine"
    assert this_host(moved, "m3").id == other
    shutil.copytree(moved.hosts, layout.hosts, dirs_exist_ok=True)  # a sync client that knows no ignore file
    shutil.copytree(layout.hosts, moved.hosts, dirs_exist_ok=True)
    for _ in range(2):
        assert this_host(layout, "m1").id == first
        assert this_host(moved, "m3").id == other


def test_of_two_copies_under_one_id_the_later_start_goes_on_and_the_other_takes_a_new_id(tmp_path: Path) -> None:
    one = Host(tmp_path / "one").open()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    two = Host(tmp_path / "two")
    two.wall += timedelta(minutes=5)
    two.open()
    assert two.owns()
    carry(two, one)
    assert not one.look()
    ids = {read_claim(two.layout).id, *(path.stem for path in one.layout.hosts.iterdir())}  # type: ignore[union-attr]
    assert len(ids) == 2
    for _ in range(2):
        for host, mine in ((one, False), (two, True)):
            host.restart()
            assert host.open().owns() == mine
        carry(two, one)
        assert two.look()
        assert not one.look()


def test_of_claims_the_same_one_counts_in_every_order() -> None:
    early, late = NOW, NOW + timedelta(hours=1)
    claims = [
        Claim(host=host, id=host, turn=turn, since=since, started=started, renewed=early)
        for host, turn, since, started in (
            ("a", 1, early, early), ("b", 1, early, early), ("c", 1, late, late),
            ("d", 2, late, late), ("d", 2, late, late + timedelta(seconds=5)),
        )
    ]  # fmt: skip
    assert {strongest(*each) for each in permutations(claims)} == {claims[-1]}
    assert strongest(*claims[:3]) == claims[0]
    assert strongest(claims[2], None) == claims[2]
    assert strongest() is None


def test_conflict_copies_of_what_only_daemons_write_are_tidied_away_and_no_others(tmp_path: Path) -> None:
    host = Host(tmp_path / "one").open()
    root, mark = host.layout.root, ".sync-conflict-20261127-120000-ABCDEFG.md"
    (root / f"soul{mark}").write_text("mine")
    (root / f"status{mark}").symlink_to(root / "soul.md")
    for round_ in range(3):
        (root / f"owner{mark}").write_text("old")
        os.utime(root, (round_, round_))  # as if the clock stood still between two looks
        host.ownership.tidy(thorough=False)
        assert not (root / f"owner{mark}").exists()
    (root / f"owner{mark}").write_text("in the same moment as the look before")
    os.utime(root, (2, 2))
    host.ownership.tidy(thorough=False)
    host.ownership.tidy(thorough=True)
    assert sorted(path.name for path in root.glob("*sync-conflict*")) == [f"soul{mark}", f"status{mark}"]
    assert host.events.count("tidied") == 4


def told(host: Host, now: datetime) -> str:
    """What doctor says of the file, and of who runs the agent."""
    faults, owner = check_owner_file(host.layout, host.settings, now)
    return "\n".join([*map(str, faults), owner])


def test_doctor_tells_what_is_wrong_with_the_file(hosts: Callable[..., tuple[Host, Host]]) -> None:
    one, two = hosts()
    name, later = os.uname().nodename, NOW + timedelta(days=3)
    assert told(one, NOW) == ""
    assert told(two, NOW) == f"{name} (since 2026-11-27 12:00:01)"
    assert told(one, later) == "", "no daemon runs there, and none needs to"
    assert f"owner.md: renewed: tells nothing of {name} since 2026-11-27 12:00" in told(two, later)
    with lock(one.layout.locks / DAEMON_LOCK, 0):
        assert "was not renewed since 2026-11-27 12:00, though the daemon here should" in told(one, later)
    two.settings = Settings(timezone="UTC", take_over_after=Duration(3600))
    assert "tells nothing of" in told(two, NOW + timedelta(hours=2))
    assert f"was written by {name} 1h" in told(two, NOW - timedelta(hours=1))
    assert told(one, NOW - timedelta(hours=1)) == "", "its own clock was set back, which it knows to live with"
    for host, words in ((one, "writes it anew"), (two, f"as far as this host knows, {name} runs the agent")):
        host.layout.owner.write_text("---\nhost: [\n")
        assert words in told(host, NOW)
        assert "owner.md:" in told(host, NOW)
    for host, words in ((one, "'fsagent run' writes it again"), (two, "does the folder sync?")):
        host.layout.owner.unlink()
        assert "owner.md: is missing" in told(host, NOW)
        assert words in told(host, NOW)
    assert told(Host(one.layout.root.parent / "three"), NOW) == "", "nobody owns it yet"


# Real daemons


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Agent, Agent]]:
    """Two folders, of which the second is a synced copy: all but ``.fsagent/``. Nobody carries anything by itself."""
    one = Agent(tmp_path / "one", ENDLESS)
    one.once()
    shutil.copytree(one.root, tmp_path / "two", ignore=shutil.ignore_patterns(".fsagent"))
    two = Agent(tmp_path / "two")
    yield one, two
    one.close()
    two.close()


def tree(agent: Agent) -> dict[str, tuple[int, bytes]]:
    """All that would sync."""
    return {
        name: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in agent.root.rglob("*")
        if not (name := str(path.relative_to(agent.root))).startswith(".fsagent")
    }


def give(source: Agent, target: Agent) -> None:
    temporary = target.root / ".syncthing.owner.md.tmp"
    shutil.copyfile(source.layout.owner, temporary)
    os.replace(temporary, target.layout.owner)


@pytest.mark.timeout(180)
def test_a_daemon_that_stands_by_touches_nothing_says_so_and_refuses_what_would_wait_for_ever(
    pair: tuple[Agent, Agent],
) -> None:
    _, two = pair
    two.drop("name.md", "My name is Alice")
    (two.layout.tasks / "each.md").write_text("---\nevery: 1s\n---\nLog the timestamp to log.txt")
    shutil.rmtree(two.layout.failed)
    before = tree(two)
    name = os.uname().nodename
    done = two.once(check=False)
    assert done.returncode == 13
    assert f"is run by {name}" in done.stderr
    daemon = Daemon(two.layout)
    daemon.open()
    daemon.beat()
    assert daemon.beat() > 3000, "it sleeps until something is heard, or the next scan"
    daemon.close()
    two.start()
    wait_for(lambda: f"standing by the agent in this folder is run by {name}" in two.output(), "it says so")
    wait_for(lambda: two.cli("health").returncode == 0, "it is healthy")
    assert "**Standing by.** The agent in this folder is run by" in two.cli("status").stdout
    for words in (["ask", "hello"], ["resume", "each"]):
        done = two.cli(*words)
        assert done.returncode == 1
        assert f"is run by {name}, not on this machine" in done.stderr
    assert f"the agent in this folder is run by {name}" in two.cli("doctor").stdout
    for words, code, why in ((["prune"], 1, "this host does not"), (["doctor", "--rebuild"], 11, "stands by")):
        done = two.cli(*words)
        assert done.returncode == code
        assert why in done.stderr
    with pytest.raises(ConflictError, match="not on this machine"):
        door.run_task(two.layout, "each", door.Caller("mcp"))
    assert two.stop() == 0
    assert f"stood by for {name}" in two.output()
    assert f"No daemon runs here. The agent in this folder is run by {name}." in two.cli("status").stdout
    assert tree(two) == before


@pytest.mark.timeout(180)
def test_an_owner_that_is_followed_finishes_what_runs_and_puts_back_what_waits(pair: tuple[Agent, Agent]) -> None:
    one, two = pair
    one.layout.settings.write_text(ENDLESS + "tools: {shell: allow}\nsandbox: off\nmax_runs: 1\n")
    one.start()
    script = "touch begun\nwhile [ ! -e go ]; do sleep 0.05; done\necho was here\n"
    (one.root / "slow.sh").write_text(script)
    one.drop("first.md", "---\nsteps: [{shell: sh slow.sh}]\n---\n")
    wait_for((one.root / "begun").exists, "it runs")
    waiting = '---\nattachments: [a.csv]\nsteps: [{shell: "echo never here"}]\n---\n'
    (one.layout.inbox / "a.csv").write_text("attached")
    path = one.drop("second.md", waiting)
    written = path.stat().st_mtime_ns
    wait_for(lambda: not path.exists(), "it is taken")
    two.start()
    done = two._run((), ["run", str(two.root), "--take-over"], {})
    assert "goes on" in done.stdout
    wait_for(lambda: "Alive" in two.status(), "the second host has taken over")
    give(two, one)
    (one.root / "go").touch()
    assert "was here" in one.result("first.md").content
    wait_for(lambda: "standing by" in one.output(), "the first one yields")
    wait_for(path.exists, "what waited is back")
    assert (path.read_text(), path.stat().st_mtime_ns) == (waiting, written)
    assert (one.layout.inbox / "a.csv").read_text() == "attached"
    assert [run.command for run in one.runs()] == ["first.md"]
    left = tree(one)
    one.kill()
    one.start()
    one.stop()
    assert tree(one) == left
    two.drop("there.md", "My name is Alice")
    assert "Alice" in two.result("there.md").content


@pytest.mark.timeout(180)
def test_a_take_over_repeats_no_slot_that_may_have_run_elsewhere(pair: tuple[Agent, Agent]) -> None:
    one, two = pair
    for agent in pair:
        (agent.layout.tasks / "once.md").write_text("---\nonce: 2026-01-05 14:00\n---\nAppend x to once.txt")
        (agent.layout.tasks / "often.md").write_text("---\nevery: 1s\n---\nLog the timestamp to often.txt")
    one.once()
    wait_for(lambda: one.once() and (one.root / "often.txt").exists(), "the task ran")
    two._run((), ["run", str(two.root), "--once", "--take-over"], {})
    begun = read_claim(two.layout)
    assert begun
    assert not [run for run in two.runs() if run.slot and run.slot <= begun.since]
    wait_for(lambda: two.once() and (two.root / "often.txt").exists(), "it goes on there")
    assert not (two.root / "once.txt").exists()


@pytest.mark.timeout(180)
def test_a_question_of_the_owner_before_is_told_and_its_answer_counts_when_that_one_owns_again(
    pair: tuple[Agent, Agent],
) -> None:
    one, two = pair
    one.layout.settings.write_text(ENDLESS + "tools: {write: ask}\n")
    one.start()
    one.drop("asks.md", "---\nsteps: [{write: {path: asked.txt, text: x}}]\n---\n")
    (question,) = wait_for(lambda: list(one.layout.approvals.glob("*.md")), "it asks")
    synced = two.layout.approvals / question.name
    shutil.copy2(question, synced)
    two.start()
    assert "goes on" in two._run((), ["run", str(two.root), "--take-over"], {}).stdout
    give(two, one)
    wait_for(lambda: "standing by" in one.output(), "the first one yields")
    needs = f"approvals/{question.name} asks for a run that is not on this machine. A tick in it counts on the machine"
    wait_for(lambda: needs in two.status().partition("## Needs you")[2], "the new owner says so")
    (asked,) = approvals.list_approvals(one.layout)
    for agent, why in ((two, "asks for a run that is not on this machine"), (one, "is run by")):
        done = agent.cli("approve", asked.id)
        assert why in done.stderr
        assert done.returncode == 1
    assert needs in two.cli("doctor").stdout.replace(": asks", " asks")
    synced.write_text(synced.read_text().replace("- [ ] approve once", "- [x] approve once"))
    shutil.copy2(synced, question)
    one.drop("honest.md", "What is my name?")
    shutil.copy2(one.layout.inbox / "honest.md", two.layout.inbox / "honest.md")
    two.result("honest.md")
    assert synced.exists(), "nobody touches it"
    assert question.exists()
    assert not (two.root / "asked.txt").exists()
    assert not (one.root / "asked.txt").exists()
    one._run((), ["run", str(one.root), "--take-over"], {})
    assert one.result("asks.md")["status"] == "done"
    assert (one.root / "asked.txt").read_text() == "x"


def test_no_tool_writes_the_file_and_it_is_no_command(pair: tuple[Agent, Agent]) -> None:
    one, _ = pair
    one.drop("forge.md", '---\nsteps: [{write: {path: owner.md, text: "x"}}]\n---\n')
    claim = read_claim(one.layout)
    one.once()
    result = one.result("forge.md")
    assert result["status"] != "done"
    assert "owner.md" in result["error"]
    after = read_claim(one.layout)
    assert claim
    assert after
    assert msgspec.structs.replace(after, started=claim.started, renewed=claim.renewed) == claim


def claimed(layout: Layout) -> RunFolder:
    """A command with an attachment that a daemon has taken, and not begun."""
    (layout.inbox / "a.txt").write_text("attached")
    (layout.inbox / "a.md").write_text("---\nattachments: [a.txt]\n---\nWhat is my name?")
    inbox = Inbox(layout)
    (arrival,) = wait_for(lambda: inbox.scan(datetime.now(UTC), 0.0, 0, 0, 600).ready, "both are complete")
    folder: RunFolder | None = inbox.claim(arrival, new_run_id(datetime.now(UTC)), datetime.now(UTC))
    assert folder
    assert not any(layout.inbox.iterdir())
    return folder


def give_back(layout: Layout) -> None:
    with closing(recovery.open_index(layout)) as index:
        hand_back(layout, index, Journal(layout.journal, lambda: datetime.now(UTC)))


@pytest.mark.parametrize("cut", [0, 1])
def test_a_command_that_was_given_back_when_a_kill_came_is_given_back_whole(tmp_path: Path, cut: int) -> None:
    """Between the two names of a file, of its attachment or of itself."""
    layout = init_workspace(tmp_path / "ws")[0]
    folder = claimed(layout)
    moves = [(folder.attachments / "a.txt", layout.inbox / "a.txt"), (folder.claimed, layout.inbox / "a.md")]
    for source, place in moves[: cut + 1]:
        os.link(source, place)
    for source, _ in moves[:cut]:
        source.unlink()
    give_back(layout)
    assert sorted(path.name for path in layout.inbox.iterdir()) == ["a.md", "a.txt"]
    assert not folder.path.exists()


def test_a_command_whose_name_somebody_took_stays_with_its_attachments(tmp_path: Path) -> None:
    layout = init_workspace(tmp_path / "ws")[0]
    folder = claimed(layout)
    (layout.inbox / "a.md").write_text("another one")
    give_back(layout)
    assert (layout.inbox / "a.md").read_text() == "another one"
    assert folder.claimed.exists()
    assert [path.name for path in folder.attachments.iterdir()] == ["a.txt"]
    assert not (layout.inbox / "a.txt").exists()
