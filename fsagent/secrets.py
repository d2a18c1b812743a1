"""Secrets: where their values lie, where they may be sent, and how they are kept out of everything that is shown.

The settings name an environment variable or a file outside the workspace, never a value. ``Redactor`` puts
``[secret github]`` in the place of a value wherever a text holds it, as it is or in an encoding that programs use on
the way. Limit: a value that was cut in two, or changed in any other way (reversed, compressed), is not found.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, structs

from fsagent.files.fields import nearest
from fsagent.spellings import forms

MIN_LENGTH = 6
MAX_BYTES = 8192
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
REFERENCE = re.compile(r"\{\{\s*secrets\.([\w.-]+)\s*\}\}")
"""How a header names a secret."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# All that a pattern may leave open of a host is what stands before a *.
_PATTERN = re.compile(r"https?://((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?/\S*")
_ELSEWHERE = "the value itself never stands in fsagent.yaml; write env: and the name of a variable, or file: and a path"
_NO_PATTERN = (
    "is no pattern of addresses; write for instance https://api.example.org/*: the host in small letters, whole or "
    "from *. on, and a path"
)
_FIELDS = ("env", "file", "for")
_Path = tuple[str | int, ...]


# the settings


class SecretSource(Struct, frozen=True):
    """Where a secret lies (one of ``env`` and ``file``), and the addresses that it may be sent to."""

    env: str = ""
    file: str = ""
    urls: tuple[str, ...] = ()

    def fits(self, url: str) -> bool:
        """True if the secret may be sent to this canonical address: host and port as in a pattern, the path by it."""
        return any(_fits(pattern, url) for pattern in self.urls)

    def read(self, root: Path | None = None) -> str:
        """The value as it is now. Raises ``ValueError`` with what is wrong, in words that follow the secret's name."""
        value = self._from_file(root) if self.file else os.environ.get(self.env, "").strip()
        if not value:
            raise ValueError(f"is not there: {'write it into' if self.file else 'set'} {self.file or self.env}")
        if len(value) < MIN_LENGTH:
            raise ValueError(f"is not used: a value of less than {MIN_LENGTH} characters is found everywhere")
        if len(value) > MAX_BYTES or not _is_text(value):
            raise ValueError(f"is not used: it must be text of at most {MAX_BYTES:,} characters")
        return value

    def _from_file(self, root: Path | None) -> str:
        path = os.path.expanduser(self.file)
        if root and lies_in(path, root):
            raise ValueError(f"is not used: {self.file} {_IN_WORKSPACE}")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait for who writes into a FIFO
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ValueError(f"is not there: {self.file} is no regular file")
                return os.read(fd, 4 * MAX_BYTES).decode().strip()
            finally:
                os.close(fd)
        except OSError as error:
            raise ValueError(f"is not there: {self.file} cannot be read ({os.strerror(error.errno or 0)})") from None
        except UnicodeDecodeError:
            raise ValueError(f"is not used: {self.file} holds no text") from None


_IN_WORKSPACE = "lies in the workspace, which is synced and shown; keep it outside, such as in ~/.config"


class HasSecrets(Protocol):
    """The settings, as far as this module needs them."""

    @property
    def secrets(self) -> dict[str, Any]: ...


def sources(settings: HasSecrets) -> dict[str, SecretSource]:
    """The secrets that checked settings name."""
    return {
        name: SecretSource(given.get("env", ""), given.get("file", ""), _several(given.get("for", ())))
        for name, given in settings.secrets.items()
    }


