"""What the disk or the system says no with for a while, by errno: nobody's mistake, and nothing of the file's own."""

from __future__ import annotations

import errno

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ENOBUFS, errno.ESTALE})
"""Said of any file alike, also where it is only read."""

PASSING = SHORTAGES | {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EAGAIN, errno.ENOLCK,
}  # fmt: skip
"""May be granted when somebody has seen to it."""
