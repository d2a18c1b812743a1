"""What a turn costs: by the owner's own prices, else by the table that comes with the library; nothing is guessed.

Limit: the table is as old as the installed ``genai-prices``; providers change their prices without telling it.
"""

from __future__ import annotations

from typing import Protocol

from fsagent.engines.base import Model

_TABLES = {"google": "google", "openai": "openai", "anthropic": "anthropic", "openrouter": "openrouter"}


class Used(Protocol):
    """Tokens of a turn, as the providers' libraries count them: ``input_tokens`` with those from the cache."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cache_read_tokens(self) -> int: ...


def cost_of(usage: Used, model: Model) -> float | None:
    """US dollars of one turn, None where nobody knows. A model that runs at home costs nothing."""
    if model.price_in is not None and model.price_out is not None:
        cached = usage.cache_read_tokens
        price_cached = model.price_in if model.price_cached is None else model.price_cached
        fresh = max(0, usage.input_tokens - cached)
        return (fresh * model.price_in + cached * price_cached + usage.output_tokens * model.price_out) / 1e6
    provider, _, name = model.name.partition(":")
    if provider == "ollama":
        return 0.0
    if model.base_url and provider == "openai":  # somebody else's server, at nobody knows what price
        return None
    from genai_prices import calc_price

    try:
        return float(calc_price(usage, model_ref=name, provider_id=_TABLES.get(provider)).total_price)
    except LookupError:
        return None
