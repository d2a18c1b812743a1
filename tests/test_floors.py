"""The house stands as DESIGN.md §4 draws it: floors, wings, budgets, and nothing that happens on import."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fsagent
from fsagent.workspace.create import init_workspace
from fsagent.workspace.layout import PLACES

PACKAGE = Path(fsagent.__file__).parent
MODULE_LINES = 400
FUNCTION_LINES = 70

# The table of DESIGN.md §4. A folder stands for all of its modules.
FLOORS = {
    0: ["fsagent", "errors", "model", "printable", "timetable", "zones"],
    1: [
        "config",
        "crontext",
        "extensions",
        "definitions",
        "facts",
        "files",
        "keepsettings",
        "mcpsettings",
        "memory",
        "modelfind",
        "modelsettings",
        "outline",
        "secrets",
        "spellings",
        "statements",
        "timetext",
        "vocabulary",
    ],
    2: ["workspace"],
    3: ["policy", "consent", "tools", "engines", "progress", "hosting", "runner"],
    4: [
        "bell",
        "budgets",
        "attempts",
        "contract",
        "endings",
        "gatechecks",
        "gates",
        "completion",
        "contact",
        "dispatch",
        "host",
        "modelcheck",
        "modeloffers",
        "modelwords",
        "notices",
        "push",
        "purse",
        "worker",
        "workers",
        "clock",
        "due",
        "failures",
        "gates",
        "heartbeat",
        "observers",
        "openruns",
        "ownercheck",
        "ownership",
        "slotjobs",
        "standby",
        "daemon",
        "doctor",
        "duty",
        "foreground",
        "house",
        "inforce",
        "home",
        "intake",
        "keeper",
        "oldrecords",
        "retention",
        "lanes",
        "parking",
        "pipeline",
        "recovery",
        "repeats",
        "reporter",
        "syncclients",
        "traffic",
        "trouble",
        "watcher",
        "watching",
    ],
    5: ["__main__", "faces", "testing"],
}
FLOOR_OF = {part: floor for floor, parts in FLOORS.items() for part in parts}
LEFT, RIGHT = {"workspace"}, {"policy", "consent", "tools", "engines", "progress", "hosting", "runner"}
PURE_TEXT = {"facts", "outline", "spellings", "statements", "vocabulary"}
DISK = {"os", "pathlib", "io", "shutil", "tempfile", "sqlite3", "subprocess", "socket", "fcntl"}
# What the command line may start on behalf of a person.
AT_THE_COUNTER = {
    "fsagent.faces.cli": {"fsagent.contact", "fsagent.foreground", "fsagent.doctor"},
    "fsagent.faces.commands_model": {"fsagent.modelcheck"},
    "fsagent.faces.commands_prune": {"fsagent.keeper", "fsagent.retention"},
}

# Nothing that an idle daemon needs: network, encryption, other event loops, agent and web libraries.
HEAVY = {
    "aiohttp", "anyio", "asyncio", "email", "fastapi", "fastmcp", "html", "http", "httpx", "hypothesis", "litellm",
    "mcp", "multiprocessing", "openai", "pydantic", "pytest", "requests", "ssl", "starlette", "unittest", "uvicorn",
    "watchfiles", "xml",
}  # fmt: skip
# These are loaded as a whole only where somebody serves.
LOADED_WHEN_USED = (
    "fsagent.engines.model",
    "fsagent.faces.http",
    "fsagent.faces.mcp",
    "fsagent.faces.hub",
    "fsagent.testing",
    "fsagent.tools.servers.link",
    "fsagent.tools.servers.wire",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "sample" not in path.parts}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def part_of(module: str) -> str:
    """``fsagent.files.names`` lies in ``files``; the package itself in ``fsagent``."""
    return module.split(".")[1] if "." in module else module


def imports(module: str, *, top_only: bool = False) -> set[str]:
    """The modules that this one imports, those in functions and for types too; ours by their full name."""
    found: set[str] = set()
    nodes = _at_import(TREES[module]) if top_only else ast.walk(TREES[module])
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            origin = node.module or ""
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                found.add(whole if whole in MODULES else origin)
    return found


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: not those in functions, and not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_import(node)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if part_of(name) in FLOOR_OF and name.split(".")[0] == "fsagent"}


def run_python(code: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=50)


# the table


def test_every_module_has_its_floor() -> None:
    homeless = {part_of(module) for module in MODULES} - set(FLOOR_OF)
    assert not homeless, f"not in the table: {homeless}"
    assert set(FLOOR_OF) == {part_of(module) for module in MODULES}, "the table names what is not there"


def test_floors_import_downwards_only() -> None:
    wrong = [
        f"{module} (floor {FLOOR_OF[part_of(module)]}) imports {other} (floor {FLOOR_OF[part_of(other)]})"
        for module in MODULES
        for other in ours(module)
        if FLOOR_OF[part_of(other)] > FLOOR_OF[part_of(module)]
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: ours(module) - {module, "fsagent"} for module in MODULES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_wings_never_meet_below_the_pipeline() -> None:
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in ours(module)
        if (part_of(module) in LEFT and part_of(other) in RIGHT)
        or (part_of(module) in RIGHT and part_of(other) in LEFT)
    ]
    assert not wrong


def test_faces_know_no_engine_runner_or_daemon() -> None:
    forbidden = RIGHT | set(FLOORS[4])
    for module in (name for name in MODULES if part_of(name) == "faces"):
        wrong = {other for other in ours(module) if part_of(other) in forbidden}
        allowed = {"fsagent.watcher"} | AT_THE_COUNTER.get(module, set())
        assert wrong <= allowed, f"{module} imports {wrong - allowed}"


def test_scripted_servers_know_nothing_of_the_house() -> None:
    """Also for tests of other agents, with nothing but the standard library."""
    for module in (name for name in MODULES if part_of(name) == "testing"):
        beside = {part_of(other) for other in ours(module)} - {"testing", "errors", "model", "fsagent"}
        assert not beside, f"{module} imports {beside}"
        strangers = {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names - {"fsagent"}
        assert not strangers, f"{module} imports {strangers}"


def test_files_know_no_workspace() -> None:
    words = {*PLACES, "soul.md", "fsagent.yaml", "STOP", "status.md", "workspace.json"}
    for module in (name for name in MODULES if part_of(name) == "files"):
        beside = {part_of(other) for other in ours(module)} - {"files", "errors", "model", "fsagent"}
        assert not beside, f"{module} imports {beside}"
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = words & set(node.value.strip("/").split("/"))
                assert not found, f"{MODULES[module]}:{node.lineno} names {found}"


def test_text_modules_touch_no_disk() -> None:
    for part in PURE_TEXT:
        found = imports(f"fsagent.{part}") & DISK
        assert not found, f"{part} imports {found}"
        beside = {part_of(other) for other in ours(f"fsagent.{part}")} - PURE_TEXT - {"model", "errors"}
        assert not beside, f"{part} imports {beside}"


def test_engines_touch_no_disk_and_run_nothing() -> None:
    for module in (name for name in MODULES if part_of(name) == "engines"):
        found = imports(module) & DISK
        assert not found, f"{module} imports {found}"


# budgets


def test_modules_fit_on_a_few_screens() -> None:
    long = {
        name: n for name, path in MODULES.items() if (n := len(path.read_text("utf-8").splitlines())) > MODULE_LINES
    }
    assert not long, f"longer than {MODULE_LINES} lines: {long}"


def test_functions_fit_on_one_screen() -> None:
    long = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{name}.{node.name}"] = lines
    assert not long, f"longer than {FUNCTION_LINES} lines: {long}"


def test_every_module_says_what_it_promises() -> None:
    silent = [name for name, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert not silent


def test_broad_excepts_stand_in_the_two_places_that_journal_them() -> None:
    broad: dict[str, int] = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception")
            ):
                broad[name] = broad.get(name, 0) + 1
    journaled = {"fsagent.traffic", "fsagent.pipeline", "fsagent.worker", "fsagent.faces.beside"}
    told = {"fsagent.modelcheck"}  # around one request, by a provider's library, for a person who waits
    assert set(broad) <= journaled | told, broad


# nothing happens on import


def test_importing_everything_prints_nothing_and_makes_nothing(tmp_path: Path) -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    done = run_python(
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)", *names, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_module_can_be_imported_first(tmp_path: Path) -> None:
    """No circle at run time: each alone, in a process of its own (a fork of one that knows only the libraries)."""
    code = """
