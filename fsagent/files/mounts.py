"""On what kind of file system a folder lies, and whether the kernel can tell of every change there."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"\\([0-7]{3})")
# What other machines, or the host of a virtual machine, write there is not reported to this kernel.
_FAR = {
    "9p", "afs", "ceph", "cifs", "coda", "davfs", "drvfs", "fakeowner", "gfs2", "glusterfs", "grpcfuse", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "osxfs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip


def kind_of(path: str | Path) -> str:
    """The type of the file system as it calls itself (``ext4``, ``nfs4``, ``fuse.sshfs``); "" where it is unknown."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return ""
    real = os.fsencode(os.path.realpath(path)) + b"/"
    longest, kind = -1, ""
    for line in lines:
        fields, _, source = line.partition(b" - ")
        point = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), fields.split(b" ")[4]).rstrip(b"/") + b"/"
        if real.startswith(point) and len(point) >= longest:  # a later one covers those before it
            longest, kind = len(point), source.split(b" ")[0].decode(errors="replace")
    return kind


def is_far(kind: str) -> bool:
    """True where others may write without this kernel's knowledge: network and shared folders, FUSE but for disks."""
    return kind in _FAR or kind == "fuse" or kind.startswith("fuse.")
