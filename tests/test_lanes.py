"""Which run goes when: a run is never under way twice, also where its next try comes before its last one has ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fsagent.lanes import Lanes
from fsagent.model import Command
from fsagent.pipeline import Admitted
from fsagent.workspace.runs import Envelope, RunFolder


def test_the_next_try_of_a_run_waits_until_the_last_one_has_ended(tmp_path: Path) -> None:
    envelope = Envelope(run="r1", name="a.md", trigger="inbox", time=datetime(2026, 11, 27, tzinfo=UTC))
    run = Admitted(RunFolder(tmp_path / "r1"), envelope, Command(name="a.md", body="x"), 1, slow=True)
    waiting: list[int] = []

    def work(runs: Sequence[Admitted]) -> None:
        if not waiting:
            lanes.put(run)
        waiting.append(lanes.waiting())

    lanes = Lanes(work, lambda: 4, lambda: None)
    lanes.put(run)
    assert lanes.wait_idle(30)
    assert waiting == [1, 0], "it waited while the first try was under way, and went after it"
    assert lanes.running() == []
