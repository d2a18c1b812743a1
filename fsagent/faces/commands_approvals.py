"""The commands by which a person answers what the agent asks: approvals, approve, answer, refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import json_option, workspace_option

if TYPE_CHECKING:
    from fsagent.faces.approvals import Decision
    from fsagent.workspace.allowed import Allowance


@click.command()
@workspace_option
@json_option
@click.option("--always", is_flag=True, help="What was allowed for good, with numbers.")
@click.option("--forget", type=click.IntRange(1), metavar="N", help="Ask again for number N of --always.")
def approvals(root: Path, as_json: bool, always: bool, forget: int | None) -> None:
    """What waits for your answer: ids, files, and what exactly is asked."""
    from fsagent.faces.approvals import approvals_text, list_approvals
    from fsagent.faces.text import as_json_text
    from fsagent.workspace.allowed import Allowances
    from fsagent.workspace.layout import open_workspace

    layout = open_workspace(root)
    if forget is not None:
        gone = Allowances(layout).forget(forget)
        click.echo(as_json_text(gone) if as_json else f"asked again from now on: {_line(gone)}")
    elif always:
        allowed = Allowances(layout).list()
        click.echo(as_json_text(allowed) if as_json else _lines(allowed))
    else:
        views = list_approvals(layout)
        click.echo(as_json_text(views) if as_json else approvals_text(views))


@click.command()
@workspace_option
@click.argument("id_", metavar="ID")
@click.option("--always", is_flag=True, help="Do not ask for exactly this again.")
@click.option("--question", default=0, metavar="N", help="Only question N of the file; else all of them.")
@click.option("--comment", default="", help="A few words, kept with the answer.")
def approve(root: Path, id_: str, always: bool, question: int, comment: str) -> None:
    """Approve what ID asks, once. ID is the short id or the file's name; 'last' where only one waits."""
    _decide(root, id_, "always" if always else "once", comment, question)


@click.command()
@workspace_option
@click.argument("id_", metavar="ID")
@click.argument("text", metavar="TEXT")
@click.option(
    "--question", default=0, metavar="N", help="Which question of the file, where it asks for several answers."
)
def answer(root: Path, id_: str, text: str, question: int) -> None:
    """Say TEXT to what ID asks; one of its choices ticks that. ID is the short id, the file's name, or 'last'."""
    _decide(root, id_, "answer", "", question, text)


@click.command()
@workspace_option
@click.argument("id_", metavar="ID")
@click.option("--question", default=0, metavar="N", help="Only question N of the file; else all of them.")
@click.option("--comment", default="", help="Why not; the agent is told.")
def refuse(root: Path, id_: str, question: int, comment: str) -> None:
    """Refuse what ID asks. ID is the short id or the file's name; 'last' where only one waits."""
    _decide(root, id_, "refuse", comment, question)


def _decide(root: Path, id_: str, decision: Decision, comment: str, question: int, text: str = "") -> None:
    from fsagent.faces.approvals import decide
    from fsagent.faces.door import Caller
    from fsagent.workspace.layout import open_workspace
    from fsagent.workspace.status import daemon_runs

    layout = open_workspace(root)
    done = decide(layout, id_, decision, Caller("cli"), comment, question, text)
    word = {"once": "approved", "always": "approved for good", "refuse": "refused", "answer": "answered"}[decision]
    then = f"run {done.run} goes on" if daemon_runs(layout) else f"run {done.run} goes on once a daemon is started"
    if done.open:
        then = f"question {', '.join(map(str, done.open))} of {done.file} is still open"
    click.echo(f"{word}: {done.what}; {then}")


def _lines(allowed: Sequence[Allowance]) -> str:
    if not allowed:
        return "nothing was allowed for good"
    return "\n".join(f"{number:>3}  {_line(each)}" for number, each in enumerate(allowed, 1))


def _line(each: Allowance) -> str:
    from fsagent.workspace.form import one_line

    when = f"{each.since.astimezone():%Y-%m-%d %H:%M}"
    return f"{each.tool} {one_line(each.subject, 200)}  asked for by {each.trigger}  since {when} ({each.by})"
