"""Settings: what fsagent.yaml may say, what holds when it says nothing, and how a mistake in it is told."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from fsagent.errors import DocumentError, SettingsError
from fsagent.files.atomic import read_plain
from fsagent.files.documents import decode
from fsagent.files.fields import Duration, nearest, place, read_fields
from fsagent.files.yamltext import load_mapping
from fsagent.keepsettings import KeepSettings, keep_faults
from fsagent.mcpsettings import ServerSettings, server_faults, servers_of
from fsagent.model import MAX_DOCUMENT, Fault, Trigger
from fsagent.modelsettings import BudgetSettings, ModelSettings, budget_faults, model_faults
from fsagent.secrets import secret_faults
from fsagent.zones import system_zone

FILE = "fsagent.yaml"
Decision = Literal["allow", "ask", "deny"]
Rule = Decision | dict[str, Decision]
Rules = Sequence[tuple[str, Rule]]
"""All rules for one tool, each with the place in the settings where it stands (``tools: shell``). Never empty."""
DEFAULT_LISTEN = "127.0.0.1:8765"
DEFAULT_TOOLS: dict[str, Rule] = {"shell": "deny", "http": "deny"}

SETTINGS_TEMPLATE = """\
# Settings of this agent. Every line is optional; what is commented out shows the default.
# The daemon reads this file again on SIGHUP and when it changes; the agent itself can never write it.
# Durations are written 30s, 5m, 1h30m, 1d.

heartbeat_interval: 15m         # how often tasks without an 'every:' of their own fall due (at least 1s)

# timezone: Europe/Berlin       # for times in answers and files; default: the system's
# time_format: "%Y-%m-%d %H:%M:%S"   # how {{ now }} is written (strftime)

# engine: auto                  # auto | offline | an installed one; what decides about a command that names none
# timeout: 10m                  # a run longer than this is ended
# retries: 0                    # how often a failed command is tried again by itself
# retry_wait: 10s               # wait before the first retry; doubles each time, with jitter, up to 1h
# max_runs: 4                   # how many slow runs (a model, shell, http) may go on side by side

# settle: 1s                    # a file in inbox/ counts as complete when nothing touched it for so long
# settle_renamed: 150ms         # the same for a file that was moved into place as a whole (Syncthing, editors)
# scan_interval: 30s            # look at every place at least this often, whatever the system reports
# watch: auto                   # auto | events | poll; poll looks every second or so, where no events come
# attachment_wait: 10m          # how long a command waits for the attachments that it names
# shutdown_wait: 10s            # how long a stop waits for what still runs
# approval_timeout: 7d          # a question in approvals/ that nobody answers for so long counts as refused
# take_over_after: 0s           # another host takes over once the owner (owner.md) was silent for so long; 0s: never

# notify: []                    # where notices are pushed, too: [https://ntfy.sh/a-topic-that-nobody-guesses]
# notify_on: [approval]         # what else is pushed there: approval (a question waits for you), failure (a run failed)

# What the agent may do: allow | ask | deny for each tool, or patterns, of which the first that fits counts.
# 'ask' puts each call to you, as a file in approvals/. shell and http are denied unless you allow them.
# tools:
#   shell: {"df *": allow, "uptime": allow, "*": deny}
#   http: {"https://api.example.org/*": allow, "*": deny}
#   write: {"notes/*": allow, "*": ask}

# What a trigger (inbox, task, http, mcp, cli) may not do. Of the two decisions the stricter one counts, so this only
# takes away from what tools allows, never adds to it.
# triggers:
#   http: {shell: deny, write: {"notes/*": allow, "*": deny}}

# Which calls bring the owner's own text, by tool and pattern. What others bring is never taken as the owner's word.
# trust:
#   read: ["notes/*"]

# The model that is asked what the offline engine does not understand. Keys never stand here, only where to find them.
# model:
#   name: ollama:qwen3:8b         # provider:model; providers: ollama, openai, anthropic, google, openrouter
#   base_url: ""                  # for a server of your own, such as http://127.0.0.1:8080/v1 (with name: openai:…)
#   api_key_env: ""               # the variable that holds the key; the default is OPENAI_API_KEY and its like
#   api_key_file: ""              # or the file that does, outside this folder
#   fallback: []                  # models to ask where it does not answer
#   max_output: 4096              # the most tokens of one answer
#   prices: {}                    # $ per million tokens, such as {"openai:x": {in: 1.25, out: 10, cached: 0.125}}

