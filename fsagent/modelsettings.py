"""Settings of models and budgets: which model is asked, where, and how much may be used. A part of ``config``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fsagent.files.fields import Amount, convert

PROVIDERS = ("openai", "anthropic", "google", "ollama", "openrouter")
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GEMINI_API_KEY",
        "openrouter": "OPENROUTER_API_KEY", "ollama": ""}  # fmt: skip
"""The environment variable of a provider's key, where the settings name none; "" where none is needed."""

_NAME = re.compile(r"[a-z]+:\S+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Price(Struct, frozen=True, kw_only=True):
    """US dollars per million tokens: read, written, and read out of the provider's cache (None: as ``in``)."""

    in_: float = msgspec.field(name="in", default=0.0)
    out: float = 0.0
    cached: float | None = None


class ModelSettings(Struct, frozen=True, kw_only=True):
    """Which model is asked, where, with which key. ``name`` is ``provider:model``; "" means none.

    ``fallback`` are models to ask where it does not answer; ``prices`` by name go before those that are known.
    """

    name: str = ""
    base_url: str = ""
    api_key_env: str = ""
    api_key_file: str = ""
    fallback: tuple[str, ...] = ()
    temperature: float | None = None
    max_output: int = 4096
    prices: dict[str, Any] = {}


class RunBudget(Struct, frozen=True, kw_only=True):
    """The most that one run may use: turns of an engine, tool calls, tokens (read and written), US dollars."""

    steps: Amount = Amount(50)
    calls: Amount = Amount(200)
    tokens: Amount = Amount(300_000)
    cost: Amount = Amount(1)


class PeriodBudget(Struct, frozen=True, kw_only=True):
    """The most that all runs with a model may use together in a time: their number, tokens, US dollars."""

    runs: Amount = Amount.off()
    tokens: Amount = Amount.off()
    cost: Amount = Amount.off()


class TaskBudget(PeriodBudget, frozen=True, kw_only=True):
    """One task in one day."""

    runs: Amount = Amount(300)
    tokens: Amount = Amount(1_000_000)
    cost: Amount = Amount(2)


class DayBudget(PeriodBudget, frozen=True, kw_only=True):
    """One day."""

    runs: Amount = Amount(1_000)
    tokens: Amount = Amount(3_000_000)
    cost: Amount = Amount(5)


class MonthBudget(PeriodBudget, frozen=True, kw_only=True):
    """One month."""

    runs: Amount = Amount(10_000)
    tokens: Amount = Amount(30_000_000)
    cost: Amount = Amount(50)


class BudgetSettings(Struct, frozen=True, kw_only=True):
    """Budgets of a run, of one task in a day, of a day, of a month. Days are those of the workspace's time zone."""

    run: RunBudget = RunBudget()
    task: TaskBudget = TaskBudget()
    day: DayBudget = DayBudget()
    month: MonthBudget = MonthBudget()


def provider_of(name: str) -> str:
    """``openai`` of ``openai:gpt-5-mini``."""
    return name.partition(":")[0]


def name_fault(name: str) -> str:
    """What is wrong with the name of a model, in words; "" where nothing is, or there is none."""
    if not name or (_NAME.fullmatch(name) and provider_of(name) in PROVIDERS):
        return ""
    known = ", ".join(PROVIDERS)
    return f"{name!r} is no model; write provider:model with one of {known}, such as ollama:qwen3"


def model_faults(model: ModelSettings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What no type can say, each with its place below ``model``."""
    names: Sequence[tuple[tuple[str | int, ...], str]] = [
        (("name",), model.name), *((("fallback", number), name) for number, name in enumerate(model.fallback))
    ]  # fmt: skip
    yield from ((path, why) for path, name in names if (why := name_fault(name)))
    if not model.name and (model.fallback or model.base_url):
        yield ("name",), "is missing; write for instance name: ollama:qwen3"
    if model.base_url and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", model.base_url):
        yield ("base_url",), f"{model.base_url!r} is no address; write for instance http://127.0.0.1:8080/v1"
    if model.api_key_env and not _VARIABLE.fullmatch(model.api_key_env):
        yield ("api_key_env",), "must be the name of an environment variable, not the key itself; keys never stand here"
    if model.api_key_env and model.api_key_file:
        yield ("api_key_file",), "cannot stand beside api_key_env; keep one of them"
    if model.api_key_file and not model.api_key_file.startswith(("/", "~/")):
        yield ("api_key_file",), "must be a path from / or ~/ on, outside the workspace; keys never stand here"
    if model.temperature is not None and not 0 <= model.temperature <= 2:
        yield ("temperature",), "must be between 0 and 2"
    if not 16 <= model.max_output <= 1_000_000:
        yield ("max_output",), "must be between 16 and 1000000 tokens"
    for name, price in model.prices.items():
        try:
            price_of(price)
        except (ValueError, msgspec.ValidationError):
            yield ("prices", name), "must be dollars per million tokens, such as {in: 1.25, out: 10, cached: 0.125}"


def budget_faults(budget: BudgetSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What no type can say, each with its place below ``budget``."""
    for name in ("steps", "calls"):
        if getattr(budget.run, name) < 1:
            yield ("run", name), "must be at least 1"


def price_of(price: object) -> Price:
    """A price as it stands in ``prices``. Raises ``ValueError`` or ``msgspec.ValidationError``."""
    if not isinstance(price, dict) or not {"in", "out"} <= set(price) <= {"in", "out", "cached"}:
        raise ValueError("needs in and out")
    found: Price = convert(price, Price)
    if min(found.in_, found.out, found.cached or 0.0) < 0:
        raise ValueError("must not be negative")
    return found
