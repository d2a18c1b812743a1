"""The README is true: its blocks are run, its outputs compared, its tables held against the code.

Comments mark what is checked: ``run`` (a ``$`` line is a command, what follows its output), ``file: NAME`` (written as
it stands), ``screen`` (what the daemon prints), and a name before each table. In an output ``...`` stands for anything;
times, run ids, process ids and counts are compared by their form only.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click
import frontmatter
import msgspec
import pytest

from fsagent.config import DEFAULT_TOOLS, ApiSettings, Settings, load_settings
from fsagent.engines.base import Request
from fsagent.engines.intents import INTENTS, refusal, understand
from fsagent.engines.offline import Offline
from fsagent.errors import FsagentError
from fsagent.faces import cli
from fsagent.faces.http.routes import TABLE as API
from fsagent.faces.mcp.tools import TOOLS
from fsagent.model import Command, Status, Step, ToolCall, ToolResult, Turn, Usage
from fsagent.modelfind import SUGGESTED
from fsagent.modelsettings import KEYS, provider_of
from fsagent.policy import decide
from fsagent.secrets import REFERENCE, sources
from fsagent.tools import load_tools
from fsagent.tools.base import Context
from fsagent.workspace.commands import CommandFields, read_command
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import PLACES
from fsagent.workspace.reserved import RESERVED_WRITE, tools_root
from fsagent.workspace.results import Outcome, render
from fsagent.workspace.runs import Envelope
from fsagent.workspace.taskfile import TaskFields
from harness import FSAGENT, wait_for

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = [
    (match["mark"], match["text"])
    for match in re.finditer(r"^<!-- (?P<mark>[^\n]+?) -->\n```\w+\n(?P<text>.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]
LOOKS = ("cat", "tail", "grep", "curl", "fsagent runs", "fsagent health", "fsagent doctor")
NOW = datetime(2026, 11, 22, 19, 4, 11, tzinfo=UTC)


def blocks(mark: str) -> list[str]:
    """The blocks with exactly this mark."""
    return [text for each, text in BLOCKS if each == mark]


def table(mark: str) -> list[list[str]]:
    """The cells of a marked table, without its head."""
    found = re.search(rf"^<!-- {mark} -->\n\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found, f"the README has no table marked {mark!r}"
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in found[1].splitlines()]
    return [[cell.strip().replace(r"\|", "|") for cell in row] for row in rows]


def code(cell: str) -> list[str]:
    """The code spans of a cell or paragraph."""
    return re.findall(r"`([^`]+)`", cell)


def formed(text: str) -> str:
    """``text`` with everything that differs from run to run replaced by its form."""
    for pattern, form in (
        (r"\d{8}-\d{6}-[0-9a-z]{5,10}", "RUN"),
        (r"\d{4}-\d\d-\d\d[ T-]\d\d:?\d\d:?\d\d([+-]\d\d:\d\d)?", "TIME"),
        (r"^\d\d:\d\d:\d\d ", "TIME "),
        (r"pid \d+", "pid N"),
        (r"fsa_\S+", "TOKEN"),
        (r"^seconds: [\d.]+", "seconds: N"),
        (r"\([\d.]+ s\)", "(N s)"),
        (r"\d+ (tasks|waiting commands|runs|journal records)\b", r"N \1"),
        (r"[ \t]+", " "),
    ):
        text = re.sub(pattern, form, text, flags=re.MULTILINE)
    return text.strip()


def pattern_of(shown: str) -> str:
    """A pattern for what the README shows."""
    return r"[\s\S]*?".join(re.escape(part) for part in formed(shown).split("..."))


def commands_of(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown for it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


class Terminal:
    """A folder like a clone of ours, and a terminal in it that keeps what was exported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        self.folder.mkdir()
        (folder / "bin").mkdir()
        script = folder / "bin" / "fsagent"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(FSAGENT)} "$@"\n')
        script.chmod(0o755)
        self._exported = folder / "exported"
        self._exported.write_text("")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FSAGENT")}
        self.env = inherited | {"PATH": f"{folder / 'bin'}:{inherited['PATH']}"}

    def output(self, command: str) -> str:
        """What a command prints."""
        line = f". {self._exported}\n{command}\nexport -p > {self._exported}\n"
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.env, timeout=20, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        return formed(done.stdout)

    def expect(self, command: str, shown: str) -> None:
        """The command prints what is shown; one that only looks is repeated until it does."""
        end = time.monotonic() + (15 if command.startswith(LOOKS) else 0)
        while not re.fullmatch(pattern_of(shown), found := self.output(command)):
            assert time.monotonic() < end, f"$ {command}\n--- shown\n{formed(shown)}\n--- found\n{found}"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_the_blocks_do_what_the_page_shows(terminal: Terminal) -> None:
    steps = blocks("try")[0].strip().split(" && ")
    assert steps[:2] == ["python3 -m venv .venv", ".venv/bin/pip install -q ."]
    program, *words = shlex.split(steps[2])
    assert program == ".venv/bin/fsagent"
    screen = terminal.folder.parent / "screen"
    with screen.open("w") as out:
        daemon = subprocess.Popen([*FSAGENT, *words], cwd=terminal.folder, env=terminal.env, stdout=out, stderr=out)
    try:
        # Runs go side by side, so the lines of one may stand among those of others.
        for line in blocks("screen")[0].splitlines():
            shown = re.compile(f"^{pattern_of(line)}$", re.MULTILINE)
            wait_for(lambda shown=shown: shown.search(formed(screen.read_text())), f"the daemon prints {line!r}")
        port = str(free_port())
        for mark, text in BLOCKS:
            text = text.replace("8765", port)
            if mark.startswith("file: "):
                (terminal.folder / mark.removeprefix("file: ")).write_text(text)
            if mark == "run":
                for command, output in commands_of(text):
                    terminal.expect(command, output)
        daemon.terminate()
        assert daemon.wait(15) == 0
    finally:
        daemon.kill()
        daemon.wait()


