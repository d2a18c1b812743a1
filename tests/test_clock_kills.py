"""kill -9 between any two writes of the clock: every slot has one run, or the journal says why it has none."""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from desk import NOON, Desk
from fsagent.gates import Verdict
from fsagent.workspace.runs import RunFolder

CALLS = ("write", "fsync", "fdatasync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "truncate")
MINUTE = timedelta(minutes=1)
TASKS = {
    "plain": "every: 1m",
    "all": "every: 1m\nmissed: all",
    "busy": "every: 1m",
    "gated": "every: 1m\nwhen: {exists: a}",
    "held": "every: 1m\nmissed: all\nwhen: {exists: b}",
}


def a_daemon(desk: Desk) -> None:
    """Begins when three slots of each task have passed."""
    desk.start()
    desk.runs.add("one that goes on", "busy")
    desk.gates.says = {"gated": Verdict(holds=True), "held": Verdict(holds=False, why="b is not there")}
    for _ in range(2):
        desk.tick()


def killed_at(number: int, desk: Desk) -> bool:
    """Another process is that daemon, and ends without a word before its n-th call that changes the disk; False where
    it makes no such many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that we fork where a test runner has threads
        pid = os.fork()
    if pid == 0:
        left = number

        def counted(call: Any) -> Any:
            def wrapped(*args: Any, **more: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(9)
                return call(*args, **more)

            return wrapped

        try:
            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            a_daemon(desk)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def accounted(desk: Desk, task: str) -> tuple[Counter[datetime | None], set[datetime]]:
    """The slots of a task that have a run, and those of which the journal says why they have none."""
    folders = [RunFolder(path) for place in (desk.layout.runs, desk.layout.drop) for path in place.iterdir()]
    run = Counter(each.slot for folder in folders if (each := folder.envelope()) and each.task == task)
    told = set()
    for record in (*desk.events("missed"), *desk.events("skipped"), *desk.events("gated")):
        if record["task"] == task:
            first, last = (datetime.fromisoformat(record.get(key) or record["slot"]) for key in ("first", "last"))
            told |= {first + n * MINUTE for n in range((last - first) // MINUTE + 1)}
    return run, told


def test_killed_between_any_two_writes_no_slot_is_lost_or_run_twice(tmp_path: Path) -> None:
    number, killed = 0, True
    slots = [NOON + n * MINUTE for n in (1, 2, 3)]
    while killed:
        number += 1
        desk = Desk(tmp_path / str(number))
        for name, rule in TASKS.items():
            desk.task(name, f"---\n{rule}\n---\nbeat")
        desk.look()
        desk.now += 3 * MINUTE
        killed = killed_at(number, desk)
        a_daemon(desk)
        found = {name: accounted(desk, name) for name in TASKS}
        for name, (run, told) in found.items():
            assert max(run.values(), default=1) == 1, (number, name)
            assert {*run, *told} == set(slots), (number, name)
        assert [sorted(run) for run, _ in found.values()] == [slots[2:], slots, [], slots[2:], []], number
        desk.journal.close()
        shutil.rmtree(desk.layout.root)
    assert number > 50
