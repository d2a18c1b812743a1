"""The sample workspace does what its files say: the tour is taken, from the first command to the last of its guide."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import frontmatter
import pytest

from fsagent.config import Settings, load_settings
from fsagent.facts import SOUL_TEMPLATE, read_facts
from fsagent.files.fields import Duration
from harness import FSAGENT, wait_for

SAMPLE = Path(__file__).resolve().parent.parent / "sample-workspace"

# Every command of the tour: how it ends, and a passage of its answer.
TOUR = {
    "1-fact.md": ("done", "Remembered: You live in Lisbon."),
    "2-question.md": ("done", "You live in Lisbon."),
    "3-by-hand.md": ("done", "The kettle is red."),
    "4-playbook.md": ("done", "added 1 line to notes/tour.md"),
    "5-schedule.md": ("done", "Created the task breaks-md-stretch-your-legs (every 30m)"),
    "6-needs-a-model.md": ("refused", 'I did not understand "Write me a poem about the sea", and did nothing.'),
    "7-denied.md": ("refused", "shell is denied by the settings"),
    "garden/1.md": ("done", "Remembered: The tomatoes need water in the evening."),
    "garden/2.md": ("done", "The tomatoes need water in the evening."),
}


def fsagent(*words: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*FSAGENT, *words], text=True, capture_output=True, timeout=15)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answer(root: Path, name: str) -> frontmatter.Post:
    return frontmatter.load(str(root / "outbox" / name))


def uncommented(settings: Path) -> str:
    """The settings as the guide asks for them in its third step."""
    return re.sub(r"^# (tools:|  shell:)", r"\1", settings.read_text(), flags=re.MULTILINE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the sample, as ``fsagent init --sample`` makes it."""
    fsagent("init", str(tmp_path / "ws"), "--sample")
    return tmp_path / "ws"


def test_a_copy_is_whole_and_without_faults(root: Path) -> None:
    files = [path.relative_to(SAMPLE) for path in SAMPLE.rglob("*") if path.is_file()]
    assert [path for path in files if ".fsagent" in path.parts] == []
    assert [path for path in files if (root / path).read_bytes() != (SAMPLE / path).read_bytes()] == []
    assert fsagent("doctor", "-w", str(root)).startswith("no faults")


def test_the_tour_ends_as_its_files_say(root: Path) -> None:
    dropped = {path: path.read_bytes() for path in (root / "inbox").rglob("*.md")}
    fsagent("run", str(root), "--once")
    assert sorted(str(path.relative_to(root / "outbox")) for path in (root / "outbox").rglob("*.md")) == sorted(TOUR)
    for name, (status, passage) in TOUR.items():
        result = answer(root, name)
        assert (result["status"], passage in result.content) == (status, True), result.content
        settled = next((root / ("archive" if status == "done" else "failed")).rglob(name))
        assert settled.read_bytes() == dropped[root / "inbox" / name]
    assert answer(root, "garden/1.md")["thread"] == "garden"
    assert [path.name for path in (root / "inbox").iterdir() if path.is_file()] == ["8-draft.md"]
    assert re.fullmatch(
        r"# The tour\n\nWritten by the playbook 4-playbook\.md\. .*\n\n- The kettle is red\.\n"
        r"- It is \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\n",
        (root / "notes" / "tour.md").read_text(),
    )
    assert [fact.text for fact in read_facts((root / "soul.md").read_text())] == [
        "The kettle is red.", "The owner lives in Lisbon.", "The tomatoes need water in the evening.",
    ]  # fmt: skip
    assert frontmatter.load(str(root / "tasks" / "breaks-md-stretch-your-legs.md"))["every"] == "30m"
    assert fsagent("doctor", "-w", str(root)).startswith("no faults")


def test_what_the_guide_proposes_next_works(root: Path) -> None:
    fsagent("run", str(root), "--once")
    (root / "inbox" / "hello.md").write_text("What can you do?")
    soul = root / "soul.md"
    soul.write_text(soul.read_text().replace("\n- The kettle is red.", "\n- The kettle is blue."))
    (root / "inbox" / "kettle.md").write_text("What do you know about the kettle?")
    settings = root / "fsagent.yaml"
    settings.write_text(uncommented(settings))
    (root / "failed" / "7-denied.md").rename(root / "inbox" / "7-denied.md")
    draft = root / "inbox" / "8-draft.md"
    draft.write_text(draft.read_text().replace("draft: true\n", ""))
    (root / "inbox" / "pause.md").write_text("Pause the breaks-md-stretch-your-legs task")
    fsagent("run", str(root), "--once")
    assert answer(root, "hello.md").content.startswith("This is what I understand without a model:")
    assert answer(root, "kettle.md").content == "The kettle is blue."
    assert answer(root, "7-denied-2.md")["status"] == "done"
    assert answer(root, "8-draft.md").content == "Remembered: The tour was fun."
    assert answer(root, "pause.md").content == "Paused the task breaks-md-stretch-your-legs."


def test_the_tasks_of_the_tour_run(root: Path) -> None:
    settings, kettle = root / "fsagent.yaml", root / "tasks" / "kettle.md"
    settings.write_text(settings.read_text().replace("heartbeat_interval: 1m", "heartbeat_interval: 1s"))
    kettle.write_text(kettle.read_text().replace("every: 5m", "every: 1s").replace("enabled: false", "enabled: true"))
    with subprocess.Popen([*FSAGENT, "run", str(root)], stdout=subprocess.DEVNULL) as daemon:
        try:
            wait_for((root / "log.txt").exists, "the heartbeat writes its line", 10)
            wait_for(lambda: list((root / "outbox").glob("kettle/*.md")), "the kettle task reports", 10)
        finally:
            daemon.terminate()
    result = next((root / "outbox").glob("kettle/*.md"))
    assert frontmatter.load(str(result)).content == "- The kettle is red."
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", (root / "log.txt").read_text())


def test_a_stop_file_holds_the_tour(root: Path) -> None:
    (root / "STOP").touch()
    fsagent("run", str(root), "--once")
    assert list((root / "outbox").rglob("*.md")) == []
    (root / "STOP").unlink()
    fsagent("run", str(root), "--once")
    assert len(list((root / "outbox").rglob("*.md"))) == len(TOUR)


def test_the_guide_lists_every_command() -> None:
    guide = (SAMPLE / "GUIDE.md").read_text()
    commands = sorted(str(path.relative_to(SAMPLE / "inbox")) for path in (SAMPLE / "inbox").rglob("*.md"))
    listed = [
        name for row in re.findall(r"^\| (`[^|]*) \|", guide, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    ]
    assert listed == commands == sorted([*TOUR, "8-draft.md"])


def test_the_settings_are_the_defaults_but_for_the_heartbeat(root: Path) -> None:
    settings = root / "fsagent.yaml"
    assert load_settings(settings) == Settings(heartbeat_interval=Duration(60))
    settings.write_text(uncommented(settings))
    assert list(load_settings(settings).tools) == ["shell"]


def test_the_soul_is_the_template_with_two_lines_more() -> None:
    soul = (SAMPLE / "soul.md").read_text().splitlines()
    assert [line for line in SOUL_TEMPLATE.splitlines() if line not in soul] == []
    assert [fact.text for fact in read_facts("\n".join(soul))] == ["The kettle is red."]
