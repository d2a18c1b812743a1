"""How each provider is reached, and how it is asked."""

from __future__ import annotations

from typing import Any, cast

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model as Client
from pydantic_ai.settings import ModelSettings

from fsagent.engines.base import Model

NO_KEY = "no-key"


def connect(model: Model) -> Client:
    """The client of a model. Raises ``ValueError`` in words where its library is not installed or has no key."""
    provider, _, name = model.name.partition(":")
    try:
        return _connect(provider, name, model)
    except ImportError as error:
        extra = provider if provider in ("anthropic", "google") else "model"
        raise ValueError(f"{provider} needs a library that is not here: pip install 'fsagent[{extra}]'") from error
    except UserError as error:
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
