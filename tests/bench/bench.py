"""How fast and how small: every figure beside the same work done by a bare loop in the same run.

``python tests/bench/bench.py [--quick] [NAME …]``; without names all of them. Read the ratios: a shared machine's
milliseconds say little. Nothing here asserts; the promises that can be tested are in the tests.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import frontmatter  # noqa: E402
import models  # noqa: E402
from client import Client  # noqa: E402

from cells import Programs  # noqa: E402  # found only now
from fsagent.faces.door import Caller, hand_in  # noqa: E402
from fsagent.model import Run  # noqa: E402
from fsagent.tools.base import Context  # noqa: E402
from fsagent.tools.sandbox import in_force  # noqa: E402
from fsagent.tools.shell import Shell, ShellArgs  # noqa: E402
from fsagent.workspace.create import init_workspace  # noqa: E402
from fsagent.workspace.index import Index  # noqa: E402
from fsagent.workspace.reserved import tools_root  # noqa: E402
from fsagent.workspace.tasks import TaskBook  # noqa: E402
from harness import FSAGENT, Agent, wait_for  # noqa: E402

SETTINGS = "settle: 0s\nsettle_renamed: 0s\n"


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return statistics.median(ordered) * 1e3, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3


def until(path: Path) -> float:
    """The moment a file is there."""
    while not os.path.lexists(path):
        time.sleep(0.0002)
    return time.perf_counter()


def say(what: str, ours: float, bare: float, unit: str, more: str = "") -> None:
    ratio = f"{ours / bare:6.2f} ×" if bare else "      –"
    print(f"{what:<44} {ours:10.2f} {unit:<5} bare {bare:10.2f} {unit:<5} {ratio}  {more}", flush=True)


@contextmanager
def agent(settings: str = SETTINGS) -> Iterator[Agent]:
    """A daemon on a fresh workspace on this disk."""
    folder = Path(tempfile.mkdtemp(prefix="fsagent-bench-", dir=HERE.parent.parent))
    made = Agent(folder / "ws", settings, fork=False)  # what a start costs is measured, too
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


@contextmanager
def bare_loop() -> Iterator[Path]:
    """The baseline on a fresh folder of the same disk."""
    folder = Path(tempfile.mkdtemp(prefix="fsagent-bench-", dir=HERE.parent.parent))
    process = subprocess.Popen([sys.executable, str(HERE / "bare.py"), str(folder)], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        yield folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder)


def handed_in(made: Agent) -> Path:
    """Hand a command in by the side door; gives its run's folder."""
    return made.layout.runs / hand_in(made.layout, b"help", Caller("cli")).run


def rename_in(inbox: Path, name: str) -> None:
    """One file, moved in whole."""
    staged = inbox.parent / "staged.tmp"
    staged.write_text("help")
    os.rename(staged, inbox / name)


