"""The state of a run as a client sees it, and waiting for its end. To stop waiting changes nothing about the run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal, cast

from msgspec import Meta, Struct

from fsagent.errors import FsagentError
from fsagent.faces.door import find_run
from fsagent.faces.mcp.table import Call
from fsagent.workspace.approvals import answered, pending
from fsagent.workspace.layout import Layout
from fsagent.workspace.runs import RunFolder
from fsagent.workspace.status import daemon_runs

State = Literal["waiting", "running", "done", "failed", "refused", "interrupted"]
TICK = 1.0
SETTLING = 5.0
_PAUSE = 0.02


class RunState(Struct, frozen=True, kw_only=True):
    """A command that was handed in, and what came of it up to now."""

    run: Annotated[str, Meta(description="The run's id, for get_result, cancel_run and retry_run.")]
    command: Annotated[str, Meta(description="The command's name.")]
    status: Annotated[State, Meta(description="waiting and running are not the end; all others are.")]
    answer: Annotated[str, Meta(description="What the agent answers; markdown.")] = ""
    error: Annotated[str, Meta(description="Why it was not done.")] = ""
    note: Annotated[str, Meta(description="What keeps it from going on, or that it had been handed in before.")] = ""
    changed: Annotated[tuple[str, ...], Meta(description="Files that were written.")] = ()
    remembered: Annotated[tuple[str, ...], Meta(description="Facts that were added to the memory.")] = ()
    result: Annotated[str, Meta(description="The published result: read it as fsagent://results/…")] = ""

    @property
    def ended(self) -> bool:
        """True once nothing more will come."""
        return self.status not in ("waiting", "running")

    def __str__(self) -> str:
        if not self.ended:
            words = f"The command is {self.status} as run {self.run}. Its answer comes later: ask get_result for it."
        elif self.status == "done":
            words = self.answer or "Done."
        else:
            said = "" if self.error and self.error in self.answer else self.error
            words = "\n\n".join(part for part in (self.answer, f"{self.status} (run {self.run}): {said}") if part)
            words = words.removesuffix(": ")
        return f"{words}\n\n{self.note}" if self.note else words


class Deed(RunState, frozen=True, kw_only=True):
    """What came of one thing that was to be done at once."""

    @property
    def is_error(self) -> bool:
        """True if it was not done and will not be."""
        return self.ended and self.status != "done"


def read_state(layout: Layout, run: str, known: bool = False, kind: type[RunState] = RunState) -> RunState:
    """A run as it is now. Raises ``NotFoundError``; ``FsagentError`` for a damaged one."""
    summary = find_run(layout, run).summary()
    if summary is None:
        raise FsagentError(f"run {run} is damaged; 'fsagent doctor' says more")
    notes = ["This command had been handed in before; this is the run of then."] if known else []
    if summary.status in ("waiting", "running") and (why := _what_keeps(layout, run, summary.status)):
        notes.append(why)
    return kind(
        run=run, command=summary.command, status=cast("State", summary.status), answer=summary.answer,
        error=summary.error, note=" ".join(notes), changed=summary.changed, remembered=summary.remembered,
        result=summary.result,
    )  # fmt: skip


async def wait_for_end(
    call: Call, run: str, seconds: float, *, known: bool = False, kind: type[RunState] = RunState
) -> RunState:
    """The run as soon as its result is published, else as it is after ``seconds``, or when nothing will start it.

    Reports about once a second. Being cancelled ends the waiting only.
    """
    if seconds:
        async with call.hub.listening():
            await _wait(call, run, seconds)
    return await asyncio.to_thread(read_state, call.layout, run, known, kind)


async def _wait(call: Call, run: str, seconds: float) -> None:
    loop, pulse = asyncio.get_running_loop(), call.hub.pulses["journal"]
    begin, next_look = loop.time(), 0.0
    while seconds > (passed := loop.time() - begin) and not call.hub.closed:
        count = pulse.count
        if await asyncio.to_thread(_is_published, call.layout, run):
            return
        if passed >= next_look:
            next_look += TICK
            state, steps = await asyncio.to_thread(_look, call.layout, run)
            if state.note:
                return
            await call.report(passed, seconds, f"{state.status}, {steps} step{'s' * (steps != 1)} so far")
        await pulse.wait(count, min(seconds, next_look) - passed)


async def wait_until_settled(layout: Layout, run: str) -> None:
    """A run that has ended needs a moment more until its command lies in its last place; give it that."""
    for _ in range(round(SETTLING / _PAUSE)):
        if not await asyncio.to_thread(_is_settling, layout, run):
            return
        await asyncio.sleep(_PAUSE)


def _what_keeps(layout: Layout, run: str, status: str) -> str:
    """Why a run will not go on soon; empty where nothing is in its way."""
    if not daemon_runs(layout):
        return "No daemon runs on this agent's folder now; the command waits and goes on once one is started."
    open_ = pending(find_run(layout, run)) if status == "waiting" else None
    if open_ and not answered(layout, open_):
        return (
            f"It waits for a person's answer ({open_.id}, approvals/{open_.file}); list_approvals shows what is asked."
        )
    if status == "waiting" and layout.stopped():
        return "The agent is paused by a person (the file STOP); the command waits until they let it go on."
    return ""


def _look(layout: Layout, run: str) -> tuple[RunState, int]:
    """The state, and how many steps are recorded."""
    return read_state(layout, run), sum(event["event"] == "step" for event in find_run(layout, run).events())


def _is_published(layout: Layout, run: str) -> bool:
    folder = RunFolder(layout.runs / run)
    return folder.result.exists() and any(event["event"] == "published" for event in folder.events())


def _is_settling(layout: Layout, run: str) -> bool:
    events = {event["event"] for event in find_run(layout, run).events()}
    return "finished" in events and "settled" not in events
