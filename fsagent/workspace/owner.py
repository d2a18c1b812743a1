"""``owner.md``: which host runs the agent in this folder. A small file for people that syncs with the rest.

Of two claims one is the stronger, whoever compares them, whatever the clocks say: the later take-over (``turn``), then
the earlier claim, then the smaller id. So two hosts that see each other's claims agree, and exactly one yields.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.errors import DocumentError
from fsagent.files.atomic import read_file, write_atomic
from fsagent.model import MAX_DOCUMENT
from fsagent.workspace.layout import Layout

OWNER_FILE = "owner.md"

_WORDS = """\
# Who runs this agent

The agent in this folder is run by **{host}**, since {since}.
On every other machine that has this folder, `fsagent run` stands by.
To have it run there instead, say so there:

    fsagent run --take-over

fsagent writes this file; what you write into it is not kept.
"""


class Claim(Struct, frozen=True, kw_only=True):
    """A host's claim to the workspace. ``host`` is its name for people, ``id`` its own; ``turn`` counts take-overs.

    ``since`` is when it took over, ``started`` when its present daemon did start, ``renewed`` when it last said so; all
    by its own clock, aware.
    """

    host: str
    id: str
    turn: int
    since: datetime
    started: datetime
    renewed: datetime

    @property
    def rank(self) -> tuple[int, float, str, float]:
        """Of two claims the one with the smaller rank is the stronger; two of one rank are the same."""
        return (-self.turn, self.since.timestamp(), self.id, -self.started.timestamp())


def strongest(*claims: Claim | None) -> Claim | None:
    """The claim that counts among these."""
    return min(filter(None, claims), key=lambda claim: claim.rank, default=None)


def read_claim(layout: Layout) -> Claim | None:
    """What the file says; None where there is none. Raises ``DocumentError`` for one that cannot be understood, and
    ``OSError``."""
    from fsagent.files.documents import read_document  # YAML, which a look at the status need not load

    try:
        raw = read_file(layout.owner, MAX_DOCUMENT + 1)
    except FileNotFoundError:
        return None
    fields = dict(read_document(raw, OWNER_FILE).fields)
    try:
        claim = msgspec.convert(fields, Claim, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise _damaged(str(error)) from None
    if claim.since.tzinfo is None or claim.started.tzinfo is None or claim.renewed.tzinfo is None or claim.turn < 1:
        raise _damaged("its times need a zone, and its turn is at least 1")
    return claim


def write_claim(layout: Layout, claim: Claim) -> None:
    """Put this claim into the file, whatever stands there. Raises ``OSError``."""
    from fsagent.files.documents import write_document

    fields: dict[str, Any] = {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in msgspec.structs.asdict(claim).items()
    }
    since = f"{claim.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    write_atomic(layout.owner, write_document(fields, _WORDS.format(host=claim.host, since=since).strip()))


def _damaged(why: str) -> DocumentError:
    from fsagent.model import Fault

    return DocumentError([Fault(OWNER_FILE, f"cannot be understood ({why})")])