def test_the_example_engine_works(terminal: Terminal) -> None:
    package, site = terminal.folder / "todo-engine", terminal.folder / "site"
    package.mkdir()
    for name in ("todo_engine.py", "pyproject.toml"):
        (package / name).write_text(blocks(f"engine: {name}")[0])
    assert len((package / "todo_engine.py").read_text().splitlines()) <= 20
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(site), str(package)],
        check=True, timeout=50,
    )  # fmt: skip
    root = terminal.folder / "my-agent"
    init_workspace(root)
    (root / "inbox" / "milk.md").write_text(blocks("engine: command")[0])
    env = terminal.env | {"PYTHONPATH": str(site)}
    subprocess.run([*FSAGENT, "run", str(root), "--once"], env=env, check=True, timeout=20, stdout=subprocess.DEVNULL)
    result = frontmatter.load(str(root / "outbox" / "milk.md"))
    assert (result["status"], result["engine"], result.content) == ("done", "todo", "It is on your list.")
    assert re.fullmatch(r"- \[ \] Buy milk \(\d{4}-\d\d-\d\d\)\n", (root / "todo.md").read_text())


def test_the_line_for_the_tests_is_one_line_that_ci_can_find() -> None:
    assert TEXT.count("<!-- test -->") == 1
    line = blocks("test")[0]
    assert line.count("\n") == 1
    assert line.endswith("&& .venv/bin/python -m pytest\n")
    assert (ROOT / ".ci" / "requirements.txt").exists()
    assert "/my-agent/\n" in (ROOT / ".gitignore").read_text()


@pytest.mark.parametrize(("name", "schema"), [("command", CommandFields), ("task", TaskFields)])
def test_the_tables_hold_every_field(name: str, schema: type[msgspec.Struct]) -> None:
    assert [code(row[0])[0] for row in table(f"fields: {name}")] == list(schema.__struct_encode_fields__)


def settings_shown() -> tuple[dict[str, str], dict[str, str]]:
    """The settings table with its defaults: what stands alone, groups in one line, and what stands under ``api``."""
    rows = {code(row[0])[0]: code(row[1]) for row in table("settings")}
    assert rows.pop("api") == [], "nothing of it holds where nothing is said"
    alone = {name: value[0] if value else '""' for name, value in rows.items()}
    api = {name.partition(".")[2]: alone.pop(name) for name in list(alone) if name.startswith("api.")}
    while any("." in name for name in alone):
        deepest = max(name.count(".") for name in alone)
        folded: dict[str, str] = {}
        for name, value in alone.items():
            group, _, last = name.rpartition(".")
            if name.count(".") == deepest:
                before = f"{folded[group][1:-1]}, " if group in folded else ""
                folded[group] = f"{{{before}{last}: {value}}}"
            else:
                folded[name] = value
        alone = folded
    return alone, api


