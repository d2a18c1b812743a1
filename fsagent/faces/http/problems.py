"""Errors as ``application/problem+json`` (RFC 9457): what is wrong, in words, with the status that fits it."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fsagent.errors import ConflictError, DocumentError, FsagentError, NotFoundError, PersonError, StaleError
from fsagent.files.fields import nearest
from fsagent.model import Fault

MEDIA = "application/problem+json"


class Problem(Struct, frozen=True, kw_only=True):
    """What is wrong. ``detail`` is for people; ``faults`` names each fault of a command; ``current`` and ``etag`` are
    the text as it is, where somebody else has changed it."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    instance: str = ""
    faults: tuple[Fault, ...] | UnsetType = UNSET
    current: str | UnsetType = UNSET
    etag: str | UnsetType = UNSET


class ProblemError(HTTPException):
    """Ends a request with a problem."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


def problem_of(error: Exception) -> tuple[Problem, Mapping[str, str]] | None:
    """The problem that stands for an error, and its headers; None for an error that is a fault of ours."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, error.detail), error.headers or {}
    if isinstance(error, StaleError):
        found = problem(412, str(error))
        text = error.current.decode("utf-8", "replace")
        return msgspec.structs.replace(found, current=text, etag=error.tag), {"ETag": f'"{error.tag}"'}
    if isinstance(error, DocumentError):
        return msgspec.structs.replace(problem(422, str(error)), faults=error.faults), {}
    for kind, status in ((NotFoundError, 404), (ConflictError, 409), (PersonError, 422), (FsagentError, 503)):
        if isinstance(error, kind):
            return problem(status, str(error)), {}
    if isinstance(error, TimeoutError):
        return problem(503, "the file is locked by another program; try again"), {"Retry-After": "2"}
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return problem(507 if full else 503, f"the disk says: {error.strerror or error}"), {"Retry-After": "10"}
    if isinstance(error, sqlite3.Error):
        return problem(503, f"the list of runs cannot be read: {error}"), {"Retry-After": "10"}
    return None


def problem_response(told: Problem, headers: Mapping[str, str], request_id: str) -> Response:
    """A problem as an answer to the request with this id."""
    body = msgspec.json.encode(msgspec.structs.replace(told, instance=f"urn:request:{request_id}"))
    return Response(body, told.status, {"Cache-Control": "no-store", **headers}, media_type=MEDIA)


def in_words(message: str, known: Sequence[str] = ()) -> str:
    """A message of msgspec's as a sentence that names the field; ``known`` are those that there are at the top."""
    text, _, path = message.partition(" - at `$")
    where = path.strip("`.")
    text = text.replace("`", "'").replace("Object missing required field", "misses the field")
    text = text.replace("Object contains unknown field", "there is no field").replace("Expected", "must be")
    if where or not text.startswith("there is no field") or not known:
        return f"{where}: {text}" if where else text
    return f"{text}{nearest(text.split(chr(39))[1], known)}; there are: {', '.join(known)}"


def problem(status: int, detail: str) -> Problem:
    """A problem with the title that belongs to its status."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return Problem(title=title, status=status, detail=detail)
