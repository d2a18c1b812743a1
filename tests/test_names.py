"""Names of editors, downloads and sync clients, as facts/files.md measured them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsagent.files.names import TEMPORARY_PREFIX, conflict_of, fold, is_command_name, is_temporary, skip_directory

TEMPORARY = [
    ".syncthing.x.md.tmp",
    ".syncthing.0123456789abcdef.tmp",
    "~syncthing~x.md.tmp",
    ".x.md.AbC123",
    ".goutputstream-ABC123",
    ".x.md.~1a2b3c4d",
    ".#x.md",
    ".x.md.swp",
    "._x.md",
    ".DS_Store",
    ".nfs000000000001",
    ".x.md.icloud",
    TEMPORARY_PREFIX + "0011",
    "x.md~",
    "#x.md#",
    "4913",
    "49130",
    "sedAbC123",
    "XXAbC123",
    "tmpabcdef",
    "tmpabcdefgh",
    "~$x.docx",
    "~WRL0001.tmp",
    "desktop.ini",
    "Desktop.INI",
    "Thumbs.db",
    "Icon",
    "Icon\r",
    *[
        f"x.md.{end}"
        for end in (
            "tmp temp part partial filepart crdownload download opdownload !sync bts aria2 swo swp swx swn bak orig "
            "rej lock lck kate-swp icloud PART"
        ).split()
    ],
    "x.md.tmp1a2b3c",
    "x.md.tmp.1a2b3c",
    "x.md.tmp-00ff",
]
ORDINARY = [
    "x.md",
    "4913.md",
    "1.md",
    "x (1).md",
    "x copy.md",
    "notes",
    "491",
    "491300",
    "tmp.md",
    "sed.md",
    "a.b.c.txt",
]
CONFLICTS = {
    "soul.sync-conflict-20260102-030405-ABCDEF7.md": "soul.md",
    "soul.sync-conflict-20260102-030405.md": "soul.md",
    "a.b.sync-conflict-20260102-030405-ABCDEF7.md": "a.b.md",
    "noend.sync-conflict-20260102-030405-ABCDEF7": "noend",
    "x (Alice's conflicted copy 2026-01-02).md": "x.md",
    "x (Alice’s conflicted copy 2026-01-02).md": "x.md",
    "x (conflicted copy 2026-01-02 030405).md": "x.md",
    "x (laptop's conflicted copy 2026-01-02 (1)).md": "x.md",
    "x (Case Conflict).md": "x.md",
    "x (copie en conflit de bureau 2026-01-02).md": "x.md",
    "x (Copie en conflit de Alice 2026-01-02).md": "x.md",
    "x (copia en conflicto de Alice 2026-01-02).md": "x.md",
    "x (Copia conflictiva de Alice 2026-01-02).md": "x.md",
    "x (In Konflikt stehende Kopie von Alice 2026-01-02).md": "x.md",
    "x (Alice の競合コピー 2026-01-02).md": "x.md",
    "x (case clash from 2026-01-02 030405).md": "x.md",
    "x_conflict-20260102-030405.md": "x.md",
    "x_conflict_alice-20260102-030405.md": "x.md",
    "x (SFConflict alice@example.org 2026-01-02-03-04-05).md": "x.md",
    "x-myhost-safeBackup-0001.md": "x.md",
    "x [conflicted].md": "x.md",
    "x.conflict1.md": "x.md",
    "x.md.conflict2": "x.md",
    "x.conflict.md": "x.md",
}


@pytest.mark.parametrize("name", TEMPORARY)
def test_a_name_in_use_by_another_program_is_temporary_and_no_command(name: str) -> None:
    assert is_temporary(name)
    assert not is_command_name(name)


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_neither_temporary_nor_a_conflict(name: str) -> None:
    assert not is_temporary(name)
    assert conflict_of(name) is None


@pytest.mark.parametrize(("name", "original"), CONFLICTS.items())
def test_a_conflict_copy_tells_its_original_and_is_no_command(name: str, original: str) -> None:
    assert conflict_of(name) == original
    assert not is_command_name(name)


@pytest.mark.parametrize(
    "name", ["x.md", "X.MD", "x.markdown", "x.txt", "4913.md", "1.md", "x (1).md", "x copy.md", "é.md"]
)
def test_text_files_are_commands(name: str) -> None:
    assert is_command_name(name)


@pytest.mark.parametrize("name", ["x.pdf", "x", "md", ".md", "x.md.pdf", "~$x.md", ".#x.md", "x.markdown~"])
def test_other_files_are_no_commands(name: str) -> None:
    assert not is_command_name(name)


@pytest.mark.parametrize(
    "name", [".git", ".~tmp~", ".dropbox.cache", ".tmp.drivedownload", "__MACOSX", "@eaDir", "@eadir"]
)
def test_folders_of_sync_clients_are_skipped(name: str) -> None:
    assert skip_directory(name)


@pytest.mark.parametrize("name", ["taxes", "2026-11", "x.d", "tmpabcdef"])
def test_threads_are_not_skipped(name: str) -> None:
    assert not skip_directory(name)


TWINS = [
    "Inbox",
    "INBOX",
    "inbox.",
    "inbox ",
    "inbox . .",
    "in\u200dbox",
    "\ufeffinbox",
    "ｉnbox",
    "inbox::$DATA",
    "ınbox",
]


@pytest.mark.parametrize("name", TWINS[:-1])
def test_twins_fold_to_the_same_name(name: str) -> None:
    assert fold(name) == fold("inbox")


def test_normalisation_forms_fold_to_the_same_name() -> None:
    assert fold("caf\u00e9") == fold("cafe\u0301") == fold("CAFE\u0301")
    assert fold("..") == ".."


@given(st.text(min_size=1, max_size=60))
def test_any_name_is_judged_without_an_error(name: str) -> None:
    assert fold(fold(name)) == fold(name)
    if is_command_name(name):
        assert not is_temporary(name)
        assert conflict_of(name) is None