# The most that may be used: by a run, by all runs of one task in a day, by all runs in a day, in a month. Amounts are
# written 200, 20k, 1.5M, or off; cost is in US dollars. Beyond that no model is asked.
# budget:
#   run: {steps: 50, calls: 200, tokens: 300k, cost: 1}
#   task: {runs: 300, tokens: 1M, cost: 2}
#   day: {runs: 1k, tokens: 3M, cost: 5}
#   month: {runs: 10k, tokens: 30M, cost: 50}

# What is kept, by place: how long, and how much. Beyond that the oldest goes, once a day. Ages are written 90d, 2y, or
# off; sizes 500MB, 2GB, or off. What ended less than 'unread' ago is never removed, nor what is not settled.
# keep:
#   unread: 30d
#   archive: {age: 1y, size: 1GB}
#   failed: {age: 2y, size: 1GB}
#   outbox: {age: 1y, size: 1GB}
#   runs: {age: 90d, size: 2GB}
#   journal: {age: 2y, size: 1GB}
#   usage: {age: 2y, size: 1GB}

# How the programs of the tool shell are locked in. They see the workspace, the system's programs, and nothing else.
# sandbox: auto                 # auto: by bubblewrap, else by Landlock, else they are refused; off: not at all
# sandbox_network: false        # true: they may use the network
# sandbox_read: []              # further places that they may read and run, such as ~/.local
# sandbox_write: []             # further places that they may change

# The tool http reaches no address of your own network, but for what stands here: names such as ha.local or *.lan,
# addresses, networks such as 192.168.1.0/24.
# http_private: []              # what the tool http may reach in your own network

# Secrets for the tool http: each is an environment variable or a file outside this folder, and the addresses that it
# may be sent to. In a header of a call, write {{ secrets.github }}. The values are masked in all that is shown.
# secrets:
#   github: {env: GITHUB_TOKEN, for: ["https://api.example.org/*"]}

# MCP servers, whose tools the agent may use: programs that are started, or addresses. ${NAME} is filled in from the
# daemon's environment. Each call is asked first, unless tools: allows it under the server's name.
# mcp_servers:
#   files: {command: npx, args: ["-y", "@modelcontextprotocol/server-filesystem", "/data"]}
#   home: {url: "http://ha.local:8123/api/mcp", headers: {Authorization: "Bearer ${HA_TOKEN}"}}

# HTTP and MCP. They start with the daemon where there is an 'api:', and let in who has a token (see: fsagent token).
# api:
#   listen: 127.0.0.1:8765        # address and port; 0.0.0.0:8765 lets other machines call, too
#   allowed_hosts: []             # further names under which it is called, such as ha.local
#   allowed_origins: []           # web pages that may call it, such as https://home.example.org
#   rate: 50                      # requests per second and token
"""


class ApiSettings(Struct, frozen=True, kw_only=True):
    """How HTTP and MCP are reached. Hosts are names or addresses without a port, origins have no path."""

    listen: str = DEFAULT_LISTEN
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    rate: int = 50

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on: an IP address (without brackets) or ``localhost``; port 0 takes any free one.

        Raises ``ValueError`` with what to write instead; never for settings that were loaded.
        """
        host, _, port = self.listen.rpartition(":")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ValueError(f"needs an address and a port from 0 to 65535; write for instance {DEFAULT_LISTEN}")
        if not host:
            raise ValueError(f"misses the address; write 127.0.0.1:{port}, or 0.0.0.0:{port} to let other machines in")
        bracketed = host[0] + host[-1] == "[]"
        bare = host[1:-1] if bracketed else host
        if host != "localhost" and _ip_version(bare) != (6 if bracketed else 4):
            raise ValueError(
                f"{host!r} is no address to listen on; write an IP address, such as {DEFAULT_LISTEN} or "
                f'"[::1]:{port}" (with the quotes), or localhost:{port}'
            )
        return bare, int(port)