def names_of(schema: type[msgspec.Struct], prefix: str = "") -> list[str]:
    """The names of all settings as the table has them, those in groups with dots."""
    names = []
    for field in msgspec.structs.fields(schema):
        group = ApiSettings if field.name == "api" else field.type
        if isinstance(group, type) and issubclass(group, msgspec.Struct):
            names += ["api"] * (field.name == "api") + names_of(group, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def test_the_settings_table_gives_the_defaults(tmp_path: Path) -> None:
    rows, api = settings_shown()
    assert [code(row[0])[0] for row in table("settings")] == names_of(Settings)
    file = tmp_path / "fsagent.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in rows.items()))
    assert load_settings(file) == Settings()
    file.write_text("api:\n" + "".join(f"  {name}: {value}\n" for name, value in api.items()))
    assert load_settings(file) == Settings(api=ApiSettings())


def test_the_tools_table_is_that_of_the_code() -> None:
    tools = load_tools()
    rows = {code(row[0])[0]: row for row in table("tools")}
    assert sorted(rows) == sorted(tools)
    for name, (_, arguments, _, effect, default) in rows.items():
        tool = tools[name]
        assert sorted(code(arguments)) == sorted(tool.args.__struct_fields__)
        assert re.findall(r"\*\*`(\w+)`\*\*", arguments) == [tool.main]
        assert (effect, default) == (tool.effect, DEFAULT_TOOLS.get(name, "allow"))


def test_the_api_table_is_that_of_the_code() -> None:
    shown = [(code(row[0])[0], row[1]) for row in table("api")]
    built = [(f"{row.method} {re.sub(r':path', '', row.path)}", row.scope) for row in API]
    assert shown == built
    for row, (request, _, does) in zip(API, table("api"), strict=True):
        for name in row.query.__struct_fields__ if row.query and row.method == "GET" else ():
            assert f"`{name}`" in does or name == "after", f"{request} says nothing of {name}"


def test_the_mcp_table_is_that_of_the_code() -> None:
    assert [(code(row[0])[0], row[1]) for row in table("mcp")] == [(row.name, row.scope) for row in TOOLS]


def test_the_reserved_places_are_those_of_the_code() -> None:
    paragraph = re.search(r"No tool can write (.*?)\n\n", TEXT, re.DOTALL)
    assert paragraph
    named = {name.rstrip("/") for name in code(paragraph[1])} - set(load_tools())
    assert named == set(RESERVED_WRITE)


def test_the_intents_table_is_that_of_the_engine() -> None:
    rows = [(row[0], row[1], tuple(code(row[2]))) for row in table("intents")]
    assert rows == [(intent.name, intent.does, intent.examples) for intent in INTENTS]
    for name, _, examples in rows:
        for example in examples:
            understood = understand(example)
            assert understood is not None, example
            assert understood.intent == name, example


def test_every_template_is_filled_in_and_none_is_missing() -> None:
    names = [name for row in table("templates") for cell in row for name in re.findall(r"\{\{ (\S+) \}\}", cell)]
    call = ToolCall("read", {"path": "a"})
    turn = Turn(Step(calls=(call,)), (ToolResult("brought"),))

    def filled(name: str) -> str:
        steps = (call, ToolCall("read", {"path": f"{{{{ {name} }}}}"}))
        command = Command(name="a.md", body="text", steps=steps, attachments=("list.csv",), slot=NOW)
        return Offline().decide(Request(command=command, soul="", now=NOW, run="r"), [turn]).calls[0].args["path"]

    assert filled("steps.1") == "brought"
    assert not [name for name in names if "{{" in filled(name)]
    with pytest.raises(ValueError, match="stands for nothing") as error:
        filled("nonsense")
    known = re.sub(r"\(.*?\)", "", str(error.value).partition("known are ")[2])
    words = re.findall(r"[\w.]+", known.replace(" and ", ", "))
    wanted = {("command" + word if word.startswith(".") else word).replace(".N", ".1") for word in words}
    assert wanted | {"command.body"} == set(names)


def test_the_policy_example_decides_as_shown(tmp_path: Path) -> None:
    layout, _ = init_workspace(tmp_path / "ws")
    layout.settings.write_text(blocks("file: my-agent/fsagent.yaml")[0])
    settings, tools = load_settings(layout.settings), load_tools()
    context = Context(
        root=tools_root(layout), home=None, now=lambda: NOW, run="r", trigger="inbox", seconds_left=lambda: 1.0,
        stopping=lambda: False,
    )  # fmt: skip
    for shown, subject, decision in table("decisions"):
        raw = f"---\nsteps:\n  - {code(shown)[0]}\n---\n".encode()
        envelope = Envelope(run="r", name="a.md", trigger="inbox", time=NOW)
        call = read_command(raw, envelope, timeout=1, retries=0, engine="auto").steps[0]
        tool = tools[call.tool]
        args = {tool.main if name == "" else name: value for name, value in call.args.items()}
        prepared = tool.prepare(msgspec.convert(args, tool.args, strict=False), context)
        verdict = decide(call.tool, tool.subject(prepared), settings.rules("inbox", call.tool))
        assert (tool.subject(prepared), verdict.decision) == (code(subject)[0], decision)


def test_the_secrets_example_is_understood(tmp_path: Path) -> None:
    layout, _ = init_workspace(tmp_path / "ws")
    layout.settings.write_text(blocks("secrets: settings")[0])
    secrets = sources(load_settings(layout.settings))
    raw = f"---\n{blocks('secrets: steps')[0]}---\n".encode()
    envelope = Envelope(run="r", name="a.md", trigger="inbox", time=NOW)
    command = read_command(raw, envelope, timeout=1, retries=0, engine="auto")
    (call,) = Offline().decide(Request(command=command, soul="", now=NOW, run="r"), []).calls
    assert REFERENCE.findall(call.args["headers"]["Authorization"]) == ["github"]
    assert secrets["github"].fits(call.args["url"])
    assert not secrets["pass"].fits(call.args["url"])


def every_command(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands by their words, those in groups below their group."""
    for name, command in group.commands.items():
        yield above + name, command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{above}{name} ")


def test_the_command_table_is_that_of_the_command_line() -> None:
    rows = {" ".join(re.findall(r"(?<!\S)[a-z]+", code(row[0])[0])[1:]): row for row in table("commands")}
    built = dict(every_command(cli.main))
    assert list(rows) == list(built)
    for name, (usage, does) in rows.items():
        params = built[name].params
        options = {max(each.opts, key=len) for each in params if isinstance(each, click.Option)} - {"--workspace"}
        assert {word for word in code(does) if word.startswith("--")} == options, name
        arguments = [each for each in params if isinstance(each, click.Argument)]
        assert len(code(usage)[0].split()) == 1 + len(name.split()) + len(arguments), name


def test_the_examples_of_models_are_settings(tmp_path: Path) -> None:
    file, shown = tmp_path / "fsagent.yaml", list[str]()
    for _, settings, key in table("models"):
        file.write_text(code(settings)[0] + "\n")
        model = load_settings(file).model
        provider = provider_of(model.name)
        assert (code(key) or [""])[0] == ("" if model.base_url else KEYS[provider])
        shown += [] if model.base_url else [model.name]
    assert sorted(shown) == sorted(SUGGESTED.values())


def test_the_exit_codes_are_those_of_the_code() -> None:
    def tree(error: type[FsagentError]) -> Iterator[int]:
        yield error.exit_code
        for each in error.__subclasses__():
            yield from tree(each)

    rows = {int(row[0]): row[1] for row in table("exit codes")}
    stated = dict(re.findall(r"(\d+) ([a-z ]+)", (cli.__doc__ or "").partition("Exit codes: ")[2].replace("\n", " ")))
    assert set(rows) == {int(number) for number in stated}
    assert set(tree(FsagentError)) <= set(rows)
    assert set(cli._ASK_CODES.values()) <= set(rows)
    assert not [number for number, words in stated.items() if words not in rows[int(number)]]


def test_the_result_fields_and_statuses_are_those_of_the_code() -> None:
    envelope = Envelope(run="r", name="a.md", trigger="task", time=NOW, task="t")
    outcome = Outcome(
        status="failed", started=NOW, finished=NOW, seconds=1, attempts=2, thread="t", engine="offline",
        changed=("a",), remembered=("b",), error="e", model="m", usage=Usage(1, 2, 0.5),
    )  # fmt: skip
    paragraph = re.search(r"\*\*Results\*\* have these fields:(.*?)The status", TEXT, re.DOTALL)
    assert paragraph
    assert code(paragraph[1]) == list(frontmatter.loads(render(envelope, outcome, "").decode()).metadata)
    statuses = re.findall(r"^\| `(\w+)` \| .* \| `(?:archive|failed)/` \|$", TEXT, re.MULTILINE)
    assert sorted([*statuses, "waiting"]) == sorted(get_args(Status))


def test_the_tree_shows_every_place() -> None:
    tree = re.search(r"^my-agent/\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert tree
    shown = [line.split()[0] for line in tree[1].splitlines()]
    files = ("fsagent.yaml", "soul.md", "status.md", "STOP", "owner.md", ".stignore", ".fsagent/")
    assert sorted(shown) == sorted([*files, *(f"{place}/" for place in PLACES)])


def test_the_settings_template_of_a_new_workspace_agrees(tmp_path: Path) -> None:
    """What init writes shows the same defaults: every setting that is commented out, taken as it stands."""
    layout, _ = init_workspace(tmp_path / "ws")
    lines = re.findall(r"^(?:# )?(\w+):(?: (.*?))?(?:\s+#.*)?$", layout.settings.read_text(), re.MULTILINE)
    shown = {name: value for name, value in lines if name in Settings.__struct_fields__}
    stated, api = settings_shown()
    assert list(shown) == [*stated, "api"]
    examples = {
        "timezone",
        "tools",
        "triggers",
        "trust",
        "model",
        "secrets",
        "mcp_servers",
    }  # shown with an example in the place of a default
    groups = {name: stated.pop(name) for name in ("budget", "keep")}
    assert {name for name in stated if shown[name] != stated[name]} == examples
    for name, said in groups.items():
        part = layout.settings.read_text().partition(f"# {name}:\n")[2].partition("\n\n")[0]
        assert f"{{{', '.join(re.findall(r'^#   ([a-z]+: .*)$', part, re.MULTILINE))}}}" == said
    part = layout.settings.read_text().partition("# api:\n")[2]
    assert dict(re.findall(r"^#   (\w+): (.*?)\s+#", part, re.MULTILINE)) == api


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml"])
def test_the_docker_lines_are_those_of_the_files(file: str) -> None:
    lines = blocks(f"docker: {file}")[0].splitlines()
    comments = [line.lstrip("# ") for line in (ROOT / file).read_text().splitlines() if line.startswith("#")]
    assert [line for line in lines if line not in comments] == []


def test_the_service_and_the_cron_line_use_the_command_line_that_exists() -> None:
    unit = configparser.RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(blocks("unit")[0])
    cron = re.search(r"^\*/5 \* \* \* \* (.+)$", TEXT, re.MULTILINE)
    assert cron
    for line in (unit["Service"]["ExecStart"], cron[1]):
        program, name, *words = shlex.split(line)
        assert program.endswith("/.venv/bin/fsagent")
        cli.main.commands[name].make_context(name, words)
    assert {int(number) for number in unit["Service"]["RestartPreventExitStatus"].split()} == {10, 11, 12}


def test_what_the_page_and_the_code_point_to_exists() -> None:
    for path in re.findall(r"`((?:tests|sample-workspace)/[\w./-]+)`", TEXT):
        assert (ROOT / path).exists(), path
    heads = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    assert set(re.findall(r"see README, '(.+?)'", refusal("x"))) <= set(heads)
    assert {"Exit codes", "Not promised", "Steps"} <= set(heads)
    assert "`engine:`" in refusal("x")
    assert "name it with `engine:`" in TEXT


def test_the_promises_are_numbered_and_each_names_its_proof() -> None:
    part = TEXT.partition("## Promises")[2].partition("\n## ")[0]
    promises = re.findall(r"^(\d)\. \*\*(.+?)\*\*(.*?)(?=^\d\. |^$)", part, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _, _ in promises] == list(range(1, 10))
    assert not [name for _, name, text in promises if "`tests/test_" not in text]


def test_the_page_names_no_machine() -> None:
    assert re.findall(r"(?:/home|/root|/Users|/tmp|/work)/\S*", TEXT) == []
    assert (
        re.findall(
            r"https?://(?!(?:api\.example\.org|ha\.local:8123|ntfy\.sh/|127\.0\.0\.1:\d+|192\.168\.1\.5|ha:TOKEN@HOST))\S+",
            TEXT,
            re.IGNORECASE,
        )
        == []
    )
