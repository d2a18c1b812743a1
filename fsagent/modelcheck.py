"""Asks the models that the settings name one tiny thing each, and says in words what works and what to fix.

For a person at the command line; no daemon is needed. A test of one model takes two requests and a few hundred tokens,
which are told. A model that passes is asked by tasks again, if its breaker was open.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from fsagent import modelwords
from fsagent.config import Settings
from fsagent.engines.base import Model
from fsagent.engines.model.price import cost_of
from fsagent.errors import FsagentError
from fsagent.model import Command
from fsagent.modeloffers import SECONDS, AnsweredError, address_of, offered
from fsagent.modelsettings import KEYS, ModelSettings, model_faults, provider_of
from fsagent.modelwords import Trouble
from fsagent.purse import BASES, Breaker, models_of
from fsagent.workspace.layout import Layout

if TYPE_CHECKING:
    from fsagent.engines.model.trial import Seen

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
Source = Literal["settings", "table", "free", "unknown"]


class Price(Struct, frozen=True):
    """US dollars per million tokens, and where that comes from; None where nobody knows."""

    source: Source
    read: float | None = None
    written: float | None = None

    def __str__(self) -> str:
        if self.source == "free":
            return "nothing: it runs on a machine of your own"
        if self.read is None or self.written is None:
            return "unknown; costs are not counted until model.prices names it"
        where = "from model.prices" if self.source == "settings" else "from the table of genai-prices"
        return f"${self.read:g} read, ${self.written:g} written per million tokens ({where})"


class Described(Struct, frozen=True):
    """A model as it is configured. ``key`` says where its key comes from, never the key."""

    name: str
    address: str
    key: str
    price: Price
    wrong: str = ""
    shut: str = ""
    since: datetime | None = None


class _Sample(Struct, frozen=True):
    """Some tokens, to see what they cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0


class Line(Struct, frozen=True):
    """One thing that was looked at; ``ok`` is None where that could not be seen."""

    what: str
    ok: bool | None
    words: str


class Checked(Struct, frozen=True):
    """What a test found of one model."""

    name: str
    address: str
    usable: bool
    lines: tuple[Line, ...]
    trouble: Trouble | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None


def names_of(settings: Settings) -> list[str]:
    """The models that the settings name, the first one first."""
    return list(dict.fromkeys(filter(None, (settings.model.name, *settings.model.fallback))))


def describe(layout: Layout, settings: Settings, name: str) -> Described:
    """One model, without asking anybody."""
    model, wrong = _model(settings, name)
    shut = Breaker(layout.machine / "breaker.json", lambda: _LONG_AGO).state(model)
    return Described(
        name=name, address=address_of(model), key=_key_source(settings, name, bool(model.key)), price=_price(model),
        wrong=wrong, shut=shut.why if shut else "", since=shut.since if shut else None,
    )  # fmt: skip


def offers_of(settings: Settings, name: str) -> list[str]:
    """The models at a model's address. Raises ``FsagentError`` in words."""
    model, wrong = _model(settings, name)
    if wrong:
        raise FsagentError(f"{name}: {wrong}")
    try:
        return offered(model)
    except (OSError, AnsweredError) as error:
        trouble = modelwords.of_list(error, model, SECONDS)
        raise FsagentError(_clean(f"{name}: {trouble.what}; {trouble.do}", model)) from None


def check(layout: Layout, settings: Settings, name: str, seconds: float) -> Checked:
    """Test one model. Closes its breaker if it can be used."""
    _must_be_named_well(name)
    model, wrong = _model(settings, name)
    test = _Test(model, seconds)
    if wrong:
        what, _, do = wrong.partition(": ") if wrong.startswith("there is no key: ") else (wrong, "", "")
        test.fail(Trouble("key", what, do or "correct that file, or model.api_key_file in fsagent.yaml"))
    else:
        test.run()
    found = test.result(_key_source(settings, name, bool(model.key)))
    if found.usable and Breaker(layout.machine / "breaker.json", lambda: _LONG_AGO).close(name):
        line = Line("breaker", True, "tasks had stopped asking it; from now on they ask it again")
        found = msgspec.structs.replace(found, lines=(*found.lines, line))
    return found


