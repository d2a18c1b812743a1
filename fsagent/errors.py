"""Everything that can go wrong, as one tree.

::

    FsagentError                    exit code 1
    ├── PersonError                 something a person wrote or typed; the message says what to write instead
    │   ├── WorkspaceError          10  not a workspace
    │   ├── AlreadyRunningError     11  another daemon works on this workspace
    │   ├── StandingByError         13  another host owns this workspace
    │   ├── DocumentError           2   a file that cannot be understood; carries every fault found in it
    │   │   └── SettingsError       12  the same, for fsagent.yaml
    │   ├── UnsafePathError         2   a path that leaves the workspace or enters a reserved place
    │   ├── NotFoundError           1   what was asked for by name is not there
    │   └── ConflictError           1   it cannot be done to the thing as it is now
    │       └── StaleError          1   the text was changed since the caller read it; carries the text as it is
    └── ToolError                   1   a tool call that did not do what it was asked to
        └── SaidNoError             1   it did, and the program or the server said no

Exit codes are part of the command line's contract (README, "Exit codes").
"""

from __future__ import annotations

from collections.abc import Sequence

from fsagent.model import Fault

MAX_FAULTS = 100


class FsagentError(Exception):
    """Root of all our errors; ``exit_code`` is what the command line returns for it."""

    exit_code = 1


class PersonError(FsagentError):
    """Something a person wrote cannot be used as it is; the message says what to write instead."""

    exit_code = 2


class WorkspaceError(PersonError):
    """The folder is not a workspace, or its marker is damaged."""

    exit_code = 10


class AlreadyRunningError(PersonError):
    """Another daemon holds this workspace; ``pid`` is 0 when it could not be read."""

    exit_code = 11

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


class StandingByError(PersonError):
    """Another host owns this workspace, and nothing is done here. ``owner`` is that host, in words."""

    exit_code = 13

    def __init__(self, owner: str) -> None:
        super().__init__(
            f"the agent in this folder is run by {owner}, not here. A command dropped into inbox/ syncs and is run "
            "there; to have it run here: fsagent run --take-over"
        )
        self.owner = owner


class DocumentError(PersonError):
    """A file that cannot be understood. ``faults`` holds what was found, never empty; of very many the first ones."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults[:MAX_FAULTS])
        if len(faults) > MAX_FAULTS:
            self.faults += (Fault(faults[0].file, f"has more faults; the first {MAX_FAULTS} are told"),)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class SettingsError(DocumentError):
    """fsagent.yaml cannot be used."""

    exit_code = 12


class UnsafePathError(PersonError):
    """A path leaves the workspace, enters a reserved place, or is no regular file."""


class NotFoundError(PersonError):
    """There is no run, task or result of this name."""

    exit_code = 1


class ConflictError(PersonError):
    """It cannot be done to the thing as it is now: a run that has ended cannot be cancelled."""

    exit_code = 1


class StaleError(ConflictError):
    """The text was changed since the caller read it. ``current`` is the file as it is now, ``tag`` its tag."""

    def __init__(self, message: str, current: bytes, tag: str) -> None:
        super().__init__(message)
        self.current, self.tag = current, tag


class ToolError(FsagentError):
    """A tool call did not do what it was asked to; the message is for the engine and the person.

    ``retryable`` is True where the same call may well succeed a little later (a time-out, an unreachable host).
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class SaidNoError(ToolError):
    """A program ran to its end, or a server answered, and not with success: ``code`` is its exit code or status."""

    def __init__(self, message: str, code: int, *, retryable: bool = False) -> None:
        super().__init__(message, retryable=retryable)
        self.code = code
