"""Lock the calling process in, for good, and all that it starts: Landlock for files, seccomp for sockets.

Standard library only, for the supervisor loads this file by its path into a Python that knows no other of ours.

What it closes: every file but those named (reading, writing, running, making, removing), every socket but a pair
within the tree, TCP and IP only with ``network``; System V and POSIX message queues, semaphores and shared memory,
the kernel's key rings, io_uring; reading or tracing another process (its memory, environment, ``/proc/PID/root``);
from Linux 6.12 on also signals to other processes; capabilities, and new rights by setuid programs.

Limits: Linux 6.2 (``LEAST_ABI``) on x86-64, ARM64 or RISC-V. Landlock rules are about a file or a folder with all in
it: nothing in a folder that may be written can be taken out again. It does not hide names: whether a path exists,
its size and times can be asked, the command lines of other processes can be seen, and the mode, owner and times of
files that belong to the same user can be changed anywhere (``chmod``, ``touch`` on what exists).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys

TYPE_CHECKING = False  # the supervisor loads this for every call, and needs no more than it must have
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_ABI = 3  # before it, any file of the same user could be emptied
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_NO_NEW_PRIVS, _SET_SECCOMP, _DROP_BOUND = 38, 22, 24
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_EACCES, _EPERM = 13, 1
_IN_ORDER = (198, 425, 219, 217, 218, 194, 190, 186, 180)
_CALLS = {
    # machine: its number for seccomp, and of socket, io_uring_setup, keyctl, add_key, request_key, shmget, semget,
    # msgget, mq_open
    "x86_64": (0xC000003E, (41, 425, 250, 248, 249, 29, 64, 68, 240)),
    "aarch64": (0xC00000B7, _IN_ORDER),
    "riscv64": (0xC00000F3, _IN_ORDER),
}


def abi() -> int:
    """The version of Landlock that can be used here; 0 where it cannot, or where it is too old to hold."""
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32 or os.uname().machine not in _CALLS:
        return 0
    version = int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return version if version >= LEAST_ABI else 0


def restrict(read: Sequence[str], write: Sequence[str], look: Sequence[str], network: bool) -> None:
    """Leave this process no files but these, and no network but on wish. There is no way back.

    What lies in ``read`` may be read and run, what lies in ``write`` anything; of folders in ``look``, and of all
    beneath them, only the names may be listed. Paths that are not there, and links, are passed over. Raises
    ``OSError``: then the process must not go on.
    """
    version = abi()
    if not version:
        raise OSError(38, "no Landlock")
    everything = (1 << (16 if version >= 5 else 15)) - 1
    scoped = (_ABSTRACT_SOCKETS | _SIGNALS) if version >= 6 else 0
    attributes = struct.pack("=QQQ", everything, 0, scoped)[: 24 if version >= 6 else 8]
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    rules = _syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)
    for paths, rights in ((read, _READ), (write, everything), (look, _READ_DIR)):
        for path in paths:
            _allow(rules, path, rights & everything)
    _drop_capabilities()
    _syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)
    _filter_calls(network)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            return
        if not stat.S_ISDIR(mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, fd)
        _syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(fd)


def _drop_capabilities() -> None:
    """Root is an ordinary user from here on, who owns root's files."""
    libc = _libc()
    for capability in range(64):
        libc.prctl(_DROP_BOUND, capability, 0, 0, 0)  # fails where there is none, or no right to drop it
    _call("capset", ctypes.c_char_p(struct.pack("=Ii", 0x20080522, 0)), ctypes.c_char_p(bytes(24)))


def _filter_calls(network: bool) -> None:
    """Refuse what Landlock does not know: sockets (not ``socketpair``), shared memory, keys; in this process for good.

    A program made for another machine (32 bits) is ended, for its calls have other numbers.
    """
    machine, (socket, *refused) = _CALLS[os.uname().machine]
    families = (_AF_INET, _AF_INET6, _AF_NETLINK) if network else ()
    program = [_load(4), *_unless_equal(machine, _end(0x80000000)), _load(0)]
    if os.uname().machine == "x86_64":
        program += [(0x35, 0, 1, 0x40000000), _end(0x80000000)]  # the x32 calls
    for number in refused:
        program += [*_if_equal(number, _end(0x00050000 | _EPERM))]
    program += [(0x15, 1, 0, socket), _end(0x7FFF0000), _load(16)]
    for family in families:
        program += [*_if_equal(family, _end(0x7FFF0000))]
    program.append(_end(0x00050000 | _EACCES))
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    lines = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(lines))
    _call("prctl", _SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0)


_Line = tuple[int, int, int, int]


def _load(offset: int) -> _Line:
    return (0x20, 0, 0, offset)


def _end(value: int) -> _Line:
    return (0x06, 0, 0, value)


def _if_equal(value: int, then: _Line) -> Iterable[_Line]:
    return (0x15, 0, 1, value), then


def _unless_equal(value: int, then: _Line) -> Iterable[_Line]:
    return (0x15, 1, 0, value), then


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    return _call("syscall", number, *arguments)


def _call(name: str, *arguments: object) -> int:
    """A function of the C library. Raises ``OSError`` where it gives -1."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(getattr(_libc(), name)(*wide))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