class Settings(Struct, frozen=True, kw_only=True):
    """The settings in force. Durations in seconds; see ``SETTINGS_TEMPLATE`` for what each one means.

    ``api`` is None where HTTP and MCP do not start with the daemon.
    """

    heartbeat_interval: Duration = Duration(900)
    timezone: str = ""
    time_format: str = "%Y-%m-%d %H:%M:%S"
    engine: str = "auto"
    timeout: Duration = Duration(600)
    retries: int = 0
    retry_wait: Duration = Duration(10)
    max_runs: int = 4
    settle: Duration = Duration(1)
    settle_renamed: Duration = Duration(0.15)
    scan_interval: Duration = Duration(30)
    watch: Literal["auto", "events", "poll"] = "auto"
    attachment_wait: Duration = Duration(600)
    shutdown_wait: Duration = Duration(10)
    approval_timeout: Duration = Duration(7 * 86400)
    take_over_after: Duration = Duration(0)
    notify: tuple[str, ...] = ()
    notify_on: tuple[Literal["approval", "failure"], ...] = ("approval",)
    tools: dict[str, Any] = {}
    triggers: dict[str, Any] = {}
    trust: dict[str, Any] = {}
    model: ModelSettings = ModelSettings()
    budget: BudgetSettings = BudgetSettings()
    keep: KeepSettings = KeepSettings()
    sandbox: Literal["auto", "off"] = "auto"
    sandbox_network: bool = False
    sandbox_read: tuple[str, ...] = ()
    sandbox_write: tuple[str, ...] = ()
    http_private: tuple[str, ...] = ()
    secrets: dict[str, Any] = {}
    mcp_servers: dict[str, Any] = {}
    api: ApiSettings | None = None

    @property
    def zone(self) -> tzinfo | None:
        """The time zone of the settings; None for the system's own."""
        return zoneinfo.ZoneInfo(self.timezone) if self.timezone else None

    def local(self, moment: datetime) -> datetime:
        """An aware moment in the workspace's time zone."""
        return moment.astimezone(self.zone or system_zone())

    @property
    def runs_programs(self) -> bool:
        """True if the tool shell may run anything at all."""
        rule = self.tools.get("shell", DEFAULT_TOOLS["shell"])
        return any(word != "deny" for word in (rule.values() if isinstance(rule, dict) else (rule,)))

    @property
    def servers(self) -> dict[str, ServerSettings]:
        """The MCP servers by name."""
        return servers_of(self.mcp_servers)

    def trusts(self, tool: str, subject: str) -> bool:
        """True if what this call brings counts as the owner's own text (``trust``)."""
        patterns = self.trust.get(tool, ())
        return any(fnmatchcase(subject, each) for each in ([patterns] if isinstance(patterns, str) else patterns))

    def rules(self, trigger: Trigger, tool: str, narrowed: Mapping[str, Any] | None = None) -> Rules:
        """What the settings say of a tool in a run that ``trigger`` asked for; the strictest decision counts.

        ``tools`` always says something: where a tool is not named, ``allow``, but for shell and http; for the tools of
        an MCP server, which are ruled under its name, ``ask``. ``narrowed`` are the command's or task's own rules.
        """
        unnamed = DEFAULT_TOOLS.get(tool, "ask" if tool in self.mcp_servers else "allow")
        rules = [(f"tools: {tool}", self.tools.get(tool, unnamed))]
        for where, more in (
            (f"triggers: {trigger}", self.triggers.get(trigger, {})),
            ("its own tools", narrowed or {}),
        ):
            if tool in more:
                rules.append((f"{where}: {tool}", more[tool]))
        return rules


_Path = Sequence[str | int]
_NAME = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
_PRIVATE = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]*[a-z_-][a-z0-9_-]*", re.IGNORECASE)  # ends in no number
_A_HOST = "a name (ha.local, *.lan), an address (192.168.1.10) or a network (192.168.1.0/24)"
_ORIGIN = re.compile(rf"https?://({_NAME}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")
_ADDRESS = re.compile(
    rf"https?://([^\s/@?#\\]+@)?({_NAME}|\[[0-9A-Fa-f:.]+\])(?P<port>:[1-9][0-9]{{0,4}})?([/?][!-~]*)?"
)
_LEAST = {
    "heartbeat_interval": 1.0, "timeout": 0.001, "retry_wait": 0.0, "settle": 0.0, "settle_renamed": 0.0,
    "scan_interval": 0.05, "attachment_wait": 0.0, "shutdown_wait": 0.0,
    "approval_timeout": 1.0,
}  # fmt: skip


def load_settings(path: Path) -> Settings:
    """Read fsagent.yaml; a missing file means the defaults. Raises ``SettingsError`` with every fault in it."""
    try:
        raw = read_plain(path, MAX_DOCUMENT + 1)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError([Fault(FILE, f"cannot be read: {error.strerror}")]) from error
    try:
        fields = load_mapping(decode(raw, FILE)[0], FILE)
        settings = read_fields(Settings, fields, FILE)
    except DocumentError as error:
        raise SettingsError(error.faults) from None
    found = [*_faults(settings), *secret_faults(settings.secrets, path.parent)]
    faults = [Fault(FILE, message, *place(fields, where), _label(where)) for where, message in found]
    if faults:
        raise SettingsError(faults)
    return settings


def place_of(file: Path, path: _Path) -> tuple[int, int]:
    """Line and column of a setting (``("tools", "shell")``); (0, 0) where the file does not name it (any more)."""
    try:
        return place(load_mapping(decode(read_plain(file, MAX_DOCUMENT + 1), FILE)[0], FILE), path)
    except (OSError, DocumentError):
        return 0, 0


