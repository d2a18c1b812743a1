"""Lock programs in: by bubblewrap where it works, else by Landlock, else not at all, which is for the caller to refuse.

What a locked-in program has: the workspace but for its reserved places, which it may at most read; the system's
programs and settings, to read; a ``/tmp`` and a home of its own; the further places of the settings; no network
unless the settings give it; no other process to signal or to look into; limits on size and number (``LIMITS``).

Under bubblewrap the root of the workspace is a new folder in which what lies in the real root is mounted, entry by
entry. So nothing can be done to an entry that is reserved, or that a person replaces meanwhile. What the program makes
directly in the root is moved to the real one afterwards, under a free name, unless its name is reserved.

Landlock cannot take a place out of a folder that may be written. So nothing can be made, renamed or removed directly
in the root there; what lies in it can be changed. The limits of ``landlock`` apply.

Limits: what exists in the root cannot be renamed or removed by a program (``sed -i`` on a file there fails); a root
with thousands of entries makes bubblewrap slow. Faults of the kernel are not held in. Of ``/etc`` only what anybody may
read is shown, but only its own entries are looked at.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from msgspec import Struct

from fsagent.config import Settings
from fsagent.errors import ToolError
from fsagent.files.atomic import numbered
from fsagent.files.names import TEMPORARY_PREFIX
from fsagent.tools.base import Context, Sandbox

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
          "/run/current-system")  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom")
LIMITS = {"CORE": 0, "FSIZE": 4 << 30, "NPROC": 4096}
_TRIAL_SECONDS = 10.0
_FLAGS = ("--unshare-all", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL")
_TMP = "/tmp"  # noqa: S108  # the sandbox's own
_SCRIPT_INSIDE = "/run/fsagent/supervise.py"


class Lock(Struct, frozen=True):
    """What can lock programs in here. ``name`` is empty where nothing can; then ``why`` says why not."""

    name: str
    why: str = ""
    program: str = ""


class Entries(Struct, frozen=True):
    """What lies directly in the root: by what a program may do there, links with their targets, and what is shown of a
    place that is hidden otherwise."""

    write: list[str]
    read: list[str]
    links: dict[str, str]
    shown: list[str]

    def names(self) -> set[str]:
        """The names in the root that are taken."""
        return {*self.write, *self.read, *self.links, *(path.partition("/")[0] for path in self.shown)}


class Cell(Struct, frozen=True):
    """How one call is locked in: what to put before the supervisor's command, its plan, the environment that differs.

    ``words`` say for people what held the program in; ``made`` is the folder of what it makes in the root, if any.
    """

    words: str = ""
    before: tuple[str, ...] = ()
    script: str = ""
    plan: dict[str, object] | None = None
    environment: dict[str, str] = {}
    visible: tuple[str, ...] = ()
    made: Path | None = None
    taken: frozenset[str] = frozenset()

    def sees(self, place: str) -> bool:
        """True if programs in this folder can be run in here."""
        return not self.plan or _is_below(place, self.visible)

    def bring_out(self, context: Context) -> list[str]:
        """Move what was made in the root to the real one; gives what a person should know of it."""
        told = []
        for name in sorted(set(os.listdir(self.made)) - self.taken) if self.made else ():
            source = Path(str(self.made), name)
            if context.root.reserved(name):
                told.append(f"{name!r} was not kept: the name is reserved")
            elif stat.S_IFMT(source.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                told.append(f"{name!r} was not kept: it is no file, folder or link")
            else:
                try:
                    target = _move(source, context.root.path / name)
                except OSError as error:
                    told.append(f"{name!r} was not kept: {error.strerror}")
                    continue
                if target.name != name:
                    told.append(f"{name!r} is now {target.name!r}: the name has been taken meanwhile")
        return told


def in_force() -> Lock:
    """What locks programs in here. Tried out once for each bubblewrap that is found; costs some milliseconds then."""
    from fsagent.tools import landlock

    program = shutil.which("bwrap") or ""
    why = _trial(program) if program else "bwrap is not installed"
    if not why:
        return Lock("bubblewrap", program=program)
    if landlock.abi():
        return Lock("Landlock", why)
    return Lock("", f"bubblewrap: {why}; Landlock: it needs Linux 6.2 or later that has it switched on")


def in_words(lock: Lock, *, network: bool) -> str:
    """What is in force, for status and messages."""
    if not lock.name:
        return f"no sandbox works here ({lock.why}), so shell refuses. Install bubblewrap, or set sandbox: off"
    return f"{lock.name}, {'with the' if network else 'no'} network"


def standing(settings: Settings) -> tuple[str, str]:
    """What locks programs in, and what is wrong with that; both empty where the settings let no program run."""
    if not settings.runs_programs:
        return "", ""
    if settings.sandbox == "off":
        return "none (sandbox: off)", ""
    lock = in_force()
    words = in_words(lock, network=settings.sandbox_network)
    return (words, "") if lock.name else ("", words)


@contextmanager
def cell(wanted: Sandbox, context: Context) -> Iterator[Cell]:
    """Make ready for one call, and clean up after it. Raises ``ToolError`` where programs cannot be locked in."""
    if not wanted.on:
        yield Cell()
        return
    import tempfile

    lock, root = in_force(), context.root.path
    if not lock.name:
        raise ToolError(f"{in_words(lock, network=False)} in fsagent.yaml")
    for place in (*wanted.read, *wanted.write):
        real = Path(os.path.realpath(place))
        if root.is_relative_to(real) or real.is_relative_to(root):
            raise ToolError(f"the sandbox may not be given {place!r}: the workspace lies there, or it lies in it")
    try:
        scratch = Path(tempfile.mkdtemp(prefix="shell-", dir=wanted.scratch))
    except OSError as error:
        raise ToolError(f"cannot make the sandbox's own folder: {error.strerror}", retryable=True) from error
    try:
        (scratch / "tmp").mkdir()
        entries = _entries(context)
        if lock.name == "bubblewrap":
            yield _bubblewrap(lock, wanted, root, scratch, entries)
        else:
            yield _landlock(lock, wanted, root, scratch, entries)
    finally:
        shutil.rmtree(scratch, onerror=_make_removable)


def _bubblewrap(lock: Lock, wanted: Sandbox, root: Path, scratch: Path, entries: Entries) -> Cell:
    made = scratch / "root"
    made.mkdir()
    words = [lock.program, *_FLAGS, *(["--share-net"] if wanted.network else [])]
    for place in SYSTEM:
        if os.path.islink(place):
            words += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            words += ["--ro-bind", place, place]
    words += ["--ro-bind", "/etc", "/etc"]
    for place in _private():
        words += ["--tmpfs", place] if os.path.isdir(place) else ["--ro-bind", "/dev/null", place]
    words += ["--proc", "/proc", "--dev", "/dev", "--bind", str(scratch / "tmp"), _TMP]
    words += ["--bind", str(scratch / "tmp"), f"/var{_TMP}"]
    python, shown = _python()
    words += shown
    for place in _network_files() if wanted.network else ():
        words += ["--ro-bind-try", place, place]
    for option, places in (("--ro-bind-try", wanted.read), ("--bind-try", wanted.write)):
        for place in (each for each in places if not _is_below(each, SYSTEM)):
            words += [option, os.path.realpath(place), place]
    words += ["--bind", str(made), str(root)]
    # "try": what has gone since it was seen must not keep the program from running.
    for option, names in (("--bind-try", entries.write), ("--ro-bind-try", (*entries.read, *entries.shown))):
        for name in names:
            words += [option, f"{root}/{name}", f"{root}/{name}"]
    for name, target in entries.links.items():
        words += ["--symlink", target, f"{root}/{name}"]
    script = str(Path(__file__).with_name("supervise.py"))
    words += ["--ro-bind", script, _SCRIPT_INSIDE, "--remount-ro", "/", "--chdir", str(root), "--", python]
    return Cell(
        words=in_words(lock, network=wanted.network),
        before=tuple(words),
        script=_SCRIPT_INSIDE,
        plan={"limits": LIMITS},
        environment={"HOME": _TMP, "TMPDIR": _TMP},
        visible=(*SYSTEM, *wanted.read, *wanted.write),
        made=made,
        taken=frozenset(entries.names()),
    )


def _landlock(lock: Lock, wanted: Sandbox, root: Path, scratch: Path, entries: Entries) -> Cell:
    own = str(scratch / "tmp")
    private = set(_private())
    settings = [f"/etc/{name}" for name in os.listdir("/etc")] if private else ["/etc"]
    read = [*SYSTEM, *(place for place in settings if place not in private), "/proc", *wanted.read]
    read += [f"{root}/{name}" for name in (*entries.read, *entries.shown)]
    write = [own, *(f"/dev/{name}" for name in DEVICES), *wanted.write, *(f"{root}/{name}" for name in entries.write)]
    if wanted.network:
        read += _network_files()
    # Links in the root and in /etc are passed over; the settings' own and the system's are followed.
    followed = {*SYSTEM, *wanted.read, *wanted.write}
    plan = {
        "read": [os.path.realpath(place) if place in followed else place for place in read],
        "write": [os.path.realpath(place) if place in followed else place for place in write],
        "look": [str(root), "/etc"],
        "network": wanted.network,
    }
    return Cell(
        words=in_words(lock, network=wanted.network) + ", nothing new directly in the root",
        plan={"limits": LIMITS, "landlock": plan},
        environment={"HOME": own, "TMPDIR": own},
        visible=(*SYSTEM, *wanted.read, *wanted.write),
    )


def _entries(context: Context) -> Entries:
    """What lies in the root now. A file with several names may be read only: one of them may be reserved."""
    found = Entries([], [], {}, [])
    for entry in os.scandir(context.root.path):
        kind = context.root.reserved(entry.name)
        if kind == "read" or entry.name.startswith(TEMPORARY_PREFIX):
            continue
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                found.links[entry.name] = os.readlink(entry.path)
            elif stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
                (found.read if kind else found.write).append(entry.name)
            elif stat.S_ISREG(status.st_mode):
                found.read.append(entry.name)
        except FileNotFoundError:
            continue
    found.shown.extend(path for path in context.root.readable(context.run) if (context.root.path / path).is_dir())
    return found


@cache
def _trial(program: str) -> str:
    """Why this bubblewrap cannot be used, or an empty text: it is asked to do what every call will ask of it."""
    import subprocess

    words = [program, *_FLAGS, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    try:
        done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} cannot be used: {error}"
    said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
    return f"{program} cannot be used: {said or 'it failed'}" if done.returncode else ""


def _private() -> list[str]:
    """What lies in /etc, can be read by this user and not by everybody: nothing, unless this is root or in a group."""
    found = []
    for entry in os.scandir("/etc"):
        try:
            mode = entry.stat().st_mode
        except OSError:
            continue
        if not mode & stat.S_IROTH and os.access(entry.path, os.R_OK):
            found.append(entry.path)
    return found


def _network_files() -> list[str]:
    """What the resolver reads and does not lie in /etc itself."""
    return [os.path.realpath("/etc/resolv.conf")]


def _python() -> tuple[str, list[str]]:
    """The interpreter for the supervisor, and how to show it where it is none of the system's: with its own library,
    not with what else is installed there."""
    python, library = os.path.realpath(sys.executable), os.path.dirname(os.path.realpath(os.__file__))
    if _is_below(python, SYSTEM) and _is_below(library, SYSTEM):
        return python, []
    shared = Path(os.path.realpath(sys.base_prefix), "lib").glob("libpython3*.so*")
    words = [word for place in (python, library, *map(str, shared)) for word in ("--ro-bind", place, place)]
    for name in ("site-packages", "dist-packages"):
        if os.path.isdir(f"{library}/{name}"):
            words += ["--tmpfs", f"{library}/{name}"]
    return python, words


def _is_below(place: str, places: Sequence[str]) -> bool:
    return any(Path(place).is_relative_to(each) for each in places)


def _move(source: Path, wish: Path) -> Path:
    """Move to the first free name; never over anything."""
    for target in numbered(wish):
        try:
            if source.is_dir() and not source.is_symlink():
                target.mkdir()
                os.rename(source, target)
            else:
                os.link(source, target, follow_symlinks=False)
                source.unlink()
        except FileExistsError:
            continue
        return target
    raise AssertionError  # the numbers never end


def _make_removable(remove: object, path: str, _: object) -> None:
    """A program may have taken its own rights to a folder away; what still cannot be removed is left for recovery."""
    with suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
