"""What a file's name alone tells: temporary, a sync client's conflict copy, a command, or a twin of another name.

The patterns are those of real editors and sync clients, as measured (vim, Emacs, Syncthing, Dropbox, Nextcloud …).
A name is a single component, never a path. Limits: a name cannot tell everything (``x (1).md`` and ``x copy.md`` are
ordinary names here), and the wording of conflict copies is complete only for the languages listed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

TEMPORARY_PREFIX = ".fsagent-tmp-"
"""Starts every temporary name that we make ourselves; like all dot-names it is never taken for a command."""

_TEMPORARY = re.compile(
    r"""
      \..*                              # hidden: .syncthing.*, .x.swp, .#x, ._x, .DS_Store, .nfs*, rsync, gio, ours
    | ~syncthing~.*\.tmp                # Syncthing on Windows
    | .*~                               # backups of vim and Emacs
    | \#.*\#                            # Emacs auto-save
    | \d{4,5}                           # vim asks with 4913 whether it may create files
    | sed\w{6} | XX\w{6} | tmp\w{6,8}   # sed -i, perl -pi, mkstemp
    | ~\$.*                             # Office owner files
    | ~.*\.tmp
    | desktop\.ini | (eh)?thumbs\.db | icon\r?
    | .*\.(tmp|temp|part|partial|filepart|crdownload|download|opdownload|!sync|bts|aria2|sw[opxn]
          |bak|orig|rej|lock|lck|kate-swp|icloud)
    | .*\.tmp[-.]?[0-9a-f]{4,}
    | .*___jb_(tmp|old)___              # JetBrains
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

_CONFLICT_WORDS = "|".join(
    (
        "conflicted copy",
        "(case|white ?space|unicode encoding) conflict",
        "copie en conflit",
        "copia en conflicto",
        "copia conflictiva",
        "in konflikt stehende kopie",
        "konfliktkopie",
        "copia in conflitto",
        "cópia em conflito",
        "conflicterende kopie",
        "конфликтующая копия",
        "競合コピー",
        "問題のあるコピー",
        "冲突副本",
        "衝突複本",
    )
)
_ANY_CONFLICT = "con?flict|conflit|konflikt|конфликт|конфлікт|競合|冲突|衝突|충돌"  # beside a date, in any language
_DAY = r"\d{4}-\d\d-\d\d"
_IN = r"(?:[^()]|\([^()]*\))*"  # what stands in parentheses: names of devices have some themselves
_END = r"(?P<end>\.[^.]*)?"
_CONFLICTS = tuple(
    re.compile(rf"(?P<stem>.+?){mark}", re.IGNORECASE | re.DOTALL)
    for mark in (
        rf"\.sync-conflict-\d{{8}}-\d{{6}}(-[A-Z2-7]{{7}})?{_END}",  # Syncthing
        rf" ?\(({_IN}[ '’の的上])?({_CONFLICT_WORDS}){_IN}\){_END}",  # Dropbox, Nextcloud, Obsidian
        rf" ?\({_IN}({_ANY_CONFLICT}){_IN}{_DAY}{_IN}\){_END}",  # the same in other languages, Proton Drive, Unison
        rf" \(case clash from {_DAY} \d{{6}}\){_END}",  # Nextcloud
        rf"_conflict(_[^-]+)?-\d{{8}}-\d{{6}}{_END}",  # old ownCloud and Nextcloud
        rf" \(SFConflict [^()]+\)(-\d+)?{_END}",  # Seafile
        rf"-[\w.-]+-safeBackup-\d{{4}}{_END}",  # the onedrive client for Linux
        rf" ?\[conflict(ed)?( \d+)?\]{_END}",  # pCloud, Google Drive
        rf"_conf\(\d+\){_END}",  # Google Drive
        rf"_[^_]+_[A-Z][a-z]{{2}}-\d\d-\d{{6}}-\d{{4}}_\w*Conflict{_END}",  # Synology Drive
        rf"(\.{_DAY}-|\.)conflict\d*{_END}",  # rclone bisync, with and without --suffix-keep-extension; Resilio
        rf"\.\.path[12]{_END}",  # rclone bisync until 1.66
    )
)
_GIVEN_BY_WINDOWS = r"(?:DESKTOP|LAPTOP)-[0-9A-Z]{6,8}"
_DUPLICATES = tuple(
    re.compile(mark, re.IGNORECASE | re.DOTALL)
    for mark in (
        rf"(?P<stem>.+?)( -)? (copy|kopie|copie|copia)( \d+| \(\d+\))?{_END}",  # Finder, Explorer
        rf"(copy of|kopie von|copie de|copia di|copia de) (?P<stem>.+?){_END}",  # Google Drive
        rf"(?P<stem>.+?) ?\(\d{{1,3}}\){_END}",  # Google Drive, OneDrive, browsers
    )
)

