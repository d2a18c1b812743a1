"""What stands in the journal, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsagent.workspace.journal import decode_record


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The records of one file with their line numbers; None for a line that is no record."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if line != b"\n":
            yield number, decode_record(line)
