"""What a caller hands in, from JSON, markdown or a form, as one thing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fsagent.faces.door import compose
from fsagent.faces.http.problems import ProblemError
from fsagent.faces.http.table import JSON, Call, kind_of
from fsagent.model import MAX_DOCUMENT
from fsagent.workspace.commands import is_attachment, peek

FORM = "multipart/form-data"
MAX_FILES = 20
MAX_NAME = 200
MAX_UPLOAD = 64 * 1024 * 1024
_FIELDS = ("thread", "id", "engine", "timeout", "retries", "not_before")

_Upload = Annotated[str, Meta(extra_json_schema={"format": "binary"})]
Word = Annotated[str, Meta(max_length=200)]


class Attachment(Struct, frozen=True, forbid_unknown_fields=True):
    """A file that comes with a command; ``content`` is base64."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    content: bytes


class CommandIn(Struct, frozen=True, forbid_unknown_fields=True):
    """A command. ``text`` is markdown, perhaps with frontmatter; the other fields mean what they mean there."""

    text: Annotated[str, Meta(max_length=1024 * 1024, description="the request, as markdown")]
    thread: Word = ""
    id: Word = ""
    engine: Word = ""
    timeout: Annotated[str, Meta(max_length=50, description="a duration, such as 30s or 5m")] = ""
    retries: Annotated[int, Meta(ge=0, le=20)] | None = None
    not_before: Annotated[str, Meta(max_length=50, description="a time: 2026-12-24T18:00+01:00, or 18:00")] = ""
    steps: Annotated[list[dict[str, Any]], Meta(max_length=1000, description="a playbook, as in a command file")] = []
    attachments: Annotated[list[Attachment], Meta(max_length=MAX_FILES)] = []


class FormIn(Struct, frozen=True, forbid_unknown_fields=True):
    """The same as a form: the fields as text, and any number of files."""

    text: Annotated[str, Meta(max_length=1024 * 1024)]
    thread: str = ""
    id: str = ""
    engine: str = ""
    timeout: str = ""
    retries: str = ""
    not_before: str = ""
    attachments: Annotated[list[_Upload], Meta(max_length=MAX_FILES)] = []


class Incoming(Struct, frozen=True):
    """A command that is ready to be handed in: the bytes of its file, its ``id``, and the files that come with it."""

    raw: bytes
    id: str
    attachments: Mapping[str, Path]


@asynccontextmanager
async def incoming(call: Call) -> AsyncIterator[Incoming]:
    """Read the body, of one of the three kinds. Its files lie in a folder that is gone afterwards."""
    kind = kind_of(call.request)
    folder = call.layout.tmp / f"upload-{os.urandom(6).hex()}"
    try:
        if kind == JSON:
            yield await _json(call, folder)
        elif kind == FORM:
            yield await _form(call, folder)
        else:
            text = (await call.request.body()).decode("utf-8", "surrogateescape")
            yield await call.off(_ready, text, {}, {})
    finally:
        if folder.exists():
            await call.off(shutil.rmtree, folder, ignore_errors=True)


async def _json(call: Call, folder: Path) -> Incoming:
    given = await call.json(CommandIn)
    names: dict[str, bytes] = {}
    for each in given.attachments:
        _unique(each.name, names)
        names[each.name] = each.content
    files = await call.off(_keep, folder, names) if names else {}
    fields = {name: getattr(given, name) for name in (*_FIELDS, "steps")}
    return await call.off(_ready, given.text, fields, files)


async def _form(call: Call, folder: Path) -> Incoming:
    form = await _Parser(call.request, folder).parse()
    fields: dict[str, Any] = {}
    uploads: dict[str, UploadFile] = {}
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if value.filename or value.size:  # a browser sends an empty one where no file was chosen
                    _unique(value.filename or "", uploads)
                    uploads[value.filename or ""] = value
            elif name in ("text", *_FIELDS):
                _unique(name, fields)
                fields[name] = value
            else:
                raise ProblemError(422, f"there is no field {name!r}; there are: text, {', '.join(_FIELDS)} and files")
        if "text" not in fields:
            raise ProblemError(422, "the form misses the field 'text'")
        if re.fullmatch("[0-9]{1,9}", fields.get("retries", "")):
            fields["retries"] = int(fields["retries"])
        files = {name: _named(folder, name, Path(upload.file.name)) for name, upload in uploads.items()}
        return await call.off(_ready, fields.pop("text"), fields, files)
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Puts files where they stay: on the disk of the workspace, for there may be no other, or none with room."""

    def __init__(self, request: Request, folder: Path) -> None:
        super().__init__(
            request.headers, request.stream(), max_files=MAX_FILES, max_fields=20, max_part_size=MAX_DOCUMENT
        )
        self._folder = folder

    async def parse(self) -> FormData:
        """The whole form. Raises ``ProblemError``."""
        try:
            return await super().parse()
        except MultiPartException as error:
            raise ProblemError(400, f"the form cannot be read: {error.message}") from None

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        upload = self._current_part.file
        if upload is not None:
            upload.file.close()
            self._folder.mkdir(exist_ok=True)
            upload.file = (self._folder / f".{self._current_files}").open("x+b")
            self._files_to_close_on_error.append(upload.file)  # type: ignore[arg-type]  # any open file will do


def _ready(text: str, fields: Mapping[str, Any], files: Mapping[str, Path]) -> Incoming:
    raw = compose(text, fields, files)
    named = peek(raw, "command")
    return Incoming(raw, named.id if named else "", files)


def _unique(name: str, known: Mapping[str, Any]) -> None:
    if name in known:
        raise ProblemError(422, f"{name!r} came twice")


def _keep(folder: Path, files: Mapping[str, bytes]) -> dict[str, Path]:
    """Put files into a folder of their own, by their names."""
    folder.mkdir()
    kept = {}
    for number, (name, content) in enumerate(files.items()):
        part = folder / f".{number}"
        part.write_bytes(content)
        kept[name] = _named(folder, name, part)
    return kept


def _named(folder: Path, name: str, part: Path) -> Path:
    """Give a file the name under which it came."""
    if not is_attachment(name) or not name.isprintable() or "\\" in name or len(name.encode()) > MAX_NAME:
        raise ProblemError(422, f"{name!r} cannot be the name of a file that comes with a command")
    return part.rename(folder / name)