import importlib, os, sys
import click, cronsim, frontmatter, mcp, msgspec, pydantic_ai.direct, ruamel.yaml, schedule, starlette, uvicorn
import watchdog.observers
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    names = [name for name in MODULES if not name.endswith("__main__")]
    done = run_python(code.replace("os.waitpid(child, 0)", "assert os.waitpid(child, 0)[1] == 0"), *names, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_no_environment_is_read_on_import() -> None:
    for name, tree in TREES.items():
        for node in _at_import(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Call) else ""
            assert not text.startswith(("os.environ", "os.getenv", "print(")), f"{name}: {text}"


def test_heavy_libraries_wait_for_their_first_use() -> None:
    for name in (name for name in MODULES if not name.startswith(LOADED_WHEN_USED)):
        found = {other.split(".")[0] for other in imports(name, top_only=True)} & HEAVY
        assert not found, f"{name} imports {found} at its top"


def loaded_by(args: list[str], cwd: Path) -> set[str]:
    """The modules in memory after one command of the command line."""
    code = (
        "import json, sys\nfrom fsagent.faces.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = run_python(code, *args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a daemon has done some work."""
    root = tmp_path_factory.mktemp("floors") / "ws"
    init_workspace(root)
    (root / "inbox" / "a.md").write_text("What time is it?")
    done = run_python("from fsagent.faces.cli import main; main()", "run", str(root), "--once", cwd=root)
    assert done.returncode == 0, done.stderr
    assert (root / "outbox" / "a.md").exists()
    return root


@pytest.mark.parametrize(
    "args", [["status"], ["status", "--json"], ["runs"], ["runs", "--json"], ["tasks"], ["usage"], ["health"],
             ["show", "last"], ["pause"], ["resume"], ["ask", "hello"]]
)  # fmt: skip
def test_commands_that_read_files_load_no_engine(workspace: Path, args: list[str]) -> None:
    loaded = loaded_by([args[0], "-w", str(workspace), *args[1:]], workspace)
    ours_loaded = {part_of(name) for name in loaded if name.startswith("fsagent.")}
    assert not ours_loaded & (RIGHT | set(FLOORS[4])), sorted(ours_loaded)
    assert "watchdog" not in loaded
    assert "schedule" not in loaded


def test_an_idle_daemon_carries_no_heavy_library(workspace: Path) -> None:
    loaded = {name.split(".")[0] for name in loaded_by(["run", str(workspace), "--once"], workspace)}
    assert not loaded & (HEAVY - {"email"}), loaded & HEAVY  # importlib.metadata reads entry points with email
