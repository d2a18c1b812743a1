"""What doctor tells of sync clients that would harm the workspace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsagent.doctor import examine
from fsagent.workspace.create import DROPBOX_IGNORES, init_workspace
from fsagent.workspace.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for name in ("STHOMEDIR", "STCONFDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return init_workspace(tmp_path / "cloud" / "ws")[0]


def told(layout: Layout) -> list[str]:
    return [str(fault) for fault in examine(layout).faults]


@pytest.mark.parametrize("where", [".local/state", ".config"])
@pytest.mark.parametrize(
    ("setting", "lost"),
    [
        ("<maxConflicts>0</maxConflicts>", True),
        ("", True),
        ("<maxConflicts>10</maxConflicts>", False),
        ("<maxConflicts>-1</maxConflicts>", False),
    ],
)
def test_syncthing_that_would_lose_a_conflict(
    layout: Layout, tmp_path: Path, where: str, setting: str, lost: bool
) -> None:
    config = tmp_path / "home" / where / "syncthing" / "config.xml"
    config.parent.mkdir(parents=True)
    for path, concerns in ((layout.root, True), (layout.root.parent, True), (tmp_path / "other", False)):
        config.write_text(f'<configuration><folder id="a" path="{path}">{setting}</folder></configuration>')
        found = [each for each in told(layout) if "maxConflicts" in each]
        assert len(found) == (lost and concerns)
        assert all(each.startswith(str(config)) and "<maxConflicts>10</maxConflicts>" in each for each in found)


def test_settings_of_syncthing_that_nobody_can_read(layout: Layout, tmp_path: Path) -> None:
    config = tmp_path / "home/.config/syncthing/config.xml"
    config.parent.mkdir(parents=True)
    config.write_text("<configuration>")
    assert [each for each in told(layout) if each.startswith(str(config)) and "cannot be read" in each]


def test_dropbox_is_told_to_leave_our_state_out(layout: Layout) -> None:
    (layout.root.parent / ".dropbox.cache").mkdir()
    try:
        os.removexattr(layout.machine, DROPBOX_IGNORES)
    except OSError:
        pytest.skip("this disk keeps no attributes")
    (fault,) = told(layout)
    assert "com.dropbox.ignored" in fault
    os.setxattr(layout.machine, DROPBOX_IGNORES, b"1")
    assert told(layout) == []


def test_a_conflict_copy_in_our_own_folder_shows_that_it_is_copied(layout: Layout) -> None:
    (layout.journal / "2026-11.sync-conflict-20261127-101010-ABCDEFG.jsonl").touch()
    assert [each for each in told(layout) if "a sync client copies .fsagent/" in each]


@pytest.mark.parametrize("name", ["water (1)", "water copy", "water - Kopie (2)", "Copy of water"])
def test_a_second_copy_of_a_task_is_told_where_the_first_lies_beside_it(layout: Layout, name: str) -> None:
    path = layout.tasks / f"{name}.md"
    path.write_text("---\nevery: 1d\n---\nLog x to log.txt")
    assert told(layout) == []
    (layout.tasks / "water.md").write_bytes(path.read_bytes())
    (fault,) = told(layout)
    assert fault.startswith(f"tasks/{name}.md: looks like a second copy of the task water")