def latencies(count: int, drop: Callable[[int], Path]) -> tuple[float, float]:
    """p50 and p99 from a drop to its durable result, one at a time."""
    taken = []
    for number in range(count):
        begin = time.perf_counter()
        taken.append(until(drop(number)) - begin)
    return percentiles(taken[max(1, count // 10) :])


def latency(quick: bool) -> None:
    """From a drop to its result: by the side door, and by the inbox without settle time."""
    count = 40 if quick else 400

    def bare(number: int) -> Path:
        rename_in(folder / "inbox", f"{number}.md")
        return folder / "archive" / f"{number}.md"

    with bare_loop() as folder:
        base = latencies(count, bare)
    with agent() as made:
        made.start()

        def side_door(_: int) -> Path:
            return handed_in(made) / "result.md"

        def inbox(number: int) -> Path:
            rename_in(made.layout.inbox, f"{number}.md")
            return made.layout.outbox / f"{number}.md"

        door, dropped = latencies(count, side_door), latencies(count, inbox)
    say("side door to durable result, p50", door[0], base[0], "ms", "goal ≤ 4 ×")
    say("side door to durable result, p99", door[1], base[1], "ms")
    say("inbox to durable result, p50, settle 0s", dropped[0], base[0], "ms")
    say("inbox to durable result, p99, settle 0s", dropped[1], base[1], "ms")


def burst(quick: bool) -> None:
    """Many files moved in at once, until the last one is settled."""
    for count in (100, 500) if quick else (100, 10_000):
        with bare_loop() as folder:
            begin = time.perf_counter()
            for number in range(count):
                rename_in(folder / "inbox", f"{number}.md")
            wait_for(lambda folder=folder, count=count: len(os.listdir(folder / "archive")) >= count, seconds=600)
            base = count / (time.perf_counter() - begin)
        with agent() as made:
            made.start()
            begin = time.perf_counter()
            for number in range(count):
                rename_in(made.layout.inbox, f"{number}.md")
            place = made.layout.archive / f"{datetime.now(UTC):%Y-%m}"
            wait_for(lambda place=place, count=count: place.exists() and len(os.listdir(place)) >= count, seconds=1200)
            ours = count / (time.perf_counter() - begin)
        say(f"burst of {count:,}: commands per second", ours, base, "1/s", "goal ≥ 300, the same at both sizes")


def memory(pid: int) -> float:
    """PSS of a process in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def wake_ups(pid: int, seconds: float) -> float:
    """How often any of its threads woke, per second."""

    def count() -> int:
        files = Path(f"/proc/{pid}/task").glob("*/status")
        return sum(int(line.split()[1]) for file in files for line in file.read_text().splitlines() if "ctxt" in line)

    before = count()
    time.sleep(seconds)
    return (count() - before) / seconds


def cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(quick: bool) -> None:
    """Memory and CPU of a daemon with 50 tasks that has nothing to do, beside a Python that sleeps."""
    seconds = 5 if quick else 120
    bare = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    with agent("") as made:
        for number in range(50):
            (made.layout.tasks / f"t{number}.md").write_text("---\nevery: 1d\n---\nLog the timestamp to log.txt\n")
        made.start()
        made.drop("a.md", "help")
        made.result("a.md")
        ready = cpu(made.process.pid)
        time.sleep(3)
        begin, ours = cpu(made.process.pid), memory(made.process.pid)
        time.sleep(seconds)
        used = (cpu(made.process.pid) - begin) / seconds * 100
        say("idle memory (PSS)", ours, memory(bare.pid), "MB", "goal ≤ 32 MB")
        say("idle CPU", used, 0.0, "%", f"goal ≤ 0.05 %, over {seconds} s")
        say("CPU until ready and the first command done", ready, 0.0, "s", "goal ≤ 0.5 s")
    bare.kill()
    bare.wait()


def face(quick: bool) -> None:
    """CPU of the commands that only read, beside a Python that does nothing."""
    with agent("") as made:
        made.start()
        made.drop("a.md", "help")
        made.result("a.md")
        base = spent([sys.executable, "-c", "pass"])
        for words in (["status"], ["runs"], ["tasks"], ["health"], ["show", "last"]):
            say(
                f"fsagent {' '.join(words)}", spent([*FSAGENT, *words, "-w", str(made.root)]), base, "s", "goal < 0.3 s"
            )


def spent(command: list[str]) -> float:
    """The least CPU of five runs of a command, in seconds."""
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def tasks(quick: bool) -> None:
    """Start-up and idling with very many tasks, beside the same with ten; and the book of tasks beside bare loops."""
    figures = []
    for count in (10, 500 if quick else 10_000):
        with agent("") as made:
            for number in range(count):
                (made.layout.tasks / f"t{number}.md").write_text("---\nevery: 1d\n---\nLog the timestamp to log.txt\n")
            time.sleep(2.1)  # so that no file counts as just written
            if count > 10:
                book_of_tasks(made, count)
            made.start()
            wait_for(made.layout.beat.exists, seconds=120)
            ready = cpu(made.process.pid)
            made.stop()
            made.layout.beat.unlink()
            made.start()
            wait_for(made.layout.beat.exists, seconds=120)
            warm = cpu(made.process.pid)
            time.sleep(1)
            begin = cpu(made.process.pid)
            time.sleep(5 if quick else 60)
            figures.append((ready, warm, cpu(made.process.pid) - begin, memory(made.process.pid)))
    (few_ready, few_warm, few_idle, few_memory), (ready, warm, idling, much) = figures
    say(f"{count:,} tasks: CPU until ready (bare: 10)", ready, few_ready, "s")
    say(f"{count:,} tasks: CPU until ready, warm (bare: 10)", warm, few_warm, "s")
    say(f"{count:,} tasks: CPU while idle (bare: 10)", idling, few_idle, "s")
    say(f"{count:,} tasks: memory (bare: 10)", much, few_memory, "MB")


def book_of_tasks(made: Agent, count: int) -> None:
    """A look at all task files, cold and warm, beside a loop that only parses, or only asks for each file's status."""

    def timed(work: Callable[[], object]) -> float:
        begin = time.process_time()
        work()
        return (time.process_time() - begin) / count * 1e6

    def parsed() -> None:
        for entry in os.scandir(made.layout.tasks):
            frontmatter.load(entry.path)

    def looked() -> None:
        for entry in os.scandir(made.layout.tasks):
            entry.stat(follow_symlinks=False)

    parsing, looking = timed(parsed), min(timed(looked) for _ in range(3))
    book = TaskBook(made.layout, keeps=True)
    say("a task file, cold (bare: python-frontmatter)", timed(book.scan), parsing, "µs")
    say("a task file, again (bare: scandir, stat)", min(timed(book.scan) for _ in range(3)), looking, "µs")
    starts = [timed(TaskBook(made.layout).scan) for _ in range(3)]
    say("a task file, warm start (bare: the same)", min(starts), looking, "µs")
    for path in made.layout.task_states.iterdir():
        path.unlink()


def archive(quick: bool) -> None:
    """The list of runs and a command's latency with very many done runs behind, beside the same with none."""
    count = 2_000 if quick else 100_000
    with agent() as made:
        made.start()
        few = latencies(40, lambda _: handed_in(made) / "result.md")
        few_list = spent([*FSAGENT, "runs", "-w", str(made.root)])
        made.stop()
        fill(made, count)
        made.start()
        many = latencies(40, lambda _: handed_in(made) / "result.md")
        say(f"{count:,} runs behind: latency p50 (bare: none)", many[0], few[0], "ms")
        say(f"{count:,} runs behind: fsagent runs (bare: none)", spent([*FSAGENT, "runs", "-w", str(made.root)]),
            few_list, "s")  # fmt: skip
        say(f"{count:,} runs behind: CPU until ready", cpu(made.process.pid), 0.0, "s")


def fill(made: Agent, count: int) -> None:
    """The files and rows that ``count`` done commands leave, copied from one that was really done."""
    index = Index(made.layout.index, write=True)
    (sample,) = index.recent(1)
    names = ("command.md", "result.md", "steps.jsonl")
    source = made.layout.tmp / "source"
    month = made.layout.archive / "2026-01"
    month.mkdir(exist_ok=True)
    for number in range(count):
        if number % 30_000 == 0:  # a file has at most 65,000 names on ext4
            shutil.rmtree(source, ignore_errors=True)
            shutil.copytree(made.layout.runs / sample.run, source)
        run = f"20260101-000000-{number:06d}"
        folder = made.layout.runs / run
        folder.mkdir()
        for name in names:
            os.link(source / name, folder / name)
        os.link(source / "command.md", month / f"{number}.md")
        done = Run(
            run=run,
            command=f"{number}.md",
            trigger="inbox",
            status="done",
            started=sample.started,
            finished=sample.finished,
            settled=f"archive/2026-01/{number}.md",
        )
        index.put(done, key=str(number), is_open=False)
    index.close()


def api(quick: bool) -> None:
    """HTTP beside the daemon: what it costs idle, over the side door, with a thousand streams, with a long past."""
    count = 40 if quick else 400
    with agent() as made:
        made.start()
        time.sleep(3)
        alone, awake = memory(made.process.pid), wake_ups(made.process.pid, 5 if quick else 30)
        door = latencies(count, lambda _: handed_in(made) / "result.md")
    with agent(f'{SETTINGS}api: {{listen: "127.0.0.1:0", rate: 10000}}\n') as made:
        made.start()
        client = Client(made)
        time.sleep(3)
        beside, awake_too = memory(made.process.pid), wake_ups(made.process.pid, 5 if quick else 30)
        say("HTTP beside the daemon: PSS (bare: without)", beside, alone, "MB", "goal ≤ 8 MB more")
        say("… wake-ups per second (bare: without)", awake_too, awake, "1/s", "goal ≤ 1.5 more")
        posted = percentiles([client.command("help") for _ in range(count)][count // 10 :])
        say("POST /v1/commands?wait, p50 (bare: side door)", posted[0], door[0], "ms", "goal ≤ 10 ms more")
        say("POST /v1/commands?wait, p99 (bare: side door)", posted[1], door[1], "ms")
        few = statistics.median([client.get("/v1/runs?limit=50") for _ in range(20)]) * 1e3
        streams = 100 if quick else 1_000
        listeners = client.streams(streams)
        begin = time.perf_counter()
        client.command("help")
        for listener in listeners:
            listener.until(b"event: finished")
        heard = (time.perf_counter() - begin) * 1e3
        say(f"{streams:,} streams: until all heard of it", heard, posted[0], "ms", "bare: the command alone")
        say(f"{streams:,} streams: PSS", memory(made.process.pid), beside, "MB", "bare: none")
        for listener in listeners:
            listener.close()
        made.stop()
        fill(made, 2_000 if quick else 100_000)
        made.start()
        client = Client(made)
        client.get("/v1/runs")
        for path in ("/v1/runs?limit=50", "/v1/results?limit=50", "/v1/search?q=help", "/metrics"):
            many = statistics.median([client.get(path) for _ in range(20)]) * 1e3
            say(f"a long past: GET {path}", many, few, "ms", "bare: GET /v1/runs with a short one")


def shell(quick: bool) -> None:
    """One call of the tool shell under each rung of the sandbox, beside the same call without one."""
    count = 20 if quick else 200
    folder = Path(tempfile.mkdtemp(prefix="fsagent-bench-", dir=HERE.parent.parent))
    broken = folder / "bin" / "bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    layout = init_workspace(folder / "ws")[0]
    found = os.environ["PATH"]
    calls: dict[str, Callable[[], object]] = {}
    for rung, path in (("off", found), ("bubblewrap", found), ("Landlock", f"{broken.parent}:{found}")):
        context = Context(
            root=tools_root(layout), home=Programs(layout.root, rung), now=lambda: datetime.now(UTC), run="r",
            trigger="cli", seconds_left=lambda: 60.0, stopping=lambda: False,
        )  # fmt: skip

        def call(path: str = path, context: Context = context) -> None:
            os.environ["PATH"] = path
            Shell().run(ShellArgs("true"), context)

        os.environ["PATH"] = path
        if rung == "off" or in_force().name == rung:
            calls[rung] = call
    taken: dict[str, list[float]] = {rung: [] for rung in calls}
    for _ in range(count + 2):
        for rung, call in calls.items():
            begin = time.perf_counter()
            call()
            taken[rung].append(time.perf_counter() - begin)
    os.environ["PATH"] = found
    base = percentiles(taken["off"][2:])
    for rung in calls:
        ours = percentiles(taken[rung][2:])
        say(f"shell: true, {rung}, p50 (bare: off)", ours[0], base[0], "ms", f"{ours[0] - base[0]:+.1f} ms")
    shutil.rmtree(folder)


def model(quick: bool) -> None:
    """A run with a model, beside the same exchanges by hand, and beside a process that has only loaded the library."""
    found = models.figures(quick)
    print(
        f"the request for «hi», {found['tools']} tools: {found['hello']:,} bytes, some {found['hello'] // 4:,} tokens"
    )
    more = f"{(found['turn'] - found['bare']) * 1e3:+.1f} ms"
    say("a turn with one tool call, in runs of ten", found["turn"] * 1e3, found["bare"] * 1e3, "ms", more)
    say("cold: from the file to the request", found["cold"], found["imported"], "s", "bare: loading the library")
    say("cold: processor time of the worker", found["cpu"], found["bare_cpu"], "s", "bare: loading the library")
    held = f"its supervisor: {found['supervisor'] / 1e6:.1f} MB"
    say("memory of a worker", found["memory"] / 1e6, found["bare_memory"] / 1e6, "MB", held)


BENCHES = {bench.__name__: bench for bench in (latency, burst, idle, face, tasks, archive, api, shell, model)}


def main() -> None:
    """Run the benches that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it works")
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="NAME", help=", ".join(BENCHES))
    words = parser.parse_args()
    for name, bench in BENCHES.items():
        if not words.names or name in words.names:
            bench(words.quick)


if __name__ == "__main__":
    main()
