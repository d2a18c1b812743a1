"""What went wrong between us and a model, in words for people: what it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from fsagent.config import FILE
from fsagent.engines.base import Model
from fsagent.modelfind import SUGGESTED, named_in
from fsagent.modeloffers import AnsweredError, address_of, better_base, host_of, offered
from fsagent.modelsettings import provider_of

if TYPE_CHECKING:
    from fsagent.engines.model.failures import Failure

Kind = Literal[
    "library", "key", "refused", "dns", "tls", "unreachable", "path", "denied", "quota", "model", "busy", "server",
    "tools", "empty", "odd", "stream", "timeout", "other",
]  # fmt: skip
SHOWN = 8
_REACHED = ("path", "denied", "quota", "model", "busy", "server", "tools", "empty", "odd", "stream")


class Trouble(Struct, frozen=True):
    """What is wrong, and what to do. Both are one line, or a few."""

    kind: Kind
    what: str
    do: str

    @property
    def reached(self) -> bool:
        """True if somebody answered at the address."""
        return self.kind in _REACHED


def missing(model_name: str) -> Trouble:
    """The library for this model is not installed."""
    provider = provider_of(model_name)
    extra = provider if provider in ("anthropic", "google") else "model"
    return Trouble("library", f"the library for {provider} is not installed", f"pip install 'fsagent[{extra}]'")


def of_connection(error: BaseException, model: Model) -> Trouble | None:
    """What kept us from reaching the address; None where the error is about something else."""
    import ssl
    from socket import gaierror

    where, base = host_of(address_of(model)), model.base_url
    local = provider_of(model.name) == "ollama"
    correct = f"correct model.base_url in {FILE}" if base and not local else "check the network of this machine"
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return Trouble(
                "tls", f"the certificate of {where} is not trusted: {each.verify_message or each}",
                "if it is your own, set SSL_CERT_FILE to the file of its authority, here and for the daemon",
            )  # fmt: skip
        if isinstance(each, ssl.SSLError):
            return Trouble("tls", f"{where} does not speak TLS as it should: {each.reason or each}",
                           f"if it has no TLS, write http:// in model.base_url in {FILE}")  # fmt: skip
        if isinstance(each, gaierror):
            return Trouble("dns", f"the name {where} is not found (DNS)", f"{correct}, or check the name")
        if isinstance(each, ConnectionRefusedError):
            if local:
                return Trouble("refused", f"nobody listens at {where}: Ollama does not run", "start it: ollama serve")
            return Trouble("refused", f"nobody listens at {where} (the connection is refused)",
                           f"start the server, or {correct}")  # fmt: skip
    if isinstance(error, TimeoutError) or any(type(each).__name__ == "ConnectTimeout" for each in _chain(error)):
        return Trouble("timeout", f"{where} does not answer", correct)
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno:
            return Trouble("unreachable", f"{where} cannot be reached: {each.strerror or each}", correct)
    return None


def of_failure(failure: Failure, error: BaseException, model: Model, seconds: float) -> Trouble:
    """What an error of a provider's library means."""
    if failure.kind == "timeout":
        return _slow(error, model, seconds)
    if failure.kind == "quota":
        return Trouble("quota", f"the account is used up ({failure.words})", "add credit there, or name another model")
    if failure.kind == "key":
        return _denied(failure, model)
    if failure.status == 404:
        return not_found(model, failure.words)
    if "does not support tools" in failure.said:
        return no_tools()
    if failure.status == 429:
        return Trouble("busy", f"too many requests ({failure.words})", "wait a little, then test again")
    if failure.status >= 500:
        return Trouble("server", f"the server has a fault of its own ({failure.words})",
                       "look into its log, or wait and test again")  # fmt: skip
    found = None if failure.status else of_connection(error, model)
    if found:
        return found
    if failure.kind == "unclear":
        return Trouble(
            "odd", f"it answers what cannot be understood ({failure.said})", f"check model.base_url in {FILE}"
        )
    what = f"the request is not accepted ({failure.words})" if failure.status else (failure.said or "it failed")
    return Trouble("other", what, f"check model.name and model.base_url in {FILE}")


def no_server(model: Model) -> Trouble:
    """Somebody answers, but nobody who knows models."""
    right = better_base(model)
    do = f'write into {FILE}: model: {{base_url: "{right}"}}' if right else f"correct model.base_url in {FILE}"
    return Trouble("path", f"what answers at {address_of(model)} is no model", do)


