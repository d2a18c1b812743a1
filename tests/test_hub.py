"""One watch for all listeners: soon told, everything once and in order, at rest while nobody listens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fsagent.faces import door
from fsagent.faces.hub import REMEMBERED, Hub
from fsagent.workspace.create import init_workspace
from fsagent.workspace.journal import Journal, read_after
from fsagent.workspace.layout import Layout
from harness import Agent, wait_for

START = datetime(2026, 11, 30, 23, 0, 0, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return init_workspace(tmp_path / "ws")[0]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "ws").start()
    yield agent
    agent.close()


class Writer:
    """A journal with numbered records; a new month begins where it is told to."""

    def __init__(self, layout: Layout) -> None:
        self.now = START
        self.count = 0
        self._journal = Journal(layout.journal, lambda: self.now)

    def write(self, many: int = 1) -> None:
        for _ in range(many):
            self._journal.append("beat", number=self.count)
            self.count += 1

    def next_month(self) -> None:
        self.now += timedelta(days=31)


async def until(hub: Hub, position: str, last: int, slow: int = 0) -> list[int]:
    """The numbers behind a position, as a listener gets them, until the record ``last``; ``slow`` ones dawdle."""
    seen: list[int] = []
    pulse = hub.pulses["journal"]
    async with hub.listening():
        while not seen or seen[-1] != last:
            count = pulse.count
            entries = hub.after(position)
            if entries:
                position = entries[-1].position
                seen += [json.loads(entry.line)["number"] for entry in entries]
            else:
                assert await pulse.wait(count, 20), f"nothing was told after {seen[-1:]}"
            for _ in range(slow):
                await asyncio.sleep(0)
    return seen


def test_a_result_is_there_soon_after_it_is_published(agent: Agent) -> None:
    async def ask(hub: Hub, number: int) -> tuple[float, str]:
        run = await asyncio.to_thread(door.hand_in, agent.layout, b"Log %d to log.txt" % number, door.Caller("http"))
        started = time.monotonic()
        assert await hub.published(run.run, 20)
        took, found = time.monotonic() - started, door.result_of(agent.layout, run.run)
        return took, str(found and found.fields["status"])

    async def main() -> list[tuple[float, str]]:
        hub = Hub(agent.layout)
        try:
            first = await ask(hub, 0)
            return [first, *await asyncio.gather(*(ask(hub, number) for number in range(1, 31)))]
        finally:
            await hub.close()

    told = asyncio.run(main())
    assert {status for _, status in told} == {"done"}
    assert max(seconds for seconds, _ in told) < 5, "told by the watch, not by the check every 15 seconds"


def test_a_result_that_does_not_come_is_not_waited_for_longer_than_asked(layout: Layout) -> None:
    async def main() -> None:
        hub = Hub(layout)
        for run in ("20260101-000000-aaaaa", "../../x", ""):
            assert await hub.published(run, 0) is False
            assert await hub.published(run, 0.1) is False
        await hub.close()

    asyncio.run(main())


@pytest.mark.parametrize("how_many", [1, 200])
def test_each_listener_sees_every_record_once_and_in_order(layout: Layout, how_many: int) -> None:
    """Some are slow, some come back with an old position, and the month changes meanwhile."""
    writer = Writer(layout)
    writer.write(100)
    first, *_ = read_after(layout.journal, "0000-00:0")

    async def main() -> list[list[int]]:
        hub = Hub(layout)
        places = ["0000-00:0", first.position, hub.end(), "2026-10:7"]
        total = 100 + 3 * 40 + 1
        listeners = [
            asyncio.create_task(until(hub, places[number % 4], total - 1, slow=number % 3))
            for number in range(how_many)
        ]
        for _ in range(3):
            await asyncio.to_thread(writer.write, 40)
            writer.next_month()
        await asyncio.to_thread(writer.write)
        seen = await asyncio.gather(*listeners)
        await hub.close()
        return seen

    seen = asyncio.run(main())
    starts = [0, 1, 100, 0]
    assert [each for number, each in enumerate(seen) if each != list(range(starts[number % 4], 221))] == []


def test_who_falls_far_behind_misses_nothing(layout: Layout) -> None:
    writer = Writer(layout)
    writer.write()

    async def main() -> tuple[list[int], list[int], list[int]]:
        hub = Hub(layout)
        start = hub.end()
        async with hub.listening():
            assert hub.after(start) == []
            writer.write(10)
            while len(hub.after(start)) < 10:
                await hub.pulses["journal"].wait(hub.pulses["journal"].count, 5)
            known = hub.after(start)[4].position
            many = REMEMBERED + 3000
            writer.write(many)
            last = writer.count - 1
            found = await until(hub, start, last), await until(hub, known, last), await until(hub, "0000-00:0", last)
            newest = hub.after(start)
            assert len(newest) == 1000, "a thousand at a time"
        await hub.close()
        return found

    from_start, from_known, from_beginning = asyncio.run(main())
    assert from_start == list(range(1, writer.count))
    assert from_known == list(range(6, writer.count))
    assert from_beginning == list(range(writer.count))


def test_a_journal_that_was_cut_or_removed_goes_on(layout: Layout) -> None:
    writer = Writer(layout)
    writer.write(20)

    async def main() -> None:
        hub = Hub(layout)
        async with hub.listening():
            assert hub.after(position := hub.end()) == []
            for path in layout.journal.iterdir():
                path.unlink()
            writer.next_month()
            writer.write(3)
            assert await until(hub, position, 22) == [20, 21, 22]
            (path,) = layout.journal.iterdir()
            path.write_bytes(b'{"number": 1}\n')
            assert await until(hub, hub.end().replace(":14", ":9999"), 1) == [1]
        await hub.close()

    asyncio.run(main())


@pytest.mark.parametrize("listening", [True, False])
def test_what_is_no_position_is_told(layout: Layout, listening: bool) -> None:
    async def main() -> None:
        hub = Hub(layout)
        if listening:
            async with hub.listening():
                for text in ("", "x", "2026-11:x"):
                    with pytest.raises(ValueError, match="no position"):
                        hub.after(text)
        else:
            with pytest.raises(ValueError, match="no position"):
                hub.after("x")
        await hub.close()

    asyncio.run(main())


async def quiet(hub: Hub) -> dict[str, int]:
    """The counts, once all that was done before has been told."""
    counts: dict[str, int] = {}
    while counts != (counts := {name: pulse.count for name, pulse in hub.pulses.items()}):
        await asyncio.gather(*(pulse.wait(pulse.count, 0.1) for pulse in hub.pulses.values()))
    return counts


def test_the_pulses_tell_what_changed_and_not_the_daemons_own_doings(layout: Layout) -> None:
    async def main() -> None:
        hub = Hub(layout)
        async with hub.listening():
            for place, act in (
                ("root", lambda: layout.soul.write_text("- one\n")),
                ("root", layout.stop.touch),
                ("root", layout.stop.unlink),
                ("tasks", lambda: (layout.tasks / "a.md").write_text("x")),
                ("tasks", (layout.tasks / "heartbeat.md").unlink),
                ("journal", lambda: Writer(layout).write()),
            ):
                counts = await quiet(hub)
                act()
                assert await hub.pulses[place].wait(counts[place], 10), place
                others = {name: pulse.count for name, pulse in hub.pulses.items() if name != place}
                assert others == {name: counts[name] for name in others}, place
        await hub.close()

    asyncio.run(main())


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def test_it_rests_when_nobody_listens_and_begins_again(layout: Layout) -> None:
    writer = Writer(layout)
    writer.write(5)
    before = threads()

    async def main() -> None:
        hub = Hub(layout, linger=0.1)
        for _ in range(3):
            async with hub.listening():
                first = writer.count
                position = hub.end()
                await asyncio.to_thread(writer.write, 3)
                assert await until(hub, position, first + 2) == [first, first + 1, first + 2]
                assert threads() > before
            position = hub.end()
            await asyncio.to_thread(wait_for, lambda: threads() == before, "it rests")
            writer.write(2000)
            assert len(hub.after(position)) == 1000, "read from the files"
            assert threads() == before
        await hub.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert threads() == before


def test_closing_lets_everybody_go(layout: Layout) -> None:
    before = threads()

    async def main() -> float:
        hub = Hub(layout)
        waiting = [asyncio.create_task(hub.published("20260101-000000-aaaaa", 600)) for _ in range(20)]
        await asyncio.sleep(0)
        at_once = Hub(layout)
        last = asyncio.create_task(at_once.published("20260101-000000-aaaaa", 600))
        await asyncio.sleep(0)
        started = time.monotonic()
        await at_once.close()
        await hub.close()
        assert await asyncio.gather(*waiting, last) == [False] * 21
        await hub.close()
        return time.monotonic() - started

    assert asyncio.run(main()) < 5
    assert threads() == before


_UNWATCHED = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from fsagent.faces.hub import Hub
from fsagent.workspace.journal import Journal
from fsagent.workspace.layout import open_workspace

layout = open_workspace(Path(sys.argv[1]))
journal = Journal(layout.journal, lambda: datetime.now(UTC))

async def main():
    hub = Hub(layout)
    async with hub.listening():
        position, pulse = hub.end(), hub.pulses["journal"]
        await pulse.wait(pulse.count, 0.3)
        for number in range(3):
            journal.append("beat", number=number)
            while not (entries := hub.after(position)):
                assert await pulse.wait(pulse.count, 5)
            position = entries[-1].position
            print(len(entries))
    await hub.close()

asyncio.run(main())
"""


FORBID = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
UNWATCHED = ["unshare", "--user", "--map-root-user", "sh", "-c", FORBID, "sh"]


def unwatched() -> list[str]:
    """Begins a command in a user namespace that may have no inotify instance."""
    if subprocess.run([*UNWATCHED, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    return UNWATCHED


def test_it_looks_for_itself_where_nothing_can_be_watched(layout: Layout) -> None:
    done = subprocess.run(
        [*unwatched(), sys.executable, "-c", _UNWATCHED, str(layout.root)], capture_output=True, text=True, timeout=40
    )
    assert done.stdout.split() == ["1"] * 3, done.stderr
    assert done.returncode == 0


def test_the_daemon_looks_for_itself_too(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "ws", "scan_interval: 200ms\nsettle: 0s\nsettle_renamed: 0s\n")
    agent.start(unwatched())
    agent.drop("a.md", "My name is Alice.")
    assert agent.result("a.md")["status"] == "done"
    assert agent.stop() == 0