_COMMAND = re.compile(r".+\.(md|markdown|txt)", re.IGNORECASE | re.DOTALL)
_SKIPPED = frozenset({"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"})

# Characters that some file systems or readers pass over; with all of category Cf they vanish before names are compared.
_IGNORED = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | {
    chr(code) for code in range(0xFE00, 0xFE10)
}


def is_temporary(name: str) -> bool:
    """True for a name that an editor, a download or a sync client uses while it works, and for every hidden name."""
    return _TEMPORARY.fullmatch(name) is not None


def conflict_of(name: str) -> str | None:
    """The original's name if ``name`` is a sync client's conflict copy, else None."""
    for pattern in _CONFLICTS:
        found = pattern.fullmatch(name)
        if found:
            return str(found["stem"]) + (found["end"] or "")
    return None


def device_copy_of(name: str, hosts: Iterable[str] = ()) -> str | None:
    """The original's name if ``name`` ends in the name of a computer, as OneDrive makes it, else None.

    That is a conflict copy only where the original is there, or was: ``backup-laptop.md`` may well be a name of its
    own. Known are the names that Windows gives by itself, and ``hosts``.
    """
    devices = "|".join([_GIVEN_BY_WINDOWS, *map(re.escape, filter(None, hosts))])
    found = re.fullmatch(rf"(?P<stem>.+?)-({devices})(-\d+)?{_END}", name, re.IGNORECASE | re.DOTALL)
    return str(found["stem"]) + (found["end"] or "") if found else None


def duplicate_of(name: str) -> str | None:
    """The original's name if ``name`` is one that file managers and some sync clients give to a second copy, else None.

    People choose such names, too; it tells something only where the original lies beside it.
    """
    for pattern in _DUPLICATES:
        found = pattern.fullmatch(name)
        if found:
            return str(found["stem"]) + (found["end"] or "")
    return None


def is_command_copy(name: str) -> bool:
    """True for a sync client's conflict copy of a command."""
    original = conflict_of(name)
    return original is not None and not is_temporary(name) and is_command_name(original)


def is_command_name(name: str) -> bool:
    """True if a file of this name is a command: ``.md``, ``.markdown`` or ``.txt``, no temporary, no conflict copy."""
    return _COMMAND.fullmatch(name) is not None and not is_temporary(name) and conflict_of(name) is None


def skip_directory(name: str) -> bool:
    """True for a folder that no scan enters: hidden ones, and what sync clients and file managers leave behind."""
    return name.startswith(".") or name.lower() in _SKIPPED


def fold(name: str) -> str:
    """The form in which two names count as the same on *any* file system.

    Case, Unicode normalisation and compatibility forms, invisible characters, a Windows stream (``x:y``), and dots and
    spaces at the end make no difference. More names are equal here than on one given disk: use it to refuse, not to
    find.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(char for char in text if unicodedata.category(char) != "Cf" and char not in _IGNORED)
    text = unicodedata.normalize("NFKC", text).casefold()
    return text.split(":")[0].rstrip(" .") or text
