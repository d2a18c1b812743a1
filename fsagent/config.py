"""Settings: what fsagent.yaml may say, what holds when it says nothing, and how a mistake in it is told."""

from __future__ import annotations

import os
import zoneinfo
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fsagent.errors import DocumentError, SettingsError
from fsagent.files.documents import decode
from fsagent.files.fields import Duration, read_fields
from fsagent.files.yamltext import load_mapping
from fsagent.model import Fault

FILE = "fsagent.yaml"
Decision = Literal["allow", "ask", "deny"]
Rule = Decision | dict[str, Decision]
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
# max_runs: 4                   # how many slow runs (shell, http) may go on side by side

# settle: 1s                    # a file in inbox/ counts as complete when nothing touched it for so long
# settle_renamed: 150ms         # the same for a file that was moved into place as a whole (Syncthing, editors)
# scan_interval: 30s            # look at every place at least this often, whatever the system reports
# attachment_wait: 10m          # how long a command waits for the attachments that it names
# shutdown_wait: 10s            # how long a stop waits for what still runs

# What the agent may do: allow | ask | deny for each tool, or patterns, of which the first that fits counts.
# ('ask' means deny until approvals come with the model engine.) shell and http are denied unless you allow them.
# tools:
#   shell: {"df *": allow, "uptime": allow, "*": deny}
#   http: {"https://api.example.org/*": allow, "*": deny}
#   write: {"notes/*": allow, "*": ask}
"""


class Settings(Struct, frozen=True, kw_only=True):
    """The settings in force. Durations in seconds; see ``SETTINGS_TEMPLATE`` for what each one means."""

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
    attachment_wait: Duration = Duration(600)
    shutdown_wait: Duration = Duration(10)
    tools: dict[str, Any] = {}

    @property
    def zone(self) -> tzinfo | None:
        """The time zone of the settings; None for the system's own."""
        return zoneinfo.ZoneInfo(self.timezone) if self.timezone else None

    def local(self, moment: datetime) -> datetime:
        """An aware moment in the workspace's time zone."""
        return moment.astimezone(self.zone)

    def rule(self, tool: str) -> Rule:
        """What the settings say of a tool; ``allow`` where they say nothing, but for shell and http."""
        rule: Rule = self.tools.get(tool, DEFAULT_TOOLS.get(tool, "allow"))
        return rule


_LEAST = {
    "heartbeat_interval": 1.0, "timeout": 0.001, "retry_wait": 0.0, "settle": 0.0, "settle_renamed": 0.0,
    "scan_interval": 0.05, "attachment_wait": 0.0, "shutdown_wait": 0.0,
}  # fmt: skip


def load_settings(path: Path) -> Settings:
    """Read fsagent.yaml; a missing file means the defaults. Raises ``SettingsError`` with every fault in it."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError([Fault(FILE, f"cannot be read: {os.strerror(error.errno or 0)}")]) from error
    try:
        fields = load_mapping(decode(raw, FILE)[0], FILE)
        settings = read_fields(Settings, fields, FILE)
    except DocumentError as error:
        raise SettingsError(error.faults) from None
    faults = [Fault(FILE, message, *_line(fields, name), name) for name, message in _faults(settings)]
    if faults:
        raise SettingsError(faults)
    return settings


def _line(fields: Any, name: str) -> tuple[int, int]:
    from fsagent.files.yamltext import position

    return position(fields, name.split(".", maxsplit=1)[0])


def _faults(settings: Settings) -> list[tuple[str, str]]:
    """What no type can say: ranges, zones, time formats, rules for tools."""
    found = []
    for name, least in _LEAST.items():
        if getattr(settings, name) < least:
            found.append((name, f"must be at least {least:g}s"))
    if not 1 <= settings.max_runs <= 64:
        found.append(("max_runs", "must be between 1 and 64"))
    if not 0 <= settings.retries <= 20:
        found.append(("retries", "must be between 0 and 20"))
    try:
        if settings.timezone:
            zoneinfo.ZoneInfo(settings.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        found.append(("timezone", f"{settings.timezone!r} is no time zone; write for instance Europe/Berlin"))
    try:
        datetime.now(UTC).strftime(settings.time_format).encode()
    except ValueError:
        found.append(("time_format", "is no strftime pattern"))
    for tool, rule in settings.tools.items():
        try:
            msgspec.convert(rule, Rule)
        except msgspec.ValidationError:
            found.append((f"tools.{tool}", "must be allow, ask or deny, or a map from patterns to one of these"))
    return found
