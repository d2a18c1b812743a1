"""Which host this is: an id that is made once, kept in ``.fsagent/hosts/``, and names *this copy on this machine*.

``.fsagent/`` is not synced, so another machine makes an id of its own. Where it was carried over all the same (a
restored backup, a sync client without ignore rules), the id holds only as long as the machine (its machine-id) or the
folder itself (its inode) is the one that it was made for: a container has another name at each start and often no
machine-id, but its volume's inode stays; a restored folder has another inode, but perhaps the same machine. Where both
are others, this is another host, and gets an id of its own.

Limits: a machine without a machine-id counts as the one before that had none, and a cloned disk as its original; what
two such hosts share is found out only while both run (``ownership``).
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.errors import DocumentError
from fsagent.files.atomic import write_atomic
from fsagent.workspace.layout import Layout
from fsagent.workspace.owner import Claim, read_claim, strongest

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"


class HostRecord(Struct, frozen=True, kw_only=True):
    """A host as it knows itself. ``best`` is the strongest claim that it ever saw, ``tasks_of`` the turn for which it
    has settled which slots of the tasks are another host's."""

    id: str
    machine: str = ""
    folder: int = 0
    best: Claim | None = None
    tasks_of: int = 1


def machine_id() -> str:
    """What this machine calls itself for good; "" where it does not (most containers)."""
    for path in _MACHINE_IDS:
        try:
            found = path.read_text("ascii", "replace").strip()
        except OSError:
            continue
        if found and found != "uninitialized":
            return found
    return ""


def find_host(layout: Layout, machine: str) -> HostRecord | None:
    """The record of this host, as far as there is one; writes nothing."""
    folder = _inode(layout)
    ranked = []
    for record, changed in _records(layout):
        same_machine, same_folder = record.machine == machine, record.folder == folder
        if same_machine or same_folder:
            ranked.append((same_machine + same_folder, bool(machine) and same_machine, changed, record.id, record))
    return max(ranked)[-1] if ranked else None


def this_host(layout: Layout, machine: str) -> HostRecord:
    """The record of this host, made and kept if there is none. Raises ``OSError``."""
    return keep_host(layout, find_host(layout, machine) or HostRecord(id=_new_id()), machine)


def another_host(layout: Layout, record: HostRecord, machine: str) -> HostRecord:
    """A new id for this host, for somebody else goes by the one that it has."""
    return keep_host(layout, msgspec.structs.replace(record, id=_new_id()), machine)


def keep_host(layout: Layout, record: HostRecord, machine: str) -> HostRecord:
    """Write a record down, with what it holds for now; nothing is written where nothing is new."""
    record = msgspec.structs.replace(record, machine=machine, folder=_inode(layout))
    path = layout.hosts / f"{record.id}.json"
    data = msgspec.json.encode(record) + b"\n"
    if not path.exists() or path.read_bytes() != data:
        layout.hosts.mkdir(exist_ok=True)
        write_atomic(path, data)
    return record


def _records(layout: Layout) -> list[tuple[HostRecord, int]]:
    found = []
    try:
        names = os.listdir(layout.hosts)
    except OSError:
        return []
    for name in names:
        path = layout.hosts / name
        try:
            record = msgspec.json.decode(path.read_bytes(), type=HostRecord)
            changed = path.stat().st_mtime_ns
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        if name == f"{record.id}.json":
            found.append((record, changed))
    return found


def _inode(layout: Layout) -> int:
    return os.stat(layout.machine).st_ino


def _new_id() -> str:
    return "".join(_ALPHABET[byte % 32] for byte in os.urandom(8))


def owner_elsewhere(layout: Layout) -> Claim | None:
    """The claim of another host that owns this workspace, as far as is known here; None where it is ours, or nobody's.

    For whoever is not the daemon. Costs a look at some small files.
    """
    record = find_host(layout, machine_id())
    best = _best(layout, record)
    return best if best and (record is None or best.id != record.id) else None


def new_claim(layout: Layout, now: datetime) -> Claim:
    """The claim by which this host takes over from whoever owns the workspace. Raises ``OSError``."""
    record = this_host(layout, machine_id())
    before = _best(layout, record)
    return Claim(
        host=os.uname().nodename, id=record.id, turn=before.turn + 1 if before else 1,
        since=now.replace(microsecond=0), started=now, renewed=now.replace(microsecond=0),
    )  # fmt: skip


def _best(layout: Layout, record: HostRecord | None) -> Claim | None:
    """The strongest claim that is known here; what cannot be understood is none."""
    try:
        seen = read_claim(layout)
    except (DocumentError, OSError):
        seen = None
    return strongest(record.best if record else None, seen)