def load_secrets(settings: HasSecrets, root: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """The values of all secrets that can be used, and what is wrong with the others, in words for ``status.md``.

    Reads the environment and the files now. ``root`` is the workspace, in which no secret may lie.
    """
    values, trouble = {}, []
    for name, source in sources(settings).items():
        try:
            values[name] = source.read(root)
        except ValueError as error:
            trouble.append(f"the secret {name} {error}")
    return values, trouble


def secret_faults(secrets: Mapping[str, Any], root: Path) -> Iterator[tuple[_Path, str]]:
    """What is wrong with ``secrets`` in the settings, each with its place there. Never shows what might be a value."""
    for name, given in secrets.items():
        where = ("secrets", name)
        if not re.fullmatch(NAME, name):
            yield where, "is no name for a secret; use letters, digits, _ and -"
        elif not isinstance(given, dict):
            yield where, f"must be a map, such as {{env: GITHUB_TOKEN}}; {_ELSEWHERE}"
        else:
            yield from _source_faults(where, given, root)


def _source_faults(where: _Path, given: dict[str, Any], root: Path) -> Iterator[tuple[_Path, str]]:
    for field in given:
        if field == "value":
            yield (*where, field), f"is refused: {_ELSEWHERE}"
        elif field not in _FIELDS:
            yield (*where, field), f"is not known here{nearest(field, _FIELDS)}; known are: {', '.join(_FIELDS)}"
    env, file = given.get("env"), given.get("file")
    if ("env" in given) == ("file" in given):
        yield where, "needs one of env (the name of a variable) and file (a path outside the workspace)"
    elif "env" in given and not (isinstance(env, str) and _VARIABLE.fullmatch(env)):
        yield (*where, "env"), "is no name of an environment variable; write for instance GITHUB_TOKEN"
    elif "file" in given and not (isinstance(file, str) and file.startswith(("/", "~/"))):
        yield (*where, "file"), "is no path; write it from / or ~/ on, such as ~/.config/token"
    elif isinstance(file, str) and lies_in(os.path.expanduser(file), root):
        yield (*where, "file"), _IN_WORKSPACE
    patterns = given.get("for", ())
    for number, pattern in enumerate([patterns] if isinstance(patterns, str | dict) else patterns):
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            at = (*where, "for") if isinstance(patterns, str | dict) else (*where, "for", number)
            yield at, _NO_PATTERN


def lies_in(path: str, root: Path) -> bool:
    """True if ``path``, links followed, lies in the workspace."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _several(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _fits(pattern: str, url: str) -> bool:
    """Host and path apart, for a ``*`` of the one must not reach into the other."""
    (scheme, _, wanted), (actual_scheme, _, actual) = pattern.partition("://"), url.partition("://")
    (host, _, path), (actual_host, _, actual_path) = wanted.partition("/"), actual.partition("/")
    same = actual_host.endswith(host[1:]) if host.startswith("*.") else actual_host == host
    return scheme == actual_scheme and same and fnmatchcase(actual_path, path)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# finding values


class Redactor:
    """Puts masks in the place of values. Immutable, so threads may share it; False where there is nothing to find.

    ``values`` are texts of at least ``MIN_LENGTH`` characters by name. What belongs to several values that overlap
    becomes one mask, that of the longest.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        if any(len(value) < MIN_LENGTH for value in values.values()):
            raise ValueError(f"a secret needs at least {MIN_LENGTH} characters")
        ranked = sorted(values, key=lambda name: -len(values[name]))
        self._rank = {name: number for number, name in enumerate(ranked)}
        self.forms = tuple(form for name in ranked for form in forms(name, values[name]))
        self._masks = re.compile(rf"\[secret ({'|'.join(map(re.escape, ranked))})\]") if ranked else None

    def __bool__(self) -> bool:
        return bool(self.forms)

    def text(self, text: str) -> str:
        """The text with a mask for each value; the same object where there is none in it."""
        return self._masked(text, self.spans(text))

    def value(self, value: Any) -> Any:
        """The same for all texts in a value made of maps, lists, tuples and structs, keys too."""
        if not self.forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            pairs = [(self.value(key), self.value(each)) for key, each in value.items()]
            same = all(new is key and each is value[key] for (new, each), key in zip(pairs, value, strict=True))
            return value if same else dict(pairs)
        if isinstance(value, list | tuple):
            clean = [self.value(each) for each in value]
            if all(new is old for new, old in zip(clean, value, strict=True)):
                return value
            return clean if isinstance(value, list) else tuple(clean)
        if isinstance(value, Struct):
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            changed = {name: new for name, old in fields.items() if (new := self.value(old)) is not old}
            return structs.replace(value, **changed) if changed else value
        return value

    def mask_in(self, value: Any) -> str:
        """The name of a secret whose mask stands in such a value, or ""."""
        if self._masks is None:
            return ""
        found = next((found for text in _texts(value) if (found := self._masks.search(text))), None)
        return found[1] if found else ""

    def stream(self) -> RedactedStream:
        """For one text that arrives in pieces."""
        return RedactedStream(self)

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Where values stand: begin, end and name, in order; those that overlap are one."""
        found = [(start, end, form.name) for form in self.forms for start, end in form.places(text)]
        spans: list[tuple[int, int, str]] = []
        for start, end, name in sorted(found):
            if spans and start < spans[-1][1]:
                first, last, other = spans.pop()
                spans.append((first, max(last, end), min(name, other, key=self._rank.__getitem__)))
            else:
                spans.append((start, end, name))
        return spans

    def _masked(self, text: str, spans: Iterable[tuple[int, int, str]]) -> str:
        parts, at = [], 0
        for start, end, name in spans:
            parts += [text[at:start], f"[secret {name}]"]
            at = end
        return "".join([*parts, text[at:]]) if parts else text


class RedactedStream:
    """Gives what ``Redactor.text`` gives for the whole, piece by piece; keeps back only what may begin a secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take the next piece; gives all that can be told by now, which may be nothing."""
        if not self._redactor:
            return piece
        text = self._held + piece
        cut = min(form.open_from(text) for form in self._redactor.forms)
        for start, end, _ in self._redactor.spans(text):
            if start < cut < end:
                cut = start
        self._held = text[cut:]
        return self._redactor.text(text[:cut])

    def end(self) -> str:
        """What was kept back."""
        rest, self._held = self._held, ""
        return self._redactor.text(rest)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
