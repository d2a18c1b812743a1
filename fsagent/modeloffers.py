"""Where a model is asked, and which models are offered there. Needs no library of a provider.

It only asks for lists, which costs nothing. Limits: redirects are not followed, for a key must not go elsewhere; of a
list longer than a page (1,000) the rest is not seen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from fsagent.engines.base import Model
from fsagent.modelsettings import provider_of

SECONDS = 10.0
MAX_LIST = 8_000_000
# By provider: its own address, and the variable by which its library lets another be set.
_HOMES = {"openai": ("https://api.openai.com/v1", "OPENAI_BASE_URL"),
          "anthropic": ("https://api.anthropic.com", "ANTHROPIC_BASE_URL"),
          "google": ("https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL")}  # fmt: skip


class AnsweredError(Exception):
    """A server answered, but not with a list: ``status`` (200 for something else than a list), and its words."""

    def __init__(self, url: str, status: int, said: str = "") -> None:
        super().__init__(f"{url} answered {status}{': ' if said else ''}{said}")
        self.url, self.status, self.said = url, status, said


def address_of(model: Model) -> str:
    """The address at which a model is asked."""
    home, variable = _HOMES.get(provider_of(model.name), ("", ""))
    return (model.base_url or os.environ.get(variable, "") or home).rstrip("/")


def host_of(address: str) -> str:
    """``127.0.0.1:11434``: host and port as the address names them."""
    return urlsplit(address).netloc.rpartition("@")[2] or address


def offered(model: Model, seconds: float = SECONDS) -> list[str]:
    """The names of the models at this model's address, sorted. Raises ``OSError`` or ``AnsweredError``."""
    provider, base = provider_of(model.name), address_of(model)
    if provider == "anthropic":
        headers = {"x-api-key": model.key, "anthropic-version": "2023-06-01"}
        return _names(_fetch(f"{base}/v1/models?limit=1000", headers, seconds), "data", "id")
    if provider == "google":
        found = _fetch(f"{base}/v1beta/models?pageSize=1000", {"x-goog-api-key": model.key}, seconds)
        return [name.removeprefix("models/") for name in _names(found, "models", "name")]
    headers = {"authorization": f"Bearer {model.key}"} if model.key else {}
    if provider == "ollama":
        try:
            return _names(_fetch(f"{base.removesuffix('/v1')}/api/tags", headers, seconds), "models", "name")
        except AnsweredError:
            pass  # something that stands before it, and lets only the other list through
    return _names(_fetch(f"{base}/models", headers, seconds), "data", "id")


def better_base(model: Model, seconds: float = SECONDS) -> str:
    """The base_url that would be right where the configured one leads to nothing; "" where none is found."""
    base = address_of(model)
    bare = base
    for tail in ("/chat/completions", "/messages", "/completions", "/models", "/api"):
        bare = bare.removesuffix(tail)
    native = provider_of(model.name) in ("anthropic", "google")
    for each in (bare, bare.removesuffix("/v1") if native else f"{bare}/v1"):
        if each != base:
            try:
                # Ollama has its own list beside the address; the list below it is what shows that it is right.
                other = msgspec.structs.replace(model, base_url=each, name=model.name.replace("ollama:", "openai:", 1))
                offered(other, seconds)
            except (OSError, AnsweredError):
                continue
            return each
    return ""


def _fetch(url: str, headers: dict[str, str], seconds: float) -> Any:
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    request = Request(  # noqa: S310  # the settings allow http and https only
        url, headers={"accept": "application/json", "user-agent": "fsagent", **headers}
    )
    try:
        with build_opener(Stay).open(request, timeout=seconds) as answer:
            raw = answer.read(MAX_LIST)
    except HTTPError as error:
        with error:
            raise AnsweredError(url, error.code, _said(error.read(100_000))) from None
    except URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from None
    except ValueError as error:  # of http.client, for what no HTTP server answers
        raise OSError(str(error) or type(error).__name__) from None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        raise AnsweredError(url, 200, "something that is no list of models") from None


def _said(raw: bytes) -> str:
    """The words of an error, on one line."""
    try:
        body = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        body = raw.decode("utf-8", "replace")
    inner = body.get("error", body) if isinstance(body, dict) else body
    words = inner.get("message", "") if isinstance(inner, dict) else inner
    text = " ".join(str(words).split())
    return "" if text.startswith("<") else text[:300]


def _names(found: Any, key: str, name: str) -> list[str]:
    items = found.get(key) if isinstance(found, dict) else None
    if not isinstance(items, Sequence):
        raise AnsweredError("the server", 200, "something that is no list of models")
    return sorted(str(each[name]) for each in items if isinstance(each, dict) and name in each)
