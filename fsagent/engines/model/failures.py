"""What an error of a provider's library is about, and what it means for the run."""

from __future__ import annotations

import json
from typing import Literal

from msgspec import Struct
from pydantic_ai import exceptions as told

from fsagent.engines.base import Model

Kind = Literal["status", "quota", "key", "long", "timeout", "connection", "unclear", "setup"]
_PASSING = (408, 409, 425, 429)


class Failure(Struct, frozen=True):
    """What went wrong: the status of an HTTP answer (0 without one), the provider's own words, on one line, and the
    seconds after which it wants to be asked again."""

    kind: Kind
    status: int = 0
    said: str = ""
    wait: float = 0.0

    @property
    def words(self) -> str:
        """``404: the provider's words``."""
        fresh = self.said and not self.said.startswith("status_code:")
        return ": ".join(filter(None, [str(self.status or ""), self.said if fresh else ""])) or "it does not say why"


class Trouble(Struct, frozen=True):
    """What a failure means for the run, in words for people. ``retry`` that the same may work in a moment (after
    ``wait`` seconds, if the provider said), ``shut`` that this model lets nobody in until a person does something."""

    why: str
    retry: bool = False
    shut: bool = False
    wait: float = 0.0


def failure_of(error: BaseException) -> Failure:
    """What an error of the provider's library is about."""
    status, said = int(getattr(error, "status_code", 0) or 0), _said(error)
    wait = float(getattr(error, "retry_after", None) or 0.0)
    if isinstance(error, told.ModelQuotaExceededError) or status == 402:
        return Failure("quota", status, said)
    if isinstance(error, told.ModelAuthenticationError) or status in (401, 403):
        return Failure("key", status, said)
    if isinstance(error, told.ModelContextWindowExceededError):
        return Failure("long", status, said)
    if status:
        return Failure("status", status, said, wait)
    if isinstance(error, TimeoutError | told.ModelTimeoutError):
        return Failure("timeout")
    if isinstance(error, told.UnexpectedModelBehavior | json.JSONDecodeError):
        return Failure("unclear", said=said)
    if isinstance(error, told.UserError | ValueError):
        return Failure("setup", said=said)
    return Failure("connection", said=said, wait=wait)


def trouble_of(error: BaseException, model: Model) -> Trouble:
    """What an error of the provider's library means for a run that asked ``model``."""
    failure, name = failure_of(error), model.name
    where, said = f" at {model.base_url}" if model.base_url else "", failure.words
    if failure.kind == "quota":
        return Trouble(f"{name}: the account is used up ({said}); add credit, or name another model", shut=True)
    if failure.kind == "key":
        return Trouble(f"{name}: the key is refused ({said}); check it, and that it may use this model", shut=True)
    if failure.status == 404:
        return Trouble(f"{name}: there is no such model{where} ({said}); check model.name", shut=True)
    if "does not support tools" in failure.said:
        return Trouble(f"{name}: this model cannot use tools; name another one, such as ollama:qwen3", shut=True)
    if failure.kind == "long":
        return Trouble(f"{name}: the request is too long for this model ({said})")
    if failure.kind == "status":
        words = "too many requests" if failure.status == 429 else f"answered {failure.status}"
        passing = failure.status >= 500 or failure.status in _PASSING
        return Trouble(f"{name}: {words} ({said})", retry=passing, wait=failure.wait)
    if failure.kind == "timeout":
        return Trouble(f"{name}: did not answer in time", retry=True)
    if failure.kind == "unclear":
        return Trouble(f"{name}: answered something that cannot be understood ({said})", retry=True)
    if failure.kind == "setup":
        return Trouble(f"{name}: {failure.said}")
    return Trouble(f"{name}: no whole answer comes{where} ({said})", retry=True, wait=failure.wait)


def _said(error: BaseException) -> str:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    words = inner.get("message") if isinstance(inner, dict) else inner
    text = " ".join(str(words or getattr(error, "message", "") or str(error) or type(error).__name__).split())
    return text if len(text) <= 300 else text[:300] + "…"