def no_tools(said: str = "") -> Trouble:
    """Without tools, an agent can only talk."""
    answer = f"; it answered: {said[:100]}" if said else ""
    words = "it does not call a tool that it is told to call" if said else "this model cannot use tools"
    return Trouble("tools", f"{words}{answer}", f"name one that can, such as {SUGGESTED['ollama']}")


def not_found(model: Model, said: str, seconds: float = 5.0) -> Trouble:
    """404: is it the path or the model? The list of models tells."""
    provider, name = provider_of(model.name), model.name.partition(":")[2]
    try:
        names = offered(model, seconds)
    except (OSError, AnsweredError):
        names = None
    right = "" if names and not _stray(said) else better_base(model, seconds)
    if right:
        return Trouble("path", f"there is nothing at {address_of(model)} ({said}), but at {right} there is",
                       f"write into {FILE}: model: {{base_url: \"{right}\"}}")  # fmt: skip
    if names is None and model.base_url:
        return Trouble("path", f"there is nothing at {address_of(model)} ({said}), and no list of models",
                       f"correct model.base_url in {FILE}; it often ends in /v1")  # fmt: skip
    pull = f"get it: ollama pull {name}" if provider == "ollama" else ""
    use = f"name one of these in {FILE}" if names else f"correct model.name in {FILE}"
    there = f"; there {'are' if len(names) > 1 else 'is'}: {listed(names, name)}" if names else ""
    return Trouble("model", f"there is no model {name}{there or f' ({said})'}", f"{pull}; or {use}" if pull else use)


def listed(names: list[str], wanted: str) -> str:
    """The names nearest to ``wanted``, and how many more there are."""
    near = named_in(names, wanted)
    more = f" and {len(near) - SHOWN} more (fsagent model list)" if len(near) > SHOWN else ""
    return ", ".join(near[:SHOWN]) + more


def of_list(error: Exception, model: Model, seconds: float) -> Trouble:
    """Why the list of models could not be had."""
    if not isinstance(error, AnsweredError):
        return of_connection(error, model) or Trouble("other", str(error), f"check model.base_url in {FILE}")
    if error.status in (401, 403):
        return Trouble("denied", f"the key is refused ({error.status}: {error.said})", "check the key")
    right = better_base(model, seconds) if error.status in (200, 404, 405) else ""
    if right:
        return Trouble("path", f"there is no list at {address_of(model)}, but at {right} there is",
                       f"write into {FILE}: model: {{base_url: \"{right}\"}}")  # fmt: skip
    return Trouble("other", str(error), "this server offers no list, it may answer all the same: fsagent model test")


def _slow(error: BaseException, model: Model, seconds: float) -> Trouble:
    if any(type(each).__name__ == "ConnectTimeout" for each in _chain(error)):
        return Trouble("timeout", f"{host_of(address_of(model))} does not answer the connection",
                       f"check model.base_url in {FILE}, the network and its firewalls")  # fmt: skip
    return Trouble("timeout", f"no answer within {seconds:g} s",
                   "a model that is loaded first may take longer: --timeout 5m; else look at the server")  # fmt: skip


def _denied(failure: Failure, model: Model) -> Trouble:
    if failure.status == 403:
        return Trouble("denied", f"the key may not do this ({failure.words})",
                       "check what the account may use, and from where")  # fmt: skip
    if not model.key:
        return Trouble("denied", f"it wants a key, and none is given ({failure.words})",
                       f"set a variable to it and name that in {FILE}: model: {{api_key_env: NAME}}")  # fmt: skip
    return Trouble("denied", f"the key is refused ({failure.words})",
                   "check that it is whole and of this provider, or make a new one there")  # fmt: skip


def _stray(said: str) -> bool:
    """True for a 404 that speaks of the path: no server that knows the path says it so."""
    return any(each in said.lower() for each in ("page not found", "invalid url", "not found for url", "no route"))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it."""
    seen: list[BaseException] = [error]
    for each in seen:
        yield each
        more = [each.__cause__, each.__context__]
        more += each.exceptions if isinstance(each, BaseExceptionGroup) else []
        seen += [one for one in more if one is not None and all(one is not known for known in seen)]
