"""Which models may be asked, with which keys, and how much: budgets, and models that let nobody in.

The circuit breaker: a provider that refuses the key, or whose account is used up, is told once, and no task tries it
again. What a person asks for by a command tries it, for they may just have mended it; when it answers, it is closed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from fsagent.budgets import Budgets, Exhausted
from fsagent.config import Settings
from fsagent.dispatch import MODEL, asks_a_model
from fsagent.engines.base import Model
from fsagent.files.atomic import write_atomic
from fsagent.model import Command, Step, Task, Usage
from fsagent.modelsettings import KEYS, price_of, provider_of
from fsagent.notices import Notices
from fsagent.workspace.usage import Spent, UsageBook

BASES = {"ollama": "http://127.0.0.1:11434/v1", "openrouter": "https://openrouter.ai/api/v1"}
MAX_KEY = 4096


class Shut(Struct, frozen=True):
    """A model that lets nobody in: why, since when, and the print of the key it was asked with."""

    why: str
    since: datetime
    key: str = ""


class Breaker:
    """Remembers in ``.fsagent/breaker.json`` which models let nobody in. Safe to share between threads, and between
    processes: what another one wrote, or a person removed, counts at once.

    Limit: of two processes that write in the same instant, the second wins; what is lost is found out by one request.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path, self._now = path, now
        self._lock = threading.Lock()
        self._mark: object = ""
        self._shut: dict[str, Shut] = {}

    def state(self, model: Model) -> Shut | None:
        """Why and since when this model is not to be asked with this key; None where it may be."""
        with self._lock:
            shut = self._fresh().get(model.name)
        return shut if shut and shut.key == _print(model.key) else None

    def why(self, model: Model) -> str:
        """Why this model is not to be asked with this key; "" where it may be."""
        shut = self.state(model)
        return shut.why if shut else ""

    def open(self, model: Model, why: str) -> bool:
        """Keep everybody from asking; True if that is new."""
        with self._lock:
            shut, key = self._fresh().get(model.name), _print(model.key)
            if shut and shut.key == key:
                return False
            self._shut[model.name] = Shut(why, self._now().astimezone(UTC), key)
            self._write()
        return True

    def close(self, name: str) -> bool:
        """It has answered; True if it was not asked any more before."""
        with self._lock:
            if self._fresh().pop(name, None) is None:
                return False
            self._write()
        return True

    def lines(self) -> list[str]:
        """What people should know."""
        with self._lock:
            return [f"{name} lets nobody in ({shut.why}); tasks do not try it. A command does, or: fsagent model test"
                    for name, shut in sorted(self._fresh().items())]  # fmt: skip

    def _fresh(self) -> dict[str, Shut]:
        """What the file says now; read again only where it is another one. The lock is held."""
        try:
            found = os.stat(self._path)
            mark: object = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            mark = None
        if mark != self._mark:
            self._shut, self._mark = _read(self._path), mark
        return self._shut

    def _write(self) -> None:
        write_atomic(self._path, msgspec.json.encode(self._shut) + b"\n")
        self._mark = ""  # somebody may have written since


def models_of(settings: Settings, command: Command) -> tuple[tuple[Model, ...], str]:
    """The models that the settings name for a command, the first one first; and what is wrong with those left out.

    Reads environment and key files now, so that a key that was replaced counts at once.
    """
    wanted = settings.model
    names = dict.fromkeys(filter(None, (command.model or wanted.name, *wanted.fallback)))
    found, wrong = list[Model](), list[str]()
    for name in names:
        try:
            found.append(_model(settings, name))
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    return tuple(found), "; ".join(wrong)


def _model(settings: Settings, name: str) -> Model:
    wanted, provider = settings.model, provider_of(name)
    ours = provider == provider_of(wanted.name)
    key, base = _key(settings, provider, ours=ours), wanted.base_url if ours else ""
    price = price_of(wanted.prices[name]) if name in wanted.prices else None
    return Model(
        name=name, base_url=base or BASES.get(provider, ""), key=key, temperature=wanted.temperature,
        max_output=wanted.max_output, price_in=price.in_ if price else None, price_out=price.out if price else None,
        price_cached=price.cached if price else None,
    )  # fmt: skip


