"""The command line. Every command but ``run`` only drops and reads files, so it starts fast and knows no engine.

Exit codes: 0 ok, 1 failed, 2 usage, 10 not a workspace, 11 already running, 12 bad settings, 13 another machine runs
the agent in this folder, 130 interrupted; ``ask`` also 3 failed, 4 refused or not understood, 5 timed out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from fsagent import __version__
from fsagent.faces.commands_access import token
from fsagent.faces.commands_approvals import answer, approvals, approve, refuse
from fsagent.faces.commands_mcp import mcp
from fsagent.faces.commands_model import check_name, model, offer
from fsagent.faces.commands_prune import prune
from fsagent.faces.commands_runs import cancel, retry
from fsagent.faces.commands_serve import api
from fsagent.faces.commands_servers import named, servers
from fsagent.faces.commands_tasks import pause, resume, tasks
from fsagent.faces.commands_usage import usage
from fsagent.faces.options import default_workspace, json_option, leave, workspace_option
from fsagent.printable import harmless

_ASK_CODES = {"done": 0, "failed": 3, "interrupted": 3, "refused": 4}


class _Group(click.Group):
    """Turns our errors into one clear line and their exit code."""

    def invoke(self, context: click.Context) -> Any:
        from fsagent.errors import FsagentError

        try:
            return super().invoke(context)
        except FsagentError as error:
            click.echo(harmless(f"fsagent: {error}"), err=True)
            context.exit(error.exit_code)
        except KeyboardInterrupt:
            context.exit(130)
        except BrokenPipeError:
            sys.stdout = None  # whoever read our output has left; nothing to flush to
            context.exit(1)
        except OSError as error:
            click.echo(f"fsagent: {error.filename or ''}: {error.strerror or error}".replace(" : ", " "), err=True)
            context.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="fsagent %(version)s")
def main() -> None:
    """Your agent is a folder: drop a markdown file into inbox/, read the answer in outbox/."""


@main.command()
@click.argument("root", type=click.Path(readable=False, path_type=Path), metavar="DIR")
@click.option("--sample", is_flag=True, help="Copy the sample workspace, a small tour by files.")
@click.option("--model", "name", default="", help="Write this model (provider:name) into its fsagent.yaml.")
def init(root: Path, sample: bool, name: str) -> None:
    """Make DIR a workspace. Nothing that is there is overwritten."""
    _init(root, sample, name)


@main.command()
@click.argument("root", type=click.Path(readable=False, path_type=Path), metavar="[DIR]", default=default_workspace)
@click.option("--once", is_flag=True, help="Do all that is due and waiting, then exit.")
@click.option("--init", "make", is_flag=True, help="Make DIR a workspace first if it is none.")
@click.option("--sample", is_flag=True, help="With --init: copy the sample workspace.")
@click.option("--take-over", is_flag=True, help="Run the agent here from now on, also where another host does.")
@click.option("--api", is_flag=True, help="Serve HTTP and MCP, also where the settings have no 'api:'.")
def run(root: Path, once: bool, make: bool, sample: bool, take_over: bool, api: bool) -> None:
    """Run the daemon in the foreground, until Ctrl-C or SIGTERM."""
    from fsagent.faces.beside import Beside
    from fsagent.faces.extras import need
    from fsagent.faces.screen import log_request, show
    from fsagent.foreground import run_daemon, take_over_by_running
    from fsagent.workspace.layout import Layout, open_workspace

    if api:
        need("api")
    if make and not Layout(root).marker.exists():
        _init(root, sample)
    layout = open_workspace(root)
    told = take_over_by_running(layout) if take_over else ""
    if told:
        click.echo(told)
        return
    companions = () if once else (Beside(layout, log_request, always=api),)
    leave(run_daemon(layout, show, once=once, companions=companions, take_over=take_over))


@main.command()
@workspace_option
@click.option("--thread", default="", help="The conversation that it belongs to.")
@click.option("--timeout", default="10m", show_default=True, help="How long to wait for the answer.")
@click.argument("text", nargs=-1, required=True)
def ask(root: Path, thread: str, timeout: str, text: tuple[str, ...]) -> None:
    """Hand TEXT in as a command, wait, and print the answer."""
    from fsagent.errors import FsagentError
    from fsagent.faces.door import Caller, check_owner, hand_in, wait_for
    from fsagent.files.fields import Duration
    from fsagent.workspace.layout import open_workspace
    from fsagent.workspace.status import daemon_runs

    try:
        seconds = Duration.parse(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None
    layout = open_workspace(root)
    check_owner(layout)
    if not daemon_runs(layout):
        raise FsagentError(f"no daemon runs on {root}; start it with: fsagent run {root}")
    if layout.stopped():
        raise FsagentError(f"the agent on {root} is paused by the file STOP; go on with: fsagent resume -w {root}")
    raw = " ".join(text).encode("utf-8", "surrogateescape")  # a terminal's bytes, as they were typed
    run = hand_in(layout, raw, Caller("cli"), thread=thread).run
    result = wait_for(layout, run, seconds)
    if result is None:
        click.echo(f"fsagent: no answer after {timeout}; the command goes on as run {run}", err=True)
        leave(5)
    click.echo(harmless(result.body))
    leave(_ASK_CODES.get(str(result.fields.get("status")), 1))


@main.command()
@workspace_option
@json_option
def status(root: Path, as_json: bool) -> None:
    """Alive? What runs, what waits, what comes next?"""
    from fsagent.faces.text import as_json_text, status_text
    from fsagent.faces.views import read_status
    from fsagent.workspace.layout import open_workspace

    view = read_status(open_workspace(root))
    click.echo(as_json_text(view) if as_json else harmless(status_text(view)))


@main.command()
@workspace_option
@json_option
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="How many.")
@click.option("--task", default="", help="Only runs of this task.")
@click.option("--status", "wanted", default="", help="Only runs with this status.")
def runs(root: Path, as_json: bool, limit: int, task: str, wanted: str) -> None:
    """The list of runs, newest first."""
    from fsagent.faces.text import as_json_text, runs_text
    from fsagent.faces.views import read_runs
    from fsagent.workspace.layout import open_workspace

    found = read_runs(open_workspace(root), limit, task=task, status=wanted)
    click.echo(as_json_text(found) if as_json else harmless(runs_text(found)))


@main.command()
@workspace_option
@json_option
@click.argument("run", metavar="RUN")
def show(root: Path, as_json: bool, run: str) -> None:
    """One run, whole: its command, its steps, its result. RUN may be shortened, or 'last'."""
    from fsagent.faces.text import as_json_text, run_text
    from fsagent.faces.views import read_run
    from fsagent.workspace.layout import open_workspace

    view = read_run(open_workspace(root), run)
    click.echo(as_json_text(view) if as_json else harmless(run_text(view)))


for each in (cancel, retry, approvals, approve, answer, refuse):
    main.add_command(each)


main.add_command(tasks)
main.add_command(usage)
main.add_command(prune)


@main.command()
@workspace_option
@json_option
@click.option("--rebuild", is_flag=True, help="First build the index anew from the files.")
def doctor(root: Path, as_json: bool, rebuild: bool) -> None:
    """Check every file and report all faults; exit code 1 if there are any."""
    from fsagent import doctor
    from fsagent.faces.text import as_json_text
    from fsagent.workspace.layout import open_workspace

    layout = open_workspace(root)
    if rebuild:
        click.echo(doctor.rebuild(layout), err=as_json)
    report = doctor.examine(layout)
    if as_json:
        click.echo(as_json_text(report))
    else:
        for fault in report.faults:
            click.echo(str(fault))
        click.echo(report.summary)
    leave(1 if report.faults else 0)


@main.command()
@workspace_option
def health(root: Path) -> None:
    """Is the daemon alive and keeping up? Says what is wrong; for HEALTHCHECK and monitors."""
    from fsagent.faces.views import read_health
    from fsagent.workspace.layout import open_workspace

    wrong = read_health(open_workspace(root))
    click.echo("\n".join(wrong) if wrong else "healthy")
    leave(1 if wrong else 0)


@servers.command()
@workspace_option
@json_option
@click.argument("name", metavar="NAME")
@click.pass_context
def test(context: click.Context, root: Path, as_json: bool, name: str) -> None:
    """Start or call the server NAME now, and say what it offers. Its tools are pinned if they were not."""
    from fsagent.config import load_settings
    from fsagent.contact import contact
    from fsagent.definitions import told
    from fsagent.faces.text import as_json_text
    from fsagent.printable import visible
    from fsagent.workspace.layout import make_places, open_workspace

    layout = open_workspace(named(context, root))
    make_places(layout)
    found = contact(layout, load_settings(layout.settings), name)
    if as_json:
        click.echo(as_json_text(found))
        return
    tools = found.pins.now
    names = ", ".join(each.name for each in tools[:20]) + (f" and {len(tools) - 20} more" if len(tools) > 20 else "")
    click.echo(visible(f"{name} answered after {found.seconds:g} s and offers {len(tools)} tools: {names}"))
    if found.pinned:
        click.echo("they are pinned now, as it describes them; 'fsagent servers' shows them")
    click.echo(visible(told(found.pins) or f"{name}: all is as you approved it"))


for each in (pause, resume, model, servers, api, mcp, token):
    main.add_command(each)


def _init(root: Path, sample: bool, name: str = "") -> None:
    from fsagent.workspace.create import init_workspace

    check_name(name)
    layout, made = init_workspace(root, _sample() if sample else None)
    click.echo(f"{layout.root} is a workspace" + (f"; made {', '.join(made)}" if made else "; nothing was missing"))
    offer(layout, name)


def _sample() -> Path:
    """The sample workspace: in an installed package beside this one's modules, in a checkout at the top."""
    package = Path(__file__).resolve().parent.parent
    for path in (package / "sample", package.parent / "sample-workspace"):
        if path.is_dir():
            return path
    raise click.ClickException("the sample workspace is not part of this installation")
