"""How each provider is reached, and what its errors mean for the run: try again, give up on the model, or on all."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from msgspec import Struct
from pydantic_ai import exceptions as told
from pydantic_ai.models import Model as Client
from pydantic_ai.settings import ModelSettings

from fsagent.engines.base import Model

NO_KEY = "no-key"


class Trouble(Struct, frozen=True):
    """What an error means. ``retry`` that the same may work in a moment (after ``wait`` seconds, if the provider said),
    ``shut`` that this model lets nobody in until a person does something."""

    why: str
    retry: bool = False
    shut: bool = False
    wait: float = 0.0


def connect(model: Model) -> Client:
    """The client of a model. Raises ``ValueError`` in words where its library is not installed or has no key."""
    provider, _, name = model.name.partition(":")
    try:
        return _connect(provider, name, model)
    except ImportError as error:
        extra = provider if provider in ("anthropic", "google") else "model"
        raise ValueError(f"{provider} needs a library that is not here: pip install 'fsagent[{extra}]'") from error
    except told.UserError as error:
        raise ValueError(str(error)) from error


def _connect(provider: str, name: str, model: Model) -> Client:
    if provider == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        key = model.key or NO_KEY
        if model.base_url:
            return AnthropicModel(name, provider=AnthropicProvider(api_key=key, base_url=model.base_url))
        return AnthropicModel(name, provider=AnthropicProvider(api_key=key))
    if provider == "google":
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        return GoogleModel(name, provider=GoogleProvider(api_key=model.key, base_url=model.base_url or None))
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.ollama import OllamaProvider
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    key = model.key or NO_KEY
    if provider == "ollama":
        return OpenAIChatModel(name, provider=OllamaProvider(base_url=model.base_url, api_key=key))
    if provider == "openrouter" and "openrouter.ai" in model.base_url:
        return OpenAIChatModel(name, provider=OpenRouterProvider(api_key=key))
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=model.base_url or None, api_key=key))


def settings_for(model: Model, seconds: float) -> ModelSettings:
    """How it is asked. ``seconds`` is the longest silence that is waited for."""
    settings: dict[str, Any] = {"max_tokens": model.max_output, "timeout": seconds, "max_retries": 0}
    if model.temperature is not None:
        settings["temperature"] = model.temperature
    if model.name.startswith("anthropic:"):
        settings |= {"anthropic_cache_instructions": True, "anthropic_cache_messages": True}
    return cast(ModelSettings, settings)


def trouble_of(error: BaseException, model: Model) -> Trouble:
    """What an error of the provider's library means, in words for people."""
    name, where = model.name, f" at {model.base_url}" if model.base_url else ""
    wait = float(getattr(error, "retry_after", None) or 0.0)
    if isinstance(error, told.ModelQuotaExceededError) or _status(error) == 402:
        return Trouble(f"{name}: the account is used up ({_said(error)}); add credit, or name another model", shut=True)
    if isinstance(error, told.ModelAuthenticationError) or _status(error) in (401, 403):
        return Trouble(
            f"{name}: the key is refused ({_said(error)}); check it, and that it may use this model", shut=True
        )
    if isinstance(error, told.ModelNotFoundError) or _status(error) == 404:
        return Trouble(f"{name}: there is no such model{where} ({_said(error)}); check model.name", shut=True)
    if "does not support tools" in str(error):
        return Trouble(f"{name}: this model cannot use tools; name another one, such as ollama:qwen3", shut=True)
    if isinstance(error, told.ModelContextWindowExceededError):
        return Trouble(f"{name}: the request is too long for this model ({_said(error)})")
    if isinstance(error, told.ModelRateLimitError) or _status(error) == 429:
        return Trouble(f"{name}: too many requests ({_said(error)})", retry=True, wait=wait)
    if isinstance(error, told.ModelHTTPError):
        passing = _status(error) >= 500 or _status(error) in (408, 409, 425)
        return Trouble(f"{name}: answered {_status(error)} ({_said(error)})", retry=passing, wait=wait)
    if isinstance(error, TimeoutError | asyncio.TimeoutError | told.ModelTimeoutError):
        return Trouble(f"{name}: did not answer in time", retry=True)
    if isinstance(error, told.ModelAPIError):
        return Trouble(f"{name}: cannot be reached{where} ({_said(error)})", retry=True, wait=wait)
    if isinstance(error, told.UnexpectedModelBehavior):
        return Trouble(f"{name}: answered something that cannot be understood ({_said(error)})", retry=True)
    if isinstance(error, told.UserError | ValueError):
        return Trouble(f"{name}: {error}")
    return Trouble(f"{name}: the connection broke ({_said(error)})", retry=True)


def _status(error: BaseException) -> int:
    return int(getattr(error, "status_code", 0) or 0)


def _said(error: BaseException) -> str:
    """The provider's own words, on one line."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    words = inner.get("message") if isinstance(inner, dict) else inner
    text = " ".join(str(words or getattr(error, "message", "") or str(error) or type(error).__name__).split())
    status = _status(error)
    text = text if len(text) <= 300 else text[:300] + "…"
    return f"{status}: {text}" if status and str(status) not in text else text
