"""What a new workspace can be offered: an Ollama that runs here, keys in the environment. And how a model is written
into fsagent.yaml.

It asks nobody but Ollama, on this machine or where ``OLLAMA_HOST`` says, for the names of its models; no provider that
costs money ever hears of it. Limit: the names that are suggested are those of the day this was written.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from fsagent.config import FILE
from fsagent.errors import DocumentError
from fsagent.files.documents import decode
from fsagent.files.yamltext import load_mapping
from fsagent.model import Fault
from fsagent.modelsettings import KEYS

SUGGESTED = {"openai": "openai:gpt-5.4-mini", "anthropic": "anthropic:claude-haiku-5-5",
             "google": "google:gemini-3.8-flash", "openrouter": "openrouter:openai/gpt-5.4-mini",
             "ollama": "ollama:qwen3:8b"}  # fmt: skip
OLLAMA_PORT = 11434
OLLAMA_SECONDS = 0.3
OLLAMA_HOME = f"http://127.0.0.1:{OLLAMA_PORT}"
_MAX_ANSWER = 1_000_000
_ABLE = ("qwen3", "gpt-oss", "qwen2.5", "llama3.3", "llama3.1", "mistral", "llama3.2", "granite", "devstral")
_NO_TALKER = re.compile(r"embed|minilm|bge|rerank|whisper", re.IGNORECASE)
_TEMPLATE = re.compile(r"^# model:[^\n]*\n(?:#   name:[^\n]*\n)?", re.MULTILINE)


class Ollama(Struct, frozen=True):
    """An Ollama that answered: where, and its models as it names them, those first that are likely to use tools."""

    root: str
    models: tuple[str, ...] = ()

    @property
    def base_url(self) -> str:
        """What ``model.base_url`` must say; "" where it is the usual place."""
        return "" if self.root == OLLAMA_HOME else f"{self.root}/v1"


def ollama_root(environ: Mapping[str, str]) -> str:
    """Where Ollama is to be looked for. Its own rules for ``OLLAMA_HOST``; a server's 0.0.0.0 is this machine."""
    host = environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    scheme, found, rest = host.partition("://")
    scheme, rest = (scheme, rest) if found else ("http", host)
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        name, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        return OLLAMA_HOME
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(name, name)  # noqa: S104  # asked, not bound
    port = port or ({"http": 80, "https": 443}.get(scheme, OLLAMA_PORT) if found else OLLAMA_PORT)
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"


def find_ollama(environ: Mapping[str, str], seconds: float = OLLAMA_SECONDS) -> Ollama | None:
    """The Ollama that runs here, or None. Takes no longer than ``seconds``, whatever the network does."""
    root = ollama_root(environ)
    if not root.startswith("http://"):
        return None
    found: list[Ollama] = []

    def look() -> None:
        names = _tags(root, seconds)
        if names is not None:
            found.append(Ollama(root, names))

    thread = threading.Thread(target=look, name="looks for Ollama", daemon=True)  # a name may take long to resolve
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _tags(root: str, seconds: float) -> tuple[str, ...] | None:
    """Its models. By hand, because a daemon may follow in this process, and http.client takes memory that stays."""
    parts, end = urlsplit(root), time.monotonic() + seconds
    request = f"GET /api/tags HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n\r\n"
    answer = bytearray()
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), seconds) as connection:
            connection.sendall(request.encode("ascii"))
            while len(answer) < _MAX_ANSWER:
                connection.settimeout(max(0.001, end - time.monotonic()))
                if not (part := connection.recv(65536)):
                    break
                answer += part
    except (OSError, UnicodeError):
        return None
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    if not re.match(rb"HTTP/1\.[01] 200 ", head):
        return None
    try:
        models = msgspec.json.decode(body)["models"]
        return tuple(sorted((str(each["name"]) for each in models if not _NO_TALKER.search(each["name"])), key=_rank))
    except (msgspec.DecodeError, KeyError, TypeError):
        return None


def _rank(name: str) -> int:
    return next((number for number, start in enumerate(_ABLE) if name.startswith(start)), len(_ABLE))


def offers(environ: Mapping[str, str], ollama: Ollama | None, workspace: str) -> list[str]:
    """What a person is told who has named no model yet; nothing where nothing was found."""
    lines: list[str] = []
    if ollama and ollama.models:
        short = [name.removesuffix(":latest") for name in ollama.models]
        more = f" and {len(short) - 6} more" if len(short) > 6 else ""
        where = f" at {ollama.root}" if ollama.base_url else ""
        base = f', base_url: "{ollama.base_url}"' if ollama.base_url else ""
        lines += [f"Ollama runs here{where} with {', '.join(short[:6])}{more}: to use one, put this into {FILE}:",
                  f'  model: {{name: "ollama:{short[0]}"{base}}}']  # fmt: skip
    elif ollama:
        name = SUGGESTED["ollama"]
        pull = f"ollama pull {name.partition(':')[2]}"
        lines += [f"Ollama runs here, but has no model: get one with '{pull}', then put this into {FILE}:",
                  f'  model: {{name: "{name}"}}']  # fmt: skip
    for provider, variable in KEYS.items():
        if variable and environ.get(variable, "").strip():
            lines += [f"{variable} is set: to use it, put this into {FILE} (or another of their models):",
                      f'  model: {{name: "{SUGGESTED[provider]}"}}']  # fmt: skip
    if lines:
        lines.append(f"then try it: fsagent model test -w {workspace} (until then no model is asked)")
    return lines


def with_model(raw: bytes, name: str, base_url: str = "") -> bytes:
    """An fsagent.yaml that names this model; every other character stays.

    Raises ``DocumentError`` where it cannot be read, has a ``model:`` already, or has no place for one.
    """
    text, encoding = decode(raw, FILE)
    bom = raw[: len(raw) - len(text.encode(encoding))]
    if "model" in load_mapping(text, FILE):
        raise DocumentError([Fault(FILE, "has a 'model:' already, which stays; change it there", field="model")])
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = ["model:", f'  name: "{name}"', *([f'  base_url: "{base_url}"'] if base_url else [])]
    block = newline.join(lines) + newline
    changed, found = _TEMPLATE.subn(lambda _: block, text, count=1)
    if not found:
        gap = "" if not text or text.endswith("\n") else newline
        changed = f"{text}{gap}{newline if text else ''}{block}"
    if not _says(changed, name):
        raise DocumentError([Fault(FILE, f'has no place for a model; write into it: model: {{name: "{name}"}}')])
    return bom + changed.encode(encoding)


def _says(text: str, name: str) -> bool:
    try:
        model = load_mapping(text, FILE).get("model")
    except DocumentError:
        return False
    return isinstance(model, Mapping) and model.get("name") == name


def named_in(names: Sequence[str], wanted: str) -> list[str]:
    """The names, those first that look most like ``wanted``."""
    import difflib

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, wanted.lower(), name.lower()).ratio()

    return sorted(names, key=likeness, reverse=True)
