"""The OpenAPI document and the code say the same: by reading both, and by schemathesis against a live daemon."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from api import API, SETTINGS, Api, complaints
from fsagent.faces.http.routes import TABLE
from harness import Agent

# A 4xx that no JSON Schema can foresee: an If-Match that is not the text's tag, markdown that holds no request.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "401", "403", "404", "409", "412", "422", "428", "503"]
"""
OPERATION = """
[[operations]]
include-name = "{name}"
parameters = {{ "path.{part}" = "{value}" }}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    agent = Agent(tmp_path_factory.mktemp("openapi") / "ws", SETTINGS + "max_runs: 8\n" + API)
    (agent.layout.tasks / "sub").mkdir()
    (agent.layout.tasks / "sub" / "hourly.md").write_text("---\nevery: 1h\n---\nLog the timestamp to log.txt\n")
    agent.start()
    with Api(agent) as api:
        yield api
    agent.close()


@pytest.fixture(scope="module")
def document(live: Api) -> dict[str, Any]:
    return live.get("/v1/openapi.json")


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): row for path, rows in document["paths"].items() for method, row in rows.items()}


def test_every_row_of_the_table_is_an_operation_and_nothing_else_is(document: dict[str, Any]) -> None:
    rows = {(row.method, re.sub(r":\w+}", "}", row.path)) for row in TABLE}
    assert set(operations(document)) == rows
    names = [row["operationId"] for row in operations(document).values()]
    assert len(set(names)) == len(names) == len(TABLE)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in document["components"]["schemas"]
    for (_, path), row in operations(document).items():
        named = {each["name"] for each in row["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        keys = [(each["in"], each["name"]) for each in row["parameters"]]
        assert len(set(keys)) == len(keys)


def test_every_operation_says_what_it_needs_and_what_can_go_wrong(document: dict[str, Any]) -> None:
    for (method, path), row in operations(document).items():
        assert row["summary"].endswith((".", "?")), path
        assert "Needs the scope" in row["description"]
        assert {"400", "401", "403", "421", "422", "429", "500", "503"} <= set(row["responses"])
        if "requestBody" in row:
            assert {"408", "413", "415", "507"} <= set(row["responses"])
            assert method in ("POST", "PUT")
        for status, reply in row["responses"].items():
            if status >= "400" and path != "/readyz":
                assert "application/problem+json" in reply["content"], (path, status)


def schemathesis(live: Api, folder: Path, examples: int) -> None:
    """The program itself, with every check it has. The endless stream of events has tests of its own."""
    run = live.command("Log schemathesis to log.txt", id="known")["run"]
    live.ends(run)
    named = {"GET /v1/runs/{id}": ("id", run), "POST /v1/runs/{id}/cancel": ("id", run),
             "POST /v1/runs/{id}/retry": ("id", run), "GET /v1/commands/{id}": ("id", "known"),
             "GET /v1/results/{name}": ("name", f"http/{run}.md")}  # fmt: skip
    named["GET /v1/tasks/{name}"] = ("name", "sub/hourly")
    named |= {f"POST /v1/tasks/{{name}}/{verb}": ("name", "sub/hourly") for verb in ("run", "pause", "resume")}
    config = CONFIG + "".join(OPERATION.format(name=n, part=p, value=v) for n, (p, v) in named.items())
    (folder / "schemathesis.toml").write_text(config)
    program, where = str(Path(sys.executable).with_name("st")), f"{live.url}/v1/openapi.json"
    # A stated seed: else each run draws another lot, and a form's text that "became an object" is told now and then.
    words = [program, "run", where, "--exclude-path", "/v1/events", "--header", f"Authorization: Bearer {live.token}",
             "--max-examples", str(examples), "--seed", "1", "--continue-on-failure"]  # fmt: skip
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert not complaints(live.agent)


@pytest.mark.timeout(170)
def test_schemathesis_finds_nothing(live: Api, tmp_path: Path) -> None:
    schemathesis(live, tmp_path, 5)


@pytest.mark.long
@pytest.mark.timeout(1600)
def test_schemathesis_finds_nothing_in_two_hundred_examples(live: Api, tmp_path: Path) -> None:
    schemathesis(live, tmp_path, 200)
