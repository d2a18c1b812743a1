"""The command that removes what need not be kept any longer: prune."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import json_option, workspace_option

if TYPE_CHECKING:
    from fsagent.config import Settings
    from fsagent.keeper import LastPass
    from fsagent.retention import Item
    from fsagent.workspace.layout import Layout

PATIENCE = 600.0


@click.command()
@workspace_option
@json_option
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing; say what would go, and why.")
def prune(root: Path, as_json: bool, dry_run: bool) -> None:
    """Remove what 'keep' in the settings does not keep. The daemon does it once a day by itself."""
    from datetime import UTC, datetime

    from fsagent.config import load_settings
    from fsagent.errors import ConflictError
    from fsagent.keeper import alone, last_pass, too_large
    from fsagent.workspace.hosts import owner_elsewhere
    from fsagent.workspace.layout import make_places, open_workspace
    from fsagent.workspace.status import daemon_runs

    layout = open_workspace(root)
    settings = load_settings(layout.settings)
    if dry_run:
        _tell(_planned(layout, settings), "would go", as_json)
        return
    owner = owner_elsewhere(layout)
    if owner:
        why = (
            f"the agent in this folder is run by {owner.host}, which removes what need not be kept; this host does not"
        )
        raise ConflictError(why)
    make_places(layout)
    if daemon_runs(layout):
        _ask(layout, as_json)
    else:
        _tell(alone(layout, settings, lambda: datetime.now(UTC)), "went", as_json)
    for line in too_large(settings, last_pass(layout)):
        click.echo(line, err=as_json)


def _planned(layout: Layout, settings: Settings) -> Iterator[Item]:
    import sqlite3
    from datetime import UTC, datetime

    from fsagent.errors import FsagentError
    from fsagent.keeper import plan
    from fsagent.workspace.index import Index

    try:
        index = Index(layout.index, write=False)
    except FileNotFoundError:
        return
    except sqlite3.Error as error:
        raise FsagentError(f"the index cannot be read ({error}); 'fsagent doctor --rebuild' builds it anew") from None
    try:
        yield from plan(layout, settings, index, datetime.now(UTC))
    finally:
        index.close()


def _ask(layout: Layout, as_json: bool) -> None:
    """Have the daemon do it, and wait."""
    import time

    from fsagent.errors import FsagentError
    from fsagent.faces.text import as_json_text
    from fsagent.keeper import last_pass

    before, end = last_pass(layout), time.monotonic() + PATIENCE
    layout.prune.write_bytes(b"")
    while layout.prune.exists():
        if time.monotonic() > end:
            raise FsagentError("the daemon is still at it; what goes is told in the journal")
        time.sleep(0.05)  # a pass takes seconds: to start watching would gain nothing
    done = last_pass(layout)
    if done is None or done == before:
        raise FsagentError("the daemon could not do it; the journal says why")
    click.echo(as_json_text(done) if as_json else _summary(done))


def _summary(done: LastPass) -> str:
    from fsagent.keepsettings import format_size

    gone = [f"{place}: {gone.count} went, {format_size(gone.bytes)}" for place, gone in done.gone.items()]
    return "\n".join(gone) or "nothing was to go"


def _tell(items: Iterator[Item], verb: str, as_json: bool) -> None:
    from collections import Counter

    from fsagent.faces.text import as_json_text
    from fsagent.keepsettings import format_size
    from fsagent.printable import visible

    if as_json:
        click.echo(as_json_text(list(items)))
        return
    counts, sizes = Counter[str](), Counter[str]()
    for item in items:
        counts[item.place] += 1
        sizes[item.place] += item.bytes
        click.echo(visible(f"{item.name}  {format_size(item.bytes)}, {item.why}"))
    summary = ", ".join(f"{place}: {counts[place]} ({format_size(sizes[place])})" for place in counts)
    total = sum(counts.values())
    things = f"{total:,} things" if total > 1 else "1 thing"
    click.echo(f"{things} {verb}: {summary}" if counts else "nothing is to go")
