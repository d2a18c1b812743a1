"""Numbers for Prometheus, read from the files: text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from fsagent import __version__
from fsagent.faces import views
from fsagent.workspace.layout import Layout
from fsagent.workspace.status import daemon_runs, read_snapshot

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
LATENESS_OVER = 100
ENDED = ("done", "failed", "refused", "interrupted")


def metrics_text(layout: Layout) -> str:
    """All metrics. Costs a few look-ups in the index, whatever its size."""
    return "\n".join(_lines(layout)) + "\n"


def _lines(layout: Layout) -> Iterator[str]:
    now = datetime.now(UTC)
    alive, snapshot = daemon_runs(layout), read_snapshot(layout)
    yield from _metric("fsagent_info", "gauge", "The version of this server.", {f'version="{__version__}"': 1})
    yield from _metric("fsagent_up", "gauge", "1 while a daemon works on the workspace.", {"": int(alive)})
    every = views.read_totals(layout)
    ended = {f'trigger="{each.trigger}",status="{each.status}"': each.count for each in every if each.status in ENDED}
    yield from _metric("fsagent_runs_total", "counter", "Runs that ended, by trigger and status.", ended)
    used = views.read_usage(layout)
    tokens = {'kind="in"': used.tokens_in, 'kind="out"': used.tokens_out}
    yield from _metric("fsagent_tokens_total", "counter", "Tokens of models that runs used.", tokens)
    yield from _metric("fsagent_cost_dollars_total", "counter", "What runs cost.", {"": round(used.cost, 6)})
    late = [
        max(0.0, (run.started - run.slot).total_seconds())
        for run in views.read_runs(layout, LATENESS_OVER, trigger="task")
        if run.slot and run.started
    ]
    if late:
        lateness = {'of="newest"': round(late[0], 3), f'of="worst_of_{LATENESS_OVER}"': round(max(late), 3)}
        yield from _metric("fsagent_lateness_seconds", "gauge", "How late tasks began after their slot.", lateness)
    queue = views.read_status(layout).waiting
    yield from _metric("fsagent_queue", "gauge", "Commands that wait for their turn.", {"": queue})
    if snapshot is None:
        return
    oldest = (now - snapshot.waiting_since).total_seconds() if alive and snapshot.waiting_since else 0
    yield from _metric("fsagent_queue_oldest_seconds", "gauge", "How long the first one waits.", {"": round(oldest)})
    yield from _metric("fsagent_running", "gauge", "Runs under way.", {"": len(snapshot.running) if alive else 0})
    yield from _metric("fsagent_trouble", "gauge", "Things that need a person.", {"": len(snapshot.trouble)})
    yield from _metric("fsagent_beat_age_seconds", "gauge", "Time since the daemon's last sign of life.",
                       {"": round((now - snapshot.beat).total_seconds(), 1)})  # fmt: skip
    yield from _metric("fsagent_scan_seconds", "gauge", "How long the last look at every place took.",
                       {"": round(snapshot.scan_seconds, 4)})  # fmt: skip
    yield from _metric("fsagent_memory_bytes", "gauge", "Resident memory of the daemon.", {"": snapshot.memory})


def _metric(name: str, kind: str, words: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values.items():
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
