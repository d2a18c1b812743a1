"""The OpenAPI 3.1 document, made from the table and the structs that the handlers use."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from fsagent import __version__
from fsagent.faces.http.problems import MEDIA, Problem
from fsagent.faces.http.table import JSON, Row

_ALWAYS = (400, 401, 403, 421, 422, 429, 500, 503)
_WITH_BODY = (408, 413, 415, 507)
_WITH_PARTS = (404, 405)  # some names make it another path
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "how to say who you are"},
    429: {"Retry-After": "after how many seconds to try again"},
}
_ABOUT = (
    "Commands, runs, results, tasks and the memory of one agent: a face over the files of its workspace. It works "
    "while the daemon is down; what is handed in then waits. A token (`fsagent token`) is always needed: as Bearer, or "
    "as the password of Basic."
)


def document(table: Sequence[Row]) -> dict[str, Any]:
    """The whole document, as JSON values."""
    structs = [kind for row in table for kind in _structs(row)]
    _, components = msgspec.json.schema_components([*structs, Problem], ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for row in table:
        paths.setdefault(_path(row), {})[row.method.lower()] = _operation(row)
    schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "fsagent", "version": __version__, "description": _ABOUT, "license": {"name": "MIT"}},
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": schemes},
    }


def _structs(row: Row) -> Iterable[type[Struct]]:
    for kind in (row.query, *row.takes.values(), *row.replies.values()):
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield kind


def _operation(row: Row) -> dict[str, Any]:
    summary, _, more = (inspect.getdoc(row.handler) or "").partition("\n")
    found: dict[str, Any] = {
        "operationId": row.handler.__name__,
        "summary": summary.strip(),
        "description": f"{more.strip()}\n\nNeeds the scope `{row.scope}`.".strip(),
        "tags": [_path(row).removeprefix("/v1").split("/")[1]],
        "parameters": list(_parameters(row)),
        "responses": {str(status): _reply(status, kind, row.gives) for status, kind in row.replies.items()},
    }
    if row.takes:
        content = {media: {"schema": _body(kind, media)} for media, kind in row.takes.items()}
        found["requestBody"] = {"required": True, "content": content}
    told = {*_ALWAYS, *(_WITH_BODY if row.takes else ()), *(_WITH_PARTS if "{" in row.path else ()), *row.problems}
    for status in sorted(told - row.replies.keys()):
        found["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **_headers(_PROBLEM_HEADERS.get(status, {})),
        }
    return found


def _parameters(row: Row) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)", row.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    if row.query:
        schema = msgspec.json.schema(row.query)
        fields = schema["$defs"][row.query.__name__]
        for name, kind in fields["properties"].items():
            shown = {key: value for key, value in kind.items() if key != "description"}
            parameter = {"name": name, "in": "query", "required": name in fields["required"], "schema": shown}
            yield parameter | ({"description": kind["description"]} if "description" in kind else {})
    for name, words in row.needs.items():
        yield {"name": name, "in": "header", "required": False, "description": words, "schema": {"type": "string"}}


def _headers(given: Mapping[str, str]) -> dict[str, Any]:
    """None is promised: a list's last page has no Link."""
    headers = {name: {"description": words, "schema": {"type": "string"}} for name, words in given.items()}
    return {"headers": headers} if headers else {}


def _reply(status: int, kind: Any, gives: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(status).phrase, **_headers(gives)}
    if kind is not None:
        media = kind if isinstance(kind, str) else JSON
        found["content"] = {media: {"schema": _schema(kind, media)}}
    return found


def _schema(kind: Any, media: str) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"type": "object"} if media == JSON else {"type": "string"}


def _body(kind: Any, media: str) -> dict[str, Any]:
    """Of a text's bytes JSON Schema has nothing to say."""
    return {} if kind is str else _schema(kind, media)


def _path(row: Row) -> str:
    return re.sub(r"{(\w+):\w+}", r"{\1}", row.path)