def _faults(settings: Settings) -> Iterator[tuple[_Path, str]]:
    """What no type can say: ranges, zones, time formats, rules for tools."""
    for name, least in _LEAST.items():
        if getattr(settings, name) < least:
            yield (name,), f"must be at least {least:g}s"
    if 0 < settings.take_over_after < 60:
        yield ("take_over_after",), "must be at least 60s, or 0s for never"
    if not 1 <= settings.max_runs <= 64:
        yield ("max_runs",), "must be between 1 and 64"
    if not 0 <= settings.retries <= 20:
        yield ("retries",), "must be between 0 and 20"
    try:
        if settings.timezone:
            zoneinfo.ZoneInfo(settings.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield ("timezone",), f"{settings.timezone!r} is no time zone; write for instance Europe/Berlin"
    try:
        datetime.now(UTC).strftime(settings.time_format).encode()
    except ValueError:
        yield ("time_format",), "is no strftime pattern"
    yield from rule_faults(("tools",), settings.tools)
    known = get_args(Trigger)
    for trigger, rules in settings.triggers.items():
        if trigger not in known:
            yield ("triggers", trigger), f"is no trigger{nearest(trigger, known)}; there are: {', '.join(known)}"
        elif not isinstance(rules, dict):
            yield ("triggers", trigger), "must be a map of tools and rules, such as {shell: deny}"
        else:
            yield from rule_faults(("triggers", trigger), rules)
    for name in ("sandbox_read", "sandbox_write"):
        for number, where in enumerate(getattr(settings, name)):
            if not where.startswith(("/", "~/")) or not where.strip("~/.") or "/../" in f"{where}/":
                yield (name, number), f"{where!r} is no place; write a path from / or ~/ on, such as ~/.local"
    for number, url in enumerate(settings.notify):
        found = _ADDRESS.fullmatch(url)
        if not found or int((found["port"] or ":1")[1:]) > 65535:
            yield ("notify", number), "is no address for a push; write for instance https://ntfy.sh/topic"
    for tool, patterns in settings.trust.items():
        if not isinstance(patterns, list | str) or not all(isinstance(each, str) for each in patterns):
            yield ("trust", tool), 'must be a list of patterns, such as ["notes/*"]'
    yield from ((("model", *path), message) for path, message in model_faults(settings.model))
    yield from ((("budget", *path), message) for path, message in budget_faults(settings.budget))
    yield from ((("keep", *path), message) for path, message in keep_faults(settings.keep))
    for number, host in enumerate(settings.http_private):
        if not _PRIVATE.fullmatch(host) and not _is_network(host):
            yield ("http_private", number), f"{host!r} is no host; write {_A_HOST}, without a port"
    yield from ((("mcp_servers", *path), message) for path, message in server_faults(settings.mcp_servers))
    if settings.api:
        yield from _api_faults(settings.api)


def rule_faults(path: _Path, rules: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    """What is wrong with a map from tools to rules, each with its place."""
    for tool, rule in rules.items():
        try:
            msgspec.convert(rule, Rule)
        except msgspec.ValidationError:
            yield (*path, tool), "must be allow, ask or deny, or a map from patterns to one of these"


def _api_faults(api: ApiSettings) -> Iterator[tuple[_Path, str]]:
    try:
        _ = api.address
    except ValueError as error:
        yield ("api", "listen"), str(error)
    for number, host in enumerate(api.allowed_hosts):
        if not re.fullmatch(_NAME, host) and not _ip_version(host.strip("[]")):
            yield ("api", "allowed_hosts", number), f"{host!r} is no host; write a name such as ha.local, and no port"
    for number, origin in enumerate(api.allowed_origins):
        if not _ORIGIN.fullmatch(origin):
            words = f"{origin!r} is no origin; write it without a path, such as https://home.example.org"
            yield ("api", "allowed_origins", number), words
    if not 1 <= api.rate <= 10_000:
        yield ("api", "rate"), "must be between 1 and 10000"


def _ip_version(text: str) -> int:
    """4 or 6 for an IP address, 0 for anything else."""
    from ipaddress import ip_address  # only a workspace with an 'api:' pays for it

    try:
        return ip_address(text).version
    except ValueError:
        return 0


def _is_network(text: str) -> bool:
    """True for an IP address, and for a network of them."""
    from ipaddress import ip_network

    try:
        return bool(ip_network(text))
    except ValueError:
        return False


def _label(path: _Path) -> str:
    return ".".join(part for part in path if isinstance(part, str))