class _Test:
    """A test of one model, under way."""

    def __init__(self, model: Model, seconds: float) -> None:
        self._model, self._seconds = model, seconds
        self._lines: list[Line] = []
        self._seen: list[Seen] = []
        self.trouble: Trouble | None = None

    def add(self, what: str, ok: bool | None, words: str) -> None:
        """One more line."""
        self._lines.append(Line(what, ok, _clean(words, self._model)))

    def fail(self, trouble: Trouble) -> None:
        """It cannot be used."""
        self.trouble = trouble
        self.add(trouble.kind, False, trouble.what)

    def run(self) -> None:
        """Ask: for an answer in a stream, then for a call of a tool."""
        answer = self._ask()
        if isinstance(answer, Trouble) or answer.empty:
            self.fail(self._without_stream(answer))
            return
        self.add("answers", True, f"answers: {' '.join(answer.text.split())[:60]}" if answer.text else
                 "answers (it was still thinking when the test's tokens were up)")  # fmt: skip
        streams = answer.pieces > 1
        self.add("streams", True if streams else None, "streams what it says" if streams else
                 "answered in one piece, so what it says may show only at its end")  # fmt: skip
        called = self._ask(tool=True)
        if isinstance(called, Trouble):
            self.fail(called)
            return
        if called.called:
            self.add("tools", True, "uses tools")
        elif called.malformed:
            self.fail(Trouble("tools", "it calls tools, but not with the arguments that they have",
                               "name a larger model"))  # fmt: skip
        elif called.cut:
            self.add("tools", None, "takes tools (it was still thinking when the test's tokens were up)")
        else:
            self.fail(modelwords.no_tools(called.text or "nothing"))
        told = all(each.told for each in self._seen)
        self.add("usage", told, "tells how many tokens it used" if told else
                 "does not tell how many tokens it used; they are counted by the length of the text")  # fmt: skip

    def result(self, key: str) -> Checked:
        """What was found. ``key`` says where the key comes from."""
        model, price = self._model, _price(self._model)
        first, last = list[Line](), list[Line]()
        if self._seen:
            first.append(Line("reached", True, f"reached; something came after {self._seen[0].first * 1000:.0f} ms"))
            first.append(Line("key", True, f"the key is accepted ({key})" if model.key else "needs no key"))
            last.append(Line("price", None if price.source == "unknown" else True, f"price: {price}"))
        elif self.trouble and self.trouble.reached:
            first.append(Line("reached", True, "reached"))
        costs = [each.cost for each in self._seen if each.cost is not None]
        trouble = self.trouble
        if trouble:
            trouble = Trouble(trouble.kind, _clean(trouble.what, model), _clean(trouble.do, model))
        return Checked(
            name=model.name, address=address_of(model), usable=trouble is None,
            lines=(*first, *self._lines, *last), trouble=trouble,
            tokens_in=sum(each.tokens_in for each in self._seen),
            tokens_out=sum(each.tokens_out for each in self._seen),
            cost=sum(costs) if costs and len(costs) == len(self._seen) else None,
        )  # fmt: skip

    def _ask(self, *, tool: bool = False, stream: bool = True) -> Seen | Trouble:
        """Ask once."""
        try:
            from fsagent.engines.model.failures import failure_of
            from fsagent.engines.model.trial import ask
        except ImportError:
            return modelwords.missing(self._model.name)
        try:
            seen = ask(self._model, self._seconds, tool=tool, stream=stream)
        except Exception as error:  # noqa: BLE001  # around one request: providers' libraries raise what they like
            if isinstance(error.__cause__, ImportError):
                return modelwords.missing(self._model.name)
            return modelwords.of_failure(failure_of(error), error, self._model, self._seconds)
        self._seen.append(seen)
        return seen

    def _without_stream(self, streamed: Seen | Trouble) -> Trouble:
        """Nothing came in a stream that could be understood: does anything come without?"""
        if isinstance(streamed, Trouble) and streamed.kind != "odd":
            return streamed
        whole = self._ask(stream=False)
        if isinstance(whole, Trouble):
            return modelwords.no_server(self._model) if whole.kind == "odd" else whole
        if whole.empty:
            return Trouble("empty", "it answers nothing at all", "name another model, or look at the server's log")
        return Trouble("stream", "it answers, but not in a stream, which fsagent needs",
                       "let the server stream, or name another one")  # fmt: skip


def _must_be_named_well(name: str) -> None:
    wrong = next((why for path, why in model_faults(ModelSettings(name=name)) if path == ("name",)), "")
    if wrong:
        raise FsagentError(wrong)


def _model(settings: Settings, name: str) -> tuple[Model, str]:
    """The model, and what is wrong with its key; then it has none."""
    _must_be_named_well(name)
    alone = msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, fallback=()))
    models, wrong = models_of(alone, Command(name="", body="", model=name))
    if models:
        return models[0], ""
    ours = provider_of(name) == provider_of(settings.model.name)
    base = settings.model.base_url if ours else ""
    return Model(name, base or BASES.get(provider_of(name), "")), wrong.removeprefix(f"{name}: ")


def _key_source(settings: Settings, name: str, found: bool) -> str:
    wanted, provider = settings.model, provider_of(name)
    ours = provider == provider_of(wanted.name)
    if ours and wanted.api_key_file:
        return f"from the file {wanted.api_key_file}"
    variable = (ours and wanted.api_key_env) or KEYS.get(provider, "")
    if found:
        return f"from {variable}"
    if provider == "ollama" or (ours and wanted.base_url and not wanted.api_key_env):
        return "none is needed"
    return f"none: {variable} is not set here"


def _price(model: Model) -> Price:
    try:
        read, written = cost_of(_Sample(input_tokens=1000), model), cost_of(_Sample(output_tokens=1000), model)
    except ImportError:
        return Price("unknown")
    if read is None or written is None:
        return Price("unknown")
    source: Source = "settings" if model.price_in is not None else "table"
    if provider_of(model.name) == "ollama" and source == "table":
        source = "free"
    return Price(source, round(read * 1000, 6), round(written * 1000, 6))


def _clean(text: str, model: Model) -> str:
    """Providers repeat parts of the key; nobody is to see it, nor is a terminal to obey what a server says."""
    text = text.replace(model.key, "…") if len(model.key) >= 6 else text
    return "".join(char if char.isprintable() else "�" for char in text)
