"""What a program in the foreground prints: a line for each thing that happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from fsagent.faces.text import journal_line
from fsagent.printable import harmless


def show(record: dict[str, Any]) -> None:
    """Print a record of the journal. A screen that is gone stops nothing: the journal has it all."""
    try:
        click.echo(harmless(journal_line(record)))
    except (OSError, ValueError, UnicodeEncodeError):
        pass


def tell(event: str, **fields: Any) -> None:
    """Print what happens where there is no journal."""
    show({"time": datetime.now(UTC), "event": event, **fields})


def log_request(line: str) -> None:
    """Print a line about a request."""
    tell("http", what=line)
