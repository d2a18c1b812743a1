"""A disk that refuses: at every call that writes, with every reason there is, while the daemon lives.

The daemon is never restarted here. While the fault lasts, it is told; when it is over, all goes on by itself: each
command has one result and lies in one place, and no line is written twice.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import frontmatter
import pytest

from faultshim import ENDLESS, KINDS, BadDisk, why_not
from fsagent.doctor import examine
from fsagent.faces.door import Caller, hand_in
from fsagent.workspace.status import read_sheet
from harness import Agent, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(bool(why_not()), reason=why_not())]
SETTINGS = "settle: 0s\nsettle_renamed: 0s\ntools: {write: {'asked/**': ask, '**': allow}}\n"
STEPS = "---\nsteps:\n  - append: {{path: log.txt, text: '{0}'}}\n  - write: {{path: out/{0}.txt, text: x}}\n---\n"
ASKED = "---\nsteps:\n  - write: {{path: asked/{0}.txt, text: x}}\n  - append: {{path: log.txt, text: '{0}'}}\n---\n"
STEP = int(os.environ.get("FAULTS_STEP", "9"))
"""Every so many-th call is refused, each reason beginning with another one; 1 takes twenty minutes."""
LAST = 200
SOON = 20.0


class Patient:
    """A daemon on a disk that can be made to refuse, and the ways in which it is given something to do."""

    def __init__(self, root: Path) -> None:
        self.agent = Agent(root / "ws", SETTINGS)
        self.layout = self.agent.layout
        self.disk = BadDisk(root, self.agent.root)
        self._runs: dict[str, str] = {}
        self.agent.start(env=self.disk.env)
        self.drop("first")
        self.agent.result("first.md")
        self.usual = self.fds()

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.agent.process.pid}/fd"))

    def told(self, reason: str = "") -> bool:
        """On the sheet; but what is refused to the sheet, too, is told on the screen alone, once in a while."""
        words = {"EIO": "gives errors", "EROFS": "is read-only"}.get(reason)
        return bool(read_sheet(self.layout)) or (words is not None and words in self.agent.output())

    def drop(self, name: str) -> None:
        self.agent.drop(f"{name}.md", STEPS.format(name))

    def hand_in(self, name: str) -> None:
        self._runs[name] = hand_in(self.layout, STEPS.format(name).encode(), Caller("cli")).run

    def remember(self, name: str) -> None:
        self.agent.drop(f"{name}.md", f"Remember that the number {name} is lucky.")

    def ask(self, name: str) -> None:
        self.agent.drop(f"{name}.md", ASKED.format(name))

    def result(self, name: str) -> Path | None:
        """The result, if it is there; what is asked meanwhile is approved."""
        for path in self.layout.approvals.glob("*.md"):
            text = ""
            with suppress(FileNotFoundError):  # it was answered just now
                text = path.read_text()
            if "- [ ] approve once" in text:
                changed = path.with_name(f".{path.name}.tmp")
                changed.write_text(text.replace("- [ ] approve once", "- [x] approve once"))
                os.rename(changed, path)
        path = self.layout.outbox / (f"cli/{self._runs[name]}.md" if name in self._runs else f"{name}.md")
        return path if path.exists() else None

    def files_of(self, name: str) -> list[Path]:
        """Where the command and its result lie."""
        wanted = f"{self._runs.get(name, name)}.md"
        places = (self.layout.inbox, self.layout.archive, self.layout.failed, self.layout.outbox)
        return [path for place in places for path in place.rglob(wanted)]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    patient = Patient(tmp_path_factory.mktemp("faults"))
    yield patient
    patient.agent.close()


def _sweep(patient: Patient, reason: str, way: str) -> list[str]:
    """Refuse the n-th call, or all from the n-th on until that is told, for every ``STEP``-th n until there is no such
    call; gives the commands."""
    names = []
    for number in range(sorted(KINDS).index(reason) % STEP, LAST, STEP):
        name, lasts = f"{reason.lower()}{way}{number}", number // STEP % 2 == 0
        names.append(name)
        where = f"{reason} at {number}, {way}"
        patient.disk.refuse(reason, number, ENDLESS if lasts else 1)
        getattr(patient, way)(name)
        wait_for(lambda name=name: patient.disk.refused or patient.result(name), f"{where} comes", SOON)
        refused = patient.disk.refused
        if refused and lasts:
            told = f"{where} ({patient.disk.last}) is told"
            wait_for(lambda name=name: patient.told(reason) or (patient.result(name) and False), told, SOON)
        patient.disk.heal()
        wait_for(lambda name=name: patient.result(name), f"after {where} all goes on", SOON)
        wait_for(lambda: not patient.told(), f"after {where} nothing is told", SOON)
        if not refused:
            return names
    raise AssertionError(f"more than {LAST} calls")


CASES = [("drop", reason) for reason in KINDS]
CASES += [(way, reason) for way in ("hand_in", "remember", "ask") for reason in ("ENOSPC", "EIO", "EMFILE", "EACCES")]


@pytest.mark.parametrize(("way", "reason"), CASES)
def test_whatever_call_is_refused_all_goes_on_by_itself(patient: Patient, way: str, reason: str) -> None:
    names = _sweep(patient, reason, way)
    agent, layout = patient.agent, patient.layout
    wait_for(lambda: not list(layout.runs.glob("*/claimed.md")), "all are settled", SOON)
    results = {name: frontmatter.load(str(patient.result(name))).metadata for name in names}
    for result in results.values():
        assert result["status"] in ("done", "failed"), result
        if result["status"] == "failed":  # only where the disk refused a tool
            assert os.strerror(getattr(errno, reason)) in result["error"], result
    lines = Counter((agent.root / "soul.md" if way == "remember" else agent.root / "log.txt").read_text().split())
    for name in names:
        assert lines[name] <= 1, lines
        assert lines[name] == 1 or results[name]["status"] == "failed", lines
        assert len(patient.files_of(name)) == 2, patient.files_of(name)
    assert not agent.files(layout.inbox)
    assert patient.disk.lies == 0, f"synced again what was lost: {patient.disk.last}"
    wait_for(lambda: patient.fds() <= patient.usual, f"no descriptor is left open ({patient.usual})")


def test_a_disk_that_comes_and_goes_costs_a_task_no_slot_twice(patient: Patient) -> None:
    task = patient.layout.tasks / "beat.md"
    task.write_text("---\nevery: 1s\nsteps:\n  - append: {path: beats.txt, text: '{{ command.name }}'}\n---\n")
    beats = patient.agent.root / "beats.txt"
    wait_for(beats.exists, "the first beat")
    for number, reason in enumerate(KINDS):
        patient.disk.refuse(reason, number)
        wait_for(lambda reason=reason: patient.disk.refused and patient.told(reason), f"{reason} is told", SOON)
        before = beats.read_text()
        patient.disk.heal()
        wait_for(lambda before=before: beats.read_text() != before, f"it beats again after {reason}", SOON)
    task.unlink()
    runs = wait_for(
        lambda: all(run.finished for run in patient.agent.runs() if run.task) and patient.agent.runs(), "all have ended"
    )
    lines = Counter(beats.read_text().split())
    assert set(lines.values()) == {1}, lines
    done = {run.command for run in runs if run.task == "beat" and run.status == "done"}
    assert done <= set(lines), done - set(lines)
    assert {run.status for run in runs if run.task == "beat"} <= {"done", "failed"}


@pytest.mark.parametrize("reason", KINDS)
def test_it_waits_and_does_not_try_without_end(patient: Patient, reason: str) -> None:
    patient.disk.refuse(reason)
    began = time.monotonic()
    patient.drop(f"{reason}-waits")
    wait_for(lambda: patient.disk.refused >= 60 or time.monotonic() > began + 2, "it was refused often, or waits")
    assert time.monotonic() > began + 0.8, f"{patient.disk.refused} calls were refused"
    patient.disk.heal()
    wait_for(lambda: patient.result(f"{reason}-waits"), "it goes on", SOON)
    wait_for(lambda: not patient.told(), "nothing is told", SOON)


def test_a_fault_is_one_line_in_the_log_and_leaves_nothing_behind(patient: Patient) -> None:
    for reason in KINDS:
        patient.disk.refuse(reason)
        patient.drop(f"{reason}-told")
        wait_for(lambda reason=reason: patient.told(reason), f"{reason} is told", SOON)
        patient.disk.heal()
        wait_for(lambda reason=reason: patient.result(f"{reason}-told"), f"it goes on after {reason}", SOON)
        wait_for(lambda: not patient.told(), "nothing is told", SOON)
    said = patient.agent.output()
    for words in ("is full", "gives errors", "may not write", "can be opened", "is read-only", "quota"):
        begun = [line for line in said.splitlines() if " trouble     " in line and words in line]
        assert begun, f"{words} was never told"
    assert len([line for line in said.splitlines() if " trouble " in line]) < 60, "the log is full of it"
    wait_for(lambda: "Needs you" not in patient.agent.status(), "nothing is wrong any more")
    assert not list(examine(patient.layout).faults)
