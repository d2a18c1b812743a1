"""The places of a workspace that no tool may write, and what to do instead; the door for tools knows them."""

from __future__ import annotations

from fsagent.files.paths import SafeRoot
from fsagent.workspace.layout import Layout

RESERVED_WRITE = {
    "fsagent.yaml": "only a person changes the settings",
    "soul.md": "use the tools remember and forget",
    "tasks": "use the tool task",
    "inbox": "commands are dropped by people",
    "outbox": "the answer of a run lands there by itself",
    "approvals": "only a person answers there",
    "archive": "finished commands are kept there as they were",
    "failed": "commands that gave up are kept there as they were",
    "status.md": "the daemon writes it",
    "owner.md": "the daemon writes it",
    "STOP": "only a person stops or resumes the agent",
    ".fsagent": "it is the daemon's own",
    ".stignore": "only a person decides what is synced",
}
RESERVED_READ = {".fsagent": "it is the daemon's own"}


def tools_root(layout: Layout) -> SafeRoot:
    """The root of a workspace, without its reserved places."""
    return SafeRoot(
        layout.root, RESERVED_WRITE, RESERVED_READ, readable=(".fsagent/runs/*/attachments", ".fsagent/runs/*/outputs")
    )
