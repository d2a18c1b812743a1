"""The commands about models: which one is asked, does it work, which others are there; and what ``init`` offers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsagent.faces.options import json_option, leave, workspace_option

if TYPE_CHECKING:
    from fsagent.config import Settings
    from fsagent.modelcheck import Checked, Described
    from fsagent.workspace.layout import Layout

_MARKS = {True: "ok", False: "no", None: "?"}


@click.group(invoke_without_command=True)
@workspace_option
@json_option
@click.pass_context
def model(context: click.Context, root: Path, as_json: bool) -> None:
    """Which model is asked, where, with whose key, at what price."""
    if context.invoked_subcommand is None:
        _show(root, as_json)
    else:
        context.obj = root


@model.command()
@workspace_option
@json_option
@click.pass_obj
def show(above: Path, root: Path, as_json: bool) -> None:
    """The same as without a word."""
    _show(_root(above, root), as_json)


@model.command()
@workspace_option
@json_option
@click.option("--timeout", default="2m", show_default=True, help="How long to wait for each answer.")
@click.argument("name", required=False, default="")
@click.pass_obj
def test(above: Path, root: Path, as_json: bool, timeout: str, name: str) -> None:
    """Ask the model, and those to fall back on, or NAME, and say what works and what to fix. Takes a few hundred tokens
    of each."""
    from fsagent.faces.text import as_json_text
    from fsagent.files.fields import Duration
    from fsagent.modelcheck import check
    from fsagent.printable import visible

    try:
        seconds = Duration.parse(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None
    layout, settings = _open(_root(above, root))
    found = []
    for each in [name] if name else _names(layout, settings):
        found.append(check(layout, settings, each, seconds))
        if not as_json:
            click.echo(("\n" if len(found) > 1 else "") + visible(_checked_text(found[-1])))
    if as_json:
        click.echo(as_json_text(found))
    leave(0 if found[0].usable else 1)


@model.command("list")
@workspace_option
@json_option
@click.pass_obj
def list_models(above: Path, root: Path, as_json: bool) -> None:
    """The models that are offered where the configured one is asked."""
    from fsagent.faces.text import as_json_text
    from fsagent.modelcheck import offers_of
    from fsagent.printable import visible

    layout, settings = _open(_root(above, root))
    name = _names(layout, settings)[0]
    offered = [f"{name.partition(':')[0]}:{each}" for each in offers_of(settings, name)]
    if as_json:
        click.echo(as_json_text(offered))
    else:
        click.echo(visible("\n".join(offered)) or "no model is offered there")


def check_name(name: str) -> None:
    """Raises ``click.BadParameter`` where ``--model`` names none."""
    from fsagent.modelsettings import ModelSettings, model_faults

    for _, why in model_faults(ModelSettings(name=name)) if name else ():
        raise click.BadParameter(why, param_hint="--model")


def offer(layout: Layout, name: str) -> None:
    """After ``init``: write the model that is wanted into fsagent.yaml, or say which could be. It asks no provider."""
    from fsagent.config import load_settings
    from fsagent.errors import SettingsError
    from fsagent.modelfind import OLLAMA_HOME, find_ollama, offers, ollama_root
    from fsagent.printable import visible
    from fsagent.workspace.create import name_model

    try:
        known = load_settings(layout.settings).model.name
    except SettingsError:
        if name:
            raise
        return  # a fault that is told when the daemon starts
    if name and known != name:
        root = ollama_root(os.environ)
        away = name.startswith("ollama:") and root != OLLAMA_HOME
        name_model(layout, name, f"{root}/v1" if away else "")
    if name:
        click.echo(f"fsagent.yaml names the model {name}; try it: fsagent model test -w {layout.root}")
    elif not known:
        for line in offers(os.environ, find_ollama(os.environ), str(layout.root)):
            click.echo(visible(line))


def _root(above: Path, root: Path) -> Path:
    """``-w`` may stand before the last word, too."""
    context = click.get_current_context()
    given = context.get_parameter_source("root") is not click.core.ParameterSource.DEFAULT
    return root if given else above


def _open(root: Path) -> tuple[Layout, Settings]:
    from fsagent.config import load_settings
    from fsagent.workspace.layout import open_workspace

    layout = open_workspace(root)
    return layout, load_settings(layout.settings)


def _names(layout: Layout, settings: Settings) -> list[str]:
    """The models of the settings. Ends the command where there is none, with what could be used."""
    from fsagent.errors import FsagentError
    from fsagent.modelcheck import names_of
    from fsagent.modelfind import SUGGESTED, find_ollama, offers

    names = names_of(settings)
    if not names:
        found = offers(os.environ, find_ollama(os.environ), str(layout.root))
        why = f"no model is named; write for instance into fsagent.yaml: model: {{name: '{SUGGESTED['ollama']}'}}"
        raise FsagentError("\n".join([why, *found]))
    return names


def _show(root: Path, as_json: bool) -> None:
    from fsagent.faces.text import as_json_text
    from fsagent.modelcheck import describe

    layout, settings = _open(root)
    found = [describe(layout, settings, each) for each in _names(layout, settings)]
    if as_json:
        click.echo(as_json_text(found))
        return
    click.echo("\n\n".join(_described_text(each, "model" if not number else "then")
                           for number, each in enumerate(found)))  # fmt: skip


def _described_text(found: Described, head: str) -> str:
    rows = [(head, found.name), ("where", found.address), ("key", _key_text(found.key)), ("price", str(found.price))]
    if found.shut and found.since:
        since = f"{found.since.astimezone():%Y-%m-%d %H:%M}"
        rows.append(("breaker", f"open since {since}, so tasks do not ask it: {found.shut}"))
        rows.append(("", "when it is mended, close it by: fsagent model test"))
    else:
        rows.append(("breaker", "closed"))
    if found.wrong:
        rows.append(("wrong", found.wrong))
    return "\n".join(f"{name:<8} {value}" for name, value in rows)


def _key_text(source: str) -> str:
    there = source.startswith("from ") and not source.startswith("from the file")
    return f"{source}, as it is set here; the daemon has an environment of its own" if there else source


def _checked_text(found: Checked) -> str:
    lines = [f"{found.name} at {found.address}"]
    lines += [f"  {_MARKS[line.ok]:<3} {line.words}" for line in found.lines]
    if found.tokens_in or found.tokens_out:
        cost = "" if found.cost is None else f", ${found.cost:.6f}".rstrip("0").rstrip(".")
        lines.append(f"      the test took {found.tokens_in} tokens read, {found.tokens_out} written{cost}")
    if found.trouble:
        lines.append(f"  not usable; what to do: {found.trouble.do}")
    else:
        lines.append("  usable")
    return "\n".join(lines)