def _key(settings: Settings, provider: str, *, ours: bool) -> str:
    """The key of a provider, from where the settings say. Raises ``ValueError`` in words.

    A server of somebody else's (``base_url``) gets a key only where the settings name it.
    """
    wanted = settings.model
    if ours and wanted.api_key_file:
        try:
            with open(os.path.expanduser(wanted.api_key_file), "rb") as file:
                key = file.read(MAX_KEY).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            words = error.strerror if isinstance(error, OSError) else "it holds no key"
            raise ValueError(f"the key in {wanted.api_key_file} cannot be read: {words}") from None
        if not key:
            raise ValueError(f"the file {wanted.api_key_file} is empty; write the key into it")
        return key
    variable = (ours and wanted.api_key_env) or ("" if ours and wanted.base_url else KEYS.get(provider, ""))
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key and variable:
        raise ValueError(f"there is no key: set {variable} where the daemon is started, or write api_key_file")
    return key


def model_secrets(settings: Settings) -> dict[str, str]:
    """The keys of all models that a command could ask for, by a name for people."""
    models, _ = models_of(settings, Command(name="", body=""))
    known = {variable: os.environ.get(variable, "") for variable in KEYS.values() if variable}
    known |= {f"key of {provider_of(model.name)}": model.key for model in models if model.key not in known.values()}
    return {name: key for name, key in known.items() if key}


def _print(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Shut]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Shut])
    except (OSError, msgspec.DecodeError):
        return {}


class Purse:
    """The one implementation of ``host.Purse``. Safe to share between threads."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        breaker: Breaker,
        budgets: Budgets,
        book: UsageBook,
        notices: Notices,
        now: Callable[[], datetime],
    ) -> None:
        self._settings, self._breaker, self._notices = settings, breaker, notices
        self._budgets, self._book, self._now = budgets, book, now

    def models(self, command: Command) -> tuple[Model, ...]:
        """See ``host.Purse``. A task is not given a model that lets nobody in."""
        models, _ = models_of(self._settings(), command)
        return tuple(model for model in models if not command.task or not self._breaker.why(model))

    def spent(self, run: str, command: Command, step: Step) -> None:
        """See ``host.Purse``."""
        models, _ = models_of(self._settings(), command)
        for model in models:
            if model.name in step.blocked and self._breaker.open(model, step.blocked[model.name]):
                self._notices.forget(f"shut {model.name}")  # it may have been closed by another process meanwhile
                self._notices.tell(
                    f"{model.name} lets nobody in",
                    f"{step.blocked[model.name]}.\n\nTasks do not try it any more. When you have mended it, "
                    "drop any command for it, or run `fsagent model test`.",
                    key=f"shut {model.name}",
                )
        if step.model and step.model not in step.blocked and self._breaker.close(step.model):
            self._notices.forget(f"shut {step.model}")
        if step.usage:  # last: where the disk refuses, all of this is done again, and nothing may count twice
            self._book.add(
                Spent(time=self._now(), run=run, trigger=command.trigger, task=command.task, model=step.model,
                      usage=step.usage)
            )  # fmt: skip

    def exhausted(self, command: Command, used: Usage, steps: int, calls: int) -> str:
        """See ``host.Purse``. An engine that asks no model has no budget."""
        if command.engine == MODEL and not self.models(command):
            return self._no_model(command)
        if command.engine != MODEL and not used:
            return ""
        return self._told(self._budgets.check(command, used, steps, calls))

    def calls_left(self, command: Command, calls: int) -> float:
        """See ``host.Purse``."""
        return self._budgets.calls_left(command, calls)

    def bars(self, task: Task) -> str:
        """Why a task need not even be tried now, in words; "" where it may, or needs no model."""
        settings = self._settings()
        if not asks_a_model(task, settings):
            return ""
        command = Command(name=task.name, body="", task=task.name, model=str(task.settings.get("model", "")))
        if not self.models(command):
            return self._no_model(command)
        return self._told(self._budgets.blocked(task.name))

    def lines(self) -> list[str]:
        """What people should know."""
        return [*self._breaker.lines(), *self._budgets.near()] if self._settings().model.name else []

    def _told(self, found: Exhausted | None) -> str:
        """The reason in words; of a budget that all share there is one notice in its period."""
        if found is None:
            return ""
        if found.key:
            self._notices.tell("A budget is used up", f"{found.reason[0].upper()}{found.reason[1:]}.", key=found.key)
        return found.reason

    def _no_model(self, command: Command) -> str:
        models, wrong = models_of(self._settings(), command)
        shut = [f"{model.name} lets nobody in: {why}" for model in models if (why := self._breaker.why(model))]
        return "; ".join(filter(None, [wrong, *shut])) or "no model is named; write model: {name: …} into fsagent.yaml"
