"""How a face hands a command in and waits for its result: by files only."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from fsagent.files.documents import Document, read_document
from fsagent.model import Trigger
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import Envelope, drop, new_run_id


def hand_in(layout: Layout, text: str, *, trigger: Trigger, thread: str = "", name: str = "") -> str:
    """Drop ``text`` (markdown, with or without frontmatter) at the side door; gives the run's id.

    ``name`` is the relative name of its result in outbox/; without one it is ``<trigger>/<run>.md``.
    """
    now = datetime.now(UTC)
    run = new_run_id(now)
    envelope = Envelope(run=run, name=name or f"{trigger}/{run}.md", trigger=trigger, time=now, thread=thread)
    drop(layout, envelope, text.encode("utf-8", "surrogateescape"))  # a terminal's bytes, as they were typed
    return run


def wait_for(layout: Layout, run: str, seconds: float) -> Document | None:
    """The result of a run as soon as it is published; None if that takes longer than ``seconds``."""
    path = layout.runs / run / "result.md"
    end, pause = time.monotonic() + seconds, 0.002
    while True:
        try:
            return read_document(path.read_bytes(), path.name)
        except FileNotFoundError:
            if time.monotonic() >= end:
                return None
            time.sleep(pause)
            pause = min(pause * 1.2, 0.2)
